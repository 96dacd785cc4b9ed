"""Transformer blocks, and the two ways to run a stack of them: unrolled or scanned."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.models._common import Identity

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
_BLOCK = re.compile(r"block_(\d+)")
_STACK = "blocks"
# What layers are called one by one, and stacked: those of transformers, and of decoders.
_STACKS = {"block": _STACK, "layers": "layers"}


def split_qkv(qkv: jax.Array, heads: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values from the fused projection.

    Args:
        qkv: [B, N, 3D], what the tap ``.../attn/qkv`` gives.
        heads: attention heads H, a divisor of D.

    Returns:
        Three arrays [B, N, H, D/H].

    Raises:
        ValueError: the width does not divide by the heads.

    Example:
        >>> [part.shape for part in split_qkv(jnp.zeros((2, 5, 24)), heads=4)]
        [(2, 5, 4, 2), (2, 5, 4, 2), (2, 5, 4, 2)]
    """
    batch, length, width = qkv.shape
    if width % (3 * heads):
        raise ValueError(f"a width of {width / 3:g} does not divide by {heads} heads")
    parts = qkv.reshape(batch, length, 3, heads, width // (3 * heads))
    return parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]


def check_heads(width: int, heads: int) -> None:
    """Refuses a width that the heads do not divide."""
    if heads < 1 or width % heads:
        raise ValueError(f"a width of {width} does not divide by {heads} heads")


class Attention(nn.Module):
    """Self-attention of all tokens to all tokens, with a fused projection ``qkv`` and ``proj``.

    A mask, bool [B or 1, 1, N, N], says which token (third axis) sees which (last axis).
    The softmax is taken in float32, also for tokens in float64.
    """

    heads: int
    dtype: Any = None

    @nn.compact
    def __call__(self, tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        width = tokens.shape[-1]
        check_heads(width, self.heads)
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform())
        query, key, value = split_qkv(dense(3 * width, name="qkv")(tokens), self.heads)
        mixed = jax.nn.dot_product_attention(query, key, value, mask=mask)
        return dense(width, name="proj")(mixed.reshape(tokens.shape))


def hidden_units(width: int, ratio: float) -> int:
    """Hidden units of an MLP: ``ratio`` per unit of width, rounded down."""
    # A ratio that was divided out of a published number of units may fall short of it by a hair.
    return int(width * ratio + 1e-6)


class Mlp(nn.Module):
    """Two linear layers ``fc1`` and ``fc2`` with an activation between, the exact GELU.

    With the activation ``"swiglu"`` the first layer gives gates and values, two thirds of the units
    of each, rounded up to a multiple of 8, and the second reads ``silu(gate) * value``.

    References:
        Shazeer. GLU Variants Improve Transformer. 2020.
    """

    ratio: float = 4.0
    dtype: Any = None
    activation: str = "gelu"

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        width = tokens.shape[-1]
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform())
        hidden = hidden_units(width, self.ratio)
        if self.activation == "swiglu":
            hidden = -(-int(hidden * 2 / 3) // 8) * 8
            gate, value = jnp.split(dense(2 * hidden, name="fc1")(tokens), 2, axis=-1)
            return dense(width, name="fc2")(jax.nn.silu(gate) * value)
        if self.activation not in ACTIVATIONS:
            raise ValueError(unknown("activation", self.activation, (*ACTIVATIONS, "swiglu")))
        units = ACTIVATIONS[self.activation](dense(hidden, name="fc1")(tokens))
        return dense(width, name="fc2")(units)


class LayerScale(nn.Module):
    """A learned factor for every channel of a branch, ``scale`` [D].

    References:
        Touvron et al. Going Deeper with Image Transformers. ICCV 2021.
    """

    start: float

    @nn.compact
    def __call__(self, branch: jax.Array) -> jax.Array:
        init = nn.initializers.constant(self.start)
        scale = self.param("scale", init, (branch.shape[-1],))
        return branch * scale.astype(branch.dtype)[None, None]


class Block(nn.Module):
    """A pre-norm transformer block: ``norm1``, ``attn``, ``norm2``, ``mlp``, two residual sums.

    Attributes:
        heads: attention heads.
        mlp_ratio: hidden units of the MLP per unit of width.
        dtype: of the computation.
        epsilon: of the norms.
        activation: of the MLP, one of ``ACTIVATIONS``, or ``"swiglu"``, see ``Mlp``.
        layer_scale: where the factors ``scale1`` and ``scale2`` of the two branches start; none of
            them if not given.
    """

    heads: int
    mlp_ratio: float = 4.0
    dtype: Any = None
    epsilon: float = 1e-6
    activation: str = "gelu"
    layer_scale: float | None = None

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        gates: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Tokens [B, N, D] to tokens [B, N, D].

        ``gates`` [2, B], if given, multiply the two branches of each example (stochastic depth:
        0, or 1 / the probability to survive). ``mask`` is that of ``Attention``.
        """
        norm = partial(nn.LayerNorm, epsilon=self.epsilon, dtype=self.dtype)
        attention = Attention(self.heads, self.dtype, name="attn")
        mlp = Mlp(self.mlp_ratio, self.dtype, self.activation, name="mlp")
        for index, branch in enumerate((partial(attention, mask=mask), mlp)):
            change = branch(norm(name=f"norm{index + 1}")(tokens))
            if self.layer_scale is not None:
                change = LayerScale(self.layer_scale, name=f"scale{index + 1}")(change)
            tokens = tokens + _gated(change, gates, index)
        return tokens


def _gated(branch: jax.Array, gates: jax.Array | None, index: int) -> jax.Array:
    if gates is None:
        return branch
    # The product is rounded once: a gate rounded to bfloat16 would change the expectation.
    return (branch * gates[index][:, None, None]).astype(branch.dtype)


def run_blocks(
    owner: nn.Module,
    block: Block,
    depth: int,
    tokens: jax.Array,
    gates: jax.Array | None = None,
    mask: jax.Array | None = None,
    *,
    scan: bool,
    remat: bool,
    taps: Iterable[str] = (),
) -> jax.Array:
    """Runs a stack of blocks inside the compact method of its owner.

    Unrolled, the owner gets children ``block_0``, ``block_1``, ... . Scanned, it gets one parameter
    ``blocks``, the same tree with an axis [depth] in front, and one loop: a trace and a program of
    constant size. The loop is split behind every tapped block, where an identity named
    ``block_i`` stands, so that taps have the same paths in both forms, and XLA cuts the loops
    behind the last one that is read.

    Args:
        owner: the module that holds the blocks.
        block: the form of a block, unbound and unnamed.
        depth: number of blocks.
        tokens: [B, N, D].
        gates: [depth, 2, B] or None, see ``Block``.
        mask: which token sees which, see ``Attention``; all see all if not given.
        scan: the scanned form.
        remat: recompute the inside of each block in the backward pass.
        taps: paths relative to the owner; only ``block_i`` matter, and only to the scanned form.

    Returns:
        The tokens behind the last block.
    """
    if not scan:
        form = nn.remat(Block) if remat else Block
        own = {
            field.name: getattr(block, field.name)
            for field in dataclasses.fields(block)
            if field.name not in ("parent", "name")
        }
        for index in range(depth):
            child = form(**own, name=f"block_{index}")
            tokens = child(tokens, None if gates is None else gates[index], mask)
        return tokens

    example = jnp.zeros((1, 1, tokens.shape[-1]), tokens.dtype)

    def init(key: jax.Array) -> Any:
        keys = jax.random.split(key, depth)
        return jax.vmap(lambda one: block.init(one, example)["params"])(keys)

    def step(tokens: jax.Array, layer: tuple[Any, Any]) -> tuple[Any, None]:
        params, gates = layer
        return block.apply({"params": params}, tokens, gates, mask), None

    layers = owner.param(_STACK, init), gates
    body = jax.checkpoint(step, prevent_cse=False) if remat else step
    tapped = sorted(set(_block_ids(taps)))
    start = 0
    for stop in sorted({index + 1 for index in tapped} | {depth}):
        segment = layers if stop - start == depth else _slice(layers, start, stop)
        tokens, _ = jax.lax.scan(body, tokens, segment)
        if stop - 1 in tapped:
            tokens = Identity(name=f"block_{stop - 1}")(tokens)
        start = stop
    return tokens


def _slice(layers: Any, start: int, stop: int) -> Any:
    return jax.tree.map(lambda stacked: stacked[start:stop], layers)


def _block_ids(taps: Iterable[str]) -> list[int]:
    return [int(match[1]) for match in map(_BLOCK.fullmatch, taps) if match]


def _check_block_taps(taps: Iterable[str], depth: int, prefix: str = "") -> None:
    """Refuses taps that a scanned stack of blocks cannot give.

    Args:
        taps: tap paths.
        depth: number of blocks.
        prefix: path of the module that holds the blocks, with its slash.

    Raises:
        ValueError: a block that does not exist, or a place inside a block.
    """
    possible = [f"{prefix}block_{index}" for index in range(depth)]
    for tap in taps:
        path = tap.removeprefix(prefix)
        if not tap.startswith(prefix) or not _BLOCK.match(path) or tap in possible:
            continue
        if path.partition("/")[0] in {one.removeprefix(prefix) for one in possible}:
            raise ValueError(
                f"tap {tap!r} lies inside a block, and scanned blocks give their outputs only: "
                f"set scan=False, or tap {prefix + path.partition('/')[0]!r}"
            )
        raise ValueError(unknown("tap", tap, possible))


def given_taps(net: Any, taps: Iterable[str], stacks: Mapping[str, int]) -> Any:
    """A network that can give these taps of its scanned blocks; one of unrolled ones as it is.

    Args:
        net: a module with ``scan`` and ``taps``.
        taps: tap paths.
        stacks: how many blocks there are, by the path of what holds them, with its slash.

    Raises:
        ValueError: a block that does not exist, or, scanned, a place inside a block.
    """
    if not net.scan:
        return net
    taps = tuple(taps)
    for prefix, depth in stacks.items():
        _check_block_taps(taps, depth, prefix)
    return net.clone(taps=taps)


def taps_below(taps: Iterable[str], name: str) -> tuple[str, ...]:
    """The taps of one child, relative to it.

    Example:
        >>> taps_below(("encoder/block_3", "head"), "encoder")
        ('block_3',)
    """
    prefix = f"{name}/"
    return tuple(tap.removeprefix(prefix) for tap in taps if tap.startswith(prefix))


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
