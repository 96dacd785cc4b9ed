"""Transformer blocks, and stacks of them, which run unrolled or as a loop."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.models._common import Dtype, Identity, divisors
from jaxdistill.models.layouts import ADAPTERS, STACK
from jaxdistill.settings import Count, Finite, Positive

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]
# What an MLP may have between its layers: gates too.
Between = Activation | Literal["swiglu"]
_BLOCK = re.compile(r"block_(\d+)")


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
        raise ValueError(
            f"a width of {width} does not divide by {heads} heads: possible are {divisors(width)}"
        )


class Attention(nn.Module):
    """Self-attention of all tokens to all tokens, with a fused projection ``qkv`` and ``proj``.

    A mask, bool [B or 1, 1, N, N], says which token (third axis) sees which (last axis).
    The softmax is taken in float32, also for tokens in float64.
    """

    heads: Count
    dtype: Dtype = None

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

    ratio: Positive = 4.0
    dtype: Dtype = None
    activation: Between = "gelu"

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

    start: Finite

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

    heads: Count
    mlp_ratio: Positive = 4.0
    dtype: Dtype = None
    epsilon: Positive = 1e-6
    activation: Between = "gelu"
    layer_scale: Finite | None = None

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


class Stack(nn.Module, kw_only=True):
    """A stack of blocks: what is to be said of it, for nets that hold one, and how it is run.

    Attributes:
        width: of the tokens, D.
        depth: number of blocks.
        heads: attention heads, a divisor of the width.
        mlp_ratio: hidden units of a block's MLP per unit of width.
        dtype: of the computation; parameters stay float32.
        remat: recompute the inside of each block in the backward pass, to save memory.
        scan: run the blocks as a loop over stacked parameters (see ``stack_blocks``), which keeps
            compilation short.
        taps: blocks at which the loop is split; set by ``for_taps``.
        epsilon, activation, layer_scale: of the blocks, see ``Block``.
    """

    width: Count
    depth: Count
    heads: Count
    mlp_ratio: Positive = 4.0
    dtype: Dtype = None
    remat: bool = False
    scan: bool = False
    taps: tuple[str, ...] = ()
    epsilon: Positive = 1e-6
    activation: Between = "gelu"
    layer_scale: Finite | None = None

    def run_blocks(
        self,
        tokens: jax.Array,
        gates: jax.Array | None = None,
        mask: jax.Array | None = None,
        before: Mapping[int, Callable[[jax.Array], jax.Array]] | None = None,
    ) -> jax.Array:
        """Runs the blocks, inside the compact method of the net that holds them.

        Unrolled, the net gets children ``block_0``, ``block_1``, ... . Scanned, it gets one
        parameter ``blocks``, the same tree with an axis [depth] in front, and one loop: a trace and
        a program of constant size. The loop is split behind every tapped block, where an identity
        named ``block_i`` stands, so that taps have the same paths in both forms, and XLA cuts the
        loops behind the last one that is read.

        Args:
            tokens: [B, N, D].
            gates: [depth, 2, B] or None, see ``Block``.
            mask: which token sees which, see ``Attention``; all see all if not given.
            before: by the number of a block, what is done to its tokens.

        Returns:
            The tokens behind the last block.

        Raises:
            ValueError: if the heads do not divide the width.
        """
        check_heads(self.width, self.heads)
        own, before = shared(self, Block), before or {}
        if not self.scan:
            form = nn.remat(Block) if self.remat else Block
            for index in range(self.depth):
                child = form(**own, name=f"block_{index}")
                tokens = before[index](tokens) if index in before else tokens
                tokens = child(tokens, None if gates is None else gates[index], mask)
            return tokens

        block = Block(**own, parent=None)
        example = jnp.zeros((1, 1, tokens.shape[-1]), tokens.dtype)

        def init(key: jax.Array) -> Any:
            keys = jax.random.split(key, self.depth)
            return jax.vmap(lambda one: block.init(one, example)["params"])(keys)

        def step(tokens: jax.Array, layer: tuple[Any, Any, Any]) -> tuple[Any, None]:
            params, gates, adapters = layer
            own = {"params": params, ADAPTERS: adapters}
            return block.apply(own, tokens, gates, mask), None

        layers = self.param(STACK, init), gates, self.get_variable(ADAPTERS, STACK, {})
        body = jax.checkpoint(step, prevent_cse=False) if self.remat else step
        tapped = sorted(set(_block_ids(self.taps)))
        start = 0
        for stop in sorted({index + 1 for index in tapped} | {*before, self.depth} - {0}):
            tokens = before[start](tokens) if start in before else tokens
            segment = layers if stop - start == self.depth else _slice(layers, start, stop)
            tokens, _ = jax.lax.scan(body, tokens, segment)
            if stop - 1 in tapped:
                tokens = Identity(name=f"block_{stop - 1}")(tokens)
            start = stop
        return tokens


def shared(net: nn.Module, kind: type[nn.Module]) -> dict[str, Any]:
    """The settings of a net that a module of some kind has as well.

    Example:
        >>> shared(Mlp(ratio=2.0), Mlp)
        {'ratio': 2.0, 'dtype': None, 'activation': 'gelu'}
    """
    names = [each.name for each in dataclasses.fields(kind) if each.name not in ("parent", "name")]
    return {name: getattr(net, name) for name in names if hasattr(net, name)}


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
