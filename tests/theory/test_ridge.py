"""Ridge fits against the normal equations, on singular kernels too; gradients, cross-validation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import theory


def _solve(kernel, targets, ridge):
    return np.linalg.solve(kernel + ridge * np.eye(len(kernel)), targets)


def test_equals_the_normal_equations_by_both_ways(case):
    expected = _solve(case["kernel"], case["targets"], case["ridge"])
    kernel, targets = jnp.asarray(case["kernel"]), jnp.asarray(case["targets"])
    ours = theory.ridge_fit(kernel, targets, case["ridge"])
    spectral = theory.spectral_fit(theory.spectrum(kernel), targets, case["ridge"])
    size = np.linalg.norm(expected)
    for fit in (ours, spectral, jax.jit(theory.ridge_fit)(kernel, targets, case["ridge"])):
        if fit is not spectral:  # which leaves out what the kernel does not see
            assert np.linalg.norm(fit.coefficients - expected) <= 1e-9 * size
        np.testing.assert_allclose(fit.fitted, case["kernel"] @ expected, rtol=1e-8, atol=1e-8)
        at_new = theory.predict(jnp.asarray(case["cross"]), fit.coefficients)
        np.testing.assert_allclose(at_new, case["cross"] @ expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("ridge", [0.0, 1e-300, 1e-17])
def test_no_ridge_is_least_norm(case, ridge):
    kernel, targets = jnp.asarray(case["kernel"]), jnp.asarray(case["targets"])
    expected = np.linalg.pinv(case["kernel"], rcond=1e-12, hermitian=True) @ case["targets"]
    for fit in (
        theory.ridge_fit(kernel, targets, ridge),
        theory.spectral_fit(theory.spectrum(kernel), targets, ridge),
    ):
        assert bool(jnp.isfinite(fit.coefficients).all())
        np.testing.assert_allclose(fit.fitted, case["kernel"] @ expected, rtol=1e-6, atol=1e-6)


def test_float32_on_singular_kernels_is_as_near_as_rounding_allows(case):
    ridge = 0.01 * float(np.linalg.norm(case["kernel"], 2))
    exact = case["kernel"] @ _solve(case["kernel"], case["targets"], ridge)
    kernel, targets = (jnp.asarray(case[k], jnp.float32) for k in ("kernel", "targets"))
    fit = theory.ridge_fit(kernel, targets, ridge)
    assert fit.fitted.dtype == jnp.float32
    np.testing.assert_allclose(fit.fitted, exact, atol=1e-4)
    # With a ridge at the size of rounding there is no Cholesky factor, and still a fit.
    tiny = theory.ridge_fit(kernel, targets, ridge * 1e-8)
    loose = theory.ridge_fit(kernel, targets, ridge * 1e-2)
    assert bool(jnp.isfinite(tiny.coefficients).all())
    assert float(jnp.linalg.norm(tiny.fitted)) <= 1.001 * float(jnp.linalg.norm(targets))
    error = lambda fit: float(jnp.linalg.norm(fit.fitted - targets))  # noqa: E731
    assert error(tiny) <= error(loose) + 1e-3


def test_gradients_and_second_derivatives_at_a_singular_kernel(wide):
    draw = np.random.default_rng(9)
    thin, moved = (jnp.asarray(draw.normal(size=(7, k))) for k in (3, 7))
    kernel, targets = theory.linear(thin), jnp.asarray(draw.normal(size=(7, 2)))
    moves = theory.linear(moved), jnp.asarray(draw.normal(size=(7, 2))), 0.3

    def loss(t):
        inputs = kernel + t * moves[0], targets + t * moves[1], 0.2 + t * moves[2]
        fits = theory.path(*inputs, 0.3, steps=2)
        return jnp.sum(jnp.sin(fits.coefficients[0])) + jnp.sum(jnp.square(fits.fitted[1]))

    # Under jit a kernel that is a little indefinite is let pass.
    loss, step = jax.jit(loss), 1e-6
    slope = jax.jit(jax.grad(loss))
    numeric = (loss(step) - loss(-step)) / (2 * step)
    np.testing.assert_allclose(slope(0.0), numeric, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(loss, (0.0,), (1.0,))[1], numeric, rtol=1e-6)
    numeric = (slope(step) - slope(-step)) / (2 * step)
    np.testing.assert_allclose(jax.jvp(slope, (0.0,), (1.0,))[1], numeric, rtol=1e-6)


def test_gradients_are_finite_for_repeated_eigenvalues_and_without_a_factor(wide):
    targets = jnp.arange(4.0)[:, None]
    for kernel, ridge in ((jnp.eye(4), 0.5), (jnp.ones((4, 4)), 0.0), (jnp.zeros((4, 4)), 0.0)):
        gradients = jax.grad(
            lambda k, y, r: jnp.sum(theory.ridge_fit(k, y, r).fitted), argnums=(0, 1, 2)
        )(kernel, targets, ridge)
        assert all(bool(jnp.isfinite(g).all()) for g in gradients)


def test_leave_one_out_equals_leaving_out(case):
    kernel, targets, ridge = case["kernel"], case["targets"], case["ridge"]
    found = theory.spectrum(jnp.asarray(kernel))
    residuals = theory.leave_one_out(found, jnp.asarray(targets), ridge)
    for i in range(len(kernel)):
        rest = np.arange(len(kernel)) != i
        inner = _solve(kernel[np.ix_(rest, rest)], targets[rest], ridge)
        expected = targets[i] - kernel[i, rest] @ inner
        np.testing.assert_allclose(residuals[i], expected, rtol=1e-7, atol=1e-9)


def test_generalised_cross_validation_is_its_formula(case):
    kernel, targets, ridge = case["kernel"], case["targets"], case["ridge"]
    size = len(kernel)
    left = np.eye(size) - kernel @ np.linalg.inv(kernel + ridge * np.eye(size))
    expected = np.mean((left @ targets) ** 2, axis=0) / (np.trace(left) / size) ** 2
    found = theory.spectrum(jnp.asarray(kernel))
    ours = theory.generalised_cross_validation(found, jnp.asarray(targets), ridge)
    np.testing.assert_allclose(ours, expected, rtol=1e-8)
    # Where every point has the same share the two are one.
    same = theory.spectrum(jnp.eye(4))
    y = jnp.arange(4.0)[:, None]
    alone = jnp.mean(jnp.square(theory.leave_one_out(same, y, 0.3)), axis=0)
    np.testing.assert_allclose(theory.generalised_cross_validation(same, y, 0.3), alone)


def test_small_ridges_cancel_nothing(wide):
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(8, 8)))
    found, y = theory.spectrum(theory.linear(x)), jnp.asarray(draw.normal(size=(8, 1)))
    inverse = np.linalg.inv(theory.linear(x))
    expected = inverse @ np.asarray(y) / np.diag(inverse)[:, None]
    np.testing.assert_allclose(theory.leave_one_out(found, y, 1e-30), expected, rtol=1e-8)


def test_ten_outputs_and_vmap_over_ridges(wide):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))
    kernel, targets = theory.rbf(x), jnp.ones((6, 10))
    ridges = jnp.array([0.1, 1.0])
    many = jax.vmap(lambda ridge: theory.ridge_fit(kernel, targets, ridge).fitted)(ridges)
    for ridge, fitted in zip((0.1, 1.0), many, strict=True):
        np.testing.assert_allclose(fitted, theory.ridge_fit(kernel, targets, ridge).fitted)


def test_one_factorisation_and_one_solve_a_step():
    kernel, targets = jnp.eye(4), jnp.ones((4, 1))
    text = str(jax.make_jaxpr(lambda k, y: theory.path(k, y, 0.1, 0.5, steps=20))(kernel, targets))
    assert text.count("= cholesky") == 1
    assert text.count("= custom_linear_solve") == 2  # the same scan over either factor
    assert text.count("= eigh") == 1  # in the branch that singular kernels take
