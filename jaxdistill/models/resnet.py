"""Residual networks: the CIFAR family, its widened form, and the ImageNet family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.models._common import (
    Dtype,
    Identity,
    batch_norm,
    check_image_rank,
    check_settings,
    conv,
    image_of,
    scan_layers,
)
from jaxdistill.models.blocks import given_taps, shared, taps_below
from jaxdistill.settings import Count, Natural

Shortcut = Literal["conv", "pool", "pad"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of 1x1, 3x3 (with the stride) and 1x1, plus shortcut.

    Attributes:
        width: channels of the 3x3 convolutions; a bottleneck gives four times as many.
        stride: of the first 3x3 convolution.
        bottleneck: which of the two forms.
        shortcut: ``"conv"`` (1x1 convolution and norm), ``"pool"`` (a mean of 2x2 before a
            convolution without stride) or ``"pad"`` (subsampling and zero channels, without
            parameters) where the shape changes.
        zero_init_residual: start the last norm's scale at zero, so that the block starts as its
            shortcut.
        dtype: of the computation.
        stride_first: put a bottleneck's stride on its first convolution, not on the 3x3 one.
    """

    width: int
    stride: int = 1
    bottleneck: bool = False
    shortcut: str = "conv"
    zero_init_residual: bool = False
    dtype: Any = None
    stride_first: bool = False

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        width = self.width
        if self.bottleneck:
            first, second = (self.stride, 1) if self.stride_first else (1, self.stride)
            layers = ((width, 1, first), (width, 3, second), (4 * width, 1, 1))
        else:
            layers = ((width, 3, self.stride), (width, 3, 1))
        maps = inputs
        for index, (features, size, stride) in enumerate(layers, start=1):
            last = index == len(layers)
            maps = conv(features, size, stride, self.dtype, f"conv_{index}")(maps)
            zero_scale = last and self.zero_init_residual
            maps = batch_norm(train, self.dtype, f"norm_{index}", zero_scale)(maps)
            maps = maps if last else nn.relu(maps)
        total = maps + self._shortcut(inputs, layers[-1][0], train)
        return nn.relu(Identity(name="sum")(total))

    def _shortcut(self, inputs: jax.Array, features: int, train: bool) -> jax.Array:
        missing = features - inputs.shape[-1]
        if self.stride == 1 and missing == 0:
            return inputs
        if self.shortcut in ("conv", "pool"):
            stride = self.stride
            if self.shortcut == "pool" and stride > 1:
                window = (stride, stride)
                # A border of an odd size is a mean of what there is of it.
                inputs = nn.avg_pool(inputs, window, window, "SAME", count_include_pad=False)
                stride = 1
            inputs = conv(features, 1, stride, self.dtype, "shortcut_conv")(inputs)
            return batch_norm(train, self.dtype, "shortcut_norm")(inputs)
        if missing < 0:
            raise ValueError(
                f"shortcut 'pad' cannot go from {inputs.shape[-1]} channels down to {features}"
            )
        inputs = inputs[:, :: self.stride, :: self.stride]
        before = missing // 2
        return jnp.pad(inputs, ((0, 0), (0, 0), (0, 0), (before, missing - before)))


class Stage(nn.Module):
    """Blocks of one width, named ``block_0``, ``block_1``, ...; the first one has the stride."""

    blocks: int
    width: int
    stride: int
    bottleneck: bool
    shortcut: str
    zero_init_residual: bool
    dtype: Any
    stride_first: bool = False
    remat: bool = False
    scan: bool = False
    taps: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, maps: jax.Array, train: bool = False) -> jax.Array:
        form = ResidualBlock
        if self.remat:
            form = nn.remat(ResidualBlock, static_argnums=(2,), prevent_cse=not self.scan)
        block = partial(
            form,
            width=self.width,
            bottleneck=self.bottleneck,
            shortcut=self.shortcut,
            zero_init_residual=self.zero_init_residual,
            dtype=self.dtype,
            stride_first=self.stride_first,
        )
        maps = block(stride=self.stride, name="block_0")(maps, train)
        if not self.scan:
            for index in range(1, self.blocks):
                maps = block(name=f"block_{index}")(maps, train)
        elif self.blocks > 1:
            maps = scan_layers(
                block(name="blocks"),
                self.blocks - 1,
                maps,
                rest=(train,),
                taps=self.taps,
                first=1,
            )
        return maps


class Stem(nn.Module):
    """Convolution, norm and rectifier: 3x3, or 7x7 with stride 2; or three 3x3 in its place."""

    width: int
    large_images: bool
    dtype: Any
    deep: bool = False

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        size, stride = (7, 2) if self.large_images else (3, 1)
        if self.deep:
            for index in (1, 2):
                image = conv(
                    self.width // 2, 3, stride if index == 1 else 1, self.dtype, f"conv_{index}"
                )(image)
                image = nn.relu(batch_norm(train, self.dtype, f"norm_{index}")(image))
            size, stride = 3, 1
        maps = conv(self.width, size, stride, self.dtype, "conv")(image)
        return nn.relu(batch_norm(train, self.dtype, "norm")(maps))


class ResNet(nn.Module):
    """A residual network on images [B, H, W, C], or a dict with them under ``"image"``.

    The output is [B, classes], float32. ``cifar_resnet`` and ``imagenet_resnet`` give the published
    networks. Tap paths, maps after their last rectifier: ``stem``, ``stage_1/block_0``, ...,
    ``stage_1`` (the output of its last block), the last stage being the maps before the pool;
    then ``pooled`` [B, channels] and ``head``. Inside a block ``conv_1``, ``norm_1``, ..., and
    ``sum``, what its last rectifier is given.

    Running statistics are float32 in ``batch_stats`` and move by a tenth per training step. Flax
    keeps the biased variance there, where PyTorch keeps the unbiased one. On a mesh the statistics
    are those of the global batch.

    Attributes:
        blocks: residual blocks in each stage.
        widths: width of each stage; every stage but the first halves the resolution.
        classes: outputs of the head; with 0 there is none, and the output is what is pooled.
        stem_width: channels of the stem.
        large_images: the ImageNet stem (7x7, stride 2, then 3x3 max pool, stride 2), else one 3x3.
        bottleneck: blocks with four times as many outputs as their width.
        shortcut: ``"conv"``, ``"pool"`` or ``"pad"``, see ``ResidualBlock``.
        zero_init_residual: every block starts as its shortcut.
        dtype: of the computation; parameters, statistics and head stay float32.
        deep_stem: three 3x3 convolutions in place of the stem's one.
        stride_first: see ``ResidualBlock``.
        remat: recompute the inside of each block in the backward pass, to save memory.
        scan: run the blocks of every stage behind its first as a loop over stacked parameters,
            ``blocks`` (see ``stack_blocks``), which keeps compilation short. XLA on CPU is slow at
            such loops.
        taps: blocks whose outputs the loops keep; set by ``for_taps``.

    Raises:
        ValueError: an unknown shortcut, as many widths as stages not given, or a wrong rank.

    References:
        He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016.
        He et al. Bag of Tricks for Image Classification with Convolutional Networks. CVPR 2019.
    """

    blocks: tuple[Count, ...]
    widths: tuple[Count, ...]
    classes: Natural = 1000
    stem_width: Count = 64
    large_images: bool = True
    bottleneck: bool = False
    shortcut: Shortcut = "conv"
    zero_init_residual: bool = False
    dtype: Dtype = None
    deep_stem: bool = False
    stride_first: bool = False
    remat: bool = False
    scan: bool = False
    taps: tuple[str, ...] = ()

    @nn.compact
    def __call__(
        self, inputs: jax.Array | Mapping[str, jax.Array], train: bool = False
    ) -> jax.Array:
        check_settings(self)
        if len(self.blocks) != len(self.widths):
            raise ValueError(f"{len(self.blocks)} stages but {len(self.widths)} widths")
        image = image_of(inputs)
        check_image_rank(image)

        stem = Stem(self.stem_width, self.large_images, self.dtype, self.deep_stem, name="stem")
        maps = stem(image, train)
        if self.large_images:
            # Flax pads with minus infinity.
            border: Any = ((1, 1), (1, 1))
            maps = nn.max_pool(maps, (3, 3), strides=(2, 2), padding=border)
        for index, (blocks, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            name = f"stage_{index + 1}"
            settings = {
                **shared(self, Stage),
                "blocks": blocks,
                "width": width,
                "stride": 1 if index == 0 else 2,
                "taps": taps_below(self.taps, name),
            }
            maps = Stage(**settings, name=name)(maps, train)
        pooled = Identity(name="pooled")(maps.mean(axis=(1, 2)))
        if not self.classes:
            return pooled
        wide = jnp.promote_types(pooled.dtype, jnp.float32)
        return nn.Dense(self.classes, dtype=wide, name="head")(pooled)

    @nn.nowrap
    def for_taps(self, taps: Iterable[str]) -> ResNet:
        """This network, keeping of its scanned blocks what these taps read.

        Raises:
            ValueError: a block that does not exist, or, scanned, a place inside a block.
        """
        stacks = {f"stage_{number}/": blocks for number, blocks in enumerate(self.blocks, 1)}
        return given_taps(self, taps, stacks)


def cifar_resnet(
    *,
    depth: Count,
    width_multiplier: Count = 1,
    classes: Count = 10,
    shortcut: Shortcut | None = None,
    zero_init_residual: bool = False,
    dtype: Dtype = None,
) -> ResNet:
    """The residual networks for images of 32 pixels, of depth 6n + 2.

    With multiplier 1 these are the networks of He et al. (stages of 16, 32, 64 channels, shortcuts
    without parameters). With multiplier m > 1 they are the widened networks of the distillation
    literature (resnet8x4, resnet32x4: stages of 16m, 32m, 64m channels behind a stem of 8m, and
    convolutions as shortcuts).

    Args:
        depth: 8, 14, 20, 32, 44, 56, 110, ...
        width_multiplier: factor m on the widths of the stages.
        classes: outputs of the head.
        shortcut: ``"pad"`` or ``"conv"``; by default the published form named above. Distillation
            papers that build on RepDistiller use ``"conv"`` at every width.
        zero_init_residual: every block starts as its shortcut.
        dtype: of the computation.

    Returns:
        The network.

    Raises:
        ValueError: the depth is not 6n + 2, or the multiplier is below 1.

    Example:
        >>> net = cifar_resnet(depth=32, width_multiplier=4)
        >>> net.blocks, net.widths, net.stem_width
        ((5, 5, 5), (64, 128, 256), 32)

    References:
        He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016.
        Tian, Krishnan, Isola. Contrastive Representation Distillation. ICLR 2020.
    """
    if depth < 8 or (depth - 2) % 6:
        lower = max(8, depth - (depth - 2) % 6)
        raise ValueError(
            f"depth={depth}: it must be 6n + 2 with n >= 1, the nearest are {lower} and {lower + 6}"
        )
    if width_multiplier < 1:
        raise ValueError(f"width_multiplier={width_multiplier}: it must be 1 or more")
    widened = width_multiplier > 1
    return ResNet(
        blocks=((depth - 2) // 6,) * 3,
        widths=(16 * width_multiplier, 32 * width_multiplier, 64 * width_multiplier),
        classes=classes,
        stem_width=8 * width_multiplier if widened else 16,
        large_images=False,
        shortcut=shortcut or ("conv" if widened else "pad"),
        zero_init_residual=zero_init_residual,
        dtype=dtype,
    )


_IMAGENET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


# The four forms by what they change; the second is what torchvision and timm call ResNet.
_VARIANTS = {
    "a": {"stride_first": True},
    "b": {},
    "c": {"deep_stem": True},
    "d": {"deep_stem": True, "shortcut": "pool"},
}


def imagenet_resnet(
    *,
    depth: Literal[18, 34, 50, 101, 152],
    classes: Natural = 1000,
    variant: Literal["a", "b", "c", "d"] = "b",
    zero_init_residual: bool = False,
    dtype: Dtype = None,
) -> ResNet:
    """The residual networks for images of 224 pixels.

    Depths 18 and 34 have basic blocks; 50, 101 and 152 have bottlenecks. Shapes and parameter
    counts are those of torchvision.

    Args:
        depth: 18, 34, 50, 101 or 152.
        classes: outputs of the head.
        variant: ``"b"`` has a bottleneck's stride on the 3x3 convolution (known as v1.5), ``"a"``
            on the 1x1 one before it (the first paper); ``"c"`` has a stem of three 3x3 convolutions
            (32, 32, 64), ``"d"`` besides pools before its shortcuts.
        zero_init_residual: every block starts as its shortcut.
        dtype: of the computation.

    Returns:
        The network.

    Raises:
        ValueError: another depth or variant.

    Example:
        >>> imagenet_resnet(depth=50).bottleneck, imagenet_resnet(depth=34).blocks
        (True, (3, 4, 6, 3))

    References:
        He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016.
        He et al. Bag of Tricks for Image Classification with Convolutional Networks. CVPR 2019.
    """
    if variant not in _VARIANTS:
        raise ValueError(unknown("ResNet variant", variant, _VARIANTS))
    if depth not in _IMAGENET_BLOCKS:
        raise ValueError(unknown("ResNet depth", depth, map(str, _IMAGENET_BLOCKS)))
    return ResNet(
        blocks=_IMAGENET_BLOCKS[depth],
        widths=(64, 128, 256, 512),
        classes=classes,
        bottleneck=depth >= 50,
        zero_init_residual=zero_init_residual,
        dtype=dtype,
        **_VARIANTS[variant],
    )
