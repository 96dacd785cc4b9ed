"""Views of images, drawn inside jit from keys, so that eight bytes replay a view.

An operation is a function ``(key, image [H, W, C]) -> image``. :func:`views` applies operations to
a batch, every example from its own key: a view depends on its key and image alone, never on its
place in the batch. :func:`seeds_of` turns keys into two integers each and :func:`keys_of` turns
them back.

Example:
    >>> draw = views(random_crop(padding=4), flip(), normalise(mean=[0.5], std=[0.25]))
    >>> keys = view_keys(jax.random.key(0), 3)
    >>> images = jax.random.uniform(jax.random.key(1), (3, 8, 8, 1))
    >>> again = draw(keys_of(seeds_of(keys))[1:2], images[1:2])
    >>> bool((draw(keys, images)[1] == again[0]).all())
    True
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from jaxdistill.data.mixing import Mixed, cutmix, mixup, mixup_or_cutmix
from jaxdistill.data.operations import (
    Operation,
    coarse_exp,
    inside_box,
    keys_of,
    ordered_sum,
    resample,
    seeds_of,
    to_float,
    view_keys,
    views,
)
from jaxdistill.settings import (
    Count,
    Finite,
    Natural,
    NonNegative,
    Positive,
    Range,
    Share,
    checked,
)

__all__ = [
    "Mixed",
    "Operation",
    "centre_crop",
    "color_jitter",
    "cutmix",
    "flip",
    "gaussian_blur",
    "greyscale",
    "keys_of",
    "mixup",
    "mixup_or_cutmix",
    "normalise",
    "random_crop",
    "random_erasing",
    "random_resized_crop",
    "resize",
    "seeds_of",
    "shift",
    "solarise",
    "sometimes",
    "to_float",
    "view_keys",
    "views",
]

_HIGHEST = jax.lax.Precision.HIGHEST
AboveNothing = Annotated[float, Range(0, 1, above=True)]  # a share of the area


def _ordered(name: str, **bounds: tuple[float, float]) -> None:
    for key, (low, high) in bounds.items():
        if low > high:
            raise ValueError(f"{name}: {key}={(low, high)} must go from a lower to a higher number")


def sometimes(probability: float, operation: Operation) -> Operation:
    """An operation that keeps the shape, applied to that share of the images."""

    def apply(key, image):
        key_whether, key_operation = jax.random.split(key)
        changed = operation(key_operation, image)
        return jnp.where(jax.random.bernoulli(key_whether, probability), changed, image)

    return apply


@checked
def random_resized_crop(
    *,
    size: Count,
    scale: tuple[AboveNothing, AboveNothing] = (0.08, 1.0),
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3),
) -> Operation:
    """A random part of the image, resized to ``[size, size, C]`` (bilinear, antialiased).

    Area and log aspect ratio are uniform, as in Inception; a box that is too wide or high is cut to
    the image rather than drawn again, and its corners need not fall on pixels.

    Args:
        size: the side of the result.
        scale: the least and greatest share of the area.
        ratio: the least and greatest width over height.

    Raises:
        ValueError: for numbers outside their domains, or a least one above the greatest.

    References:
        Szegedy et al., Going deeper with convolutions, 2015, https://arxiv.org/abs/1409.4842
    """
    _ordered("random_resized_crop", scale=scale, ratio=ratio)

    def apply(key, image):
        height, width, _ = image.shape
        key_area, key_ratio, key_top, key_left = jax.random.split(key, 4)
        area = jax.random.uniform(key_area, minval=scale[0], maxval=scale[1]) * height * width
        low, high = math.log(ratio[0]), math.log(ratio[1])
        aspect = coarse_exp(jax.random.uniform(key_ratio, minval=low, maxval=high))
        box = jnp.stack([jnp.sqrt(area / aspect), jnp.sqrt(area * aspect)])
        room = jnp.array([height, width], box.dtype)
        box = jnp.minimum(box, room)
        place = jnp.stack([jax.random.uniform(key_top), jax.random.uniform(key_left)])
        return resample(image, place * (room - box), box, size)

    return apply


@checked
def random_crop(
    *,
    padding: Natural,
    mode: Literal["constant", "edge", "reflect", "symmetric", "wrap"] = "constant",
) -> Operation:
    """Pads every side and crops a random part of the former size.

    Args:
        padding: pixels on every side.
        mode: how to pad, as in :func:`jax.numpy.pad`: ``"constant"`` (zeros), ``"reflect"``.

    Raises:
        ValueError: at trace time, for a padding that is not below the sides of the image.
    """

    def apply(key, image):
        if padding >= min(image.shape[:2]):
            raise ValueError(
                f"random_crop: padding={padding} must be below the sides of the image, "
                f"{image.shape[0]} x {image.shape[1]}"
            )
        padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode=mode)
        top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
        return jax.lax.dynamic_slice(padded, (top, left, jnp.zeros_like(top)), image.shape)

    return apply


@checked
def shift(*, pixels: Natural = 2) -> Operation:
    """Moves the image by up to that many whole pixels in both directions; zeros come in.

    References:
        Hinton et al., Distilling the knowledge in a neural network, 2015, section 3,
        https://arxiv.org/abs/1503.02531 (MNIST, up to two pixels)
    """
    return random_crop(padding=pixels)


@checked
def flip(*, probability: Share = 0.5) -> Operation:
    """Mirrors left and right."""
    return sometimes(probability, lambda key, image: image[:, ::-1])


def _grey(image: jax.Array) -> jax.Array:
    if image.shape[-1] != 3:
        raise ValueError(f"colours need images of 3 channels, not {image.shape[-1]}")
    red, green, blue = image[..., :1], image[..., 1:2], image[..., 2:]
    return 0.299 * red + 0.587 * green + 0.114 * blue


@checked
def greyscale(*, probability: Share = 0.2) -> Operation:
    """Replaces all channels by luma (ITU-R 601)."""
    return sometimes(probability, lambda key, image: jnp.broadcast_to(_grey(image), image.shape))


def _turn_hue(image: jax.Array, turn: jax.Array) -> jax.Array:
    value, least = image.max(-1), image.min(-1)
    chroma = value - least
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    over = jnp.where(chroma > 0, chroma, 1.0)
    sextant = jnp.where(
        value == red,
        (green - blue) / over,
        jnp.where(value == green, 2.0 + (blue - red) / over, 4.0 + (red - green) / over),
    )
    places = [(start + sextant + 6.0 * turn) % 6.0 for start in (5.0, 3.0, 1.0)]
    return jnp.stack([value - chroma * jnp.clip(jnp.minimum(k, 4.0 - k), 0, 1) for k in places], -1)


@checked
def color_jitter(
    *,
    brightness: NonNegative = 0.0,
    contrast: NonNegative = 0.0,
    saturation: NonNegative = 0.0,
    hue: Annotated[float, Range(0, 0.5)] = 0.0,
) -> Operation:
    """Random brightness, contrast, saturation and hue, always in this order.

    Args:
        brightness: the factor is uniform in ``1 - brightness .. 1 + brightness``, not below 0.
        contrast: likewise; 0 leaves the mean of the luma everywhere.
        saturation: likewise; 0 leaves the luma.
        hue: the turn is uniform in ``-hue .. hue``; 0.5 is half a circle.

    Raises:
        ValueError: for a negative strength or hue above 0.5; at trace time, for images that are not
            of three channels, unless brightness alone is asked for.
    """

    def apply(key, image):
        keys = jax.random.split(key, 4)

        def blended(image, other, key, strength):
            factor = jax.random.uniform(key, minval=max(0, 1 - strength), maxval=1 + strength)
            return jnp.clip(factor * image + (1 - factor) * other, 0, 1)

        if brightness:
            image = blended(image, jnp.zeros_like(image), keys[0], brightness)
        if contrast:
            image = blended(
                image, ordered_sum(_grey(image).ravel()) / image[..., 0].size, keys[1], contrast
            )
        if saturation:
            image = blended(image, _grey(image), keys[2], saturation)
        if hue:
            _grey(image)  # refuses anything but three channels
            image = _turn_hue(image, jax.random.uniform(keys[3], minval=-hue, maxval=hue))
        return image

    return apply


@checked
def gaussian_blur(*, sigma: tuple[Positive, Positive] = (0.1, 2.0)) -> Operation:
    """Blurs with a Gaussian of random width in pixels; weights are renormalised at the border."""
    _ordered("gaussian_blur", sigma=sigma)

    def apply(key, image):
        width = jax.random.uniform(key, minval=sigma[0], maxval=sigma[1])

        def weights(side):
            apart = jnp.arange(side)[:, None] - jnp.arange(side)[None, :]
            kernel = coarse_exp(-0.5 * (apart / width) ** 2)
            return kernel / ordered_sum(kernel)[None, :]

        rows, columns = weights(image.shape[0]), weights(image.shape[1])
        image = jnp.einsum("hi,hwc->iwc", rows, image, precision=_HIGHEST)
        return jnp.einsum("wj,iwc->ijc", columns, image, precision=_HIGHEST)

    return apply


@checked
def solarise(*, threshold: Share = 0.5) -> Operation:
    """Inverts what is at least as bright as the threshold."""
    return lambda key, image: jnp.where(image >= threshold, 1 - image, image)


@checked
def random_erasing(
    *,
    probability: Share = 0.25,
    scale: tuple[AboveNothing, AboveNothing] = (0.02, 1 / 3),
    ratio: tuple[Positive, Positive] = (0.3, 10 / 3),
    value: Finite = 0.0,
) -> Operation:
    """Fills a random box.

    Args:
        probability: the share of images that lose a box.
        scale: the least and greatest share of the area.
        ratio: the least and greatest height over width, log-uniform; a box is cut to the image.
        value: what fills it.

    References:
        Zhong et al., Random erasing data augmentation, 2017, https://arxiv.org/abs/1708.04896
    """
    _ordered("random_erasing", scale=scale, ratio=ratio)

    def erase(key, image):
        sides = jnp.array(image.shape[:2], jnp.float32)
        key_area, key_ratio, key_place = jax.random.split(key, 3)
        area = jax.random.uniform(key_area, minval=scale[0], maxval=scale[1]) * sides.prod()
        low, high = math.log(ratio[0]), math.log(ratio[1])
        aspect = coarse_exp(jax.random.uniform(key_ratio, minval=low, maxval=high))
        box = jnp.stack([jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)])
        box = jnp.clip(jnp.round(box), 1, sides)
        place = jnp.floor(jax.random.uniform(key_place, (2,)) * (sides - box + 1))
        return jnp.where(
            inside_box(image.shape, *place, *box), jnp.asarray(value, image.dtype), image
        )

    return sometimes(probability, erase)


@checked
def resize(*, size: Count) -> Operation:
    """Resizes to ``[size, size, C]`` (bilinear, antialiased); nothing is random."""

    def apply(key, image):
        # Weights that depend on the key keep an axis of their own for the batch, see views.
        nothing = 0.0 * jax.random.uniform(key, (2,), image.dtype)
        return resample(image, nothing, nothing + jnp.array(image.shape[:2]), size)

    return apply


@checked
def centre_crop(*, size: Count) -> Operation:
    """The centre of the image, ``[size, size, C]``; nothing is random.

    Where as many pixels cannot be left on both sides one more is left at the end.

    Raises:
        ValueError: at trace time, for a size above the sides of the image.
    """

    def apply(key, image):
        height, width, _ = image.shape
        if size > min(height, width):
            raise ValueError(f"centre_crop: size={size} of an image of {height} x {width} pixels")
        top, left = (height - size) // 2, (width - size) // 2
        return image[top : top + size, left : left + size]

    return apply


@checked
def normalise(*, mean: Sequence[Finite], std: Sequence[Positive]) -> Operation:
    """Takes off the mean and divides by the deviation of every channel; nothing is random.

    Args:
        mean: one number a channel, for images in [0, 1].
        std: likewise.

    Raises:
        ValueError: for as many means as not deviations; at trace time, if the image has another
            number of channels.
    """
    if len(mean) != len(std):
        raise ValueError(f"normalise: mean={mean} and std={std} must be of one length")

    def apply(key, image):
        if len(mean) != image.shape[-1]:
            raise ValueError(
                f"normalise: mean={mean} must be of the image's {image.shape[-1]} channels"
            )
        shape = (1, 1, len(mean))
        centre, spread = (jnp.asarray(x, image.dtype).reshape(shape) for x in (mean, std))
        return (image - centre) / spread

    return apply
