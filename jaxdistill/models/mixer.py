"""The MLP-Mixer: tokens that perceptrons mix, over places and over channels in turn."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.models._common import (
    Dtype,
    Identity,
    check_image_rank,
    check_settings,
    image_of,
)
from jaxdistill.models.masking import patchify
from jaxdistill.settings import Count, Positive


class MixerBlock(nn.Module):
    """``norm1``, a perceptron over places ``tokens``, ``norm2``, one over channels ``channels``,
    and two residual sums."""

    tokens: int
    channels: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        mixed = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm1")(tokens)
        mixed = _Perceptron(self.tokens, self.dtype, name="tokens")(mixed.swapaxes(1, 2))
        tokens = tokens + mixed.swapaxes(1, 2)
        mixed = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm2")(tokens)
        return tokens + _Perceptron(self.channels, self.dtype, name="channels")(mixed)


class _Perceptron(nn.Module):
    hidden: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        units = nn.Dense(self.hidden, dtype=self.dtype, name="fc1")(x)
        units = nn.gelu(units, approximate=False)
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="fc2")(units)


class Mixer(nn.Module):
    """An MLP-Mixer with a linear head on the mean token.

    Inputs are images [B, H, W, C] or a dict with such an array under ``"image"``; the output is
    [B, classes]. Tap paths: ``block_0``, ... ([B, N, D]), ``norm``, ``pooled`` [B, D] and ``head``.

    Attributes:
        patch: the side of a patch in pixels.
        width: of the tokens, D.
        depth: number of blocks.
        tokens_ratio: hidden units of the perceptron over places, per unit of width.
        channels_ratio: the same of the perceptron over channels.
        classes: outputs of the head.
        dtype: of the computation; parameters and head stay float32.

    Raises:
        ValueError: images that do not divide into patches.

    Example:
        >>> net = Mixer(patch=16, width=768, depth=12)
        >>> shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 224, 224, 3)))
        >>> sum(leaf.size for leaf in jax.tree.leaves(shapes))
        59880472

    References:
        Tolstikhin et al. MLP-Mixer: An all-MLP Architecture for Vision. NeurIPS 2021.
    """

    patch: Count = 16
    width: Count = 768
    depth: Count = 12
    tokens_ratio: Positive = 0.5
    channels_ratio: Positive = 4.0
    classes: Count = 1000
    dtype: Dtype = None

    @nn.compact
    def __call__(
        self, inputs: jax.Array | Mapping[str, jax.Array], train: bool = False
    ) -> jax.Array:
        check_settings(self)
        image = image_of(inputs)
        check_image_rank(image)
        tokens = nn.Dense(self.width, dtype=self.dtype, name="patch_embed")(
            patchify(image, self.patch)
        )
        hidden = (int(self.width * ratio) for ratio in (self.tokens_ratio, self.channels_ratio))
        over_places, over_channels = hidden
        for index in range(self.depth):
            block = MixerBlock(over_places, over_channels, self.dtype, name=f"block_{index}")
            tokens = block(tokens)
        tokens = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(tokens)
        pooled = Identity(name="pooled")(tokens.mean(axis=1))
        wide = jnp.promote_types(pooled.dtype, jnp.float32)
        return nn.Dense(self.classes, dtype=wide, name="head")(pooled)
