r"""Nets that jump from one time to any earlier one: their targets, as functions of what was said.

These are the pure parts of MeanFlow, shortcut models, consistency trajectory models and phased
consistency models; paths, times and their direction are those of :mod:`jaxdistill.samplers.paths`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.losses.numerics import same_shape, widen
from jaxdistill.samplers.forward_mode import along
from jaxdistill.samplers.paths import Denoise, Path, edm, over
from jaxdistill.samplers.solvers import transition

Average = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""The mean velocity of a flow, ``(x [B, ...], t [B], t - s [B]) -> [B, ...]``."""
Jump = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""A net that says what the data is, ``(x [B, ...], t [B], s [B]) -> [B, ...]``, for going to s."""


def mean_velocity_target(
    average: Average, x: jax.Array, t: jax.Array, s: jax.Array, velocity: jax.Array
) -> tuple[jax.Array, jax.Array]:
    r"""What a net says of its mean velocity from t to s, and what MeanFlow wants it to say.

    .. math:: u = v - (t - s) \frac{d u}{d t}, \qquad
        \frac{d u}{d t} = v \, \partial_x u + \partial_t u

    by one forward-mode derivative; the target is stopped.

    Args:
        average: the net; it must be differentiable in forward mode.
        x: ``[B, ...]`` at t on the path :func:`~jaxdistill.samplers.flow`.
        t: ``[B]``.
        s: ``[B]``, at most t; where it is t, the target is the velocity.
        velocity: at ``x``, noise less data or what guidance makes of it.

    Returns:
        What is said, and the target, each of the shape of ``x``.

    References:
        Geng et al., Mean Flows for One-step Generative Modeling, 2025, (6) to (11).

    Example:
        >>> straight = lambda x, t, width: 2 * jnp.ones_like(x)
        >>> said, target = mean_velocity_target(
        ...     straight, jnp.ones((1, 1)), jnp.ones(1), jnp.zeros(1), 2 * jnp.ones((1, 1))
        ... )
        >>> float(said[0, 0]), float(target[0, 0])
        (2.0, 2.0)
    """
    same_shape(x=x, velocity=velocity)
    x, t, s, velocity = widen(x, t, s, velocity)
    ones = jnp.ones_like(t)
    said, slope = along(average, (x, t, t - s), (velocity, ones, ones))
    width = over(jnp.clip(t - s, 0, 1), x)
    return said, jax.lax.stop_gradient(velocity - width * slope)


def guided_velocity(
    velocity: jax.Array, labelled: jax.Array, alone: jax.Array, *, scale: float, share: float
) -> jax.Array:
    r"""The velocity that MeanFlow follows to be guided in one pass,
    :math:`\omega v + \kappa u_c + (1 - \omega - \kappa) u_\emptyset`.

    Args:
        velocity: noise less data, ``[B, ...]``.
        labelled: what the net says at t, with labels.
        alone: the same without.
        scale: :math:`\omega`; with ``share`` 0 it is the scale of guidance.
        share: :math:`\kappa`; the scale of guidance is :math:`\omega / (1 - \kappa)`.

    Returns:
        Of the same shape, stopped.
    """
    same_shape(velocity=velocity, labelled=labelled, alone=alone)
    velocity, labelled, alone = widen(velocity, labelled, alone)
    whole = scale * velocity + share * labelled + (1 - scale - share) * alone
    return jax.lax.stop_gradient(whole)


def adaptive_square(
    x: jax.Array, y: jax.Array, *, power: float = 1.0, floor: float = 0.01
) -> jax.Array:
    r"""A squared distance that weighs itself, :math:`d / \mathrm{sg}(d + c)^p`.

    d is the sum of squares over all numbers of an example. Its gradient is that of the distance
    itself for ``power`` 0.5, and of its logarithm for 1.

    Args:
        x: ``[B, ...]``.
        y: of the same shape.
        power: p.
        floor: c.

    Returns:
        ``[B]``.

    References:
        Geng et al., Mean Flows for One-step Generative Modeling, 2025, section 4.3.
    """
    same_shape(x=x, y=y)
    x, y = widen(x, y)
    squares = ((x - y) ** 2).sum(tuple(range(1, x.ndim)))
    return squares / jax.lax.stop_gradient(squares + floor) ** power


def shortcut_target(
    velocity: Average, x: jax.Array, t: jax.Array, width: jax.Array, *, limit: float | None = 4.0
) -> jax.Array:
    """What a shortcut model must say to reach in one step what it reaches in two half as wide.

    Args:
        velocity: the net, also given how wide its step is.
        x: ``[B, ...]`` at t on the path :func:`~jaxdistill.samplers.flow`.
        t: ``[B]``.
        width: ``[B]``, of the whole step, to ``t - width``.
        limit: points and target are cut to so much on either side.

    Returns:
        Of the shape of ``x``, stopped.

    References:
        Frans et al., One Step Diffusion via Shortcut Models, 2025, (4).

    Example:
        >>> still = lambda x, t, width: jnp.ones_like(x)
        >>> shortcut_target(still, jnp.zeros((1, 2)), jnp.ones(1), jnp.ones(1)).tolist()
        [[1.0, 1.0]]
    """
    x, t, width = widen(x, t, width)

    def cut(value):
        return value if limit is None else jnp.clip(value, -limit, limit)

    half = width / 2
    first = velocity(x, t, half)
    second = velocity(cut(x - over(half, x) * first), t - half, half)
    return jax.lax.stop_gradient(cut((first + second) / 2))


class Trajectory(NamedTuple):
    """Two ways from t, to one point, that must be made alike.

    Attributes:
        estimate: by the student's own jump from t to s, ``[B, ...]``.
        target: by the teacher's way from t to u, and a jump from there to s; stopped.
    """

    estimate: jax.Array
    target: jax.Array


def segment(
    student: Jump,
    fixed: Jump,
    x: jax.Array,
    reached: jax.Array,
    t: jax.Array,
    u: jax.Array,
    s: jax.Array,
) -> Trajectory:
    r"""The two points at s that trajectory segmented consistency compares,

    .. math:: G_\theta(x_t, t, s), \qquad \mathrm{sg}\, G_{fixed}(x_u, u, s)

    with the jumps G of :func:`trajectory`. Where s is u, the second is :math:`x_u` itself.

    Args:
        student: g; it need not look at where a jump ends.
        fixed: its running average.
        x: ``[B, ...]`` at t.
        reached: where a teacher came from there, at u.
        t: ``[B]``.
        u: ``[B]``, between t and s.
        s: ``[B]``, within the segment of t.

    References:
        Ren et al., Hyper-SD, 2024, (8) to (10).
    """
    own = _jump(student, x, t, s)
    return Trajectory(own, jax.lax.stop_gradient(_jump(fixed, reached, u, s)))


def trajectory(
    student: Jump,
    fixed: Jump,
    x: jax.Array,
    reached: jax.Array,
    t: jax.Array,
    u: jax.Array,
    s: jax.Array,
    *,
    end: float,
    inner: Literal["student", "fixed"] = "student",
) -> Trajectory:
    r"""The two points that a consistency trajectory model compares, both brought to the data.

    A jump is :math:`G(x, t, s) = \frac s t x + (1 - \frac s t) g(x, t, s)`, the step of
    :func:`~jaxdistill.samplers.transition` on the path :func:`~jaxdistill.samplers.edm`; and

    .. math:: G_{fixed}(G_\theta(x_t, t, s), s, end), \qquad
        G_{fixed}(\mathrm{sg}\, G(x_u, u, s), s, end)

    Args:
        student: g.
        fixed: its running average.
        x: ``[B, ...]`` at t.
        reached: where a teacher came from there, at u.
        t: ``[B]``.
        u: ``[B]``, between t and s.
        s: ``[B]``.
        end: the least noise.
        inner: which net jumps from u to s, without gradient: the public code's default is the
            student, its paper's the average.

    Raises:
        ValueError: for another net.

    References:
        Kim et al., Consistency Trajectory Models, 2024, (9).
    """
    if inner not in ("student", "fixed"):
        raise ValueError(unknown("net of the inner jump", inner, ("student", "fixed")))

    last = jnp.full_like(s, end)
    own, other = segment(student, student if inner == "student" else fixed, x, reached, t, u, s)
    estimate, target = (_jump(fixed, point, s, last) for point in (own, other))
    return Trajectory(estimate, jax.lax.stop_gradient(target))


def _jump(net: Jump, x: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
    return transition(edm(), x, net(x, t, s), t, s)


def signal_target(
    denoise: Denoise,
    path: Path,
    signal: jax.Array,
    noise: jax.Array,
    t: jax.Array,
    s: jax.Array,
    *,
    order: Literal[1, 2] = 1,
) -> tuple[jax.Array, jax.Array]:
    r"""How the signal :math:`y_t = (x_t - \sigma_t \epsilon) / \alpha_t` on the way from a noise
    goes on, by one step of a teacher.

    .. math:: y_s = y_t + \delta\,(D(\alpha_t y_t + \sigma_t \epsilon, t) - y_t), \qquad
        \delta = 1 - e^{\lambda_t - \lambda_s}

    which is the step of DDIM, said of the signal.

    Args:
        denoise: the teacher, ``(x [B, ...], t [B]) -> data``.
        path: which.
        signal: :math:`y_t`, ``[B, ...]``.
        noise: :math:`\epsilon`, the same all the way.
        t: ``[B]``.
        s: ``[B]``, where to.
        order: with 2, D is the mean of those at both ends.

    Returns:
        :math:`y_s`, stopped, and :math:`\delta`, ``[B]``.

    Raises:
        ValueError: for another order.

    References:
        Gu et al., BOOT, 2023, (7) and (8).

    Example:
        >>> one = jnp.ones(1)
        >>> target, width = signal_target(
        ...     lambda x, t: 0 * x, edm(), jnp.ones((1, 1)), jnp.ones((1, 1)), 2 * one, one
        ... )
        >>> float(target[0, 0]), float(width[0])
        (0.5, 0.5)
    """
    if order not in (1, 2):
        raise ValueError(f"order={order} of the signal's step must be 1 or 2")
    same_shape(signal=signal, noise=noise)
    signal, noise, t, s = widen(signal, noise, t, s)

    def said(signal: jax.Array, t: jax.Array) -> jax.Array:
        at = over(t, signal)
        return denoise(path.alpha(at) * signal + path.sigma(at) * noise, t)

    width = 1 - path.alpha(t) * path.sigma(s) / (path.sigma(t) * path.alpha(s))
    data = said(signal, t)
    reached = signal + over(width, signal) * (data - signal)
    if order == 2:
        data = (data + said(reached, s)) / 2
        reached = signal + over(width, signal) * (data - signal)
    return jax.lax.stop_gradient(reached), width


def segment_ends(steps: int, segments: int) -> jax.Array:
    """Where each step of a grid ends whose consistency holds within segments alone.

    Args:
        steps: of the grid, n.
        segments: how many there are; 1 is the consistency of all, n that of single steps.

    Returns:
        int32 ``[n]``: for every step the place of the beginning of its segment, at most its own.

    Raises:
        ValueError: for no segment, or more than there are steps.

    References:
        Wang et al., Phased Consistency Models, 2024; Ren et al., Hyper-SD, 2024.

    Example:
        >>> segment_ends(6, 2).tolist()
        [0, 0, 0, 3, 3, 3]
    """
    if not 1 <= segments <= steps:
        raise ValueError(f"{steps} steps have 1 to {steps} segments, not {segments}")
    edges = jnp.arange(segments) * steps // segments
    place = jnp.searchsorted(edges, jnp.arange(steps), side="right") - 1
    return edges[place].astype(jnp.int32)
