"""The multilayer perceptron on flattened images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.models._common import Dtype, check_settings, image_of
from jaxdistill.models.blocks import ACTIVATIONS, Activation
from jaxdistill.settings import Count, Fraction


class MLP(nn.Module):
    """Hidden layers of an activation each, then a linear head.

    Inputs are [B, ...], or a dict with such an array under ``"image"``; all axes but the first are
    flattened. The output is [B, classes]. Tap paths: ``hidden_0``, ``hidden_1``, ... (before the
    activation, [B, width]) and ``head``. Dropout draws from the ``"dropout"`` stream.

    The defaults are the two layers of 1200 rectified units in which distillation was shown on
    MNIST; their dropout rates there were 0.2 on the inputs and 0.5 on the hidden units.

    Attributes:
        widths: units of each hidden layer.
        classes: outputs of the head.
        dropout: rate after each hidden activation.
        input_dropout: rate on the inputs.
        activation: after each hidden layer.
        dtype: of the computation in the hidden layers; parameters and head stay float32.

    Example:
        >>> net, images = MLP(widths=(8,), classes=3), jax.numpy.ones((2, 4, 4, 1))
        >>> out, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), images)
        >>> out.shape, variables["params"]["hidden_0"]["kernel"].shape
        ((2, 3), (16, 8))

    Raises:
        ValueError: a setting outside of its domain, or inputs that are no floats.

    References:
        Hinton, Vinyals, Dean. Distilling the Knowledge in a Neural Network. 2015.
    """

    widths: tuple[Count, ...] = (1200, 1200)
    classes: Count = 10
    dropout: Fraction = 0.0
    input_dropout: Fraction = 0.0
    activation: Activation | Literal["tanh"] = "relu"
    dtype: Dtype = None

    @nn.compact
    def __call__(
        self, inputs: jax.Array | Mapping[str, jax.Array], train: bool = False
    ) -> jax.Array:
        check_settings(self)
        activation = {**ACTIVATIONS, "tanh": jnp.tanh}[self.activation]
        units = image_of(inputs)
        units = units.reshape(units.shape[0], -1)
        units = self._drop(units, self.input_dropout, train)
        for index, width in enumerate(self.widths):
            units = nn.Dense(width, dtype=self.dtype, name=f"hidden_{index}")(units)
            units = self._drop(activation(units), self.dropout, train)
        return nn.Dense(self.classes, name="head")(units)

    def _drop(self, units: jax.Array, rate: float, train: bool) -> jax.Array:
        if rate == 0.0:
            return units
        return nn.Dropout(rate, deterministic=not train)(units)
