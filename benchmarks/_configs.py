"""The configs under ``configs/`` as plain data, and benchmarks that go through all of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxdistill import config_files
from jaxdistill.config_files import names


def config_of(name: str, size: str = "") -> dict[str, Any]:
    """A config in its published form, or in another size that it knows."""
    return config_files.read(f"{name}:{size}")


def options(made: Any) -> None:
    """Adds the options of :func:`one_by_one`."""
    made.add_argument("--configs", nargs="+", choices=names(), default=names(), metavar="config")
    made.add_argument("--limit", type=int, default=1800, help="seconds for one config")
    made.add_argument("--keep", default="", help="a folder of what was found; read if it is there")
    made.add_argument("--one", choices=names(), metavar="config", help="this one, in this process")


def tell(rows: Iterable[dict[str, Any]]) -> None:
    """What ``--one`` prints: a line of JSON for every stage, as soon as it is known."""
    for row in rows:
        print(json.dumps(row, default=float), flush=True)


def one_by_one(script: str, args: Any, *more: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Runs a benchmark with ``--one`` for every config, each in a process of its own: one that
    fails stops no other, and what it told until then counts.

    Returns:
        Rows of all stages, of each the one that was told last, and what was wrong.
    """
    rows, faults = [], []
    for number, name in enumerate(args.configs):
        begun = time.monotonic()
        output, fault = _told(script, name, args, more)
        told = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        found = {row["stage"]: row for row in told}
        rows += found.values()
        faults += [f"{name}: {fault}"] if fault else []
        taken = time.monotonic() - begun
        done = f"{number + 1}/{len(args.configs)} {name}: {len(found)} stages, {taken:.0f} s"
        print(done, fault, file=sys.stderr, flush=True)
    return rows, faults


def _told(script: str, name: str, args: Any, more: Iterable[str]) -> tuple[str, str]:
    kept = Path(args.keep, f"{name}.jsonl") if args.keep else None
    if kept is not None and kept.exists():
        return kept.read_text(), ""
    command = [sys.executable, script, "--one", name, *more]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.limit)
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
        output = said.decode() if isinstance(said, bytes) else said
        return output, f"not done after {args.limit} s"
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error: " in line]
        return done.stdout, (lines or ["no message"])[-1]
    if kept is not None:
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(done.stdout)
    return done.stdout, ""
