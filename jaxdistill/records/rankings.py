"""Records with several answers to one prompt, as a student that learns from rewards reads them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxdistill.records.chats import Chat
from jaxdistill.records.nouns import Record
from jaxdistill.records.steps import short
from jaxdistill.settings import Count, checked


@checked
def rankings(
    records: Iterable[Record], chat: Chat, length: Count, *, most: Count = 2, by: str = "score"
) -> dict[str, np.ndarray]:
    """Answers with rewards, of :func:`~jaxdistill.records.judging.preferred`, as arrays.

    Args:
        records: each with the answers to its prompt in ``meta["ranked"]``, best first.
        chat: template and tokenizer of the student.
        length: tokens in a window, T.
        most: answers of each, K: of more the best and the worst stay, and those best of the rest.
        by: the score.

    Returns:
        ``tokens``, ``label`` int32 and ``counted`` bool ``[N, K, T]``, as
        :func:`~jaxdistill.records.conversations` has them, and ``reward`` float32 ``[N, K]``,
        ``-inf`` where there are fewer answers. Records of which an answer does not fit are left
        out.

    Raises:
        ValueError: for a record without ranked answers, fewer than two answers to be kept, and
            where nothing fits; and naming an answer that says nothing.

    Example:
        >>> from jaxdistill.data.tokenizers import byte_tokenizer
        >>> from jaxdistill.records import Message, Provenance
        >>> from jaxdistill.records.chats import chat
        >>> from jaxdistill.records.templates import plain
        >>> said = (Message("user", "2+3"), Message("assistant", "5", learn=True))
        >>> ranked = [{"answer": "5", "score": 1.0}, {"answer": "6", "score": 0.0}]
        >>> one = Record("a", said, Provenance("oracle"), meta={"ranked": ranked})
        >>> found = rankings([one], chat(byte_tokenizer(), plain()), 6)
        >>> found["tokens"].shape, found["reward"].tolist()
        ((1, 2, 6), [[1.0, 0.0]])
    """
    if most < 2:
        raise ValueError(f"most={most}: an answer is better or worse than another")
    rows, rewards, given = [], [], 0
    for each in sorted(records, key=lambda record: record.id):
        given += 1
        answers = _answers(each, by)
        answers = answers if len(answers) <= most else [*answers[: most - 1], answers[-1]]
        encoded = [_encoded(each, text, chat) for text, _ in answers]
        if max(len(tokens) for tokens, _ in encoded) <= length + 1:
            rows.append(encoded)
            rewards.append([score for _, score in answers])
    if not rows:
        raise ValueError(f"none of {given} records fits {length} tokens with all its answers")
    shape = (len(rows), most, length)
    tokens = np.full(shape, chat.tokenizer.end, np.int32)
    label, counted = np.full(shape, -1, np.int32), np.zeros(shape, bool)
    reward = np.full(shape[:2], -np.inf, np.float32)
    for row, encoded in enumerate(rows):
        reward[row, : len(encoded)] = rewards[row]
        for place, (found, learnt) in enumerate(encoded):
            size = len(found) - 1
            tokens[row, place, :size], label[row, place, :size] = found[:-1], found[1:]
            counted[row, place, :size] = learnt[1:]
    return {"tokens": tokens, "label": label, "counted": counted, "reward": reward}


def _answers(record: Record, by: str) -> list[tuple[str, float]]:
    ranked: Any = record.meta.get("ranked")
    try:
        found = [(str(each["answer"]), float(each[by])) for each in ranked]
    except (TypeError, KeyError, ValueError):
        found = []
    if len(found) < 2 or not all(math.isfinite(score) for _, score in found):
        raise ValueError(
            f"record {record.id} has no answers ranked by {by!r}: the step 'preferred' makes them"
        )
    return sorted(found, key=lambda each: -each[1])


def _encoded(record: Record, text: str, chat: Chat) -> tuple[np.ndarray, np.ndarray]:
    messages = list(record.messages)
    last = max((n for n, m in enumerate(messages) if m.learn), default=len(messages) - 1)
    messages[last] = dataclasses.replace(messages[last], content=text, learn=True)
    # Earlier answers of the conversation are not what is compared.
    before = [dataclasses.replace(m, learn=False) for m in messages[:last]]
    try:
        found = chat.encode([*before, messages[last]])
    except ValueError as fault:
        raise ValueError(f"record {record.id}, answer {short(text)}: {fault}") from fault
    return found.tokens, found.learnt
