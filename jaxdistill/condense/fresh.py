r"""What a synthetic set is worth: fresh nets trained on it, and tested on real records."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdistill._errors import unknown
from jaxdistill.condense.augment import Family, siamese
from jaxdistill.condense.experts import Decay
from jaxdistill.condense.real import real_set
from jaxdistill.condense.regression import support_fit
from jaxdistill.condense.subsets import random_rows
from jaxdistill.condense.synthetic import Synthetic
from jaxdistill.data.augment import to_float
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.net import Net
from jaxdistill.progress import shown
from jaxdistill.settings import Count, Fraction, Natural, NonNegative, Positive, checked
from jaxdistill.theory.ridge import predict

Evaluator = Callable[[Any, Mapping[str, Any], Iterable[Any]], Mapping[str, float]]
Loss = Literal["soft", "hard", "squared"]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How fresh nets are trained.

    Attributes:
        steps: how many.
        batch_size: images of a step, drawn without replacement; all where the set is smaller.
        learning_rate: None for the one that goes with the set.
        momentum: of SGD; None for Adam.
        weight_decay: of all parameters.
        decay: what the rate is multiplied by after half of the steps, where the optimizer is
            reset.
        augment: families of :func:`~jaxdistill.condense.augment.siamese`, drawn for every image.
        loss: ``"soft"`` cross-entropy with the set's targets, ``"hard"`` with their largest, or
            half the ``"squared"`` error.
        every: after how many steps nets are tested, for the best; 0 for the end alone.
    """

    steps: Count = 300
    batch_size: Count = 256
    learning_rate: Positive | None = 0.01
    momentum: Fraction | None = 0.9
    weight_decay: NonNegative = 5e-4
    decay: Decay = 0.1
    augment: Sequence[Family] = ()
    loss: Loss = "soft"
    every: Natural = 0

    def __post_init__(self):
        if self.loss not in get_args(Loss):
            raise ValueError(unknown("loss of fresh nets", self.loss, get_args(Loss)))
        # A trainer is kept by its protocol: a list has no hash.
        object.__setattr__(self, "augment", tuple(self.augment))


@checked
def fresh_nets(
    net: Net,
    seed: int = 0,
    *,
    nets: Count = 5,
    name: str = "",
    protocol: Protocol = Protocol(),
) -> Evaluator:
    """Trains fresh nets on a synthetic set, and measures them on real records.

    Args:
        net: of any architecture.
        seed: of their starts and batches.
        nets: how many, each from a start of its own.
        name: begins the names of the metrics, so that several architectures have different names.
        protocol: how they are trained.

    Returns:
        ``(result, frozen, data) -> metrics``: ``accuracy`` after the last step, the mean over nets,
        ``accuracy_sd`` over nets, and ``accuracy_best``, the mean of each net's best on these very
        records: what is usually reported, and too good by that choice.

    Raises:
        ValueError: for no nets.
    """
    train = functools.lru_cache(maxsize=4)(lambda settings: _trainer(net, settings))

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        del frozen
        batches = list(data)
        curves = [
            train(protocol)(result, _key(seed, number), batches)
            for number in shown(range(nets), "evaluate", "nets")
        ]
        last = np.array([curve[-1] for curve in curves])
        deviation = last.std(ddof=1) if nets > 1 else 0.0
        best = np.mean([max(curve) for curve in curves])
        values = (last.mean(), deviation, best)
        return dict(zip(names, map(float, values), strict=True))

    start = f"{name}_" if name else ""
    names = tuple(f"{start}{own}" for own in ("accuracy", "accuracy_sd", "accuracy_best"))
    return measuring(names, evaluator)


@checked
def ranked(
    net: Net,
    seed: int = 0,
    *,
    nets: Count = 3,
    full_steps: Count = 1000,
    data: str = "train",
    protocol: Protocol = Protocol(),
) -> Evaluator:
    """The label-robust and the augmentation-robust score of a set (DD-Ranking).

    The set, a random real subset of its size and the whole training set are trained on by the same
    protocol; labels of the latter two are hard.

    Args:
        net: of any architecture.
        seed: of their starts, and of the subset.
        nets: how many for each mean.
        full_steps: steps on the whole training set.
        data: the entry of ``frozen`` with the training set.
        protocol: the one that is said to suit the set, with its augmentation and labels.

    Returns:
        ``(result, frozen, data) -> metrics``: ``label_robust``, ``augmentation_robust`` in [0, 1],
        and what they are made from: ``hard_recovery``, ``over_random``.

    Raises:
        ValueError: for no nets.

    References:
        Li et al., `DD-Ranking <https://github.com/NUS-HPC-AI-Lab/DD-Ranking>`_, 2025
    """
    train = functools.lru_cache(maxsize=8)(lambda settings: _trainer(net, settings))

    def evaluator(result: Any, frozen: Mapping[str, Any], data_: Iterable[Any]) -> dict[str, float]:
        batches = list(data_)
        classes = result.targets.shape[-1]
        real = real_set(frozen, data, classes)
        each = len(result.images) // classes
        rows = random_rows(jax.random.key(seed), real.labels, each, classes).reshape(-1)

        def subset(rows):
            return Synthetic(
                real.images[rows], jax.nn.one_hot(real.labels[rows], classes), result.rate
            )

        def accuracy(synthetic, **changes):
            own = dataclasses.replace(protocol, **changes)
            numbers = shown(range(nets), "evaluate", "nets")
            found = [train(own)(synthetic, _key(seed, n), batches)[-1] for n in numbers]
            return float(np.mean(found))

        random, whole = subset(rows), subset(slice(None))
        own, other = accuracy(result), accuracy(random)
        hard = accuracy(result, loss="hard")
        full = accuracy(whole, loss="hard", steps=full_steps, augment=())
        plain, other_plain = (accuracy(x, augment=()) for x in (result, random))
        return {
            "label_robust": label_robust_score(full - hard, own - other),
            "augmentation_robust": augmentation_robust_score(own - other, plain - other_plain),
            "hard_recovery": full - hard,
            "over_random": own - other,
        }

    names = ("label_robust", "augmentation_robust", "hard_recovery", "over_random")
    return measuring(names, evaluator)


def label_robust_score(hard_recovery: float, over_random: float, share: float = 0.5) -> float:
    r"""DD-Ranking's label-robust score, :math:`(e^\alpha - e^{-1}) / (e - e^{-1})` with
    :math:`\alpha = w\, r - (1 - w)\, h`.

    Args:
        hard_recovery: h, by how much hard labels on the set are worse than all of the data.
        over_random: r, by how much the set is better than a random one by the same protocol.
        share: w.

    Returns:
        In [0, 1]: accuracies are shares of one. (With percents it would be anything.)

    Raises:
        ValueError: for differences beyond -1 and 1, as of percents.

    Example:
        >>> round(label_robust_score(0.0, 0.0), 3), label_robust_score(-1.0, 1.0)
        (0.269, 1.0)
    """
    return _squashed(share * over_random - (1 - share) * hard_recovery, hard_recovery, over_random)


def augmentation_robust_score(augmented: float, plain: float, share: float = 0.5) -> float:
    r"""DD-Ranking's augmentation-robust score, as :func:`label_robust_score` of
    :math:`\beta = w\, a + (1 - w)\, p`.

    Args:
        augmented: a, by how much the set is better than a random one, both augmented.
        plain: p, the same without augmentation.
        share: w.

    Example:
        >>> round(augmentation_robust_score(0.5, 0.3), 3)
        0.478
    """
    return _squashed(share * augmented + (1 - share) * plain, augmented, plain)


@checked
def kernel_accuracy(
    kernel: Callable[[jax.Array, jax.Array], jax.Array], *, ridge: NonNegative = 1e-6
) -> Evaluator:
    """The accuracy of kernel ridge regression fitted to a synthetic set.

    Args:
        kernel: ``(x [n, ...], others [m, ...]) -> [n, m]``.
        ridge: relative to the mean of the kernel's diagonal.

    Returns:
        ``(result, frozen, data) -> {"kernel_accuracy"}``.
    """

    @jax.jit
    def fitted(images, targets):
        return support_fit(kernel(images, images), targets, ridge)

    @jax.jit
    def scores(points, images, coefficients):
        return predict(kernel(to_float(points), images), coefficients)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        del frozen
        # Targets of a real subset are probabilities: a mean of zero costs the fit nothing.
        targets = result.targets - result.targets.mean(-1, keepdims=True)
        coefficients = fitted(result.images, targets)
        return {
            "kernel_accuracy": _accuracy(
                lambda images: scores(images, result.images, coefficients), list(data)
            )
        }

    return measuring(("kernel_accuracy",), evaluator)


def _trainer(
    net: Net, settings: Protocol
) -> Callable[[Synthetic, jax.Array, Sequence[Any]], list[float]]:
    """``(set, key, batches) -> accuracies`` of one net, in the order of the tests."""
    augmentation = siamese(settings.augment)
    parts = [optax.add_decayed_weights(settings.weight_decay)] if settings.weight_decay else []
    if settings.momentum is None:
        parts.append(optax.scale_by_adam())
    elif settings.momentum:
        parts.append(optax.trace(settings.momentum))
    tx = optax.chain(*parts) if parts else optax.identity()

    def loss(params, state, images, targets, key):
        forward = net.apply(params, state, images, train=True, rng=key)
        if settings.loss == "squared":
            return 0.5 * jnp.square(forward.out - targets).sum(-1).mean(), forward.state
        if settings.loss == "hard":
            targets = jax.nn.one_hot(targets.argmax(-1), targets.shape[-1])
        return -(targets * jax.nn.log_softmax(forward.out)).sum(-1).mean(), forward.state

    @functools.partial(jax.jit, donate_argnums=(0,))
    def step(carry, images, targets, key, number, rate):
        params, state, opt = carry
        key_rows, key_draw, key_net = jax.random.split(jax.random.fold_in(key, number), 3)
        size = min(settings.batch_size, len(images))
        rows = jax.random.permutation(key_rows, len(images))[:size]
        seen = augmentation.apply(augmentation.draw(key_draw, size), images[rows])
        slopes, state = jax.grad(loss, has_aux=True)(params, state, seen, targets[rows], key_net)
        moves, opt = tx.update(slopes, opt, params)
        params = jax.tree.map(lambda p, m: p - rate * m, params, moves)
        return params, state, opt

    @jax.jit
    def out(params, state, images):
        return net.apply(params, state, to_float(images)).out

    init = jax.jit(net.init)

    def train(synthetic: Synthetic, key: jax.Array, batches: Sequence[Any]) -> list[float]:
        images, targets = jnp.asarray(synthetic.images), jnp.asarray(synthetic.targets)
        params, state = init(key, images[:1])
        opt = tx.init(params)
        rate = synthetic.rate if settings.learning_rate is None else settings.learning_rate
        rate, found = jnp.asarray(rate, jnp.float32), []
        for number in shown(range(settings.steps), "train on the set", "steps"):
            if number == settings.steps // 2 + 1:
                rate, opt = rate * settings.decay, tx.init(params)
            params, state, opt = step((params, state, opt), images, targets, key, number, rate)
            done = number + 1
            if done == settings.steps or (settings.every and done % settings.every == 0):
                found.append(_accuracy(functools.partial(out, params, state), batches))
        return found

    return train


def _accuracy(scores: Callable[[Any], Any], batches: Sequence[Any]) -> float:
    right = total = 0
    for batch in batches:
        hits = np.asarray(scores(batch["image"])).argmax(-1) == batch["label"]
        right += int((hits & batch["where"]).sum())
        total += int(batch["where"].sum())
    return right / total


def _key(seed: int, number: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), number)


def _squashed(value: float, *differences: float) -> float:
    if max(map(abs, differences)) > 1:
        raise ValueError(f"differences of accuracies must lie in [-1, 1], got {differences}")
    low = math.exp(-1)
    return (math.exp(value) - low) / (math.e - low)
