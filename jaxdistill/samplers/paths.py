r"""Probability paths from data to noise, and what a net may predict on them.

Everywhere in :mod:`jaxdistill.samplers`

.. math:: x_t = \alpha_t x_0 + \sigma_t \epsilon, \qquad \epsilon \sim N(0, I),

t grows from data to noise, samplers go through times that fall, and
:math:`\lambda_t = \log(\alpha_t / \sigma_t)` is half of the logarithm of the signal-to-noise ratio.
A net predicts one of

=============  ==========================================================================
``data``       :math:`x_0`
``noise``      :math:`\epsilon`
``v``          :math:`\alpha_t \epsilon - \sigma_t x_0`
``velocity``   :math:`dx/dt = \alpha'_t x_0 + \sigma'_t \epsilon`
``score``      :math:`\nabla \log p_t(x) = -\epsilon / \sigma_t`
=============  ==========================================================================

and :func:`convert` makes any of them from any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.losses.numerics import widen
from jaxdistill.samplers.schedules import refuse_fall
from jaxdistill.settings import Positive

Coefficient = Callable[[jax.Array], jax.Array]
Denoise = Callable[[jax.Array, jax.Array], jax.Array]


class Path(NamedTuple):
    r"""How much of data and of noise there is at a time.

    Attributes:
        alpha: the share of the data, elementwise.
        sigma: the amount of noise, elementwise.
        time: the time at which :math:`\sigma_t / \alpha_t` has a value, elementwise.
        first: the time of the data.
        last: the time of (almost) nothing but noise, where sampling starts.
    """

    alpha: Coefficient
    sigma: Coefficient
    time: Coefficient
    first: float
    last: float


def variance_preserving() -> Path:
    r"""The cosine path, :math:`\alpha = \cos(\pi t / 2)`, :math:`\sigma = \sin(\pi t / 2)`.

    References:
        Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021; in this
        continuous form Salimans and Ho, Progressive Distillation, 2022.
    """
    half = math.pi / 2
    return Path(
        lambda t: jnp.cos(half * t),
        lambda t: jnp.sin(half * t),
        lambda ratio: jnp.arctan(ratio) / half,
        0.0,
        # The ratio of noise to data is infinite at 1; here it is 1000.
        2 / math.pi * math.atan(1e3),
    )


def variance_preserving_linear(*, low: Positive = 0.1, high: Positive = 20.0) -> Path:
    r"""The path of a rate of noise that grows linearly from ``low`` to ``high``.

    .. math:: \alpha = e^{-b(t) / 2}, \quad \sigma^2 = 1 - \alpha^2, \quad
        b(t) = t\,\text{low} + \tfrac12 t^2 (\text{high} - \text{low})

    References:
        Song et al., Score-Based Generative Modeling through SDEs, 2021.
    """
    refuse_fall(low, high)

    def rate(t):
        return low * t + (high - low) * t**2 / 2

    def time(ratio):
        total = jnp.log1p(ratio**2)
        return 2 * total / (low + jnp.sqrt(low**2 + 2 * (high - low) * total))

    return Path(
        lambda t: jnp.exp(-rate(t) / 2),
        lambda t: jnp.sqrt(-jnp.expm1(-rate(t))),
        time,
        0.0,
        1.0,
    )


def variance_exploding(*, low: Positive = 0.002, high: Positive = 80.0) -> Path:
    r"""Data with ever more noise, :math:`\alpha = 1`,
    :math:`\sigma = \text{low} (\text{high} / \text{low})^t`, t from 0 to 1.

    References:
        Song et al., Score-Based Generative Modeling through SDEs, 2021.
    """
    refuse_fall(low, high)
    span = math.log(high / low)
    return Path(
        jnp.ones_like,
        lambda t: low * jnp.exp(span * t),
        lambda ratio: jnp.log(ratio / low) / span,
        0.0,
        1.0,
    )


def edm(*, high: Positive = 80.0) -> Path:
    r"""The noise is the time: :math:`\alpha = 1`, :math:`\sigma = t`, t from 0 to ``high``.

    References:
        Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022.
    """
    return Path(jnp.ones_like, lambda t: t, lambda ratio: ratio, 0.0, high)


def flow() -> Path:
    r"""Straight lines, :math:`\alpha = 1 - t`, :math:`\sigma = t`, t from 0 (data) to 1 (noise).

    References:
        Lipman et al., Flow Matching, 2023; Liu et al., Flow Straight and Fast, 2023.
    """
    return Path(lambda t: 1 - t, lambda t: t, lambda ratio: ratio / (1 + ratio), 0.0, 1.0)


def trigflow(*, sigma_data: Positive = 0.5) -> Path:
    r"""A quarter of a circle: :math:`\alpha = \cos t`, :math:`\sigma = \sigma_d \sin t`.

    For data of standard deviation :math:`\sigma_d` the variance is the same at all times, from 0
    to :math:`\pi / 2`; at time t the ratio of noise to data is :math:`\sigma_d \tan t`.

    References:
        Lu and Song, Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models, 2024.
    """
    return Path(
        jnp.cos,
        lambda t: sigma_data * jnp.sin(t),
        lambda ratio: jnp.arctan(ratio / sigma_data),
        0.0,
        math.pi / 2,
    )


PATHS: dict[str, Callable[..., Path]] = {
    "variance_preserving": variance_preserving,
    "variance_preserving_linear": variance_preserving_linear,
    "variance_exploding": variance_exploding,
    "edm": edm,
    "flow": flow,
    "trigflow": trigflow,
}
"""Paths by name."""
PREDICTIONS = ("data", "noise", "v", "velocity", "score")
"""What a net may predict, by name."""


def over(t: jax.Array | float, x: jax.Array) -> jax.Array:
    """Times of a batch, ``[B]`` or one for all, with the axes of ``x`` ``[B, ...]``.

    Example:
        >>> over(jnp.ones(3), jnp.ones((3, 4, 4, 1))).shape
        (3, 1, 1, 1)
    """
    t = jnp.asarray(t, jnp.result_type(x)) if jnp.ndim(t) == 0 else jnp.asarray(t)
    if t.ndim == 0:
        return t
    if t.shape != x.shape[:1]:
        raise ValueError(f"times {t.shape} are neither one nor one an example of {x.shape}")
    return t.reshape(t.shape + (1,) * (x.ndim - 1))


def add_noise(path: Path, data: jax.Array, noise: jax.Array, t: jax.Array | float) -> jax.Array:
    r""":math:`x_t = \alpha_t x_0 + \sigma_t \epsilon`.

    Args:
        path: which.
        data: ``[B, ...]``.
        noise: of the same shape, standard normal.
        t: ``[B]``, or one time for all.

    Example:
        >>> add_noise(flow(), jnp.zeros((2, 1)), jnp.ones((2, 1)), jnp.array([0.0, 0.25])).tolist()
        [[0.0], [0.25]]
    """
    data, noise = widen(data, noise)
    t = over(t, data)
    return path.alpha(t) * data + path.sigma(t) * noise


def convert(
    path: Path,
    x: jax.Array,
    t: jax.Array | float,
    prediction: jax.Array,
    given: str,
    wanted: str,
) -> jax.Array:
    """One kind of prediction from another.

    Args:
        path: which.
        x: the noisy data, ``[B, ...]``.
        t: ``[B]``, or one time for all.
        prediction: what a net said of ``x``, of the same shape.
        given: what that is: ``data``, ``noise``, ``v``, ``velocity`` or ``score``.
        wanted: likewise what is returned.

    Returns:
        The wanted prediction, float32 or wider. Where there is no noise at all, the noise and the
        score are not determined by the data: they are 0.

    Raises:
        ValueError: for an unknown kind.

    Example:
        >>> x, data = jnp.full((1, 1), 3.0), jnp.full((1, 1), 1.0)
        >>> float(convert(edm(), x, 4.0, data, "data", "noise")[0, 0])
        0.5
    """
    x, prediction = widen(x, prediction)
    if given not in PREDICTIONS or wanted not in PREDICTIONS:
        name = given if given not in PREDICTIONS else wanted
        raise ValueError(unknown("prediction", name, PREDICTIONS))
    t = over(t, x)
    alpha, sigma = path.alpha(t), path.sigma(t)
    if "velocity" not in (given, wanted):
        return of_data(to_data(x, prediction, given, alpha, sigma), x, wanted, alpha, sigma)
    ones = jnp.ones_like(t)
    rates = jax.jvp(path.alpha, (t,), (ones,))[1], jax.jvp(path.sigma, (t,), (ones,))[1]
    data = to_data(x, prediction, given, alpha, sigma, rates)
    return of_data(data, x, wanted, alpha, sigma, rates)


def to_data(
    x: jax.Array, prediction: jax.Array, given: str, alpha: Any, sigma: Any, rates: Any = None
) -> jax.Array:
    """What a prediction means for the data, from the coefficients of the path at its time.

    Args:
        x: the noisy data, ``[B, ...]``.
        prediction: of the same shape.
        given: its kind.
        alpha: share of the data, broadcastable.
        sigma: amount of noise, likewise.
        rates: derivatives of the two by time, for velocities.
    """
    if given == "data":
        return prediction
    if given == "noise":
        return (x - sigma * prediction) / alpha
    if given == "score":
        return (x + sigma**2 * prediction) / alpha
    if given == "v":
        return (alpha * x - sigma * prediction) / (alpha**2 + sigma**2)
    d_alpha, d_sigma = rates
    return (d_sigma * x - sigma * prediction) / (alpha * d_sigma - sigma * d_alpha)


def of_data(
    data: jax.Array, x: jax.Array, wanted: str, alpha: Any, sigma: Any, rates: Any = None
) -> jax.Array:
    """The reverse of :func:`to_data`."""
    if wanted == "data":
        return data
    noise = quotient(x - alpha * data, sigma)
    if wanted == "noise":
        return noise
    if wanted == "score":
        return -quotient(noise, sigma)
    if wanted == "v":
        return alpha * noise - sigma * data
    d_alpha, d_sigma = rates
    return d_alpha * data + d_sigma * noise


def quotient(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """A quotient that is 0, with gradient 0, where the denominator is 0."""
    none = denominator == 0
    return jnp.where(none, 0, numerator / jnp.where(none, 1, denominator))


def flow_as_trigflow(velocity: Denoise) -> Denoise:
    r"""The net of TrigFlow from one of straight lines, without training.

    .. math:: t' = \frac{\sin t}{\sin t + \cos t}, \quad
        F(x, t) = \frac{(1 - 2 t') x' + (1 - 2 t' + 2 t'^2)\, v(x', t')}
        {\sqrt{t'^2 + (1 - t')^2}}, \quad x' = \sqrt{t'^2 + (1 - t')^2}\, x

    Args:
        velocity: ``(x [B, ...], t [B]) -> noise less data`` on the path :func:`flow`.

    Returns:
        F on the path :func:`trigflow` with ``sigma_data=1``: at time t the data is
        ``cos(t) x - sin(t) F(x, t)``.

    References:
        Chen et al., SANA-Sprint, 2025, section 3.1.
    """

    def moved(x, t):
        there = jnp.sin(t) / (jnp.sin(t) + jnp.cos(t))
        own = over(there, x)
        size = jnp.sqrt(own**2 + (1 - own) ** 2)
        said = velocity(size * x, there)
        return ((1 - 2 * own) * size * x + (1 - 2 * own + 2 * own**2) * said) / size

    return moved


def on_path(denoise: Denoise, own: Path, other: Path) -> Denoise:
    """A denoiser that was made for one path, on another.

    Two points of two paths with the same ratio of noise to data are the same up to a factor, so no
    training is needed.

    Args:
        denoise: ``(x [B, ...], t [B]) -> data`` on the path ``own``.
        own: its path.
        other: the path of the denoiser that is returned.
    """

    def moved(x, t):
        t = jnp.broadcast_to(t, x.shape[:1])
        ratio = other.sigma(t) / other.alpha(t)
        there = own.time(ratio)
        return denoise(over(own.alpha(there) / other.alpha(t), x) * x, there)

    return moved
