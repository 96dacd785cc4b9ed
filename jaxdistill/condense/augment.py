r"""Differentiable augmentation of synthetic images, and of the real ones, alike.

One family of changes is drawn for the whole batch. Its numbers are drawn for every image, or once
for all of them (siamese). What was drawn is a tree of arrays, so that it can be applied to
synthetic and real images alike, and differentiated with respect to the images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown

Family = Literal["color", "crop", "cutout", "flip", "scale", "rotate"]
# Zhao and Bilen's numbers.
BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5
CROP, CUTOUT, SCALE, ROTATION = 0.125, 0.5, 1.2, 15.0


class Draw(NamedTuple):
    """What was drawn: which family (its place in the list), and five numbers in [0, 1) an image.

    Attributes:
        family: int32.
        uniform: ``[B, 5]``, or ``[1, 5]`` for all images alike.
    """

    family: jax.Array
    uniform: jax.Array


class Augmentation(NamedTuple):
    """Made by :func:`siamese`.

    Attributes:
        draw: ``(key, count) -> Draw``; a count of 1 is one draw for however many images.
        apply: ``(Draw, images [B, H, W, C]) -> images``.
    """

    draw: Callable[[jax.Array, int], Draw]
    apply: Callable[[Draw, jax.Array], jax.Array]


def siamese(families: Sequence[Family]) -> Augmentation:
    """Differentiable augmentation by one of some families, uniformly.

    Args:
        families: ``"color"`` (brightness, saturation, contrast), ``"crop"`` (a shift by up to an
            eighth of the image), ``"cutout"`` (a black square of half its side), ``"flip"``,
            ``"scale"`` (each axis by 1/1.2 to 1.2), ``"rotate"`` (by up to 15 degrees). With none,
            images stay as they are.

    Raises:
        ValueError: for an unknown family.

    Example:
        >>> augmentation = siamese(("flip", "crop"))
        >>> drawn = augmentation.draw(jax.random.key(0), 1)
        >>> augmentation.apply(drawn, jnp.ones((3, 8, 8, 1))).shape
        (3, 8, 8, 1)

    References:
        Zhao and Bilen, Dataset Condensation with Differentiable Siamese Augmentation, ICML 2021
    """
    if isinstance(families, str):
        raise TypeError(f"families is a sequence of names: write ({families!r},)")
    for name in families:
        if name not in FAMILIES:
            raise ValueError(unknown("family of augmentations", name, FAMILIES))
    changes = [jax.vmap(FAMILIES[name]) for name in families]

    def draw(key, count):
        key_family, key_uniform = jax.random.split(key)
        family = jax.random.randint(key_family, (), 0, max(len(changes), 1))
        return Draw(family, jax.random.uniform(key_uniform, (count, 5)))

    def apply(drawn, images):
        if not changes:
            return images
        uniform = jnp.broadcast_to(drawn.uniform, (images.shape[0], 5)).astype(images.dtype)
        if len(changes) == 1:
            return changes[0](uniform, images)
        return jax.lax.switch(drawn.family, changes, uniform, images)

    return Augmentation(draw, apply)


def _color(uniform: jax.Array, image: jax.Array) -> jax.Array:
    image = image + (uniform[0] - 0.5) * BRIGHTNESS
    grey = image.mean(-1, keepdims=True)
    image = (image - grey) * (uniform[1] * SATURATION) + grey
    mean = image.mean(keepdims=True)
    return (image - mean) * (uniform[2] + CONTRAST) + mean


def _crop(uniform: jax.Array, image: jax.Array) -> jax.Array:
    height, width, _ = image.shape
    tall, wide = (int(side * CROP + 0.5) for side in (height, width))
    down = jnp.floor(uniform[0] * (2 * tall + 1)).astype(jnp.int32)
    across = jnp.floor(uniform[1] * (2 * wide + 1)).astype(jnp.int32)
    padded = jnp.pad(image, ((tall, tall), (wide, wide), (0, 0)))
    return jax.lax.dynamic_slice(padded, (down, across, jnp.zeros_like(down)), image.shape)


def _cutout(uniform: jax.Array, image: jax.Array) -> jax.Array:
    def inside(side, u):
        size = int(side * CUTOUT + 0.5)
        centre = jnp.floor(u * (side + 1 - size % 2)).astype(jnp.int32)
        first = centre - size // 2
        place = jnp.arange(side)
        return (place >= first) & (place < first + size)

    rows, columns = inside(image.shape[0], uniform[0]), inside(image.shape[1], uniform[1])
    hole = rows[:, None] & columns[None, :]
    return jnp.where(hole[..., None], 0, image)


def _flip(uniform: jax.Array, image: jax.Array) -> jax.Array:
    return jnp.where(uniform[0] < 0.5, image[:, ::-1], image)


def _scale(uniform: jax.Array, image: jax.Array) -> jax.Array:
    down, across = (uniform[i] * (SCALE - 1 / SCALE) + 1 / SCALE for i in (0, 1))
    none = jnp.zeros_like(down)
    return _resampled(image, down, none, none, across)


def _rotate(uniform: jax.Array, image: jax.Array) -> jax.Array:
    angle = (uniform[0] - 0.5) * 2 * ROTATION * jnp.pi / 180
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _resampled(image, cos, sin, -sin, cos)


def _resampled(image: jax.Array, yy: Any, yx: Any, xy: Any, xx: Any) -> jax.Array:
    """The image read at linearly moved places about its centre, bilinear, zeros outside; the
    centres of its corner pixels are at -1 and 1."""
    height, width, _ = image.shape
    y, x = jnp.meshgrid(
        *(jnp.linspace(-1, 1, side, dtype=image.dtype) for side in (height, width)), indexing="ij"
    )
    rows = (yy * y + yx * x + 1) / 2 * (height - 1)
    columns = (xy * y + xx * x + 1) / 2 * (width - 1)

    def channel(plane):
        return jax.scipy.ndimage.map_coordinates(plane, [rows, columns], order=1, mode="constant")

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)


FAMILIES: dict[Family, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}
