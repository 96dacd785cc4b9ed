"""Consistency models: of a falling distance between neighbouring levels, and of its limit."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxdistill._errors import unknown
from jaxdistill.distiller import Distiller
from jaxdistill.models.timed import time_features
from jaxdistill.net import Net
from jaxdistill.players import Nets, Player, Turn, players
from jaxdistill.samplers import _training as common
from jaxdistill.samplers import forward_mode, losses, schedules
from jaxdistill.samplers._training import Prepare
from jaxdistill.samplers.denoisers import Teacher, denoiser, noised
from jaxdistill.samplers.paths import over
from jaxdistill.settings import Count, Finite, Fraction, Natural, Positive, Scheduled

# Width of what the learned weight of a time is a linear function of.
_FEATURES = 32


def consistency_training(
    net: Net,
    tx: optax.GradientTransformation,
    steps: int,
    teacher: Teacher | None = None,
    prepare: Prepare | None = None,
    initial: str | None = None,
    *,
    first: Count = 10,
    last: Count = 1280,
    mean: Finite = -1.1,
    std: Positive = 2.0,
    low: Positive = 0.002,
    high: Positive = 80.0,
    c: Positive | None = None,
    target: Literal["student", "ema"] = "student",
    labels: bool = False,
    ema: Scheduled[Fraction] | None = None,
) -> Distiller:
    r"""iCT, and with a teacher consistency distillation.

    .. math:: \frac{1}{\sigma_{i+1} - \sigma_i}\, d\bigl(f_\theta(x_0 + \sigma_{i+1} \epsilon,
        \sigma_{i+1}),\ \mathrm{sg} f_\theta(x_0 + \sigma_i \epsilon, \sigma_i)\bigr)

    with the grid of :func:`~jaxdistill.samplers.doubling`, intervals drawn by
    :func:`~jaxdistill.samplers.discrete_lognormal`, the pseudo-Huber distance over all numbers of
    an example, and the same noise and dropout on both sides. With a teacher the second point is a
    step of Heun's method away, along the teacher's flow. A grid that grows is one program.

    Args:
        net: the consistency function, a :func:`~jaxdistill.samplers.denoiser` with its boundary at
            ``low``.
        tx: its optimizer.
        steps: how many there will be, for the grid.
        teacher: whose flow is distilled; without one the data and its own noise give the direction.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` is the data.
        initial: the entry of the frozen variables to start from.
        first: intervals of the grid at the start.
        last: at the end; the same as ``first`` for a grid that stays.
        mean: of the logarithm of levels.
        std: likewise.
        low: the least level.
        high: the largest.
        c: of :func:`~jaxdistill.samplers.losses.pseudo_huber`.
        target: ``"student"``, as in iCT, or ``"ema"``.
        labels: whether labels are inputs.
        ema: decay of the running average, a number or a schedule; with one the result is the
            average.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller`, its result the consistency function's variables.

    Raises:
        ValueError: for a grid that shrinks, levels that do not rise, and an average as the target
            that is not kept.

    References:
        Song et al., Consistency Models, 2023; Song and Dhariwal, Improved Techniques for Training
        Consistency Models, 2023.
    """
    common.refuse_target("a consistency model", target, ema)
    if not 1 <= first <= last:
        raise ValueError(f"a grid grows from at least 1 interval, not from {first} to {last}")
    schedules.refuse_fall(low, high)

    def before(turn, data, noise, x, upper, lower, label):
        """The second point of a pair, at the lower level."""
        if teacher is None:
            return data + over(lower, data) * noise
        say = functools.partial(teacher(turn.frozen), label=label)
        return common.flow_step(say, x, upper, lower)

    def loss(nets, turn):
        keys = jax.random.split(turn.key, 4)
        data, label = common.read(turn.batch, keys[0], prepare, labels)
        count = schedules.doubling(turn.step, steps, first, last)
        grid = schedules.rising_karras(
            jnp.minimum(jnp.arange(last + 1), count - 1), count, low, high
        ).astype(data.dtype)
        chances = schedules.discrete_lognormal(grid, mean, std)
        drawn = jax.random.categorical(keys[1], chances, shape=data.shape[:1])
        lower, upper = grid[drawn], grid[drawn + 1]
        noise = jax.random.normal(keys[2], data.shape, data.dtype)
        x = data + over(upper, data) * noise

        def say(variables, x, sigma):
            inputs = noised(x, sigma, label)
            return net.apply(*variables, inputs, train=True, rng=keys[3]).out

        fixed = turn.ema["net"] if target == "ema" else jax.lax.stop_gradient(nets["net"])
        wanted = say(fixed, before(turn, data, noise, x, upper, lower, label), lower)
        said = say(nets["net"], x, upper)
        values = losses.pseudo_huber(said, wanted, c=c) / (upper - lower)
        levels = (count.astype(jnp.float32), jnp.ones(()))
        return values.mean(), {"loss": common.mean(values), "levels": levels}

    start = common.starting({"net": net}, prepare, labels, initial)
    return players({"net": Player(loss, tx)}, start, ema=common.averages(ema))


def continuous_consistency(
    net: Net,
    tx: optax.GradientTransformation,
    teacher: Teacher | None = None,
    prepare: Prepare | None = None,
    initial: str | None = None,
    *,
    sigma_data: Positive = 0.5,
    mean: Finite = -1.0,
    std: Positive = 1.4,
    high: Positive = 80.0,
    warmup: Natural = 10_000,
    c: Positive = 0.1,
    weighting: Literal["learned", "tangent", "none"] = "learned",
    labels: bool = False,
    scales: Sequence[Finite] = (),
    ema: Scheduled[Fraction] | None = None,
) -> Distiller:
    r"""sCM: a consistency model of continuous time, its tangent by one forward-mode derivative.

    .. math:: \frac{e^{-w(t)}}{\sigma_d \tan t}\,\mathrm{mean}\bigl(F_\theta - \mathrm{sg} F_\theta
        - g\bigr)^2 + w(t)

    with g of :func:`~jaxdistill.samplers.losses.tangent_target` and w learned. The result is a
    denoiser's: ``denoiser(net, sigma_data=sigma_data, time="angle")`` has the same variables.

    Args:
        net: -F, a net from ``{"image", "time"}``; it must be differentiable in forward mode.
        tx: its optimizer.
        teacher: whose flow is distilled; without one the data and its own noise give the direction.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` is the data.
        initial: the entry of the frozen variables to start from, a denoiser of the same net.
        sigma_data: standard deviation of the data.
        mean: of the logarithm of levels :math:`\sigma_d \tan t`.
        std: likewise.
        high: the largest level.
        warmup: steps until the derivative of the net counts in full.
        c: of the normalisation of the tangent.
        weighting: ``"learned"``; or ``"tangent"``, without w; or ``"none"``, without
            :math:`1 / (\sigma_d \tan t)` too.
        labels: whether labels are inputs.
        scales: of guidance (1 is none), one of which is drawn for every example: the teacher is
            guided with it, and the net is given it as ``guidance``.
        ema: decay of the running average; with one the result is the average.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller`, its result the denoiser's variables.

    References:
        Lu and Song, Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models, 2024.
    """
    outer = denoiser(net, sigma_data=sigma_data, time="angle")
    loss = continuous_loss(
        net, teacher, prepare, sigma_data=sigma_data, mean=mean, std=std, high=high, warmup=warmup,
        c=c, weighting=weighting, labels=labels, scales=scales,
    )  # fmt: skip
    begin = common.starting({"net": outer}, prepare, labels, initial, guidance=bool(scales))
    learned = weighting == "learned"

    def start(key, frozen, batch):
        found = begin(key, frozen, batch)
        return {**found, "weight": weight_of_times()} if learned else found

    player = Player(loss, tx, trains=("net", "weight") if learned else ("net",))
    return players({"net": player}, start, ema=common.averages(ema))


def weight_of_times() -> tuple[jax.Array, dict[str, Any]]:
    """Where the learned weight w starts, the part ``weight`` of :func:`continuous_loss`."""
    return jnp.zeros(_FEATURES), {}


def continuous_loss(
    net: Net,
    teacher: Teacher | None,
    prepare: Prepare | None,
    *,
    sigma_data: float,
    mean: float,
    std: float,
    high: float,
    warmup: int,
    c: float,
    weighting: str,
    labels: bool,
    scales: Sequence[float],
) -> Callable[[Nets, Turn], tuple]:
    """The loss of :func:`continuous_consistency`, whose arguments these are, for a player.

    Raises:
        ValueError: for an unknown weighting; for scales without a teacher or without labels.
    """
    weightings = ("learned", "tangent", "none")
    if weighting not in weightings:
        raise ValueError(unknown("weighting of continuous consistency", weighting, weightings))
    if scales and (teacher is None or not labels):
        raise ValueError("scales of guidance need a teacher, and labels")
    latest = math.atan(high / sigma_data)

    def loss(nets, turn):
        keys = jax.random.split(turn.key, 4)
        data, label = common.read(turn.batch, keys[0], prepare, labels)
        sigma = schedules.lognormal(keys[1], data.shape[:1], mean, std).astype(data.dtype)
        t = jnp.minimum(jnp.arctan(sigma / sigma_data), latest)
        noise = sigma_data * jax.random.normal(keys[2], data.shape, data.dtype)
        scale = common.drawn_scale(jax.random.fold_in(keys[0], 1), scales, data)
        say = None if teacher is None else common.guide(teacher(turn.frozen), label, scale)
        x, velocity = _on_flow(say, data, noise, t, sigma_data)
        given = common.given(label, scale)

        def f(variables, x, t):
            inputs = {"image": x, "time": t, **given}
            out = net.apply(*variables, inputs, train=True, rng=keys[3]).out
            return -out.astype(jnp.promote_types(out.dtype, jnp.float32))

        fixed = functools.partial(f, jax.lax.stop_gradient(nets["net"]))
        before, moved = _tangent(fixed, x, t, velocity, sigma_data)
        ramp = jnp.minimum((turn.step + 1) / max(warmup, 1), 1.0).astype(data.dtype)
        target = losses.tangent_target(
            x, t, before, moved, velocity, sigma_data=sigma_data, ramp=ramp, c=c
        )
        gap = f(nets["net"], x / sigma_data, t) - jax.lax.stop_gradient(before) - target
        squares = (gap**2).mean(tuple(range(1, gap.ndim)))
        # The squares at the point of linearisation are those of the tangent, which is the gap.
        measured = {"tangent": common.mean(squares)}
        if weighting == "none":
            return squares.mean(), measured
        values = squares / (sigma_data * jnp.tan(t))
        if weighting == "learned":
            w = (time_features(t, _FEATURES) * nets["weight"][0][None]).sum(-1)
            values = jnp.exp(-w) * values + w
        return values.mean(), measured

    return loss


def _on_flow(
    say: Callable | None, data: jax.Array, noise: jax.Array, t: jax.Array, sigma_data: float
):
    """A point at a time, and the velocity there: a teacher's, or that of the data and its noise."""
    cos, sin = jnp.cos(over(t, data)), jnp.sin(over(t, data))
    x = cos * data + sin * noise
    if say is not None:
        data = say(x / cos, sigma_data * jnp.tan(t))
        noise = (x - cos * data) / sin
    return x, jax.lax.stop_gradient(cos * noise - sin * data)


def _tangent(f: Callable, x: jax.Array, t: jax.Array, velocity: jax.Array, sigma_data: float):
    """What a net says at a point, and the derivative of that along the flow.

    A tangent is a small difference: it wants all digits of its products.
    """
    cos, sin = jnp.cos(t), jnp.sin(t)
    along = over(cos, x) * over(sin, x) * velocity / sigma_data
    with jax.default_matmul_precision("highest"):
        return forward_mode.along(f, (x / sigma_data, t), (along, cos * sin))
