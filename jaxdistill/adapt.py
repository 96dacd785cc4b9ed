"""Projectors: small nets between a student's features and its teacher's.

A projector is built from the two shapes, trained with the student, and left out of the result:
``projector(student_shape, target_shape) -> Net``.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import Net
from jaxdistill.settings import Count, Natural, checked


@checked
def linear(student: tuple[int, ...], target: tuple[int, ...], *, bias: bool = True) -> Net:
    """A linear map of the last axis, from the student's width to the target's.

    Raises:
        ValueError: if the arrays differ in more than their width.

    Example:
        >>> net = linear((8, 5, 32), (8, 5, 64))
        >>> params, state = net.init(jax.random.key(0), jax.numpy.zeros((8, 5, 32)))
        >>> params["kernel"].shape
        (32, 64)
    """
    if student[:-1] != target[:-1]:
        raise ValueError(
            f"a linear projector maps the last axis alone: {student} and {target} differ before "
            f"it; {_remedy(student, target)}"
        )
    return from_linen(
        nn.Dense(target[-1], use_bias=bias, kernel_init=nn.initializers.xavier_uniform())
    )


def _remedy(student: tuple[int, ...], target: tuple[int, ...]) -> str:
    """What to do where features differ in more than their last axis."""
    if len(student) == len(target) == 4 and student[2:] == target[2:]:
        return "where axis 1 holds channels, from_equinox(..., channels='first') hands them on last"
    return "projector='resize' also fits the grid"


@checked
def width(student: tuple[int, ...], target: tuple[int, ...]) -> Net:
    """A linear map of the last axis, whatever the other axes are: for losses between grids that
    differ (:func:`jaxdistill.losses.grid_cosine`)."""
    if student[0] != target[0]:
        raise ValueError(f"a width projector needs one batch, got {student} and {target}")
    return from_linen(nn.Dense(target[-1], kernel_init=nn.initializers.xavier_uniform()))


class _Perceptron(nn.Module):
    hidden: int
    width: int
    exact: bool

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        units = nn.gelu(nn.Dense(self.hidden, name="fc1")(inputs), approximate=not self.exact)
        return nn.Dense(self.width, name="fc2")(units)


@checked
def mlp(
    student: tuple[int, ...],
    target: tuple[int, ...],
    *,
    hidden: Count | None = None,
    exact: bool = False,
) -> Net:
    """Two linear maps of the last axis with GELU between, by its usual approximation unless
    ``exact``; ``hidden`` is as wide as the target."""
    if student[:-1] != target[:-1]:
        raise ValueError(f"an mlp projector maps the last axis alone: got {student} and {target}")
    return from_linen(_Perceptron(hidden or target[-1], target[-1], exact))


class _Regressor(nn.Module):
    size: tuple[int, int]
    width: int
    batch_norm: bool

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        outputs = nn.Conv(self.width, (1, 1), use_bias=not self.batch_norm, name="conv")(inputs)
        if self.batch_norm:
            outputs = nn.BatchNorm(not train, momentum=0.9, name="norm")(outputs)
        if outputs.shape[1:3] != self.size:
            shape = (outputs.shape[0], *self.size, self.width)
            outputs = jax.image.resize(outputs, shape, "bilinear", antialias=True)
        return outputs


@checked
def convolution(
    student: tuple[int, ...], target: tuple[int, ...], *, batch_norm: bool = True
) -> Net:
    """A 1x1 convolution to the target's channels, then a bilinear resize to its grid (FitNets'
    regressor).

    Raises:
        ValueError: if the arrays are not both ``[B, H, W, C]``.
    """
    if len(student) != 4 or len(target) != 4:
        raise ValueError(
            f"a convolution projector needs [B, H, W, C] arrays, got {student}, {target}"
        )
    return from_linen(_Regressor((target[1], target[2]), target[3], batch_norm))


class _Resize(nn.Module):
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        grid = (inputs.shape[0], *self.shape[1:-1], inputs.shape[-1])
        resized = jax.image.resize(inputs, grid, "bilinear", antialias=True)
        return nn.Dense(self.shape[-1], name="linear")(resized)


@checked
def resize(student: tuple[int, ...], target: tuple[int, ...]) -> Net:
    """Bilinear resize of all axes between batch and width, then a linear map of the width."""
    if len(student) != len(target) or student[0] != target[0] or len(student) < 3:
        raise ValueError(
            "a resize projector needs [B, ..., D] arrays of one rank and batch, "
            f"got {student} and {target}"
        )
    return from_linen(_Resize(tuple(target)))


class _Regrid(nn.Module):
    side: tuple[int, int]
    width: int
    front: int
    target_front: int
    tokens: bool

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        maps = inputs
        if inputs.ndim == 3:
            row = math.isqrt(inputs.shape[1] - self.front)
            maps = inputs[:, self.front :].reshape(len(inputs), row, row, inputs.shape[-1])
        grid = (len(maps), *self.side, maps.shape[-1])
        maps = jax.image.resize(maps, grid, "bilinear", antialias=True)
        places = nn.Dense(self.width, name="places")(maps)
        if not self.tokens:
            return places
        places = places.reshape(len(maps), -1, self.width)
        if not self.target_front:
            return places
        before = nn.Dense(self.target_front * self.width, name="front")(maps.mean((1, 2)))
        before = before.reshape(len(maps), self.target_front, self.width)
        return jnp.concatenate([before, places], axis=1)


@checked
def regrid(
    student: tuple[int, ...],
    target: tuple[int, ...],
    *,
    front: Natural = 0,
    target_front: Natural = 0,
) -> Net:
    """Between maps ``[B, H, W, C]`` and tokens ``[B, N, D]`` of square grids, either way: a
    bilinear resize of the grid, a linear map of the width, and for the tokens in front of the
    target's another one of the mean.

    Args:
        student: shape of its maps or tokens.
        target: shape of the teacher's.
        front: how many of the student's tokens stand before those of patches; they are not read.
        target_front: the same of the teacher's, which are predicted.

    Raises:
        ValueError: for other arrays, and tokens that are no square.

    Example:
        >>> net = regrid((8, 4, 4, 16), (8, 10, 32), target_front=1)
        >>> params, state = net.init(jax.random.key(0), jnp.zeros((8, 4, 4, 16)))
        >>> net.apply(params, state, jnp.zeros((8, 4, 4, 16))).out.shape
        (8, 10, 32)
    """
    for side, shape, before in (("student", student, front), ("target", target, target_front)):
        if len(shape) not in (3, 4):
            raise ValueError(
                "a regrid projector goes between maps [B, H, W, C] and tokens [B, N, D], got "
                f"{student} and {target}"
            )
        places = shape[1] - before if len(shape) == 3 else 0
        if places < 0 or math.isqrt(places) ** 2 != places:
            key = "front" if side == "student" else "target_front"
            raise ValueError(
                f"{shape[1]} tokens of the {side}, less {before} in front, are no square: "
                f"{key!r} says how many stand before those of patches"
            )
    row = math.isqrt(target[1] - target_front)
    size = (row, row) if len(target) == 3 else (target[1], target[2])
    return from_linen(_Regrid(size, target[-1], front, target_front, len(target) == 3))
