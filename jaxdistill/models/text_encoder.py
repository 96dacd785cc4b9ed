"""Encoders of text: BERT and its relatives, post-norm, with masks, and their heads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.models._common import Dtype, Identity, check_settings, scan_layers
from jaxdistill.models.blocks import (
    ACTIVATIONS,
    Activation,
    check_heads,
    given_taps,
    shared,
    split_qkv,
)
from jaxdistill.settings import Count, Fraction, Natural, Positive

Head = Literal["none", "masked", "classes", "tokens", "sentence", "replaced"]
POOLED = {**ACTIVATIONS, "tanh": jnp.tanh}
INPUTS = ("tokens", "mask", "types")
_init = nn.initializers.truncated_normal(0.02)


def mean_of_text(hidden: jax.Array, mask: jax.Array, first: bool = True) -> jax.Array:
    """The mean of hidden states ``[B, T, D]`` where the mask ``[B, T]`` shows text, ``[B, D]``,
    float32 or wider; zero where it shows none.

    Args:
        hidden: the states.
        mask: true where there is text.
        first: whether the first token counts; where it is the only one it does.

    Example:
        >>> hidden, mask = jnp.array([[[6.0], [1.0], [3.0]]]), jnp.ones((1, 3), bool)
        >>> mean_of_text(hidden, mask, first=False).tolist()
        [[2.0]]
    """
    if not first:
        mask = mask.at[:, 0].set(mask[:, 0] & ~mask[:, 1:].any(-1))
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    shown = mask[..., None].astype(wide)
    return (hidden.astype(wide) * shown).sum(1) / jnp.maximum(shown.sum(1), 1)


class TextAttention(nn.Module):
    """Self-attention to the tokens that the mask shows, with a fused ``qkv`` and ``proj``."""

    heads: Count
    dtype: Dtype = None

    @nn.compact
    def __call__(self, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        width = tokens.shape[-1]
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=_init)
        query, key, value = split_qkv(dense(3 * width, name="qkv")(tokens), self.heads)
        # Every row of a softmax needs something to look at: a text without tokens looks at all.
        seen = mask | ~mask.any(-1, keepdims=True)
        mixed = jax.nn.dot_product_attention(query, key, value, mask=seen[:, None, None])
        return dense(width, name="proj")(mixed.reshape(tokens.shape))


class TextBlock(nn.Module):
    """A post-norm block: ``attn``, ``norm1``, ``fc1``, ``fc2``, ``norm2``.

    Attributes:
        heads: attention heads.
        hidden: units of the MLP.
        activation: of the MLP, one of ``models.blocks.ACTIVATIONS``.
        epsilon: of the norms.
        dropout: of both branches, when ``train``.
        dtype: of the computation.
    """

    heads: Count
    hidden: Count
    activation: Activation = "gelu"
    epsilon: Positive = 1e-12
    dropout: Fraction = 0.0
    dtype: Dtype = None

    @nn.compact
    def __call__(self, tokens: jax.Array, mask: jax.Array, train: bool) -> jax.Array:
        norm = partial(nn.LayerNorm, epsilon=self.epsilon, dtype=self.dtype)
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=_init)
        drop = partial(nn.Dropout, self.dropout, deterministic=not train)
        mixed = TextAttention(self.heads, self.dtype, name="attn")(tokens, mask)
        tokens = norm(name="norm1")(tokens + drop(name="drop1")(mixed))
        units = ACTIVATIONS[self.activation](dense(self.hidden, name="fc1")(tokens))
        units = dense(tokens.shape[-1], name="fc2")(units)
        return norm(name="norm2")(tokens + drop(name="drop2")(units))


class TextEncoder(nn.Module):
    """A bidirectional encoder of text with one of several heads.

    Inputs are tokens, int [B, T], or a dict: ``tokens``; ``mask`` [B, T], true or not zero where
    there is text (all by default); ``types`` [B, T], to which of two texts a token belongs (0 by
    default). Outputs by head:

    - ``"none"``: hidden states [B, T, D].
    - ``"masked"``: logits of the token at every place [B, T, V], by a dense layer, its norm and the
      embedding itself as the last layer.
    - ``"classes"``: logits [B, classes] from the first token, by a dense layer ``pooler``.
    - ``"tokens"``: logits [B, T, classes].
    - ``"sentence"``: the mean of the hidden states where there is text [B, D]; of the last ``top``
      blocks side by side [B, top D], the earliest first; without the first token where ``first`` is
      False.
    - ``"replaced"``: a logit [B, T] of every token having been put in place of another, by a dense
      layer ``pooler`` (ELECTRA).

    Logits are float32 or wider. Tap paths: ``embeddings`` (after their norm), ``block_0``, ...
    [B, T, D], ``pooler`` [B, D] before its activation, ``head``. Embeddings narrower than the
    hidden states are brought to their width by a dense layer ``project``, the tap behind it.

    Attributes:
        vocabulary: how many tokens there are, V.
        width: of the hidden states, D.
        depth: blocks.
        heads: attention heads.
        hidden: units of the blocks' MLPs; four times the width if 0.
        positions: the longest text.
        embedding: width of the embeddings; that of the hidden states if 0 (ELECTRA: narrower).
        types: kinds of tokens; 0 for a net without them (DistilBERT).
        padding: where positions are counted over the tokens that are not this one, and begin behind
            it (RoBERTa); by default they are counted from 0.
        head: see above.
        classes: of the heads that have them.
        top: of how many of the last blocks a ``"sentence"`` is made.
        first: whether the first token counts in it; a text of nothing else keeps it.
        pooled: activation behind ``pooler``, ``"tanh"`` (BERT, RoBERTa), ``"relu"`` (DistilBERT) or
            ``"gelu"`` (ELECTRA).
        activation, epsilon, dropout, dtype: see ``TextBlock``.
        remat: recompute the inside of each block in the backward pass, to save memory.
        scan: run the blocks as a loop over stacked parameters, ``blocks`` (see ``stack_blocks``),
            which keeps compilation short.
        taps: blocks whose outputs the loop keeps; set by ``for_taps``.

    Raises:
        ValueError: an unknown input, head or activation, heads that do not divide the width, texts
            longer than there are positions, or a mask of another shape than the tokens.

    Example:
        >>> net = TextEncoder(vocabulary=11, width=8, depth=2, heads=2, positions=16, head="tokens")
        >>> inputs = {"tokens": jnp.ones((2, 5), int), "mask": jnp.ones((2, 5))}
        >>> out, variables = net.init_with_output(jax.random.key(0), inputs)
        >>> out.shape, variables["params"]["block_1"]["attn"]["qkv"]["kernel"].shape
        ((2, 5, 2), (8, 24))

    References:
        Devlin et al. BERT: Pre-training of Deep Bidirectional Transformers. NAACL 2019.
        Liu et al. RoBERTa: A Robustly Optimized BERT Pretraining Approach. 2019.
        Sanh et al. DistilBERT, a distilled version of BERT. 2019.
        Clark et al. ELECTRA: Pre-training Text Encoders as Discriminators. ICLR 2020.
        Barkan et al. Scalable Attentive Sentence-Pair Modeling via Distilled Sentence Embedding.
        AAAI 2020, for sentences of several blocks.
    """

    vocabulary: Count
    width: Count
    depth: Count
    heads: Count
    hidden: Natural = 0
    positions: Count = 512
    embedding: Natural = 0
    types: Natural = 2
    padding: Natural | None = None
    head: Head = "none"
    classes: Natural = 2
    pooled: Activation | Literal["tanh"] = "tanh"
    activation: Activation = "gelu"
    epsilon: Positive = 1e-12
    dropout: Fraction = 0.0
    remat: bool = False
    scan: bool = False
    taps: tuple[str, ...] = ()
    dtype: Dtype = None
    top: Count = 1
    first: bool = True

    @nn.compact
    def __call__(
        self, inputs: jax.Array | Mapping[str, jax.Array], train: bool = False
    ) -> jax.Array:
        tokens, mask, types = self._read(inputs)
        narrow = self.embedding or self.width
        embed = partial(nn.Embed, features=narrow, dtype=self.dtype, embedding_init=_init)
        words = embed(self.vocabulary, name="words")
        x = words(tokens) + embed(self.positions, name="places")(self._places(tokens))
        if self.types:
            x = x + embed(self.types, name="kinds")(types)
        x = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="drop")(x)
        if narrow != self.width:
            x = nn.Dense(self.width, dtype=self.dtype, kernel_init=_init, name="project")(x)
        x = Identity(name="embeddings")(x)
        form = TextBlock
        if self.remat:
            form = nn.remat(TextBlock, static_argnums=(3,), prevent_cse=not self.scan)
        own = {**shared(self, TextBlock), "hidden": self.hidden or 4 * self.width}
        block = partial(form, **own)
        each = []
        if self.scan:
            rest = mask, train
            x = scan_layers(block(name="blocks"), self.depth, x, rest=rest, taps=self.taps)
        else:
            for index in range(self.depth):
                x = block(name=f"block_{index}")(x, mask, train)
                each.append(x)
        if self.head == "sentence" and self.top > 1:
            x = jnp.concatenate(each[-self.top :], -1)
        return self._out(x, mask, words, train)

    @nn.nowrap
    def for_taps(self, taps: Iterable[str]) -> TextEncoder:
        """This encoder, keeping of its scanned blocks what these taps read.

        Raises:
            ValueError: a block that does not exist, or, scanned, a place inside a block.
        """
        return given_taps(self, taps, {"": self.depth})

    def _out(self, x: jax.Array, mask: jax.Array, words: nn.Embed, train: bool) -> jax.Array:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        dense = partial(nn.Dense, kernel_init=_init)
        if self.head == "none":
            return x
        if self.head == "sentence":
            return mean_of_text(x, mask, self.first)
        if self.head == "masked":
            narrow = self.embedding or self.width
            x = ACTIVATIONS[self.activation](dense(narrow, dtype=self.dtype, name="dense")(x))
            x = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="head_norm")(x)
            bias = self.param("head_bias", nn.initializers.zeros, (self.vocabulary,))
            table = jnp.asarray(words.embedding).astype(x.dtype)
            found = jnp.matmul(x, table.T, preferred_element_type=wide)
            return found + bias.astype(wide)[None, None]
        if self.head == "classes":
            x = dense(self.width, dtype=self.dtype, name="pooler")(x[:, 0])
            x = POOLED[self.pooled](x)
            x = nn.Dropout(self.dropout, deterministic=not train, name="drop_head")(x)
        if self.head == "replaced":
            x = dense(self.width, dtype=self.dtype, name="pooler")(x)
            return dense(1, dtype=wide, name="head")(POOLED[self.pooled](x))[..., 0]
        return dense(self.classes, dtype=wide, name="head")(x)

    def _read(
        self, inputs: jax.Array | Mapping[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        given = inputs if isinstance(inputs, Mapping) else {"tokens": inputs}
        for name in given:
            if name not in INPUTS:
                raise ValueError(unknown("input of a text encoder", name, INPUTS))
        check_settings(self)
        if self.head in ("classes", "tokens") and not self.classes:
            raise ValueError(f"head={self.head!r} needs classes of 1 or more, there are none")
        check_heads(self.width, self.heads)
        if self.top > self.depth or (self.scan and self.top > 1):
            why = "they are a loop (scan)" if self.scan else f"there are {self.depth}"
            raise ValueError(f"top={self.top} of the blocks cannot be read: {why}")
        tokens = given["tokens"]
        longest = self.positions - (0 if self.padding is None else self.padding + 1)
        if tokens.ndim != 2 or tokens.shape[1] > longest:
            raise ValueError(
                f"tokens must be [B, T] with T at most {longest}: their shape is {tokens.shape}"
            )
        mask = jnp.asarray(given.get("mask", jnp.ones(tokens.shape, bool)))
        types = given.get("types", jnp.zeros(tokens.shape, jnp.int32))
        for name, array in (("mask", mask), ("types", types)):
            if array.shape != tokens.shape:
                raise ValueError(
                    f"{name} must be of the shape of the tokens, {tokens.shape}: it is "
                    f"{array.shape}"
                )
        return tokens, mask.astype(bool), types

    def _places(self, tokens: jax.Array) -> jax.Array:
        if self.padding is None:
            return jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
        text = (tokens != self.padding).astype(jnp.int32)
        return jnp.cumsum(text, axis=1) * text + self.padding
