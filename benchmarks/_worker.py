"""PyTorch in a process of its own, to stand beside.

Its steps are in ``_torch_steps.py``, run by an interpreter of its own if one is given; both sides
take turns, so that other work on the machine slows both down alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from _measure import Seconds


class Worker:
    """PyTorch in a process of its own, which takes a step when it is asked to."""

    def __init__(self, python: str, settings: dict[str, Any], threads: int):
        script = Path(__file__).with_name("_torch_steps.py")
        self.process = subprocess.Popen(
            [python, str(script), json.dumps({**settings, "threads": threads})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        first = self._answer()
        self.parameters, self.version = first["parameters"], first["torch"]
        # Of its first step, before which its weights are those it was given, if any.
        self.loss = first["loss"]

    def steps(self, count: int) -> Seconds:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"steps": count}) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        return Seconds(answer["wall"], answer["processor"])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"PyTorch ended with status {self.process.wait()}")
        return json.loads(line)


def torch_option(made: Any) -> None:
    """Adds ``--torch-python`` to the options of a benchmark."""
    made.add_argument(
        "--torch-python", default="", help="an interpreter with torch; this one by default"
    )


def has(package: str, python: str) -> bool:
    """Whether an interpreter has a package."""
    found = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", found]).returncode == 0


def finds_torch(args: Any) -> str | None:
    """The interpreter that was given if it has PyTorch, else None, which is said."""
    python = args.torch_python or sys.executable
    if has("torch", python):
        return python
    # Not where it is: what is printed is kept with the results.
    whose = "that interpreter" if args.torch_python else "this interpreter"
    print(f"no torch in {whose}: our own times alone\n")
    return None
