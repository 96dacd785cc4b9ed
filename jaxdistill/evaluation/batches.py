"""What every evaluator does with a set: run nets over its batches, where their variables are."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxdistill.data.augment import to_float
from jaxdistill.net import Forward
from jaxdistill.objective import lookup, taps_of
from jaxdistill.progress import shown

Evaluator = Callable[[Any, Mapping[str, Any], Iterable[Any]], dict[str, float]]
Prepare = Callable[[Any, jax.Array], Any]
Apply = Callable[..., Forward]
Read = str | Callable[[Forward], jax.Array]


def run(apply: Apply, variables: Any, batch: Mapping[str, Any], inputs: str, *reads: Read) -> list:
    """What is read of one forward pass of a net's ``apply`` in evaluation mode; images of uint8 are
    seen in [0, 1]."""
    paths = [read for read in reads if isinstance(read, str)]
    seen = jax.tree.map(
        lambda x: to_float(x) if x.dtype == jnp.uint8 else x,
        lookup(f"batch/{inputs}", **_only(batch)),
    )
    forward = apply(*variables, seen, taps=taps_of(*paths))
    return [
        read(forward) if callable(read) else lookup(read, **_only(batch, forward)) for read in reads
    ]


def compiled(step: Callable[[Any, Any], Any], prepare: Prepare | None) -> Callable[..., Any]:
    """``step(variables, batch)`` with ``prepare`` before it, jitted, of a batch and its number.

    The key of a batch is the same at every evaluation.
    """

    def whole(variables, batch, number):
        if prepare is not None:
            batch = prepare(batch, jax.random.fold_in(jax.random.key(0), number))
        return step(variables, batch)

    return jax.jit(whole)


def sweep(
    step: Callable[..., Any], variables: Any, data: Iterable[Mapping[str, Any]]
) -> Iterator[Any]:
    """The results of a compiled step for every batch, as numpy; a batch always has ``where``.

    The next batch is read while the devices work on the last.

    Raises:
        ValueError: if there is no batch.
    """
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(variables)):
        for batch in data:
            jax.eval_shape(step, variables, _place(variables, _seen(batch)), np.uint32(0))
            break
        raise _Traced
    last = None
    for number, batch in enumerate(shown(data, "evaluate")):
        batch = _seen(batch)
        current = step(variables, _place(variables, batch), np.uint32(number))
        if last is not None:
            yield _fetch(last)
        last = current
    if last is None:
        raise ValueError("there is nothing to evaluate: the set has no batches")
    yield _fetch(last)


class _Traced(Exception):
    """A sweep over shapes has nothing to give."""


def trace(
    evaluator: Callable[..., Any], result: Any, frozen: Mapping[str, Any], data: Iterable[Any]
) -> None:
    """Traces the first sweep of an evaluator on shapes, so that taps, heads and outputs that do not
    fit are told before anything is trained; one that does not begin with a sweep is left alone.

    Args:
        evaluator: see :func:`~jaxdistill.evaluation.measuring.measuring`.
        result: the shapes of what it measures.
        frozen: those of what else it reads.
        data: batches, of which it sees the first.

    Raises:
        ValueError: as the evaluator raises it.
    """
    if getattr(evaluator, "sweeps", False):
        with contextlib.suppress(_Traced):
            evaluator(result, frozen, data)


def summed(batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The sums of all batches, added up in float64; ``count`` is of the records.

    Raises:
        ValueError: if no record counts.
    """
    totals: dict[str, Any] = {}
    for sums in batches:
        for name, value in sums.items():
            totals[name] = totals.get(name, 0) + value.astype(np.float64)
    if not totals["count"]:
        raise ValueError("there is nothing to evaluate: every record is padding")
    return totals


def frozen_entry(frozen: Mapping[str, Any], name: str) -> Any:
    """The variables of a teacher, or an error that says which there are."""
    from jaxdistill._errors import unknown

    if name not in frozen:
        raise ValueError(unknown("teacher in the frozen variables", name, frozen))
    return frozen[name]


def _seen(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What nets can see of a batch, and which of its examples count."""
    found = {name: x for name, x in batch.items() if _numeric(x)}
    if "where" not in found:
        found["where"] = np.ones(len(jax.tree.leaves(found)[0]), bool)
    return found


def _numeric(x: Any) -> bool:
    return isinstance(x, Mapping) or np.asarray(x).dtype.kind not in "OSU"


def _only(batch: Any, forward: Any = None) -> dict[str, Any]:
    return {"forward": forward, "targets": {}, "batch": batch}


def _place(variables: Any, batch: Any) -> Any:
    """Shares the examples of a batch out over the mesh of the variables, if there is one."""
    leaves = (getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(variables))
    mesh = next((found.mesh for found in leaves if isinstance(found, NamedSharding)), None)
    if mesh is None:
        # Arrays of the host are this process's own, and so is what it makes of them.
        own = all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(variables))
        if jax.process_count() > 1 and not own:
            raise ValueError("with several processes the variables must be placed on a mesh")
        return batch
    axes = tuple(axis for axis in ("data", "fsdp") if axis in mesh.shape)
    parts = math.prod(mesh.shape[axis] for axis in axes) // jax.process_count()
    sharding = NamedSharding(mesh, PartitionSpec(axes))

    def place(x):
        x = np.asarray(x)
        if jax.process_count() == 1 and len(x) % max(parts, 1):
            return jax.device_put(x, NamedSharding(mesh, PartitionSpec()))
        return jax.make_array_from_process_local_data(sharding, x)

    return jax.tree.map(place, batch)


def _fetch(tree: Any) -> Any:
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)
