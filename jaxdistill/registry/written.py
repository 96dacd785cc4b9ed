"""Teacher-written data in configs: tasks, scripts, teachers, measures, scores, and the work.

``data`` names a task or a file of requests; ``work`` of a stage names who answers them, and the
steps; ``evaluate`` of a stage that learns from what was written names a score of answers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxdistill import language, records
from jaxdistill.data import split
from jaxdistill.data.documents import json_rows
from jaxdistill.distiller import Work
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.records.canonical import identity, read
from jaxdistill.records.stages import written
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, forwarding
from jaxdistill.registry.language import chat_of
from jaxdistill.registry.record_steps import steps
from jaxdistill.settings import Count, Earlier
from jaxdistill.tasks import (
    answered,
    commonsense,
    dialogue_world,
    dialogues,
    entities,
    frontier,
    gradings,
    localising,
    reasoning,
)


def plain(function: Callable[..., Any]) -> Entry:
    """A function of settings alone as an entry."""

    @forwarding(function)
    def entry(context: Context, **settings: Any) -> Any:
        return function(**settings)

    return entry


def settled(function: Callable[..., Any]) -> Entry:
    """A function with settings as an entry that gives it with these, not called yet."""

    @forwarding(function)
    def entry(context: Context, **settings: Any) -> Any:
        made = functools.partial(function, **settings)
        names = getattr(function, "metrics", None)
        return made if names is None else measuring(names, made)

    return entry


def drawn(function: Callable[..., Any]) -> Entry:
    """A task whose world is drawn from the seed of the run as an entry."""

    @forwarding(function, "seed")
    def entry(context: Context, **settings: Any) -> Any:
        return function(seed=context.seed, **settings)

    return entry


TASKS: dict[str, Entry] = {
    "commonsense": drawn(commonsense.commonsense),
    "dialogues_of_file": plain(localising.dialogues_of_file),
    "entities": drawn(entities.entities),
    "gradings": drawn(gradings.gradings),
    "gradings_of_file": plain(gradings.gradings_of_file),
    "localised_dialogues": drawn(localising.localised_dialogues),
    "reports": drawn(frontier.reports),
    "traces": drawn(reasoning.traces),
    "worked": drawn(frontier.worked),
}
"""``(**settings) -> requests``, all parts of the data set."""

SCRIPTS: dict[str, Entry] = {
    "confirm_tails": settled(commonsense.confirm_tails),
    "grader": settled(gradings.grader),
    "name_entities": settled(entities.name_entities),
    "solver": settled(frontier.solver),
    "summariser": settled(frontier.summariser),
    "tell_tails": settled(commonsense.tell_tails),
    "thinker": settled(reasoning.thinker),
    "translator": settled(dialogue_world.translator),
}
"""``(question, **settings) -> text``, a teacher of known errors."""

SCORES: dict[str, Entry] = {
    "density": settled(frontier.density),
    "exact": settled(answered.exact),
    "numbers": settled(frontier.numbers),
    "rank_agreement": settled(gradings.rank_agreement),
    "right_share": settled(commonsense.right_share),
    "set_f1": settled(entities.set_f1),
    "solved": settled(reasoning.solved),
}
"""``(answers, **settings) -> {name: number}``."""

MEASURES: dict[str, Entry] = {
    "acceptance": settled(commonsense.acceptance),
    "entity_truth": settled(entities.entity_truth),
    "planted": settled(reasoning.planted),
    "translations": settled(localising.translations),
}
"""``(written, requests, **settings) -> {name: number}``."""


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


# --- teachers -----------------------------------------------------------------------------------


@forwarding(records.served, "name")
def _server(context: Context, *, server: records.Server, **rest: Any) -> Any:
    return records.served(server, name=context.term, **rest)


@forwarding(records.replay)
def _replay(context: Context, *, path: str, **rest: Any) -> Any:
    return records.replay(path, **rest)._replace(name=context.term)


def _scripted(context: Context, *, script: Mapping[str, Any]) -> Any:
    function = call("script", SCRIPTS, script, context, "script")
    revision = identity(dict(script))[:12]
    return records.scripted(function, name=context.term, revision=revision)


@forwarding(language.decoder_teacher, "name", "revision", "mesh", "context")
def _decoder(context: Context, *, length: Count, **rest: Any) -> Any:
    """``length`` are the most tokens of a question and its answer together."""
    if context.teacher is None:
        raise ValueError("teacher 'decoder' is the net of an earlier stage: name it by 'decoder'")

    def made(results: Mapping[str, Any]) -> records.Teacher:
        variables = results[context.teacher_name]
        chat = context.info["chat"]
        return language.decoder_teacher(
            context.teacher, variables, chat, name=context.term, context=length, **rest
        )

    return made


TEACHERS: dict[str, Entry] = {
    "decoder": _decoder,
    "replay": _replay,
    "scripted": _scripted,
    "server": _server,
}


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


def _service(
    context: Context, *, history: dialogues.History = "compact", places: str = ""
) -> language.Play:
    """Whole dialogues, ``places`` being a file of what can be found; the world's by default."""
    find = dialogues.places_of(places) if places else dialogue_world.foreign_place
    start = functools.partial(dialogues.served, history=history, find=find)
    return language.Play(start, dialogues.service, dialogues.SERVICE)


PLAYS: dict[str, Entry] = {"service": _service}
"""``(**settings) -> Play``, conversations that a student's own answers lead."""


@forwarding(language.conversed)
def _conversed(context: Context, *, play: Mapping[str, Any], **rest: Any) -> Any:
    chat = context.info.get("chat")
    if chat is None:
        raise ValueError("'conversed' asks held-out requests: take the data set 'requests'")
    made = call("play", PLAYS, play, context, "play")
    return language.conversed(context.net, chat, made, **rest)


EVALUATORS: dict[str, Entry] = {"answered": _answered, "conversed": _conversed}
