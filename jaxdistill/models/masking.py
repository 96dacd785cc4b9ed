"""Patches, their positions, and which of them a network sees."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.models._common import divisors
from jaxdistill.settings import part_of


class Masking(NamedTuple):
    """Which patches stay. One drawing is shared by all networks that must see the same view.

    Attributes:
        keep: int32 [B, K], ids of the visible patches, row by row over the image.
        mask: float32 [B, L], 1 on the removed patches, 0 on the visible ones.
    """

    keep: jax.Array
    mask: jax.Array


def random_masking(key: jax.Array, batch: int, tokens: int, ratio: float) -> Masking:
    """Draws for each image on its own which patches to keep.

    Args:
        key: a JAX random key.
        batch: images B.
        tokens: patches L of an image.
        ratio: the part to remove, in [0, 1); K = int(L (1 - ratio)) patches stay.

    Returns:
        ``Masking(keep [B, K], mask [B, L])``.

    Raises:
        ValueError: a ratio outside [0, 1), or one that keeps no patch.

    Example:
        >>> import jax
        >>> keep, mask = random_masking(jax.random.key(0), batch=2, tokens=16, ratio=0.75)
        >>> keep.shape, mask.sum(axis=1).tolist()
        ((2, 4), [12.0, 12.0])

    References:
        He et al. Masked Autoencoders Are Scalable Vision Learners. CVPR 2022.
    """
    return mask_from_noise(jax.random.uniform(key, (batch, tokens)), ratio)


def mask_from_noise(noise: jax.Array, ratio: float) -> Masking:
    """Keeps the patches with the lowest noise, in the order of the noise.

    Args:
        noise: [B, L].
        ratio: the part to remove, in [0, 1). As in the public code K = int(L (1 - ratio)) is taken
            in floating point, so a ratio of 0.8 leaves 3 of 20 patches, and 0.75 leaves 5.

    Returns:
        ``Masking(keep [B, K], mask [B, L])``.

    Raises:
        ValueError: a ratio outside [0, 1), or one that keeps no patch.

    Example:
        >>> mask_from_noise(jnp.array([[0.9, 0.1, 0.4, 0.2]]), ratio=0.5).keep.tolist()
        [[1, 3]]
    """
    tokens = noise.shape[1]
    if not 0.0 <= ratio < 1.0:
        raise ValueError(f"the mask ratio must be in [0, 1), it is {ratio}")
    visible = int(tokens * (1 - ratio))
    if visible == 0:
        raise ValueError(f"a mask ratio of {ratio} keeps none of {tokens} patches")
    keep = jnp.argsort(noise, axis=1)[:, :visible].astype(jnp.int32)
    return Masking(keep, mask_from_keep(keep, tokens))


def mask_from_keep(keep: jax.Array, tokens: int) -> jax.Array:
    """The mask that belongs to the ids of the visible patches.

    Args:
        keep: int [B, K].
        tokens: patches L of an image.

    Returns:
        float32 [B, L], 1 on the removed patches.

    Example:
        >>> mask_from_keep(jnp.array([[1, 3]]), tokens=4).tolist()
        [[1.0, 0.0, 1.0, 0.0]]
    """
    return jax.vmap(lambda row: jnp.ones(tokens, jnp.float32).at[row].set(0.0))(keep)


def least_redundant(tokens: jax.Array, share: float, front: int = 1) -> jax.Array:
    """The tokens that differ most from the others: what the rest says again may be dropped.

    A patch is the more redundant, the larger the cosine between its token and the mean of all
    patches' tokens is. Of n patches the int(share n) least redundant stay, and at least one, in the
    order in which they came; all learned tokens in front stay.

    Args:
        tokens: [B, front + n, D].
        share: of the patches that stays, in (0, 1].
        front: how many learned tokens there are in front.

    Returns:
        int32 [B, front + K], the places of those that stay.

    Example:
        >>> tokens = jnp.array([[[9.0, 9.0], [1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.2]]])
        >>> least_redundant(tokens, share=0.5).tolist()
        [[0, 1, 3]]
    """
    patches = tokens[:, front:].astype(jnp.promote_types(tokens.dtype, jnp.float32))
    count = patches.shape[1]
    kept = max(part_of(count, share), 1)
    mean = patches.mean(axis=1, keepdims=True)
    norms = jnp.linalg.norm(patches, axis=-1) * jnp.linalg.norm(mean, axis=-1)
    cosine = jnp.sum(patches * mean, axis=-1) / jnp.maximum(norms, jnp.finfo(norms.dtype).tiny)
    stay = jnp.sort(jnp.argsort(cosine, axis=1)[:, :kept], axis=1).astype(jnp.int32) + front
    learned = jnp.broadcast_to(jnp.arange(front, dtype=jnp.int32), (tokens.shape[0], front))
    return jax.lax.stop_gradient(jnp.concatenate([learned, stay], axis=1))


def patch_grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of patches in an image.

    Raises:
        ValueError: the image cannot be divided into such patches.

    Example:
        >>> patch_grid(28, 32, patch=4)
        (7, 8)
    """
    if height % patch or width % patch:
        raise ValueError(
            f"an image of {height}x{width} does not divide into patches of {patch}: possible are "
            f"{divisors(height, width)}"
        )
    return height // patch, width // patch


def patchify(images: jax.Array, patch: int) -> jax.Array:
    """Cuts images into patches, row by row.

    Args:
        images: [B, H, W, C].
        patch: side P in pixels.

    Returns:
        [B, L, P*P*C] with L = (H/P)(W/P); inside a patch rows come first, channels last.

    Raises:
        ValueError: not four axes, or H or W not divisible by the patch.

    Example:
        >>> patchify(jnp.zeros((2, 8, 12, 3)), patch=4).shape
        (2, 6, 48)
    """
    if images.ndim != 4:
        raise ValueError(f"images must be [B, H, W, C], these have the shape {images.shape}")
    batch, height, width, channels = images.shape
    rows, columns = patch_grid(height, width, patch)
    pieces = images.reshape(batch, rows, patch, columns, patch, channels)
    pieces = pieces.transpose(0, 1, 3, 2, 4, 5)
    return pieces.reshape(batch, rows * columns, patch * patch * channels)


def unpatchify(patches: jax.Array, patch: int, height: int, width: int, channels: int) -> jax.Array:
    """Puts patches together again: the inverse of ``patchify``.

    Args:
        patches: [B, L, P*P*C].
        patch: side P in pixels.
        height: H of the images.
        width: W of the images.
        channels: C of the images.

    Returns:
        [B, H, W, C].

    Raises:
        ValueError: the patches do not make such images.

    Example:
        >>> unpatchify(jnp.zeros((2, 6, 48)), 4, height=8, width=12, channels=3).shape
        (2, 8, 12, 3)
    """
    rows, columns = patch_grid(height, width, patch)
    expected = (rows * columns, patch * patch * channels)
    if patches.ndim != 3 or patches.shape[1:] != expected:
        raise ValueError(
            f"images of {height}x{width}x{channels} have patches [B, {expected[0]}, {expected[1]}],"
            f" these have the shape {patches.shape}"
        )
    pieces = patches.reshape(-1, rows, columns, patch, patch, channels)
    return pieces.transpose(0, 1, 3, 2, 4, 5).reshape(-1, height, width, channels)


def sincos_positions(width: int, grid: tuple[int, int], cls_token: bool = False) -> np.ndarray:
    """Fixed positions of patches: sines and cosines of column and row.

    The layout is that of the published MAE. A position has four quarters: sine of the column,
    cosine of the column, sine of the row, cosine of the row, each at width/4 frequencies
    10000^(-i / (width/4)). (The public code calls the first half ``emb_h``, but its mesh grid puts
    the column there.)

    Args:
        width: of the tokens, divisible by four.
        grid: rows and columns of patches.
        cls_token: put a row of zeros in front, for the class token.

    Returns:
        float32 [L, width], or [1 + L, width] with the class token.

    Raises:
        ValueError: the width is not divisible by four.

    Example:
        >>> sincos_positions(8, (2, 3), cls_token=True).shape
        (7, 8)

    References:
        He et al. Masked Autoencoders Are Scalable Vision Learners. CVPR 2022.
    """
    if width % 4:
        raise ValueError(f"2-D sine and cosine positions need a width divisible by 4, not {width}")
    rows, columns = grid
    row, column = np.divmod(np.arange(rows * columns), columns)
    frequency = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    angles = [axis[:, None] * frequency[None, :] for axis in (column, row)]
    halves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    positions = np.concatenate(halves, axis=1).astype(np.float32)
    if cls_token:
        positions = np.concatenate([np.zeros((1, width), np.float32), positions])
    return positions


class Reconstruction(NamedTuple):
    """Three batches of pictures [B, H, W, C]."""

    original: jax.Array
    masked: jax.Array
    reconstructed: jax.Array


def reconstruction(
    pixels: jax.Array,
    image: jax.Array,
    mask: jax.Array,
    patch: int,
    *,
    normalized: bool = False,
    blank: float = 0.5,
) -> Reconstruction:
    """Pictures of what a masked autoencoder saw and made of it.

    Args:
        pixels: predicted patches [B, L, P*P*C].
        image: the originals [B, H, W, C], floating point.
        mask: [B, L], 1 on the removed patches (``mask_from_keep`` makes it from ids).
        patch: side P in pixels.
        normalized: the predictions are in units of each patch's own mean and unbiased standard
            deviation (targets normalised per patch), and are put back into pixels here.
        blank: the value shown on removed patches.

    Returns:
        ``Reconstruction(original, masked, reconstructed)``; visible patches are the original's in
        all three.

    Raises:
        ValueError: the shapes do not belong to one another.

    Example:
        >>> image = jnp.ones((1, 4, 4, 1))
        >>> pixels, mask = jnp.zeros((1, 4, 4)), jnp.array([[1.0, 0.0, 0.0, 0.0]])
        >>> reconstruction(pixels, image, mask, patch=2).reconstructed[0, :, :, 0].tolist()
        [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """
    patches = patchify(image, patch)
    if pixels.shape != patches.shape or mask.shape != patches.shape[:2]:
        raise ValueError(
            f"images of {image.shape} need pixels {patches.shape} and a mask {patches.shape[:2]}, "
            f"not {pixels.shape} and {mask.shape}"
        )
    if normalized:
        variance = patches.var(axis=-1, keepdims=True, ddof=1)
        pixels = pixels * jnp.sqrt(variance + 1e-6) + patches.mean(axis=-1, keepdims=True)
    removed = mask[:, :, None] > 0
    _, height, width, channels = image.shape

    def picture(content: jax.Array | float) -> jax.Array:
        shown = jnp.where(removed, content, patches)
        return unpatchify(shown, patch, height, width, channels)

    return Reconstruction(image, picture(blank), picture(pixels))
