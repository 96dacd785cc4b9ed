"""The pipeline: requests, a teacher's answers, records, steps, a folder of shards."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdistill import __version__
from jaxdistill._errors import differences, listed, unknown
from jaxdistill.progress import shown
from jaxdistill.records import running, shards, steps
from jaxdistill.records.answers import Answers, Teacher, ask
from jaxdistill.records.canonical import identity, plain
from jaxdistill.records.nouns import Record, Verdict, record_of
from jaxdistill.records.requests import SCHEMA, Request, Response
from jaxdistill.records.texts import OF_REQUESTS
from jaxdistill.settings import Count, Natural, Positive, Share, checked

# What may change how steps decide, besides the library itself.
_PACKAGES = ("numpy", "datasketch", "math-verify", "latex2sympy2-extended", "sympy", "pyarrow")


@checked
def write(
    requests: Iterable[Request],
    teachers: Teacher | Sequence[Teacher],
    folder: str | os.PathLike,
    *,
    before: Sequence[steps.Step] = (),
    after: Sequence[steps.Step] = (),
    answers: Answers | None = None,
    seed: Natural = 0,
    weights: Mapping[str, Positive] | None = None,
    failures: Share = 0.0,
    container: shards.Container = "jsonl",
    size: Count = 10_000,
) -> shards.Written:
    """Asks teachers, makes records of their answers, takes them through steps, and writes them.

    Killed at any time and called again, it asks only what was not answered and writes the same
    bytes. When the folder is there, it is opened, and nobody is asked.

    Args:
        requests: in any order; two that are equal in everything, ``source`` too, are refused.
        teachers: one, or several that requests name by ``teacher``.
        folder: where the records go.
        before: steps that decide about requests, before anybody is asked.
        after: steps that decide about records.
        answers: where answers are kept; by default in ``<folder>.answers``.
        seed: of the steps.
        weights: of each teacher's records in a student's loss, 1 by default.
        failures: the share of questions that may remain without an answer; those are dropped.
        container: ``"jsonl"`` or ``"parquet"``.
        size: records in a file.

    Returns:
        The folder with its manifest.

    Raises:
        ValueError: for an order of steps that cannot be, an unknown teacher, two equal requests, a
            folder that holds something else, and more failures than allowed; before anybody is
            asked, but for the last.

    Example:
        >>> import tempfile
        >>> def answer(questions):
        ...     for each in questions:
        ...         yield Response(each.id, each.sample, str(eval_sum(each.messages[-1].content)))
        >>> def eval_sum(text):
        ...     return sum(map(int, text.split("+")))
        >>> def even(records, seed):
        ...     return [steps.Decision(r, int(r.answer) % 2 == 0, reason="odd") for r in records]
        >>> requests = [Request.of(f"{i}+1", source=f"sums/{i}") for i in range(4)]
        >>> with tempfile.TemporaryDirectory() as root:
        ...     written = write(
        ...         requests, Teacher("adder", "1", answer), root + "/set", after=[steps.step(even)]
        ...     )
        ...     sorted(each.answer for each in written.records())
        ['2', '4']
    """
    by_name = _named(teachers, weights or {})
    for part in (before, after):
        running.refuse_order(part)
    for each in before:
        text = each.settings.get("of", "prompt")
        if not each.facts.requests or text not in OF_REQUESTS:
            raise ValueError(
                f"step {each.name!r} reads what a request does not have before it is answered: put "
                "it into 'after'"
            )
    asked = running.run(list(requests), ())
    _refuse_unknown_teachers(asked.kept, by_name)
    made_from = {
        "requests": {"count": len(asked.kept), "sha256": identity([r.id for r in asked.kept])},
        "teachers": {name: each.revision for name, each in sorted(by_name.items())},
        "weights": {name: float(value) for name, value in sorted((weights or {}).items())},
        "before": [each.described() for each in before],
        "after": [each.described() for each in after],
        "seed": seed,
        "container": container,
        "size": size,
        "schema": SCHEMA,
    }
    if (there := _there(Path(folder), made_from)) is not None:
        return there
    open_ = running.run(asked.kept, before, seed=seed)
    held = Answers(f"{os.fspath(folder)}.answers") if answers is None else answers
    failed = _asked(open_.kept, by_name, held, failures)
    records = _records(open_.kept, by_name, held, weights or {})
    done = running.run(records, after, seed=seed)
    manifest = {
        "identity": identity(made_from),
        "made_from": made_from,
        "versions": versions(),
        "answers": {"count": len(records), "sha256": identity([(r.id, r.raw) for r in records])},
        "before": open_.counts,
        "failed": len(failed),
        "after": done.counts,
    }
    dropped = [*open_.dropped, *failed, *done.dropped]
    return shards.write_folder(folder, done.kept, dropped, manifest, container=container, size=size)


def versions() -> dict[str, str]:
    """Of Python, this library, and the packages that steps decide with."""
    found = {"python": platform.python_version(), "jaxdistill": __version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _named(
    teachers: Teacher | Sequence[Teacher], weights: Mapping[str, float]
) -> dict[str, Teacher]:
    given = [teachers] if isinstance(teachers, Teacher) else list(teachers)
    by_name = {each.name: each for each in given}
    if len(by_name) < len(given) or not given:
        raise ValueError(f"teachers need names of their own: {listed([t.name for t in given])}")
    for name in weights:
        if name not in by_name:
            raise ValueError(unknown("teacher in weights", name, by_name))
    return by_name


def _refuse_unknown_teachers(requests: Sequence[Request], by_name: Mapping[str, Teacher]) -> None:
    for each in requests:
        if each.teacher not in by_name and (each.teacher or len(by_name) > 1):
            raise ValueError(
                unknown(f"teacher of the request {each.source or each.id}", each.teacher, by_name)
            )


def _teacher(request: Request, by_name: Mapping[str, Teacher]) -> Teacher:
    return by_name[request.teacher] if request.teacher else next(iter(by_name.values()))


def _there(folder: Path, made_from: Mapping[str, Any]) -> shards.Written | None:
    """The folder, if it holds what is asked for; None if it is not there."""
    if not folder.exists():
        return None
    found = shards.open_written(folder)
    here = json.loads(json.dumps(plain(made_from)))
    if faults := differences(found.manifest["made_from"], here):
        raise ValueError(
            f"{folder} holds records of something else:\n" + "\n".join(faults) + "\nTake another "
            "folder; answers are kept apart and are asked only once."
        )
    return found


def _asked(
    requests: Sequence[Request], by_name: Mapping[str, Teacher], answers: Answers, allowed: float
) -> list[tuple[Request, Verdict]]:
    """Asks all teachers; the requests of which a question failed, as far as that is allowed."""
    failed: dict[tuple[str, str, int], Response] = {}
    total = 0
    for name, teacher in by_name.items():
        own = [each for each in requests if _teacher(each, by_name) is teacher]
        questions = [question for each in own for question in each.questions()]
        total += len(questions)
        for each in ask(teacher, questions, answers):
            failed[name, each.question, each.sample] = each
    if len(failed) > allowed * total:
        errors = sorted({each.error for each in failed.values()})
        raise ValueError(
            f"{len(failed)} of {total} questions failed ({listed(errors, 3)}); all other answers "
            "are kept: run it again to ask these, or allow a share of 'failures'"
        )
    found = []
    for request in requests if failed else ():
        for question in request.questions():
            name = _teacher(request, by_name).name
            if each := failed.get((name, question.id, question.sample)):
                verdict = Verdict("ask", 1, "", False, None, "failed", each.error)
                found.append((request, verdict))
    return found


def _records(
    requests: Sequence[Request],
    by_name: Mapping[str, Teacher],
    answers: Answers,
    weights: Mapping[str, float],
) -> list[Record]:
    found = []
    for request in shown(requests, "read answers", "requests"):
        teacher = _teacher(request, by_name)
        weight = float(weights.get(teacher.name, 1.0))
        for question in request.questions():
            if answers.has(teacher, question):
                response = answers.get(teacher, question)
                found.append(record_of(request, response, weight=weight))
    return sorted(found, key=lambda each: each.id)
