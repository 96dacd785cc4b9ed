"""What others proved, against simulation, bounds, brute force and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import theory


def _spectrum(seed, size=6):
    draw = np.random.default_rng(seed)
    values = np.sort(10 ** draw.uniform(-1, 1, size=size))
    return jnp.asarray(values), jnp.asarray(3 * draw.normal(size=size))


@pytest.mark.parametrize("seed", range(4))
def test_constrained_rounds(seed, wide):
    values, coordinates = _spectrum(seed)
    size, error = values.size, 0.05
    radius = np.sqrt(size * error)
    found = theory.constrained_rounds(values, coordinates, error, 60)
    norm, kept = float(jnp.linalg.norm(coordinates)), np.ones(size)
    alive = 0
    for multiplier, filtered in zip(found.multipliers, found.filters, strict=True):
        if norm <= radius:
            assert np.isinf(multiplier)
            assert not filtered.any()
            continue
        alive += 1
        low, high = theory.multiplier_bounds(values, norm, error)
        assert float(low) * (1 - 1e-9) <= float(multiplier) <= float(high) * (1 + 1e-9)
        # the constraint holds with equality
        left = multiplier / (multiplier + values) * kept * coordinates
        np.testing.assert_allclose(jnp.mean(jnp.square(left)), error, rtol=1e-8)
        kept = kept * np.asarray(values / (values + multiplier))
        np.testing.assert_allclose(filtered, kept, rtol=1e-10)
        norm = float(jnp.linalg.norm(kept * coordinates))
    assert 0 < alive < 60
    assert alive >= float(theory.guaranteed_rounds(values, coordinates, error))


def test_linear_students(wide):
    draw = np.random.default_rng(0)
    teacher = jnp.asarray(draw.normal(size=(5, 2)))
    few = jnp.asarray(draw.normal(size=(3, 5)))
    student = theory.linear_student(few, teacher)
    expected = few.T @ jnp.linalg.solve(few @ few.T, few @ teacher)
    np.testing.assert_allclose(student, expected, rtol=1e-9)
    np.testing.assert_allclose(few @ student, few @ teacher, rtol=1e-9)
    doubled = jnp.concatenate([few, few[:1] + few[1:2]])  # more points, no more directions
    np.testing.assert_allclose(theory.linear_student(doubled, teacher), expected, rtol=1e-9)
    many = jnp.asarray(draw.normal(size=(9, 5)))
    np.testing.assert_allclose(theory.linear_student(many, teacher), teacher, rtol=1e-9)


def test_label_noise_equals_simulation_by_expectation(wide):
    """The parabola of the risk from the covariance of explicit parameter estimates."""
    draw = np.random.default_rng(0)
    x, theta, ridge, noise = draw.normal(size=(9, 4)), draw.normal(size=4), 0.7, 0.5
    _, sizes, directions = np.linalg.svd(x, full_matrices=False)
    best = theory.noisy_labels(jnp.asarray(sizes**2), jnp.asarray(directions @ theta), noise, ridge)

    def risk(weight):
        inverse = np.linalg.inv(x.T @ x + ridge * np.eye(4)) @ x.T
        student = inverse @ (weight * np.eye(9) + (1 - weight) * x @ inverse)
        bias = student @ x @ theta - theta
        return bias @ bias + noise**2 * np.sum(student**2)

    np.testing.assert_allclose(best.first, risk(1.0), rtol=1e-9)
    np.testing.assert_allclose(best.risk, risk(float(best.weight)), rtol=1e-9)
    for other in (-0.01, 0.01):
        assert risk(float(best.weight) + other) > float(best.risk)


def test_the_best_weight_under_noise_leaves_the_interval(wide):
    values, signal = jnp.array([0.5, 2.0, 5.0]), jnp.array([1.0, -1.0, 0.5])
    weights = [float(theory.noisy_labels(values, signal, g, 1.0).weight) for g in (0, 1, 1e6)]
    assert weights[0] > 1  # no noise: away from the teacher
    assert weights[2] < 0  # much noise: away from the labels
    assert weights == sorted(weights, reverse=True)
    a = np.asarray(values / (values + 1))
    u = a * (1 - a)
    limit = np.sum(u * a / values) / np.sum(u**2 / values)
    np.testing.assert_allclose(1 - weights[2], limit, rtol=1e-6)
    zero = theory.noisy_labels(jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]), 1.0, 1.0)
    assert bool(jnp.isfinite(zero.weight))


@pytest.mark.parametrize("seed", range(3))
def test_several_steps_approach_the_wiener_filter(seed, wide):
    values, signal = _spectrum(seed, 5)
    noise = 1 / jnp.sqrt(values)
    shrink = np.asarray(values / (values + 0.5))
    best = theory.wiener_filter(signal, noise)
    square, variance = np.asarray(signal) ** 2, np.asarray(noise) ** 2
    risk = lambda s: np.sum((1 - s) ** 2 * square + s**2 * variance)  # noqa: E731
    risks = []
    for steps in range(7):
        found = theory.several_steps(values, signal, noise, 0.5, steps=steps)
        np.testing.assert_allclose(found.risk, risk(found.filter), rtol=1e-10)
        np.testing.assert_allclose(jnp.sum(found.coefficients), 1, rtol=1e-6)
        powers = shrink[:, None] ** np.arange(1, steps + 2)
        np.testing.assert_allclose(powers @ np.asarray(found.coefficients), found.filter, rtol=1e-5)
        if 0 < steps < 4:
            weights = theory.weights_of(found.coefficients)
            same = theory.filters(values, 0.5, weights)[-1]
            np.testing.assert_allclose(same, found.filter, rtol=1e-6)
            # no better by brute least squares over the same filters
            free = (powers[:, :-1] - powers[:, -1:]) * np.sqrt(square + variance)[:, None]
            goal = (np.asarray(best) - powers[:, -1]) * np.sqrt(square + variance)
            c = np.linalg.lstsq(free, goal, rcond=None)[0]
            brute = powers @ np.append(c, 1 - c.sum())
            np.testing.assert_allclose(found.filter, brute, rtol=1e-5)
        risks.append(float(found.risk))
    assert np.all(np.diff(risks) <= 1e-12)
    np.testing.assert_allclose(found.filter, best, rtol=1e-7)
    np.testing.assert_allclose(risks[5], risk(np.asarray(best)), rtol=1e-9)


def test_one_step_of_several_is_the_best_single_weight(wide):
    values, signal = _spectrum(0)
    one = theory.several_steps(values, signal, 0.7 / jnp.sqrt(values), 0.5, steps=1)
    best = theory.noisy_labels(values, signal, 0.7, 0.5)
    np.testing.assert_allclose(one.risk, best.risk, rtol=1e-9)
    np.testing.assert_allclose(one.coefficients, [best.weight, 1 - best.weight], rtol=1e-7)
    first = theory.several_steps(values, signal, 0.7 / jnp.sqrt(values), 0.5, steps=0)
    np.testing.assert_allclose(first.risk, best.first, rtol=1e-9)


def test_many_steps_with_few_distinct_eigenvalues_stay_finite():
    values = jnp.array([1.0, 1.0, 2.0, 2.0 + 1e-6])
    found = theory.several_steps(values, jnp.ones(4), jnp.ones(4), 1.0, steps=6)
    assert bool(jnp.isfinite(found.filter).all())
    np.testing.assert_allclose(found.filter, 0.5, atol=1e-5)


def test_gaussian_processes_in_turn(wide):
    draw = np.random.default_rng(0)
    features = draw.normal(size=(6, 6))
    covariance, targets, ridges = features @ features.T, draw.normal(size=6), [0.5, 2.0, 1.0]
    values, vectors = np.linalg.eigh(covariance)
    inside = vectors.T @ targets
    means = theory.data_centric(jnp.asarray(values), jnp.asarray(ridges))
    posteriors = theory.distribution_centric(jnp.asarray(values), jnp.asarray(ridges))
    goal, mean, prior = targets, np.zeros(6), covariance
    for step, ridge in enumerate(ridges):
        # the mean of the last one becomes the targets of the next
        goal = covariance @ np.linalg.solve(covariance + ridge * np.eye(6), goal)
        np.testing.assert_allclose(vectors @ (means[step] * inside), goal, rtol=1e-8)
        # the whole posterior becomes the prior
        gain = prior @ np.linalg.inv(prior + ridge * np.eye(6))
        mean, prior = mean + gain @ (targets - mean), prior - gain @ prior
        np.testing.assert_allclose(vectors @ (posteriors[step] * inside), mean, rtol=1e-8)
    same = theory.filters(jnp.asarray(values), 0.5, 0.0, steps=3)
    np.testing.assert_allclose(theory.data_centric(jnp.asarray(values), jnp.full(3, 0.5)), same)
    assert bool((jnp.diff(means, axis=0) < 0).all())
    assert bool((jnp.diff(posteriors, axis=0) > 0).all())


@pytest.mark.parametrize("heat", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("weight", [0.0, 0.1, 0.7, 0.99])
def test_effective_logits_solve_their_equation(heat, weight, wide):
    teacher = jnp.array([-20.0, -3.0, -0.5, 0.0, 2.0, 9.0, 20.0])
    for label in (0.0, 0.3, 1.0):
        labels = jnp.full(7, label)
        z = theory.effective_logits(teacher, labels, weight=weight, temperature=heat)
        soft = jax.nn.sigmoid(z / heat) - jax.nn.sigmoid(teacher / heat)
        slope = (1 - weight) / heat * soft + weight * (jax.nn.sigmoid(z) - label)
        np.testing.assert_allclose(slope, 0, atol=1e-12)
        if weight == 0:
            np.testing.assert_allclose(z, teacher, rtol=1e-6, atol=1e-12)
        low = theory.effective_logits(
            teacher.astype(jnp.float32), labels.astype(jnp.float32), weight=weight, temperature=heat
        )
        assert low.dtype == jnp.float32
        np.testing.assert_allclose(low, z, rtol=1e-4, atol=1e-4)

    def total(shift):
        moved = theory.effective_logits(
            teacher[1:-2] + shift, jnp.full(4, 0.3), weight=weight, temperature=heat
        )
        return jnp.sum(jnp.sin(moved))

    numeric = (total(1e-5) - total(-1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(total)(0.0), numeric, rtol=1e-5)


def test_effective_logits_by_gradient_descent(wide):
    """A logistic student linear in more features than points, on both losses, from zero."""
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(4, 8)))
    teacher, labels = jnp.array([-2.0, 0.5, 1.0, 3.0]), jnp.array([0.0, 1.0, 1.0, 1.0])
    weight, heat = 0.3, 2.0

    def loss(w):
        z = x @ w
        soft, hard = jax.nn.sigmoid(teacher / heat), jax.nn.softplus(z) - labels * z
        return jnp.sum((1 - weight) * (jax.nn.softplus(z / heat) - soft * z / heat) + weight * hard)

    w = jax.lax.fori_loop(0, 20000, lambda _, w: w - 0.1 * jax.grad(loss)(w), jnp.zeros(8))
    goal = theory.effective_logits(teacher, labels, weight=weight, temperature=heat)
    fit = theory.ridge_fit(theory.linear(x), goal[:, None], 0.0)
    np.testing.assert_allclose(x.T @ fit.coefficients[:, 0], w, rtol=1e-5, atol=1e-7)
