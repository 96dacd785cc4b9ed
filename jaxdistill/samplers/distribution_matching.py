"""One-step generators that match a density: DMD, DMD2 and SiD, with alternating updates."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill._errors import unknown
from jaxdistill.distiller import Distiller
from jaxdistill.net import Net
from jaxdistill.players import Nets, Player, players
from jaxdistill.samplers import _training as common
from jaxdistill.samplers import losses, schedules
from jaxdistill.samplers._training import Prepare
from jaxdistill.samplers.denoisers import Teacher, noised
from jaxdistill.samplers.pairs import PairLoss
from jaxdistill.samplers.paths import over
from jaxdistill.settings import (
    Count,
    Finite,
    Fraction,
    NonNegative,
    Positive,
    Scheduled,
    Share,
)

# Levels among which those of the noise on samples are drawn.
LEVELS = 1000
OWN = "own classes"
"""The entry of the frozen variables with the classes that labels of samples are drawn from, where
these are not all."""


class Noise(NamedTuple):
    """The noise on samples: levels of Karras et al., 1000 from the least to the largest.

    Attributes:
        low: the least level.
        high: the largest.
        within: the part of them, as shares of their number, that the generator learns from.
    """

    low: Positive = 0.002
    high: Positive = 80.0
    within: tuple[Share, Share] = (0.02, 0.98)

    def on(self, key: jax.Array, x: jax.Array, *, all_levels: bool = True) -> tuple[Any, Any]:
        """Samples with noise on them, each at a level of its own, and the levels."""
        keys = jax.random.split(key)
        first, last = (0, LEVELS) if all_levels else (int(share * LEVELS) for share in self.within)
        index = jax.random.randint(keys[0], x.shape[:1], first, last + (not all_levels))
        sigma = schedules.rising_karras(index, LEVELS, self.low, self.high).astype(x.dtype)
        return x + over(sigma, x) * jax.random.normal(keys[1], x.shape, x.dtype), sigma


class Discriminator(NamedTuple):
    """The adversarial part.

    Attributes:
        tap: the feature of the estimate that the discriminator reads.
        generator_weight: of what the generator pays for being recognised.
        critic_weight: of what the discriminator pays.
    """

    tap: str = "bottleneck"
    generator_weight: NonNegative = 3e-3
    critic_weight: NonNegative = 1e-2


NOISE, DISCRIMINATOR = Noise(), Discriminator()


def distribution_matching(
    net: Net,
    fake: Net,
    tx: optax.GradientTransformation,
    fake_tx: optax.GradientTransformation,
    teacher: Teacher,
    head: Net | None = None,
    classes: int = 0,
    prepare: Prepare | None = None,
    initial: str | None = None,
    pairs: PairLoss | None = None,
    *,
    ratio: Count = 5,
    matching: Literal["distribution", "identity"] = "distribution",
    alpha: Finite = 1.2,
    levels: Sequence[Positive] = (80.0,),
    noise: Noise = NOISE,
    sigma_data: Positive = 0.5,
    discriminator: Discriminator = DISCRIMINATOR,
    regression: NonNegative = 0.25,
    labels: bool = False,
    ema: Scheduled[Fraction] | None = None,
    estimate: str | None = None,
) -> Distiller:
    r"""A generator whose samples a teacher and an estimate of their own density agree on.

    One step updates the generator once, and then ``ratio`` times the estimate (a denoiser that is
    trained on the generator's samples), all in one program without branches. With a ``head`` the
    estimate is a discriminator as well, of noised data from noised samples, which DMD2 adds.

    With more than one level the generator takes several steps: one of them is drawn for the whole
    batch, those before it are run without gradient from pure noise, each followed by new noise, and
    it is trained there. It sees what it will see when it is sampled.

    Args:
        net: the generator, a denoiser.
        fake: the denoiser of its samples.
        tx: the generator's optimizer.
        fake_tx: the other's, and the head's.
        teacher: the denoiser of the data.
        head: the discriminator's last layers, a net from the feature to one logit an example; None
            for no adversarial part.
        classes: how many there are, for labels.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` is the data.
        initial: the entry of the frozen variables that both generator and estimate start from.
        pairs: what the generator pays besides on pairs of a teacher, see
            :func:`~jaxdistill.samplers.pair_loss`, as the first DMD has it; None for none.
        ratio: updates of the estimate for one of the generator.
        matching: ``"distribution"`` for DMD, ``"identity"`` for SiD, which is differentiated
            through both denoisers.
        alpha: of :func:`~jaxdistill.samplers.losses.score_identity`.
        levels: of the generator's noise, falling; one for a generator of one step.
        noise: on samples.
        sigma_data: standard deviation of the data.
        discriminator: what the head reads, and weights.
        regression: the weight of ``pairs``.
        labels: whether labels are inputs; those of samples are drawn evenly.
        ema: decay of the generator's running average; with one the result is the average.
        estimate: the entry of the frozen variables that the estimate starts from, where that is
            another than the generator's.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` that takes ``ratio`` batches a step with a head,
        else one, of which it reads only the shape. Metrics: ``gradient``, the mean square of what
        the generator follows (it is no measure of progress); ``spread``, the standard deviation of
        its samples, which falls to 0 where they collapse; ``fake``, the estimate's loss; with a
        head also ``generator`` and ``critic``, with pairs ``regression``.

    Raises:
        ValueError: for levels that do not fall, noise that does not rise, a ratio below 1, labels
            without their number, pairs for more than one level.

    References:
        Yin et al., Improved Distribution Matching Distillation, 2024; Zhou et al., Score identity
        Distillation, 2024.
    """
    _refuse(matching, ratio, levels, noise, labels, classes, pairs)
    samples = functools.partial(generated, net, levels, classes if labels else 0)
    judged = functools.partial(_judged, fake, head, noise, discriminator.tap)
    through = matching == "identity"
    follow = functools.partial(losses.score_identity, alpha=alpha) if through else _matched

    def generator(nets, turn):
        keys = jax.random.split(turn.key, 5)
        like, _ = common.read(turn.batch, turn.key, prepare, labels)
        x, label = samples(nets, turn.frozen, keys, like)
        y, sigma = noise.on(keys[2], x if through else jax.lax.stop_gradient(x), all_levels=False)
        real = teacher(turn.frozen)(y, sigma, label)
        values = follow(x, real, _estimate(fake, nets, y, sigma, label).out)
        value, measured = _followed(values, x, pairs, regression, nets, turn.frozen, keys[4])
        if head is None:
            return value, measured
        paid = losses.adversarial_generator(judged(nets, x, label, keys[3]))
        value += discriminator.generator_weight * paid.mean()
        return value, {**measured, "generator": common.mean(paid)}

    def critic(nets, turn):
        keys = jax.random.split(turn.key, 7)
        data, own_label = common.read(turn.batch, keys[6], prepare, labels)
        x, label = samples(nets, turn.frozen, keys, data)
        y, sigma = noise.on(keys[2], x)
        said = _estimate(fake, nets, y, sigma, label, train=True, rng=keys[3]).out
        values = losses.denoising(said, x, sigma, sigma_data=sigma_data)
        measured = {"fake": common.mean(values)}
        if head is None:
            return values.mean(), measured
        of_data = judged(nets, data, own_label, keys[4])
        paid = losses.adversarial_critic(of_data, judged(nets, x, label, keys[5]))
        value = values.mean() + discriminator.critic_weight * paid.mean()
        return value, {**measured, "critic": common.mean(paid)}

    trains = ("fake",) if head is None else ("fake", "head")
    turns = {"net": Player(generator, tx), "critic": Player(critic, fake_tx, ratio, trains)}
    begun = _starting(net, fake, head, discriminator.tap, prepare, labels, (initial, estimate))
    return players(turns, begun, ema=common.averages(ema), own_batches=head is not None)


def _followed(
    values: jax.Array,
    x: jax.Array,
    pairs: PairLoss | None,
    weight: float,
    nets: Nets,
    frozen: Any,
    key: Any,
) -> tuple[jax.Array, dict[str, Any]]:
    """What the generator pays for where it is to go, and on pairs, and how both are measured."""
    spread = jnp.sqrt(jax.lax.stop_gradient(x).var(0).mean())
    measured = {"gradient": common.mean(2 * values), "spread": (spread, jnp.ones_like(spread))}
    if pairs is None:
        return values.mean(), measured
    missed = pairs(nets, frozen, key, len(values))
    return values.mean() + weight * missed.mean(), {**measured, "regression": common.mean(missed)}


def _starting(
    net: Net, fake: Net, head: Net | None, tap: str, prepare: Any, labels: bool, begun: Any
) -> Callable[..., dict[str, Any]]:
    """Where the nets start, the head on the estimate's feature."""
    starts = {"net": begun[0], "fake": begun[1] or begun[0]}
    denoisers = common.starting({"net": net, "fake": fake}, prepare, labels, starts)

    def start(key, frozen, batch):
        nets = denoisers(key, frozen, batch)
        image, label = common.read(batch, key, prepare, labels)
        feature = _estimate(fake, nets, image, jnp.ones(len(image)), label, taps=(tap,)).taps[tap]
        assert head is not None
        return {**nets, "head": head.init(jax.random.fold_in(key, 2), feature)}

    return denoisers if head is None else start


def generated(
    net: Net,
    levels: Sequence[float],
    classes: int,
    nets: Nets,
    frozen: Mapping[str, Any],
    keys: jax.Array,
    like: jax.Array,
) -> tuple[jax.Array, jax.Array | None]:
    """Samples of a generator, the last step differentiable, and the labels they were drawn for.

    Args:
        net: the generator.
        levels: of its noise, falling.
        classes: how many classes labels are drawn from, 0 for none.
        nets: whose entry ``"net"`` are its variables.
        frozen: the frozen variables, see :data:`OWN`.
        keys: two keys, of labels and of noise.
        like: an array of the samples' shape and type.
    """
    label = _drawn(keys[0], len(like), classes, frozen.get(OWN)) if classes else None
    of_noise, of_rung, of_steps = jax.random.split(keys[1], 3)
    x = levels[0] * jax.random.normal(of_noise, like.shape, like.dtype)
    sigma = jnp.asarray(levels[0], like.dtype)
    if len(levels) > 1:
        grid = jnp.asarray(levels, like.dtype)
        rung = jax.random.randint(of_rung, (), 0, len(levels))

        def down(place, x):
            data = net.apply(*nets["net"], noised(x, grid[place], label)).out
            noise = jax.random.normal(jax.random.fold_in(of_steps, place), x.shape, x.dtype)
            return jax.lax.stop_gradient(data + grid[place + 1] * noise)

        x, sigma = jax.lax.fori_loop(0, rung, down, x), grid[rung]
    inputs = noised(x, sigma, label)
    return net.apply(*nets["net"], inputs, train=True, rng=keys[1]).out, label


def _drawn(key: jax.Array, count: int, classes: int, own: jax.Array | None) -> jax.Array:
    if own is None:
        return jax.random.randint(key, (count,), 0, classes)
    return own[jax.random.randint(key, (count,), 0, len(own))]


def _estimate(fake: Net, nets: Nets, y: jax.Array, sigma: jax.Array, label: Any, **how: Any):
    """What the estimate says of noised samples."""
    return fake.apply(*nets["fake"], noised(y, sigma, label), **how)


def _judged(
    fake: Net, head: Any, noise: Noise, tap: str, nets: Nets, x: jax.Array, label: Any, key: Any
) -> jax.Array:
    """How real the discriminator finds samples, once noised; ``[B]`` logits."""
    y, sigma = noise.on(key, x)
    feature = _estimate(fake, nets, y, sigma, label, taps=(tap,)).taps[tap]
    return head.apply(*nets["head"], feature).out.reshape(len(feature))


def _matched(x: jax.Array, real: jax.Array, guess: jax.Array) -> jax.Array:
    """A loss whose gradient is where estimate and teacher differ."""
    return losses.gradient_as_loss(x, losses.matching_gradient(x, real, guess))


def _refuse(
    matching: str,
    ratio: int,
    levels: Sequence[float],
    noise: Noise,
    labels: bool,
    classes: int,
    pairs: Any,
) -> None:
    if matching not in ("distribution", "identity"):
        raise ValueError(unknown("matching", matching, ("distribution", "identity")))
    if ratio < 1:
        raise ValueError(f"ratio must be at least 1, got {ratio}")
    if not levels or list(levels) != sorted(set(levels), reverse=True):
        raise ValueError(f"levels of a generator must fall, got {tuple(levels)}")
    schedules.refuse_fall(noise.low, noise.high)
    if not 0 <= noise.within[0] <= noise.within[1] <= 1:
        raise ValueError(f"within={noise.within} must rise from 0 or more to 1 or less")
    if pairs is not None and len(levels) > 1:
        raise ValueError(f"pairs are learnt in one step: the generator has levels={tuple(levels)}")
    if labels and not classes:
        raise ValueError("a generator with labels needs the number of classes")
