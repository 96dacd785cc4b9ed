"""Consistency models: of a falling distance between neighbouring levels, and of its limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdistill._errors import unknown
from jaxdistill.distiller import Distiller
from jaxdistill.models.timed import time_features
from jaxdistill.net import Net
from jaxdistill.samplers import _training as common
from jaxdistill.samplers import losses, schedules
from jaxdistill.samplers._training import Prepare, State, Teacher
from jaxdistill.samplers.denoisers import denoiser
from jaxdistill.samplers.paths import over

# Width of what the learned weight of a time is a linear function of.
_FEATURES = 32


def consistency_training(
    net: Net,
    tx: optax.GradientTransformation,
    *,
    steps: int,
    teacher: Teacher | None = None,
    first: int = 10,
    last: int = 1280,
    mean: float = -1.1,
    std: float = 2.0,
    low: float = 0.002,
    high: float = 80.0,
    c: float | None = None,
    target: str = "student",
    labels: bool = False,
    ema: Any = None,
    prepare: Prepare | None = None,
    initial: str | None = None,
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
        teacher: whose flow is distilled; without one the data and its own noise say where it goes.
        first: intervals of the grid at the start.
        last: at the end; the same as ``first`` for a grid that stays.
        mean: of the logarithm of levels.
        std: likewise.
        low: the least level.
        high: the largest.
        c: of :func:`~jaxdistill.samplers.losses.pseudo_huber`.
        target: ``"student"``, as iCT found to be right, or ``"ema"``.
        labels: whether labels are inputs.
        ema: decay of the running average, a number or a schedule; with one the result is the
            average.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` is the data.
        initial: the entry of the frozen variables to start from.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller`, its result the consistency function's variables.

    References:
        Song et al., Consistency Models, 2023; Song and Dhariwal, Improved Techniques for Training
        Consistency Models, 2023.
    """
    if target not in ("student", "ema"):
        raise ValueError(unknown("target of a consistency model", target, ("student", "ema")))
    if target == "ema" and ema is None:
        raise ValueError("target='ema' needs the decay of a running average: give ema")
    if not 1 <= first <= last:
        raise ValueError(f"a grid grows from at least 1 interval, not from {first} to {last}")

    def init(key, frozen, batch):
        image, label = common.read(batch, key, prepare, labels)
        inputs = common.noised(image, jnp.ones(len(image)), label)
        params = common.begin(key, net, inputs, frozen, initial)
        average = None if ema is None else jax.tree.map(jnp.copy, params)
        return State(
            jnp.zeros((), jnp.int32), key, {"net": params}, {"net": tx.init(params)}, average
        )

    def step(state, frozen, batch):
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 4)
        data, label = common.read(batch, keys[0], prepare, labels)
        count = schedules.doubling(state.step, steps, first, last)
        index = jnp.arange(last + 1)
        grid = schedules.rising_karras(jnp.minimum(index, count - 1), count, low, high)
        grid = grid.astype(data.dtype)
        drawn = jax.random.categorical(
            keys[1], schedules.discrete_lognormal(grid, mean, std), shape=data.shape[:1]
        )
        lower, upper = grid[drawn], grid[drawn + 1]
        noise = jax.random.normal(keys[2], data.shape, data.dtype)
        x = data + over(upper, data) * noise
        if teacher is None:
            before = data + over(lower, data) * noise
        else:
            before = _flow_step(teacher(frozen), x, upper, lower, label)
        fixed = state.params["net"] if target == "student" else state.ema
        wanted = net.apply(
            fixed, {}, common.noised(before, lower, label), train=True, rng=keys[3]
        ).out
        wanted = jax.lax.stop_gradient(wanted)

        def loss(params):
            said = net.apply(
                params, {}, common.noised(x, upper, label), train=True, rng=keys[3]
            ).out
            values = losses.pseudo_huber(said, wanted, c=c) / (upper - lower)
            return values.mean(), values

        (_, values), gradient = jax.value_and_grad(loss, has_aux=True)(state.params["net"])
        params, opt = common.advance(tx, state.params["net"], state.opt["net"], gradient)
        average = common.averaged(ema, state.ema, params, state.step)
        after = State(state.step + 1, state.key, {"net": params}, {"net": opt}, average)
        return after, {
            "loss": common.mean(values),
            "levels": (count.astype(jnp.float32), jnp.ones(())),
        }

    return Distiller(init, step, common.result)


def _flow_step(say: Callable, x: jax.Array, upper: jax.Array, lower: jax.Array, label: Any):
    """A step of Heun's method, each example between levels of its own."""

    def velocity(x, sigma):
        return (x - say(x, sigma, label)) / over(sigma, x)

    gap, here = over(lower - upper, x), velocity(x, upper)
    return x + gap * (here + velocity(x + gap * here, lower)) / 2


def continuous_consistency(
    net: Net,
    tx: optax.GradientTransformation,
    *,
    teacher: Teacher | None = None,
    sigma_data: float = 0.5,
    mean: float = -1.0,
    std: float = 1.4,
    high: float = 80.0,
    warmup: int = 10_000,
    c: float = 0.1,
    weighting: str = "learned",
    labels: bool = False,
    ema: Any = None,
    prepare: Prepare | None = None,
    initial: str | None = None,
) -> Distiller:
    r"""sCM: a consistency model of continuous time, its tangent by one forward-mode derivative.

    .. math:: \frac{e^{-w(t)}}{\sigma_d \tan t}\,\mathrm{mean}\bigl(F_\theta - \mathrm{sg} F_\theta
        - g\bigr)^2 + w(t)

    with g of :func:`~jaxdistill.samplers.losses.tangent_target` and w learned. The result is a
    denoiser's: ``denoiser(net, sigma_data=sigma_data, time="angle")`` has the same variables.

    Args:
        net: -F, a net from ``{"image", "time"}``; it must be differentiable in forward mode.
        tx: its optimizer.
        teacher: whose flow is distilled; without one the data and its own noise say where it goes.
        sigma_data: standard deviation of the data.
        mean: of the logarithm of levels :math:`\sigma_d \tan t`.
        std: likewise.
        high: the largest level.
        warmup: steps until the derivative of the net counts in full.
        c: of the normalisation of the tangent.
        weighting: ``"learned"``; or ``"tangent"``, without w; or ``"none"``, without
            :math:`1 / (\sigma_d \tan t)` too.
        labels: whether labels are inputs.
        ema: decay of the running average; with one the result is the average.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` is the data.
        initial: the entry of the frozen variables to start from, a denoiser of the same net.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller`, its result the denoiser's variables.

    References:
        Lu and Song, Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models, 2024.
    """
    weightings = ("learned", "tangent", "none")
    if weighting not in weightings:
        raise ValueError(unknown("weighting of continuous consistency", weighting, weightings))
    outer = denoiser(net, sigma_data=sigma_data, time="angle")
    latest = math.atan(high / sigma_data)

    def init(key, frozen, batch):
        image, label = common.read(batch, key, prepare, labels)
        inputs = common.noised(image, jnp.ones(len(image)), label)
        params = {"net": common.begin(key, outer, inputs, frozen, initial)}
        if weighting == "learned":
            params["weight"] = jnp.zeros(_FEATURES)
        average = None if ema is None else jax.tree.map(jnp.copy, params["net"])
        opt = {"all": tx.init(params)}
        return State(jnp.zeros((), jnp.int32), key, params, opt, average)

    def step(state, frozen, batch):
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 4)
        data, label = common.read(batch, keys[0], prepare, labels)
        sigma = schedules.lognormal(keys[1], data.shape[:1], mean, std).astype(data.dtype)
        t = jnp.minimum(jnp.arctan(sigma / sigma_data), latest)
        noise = sigma_data * jax.random.normal(keys[2], data.shape, data.dtype)
        cos, sin = jnp.cos(over(t, data)), jnp.sin(over(t, data))
        x = cos * data + sin * noise
        if teacher is not None:
            data = teacher(frozen)(x / cos, sigma_data * jnp.tan(t), label)
            noise = (x - cos * data) / sin
        velocity = jax.lax.stop_gradient(cos * noise - sin * data)

        def f(params, x, t):
            inputs = {"image": x, "time": t, **({} if label is None else {"label": label})}
            out = net.apply(params, {}, inputs, train=True, rng=keys[3]).out
            return -out.astype(jnp.promote_types(out.dtype, jnp.float32))

        fixed = jax.lax.stop_gradient(state.params["net"])
        # A tangent is a small difference: it wants all digits of its products.
        with jax.default_matmul_precision("highest"):
            before, moved = jax.jvp(
                lambda x, t: f(fixed, x, t),
                (x / sigma_data, t),
                (cos * sin * velocity / sigma_data, jnp.cos(t) * jnp.sin(t)),
            )
        ramp = jnp.minimum((state.step + 1) / max(warmup, 1), 1.0).astype(data.dtype)
        target = losses.tangent_target(
            x, t, before, moved, velocity, sigma_data=sigma_data, ramp=ramp, c=c
        )

        def loss(params):
            gap = f(params["net"], x / sigma_data, t) - jax.lax.stop_gradient(before) - target
            squares = (gap**2).mean(tuple(range(1, gap.ndim)))
            if weighting == "none":
                return squares.mean(), squares
            values = squares / (sigma_data * jnp.tan(t))
            if weighting == "learned":
                w = (time_features(t, _FEATURES) * params["weight"][None]).sum(-1)
                values = jnp.exp(-w) * values + w
            return values.mean(), squares

        (_, squares), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        params, opt = common.advance(tx, state.params, state.opt["all"], gradient)
        average = common.averaged(ema, state.ema, params["net"], state.step)
        after = State(state.step + 1, state.key, params, {"all": opt}, average)
        # The squares at the point of linearisation are those of the tangent, which is the gap.
        return after, {"tangent": common.mean(squares)}

    return Distiller(init, step, common.result)
