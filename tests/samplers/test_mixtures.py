"""Mixtures as teachers: against integrals, derivatives of the density, and their own samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import samplers


def skewed(width=3, count=4, seed=0):
    rng = np.random.default_rng(seed)
    roots = 0.4 * rng.normal(size=(count, width, width))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.05 * np.eye(width)
    return samplers.mixture(
        rng.uniform(0.5, 1.5, count), rng.normal(size=(count, width)), covariances, [0, 0, 1, 1]
    ), covariances


@pytest.mark.parametrize("label", [None, -1, 1])
def test_the_score_is_the_slope_of_the_density(label):
    source, covariances = skewed()
    path = samplers.variance_preserving()
    t = 0.4
    alpha, sigma = path.alpha(t), path.sigma(t)
    known = source.labels == 1 if label == 1 else jnp.ones(4, bool)

    def log_density(x):
        logs = [
            jax.scipy.stats.multivariate_normal.logpdf(
                x, alpha * mean, alpha**2 * cov + sigma**2 * jnp.eye(3)
            )
            for mean, cov in zip(source.means, covariances, strict=True)
        ]
        logs = jnp.where(known, jnp.log(source.weights) + jnp.stack(logs), -jnp.inf)
        return jax.scipy.special.logsumexp(logs)

    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)))
    data = samplers.denoise(source, x, t, label, path=path)
    score = samplers.convert(path, x, t, data, "data", "score")
    np.testing.assert_allclose(score, jax.vmap(jax.grad(log_density))(x), atol=1e-9)


def test_samples_have_the_moments_and_labels():
    source, covariances = skewed()
    found, chosen = samplers.draw(jax.random.key(0), source, 40_000)
    mean = source.weights @ source.means
    np.testing.assert_allclose(found.mean(0), mean, atol=0.03)
    own = found[chosen == 2]
    np.testing.assert_allclose(np.cov(own.T), covariances[2], atol=0.05)
    _, chosen = samplers.draw(jax.random.key(0), source, 100, 1)
    assert set(np.asarray(source.labels[chosen])) == {1}
    _, chosen = samplers.draw(jax.random.key(0), source, 1000, even=True)
    shares = np.bincount(np.asarray(chosen)) / 1000
    np.testing.assert_allclose(shares, source.weights, atol=1.1e-3)


def test_without_noise_and_far_away():
    source, _ = skewed()
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)))
    np.testing.assert_allclose(samplers.denoise(source, x, 0.0), x, atol=1e-10)
    for t in (0.0, 1e-8, 80.0):
        value, slope = jax.value_and_grad(lambda x, t=t: samplers.denoise(source, x, t).sum())(
            1e6 * x.astype(jnp.float32)
        )
        assert jnp.isfinite(value)
        assert jnp.isfinite(slope).all()
    wide = samplers.denoise(source, x, jnp.inf)
    assert wide.shape == x.shape


def test_points_that_are_images():
    source, _ = skewed(width=4)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)))
    images = samplers.denoise(source, x.reshape(5, 2, 2, 1), 0.5)
    np.testing.assert_allclose(images.reshape(5, 4), samplers.denoise(source, x, 0.5), rtol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0])
def test_exact_guidance(scale):
    source, _ = skewed()
    x, label = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3))), jnp.array([0, 1, 0, 1, 1])
    found = samplers.guided_denoise(source, x, 0.7, label, scale)
    one, all_ = samplers.denoise(source, x, 0.7, label), samplers.denoise(source, x, 0.7)
    np.testing.assert_allclose(found, all_ + scale * (one - all_), atol=1e-12)
    unknown = samplers.guided_denoise(source, x, 0.7, jnp.full(5, -1), scale)
    np.testing.assert_allclose(unknown, all_, atol=1e-12)


def test_the_ring():
    ring = samplers.ring()
    found, _ = samplers.draw(jax.random.key(0), ring, 20_000)
    np.testing.assert_allclose(found.std(0), 0.5, atol=0.01)
    assert samplers.ring(classes=2).labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert ring.classes == 8


def test_a_mixture_fitted_to_digits():
    from sklearn.datasets import load_digits

    pixels = load_digits().images[:400] / 16
    source = samplers.fitted(pixels, 2, labels=load_digits().target[:400])
    assert source.means.shape == (20, 64)
    assert source.classes == 10
    found, chosen = samplers.draw(jax.random.key(0), source, 4000, 3)
    assert set(np.asarray(source.labels[chosen])) == {3}
    of_three = pixels[load_digits().target[:400] == 3].reshape(-1, 64).mean(0)
    np.testing.assert_allclose(found.mean(0), of_three, atol=0.05)


def test_refusals():
    with pytest.raises(ValueError, match="do not fit"):
        samplers.mixture([1.0], np.zeros((2, 3)), np.ones(2))
    with pytest.raises(ValueError, match="positive"):
        samplers.mixture([1.0, 0.0], np.zeros((2, 3)), np.ones(2))
    with pytest.raises(ValueError, match="negative eigenvalue"):
        samplers.mixture([1.0], np.zeros((1, 2)), -np.eye(2)[None])
    with pytest.raises(ValueError, match="labels"):
        samplers.mixture([1.0], np.zeros((1, 2)), np.ones(1), [0, 1])
