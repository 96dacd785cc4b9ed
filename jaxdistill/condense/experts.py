r"""Experts: nets that are trained on real data, and the trajectories of their parameters.

A distiller trains several at once and leaves ``[experts, epochs + 1, P]``: every expert's
parameters at its start and after each epoch. :func:`save_trajectories` keeps them together with a
record of what they were made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import store
from jaxdistill.condense.augment import Augmentation, Draw, Family, siamese
from jaxdistill.condense.flat import Flat, flat
from jaxdistill.condense.real import real_set
from jaxdistill.distiller import Distiller
from jaxdistill.loops import for_each
from jaxdistill.losses.numerics import safe_norm
from jaxdistill.net import Net
from jaxdistill.progress import shown
from jaxdistill.settings import (
    Count,
    Finite,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Range,
    checked,
)

# What a learning rate is multiplied by.
Decay = Annotated[float, Range(0, 1, above=True)]


class Flatness(NamedTuple):
    r"""Steps that lead to flat places (GSAM with an adaptive neighbourhood).

    .. math:: e = \rho\, \theta^2 g / \| |\theta| g \|, \quad g' = \nabla L(\theta + e), \quad
        d = g' - \alpha \bigl(g - \cos(g, g')\, \|g\|\, g' / \|g'\| \bigr)

    Attributes:
        rho: how far the loss is looked at.
        alpha: how much of what is orthogonal to the perturbed gradient is taken away.
    """

    rho: NonNegative = 0.01
    alpha: Finite = 0.3


class Training(NamedTuple):
    """The state of :func:`train_experts`.

    Attributes:
        step: how many steps were done, over all groups.
        key: of the run.
        vectors: ``[at_once, P]``, the experts in training.
        momentum: ``[at_once, P]``.
        trajectories: ``[experts, epochs + 1, P]``; rows not reached yet are fresh starts.
    """

    step: jax.Array
    key: jax.Array
    vectors: jax.Array
    momentum: jax.Array
    trajectories: jax.Array


@checked
def train_experts(
    net: Net,
    image_shape: tuple[int, ...],
    classes: int,
    steps: int | None = None,
    *,
    experts: Count,
    epochs: Count,
    at_once: Count | None = None,
    batch_size: Count = 256,
    learning_rate: Positive = 0.01,
    momentum: Fraction = 0.0,
    weight_decay: NonNegative = 0.0,
    decay: Decay = 1.0,
    augment: Sequence[Family] = (),
    flatness: Flatness | None = None,
    loss_ramp: Natural = 0,
    gradient_penalty: NonNegative = 0.0,
    data: str = "train",
) -> Distiller:
    """Trains experts by plain SGD and keeps where they were after every epoch.

    Experts see the records in orders of their own. A step of the distiller is one step of
    ``at_once`` experts; :func:`expert_steps` says how many there are.

    Args:
        net: what every expert is.
        image_shape: (H, W, C).
        classes: how many.
        steps: how many the loop will do, to be checked: those of all epochs, or fewer than one
            epoch, to try out what follows. Rows that are not reached hold fresh starts.
        experts: how many.
        epochs: how many each is trained for.
        at_once: how many in one step, all by default; it divides ``experts``.
        batch_size: records of each expert in a step.
        learning_rate: constant, but for ``decay``.
        momentum: of SGD.
        weight_decay: of SGD.
        decay: what the rate is multiplied by after half of the epochs; momentum is reset then.
        augment: families of :func:`~jaxdistill.condense.augment.siamese`, drawn for every image.
        flatness: steps that lead to flat places (FTD).
        loss_ramp: epochs in which the loss grows from half to full weight (smooth experts).
        gradient_penalty: weight of the penalty on the gradient of the outputs with respect to each
            pixel of the images, as they are without augmentation (smooth experts).
        data: the entry of ``frozen`` with all records.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` whose result are the trajectories,
        ``[experts, epochs + 1, P]``.

    Raises:
        ValueError: if ``at_once`` does not divide the experts; at ``init``, if a batch is larger
            than the set or the number of steps is not that of the epochs.

    References:
        Cazenavette et al., `Dataset Distillation by Matching Training Trajectories
        <https://arxiv.org/abs/2203.11932>`_, CVPR 2022; Du et al., `Minimizing the Accumulated
        Trajectory Error <https://arxiv.org/abs/2211.11004>`_, CVPR 2023; Shen et al., `Efficient
        Dataset Distillation via Smooth Expert Trajectories <https://arxiv.org/abs/2310.10541>`_
    """
    at_once = at_once or experts
    if experts % at_once:
        raise ValueError(f"at_once must divide the {experts} experts, got {at_once}")
    model, augmentation = flat(net, image_shape), siamese(augment)

    def init(key, frozen, batch):
        del batch
        size = len(real_set(frozen, data, classes).labels)
        check_steps(steps, size, batch_size, epochs, experts, at_once)
        keys = jax.random.split(jax.random.fold_in(key, experts), experts * (epochs + 1))
        trajectories = jax.lax.map(model.draw, keys).reshape(experts, epochs + 1, -1)
        none = jnp.zeros((at_once, model.size))
        return Training(jnp.zeros((), jnp.int32), key, none, none, trajectories)

    def step(state: Training, frozen, batch):
        del batch
        real = real_set(frozen, data, classes)
        now = clock(state.step, epochs, epoch_steps(len(real.labels), batch_size))
        keys, starts, velocities = started(state, now, model, epochs, at_once, decay)
        rate = learning_rate * jnp.where(now.epoch > epochs // 2, decay, 1.0)
        share = jnp.where(now.epoch < loss_ramp, 0.5 + 0.5 * now.epoch / max(loss_ramp, 1), 1.0)

        def one(parts):
            key, vector, velocity = parts
            rows, drawn = drawn_batch(key, now, augmentation, len(real.labels), batch_size)
            loss = expert_loss(
                model, augmentation, drawn, real.images[rows], real.labels[rows], share,
                gradient_penalty,
            )  # fmt: skip
            (value, right), direction = loss_direction(loss, vector, flatness)
            velocity = momentum * velocity + direction + weight_decay * vector
            return vector - rate * velocity, velocity, value, right

        vectors, velocities, losses, right = for_each(one, (keys, starts, velocities))
        trajectories = written(state.trajectories, now, at_once, starts, vectors)
        count = jnp.full((), float(at_once))
        metrics = {"loss": (losses.sum(), count), "train_accuracy": (right.sum(), count)}
        return Training(state.step + 1, state.key, vectors, velocities, trajectories), metrics

    return Distiller(init, step, lambda state: state.trajectories, kind="arrays")


class Clock(NamedTuple):
    """Where in the training a step is.

    Attributes:
        group: which of the groups that are trained one after another.
        inside: steps of the group that were done.
        epoch: of the group.
        place: the step's place in its epoch.
        per_epoch: steps of an epoch.
    """

    group: jax.Array
    inside: jax.Array
    epoch: jax.Array
    place: jax.Array
    per_epoch: int


def clock(step: jax.Array, epochs: int, per_epoch: int) -> Clock:
    """Where a step is, of groups that are trained for ``epochs`` of ``per_epoch`` steps."""
    group, inside = jnp.divmod(step, epochs * per_epoch)
    return Clock(group, inside, *jnp.divmod(inside, per_epoch), per_epoch)


def started(
    state: Training, now: Clock, model: Flat, epochs: int, at_once: int, decay: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys, parameters and momenta with which the experts of a group begin a step: newly drawn
    where the group begins; momenta are zero there, and where the rate falls."""
    numbers = now.group * at_once + jnp.arange(at_once)
    keys = jax.vmap(lambda n: jax.random.fold_in(state.key, n))(numbers)
    fresh = now.inside == 0
    starts = jax.lax.cond(
        fresh,
        lambda: jax.vmap(lambda k: model.draw(jax.random.fold_in(k, epochs)))(keys),
        lambda: state.vectors,
    )
    restarts = fresh | ((decay != 1.0) & (now.inside == (epochs // 2 + 1) * now.per_epoch))
    return keys, starts, jnp.where(restarts, 0, state.momentum)


def drawn_batch(
    key: jax.Array, now: Clock, augmentation: Augmentation, size: int, batch_size: int
) -> tuple[jax.Array, Draw]:
    """Which of ``size`` records an expert sees, and how they are augmented; ``key`` is its own."""
    key_epoch = jax.random.fold_in(key, now.epoch)
    order = jax.random.permutation(key_epoch, size)
    rows = jax.lax.dynamic_slice(order, (now.place * batch_size,), (batch_size,))
    return rows, augmentation.draw(jax.random.fold_in(key_epoch, now.place), batch_size)


def written(
    trajectories: jax.Array, now: Clock, at_once: int, starts: jax.Array, vectors: jax.Array
) -> jax.Array:
    """Trajectories with the group's starts where it begins, and where it is after an epoch."""

    def write(trajectories, rows, at):
        start = (now.group * at_once, at, 0)
        return jax.lax.dynamic_update_slice(trajectories, rows[:, None], start)

    trajectories = jax.lax.cond(
        now.inside == 0, lambda t: write(t, starts, 0), lambda t: t, trajectories
    )
    return jax.lax.cond(
        now.place == now.per_epoch - 1,
        lambda t: write(t, vectors, now.epoch + 1),
        lambda t: t,
        trajectories,
    )


def check_steps(
    steps: int | None, size: int, batch_size: int, epochs: int, experts: int, at_once: int
) -> None:
    """Refuses a number of steps that is neither that of all epochs nor less than one epoch.

    Raises:
        ValueError: saying how many there must be; for batches larger than the set.
    """
    whole = expert_steps(size, batch_size, epochs, experts, at_once)
    if steps not in (None, whole) and not steps < epoch_steps(size, batch_size):
        raise ValueError(
            f"{experts} experts, {at_once} at once, take {whole} steps for {epochs} epochs of "
            f"{size} records in batches of {batch_size}, not {steps}"
        )


def epoch_steps(size: int, batch_size: int) -> int:
    """Whole batches in an epoch.

    Raises:
        ValueError: if there is none.
    """
    if not 0 < batch_size <= size:
        raise ValueError(f"a batch of {batch_size} does not fit a set of {size} records")
    return size // batch_size


def expert_steps(
    size: int, batch_size: int, epochs: int, experts: int, at_once: int | None = None
) -> int:
    """How many steps :func:`train_experts` takes."""
    return epoch_steps(size, batch_size) * epochs * (experts // (at_once or experts))


def expert_loss(
    model: Flat,
    augmentation: Augmentation,
    drawn: Any,
    images: jax.Array,
    labels: jax.Array,
    share: Any = 1.0,
    gradient_penalty: float = 0.0,
):
    """``vector -> (loss, share of right answers)`` of one batch."""

    def penalty(vector):
        slopes = jax.grad(lambda x: model.apply(vector, x).out.sum())(images)
        return gradient_penalty * jnp.square(safe_norm(slopes, axis=-1) - 1).mean()

    def loss(vector):
        scores = model.apply(vector, augmentation.apply(drawn, images)).out
        log_p = jax.nn.log_softmax(scores)
        own = jnp.take_along_axis(log_p, labels[:, None], -1)
        value = -share * own.mean()
        if gradient_penalty:
            value = value + penalty(vector)
        return value, (scores.argmax(-1) == labels).mean()

    return loss


def loss_direction(loss: Any, vector: jax.Array, flatness: Flatness | None):
    """Value and direction of a step: the gradient, or the one that leads to flat places.

    Args:
        loss: ``vector -> (loss, more)``.
        vector: ``[P]``.
        flatness: None for the gradient.

    Returns:
        ``((loss, more), direction [P])``.
    """
    value, gradient = jax.value_and_grad(loss, has_aux=True)(vector)
    if flatness is None:
        return value, gradient
    tiny = 1e-12
    away = jnp.square(vector) * gradient
    away = flatness.rho * away / (safe_norm(jnp.abs(vector) * gradient) + tiny)
    perturbed = jax.grad(lambda v: loss(v)[0])(vector + away)
    norm, norm_perturbed = safe_norm(gradient), safe_norm(perturbed)
    cosine = gradient @ perturbed / (norm * norm_perturbed + tiny)
    along = cosine * norm * perturbed / (norm_perturbed + tiny)
    return value, perturbed - flatness.alpha * (gradient - along)


def save_trajectories(
    path: Path | str, trajectories: Any, identity: Mapping[str, Any], **settings: Any
) -> store.Store:
    """Keeps trajectories on disk, a row for every expert and epoch, with what they were made from.

    Args:
        path: a folder; writing that was stopped is resumed there.
        trajectories: ``[experts, epochs + 1, P]``, float32.
        identity: JSON data: net, data, how the experts were trained.
        settings: of :func:`jaxdistill.store.begin`.

    Raises:
        ValueError: if the folder holds other trajectories.
        OSError: if it cannot be written.
    """
    trajectories = np.asarray(trajectories, np.float32)
    experts, points, size = trajectories.shape
    whole = {**identity, "trajectories": {"experts": experts, "points": points, "size": size}}
    layout = store.Layout({"vector": jax.ShapeDtypeStruct((size,), jnp.float32)})
    rows = trajectories.reshape(experts * points, size)
    begun = store.begin(path, whole, layout, len(rows), **{"container": "npy", **settings})
    for number in shown(range(begun.whole(), len(begun.parts())), "write trajectories", "parts"):
        first, last = begun.parts()[number]
        norms = np.linalg.norm(rows[first:last], axis=1)
        begun.write(number, {"vector": rows[first:last]}, {"norm": norms})
    ids = [f"expert/{e:04d}/{p:04d}" for e in range(experts) for p in range(points)]
    begun.finish(ids, {})
    return store.open_store(path, whole)


def open_trajectories(path: Path | str, identity: Mapping[str, Any] | None = None) -> np.ndarray:
    """Reads trajectories: float32 ``[experts, epochs + 1, P]``.

    Args:
        path: their folder.
        identity: what they must have been made from.

    Raises:
        ValueError: if there are none, they are not whole, or of something else; every value that
            differs is listed with both.
    """
    found = store.open_store(path, identity)
    about = found.manifest["identity"]["trajectories"]
    rows = found.read(np.arange(len(found)))["vector"]
    return rows.reshape(about["experts"], about["points"], about["size"])
