"""Objectives that remember what a teacher said of earlier images: a queue of its features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.losses.contrastive import queue_similarity
from jaxdistill.losses.masking import harmless
from jaxdistill.losses.numerics import l2_normalise
from jaxdistill.net import Net
from jaxdistill.objective import Objective, at, lookup, per_example
from jaxdistill.settings import Count, Finite, Positive, Scheduled


def similarity_queue(
    *,
    name: str = "queue",
    student: str = "out",
    target: str = "out",
    weight: Scheduled[Finite] = 1.0,
    size: Count = 4096,
    temperature: Scheduled[Positive] = 0.2,
    teacher_temperature: Scheduled[Positive] = 0.01,
    projector: Callable[[tuple, tuple], Net] | None = None,
) -> Objective:
    r"""The similarities of an image to those of the last steps, as the teacher sees them, see
    :func:`jaxdistill.losses.queue_similarity`.

    The queue holds the teacher's last ``size`` features; those of a batch enter it after the batch
    was compared with it, and the oldest leave. It starts with random directions, as published.

    Args:
        name: the term's name.
        student: where the student's vectors ``[B, D]`` are found, see
            :func:`jaxdistill.objective.lookup`.
        target: likewise for the teacher's.
        weight: a number or a schedule.
        size: K, of the queue.
        temperature: of the student's similarities.
        teacher_temperature: of the teacher's.
        projector: from the student's width to the teacher's, see :mod:`jaxdistill.adapt`; trained
            with the student, and no part of the result.

    Returns:
        An :class:`~jaxdistill.objective.Objective` whose one term is averaged over examples; its
        state is the queue, ``[K, D]``. Microbatches would see other queues than their batch, so it
        refuses gradient accumulation.

    References:
        Fang et al., SEED: Self-supervised distillation for visual representation, 2021,
        https://arxiv.org/abs/2101.04731
    """

    def arrays(forward: Any, targets: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        find = {"forward": forward, "targets": targets, "batch": batch}
        return lookup(student, **find), lookup(target, side="target", **find)

    def init(key, forward, targets, batch):
        ours, theirs = arrays(forward, targets, batch)
        if ours.ndim != 2 or theirs.ndim != 2:
            raise ValueError(
                f"a queue keeps vectors [B, D]: student {student!r} is {ours.shape}, target "
                f"{target!r} {theirs.shape}"
            )
        if projector is None and ours.shape != theirs.shape:
            raise ValueError(
                f"student {student!r} {ours.shape} against target {target!r} {theirs.shape}: "
                "projector='mlp' would map one onto the other"
            )
        params, state = {}, {}
        key_queue, key_net = jax.random.split(key)
        if projector is not None:
            params, state = projector(ours.shape, theirs.shape).init(key_net, ours)
        drawn = jax.random.normal(key_queue, (size, theirs.shape[1]), theirs.dtype)
        return params, {"projector": state, "queue": l2_normalise(drawn)}

    def terms(params, state, forward, targets, batch, *, step):
        ours, theirs = arrays(forward, targets, batch)
        where = batch.get("where") if isinstance(batch, Mapping) else None
        if where is not None:
            ours, theirs = harmless((ours, theirs), where)
        moved = state["projector"]
        if projector is not None:
            net = projector(ours.shape, theirs.shape)
            seen = net.apply(params, moved, ours, train=True)
            ours, moved = seen.out, seen.state
        softness = {"temperature": temperature, "teacher_temperature": teacher_temperature}
        softness = {key: at(value, step) for key, value in softness.items()}
        values = queue_similarity(ours, theirs, state["queue"], **softness)
        entered = [l2_normalise(theirs), state["queue"]]
        queue = jax.lax.stop_gradient(jnp.concatenate(entered)[:size])
        term = per_example(weight, values, where)._replace(coupled=True)
        return {name: term}, {"projector": moved, "queue": queue.astype(state["queue"].dtype)}

    return Objective(init, terms)
