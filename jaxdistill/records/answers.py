"""Teachers, and what they answered: kept on disk under what was asked, so nobody is asked twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxdistill._errors import listed
from jaxdistill._files import Damaged, write_text
from jaxdistill.progress import shown
from jaxdistill.records.canonical import line, read
from jaxdistill.records.requests import Question, Response

# So many answers, or those of so many seconds, are lost at most when a run is killed.
_AT_ONCE, _SECONDS = 256, 5.0


class Teacher(NamedTuple):
    """Whoever answers questions.

    Attributes:
        name: under which answers are kept, together with ``revision``.
        revision: of its weights and of how it is asked; another one is asked anew.
        answer: ``questions -> responses``, lazily and in any order. It is given all questions that
            are open, and cuts them into batches itself.
    """

    name: str
    revision: str
    answer: Callable[[Sequence[Question]], Iterable[Response]]


class _Place(NamedTuple):
    file: Path
    start: int
    size: int


class Answers:
    """The responses of teachers by (teacher, revision, question, sample).

    A folder has a subfolder for each teacher, with files of JSON lines. A file is written whole,
    under a name that is the hash of its content, and never changed: what is killed while it writes
    leaves nothing behind, and several processes may add.

    Args:
        folder: where they are kept; None keeps them in memory.

    Raises:
        Damaged: naming a file that is not what was written.
    """

    def __init__(self, folder: str | os.PathLike | None = None):
        self._folder = None if folder is None else Path(folder)
        # By teacher and revision, by question and sample: what it is, or its file and place there.
        self._held: dict[tuple[str, str], dict[tuple[str, int], Response | _Place]] = {}
        if self._folder is not None:
            for file in sorted(self._folder.glob("*/*.jsonl")):
                self._index(file)

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def has(self, teacher: Teacher, question: Question) -> bool:
        """Whether a question was answered."""
        held = self._held.get((teacher.name, teacher.revision), {})
        return (question.id, question.sample) in held

    def get(self, teacher: Teacher, question: Question) -> Response:
        """The answer to a question.

        Raises:
            KeyError: if there is none.
        """
        found = self._held[teacher.name, teacher.revision][question.id, question.sample]
        if isinstance(found, Response):
            return found
        with found.file.open("rb") as file:
            file.seek(found.start)
            return _response(file.read(found.size), found.file)

    def add(self, responses: Sequence[Response]) -> None:
        """Keeps some answers, on the disk when it returns."""
        by_teacher: dict[str, list[Response]] = {}
        for each in responses:
            by_teacher.setdefault(each.teacher, []).append(each)
        for name, own in by_teacher.items():
            if self._folder is None:
                for each in own:
                    self._hold(each, each)
                continue
            text = "".join(sorted(line(each) + "\n" for each in own))
            folder = self._folder / _slug(name)
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{_digest(text.encode())}.jsonl"
            write_text(file, text)
            self._index(file)

    def _index(self, file: Path) -> None:
        content = file.read_bytes()
        if _digest(content) != file.stem:
            raise Damaged(f"{file} is damaged: its name is not the hash of what it holds")
        start = 0
        for each in content.splitlines(keepends=True):
            self._hold(_response(each, file), _Place(file, start, len(each)))
            start += len(each)

    def _hold(self, response: Response, where: Response | _Place) -> None:
        held = self._held.setdefault((response.teacher, response.revision), {})
        held.setdefault((response.question, response.sample), where)


def ask(
    teacher: Teacher, questions: Iterable[Question], answers: Answers, *, label: str = ""
) -> list[Response]:
    """Asks a teacher what it was not asked before, and keeps every answer.

    Stopped at any time, it keeps all answers but those of a few seconds; called again it asks the
    rest.

    Args:
        teacher: who is asked.
        questions: what is asked.
        answers: where answers are kept.
        label: what progress is shown as.

    Returns:
        The responses that failed. They are not kept: the next call asks them again.

    Raises:
        ValueError: if the teacher answers what it was not asked, answers twice, or leaves something
            without an answer.

    Example:
        >>> from jaxdistill.records.requests import Request
        >>> answers, asked = Answers(), []
        >>> def answer(questions):
        ...     for question in questions:
        ...         asked.append(question.id)
        ...         yield Response(question.id, question.sample, "5")
        >>> teacher = Teacher("oracle", "1", answer)
        >>> questions = Request.of("2 + 3?").questions()
        >>> ask(teacher, questions, answers), ask(teacher, questions, answers), len(asked)
        ([], [], 1)
    """
    open_ = {(each.id, each.sample): each for each in questions if not answers.has(teacher, each)}
    if not open_:
        return []
    failed, total = [], len(open_)
    given = _given(teacher, open_)
    for batch in _batches(shown(given, label or f"ask {teacher.name}", "answers", total)):
        answers.add([each for each in batch if each.finish != "failed"])
        failed += [each for each in batch if each.finish == "failed"]
    if open_:
        raise ValueError(
            f"teacher {teacher.name!r} left {len(open_)} of {total} questions without an answer"
        )
    return failed


def _given(teacher: Teacher, open_: dict[tuple[str, int], Question]) -> Iterator[Response]:
    """What a teacher answers, signed; takes from the open questions what is answered."""
    asked = set(open_)
    for each in teacher.answer(list(open_.values())):
        if not isinstance(each, Response):
            raise ValueError(f"teacher {teacher.name!r} gave {each!r} for a Response")
        place = (each.question, each.sample)
        if place not in open_:
            what = "answered twice" if place in asked else "was not asked"
            raise ValueError(f"teacher {teacher.name!r} {what} {listed([place])}")
        del open_[place]
        yield dataclasses.replace(each, teacher=teacher.name, revision=teacher.revision)


def _batches(given: Iterator[Response]) -> Iterator[list[Response]]:
    """Answers as they are written: also those that came before something goes wrong."""
    batch: list[Response] = []
    last = time.monotonic()
    fault = None
    while True:
        try:
            each = next(given)
        except StopIteration:
            break
        except BaseException as found:
            fault = found
            break
        batch.append(each)
        if len(batch) >= _AT_ONCE or time.monotonic() - last > _SECONDS:
            yield batch
            batch, last = [], time.monotonic()
    if batch:
        yield batch
    if fault is not None:
        raise fault


def _response(text: bytes, file: Path) -> Response:
    return read(Response, json.loads(text), str(file))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _slug(name: str) -> str:
    """A teacher's name as that of a folder; two that become the same share it."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "teacher"
