"""ConvNeXt, both versions: a residual network of wide depthwise convolutions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.models._common import (
    Dtype,
    Identity,
    check_image_rank,
    check_settings,
    image_of,
    scan_layers,
)
from jaxdistill.models.blocks import given_taps, taps_below
from jaxdistill.settings import Count, Finite, Fraction, Natural, Positive

_init = nn.initializers.truncated_normal(0.02)


class ResponseNorm(nn.Module):
    """``x + scale * x * share + bias``, the share of a channel in the image's response.

    A channel's response is its root of summed squares over the image; its share is that divided by
    the mean over channels (plus 1e-6).

    References:
        Woo et al. ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders. CVPR
        2023.
    """

    @nn.compact
    def __call__(self, maps: jax.Array) -> jax.Array:
        channels = maps.shape[-1:]
        scale = self.param("scale", nn.initializers.zeros, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        wide = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
        squares = jnp.square(wide).sum((1, 2), keepdims=True)
        # The root has no gradient where nothing responds.
        response = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        share = response / (response.mean(-1, keepdims=True) + 1e-6)
        found = wide + scale[None, None, None] * wide * share + bias[None, None, None]
        return found.astype(maps.dtype)


class ConvNeXtBlock(nn.Module):
    """``conv_dw`` 7x7, ``norm``, ``fc1``, GELU, ``fc2``, a factor of every channel; added on.

    Attributes:
        epsilon: of the norm.
        layer_scale: where the parameter ``scale`` starts; none if not given.
        response_norm: a ``grn`` behind the GELU (version 2), see ``ResponseNorm``.
        dtype: of the computation.
    """

    epsilon: float = 1e-6
    layer_scale: float | None = 1e-6
    response_norm: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, maps: jax.Array, gate: jax.Array | None = None) -> jax.Array:
        """Maps [B, H, W, C]; ``gate`` [B], if given, multiplies the branch (stochastic depth)."""
        width = maps.shape[-1]
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=_init)
        x = nn.Conv(
            width,
            (7, 7),
            padding=3,
            feature_group_count=width,
            kernel_init=_init,
            dtype=self.dtype,
            name="conv_dw",
        )(maps)
        x = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(x)
        x = jax.nn.gelu(dense(4 * width, name="fc1")(x), approximate=False)
        if self.response_norm:
            x = ResponseNorm(name="grn")(x)
        x = dense(width, name="fc2")(x)
        if self.layer_scale is not None:
            start = nn.initializers.constant(self.layer_scale)
            x = x * self.param("scale", start, (width,)).astype(x.dtype)[None, None, None]
        if gate is not None:
            x = (x * gate[:, None, None, None]).astype(x.dtype)
        return maps + x


class ConvNeXtStage(nn.Module):
    """``down_norm`` and ``down_conv`` 2x2 but in the first stage, then ``block_0``, ..."""

    blocks: int
    width: int
    first: bool
    block: Mapping[str, Any]
    epsilon: float
    dtype: Any
    remat: bool
    scan: bool
    taps: tuple[str, ...]

    @nn.compact
    def __call__(self, maps: jax.Array, gates: jax.Array | None) -> jax.Array:
        if not self.first:
            maps = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="down_norm")(maps)
            maps = nn.Conv(
                self.width,
                (2, 2),
                strides=2,
                padding="VALID",
                kernel_init=_init,
                dtype=self.dtype,
                name="down_conv",
            )(maps)
        form = nn.remat(ConvNeXtBlock, prevent_cse=not self.scan) if self.remat else ConvNeXtBlock
        block = partial(form, **self.block, dtype=self.dtype)
        if self.scan:
            return scan_layers(block(name="blocks"), self.blocks, maps, (gates,), taps=self.taps)
        for index in range(self.blocks):
            gate = None if gates is None else gates[index]
            maps = block(name=f"block_{index}")(maps, gate)
        return maps


class ConvNeXt(nn.Module):
    """A ConvNeXt with a linear head on the normed mean of its last maps.

    Inputs are images [B, H, W, C] or a dict with them under ``"image"``. The output is
    [B, classes], float32 or wider. Tap paths: ``stem`` (after its norm), ``stage_1``, ...
    [B, h, w, width], ``stage_1/block_0``, ..., ``pooled`` [B, width] (normed) and ``head``.

    Attributes:
        blocks: of every stage.
        widths: channels of every stage.
        classes: outputs of the head; with 0 there is none, and the output is what is pooled.
        patch: side of the patches that the stem takes together.
        layer_scale: where the factors of the branches start; none if not given (version 2).
        response_norm: see ``ResponseNorm`` (version 2).
        drop_path: stochastic depth: the rate of the last block, growing linearly from 0 at the
            first; draws from the ``"dropout"`` stream when ``train``.
        epsilon: of all norms but the last.
        last_epsilon: of the last norm.
        remat: recompute the inside of each block in the backward pass, to save memory.
        scan: run the blocks of every stage as a loop over stacked parameters, ``blocks`` (see
            ``stack_blocks``), which keeps compilation short. XLA on CPU is slow at such loops.
        taps: blocks whose outputs the loops keep; set by ``for_taps``.
        dtype: of the computation; parameters stay float32.

    Raises:
        ValueError: as many stages as widths are needed.

    Example:
        >>> net = ConvNeXt(blocks=(1, 1), widths=(4, 8), classes=3)
        >>> net.init_with_output(jax.random.key(0), jnp.ones((2, 8, 8, 3)))[0].shape
        (2, 3)

    References:
        Liu et al. A ConvNet for the 2020s. CVPR 2022.
        Woo et al. ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders. CVPR
        2023.
    """

    blocks: tuple[Count, ...] = (3, 3, 9, 3)
    widths: tuple[Count, ...] = (96, 192, 384, 768)
    classes: Natural = 1000
    patch: Count = 4
    layer_scale: Finite | None = 1e-6
    response_norm: bool = False
    drop_path: Fraction = 0.0
    epsilon: Positive = 1e-6
    last_epsilon: Positive = 1e-6
    remat: bool = False
    scan: bool = False
    taps: tuple[str, ...] = ()
    dtype: Dtype = None

    @nn.compact
    def __call__(
        self, inputs: jax.Array | Mapping[str, jax.Array], train: bool = False
    ) -> jax.Array:
        check_settings(self)
        image = image_of(inputs)
        check_image_rank(image)
        if len(self.blocks) != len(self.widths):
            raise ValueError(f"{len(self.blocks)} stages of blocks, {len(self.widths)} of widths")
        side = (self.patch, self.patch)
        maps = nn.Conv(
            self.widths[0],
            side,
            strides=self.patch,
            padding="VALID",
            kernel_init=_init,
            dtype=self.dtype,
            name="stem_conv",
        )(image)
        maps = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="stem_norm")(maps)
        maps = Identity(name="stem")(maps)
        gates = self._gates(image.shape[0], train)
        block = {
            "epsilon": self.epsilon,
            "layer_scale": self.layer_scale,
            "response_norm": self.response_norm,
        }
        done = 0
        for index, (blocks, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            maps = ConvNeXtStage(
                blocks,
                width,
                index == 0,
                block,
                self.epsilon,
                self.dtype,
                self.remat,
                self.scan,
                taps_below(self.taps, f"stage_{index + 1}"),
                name=f"stage_{index + 1}",
            )(maps, None if gates is None else gates[done : done + blocks])
            done += blocks
        pooled = maps.mean((1, 2))
        norm = nn.LayerNorm(epsilon=self.last_epsilon, dtype=self.dtype, name="norm")
        pooled = Identity(name="pooled")(norm(pooled))
        if not self.classes:
            return pooled
        wide = jnp.promote_types(pooled.dtype, jnp.float32)
        return nn.Dense(self.classes, dtype=wide, kernel_init=_init, name="head")(pooled)

    def _gates(self, batch: int, train: bool) -> jax.Array | None:
        if not train or self.drop_path == 0.0:
            return None
        survival = 1.0 - jnp.linspace(0.0, self.drop_path, sum(self.blocks))[:, None]
        key = self.make_rng("dropout")
        return jax.random.bernoulli(key, survival, (sum(self.blocks), batch)) / survival

    @nn.nowrap
    def for_taps(self, taps: Iterable[str]) -> ConvNeXt:
        """This network, keeping of its scanned blocks what these taps read.

        Raises:
            ValueError: a block that does not exist, or, scanned, a place inside a block.
        """
        stacks = {f"stage_{number}/": blocks for number, blocks in enumerate(self.blocks, 1)}
        return given_taps(self, taps, stacks)
