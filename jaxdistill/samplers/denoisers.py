r"""Nets as denoisers: what comes before and after a net, so that it sees all noise levels alike.

A denoiser is a :class:`~jaxdistill.net.Net` from ``{"image": x, "sigma": [B], ...}`` to the data,
on the path :func:`~jaxdistill.samplers.edm` (:math:`x = x_0 + \sigma \epsilon`). Teachers,
consistency functions, one-step generators and the estimates of their scores are all of this one
kind, so that each may start as a copy of another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.distiller import entry
from jaxdistill.losses.numerics import widen
from jaxdistill.net import Forward, Net
from jaxdistill.samplers.guidance import guided
from jaxdistill.samplers.paths import flow_as_trigflow, over
from jaxdistill.settings import NonNegative, Positive

Teacher = Callable[[Mapping[str, Any]], Callable[..., jax.Array]]
"""A function of frozen variables to one of ``(x, sigma [B], label [B] or None)`` to data."""
Time = Literal["log", "angle", "flow"]
"""How a net is told the noise, see :func:`denoiser`."""
TIMES: tuple[Time, ...] = ("log", "angle", "flow")
# Below this noise the logarithm that a net is told of it falls no further.
_LEAST = 1e-5


class Scalings(NamedTuple):
    """How a denoiser is made of a net, ``skip * x + out * F(inner * x)``."""

    skip: jax.Array
    out: jax.Array
    inner: jax.Array


def scalings(sigma: jax.Array, sigma_data: float = 0.5, sigma_min: float = 0.0) -> Scalings:
    r"""Those of EDM, and of consistency models, which are the identity at ``sigma_min``.

    .. math:: \frac{\sigma_d^2}{(\sigma - \sigma_{min})^2 + \sigma_d^2}, \quad
        \frac{(\sigma - \sigma_{min}) \sigma_d}{\sqrt{\sigma^2 + \sigma_d^2}}, \quad
        \frac{1}{\sqrt{\sigma^2 + \sigma_d^2}}

    Args:
        sigma: the noise, any shape.
        sigma_data: standard deviation of the data.
        sigma_min: where the data is what is seen; 0 for EDM.

    References:
        Karras et al. 2022, table 1; Song et al., Consistency Models, 2023, appendix C.

    Example:
        >>> [float(c) for c in scalings(jnp.asarray(0.002), sigma_min=0.002)[:2]]
        [1.0, 0.0]
    """
    gap, total = sigma - sigma_min, sigma**2 + sigma_data**2
    root = jnp.sqrt(total)
    return Scalings(sigma_data**2 / (gap**2 + sigma_data**2), gap * sigma_data / root, 1 / root)


def latent_scalings(step: jax.Array, sigma_data: float = 0.5, scale: float = 10.0) -> tuple:
    r"""The factors of latent consistency models, of the number t of a step among 1000.

    .. math:: \frac{\sigma_d^2}{(s t)^2 + \sigma_d^2}, \quad
        \frac{s t}{\sqrt{(s t)^2 + \sigma_d^2}}

    Returns:
        The factors of the input and of the net's prediction of the data.

    Equal to:
        diffusers ``scalings_for_boundary_conditions``.
    """
    total = (scale * step) ** 2 + sigma_data**2
    return sigma_data**2 / total, scale * step / jnp.sqrt(total)


def denoiser(
    net: Net,
    *,
    sigma_data: Positive = 0.5,
    sigma_min: NonNegative = 0.0,
    sigma_max: Positive = 80.0,
    time: Time = "log",
) -> Net:
    r"""A denoiser from a net F with the time as input.

    F is a net from ``{"image": [B, ...], "time": [B], ...}`` to ``[B, ...]``; whatever else the
    inputs hold (``label``, ``guidance``) is given to it as it is; ``until``, the level that a jump
    ends at, in the form of the time. With ``sigma_min`` above 0 the
    denoiser is a consistency function with its boundary there. With 0, -F is the net of TrigFlow:
    at :math:`\sigma = \sigma_d \tan t` the denoiser is
    :math:`\cos t\, x_t + \sigma_d \sin t\, F(x_t / \sigma_d, t)`.

    Args:
        net: F.
        sigma_data: standard deviation of the data.
        sigma_min: see :func:`scalings`.
        sigma_max: the level of pure noise. An array in place of the inputs is standard normal noise
            of this level: what comes out is a sample in one step.
        time: how F gets the noise: ``"log"``, a quarter of its logarithm, or ``"angle"``,
            :math:`\arctan(\sigma / \sigma_d)`, whose derivatives stay small, and which 0
            has too. With ``"flow"`` F is a velocity of straight lines, noise less data: at
            :math:`t = \sigma / (\sigma + \sigma_d)` the denoiser is
            :math:`\sigma_d (x_t - t F(x_t, t))`, :math:`x_t = x / (\sigma + \sigma_d)`.

    Raises:
        ValueError: for an unknown ``time``, levels that do not rise, and a boundary above 0 where F
            is a velocity.

    Example:
        >>> from jaxdistill.net import from_function
        >>> nothing = from_function(
        ...     lambda key, x: ({}, {}), lambda p, s, x, train, rng: (0 * x["image"], {}, s)
        ... )
        >>> inputs = {"image": jnp.ones((1, 2)), "sigma": jnp.array([0.5])}
        >>> denoiser(nothing).apply({}, {}, inputs).out.tolist()
        [[0.5, 0.5]]
    """
    if time not in TIMES:
        raise ValueError(unknown("time of a denoiser", time, TIMES))
    if time == "flow" and sigma_min:
        raise ValueError(
            f"a denoiser with time='flow' has no boundary: sigma_min is 0, not {sigma_min}"
        )
    if not 0 <= sigma_min < sigma_max:
        raise ValueError(
            f"sigma_min={sigma_min} must lie from 0 to below sigma_max={sigma_max}, the level of "
            "pure noise"
        )

    def told(sigma: jax.Array) -> jax.Array:
        if time == "log":
            return jnp.log(jnp.maximum(sigma, _LEAST)) / 4
        return jnp.arctan(sigma / sigma_data) if time == "angle" else sigma / (sigma + sigma_data)

    def inside(inputs: Any) -> tuple[Any, jax.Array, Scalings]:
        if not isinstance(inputs, Mapping):
            (noise,) = widen(inputs)
            sigma = jnp.full(noise.shape[:1], sigma_max, noise.dtype)
            inputs = {"image": sigma_max * noise, "sigma": sigma, "until": jnp.zeros_like(sigma)}
        x, sigma = widen(inputs["image"], inputs["sigma"])
        of = _straight if time == "flow" else functools.partial(scalings, sigma_min=sigma_min)
        factors = of(over(sigma, x), sigma_data)
        rest = {k: v for k, v in inputs.items() if k not in ("image", "sigma")}
        if "until" in rest:
            rest["until"] = told(widen(rest["until"])[0])
        return {**rest, "image": factors.inner * x, "time": told(sigma)}, x, factors

    def init(key: jax.Array, inputs: Any) -> tuple[Any, Any]:
        return net.init(key, inside(inputs)[0])

    def apply(params, state, inputs, *, taps=(), train=False, rng=None) -> Forward:
        seen, x, factors = inside(inputs)
        forward = net.apply(params, state, seen, taps=taps, train=train, rng=rng)
        out, _ = widen(forward.out, x)
        return forward._replace(out=factors.skip * x + factors.out * out)

    return Net(init, apply)


def _straight(sigma: jax.Array, sigma_data: float) -> Scalings:
    """The factors of a net that is a velocity of straight lines."""
    total = sigma + sigma_data
    return Scalings(sigma_data / total, -sigma_data * sigma / total, 1 / total)


def as_trigflow(net: Net) -> Net:
    """The net of TrigFlow, up to the sign, from one of a velocity of straight lines: without
    training ``denoiser(net, time="flow")`` is ``denoiser(as_trigflow(net), time="angle")``.

    Args:
        net: from ``{"image", "time", ...}`` to noise less data, of data whose deviation is 1.

    Returns:
        A net of the same variables, see :func:`~jaxdistill.samplers.flow_as_trigflow`.
    """

    def apply(params, state, inputs, **how) -> Forward:
        seen: list[Forward] = []

        def velocity(x, t):
            seen.append(net.apply(params, state, {**inputs, "image": x, "time": t}, **how))
            return seen[0].out

        out = flow_as_trigflow(velocity)(*widen(inputs["image"], inputs["time"]))
        return seen[0]._replace(out=-out)

    return Net(net.init, apply, net.back)


def noised(
    x: jax.Array, sigma: jax.Array | float, label: Any = None, **more: Any
) -> dict[str, Any]:
    """The inputs of a denoiser: ``x`` ``[B, ...]`` at levels ``sigma``, ``[B]`` or one for all."""
    return {
        "image": x,
        "sigma": jnp.broadcast_to(sigma, x.shape[:1]),
        **({} if label is None else {"label": label}),
        **more,
    }


def teacher_net(net: Net, name: str) -> Teacher:
    """A trained denoiser as a teacher.

    Args:
        net: the denoiser.
        name: under which its ``(params, state)`` are in the frozen variables.

    Raises:
        ValueError: when it is asked, if they are not there.
    """

    def teacher(frozen):
        variables = entry("teacher in the frozen variables", name, frozen)
        return lambda x, sigma, label=None: net.apply(*variables, noised(x, sigma, label)).out

    return teacher


def as_function(
    net: Net,
    variables: Any,
    *,
    label: jax.Array | None = None,
    scale: jax.Array | float | None = None,
    embedded: bool = False,
) -> Callable[..., jax.Array]:
    """A denoiser with its variables as ``(x, sigma) -> data``, what solvers take; a third argument
    is the level that a jump ends at.

    Args:
        net: the denoiser.
        variables: its ``(params, state)``.
        label: ``[B]``, classes; -1 where none is known.
        scale: of guidance. The net is then run twice, with and without the labels.
        embedded: whether the net itself takes the scale, as ``guidance``, and is run once.
    """

    def run(x, sigma, label, ends):
        inputs = noised(x, sigma, label, **ends)
        if embedded:
            inputs["guidance"] = jnp.broadcast_to(jnp.asarray(scale, x.dtype), x.shape[:1])
        return net.apply(*variables, inputs).out

    def function(x, sigma, until=None):
        ends = {} if until is None else {"until": until}
        if scale is None or embedded:
            return run(x, sigma, label, ends)
        if label is None:
            raise ValueError("guidance needs labels")
        alone = run(x, sigma, jnp.full_like(label, -1), ends)
        return guided(run(x, sigma, label, ends), alone, scale)

    return function
