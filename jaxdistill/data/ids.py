"""What records are called: any strings, none of them twice in a set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class Ids(Sequence[str]):
    """Record ids that are made when asked for, so that a set of millions holds no list of strings.

    Args:
        length: how many there are.
        at: the id at a position in ``0..length-1``.

    Example:
        >>> ids = Ids(3, "digits/{:04d}".format)
        >>> ids[1], ids[-1], len(ids)
        ('digits/0001', 'digits/0002', 3)
    """

    def __init__(self, length: int, at: Callable[[int], str]):
        self._length = length
        self._at = at

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self._at(i) for i in range(*position.indices(self._length))]
        if not -self._length <= position < self._length:
            raise IndexError(
                f"there is no id at {position}: the source holds {self._length} records"
            )
        return self._at(int(position) % self._length)


def numbered(name: str, length: int) -> Ids:
    # Four digits at least, and no more for a larger set: an id must not change when records are
    # appended.
    return Ids(length, lambda i: f"{name}/{i:04d}")


def unique_ids(name: str, ids: Sequence[str]) -> Sequence[str]:
    seen: set[str] = set()
    for each in ids:
        if each in seen:
            raise ValueError(f"{name!r} has two records with the id {each!r}")
        seen.add(each)
    return ids
