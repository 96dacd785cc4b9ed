"""Kernels of neural nets against integrals, wide random nets and explicit Jacobians."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import theory
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import from_function


def _by_the_book(x, y, depth, weight, bias):
    """The recursion as it is printed, in numpy."""
    width = x.shape[1]
    products = [bias + weight * a @ b.T / width for a, b in ((x, y), (x, x), (y, y))]
    covariance, left, right = products[0], np.diag(products[1]), np.diag(products[2])
    tangent = covariance
    for _ in range(depth):
        size = np.sqrt(np.outer(left, right))
        cosine = np.clip(covariance / size, -1, 1)
        angle = np.arccos(cosine)
        covariance = bias + weight * size * (np.sin(angle) + (np.pi - angle) * cosine) / (2 * np.pi)
        tangent = covariance + weight * (np.pi - angle) / (2 * np.pi) * tangent
        left, right = bias + weight * left / 2, bias + weight * right / 2
    return covariance, tangent


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize(("weight", "bias"), [(2.0, 0.0), (1.5, 0.3)])
def test_the_recursion(depth, weight, bias, wide):
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(6, 4)), draw.normal(size=(3, 4))
    options = {"depth": depth, "weight_variance": weight, "bias_variance": bias}
    covariance, tangent = _by_the_book(x, y, depth, weight, bias)
    np.testing.assert_allclose(theory.nngp(jnp.asarray(x), jnp.asarray(y), **options), covariance)
    np.testing.assert_allclose(theory.ntk(jnp.asarray(x), jnp.asarray(y), **options), tangent)


def test_closed_values_of_equal_orthogonal_and_opposite_points():
    x = jnp.array([[3.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    for depth in (1, 2, 5):
        # weight variance 2 keeps the variance p = 2 |x|^2 / D, and every layer adds it once more
        kernel = theory.ntk(x, depth=depth)
        np.testing.assert_allclose(jnp.diagonal(kernel), (depth + 1) * jnp.array([9.0, 4, 9]), 1e-6)
        np.testing.assert_allclose(
            jnp.diagonal(theory.nngp(x, depth=depth)), jnp.array([9.0, 4, 9]), 1e-6
        )
    np.testing.assert_allclose(theory.nngp(x)[0], [9, 6 / np.pi, 0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(theory.ntk(x)[0], [18, 6 / np.pi, 0], rtol=1e-6, atol=1e-6)


def test_near_points_keep_their_digits_in_float32():
    near = np.array([[1.0, 1.0], [1.0, 1.001]])
    for kernel in (theory.nngp, theory.ntk):
        low = kernel(jnp.asarray(near, jnp.float32), depth=4)
        with jax.enable_x64(True):
            exact = kernel(jnp.asarray(near, jnp.float64), depth=4)
        np.testing.assert_allclose(low, exact, rtol=3e-6)


def test_angles_from_products_are_those_from_differences_but_for_rounding():
    draw = np.random.default_rng(1)
    x, y = (jnp.asarray(draw.normal(size=(n, 30)), jnp.float32) for n in (5, 7))
    for kernel in (theory.nngp, theory.ntk):
        options = {"depth": 2, "bias_variance": 0.1}
        exact = kernel(x, y, **options)
        np.testing.assert_allclose(kernel(x, y, angles="products", **options), exact, rtol=3e-6)
        own, exact = kernel(x, angles="products", **options), kernel(x, **options)
        np.testing.assert_allclose(own, exact, rtol=3e-6)
        np.testing.assert_array_equal(jnp.diagonal(own), jnp.diagonal(exact))
    # Where points are equal the angle is the root of the machine's epsilon, its slope finite.
    met = jax.grad(lambda x: theory.ntk(x, jnp.array(x), angles="products").sum())(x)
    assert np.isfinite(met).all()


def _scaled_net(width, weight, bias):
    """Two hidden layers whose parameters are standard normal and scaled in the forward pass."""

    def init(key, x):
        sizes = ((x.shape[1], width), (width, width), (width, 1))
        keys = jax.random.split(key, 2 * len(sizes))
        params = {}
        for i, size in enumerate(sizes):
            params[f"w{i}"] = jax.random.normal(keys[2 * i], size)
            params[f"b{i}"] = jax.random.normal(keys[2 * i + 1], size[1:])
        return params, {}

    def apply(params, state, x, train, rng):
        for i in range(3):
            product = jnp.matmul(x, params[f"w{i}"])
            x = (weight / x.shape[1]) ** 0.5 * product + bias**0.5 * params[f"b{i}"][None]
            x = jax.nn.relu(x) if i < 2 else x
        return x, {}, state

    return from_function(init, apply)


def test_a_wide_random_net():
    """The tangent kernel of one draw, and the covariance of outputs over many."""
    options = {"weight_variance": 2.0, "bias_variance": 0.2, "depth": 2}
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    net = _scaled_net(1024, 2.0, 0.2)
    params, state = net.init(jax.random.key(0), x)
    found = jax.jit(lambda p: theory.empirical_ntk(net, p, state, x, outputs="mean"))(params)
    expected = theory.ntk(x, **options)
    assert float(jnp.max(jnp.abs(found - expected)) / jnp.max(expected)) < 0.06

    small = _scaled_net(128, 2.0, 0.2)

    def outputs(key):
        return small.apply(small.init(key, x)[0], {}, x).out[:, 0]

    draws = jax.jit(lambda keys: jax.lax.map(outputs, keys))(
        jax.random.split(jax.random.key(1), 2000)
    )
    covariance = jnp.matmul(draws.T, draws) / draws.shape[0]
    expected = theory.nngp(x, **options)
    assert float(jnp.max(jnp.abs(covariance - expected)) / jnp.max(expected)) < 0.1


def _jacobians(net, params, state, x):
    flat = lambda p: net.apply(p, state, x).out.reshape(x.shape[0], -1)  # noqa: E731
    jacobian = jax.jacrev(flat)(params)
    rows = [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(jacobian)]
    return jnp.concatenate(rows, -1)


@pytest.mark.parametrize("block", [3, 64])
def test_empirical_kernel_equals_explicit_jacobians(block, wide):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.Conv(3, (2, 2), param_dtype=jnp.float64)(x)
            x = nn.BatchNorm(use_running_average=not train, param_dtype=jnp.float64)(x)
            return nn.Dense(4, param_dtype=jnp.float64)(nn.tanh(x).reshape(x.shape[0], -1))

    net = from_linen(Net())
    draw = np.random.default_rng(0)
    x, y = jnp.asarray(draw.normal(size=(5, 4, 4, 1))), jnp.asarray(draw.normal(size=(2, 4, 4, 1)))
    with jax.numpy_dtype_promotion("standard"):  # its running statistics are float32
        _compare(net, x, y, block)


def _compare(net, x, y, block):
    params, state = net.init(jax.random.key(0), x)
    left, right = (_jacobians(net, params, state, z) for z in (x, y))
    expected = jnp.einsum("ikp,jlp->ijkl", left, right)
    found = theory.empirical_ntk(net, params, state, x, y, block=block)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    mean = theory.empirical_ntk(net, params, state, x, y, outputs="mean", block=block)
    np.testing.assert_allclose(mean, jnp.einsum("ijkk->ij", expected) / 4, rtol=1e-9, atol=1e-12)
    own = theory.empirical_ntk(net, params, state, x, block=block)
    theory.spectrum(own.transpose(0, 2, 1, 3).reshape(20, 20))  # symmetric, positive semi-definite


def test_empirical_kernel_over_devices(wide):
    net = from_linen(nn.Dense(2, param_dtype=jnp.float64))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)))
    params, state = net.init(jax.random.key(0), x)
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    kernel = lambda x, y: theory.empirical_ntk(net, params, state, x, y, outputs="mean")  # noqa: E731
    found = theory.gram(kernel, x, sharding=sharding)
    np.testing.assert_allclose(np.asarray(found), jnp.matmul(x, x.T) + 1, rtol=1e-12)
