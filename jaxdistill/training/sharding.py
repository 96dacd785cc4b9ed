"""Where arrays live: a mesh of three axes, and rules from a parameter's path to its partition.

The mesh has the axes ``data`` (examples), ``fsdp`` (examples, and slices of every large parameter)
and ``model`` (slices of single layers). One list of rules serves student, teacher and optimizer
state, because a path such as ``opt/0/mu/net/encoder/block_0/mlp/fc1/kernel`` ends like the path of
the parameter it belongs to.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "model")
"""The axes of a mesh."""
Rules = Sequence[tuple[str, Any]]
"""Pairs of a pattern for paths of parameters and a partition of their axes."""
SMALLEST_SLICED = 2**14
"""A parameter with fewer numbers is cheaper to copy than to gather."""


def memory_of_a_device() -> int:
    """Bytes that a device of this process can hold; of processors, its share of the machine's.

    Example:
        >>> memory_of_a_device() > 2**20
        True
    """
    devices = jax.local_devices()
    if limit := (devices[0].memory_stats() or {}).get("bytes_limit"):
        return int(limit)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(devices)


def make_mesh(sizes: Mapping[str, int] | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the axes ``data``, ``fsdp`` and ``model``.

    Args:
        sizes: how many devices along each axis; one of them may be -1, for all that are left. By
            default all devices are on ``data``.
        devices: the devices to use, all of them by default.

    Raises:
        ValueError: for an unknown axis, and for sizes that do not give the number of devices there
            are.
    """
    from jaxdistill._errors import unknown

    devices = list(devices) if devices is not None else jax.devices()
    sizes = dict(sizes or {})
    for axis in sizes:
        if axis not in AXES:
            raise ValueError(unknown("mesh axis", axis, AXES))
    wanted = [
        sizes.get(axis, -1 if axis == "data" and -1 not in sizes.values() else 1) for axis in AXES
    ]
    if wanted.count(-1) > 1 or any(size == 0 or size < -1 for size in wanted):
        raise ValueError(f"mesh sizes must be positive, at most one of them -1, got {sizes}")
    fixed = math.prod(size for size in wanted if size != -1)
    if fixed > len(devices):
        raise ValueError(f"a mesh of {sizes} needs {fixed} devices, there are {len(devices)}")
    if -1 in wanted:
        if len(devices) % fixed:
            raise ValueError(f"{len(devices)} devices cannot be shared out over a mesh of {sizes}")
        wanted[wanted.index(-1)] = len(devices) // fixed
    used = math.prod(wanted)
    return Mesh(
        np.array(devices[:used]).reshape(wanted), AXES, axis_types=(AxisType.Auto,) * len(AXES)
    )


def on_mesh(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """A function that is traced with the mesh in context, where :func:`batch_axes` finds it."""

    def traced(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return traced


def batch_axes(examples: int) -> tuple[str, ...] | None:
    """The axes of the mesh in context over which so many examples are divided, or None.

    What loops over a batch must know them: XLA turns a loop over sharded rows into one over all
    rows on every device.

    Example:
        >>> batch_axes(8) is None  # no mesh
        True
    """
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    axes = tuple(
        axis
        for axis in ("data", "fsdp")
        if kinds.get(axis) == AxisType.Auto and mesh.shape[axis] > 1
    )
    parts = math.prod(mesh.shape[axis] for axis in axes)
    return axes if axes and examples % parts == 0 else None


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, takes: int = 1) -> NamedSharding:
    """The sharding of a batch: its examples over ``data`` and ``fsdp`` together."""
    examples = ("data", "fsdp")
    return NamedSharding(mesh, PartitionSpec(*(() if takes == 1 else (None,)), examples))


def shardings(mesh: Mesh, tree: Any, rules: Rules = ()) -> Any:
    """A sharding for every array of a tree, by the path of each.

    Args:
        mesh: from :func:`make_mesh`.
        tree: arrays or their shapes (``jax.eval_shape``).
        rules: pairs of a regular expression, searched for in the path, and a partition: a tuple
            with the axis (or None) of each dimension, ``"replicated"``, or ``"fsdp"``, which slices
            the largest dimension that the axis divides. The first match counts; what no rule
            matches is sliced as by ``"fsdp"``.

    Raises:
        ValueError: for a rule that is no pair or no regular expression, that names an unknown axis,
            or whose partition does not divide the dimension it names.
    """
    compiled = [_compiled(rule) for rule in rules]

    def one(path, leaf):
        name, shape = path_name(path), tuple(leaf.shape)
        partition = next((p for pattern, p in compiled if pattern.search(name)), "fsdp")
        return NamedSharding(mesh, _spec(mesh, name, shape, partition))

    return jax.tree_util.tree_map_with_path(one, tree)


def path_name(path: Sequence[Any]) -> str:
    """A tree path as ``encoder/block_3/mlp/fc1/kernel``."""
    return "/".join(
        str(next(getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind)))
        for key in path
    )


def place(mesh: Mesh, tree: Any, rules: Rules = ()) -> Any:
    """Puts a tree of arrays onto the mesh by its rules."""
    return jax.device_put(tree, shardings(mesh, tree, rules))


def shapes_on(mesh: Mesh, tree: Any, rules: Rules = ()) -> Any:
    """The shapes of a tree of arrays as they lie on the mesh by its rules."""
    return jax.tree.map(_shape_on, tree, shardings(mesh, tree, rules))


def shapes_of_batch(batch: Any, sharding: NamedSharding) -> Any:
    """The shapes of a batch as :func:`global_batch` gives it."""
    whole = NamedSharding(sharding.mesh, PartitionSpec())
    return jax.tree.map(lambda x: _shape_on(x, sharding if x.ndim else whole), batch)


def _shape_on(x: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    weak = getattr(x, "weak_type", False)
    kind = jax.dtypes.canonicalize_dtype(x.dtype, allow_extended_dtype=True)
    return jax.ShapeDtypeStruct(x.shape, kind, sharding=sharding, weak_type=weak)


def global_batch(x: Any, sharding: NamedSharding) -> jax.Array:
    """The array over all processes of which each gives its share of the examples."""
    if np.ndim(x) == 0:
        return jax.device_put(x, NamedSharding(sharding.mesh, PartitionSpec()))
    return jax.make_array_from_process_local_data(sharding, np.asarray(x))


def _compiled(rule: Any) -> tuple[re.Pattern[str], Any]:
    if isinstance(rule, str) or len(rule) != 2:
        raise ValueError(f"rule {rule!r} is no pair of a regular expression and a partition")
    try:
        return re.compile(rule[0]), rule[1]
    except re.error as fault:
        raise ValueError(f"rule {rule[0]!r} is no regular expression: {fault}") from fault


def _spec(mesh: Mesh, name: str, shape: tuple[int, ...], partition: Any) -> PartitionSpec:
    from jaxdistill._errors import unknown

    if partition == "replicated":
        return PartitionSpec()
    if partition == "fsdp":
        return _largest(mesh.shape["fsdp"], shape)
    if isinstance(partition, str):
        raise ValueError(unknown("partition", partition, ("fsdp", "replicated", "a tuple of axes")))
    if len(partition) > len(shape):
        raise ValueError(f"partition {tuple(partition)} has more dimensions than {name} {shape}")
    for size, axes in zip(shape, partition, strict=False):
        axes = (axes,) if isinstance(axes, str) else tuple(axes or ())
        for axis in axes:
            if axis not in mesh.shape:
                raise ValueError(unknown("mesh axis", axis, mesh.shape))
        parts = math.prod(mesh.shape[axis] for axis in axes)
        if size % parts:
            raise ValueError(
                f"{name} {shape}: dimension {size} cannot be cut into {parts} by {axes}"
            )
    return PartitionSpec(*(tuple(a) if isinstance(a, list) else a for a in partition))


def _largest(parts: int, shape: tuple[int, ...]) -> PartitionSpec:
    if parts == 1 or math.prod(shape) < SMALLEST_SLICED:
        return PartitionSpec()
    for place in sorted(range(len(shape)), key=lambda axis: -shape[axis]):
        if shape[place] % parts == 0:
            return PartitionSpec(*(None,) * place, "fsdp")
    return PartitionSpec()
