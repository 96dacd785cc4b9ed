"""Runs benchmarks one after the other and keeps what they found.

    python benchmarks/run.py                        # all of them
    python benchmarks/run.py cache step_overhead    # some
    python benchmarks/run.py scaling -- --repeats 5 # with options of its own
    python benchmarks/run.py --smoke                # small sizes; nothing is kept

Each is a process of its own. ``benchmarks/results/<name>.json`` holds the command that made it,
how long it took, what it printed, and its figures; ``benchmarks/results/README.md`` all the tables.
What is not installed (torch, a GPU) a benchmark says itself and leaves out.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _measure import PLACES

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def names() -> list[str]:
    """All benchmarks, by the names of their files."""
    found = (path.stem for path in HERE.glob("*.py"))
    return sorted(name for name in found if name != "run" and not name.startswith("_"))


def run(name: str, options: Sequence[str]) -> dict[str, Any] | None:
    """Runs one, showing what it prints; what it found, or None where it broke."""
    places = {f"--{option.replace('_', '-')}": place for option, place in PLACES.items()}
    said = [places.get(before, each) for before, each in zip(("", *options), options, strict=False)]
    command = ["python", f"benchmarks/{name}.py", *said]
    print(f"\n## {shlex.join(command)}\n", flush=True)
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-u", str(HERE / f"{name}.py"), *options],
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if not line.startswith("{"):
            print(line, end="", flush=True)
    process.wait()
    try:
        figures = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        print(f"{name} broke: exit status {process.returncode}", flush=True)
        return None
    taken = time.monotonic() - begun
    print(f"{taken:.0f} s, {'targets missed' if process.returncode else 'no target missed'}")
    return {
        "command": shlex.join(command),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(taken),
        "text": lines[:-1],
        **figures,
    }


def keep(found: dict[str, Any], folder: Path = RESULTS) -> None:
    """Writes the figures of one benchmark, and the tables of all anew."""
    folder.mkdir(exist_ok=True)
    write(folder / f"{found['benchmark']}.json", json.dumps(found, indent=1) + "\n")
    write(folder / "README.md", page(folder))


def page(folder: Path) -> str:
    """All results there are, as one page."""
    parts = ["# Results\n", "Written by `python benchmarks/run.py`; what the figures mean is in"]
    parts += ["[performance](../../docs/performance.md). Times are of shared machines: only ratios"]
    parts += ["say something.\n"]
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text())
        there = found["machine"]
        where = f"{there['processor']}, {there['cores']} cores, load {there['load'][0]}"
        parts += [f"## {found['benchmark']}\n", f"`{found['command']}`\n"]
        versions = f"JAX {there['jax']}, Python {there['python']}"
        parts += [f"{found['date']}, {found['seconds']} s, {there['devices']}, {where}, {versions}"]
        parts += ["", *found["text"], ""]
    return "\n".join(parts).rstrip() + "\n"


def write(path: Path, text: str) -> None:
    """A file that bears its name only when it is whole."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    os.replace(temporary, path)


def main() -> int:
    """Runs those that were named; 1 where one broke or missed a target."""
    arguments = sys.argv[1:]
    own = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(names())}")
    parser.add_argument("--smoke", action="store_true", help="small sizes; nothing is kept")
    given = parser.parse_args(
        arguments[: arguments.index("--")] if "--" in arguments else arguments
    )
    for name in given.names:
        if name not in names():
            parser.error(f"there is no benchmark {name!r}, only {', '.join(names())}")
    worst = 0
    for name in given.names or names():
        found = run(name, [*(["--smoke"] if given.smoke else []), *own])
        if found is not None and not given.smoke:
            keep(found)
        worst |= int(found is None or bool(found["missed"]))
    return worst


if __name__ == "__main__":
    sys.exit(main())
