"""What samplers are distilled by, against closed forms and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import samplers
from jaxdistill.samplers import losses
from jaxdistill.samplers.paths import over


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def test_pseudo_huber_has_its_norm_over_the_example():
    x, y = normal(0, 3, 4, 4, 1), normal(1, 3, 4, 4, 1)
    c = 0.00054 * 4.0
    expected = jnp.sqrt(((x - y) ** 2).sum((1, 2, 3)) + c**2) - c
    np.testing.assert_allclose(losses.pseudo_huber(x, y), expected, rtol=1e-12)
    value, slope = jax.value_and_grad(lambda x: losses.pseudo_huber(x, y).sum())(y)
    assert value == 0
    assert (slope == 0).all()
    assert losses.pseudo_huber(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)).dtype == jnp.float32


def test_the_matching_gradient_of_gaussians_is_that_of_their_divergence():
    """Up to its weight the mean gradient is that of the KL at a level, by the mean."""
    deviation, sigma, mean = 0.5, 0.8, 0.3
    real = samplers.mixture([1.0], [[0.0]], [deviation**2])
    fake = samplers.mixture([1.0], [[mean]], [deviation**2])
    x = mean + 10 + deviation * normal(0, 4000, 1)
    y = x - 10 + sigma * normal(1, 4000, 1)
    says = [samplers.denoise(source, y, sigma) for source in (real, fake)]
    gradient = losses.matching_gradient(x, *says)
    weight = jnp.abs(x - says[0])
    total = deviation**2 + sigma**2
    # KL(N(m, s) | N(0, s)) = m^2 / (2 s), its slope is m / s, and a denoiser is sigma^2 of a score.
    np.testing.assert_allclose(gradient * weight, sigma**2 * mean / total, rtol=1e-8)
    assert (losses.matching_gradient(x, says[0], says[0]) == 0).all()
    value = jax.grad(lambda x: losses.gradient_as_loss(x, gradient).mean())(x)
    np.testing.assert_allclose(value, gradient / 4000, rtol=1e-10)


def test_a_gradient_is_finite_where_the_teacher_agrees_with_the_sample():
    x = normal(0, 2, 3)
    assert jnp.isfinite(losses.matching_gradient(x, x, x + 1)).all()
    value, slope = jax.value_and_grad(lambda x: losses.score_identity(x, x, x + 1).sum())(x)
    assert jnp.isfinite(value)
    assert jnp.isfinite(slope).all()


def test_the_score_identity_by_its_terms():
    x, real, fake = (normal(seed, 2, 3) for seed in range(3))
    weight = jnp.abs(x - real).mean(1)
    terms = (real - fake) * ((real - x) - 1.2 * (real - fake))
    np.testing.assert_allclose(
        losses.score_identity(x, real, fake), terms.mean(1) / weight, rtol=1e-12
    )


@pytest.mark.parametrize("kind", ["softplus", "hinge"])
def test_adversarial_losses(kind):
    real, fake = normal(0, 5), normal(1, 5)
    paid = losses.adversarial_critic(real, fake, kind=kind)
    if kind == "hinge":
        np.testing.assert_allclose(
            paid, 0.5 * (np.maximum(1 - real, 0) + np.maximum(1 + fake, 0)), rtol=1e-12
        )
    else:
        sigmoid = jax.nn.sigmoid
        np.testing.assert_allclose(
            paid, -jnp.log(sigmoid(real)) - jnp.log(sigmoid(-fake)), rtol=1e-10
        )
    assert jnp.isfinite(losses.adversarial_generator(jnp.array([-1e4, 1e4]), kind=kind)).all()
    with pytest.raises(ValueError, match="'hinge'"):
        losses.adversarial_generator(fake, kind="hing")


def one_gaussian(deviation=0.5):
    """Its consistency function at the angle t, as the net F of TrigFlow, and the flow's slope."""

    def f(x, t):  # x is divided by the deviation already; f = cos t x - sin t d F is x here.
        shape = over(t, x)
        return (jnp.cos(shape) * x - x) / jnp.sin(shape)

    return f


def test_the_tangent_of_the_right_answer_is_zero():
    """The consistency function of N(0, d^2) on its own path is the identity."""
    f, deviation = one_gaussian(), 0.5
    x, t = deviation * normal(0, 6, 3), jnp.linspace(0.2, 1.5, 6)
    source = samplers.mixture([1.0], np.zeros((1, 3)), [deviation**2])
    path = samplers.trigflow(sigma_data=deviation)
    data = samplers.denoise(source, x, t, path=path)
    velocity = samplers.convert(path, x, t, data, "data", "velocity")
    cos, sin = jnp.cos(t), jnp.sin(t)
    said, moved = jax.jvp(
        f, (x / deviation, t), ((cos * sin)[:, None] * velocity / deviation, cos * sin)
    )
    target = losses.tangent_target(x, t, said, moved, velocity, sigma_data=deviation)
    np.testing.assert_allclose(target, 0, atol=1e-10)


def test_the_tangent_against_finite_differences():
    ring, path, deviation = samplers.ring(), samplers.trigflow(sigma_data=0.5), 0.5
    x, t = 0.5 * normal(0, 5, 2), jnp.array([0.3, 0.6, 0.9, 1.2, 1.4])
    mix = normal(3, 2, 2)

    def f(x, t):
        return jnp.tanh(x @ mix) * jnp.sin(2 * t)[:, None] + x

    def answer(x, t):  # the consistency function of f
        return jnp.cos(t)[:, None] * x - deviation * jnp.sin(t)[:, None] * f(x / deviation, t)

    data = samplers.denoise(ring, x, t, path=path)
    velocity = samplers.convert(path, x, t, data, "data", "velocity")
    cos, sin = jnp.cos(t), jnp.sin(t)
    said, moved = jax.jvp(
        f, (x / deviation, t), ((cos * sin)[:, None] * velocity / deviation, cos * sin)
    )
    g = losses.tangent_target(x, t, said, moved, velocity, sigma_data=deviation, c=0.0)
    step = 1e-5
    ahead, behind = (answer(x + s * step * velocity, t + s * step) for s in (1, -1))
    # cos t times the derivative of the answer along the flow, normalised.
    slope = cos[:, None] * (ahead - behind) / (2 * step)
    slope = slope / jnp.linalg.norm(slope, axis=1, keepdims=True)
    np.testing.assert_allclose(g, slope, atol=1e-6)


@pytest.mark.parametrize("name", ["variance_preserving", "edm", "flow"])
def test_a_progressive_target_reaches_in_one_step_what_takes_two(name):
    path, ring = samplers.PATHS[name](), samplers.ring()
    x, t = normal(0, 4, 2), path.time(jnp.array([0.5, 1.0, 2.0, 4.0]))
    middle, s = (
        path.time(jnp.array([0.3, 0.5, 1.0, 2.0])),
        path.time(jnp.array([0.1, 0.2, 0.0, 1.0])),
    )
    first = samplers.denoise(ring, x, t, path=path)
    between = samplers.transition(path, x, first, t, middle)
    second = samplers.denoise(ring, between, middle, path=path)
    reached = samplers.transition(path, between, second, middle, s)
    target = losses.progressive_target(path, x, first, second, t, middle, s)
    np.testing.assert_allclose(samplers.transition(path, x, target, t, s), reached, atol=1e-10)
    if name != "variance_exploding":
        np.testing.assert_allclose(target[2], second[2], atol=1e-10)


def test_truncated_is_the_larger_error():
    path = samplers.variance_preserving()
    data, noise, t = normal(0, 3, 2), normal(1, 3, 2), jnp.array([0.1, 0.5, 0.9])
    x = samplers.add_noise(path, data, noise, t)
    said = data + 0.1 * normal(2, 3, 2)
    said_noise = samplers.convert(path, x, t, said, "data", "noise")
    errors = [((said - data) ** 2).mean(1), ((said_noise - noise) ** 2).mean(1)]
    np.testing.assert_allclose(
        losses.truncated(said, data, path.alpha(t), path.sigma(t)),
        jnp.maximum(*errors),
        rtol=1e-9,
    )
