"""One process in a folder at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from jaxdistill.training.processes import is_first, least

NAME = "lock"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps other processes out of a folder, which is made where it is missing.

    The system holds the lock and frees it when the process ends, however it ends; the file
    only says who holds it. Of several processes of one run the first takes it for all.

    Raises:
        OSError: if another process is in it, naming that one, or if it cannot be written.
    """
    handle, fault = None, None
    if is_first():
        try:
            directory.mkdir(parents=True, exist_ok=True)
            handle = _take(directory / NAME)
        except BlockingIOError as busy:
            fault = OSError(str(busy))
        except OSError as refused:
            fault = OSError(f"the working directory {directory} cannot be written: {refused}")
    if not least(int(fault is None)):
        raise fault or OSError(f"the first process of this run could not take {directory}")
    try:
        yield
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                (directory / NAME).unlink()
            os.close(handle)


def _take(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise BlockingIOError(f"{path.parent} is in use by {_holder(path)}") from None
        except OSError:
            pass  # a file system without locks
        # The one before may have removed the file in the meantime.
        if path.exists() and os.stat(path).st_ino == os.fstat(handle).st_ino:
            break
        os.close(handle)
    about = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.strftime("%F %T")}
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps(about).encode())
    return handle


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_text())
        return f"process {found['pid']} on {found['host']}, since {found['started']}"
    except (OSError, ValueError, KeyError):
        return "another process"
