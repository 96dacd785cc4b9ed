"""What is asked and answered: messages, requests, questions, responses.

All are frozen and know how to become JSON (:mod:`jaxdistill.records.canonical`). Every identity is
a hash of content: nothing depends on when something was asked or in which order answers came.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

from jaxdistill._errors import unknown
from jaxdistill.data.documents import refuse_halves
from jaxdistill.records.canonical import identity
from jaxdistill.settings import Count, Natural, NonNegative, Share, fault

SCHEMA = 1
"""The version of what is written; files of another one are refused."""
ROLES = ("system", "developer", "user", "assistant", "tool")
"""Who may speak in a conversation."""


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """What one side of a conversation says.

    Attributes:
        role: ``"system"``, ``"developer"``, ``"user"``, ``"assistant"`` or ``"tool"``.
        content: the text.
        learn: whether a student learns to write it.

    Raises:
        ValueError: for an unknown role, and content that is no text.
    """

    role: str
    content: str
    learn: bool = False

    def __post_init__(self):
        if self.role not in ROLES:
            raise ValueError(unknown("role of a message", self.role, ROLES))
        _refuse_no_text("the content of a message", self.content)


@dataclasses.dataclass(frozen=True, slots=True)
class Sampling:
    """How a teacher draws its answers.

    Attributes:
        temperature: 0 is the most probable token each time.
        top_p: the share of probability that tokens are drawn from.
        max_tokens: after so many an answer is cut.
        n: how many answers; asking for more later keeps those that are there.
        seed: another one asks for other answers.
        stop: texts that end an answer.

    Raises:
        ValueError: naming the field that is outside of its domain.
    """

    temperature: NonNegative = 1.0
    top_p: Share = 1.0
    max_tokens: Count = 512
    n: Count = 1
    seed: Natural = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self):
        for name, domain in _SAMPLING.items():
            if (wrong := fault(getattr(self, name), domain)) is not None:
                raise ValueError(f"sampling: {name}={getattr(self, name)!r} {wrong}")
        if not self.top_p:
            raise ValueError("sampling: top_p=0 leaves no token to draw")


_SAMPLING = {
    "temperature": NonNegative,
    "top_p": Share,
    "max_tokens": Count,
    "n": Count,
    "seed": Natural,
    "stop": tuple[str, ...],
}


@functools.lru_cache
def _one(sampling: Sampling) -> Sampling:
    return dataclasses.replace(sampling, n=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """All that a teacher sees of a request, for one of its answers.

    Attributes:
        id: of the messages and the sampling, ``n`` aside: what answers are kept under.
        messages: the conversation so far.
        sampling: how to draw.
        sample: which of the answers, from 0.
    """

    id: str
    messages: tuple[Message, ...]
    sampling: Sampling
    sample: int = 0

    @property
    def seed(self) -> int:
        """A seed of this answer's own, of 31 bits."""
        return int(identity(self.id, self.sample)[:8], 16) >> 1


@dataclasses.dataclass(frozen=True)
class Request:
    """An item about which a teacher is asked.

    Attributes:
        messages: what the teacher is asked.
        source: where the item comes from, such as ``"gsm8k/train/17"``; it tells apart items of
            equal content.
        prompt: what the student is asked instead, which may be shorter; the same if empty.
        teacher: the name of the one who is asked, where there are several.
        sampling: how the teacher draws.
        reference: the right answer, where it is known; no teacher sees it.
        tests: programs that a right answer passes.
        task: what the record is for, for means per task.
        split: ``"train"`` or another set.
        meta: whatever else is known, JSON data.

    Raises:
        ValueError: for a request without messages.

    Example:
        >>> request = Request.of("What is 2 + 3?", source="sums/0", reference="5")
        >>> request.messages[0].role, len(request.id)
        ('user', 32)
    """

    messages: tuple[Message, ...]
    source: str = ""
    prompt: tuple[Message, ...] = ()
    teacher: str = ""
    sampling: Sampling = Sampling()
    reference: str | None = None
    tests: tuple[str, ...] = ()
    task: str = ""
    split: str = "train"
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA

    def __post_init__(self):
        refuse_schema("request", self.schema)
        if not self.messages:
            raise ValueError(f"a request needs messages; that of source {self.source!r} has none")

    @classmethod
    def of(cls, text: str, *, system: str = "", **fields: Any) -> Request:
        """A request of one user's message, perhaps behind one of the system."""
        first = (Message("system", system),) if system else ()
        return cls((*first, Message("user", text)), **fields)

    @functools.cached_property
    def id(self) -> str:
        """Of everything that it says."""
        return identity(self)

    def questions(self) -> list[Question]:
        """What the teacher is asked, once for each answer."""
        drawn = _one(self.sampling)
        count = self.sampling.n
        return [Question(self._asked, self.messages, drawn, sample) for sample in range(count)]

    @functools.cached_property
    def _asked(self) -> str:
        said = [(each.role, each.content) for each in self.messages]
        return identity(said, _one(self.sampling))

    @property
    def conversation(self) -> tuple[Message, ...]:
        """What the student is asked."""
        return self.prompt or self.messages


@dataclasses.dataclass(frozen=True, slots=True)
class TopTokens:
    """The most probable tokens at each place of an answer: sparse targets.

    Attributes:
        tokens: the answer's tokens, ids or texts as the teacher gives them, ``[T]``.
        top: the most probable ones, ``[T][k]``.
        logps: their log-probabilities, natural, ``[T][k]``.

    Raises:
        ValueError: if the three do not fit together.
    """

    tokens: tuple[Any, ...]
    top: tuple[tuple[Any, ...], ...]
    logps: tuple[tuple[float, ...], ...]

    def __post_init__(self):
        fits = len(self.tokens) == len(self.top) == len(self.logps)
        if not fits or any(len(a) != len(b) for a, b in zip(self.top, self.logps, strict=True)):
            raise ValueError(
                f"top tokens: {len(self.tokens)} tokens, {len(self.top)} rows of candidates and "
                f"{len(self.logps)} of log-probabilities do not fit together"
            )


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """One answer of a teacher.

    Attributes:
        question: the id of the :class:`Question`.
        sample: which of its answers.
        text: as it was given.
        finish: ``"stop"``, ``"length"`` if it was cut, or ``"failed"`` if there is none; those that
            failed are never kept.
        error: why it failed.
        top: the most probable tokens, where the teacher gives them.
        teacher: the name of the teacher; :func:`~jaxdistill.records.answers.ask` fills it in.
        revision: of the teacher.
    """

    question: str
    sample: int
    text: str
    finish: Literal["stop", "length", "failed"] = "stop"
    error: str = ""
    top: TopTokens | None = None
    teacher: str = ""
    revision: str = ""
    schema: int = SCHEMA

    def __post_init__(self):
        refuse_schema("response", self.schema)
        _refuse_no_text("an answer", self.text)


def _refuse_no_text(what: str, text: Any) -> None:
    if not isinstance(text, str):
        raise ValueError(f"{what} is text, not {text!r}")
    if not text.isascii():
        refuse_halves(text, what)


def refuse_schema(noun: str, schema: int) -> None:
    """Refuses what another version of this library wrote."""
    if schema != SCHEMA:
        raise ValueError(f"this {noun} has schema {schema!r}, this library reads {SCHEMA}")
