"""How published tensors become arrays of a net, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Read = Callable[[Sequence[np.ndarray]], np.ndarray]
Write = Callable[[np.ndarray], Sequence[np.ndarray]]


class Form(NamedTuple):
    """A change of layout that loses nothing.

    Attributes:
        read: from the published tensors to the array.
        write: from the array to the published tensors.
    """

    read: Read
    write: Write


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
# Positions with an axis of one image in front.
FIRST = _one(lambda x: x[0], lambda x: x[None])


def patches(size: int) -> Form:
    """A convolution over patches as the linear layer of flattened ones, rows, columns, channels."""

    def read(x: np.ndarray) -> np.ndarray:
        return x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0])

    def write(x: np.ndarray) -> np.ndarray:
        return x.reshape(size, size, -1, x.shape[-1]).transpose(3, 2, 0, 1)

    return _one(read, write)


def side_by_side(parts: int) -> Form:
    """Several linear layers, or their biases, as one with all outputs side by side."""

    def read(tensors: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([x.T for x in tensors], axis=-1)

    def write(x: np.ndarray) -> Sequence[np.ndarray]:
        return [part.T for part in np.split(x, parts, axis=-1)]

    return Form(read, write)


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
    form = side_by_side(len(names))
    found = [Entry(f"{path}/kernel", tuple(f"{name}.weight" for name in names), form)]
    biases = tuple(f"{name}.bias" for name in names)
    return found + ([Entry(f"{path}/bias", biases, form)] if bias else [])
