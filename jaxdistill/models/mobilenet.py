"""MobileNetV3: residual blocks that are narrow outside and depthwise inside."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

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
)
from jaxdistill.settings import Natural, Positive


class Inverted(NamedTuple):
    """A block: what it is widened to inside, and what comes out.

    Attributes:
        size: side of the depthwise convolution.
        stride: of that.
        expansion: channels inside for every one that comes in; with 1 nothing is widened.
        channels: that come out, before the width of the net is scaled.
        squeeze: whether channels are gated by what the whole image holds.
        hard_swish: the activation, else ReLU.
    """

    size: int
    stride: int
    expansion: float
    channels: int
    squeeze: bool
    hard_swish: bool


# Table 1 and 2 of the paper; expansions as timm has them, so that widths scale as there.
_STAGES: dict[str, tuple[tuple[Inverted, ...], ...]] = {
    "small": (
        (Inverted(3, 2, 1, 16, True, False),),
        (Inverted(3, 2, 4.5, 24, False, False), Inverted(3, 1, 3.67, 24, False, False)),
        (Inverted(5, 2, 4, 40, True, True), *[Inverted(5, 1, 6, 40, True, True)] * 2),
        (Inverted(5, 1, 3, 48, True, True),) * 2,
        (Inverted(5, 2, 6, 96, True, True), *[Inverted(5, 1, 6, 96, True, True)] * 2),
    ),
    "large": (
        (Inverted(3, 1, 1, 16, False, False),),
        (Inverted(3, 2, 4, 24, False, False), Inverted(3, 1, 3, 24, False, False)),
        (Inverted(5, 2, 3, 40, True, False), *[Inverted(5, 1, 3, 40, True, False)] * 2),
        (
            Inverted(3, 2, 6, 80, False, True),
            Inverted(3, 1, 2.5, 80, False, True),
            *[Inverted(3, 1, 2.3, 80, False, True)] * 2,
        ),
        (Inverted(3, 1, 6, 112, True, True),) * 2,
        (Inverted(5, 2, 6, 160, True, True), *[Inverted(5, 1, 6, 160, True, True)] * 2),
    ),
}
# Channels of the last convolution, before scaling, and of the layer before the head.
_LAST = {"small": (576, 1024), "large": (960, 1280)}


def rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8, that loses no more than a tenth.

    Example:
        >>> rounded(12), rounded(36), rounded(4)
        (16, 40, 8)
    """
    found = max(8, int(channels + 4) // 8 * 8)
    return found + 8 if found < 0.9 * channels else found


class Squeeze(nn.Module):
    """Gates every channel by what the whole image holds: ``reduce``, ReLU, ``expand``.

    References:
        Hu et al. Squeeze-and-Excitation Networks. CVPR 2018.
    """

    dtype: Any = None

    @nn.compact
    def __call__(self, maps: jax.Array) -> jax.Array:
        channels = maps.shape[-1]
        dense = partial(nn.Dense, dtype=self.dtype)
        whole = maps.mean((1, 2))
        units = nn.relu(dense(rounded(channels / 4), name="reduce")(whole))
        gates = jax.nn.hard_sigmoid(dense(channels, name="expand")(units))
        return maps * gates[:, None, None]


class InvertedBlock(nn.Module):
    """Widened by ``expand_conv``, then ``depth_conv``, ``squeeze``, and narrowed by ``conv``.

    Norms are ``expand_norm``, ``depth_norm`` and ``norm``, the last without an activation. What
    came in is added where the shape stays.
    """

    form: Inverted
    channels: int
    dtype: Any = None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        form, incoming = self.form, inputs.shape[-1]
        norm = partial(batch_norm, train, self.dtype)
        act = jax.nn.hard_swish if form.hard_swish else nn.relu
        inside = rounded(incoming * form.expansion) if form.expansion != 1 else incoming
        maps = inputs
        if form.expansion != 1:
            maps = conv(inside, 1, 1, self.dtype, "expand_conv")(maps)
            maps = act(norm("expand_norm")(maps))
        maps = conv(inside, form.size, form.stride, self.dtype, "depth_conv", inside)(maps)
        maps = act(norm("depth_norm")(maps))
        if form.squeeze:
            maps = Squeeze(self.dtype, name="squeeze")(maps)
        maps = norm("norm")(conv(self.channels, 1, 1, self.dtype, "conv")(maps))
        same = form.stride == 1 and incoming == self.channels
        return maps + inputs if same else maps


class MobileStage(nn.Module):
    """Blocks ``block_0``, ``block_1``, ..."""

    forms: tuple[Inverted, ...]
    width: float
    dtype: Any = None
    remat: bool = False

    @nn.compact
    def __call__(self, maps: jax.Array, train: bool) -> jax.Array:
        kind = nn.remat(InvertedBlock, static_argnums=(2,)) if self.remat else InvertedBlock
        for index, form in enumerate(self.forms):
            form = Inverted(*form)
            channels = rounded(form.channels * self.width)
            maps = kind(form, channels, self.dtype, name=f"block_{index}")(maps, train)
        return maps


class MobileNetV3(nn.Module):
    """A MobileNetV3 with a linear head.

    Inputs are images [B, H, W, C] or a dict with them under ``"image"``. The output is
    [B, classes], float32 or wider. Tap paths: ``stage_1``, ... [B, h, w, c],
    ``stage_1/block_0``, ..., ``last_conv`` [B, h, w, c] (before its norm), ``last`` [B, c] (before
    its activation), ``pooled`` [B, c] (behind it), ``head``.

    Attributes:
        size: ``"small"`` or ``"large"``.
        width: by what the channels are multiplied, but those before the head; below 0.75 the stem
            keeps its 16.
        classes: outputs of the head; with 0 there is none, and the output is what it would read.
        dtype: of the computation; parameters and statistics stay float32.
        remat: recompute the inside of each block in the backward pass, to save memory.

    Raises:
        ValueError: an unknown size.

    Example:
        >>> net = MobileNetV3(size="small", width=0.5, classes=3)
        >>> image = jnp.ones((2, 32, 32, 3))
        >>> jax.eval_shape(net.init_with_output, jax.random.key(0), image)[0].shape
        (2, 3)

    References:
        Howard et al. Searching for MobileNetV3. ICCV 2019.
    """

    size: Literal["small", "large"] = "large"
    width: Positive = 1.0
    classes: Natural = 1000
    dtype: Dtype = None
    remat: bool = False

    @nn.compact
    def __call__(
        self, inputs: jax.Array | Mapping[str, jax.Array], train: bool = False
    ) -> jax.Array:
        check_settings(self)
        maps = image_of(inputs)
        check_image_rank(maps)
        norm = partial(batch_norm, train, self.dtype)
        stem = 16 if self.width < 0.75 else rounded(16 * self.width)
        maps = conv(stem, 3, 2, self.dtype, "stem_conv")(maps)
        maps = jax.nn.hard_swish(norm("stem_norm")(maps))
        for index, forms in enumerate(self.stages()):
            name = f"stage_{index + 1}"
            maps = MobileStage(forms, self.width, self.dtype, self.remat, name=name)(maps, train)
        channels, last = _LAST[self.size]
        channels = rounded(channels * self.width)
        maps = conv(channels, 1, 1, self.dtype, "last_conv")(maps)
        maps = jax.nn.hard_swish(norm("last_norm")(maps))
        pooled = nn.Dense(last, dtype=self.dtype, name="last")(maps.mean((1, 2)))
        pooled = Identity(name="pooled")(jax.nn.hard_swish(pooled))
        if not self.classes:
            return pooled
        wide = jnp.promote_types(pooled.dtype, jnp.float32)
        return nn.Dense(self.classes, dtype=wide, name="head")(pooled)

    @nn.nowrap
    def stages(self) -> tuple[tuple[Inverted, ...], ...]:
        """The blocks of every stage."""
        if self.size not in _STAGES:
            raise ValueError(unknown("size of MobileNetV3", self.size, _STAGES))
        return _STAGES[self.size]
