"""What losses are given as labels while a step is traced, for those who check their values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax


class Watched(NamedTuple):
    """Labels seen while losses were traced.

    Attributes:
        of_batch: those of a batch, and of the parts that it was cut into.
        given: those that losses were given, each with the number of classes of its scores.
    """

    of_batch: list[Any]
    given: list[tuple[Any, int]]


_WATCHED: ContextVar[Watched | None] = ContextVar("labels of losses", default=None)


def given_labels(labels: jax.Array, classes: int) -> None:
    """Says that a loss was given these labels of so many classes, where they are watched."""
    if (watched := _WATCHED.get()) is not None:
        watched.given.append((labels, classes))


def labels_of(batch: Any) -> None:
    """Says that a batch, or a part of one, has these labels, where they are watched."""
    if (watched := _WATCHED.get()) is not None and isinstance(batch, Mapping):
        watched.of_batch.append(batch.get("label"))


@contextlib.contextmanager
def watched_labels() -> Iterator[Watched]:
    """What losses inside are given as labels.

    Example:
        >>> with watched_labels() as watched:
        ...     given_labels(jax.numpy.zeros(4, int), 3)
        >>> [classes for labels, classes in watched.given]
        [3]
    """
    found = Watched([], [])
    token = _WATCHED.set(found)
    try:
        yield found
    finally:
        _WATCHED.reset(token)
