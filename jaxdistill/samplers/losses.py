r"""What samplers are distilled by: values per example, and targets of the same kind as predictions.

All take the data that denoisers predict, ``[B, ...]``, and are float32 or wider. Means are over all
axes of an example but the first, so that a step size does not depend on the resolution.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.losses.numerics import same_shape, widen
from jaxdistill.samplers.paths import Path, over, quotient
from jaxdistill.samplers.solvers import transition

# The least that a gradient is divided by.
_FLOOR = 1e-5


def pseudo_huber(x: jax.Array, y: jax.Array, *, c: float | None = None) -> jax.Array:
    r"""The distance of iCT, :math:`\sqrt{|x - y|^2 + c^2} - c` with the norm over a whole example.

    Args:
        x: ``[B, ...]``.
        y: of the same shape.
        c: where it turns from a square to a norm; :math:`0.00054 \sqrt D` for D numbers an example
            by default, as published.

    Returns:
        ``[B]``. Zero, with gradient zero, where both are equal, unless c is 0.

    References:
        Song and Dhariwal, Improved Techniques for Training Consistency Models, 2023, (8).

    Example:
        >>> pseudo_huber(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2)), c=0.0).tolist()
        [5.0]
    """
    same_shape(x=x, y=y)
    x, y = widen(x, y)
    size = x[0].size
    turn = 0.00054 * size**0.5 if c is None else c
    return jnp.sqrt(_sum((x - y) ** 2) + turn**2) - turn


def denoising(
    said: jax.Array, data: jax.Array, sigma: jax.Array, *, sigma_data: float = 0.5
) -> jax.Array:
    r"""The loss of EDM, :math:`\frac{\sigma^2 + \sigma_d^2}{(\sigma \sigma_d)^2}` times the mean
    squared error.

    The same weight, :math:`\sigma^{-2} + \sigma_d^{-2}`, is that of DMD2's estimate of the fake
    score.

    Args:
        said: ``[B, ...]``, what the denoiser predicts.
        data: of the same shape.
        sigma: ``[B]``, above 0.
        sigma_data: standard deviation of the data.

    Returns:
        ``[B]``.

    Example:
        >>> denoising(jnp.ones((1, 2)), jnp.zeros((1, 2)), jnp.array([0.5])).tolist()
        [8.0]
    """
    same_shape(said=said, data=data)
    said, data, sigma = widen(said, data, sigma)
    return (sigma**-2 + sigma_data**-2) * _mean((said - data) ** 2)


def matching_gradient(x: jax.Array, real: jax.Array, fake: jax.Array) -> jax.Array:
    r"""The gradient of distribution matching, :math:`(\mu_f - \mu_r) / \mathrm{mean} |x - \mu_r|`.

    Up to its weight it is the gradient of the reverse KL divergence between the noised samples and
    the noised data, by the samples. Nothing is differentiated on the way.

    Args:
        x: samples, ``[B, ...]``.
        real: what the teacher predicts from the noised samples.
        fake: what the estimate of the samples' own density predicts from them.

    Returns:
        Of the shape of ``x``; zero where both predict the same.

    References:
        Yin et al., One-step Diffusion with Distribution Matching Distillation, 2024, (8); DMD2,
        2024.
    """
    same_shape(x=x, real=real, fake=fake)
    x, real, fake = (jax.lax.stop_gradient(part) for part in widen(x, real, fake))
    weight = jnp.maximum(_mean(jnp.abs(x - real)), _FLOOR)
    return (fake - real) / over(weight, x)


def gradient_as_loss(x: jax.Array, gradient: jax.Array) -> jax.Array:
    r"""A value whose gradient by x is a given one over the numbers of an example,
    :math:`\tfrac12 \mathrm{mean} (x - \mathrm{sg}(x - g))^2`.

    The value itself is half the mean square of the gradient, which says nothing about progress.

    Returns:
        ``[B]``.
    """
    same_shape(x=x, gradient=gradient)
    x, gradient = widen(x, gradient)
    return 0.5 * _mean((x - jax.lax.stop_gradient(x - gradient)) ** 2)


def score_identity(
    x: jax.Array, real: jax.Array, fake: jax.Array, *, alpha: float = 1.2
) -> jax.Array:
    r"""Score identity distillation, the mean of
    :math:`(\mu_r - \mu_f)\,((\mu_r - x) - \alpha (\mu_r - \mu_f)) / \mathrm{mean} |x - \mu_r|`.

    Differentiated through x, the noising and both denoisers, whose own variables stay fixed.

    Args:
        x: samples, ``[B, ...]``.
        real: what the teacher predicts from the noised samples.
        fake: what the estimate of the samples' own density predicts from them.
        alpha: 1 is the plain identity; the paper's best is 1.2 on some sets and 1 on others.

    Returns:
        ``[B]``; it may be negative.

    References:
        Zhou et al., Score identity Distillation, 2024, (23). Their code sums over an example and
        multiplies by 100.
    """
    same_shape(x=x, real=real, fake=fake)
    x, real, fake = widen(x, real, fake)
    weight = jnp.maximum(jax.lax.stop_gradient(_mean(jnp.abs(x - real))), _FLOOR)
    gap = real - fake
    return _mean(gap * (real - x - alpha * gap)) / weight


Kind = Literal["softplus", "hinge"]
"""The two adversarial losses."""


def adversarial_generator(logits: jax.Array, *, kind: Kind = "softplus") -> jax.Array:
    """What a generator pays for being recognised: ``softplus(-l)``, or ``-l`` with ``hinge``.

    Args:
        logits: of its samples, any shape; high for real.
        kind: which.

    Returns:
        Of the same shape.
    """
    (logits,) = widen(logits)
    return jax.nn.softplus(-logits) if _kind(kind) == "softplus" else -logits


def adversarial_critic(real: jax.Array, fake: jax.Array, *, kind: Kind = "softplus") -> jax.Array:
    """What a critic pays: ``softplus(-real) + softplus(fake)``, or half the hinges.

    Args:
        real: logits of data.
        fake: logits of samples, of the same shape.
        kind: ``"hinge"`` is half of ``relu(1 - real) + relu(1 + fake)``.

    Returns:
        Of the same shape.
    """
    same_shape(real=real, fake=fake)
    real, fake = widen(real, fake)
    if _kind(kind) == "softplus":
        return jax.nn.softplus(-real) + jax.nn.softplus(fake)
    return 0.5 * (jax.nn.relu(1 - real) + jax.nn.relu(1 + fake))


def tangent_target(
    x: jax.Array,
    t: jax.Array,
    f: jax.Array,
    f_dot: jax.Array,
    velocity: jax.Array,
    *,
    sigma_data: float = 0.5,
    ramp: jax.Array | float = 1.0,
    c: float = 0.1,
) -> jax.Array:
    r"""How far, and in which direction, the net of sCM is to go: the normalised tangent.

    .. math:: g = -\cos^2 t\,(\sigma_d F - \dot x) - r\,(\cos t \sin t\, x + \sigma_d \dot F),
        \qquad g / (|g| + c)

    with the norm over a whole example.

    Args:
        x: ``[B, ...]`` on the path :func:`~jaxdistill.samplers.trigflow`.
        t: ``[B]``.
        f: F, the net at :math:`(x / \sigma_d, t)`.
        f_dot: :math:`\cos t \sin t` times the derivative of F along the path.
        velocity: :math:`\dot x`, the teacher's dx/dt.
        sigma_data: :math:`\sigma_d`.
        ramp: r, which grows from 0 to 1 at the start of training.
        c: keeps small tangents small.

    Returns:
        Of the shape of ``x``, stopped: the regression goes to ``stop(F) + target``.

    References:
        Lu and Song, Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models, 2024,
        algorithm 1; Chen et al., SANA-Sprint, 2025.
    """
    same_shape(x=x, f=f, f_dot=f_dot, velocity=velocity)
    x, t, f, f_dot, velocity = widen(x, t, f, f_dot, velocity)
    cos, sin = jnp.cos(over(t, x)), jnp.sin(over(t, x))
    g = -(cos**2) * (sigma_data * f - velocity) - ramp * (cos * sin * x + sigma_data * f_dot)
    norm = jnp.sqrt(_sum(g**2))
    return jax.lax.stop_gradient(g / over(norm + c, x))


def progressive_target(
    path: Path,
    x: jax.Array,
    first: jax.Array,
    second: jax.Array,
    t: jax.Array,
    middle: jax.Array,
    s: jax.Array,
) -> jax.Array:
    r"""What a student must predict at t to reach in one DDIM step what its teacher reaches in two.

    Args:
        path: which.
        x: ``[B, ...]`` at t.
        first: what the teacher predicts from it.
        second: what it predicts where that step led.
        t: ``[B]``.
        middle: where the first step goes.
        s: where the second goes; without noise there, the target is ``second``.

    Returns:
        Data, of the shape of ``x``.

    References:
        Salimans and Ho, Progressive Distillation, 2022, algorithm 2.
    """
    x, first, second = widen(x, first, second)
    reached = transition(path, transition(path, x, first, t, middle), second, middle, s)
    t, s = over(t, x), over(s, x)
    keep = quotient(path.sigma(s), path.sigma(t))
    return quotient(reached - keep * x, path.alpha(s) - keep * path.alpha(t))


def truncated(said: jax.Array, data: jax.Array, alpha: Any, sigma: Any) -> jax.Array:
    r"""The mean squared error times :math:`\max(1, \alpha^2 / \sigma^2)`: the larger of the errors
    in the data and in the noise, as progressive distillation weighs it.

    Returns:
        ``[B]``.
    """
    said, data = widen(said, data)
    error = _mean((said - data) ** 2)
    return jnp.maximum(1.0, (alpha / sigma) ** 2) * error


def _kind(kind: str) -> str:
    if kind not in ("softplus", "hinge"):
        raise ValueError(unknown("adversarial loss", kind, ("softplus", "hinge")))
    return kind


def _sum(x: jax.Array) -> jax.Array:
    return x.sum(tuple(range(1, x.ndim)))


def _mean(x: jax.Array) -> jax.Array:
    return x.mean(tuple(range(1, x.ndim)))
