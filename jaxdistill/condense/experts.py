r"""Experts: nets that are trained on real data, and the trajectories of their parameters.

A distiller trains several at once and leaves ``[experts, epochs + 1, P]``: every expert's
parameters at its start and after each epoch. :func:`save_trajectories` keeps them beside what they
are of.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import store
from jaxdistill.condense.augment import Augmentation, siamese
from jaxdistill.condense.flat import Flat, flat
from jaxdistill.condense.real import real_set
from jaxdistill.distiller import Distiller
from jaxdistill.loops import for_each
from jaxdistill.losses.numerics import safe_norm
from jaxdistill.net import Net


class Flatness(NamedTuple):
    r"""Steps that lead to flat places (GSAM with an adaptive neighbourhood).

    .. math:: e = \rho\, \theta^2 g / \| |\theta| g \|, \quad g' = \nabla L(\theta + e), \quad
        d = g' - \alpha \bigl(g - \cos(g, g')\, \|g\|\, g' / \|g'\| \bigr)

    Attributes:
        rho: how far the loss is looked at.
        alpha: how much of what is orthogonal to the perturbed gradient is taken away.
    """

    rho: float = 0.01
    alpha: float = 0.3


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


def train_experts(
    net: Net,
    image_shape: tuple[int, ...],
    classes: int,
    *,
    experts: int,
    epochs: int,
    steps: int | None = None,
    at_once: int | None = None,
    batch_size: int = 256,
    learning_rate: float = 0.01,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    decay: float = 1.0,
    augment: tuple[str, ...] = (),
    flatness: Flatness | None = None,
    loss_ramp: int = 0,
    gradient_penalty: float = 0.0,
    data: str = "train",
) -> Distiller:
    """Trains experts by plain SGD and keeps where they were after every epoch.

    Experts see the records in orders of their own. A step of the distiller is one step of
    ``at_once`` experts; :func:`expert_steps` says how many there are.

    Args:
        net: what every expert is.
        image_shape: (H, W, C).
        classes: how many.
        experts: how many.
        epochs: how many each is trained for.
        steps: how many the loop will do, to be checked: those of all epochs, or fewer than one
            epoch, to try out what follows. Rows that are not reached hold fresh starts.
        at_once: how many in one step, all by default; it divides ``experts``.
        batch_size: records of each expert in a step.
        learning_rate: constant, but for ``decay``.
        momentum: of SGD.
        weight_decay: of SGD.
        decay: what the rate is multiplied by after half of the epochs; momentum starts anew then.
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
        whole = expert_steps(size, batch_size, epochs, experts, at_once)
        if steps not in (None, whole) and not steps < epoch_steps(size, batch_size):
            raise ValueError(
                f"{experts} experts, {at_once} at once, take {whole} steps for {epochs} epochs of "
                f"{size} records in batches of {batch_size}, not {steps}"
            )
        keys = jax.random.split(jax.random.fold_in(key, experts), experts * (epochs + 1))
        trajectories = jax.lax.map(model.draw, keys).reshape(experts, epochs + 1, -1)
        none = jnp.zeros((at_once, model.size))
        return Training(jnp.zeros((), jnp.int32), key, none, none, trajectories)

    def step(state: Training, frozen, batch):
        del batch
        real = real_set(frozen, data, classes)
        size = len(real.labels)
        per_epoch = epoch_steps(size, batch_size)
        group, inside = jnp.divmod(state.step, epochs * per_epoch)
        epoch, place = jnp.divmod(inside, per_epoch)
        numbers = group * at_once + jnp.arange(at_once)
        keys = jax.vmap(lambda n: jax.random.fold_in(state.key, n))(numbers)
        fresh = inside == 0
        starts = jax.lax.cond(
            fresh,
            lambda: jax.vmap(lambda k: model.draw(jax.random.fold_in(k, epochs)))(keys),
            lambda: state.vectors,
        )
        restarts = fresh | ((decay != 1.0) & (inside == (epochs // 2 + 1) * per_epoch))
        moved = jnp.where(restarts, 0, state.momentum)
        rate = learning_rate * jnp.where(epoch > epochs // 2, decay, 1.0)
        share = jnp.where(epoch < loss_ramp, 0.5 + 0.5 * epoch / max(loss_ramp, 1), 1.0)

        def one(parts):
            key, vector, moved = parts
            key_epoch = jax.random.fold_in(key, epoch)
            order = jax.random.permutation(key_epoch, size)
            rows = jax.lax.dynamic_slice(order, (place * batch_size,), (batch_size,))
            drawn = augmentation.draw(jax.random.fold_in(key_epoch, place), batch_size)
            loss = expert_loss(
                model, augmentation, drawn, real.images[rows], real.labels[rows], share,
                gradient_penalty,
            )  # fmt: skip
            (value, right), direction = loss_direction(loss, vector, flatness)
            moved = momentum * moved + direction + weight_decay * vector
            return vector - rate * moved, moved, value, right

        vectors, moved, losses, right = for_each(one, (keys, starts, moved))

        def write(trajectories, rows, at):
            start = (group * at_once, at, 0)
            return jax.lax.dynamic_update_slice(trajectories, rows[:, None], start)

        trajectories = jax.lax.cond(
            fresh, lambda t: write(t, starts, 0), lambda t: t, state.trajectories
        )
        trajectories = jax.lax.cond(
            place == per_epoch - 1,
            lambda t: write(t, vectors, epoch + 1),
            lambda t: t,
            trajectories,
        )
        count = jnp.full((), float(at_once))
        metrics = {"loss": (losses.sum(), count), "train_accuracy": (right.sum(), count)}
        return Training(state.step + 1, state.key, vectors, moved, trajectories), metrics

    return Distiller(init, step, lambda state: state.trajectories)


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
    """Keeps trajectories on disk, a row for every expert and epoch, beside what they are of.

    Args:
        path: a folder; writing that was stopped goes on there.
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
    for number in range(begun.whole(), len(begun.parts())):
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
        identity: what they must be of.

    Raises:
        ValueError: if there are none, they are not whole, or of something else; every value that
            differs is listed with both.
    """
    found = store.open_store(path, identity)
    about = found.manifest["identity"]["trajectories"]
    rows = found.read(np.arange(len(found)))["vector"]
    return rows.reshape(about["experts"], about["points"], about["size"])
