r"""Matching the trajectories of experts (MTT and what followed it) as one distiller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxdistill._errors import unknown
from jaxdistill.condense.augment import siamese
from jaxdistill.condense.flat import Flat, flat
from jaxdistill.condense.real import real_set
from jaxdistill.condense.synthetic import Synthetic, cluster_rows, one_hot, random_rows
from jaxdistill.condense.unroll import Inner, Target, matching_gradient
from jaxdistill.distiller import Distiller
from jaxdistill.evaluation.batches import frozen_entry
from jaxdistill.net import Net


class Window(NamedTuple):
    """From which epochs of an expert a student starts: ``first`` to ``last - 1``.

    Attributes:
        first: the earliest.
        last: behind the latest.
        begin: where the end of the window is at first; it grows evenly to ``last``. None for
            ``last`` from the beginning.
        grown: after how many steps it has.
    """

    first: int = 0
    last: int = 20
    begin: int | None = None
    grown: int = 0


class Matching(NamedTuple):
    """The state of the distillers of data sets.

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


def match_trajectories(
    net: Net,
    image_shape: tuple[int, ...],
    classes: int,
    tx: optax.GradientTransformation,
    *,
    each: int,
    student_steps: int,
    epochs: int,
    window: Window = Window(),  # noqa: B008
    rate: float = 0.01,
    learn_rate: bool = True,
    batch_size: int | None = None,
    gradient: Literal["exact", "stopped"] = "exact",
    augment: Sequence[str] = (),
    images_from: Literal["random", "correct", "clusters", "noise"] = "random",
    soft: bool = False,
    threshold: float | None = None,
    ema: float | None = None,
    momentum: float = 0.0,
    balance: bool = False,
    perturb: float = 0.0,
    waypoints: Literal["", "equal", "growing"] = "",
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
        student_steps: N.
        epochs: M.
        window: where students start (DATM: a window of difficulty that grows).
        rate: the learning rate of students at first.
        learn_rate: whether it is learned.
        batch_size: images of a student's step, all by default; they are dealt without replacement.
        gradient: ``"exact"``, or ``"stopped"``, of constant memory, which is another one (TESLA).
        augment: families of :func:`~jaxdistill.condense.augment.siamese`, drawn for every image.
        images_from: where images start: at real ones drawn at ``"random"``; at such as the last
            parameters of an expert classify right (``"correct"``, DATM); at those nearest to the
            centres of clusters of its outputs (``"clusters"``); at ``"noise"``.
        soft: whether labels are learned too: logits, that start at the mean outputs of the experts
            that are right (DATM), or at those of all where none is.
        threshold: a step whose loss is above it changes nothing (DATM).
        ema: decay of the running average of the images, which is then the result (FTD).
        momentum: of the student's SGD (smooth experts).
        balance: whether the student's loss is the greater the later it starts (smooth experts).
        perturb: by what share of itself each kernel of convolutions moves at random before the
            student starts (smooth experts).
        waypoints: ``"equal"`` or ``"growing"`` weights for also matching the M - 1 epochs on the
            way, each after its share of the steps (smooth experts).
        experts: the entry of ``frozen`` with trajectories ``[E, T + 1, P]``.
        data: the entry of ``frozen`` with the training set, for the start.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` whose result is a
        :class:`~jaxdistill.condense.synthetic.Synthetic`.

    Raises:
        ValueError: for a window beyond the trajectories, trajectories of another net, and
            combinations that there are not.

    References:
        MTT: Cazenavette et al., `Dataset Distillation by Matching Training Trajectories
        <https://arxiv.org/abs/2203.11932>`_, CVPR 2022. TESLA: Cui et al., `Scaling Up Dataset
        Distillation <https://arxiv.org/abs/2211.10586>`_, ICML 2023. FTD: Du et al., `Minimizing
        the Accumulated Trajectory Error <https://arxiv.org/abs/2211.11004>`_, CVPR 2023. DATM: Guo
        et al., `Towards Lossless Dataset Distillation <https://arxiv.org/abs/2310.05773>`_, ICLR
        2024. Smooth experts: Shen et al., `Efficient Dataset Distillation via Smooth Expert
        Trajectories <https://arxiv.org/abs/2310.10541>`_, 2023.
    """
    for kind, value, options in (
        ("gradient", gradient, ("exact", "stopped")),
        ("start of the images", images_from, ("random", "correct", "clusters", "noise")),
        ("kind of waypoints", waypoints, ("", "equal", "growing")),
    ):
        if value not in options:
            raise ValueError(unknown(kind, value, options))
    if gradient == "stopped" and waypoints:
        raise ValueError("the stopped gradient has one target: it takes no waypoints")
    begin = window.last if window.begin is None else window.begin
    if not 0 <= window.first < begin <= window.last:
        raise ValueError(f"the window must have 0 <= first < begin <= last, got {window}")
    if epochs < 1 or student_steps < epochs:
        raise ValueError(
            f"students need at least as many steps as epochs to match, got {student_steps} and "
            f"{epochs}"
        )
    model, augmentation = flat(net, image_shape), siamese(augment)
    count = each * classes
    size = min(batch_size or count, count)

    def paths_of(frozen):
        found = frozen_entry(frozen, experts)
        if found.ndim != 3 or found.shape[2] != model.size:
            raise ValueError(
                f"trajectories {experts!r} must be [experts, epochs + 1, {model.size}] for this "
                f"net, got {found.shape}"
            )
        if window.last - 1 + epochs >= found.shape[1]:
            raise ValueError(
                f"a student that starts after epoch {window.last - 1} is matched after "
                f"{window.last - 1 + epochs}, but the experts have {found.shape[1] - 1}"
            )
        return found

    def init(key, frozen, batch):
        del batch
        paths, real = paths_of(frozen), real_set(frozen, data, classes)
        images, labels = starting_images(
            key, model, paths[:, -1], real.images, real.labels, each, classes, images_from, soft
        )
        params = {"images": images}
        fixed = {}
        (params if soft else fixed)["labels"] = labels
        (params if learn_rate else fixed)["rate"] = jnp.asarray(rate, images.dtype)
        average = jnp.copy(images) if ema is not None else None
        return Matching(jnp.zeros((), jnp.int32), key, params, fixed, tx.init(params), average)

    def student_loss(scale):
        def loss(vector, synthetic, part):
            rows, drawn = part
            images = augmentation.apply(drawn, synthetic["images"][rows])
            scores = jax.nn.log_softmax(model.apply(vector, images).out)
            labels = synthetic["labels"][rows]
            goal = jax.nn.softmax(labels) if soft else labels
            return -scale * (goal * scores).sum(-1).mean()

        return loss

    def step(state: Matching, frozen, batch):
        del batch
        paths = paths_of(frozen)
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 5)
        grown = begin + (window.last - begin) * state.step / max(window.grown, 1)
        end = jnp.minimum(jnp.floor(grown).astype(jnp.int32), window.last)
        expert = jax.random.randint(keys[0], (), 0, paths.shape[0])
        epoch = jax.random.randint(keys[1], (), window.first, end)
        marks = [
            jax.lax.dynamic_slice(paths, (expert, epoch + m, 0), (1, 1, model.size))[0, 0]
            for m in range(epochs + 1)
        ]
        start = perturbed(keys[2], model, marks[0], perturb) if perturb else marks[0]
        targets = []
        for m in range(1, epochs) if waypoints else ():
            weight = m / epochs if waypoints == "growing" else 1.0
            targets.append(Target(m * (student_steps // epochs), marks[m], weight))
        targets.append(Target(student_steps, marks[epochs]))
        drawn = jax.vmap(lambda k: augmentation.draw(k, size))(
            jax.random.split(keys[3], student_steps)
        )
        rows = dealt(keys[4], count, size, student_steps)
        scale = balanced(epoch, window.last) if balance else 1.0
        inner = Inner(student_loss(scale), (rows, drawn), momentum)
        whole = {**state.fixed, **state.params}
        synthetic = {"images": whole["images"], "labels": whole["labels"]}
        (value, finite), (slopes, slope) = matching_gradient(
            inner, start, targets, synthetic, whole["rate"], stopped=gradient == "stopped"
        )
        gradients = {**slopes, "rate": slope}
        gradients = {name: gradients[name] for name in state.params}
        updates, opt = tx.update(gradients, state.opt, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        # Of the student's steps: where a loss is not finite the message says how far it came.
        told = {"loss": value, "rate": whole["rate"], "finite_steps": finite}
        metrics = {name: (each, jnp.ones(())) for name, each in told.items()}
        if threshold is not None:
            kept = value > threshold
            params, opt = jax.tree.map(
                lambda old, new: jnp.where(kept, old, new), (state.params, state.opt), (params, opt)
            )
            metrics["skipped"] = (kept.astype(value.dtype), jnp.ones(()))
        average = state.ema
        if ema is not None and average is not None:
            average = ema * average + (1 - ema) * params["images"]
        return state._replace(step=state.step + 1, params=params, opt=opt, ema=average), metrics

    def result(state: Matching):
        whole = {**state.fixed, **state.params}
        images = whole["images"] if state.ema is None else state.ema
        labels = jax.nn.softmax(whole["labels"]) if soft else whole["labels"]
        return Synthetic(images, labels, whole["rate"])

    return Distiller(init, step, result)


def starting_images(
    key: jax.Array,
    model: Flat,
    experts: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    each: int,
    classes: int,
    initial: str,
    soft: bool,
) -> tuple[jax.Array, jax.Array]:
    """Images ``[n, H, W, C]`` and labels ``[n, classes]`` that a set starts from."""
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
    each entry by ``share * d / |d|`` times itself."""
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
