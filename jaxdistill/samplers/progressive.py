"""Progressive distillation: half as many steps, again and again."""

from __future__ import annotations

import functools

import jax
import optax

from jaxdistill.distiller import Distiller
from jaxdistill.net import Net
from jaxdistill.players import Player, players
from jaxdistill.samplers import _training as common
from jaxdistill.samplers import losses, schedules
from jaxdistill.samplers._training import Prepare
from jaxdistill.samplers.denoisers import Teacher, noised
from jaxdistill.samplers.paths import edm, over
from jaxdistill.samplers.solvers import transition
from jaxdistill.settings import Count, Fraction, Positive, Scheduled


def progressive(
    net: Net,
    tx: optax.GradientTransformation,
    teacher: Teacher,
    prepare: Prepare | None = None,
    initial: str | None = None,
    *,
    intervals: Count,
    low: Positive = 0.002,
    high: Positive = 80.0,
    labels: bool = False,
    ema: Scheduled[Fraction] | None = None,
) -> Distiller:
    r"""Progressive distillation, one halving: a step of the student is two of its teacher.

    The target is that of :func:`~jaxdistill.samplers.losses.progressive_target`, the weight that of
    :func:`~jaxdistill.samplers.losses.truncated`. A recipe has a stage for every halving, whose
    teacher is the student of the one before.

    Args:
        net: a :func:`~jaxdistill.samplers.denoiser`.
        tx: its optimizer.
        teacher: who makes two steps of DDIM.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` is the data.
        initial: the entry of the frozen variables to start from.
        intervals: how many steps the student makes.
        low: the least level, where steps end.
        high: the largest.
        labels: whether labels are inputs.
        ema: decay of the running average; with one the result is the average.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller`, its result the denoiser's variables.

    Raises:
        ValueError: for levels that do not rise.

    References:
        Salimans and Ho, Progressive Distillation for Fast Sampling of Diffusion Models, 2022; on
        the levels of Karras et al. as in Song et al., Consistency Models, 2023.
    """
    schedules.refuse_fall(low, high)

    def loss(nets, turn):
        keys = jax.random.split(turn.key, 4)
        data, label = common.read(turn.batch, keys[0], prepare, labels)
        place = 2 * jax.random.randint(keys[1], data.shape[:1], 1, intervals + 1)
        t, middle, s = (
            schedules.rising_karras(place - less, 2 * intervals + 1, low, high).astype(data.dtype)
            for less in range(3)
        )
        path, say = edm(), functools.partial(teacher(turn.frozen), label=label)
        x = data + over(t, data) * jax.random.normal(keys[2], data.shape, data.dtype)
        first = say(x, t)
        second = say(transition(path, x, first, t, middle), middle)
        wanted = losses.progressive_target(path, x, first, second, t, middle, s)
        inputs = noised(x, t, label)
        said = net.apply(*nets["net"], inputs, train=True, rng=keys[3]).out
        values = losses.truncated(said, jax.lax.stop_gradient(wanted), 1.0, t)
        return values.mean(), {"loss": common.mean(values)}

    start = common.starting({"net": net}, prepare, labels, initial)
    return players({"net": Player(loss, tx)}, start, ema=common.averages(ema))
