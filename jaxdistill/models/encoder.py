"""The encoder of images: patches to tokens, and the settings that nets around it share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.models._common import Identity, check_image_rank, check_settings, image_of
from jaxdistill.models.blocks import Stack, given_taps
from jaxdistill.models.masking import least_redundant, patch_grid, patchify, sincos_positions
from jaxdistill.settings import Count, Fraction, Natural, Range

Positions = Literal["sincos", "learned", "fixed"]


class PatchStack(Stack, kw_only=True):
    """A stack of blocks on the patches of an image: settings of nets that hold one.

    Attributes:
        patch: side of a patch in pixels, a divisor of the sides of the image.
        positions: ``"sincos"`` (computed), ``"learned"`` (for one image size), or ``"fixed"``:
            an array that is never trained and starts as sines and cosines, in the collection
            ``constants``, as a published MAE has it.
        drop_path: stochastic depth: the rate of the last block, growing linearly from 0 at the
            first; draws from the ``"dropout"`` stream when ``train``.
        width, depth, heads, mlp_ratio, dtype, remat, scan, taps, epsilon, activation, layer_scale:
            see ``models.blocks.Stack``.
    """

    patch: Count
    positions: Positions = "sincos"
    drop_path: Fraction = 0.0


class EncoderStack(PatchStack, kw_only=True):
    """Settings of an ``Encoder``, and of nets that hold one.

    Attributes:
        class_token: put a learned token in front.
        distillation_token: put a second learned token behind the class token (DeiT).
        registers: learned tokens without positions behind those in front (DINOv2).
        front_positions: whether the learned tokens in front have positions too (not in timm's
            DINOv2 with registers).
        patch_bias: whether the embedding of patches has a bias (not in CLIP).
        pre_norm: norm the tokens before the first block too (CLIP).
        drop_before: blocks before which, in training, patches are dropped that others resemble
            (see ``models.masking.least_redundant``).
        keep_share: how many of the patches that are left stay each time.
        patch, positions, drop_path: see ``PatchStack``.
        width, depth, heads, mlp_ratio, dtype, remat, scan, taps, epsilon, activation, layer_scale:
            see ``models.blocks.Stack``.
    """

    class_token: bool = True
    distillation_token: bool = False
    registers: Natural = 0
    front_positions: bool = True
    patch_bias: bool = True
    pre_norm: bool = False
    drop_before: tuple[Natural, ...] = ()
    keep_share: Annotated[float, Range(0, 1, above=True)] = 0.9


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
    owner: nn.Module, kind: Positions, width: int, grid: tuple[int, int], front: int
) -> jax.Array:
    """Positions [front + L, D] inside the compact method of their owner, by their kind."""
    if kind == "learned":
        init = nn.initializers.truncated_normal(0.02)
        return owner.param("pos_embed", init, (front + grid[0] * grid[1], width))
    if kind == "sincos":
        return jnp.asarray(sincos_positions(width, grid, bool(front)))
    found = owner.variable(
        "constants", "pos_embed", lambda: jnp.asarray(sincos_positions(width, grid, bool(front)))
    )
    return found.value


class Encoder(EncoderStack):
    """Patches to tokens: linear embedding, positions, class token, blocks, final norm.

    Linear layers start Xavier-uniform with zero biases, as in the MAE. Removed patches are dropped
    before the embedding, so a network costs what it sees. Ids in ``keep`` must be distinct and
    below L; tokens of ids beyond it are NaN.

    A distillation token has a position of its own if positions are learned, and none if they are
    not: those of a published MAE, of the class token and all patches, stay as they are.

    Where tokens are dropped in training, a place ``kept_i`` before block i gives int [B, N], the
    places of those that are left among all that came in, the learned ones in front included.

    Its settings are those of ``EncoderStack``.

    References:
        Dosovitskiy et al. An Image is Worth 16x16 Words. ICLR 2021.
        Huang et al. Deep Networks with Stochastic Depth. ECCV 2016.
        Touvron et al. Training data-efficient image transformers. ICML 2021.
        Darcet et al. Vision Transformers Need Registers. ICLR 2024.
        Shi et al. Hybrid Distillation: Connecting Masked Autoencoders with Contrastive Learners.
        ICLR 2024 (dropped tokens).
    """

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
        for i in range(offset):
            front[i] = front[i] + positions[None, i : i + 1]
        if self.registers:
            front.append(self.param("registers", normal, (1, self.registers, self.width)))
        if front:
            learned = jnp.concatenate(front, axis=1).astype(tokens.dtype)
            learned = jnp.broadcast_to(learned, (batch, *learned.shape[1:]))
            tokens = jnp.concatenate([learned, tokens], axis=1)
        norm = partial(nn.LayerNorm, epsilon=self.epsilon, dtype=self.dtype)
        if self.pre_norm:
            tokens = norm(name="pre_norm")(tokens)

        before = self._drops(tokens.shape[1]) if train else None
        tokens = self.run_blocks(tokens, self._gates(batch, train), before=before)
        return norm(name="norm")(tokens)

    @property
    def _front(self) -> list[str]:
        """The learned tokens in front, but for registers."""
        names = {"cls_token": self.class_token, "distillation_token": self.distillation_token}
        return [name for name, there in names.items() if there]

    @property
    def _front_places(self) -> int:
        """How many of them have positions."""
        if not self.front_positions:
            return 0
        # Positions that are published are of the class token and the patches.
        return len(self._front) if self.positions == "learned" else int(self.class_token)

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
        check_settings(self)
        check_image_rank(image)
        for block in self.drop_before:
            if block >= self.depth:
                raise ValueError(
                    f"drop_before={self.drop_before} names block {block}, and blocks are 0 to "
                    f"{self.depth - 1}"
                )
        rows, columns = patch_grid(image.shape[1], image.shape[2], self.patch)
        if keep is not None:
            check_keep(keep, image.shape[0], rows * columns)

    def _positions(self, grid: tuple[int, int]) -> jax.Array:
        return positions_of(self, self.positions, self.width, grid, self._front_places)

    def _drops(self, length: int) -> dict[int, Callable[[jax.Array], jax.Array]]:
        """What drops tokens before some blocks; how they compose: each keeps of what is left."""
        front = len(self._front) + self.registers
        left = jnp.arange(length, dtype=jnp.int32)[None]

        def drop(block: int, tokens: jax.Array) -> jax.Array:
            nonlocal left
            own = least_redundant(tokens, self.keep_share, front)
            left = jnp.take_along_axis(jnp.broadcast_to(left, tokens.shape[:2]), own, axis=1)
            left = Identity(name=f"kept_{block}")(left)
            return jnp.take_along_axis(tokens, own[:, :, None], axis=1)

        return {block: partial(drop, block) for block in self.drop_before}

    def _gates(self, batch: int, train: bool) -> jax.Array | None:
        if not train or self.drop_path == 0.0:
            return None
        survival = 1.0 - jnp.linspace(0.0, self.drop_path, self.depth)[:, None, None]
        key = self.make_rng("dropout")
        return jax.random.bernoulli(key, survival, (self.depth, 2, batch)) / survival
