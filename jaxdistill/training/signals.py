"""SIGTERM and SIGINT as an exception that comes between the steps of a run, never within one."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from typing import Any


class Stopped(SystemExit):
    """A run was stopped by a signal; it can be resumed.

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
    put_off = False  # whether it came where nothing can be raised, and is sent again
    passed_on = False  # whether others must hear of an interrupt before this process may stop
    told: int | None = None  # the interrupt that they were told of


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
            _State.first, _State.told, _State.put_off = None, None, False


@contextlib.contextmanager
def held(*, stop: bool = True) -> Iterator[None]:
    """Lets a signal wait until what is inside is done.

    Args:
        stop: whether it is raised then; not where the process is about to stop anyway.
    """
    _State.held += 1
    try:
        yield
    finally:
        _State.held -= 1
    if stop and _State.first is not None and not _State.held:
        raise Stopped(_State.first)


def pass_on_interrupts(several: bool) -> None:
    """Makes a SIGINT of one of several processes one that all of them stop for: it becomes a
    SIGTERM, which JAX tells the others of. A second one ends this process alone, at once."""
    _State.passed_on = several


def received(default: int) -> int:
    """The signal for which this process of several stops: its own interrupt, or the one that
    another process passed on."""
    return _State.told or default


def _handle(number: int, frame: Any) -> None:
    if _State.passed_on and number == signal.SIGINT:
        if _State.told:
            os._exit(128 + number)  # at its exit Python would wait for the other processes
        _State.told = number
        signal.raise_signal(signal.SIGTERM)
        return
    again = _State.first is not None and not _State.put_off
    _State.put_off = False
    _State.first = _State.first or _State.told or number
    if again and number == signal.SIGINT:
        raise KeyboardInterrupt
    if _State.held:
        return
    if _swallows(frame):
        _State.put_off = True
        # To the main thread: what another one receives does not wake it from waiting.
        main = threading.main_thread().ident
        later = threading.Timer(0.02, signal.pthread_kill, (main, number))
        later.daemon = True
        later.start()
        return
    raise Stopped(_State.first)


# What NumPy calls to make an array of numbers; what is raised there it takes for a wrong number.
_CONVERSIONS = ("__float__", "__int__", "__complex__", "__index__", "__bool__")


def _swallows(frame: Any) -> bool:
    """Whether what is raised here is lost: Python is clearing up, where it prints it and goes on,
    or a number is being converted."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        code = frame.f_code
        if code in callbacks or code.co_name == "__del__" or code.co_filename == weakref.__file__:
            return True
        if code.co_name in _CONVERSIONS:
            return True
        frame = frame.f_back
    return False
