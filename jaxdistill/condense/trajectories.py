r"""Matching the trajectories of experts (MTT and what followed it) as one distiller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill.condense.augment import Family, siamese
from jaxdistill.condense.flat import Flat, flat
from jaxdistill.condense.real import Real, real_set
from jaxdistill.condense.students import (
    Students,
    Waypoints,
    Window,
    balanced,
    perturbed,
    stretch,
    targets_of,
    training,
)
from jaxdistill.condense.subsets import cluster_rows, random_rows
from jaxdistill.condense.synthetic import Synthetic, one_hot
from jaxdistill.condense.unroll import Inner, Target, matching_gradient
from jaxdistill.distiller import Distiller
from jaxdistill.evaluation.batches import frozen_entry
from jaxdistill.net import Net
from jaxdistill.settings import Count, Fraction, NonNegative, checked

Gradient = Literal["exact", "stopped"]
Start = Literal["random", "correct", "clusters", "noise"]


class Matching(NamedTuple):
    """The state of :func:`match_trajectories`.

    Attributes:
        step: steps done.
        key: of the run.
        params: ``images`` ``[n, H, W, C]``, and where they are learned ``labels`` ``[n, classes]``
            (logits) and the ``rate``; what is not learned is in ``fixed``.
        fixed: the rest of the same.
        opt: the optimizer's.
        ema: the running average of the images, or None.
    """

    step: jax.Array
    key: jax.Array
    params: dict[str, jax.Array]
    fixed: dict[str, jax.Array]
    opt: Any
    ema: jax.Array | None


@checked
def match_trajectories(
    net: Net,
    image_shape: tuple[int, ...],
    classes: int,
    tx: optax.GradientTransformation,
    *,
    each: Count,
    students: Students,
    epochs: Count,
    window: Window = Window(),  # noqa: B008
    gradient: Gradient = "exact",
    waypoints: Waypoints = "",
    augment: Sequence[Family] = (),
    images_from: Start = "random",
    soft: bool = False,
    threshold: NonNegative | None = None,
    ema: Fraction | None = None,
    experts: str = "experts",
    data: str = "train",
) -> Distiller:
    r"""Learns a set on which a few steps of a student lead where epochs of an expert did.

    A student starts where an expert was after t epochs, is trained for N steps on the set, and is
    to be where the expert was after t + M epochs:
    :math:`\|\theta_N - \theta^*_{t+M}\|^2 / \|\theta_0 - \theta^*_{t+M}\|^2`.

    Args:
        net: what experts and students are.
        image_shape: (H, W, C).
        classes: how many.
        tx: over ``{"images", "labels", "rate"}``, whichever are learned.
        each: images of each class.
        students: how they are trained: N, the learning rate, and more.
        epochs: M.
        window: where students start (DATM: a window of difficulty that grows).
        gradient: ``"exact"``, or ``"stopped"``, of constant memory, which is another one (TESLA).
        waypoints: ``"equal"`` or ``"growing"`` weights for also matching the M - 1 epochs on the
            way, each after its share of the steps (smooth experts).
        augment: families of :func:`~jaxdistill.condense.augment.siamese`, drawn for every image.
        images_from: where images start: at real ones drawn at ``"random"``; at such as the last
            parameters of an expert classify right (``"correct"``, DATM); at those nearest to the
            centres of clusters of its outputs (``"clusters"``); at ``"noise"``.
        soft: whether labels are learned too: logits, that start at the mean outputs of the experts
            that are right (DATM), or at those of all where none is.
        threshold: a step whose loss is above it changes nothing (DATM).
        ema: decay of the running average of the images, which is then the result (FTD).
        experts: the entry of ``frozen`` with trajectories ``[E, T + 1, P]``.
        data: the entry of ``frozen`` with the training set, for the start.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` whose result is a
        :class:`~jaxdistill.condense.synthetic.Synthetic`.

    Raises:
        ValueError: for a window beyond the trajectories, trajectories of another net, and
            settings that do not go together.

    References:
        MTT: Cazenavette et al., `Dataset Distillation by Matching Training Trajectories
        <https://arxiv.org/abs/2203.11932>`_, CVPR 2022. TESLA: Cui et al., `Scaling Up Dataset
        Distillation <https://arxiv.org/abs/2211.10586>`_, ICML 2023. FTD: Du et al., `Minimizing
        the Accumulated Trajectory Error <https://arxiv.org/abs/2211.11004>`_, CVPR 2023. DATM: Guo
        et al., `Towards Lossless Dataset Distillation <https://arxiv.org/abs/2310.05773>`_, ICLR
        2024. Smooth experts: Shen et al., `Efficient Dataset Distillation via Smooth Expert
        Trajectories <https://arxiv.org/abs/2310.10541>`_, 2023.
    """
    _check(students, epochs, window, gradient, waypoints)
    model, augmentation = flat(net, image_shape), siamese(augment)

    def init(key, frozen, batch):
        del batch
        paths = expert_paths(frozen, experts, model, window, epochs)
        real = real_set(frozen, data, classes)
        images, labels = starting_images(
            key, model, paths[:, -1], real, each, classes, images_from, soft
        )
        params, fixed = {"images": images}, {}
        (params if soft else fixed)["labels"] = labels
        rate = jnp.asarray(students.rate, images.dtype)
        (params if students.learn_rate else fixed)["rate"] = rate
        average = jnp.copy(images) if ema is not None else None
        return Matching(jnp.zeros((), jnp.int32), key, params, fixed, tx.init(params), average)

    def step(state: Matching, frozen, batch):
        del batch
        paths = expert_paths(frozen, experts, model, window, epochs)
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 5)
        epoch, marks = stretch(keys[:2], paths, window, epochs, state.step)
        start = perturbed(keys[2], model, marks[0], students.perturb)
        scale = balanced(epoch, window.last) if students.balance else 1.0
        inner = training(keys[3:], model, augmentation, students, each * classes, soft, scale)
        targets = targets_of(marks, students.steps, waypoints)
        whole = {**state.fixed, **state.params}
        value, finite, gradients = set_gradient(inner, start, targets, whole, gradient)
        state, more = moved(state, tx, gradients, value, threshold, ema)
        # Of the student's steps: where a loss is not finite the message says how far it came.
        told = {"loss": value, "rate": whole["rate"], "finite_steps": finite, **more}
        return state, {name: (each, jnp.ones(())) for name, each in told.items()}

    def result(state: Matching):
        whole = {**state.fixed, **state.params}
        images = whole["images"] if state.ema is None else state.ema
        labels = jax.nn.softmax(whole["labels"]) if soft else whole["labels"]
        return Synthetic(images, labels, whole["rate"])

    return Distiller(init, step, result, kind="data_set")


def expert_paths(
    frozen: Mapping[str, Any], name: str, model: Flat, window: Window, epochs: int
) -> jax.Array:
    """The trajectories of experts ``[E, T + 1, P]`` under a name in the frozen variables.

    Raises:
        ValueError: if there are none, they are of another net, or a student that starts last in the
            window is matched after their end.
    """
    found = frozen_entry(frozen, name)
    if found.ndim != 3 or found.shape[2] != model.size:
        raise ValueError(
            f"trajectories {name!r} must be [experts, epochs + 1, {model.size}] for this net, got "
            f"{found.shape}"
        )
    if window.last - 1 + epochs >= found.shape[1]:
        raise ValueError(
            f"a student that starts after epoch {window.last - 1} is matched after "
            f"{window.last - 1 + epochs}, but the experts have {found.shape[1] - 1}"
        )
    return found


def set_gradient(
    inner: Inner,
    start: jax.Array,
    targets: Sequence[Target],
    whole: Mapping[str, jax.Array],
    gradient: Gradient,
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """The loss, how many of the student's steps were finite, and the gradients for images, labels
    and rate."""
    synthetic = {"images": whole["images"], "labels": whole["labels"]}
    (value, finite), (slopes, slope) = matching_gradient(
        inner, start, targets, synthetic, whole["rate"], stopped=gradient == "stopped"
    )
    return value, finite, {**slopes, "rate": slope}


def moved(
    state: Matching,
    tx: optax.GradientTransformation,
    gradients: Mapping[str, jax.Array],
    value: jax.Array,
    threshold: float | None,
    ema: float | None,
) -> tuple[Matching, dict[str, jax.Array]]:
    """The state after a step of the optimizer, and what else is to be measured: whether the
    step was ``skipped``, where there is a threshold."""
    gradients = {name: gradients[name] for name in state.params}
    updates, opt = tx.update(gradients, state.opt, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    more = {}
    if threshold is not None:
        skipped = value > threshold
        params, opt = jax.tree.map(
            lambda old, new: jnp.where(skipped, old, new), (state.params, state.opt), (params, opt)
        )
        more["skipped"] = skipped.astype(value.dtype)
    average = state.ema
    if ema is not None and average is not None:
        average = ema * average + (1 - ema) * params["images"]
    return state._replace(step=state.step + 1, params=params, opt=opt, ema=average), more


def starting_images(
    key: jax.Array,
    model: Flat,
    experts: jax.Array,
    real: Real,
    each: int,
    classes: int,
    initial: Start,
    soft: bool,
) -> tuple[jax.Array, jax.Array]:
    """Images ``[n, H, W, C]`` and labels ``[n, classes]`` that a set starts from."""
    images, labels = real
    if initial == "noise" and not soft:
        noise = jax.random.normal(key, (each * classes, *images.shape[1:]), images.dtype)
        return noise, one_hot(each, classes)
    where = None
    if initial == "clusters":
        rows = cluster_rows(key, model.apply(experts[0], images).out, labels, each, classes)
    else:
        if initial == "correct":
            where = model.apply(experts[0], images).out.argmax(-1) == labels
        rows = random_rows(key, labels, each, classes, where)
    rows = rows.reshape(-1)
    chosen, own = images[rows], labels[rows]
    if not soft:
        return chosen, jax.nn.one_hot(own, classes)
    outputs = jax.lax.map(lambda vector: model.apply(vector, chosen).out, experts)
    right = (outputs.argmax(-1) == own[None]).astype(outputs.dtype)[..., None]
    # Where no expert is right, the mean of all stands in for that of none.
    right = jnp.where(right.sum(0, keepdims=True) > 0, right, 1.0)
    return chosen, (right * outputs).sum(0) / right.sum(0)


def _check(
    students: Students,
    epochs: int,
    window: Window,
    gradient: Gradient,
    waypoints: Waypoints,
) -> None:
    """Refuses settings that do not go together."""
    if gradient == "stopped" and waypoints:
        raise ValueError(
            f"gradient='stopped' has one target: it takes no waypoints, got {waypoints!r}"
        )
    begin = window.last if window.begin is None else window.begin
    if not 0 <= window.first < begin <= window.last:
        raise ValueError(f"the window must have 0 <= first < begin <= last, got {window}")
    if students.steps < epochs:
        raise ValueError(
            f"students need at least as many steps as epochs to match, got {students.steps} and "
            f"{epochs}"
        )
