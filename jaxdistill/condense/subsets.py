"""Real subsets of a training set: what condensed ones start from, and are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.condense.real import Real, real_set
from jaxdistill.condense.synthetic import Synthetic, one_hot
from jaxdistill.distiller import Work
from jaxdistill.settings import Count, Positive, checked

Choice = Literal["random", "herding", "centres"]
CHOICES = get_args(Choice)
# What images that are learned start from.
Start = Literal["noise", "random", "herding", "centres"]


@checked
def chosen(classes: int, *, each: Count, choice: Choice = "random", rate: Positive = 0.01) -> Work:
    """A real subset, what condensed ones are to be compared with.

    Args:
        classes: how many.
        each: images of each class.
        choice: ``"random"``, ``"herding"`` or ``"centres"`` (k-centre), in the space of the images.
        rate: the learning rate that goes with the set.

    Returns:
        A :class:`~jaxdistill.distiller.Work` that reads ``data["train"]`` and whose result is a
        :class:`~jaxdistill.condense.synthetic.Synthetic`.

    Raises:
        ValueError: for an unknown choice; as it runs for records without ``image`` and ``label``.

    Example:
        >>> from jaxdistill.data.sources import digits
        >>> herding = chosen(10, each=2, choice="herding")
        >>> herding.run({}, {"train": digits()}, jax.random.key(0)).images.shape
        (20, 8, 8, 1)
    """

    def run(results: Any, data: Mapping[str, Any], key: jax.Array) -> Synthetic:
        del results
        real = real_set(data, "train", classes)
        images = first_images(key, real, each, classes, choice)
        return Synthetic(images, one_hot(each, classes), jnp.asarray(rate))

    return Work(run, "data_set", made=Synthetic)


def first_images(key: jax.Array, real: Real, each: int, classes: int, initial: Start) -> jax.Array:
    """What a set starts from: noise, or a real subset; ``[n, H, W, C]``.

    Raises:
        ValueError: for an unknown start.
    """
    if initial == "noise":
        return jax.random.normal(key, (each * classes, *real.images.shape[1:]), real.images.dtype)
    if initial not in CHOICES:
        raise ValueError(unknown("start of the images", initial, get_args(Start)))
    rows = chosen_rows(initial, key, real.images, real.labels, each, classes)
    return real.images[rows.reshape(-1)]


def random_rows(
    key: jax.Array, labels: jax.Array, each: int, classes: int, where: jax.Array | None = None
) -> jax.Array:
    """Records of every class drawn without replacement: int ``[classes, each]``.

    Args:
        key: of the draw.
        labels: ``[N]``.
        each: how many of each class; where a class has fewer, they come again.
        classes: how many classes.
        where: bool ``[N]``, the records to take before any others of their class.
    """
    luck = jax.random.uniform(key, labels.shape)
    if where is not None:
        luck = luck + where.astype(luck.dtype)
    own = labels[None, :] == jnp.arange(classes)[:, None]
    rows = jax.lax.top_k(jnp.where(own, luck[None, :], -1.0), each)[1]
    places = jnp.arange(each)[None, :] % jnp.maximum(own.sum(1), 1)[:, None]
    return jnp.take_along_axis(rows, places, axis=1)


def herding_rows(images: jax.Array, labels: jax.Array, each: int, classes: int) -> jax.Array:
    """For every class the records whose running mean stays closest to the mean of the class:
    int ``[classes, each]``.

    References:
        Welling, Herding Dynamical Weights to Learn, ICML 2009
    """
    rows = images.reshape(len(images), -1)

    def of_class(label):
        own = labels == label
        mean = jnp.where(own[:, None], rows, 0).sum(0) / jnp.maximum(own.sum(), 1)

        def pick(carry, place):
            total, free = carry
            away = jnp.square((total[None] + rows) / (place + 1) - mean[None]).sum(1)
            best = jnp.argmin(jnp.where(free, away, jnp.inf))
            return (total + rows[best], free.at[best].set(False)), best

        start = (jnp.zeros(rows.shape[1], rows.dtype), own)
        return jax.lax.scan(pick, start, jnp.arange(each))[1]

    return jax.lax.map(of_class, jnp.arange(classes))


def centre_rows(images: jax.Array, labels: jax.Array, each: int, classes: int) -> jax.Array:
    """For every class its record nearest to the mean, then again and again the one farthest from
    all that are chosen: int ``[classes, each]``.

    References:
        Sener and Savarese, Active Learning for Convolutional Neural Networks, ICLR 2018
    """
    rows = images.reshape(len(images), -1)

    def of_class(label):
        own = labels == label
        mean = jnp.where(own[:, None], rows, 0).sum(0) / jnp.maximum(own.sum(), 1)
        away = jnp.square(rows - mean[None]).sum(1)
        first = jnp.argmin(jnp.where(own, away, jnp.inf))

        def pick(carry, _):
            nearest, last = carry
            nearest = jnp.minimum(nearest, jnp.square(rows - rows[last][None]).sum(1))
            following = jnp.argmax(jnp.where(own, nearest, -jnp.inf))
            return (nearest, following), last

        start = (jnp.full(len(rows), jnp.inf, rows.dtype), first)
        return jax.lax.scan(pick, start, None, length=each)[1]

    return jax.lax.map(of_class, jnp.arange(classes))


def cluster_rows(
    key: jax.Array, outputs: jax.Array, labels: jax.Array, each: int, classes: int
) -> jax.Array:
    """For every class the records nearest to the centres of ``each`` clusters of a net's outputs:
    representative ones, int ``[classes, each]``. Clusters are those of Lloyd's algorithm.

    Args:
        key: of the records that the centres start at.
        outputs: ``[N, K]``.
        labels: ``[N]``.
        each: how many of each class.
        classes: how many classes.
    """
    starts = random_rows(key, labels, each, classes)

    def of_class(label, rows):
        own = labels == label

        def distances(centres):
            return jnp.square(outputs[:, None] - centres[None]).sum(-1)

        def move(centres, _):
            nearest = jax.nn.one_hot(distances(centres).argmin(1), each) * own[:, None]
            counts = nearest.sum(0)[:, None]
            moved = nearest.T @ outputs / jnp.maximum(counts, 1)
            return jnp.where(counts > 0, moved, centres), None

        centres, _ = jax.lax.scan(move, outputs[rows], None, length=20)

        def pick(free, centre):
            away = jnp.square(outputs - centre[None]).sum(-1)
            best = jnp.argmin(jnp.where(free, away, jnp.inf))
            return free.at[best].set(False), best

        return jax.lax.scan(pick, own, centres)[1]

    return jax.lax.map(lambda pair: of_class(*pair), (jnp.arange(classes), starts))


def chosen_rows(
    name: Choice, key: jax.Array, images: jax.Array, labels: jax.Array, each: int, classes: int
) -> jax.Array:
    """A real subset by name, ``"random"``, ``"herding"`` or ``"centres"``: int ``[classes, each]``.

    Raises:
        ValueError: for an unknown name.
    """
    if name == "random":
        return random_rows(key, labels, each, classes)
    if name == "herding":
        return herding_rows(images, labels, each, classes)
    if name == "centres":
        return centre_rows(images, labels, each, classes)
    raise ValueError(unknown("choice of real images", name, CHOICES))
