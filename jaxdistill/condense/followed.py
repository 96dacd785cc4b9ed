"""How steep it is where experts went, and how far a student of the small set strays from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.condense.augment import Family, siamese
from jaxdistill.condense.flat import flat
from jaxdistill.condense.students import Students, Window, training
from jaxdistill.condense.synthetic import Synthetic
from jaxdistill.condense.trajectories import expert_paths
from jaxdistill.data.augment import to_float
from jaxdistill.evaluation.batches import Evaluator
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.loops import scan
from jaxdistill.losses.numerics import safe_norm
from jaxdistill.net import Net
from jaxdistill.settings import Count, Natural, checked


@checked
def sharpness(
    net: Net, image_shape: tuple[int, ...], *, first: Natural = 1, iterations: Count = 20
) -> Evaluator:
    r"""How steep the loss is where experts went: ``sharpness``, :math:`\|\nabla^2 L\|_2`.

    The size of the largest eigenvalue of the Hessian of the mean cross-entropy on the records, by
    power iteration from one random direction; the mean over experts and epochs.

    Args:
        net: what every expert is.
        image_shape: (H, W, C).
        first: the earliest epoch that is measured; all that follow are.
        iterations: of the power method.

    Returns:
        ``(trajectories [E, T + 1, P], frozen, data) -> metrics``.

    Raises:
        ValueError: when it runs, for trajectories of another net or fewer epochs than ``first``.
    """
    model = flat(net, image_shape)

    @jax.jit
    def largest(vector, images, labels):
        def loss(vector):
            log_p = jax.nn.log_softmax(model.apply(vector, images).out)
            return -jnp.take_along_axis(log_p, labels[:, None], -1).mean()

        def product(direction):
            return jax.jvp(jax.grad(loss), (vector,), (direction,))[1]

        def step(direction, _):
            moved = product(direction)
            return moved / jnp.maximum(safe_norm(moved), 1e-12), None

        start = jax.random.normal(jax.random.key(0), vector.shape, vector.dtype)
        found, _ = scan(step, start / safe_norm(start), jnp.arange(iterations))
        return safe_norm(product(found))

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        del frozen
        if result.shape[-1] != model.size or first >= result.shape[1]:
            raise ValueError(
                f"trajectories must be [experts, more than {first}, {model.size}], got "
                f"{result.shape}"
            )
        images, labels = _records(data)
        values = [float(largest(v, images, labels)) for path in result for v in path[first:]]
        return {"sharpness": float(np.mean(values))}

    return measuring(["sharpness"], evaluator)


@checked
def strayed(
    net: Net,
    image_shape: tuple[int, ...],
    seed: int = 0,
    *,
    students: Students,
    epochs: Count,
    window: Window,
    augment: Sequence[Family] = (),
    experts: str = "experts",
) -> Evaluator:
    r"""How far students of a small set end from the experts that it was matched to.

    - ``matching_error``: of students that are put back onto the expert before each of the window's
      stretches of ``epochs``, the mean of
      :math:`\|\theta_N - \theta^*_{t+M}\|^2 / \|\theta^*_t - \theta^*_{t+M}\|^2`, as it is trained;
    - ``accumulated_error``: of a student that starts where the expert was at the window's first
      epoch and is never put back, the same of the whole window.

    Args:
        net: what experts and students are.
        image_shape: (H, W, C).
        seed: of batches and augmentation.
        students: how they are trained; the rate is that of the set.
        epochs: M, as in :func:`~jaxdistill.condense.match_trajectories`, as all that follow.
        window: from ``first`` to the end of the stretch that starts last.
        augment: families of :func:`~jaxdistill.condense.augment.siamese`.
        experts: the entry of ``frozen`` with trajectories.

    Raises:
        ValueError: when it runs, for trajectories of another net, or shorter than the window.

    References:
        Du et al., `Minimizing the Accumulated Trajectory Error <https://arxiv.org/abs/2211.11004>`_,
        CVPR 2023.
    """
    model, augmentation = flat(net, image_shape), siamese(augment)

    @jax.jit
    def trained(key, vector, result: Synthetic):
        count = len(result.images)
        inner = training(jax.random.split(key), model, augmentation, students, count, False, 1.0)
        synthetic = {"images": result.images, "labels": result.targets}

        def step(carry, each):
            vector, momentum = carry
            momentum = inner.momentum * momentum + jax.grad(inner.loss)(vector, synthetic, each)
            return (vector - result.rate * momentum, momentum), None

        return scan(step, (vector, jnp.zeros_like(vector)), inner.each)[0][0]

    def relative(end, start, goal):
        return float(jnp.square(end - goal).sum() / jnp.square(start - goal).sum())

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        del data
        paths = expert_paths(frozen, experts, model, window, epochs)
        starts = range(window.first, window.last, epochs)
        matched, accumulated = [], []
        for number, path in enumerate(paths):
            student = path[window.first]
            for epoch in starts:
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), number), epoch)
                end = trained(key, path[epoch], result)
                matched.append(relative(end, path[epoch], path[epoch + epochs]))
                student = trained(key, student, result)
            accumulated.append(relative(student, path[window.first], path[starts[-1] + epochs]))
        return {
            "matching_error": float(np.mean(matched)),
            "accumulated_error": float(np.mean(accumulated)),
        }

    return measuring(["matching_error", "accumulated_error"], evaluator)


def _records(data: Iterable[Any]) -> tuple[jax.Array, jax.Array]:
    """Images and labels of all batches together, without what only fills the last one."""
    batches = [{key: np.asarray(batch[key]) for key in batch} for batch in data]
    kept = [batch.get("where", np.ones(len(batch["label"]), bool)) for batch in batches]
    pairs = list(zip(batches, kept, strict=True))
    images = np.concatenate([batch["image"][where] for batch, where in pairs])
    labels = np.concatenate([batch["label"][where] for batch, where in pairs])
    return to_float(jnp.asarray(images)), jnp.asarray(labels)
