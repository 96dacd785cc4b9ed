"""Requests as what a student reads: what it is asked, and the right answer where it is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.data.records import Source
from jaxdistill.data.split import PARTS, Splits
from jaxdistill.progress import shown
from jaxdistill.records.chats import Chat
from jaxdistill.records.conversations import Row, in_order, task_names, windows_of
from jaxdistill.records.requests import Message, Request
from jaxdistill.settings import Count, checked


@checked
def requested(
    requests: Iterable[Request],
    chat: Chat,
    length: Count,
    *,
    name: str = "requests",
    tasks: Sequence[str] | None = None,
) -> Source:
    """Requests as windows of tokens: what the student is asked, and the right answer if known.

    Args:
        requests: in any order; windows come in that of their ids.
        chat: template and tokenizer of the student.
        length: tokens in a window, T.
        name: of the source.
        tasks: as for :func:`conversations`.

    Returns:
        A source as :func:`conversations` gives it; of a request without ``reference`` nothing
        counts. ``info["requests"]`` has all requests by their ids, those too that do not fit.

    Raises:
        ValueError: for two equal requests, and where none fits.

    Example:
        >>> from jaxdistill.data.tokenizers import byte_tokenizer
        >>> from jaxdistill.records.chats import chat
        >>> from jaxdistill.records.templates import plain
        >>> asked = [Request.of("2+3", reference="5"), Request.of("2+4")]
        >>> found = requested(asked, chat(byte_tokenizer(), plain()), 6)
        >>> sorted(found.gather(np.arange(2))["counted"].sum(1).tolist())
        [0, 2]
    """
    given = in_order(requests)
    names = task_names(given, tasks)
    rows = [
        _row(each, chat, names.index(each.task))
        for each in shown(given, f"tokens of {name}", "requests")
    ]
    found = windows_of(rows, chat, length, names, name=name)
    known = {"requests": {each.id: each for each in given}, "chat": chat}
    return dataclasses.replace(found, info={**found.info, **known})


@checked
def request_splits(
    requests: Iterable[Request], chat: Chat, length: Count, *, name: str = "requests"
) -> Splits:
    """Requests in the parts of a data set, by what they say of their ``split``.

    Args:
        requests: in any order.
        chat: template and tokenizer of the student.
        length: tokens in a window.
        name: of the data set.

    Returns:
        A source of :func:`requested` for each part; tasks have the same numbers in all.

    Raises:
        ValueError: for an unknown split, no request to train on, and a held-out one without a
            right answer.
    """
    given = list(requests)
    tasks = task_names(given, None)
    by_part: dict[str, list[Request]] = {part: [] for part in PARTS}
    for each in given:
        who = f"request {each.source or each.id}"
        if each.split not in by_part:
            raise ValueError(f"{who}: " + unknown("split", each.split, PARTS))
        if each.split != "train" and each.reference is None:
            raise ValueError(f"{who} is held out: it needs the right answer as its 'reference'")
        by_part[each.split].append(each)
    if not by_part["train"]:
        raise ValueError(f"no request of {name!r} is of the split 'train'")
    return Splits(
        {
            part: requested(own, chat, length, name=f"{name}[{part}]", tasks=tasks)
            for part, own in by_part.items()
            if own
        }
    )


def _row(request: Request, chat: Chat, task: int) -> Row:
    said = request.conversation
    if request.reference is not None:
        right = Message("assistant", request.reference, learn=True)
        found = chat.encode((*(dataclasses.replace(m, learn=False) for m in said), right))
        return Row(request.id, found.tokens, found.learnt, 1.0, task, None)
    # The end stands for the answer, which nobody knows yet.
    tokens = np.append(chat.prompt(said), np.int32(chat.tokenizer.end))
    return Row(request.id, tokens, np.zeros(len(tokens), bool), 1.0, task, None)
