"""How published tensors become arrays of a net, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Index = tuple[slice, ...]
Read = Callable[[Sequence[np.ndarray]], np.ndarray]
Write = Callable[[np.ndarray], Sequence[np.ndarray]]


class Form(NamedTuple):
    """A change of layout that loses nothing.

    Attributes:
        read: from the published tensors to the array; a view of them where there is one, so that
            of tensors which are maps of a file only what is looked at is read.
        write: from the array to the published tensors.
        part: ``(tensors, index) -> read(tensors)[index]``, where ``read`` is no view.
    """

    read: Read
    write: Write
    part: Callable[[Sequence[np.ndarray], Index], np.ndarray] | None = None

    def of(self, tensors: Sequence[np.ndarray], index: Index) -> np.ndarray:
        """A part of the array."""
        return self.part(tensors, index) if self.part else self.read(tensors)[index]


class Entry(NamedTuple):
    """An array of a net and where it is published.

    Attributes:
        path: in ``{"params": ..., "state": ...}``, with slashes.
        names: of the tensors.
        form: between the two.
    """

    path: str
    names: tuple[str, ...]
    form: Form


def _one(read: Callable[[np.ndarray], np.ndarray], write: Callable[[np.ndarray], np.ndarray]):
    return Form(lambda tensors: read(tensors[0]), lambda array: (write(array),))


SAME = _one(lambda x: x, lambda x: x)
# A linear layer: published [out, in], here [in, out].
LINEAR = _one(lambda x: x.T, lambda x: x.T)
# A convolution: published [out, in, rows, columns], here [rows, columns, in, out].
CONVOLUTION = _one(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
# A linear layer that may be published as a convolution of 1x1; written as a linear layer.
POINT = _one(lambda x: x.reshape(x.shape[:2]).T, lambda x: x.T)
# The same, written as a convolution.
POINTWISE = _one(lambda x: x.reshape(x.shape[:2]).T, lambda x: x.T[:, :, None, None])
# A number, published as an array of one.
ONE = _one(lambda x: x.reshape(()), lambda x: x.reshape(1))
# Positions with an axis of one image in front.
FIRST = _one(lambda x: x[0], lambda x: x[None])


def reshaped(own: tuple[int, ...], theirs: tuple[int, ...]) -> Form:
    """The same numbers in another shape."""
    return _one(lambda x: x.reshape(own), lambda x: x.reshape(theirs))


def patches(size: int) -> Form:
    """A convolution over patches as the linear layer of flattened ones, rows, columns, channels."""

    def read(x: np.ndarray) -> np.ndarray:
        return x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0])

    def write(x: np.ndarray) -> np.ndarray:
        return x.reshape(size, size, -1, x.shape[-1]).transpose(3, 2, 0, 1)

    return _one(read, write)


def side_by_side(*shares: int) -> Form:
    """Several linear layers, or their biases, as one with all outputs side by side.

    ``shares`` say how many outputs each has in proportion to the others.
    """

    def read(tensors: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(tensors, axis=0).T

    def write(x: np.ndarray) -> Sequence[np.ndarray]:
        ends = np.cumsum(shares)[:-1] * (x.shape[-1] // sum(shares))
        return [part.T for part in np.split(x, ends, axis=-1)]

    def part(tensors: Sequence[np.ndarray], index: Index) -> np.ndarray:
        *rows, columns = index
        start, stop, _ = columns.indices(sum(x.shape[0] for x in tensors))
        found = []
        for x in tensors:
            found.append(x[(slice(max(start, 0), max(stop, 0)), *rows)])
            start, stop = start - x.shape[0], stop - x.shape[0]
        return np.concatenate(found, axis=0).T

    return Form(read, write, part)


def aligned(shape: tuple[int, ...], kind: np.dtype | type) -> np.ndarray:
    """Memory that begins at a multiple of 64 bytes.

    Devices whose memory is the host's take arrays in such memory as they are.
    """
    size = math.prod(shape) * np.dtype(kind).itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(kind).reshape(shape)


# A transposed array is written by tiles: so many bytes of as many rows at a time.
_RUN, _ROWS = 512, 512


def lay_out(array: np.ndarray, found: np.ndarray) -> None:
    """Writes an array into another of its shape, a transposed one tile by tile.

    A tile goes through memory that stays in the caches. Its rows there do not lie a power of two
    apart, as those of networks do, which would put all of them into the same few lines of a cache.

    Args:
        array: of any layout and type.
        found: contiguous; numbers are converted to its type.
    """
    if array.dtype == found.dtype:
        # NumPy moves whole numbers faster than those of types that are not its own.
        bits = np.dtype(f"u{found.itemsize}")
        array, found = array.view(bits), found.view(bits)
    if array.ndim != 2 or array.strides[0] >= array.strides[1]:
        found[...] = array
        return
    run = max(1, _RUN // found.itemsize)
    tile = np.empty((run, _ROWS + max(1, 64 // found.itemsize)), found.dtype)
    for first in range(0, array.shape[1], run):
        for top in range(0, array.shape[0], _ROWS):
            part = array[top : top + _ROWS, first : first + run]
            held = tile[: part.shape[1], : part.shape[0]]
            held[...] = part.T
            found[top : top + _ROWS, first : first + run] = held.T


def linear(path: str, name: str, bias: bool = True) -> list[Entry]:
    """The entries of a linear layer."""
    found = [Entry(f"{path}/kernel", (f"{name}.weight",), LINEAR)]
    return found + ([Entry(f"{path}/bias", (f"{name}.bias",), SAME)] if bias else [])


def norm(path: str, name: str, bias: bool = True) -> list[Entry]:
    """The entries of a normalisation over channels."""
    found = [Entry(f"{path}/scale", (f"{name}.weight",), SAME)]
    return found + ([Entry(f"{path}/bias", (f"{name}.bias",), SAME)] if bias else [])


def batch_norm(path: str, name: str) -> list[Entry]:
    """The entries of a batch normalisation, with its statistics; ``path`` without its root."""
    statistics = (("mean", "running_mean"), ("var", "running_var"))
    return norm(f"params/{path}", name) + [
        Entry(f"state/batch_stats/{path}/{own}", (f"{name}.{theirs}",), SAME)
        for own, theirs in statistics
    ]


def fused(path: str, names: Sequence[str], bias: bool = True) -> list[Entry]:
    """The entries of one linear layer that is published as several."""
    form = side_by_side(*[1] * len(names))
    found = [Entry(f"{path}/kernel", tuple(f"{name}.weight" for name in names), form)]
    biases = tuple(f"{name}.bias" for name in names)
    return found + ([Entry(f"{path}/bias", biases, form)] if bias else [])
