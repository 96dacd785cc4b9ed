"""Kernels against their formulas, in blocks, over devices and in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdistill import settings, theory

X = np.random.default_rng(0).normal(size=(16, 3))
Y = np.random.default_rng(1).normal(size=(5, 3))
KERNELS = {
    "linear": theory.linear,
    "polynomial": functools.partial(theory.polynomial, degree=3, scale=0.5, offset=0.1),
    "rbf": functools.partial(theory.rbf, gamma=0.7),
    "matern12": functools.partial(theory.matern, smoothness=0.5, length=1.3),
    "matern32": functools.partial(theory.matern, smoothness=1.5, length=1.3),
    "matern52": functools.partial(theory.matern, smoothness=2.5, length=1.3),
    "nngp": functools.partial(theory.nngp, depth=2, bias_variance=0.1),
    "ntk": functools.partial(theory.ntk, depth=2, bias_variance=0.1),
}


@pytest.mark.parametrize(
    "name", ["linear", "polynomial", "rbf", "matern12", "matern32", "matern52"]
)
def test_equals_scikit_learn(name, wide):
    from sklearn.gaussian_process import kernels
    from sklearn.metrics import pairwise

    theirs = {
        "linear": pairwise.linear_kernel,
        "polynomial": functools.partial(pairwise.polynomial_kernel, degree=3, gamma=0.5, coef0=0.1),
        "rbf": functools.partial(pairwise.rbf_kernel, gamma=0.7),
        "matern12": kernels.Matern(1.3, nu=0.5),
        "matern32": kernels.Matern(1.3, nu=1.5),
        "matern52": kernels.Matern(1.3, nu=2.5),
    }
    found = KERNELS[name](jnp.asarray(X), jnp.asarray(Y))
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, theirs[name](X, Y), rtol=1e-12)


@pytest.mark.parametrize("name", KERNELS)
def test_is_positive_semidefinite_and_float32_is_near(name):
    with jax.enable_x64(True):
        exact = KERNELS[name](jnp.asarray(X))
        np.testing.assert_allclose(exact, exact.T, rtol=1e-12)
        assert float(jnp.linalg.eigvalsh(exact)[0]) > -1e-12
    low = KERNELS[name](jnp.asarray(X, jnp.float32))
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, exact, rtol=2e-5, atol=1e-6)
    half = KERNELS[name](jnp.asarray(X, jnp.bfloat16))
    assert half.dtype == jnp.float32


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_are_finite_at_equal_opposite_and_zero_points(name, wide):
    x = jnp.concatenate([jnp.asarray(X[:2]), -jnp.asarray(X[:1]), jnp.zeros((1, 3))])
    gradient = jax.grad(lambda x: jnp.sum(KERNELS[name](x)))(x)
    assert bool(jnp.isfinite(gradient).all())
    # Away from the kinks it is the derivative.
    y, direction = jnp.asarray(Y), jnp.asarray(Y[::-1].copy())
    value = lambda t: jnp.sum(jnp.sin(KERNELS[name](jnp.asarray(X), y + t * direction)))  # noqa: E731
    numeric = (value(1e-6) - value(-1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(value)(0.0), numeric, rtol=1e-6)


@pytest.mark.parametrize("block", [5, 16])
def test_blocks_change_nothing(block, wide):
    kernel = KERNELS["ntk"]
    x, y = jnp.asarray(X), jnp.asarray(Y)
    np.testing.assert_allclose(theory.gram(kernel, x, y, block=block), kernel(x, y), rtol=1e-12)
    found = jax.jit(functools.partial(theory.gram, kernel, block=block))(x)
    np.testing.assert_allclose(found, kernel(x), rtol=1e-12)
    ours = jax.grad(lambda x: jnp.sum(jnp.square(theory.gram(kernel, x, block=block))))(x)
    whole = jax.grad(lambda x: jnp.sum(jnp.square(kernel(x))))(x)
    np.testing.assert_allclose(ours, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("spec", [P("data"), P("data", "model"), P(("data", "model")), P()])
def test_eight_devices_compute_their_own_tiles(kind, spec, wide):
    mesh = jax.make_mesh((4, 2), ("data", "model"), (kind, kind))
    sharding = NamedSharding(mesh, spec)
    x = jnp.asarray(X)
    kernel = KERNELS["rbf"]
    found = theory.gram(kernel, x, block=3, sharding=sharding)
    assert found.sharding.is_equivalent_to(sharding, 2)
    np.testing.assert_allclose(np.asarray(found), kernel(x), rtol=1e-12)
    with jax.set_mesh(mesh):
        placed = jax.device_put(x, NamedSharding(mesh, P("data")))
        inside = jax.jit(lambda x: theory.gram(kernel, x, block=3, sharding=sharding))(placed)
    np.testing.assert_allclose(np.asarray(inside), kernel(x), rtol=1e-12)


def test_fits_from_a_sharded_kernel(wide):
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    kernel = KERNELS["rbf"]
    x, targets = jnp.asarray(X), jnp.ones((16, 1))
    sharded = theory.gram(kernel, x, sharding=NamedSharding(mesh, P("data")))
    fits = theory.path(sharded, targets, 0.1, 0.2, steps=3)
    plain = theory.path(kernel(x), targets, 0.1, 0.2, steps=3)
    np.testing.assert_allclose(np.asarray(fits.fitted), plain.fitted, rtol=1e-10)


def test_products_are_at_the_highest_precision():
    x = jnp.asarray(X, jnp.float32)
    kernel, targets, found = jnp.eye(16), jnp.ones((16, 1)), theory.spectrum(jnp.eye(16))
    traced = [
        jax.make_jaxpr(theory.linear)(x),
        jax.make_jaxpr(theory.ntk)(x),
        jax.make_jaxpr(theory.path)(kernel, targets, 0.1, jnp.ones(2)),
        jax.make_jaxpr(theory.fit_at)(found, targets, 0.1, 0.5, 3),
        jax.make_jaxpr(theory.leave_one_out)(found, targets, 0.1),
    ]
    products = 0
    for program in traced:
        for equation in _equations(program.jaxpr):
            if equation.primitive.name == "dot_general":
                products += 1
                assert "HIGHEST" in str(equation.params["precision"]), equation
    assert products > 5


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            equation.params, is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


@pytest.mark.parametrize("name", ["polynomial", "rbf", "matern", "nngp", "ntk"])
def test_settings_have_domains(name):
    found = settings.keys(getattr(theory, name))
    assert found
    for key, parameter in found.items():
        assert settings.fault(parameter.default, parameter.annotation) is None, key
        wrong = "product" if key == "angles" else -1.0
        assert settings.fault(wrong, parameter.annotation), key
    if name == "matern":
        told = settings.fault(2.0, found["smoothness"].annotation)
        assert told == "must be a number, 0.5, 1.5 or 2.5"
