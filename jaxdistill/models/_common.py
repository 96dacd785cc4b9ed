"""What the networks share: how images come in, and places with a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def image_of(inputs: jax.Array | Mapping[str, Any]) -> jax.Array:
    """The images as floating point, channels last.

    Args:
        inputs: images [B, H, W, C], or a dict with such an array under ``"image"``. Floats pass
            as they are; uint8 is divided by 255, so that both forms of a batch mean the same.

    Returns:
        The images, float32 if they came as uint8.

    Raises:
        ValueError: no image in the dict, or integers other than uint8.
    """
    if isinstance(inputs, Mapping):
        if "image" not in inputs:
            raise ValueError(f"inputs hold no 'image', only {sorted(map(str, inputs))}")
        inputs = inputs["image"]
    image = jnp.asarray(inputs)
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 255.0
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"images must be floats or uint8, these are {image.dtype}")
    return image


def check_image_rank(image: jax.Array) -> None:
    """Refuses anything but a batch of images with channels."""
    if image.ndim != 4:
        raise ValueError(f"images must be [B, H, W, C], these have the shape {image.shape}")


class Identity(nn.Module):
    """Returns its input: a place with a name, so that a tap can read it."""

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        return inputs


def conv(features: int, size: int, stride: int, dtype: Any, name: str, groups: int = 1) -> nn.Conv:
    """A convolution without bias, as residual and mobile networks have it."""
    # Padding is spelt out because "SAME" pads strided convolutions on one side only, unlike the
    # networks whose weights are published.
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=size // 2,
        feature_group_count=groups,
        use_bias=False,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        dtype=dtype,
        name=name,
    )
