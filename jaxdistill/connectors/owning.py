"""An objective with nets and numbers of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jaxdistill.gradients import Whole
from jaxdistill.losses.masking import harmless
from jaxdistill.net import Net
from jaxdistill.objective import Objective, Term, lookup, per_batch, per_example

Arrays = tuple[jax.Array, ...]
Call = Callable[[str, Any], Any]
"""Runs one of an objective's own nets, by name, in training mode."""
Nets = dict[str, tuple[Net, Any]]
"""Nets by name, each with what it sees."""


def owning(
    name: str,
    student: Sequence[str],
    target: Sequence[str],
    weight: Any,
    made: Callable[[Arrays, Arrays], tuple[Nets, dict[str, jax.Array]]],
    value: Callable[[Call, Any, Arrays, Arrays, Any], jax.Array],
) -> Objective:
    """An objective with nets and numbers of its own.

    Args:
        name: the term's name.
        student: paths of the student's arrays.
        target: paths of the teacher's.
        weight: a number or a schedule.
        made: from both to nets, by name, each with what it sees, and to numbers that are learned.
        value: ``(call, own, ours, theirs, where)`` to the loss; ``own`` are nets and numbers.
    """

    def arrays(forward: Any, targets: Any, batch: Any) -> tuple[Arrays, Arrays, Any]:
        find = functools.partial(lookup, forward=forward, targets=targets, batch=batch)
        ours = tuple(find(path) for path in student)
        theirs = tuple(value_of(find(path, side="target")) for path in target)
        where = batch.get("where") if isinstance(batch, Mapping) else None
        if where is not None:
            ours, theirs = harmless((ours, theirs), where)
        return ours, theirs, where

    def loss(params: Any, state: Any, ours: Arrays, theirs: Arrays, where: Any) -> tuple[Any, Any]:
        nets, kept = made(ours, theirs)[0], dict(state)

        def call(which: str, seen: Any) -> Any:
            done = nets[which][0].apply(params[which], kept[which], seen, train=True)
            kept[which] = done.state
            return done.out

        return value(call, params, ours, theirs, where), kept

    def init(key: Any, forward: Any, targets: Any, batch: Any) -> tuple[Any, Any]:
        ours, theirs, where = arrays(forward, targets, batch)
        nets, numbers = made(ours, theirs)
        shapes = dict(zip(student, (x.shape for x in ours), strict=True))
        params, state = dict(numbers), {}
        for place, (which, (net, seen)) in enumerate(nets.items()):
            params[which], state[which] = net.init(jax.random.fold_in(key, place), seen)
        try:
            jax.eval_shape(loss, params, state, ours, theirs, where)
        except (ValueError, TypeError) as fault:
            raise ValueError(f"student {shapes}: {fault}") from fault
        return params, state

    def terms(
        params: Any, state: Any, forward: Any, targets: Any, batch: Any, *, step: Any
    ) -> tuple[dict[str, Term], Any]:
        ours, theirs, where = arrays(forward, targets, batch)
        values, state = loss(params, state, ours, theirs, where)
        if values.ndim == 0:
            return {name: per_batch(weight, values)}, state
        return {name: per_example(weight, values, where)}, state

    return Objective(init, terms)


def value_of(target: Any) -> jax.Array:
    """A target, whether it has examples or is a whole parameter of the teacher."""
    return target.value if isinstance(target, Whole) else target
