"""What all benchmarks share: times taken in turn, memory, the machine, and how results are told.

A figure is a ratio of times taken in turn on one machine. Whatever else runs there slows both
sides down alike; the quartiles of the ratios say how far that held.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax


class Seconds(NamedTuple):
    """One run by two clocks; the processor's is disturbed less by other work on the machine."""

    wall: float
    processor: float


# Options that name places on the machine, and what results say instead.
PLACES = {
    "torch_python": "<python with torch>",
    "keep": "<folder>",
    "data": "<folder>",
    "claim": "<folder>",
}


class Compiled(NamedTuple):
    """A compiled program, what making it took, and what it holds."""

    call: Any
    trace_seconds: float
    compile_seconds: float
    # Of the processor, for both: at least what an idle machine takes.
    processor_seconds: float

    @property
    def memory(self) -> dict[str, float]:
        return memory(self.call)

    @property
    def flops(self) -> float:
        """As XLA counts them, the body of a loop once."""
        return float(self.call.cost_analysis()["flops"])


def seconds(call: Callable[[], Any]) -> Seconds:
    """How long a call takes until its arrays are there. One that was timed elsewhere, in another
    process say, gives its :class:`Seconds` itself."""
    wall, processor = time.perf_counter(), time.process_time()
    found = jax.block_until_ready(call())
    if isinstance(found, Seconds):
        return found
    return Seconds(time.perf_counter() - wall, time.process_time() - processor)


def in_turn(
    calls: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 1
) -> dict[str, list[Seconds]]:
    """Times of several calls, one after the other, over and over; each round begins with another,
    and the first rounds are left out."""
    names = list(calls)
    found: dict[str, list[Seconds]] = {name: [] for name in names}
    for number in range(warmup + repeats):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            taken = seconds(calls[name])
            if number >= warmup:
                found[name].append(taken)
    return found


def ratio(times: Mapping[str, list[Seconds]], name: str, other: str) -> dict[str, Any]:
    """What ``name`` takes of the time of ``other``: the median over rounds and its quartiles, and
    the median by the processor's clock."""
    pairs = list(zip(times[name], times[other], strict=True))
    walls = [a.wall / b.wall for a, b in pairs]
    low, middle, high = quartiles(walls)
    of_processor = statistics.median(a.processor / max(b.processor, 1e-9) for a, b in pairs)
    return {"ratio": middle, "quartiles": [low, high], "processor_ratio": of_processor}


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The quarter, the half and the three quarters of some values."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def median_ms(times: Iterable[Seconds]) -> float:
    """Milliseconds by the wall's clock."""
    return 1e3 * statistics.median(each.wall for each in times)


def compiled(function: Callable[..., Any], *arguments: Any, **options: Any) -> Compiled:
    """A function compiled for arguments, arrays or their shapes; ``options`` are those of
    ``jax.jit``."""
    begun, own = time.perf_counter(), time.process_time()
    lowered = jax.jit(function, **options).lower(*arguments)
    traced = time.perf_counter()
    program = lowered.compile()
    ended = time.perf_counter()
    return Compiled(program, traced - begun, ended - traced, time.process_time() - own)


def memory(program: Any) -> dict[str, float]:
    """MiB of a compiled program on one device: temporary arrays, and those with arguments and
    results."""
    sizes = program.memory_analysis()
    held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return {
        "temporary_mib": sizes.temp_size_in_bytes / 2**20,
        "peak_mib": (sizes.temp_size_in_bytes + held) / 2**20,
    }


def alone(
    script: str, names: Sequence[str], options: Iterable[str] = (), keep: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """Runs a benchmark with ``--one`` for every name, each in a process of its own, where no other
    has left its memory behind.

    Args:
        script: the benchmark.
        names: what it is told by ``--one``.
        options: what else it is told.
        keep: a file of what was found before, which is not measured again, and is added to.

    Returns:
        What each printed as its last line, by name, and what was wrong.
    """
    kept = Path(keep) if keep else None
    lines = kept.read_text().splitlines() if kept and kept.exists() else []
    rows = {name: row for name, row in map(json.loads, lines) if name in names}
    faults = []
    for number, name in enumerate(names):
        if name in rows:
            continue
        print(f"{number + 1}/{len(names)} {name}", file=sys.stderr, flush=True)
        command = [sys.executable, script, "--one", name, *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            faults.append(f"{name}: ended with status {done.returncode}")
        else:
            rows[name] = json.loads(done.stdout.splitlines()[-1])
            if kept:
                with kept.open("a") as file:
                    file.write(json.dumps([name, rows[name]]) + "\n")
    return {name: rows[name] for name in names if name in rows}, faults


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def highest() -> int:
    """Bytes of this process in memory at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def machine() -> dict[str, Any]:
    """Versions, XLA's flags and hardware, and how busy the machine was: a load above the cores is a
    shared one."""
    from jaxdistill.training._environment import environment

    return {
        **environment(),
        "flags": os.environ.get("XLA_FLAGS", ""),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "load": [round(each, 2) for each in os.getloadavg()],
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def parser(doc: str | None, smoke: str = "small sizes, no target is checked") -> Any:
    """Options of a benchmark, with ``--smoke`` among them."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--smoke", action="store_true", help=smoke)
    return made


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as Markdown, in columns that a terminal shows well too.

    Example:
        >>> print(table(("step", "ms"), [("kd", 1.5)]))
        | step |  ms |
        |------|----:|
        | kd   | 1.5 |
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    # Names to the left, numbers to the right.
    sides = "<" + ">" * (len(columns) - 1)

    def line(row: Sequence[str]) -> str:
        padded = (f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rules = ("-" * (w + 1) + ("-" if s == "<" else ":") for s, w in zip(sides, widths, strict=True))
    return "\n".join([line(columns), f"|{'|'.join(rules)}|", *map(line, cells)])


def spread(found: Mapping[str, Any]) -> str:
    """A ratio with its quartiles."""
    low, high = found["quartiles"]
    return f"{found['ratio']:.3f} ({low:.2f} to {high:.2f})"


def finish(
    name: str,
    options: Any,
    results: Mapping[str, Any],
    missed: Sequence[str] = (),
    faults: Sequence[str] = (),
) -> int:
    """Says which targets were missed and what broke, which counts in small sizes too, prints all as
    one JSON object, and gives the exit status."""
    smoke = bool(getattr(options, "smoke", False))
    lost = [*faults, *([] if smoke else missed)]
    for each in lost:
        print(f"missed: {each}")
    whole = {
        "benchmark": name,
        "smoke": smoke,
        "options": {
            k: PLACES[k] if k in PLACES and v else v
            for k, v in vars(options).items()
            if not callable(v)
        },
        "machine": machine(),
        **results,
        "missed": lost,
    }
    print(json.dumps(whole, default=float))
    return int(bool(lost))
