"""Teacher-written data in configs: the requests, the work that writes, what students answer.

``data`` names a task or a file of requests; ``work`` of a stage names who answers them, and the
steps; ``evaluate`` of a stage that learns from what was written names a score of answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxdistill import language, records
from jaxdistill.data import split
from jaxdistill.data.documents import json_rows
from jaxdistill.distiller import Work
from jaxdistill.records.canonical import read
from jaxdistill.records.stages import written
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, forwarding
from jaxdistill.registry.language import chat_of
from jaxdistill.registry.record_steps import steps
from jaxdistill.registry.record_teachers import TEACHERS
from jaxdistill.registry.tasks import MEASURES, PLAYS, SCORES, TASKS
from jaxdistill.settings import Count, Earlier

# --- data ---------------------------------------------------------------------------------------


def _requests(
    context: Context,
    *,
    length: Count,
    task: Mapping[str, Any] | None = None,
    path: str = "",
    tokenizer: Mapping[str, Any] | None = None,
    template: Literal["plain", "chatml", "tokenizer"] = "plain",
) -> split.Splits:
    """What teachers are asked: requests of a task, or of a file of JSON lines."""
    if (task is None) == (not path):
        raise ValueError(
            "data set 'requests' needs one of 'task' and a file of requests: "
            "--config.data.path=<file.jsonl>"
        )
    found: list[records.Request] = (
        call("task", TASKS, task, context, "task")
        if task is not None
        else [read(records.Request, row, f"line {n} of {path}") for n, row in json_rows(Path(path))]
    )
    said = [m.content for each in found for m in each.conversation]
    said += [each.reference for each in found if each.reference is not None]
    chat = chat_of(tokenizer, template, said)
    return records.request_splits(found, chat, length, name=task["task"] if task else "requests")


DATA: dict[str, Entry] = {"requests": _requests}


@forwarding(written)
def _written(
    context: Context,
    *,
    teachers: Mapping[str, Mapping[str, Any]],
    decoder: Earlier | None = None,
    before: Sequence[Mapping[str, Any]] = (),
    after: Sequence[Mapping[str, Any]] = (),
    measures: Sequence[Mapping[str, Any]] = (),
    **rest: Any,
) -> Work:
    """Teachers by the names that requests and manifests call them."""
    if not teachers:
        raise ValueError("'teachers' of work 'written' names nobody")
    net = context.net_of(decoder) if decoder else None
    given = []
    for name, part in teachers.items():
        own = Context(teacher=net, teacher_name=decoder or "", info=context.info, term=name)
        given.append(call("teacher of records", TEACHERS, part, own, "teacher"))

    def of(results: Mapping[str, Any]) -> list[records.Teacher]:
        return [each if isinstance(each, records.Teacher) else each(results) for each in given]

    measured = [call("measure of records", MEASURES, m, context, "measure") for m in measures]
    return written(
        context.sets, of, steps(before, context), steps(after, context), measured, **rest
    )


WORKS: dict[str, Entry] = {"written": _written}


# --- what students answer -----------------------------------------------------------------------


@forwarding(language.answered)
def _answered(context: Context, *, score: Mapping[str, Any], **rest: Any) -> Any:
    chat = context.info.get("chat")
    if chat is None:
        raise ValueError("'answered' asks held-out requests: take the data set 'requests'")
    made = call("score of answers", SCORES, score, context, "score")
    return language.answered(context.net, chat, context.info["tasks"], made, **rest)


@forwarding(language.conversed)
def _conversed(context: Context, *, play: Mapping[str, Any], **rest: Any) -> Any:
    chat = context.info.get("chat")
    if chat is None:
        raise ValueError("'conversed' asks held-out requests: take the data set 'requests'")
    made = call("play", PLAYS, play, context, "play")
    return language.conversed(context.net, chat, made, **rest)


EVALUATORS: dict[str, Entry] = {"answered": _answered, "conversed": _conversed}
