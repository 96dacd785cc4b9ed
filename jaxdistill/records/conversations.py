"""Records as what a student reads: windows of tokens, what counts in them, and what it is worth."""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.data.content import digest, text_hashes
from jaxdistill.data.records import Reader, Records, Source, by_reading
from jaxdistill.data.split import PARTS, Splits, part_numbers
from jaxdistill.progress import shown
from jaxdistill.records.chats import Chat
from jaxdistill.records.nouns import Record
from jaxdistill.settings import Count, Fraction, checked

TOP = ("top/ids", "top/log_probs")
"""What a batch calls the most probable tokens of the teacher, ``[B, T, k]`` each."""


class Row(NamedTuple):
    """A record in tokens, ``n + 1`` of them: the last is only predicted."""

    id: str
    tokens: np.ndarray
    learnt: np.ndarray
    weight: float
    task: int
    top: tuple[int, np.ndarray, np.ndarray] | None


@checked
def conversations(
    records: Iterable[Record],
    chat: Chat,
    length: Count,
    *,
    pack: bool = False,
    name: str = "records",
    tasks: Sequence[str] | None = None,
) -> Source:
    """Records as windows of tokens, one conversation each, or several that do not see each other.

    A conversation is never cut: one that does not fit is left out. What counts are the tokens of
    messages that are learnt, by the offsets of the rendered text, see :meth:`Chat.encode`.

    Args:
        records: in any order; windows come in that of their ids.
        chat: template and tokenizer of the student.
        length: tokens in a window, T.
        pack: whether a window holds several conversations, those that fill it best.
        name: of the source.
        tasks: their names, in the order of their numbers; by default those of the records, sorted.

    Returns:
        A source of ``tokens`` int32 ``[T]``, ``label`` (the token behind each; -1 where there is
        none), ``counted`` bool (whether its prediction is learnt), ``weight`` float32 ``[T]`` (of
        the record), ``task`` int32 ``[T]`` (which of ``info["tasks"]``); packed, ``segments`` and
        ``positions``; otherwise ``prompt``, how many tokens come before the first that is learnt.
        Where a teacher gave its most probable tokens, ``top/ids`` int32 and ``top/log_probs``
        float32 ``[T, k]``, padded by ``-inf``. ``info`` counts what is ``left_out``, and of how
        many records the most probable tokens are not those of the text (``without_top``).

    Raises:
        ValueError: for two records of one id, a weight that is no finite number of 0 or above, a
            conversation of which nothing is learnt, a task that ``tasks`` does not name, and where
            nothing is left.

    Example:
        >>> from jaxdistill.data.tokenizers import byte_tokenizer
        >>> from jaxdistill.records import Message, Provenance
        >>> from jaxdistill.records.chats import chat
        >>> from jaxdistill.records.templates import plain
        >>> said = (Message("user", "2+3"), Message("assistant", "5", learn=True))
        >>> one = Record("a", said, Provenance("oracle"))
        >>> found = conversations([one], chat(byte_tokenizer(), plain()), 6).gather(np.array([0]))
        >>> found["label"][0].tolist(), found["counted"][0].tolist()
        ([43, 51, 10, 53, 256, -1], [False, False, False, True, True, False])
    """
    given = in_order(records)
    names = task_names(given, tasks)
    rows = [
        _row(each, chat, names.index(each.task))
        for each in shown(given, f"tokens of {name}", "records")
    ]
    return windows_of(rows, chat, length, names, pack=pack, name=name)


def in_order(items: Iterable[Any]) -> list[Any]:
    """Records, or requests, by their ids, of which no two are equal."""
    given = sorted(items, key=lambda each: each.id)
    for before, after in itertools.pairwise(given):
        if before.id == after.id:
            raise ValueError(f"two {type(after).__name__.lower()}s have the id {after.id!r}")
    return given


def task_names(items: Sequence[Any], tasks: Sequence[str] | None) -> list[str]:
    """The names of tasks in the order of their numbers."""
    own = sorted({each.task for each in items})
    if tasks is None:
        return own
    for each in own:
        if each not in tasks:
            raise ValueError(unknown("task", each, tasks))
    return list(tasks)


def windows_of(
    rows: Sequence[Row],
    chat: Chat,
    length: int,
    tasks: Sequence[str],
    *,
    pack: bool = False,
    name: str,
) -> Source:
    """A source of those rows that fit into a window."""
    asked = len(rows)
    rows = [row for row in rows if len(row.tokens) - 1 <= length]
    if not rows:
        raise ValueError(f"none of {asked} records of {name!r} fits {length} tokens")
    tops = [row.top for row in rows]
    width = max((each[1].shape[1] for each in tops if each), default=0)
    tokenizer = chat.tokenizer
    info = {
        "vocabulary": tokenizer.vocabulary,
        "end": tokenizer.end,
        "ends": chat.ends,
        "length": length,
        "tokenizer": tokenizer.fingerprint,
        "template": chat.template.fingerprint,
        "encoding": tokenizer,
        "tasks": tuple(tasks),
        "left_out": asked - len(rows),
    }
    if width:
        info |= {"top": width, "without_top": sum(each is None for each in tops)}
    if pack:
        bins = _packed([len(row.tokens) - 1 for row in rows], length)
        ids = [f"{name}/packed/{number:06d}" for number in range(len(bins))]
    else:
        bins = [[number] for number in range(len(rows))]
        ids = [row.id for row in rows]
    read = functools.partial(_read, rows, bins, length, width, tokenizer.end, pack)
    identity = functools.partial(_identity, rows, bins, length)
    return Source(name, ids, Reader(read, by_reading(read, len(ids)), identity), info)


@checked
def conversation_splits(
    records: Iterable[Record],
    chat: Chat,
    length: Count,
    *,
    pack: bool = False,
    validation: Fraction = 0.1,
    test: Fraction = 0.0,
    name: str = "records",
) -> Splits:
    """Records in the parts of a data set.

    Where all records are of split ``"train"``, shares of them are held out by the hash of what the
    student is asked: all answers to one prompt, whoever wrote them, are in one part. Held-out parts
    are never packed.

    Raises:
        ValueError: for a record of another split than ``"train"``, ``"validation"`` and ``"test"``,
            and for a part without a record.
    """
    given = list(records)
    by_part: dict[str, list[Record]] = {part: [] for part in PARTS}
    for each in given:
        if each.split not in by_part:
            raise ValueError(f"record {each.id}: " + unknown("split", each.split, PARTS))
        by_part[each.split].append(each)
    if len(by_part["train"]) == len(given):
        asked = text_hashes(
            "\0".join(f"{m.role}\0{m.content}" for m in each.prompt) for each in given
        )
        hashed = [f"{number:016x}" for number in asked.tolist()]
        numbers = part_numbers(hashed, validation, test)
        shares = {"train": 1.0, "validation": validation, "test": test}
        for number, part in enumerate(PARTS):
            by_part[part] = [r for r, n in zip(given, numbers, strict=True) if n == number]
            if shares[part] and not by_part[part]:
                raise ValueError(
                    f"the {part} part of {name!r} ({len(given)} records) is empty: raise its share"
                )
    return Splits(
        {
            part: conversations(
                own, chat, length, pack=pack and part == "train", name=f"{name}[{part}]"
            )
            for part, own in by_part.items()
            if own
        }
    )


def _row(record: Record, chat: Chat, task: int) -> Row:
    if not (math.isfinite(record.weight) and record.weight >= 0):
        raise ValueError(f"record {record.id}: its weight is {record.weight}, not 0 or above")
    try:
        found = chat.encode(record.messages)
    except ValueError as fault:
        raise ValueError(f"record {record.id}: {fault}") from fault
    if not found.learnt[1:].any():
        raise ValueError(
            f"record {record.id}: nothing of it is learnt; mark messages with learn=True"
        )
    top = _top(record, found.tokens, found.learnt)
    return Row(record.id, found.tokens, found.learnt, record.weight, task, top)


def _top(
    record: Record, tokens: np.ndarray, learnt: np.ndarray
) -> tuple[int, np.ndarray, np.ndarray] | None:
    """Where the most probable tokens begin, and they; None if the text has other tokens."""
    top = record.top
    if top is None or not top.tokens or not all(isinstance(each, int) for each in top.tokens):
        return None
    # The answer is the last run of what is learnt.
    end = len(learnt) - int(learnt[::-1].argmax())
    start = end - int((~learnt[:end])[::-1].argmax())
    size = min(end - start, len(top.tokens))
    if abs(end - start - len(top.tokens)) > 1 or (tokens[start:][:size] != top.tokens[:size]).any():
        return None
    width = max(map(len, top.top))
    ids = np.zeros((size, width), np.int32)
    log_probs = np.full((size, width), -np.inf, np.float32)
    for place in range(size):
        known = len(top.top[place])
        ids[place, :known], log_probs[place, :known] = top.top[place], top.logps[place]
    return start, ids, log_probs


def _packed(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Which rows share a window: the longest first, each where the least room is left.

    Example:
        >>> _packed([3, 6, 2, 5], 8)
        [[1, 2], [3, 0]]
    """
    bins: list[list[int]] = []
    room: dict[int, list[int]] = {}
    rooms: list[int] = []  # those of `room`, in order
    for row in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        at = bisect.bisect_left(rooms, sizes[row])
        if at == len(rooms):
            number, left = len(bins), length
            bins.append([])
        else:
            left = rooms[at]
            number = room[left].pop()
            if not room[left]:
                del room[left], rooms[at]
        bins[number].append(row)
        left -= sizes[row]
        if left:
            if left not in room:
                bisect.insort(rooms, left)
            room.setdefault(left, []).append(number)
    return bins


def _read(
    rows: Sequence[Row],
    bins: Sequence[Sequence[int]],
    length: int,
    width: int,
    end: int,
    pack: bool,
    indices: np.ndarray,
) -> Records:
    shape = (len(indices), length)
    found: dict[str, Any] = {
        "tokens": np.full(shape, end, np.int32),
        "label": np.full(shape, -1, np.int32),
        "counted": np.zeros(shape, bool),
        "weight": np.zeros(shape, np.float32),
        "task": np.zeros(shape, np.int32),
    }
    if pack:
        found["segments"] = np.zeros(shape, np.int32)
        found["positions"] = np.zeros(shape, np.int32)
    else:
        found["prompt"] = np.zeros(len(indices), np.int32)
    if width:
        found[TOP[0]] = np.zeros((*shape, width), np.int32)
        found[TOP[1]] = np.full((*shape, width), -np.inf, np.float32)
    for place, index in enumerate(indices):
        at = 0
        for segment, number in enumerate(bins[index], 1):
            row = rows[number]
            size = len(row.tokens) - 1
            here = (place, slice(at, at + size))
            found["tokens"][here], found["label"][here] = row.tokens[:-1], row.tokens[1:]
            found["counted"][here] = row.learnt[1:]
            found["weight"][here], found["task"][here] = row.weight, row.task
            if pack:
                found["segments"][here], found["positions"][here] = segment, np.arange(size)
            else:
                found["prompt"][place] = row.learnt.argmax() if row.learnt.any() else size
            if row.top:
                # A token is predicted one place before its own; the first of a text nowhere.
                start, ids, log_probs = row.top
                first = max(start - 1, 0)
                skipped = first - (start - 1)
                where = slice(at + first, at + first + len(ids) - skipped)
                known = ids.shape[1]
                found[TOP[0]][place, where, :known] = ids[skipped:]
                found[TOP[1]][place, where, :known] = log_probs[skipped:]
            at += size
    return found


def _identity(rows: Sequence[Row], bins: Sequence[Sequence[int]], length: int) -> str:
    tops = [row.top for row in rows if row.top]
    return digest(
        np.concatenate([row.tokens for row in rows]),
        np.concatenate([row.learnt for row in rows]),
        np.array([row.weight for row in rows]),
        np.array([row.task for row in rows]),
        np.array([len(row.tokens) for row in rows]),
        np.concatenate([np.array(own + [-1]) for own in map(list, bins)]),
        *(part for top in tops for part in top[1:]),
        f"{length} {[top[0] for top in tops]}",
    )
