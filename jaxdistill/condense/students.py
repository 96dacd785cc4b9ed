"""Students of trajectories: where they start, how they are trained, where they are to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxdistill.condense.augment import Augmentation
from jaxdistill.condense.flat import Flat
from jaxdistill.condense.unroll import Inner, Target
from jaxdistill.settings import Count, Fraction, Natural, NonNegative, Positive

Waypoints = Literal["", "equal", "growing"]


class Window(NamedTuple):
    """From which epochs of an expert a student starts: ``first`` to ``last - 1``.

    Attributes:
        first: the earliest.
        last: behind the latest.
        begin: where the end of the window is at first; it grows evenly to ``last``. None for
            ``last`` from the beginning.
        grown: after how many steps it has.
    """

    first: Natural = 0
    last: Count = 20
    begin: Count | None = None
    grown: Natural = 0


class Students(NamedTuple):
    """How students are trained on the set.

    Attributes:
        steps: N, how many.
        batch_size: images of a step, all by default; they are dealt without replacement.
        rate: the learning rate at first.
        learn_rate: whether it is learned.
        momentum: of SGD (smooth experts).
        balance: whether the loss is the greater the later a student starts (smooth experts).
        perturb: by what share of itself each kernel of convolutions moves at random before a
            student starts (smooth experts).
    """

    steps: Count
    batch_size: Count | None = None
    rate: Positive = 0.01
    learn_rate: bool = True
    momentum: Fraction = 0.0
    balance: bool = False
    perturb: NonNegative = 0.0


def stretch(
    keys: jax.Array, paths: jax.Array, window: Window, epochs: int, step: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    """The epoch that a student starts after, and where a random expert was then and after each of
    the ``epochs`` that follow: M + 1 vectors ``[P]``."""
    begin = window.last if window.begin is None else window.begin
    grown = begin + (window.last - begin) * step / max(window.grown, 1)
    end = jnp.minimum(jnp.floor(grown).astype(jnp.int32), window.last)
    expert = jax.random.randint(keys[0], (), 0, paths.shape[0])
    epoch = jax.random.randint(keys[1], (), window.first, end)
    size = (1, 1, paths.shape[2])
    marks = [
        jax.lax.dynamic_slice(paths, (expert, epoch + m, 0), size)[0, 0] for m in range(epochs + 1)
    ]
    return epoch, marks


def targets_of(marks: Sequence[jax.Array], steps: int, waypoints: Waypoints) -> list[Target]:
    """Where a student of ``steps`` steps is to be: at the last mark, and where there are waypoints
    at each of those on the way after its share of the steps."""
    epochs = len(marks) - 1
    targets = []
    for m in range(1, epochs) if waypoints else ():
        weight = m / epochs if waypoints == "growing" else 1.0
        targets.append(Target(m * (steps // epochs), marks[m], weight))
    return [*targets, Target(steps, marks[epochs])]


def training(
    keys: jax.Array,
    model: Flat,
    augmentation: Augmentation,
    students: Students,
    count: int,
    soft: bool,
    scale: Any,
) -> Inner:
    """The training of a student on a set of ``count`` images: batches and augmentations are drawn,
    and the loss is ``scale`` times the cross-entropy."""
    size = min(students.batch_size or count, count)
    drawn = jax.vmap(lambda k: augmentation.draw(k, size))(
        jax.random.split(keys[0], students.steps)
    )
    rows = dealt(keys[1], count, size, students.steps)

    def loss(vector, synthetic, part):
        rows, drawn = part
        images = augmentation.apply(drawn, synthetic["images"][rows])
        scores = jax.nn.log_softmax(model.apply(vector, images).out)
        labels = synthetic["labels"][rows]
        goal = jax.nn.softmax(labels) if soft else labels
        return -scale * (goal * scores).sum(-1).mean()

    return Inner(loss, (rows, drawn), students.momentum)


def dealt(key: jax.Array, count: int, size: int, steps: int) -> jax.Array:
    """Places of the images of every step, int ``[steps, size]``: dealt from a shuffled deck, which
    is shuffled anew when fewer than a batch are left."""
    per_deck = count // size
    decks = -(-steps // per_deck)
    order = jax.vmap(lambda k: jax.random.permutation(k, count))(jax.random.split(key, decks))
    return order[:, : per_deck * size].reshape(-1, size)[:steps]


def balanced(epoch: jax.Array, last: int) -> jax.Array:
    """What a student's loss is multiplied by when it starts after ``epoch``: below one in the first
    half of the window, above it in the second."""
    away = epoch - last // 2
    factor = jnp.log(jnp.abs(away) + 8.0) / jnp.log(5.0)
    return jnp.where(epoch >= last / 2, factor, 1 / factor)


def perturbed(key: jax.Array, model: Flat, vector: jax.Array, share: float) -> jax.Array:
    """A vector whose kernels of convolutions moved by a share of themselves in a random direction:
    each entry by ``share * d / |d|`` times itself. With no share it stays as it is."""
    if not share:
        return vector
    params = model.unravel(vector)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))

    def moved(key, leaf):
        if leaf.ndim != 4:
            return leaf
        direction = jax.random.normal(key, leaf.shape, leaf.dtype)
        return leaf + share * direction / jnp.sqrt(jnp.square(direction).sum()) * leaf

    moved_leaves = [moved(k, leaf) for k, leaf in zip(keys, leaves, strict=True)]
    return ravel_pytree(jax.tree.unflatten(tree, moved_leaves))[0]
