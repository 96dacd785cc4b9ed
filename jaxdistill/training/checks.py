"""What is checked of a stage: shapes before anything is compiled, and numbers while it runs."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, use_abstract_mesh

from jaxdistill.distiller import Distiller
from jaxdistill.net import described
from jaxdistill.training.sharding import (
    Rules,
    batch_sharding,
    path_name,
    replicated,
    shapes_of_batch,
    shapes_on,
)
from jaxdistill.training.stage import Stage


def check(
    distiller: Distiller,
    key: Any,
    started: Any,
    fixed: Any,
    batch: Any,
    mesh: Mesh | None = None,
    rules: Rules = (),
) -> Any:
    """Traces init and one step on shapes alone, so that what does not fit is reported before
    anything is compiled.

    JAX keeps what it has traced: functions of the same distiller that are compiled for the same
    mesh are not traced again.

    Returns:
        The shapes of the state.

    Raises:
        ValueError: if a step would change the shape or type of any array of the state; it lists
            them.
    """
    if mesh is not None:
        started, fixed = shapes_on(mesh, started, rules), shapes_on(mesh, fixed, rules)
        batch = shapes_of_batch(batch, batch_sharding(mesh, distiller.takes))
    with contextlib.nullcontext() if mesh is None else use_abstract_mesh(mesh.abstract_mesh):
        state = jax.eval_shape(distiller.init, key, started, batch)
        held = state if mesh is None else shapes_on(mesh, state, rules)
        after, measured = jax.eval_shape(distiller.step, held, fixed, batch)
    if jax.tree.structure(state) != jax.tree.structure(after):
        raise ValueError(
            f"a step changes the structure of the state:\n{jax.tree.structure(state)}\n"
            f"{jax.tree.structure(after)}"
        )
    faults = [
        f"- {jax.tree_util.keystr(path)}: {a.shape} {a.dtype} becomes {b.shape} {b.dtype}"
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(after), strict=True
        )
        if (a.shape, a.dtype) != (b.shape, b.dtype)
    ]
    if faults:
        raise ValueError("a step changes arrays of the state:\n" + "\n".join(faults))
    for name, value in measured.items():
        if not isinstance(value, tuple) or len(value) != 2:
            raise ValueError(f"metric {name!r} must be a pair (sum, count), got {value}")
    return state


def stream_of(data: Any, plan: Any) -> Any:
    """The stream of a stage under a plan of its host."""
    found = data(plan) if callable(data) else data
    if found is not None and not hasattr(found, "at"):
        raise TypeError(
            f"data must be a stream, see jaxdistill.data.stream, not {described(found)}"
        )
    return found


def first_batch(stage: Stage) -> Any:
    """The batch of step 0, or an empty one where the distiller takes none."""
    takes = stage.distiller.takes
    return stream_of(stage.data, None).at(0, takes) if takes else {}


def abstract(batch: Any) -> Any:
    """The shapes and types that a batch of numpy arrays has on a device."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            np.shape(x), jax.dtypes.canonicalize_dtype(np.asarray(x).dtype)
        ),
        batch,
    )


def of_all_processes(batch: Any, sharding: jax.sharding.NamedSharding) -> Any:
    """The shapes of a batch of which this process holds its share."""
    place = len(sharding.spec) - 1

    def one(x):
        if x.ndim <= place:
            return x
        examples = x.shape[place] * jax.process_count()
        return jax.ShapeDtypeStruct((*x.shape[:place], examples, *x.shape[place + 1 :]), x.dtype)

    return jax.tree.map(one, batch)


def check_divisible(batch: Any, sharding: jax.sharding.NamedSharding) -> None:
    """Refuses a batch whose examples the devices cannot share out evenly."""
    place, mesh = len(sharding.spec) - 1, sharding.mesh
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    for name, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if leaf.ndim > place and leaf.shape[place] % parts:
            raise ValueError(
                f"batch entry {jax.tree_util.keystr(name)} {leaf.shape}: {leaf.shape[place]} "
                f"examples cannot be shared out over {parts} devices "
                f"(data={mesh.shape['data']}, fsdp={mesh.shape['fsdp']})"
            )


def not_finite(tree: Any, mesh: Any) -> list[str]:
    """The paths of the arrays of a tree that hold NaN or an infinity.

    Args:
        tree: arrays.
        mesh: where they lie.

    Example:
        >>> from jaxdistill.training.sharding import make_mesh
        >>> state = {"net": {"kernel": jnp.array([1.0, jnp.nan])}, "step": jnp.int32(3)}
        >>> not_finite(state, make_mesh())
        ['net/kernel']
    """
    named = [
        (path_name(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    leaves = [leaf for _, leaf in named]
    if jax.default_backend() == "cpu" and jax.process_count() == 1:
        # They lie on the host already, and a program for each set of shapes is slow to compile.
        fine = [bool(np.isfinite(np.asarray(leaf)).all()) for leaf in leaves]
    else:
        fine = np.asarray(_all_finite(mesh)(leaves)) if leaves else []
    return [name for (name, _), good in zip(named, fine, strict=True) if not good]


@functools.cache
def _all_finite(mesh: Any) -> Any:
    def flags(leaves):
        return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves])

    return jax.jit(flags, out_shardings=replicated(mesh))


def split_finite(values: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """The values that are finite, and those that are not."""
    good = {name: value for name, value in values.items() if math.isfinite(value)}
    return good, {name: value for name, value in values.items() if name not in good}
