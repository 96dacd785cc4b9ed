"""Loops over arrays that run at their pace on every backend.

XLA on CPU runs convolutions inside ``scan``, ``while`` and ``map`` about 50 times slower than
unrolled, and other bodies faster in a loop than all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def scan(body: Callable, carry: Any, xs: Any) -> tuple[Any, Any]:
    """``jax.lax.scan``, unrolled on CPU where the body has convolutions: there XLA runs those in
    loops 50 times slower."""
    unroll = jax.default_backend() == "cpu" and _convolves(body, carry, xs)
    return jax.lax.scan(body, carry, xs, unroll=unroll)


def for_each(function: Callable, xs: Any) -> Any:
    """``function`` of every row of ``xs``, all at once; on CPU one after another, which is faster
    there, unless it has convolutions, see :func:`scan`."""

    def body(carry, x):
        return carry, function(x)

    if jax.default_backend() == "cpu" and not _convolves(body, None, xs):
        return jax.lax.map(function, xs)
    return jax.vmap(function)(xs)


def _convolves(body: Callable, carry: Any, xs: Any) -> bool:
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
    return "conv_general_dilated" in str(jax.make_jaxpr(body)(carry, first))
