"""Where published weights and a net differ: what is let through, and what is refused."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.models.pretrained.family import Family
from jaxdistill.models.pretrained.files import Weights
from jaxdistill.models.pretrained.forms import Entry

# What may differ from what is published, if it is allowed by name.
DIFFERENCES = ("new head", "resized positions", "padded vocabulary")
# How many tensors a message names of each kind.
_NAMED = 12


def compare(
    family: Family,
    entries: Iterable[Entry],
    flat: Mapping[str, Any],
    weights: Weights,
    allow: Sequence[str],
) -> tuple[str, ...]:
    """The paths of what starts anew, if all else fits.

    Raises:
        ValueError: naming everything that does not.
    """
    faults: dict[str, list[str]] = {"missing": [], "of another shape": [], "left over": []}
    new: list[str] = []
    known: set[str] = set()
    for entry in entries:
        known |= set(entry.names)
        lost = [name for name in entry.names if name not in weights.where]
        if lost:
            if _allowed_anew(family, entry, allow, lost):
                new.append(entry.path)
            else:
                faults["missing"] += lost
            continue
        shape = _shape(entry, weights)
        if shape == flat[entry.path].shape:
            continue
        if _allowed_shape(family, entry, allow, shape, flat[entry.path].shape):
            new.append(entry.path)
            continue
        theirs = " and ".join(str(weights.shapes[name]) for name in entry.names)
        faults["of another shape"].append(
            f"{', '.join(entry.names)} {theirs}, for {entry.path} {flat[entry.path].shape}"
        )
    for name in weights.where:
        ignored = any(re.fullmatch(pattern, name) for pattern in family.ignored)
        if name not in known and not ignored and not _matches(name, allow):
            faults["left over"].append(f"{name} {weights.shapes[name]}")
    if any(faults.values()):
        raise ValueError(_message(weights.folder, faults))
    return tuple(new)


def _message(folder: Path, faults: Mapping[str, list[str]]) -> str:
    lines = [f"the weights in {folder} do not fit the net."]
    for kind, names in faults.items():
        if names:
            more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            lines.append(f"{len(names)} {kind}: {'; '.join(names[:_NAMED])}{more}.")
    named = ", ".join(map(repr, DIFFERENCES))
    lines.append(f"allow= lets through {named}, and tensors by name, with * for anything.")
    return "\n".join(lines)


def _matches(name: str, allow: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in allow)


def _allowed_anew(family: Family, entry: Entry, allow: Sequence[str], lost: list[str]) -> bool:
    head = entry.path.startswith(tuple(f"{path}/" for path in family.head))
    return (head and "new head" in allow) or all(_matches(name, allow) for name in lost)


def _allowed_shape(
    family: Family,
    entry: Entry,
    allow: Sequence[str],
    theirs: tuple[int, ...] | None,
    own: tuple[int, ...],
) -> bool:
    if entry.path.startswith(tuple(f"{path}/" for path in family.head)):
        return "new head" in allow
    if theirs is None:
        return False
    if entry.path in family.sized and theirs[-1] == own[-1]:
        return "resized positions" in allow
    if entry.path in family.worded and len(theirs) == len(own):
        return "padded vocabulary" in allow and all(
            o >= t for o, t in zip(own, theirs, strict=True)
        )
    return False


def _shape(entry: Entry, weights: Weights) -> tuple[int, ...] | None:
    """The shape that published tensors give, None where they do not even go together."""
    zeros = [np.broadcast_to(np.int8(0), weights.shapes[name]) for name in entry.names]
    try:
        return entry.form.read(zeros).shape
    except (ValueError, IndexError):
        return None


def grown(family: Family, entry: Entry, theirs: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Published arrays of another size as far as they go; the net's own start for the rest."""
    if entry.path in family.sized:
        return resized_positions(theirs, own.shape[0])
    if entry.path in family.worded and all(
        o >= t for o, t in zip(own.shape, theirs.shape, strict=True)
    ):
        found = own.astype(theirs.dtype)
        found[tuple(slice(size) for size in theirs.shape)] = theirs
        return found
    return own


def resized_positions(positions: np.ndarray, length: int) -> np.ndarray:
    """Positions of a square of patches for another square, those of learned tokens as they are.

    Args:
        positions: ``[t + n * n, D]``, first those of t learned tokens.
        length: ``t + m * m``.

    Returns:
        ``[length, D]``, interpolated bicubically.

    Raises:
        ValueError: for lengths that are no squares and the same few tokens in front.

    Example:
        >>> resized_positions(np.ones((1 + 4, 3), np.float32), 1 + 16).shape
        (17, 3)
    """
    for front in range(3):
        old, new = positions.shape[0] - front, length - front
        sides = round(max(old, 0) ** 0.5), round(max(new, 0) ** 0.5)
        if min(sides) > 0 and sides[0] ** 2 == old and sides[1] ** 2 == new:
            grid = positions[front:].reshape(sides[0], sides[0], -1).astype(np.float32)
            shape = (sides[1], sides[1], grid.shape[-1])
            grown = np.asarray(jax.image.resize(jnp.asarray(grid), shape, "bicubic"))
            rest = grown.reshape(new, -1).astype(positions.dtype)
            return np.concatenate([positions[:front], rest])
    raise ValueError(
        f"positions {positions.shape} are of no square of patches that could become {length}"
    )
