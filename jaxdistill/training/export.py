"""A student for the world outside: a compiled function with its weights, and the weights alone as safetensors."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdistill.net import Net
from jaxdistill.training.checkpoint import write_json
from jaxdistill.training.sharding import path_name

PLATFORMS = ("cpu", "cuda", "tpu")


def export_student(directory: Path | str, net: Net, result: Any, inputs: Any) -> list[Path]:
    """Writes ``student.jaxexport`` (``jax.export``: inputs to outputs, for any batch size) and ``student.safetensors``.

    Args:
        directory: where to.
        net: the student.
        result: its ``(params, state)``.
        inputs: an example of what it sees, with the batch on the first axis.

    Returns:
        The files written. Without the extra ``safetensors`` the second is left out, and a warning says so.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    params, state = jax.device_get(result)
    files = [directory / "student.jaxexport"]
    _write(files[0], _serialized(net, params, state, inputs))
    try:
        from safetensors.numpy import save
    except ImportError:
        logging.warning('no student.safetensors: it needs pip install "jaxdistill[safetensors]"')
        return files
    files.append(directory / "student.safetensors")
    _write(files[1], save(named_arrays(result), {"format": "jaxdistill"}))
    shapes = {name: [list(a.shape), str(a.dtype)] for name, a in named_arrays(result).items()}
    write_json(directory / "student.json", {"input": _shapes(inputs), "arrays": shapes})
    return files


def load_exported(path: Path | str) -> Any:
    """The function of a ``student.jaxexport``: ``outputs = load_exported(path)(inputs)``; needs no net and no config."""
    return jax.export.deserialize(Path(path).read_bytes()).call


def named_arrays(result: Any) -> dict[str, np.ndarray]:
    """A student's arrays by path: ``params/encoder/norm/scale``, ``state/batch_stats/...``."""
    params, state = result
    leaves = jax.tree_util.tree_leaves_with_path({"params": params, "state": state})
    return {path_name(path): np.ascontiguousarray(jax.device_get(leaf)) for path, leaf in leaves}


def read_named_arrays(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ``(params, state)`` of a ``student.safetensors``.

    Raises:
        ValueError: for a file that is truncated, or no safetensors file.
        ImportError: without the extra ``safetensors``.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as fault:
        raise ImportError('reading it needs: pip install "jaxdistill[safetensors]"') from fault
    try:
        flat = load_file(path)
    except SafetensorError as fault:
        raise ValueError(f"{path} is truncated or no safetensors file: {fault}") from fault
    tree: dict[str, Any] = {"params": {}, "state": {}}
    for name, array in flat.items():
        *parents, last = name.split("/")
        node: Any = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = array
    return tree["params"], tree["state"]


def _serialized(net: Net, params: Any, state: Any, inputs: Any) -> bytes:
    def outputs(inputs):
        return net.apply(params, state, inputs).out

    def abstract(batch):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch, *np.shape(x)[1:]), x.dtype), inputs)

    (batch,) = jax.export.symbolic_shape("b")
    exported = jax.export.export(jax.jit(outputs), platforms=PLATFORMS)(abstract(batch))
    return bytes(exported.serialize())


def _shapes(inputs: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(inputs)
    return {path_name(path) or "inputs": ["b", *np.shape(leaf)[1:]] for path, leaf in leaves}


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    os.replace(temporary, path)
