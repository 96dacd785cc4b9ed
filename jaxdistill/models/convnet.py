"""The small convolutional net on which data sets are made small."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.models._common import Identity, check_image_rank, check_settings, image_of
from jaxdistill.settings import Count, Fraction, Natural


class ConvNet(nn.Module):
    """Blocks of convolution 3x3, norm, ReLU and pooling 2x2, then a linear head.

    Inputs are [B, H, W, C], or a dict with such an array under ``"image"``; the output is
    [B, classes]. Tap paths: ``relu_0``, ``relu_1``, ... (before pooling, [B, H, W, width]),
    ``features`` (after the last pooling, flattened) and ``head``. ConvNet-3 of width 128 on 32x32x3
    has 320,010 parameters for ten classes.

    Weights and biases start uniform within :math:`1 / \\sqrt{fan_{in}}`, on which training
    trajectories and features of random nets depend. On CPU a convolution is nine shifted slices and
    one product, as XLA runs convolutions inside loops, and those of several nets at once, very
    slowly there; the numbers are the same up to rounding.

    Attributes:
        width: channels of the first block.
        depth: how many blocks.
        growth: by what each block is wider than the one before.
        classes: outputs of the head.
        norm: ``"instance"`` (each channel of each image, no running statistics), ``"layer"``,
            ``"batch"`` or ``"none"``.
        momentum: how much of the running statistics of batch norms stays at a step; more than 0.9
            is too slow for trainings of few hundred steps.
        pool: ``"average"``, ``"max"`` or ``"none"``.
        padding: of the first convolution; 3 makes 32x32 of 28x28, as is usual on MNIST.

    Raises:
        ValueError: for an unknown norm or pooling, or images too small for that many blocks.

    Example:
        >>> net = ConvNet()
        >>> shapes = jax.eval_shape(net.init, jax.random.key(0), jax.numpy.ones((1, 32, 32, 3)))
        >>> sum(leaf.size for leaf in jax.tree.leaves(shapes))
        320010

    References:
        Gidaris and Komodakis, Dynamic Few-Shot Visual Learning without Forgetting, CVPR 2018;
        Zhao et al., Dataset Condensation with Gradient Matching, ICLR 2021
    """

    width: Count = 128
    depth: Count = 3
    growth: Count = 1
    classes: Count = 10
    norm: Literal["instance", "layer", "batch", "none"] = "instance"
    momentum: Fraction = 0.9
    pool: Literal["average", "max", "none"] = "average"
    padding: Natural = 1

    @nn.compact
    def __call__(
        self, inputs: jax.Array | Mapping[str, jax.Array], train: bool = False
    ) -> jax.Array:
        check_settings(self)
        x = image_of(inputs)
        check_image_rank(x)
        for block in range(self.depth):
            padding = self.padding if block == 0 else 1
            x = _Convolution(self.width * self.growth**block, padding, name=f"conv_{block}")(x)
            x = self._normalised(x, train, f"norm_{block}")
            x = Identity(name=f"relu_{block}")(nn.relu(x))
            if self.pool != "none":
                if min(x.shape[1:3]) < 2:
                    raise ValueError(
                        f"images of {image_of(inputs).shape[1:3]} are too small for "
                        f"{self.depth} blocks that each halve them"
                    )
                x = _pooled(x, self.pool)
        x = Identity(name="features")(x.reshape(x.shape[0], -1))
        return _Linear(self.classes, name="head")(x)

    def _normalised(self, x: jax.Array, train: bool, name: str) -> jax.Array:
        if self.norm == "batch":
            return nn.BatchNorm(not train, momentum=self.momentum, epsilon=1e-5, name=name)(x)
        if self.norm == "none":
            return x
        channels = x.shape[-1]
        scale = self.param(f"{name}_scale", nn.initializers.ones, (channels,))
        shift = self.param(f"{name}_bias", nn.initializers.zeros, (channels,))
        axes = (1, 2) if self.norm == "instance" else (1, 2, 3)
        centred = x - x.mean(axes, keepdims=True)
        spread = jax.lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + 1e-5)
        return centred * spread * scale[None, None, None] + shift[None, None, None]


def _uniform(fan_in: int) -> Callable[..., jax.Array]:
    def draw(key, shape, dtype=jnp.float32):
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


class _Convolution(nn.Module):
    """A convolution 3x3 with a bias."""

    width: int
    padding: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        start = _uniform(9 * channels)
        kernel = self.param("kernel", start, (3, 3, channels, self.width))
        bias = self.param("bias", start, (self.width,))
        return convolved(x, kernel.astype(x.dtype), self.padding) + bias[None, None, None].astype(
            x.dtype
        )


class _Linear(nn.Module):
    """A dense layer."""

    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        start = _uniform(x.shape[-1])
        kernel = self.param("kernel", start, (x.shape[-1], self.outputs))
        bias = self.param("bias", start, (self.outputs,))
        return x @ kernel.astype(x.dtype) + bias[None].astype(x.dtype)


def convolved(
    x: jax.Array, kernel: jax.Array, padding: int, *, slices: bool | None = None
) -> jax.Array:
    """A convolution with a kernel [3, 3, C, O] and zeros around the image.

    Args:
        x: [B, H, W, C].
        kernel: [3, 3, C, O].
        padding: zeros on every side.
        slices: whether it is nine shifted slices and one product: on CPU, by default.
    """
    if slices is None:
        slices = jax.default_backend() == "cpu"
    if not slices:
        pad = ((padding, padding), (padding, padding))
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), pad, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    # One product of two matrices: XLA's gradient of a product over three axes is twice as slow.
    columns = jnp.concatenate(shifted, -1).reshape(-1, 9 * x.shape[-1])
    out = columns @ kernel.reshape(-1, kernel.shape[-1])
    return out.reshape(-1, height, width, kernel.shape[-1])


def _pooled(x: jax.Array, kind: str) -> jax.Array:
    batch, height, width, channels = x.shape
    height, width = height // 2, width // 2
    x = x[:, : 2 * height, : 2 * width].reshape(batch, height, 2, width, 2, channels)
    return x.mean((2, 4)) if kind == "average" else x.max((2, 4))
