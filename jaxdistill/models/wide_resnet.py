"""Wide residual networks: norm and rectifier before each convolution."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.models._common import (
    Dtype,
    Identity,
    batch_norm,
    check_image_rank,
    check_settings,
    conv,
    image_of,
)
from jaxdistill.settings import Count


class WideBlock(nn.Module):
    """Twice norm, rectifier and 3x3 convolution, plus the input; where the shape changes, the
    shortcut is a 1x1 convolution of what the first convolution sees."""

    width: int
    stride: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        seen = nn.relu(batch_norm(train, self.dtype, "norm_1")(inputs))
        same = self.stride == 1 and inputs.shape[-1] == self.width
        shortcut = conv(self.width, 1, self.stride, self.dtype, "shortcut_conv")
        maps = conv(self.width, 3, self.stride, self.dtype, "conv_1")(seen)
        maps = nn.relu(batch_norm(train, self.dtype, "norm_2")(maps))
        maps = conv(self.width, 3, 1, self.dtype, "conv_2")(maps)
        return maps + (inputs if same else shortcut(seen))


class WideStage(nn.Module):
    """Blocks of one width, named ``block_0``, ``block_1``, ...; the first one has the stride."""

    blocks: int
    width: int
    stride: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, maps: jax.Array, train: bool = False) -> jax.Array:
        for index in range(self.blocks):
            stride = self.stride if index == 0 else 1
            maps = WideBlock(self.width, stride, self.dtype, name=f"block_{index}")(maps, train)
        return maps


class WideResNet(nn.Module):
    """A wide residual network on images of 32 pixels [B, H, W, C], or a dict with such an array.

    The output is [B, classes]. Tap paths: ``stem``, ``stage_1`` to ``stage_3`` (sums, which nothing
    has normalised or rectified yet), ``norm``, ``maps`` (normalised and rectified), ``pooled`` and
    ``head``; in a stage ``block_0/norm_1``, ... Running statistics are as in ``ResNet``.

    Attributes:
        depth: 6n + 4: 16, 28, 40.
        width: k, the factor on the widths 16, 32 and 64 of the three stages.
        classes: outputs of the head.
        dtype: of the computation; parameters, statistics and head stay float32.

    Raises:
        ValueError: a depth that is not 6n + 4, or images of a wrong rank.

    Example:
        >>> net = WideResNet(depth=16, width=2, classes=100)
        >>> shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
        >>> sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
        703284

    References:
        Zagoruyko and Komodakis. Wide Residual Networks. BMVC 2016.
    """

    depth: Count = 28
    width: Count = 10
    classes: Count = 10
    dtype: Dtype = None

    @nn.compact
    def __call__(
        self, inputs: jax.Array | Mapping[str, jax.Array], train: bool = False
    ) -> jax.Array:
        check_settings(self)
        blocks, left = divmod(self.depth - 4, 6)
        if blocks < 1 or left:
            nearest = 6 * max(blocks, 1) + 4
            raise ValueError(
                f"depth={self.depth}: it must be 6n + 4 with n >= 1, the nearest are {nearest} "
                f"and {nearest + 6}"
            )
        image = image_of(inputs)
        check_image_rank(image)
        maps = conv(16, 3, 1, self.dtype, "stem")(image)
        for stage in range(3):
            width = 16 * 2**stage * self.width
            stride = 1 if stage == 0 else 2
            maps = WideStage(blocks, width, stride, self.dtype, name=f"stage_{stage + 1}")(
                maps, train
            )
        maps = nn.relu(batch_norm(train, self.dtype, "norm")(maps))
        maps = Identity(name="maps")(maps)
        pooled = Identity(name="pooled")(maps.mean(axis=(1, 2)))
        wide = jnp.promote_types(pooled.dtype, jnp.float32)
        return nn.Dense(self.classes, dtype=wide, name="head")(pooled)
