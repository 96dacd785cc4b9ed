"""What nets with a time as input share, and the multilayer perceptron among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.models._common import Dtype, check_settings, image_of
from jaxdistill.settings import Count, Natural


def time_features(time: jax.Array, width: int, highest: float = 16.0) -> jax.Array:
    """Sines and cosines of times, ``[B, width]``, at rates from 1/4 to ``highest``.

    Rates are low, for times of the size of 1, so that derivatives by the time stay small: forward
    mode differentiates through them.
    """
    rates = jnp.geomspace(0.25, highest, width // 2, dtype=time.dtype)
    angles = time[:, None] * rates[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


class Conditioning(nn.Module):
    """Time, label, scale of guidance and where a jump ends as one vector ``[B, width]``.

    Labels are 0 to ``classes - 1``, and -1 for none, as without an entry. A scale and an end add to
    the time through layers that are zero at the start, so that a net without them may be continued.
    Where no scale is given nothing is added, so that the layer of a net that never saw one stays
    zero; where no end is given it is the time itself.

    Attributes:
        width: of the vector.
        classes: how many labels; with 0 labels are not looked at.
        guidance: whether there is a scale of guidance.
        dtype: of the computation.
        jumps: whether there is a time ``until`` which the net is to jump to.
    """

    width: int
    classes: int = 0
    guidance: bool = False
    dtype: Any = None
    jumps: bool = False

    @nn.compact
    def __call__(self, inputs: Mapping[str, Any], count: int) -> jax.Array:
        time = inputs["time"].astype(jnp.promote_types(inputs["time"].dtype, jnp.float32))
        vector = nn.Dense(self.width, dtype=self.dtype, name="time")(
            time_features(time, self.width)
        )
        if self.classes:
            label = inputs.get("label")
            label = jnp.full(count, -1, jnp.int32) if label is None else label
            # The last row is that of no label.
            label = jnp.where(label < 0, self.classes, label)
            vector += nn.Embed(self.classes + 1, self.width, dtype=self.dtype, name="label")(label)
        further = {"guidance": inputs.get("guidance")} if self.guidance else {}
        further |= {"until": inputs.get("until", time)} if self.jumps else {}
        for name, value in further.items():
            features = (
                jnp.zeros((count, self.width // 2 * 2), time.dtype)
                if value is None
                else time_features(value.astype(time.dtype), self.width)
            )
            vector += nn.Dense(
                self.width,
                dtype=self.dtype,
                use_bias=False,
                kernel_init=nn.initializers.zeros,
                name=name,
            )(features)
        return nn.silu(nn.Dense(self.width, dtype=self.dtype, name="out")(nn.silu(vector)))


class TimeMLP(nn.Module):
    """A residual perceptron for points and small images, with a time as input.

    Inputs are ``{"image": [B, ...], "time": [B]}`` and, if asked for, ``label``, ``guidance``
    and ``until``; all axes of the image but the first are flattened, and the output has its shape.
    Tap paths: ``block_0``, ... (``[B, width]``); the last is called ``bottleneck`` too.

    Attributes:
        width: hidden units.
        depth: residual blocks.
        classes: how many labels, 0 for none.
        guidance: whether a scale of guidance is an input.
        dtype: of the computation.
        jumps: whether ``until`` is an input, the time that a jump is to end at.

    Example:
        >>> net, x = TimeMLP(width=8, depth=1), {"image": jnp.ones((2, 3)), "time": jnp.ones(2)}
        >>> jax.eval_shape(net.init_with_output, jax.random.key(0), x)[0].shape
        (2, 3)
    """

    width: Count = 128
    depth: Count = 3
    classes: Natural = 0
    guidance: bool = False
    dtype: Dtype = None
    jumps: bool = False

    @nn.compact
    def __call__(self, inputs: Mapping[str, Any]) -> jax.Array:
        check_settings(self)
        image = image_of(inputs)
        settings = self.classes, self.guidance, self.dtype, self.jumps
        given = Conditioning(self.width, *settings, name="given")(inputs, image.shape[0])
        units = image.reshape(image.shape[0], -1)
        outputs = units.shape[1]
        units = nn.Dense(self.width, dtype=self.dtype, name="in")(units)
        for index in range(self.depth):
            units = _Residual(self.width, self.dtype, name=f"block_{index}")(units, given)
        self.sow("intermediates", "bottleneck", units)
        last = nn.Dense(outputs, kernel_init=nn.initializers.zeros, name="head")
        return last(nn.silu(units)).reshape(image.shape)


class _Residual(nn.Module):
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, units: jax.Array, given: jax.Array) -> jax.Array:
        scale, shift = jnp.split(
            nn.Dense(2 * self.width, dtype=self.dtype, name="given")(given), 2, -1
        )
        inner = nn.Dense(self.width, dtype=self.dtype, name="in")(nn.silu(units))
        inner = nn.silu(inner * (1 + scale) + shift)
        return units + nn.Dense(self.width, dtype=self.dtype, name="out")(inner)
