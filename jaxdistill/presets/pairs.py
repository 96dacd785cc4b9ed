"""Teachers and students of images, and where each is read: pairs of published comparisons."""

from __future__ import annotations

from typing import Any, NamedTuple


class Form(NamedTuple):
    """A net, and where it is read.

    Attributes:
        net: what a stage says of it.
        maps: taps of the maps of its stages, from the first to the last.
        before: of the same before their rectifier.
        norms: the batch norms before those.
        pooled: the tap of what its head sees.
    """

    net: dict[str, Any]
    maps: tuple[str, ...]
    before: tuple[str, ...]
    norms: tuple[str, ...]
    pooled: str = "pooled"


_CNN = {"net": "convnet", "depth": 3, "growth": 2, "norm": "batch"}


def convolutional(width: int) -> Form:
    """A small convolutional net of three stages, each twice as wide as the one before.

    Example:
        >>> convolutional(8).maps
        ('relu_0', 'relu_1', 'relu_2')
    """
    net = {**_CNN, "width": width}
    maps, norms = (tuple(f"{kind}_{i}" for i in range(3)) for kind in ("relu", "norm"))
    return Form(net, maps, norms, norms, "features")


def residual(depth: int, wider: int = 1) -> Form:
    """A residual net of images of 32 pixels, with convolutions as shortcuts.

    Example:
        >>> residual(20).before[0]
        'stage_1/block_2/sum'
    """
    net = {"net": "cifar_resnet", "depth": depth, "width_multiplier": wider, "shortcut": "conv"}
    return _residual(net, ((depth - 2) // 6,) * 3)


def imagenet_residual(depth: int) -> Form:
    """A residual net of 18 or 34 layers for images of 224 pixels.

    Example:
        >>> imagenet_residual(34).maps[-1]
        'stage_4'
    """
    blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}[depth]
    return _residual({"net": "imagenet_resnet", "depth": depth, "dtype": "bfloat16"}, blocks)


def _residual(net: dict[str, Any], blocks: tuple[int, ...]) -> Form:
    stages = tuple(f"stage_{number}" for number in range(1, len(blocks) + 1))
    last = [f"{stage}/block_{count - 1}" for stage, count in zip(stages, blocks, strict=True)]
    sums, norms = (tuple(f"{path}/{part}" for path in last) for part in ("sum", "norm_2"))
    return Form(net, stages, sums, norms)


def wide(depth: int, width: int) -> Form:
    """A wide residual net, whose stages end before norm and rectifier.

    Example:
        >>> wide(16, 2).before
        ('stage_2/block_0/norm_1', 'stage_3/block_0/norm_1', 'norm')
    """
    net = {"net": "wide_resnet", "depth": depth, "width": width}
    norms = ("stage_2/block_0/norm_1", "stage_3/block_0/norm_1", "norm")
    return Form(net, ("stage_1", "stage_2", "maps"), norms, norms)


PAIRS: dict[str, tuple[Form, Form]] = {
    "resnet34_resnet18": (imagenet_residual(34), imagenet_residual(18)),
    "wrn40x2_wrn16x2": (wide(40, 2), wide(16, 2)),
    "wrn40x2_wrn40x1": (wide(40, 2), wide(40, 1)),
    "resnet56_resnet20": (residual(56), residual(20)),
    "resnet110_resnet20": (residual(110), residual(20)),
    "resnet110_resnet32": (residual(110), residual(32)),
    "resnet32x4_resnet8x4": (residual(32, 4), residual(8, 4)),
}
"""Teacher and student: ImageNet's of torchdistill, and those of RepDistiller on CIFAR-100."""


class Family(NamedTuple):
    """A net as one of a family: convolutional nets give maps, transformers and mixers tokens.

    Attributes:
        net: what a stage says of it; the patch of tokens is still to be said.
        stages: taps, from the first stage to the last.
        width: of the last stage.
        front: how many tokens stand before those of patches.
        maps: whether stages are maps.
    """

    net: dict[str, Any]
    stages: tuple[str, ...]
    width: int
    front: int = 0
    maps: bool = False


_VIT = {"net": "vit", "heads": 4, "positions": "learned"}
_MAPS = tuple(f"relu_{i}" for i in range(3))
_BLOCKS = tuple(f"block_{i}" for i in range(4))
UNLIKE: dict[str, tuple[Family, Family]] = {
    "vit_cnn": (
        Family({**_VIT, "width": 64, "depth": 4}, tuple(f"encoder/{b}" for b in _BLOCKS), 64, 1),
        Family({**_CNN, "width": 8}, _MAPS, 32, maps=True),
    ),
    "cnn_vit": (
        Family({**_CNN, "width": 16}, _MAPS, 64, maps=True),
        Family({**_VIT, "width": 24, "depth": 2}, ("encoder/block_0", "encoder/block_1"), 24, 1),
    ),
    "cnn_mixer": (
        Family({**_CNN, "width": 16}, _MAPS, 64, maps=True),
        Family({"net": "mixer", "width": 24, "depth": 2}, _BLOCKS[:2], 24),
    ),
}
"""Small teachers and students of unlike families."""
