"""A student for the world outside: a compiled function, and its weights as safetensors."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill._files import write_json
from jaxdistill.net import Net
from jaxdistill.training.sharding import path_name

PLATFORMS = ("cpu", "cuda", "tpu")
"""Where an exported student runs."""
_EXTRA = 'pip install "jaxdistill[export]"'


def export_student(directory: Path | str, net: Net, result: Any, inputs: Any) -> list[Path]:
    """Writes a student as files that need neither its net nor a config.

    - ``student.jaxexport``: the function from inputs to outputs with its weights, for any batch
    size, on CPU, CUDA and
      TPU (``jax.export``); see :func:`load_exported`.
    - ``student.safetensors``: its arrays by path; see :func:`read_named_arrays`.
    - ``student.json``: shapes and types of the inputs and of the arrays, and the platforms.

    Args:
        directory: where to.
        net: the student.
        result: its ``(params, state)``.
        inputs: an example of what it sees: arrays with the batch on the first axis.

    Returns:
        The files written. Without the extra ``export`` those that need it are left out, and a
        warning says so.

    Raises:
        ValueError: if the net cannot be exported for any batch size.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    arrays = named_arrays(result)
    about = {
        "inputs": _about(inputs),
        "arrays": {
            name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in arrays.items()
        },
    }
    files = []
    try:
        content, about["platforms"] = _serialized(net, result, inputs)
    except ImportError as fault:
        logging.warning("no student.jaxexport: it needs %s (%s)", _EXTRA, fault)
    else:
        files.append(_write(directory / "student.jaxexport", content))
    try:
        from safetensors.numpy import save
    except ImportError:
        logging.warning("no student.safetensors: it needs %s", _EXTRA)
    else:
        files.append(
            _write(directory / "student.safetensors", save(arrays, {"format": "jaxdistill"}))
        )
    write_json(directory / "student.json", about)
    return [*files, directory / "student.json"]


def load_exported(path: Path | str) -> Callable[[Any], Any]:
    """The function in a ``student.jaxexport``, from inputs to outputs, for any batch size.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is truncated, or no exported function.
        ImportError: without the extra ``export``.
    """
    from jax import export

    content = Path(path).read_bytes()
    try:
        return jax.jit(export.deserialize(bytearray(content)).call)
    except ImportError as fault:
        raise ImportError(f"reading {path} needs {_EXTRA}") from fault
    except Exception as fault:
        raise ValueError(f"{path} is truncated, or no exported function: {fault}") from fault


def named_arrays(result: Any) -> dict[str, np.ndarray]:
    """A student's arrays by path: ``params/encoder/norm/scale``, ``state/batch_stats/...``."""
    params, state = result
    leaves = jax.tree_util.tree_leaves_with_path({"params": params, "state": state})
    # Not ascontiguousarray, which makes an array of a scalar.
    return {path_name(path): np.asarray(leaf, order="C") for path, leaf in leaves}


def read_named_arrays(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ``(params, state)`` in a ``student.safetensors``, as nested dicts whose keys are strings.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is truncated, no safetensors file, or no student.
        ImportError: without the extra ``export``.
    """
    try:
        from safetensors import SafetensorError, deserialize
    except ImportError as fault:
        raise ImportError(f"reading {path} needs {_EXTRA}") from fault
    content = Path(path).read_bytes()
    try:
        # Not safetensors.numpy.load, which knows no bfloat16.
        entries = deserialize(content)
    except SafetensorError as fault:
        raise ValueError(f"{path} is truncated, or no safetensors file: {fault}") from fault
    tree: dict[str, Any] = {"params": {}, "state": {}}
    for name, entry in entries:
        *parents, last = name.split("/")
        if not parents or parents[0] not in tree:
            raise ValueError(
                f"{path} holds no student: {name!r} lies neither under params nor under state"
            )
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = np.frombuffer(entry["data"], _dtype(entry["dtype"])).reshape(entry["shape"])
    return tree["params"], tree["state"]


def _serialized(net: Net, result: Any, inputs: Any) -> tuple[bytes, list[str]]:
    """The exported function, and the platforms that it is for."""
    from jax import export

    params, state = jax.device_get(result)

    def outputs(inputs):
        # A net may index its weights by what it sees, which arrays of numpy do not allow.
        return net.apply(*jax.tree.map(jnp.asarray, (params, state)), inputs).out

    (batch,) = export.symbolic_shape("b")
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((batch, *np.shape(x)[1:]), x.dtype), inputs
    )

    def exported(platforms: Sequence[str]) -> Any:
        return export.export(jax.jit(outputs), platforms=platforms)(shapes)

    try:
        found = exported(PLATFORMS)
    except jax.errors.InconclusiveDimensionOperation as fault:
        raise ValueError(
            f"the net cannot be exported for any batch size, as it computes with the size: {fault}"
        ) from fault
    except NotImplementedError as fault:
        # An operation without a rule for some platform: the student runs where it was trained.
        logging.warning("student.jaxexport is for %s alone: %s", jax.default_backend(), fault)
        found = exported([jax.default_backend().replace("gpu", "cuda")])
    return bytes(found.serialize()), list(found.platforms)


def _dtype(name: str) -> np.dtype:
    """``BF16``, ``F32``, ``I64``, ``BOOL`` as a type of numpy."""
    kinds = {"BF": "bfloat", "F": "float", "I": "int", "U": "uint"}
    letters = name.rstrip("0123456789")
    return jax.numpy.dtype("bool" if name == "BOOL" else kinds[letters] + name[len(letters) :])


def _about(inputs: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(inputs)
    return {
        path_name(path) or "inputs": {"shape": ["b", *np.shape(leaf)[1:]], "dtype": str(leaf.dtype)}
        for path, leaf in leaves
    }


def _write(path: Path, content: bytes) -> Path:
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    os.replace(temporary, path)
    return path
