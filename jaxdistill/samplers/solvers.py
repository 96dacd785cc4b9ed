"""Going from noise to data: one loop, and the steps that it can take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.loops import scan
from jaxdistill.losses.numerics import widen
from jaxdistill.samplers.paths import Denoise, Path, of_data, over, quotient
from jaxdistill.settings import NonNegative


class Solver(NamedTuple):
    """How a sampler goes from one time to the next.

    Attributes:
        init: ``x -> memory``, what is carried from step to step.
        step: ``(memory, x, t, s, key) -> (memory, x, data)``: from time t to the earlier time s,
            and what the denoiser said of the data on the way.
    """

    init: Callable[[jax.Array], Any]
    step: Callable[..., tuple[Any, jax.Array, jax.Array]]


def sample(
    solver: Solver,
    times: jax.Array,
    x: jax.Array,
    *,
    key: jax.Array | None = None,
    start: int = 0,
    stop: int | None = None,
    return_data: bool = False,
) -> Any:
    """Runs a solver through falling times, one program whatever their values.

    Steps ``0..k`` followed by ``k..n`` are the same as all of them for solvers without memory,
    the randomness of a step being drawn from its place in the grid: another model may take over in
    between.

    Args:
        solver: how a step is made.
        times: ``[n + 1]``, falling.
        x: ``[B, ...]``, at the time ``times[start]``.
        key: for solvers that draw noise.
        start: the first step.
        stop: the step before which to stop, all by default.
        return_data: whether to return what was said of the data at every step as well.

    Returns:
        ``x`` at the last time; with ``return_data`` also ``[steps, B, ...]``.

    Raises:
        ValueError: for no step to do.

    Example:
        >>> from jaxdistill.samplers.paths import edm
        >>> path = edm()
        >>> shrink = lambda x, t: x / (1 + over(t, x) ** 2)  # the denoiser of standard normal data
        >>> sample(ddim(shrink, path), jnp.array([1.0, 0.5, 0.0]), jnp.ones((1, 1))).tolist()
        [[0.6]]
    """
    (x,) = widen(x)
    times = jnp.asarray(times, x.dtype)[start : None if stop is None else stop + 1]
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"no step to do between times {times.shape}, from {start} to {stop}")
    key = jax.random.key(0) if key is None else key
    places = start + jnp.arange(len(times) - 1)

    def body(carry, now):
        memory, x = carry
        t, s, place = now
        memory, x, data = solver.step(memory, x, t, s, jax.random.fold_in(key, place))
        return (memory, x), data if return_data else None

    (_, x), data = scan(body, (solver.init(x), x), (times[:-1], times[1:], places))
    return (x, data) if return_data else x


def _forgetful(step: Callable[..., tuple[jax.Array, jax.Array]]) -> Solver:
    """A solver without memory."""
    return Solver(lambda x: (), lambda memory, *now: (memory, *step(*now)))


def _all(t: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.full(x.shape[:1], t, x.dtype)


def transition(path: Path, x: jax.Array, data: jax.Array, t: Any, s: Any) -> jax.Array:
    r"""The deterministic step of DDIM: the same data and noise, at another time.

    .. math:: x_s = \tfrac{\sigma_s}{\sigma_t} x_t
        + \bigl(\alpha_s - \alpha_t \tfrac{\sigma_s}{\sigma_t}\bigr) x_0

    Args:
        path: which.
        x: ``[B, ...]`` at time t.
        data: what is said of the data.
        t: ``[B]`` or one.
        s: likewise, where to; t itself, and a t without noise, change nothing but the scale.
    """
    x, data = widen(x, data)
    t, s = over(t, x), over(s, x)
    keep = quotient(path.sigma(s), path.sigma(t))
    return keep * x + (path.alpha(s) - path.alpha(t) * keep) * data


def ddim(denoise: Denoise, path: Path, *, eta: NonNegative = 0.0) -> Solver:
    r"""DDIM, first order in :math:`\lambda`; with ``eta`` 1 as random as ancestral sampling.

    References:
        Song et al., Denoising Diffusion Implicit Models, 2021, (12) and (16).
    """

    def step(x, t, s, key):
        data = denoise(x, _all(t, x))
        if not eta:
            return transition(path, x, data, t, s), data
        alpha_t, alpha_s, sigma_t, sigma_s = (
            path.alpha(t),
            path.alpha(s),
            path.sigma(t),
            path.sigma(s),
        )
        ratio = alpha_t * sigma_s / (alpha_s * sigma_t)
        fresh = eta * sigma_s * jnp.sqrt(jnp.maximum(1 - ratio**2, 0))
        noise = quotient(x - alpha_t * data, sigma_t)
        kept = jnp.sqrt(jnp.maximum(sigma_s**2 - fresh**2, 0))
        drawn = jax.random.normal(key, x.shape, x.dtype)
        return alpha_s * data + kept * noise + fresh * drawn, data

    return _forgetful(step)


def _velocity(path: Path, data: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
    ones = jnp.ones_like(t)
    rates = jax.jvp(path.alpha, (t,), (ones,))[1], jax.jvp(path.sigma, (t,), (ones,))[1]
    return of_data(data, x, "velocity", path.alpha(t), path.sigma(t), rates)


def euler(denoise: Denoise, path: Path) -> Solver:
    """Euler's method on the probability flow, first order in t."""

    def step(x, t, s, key):
        data = denoise(x, _all(t, x))
        return x + (s - t) * _velocity(path, data, x, t), data

    return _forgetful(step)


def heun(denoise: Denoise, path: Path) -> Solver:
    """Heun's method on the probability flow, second order in t, two passes a step.

    A step to where there is no noise is Euler's, as the velocity is not known there.

    References:
        Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022.
    """

    def step(x, t, s, key):
        data = denoise(x, _all(t, x))
        here = _velocity(path, data, x, t)
        reached = x + (s - t) * here
        there = _velocity(path, denoise(reached, _all(s, x)), reached, s)
        corrected = x + (s - t) * (here + there) / 2
        return jnp.where(path.sigma(s) == 0, reached, corrected), data

    return _forgetful(step)


def dpm_solver(denoise: Denoise, path: Path) -> Solver:
    r"""DPM-Solver++(2M), second order in :math:`\lambda` with one pass a step.

    The first step, and one to where there is no noise, are first order.

    References:
        Lu et al., DPM-Solver++, 2022, algorithm 2.
    """

    def ratio(t):
        return path.sigma(t) / path.alpha(t)

    def step(memory, x, t, s, key):
        before, last, begun = memory
        data = denoise(x, _all(t, x))
        ends = path.sigma(s) == 0
        # Steps of lambda, as logarithms of ratios of noise to data.
        ahead = jnp.log(ratio(t) / jnp.where(ends, ratio(t), ratio(s)))
        behind = jnp.log(jnp.where(begun, last / ratio(t), 2.0))
        slope = jnp.where(begun & ~ends, ahead / (2 * behind), 0)
        straight = data + slope * (data - before)
        return (data, ratio(t), jnp.ones((), bool)), transition(path, x, straight, t, s), data

    def init(x):
        return jnp.zeros_like(x), jnp.ones((), x.dtype), jnp.zeros((), bool)

    return Solver(init, step)


def consistency(denoise: Denoise, path: Path) -> Solver:
    """Multistep sampling of a consistency function: to the data, and noise on it again.

    A single step from the noise to the end is the function itself.

    References:
        Song et al., Consistency Models, 2023, algorithm 1.
    """

    def step(x, t, s, key):
        data = denoise(x, _all(t, x))
        noise = jax.random.normal(key, x.shape, x.dtype)
        return path.alpha(s) * data + path.sigma(s) * noise, data

    return _forgetful(step)


def trajectory_consistency(denoise: Denoise, path: Path, *, eta: NonNegative = 0.3) -> Solver:
    r"""TCD: on beyond where a step ends, without noise, and back to there with new noise.

    With ``eta`` 0 it is DDIM, with 1 multistep consistency sampling; a step to the data itself
    draws nothing.

    Args:
        denoise: the denoiser.
        path: which.
        eta: the step goes to the time ``(1 - eta) s`` first.

    References:
        Zheng et al., Trajectory Consistency Distillation, 2024, algorithm 4.
    """

    def step(x, t, s, key):
        data = denoise(x, _all(t, x))
        beyond = (1 - eta) * s
        reached = transition(path, x, data, t, beyond)
        return _renoised(path, reached, beyond, s, jax.random.normal(key, x.shape, x.dtype)), data

    return _forgetful(step)


def _renoised(path: Path, x: jax.Array, t: Any, s: Any, noise: jax.Array) -> jax.Array:
    """A point with as much new noise as leads from t to the later time s."""
    ratio = path.alpha(s) / path.alpha(t)
    fresh = jnp.maximum(path.sigma(s) ** 2 - (ratio * path.sigma(t)) ** 2, 0)
    return ratio * x + jnp.sqrt(fresh) * noise


def jump(denoise: Callable[..., jax.Array], path: Path) -> Solver:
    """A net that jumps: DDIM's step with what it says of the data when told where the step ends.

    Args:
        denoise: ``(x [B, ...], t [B], s [B]) -> data``.
        path: which.
    """

    def step(x, t, s, key):
        data = denoise(x, _all(t, x), _all(s, x))
        return transition(path, x, data, t, s), data

    return _forgetful(step)


SolverName = Literal[
    "ddim", "euler", "heun", "dpm_solver", "consistency", "trajectory_consistency", "jump"
]
SOLVERS: dict[str, Callable[..., Solver]] = {
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpm_solver": dpm_solver,
    "consistency": consistency,
    "trajectory_consistency": trajectory_consistency,
    "jump": jump,
}
"""Solvers by name."""
