"""Distances of samples: closed forms, floors, and one mode missing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.evaluation import distances

RNG = np.random.default_rng(0)


def test_sliced_wasserstein_of_a_shift_and_a_scale():
    points = RNG.normal(size=(500, 3))
    shift = np.array([[0.3, -0.2, 0.1]])
    found = distances.sliced_wasserstein(points, points + shift, directions=2048)
    np.testing.assert_allclose(found, np.linalg.norm(shift) / np.sqrt(3), rtol=0.05)
    same = distances.sliced_wasserstein(points, points[::-1].copy())
    np.testing.assert_allclose(same, 0, atol=1e-6)
    with pytest.raises(ValueError, match="one shape"):
        distances.sliced_wasserstein(points, points[:10])


def test_one_mode_missing():
    means = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    points = np.repeat(means[:3], 300, 0) + 0.01 * RNG.normal(size=(900, 2))
    found = distances.modes(points, means, 0.01)
    np.testing.assert_allclose(found["mode_variation"], 0.25, atol=1e-6)
    assert found["mode_quality"] > 0.97
    np.testing.assert_allclose(found["within_mode"], 0.01, rtol=0.1)
    recall = distances.precision_recall(
        points, np.repeat(means, 200, 0) + 0.01 * RNG.normal(size=(800, 2))
    )
    assert recall["precision"] > 0.9
    np.testing.assert_allclose(recall["recall"], 0.75, atol=0.05)


def test_no_sample_near_a_mode():
    found = distances.modes(np.full((5, 2), 9.0), np.zeros((1, 2)), 0.1)
    assert all(np.isfinite(value) for value in found.values())
    assert found["mode_quality"] == 0


@pytest.mark.parametrize("distance", [distances.kernel_distance, distances.kid])
def test_kernel_distances_are_unbiased(distance):
    run = jax.jit(distance)
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found.append(float(run(*rng.normal(size=(2, 60, 4)).astype(np.float32))))
    assert abs(np.mean(found)) < 2.5 * np.std(found) / np.sqrt(40)
    x, y = RNG.normal(size=(2, 200, 4))
    assert distance(x, y + 0.5) > 3 * np.std(found)
    with pytest.raises(ValueError, match="two points"):
        distance(x[:1], y)


def test_kid_by_the_sums_of_its_formula():
    x, y = RNG.normal(size=(2, 6, 3))

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6)]
    within = [np.mean([kernel(z[i], z[j]) for i, j in pairs if i != j]) for z in (x, y)]
    across = np.mean([kernel(x[i], y[j]) for i, j in pairs])
    np.testing.assert_allclose(distances.kid(x, y), sum(within) - 2 * across, rtol=1e-5)


def test_fid_of_gaussians_in_closed_form():
    x = RNG.normal(size=(50_000, 2)) * [[1.0, 2.0]]
    y = RNG.normal(size=(50_000, 2)) * [[3.0, 1.0]] + [[1.0, 0.0]]
    # Of diagonal covariances it is the sum of squared differences of means and deviations.
    np.testing.assert_allclose(distances.fid(x, y), 1 + 4 + 1, rtol=0.03)
    np.testing.assert_allclose(distances.fid(x, x), 0, atol=1e-8)
    with pytest.raises(ValueError, match="finite"):
        distances.fid(x, np.full_like(y, np.nan))


def test_refusals():
    with pytest.raises(ValueError, match=r"\[n, d\]"):
        distances.kid(jnp.ones(3), jnp.ones(3))
    with pytest.raises(ValueError, match="different dimensions"):
        distances.kid(jnp.ones((3, 2)), jnp.ones((3, 1)))
    with pytest.raises(ValueError, match="neighbours"):
        distances.precision_recall(jnp.ones((3, 2)), jnp.ones((3, 2)))
