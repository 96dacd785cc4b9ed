"""Checkpoints of a run and results of stages, as orbax folders that appear under their name only when whole.

Besides the arrays a checkpoint holds a small JSON record: the plan of the stage, fingerprints of the frozen
variables, and whatever else the loop must know to go on as if it had never stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdistill.training.sharding import path_name


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one stage, in folders named by their step.

    Attributes:
        directory: where they are.
        keep: how many of the newest stay.
    """

    directory: Path
    keep: int = 2

    def steps(self) -> list[int]:
        """The steps there are whole checkpoints of, in order."""
        if not self.directory.is_dir():
            return []
        found = (child for child in self.directory.iterdir() if child.name.isdigit())
        return sorted(int(child.name) for child in found if _is_whole(child))

    def path(self, step: int) -> Path:
        """The folder of a step."""
        return self.directory / f"{step:010d}"

    def save(self, step: int, tree: Any, record: Mapping[str, Any], protect: int | None = None) -> None:
        """Writes a checkpoint, then removes the oldest ones beyond ``keep``.

        Args:
            step: names the checkpoint.
            tree: the arrays.
            record: JSON data; numpy arrays in it are kept exactly.
            protect: a step that is never removed (the best one).

        Raises:
            OSError: when it cannot be written, a full disk say; the earlier checkpoints are left as they were.
        """
        save_tree(self.path(step), tree, record)
        extra = [old for old in self.steps() if old != protect][: -self.keep]
        for old in extra:
            shutil.rmtree(self.path(old), ignore_errors=True)

    def load(self, step: int, abstract: Any) -> tuple[Any, dict[str, Any]]:
        """The arrays of a step, placed as ``abstract`` says, and its record."""
        return load_tree(self.path(step), abstract)


def save_tree(path: Path, tree: Any, record: Mapping[str, Any]) -> None:
    """Writes arrays and a JSON record into one folder, which bears its name only when it is whole."""
    ocp = _orbax()
    path = Path(path).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ocp.save(str(path), {"tree": tree}, overwrite=True, custom_metadata=_encode(dict(record)))
    except Exception as fault:
        if isinstance(fault, OSError) or "space" in str(fault).lower():
            raise OSError(f"cannot save {path}: {fault}. Earlier checkpoints are whole.") from fault
        raise


def load_tree(path: Path, abstract: Any) -> tuple[Any, dict[str, Any]]:
    """Reads what :func:`save_tree` wrote.

    Args:
        path: the folder.
        abstract: arrays, or shapes with shardings, like those that were saved.

    Raises:
        ValueError: if the folder is not a whole checkpoint, or holds other arrays than ``abstract``; the message
            lists each that differs, with both shapes.
    """
    ocp = _orbax()
    path = Path(path).absolute()
    if not _is_whole(path):
        raise ValueError(f"{path} is missing, or not a whole checkpoint")
    metadata = ocp.metadata(str(path))
    refuse_other_arrays(path, metadata.metadata["tree"], abstract)
    default = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def placed(leaf):
        sharding = getattr(leaf, "sharding", None) or default
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    loaded = ocp.load(str(path), {"tree": jax.tree.map(placed, abstract)})["tree"]
    return loaded, _decode(metadata.custom_metadata)


def refuse_other_arrays(path: Path | str, stored: Any, wanted: Any) -> None:
    """Compares paths and shapes.

    Raises:
        ValueError: listing every array that one tree has and the other lacks, and all whose shapes differ.
    """
    faults = _differences(stored, wanted)
    if faults:
        raise ValueError(f"{path} holds other arrays than this net:\n" + "\n".join(faults))


def load_record(path: Path) -> dict[str, Any]:
    """The JSON record of a folder that :func:`save_tree` wrote."""
    path = Path(path).absolute()
    if not _is_whole(path):
        raise ValueError(f"{path} is missing, or not a whole checkpoint")
    return _decode(_orbax().metadata(str(path)).custom_metadata)


def load_arrays(path: Path) -> Any:
    """The arrays of a folder as nested dicts, without being told their shapes, on one device."""
    ocp = _orbax()
    path = Path(path).absolute()
    if not _is_whole(path):
        raise ValueError(f"{path} is missing, or not a whole checkpoint")
    tree = ocp.metadata(str(path)).metadata["tree"]
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def placed(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return ocp.load(str(path), {"tree": jax.tree.map(placed, tree)})["tree"]


def fingerprint(tree: Any) -> str:
    """A short hash of arrays: their paths, shapes, types and every byte.

    Example:
        >>> fingerprint({"w": np.zeros(2)}) == fingerprint({"w": np.zeros(2)})
        True
        >>> fingerprint({"w": np.zeros(2)}) == fingerprint({"w": np.ones(2)})
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        digest.update(f"{path_name(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def digest(data: Any) -> str:
    """A short hash of JSON data, whatever the order of its keys."""
    text = json.dumps(_encode(data), sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def write_json(path: str | os.PathLike, data: Any) -> None:
    """Writes strict JSON under its final name at once, or not at all."""
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)


def _orbax():
    import logging

    from orbax.checkpoint import v1

    logging.getLogger("absl").setLevel(logging.ERROR)
    return v1


def _is_whole(path: Path) -> bool:
    # Orbax writes into a folder of another name and renames it at the end; the marker guards file systems
    # whose rename is not atomic.
    return (path / "_CHECKPOINT_METADATA").exists()


def _differences(stored: Any, wanted: Any) -> list[str]:
    def shapes(tree):
        return {
            path_name(path): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if hasattr(leaf, "shape")
        }

    # A key is stored as the integers it consists of.
    wanted = jax.tree.map(
        lambda x: jax.eval_shape(jax.random.key_data, x)
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        else x,
        wanted,
    )
    there, here = shapes(_plain(stored)), shapes(_plain(wanted))
    faults = []
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            faults.append(f"- {name}: {there.get(name, 'absent')} stored, {here.get(name, 'absent')} here")
    return faults


def _plain(tree: Any) -> Any:
    """Tuples and named tuples as lists and dicts, the way orbax names what it stores."""
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return {name: _plain(getattr(tree, name)) for name in tree._fields}
    if isinstance(tree, Mapping):
        return {str(name): _plain(value) for name, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_plain(value) for value in tree]
    return tree


def _encode(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(key): _encode(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_encode(value) for value in data]
    if isinstance(data, (np.ndarray, np.generic, jax.Array)):
        array = np.asarray(data)
        return {"__array__": array.tolist(), "dtype": str(array.dtype)}
    return data


def _decode(data: Any) -> Any:
    if isinstance(data, Mapping):
        if "__array__" in data:
            return np.array(data["__array__"], dtype=data["dtype"])
        return {key: _decode(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_decode(value) for value in data]
    return data
