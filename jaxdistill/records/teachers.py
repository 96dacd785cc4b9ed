"""Teachers: a server, a file of answers, a function.

A decoder of this library is one by :func:`jaxdistill.language.decoder_teacher`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxdistill._errors import listed, unknown
from jaxdistill.data.documents import json_rows
from jaxdistill.records.answers import Answers, Teacher
from jaxdistill.records.canonical import identity, plain, read
from jaxdistill.records.requests import Question, Response, TopTokens
from jaxdistill.records.server import Connection, Malformed, Server, Unanswered, asked
from jaxdistill.settings import Natural, checked

# What a question says by itself.
_OURS = ("model", "messages", "temperature", "top_p", "seed", "stop", "n", "stream")
_OURS += ("max_tokens", "max_completion_tokens", "logprobs", "top_logprobs")
_SECRET = re.compile("api.?key|authori[sz]ation|secret|password|(access|auth|bearer).?token", re.I)
_TOKEN_ID = re.compile(r"token_id:(\d+)")


@checked
def served(
    server: Server,
    *,
    name: str = "",
    revision: str = "",
    top: Natural = 0,
    extra: Mapping[str, Any] | None = None,
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens",
) -> Teacher:
    """A model behind a server that speaks the protocol of OpenAI (chat completions).

    Every answer is asked for by itself, with a seed of its own. One that was cut at ``max_tokens``
    says so (``finish="length"``). Thinking that the server gives apart stands before the answer, in
    ``<think>`` tags. A question that has no answer in the end has failed, and the others go on.

    Args:
        server: where it is.
        name: of the teacher; the model's if it is empty.
        revision: of its weights; another one is asked anew. What changes answers (``extra``,
            ``top``, ``limit``) is part of the revision anyway.
        top: how many of the most probable tokens to keep at each place.
        extra: what else every question says, such as ``{"chat_template_kwargs": {...}}``.
        limit: what the server calls the most tokens of an answer.

    Raises:
        ValueError: for keys of ``extra`` that a question says by itself; while asking, see
            :meth:`~jaxdistill.records.server.Connection.post`.

    Example:
        >>> served(Server("http://127.0.0.1:8000/v1", "tiny"), revision="3f2a").name
        'tiny'
    """
    more = plain(dict(extra or {}))
    if taken := sorted(more.keys() & set(_OURS)):
        raise ValueError(f"extra[{taken[0]!r}] is said by every question itself: its sampling")
    if secret := [key for key in more if _SECRET.search(key)]:
        raise ValueError(f"extra[{secret[0]!r}] looks like a key, and extra is stored: see Server")
    whole = identity(server.model, revision, more, top, limit)[:12]

    def body(question: Question) -> dict[str, Any]:
        sampling = question.sampling
        found: dict[str, Any] = {
            "model": server.model,
            "messages": [{"role": m.role, "content": m.content} for m in question.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            limit: sampling.max_tokens,
            "seed": question.seed,
        }
        if sampling.stop:
            found["stop"] = list(sampling.stop)
        if top:
            found |= {"logprobs": True, "top_logprobs": top}
        return found | more

    async def one(connection: Connection, question: Question) -> Response:
        def said(data: Any) -> Response:
            return _response(data, question, top)

        try:
            return await connection.post("/chat/completions", body(question), said, question.id)
        except Unanswered as fault:
            return failed(question, str(fault))

    def answer(questions: Sequence[Question]) -> Iterator[Response]:
        return asked(server, one, questions)

    return Teacher(name or server.model, f"{revision}+{whole}" if revision else whole, answer)


@checked
def replay(path: str | os.PathLike, *, teacher: str = "", revision: str = "") -> Teacher:
    """A teacher whose answers were written before: it asks nobody.

    Args:
        path: a folder of answers (``<folder>.answers``), or a file of responses in JSON lines.
        teacher: whose answers, where there are those of several.
        revision: likewise.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: for an unknown or ambiguous ``teacher`` or ``revision``.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there are no answers in {path}")
    files = sorted(path.glob("*/*.jsonl")) if path.is_dir() else [path]
    there = {
        (response.teacher, response.revision): None
        for file in files
        for response in _responses(file)
    }
    name = _chosen(f"teacher of {path}", teacher, sorted({each for each, _ in there}))
    own = sorted(number for each, number in there if each == name)
    which = _chosen(f"revision of {name!r} in {path}", revision, own)
    known: Answers | None = None
    found = Teacher(name, which, lambda questions: answer(questions))

    def answer(questions: Sequence[Question]) -> Iterator[Response]:
        nonlocal known
        if known is None:
            known = Answers(path if path.is_dir() else None)
            if not path.is_dir():
                known.add([each for each in _responses(path) if each.teacher == name])
        for question in questions:
            if known.has(found, question):
                yield known.get(found, question)
            else:
                yield failed(question, "not among the answers that were written")

    return found


@checked
def scripted(function: Callable[[Question], str], *, name: str, revision: str) -> Teacher:
    """A function of a question as a teacher.

    Args:
        function: ``question -> text``; what it draws it draws from ``question.seed``.
        name: of the teacher.
        revision: another one for a function that answers otherwise.

    Example:
        >>> from jaxdistill.records import Request
        >>> teacher = scripted(lambda q: q.messages[-1].content.upper(), name="loud", revision="1")
        >>> [each.text for each in teacher.answer(Request.of("hello").questions())]
        ['HELLO']
    """

    def answer(questions: Sequence[Question]) -> Iterator[Response]:
        for each in questions:
            yield Response(each.id, each.sample, function(each))

    return Teacher(name, revision, answer)


def failed(question: Question, why: str) -> Response:
    """That a question has no answer."""
    return Response(question.id, question.sample, "", "failed", error=why)


def _responses(file: Path) -> Iterable[Response]:
    for number, row in json_rows(file):
        yield read(Response, row, f"line {number} of {file}")


def _chosen(what: str, given: str, possible: Sequence[str]) -> str:
    if given in possible:
        return given
    if given or not possible:
        raise ValueError(unknown(what, given, possible))
    if len(possible) > 1:
        raise ValueError(f"{what}: there are several, name one of {listed(possible)}")
    return possible[0]


def _response(data: Any, question: Question, top: int) -> Response:
    """The answer in the JSON data of a chat completion."""
    try:
        choice = data["choices"][0]
        message, why = choice["message"], choice["finish_reason"]
        text = message["content"]
        thinking = message.get("reasoning_content") or message.get("reasoning") or ""
    except (KeyError, IndexError, TypeError, AttributeError) as fault:
        raise Malformed(f"an answer without {fault}") from None
    if why not in ("stop", "length"):
        raise Unanswered(f"the answer ended by {why!r}")
    if text is None and thinking and why == "length":
        text = ""
    if not isinstance(text, str) or not isinstance(thinking, str):
        raise Malformed("an answer without text")
    if thinking:
        closed = "" if why == "length" and not text else f"\n</think>\n\n{text}"
        text = "<think>\n" + thinking.strip("\n") + closed
    try:
        known = _top(choice.get("logprobs")) if top else None
        return Response(question.id, question.sample, text, why, top=known)
    except (KeyError, TypeError, ValueError) as fault:
        raise Malformed(f"an answer that is not what it should be: {fault}") from None


def _top(said: Any) -> TopTokens:
    """The most probable tokens of a chat completion."""
    rows = said["content"]
    best = [row["top_logprobs"] for row in rows]
    if any(not math.isfinite(each["logprob"]) for row in best for each in row):
        raise ValueError("a log-probability is no number")
    return TopTokens(
        tuple(_token(row["token"]) for row in rows),
        tuple(tuple(_token(each["token"]) for each in row) for row in best),
        tuple(tuple(min(float(each["logprob"]), 0.0) for each in row) for row in best),
    )


def _token(said: str) -> int | str:
    """A token by its number, where the server gives it (``return_tokens_as_token_ids``)."""
    number = _TOKEN_ID.fullmatch(said)
    return int(number[1]) if number else said
