"""Hyper-SD: consistency within ever fewer segments of the way, an adversary, and a reward."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill.distiller import Distiller
from jaxdistill.net import Net
from jaxdistill.players import Player, players
from jaxdistill.samplers import _training as common
from jaxdistill.samplers import jumps, losses, schedules
from jaxdistill.samplers._training import Prepare
from jaxdistill.samplers.denoisers import Teacher, noised
from jaxdistill.samplers.paths import edm, over
from jaxdistill.samplers.rewards import Reward, refuse_flat
from jaxdistill.samplers.solvers import transition
from jaxdistill.samplers.sprint import Adversary, Features, heads_of, logits_of
from jaxdistill.settings import Count, Finite, Fraction, NonNegative, Positive, Scheduled


class Judge(NamedTuple):
    """Who tells the student's points from noised data.

    Attributes:
        features: of a frozen net, see :func:`~jaxdistill.samplers.features_of`.
        head: from a feature to one logit an example.
        tx: its optimizer.
        settings: which features, how much weight, and the noise that is added to what is judged.
        updates: of the heads for one of the student.
    """

    features: Features
    head: Net
    tx: optax.GradientTransformation
    settings: Adversary
    updates: int = 1


class Feedback(NamedTuple):
    r"""How much a reward counts, :math:`w\,\mathrm{relu}(a - r(\hat x_0))` of samples of one step.

    Attributes:
        weight: w.
        enough: a.
    """

    weight: NonNegative = 0.01
    enough: Finite = 0.0


FEEDBACK = Feedback()


def segmented(
    net: Net,
    tx: optax.GradientTransformation,
    teacher: Teacher,
    prepare: Prepare | None = None,
    initial: str | None = None,
    judge: Judge | None = None,
    reward: Reward | None = None,
    *,
    levels: Count = 32,
    segments: Count = 8,
    end: Literal["drawn", "edge"] = "drawn",
    order: Literal[1, 2] = 1,
    square: NonNegative = 1.0,
    scale: Finite | None = None,
    feedback: Feedback = FEEDBACK,
    low: Positive = 0.002,
    high: Positive = 80.0,
    labels: bool = False,
    ema: Scheduled[Fraction] = 0.999,
) -> Distiller:
    r"""Trajectory segmented consistency distillation, the stages of Hyper-SD.

    .. math:: \frac{w}{1 + s^2}\, \mathrm{mean} \bigl(G_\theta(x_t, t, s)
        - \mathrm{sg}\, G_{ema}(x_u, u, s)\bigr)^2

    with :func:`~jaxdistill.samplers.segment`: u is the next lower level of the grid, a step of the
    teacher away, and s a level between u and the beginning of the segment. The factor makes it the
    distance on the path of constant variance. With one segment the points are those of
    consistency trajectories, with ``end="edge"`` those of phased consistency models. A recipe has a
    stage for every number of segments.

    Args:
        net: a :func:`~jaxdistill.samplers.denoiser`; it is not told where a jump ends.
        tx: its optimizer.
        teacher: whose way is learnt.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` is the data.
        initial: the entry of the frozen variables to start from.
        judge: who judges the points :math:`G_\theta`, as hinges; None for nobody.
        reward: of samples of one step, differentiable; None for none.
        levels: steps of the grid, those of Karras et al.
        segments: how many there are.
        end: ``"drawn"`` evenly from the levels of the segment below t, or its ``"edge"``.
        order: of the teacher's step: DDIM's or Heun's.
        square: w.
        scale: g of the teacher's guidance, which the student learns as it is.
        feedback: how much the reward counts.
        low: the least level.
        high: the largest.
        labels: whether labels are inputs.
        ema: decay of the running average, which is the target and the result.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller`, its result the denoiser's variables. Metrics:
        ``loss``; with a judge ``generator`` and ``critic``; with a reward ``reward``.

    Raises:
        ValueError: for more segments than levels, levels that do not rise, guidance without labels;
            when it starts, for a reward without a gradient.

    References:
        Ren et al., Hyper-SD: Trajectory Segmented Consistency Model for Efficient Image Synthesis,
        2024.
    """
    schedules.refuse_fall(low, high)
    jumps.segment_ends(levels, segments)
    if scale is not None and not labels:
        raise ValueError(f"scale={scale} of guidance needs labels=True")
    points = compared(
        net, teacher, prepare, labels, levels=levels, segments=segments, end=end, order=order,
        scale=scale, low=low, high=high,
    )  # fmt: skip

    def student(nets, turn):
        keys = jax.random.split(turn.key, 4)
        pair, s, _, label = points(nets, turn, keys[0])
        values = _squares(pair) / (1 + s**2)
        value, measured = square * values.mean(), {"loss": common.mean(values)}
        if judge is not None:
            logits = _judged(judge, nets, turn, pair.estimate, s, label, keys[1])
            paid = losses.adversarial_generator(logits, kind="hinge")
            value += judge.settings.weight * paid.mean()
            measured["generator"] = common.mean(paid)
        if reward is not None:
            whole = jnp.full_like(s, high)
            noise = high * jax.random.normal(keys[2], pair.target.shape, pair.target.dtype)
            pleased = reward(turn.frozen)(_told(net, nets["net"], label, keys[3])(noise, whole, s))
            value += feedback.weight * jax.nn.relu(feedback.enough - pleased).mean()
            measured["reward"] = common.mean(pleased)
        return value, measured

    def critic(judge, nets, turn):
        keys = jax.random.split(turn.key, 3)
        pair, s, real, label = points(nets, turn, keys[0])
        of_data = _judged(judge, nets, turn, real, s, label, keys[1])
        of_points = _judged(judge, nets, turn, pair.estimate, s, label, keys[2])
        paid = losses.adversarial_critic(of_data, of_points, kind="hinge")
        return paid.mean(), {"critic": common.mean(paid)}

    begin = common.starting({"net": net}, prepare, labels, initial)
    start = functools.partial(_started, begin, prepare, labels, judge, reward)
    turns = {"net": Player(student, tx)}
    if judge is not None:
        paid = functools.partial(critic, judge)
        turns["critic"] = Player(paid, judge.tx, judge.updates, ("heads",))
    return players(turns, start, ema=common.averages(ema))


def _started(begin, prepare, labels, judge, reward, key, frozen, batch) -> dict[str, Any]:
    """Where the net starts, and the heads on the features of the judge."""
    found = begin(key, frozen, batch)
    data, label = common.read(batch, key, prepare, labels)
    if reward is not None:
        refuse_flat(reward(frozen), data)
    if judge is None:
        return found
    seen = judge.features(frozen)(data, jnp.ones(len(data), data.dtype), label)
    return {**found, "heads": heads_of(judge.head, judge.settings.taps, seen, key)}


def compared(
    net: Net,
    teacher: Teacher,
    prepare: Prepare | None,
    labels: bool,
    *,
    levels: int,
    segments: int,
    end: str,
    order: int,
    scale: float | None,
    low: float,
    high: float,
) -> Callable[..., tuple[jumps.Trajectory, jax.Array, jax.Array, Any]]:
    """``(nets, turn, key)`` to what is compared, at which levels, the data there, and labels."""

    def places(key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        """The upper end of a step of the grid, and where its jumps end."""
        keys = jax.random.split(key)
        step = jax.random.randint(keys[0], (count,), 0, levels)
        edge = jumps.segment_ends(levels, segments)[step]
        drawn = jax.random.randint(keys[1], (count,), edge, step + 1)
        return step + 1, edge if end == "edge" else drawn

    def points(nets, turn, key):
        keys = jax.random.split(key, 4)
        data, label = common.read(turn.batch, keys[0], prepare, labels)
        grid = schedules.rising_karras(jnp.arange(levels + 1), levels + 1, low, high)
        upper, place = places(keys[1], len(data))
        t, u, s = (grid.astype(data.dtype)[each] for each in (upper, upper - 1, place))
        noise = jax.random.normal(keys[2], data.shape, data.dtype)
        x = data + over(t, data) * noise
        say = common.guide(teacher(turn.frozen), label, scale)
        if order == 1:
            reached = transition(edm(), x, say(x, t), t, u)
        else:
            reached = common.flow_step(say, x, t, u)
        own, fixed = (
            _told(net, variables, label, keys[3]) for variables in (nets["net"], turn.ema["net"])
        )
        pair = jumps.segment(own, fixed, x, jax.lax.stop_gradient(reached), t, u, s)
        return pair, s, data + over(s, data) * noise, label

    return points


def _squares(pair: jumps.Trajectory) -> jax.Array:
    return ((pair.estimate - pair.target) ** 2).mean(tuple(range(1, pair.target.ndim)))


def _told(net: Net, variables: Any, label: Any, rng: jax.Array) -> jumps.Jump:
    """A denoiser as a net that jumps, which does not look at where to."""

    def say(x, t, s):
        return net.apply(*variables, noised(x, t, label), train=True, rng=rng).out

    return say


def _judged(
    judge: Judge, nets: Any, turn: Any, x: jax.Array, s: jax.Array, label: Any, key: jax.Array
) -> jax.Array:
    """How real the heads find points at levels, once more noise is on them; ``[taps, B]``."""
    keys, settings = jax.random.split(key), judge.settings
    more = schedules.lognormal(keys[0], s.shape, settings.mean, settings.std).astype(x.dtype)
    y = x + over(more, x) * jax.random.normal(keys[1], x.shape, x.dtype)
    seen = judge.features(turn.frozen)(y, jnp.sqrt(s**2 + more**2), label)
    return logits_of(judge.head, nets["heads"], settings.taps, seen)
