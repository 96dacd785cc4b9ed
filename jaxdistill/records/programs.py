"""Programs that a teacher wrote, run against tests: only when asked to, and within limits."""

from __future__ import annotations

import dataclasses
import functools
import queue
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxdistill.progress import Progress
from jaxdistill.records.canonical import identity
from jaxdistill.records.nouns import Record
from jaxdistill.records.steps import Decision, deciding
from jaxdistill.records.workers import in_threads
from jaxdistill.settings import Count, Share

Isolation = Literal["kernel", "none"]
"""What holds a program: a filter of the kernel, or only its limits."""

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
# Seconds of the clock for each of the processor.
_PATIENCE = 10.0
_PROBE = """
import os, socket, subprocess
for forbidden in (
    lambda: socket.socket(),
    lambda: open("written", "w"),
    lambda: os.remove("kept"),
    lambda: subprocess.run(["true"]),
):
    try:
        forbidden()
    except OSError:
        continue
    raise SystemExit(1)
"""


def _allowed(said: Mapping[str, Any]) -> str:
    if not said["allow"]:
        return (
            "it runs programs that a teacher wrote; say allow=True if that is wanted, best inside "
            "a container without anything of value"
        )
    if said["isolation"] == "kernel" and not confines():
        return (
            "this machine cannot hold programs off the network and the files (that takes Linux on "
            "x86-64 with seccomp); inside a container that does say isolation='none'"
        )
    return ""


@deciding(gives=("score {name}",), check=_allowed)
def verified_code(
    items: Sequence[Record],
    seed: int,
    *,
    allow: bool = False,
    isolation: Isolation = "kernel",
    name: str = "passed",
    least: Share = 1.0,
    most: Count = 10,
    seconds: Count = 5,
    memory: Count = 1024,
    workers: Count = 2,
) -> list[Decision]:
    """Runs the program in an answer against the record's tests, and keeps what passes them.

    A test is Python source that is run behind the program, in a process of its own: it passes if it
    reaches its end. The processes have limits of time, memory and file size, an empty folder and an
    empty environment. With ``isolation="kernel"`` they can read files, but neither write, remove,
    start processes nor reach the network. No such limit makes hostile programs safe: run them in a
    container.

    Args:
        items: records with ``tests``.
        seed: not used.
        allow: without it nothing is run.
        isolation: ``"none"`` leaves files and network to a container of yours.
        name: of the score, the share of tests that pass.
        least: the share that a record needs.
        most: so many tests are run, the first ones.
        seconds: of the processor for a test.
        memory: MiB for a test.
        workers: tests at once.

    Raises:
        ValueError: if it is not allowed to run programs, or could not confine them.
    """
    if wrong := _allowed({"allow": allow, "isolation": isolation}):
        raise ValueError(f"verified_code: {wrong}")
    asked = [
        (each, test, f"{each.id} {number}")
        for each in items
        for number, test in enumerate(each.tests[:most])
    ]
    results = _run_all(asked, isolation, seconds, memory, workers)
    found, place = [], 0
    for each in items:
        count = len(each.tests[:most])
        own, place = results[place : place + count], place + count
        if not count:
            found.append(Decision(each, False, reason="no tests"))
            continue
        share = own.count("passed") / count
        scored = dataclasses.replace(each, scores={**each.scores, name: share})
        failed = next((result for result in own if result != "passed"), "")
        fine = share >= least
        found.append(Decision(scored, fine, share, "" if fine else failed))
    return found


def program_of(answer: str) -> str:
    """The program in an answer: its last fenced block, or all of it where there is none.

    Example:
        >>> program_of("So:\\n```python\\nx = 1\\n```\\nDone.")
        'x = 1\\n'
    """
    blocks = _FENCE.findall(answer)
    return blocks[-1] if blocks else answer


@functools.cache
def confines() -> bool:
    """Whether this machine can hold programs off network, files and processes; it is tried."""
    return _run(_PROBE, "probe", "kernel", 5, 1024) == "passed"


def _run_all(
    asked: Sequence[tuple[Record, str, str]],
    isolation: Isolation,
    seconds: int,
    memory: int,
    workers: int,
) -> list[str]:
    found = [""] * len(asked)
    with Progress(len(asked), label="test programs", unit="tests", inner=True) as progress:
        done: list[int] = []

        def work(todo: queue.SimpleQueue[Any]) -> None:
            while True:
                try:
                    number, (record, test, token) = todo.get_nowait()
                except queue.Empty:
                    return
                source = f"{program_of(record.answer)}\n\n{test}\n"
                found[number] = _run(source, token, isolation, seconds, memory)
                done.append(number)
                progress.update(len(done))

        in_threads(work, asked, workers)
    return found


def _run(source: str, token: str, isolation: Isolation, seconds: int, memory: int) -> str:
    """``"passed"``, or what went wrong."""
    # A program that ends early, by whatever code, has not reached this.
    end = identity("reached", token)
    whole = f"{source}\nimport sys as _sys\n_sys.__stdout__.write({end!r})\n"
    script = Path(__file__).with_name("_worker_code.py")
    confined = "confined" if isolation == "kernel" else "not"
    command = [sys.executable, "-P", "-B", str(script), str(seconds), str(memory), confined]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kept").touch()
        said = Path(folder) / "said"
        try:
            # Into a file: the limit of a file's size is that of what it may say.
            with said.open("wb") as out:
                done = subprocess.run(
                    command,
                    input=whole.encode("utf-8", "replace"),
                    stdout=out,
                    stderr=subprocess.DEVNULL,
                    cwd=folder,
                    env={"LANG": "C.UTF-8"},
                    timeout=_PATIENCE * seconds,
                    check=False,
                )
        except subprocess.TimeoutExpired:
            return "timed out"
        last = said.read_bytes()
    if done.returncode in (-9, -24, 137, 152):
        return "timed out"
    passed = done.returncode == 0 and last.endswith(end.encode())
    return "passed" if passed else "failed a test"
