r"""Nets that jump, trained: MeanFlow, shortcut models and consistency trajectories.

One kind of net serves all. A denoiser that is told the level s that a jump ends at says g, and the
jump leads to :math:`\frac s t x + (1 - \frac s t) g` on the path
:func:`~jaxdistill.samplers.edm`. Brought to straight lines, :math:`(x - g) / t` is the mean
velocity from t to s, so that MeanFlow and shortcut models train it as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxdistill._errors import unknown
from jaxdistill.distiller import Distiller
from jaxdistill.loops import scan
from jaxdistill.net import Net
from jaxdistill.players import Player, players
from jaxdistill.samplers import _training as common
from jaxdistill.samplers import jumps, losses, schedules
from jaxdistill.samplers._training import Prepare
from jaxdistill.samplers.denoisers import Teacher, noised
from jaxdistill.samplers.paths import add_noise, flow, over
from jaxdistill.settings import (
    Count,
    Finite,
    Fraction,
    NonNegative,
    Positive,
    Scheduled,
    Share,
)


def mean_flow(
    net: Net,
    tx: optax.GradientTransformation,
    teacher: Teacher | None = None,
    prepare: Prepare | None = None,
    initial: str | None = None,
    *,
    mean: Finite = -0.4,
    std: Positive = 1.0,
    equal: Share = 0.75,
    power: NonNegative = 1.0,
    floor: Positive = 0.01,
    scale: Finite | None = None,
    share: Share = 0.0,
    high: Positive = 80.0,
    labels: bool = False,
    unlabelled: Share = 0.1,
    ema: Scheduled[Fraction] | None = None,
) -> Distiller:
    r"""MeanFlow: the mean velocity between two times, by one forward-mode derivative.

    The target is that of :func:`~jaxdistill.samplers.mean_velocity_target`, the distance
    :func:`~jaxdistill.samplers.adaptive_square`.

    Args:
        net: a :func:`~jaxdistill.samplers.denoiser` that is told ``until``; it must be
            differentiable in forward mode.
        tx: its optimizer.
        teacher: whose flow is followed; without one the data and its own noise give the direction.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` is the data.
        initial: the entry of the frozen variables to start from.
        mean: of the logit of times.
        std: likewise.
        equal: the share of examples whose jump has no width.
        power: see :func:`~jaxdistill.samplers.adaptive_square`.
        floor: likewise.
        scale: of guidance within the target, see :func:`~jaxdistill.samplers.guided_velocity`.
        share: likewise.
        high: the largest level.
        labels: whether labels are inputs.
        unlabelled: the share of examples whose label is withheld.
        ema: decay of the running average; with one the result is the average.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller`, its result the denoiser's variables.

    Raises:
        ValueError: for guidance without labels, or with a teacher, which would be guided twice.

    References:
        Geng et al., Mean Flows for One-step Generative Modeling, 2025.
    """
    if scale is not None and (teacher is not None or not labels):
        raise ValueError(
            f"scale={scale} guides the velocity of data by labels: give labels=True and no teacher"
        )

    def times(key: jax.Array, count: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
        drawn = schedules.logit_normal(key, (2, count), mean, std) * high / (1 + high)
        t, s = jnp.max(drawn, 0).astype(dtype), jnp.min(drawn, 0).astype(dtype)
        return t, jnp.where(jnp.arange(count) < int(equal * count), t, s)

    def loss(nets, turn):
        keys = jax.random.split(turn.key, 5)
        data, label = common.read(turn.batch, keys[0], prepare, labels)
        t, s = times(keys[1], len(data), data.dtype)
        known = common.withheld(label, keys[2], unlabelled)
        x, velocity = _on_lines(teacher, turn.frozen, keys[3], data, t, known)
        if scale is not None and label is not None:
            fixed = jax.lax.stop_gradient(nets["net"])
            width = jnp.zeros_like(t)
            seen = [
                _mean_velocity(net, fixed, each, keys[4])(x, t, width)
                for each in (label, jnp.full_like(label, -1))
            ]
            follow = jumps.guided_velocity(velocity, *seen, scale=scale, share=share)
            velocity = jnp.where(over(jnp.asarray(known) < 0, x), velocity, follow)
        average = _mean_velocity(net, nets["net"], known, keys[4])
        said, target = jumps.mean_velocity_target(average, x, t, s, velocity)
        values = jumps.adaptive_square(said, target, power=power, floor=floor)
        gaps = ((said - target) ** 2).mean(tuple(range(1, x.ndim)))
        return values.mean(), {"loss": common.mean(gaps)}

    return _alone(net, loss, tx, prepare, labels, initial, ema)


def shortcuts(
    net: Net,
    tx: optax.GradientTransformation,
    teacher: Teacher | None = None,
    prepare: Prepare | None = None,
    initial: str | None = None,
    *,
    finest: Count = 128,
    bootstrapped: Share = 0.25,
    limit: Positive | None = 4.0,
    target: Literal["student", "ema"] = "ema",
    high: Positive = 80.0,
    labels: bool = False,
    unlabelled: Share = 0.1,
    ema: Scheduled[Fraction] | None = 0.999,
) -> Distiller:
    r"""Shortcut models: one step learns from two half as wide, the narrowest from the velocity.

    Args:
        net: a :func:`~jaxdistill.samplers.denoiser` that is told ``until``.
        tx: its optimizer.
        teacher: whose flow is followed; without one the data and its own noise give the direction.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` is the data.
        initial: the entry of the frozen variables to start from.
        finest: how many of the narrowest steps there are, a power of 2.
        bootstrapped: the share of examples that learn from two steps, rounded down.
        limit: see :func:`~jaxdistill.samplers.shortcut_target`.
        target: which net makes the two steps, the ``"student"`` or its ``"ema"``.
        high: the largest level.
        labels: whether labels are inputs.
        unlabelled: the share of examples whose label is withheld.
        ema: decay of the running average; with one the result is the average.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller`, its result the denoiser's variables.

    Raises:
        ValueError: for a ``finest`` that is no power of 2 above 1, and an average as the target
            that is not kept.

    References:
        Frans et al., One Step Diffusion via Shortcut Models, 2025. Their public code tells the
        net the exponent of the width in place of where the step ends.
    """
    if finest < 2 or finest & (finest - 1):
        raise ValueError(f"finest={finest} is halved down to 1: give a power of 2 from 2 on")
    common.refuse_target("shortcuts", target, ema)
    last = high / (1 + high)

    def drawn(key: jax.Array, count: int, first: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """Where steps begin, and how wide they are: 0 for those that learn from the velocity."""
        keys = jax.random.split(key)
        many = 2 ** jax.random.randint(keys[0], (count,), 0, finest.bit_length() - 1)
        many = jnp.where(jnp.arange(count) < first, many, finest)
        place = jnp.floor(jax.random.uniform(keys[1], (count,)) * many) + 1
        width = jnp.where(jnp.arange(count) < first, 1 / many, 0)
        return (last * place / many).astype(dtype), (last * width).astype(dtype)

    def loss(nets, turn):
        keys = jax.random.split(turn.key, 5)
        data, label = common.read(turn.batch, keys[0], prepare, labels)
        label = common.withheld(label, keys[1], unlabelled)
        first = int(bootstrapped * len(data))
        t, width = drawn(keys[2], len(data), first, data.dtype)
        x, velocity = _on_lines(teacher, turn.frozen, keys[3], data, t, label)
        fixed = turn.ema["net"] if target == "ema" else jax.lax.stop_gradient(nets["net"])
        own = None if label is None else label[:first]
        follow = _mean_velocity(net, fixed, own, keys[4])

        def narrow(x, t, half):
            # The narrowest of all steps is the velocity, which alone is trained.
            return follow(x, t, jnp.where(half < 1.5 * last / finest, 0, half))

        two = jumps.shortcut_target(narrow, x[:first], t[:first], width[:first], limit=limit)
        wanted = jnp.concatenate([two, velocity[first:]])
        said = _mean_velocity(net, nets["net"], label, keys[4])(x, t, width)
        values = ((said - wanted) ** 2).mean(tuple(range(1, x.ndim)))
        return values.mean(), {"loss": common.mean(values)}

    return _alone(net, loss, tx, prepare, labels, initial, ema)


def consistency_trajectories(
    net: Net,
    tx: optax.GradientTransformation,
    teacher: Teacher,
    prepare: Prepare | None = None,
    initial: str | None = None,
    *,
    levels: Count = 18,
    ahead: Count = 17,
    denoising: NonNegative = 1.0,
    inner: Literal["student", "fixed"] = "student",
    mean: Finite = -1.2,
    std: Positive = 1.2,
    sigma_data: Positive = 0.5,
    low: Positive = 0.002,
    high: Positive = 80.0,
    labels: bool = False,
    ema: Scheduled[Fraction] = 0.999,
) -> Distiller:
    r"""CTM: jumps to any lower level, made consistent along a teacher's flow, and a denoiser.

    The two ways of :func:`~jaxdistill.samplers.trajectory` are compared by their mean squared
    difference, and where a jump has no width the net learns to denoise. The paper's discriminator
    and its weight by norms of gradients are left out: ``denoising`` is a constant.

    Args:
        net: a :func:`~jaxdistill.samplers.denoiser` that is told ``until``.
        tx: its optimizer.
        teacher: whose flow is followed, by steps of Heun's method.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` is the data.
        initial: the entry of the frozen variables to start from.
        levels: of the grid, those of Karras et al.
        ahead: the most steps that the teacher makes; how many is drawn evenly.
        denoising: weight of the denoising loss.
        inner: see :func:`~jaxdistill.samplers.trajectory`.
        mean: of the logarithm of the levels that are denoised.
        std: likewise.
        sigma_data: standard deviation of the data.
        low: the least level.
        high: the largest.
        labels: whether labels are inputs.
        ema: decay of the running average, which is the result.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller`, its result the denoiser's variables. Metrics:
        ``loss``, ``denoising``.

    Raises:
        ValueError: for a grid of one level, and levels that do not rise.

    References:
        Kim et al., Consistency Trajectory Models, 2024.
    """
    if levels < 2:
        raise ValueError(f"levels={levels} leave no step: give 2 or more")
    if inner not in ("student", "fixed"):
        raise ValueError(unknown("net of the inner jump", inner, ("student", "fixed")))
    schedules.refuse_fall(low, high)

    def places(key: jax.Array, count: int) -> list[jax.Array]:
        """Of a start, of where the teacher comes to, and of an end, each below the last."""
        keys = jax.random.split(key, 3)
        start = jax.random.randint(keys[0], (count,), 1, levels)
        reached = jax.random.randint(keys[1], (count,), jnp.maximum(start - ahead, 0), start)
        return [start, reached, jax.random.randint(keys[2], (count,), 0, reached + 1)]

    def loss(nets, turn):
        keys = jax.random.split(turn.key, 6)
        data, label = common.read(turn.batch, keys[0], prepare, labels)
        grid = schedules.rising_karras(jnp.arange(levels), levels, low, high).astype(data.dtype)
        start, stop, end = places(keys[1], len(data))
        x = data + over(grid[start], data) * jax.random.normal(keys[2], data.shape, data.dtype)
        say = functools.partial(teacher(turn.frozen), label=label)
        reached = _along(say, grid, x, start, stop, min(ahead, levels - 1))
        student, fixed = (
            _jump(net, variables, label, keys[3]) for variables in (nets["net"], turn.ema["net"])
        )
        ways = jumps.trajectory(
            student, fixed, x, reached, *(grid[each] for each in (start, stop, end)),
            end=low, inner=inner,
        )  # fmt: skip
        values = ((ways.estimate - ways.target) ** 2).mean(tuple(range(1, x.ndim)))
        sigma = schedules.lognormal(keys[4], data.shape[:1], mean, std).astype(data.dtype)
        y = data + over(sigma, data) * jax.random.normal(keys[5], data.shape, data.dtype)
        paid = losses.denoising(student(y, sigma, sigma), data, sigma, sigma_data=sigma_data)
        measured = {"loss": common.mean(values), "denoising": common.mean(paid)}
        return values.mean() + denoising * paid.mean(), measured

    return _alone(net, loss, tx, prepare, labels, initial, ema)


def _alone(net, loss, tx, prepare, labels, initial, ema) -> Distiller:
    """One net that jumps."""
    start = common.starting({"net": net}, prepare, labels, initial, jumps=True)
    return players({"net": Player(loss, tx)}, start, ema=common.averages(ema))


def _jump(net: Net, variables: Any, label: Any, rng: jax.Array) -> jumps.Jump:
    """What a net says when told where a jump ends."""

    def say(x, t, s):
        return net.apply(*variables, noised(x, t, label, until=s), train=True, rng=rng).out

    return say


def _mean_velocity(net: Net, variables: Any, label: Any, rng: jax.Array) -> jumps.Average:
    """A net that jumps as the mean velocity of a flow along straight lines."""
    say = _jump(net, variables, label, rng)

    def average(x, t, width):
        level, end = t / (1 - t), (t - width) / (1 - t + width)
        return (x - say(x / over(1 - t, x), level, end)) / over(t, x)

    return average


def _on_lines(
    teacher: Teacher | None, frozen: Any, key: jax.Array, data: jax.Array, t: jax.Array, label: Any
) -> tuple[jax.Array, jax.Array]:
    """Points on straight lines to noise, and the velocity there."""
    noise = jax.random.normal(key, data.shape, data.dtype)
    x = add_noise(flow(), data, noise, t)
    if teacher is None:
        return x, noise - data
    said = teacher(frozen)(x / over(1 - t, x), t / (1 - t), label)
    return x, jax.lax.stop_gradient((x - said) / over(t, x))


def _along(
    say: Callable, grid: jax.Array, x: jax.Array, start: jax.Array, stop: jax.Array, most: int
) -> jax.Array:
    """Down a rising grid by Heun's method, each example from and to places of its own."""

    def step(x, done):
        place = start - done
        upper, lower = grid[jnp.maximum(place, 1)], grid[jnp.maximum(place - 1, 0)]
        moved = common.flow_step(say, x, upper, lower)
        return jnp.where(over(place > stop, x), moved, x), None

    return jax.lax.stop_gradient(scan(step, x, jnp.arange(most))[0])
