"""Several tasks in one batch: a mean for each, so that long answers do not drown short ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill import losses
from jaxdistill._errors import unknown
from jaxdistill.language.objective import HIDDEN, worth_of
from jaxdistill.models import head_of
from jaxdistill.models.decoder import soft_cap
from jaxdistill.net import Forward
from jaxdistill.objective import Number, Schedule, Term, at, per_example
from jaxdistill.settings import Count, NonNegative, Positive, Scheduled


def multitask_token_ce(
    tasks: Mapping[str, tuple[jax.Array, jax.Array, jax.Array, Number | Schedule]],
) -> dict[str, Term]:
    """The cross-entropy of several tasks, each a mean over its own tokens.

    Args:
        tasks: by name logits ``[..., V]``, labels ``[...]`` (below 0 is none), what counts
            ``[...]`` (bool, or what each token is worth), and the weight of the task, a number or a
            schedule.

    Returns:
        A term for each task: what is minimised is the sum over the tasks of weight times mean.

    References:
        Hsieh and others 2023, "Distilling step-by-step" (arXiv 2305.02301).

    Example:
        >>> logits, where = jnp.zeros((2, 3, 4)), jnp.ones((2, 3))
        >>> terms = multitask_token_ce({"answer": (logits, jnp.zeros((2, 3), int), where, 0.5)})
        >>> terms["answer"].weight, round(float(terms["answer"].total / terms["answer"].count), 4)
        (0.5, 1.3863)
    """
    found = {}
    for name, (logits, labels, where, weight) in tasks.items():
        values = losses.cross_entropy(logits, jnp.maximum(labels, 0))
        found[name] = per_example(weight, values, where * (labels >= 0))
    return found


def labels_per_task(
    names: Sequence[str],
    weights: Mapping[str, Scheduled[NonNegative]],
    *,
    student_cap: Positive | None = None,
    chunk: Count = 256,
) -> Callable[..., dict[str, Term]]:
    """The next token of several tasks, each a mean over its own tokens, from hidden states.

    Args:
        names: of the tasks, as ``batch["task"]`` ``[B, T]`` numbers them.
        weights: what the mean of each is worth, a number or a schedule.
        student_cap: soft cap of the student's logits.
        chunk: tokens for which there are logits at a time.

    Returns:
        An objective over ``forward.taps["norm"]``, ``batch["label"]``, ``batch["counted"]``,
        ``batch["task"]`` and, where there is one, ``batch["weight"]``: a term ``labels/<task>``
        each.

    Raises:
        ValueError: for weights of unknown tasks, and tasks without one.
    """
    for name in weights:
        if name not in names:
            raise ValueError(unknown("task", name, names))
    for name in names:
        if name not in weights:
            raise ValueError(f"task {name!r} has no weight: there are those of {sorted(weights)}")

    def terms(forward: Forward, targets: Any, batch: Any, *, step: jax.Array) -> dict[str, Term]:
        hidden, labels = forward.taps[HIDDEN], batch["label"]
        head = head_of(forward.params).astype(hidden.dtype)
        values = _cross_entropies(hidden, head, labels, student_cap, chunk)
        worth = worth_of(batch).astype(values.dtype) * (labels >= 0)
        return {
            f"labels/{name}": per_example(
                at(weights[name], step), values, worth * (batch["task"] == number)
            )
            for number, name in enumerate(names)
        }

    return terms


def _cross_entropies(
    hidden: jax.Array, head: jax.Array, labels: jax.Array, cap: float | None, chunk: int
) -> jax.Array:
    """The cross-entropy of every token ``[B, T]``; logits exist for ``chunk`` of them at a time.

    Chunks run along the texts, so that rows stay where a mesh has laid them.
    """
    rows, length = hidden.shape[:2]
    size = min(max(chunk // rows, 1), length)
    count = -(-length // size)

    def chunked(x: jax.Array) -> jax.Array:
        filled = jnp.pad(x, [(0, 0), (0, count * size - length)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(filled.reshape(rows, count, size, *x.shape[2:]), 1, 0)

    def one(part: tuple[jax.Array, jax.Array]) -> jax.Array:
        states, wanted = part
        wide = jnp.promote_types(states.dtype, jnp.float32)
        logits = soft_cap(jnp.matmul(states, head, preferred_element_type=wide), cap)
        return losses.cross_entropy(logits, jnp.maximum(wanted, 0))

    values = jax.lax.map(jax.checkpoint(one), (chunked(hidden), chunked(labels)))
    return jnp.moveaxis(values, 0, 1).reshape(rows, count * size)[:, :length]
