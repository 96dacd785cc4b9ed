"""An encoder of text with rotary positions, gated units and windows: ModernBERT."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.models._common import Dtype, Identity, check_settings, scan_layers
from jaxdistill.models.blocks import ACTIVATIONS, Activation, check_heads, given_taps, split_qkv
from jaxdistill.models.decoder_layers import rotary
from jaxdistill.settings import Count, Positive

INPUTS = ("tokens", "mask")
Head = Literal["none", "masked", "classes", "tokens", "sentence"]
_init = nn.initializers.truncated_normal(0.02)


class ModernBlock(nn.Module):
    """A pre-norm block: ``norm1``, ``qkv``, ``proj``, ``norm2``, ``fc1``, ``fc2``.

    Attributes:
        heads: attention heads.
        hidden: units of the MLP, each a value times a gate.
        theta, local_theta: base of the rotary wave lengths, with all tokens seen and with a window.
        window: how many tokens away a token sees.
        normed: whether ``norm1`` is there (not in the first block, whose input is normed).
        norm_bias, bias: of the norms, and of all linear layers.
        activation, epsilon, dtype: see ``TextEncoder``.
    """

    heads: int
    hidden: int
    theta: float
    local_theta: float
    window: int
    normed: bool
    norm_bias: bool
    bias: bool
    activation: Activation
    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, whole: jax.Array | bool, mask: jax.Array) -> jax.Array:
        """Where ``whole`` says so a token sees all others, and not its window."""
        width, length = x.shape[-1], x.shape[1]
        norm = partial(
            nn.LayerNorm, epsilon=self.epsilon, use_bias=self.norm_bias, dtype=self.dtype
        )
        dense = partial(nn.Dense, use_bias=self.bias, dtype=self.dtype, kernel_init=_init)
        places = jnp.arange(length)
        near = (jnp.abs(places[:, None] - places[None]) <= self.window) | whole
        seen = mask[:, None, :] & near[None]
        # Every row of a softmax needs something to look at: where there is nothing, at all.
        seen = seen | ~seen.any(-1, keepdims=True)
        inner = norm(name="norm1")(x) if self.normed else x
        query, key, value = split_qkv(dense(3 * width, name="qkv")(inner), self.heads)
        positions = jnp.broadcast_to(places[None], x.shape[:2])
        theta = jnp.where(whole, self.theta, self.local_theta)
        query, key = (rotary(part, positions, theta) for part in (query, key))
        mixed = jax.nn.dot_product_attention(query, key, value, mask=seen[:, None])
        x = x + dense(width, name="proj")(mixed.reshape(x.shape))
        both = dense(2 * self.hidden, name="fc1")(norm(name="norm2")(x))
        value, gate = jnp.split(both, 2, axis=-1)
        units = ACTIVATIONS[self.activation](value) * gate
        return x + dense(width, name="fc2")(units)


class ModernBert(nn.Module):
    """A bidirectional encoder of long texts with one of several heads.

    Inputs are tokens, int [B, T], or a dict ``{"tokens": ..., "mask": [B, T]}``, true or not zero
    where there is text (all by default). Outputs by head:

    - ``"none"``: hidden states [B, T, D] behind the last norm.
    - ``"masked"``: logits of the token at every place [B, T, V], by a dense layer, its norm and the
      embedding itself as the last layer.
    - ``"classes"``: logits [B, classes] of what is pooled, by a dense layer and its norm.
    - ``"tokens"``: logits [B, T, classes], by a dense layer and its norm.
    - ``"sentence"``: the mean of the hidden states where there is text [B, D].

    Logits are float32 or wider. Tap paths: ``embeddings``, ``block_0``, ... [B, T, D], ``norm``.

    Attributes:
        vocabulary: how many tokens there are, V.
        width, depth, heads, hidden: D, and of the blocks.
        global_every: the first of every so many blocks sees all tokens, the others a window.
        window: how many tokens away a token sees in these.
        theta: base of the rotary wave lengths.
        local_theta: that of the blocks with a window.
        head: see above.
        classes: of the heads that have them.
        pool: what ``"classes"`` reads, ``"cls"`` (the first token) or ``"mean"`` (where there is
            text).
        norm_bias, bias, head_dense_bias: biases of norms, of the blocks' linear layers, and of the
            dense layer of a head; none as published.
        activation, epsilon: of the blocks and the dense layer, and of all norms.
        remat: recompute the inside of each block in the backward pass, to save memory.
        scan: run the blocks behind the first, which has a norm less, as a loop over stacked
            parameters, ``blocks`` (see ``stack_blocks``), which keeps compilation short.
        taps: blocks whose outputs the loop keeps; set by ``for_taps``.
        dtype: of the computation; parameters stay float32.

    Raises:
        ValueError: an unknown input, head, pool or activation, heads that do not divide the width
            into parts of even width, or a mask of another shape than the tokens.

    Example:
        >>> net = ModernBert(vocabulary=11, width=8, depth=2, heads=2, hidden=12, head="masked")
        >>> net.init_with_output(jax.random.key(0), jnp.ones((2, 5), int))[0].shape
        (2, 5, 11)

    References:
        Warner et al. Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder for Fast,
        Memory Efficient, and Long Context Finetuning and Inference. ACL 2025.
    """

    vocabulary: Count
    width: Count
    depth: Count
    heads: Count
    hidden: Count
    global_every: Count = 3
    window: Count = 64
    theta: Positive = 160_000.0
    local_theta: Positive = 10_000.0
    head: Head = "none"
    classes: Count = 2
    pool: Literal["cls", "mean"] = "cls"
    norm_bias: bool = False
    bias: bool = False
    head_dense_bias: bool = False
    activation: Activation = "gelu"
    epsilon: Positive = 1e-5
    remat: bool = False
    scan: bool = False
    taps: tuple[str, ...] = ()
    dtype: Dtype = None

    @nn.compact
    def __call__(self, inputs: jax.Array | Mapping[str, jax.Array]) -> jax.Array:
        tokens, mask = self._read(inputs)
        norm = partial(
            nn.LayerNorm, epsilon=self.epsilon, use_bias=self.norm_bias, dtype=self.dtype
        )
        words = nn.Embed(
            self.vocabulary, self.width, dtype=self.dtype, embedding_init=_init, name="words"
        )
        x = Identity(name="embeddings")(norm(name="norm_embeddings")(words(tokens)))
        whole = [index % self.global_every == 0 for index in range(self.depth)]
        for index in range(min(self.depth, 1) if self.scan else self.depth):
            x = self._block(index, f"block_{index}")(x, whole[index], mask)
        if self.scan and self.depth > 1:
            each = (jnp.array(whole[1:]),)
            layer = self._block(1, "blocks")
            x = scan_layers(layer, self.depth - 1, x, each, (mask,), taps=self.taps, first=1)
        return self._out(norm(name="norm")(x), mask, words, norm)

    def _block(self, index: int, name: str) -> nn.Module:
        form = ModernBlock
        if self.remat:
            static = () if self.scan else (2,)
            form = nn.remat(ModernBlock, static_argnums=static, prevent_cse=not self.scan)
        return form(
            self.heads,
            self.hidden,
            self.theta,
            self.local_theta,
            self.window,
            index > 0,
            self.norm_bias,
            self.bias,
            self.activation,
            self.epsilon,
            self.dtype,
            name=name,
        )

    @nn.nowrap
    def for_taps(self, taps: Iterable[str]) -> ModernBert:
        """This encoder, keeping of its scanned blocks what these taps read.

        Raises:
            ValueError: a block that does not exist, or, scanned, a place inside a block.
        """
        return given_taps(self, taps, {"": self.depth})

    def _out(self, x: jax.Array, mask: jax.Array, words: nn.Embed, norm: Any) -> jax.Array:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        if self.head == "none":
            return x
        if self.head == "sentence":
            return _mean(x.astype(wide), mask)
        if self.head == "classes":
            x = x[:, 0] if self.pool == "cls" else _mean(x.astype(wide), mask).astype(x.dtype)
        dense = nn.Dense(
            self.width, self.head_dense_bias, self.dtype, kernel_init=_init, name="dense"
        )
        x = norm(name="head_norm")(ACTIVATIONS[self.activation](dense(x)))
        if self.head == "masked":
            bias = self.param("head_bias", nn.initializers.zeros, (self.vocabulary,))
            table = jnp.asarray(words.embedding).astype(x.dtype)
            found = jnp.matmul(x, table.T, preferred_element_type=wide)
            return found + bias.astype(wide)[None, None]
        return nn.Dense(self.classes, dtype=wide, kernel_init=_init, name="head")(x)

    def _read(self, inputs: jax.Array | Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        given = inputs if isinstance(inputs, Mapping) else {"tokens": inputs}
        for name in given:
            if name not in INPUTS:
                raise ValueError(unknown("input of ModernBERT", name, INPUTS))
        check_settings(self)
        check_heads(self.width, self.heads)
        if self.width // self.heads % 2:
            raise ValueError(
                f"rotary positions need heads of even width, not {self.width // self.heads}"
            )
        tokens = given["tokens"]
        mask = jnp.asarray(given.get("mask", jnp.ones(tokens.shape, bool)))
        if mask.shape != tokens.shape:
            raise ValueError(
                f"mask must be of the shape of the tokens, {tokens.shape}: it is {mask.shape}"
            )
        return tokens, mask.astype(bool)


def _mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    shown = mask[..., None].astype(x.dtype)
    return (x * shown).sum(1) / jnp.maximum(shown.sum(1), 1)
