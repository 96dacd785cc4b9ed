"""What the devices of a compiled step send each other."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import jax

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
"""The operations by which devices exchange data."""
_CALL = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
_ARRAY = re.compile(r"\b(pred|bf16|[a-z]\d+\w*)\[([\d,]*)\]")
_NAME = re.compile(r'op_name="([^"]*)"')


class Collective(NamedTuple):
    """One communication of a compiled program.

    Attributes:
        kind: one of ``KINDS``.
        shapes: of its results on one device; XLA joins several arrays into one communication.
        bytes: of these results.
        name: which operation of the traced program it comes from.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    bytes: int
    name: str


def collectives(program: Any) -> list[Collective]:
    """All communications in the text of a compiled program, in order.

    One in the body of a loop is listed once.

    Args:
        program: what ``jax.jit(step).lower(...).compile()`` gives, or its text.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> collectives(jax.jit(jnp.sum).lower(jnp.ones(8)).compile())
        []
    """
    text = program if isinstance(program, str) else program.as_text()
    found = []
    for line in text.splitlines():
        call = _CALL.search(line)
        if call is None:
            continue
        arrays = [(kind, _sizes(sizes)) for kind, sizes in _ARRAY.findall(call[1])]
        name = _NAME.search(line)
        found.append(
            Collective(
                call[2],
                tuple(shape for _, shape in arrays),
                sum(_width(kind) * math.prod(shape) for kind, shape in arrays),
                name[1] if name else "",
            )
        )
    return found


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size)


def _width(kind: str) -> int:
    if kind == "pred":
        return 1
    bits = re.match(r"[a-z]+(\d+)", kind)
    return max(1, int(bits[1]) // 8) if bits else 4


def purpose(one: Collective, arrays: Any, examples: int) -> str:
    """What a communication is for.

    Args:
        one: from :func:`collectives`.
        arrays: the parameters of student and teacher, or their shapes.
        examples: in the batch of all devices.

    Returns:
        ``"parameters"`` for gathering slices of them; ``"gradients"`` for adding those of all
        devices; ``"sums"`` for numbers and vectors that are means over the batch: losses, counts,
        statistics of a norm; ``"batch"`` for what a batch-coupled loss reads of every example, a
        matrix with a row for each; ``"other"`` for anything else.
    """
    shapes = [tuple(leaf.shape) for leaf in jax.tree.leaves(arrays)]

    def of(shape: tuple[int, ...]) -> str:
        known = any(_piece_of(shape, whole) for whole in shapes)
        if one.kind == "all-gather" and known and shape[:1] != (examples,):
            return "parameters"
        if one.kind in ("all-reduce", "reduce-scatter"):
            if known and shape and "transpose(" in one.name:
                return "gradients"
            if len(shape) <= 1 and shape != (examples,):
                return "sums"
            if known and len(shape) > 1 and shape[0] != examples:
                return "gradients"
        rows = len(shape) <= 2 and shape[:1] == (examples,)
        return "batch" if rows and one.kind in ("all-gather", "all-reduce") else "other"

    found = {of(shape) for shape in one.shapes}
    order = ("other", "batch", "parameters", "gradients", "sums")
    return next(name for name in order if name in found)


def tally(program: Any, arrays: Any, examples: int) -> dict[str, dict[str, int]]:
    """How many communications of each :func:`purpose` a compiled program has, and their bytes."""
    found: dict[str, dict[str, int]] = {}
    for one in collectives(program):
        kept = found.setdefault(purpose(one, arrays, examples), {"count": 0, "bytes": 0})
        kept["count"] += 1
        kept["bytes"] += one.bytes
    return found


def _piece_of(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether it is the shape of an array or of a slice of it along one dimension; XLA may have
    transposed it, and taken dimensions of one away."""
    ours, theirs = (sorted(size for size in sizes if size > 1) for sizes in (shape, whole))
    if ours == theirs:
        return True
    for size in set(theirs):
        rest = list(theirs)
        rest.remove(size)
        cut = list(ours)
        for other in rest:
            if other in cut:
                cut.remove(other)
        if (
            len(cut) + len(rest) == len(ours)
            and math.prod(cut) < size
            and not size % math.prod(cut)
        ):
            return True
    return False
