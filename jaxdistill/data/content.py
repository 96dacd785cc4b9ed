"""What records and files hold, as numbers: equal for what is equal, and cheap to compute again.

Nothing here is meant against forgery; an accident that leaves a hash as it was has odds of one in
billions.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxdistill.progress import shown

BESIDE = ("label", "index", "group")
"""What a record says of itself besides its content: answers and places."""
BLOCK = 8192
"""Of a file larger than three blocks, a block at the beginning, in the middle and at the end is
read.
"""
_WORDS_AT_ONCE = 2**20
# What is known of so many files outlives the process.
_KEPT = 1000
_T = TypeVar("_T")


def record_hashes(records: Mapping[str, np.ndarray]) -> np.ndarray:
    """A number for what each record holds, labels aside; uint64 ``[B]``.

    Args:
        records: ``{name: array [B, ...]}``.

    Example:
        >>> image = np.array([[1, 2], [3, 4], [1, 2]], np.uint8)
        >>> found = record_hashes({"image": image, "label": np.arange(3)})
        >>> bool(found[0] == found[2]), bool(found[0] == found[1])
        (True, False)
    """
    names = sorted(set(records) - set(BESIDE))
    # Of labels alone there is nothing else to tell records by.
    parts = [row_hashes(records[name], name) for name in names or sorted(records)]
    return functools.reduce(lambda whole, part: mixed(whole) + part, parts)


def row_hashes(values: np.ndarray, name: str = "") -> np.ndarray:
    """A number for each row of an array, of its bytes, type and shape; uint64 ``[n]``.

    The sum of the 32-bit words of a row, each times a random 64-bit number of its place: at the
    speed of memory, which no hash row by row is.
    """
    values = np.ascontiguousarray(values)
    count, size = len(values), int(np.prod(values.shape[1:])) * values.dtype.itemsize
    about = f"{name} {values.dtype.str} {values.shape[1:]}"
    found = np.full(count, int(digest(about), 16) & (2**64 - 1), np.uint64)
    if not size or not count:
        return found
    flat = values.reshape(count, -1).view(np.uint8).reshape(count, size)
    words = -(-size // 4)
    weights = mixed(np.arange(words, dtype=np.uint64) + found[0]) | np.uint64(1)
    at_once = max(1, _WORDS_AT_ONCE // words)
    for start in range(0, count, at_once):
        part = flat[start : start + at_once]
        if size % 4:
            part = np.pad(part, ((0, 0), (0, 4 * words - size)))
        part = np.ascontiguousarray(part).view("<u4").astype(np.uint64)
        found[start : start + at_once] += np.einsum("ij,j->i", part, weights)
    return mixed(found)


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Numbers spread over 64 bits (the finaliser of SplitMix64)."""
    bits = numbers * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def text_hashes(texts: Iterable[str]) -> np.ndarray:
    """A number for each text; uint64 ``[n]``."""
    joined = b"".join(
        hashlib.blake2b(each.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for each in texts
    )
    return np.frombuffer(joined, "<u8").astype(np.uint64)


def digest(*parts: str | bytes | np.ndarray) -> str:
    """One short name for several things together.

    Example:
        >>> digest("a", "b") == digest("ab")
        False
    """
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            state.update(f"{part.dtype.str} {part.shape} ".encode())
            part = np.ascontiguousarray(part).view(np.uint8).data if part.size else b""
        elif isinstance(part, str):
            part = part.encode("utf-8", "surrogatepass")
        state.update(f"{len(part)} ".encode())
        state.update(part)
    return state.hexdigest()


def of_file(path: str | os.PathLike) -> int:
    """A number for a file: of its size and its bytes, of a large one of three blocks of them.

    Raises:
        OSError: where it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        state = hashlib.blake2b(str(size).encode(), digest_size=8)
        if size <= 3 * BLOCK:
            state.update(file.read())
        else:
            for start in (0, (size - BLOCK) // 2, size - BLOCK):
                file.seek(start)
                state.update(file.read(BLOCK))
    return int.from_bytes(state.digest(), "little")


class Files:
    """What is known of many files, found out again only for those that have changed.

    Of a thousand files or more it is kept in the user's cache folder (``XDG_CACHE_HOME``, or
    ``~/.cache``), so that another process need not read them either. A file that has the size and
    the times of last change, of content and of anything, that it had is taken for the same.

    Args:
        paths: of the files.
        ask: ``path -> number``; called by several threads.
        kind: what the numbers are, where they are kept.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        ask: Callable[[str], int] = of_file,
        kind: str = "hashes",
    ):
        self._paths = [os.fspath(path) for path in paths]
        self._ask = ask
        self._kind = kind
        self._seen = np.full((len(self._paths), 3), -1, np.int64)
        self._known = np.zeros(len(self._paths), np.uint64)
        self._memory: Path | None = None

    def __call__(self) -> np.ndarray:
        """The number of each file, uint64 ``[n]``; asks of those whose size or times are new."""
        now = np.array([_stamp(path) for path in self._paths], np.int64).reshape(-1, 3)
        if self._memory is None and len(self._paths) >= _KEPT:
            self._recall()
        changed = np.flatnonzero((now != self._seen).any(1)).tolist()
        if changed:
            found = in_parallel(lambda i: self._ask(self._paths[i]), changed, self._kind)
            self._known[changed] = np.array(found, np.uint64)
            self._seen[changed] = now[changed]
            self._keep()
        return self._known

    def _recall(self) -> None:
        paths = [os.path.abspath(path) for path in self._paths]
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        self._memory = Path(cache, "jaxdistill", f"{self._kind}-{digest(*paths)}.npz")
        try:
            with self._memory.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
                seen, known = kept["seen"], kept["known"]
        except Exception:  # not there, or damaged: all files are read
            return
        if seen.shape == self._seen.shape and known.shape == self._known.shape:
            self._seen, self._known = seen.astype(np.int64), known.astype(np.uint64)

    def _keep(self) -> None:
        if self._memory is None:
            return
        part = self._memory.with_suffix(f".{os.getpid()}.part")
        # Of a home that cannot be written the next process reads all files again.
        with contextlib.suppress(OSError):
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as stream:
                np.savez(stream, seen=self._seen, known=self._known)
            os.replace(part, self._memory)


def _stamp(path: str) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def in_parallel(
    ask: Callable[[Any], _T], things: Sequence[Any], kind: str, at_once: int = 64
) -> list[_T]:
    """``ask`` of each thing, by a few threads, in order; ``kind`` says what is found out."""
    blocks = [things[start : start + at_once] for start in range(0, len(things), at_once)]
    if len(blocks) < 2:
        return [ask(thing) for thing in things]
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        answers = pool.map(lambda block: [ask(thing) for thing in block], blocks)
        each = (answer for block in answers for answer in block)
        return list(shown(each, f"{kind} of files", "files", len(things)))
