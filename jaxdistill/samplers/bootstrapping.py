"""BOOT: a generator of one step that is bootstrapped along a teacher's way, without any data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from jaxdistill.distiller import Distiller
from jaxdistill.net import Net
from jaxdistill.players import Player, players
from jaxdistill.samplers import _training as common
from jaxdistill.samplers import jumps, schedules
from jaxdistill.samplers.denoisers import Teacher, noised
from jaxdistill.samplers.paths import edm
from jaxdistill.settings import Count, Finite, Fraction, NonNegative, Positive, Scheduled


def bootstrapped(
    net: Net,
    tx: optax.GradientTransformation,
    teacher: Teacher,
    image_shape: Sequence[int],
    classes: int | None = None,
    initial: str | None = None,
    *,
    count: Count = 256,
    intervals: Count = 25,
    order: Literal[1, 2] = 1,
    boundary: NonNegative = 1.0,
    scales: tuple[Finite, Finite] | None = None,
    low: Positive = 0.002,
    high: Positive = 80.0,
    labels: bool = False,
    ema: Scheduled[Fraction] | None = None,
) -> Distiller:
    r"""BOOT: what the signal of a noise is at any level, each level learning from one above it.

    .. math:: \delta^{-2}\, \mathrm{mean} \bigl(y_\theta(\epsilon, s) - \mathrm{sg}(y_s)\bigr)^2
        + \beta\, \mathrm{mean} \bigl(y_\theta(\epsilon, T) - D(x_T, T)\bigr)^2

    with :math:`y_s` the step of the teacher from :math:`y_\theta(\epsilon, t)`, see
    :func:`~jaxdistill.samplers.signal_target`. Noise is drawn in the step; no data is read.

    Args:
        net: a :func:`~jaxdistill.samplers.denoiser` that is told ``until``: from pure noise, told
            a level, it says the signal there. Told 0 it is the generator.
        tx: its optimizer.
        teacher: whose way is learnt.
        image_shape: of an example.
        classes: how many there are, for labels.
        initial: the entry of the frozen variables to start from.
        count: how many noises a step draws.
        intervals: the width of the teacher's steps is one of so many, even in
            :math:`\sigma^{1/7}`.
        order: of the teacher's step.
        boundary: :math:`\beta`.
        scales: the range that scales g of the teacher's guidance are drawn from evenly; the net is
            given the scale.
        low: the least level.
        high: the largest, T.
        labels: whether labels are inputs; they are drawn evenly.
        ema: decay of the running average; with one the result is the average.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` that takes no batches. Metrics: ``loss``,
        ``boundary``.

    Raises:
        ValueError: for labels without their number, scales without labels or that fall, and levels
            that do not rise.

    References:
        Gu et al., BOOT: Data-free Distillation of Denoising Diffusion Models with Bootstrapping,
        2023.
    """
    if labels and not classes:
        raise ValueError("a generator with labels needs the number of classes")
    if scales is not None and not (labels and scales[0] <= scales[1]):
        raise ValueError(f"scales={scales} of guidance must rise, and need labels=True")
    schedules.refuse_fall(low, high)
    shape, path = (count, *image_shape), edm(high=high)

    def start(key, frozen, batch):
        blank = {"image": jnp.zeros(shape), "label": jnp.zeros(count, jnp.int32)}
        own = common.starting(
            {"net": net}, None, labels, initial, guidance=scales is not None, jumps=True
        )
        return own(key, frozen, blank)

    def loss(nets, turn):
        keys = jax.random.split(turn.key, 5)
        noise = jax.random.normal(keys[0], shape)
        label = jax.random.randint(keys[1], (count,), 0, classes or 0) if labels else None
        given = {}
        if scales is not None:
            given["guidance"] = jax.random.uniform(keys[2], (count,), noise.dtype, *scales)
        teach = common.guide(teacher(turn.frozen), label, given.get("guidance"))
        share = jax.random.uniform(keys[3], (count,), noise.dtype, 1.0, intervals)
        t, s = (
            schedules.rising_karras(each, intervals + 1, low, high) for each in (share, share - 1)
        )

        def signal(until):
            inputs = noised(high * noise, high, label, until=until, **given)
            return net.apply(*nets["net"], inputs, train=True, rng=keys[4]).out

        wanted, width = jumps.signal_target(teach, path, signal(t), noise, t, s, order=order)
        values = _mean((signal(s) - wanted) ** 2) / width**2
        whole = jnp.full_like(t, high)
        first = jax.lax.stop_gradient(teach(high * noise, whole))
        begun = _mean((signal(whole) - first) ** 2)
        measured = {"loss": common.mean(values), "boundary": common.mean(begun)}
        return values.mean() + boundary * begun.mean(), measured

    made = players({"net": Player(loss, tx)}, start, ema=common.averages(ema))
    return made._replace(takes=0)


def _mean(x: jax.Array) -> jax.Array:
    return x.mean(tuple(range(1, x.ndim)))
