"""The diffusion transformer, with the time in adaptive norms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.models._common import Dtype, check_image_rank, check_settings, image_of
from jaxdistill.models.blocks import Mlp, check_heads, split_qkv
from jaxdistill.models.masking import patch_grid, patchify, sincos_positions, unpatchify
from jaxdistill.models.timed import Conditioning
from jaxdistill.settings import Count, Natural, Positive


class DiT(nn.Module):
    """Transformer blocks on patches, whose norms are scaled, shifted and gated by time and label.

    Inputs are ``{"image": [B, H, W, C], "time": [B]}`` and, if asked for, ``label``,
    ``guidance`` and ``until``; the output has the shape of the image. There is no convolution, so
    it loops on CPU as well; queries and keys are normed, and attention is written out, so that it
    can be differentiated in forward mode. Tap paths: ``block_0``, ...; ``bottleneck``, what the
    middle one puts out, ``[B, N, width]``.

    Attributes:
        patch: side of a patch.
        width: of the tokens; 384 with 12 blocks and 6 heads is DiT-S.
        depth: blocks.
        heads: of attention.
        mlp_ratio: hidden units of the MLP per unit of width.
        classes: how many labels, 0 for none.
        guidance: whether a scale of guidance is an input.
        dtype: of the computation.
        jumps: whether ``until`` is an input, the time that a jump is to end at.

    References:
        Peebles and Xie, Scalable Diffusion Models with Transformers, 2023; queries and keys are
        normed as SANA-Sprint does for the tangent.

    Example:
        >>> net = DiT(patch=2, width=16, depth=1, heads=2)
        >>> x = {"image": jnp.ones((2, 8, 8, 1)), "time": jnp.ones(2)}
        >>> jax.eval_shape(net.init_with_output, jax.random.key(0), x)[0].shape
        (2, 8, 8, 1)
    """

    patch: Count = 2
    width: Count = 384
    depth: Count = 12
    heads: Count = 6
    mlp_ratio: Positive = 4.0
    classes: Natural = 0
    guidance: bool = False
    dtype: Dtype = None
    jumps: bool = False

    @nn.compact
    def __call__(self, inputs: Mapping[str, Any]) -> jax.Array:
        check_settings(self)
        image = image_of(inputs)
        check_image_rank(image)
        check_heads(self.width, self.heads)
        batch, height, width, channels = image.shape
        grid = patch_grid(height, width, self.patch)
        settings = self.classes, self.guidance, self.dtype, self.jumps
        given = Conditioning(self.width, *settings, name="given")(inputs, batch)
        tokens = nn.Dense(self.width, dtype=self.dtype, name="patch_embed")(
            patchify(image, self.patch)
        )
        positions = jnp.asarray(sincos_positions(self.width, grid, False))
        tokens = tokens + positions[None].astype(tokens.dtype)
        for index in range(self.depth):
            block = _Block(self.heads, self.mlp_ratio, self.dtype, name=f"block_{index}")
            tokens = block(tokens, given)
            if index == self.depth // 2:
                self.sow("intermediates", "bottleneck", tokens)
        shift, scale = jnp.split(_told(given, 2 * self.width, self.dtype, "told")[:, None], 2, -1)
        tokens = _norm(tokens, self.dtype, "norm") * (1 + scale) + shift
        zero = nn.initializers.zeros
        patches = nn.Dense(self.patch**2 * channels, kernel_init=zero, name="head")(tokens)
        return unpatchify(patches, self.patch, height, width, channels)


class _Block(nn.Module):
    heads: int
    ratio: float
    dtype: Any

    @nn.compact
    def __call__(self, tokens: jax.Array, given: jax.Array) -> jax.Array:
        width = tokens.shape[-1]
        told = _told(given, 6 * width, self.dtype, "told")[:, None]
        first, second = jnp.split(told, 2, -1)
        shift, scale, gate = jnp.split(first, 3, -1)
        seen = _norm(tokens, self.dtype, "norm1") * (1 + scale) + shift
        query, key, value = split_qkv(
            nn.Dense(3 * width, dtype=self.dtype, name="qkv")(seen), self.heads
        )
        query, key = (
            nn.RMSNorm(dtype=self.dtype, name=name)(part)
            for name, part in (("query_norm", query), ("key_norm", key))
        )
        # XLA's own attention has a forward-mode derivative, fused kernels have not.
        mixed = jax.nn.dot_product_attention(query, key, value, implementation="xla")
        mixed = nn.Dense(width, dtype=self.dtype, name="proj")(mixed.reshape(tokens.shape))
        tokens = tokens + gate * mixed
        shift, scale, gate = jnp.split(second, 3, -1)
        seen = _norm(tokens, self.dtype, "norm2") * (1 + scale) + shift
        return tokens + gate * Mlp(self.ratio, self.dtype, name="mlp")(seen)


def _told(given: jax.Array, width: int, dtype: Any, name: str) -> jax.Array:
    # Zero at the start: every block begins as the identity.
    return nn.Dense(width, dtype=dtype, kernel_init=nn.initializers.zeros, name=name)(given)


def _norm(x: jax.Array, dtype: Any, name: str) -> jax.Array:
    norm = nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, dtype=dtype, name=name)
    return norm(x)
