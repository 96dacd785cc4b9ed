"""Parameters of blocks one by one, and of the same blocks stacked for a loop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

STACK = "blocks"
# The collection of variables in which layers find adapters, also within loops over layers.
ADAPTERS = "adapters"
# What layers are called one by one, and stacked: those of transformers, and of decoders.
_STACKS = {"block": STACK, "layers": "layers"}


def stacked_path(path: str) -> str:
    """The path of an array of unrolled blocks where the blocks are stacked.

    Example:
        >>> stacked_path("params/layers_3/mlp/up_proj/kernel")
        'params/layers/mlp/up_proj/kernel'
    """
    return re.sub(r"(?<![^/])(block|layers)_\d+(?=/)", lambda found: _STACKS[found[1]], path)


def stack_blocks(params: Any, *, apart: int = 0) -> Any:
    """Parameters of unrolled blocks in the layout of scanned ones.

    Wherever a dict holds ``block_0``, ``block_1``, ..., they become one tree ``blocks`` whose
    arrays have an axis [depth] in front; and ``layers_0``, ``layers_1``, ... of a decoder one tree
    ``layers``. All else stays as it is.

    Args:
        params: nested dicts of arrays, of a ViT, an MAE, a decoder, or a part of one (or anything
            with the same structure, such as an optimizer's moments).
        apart: how many blocks in front stay by themselves, unlike those behind them: 1 for the
            stages of a ``ResNet`` and for a ``ModernBert``.

    Returns:
        New nested dicts.

    Raises:
        ValueError: block numbers with a gap, or blocks that differ in structure or shape.

    Example:
        >>> layer = {"bias": jnp.ones(3)}
        >>> stack_blocks({"block_0": layer, "block_1": layer})["blocks"]["bias"].shape
        (2, 3)
    """
    if not isinstance(params, Mapping):
        return params
    found: dict[str, Any] = {}
    stacks: dict[str, dict[int, Any]] = {}
    for name, value in params.items():
        kind, _, number = name.rpartition("_")
        if kind in _STACKS and number.isdecimal():
            stacks.setdefault(kind, {})[int(number)] = value
        else:
            found[name] = stack_blocks(value, apart=apart)
    for kind, blocks in stacks.items():
        ids = sorted(blocks)
        if ids != list(range(len(ids))):
            raise ValueError(
                f"blocks must be numbered 0 to {len(ids) - 1}, they are numbered {ids}"
            )
        found |= {f"{kind}_{index}": blocks[index] for index in ids[:apart]}
        ordered = [blocks[index] for index in ids[apart:]]
        if ordered:
            found[_STACKS[kind]] = jax.tree.map(lambda *layers: jnp.stack(layers), *ordered)
    return found


def unstack_blocks(params: Any) -> Any:
    """The inverse of ``stack_blocks``.

    Args:
        params: nested dicts of arrays with trees ``blocks`` or ``layers`` of stacked arrays.

    Returns:
        New nested dicts with ``block_0``, ``block_1``, ... in their place.

    Example:
        >>> sorted(unstack_blocks({"blocks": {"bias": jnp.ones((2, 3))}}))
        ['block_0', 'block_1']
    """
    if not isinstance(params, Mapping):
        return params
    kinds = {stack: kind for kind, stack in _STACKS.items()}
    found: dict[str, Any] = {}
    for name, value in params.items():
        if name not in kinds:
            found[name] = unstack_blocks(value)
            continue
        apart = sum(re.fullmatch(rf"{kinds[name]}_\d+", other) is not None for other in params)
        for index in range(jax.tree.leaves(value)[0].shape[0]):
            found[f"{kinds[name]}_{apart + index}"] = jax.tree.map(
                lambda stacked, i=index: stacked[i], value
            )
    return found
