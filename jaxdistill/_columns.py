"""Text in columns, as terminals show it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[object]], indent: str = "  ", numbers: bool = False) -> str:
    """Rows of cells as lines, every column as wide as its widest cell.

    Args:
        rows: the cells; every row has as many.
        indent: before every line.
        numbers: set all columns but the first to the right.

    Example:
        >>> print(aligned([("stage", "steps"), ("distil", 300)], numbers=True))
          stage   steps
          distil    300
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = "<" + (">" if numbers else "<") * (len(widths) - 1)
    lines = (
        "  ".join(f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True))
        for row in cells
    )
    return "\n".join(f"{indent}{line}".rstrip() for line in lines)
