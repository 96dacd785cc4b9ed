"""What a student learns from: records, with where they come from and what steps decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from jaxdistill.records.canonical import identity
from jaxdistill.records.requests import (
    SCHEMA,
    Message,
    Request,
    Response,
    Sampling,
    TopTokens,
    refuse_schema,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What a step decided about a record.

    Attributes:
        step: its name.
        version: of its code.
        settings: a hash of its settings, which the manifest spells out.
        keep: whether the record goes on.
        score: the number that decided, if there is one.
        reason: in a few words that the manifest counts.
        detail: what is particular to this record, such as the id of what it repeats.
    """

    step: str
    version: int
    settings: str
    keep: bool = True
    score: float | None = None
    reason: str = ""
    detail: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Provenance:
    """Where a record comes from.

    Attributes:
        teacher: who wrote the answer; who wrote a reference is a teacher too.
        revision: of the teacher.
        request: the id of the request.
        question: the id under which the answer is kept.
        sample: which of the answers.
        sampling: how it was drawn.
        parents: ids of the records that a step made it from.

    Raises:
        ValueError: without a teacher.
    """

    teacher: str
    revision: str = ""
    request: str = ""
    question: str = ""
    sample: int = 0
    sampling: Sampling | None = None
    parents: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.teacher:
            raise ValueError("a record needs its teacher: name in provenance who wrote the answer")


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """What a student learns from.

    Attributes:
        id: of where it comes from; steps that change a record keep its id.
        messages: the student's conversation; what it learns is marked.
        provenance: who wrote it, when asked what.
        raw: the answer as the teacher gave it.
        answer: its answer part; all of it until a step reads it.
        rationale: its thinking part.
        finish: how the answer ended.
        asked: what the teacher saw, where the student sees something else.
        source: where the item comes from.
        reference: the right answer, where it is known.
        tests: programs that a right answer passes.
        task: what it is for, for means per task.
        split: ``"train"`` or another set.
        weight: of its loss.
        scores: what steps measured, by name.
        history: what steps decided, in order.
        meta: whatever else is known, JSON data.
        top: the most probable tokens, where the teacher gives them.
    """

    id: str
    messages: tuple[Message, ...]
    provenance: Provenance
    raw: str = ""
    answer: str = ""
    rationale: str = ""
    finish: str = "stop"
    asked: tuple[Message, ...] = ()
    source: str = ""
    reference: str | None = None
    tests: tuple[str, ...] = ()
    task: str = ""
    split: str = "train"
    weight: float = 1.0
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    history: tuple[Verdict, ...] = ()
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    top: TopTokens | None = None
    schema: int = SCHEMA

    def __post_init__(self):
        refuse_schema("record", self.schema)
        if not isinstance(self.provenance, Provenance):
            raise ValueError("a record needs its teacher: name in provenance who wrote the answer")

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The conversation before the last thing that is learnt."""
        last = [number for number, each in enumerate(self.messages) if each.learn]
        return self.messages[: last[-1]] if last else self.messages


def record_of(request: Request, response: Response, *, weight: float = 1.0) -> Record:
    """The record of a request and an answer to it, before any step.

    Args:
        request: the item.
        response: the answer, with its teacher.
        weight: of its teacher.

    Raises:
        ValueError: for an answer without its teacher.

    Example:
        >>> request = Request.of("2 + 3?", source="sums/0")
        >>> answer = Response(request.questions()[0].id, 0, "5", teacher="oracle")
        >>> [(m.content, m.learn) for m in record_of(request, answer).messages]
        [('2 + 3?', False), ('5', True)]
    """
    name = request.id
    came = Provenance(
        response.teacher,
        response.revision,
        name,
        response.question,
        response.sample,
        request.sampling,
    )
    return Record(
        identity(name, response.teacher, response.revision, response.sample),
        (*request.conversation, Message("assistant", response.text, learn=True)),
        came,
        raw=response.text,
        answer=response.text,
        finish=response.finish,
        asked=request.messages if request.prompt else (),
        source=request.source,
        reference=request.reference,
        tests=request.tests,
        task=request.task,
        split=request.split,
        weight=weight,
        meta=request.meta,
        top=response.top,
    )


def made_from(parents: Iterable[Record], step: str, number: int = 0, **changes: Any) -> Record:
    """A new record that a step makes from others; it has an id of its own and names its parents.

    Args:
        parents: at least one; what is not changed is the first one's.
        step: the name of the step.
        number: tells apart those of the same parents.
        **changes: fields that differ.
    """
    parents = tuple(parents)
    names = tuple(each.id for each in parents)
    came = dataclasses.replace(parents[0].provenance, parents=names)
    changes = {"provenance": came, **changes}
    return dataclasses.replace(parents[0], id=identity(names, step, number), **changes)
