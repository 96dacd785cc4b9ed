"""Metrics as sums and counts, and where they are written: JSON lines, TensorBoard."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax


class Writer(Protocol):
    """Somewhere to put metrics."""

    def __call__(self, step: int, values: Mapping[str, float], kind: str) -> None: ...


def reduce(metrics: Iterable[Mapping[str, tuple[Any, Any]]]) -> dict[str, float]:
    """The means over some steps of metrics that are pairs (sum, count); what was never counted is
    left out.

    Example:
        >>> reduce([{"kd": (6.0, 2.0)}, {"kd": (3.0, 1.0)}])
        {'kd': 3.0}
    """
    totals: dict[str, list[float]] = {}
    for step in jax.device_get(list(metrics)):
        for name, (total, count) in step.items():
            sums = totals.setdefault(name, [0.0, 0.0])
            sums[0] += float(total)
            sums[1] += float(count)
    return {name: total / count for name, (total, count) in totals.items() if count}


def json_lines(path: str | os.PathLike) -> Writer:
    """Appends one JSON object per call to a file; what is not finite is written as a string."""
    path = Path(path)

    def write(step: int, values: Mapping[str, float], kind: str) -> None:
        finite = {k: v if math.isfinite(v) else str(v) for k, v in values.items()}
        with path.open("a") as file:
            file.write(json.dumps({"step": step, "kind": kind, **finite}) + "\n")

    return write


def read_json_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """What :func:`json_lines` wrote, less a last line that a killed run left half written."""
    path = Path(path)
    if not path.exists():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def cut_json_lines(path: str | os.PathLike, step: int) -> None:
    """Drops what was written after a step, so that a resumed run writes it anew."""
    path = Path(path)
    if not path.exists():
        return
    kept = [line for line in read_json_lines(path) if line["step"] <= step]
    temporary = path.with_name(path.name + ".part")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
    os.replace(temporary, path)


def tensorboard(directory: str | os.PathLike) -> Writer:
    """Writes scalars for TensorBoard through ``tensorboardX``.

    Raises:
        ImportError: without the extra ``tensorboard``.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as fault:
        raise ImportError('TensorBoard needs: pip install "jaxdistill[tensorboard]"') from fault
    writer = SummaryWriter(str(directory))

    def write(step: int, values: Mapping[str, float], kind: str) -> None:
        for name, value in values.items():
            writer.add_scalar(f"{kind}/{name}", value, step)
        writer.flush()

    return write
