"""Repeated self-distillation: the official toy, explicit refits, limit, weight, spectrum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import theory

# The eleven points of Mobahi et al. 2020 and the losses that the official notebook of Borup and
# Andersen prints for them: mean squared error to sin(2 pi x) on 101 points, six steps and the
# limit. The figures that its page lists under weight 0.25 a second time are those of weight 0.35.
POINTS = np.arange(0, 1.1, 0.1)[:, None]
TARGETS = [0.38476636465198066, 1.2333967683416893, 1.33232242218057, 0.6920159488889518]
TARGETS += [-0.29756145531871736, -0.24189291901377769, -0.7964485769175675, -0.9616480167034174]
TARGETS += [-0.49672509509916934, -0.3469066003991437, 0.5589512650600734]
TOY = {
    0.0: [0.16477, 0.15076, 0.14915, 0.15561, 0.16735, 0.18251, 0.49505],
    0.25: [0.16477, 0.15309, 0.14958, 0.14903, 0.14946, 0.15011, 0.15250],
    0.35: [0.16477, 0.15424, 0.15089, 0.14983, 0.14954, 0.14948, 0.14959],
}


def _toy(weight, dtype):
    x, y = jnp.asarray(POINTS, dtype), jnp.asarray(TARGETS, dtype)[:, None]
    grid = np.arange(0, 1.01, 0.01)[:, None]
    kernel, cross = theory.rbf(x, gamma=80.0), theory.rbf(jnp.asarray(grid, dtype), x, gamma=80.0)
    truth = jnp.asarray(np.sin(2 * np.pi * grid), dtype)
    loss = lambda found: float(jnp.mean(jnp.square(theory.predict(cross, found) - truth)))  # noqa: E731
    fits = theory.path(kernel, y, 0.2, weight, steps=6)
    at_once = theory.spectrum(kernel)
    losses = [loss(coefficients) for coefficients in fits.coefficients]
    direct = [loss(theory.fit_at(at_once, y, 0.2, weight, t).coefficients) for t in range(1, 7)]
    zero = jnp.zeros_like(y)
    last = theory.limit(kernel, y, 0.2, weight).coefficients if weight else zero
    return [*losses, loss(last)], [*direct, loss(last)]


@pytest.mark.parametrize("weight", TOY)
def test_the_official_toy(weight):
    for found in _toy(weight, jnp.float32):
        np.testing.assert_allclose(found, TOY[weight], atol=1e-3)
    with jax.enable_x64(True):
        for found in _toy(weight, jnp.float64):
            np.testing.assert_allclose(found, TOY[weight], atol=1e-5)


def _refits(case, weights):
    """Every step as a fit of its own, by the normal equations."""
    kernel, targets = case["kernel"], case["targets"]
    system = kernel + case["ridge"] * np.eye(len(kernel))
    before, coefficients = targets, []
    for weight in weights:
        coefficients.append(np.linalg.solve(system, weight * targets + (1 - weight) * before))
        before = kernel @ coefficients[-1]
    return np.stack(coefficients)


def _near(found, expected, relative=1e-8):
    found, expected = np.asarray(found), np.asarray(expected)
    assert np.linalg.norm(found - expected) <= relative * np.linalg.norm(expected)


def test_a_path_equals_explicit_refits(case):
    kernel, targets, ridge = (
        jnp.asarray(case["kernel"]),
        jnp.asarray(case["targets"]),
        case["ridge"],
    )
    found = theory.spectrum(kernel)
    inside = jnp.matmul(found.vectors.T, targets)
    for weights in (
        case["weights"],
        np.zeros(6),
        np.full(6, 0.3),
        np.array([9, -0.5, 1.7, 0, 1, 2]),
    ):
        expected = _refits(case, weights)
        fits = theory.path(kernel, targets, ridge, jnp.asarray(weights))
        _near(fits.fitted, kernel @ expected)
        cross = jnp.asarray(case["cross"])
        _near(theory.predict(cross, fits.coefficients), cross @ expected)
        # by eigen-directions, and as a polynomial in the first
        kept = theory.filters(found.values, ridge, jnp.asarray(weights))
        _near(jnp.einsum("ij,tj,jc->tic", found.vectors, kept, inside), kernel @ expected)
        powers = theory.polynomial_coefficients(jnp.asarray(weights))
        np.testing.assert_allclose(jnp.sum(powers), 1, rtol=1e-12)
        # Step 1 has no weight of its own; one of exactly 1 later makes those before it moot.
        if 1 not in weights:
            back = theory.weights_of(powers)
            np.testing.assert_allclose(back[1:], weights[1:], rtol=1e-8, atol=1e-12)
        shrink = found.values / (found.values + ridge)
        by_powers = sum(c * shrink ** (j + 1) for j, c in enumerate(powers))
        _near(jnp.matmul(found.vectors, by_powers[:, None] * inside), kernel @ expected[-1])


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 1.4, -0.2])
def test_a_step_directly_and_from_the_first_fit(case, weight):
    kernel, targets, ridge = (
        jnp.asarray(case["kernel"]),
        jnp.asarray(case["targets"]),
        case["ridge"],
    )
    found, cross = theory.spectrum(kernel), jnp.asarray(case["cross"])
    expected = _refits(case, np.full(5, weight))
    first = jnp.matmul(found.vectors.T, kernel @ expected[0])
    at = jax.jit(lambda step: theory.fit_at(found, targets, ridge, weight, step))
    for step in (1, 2, 5):
        fit = at(step)
        _near(fit.fitted, kernel @ expected[step - 1])
        _near(theory.predict(cross, fit.coefficients), cross @ expected[step - 1])
        ratio = theory.first_fit_filter(found.values, ridge, weight, step)
        _near(jnp.matmul(found.vectors, ratio[:, None] * first), kernel @ expected[step - 1])
    every = theory.filters(found.values, ridge, weight, steps=5)
    direct = [theory.filter_at(found.values, ridge, weight, step) for step in range(1, 6)]
    np.testing.assert_allclose(jnp.stack(direct), every, rtol=1e-10)


@pytest.mark.parametrize("weight", [0.05, 0.4, 1.0])
def test_the_limit_is_a_ridge_and_its_rate(case, weight):
    kernel, targets, ridge = (
        jnp.asarray(case["kernel"]),
        jnp.asarray(case["targets"]),
        case["ridge"],
    )
    values = theory.spectrum(kernel).values
    end = theory.limit(kernel, targets, ridge, weight)
    _near(theory.path(kernel, targets, ridge, weight, steps=600).fitted[-1], end.fitted)
    amplified = theory.ridge_fit(kernel, targets, ridge / weight)
    np.testing.assert_allclose(end.coefficients, amplified.coefficients)
    last = theory.limit_filter(values, ridge, weight)
    every = theory.filters(values, ridge, weight, steps=8)
    rate = float(theory.limit_rate(values, ridge, weight))
    gaps = np.asarray(every - last[None])
    quotient = (1 - weight) * values / (values + ridge)
    np.testing.assert_allclose(gaps[1:], quotient[None] * gaps[:-1], rtol=1e-6, atol=1e-13)
    assert np.all(np.abs(gaps[1:]) <= rate * np.abs(gaps[:-1]) + 1e-14)
    np.testing.assert_allclose(gaps[1:, -1], rate * gaps[:-1, -1], rtol=1e-6, atol=1e-13)


def test_without_ground_truth_all_is_lost(case):
    fits = theory.path(
        jnp.asarray(case["kernel"]), jnp.asarray(case["targets"]), case["ridge"], 0.0, steps=8
    )
    sizes = jnp.linalg.norm(fits.fitted, axis=(1, 2))
    assert bool((sizes[1:] <= sizes[:-1]).all())


def _two_fits(case):
    """Training and validation predictions of the first fit and of the one to its predictions."""
    first = _refits(case, [1.0])[0]
    alone = np.linalg.solve(
        case["kernel"] + case["ridge"] * np.eye(len(case["kernel"])), case["kernel"] @ first
    )
    return [
        jnp.asarray(matrix @ c)
        for matrix in (case["kernel"], case["cross"])
        for c in (first, alone)
    ]


def test_the_error_is_a_parabola_in_the_weight(case):
    _, _, first, alone = _two_fits(case)
    truth = jnp.asarray(case["validation"])
    best = theory.optimal_weight(truth, first, alone, clip=False)
    np.testing.assert_allclose(best.weight, best.free)
    clipped = theory.optimal_weight(truth, first, alone)
    assert float(clipped.weight) == min(max(float(best.free), 0.0), 1.0)
    errors = []
    for weight in np.linspace(-1, 2, 13):
        coefficients = _refits(case, [1.0, weight])[1]
        error = float(jnp.sum(jnp.square(truth - case["cross"] @ coefficients)))
        expected = float(best.error + best.curvature * (weight - best.free) ** 2)
        np.testing.assert_allclose(error, expected, rtol=1e-8)
        if 0 <= weight <= 1:
            errors.append(error)
    assert float(clipped.error) <= min(errors) * (1 + 1e-12)
    # the three forms of the minimum are one
    gap = float(jnp.sum(jnp.square(first - alone)))
    half = (jnp.sum(jnp.square(truth - alone)) - jnp.sum(jnp.square(truth - first))) / (2 * gap)
    np.testing.assert_allclose(best.free, 0.5 + half, rtol=1e-6)
    projection = jnp.sum((truth - alone) * (first - alone)) / gap
    np.testing.assert_allclose(best.free, projection, rtol=1e-6)


def test_on_the_fitted_targets_the_estimate_is_useless(case):
    first, alone, _, _ = _two_fits(case)
    best = theory.optimal_weight(jnp.asarray(case["targets"]), first, alone)
    assert float(best.free) >= 1
    assert float(best.weight) == 1


def test_equal_fits_leave_the_weight_at_one(wide):
    x = jnp.ones((3, 1))
    best = theory.optimal_weight(2 * x, x, x, clip=False)
    assert (float(best.weight), float(best.error)) == (1.0, 3.0)
    almost = theory.optimal_weight(2 * x, x, x * (1 + 1e-16), clip=False)
    assert float(almost.weight) == 1.0


@pytest.mark.parametrize("clip", [True, False])
def test_weights_chosen_step_by_step(case, clip):
    kernel, cross = jnp.asarray(case["kernel"]), jnp.asarray(case["cross"])
    targets, truth = jnp.asarray(case["targets"]), jnp.asarray(case["validation"])
    found = theory.chosen_path(kernel, targets, case["ridge"], cross, truth, steps=4, clip=clip)
    same = theory.path(kernel, targets, case["ridge"], found.weights)
    _near(found.fits.fitted, same.fitted)
    predictions = theory.predict(cross, same.coefficients)
    errors = jnp.sum(jnp.square(predictions - truth[None]), axis=(1, 2))
    np.testing.assert_allclose(found.errors, errors, rtol=1e-8)
    assert bool((found.errors <= found.errors[0] * (1 + 1e-9)).all())
    for other in (-0.1, 0.1):  # no other weight of the second step is better
        moved = found.weights.at[1].add(other)
        if clip:
            moved = jnp.clip(moved, 0, 1)
        fit = theory.path(kernel, targets, case["ridge"], moved[:2]).coefficients[1]
        error = jnp.sum(jnp.square(theory.predict(cross, fit) - truth))
        assert float(error) >= float(found.errors[1]) * (1 - 1e-9)


def test_the_identity_with_the_derivative_in_the_ridge(case):
    """Distilling once from the teacher alone is a step of first order in the ridge, exactly."""
    kernel, targets = jnp.asarray(case["kernel"]), jnp.asarray(case["targets"])
    ridge = jnp.asarray(case["ridge"])
    fit = lambda ridge: theory.ridge_fit(kernel, targets, ridge).fitted  # noqa: E731
    first, slope = jax.jvp(fit, (ridge,), (jnp.ones_like(ridge),))
    alone = theory.path(kernel, targets, ridge, 0.0, steps=2).fitted[1]
    _near(alone, first + ridge * slope)


def test_what_is_monotone(case):
    values, ridge = theory.spectrum(jnp.asarray(case["kernel"])).values, case["ridge"]
    first = theory.filters(values, ridge, 1.0, steps=1)
    ratios = theory.filter_ratios(first)
    seen = values > 0
    for weights in (np.zeros(6), np.full(6, 0.3), case["weights"], np.sort(case["weights"])[::-1]):
        every = theory.filters(values, ridge, jnp.asarray(weights))
        assert bool(((every >= 0) & (every <= 1)).all())
        assert bool((jnp.diff(every, axis=1) >= -1e-15).all())  # larger eigenvalues are kept more
        later = theory.filter_ratios(every)[:, seen]
        assert bool((later >= ratios[:, seen] * (1 - 1e-12)).all())
        if np.all(np.diff(weights[1:]) <= 0):
            assert bool((jnp.diff(every, axis=0) <= 1e-15).all())
        if not weights.any():
            power = jnp.arange(1.0, 7)[:, None]
            np.testing.assert_allclose(later, ratios[:, seen] ** power, rtol=1e-9)
    limit = theory.filter_ratios(theory.limit_filter(values, ridge, 0.3))
    assert bool((limit[seen] >= ratios[0, seen] * (1 - 1e-12)).all())


def test_what_is_not_monotone(wide):
    # eigenvalues whose first fit keeps 0.01 and 0.9
    values = jnp.array([1.0 / 99, 9.0])
    ratios = theory.filter_ratios(theory.filters(values, 1.0, 0.3, steps=4))[:, 0]
    np.testing.assert_allclose(ratios, [90.0, 272.6, 263.9, 255.6], atol=0.05)
    assert not bool((jnp.diff(ratios) >= 0).all())
    # a weight that grows brings back what was lost
    every = theory.filters(values, 1.0, jnp.array([1.0, 0.0, 1.0]))
    assert bool((every[2] > every[1]).all())


def test_float32_paths_stay_near(case):
    wide = [jnp.asarray(case[name]) for name in ("kernel", "targets", "weights")]
    ridge = 0.01 * float(np.linalg.norm(case["kernel"], 2))
    exact = theory.path(wide[0], wide[1], ridge, wide[2])
    low = [array.astype(jnp.float32) for array in wide]
    found = theory.path(low[0], low[1], ridge, low[2])
    assert found.fitted.dtype == jnp.float32
    _near(found.fitted, exact.fitted, 1e-3)
