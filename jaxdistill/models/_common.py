"""What the networks share: how images come in, named places, and loops over layers."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import settings
from jaxdistill.models.layouts import ADAPTERS

# Configs give names; code may give jnp.bfloat16 just as well.
if TYPE_CHECKING:
    Dtype = Any
else:
    Dtype = Literal["bfloat16", "float16", "float32", "float64"] | None


def check_settings(net: nn.Module) -> None:
    """Refuses a net one of whose settings is outside of its domain.

    Raises:
        ValueError: naming the setting, its value and what is possible.
    """
    for name, domain in _domains(type(net)).items():
        value = getattr(net, name)
        if domain is Dtype and isinstance(value, type | np.dtype):
            value = jnp.dtype(value).name
        if (wrong := settings.fault(value, domain)) is not None:
            raise ValueError(f"{type(net).__name__}: {name}={value!r} {wrong}")


@functools.cache
def _domains(kind: type[nn.Module]) -> dict[str, Any]:
    return {name: key.annotation for name, key in settings.fields(kind).items()}


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


def divisors(*numbers: int) -> str:
    """What divides all of some numbers, for messages.

    Example:
        >>> divisors(8, 12)
        '1, 2, 4'
    """
    whole = math.gcd(*numbers)
    return ", ".join(str(n) for n in range(1, whole + 1) if whole % n == 0)


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


def batch_norm(train: bool, dtype: Any, name: str, zero_scale: bool = False) -> nn.BatchNorm:
    """A batch norm of residual networks: statistics that move by a tenth per training step."""
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        scale_init=nn.initializers.zeros if zero_scale else nn.initializers.ones,
        dtype=dtype,
        name=name,
    )


def scan_layers(
    layer: nn.Module,
    depth: int,
    x: jax.Array,
    each: Sequence[Any] = (),
    rest: Sequence[Any] = (),
    *,
    taps: Iterable[str] = (),
    first: int = 0,
) -> jax.Array:
    """Runs layers that are alike as a loop, inside the compact method of their owner.

    The layer holds the variables of all, with an axis [depth] in front. Behind the loop an identity
    ``block_i`` (or ``layers_i``, where the layer is called ``layers``) stands for each that is
    tapped, so that taps have the same paths as unrolled.

    Args:
        layer: called ``layer(x, *each, *rest)``.
        depth: how many.
        x: what goes through them.
        each: arrays [depth, ...] of which a layer gets its own part.
        rest: what all of them get.
        taps: paths relative to the owner; only those of layers matter.
        first: the number of the first.

    Returns:
        What comes out of the last.
    """
    kind = "layers" if layer.name == "layers" else "block"
    numbers = [int(m[1]) for m in (re.fullmatch(rf"{kind}_(\d+)", tap) for tap in taps) if m]
    tapped = sorted(number for number in numbers if number >= first)

    def one(layer: Any, x: jax.Array, each: Sequence[Any]) -> tuple[jax.Array, Any]:
        x = layer(x, *each, *rest)
        return x, x if tapped else None

    run = nn.scan(
        one,
        variable_axes={"params": 0, "batch_stats": 0, "cache": 0, "intermediates": 0, ADAPTERS: 0},
        split_rngs={"params": True, "dropout": True},
        length=depth,
    )
    x, kept = run(layer, x, tuple(each))
    for number in tapped:
        Identity(name=f"{kind}_{number}")(kept[number - first])
    return x
