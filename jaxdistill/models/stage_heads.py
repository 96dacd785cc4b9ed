"""Stage heads of one-for-all distillation: from the features of any stage of any net to logits.

A projector like those of :mod:`jaxdistill.adapt`: ``stage_head(student_shape, target_shape)`` is a
net that is trained with the student and is no part of the result.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models._common import batch_norm, conv, divisors
from jaxdistill.models.blocks import Block
from jaxdistill.net import Net
from jaxdistill.settings import Count, Natural, checked


@checked
def stage_head(
    student: tuple[int, ...],
    target: tuple[int, ...],
    *,
    stage: Count,
    stages: Count = 4,
    width: Count,
    front: Natural = 0,
    grid: Count = 7,
    heads: Count = 4,
) -> Net:
    """From the features of one of the student's stages to the classes of its teacher's logits.

    Maps ``[B, H, W, C]`` of a convolutional net pass ``stages - stage`` blocks of separable
    convolutions, each of which halves the grid and doubles the channels (the last has ``width``),
    or one 1x1 convolution in the last stage; then a mean over positions and a linear layer. Tokens
    ``[B, N, D]`` of transformers and mixers are merged, four to one, until there are ``grid`` in a
    row, pass ``max(stages - stage, 1)`` transformer blocks of this width, and a linear layer reads
    the tokens in front, or without these the mean. Of vectors ``[B, D]`` a linear layer alone.

    Args:
        student: shape of the features.
        target: shape of the teacher's logits, ``[B, K]``.
        stage: from which stage they are, from 1.
        stages: how many stages the student has.
        width: of the last layer before the classes: for maps the larger of the two nets' last
            widths, for tokens the student's.
        front: how many tokens stand before those of patches (the class token).
        grid: tokens in a row from which on none are merged.
        heads: of the transformer blocks.

    Returns:
        A net from the features to ``[B, K]``.

    Raises:
        ValueError: for a target that is no logits, a stage that there is not, tokens that are no
            square, and heads that do not divide the width.

    Example:
        >>> net = stage_head((8, 8, 8, 16), (8, 10), stage=3, width=64)
        >>> params, state = net.init(jax.random.key(0), jnp.zeros((8, 8, 8, 16)))
        >>> net.apply(params, state, jnp.zeros((8, 8, 8, 16))).out.shape
        (8, 10)

    References:
        Hao et al. One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge
        Distillation. NeurIPS 2023.
    """
    if len(target) != 2 or len(student) not in (2, 3, 4):
        raise ValueError(
            "a stage head goes from maps [B, H, W, C], tokens [B, N, D] or vectors [B, D] to "
            f"logits [B, K], not from {student} to {target}"
        )
    if stage > stages:
        raise ValueError(f"stage {stage} of a student that has {stages}: give 1 to {stages}")
    classes, deeper = target[-1], stages - stage
    if len(student) == 2:
        return from_linen(nn.Dense(classes))
    if len(student) == 4:
        return from_linen(_OfMaps(deeper, width, classes))
    side = math.isqrt(student[1] - front)
    if side * side != student[1] - front:
        raise ValueError(
            f"{student[1]} tokens less {front} in front are no square: 'front' says how many stand "
            "before those of patches"
        )
    if width % heads:
        raise ValueError(f"width={width} does not divide by {heads} heads: give {divisors(width)}")
    merges = max(int(math.log2(side / grid)), 0) if side > grid else 0
    return from_linen(_OfTokens(max(deeper, 1), width, classes, front, merges, heads))


class SeparableConvolution(nn.Module):
    """Twice a depthwise 3x3 convolution, a 1x1 convolution, norm and rectifier; the first one
    halves the grid, and the second 1x1 goes to ``width`` channels."""

    width: int

    @nn.compact
    def __call__(self, maps: jax.Array, train: bool = False) -> jax.Array:
        channels = maps.shape[-1]
        for index, (stride, width) in enumerate(((2, channels), (1, self.width)), start=1):
            maps = conv(channels, 3, stride, None, f"depthwise_{index}", groups=channels)(maps)
            maps = conv(width, 1, 1, None, f"pointwise_{index}")(maps)
            maps = nn.relu(batch_norm(train, None, f"norm_{index}")(maps))
        return maps


class PatchMerging(nn.Module):
    """Four neighbours as one token, in the order (0, 0), (1, 0), (0, 1), (1, 1) of (row, column);
    norm, a linear map without bias, GELU."""

    width: int
    activation: bool = True

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        batch, count, width = tokens.shape
        side = math.isqrt(count)
        if side % 2:
            raise ValueError(f"{side} tokens in a row cannot be merged two by two")
        four = tokens.reshape(batch, side // 2, 2, side // 2, 2, width).transpose(0, 1, 3, 4, 2, 5)
        merged = four.reshape(batch, count // 4, 4 * width)
        merged = nn.LayerNorm(epsilon=1e-5, name="norm")(merged)
        merged = nn.Dense(self.width, use_bias=False, kernel_init=_NORMAL, name="reduction")(merged)
        return nn.gelu(merged, approximate=False) if self.activation else merged


_NORMAL = nn.initializers.truncated_normal(0.02)


class _OfMaps(nn.Module):
    deeper: int
    width: int
    classes: int

    @nn.compact
    def __call__(self, maps: jax.Array, train: bool = False) -> jax.Array:
        channels = maps.shape[-1]
        if not self.deeper:
            maps = nn.Conv(self.width, (1, 1), name="conv")(maps)
        for index in range(1, self.deeper + 1):
            width = self.width if index == self.deeper else channels * 2**index
            maps = SeparableConvolution(width, name=f"block_{index}")(maps, train)
        return nn.Dense(self.classes, kernel_init=_NORMAL, name="head")(maps.mean((1, 2)))


class _OfTokens(nn.Module):
    blocks: int
    width: int
    classes: int
    front: int
    merges: int
    heads: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        before, tokens = tokens[:, : self.front], tokens[:, self.front :]
        for index in range(self.merges):
            # Between two merges, and after the only one, there is an activation.
            last = index > 0 and index == self.merges - 1
            tokens = PatchMerging(self.width, not last, name=f"merge_{index}")(tokens)
        if self.front or tokens.shape[-1] != self.width:
            if before.shape[-1] != self.width or tokens.shape[-1] != self.width:
                raise ValueError(
                    f"tokens of width {before.shape[-1]} pass blocks of width {self.width}: give "
                    f"width={before.shape[-1]}"
                )
            tokens = jnp.concatenate([before, tokens], axis=1)
        for index in range(self.blocks):
            tokens = Block(self.heads, name=f"block_{index}")(tokens)
        read = tokens[:, : self.front].reshape(len(tokens), -1) if self.front else tokens.mean(1)
        return nn.Dense(self.classes, kernel_init=_NORMAL, name="head")(read)
