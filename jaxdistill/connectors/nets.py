"""Small nets between student and teacher that published methods train besides projectors."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdistill import losses


class Mean(nn.Module):
    """Three 1x1 convolutions to ``width`` channels, rectified between."""

    width: int

    @nn.compact
    def __call__(self, maps: jax.Array) -> jax.Array:
        for index in (1, 2, 3):
            maps = nn.Dense(self.width, use_bias=False, name=f"conv_{index}")(maps)
            maps = nn.relu(maps) if index < 3 else maps
        return maps


class BatchNorm(nn.Module):
    """Normalised over the batch."""

    affine: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = nn.BatchNorm(
            not train, momentum=0.9, use_scale=self.affine, use_bias=self.affine, name="norm"
        )
        return norm(x)


class Normalised(nn.Module):
    """A linear map, normalised over the batch."""

    width: int
    affine: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        mapped = nn.Dense(self.width, use_bias=self.affine, name="linear")(x)
        return BatchNorm(self.affine)(mapped, train)


class Review(nn.Module):
    """Maps of all stages, the deepest fused first, each at the width of the teacher's."""

    widths: tuple[int, ...]
    middle: int

    @nn.compact
    def __call__(self, stages: Sequence[jax.Array], train: bool = False) -> tuple[jax.Array, ...]:
        residual, found = None, []
        for place in reversed(range(len(stages))):
            fusion = Fusion(self.middle, self.widths[place], name=f"fusion_{place}")
            out, residual = fusion(stages[place], residual, train)
            found.append(out)
        return tuple(reversed(found))


class Fusion(nn.Module):
    """A stage with what deeper ones know: what is compared, and what the next is given."""

    middle: int
    width: int

    @nn.compact
    def __call__(
        self, maps: jax.Array, residual: jax.Array | None, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        norm = functools.partial(nn.BatchNorm, not train, momentum=0.9)
        maps = nn.Conv(self.middle, (1, 1), use_bias=False, name="conv_1")(maps)
        maps = norm(name="norm_1")(maps)
        if residual is not None:
            enlarged = losses.review_enlarge(residual, *maps.shape[1:3])
            both = jnp.concatenate([maps, enlarged], axis=-1)
            gates = jax.nn.sigmoid(nn.Conv(2, (1, 1), name="gates")(both))
            maps = losses.review_fuse(maps, residual, gates)
        out = nn.Conv(self.width, (3, 3), use_bias=False, name="conv_2")(maps)
        return norm(name="norm_2")(out), maps
