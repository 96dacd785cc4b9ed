"""Processes that answer a line of JSON with another, and are ended when they take too long."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

_Thing = TypeVar("_Thing")
_STARTING = 120.0  # seconds; imports on a busy machine


class Worker:
    """A process that runs a script of this folder.

    Args:
        script: its name, or the path of another one.
        arguments: of the script. It writes a line when it is ready.
        seconds: after which it is ended when it does not answer.

    Raises:
        ImportError: if it cannot start, with what it said last.
    """

    def __init__(self, script: str, arguments: Sequence[Any], seconds: float):
        self._seconds = seconds
        file = Path(__file__).parent / script
        # -P: the script's folder holds modules that are not meant for it.
        self._command = [sys.executable, "-P", str(file), *map(str, arguments)]
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def ask(self, question: Any) -> Any:
        """The answer, or None if none came in time: the process is ended, the next call starts
        another."""
        if self._process is None:
            self._start()
        process: Any = self._process
        with contextlib.suppress(BrokenPipeError):  # it is gone: it will not answer either
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
        said = self._line(self._seconds)
        if said is None:
            self.close()
            return None
        return json.loads(said)

    def close(self) -> None:
        """Ends the process."""
        process, self._process, self._rest = self._process, None, b""
        if process is not None:
            process.kill()
            process.communicate()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if self._line(_STARTING) is None:
            self._process.kill()
            said = self._process.communicate()[1].decode(errors="replace").strip().splitlines()
            self._process = None
            raise ImportError(f"a worker did not start: {said[-1] if said else 'it said nothing'}")

    def _line(self, seconds: float) -> bytes | None:
        """What the process writes next; None if it is silent for so long, or gone."""
        process: Any = self._process
        handle = process.stdout.fileno()
        while b"\n" not in self._rest:
            ready, _, _ = select.select([handle], [], [], seconds)
            found = os.read(handle, 2**16) if ready else b""
            if not found:
                return None
            self._rest += found
        said, _, self._rest = self._rest.partition(b"\n")
        return said


def in_threads(
    work: Callable[[queue.SimpleQueue], None], things: Sequence[Any], threads: int
) -> None:
    """Lets some threads work through a queue of ``(number, thing)``, until it is empty.

    Raises:
        Exception: the first that one of them raises.
    """
    todo: queue.SimpleQueue = queue.SimpleQueue()
    for pair in enumerate(things):
        todo.put(pair)
    faults: list[BaseException] = []

    def run() -> None:
        try:
            work(todo)
        except BaseException as fault:
            faults.append(fault)

    started = [threading.Thread(target=run) for _ in range(min(threads, len(things)))]
    for each in started:
        each.start()
    for each in started:
        each.join()
    if faults:
        raise faults[0]
