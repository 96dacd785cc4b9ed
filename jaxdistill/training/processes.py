"""Several processes as one run: who writes, who waits, and what all of them know.

Every process runs the same program on its own devices and its own share of the records. What is
written but once (metrics, manifests, reports) the first of them writes.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import sys
from typing import Any

import jax
import numpy as np

from jaxdistill.training import signals


def join() -> None:
    """Joins the other processes of this run; before anything else is done with JAX.

    On TPU pods, under SLURM and under Open MPI they are found; elsewhere
    ``JAX_COORDINATOR_ADDRESS`` (host and port of the first one), ``JAX_NUM_PROCESSES`` and
    ``JAX_PROCESS_ID`` say where they are.

    Raises:
        ValueError: if only some of the three are given, or the numbers do not fit.
    """
    _end_in_words("the other processes of this run were not found", "start this command on each")
    _initialize()
    several = jax.process_count() > 1
    signals.pass_on_interrupts(several)
    if several:
        _end_in_words(_GONE, _GO_ON)
    else:
        signal.signal(signal.SIGABRT, signal.SIG_DFL)


def _initialize() -> None:
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    given = {name: os.environ[name] for name in names if os.environ.get(name)}
    if not given:
        jax.distributed.initialize()
        return
    if missing := [name for name in names if name not in given]:
        raise ValueError(f"to join {', '.join(given)} needs {', '.join(missing)} as well")
    try:
        count, number = (int(given[name]) for name in names[1:])
    except ValueError:
        raise ValueError(f"numbers are wanted, got {given}") from None
    if not 0 <= number < count:
        raise ValueError(f"JAX_PROCESS_ID must be in 0..{count - 1}, got {number}")
    jax.distributed.initialize(given[names[0]], count, number)


# What libraries of communication and the coordinator say when somebody does not answer.
_LOST = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "heartbeat", "coordination")


def is_lost(fault: Exception) -> bool:
    """Whether a fault says that another process of this run is gone."""
    if not isinstance(fault, jax.errors.JaxRuntimeError) or jax.process_count() == 1:
        return False
    return any(word in str(fault) for word in _LOST)


_GONE = "another process of this run is gone"
_GO_ON = "the same command on all of them goes on from the last checkpoint"


def end_as_lost(reason: str, what: str = _GONE, remedy: str = _GO_ON) -> None:
    """Ends this process with one sentence and status 2, at once: to take leave of another process
    that is gone would hang."""
    sys.stdout.flush()
    os.write(2, f"error: {what}; {remedy} ({reason})\n".encode())
    os._exit(2)


def _end_in_words(what: str, remedy: str) -> None:
    """Ends with a sentence where JAX aborts: so it does when it does not find the other processes
    or loses the one that coordinates them, and no exception or handler of Python's comes in
    between."""

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def aborted(number: int) -> None:
        end_as_lost("JAX ended this one as well, in its own words above", what, remedy)

    _HANDLERS.append(aborted)
    ctypes.CDLL(None).signal(int(signal.SIGABRT), aborted)


_HANDLERS: list[Any] = []  # what C calls must not be cleared up
_POLLS = itertools.count()


def told_to_stop() -> bool:
    """Whether one of several processes was told to end by SIGTERM, and all of them are at the call
    at which they stop. All must call it equally often; one process alone gets its signals as
    exceptions, see :mod:`jaxdistill.training.signals`."""
    if jax.process_count() == 1:
        return False
    from jax.experimental import multihost_utils

    try:
        return multihost_utils.reached_preemption_sync_point(next(_POLLS))
    except RuntimeError:  # the service that tells them is turned off
        return False


def is_first() -> bool:
    """Whether this process writes what is written but once."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process is there."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def least(number: int) -> int:
    """The least of a number over all processes."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.process_allgather(np.array(number)).min())


def whole(array: Any) -> Any:
    """An array of which other processes hold slices, whole on the host; others as they are. Every
    process must call it."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return array
    if array.is_fully_replicated:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(array, tiled=True)
