"""SANA-Sprint: a consistency model of continuous time, and an adversary on a teacher's features."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill.distiller import Distiller, entry
from jaxdistill.net import Net
from jaxdistill.players import Nets, Player, Turn, players
from jaxdistill.samplers import _training as common
from jaxdistill.samplers import losses, schedules
from jaxdistill.samplers._training import Prepare
from jaxdistill.samplers.consistency_models import continuous_loss, weight_of_times
from jaxdistill.samplers.denoisers import Teacher, denoiser, noised
from jaxdistill.samplers.paths import over
from jaxdistill.settings import (
    Count,
    Finite,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Scheduled,
    Share,
)

Features = Callable[[Mapping[str, Any]], Callable[..., tuple[jax.Array, ...]]]
"""A function of frozen variables to one of ``(x, sigma [B], label [B] or None)`` to features."""


class Adversary(NamedTuple):
    """The adversarial part.

    Attributes:
        taps: the features of the frozen net that are judged, each by a head of its own.
        weight: of what the student pays for being recognised.
        mean: of the logarithm of the levels of noise on what is judged.
        std: likewise.
        pure: the share of samples that start from pure noise, as one step does.
        misaligned: whether data with the label of another example is judged as samples are.
    """

    taps: Sequence[str] = ("bottleneck",)
    weight: NonNegative = 0.5
    mean: Finite = -0.6
    std: Positive = 1.0
    pure: Share = 0.5
    misaligned: bool = True


class Consistency(NamedTuple):
    """The part of sCM, see :func:`~jaxdistill.samplers.continuous_consistency`.

    Attributes:
        mean: of the logarithm of levels.
        std: likewise.
        high: the largest level.
        warmup: steps until the derivative of the net counts in full.
        c: of the normalisation of the tangent.
        weighting: of times.
    """

    mean: Finite = 0.2
    std: Positive = 1.6
    high: Positive = 80.0
    warmup: Natural = 4000
    c: Positive = 0.1
    weighting: Literal["learned", "tangent", "none"] = "learned"

    def levels(self, key: jax.Array, like: jax.Array) -> jax.Array:
        """A level for every example."""
        sigma = schedules.lognormal(key, like.shape[:1], self.mean, self.std)
        return jnp.minimum(sigma.astype(like.dtype), self.high)


ADVERSARY, CONSISTENCY = Adversary(), Consistency()


def features_of(net: Net, name: str, taps: Sequence[str]) -> Features:
    """Features of a trained denoiser.

    Args:
        net: the denoiser.
        name: under which its ``(params, state)`` are in the frozen variables.
        taps: which features.

    Raises:
        ValueError: for no tap; when it is asked, if the variables are not there.
    """
    if not taps:
        raise ValueError("an adversary needs at least one feature to judge: give it by 'taps'")

    def features(frozen):
        variables = entry("net whose features are judged", name, frozen)

        def of(x, sigma, label=None):
            found = net.apply(*variables, noised(x, sigma, label), taps=tuple(taps)).taps
            return tuple(found[tap] for tap in taps)

        return of

    return features


def heads_of(
    head: Net, taps: Sequence[str], seen: Sequence[jax.Array], key: jax.Array
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The variables of a head for every feature, by its tap."""
    heads = {
        tap: head.init(jax.random.fold_in(key, 1 + place), feature)
        for place, (tap, feature) in enumerate(zip(taps, seen, strict=True))
    }
    params, state = ({tap: each[part] for tap, each in heads.items()} for part in (0, 1))
    return params, state


def logits_of(
    head: Net, heads: tuple[Any, Any], taps: Sequence[str], seen: Sequence[jax.Array]
) -> jax.Array:
    """How real the heads find features of examples, ``[taps, B]``."""
    params, state = heads
    pairs = zip(taps, seen, strict=True)
    logits = [head.apply(params[tap], state[tap], each).out for tap, each in pairs]
    return jnp.stack([each.reshape(len(each)) for each in logits])


def latent_adversarial(
    net: Net,
    tx: optax.GradientTransformation,
    critic_tx: optax.GradientTransformation,
    teacher: Teacher,
    features: Features,
    head: Net,
    prepare: Prepare | None = None,
    initial: str | None = None,
    *,
    sigma_data: Positive = 0.5,
    consistency: Consistency = CONSISTENCY,
    labels: bool = False,
    scales: Sequence[Finite] = (),
    adversary: Adversary = ADVERSARY,
    critic_updates: Count = 1,
    ema: Scheduled[Fraction] | None = None,
) -> Distiller:
    r"""SANA-Sprint: :func:`~jaxdistill.samplers.continuous_consistency`, and samples that heads on
    a frozen net's features cannot tell from data.

    .. math:: L_{sCM} - w\, \mathrm{mean}\, h\bigl(\phi(\hat x_0 + \sigma \epsilon)\bigr),
        \qquad \hat x_0 = \cos t\, x_t - \sigma_d \sin t\, F_\theta(x_t / \sigma_d, t)

    and heads h that pay half of :math:`\mathrm{relu}(1 - h)` of noised data and
    :math:`\mathrm{relu}(1 + h)` of noised samples. Times t are drawn anew for this part, half of
    them the latest there is. One update of the student, then those of the heads.

    Args:
        net: -F, a net from ``{"image", "time"}``, differentiable in forward mode;
            :func:`~jaxdistill.samplers.as_trigflow` makes it of a flow.
        tx: its optimizer.
        critic_tx: the heads'.
        teacher: whose flow is distilled.
        features: what is judged, see :func:`features_of`.
        head: from a feature to one logit an example.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` is the data.
        initial: the entry of the frozen variables to start from, a denoiser of the same net.
        sigma_data: standard deviation of the data.
        consistency: the part of sCM.
        labels: whether labels are inputs.
        scales: of guidance, as for :func:`~jaxdistill.samplers.continuous_consistency`.
        adversary: the adversarial part.
        critic_updates: of the heads for one of the student.
        ema: decay of the running average; with one the result is the average.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller`, its result the denoiser's variables. Metrics:
        ``tangent``, and what student (``generator``) and heads (``critic``) pay.

    References:
        Chen et al., SANA-Sprint: One-Step Diffusion with Continuous-Time Consistency Distillation,
        2025.
    """
    outer = denoiser(net, sigma_data=sigma_data, time="angle")
    samples = functools.partial(_samples, outer, consistency, adversary.pure, scales)
    judged = functools.partial(_judged, features, head, adversary)
    consistent = continuous_loss(
        net, teacher, prepare, sigma_data=sigma_data, labels=labels, scales=scales,
        **consistency._asdict(),
    )  # fmt: skip

    def student(nets, turn):
        keys = jax.random.split(turn.key, 4)
        value, measured = consistent(nets, turn._replace(key=keys[0]))
        data, label = common.read(turn.batch, keys[1], prepare, labels)
        logits = judged(nets, turn, samples(nets, data, label, keys[2]), label, keys[3])
        paid = losses.adversarial_generator(logits, kind="hinge")
        return value + adversary.weight * paid.mean(), {**measured, "generator": common.mean(paid)}

    def critic(nets, turn):
        keys = jax.random.split(turn.key, 5)
        data, label = common.read(turn.batch, keys[0], prepare, labels)
        real = judged(nets, turn, data, label, keys[2])
        fake = judged(nets, turn, samples(nets, data, label, keys[1]), label, keys[3])
        paid = losses.adversarial_critic(real, fake, kind="hinge")
        if adversary.misaligned and label is not None:
            other = judged(nets, turn, jnp.roll(data, 1, 0), label, keys[4])
            paid = (paid + losses.adversarial_critic(real, other, kind="hinge")) / 2
        return paid.mean(), {"critic": common.mean(paid)}

    begin = common.starting({"net": outer}, prepare, labels, initial, guidance=bool(scales))

    def start(key, frozen, batch):
        found = dict(begin(key, frozen, batch))
        data, label = common.read(batch, key, prepare, labels)
        seen = features(frozen)(data, jnp.ones(len(data), data.dtype), label)
        found["heads"] = heads_of(head, adversary.taps, seen, key)
        return {**found, "weight": weight_of_times()} if learned else found

    learned = consistency.weighting == "learned"
    turns = {
        "net": Player(student, tx, trains=("net", "weight") if learned else ("net",)),
        "critic": Player(critic, critic_tx, critic_updates, ("heads",)),
    }
    return players(turns, start, ema=common.averages(ema))


def _samples(
    outer: Net,
    consistency: Consistency,
    pure: float,
    scales: Sequence[float],
    nets: Nets,
    data: jax.Array,
    label: Any,
    key: jax.Array,
) -> jax.Array:
    """Samples of one step from levels of their own, some of them the largest."""
    keys = jax.random.split(key, 5)
    sigma = consistency.levels(keys[0], data)
    sigma = jnp.where(jax.random.uniform(keys[1], sigma.shape) < pure, consistency.high, sigma)
    x = data + over(sigma, data) * jax.random.normal(keys[2], data.shape, data.dtype)
    told = common.given(label, common.drawn_scale(keys[3], scales, data))
    inputs = {**noised(x, sigma), **told}
    return outer.apply(*nets["net"], inputs, train=True, rng=keys[4]).out


def _judged(
    features: Features,
    head: Net,
    adversary: Adversary,
    nets: Nets,
    turn: Turn,
    x: jax.Array,
    label: Any,
    key: jax.Array,
) -> jax.Array:
    """How real the heads find samples, once noised; ``[taps, B]`` logits."""
    keys = jax.random.split(key)
    sigma = schedules.lognormal(keys[0], x.shape[:1], adversary.mean, adversary.std)
    sigma = sigma.astype(x.dtype)
    y = x + over(sigma, x) * jax.random.normal(keys[1], x.shape, x.dtype)
    seen = features(turn.frozen)(y, sigma, label)
    return logits_of(head, nets["heads"], adversary.taps, seen)
