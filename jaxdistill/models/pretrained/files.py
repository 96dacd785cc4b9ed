"""Folders of weights: safetensors, in one file or several shards, mapped tensor by tensor."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill._files import inside, write_json

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# What unpickles as it loads, and so may run anything.
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".npy", ".msgpack", ".h5")
_EXTRA = 'pip install "jaxdistill[export]"'


class Weights:
    """The tensors of a folder by name, as maps of their files.

    Args:
        folder: with ``model.safetensors``, or its shards and their index.
        renamed: pairs of a regular expression and what to put in its place in the names.

    Raises:
        FileNotFoundError: without weights, naming what lies there instead; without a shard that the
            index names.
        ValueError: for a file that is truncated or no safetensors file, and for an index that names
            tensors which its shards do not hold.
        ImportError: without the extra ``export``.

    Attributes:
        shapes: the shape of every tensor.
        where: the file of every tensor.
    """

    def __init__(self, folder: Path | str, renamed: Sequence[tuple[str, str]] = ()) -> None:
        self.folder = Path(folder)
        self.where = _index(self.folder)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._spans: dict[str, tuple[np.dtype, int]] = {}
        for path in sorted(set(self.where.values())):
            file = _open(path)
            there = set(file.keys())
            lost = [name for name, own in self.where.items() if own == path and name not in there]
            if lost:
                raise ValueError(f"{path} does not hold {lost[0]!r}, which the index says it does")
            for name, (kind, shape, start) in _spans(path).items():
                own = name
                for pattern, other in renamed:
                    own = re.sub(pattern, other, own)
                self.shapes[own] = shape
                self._spans[own] = kind, start
                self.where.pop(name, None)
                self.where[own] = path

    def read(self, name: str) -> np.ndarray:
        """One tensor, of which only what is looked at is read, and kept as long as the array is.

        Raises:
            ValueError: for an unknown name, with the nearest one.
        """
        if name not in self.where:
            raise ValueError(unknown("tensor", name, self.where))
        (kind, start), shape = self._spans[name], self.shapes[name]
        if 0 in shape:
            return np.empty(shape, kind)
        return np.memmap(self.where[name], kind, "r", start, shape)


def read_config(folder: Path | str) -> dict[str, Any]:
    """The ``config.json`` of a folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: for a file that is no JSON object.
    """
    path = Path(folder) / "config.json"
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} is no folder: it should hold config.json and {WHOLE}")
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there: it says of which architecture the weights are"
        )
    return _object(path)


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        found = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as fault:
        raise ValueError(f"{path} is no JSON: {fault}") from fault
    except RecursionError as fault:
        raise ValueError(f"{path} is nested too deeply to be read") from fault
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold an object, it holds a {type(found).__name__}")
    return found


def write(folder: Path | str, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes ``config.json`` and ``model.safetensors``; the weights last, under their name at once.

    Raises:
        ImportError: without the extra ``export``.
    """
    folder = Path(folder)
    write_beside(folder / "config.json", config, folder / WHOLE, tensors)


def write_beside(
    note: Path, config: Mapping[str, Any], path: Path, tensors: Mapping[str, np.ndarray]
) -> None:
    """Writes a note and the tensors that it is about; these last, under their name at once.

    Raises:
        ImportError: without the extra ``export``.
    """
    try:
        from safetensors.numpy import save_file
    except ImportError as fault:
        raise ImportError(f"writing weights needs {_EXTRA}") from fault
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(note, config)
    temporary = path.with_name(f"{path.name}.part")
    # Transformers wants to be told of what framework the arrays once were.
    whole = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    save_file(whole, temporary, {"format": "pt"})
    # It lets nobody else read what it writes, as temporary files are.
    shutil.copymode(note, temporary)
    temporary.replace(path)


def read_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of one file by name, as maps of it.

    Raises:
        ValueError: for a file that is truncated or no safetensors file.
        ImportError: without the extra ``export``.
    """
    _open(path)
    return {
        name: np.memmap(path, kind, "r", start, shape) if 0 not in shape else np.empty(shape, kind)
        for name, (kind, shape, start) in _spans(path).items()
    }


def _index(folder: Path) -> dict[str, Path]:
    """Which file holds which tensor; of a folder with one file nothing need be known before."""
    if (folder / INDEX).is_file():
        names = _object(folder / INDEX).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(f, str) for f in names.values()):
            raise ValueError(
                f"{folder / INDEX} is no index of shards: its 'weight_map' must give the file of "
                "every tensor"
            )
        found = {name: inside(folder, file, folder / INDEX) for name, file in names.items()}
        missing = sorted(
            str(path.relative_to(folder)) for path in found.values() if not path.is_file()
        )
        if missing:
            raise FileNotFoundError(f"{folder} lacks the shard {missing[0]} that {INDEX} names")
        return found
    if (folder / WHOLE).is_file():
        return dict.fromkeys(_open(folder / WHOLE).keys(), folder / WHOLE)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: it should hold config.json and {WHOLE}")
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLES)
    if pickles:
        raise ValueError(
            f"{folder} has its weights in {pickles[0]}, which would have to be unpickled and could "
            "run code: save them as safetensors first (save_pretrained(..., "
            "safe_serialization=True), or safetensors.torch.save_file)"
        )
    raise FileNotFoundError(f"{folder} holds neither {WHOLE} nor {INDEX}")


# What safetensors calls the types of its tensors.
_KINDS = {
    "BOOL": np.bool_,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    **{f"F{8 * size}": f"f{size}" for size in (2, 4, 8)},
    **{f"{kind.upper()}{8 * size}": f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)},
}


def _spans(path: Path) -> dict[str, tuple[np.dtype, tuple[int, ...], int]]:
    """Type, shape and first byte of every tensor, of a file that has been found to be whole."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    found = {}
    for name, about in header.items():
        if about["dtype"] not in _KINDS:
            kind = unknown("type", about["dtype"], _KINDS)
            raise ValueError(f"{path} holds {name!r}: {kind}")
        start = 8 + length + about["data_offsets"][0]
        found[name] = np.dtype(_KINDS[about["dtype"]]), tuple(about["shape"]), start
    return found


def _open(path: Path) -> Any:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as fault:
        raise ImportError(f"reading {path} needs {_EXTRA}") from fault
    try:
        return safe_open(path, "numpy")
    except (SafetensorError, OSError) as fault:
        raise ValueError(f"{path} is truncated, or no safetensors file: {fault}") from fault
