"""The vision transformer, on all patches of an image or on some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.models._common import Identity, check_image_rank, image_of
from jaxdistill.models.blocks import (
    Block,
    Mlp,
    check_heads,
    given_taps,
    run_blocks,
    taps_below,
)
from jaxdistill.models.masking import patch_grid, patchify, sincos_positions

_SIZES = {
    "tiny": {"width": 192, "depth": 12, "heads": 3},
    "small": {"width": 384, "depth": 12, "heads": 6},
    "base": {"width": 768, "depth": 12, "heads": 12},
    "large": {"width": 1024, "depth": 24, "heads": 16},
    "huge": {"width": 1280, "depth": 32, "heads": 16},
}


_POOLS = ("cls", "mean", "cls_mean", "map")
POSITIONS = ("sincos", "learned", "fixed")


def vit_size(name: str) -> dict[str, int]:
    """Width, depth and heads of a published size.

    Args:
        name: ``"tiny"``, ``"small"``, ``"base"``, ``"large"`` or ``"huge"``.

    Returns:
        A new dict to unpack into ``ViT`` or ``Encoder``.

    Raises:
        ValueError: another name.

    Example:
        >>> ViT(patch=16, **vit_size("small")).heads
        6

    References:
        Dosovitskiy et al. An Image is Worth 16x16 Words. ICLR 2021.
        Touvron et al. Training data-efficient image transformers. ICML 2021.
    """
    if name not in _SIZES:
        raise ValueError(unknown("ViT size", name, _SIZES))
    return dict(_SIZES[name])


def read_inputs(
    inputs: jax.Array | Mapping[str, jax.Array],
) -> tuple[jax.Array, jax.Array | None]:
    """Image and visible patches from an array or a dict ``{"image", "keep"}``."""
    keep = inputs.get("keep") if isinstance(inputs, Mapping) else None
    image = image_of(inputs)
    check_image_rank(image)
    return image, keep


def check_keep(keep: jax.Array, batch: int, length: int) -> None:
    """Refuses ids of visible patches that do not fit the images."""
    if keep.ndim != 2 or keep.shape[0] != batch or not 1 <= keep.shape[1] <= length:
        raise ValueError(
            f"keep must be [{batch}, K] with 1 <= K <= {length}: its shape is {keep.shape}"
        )
    if not jnp.issubdtype(keep.dtype, jnp.integer):
        raise ValueError(f"keep must hold integer ids of patches, it holds {keep.dtype}")


def positions_of(
    owner: nn.Module, kind: str, width: int, grid: tuple[int, int], front: int
) -> jax.Array:
    """Positions [front + L, D] inside the compact method of their owner, by ``POSITIONS``."""
    if kind == "learned":
        init = nn.initializers.truncated_normal(0.02)
        return owner.param("pos_embed", init, (front + grid[0] * grid[1], width))
    if kind == "sincos":
        return jnp.asarray(sincos_positions(width, grid, bool(front)))
    found = owner.variable(
        "constants", "pos_embed", lambda: jnp.asarray(sincos_positions(width, grid, bool(front)))
    )
    return found.value


class AttentionPool(nn.Module):
    """One learned query that looks at all tokens, and an MLP with a residual (SigLIP).

    Parameters: ``probe`` [1, 1, D], ``qkv_kernel`` [D, 3D], ``qkv_bias`` [3D]; children ``proj``,
    ``norm`` and ``mlp``.

    Attributes:
        heads, mlp_ratio, dtype, epsilon, activation: see ``Block``.

    References:
        Zhai et al. Scaling Vision Transformers. CVPR 2022.
    """

    heads: int
    mlp_ratio: float = 4.0
    dtype: Any = None
    epsilon: float = 1e-6
    activation: str = "gelu"

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Tokens [B, N, D] to [B, D]."""
        batch, _, width = tokens.shape
        xavier = nn.initializers.xavier_uniform()
        probe = self.param("probe", xavier, (1, 1, width))
        kernel = self.param("qkv_kernel", xavier, (width, 3 * width))
        bias = self.param("qkv_bias", nn.initializers.zeros, (3 * width,))
        probe, kernel, bias = (x.astype(tokens.dtype) for x in (probe, kernel, bias))
        query = probe @ kernel[:, :width] + bias[None, None, :width]
        query = jnp.broadcast_to(query, (batch, 1, width))
        both = tokens @ kernel[:, width:] + bias[None, None, width:]
        query, key, value = (
            x.reshape(batch, -1, self.heads, width // self.heads)
            for x in (query, *jnp.split(both, 2, axis=-1))
        )
        mixed = jax.nn.dot_product_attention(query, key, value).reshape(batch, 1, width)
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=xavier)
        mixed = dense(width, name="proj")(mixed)
        normed = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(mixed)
        mlp = Mlp(self.mlp_ratio, self.dtype, self.activation, name="mlp")
        return (mixed + mlp(normed))[:, 0]


class Encoder(nn.Module):
    """Patches to tokens: linear embedding, positions, class token, blocks, final norm.

    Linear layers start Xavier-uniform with zero biases, as in the MAE. Removed patches are dropped
    before the embedding, so a network costs what it sees. Ids in ``keep`` must be distinct and
    below L; tokens of ids beyond it are NaN.

    Attributes:
        patch: side of a patch in pixels.
        width: of the tokens, D.
        depth: number of blocks.
        heads: attention heads, a divisor of the width.
        mlp_ratio: hidden units of a block's MLP per unit of width.
        class_token: put a learned token in front.
        positions: ``"sincos"`` (computed), ``"learned"`` (for one image size), or ``"fixed"``:
            an array that is never trained and starts as sines and cosines, in the collection
            ``constants``, as a published MAE has it.
        drop_path: stochastic depth: the rate of the last block, growing linearly from 0 at the
            first; draws from the ``"dropout"`` stream when ``train``.
        dtype: of the computation; parameters stay float32.
        remat: recompute the inside of each block in the backward pass, to save memory.
        scan: run the blocks as a loop over stacked parameters (see ``stack_blocks``), which keeps
            compilation short.
        taps: blocks at which the loop is split; set by ``for_taps``.
        epsilon, activation, layer_scale: of the blocks, see ``Block``.
        distillation_token: put a second learned token behind the class token (DeiT).
        registers: learned tokens without positions behind those in front (DINOv2).
        front_positions: whether the learned tokens in front have positions too (not in timm's
            DINOv2 with registers).
        patch_bias: whether the embedding of patches has a bias (not in CLIP).
        pre_norm: norm the tokens before the first block too (CLIP).

    References:
        Dosovitskiy et al. An Image is Worth 16x16 Words. ICLR 2021.
        Huang et al. Deep Networks with Stochastic Depth. ECCV 2016.
        Touvron et al. Training data-efficient image transformers. ICML 2021.
        Darcet et al. Vision Transformers Need Registers. ICLR 2024.
    """

    patch: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    class_token: bool = True
    positions: str = "sincos"
    drop_path: float = 0.0
    dtype: Any = None
    remat: bool = False
    scan: bool = False
    taps: tuple[str, ...] = ()
    epsilon: float = 1e-6
    activation: str = "gelu"
    layer_scale: float | None = None
    distillation_token: bool = False
    registers: int = 0
    front_positions: bool = True
    patch_bias: bool = True
    pre_norm: bool = False

    @nn.compact
    def __call__(
        self, image: jax.Array, keep: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Normed tokens [B, 1 + K, D] of the images [B, H, W, C], all learned ones in front.

        Args:
            image: floating point.
            keep: int [B, K], ids of the visible patches; None: all L, in order.
            train: use stochastic depth.
        """
        self._check(image, keep)
        batch, height, width, _ = image.shape
        patches = patchify(image, self.patch)
        positions = self._positions(patch_grid(height, width, self.patch))
        offset = self._front_places
        if keep is None:
            places = positions[None, offset:]
        else:
            patches = jnp.take_along_axis(patches, keep[:, :, None], axis=1)
            places = jnp.take(positions[offset:], keep, axis=0)

        tokens = nn.Dense(
            self.width,
            use_bias=self.patch_bias,
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            name="patch_embed",
        )(patches)
        tokens = tokens + places.astype(tokens.dtype)
        normal = nn.initializers.normal(0.02)
        front = [self.param(name, normal, (1, 1, self.width)) for name in self._front]
        if self.front_positions:
            front = [one + positions[None, i : i + 1] for i, one in enumerate(front)]
        if self.registers:
            front.append(self.param("registers", normal, (1, self.registers, self.width)))
        if front:
            learned = jnp.concatenate(front, axis=1).astype(tokens.dtype)
            learned = jnp.broadcast_to(learned, (batch, *learned.shape[1:]))
            tokens = jnp.concatenate([learned, tokens], axis=1)
        norm = partial(nn.LayerNorm, epsilon=self.epsilon, dtype=self.dtype)
        if self.pre_norm:
            tokens = norm(name="pre_norm")(tokens)

        tokens = run_blocks(
            self,
            Block(
                self.heads,
                self.mlp_ratio,
                self.dtype,
                self.epsilon,
                self.activation,
                self.layer_scale,
                parent=None,
            ),
            self.depth,
            tokens,
            self._gates(batch, train),
            scan=self.scan,
            remat=self.remat,
            taps=self.taps,
        )
        return norm(name="norm")(tokens)

    @property
    def _front(self) -> list[str]:
        """The learned tokens in front, but for registers."""
        names = {"cls_token": self.class_token, "distillation_token": self.distillation_token}
        return [name for name, there in names.items() if there]

    @property
    def _front_places(self) -> int:
        """How many of them have positions."""
        return len(self._front) if self.front_positions else 0

    @nn.nowrap
    def for_taps(self, taps: Iterable[str]) -> Encoder:
        """This encoder with its loop split so that it can give these taps.

        Unrolled encoders need no change and come back as they are.

        Args:
            taps: tap paths relative to the encoder, ``block_3`` or others.

        Raises:
            ValueError: a block that does not exist, or, scanned, a place inside a block.
        """
        return given_taps(self, taps, {"": self.depth})

    def _check(self, image: jax.Array, keep: jax.Array | None) -> None:
        check_image_rank(image)
        check_heads(self.width, self.heads)
        if self.positions not in POSITIONS:
            raise ValueError(unknown("positions", self.positions, POSITIONS))
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"drop_path must be in [0, 1), it is {self.drop_path}")
        if self.distillation_token and self.positions != "learned":
            raise ValueError("a distillation token needs positions='learned'")
        rows, columns = patch_grid(image.shape[1], image.shape[2], self.patch)
        if keep is not None:
            check_keep(keep, image.shape[0], rows * columns)

    def _positions(self, grid: tuple[int, int]) -> jax.Array:
        return positions_of(self, self.positions, self.width, grid, self._front_places)

    def _gates(self, batch: int, train: bool) -> jax.Array | None:
        if not train or self.drop_path == 0.0:
            return None
        survival = 1.0 - jnp.linspace(0.0, self.drop_path, self.depth)[:, None, None]
        key = self.make_rng("dropout")
        return jax.random.bernoulli(key, survival, (self.depth, 2, batch)) / survival


class ViT(nn.Module):
    """A vision transformer with a linear head.

    Inputs are images [B, H, W, C] or a dict ``{"image": ..., "keep": int [B, K]}`` with the ids of
    the patches to see. The output is [B, classes], float32. Tap paths: ``encoder/block_0``, ...
    ([B, 1 + K, D], before the final norm), ``encoder`` (after it), ``pooled`` [B, D] and ``head``;
    with ``scan=False`` also inside blocks, such as ``encoder/block_0/attn/qkv`` [B, 1 + K, 3D]
    (see ``split_qkv``).

    With a distillation token a second head ``head_distilled`` reads it, and the output is the mean
    of the two.

    The encoder is that of ``MAE``: an MAE's ``params["encoder"]`` may take the place of this one's.

    Attributes:
        patch: side of a patch in pixels.
        width: of the tokens, D.
        depth: number of blocks.
        heads: attention heads.
        classes: outputs of the head; with 0 there is none, and the output is what is pooled.
        pool: of normed tokens, ``"cls"`` (the class token), ``"mean"`` (over the visible patches),
            ``"cls_mean"`` (both, one behind the other) or ``"map"`` (see ``AttentionPool``).
        head_bias: whether the head has a bias (not where it is a projection, as in CLIP).
        mlp_ratio, class_token, positions, drop_path, dtype, remat, scan, taps, epsilon, activation,
            layer_scale, distillation_token, registers, front_positions, patch_bias, pre_norm: see
            ``Encoder``.

    Raises:
        ValueError: an unknown option, heads that do not divide the width, images that do not
            divide into patches, or ``keep`` of a wrong shape.

    Example:
        >>> net = ViT(patch=4, width=8, depth=2, heads=2, classes=3)
        >>> inputs = {"image": jnp.ones((2, 8, 8, 1)), "keep": jnp.array([[0], [3]])}
        >>> out, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), inputs)
        >>> out.shape, variables["params"]["encoder"]["patch_embed"]["kernel"].shape
        ((2, 3), (16, 8))

    References:
        Dosovitskiy et al. An Image is Worth 16x16 Words. ICLR 2021.
    """

    patch: int
    width: int
    depth: int
    heads: int
    classes: int = 1000
    pool: str = "cls"
    mlp_ratio: float = 4.0
    class_token: bool = True
    positions: str = "sincos"
    drop_path: float = 0.0
    dtype: Any = None
    remat: bool = False
    scan: bool = False
    taps: tuple[str, ...] = ()
    epsilon: float = 1e-6
    activation: str = "gelu"
    layer_scale: float | None = None
    distillation_token: bool = False
    registers: int = 0
    front_positions: bool = True
    patch_bias: bool = True
    pre_norm: bool = False
    head_bias: bool = True

    @nn.compact
    def __call__(
        self, inputs: jax.Array | Mapping[str, jax.Array], train: bool = False
    ) -> jax.Array:
        if self.pool not in _POOLS:
            raise ValueError(unknown("pool", self.pool, _POOLS))
        if "cls" in self.pool and not self.class_token:
            raise ValueError(f"pool={self.pool!r} needs class_token=True")
        image, keep = read_inputs(inputs)
        tokens = Encoder(
            patch=self.patch,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            class_token=self.class_token,
            positions=self.positions,
            drop_path=self.drop_path,
            dtype=self.dtype,
            remat=self.remat,
            scan=self.scan,
            taps=taps_below(self.taps, "encoder"),
            epsilon=self.epsilon,
            activation=self.activation,
            layer_scale=self.layer_scale,
            distillation_token=self.distillation_token,
            registers=self.registers,
            front_positions=self.front_positions,
            patch_bias=self.patch_bias,
            pre_norm=self.pre_norm,
            name="encoder",
        )(image, keep, train)
        front = int(self.class_token) + int(self.distillation_token) + self.registers
        if self.pool == "map":
            pooled = AttentionPool(
                self.heads,
                self.mlp_ratio,
                self.dtype,
                self.epsilon,
                self.activation,
                name="pool_attention",
            )(tokens)
        else:
            pooled = tokens[:, 0] if "cls" in self.pool else tokens[:, front:].mean(axis=1)
        if self.pool == "cls_mean":
            pooled = jnp.concatenate([pooled, tokens[:, front:].mean(axis=1)], axis=-1)
        pooled = Identity(name="pooled")(pooled)
        if not self.classes:
            return pooled
        head = partial(
            nn.Dense,
            self.classes,
            use_bias=self.head_bias,
            dtype=jnp.promote_types(pooled.dtype, jnp.float32),
            kernel_init=nn.initializers.truncated_normal(0.02),
        )
        if self.distillation_token:
            both = head(name="head")(pooled), head(name="head_distilled")(tokens[:, 1])
            return (both[0] + both[1]) / 2
        return head(name="head")(pooled)

    @nn.nowrap
    def for_taps(self, taps: Iterable[str]) -> ViT:
        """This network with its loop over blocks split so that it can give these taps.

        Networks of unrolled blocks need no change and come back as they are.

        Args:
            taps: tap paths, such as ``encoder/block_3``.

        Raises:
            ValueError: a block that does not exist, or, scanned, a place inside a block.
        """
        return given_taps(self, taps, {"encoder/": self.depth})
