"""What a function computes, as a short hash: another rate, loss, optimizer or constant is seen."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

# What says where a computation runs or what its parts are called, and not what they are.
_LEFT_OUT = {"compiler_options_kvs", "ctx_mesh", "debug_info", "donated_invars", "inline"}
_LEFT_OUT |= {"in_layouts", "in_shardings", "keep_unused", "mesh", "name", "out_layouts"}
_LEFT_OUT |= {"out_shardings", "resource_env", "sharding"}


def computed(function: Callable[..., Any], *arguments: Any) -> str:
    """A hash of the traced function and its constants.

    It is the same in every process: variables are numbered, arrays count with every byte, and names
    and addresses of functions are left out. What is traced otherwise on another kind of device, or
    by another version of JAX, has another hash.

    Args:
        function: what is traced.
        *arguments: arrays or their shapes.

    Example:
        >>> rate = lambda value: computed(lambda x: value * x, jnp.ones(2))
        >>> rate(0.1) == rate(0.1), rate(0.1) == rate(0.2)
        (True, False)
    """
    digest = hashlib.blake2b(digest_size=16)
    _add(digest, jax.make_jaxpr(function)(*arguments))
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    """Adds a value of any kind that a traced function holds."""
    if isinstance(value, core.ClosedJaxpr):
        _add_jaxpr(digest, value.jaxpr)
        _add(digest, list(value.consts))
    elif isinstance(value, core.Jaxpr):
        _add_jaxpr(digest, value)
    elif isinstance(value, (np.ndarray, np.generic, jax.Array)):
        _add_array(digest, value)
    elif isinstance(value, Mapping):
        digest.update(b"{")
        for key in sorted(value, key=str):
            digest.update(f"{key}:".encode())
            _add(digest, value[key])
    elif isinstance(value, (tuple, list)):
        digest.update(f"({len(value)}".encode())
        for each in value:
            _add(digest, each)
    elif isinstance(value, (set, frozenset)):
        digest.update(repr(sorted(map(str, value))).encode())
    elif isinstance(value, (bool, int, float, complex, str, bytes, type(None), np.dtype)):
        digest.update(f"{type(value).__name__} {value!r};".encode())
    elif isinstance(value, enum.Enum):
        digest.update(f"{type(value).__name__}.{value.name};".encode())
    elif hasattr(value, "shape") and hasattr(value, "dtype"):
        digest.update(f"{value.dtype}{tuple(value.shape)};".encode())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value)]
        _add(digest, {name: getattr(value, name) for name in fields if name not in _LEFT_OUT})
    else:
        # Functions, meshes and the like: that there is one counts, not which.
        digest.update(f"{type(value).__name__};".encode())


def _add_jaxpr(digest: Any, jaxpr: Any) -> None:
    names: dict[Any, int] = {}

    def add(variable):
        if isinstance(variable, core.Literal):
            _add(digest, variable.val)
        else:
            digest.update(f"%{names.setdefault(variable, len(names))}".encode())
        aval = variable.aval
        digest.update(f"{getattr(aval, 'dtype', '')}{getattr(aval, 'shape', '')};".encode())

    for variable in (*jaxpr.constvars, *jaxpr.invars):
        add(variable)
    for equation in jaxpr.eqns:
        digest.update(f"\n{equation.primitive.name} ".encode())
        for variable in equation.invars:
            add(variable)
        _add(digest, {k: v for k, v in equation.params.items() if k not in _LEFT_OUT})
        for variable in equation.outvars:
            add(variable)
    digest.update(b"\nout ")
    for variable in jaxpr.outvars:
        add(variable)


def _add_array(digest: Any, value: Any) -> None:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.ascontiguousarray(value)
    digest.update(f"{array.dtype}{array.shape}".encode())
    digest.update(array.tobytes())
