"""Checkpoints and results of stages, as orbax folders, named only when they are complete.

Besides the arrays a checkpoint holds a JSON record: the plan of the stage, fingerprints of the
frozen variables, and whatever else the loop needs to resume as if it had never stopped. A list
of checksums makes sure that what is read is what was written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill._files import Damaged, give_name, seal_folder, verify_folder
from jaxdistill.training.processes import barrier, is_first, whole
from jaxdistill.training.sharding import path_name

_RECORD = "_CHECKPOINT_METADATA"
_SMALL = 2**20  # files below this many bytes are read to know what a folder is


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
        """The steps there are checkpoints of, in order."""
        if not self.directory.is_dir():
            return []
        return sorted(int(child.name) for child in self.directory.iterdir() if child.name.isdigit())

    def path(self, step: int) -> Path:
        """The folder of a step."""
        return self.directory / f"{step:010d}"

    def save(
        self, step: int, tree: Any, record: Mapping[str, Any], protect: int | None = None
    ) -> None:
        """Writes a checkpoint, then removes the oldest ones beyond ``keep``.

        Args:
            step: names the checkpoint.
            tree: the arrays.
            record: JSON data; numpy arrays in it are kept exactly.
            protect: a step that is never removed (the best one).

        Raises:
            OSError: when it cannot be written, a full disk say; the earlier checkpoints are left as
                they were.
        """
        save_tree(self.path(step), tree, record)
        extra = [old for old in self.steps() if old != protect][: -self.keep]
        for old in extra if is_first() else ():
            shutil.rmtree(self.path(old), ignore_errors=True)

    def load(self, step: int, abstract: Any) -> tuple[Any, dict[str, Any]]:
        """The arrays of a step, placed as ``abstract`` says, and its record."""
        return load_tree(self.path(step), abstract)


def save_tree(path: Path, tree: Any, record: Mapping[str, Any]) -> None:
    """Writes arrays and a JSON record into one folder, which is named only when it is complete.

    Raises:
        OSError: when it cannot be written, a full disk say. What was written of it is removed.
    """
    path = Path(path).absolute()
    temporary = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _orbax() as ocp:
            metadata = {"record": encode(dict(record))}
            ocp.save(str(temporary), {"tree": tree}, overwrite=True, custom_metadata=metadata)
        barrier(f"saved {path}")
        if is_first():
            seal_folder(temporary)
            shutil.rmtree(path, ignore_errors=True)
            give_name(temporary, path)
        barrier(f"named {path}")
    except Exception as fault:
        # TensorStore reports what the system refused as a ValueError that names the code.
        if not isinstance(fault, OSError) and "os_error_code" not in str(fault):
            raise
        remove_unfinished(path.parent)
        raise OSError(
            f"cannot save {path}: {_short(fault)}. Whatever was saved before it is whole."
        ) from fault


def remove_unfinished(directory: Path) -> None:
    """Removes what a run that died while saving left: folders that never got their name."""
    if directory.is_dir():
        for child in (*directory.glob("*.orbax-checkpoint-tmp*"), *directory.glob("*.part")):
            shutil.rmtree(child, ignore_errors=True)


def load_tree(path: Path, abstract: Any) -> tuple[Any, dict[str, Any]]:
    """Reads what :func:`save_tree` wrote.

    Args:
        path: the folder.
        abstract: arrays, or shapes with shardings, like those that were saved.

    Raises:
        Damaged: if the folder or a file in it is missing or not what was written, naming it.
        ValueError: if it holds other arrays than ``abstract``; the message lists each that differs,
            with both shapes and types.
    """
    path = Path(path).absolute()
    _verify(path)
    tree, record = _contents(path)
    refuse_other_arrays(path, tree, abstract)
    return _read(path, abstract), record


def refuse_other_arrays(path: Path | str, stored: Any, wanted: Any) -> None:
    """Compares paths, shapes and types.

    Raises:
        ValueError: listing every array that one tree has and the other lacks, and all whose shapes
            or types differ.
    """
    faults = _differences(stored, wanted)
    if faults:
        raise ValueError(f"{path} holds other arrays than this net:\n" + "\n".join(faults))


def load_record(path: Path) -> dict[str, Any]:
    """The JSON record of a folder that :func:`save_tree` wrote.

    Raises:
        Damaged: if it is missing or not what was written.
    """
    path = Path(path).absolute()
    _verify(path, below=_SMALL)
    return _contents(path)[1]


def load_arrays(path: Path) -> Any:
    """The arrays of a folder as nested dicts, without knowing their shapes, on one device.

    Raises:
        Damaged: if the folder or a file in it is missing or not what was written, naming it.
    """
    path = Path(path).absolute()
    _verify(path)
    # Without the shardings that are stored: they name devices which need not be here.
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), _contents(path)[0])
    return _read(path, shapes)


def fingerprint(tree: Any) -> str:
    """A short hash of arrays: their paths, shapes, types and every byte. Of arrays that are spread
    over processes all of them must ask.

    Example:
        >>> fingerprint({"w": np.zeros(2)}) == fingerprint({"w": np.zeros(2)})
        True
        >>> fingerprint({"w": np.zeros(2)}) == fingerprint({"w": np.ones(2)})
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(whole(leaf))
        digest.update(f"{path_name(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def digest(data: Any) -> str:
    """A short hash of JSON data, whatever the order of its keys."""
    text = json.dumps(encode(data), sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@contextlib.contextmanager
def _orbax():
    """Orbax, without its log: all that goes wrong in it is raised as well."""
    import logging

    from orbax.checkpoint import v1

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield v1
    finally:
        logger.setLevel(level)


def _contents(path: Path) -> tuple[Any, dict[str, Any]]:
    """What arrays there are, as shapes, and the record."""
    try:
        with _orbax() as ocp:
            metadata = ocp.metadata(str(path))
    except Exception as fault:
        raise Damaged(f"{path} is damaged: {_short(fault)}") from fault
    arrays: Any = metadata.metadata
    record: Any = metadata.custom_metadata
    if arrays is None or "tree" not in arrays:
        raise Damaged(f"{path} is damaged: its list of arrays cannot be read")
    if not record or "record" not in record:
        raise Damaged(f"{path} is damaged: its record cannot be read")
    return arrays["tree"], _decode(record["record"])


def _read(path: Path, abstract: Any) -> Any:
    default = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def placed(leaf):
        sharding = getattr(leaf, "sharding", None) or default
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    try:
        with _orbax() as ocp:
            return ocp.load(str(path), {"tree": jax.tree.map(placed, abstract)})["tree"]
    except Exception as fault:
        raise Damaged(f"{path} is damaged: {_short(fault)}") from fault


def _short(fault: Exception) -> str:
    """An error of TensorStore without the specification of the array."""
    text = str(fault).split(" [tensorstore_spec")[0].split(" See full TensorStore")[0]
    return (text if len(text) <= 300 else text[:300] + "...").rstrip(". ")


def _verify(path: Path, below: float = math.inf) -> None:
    """Compares the files of a folder with what was written: all, or the record and those below
    some bytes."""
    if not path.exists():
        raise Damaged(f"there is no checkpoint {path}")
    verify_folder(path, below, always=_RECORD)


def _differences(stored: Any, wanted: Any) -> list[str]:
    def specs(tree):
        return {
            path_name(path): f"{leaf.dtype}{list(leaf.shape)}"
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if hasattr(leaf, "shape")
        }

    # A key is stored as the integers it consists of.
    wanted = jax.tree.map(
        lambda x: (
            jax.eval_shape(jax.random.key_data, x)
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
            else x
        ),
        wanted,
    )
    there, here = specs(_plain(stored)), specs(_plain(wanted))
    faults = []
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            faults.append(
                f"- {name}: {there.get(name, 'absent')} stored, {here.get(name, 'absent')} here"
            )
    return faults


def _plain(tree: Any) -> Any:
    """Tuples and named tuples as lists and dicts, the way orbax names what it stores."""
    fields = getattr(tree, "_fields", None)
    if isinstance(tree, tuple) and fields is not None:
        return {name: _plain(getattr(tree, name)) for name in fields}
    if isinstance(tree, Mapping):
        return {str(name): _plain(value) for name, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_plain(value) for value in tree]
    return tree


def encode(data: Any) -> Any:
    """JSON data and numpy arrays as JSON data alone, the way records hold them."""
    if isinstance(data, Mapping):
        return {str(key): encode(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [encode(value) for value in data]
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
