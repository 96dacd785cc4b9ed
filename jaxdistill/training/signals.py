"""SIGTERM and SIGINT as an exception that comes between the steps of a run, never within one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Stopped(SystemExit):
    """A run was told to stop; it can be gone on with.

    Where nothing catches it, Python ends without a traceback, with status 143 after SIGTERM and 130
    after SIGINT.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int, said: str = "the same command goes on"):
        super().__init__(f"stopped by {signal.Signals(number).name}: {said}")
        self.number = number
        self.code = 128 + number


class _State:
    """Signals belong to the process, and so does what is known of them."""

    held = 0
    first: int | None = None  # the first signal that arrived


@contextlib.contextmanager
def stoppable(*, terminate: bool = True) -> Iterator[None]:
    """Raises :class:`Stopped` on SIGTERM and SIGINT, unless somebody else handles them. A second
    SIGINT ends at once, as Python does it.

    Args:
        terminate: whether SIGTERM is handled too.
    """
    numbers = (signal.SIGINT, *((signal.SIGTERM,) if terminate else ()))
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        default = (signal.SIG_DFL, signal.default_int_handler)
        mine = [number for number in numbers if signal.getsignal(number) in default]
        before = {number: signal.signal(number, _handle) for number in mine}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if before:
            _State.first = None


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Lets a signal wait until what is inside is done."""
    _State.held += 1
    try:
        yield
    finally:
        _State.held -= 1
    if _State.first is not None and not _State.held:
        raise Stopped(_State.first)


def _handle(number: int, frame: Any) -> None:
    if _State.first is not None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        return
    # It stays known: what is raised where Python finalises an object is lost.
    _State.first = number
    if not _State.held:
        raise Stopped(number)
