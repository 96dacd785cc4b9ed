"""A U-Net with a time as input, and the head that makes a critic of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.models._common import Dtype, check_image_rank, check_settings, image_of
from jaxdistill.models.blocks import check_heads, split_qkv
from jaxdistill.models.timed import Conditioning
from jaxdistill.settings import Count, Fraction, Natural


class UNet(nn.Module):
    """Residual blocks on the way down and up, with skip connections and adaptive norms.

    Inputs are ``{"image": [B, H, W, C], "time": [B]}`` and, if asked for, ``label``,
    ``guidance`` and ``until``; the output has the shape of the image. Every layer can be
    differentiated in forward mode: attention is written out. Tap path: ``bottleneck``, the feature
    of least resolution.

    The defaults are of the size that EDM trains on CIFAR-10 (its DDPM++: 56 million parameters);
    ``width=192, multipliers=(1, 2, 3, 4), depth=3, attention=(32, 16, 8), classes=1000`` is that of
    ADM on ImageNet-64.

    Attributes:
        width: channels at full resolution.
        multipliers: channels at each resolution, in multiples of ``width``; each is half as fine as
            the one before.
        depth: residual blocks at each resolution on the way down; one more on the way up.
        attention: at which sides there is attention.
        heads: of attention, each of at least 64 channels where ``heads`` is 0.
        dropout: rate inside of blocks.
        classes: how many labels, 0 for none.
        guidance: whether a scale of guidance is an input.
        dtype: of the computation.
        jumps: whether ``until`` is an input, the time that a jump is to end at.

    References:
        Ho et al., Denoising Diffusion Probabilistic Models, 2020; Dhariwal and Nichol, Diffusion
        Models Beat GANs on Image Synthesis, 2021.

    Example:
        >>> net = UNet(width=8, multipliers=(1, 2), depth=1, attention=(4,))
        >>> x = {"image": jnp.ones((2, 8, 8, 1)), "time": jnp.ones(2)}
        >>> jax.eval_shape(net.init_with_output, jax.random.key(0), x)[0].shape
        (2, 8, 8, 1)
    """

    width: Count = 128
    multipliers: tuple[Count, ...] = (2, 2, 2)
    depth: Count = 4
    attention: tuple[Count, ...] = (16,)
    heads: Natural = 0
    dropout: Fraction = 0.0
    classes: Natural = 0
    guidance: bool = False
    dtype: Dtype = None
    jumps: bool = False

    @nn.compact
    def __call__(self, inputs: Mapping[str, Any], train: bool = False) -> jax.Array:
        check_settings(self)
        image = image_of(inputs)
        check_image_rank(image)
        halvings = 2 ** (len(self.multipliers) - 1)
        if image.shape[1] % halvings or image.shape[2] % halvings:
            raise ValueError(
                f"sides of {image.shape[1]} x {image.shape[2]} cannot be halved "
                f"{len(self.multipliers) - 1} times: take fewer multipliers"
            )
        settings = self.classes, self.guidance, self.dtype, self.jumps
        given = Conditioning(4 * self.width, *settings, name="given")(inputs, image.shape[0])

        def level(x: jax.Array, channels: int, name: str) -> jax.Array:
            x = _Block(channels, self.dropout, self.dtype, name=name)(x, given, train)
            if x.shape[1] in self.attention:
                x = _Attention(self.heads, self.dtype, name=f"{name}_attention")(x)
            return x

        x = nn.Conv(self.width, (3, 3), dtype=self.dtype, name="in")(image)
        skips = [x]
        for place, multiplier in enumerate(self.multipliers):
            for index in range(self.depth):
                x = level(x, multiplier * self.width, f"down_{place}_{index}")
                skips.append(x)
            if place < len(self.multipliers) - 1:
                x = nn.avg_pool(x, (2, 2), (2, 2))
                skips.append(x)
        channels = self.multipliers[-1] * self.width
        x = level(x, channels, "middle_0")
        x = _Block(channels, self.dropout, self.dtype, name="middle_1")(x, given, train)
        self.sow("intermediates", "bottleneck", x)
        for place, multiplier in reversed(list(enumerate(self.multipliers))):
            for index in range(self.depth + 1):
                x = jnp.concatenate([x, skips.pop()], -1)
                x = level(x, multiplier * self.width, f"up_{place}_{index}")
            if place:
                x = x.repeat(2, 1).repeat(2, 2)
        x = nn.silu(_norm(x, self.dtype, "norm"))
        zero = nn.initializers.zeros
        return nn.Conv(image.shape[-1], (3, 3), kernel_init=zero, name="head")(x)


class CriticHead(nn.Module):
    """A critic's last layers: from a feature ``[B, ..., C]`` to a logit ``[B, 1]``.

    A map of features is halved by convolutions until it is one place, as in DMD2; a vector goes
    through one hidden layer.

    Attributes:
        width: hidden units, the channels of the feature by default.
        dtype: of the computation.
    """

    width: Count | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, feature: jax.Array) -> jax.Array:
        check_settings(self)
        width = self.width or feature.shape[-1]
        x = feature
        while x.ndim == 4 and min(x.shape[1:3]) > 1:
            x = nn.Conv(width, (4, 4), (2, 2), dtype=self.dtype)(x)
            x = nn.silu(_norm(x, self.dtype))
        if x.ndim > 2:
            x = x.reshape(x.shape[0], -1, x.shape[-1]).mean(1)
        x = nn.silu(_norm(nn.Dense(width, dtype=self.dtype, name="hidden")(x), self.dtype, "norm"))
        return nn.Dense(1, name="logit")(x)


class _Block(nn.Module):
    channels: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, given: jax.Array, train: bool) -> jax.Array:
        conv = nn.Conv(self.channels, (3, 3), dtype=self.dtype, name="conv_0")
        y = conv(nn.silu(_norm(x, self.dtype, "norm_0")))
        told = nn.Dense(2 * self.channels, dtype=self.dtype, name="given")(given)
        scale, shift = jnp.split(told[:, None, None, :], 2, -1)
        y = nn.silu(_norm(y, self.dtype, "norm_1") * (1 + scale) + shift)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        zero = nn.initializers.zeros
        y = nn.Conv(self.channels, (3, 3), dtype=self.dtype, kernel_init=zero, name="conv_1")(y)
        if x.shape[-1] != self.channels:
            x = nn.Conv(self.channels, (1, 1), dtype=self.dtype, name="skip")(x)
        return (x + y) / 2**0.5


class _Attention(nn.Module):
    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        heads = self.heads or max(1, channels // 64)
        check_heads(channels, heads)
        tokens = _norm(x, self.dtype, "norm").reshape(batch, height * width, channels)
        qkv = nn.Dense(3 * channels, dtype=self.dtype, name="qkv")(tokens)
        # XLA's own attention has a forward-mode derivative, fused kernels have not.
        mixed = jax.nn.dot_product_attention(*split_qkv(qkv, heads), implementation="xla")
        zero = nn.initializers.zeros
        out = nn.Dense(channels, dtype=self.dtype, kernel_init=zero, name="proj")(
            mixed.reshape(tokens.shape)
        )
        return (x + out.reshape(x.shape)) / 2**0.5


def _norm(x: jax.Array, dtype: Any, name: str | None = None) -> jax.Array:
    """Group norm with at most 32 groups of at least 4 channels."""
    channels = x.shape[-1]
    groups = next(g for g in range(min(32, max(channels // 4, 1)), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, epsilon=1e-5, dtype=dtype, name=name)(x)
