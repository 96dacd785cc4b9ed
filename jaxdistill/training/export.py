"""A net for the world outside: a compiled function, and its weights as safetensors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jaxdistill._files import give_name
from jaxdistill.net import Net
from jaxdistill.training.sharding import path_name

PLATFORMS = ("cpu", "cuda", "tpu")
"""Where an exported function runs."""
FUNCTION = "student.jaxexport"
"""What it is called in the folder of a student."""
_EXTRA = 'pip install "jaxdistill[export]"'


def write_function(path: Path, net: Net, result: Any, inputs: Any) -> bool:
    """Writes the function from inputs to outputs of a net with its weights, for any batch size, on
    CPU, CUDA and TPU (``jax.export``, which holds StableHLO); see :func:`load_exported`.

    Args:
        path: the file.
        net: the net.
        result: its ``(params, state)``.
        inputs: an example of what it sees: arrays with the batch on the first axis.

    Returns:
        Whether it was written: without the extra ``export`` it is not, and a warning says so.

    Raises:
        ValueError: if the net cannot be exported for any batch size.
    """
    (batch,) = jax.export.symbolic_shape("b")
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((batch, *np.shape(x)[1:]), x.dtype), inputs
    )
    return write_exported(path, function_of(net, result), shapes)


def function_of(net: Net, result: Any) -> Callable[[Any], Any]:
    """A net with its weights as a function from inputs to outputs."""
    params, state = jax.device_get(result)

    def outputs(inputs: Any) -> Any:
        # A net may index its weights by what it sees, which arrays of numpy do not allow.
        return net.apply(*jax.tree.map(jnp.asarray, (params, state)), inputs).out

    return outputs


def write_exported(path: Path, function: Callable[[Any], Any], shapes: Any) -> bool:
    """Writes any function for inputs of these shapes, see :func:`write_function`."""
    try:
        content = _serialized(function, shapes)
    except ImportError as fault:
        logging.warning("no %s: it needs %s (%s)", path.name, _EXTRA, fault)
        return False
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    give_name(temporary, path)
    return True


def load_exported(path: Path | str) -> Callable[[Any], Any]:
    """The function in a ``student.jaxexport``, from inputs to outputs, for any batch size.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is truncated, or no exported function.
        ImportError: without the extra ``export``.
    """
    content = Path(path).read_bytes()
    try:
        return jax.jit(jax.export.deserialize(bytearray(content)).call)
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
    """The ``(params, state)`` in a safetensors file whose names are paths, as nested dicts whose
    keys are strings.

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


def _serialized(function: Callable[[Any], Any], shapes: Any) -> bytes:
    def exported(platforms: Sequence[str]) -> Any:
        return jax.export.export(jax.jit(function), platforms=platforms)(shapes)

    try:
        found = exported(PLATFORMS)
    except jax.errors.InconclusiveDimensionOperation as fault:
        raise ValueError(
            f"the net cannot be exported for any batch size, as it computes with the size: {fault}"
        ) from fault
    except NotImplementedError as fault:
        # An operation without a rule for some platform: the student runs where it was trained.
        logging.warning("%s is for %s alone: %s", FUNCTION, jax.default_backend(), fault)
        found = exported([jax.default_backend().replace("gpu", "cuda")])
    return bytes(found.serialize())


def _dtype(name: str) -> np.dtype:
    """``BF16``, ``F32``, ``I64``, ``BOOL`` as a type of numpy."""
    kinds = {"BF": "bfloat", "F": "float", "I": "int", "U": "uint"}
    letters = name.rstrip("0123456789")
    return jax.numpy.dtype("bool" if name == "BOOL" else kinds[letters] + name[len(letters) :])


def shapes_of(inputs: Any) -> dict[str, Any]:
    """Shapes and types of what a net sees, by name; of an array alone under ``"inputs"``."""
    leaves = jax.tree_util.tree_leaves_with_path(inputs)
    return {
        path_name(path) or "inputs": {"shape": ["b", *np.shape(leaf)[1:]], "dtype": str(leaf.dtype)}
        for path, leaf in leaves
    }
