"""A large model's long prompts, a student's short ones: chain of thought and chain of density.

Shirgaonkar et al., Knowledge Distillation Using Frontier Open-source LLMs, 2024 (arXiv 2410.18588):
the teacher is asked to work step by step, or to make its summary denser again and again; the
student learns what came of it from the bare task. Chain of density: Adams et al., From Sparse to
Dense, 2023 (arXiv 2309.04269).
"""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Sequence
from typing import Any, Literal

from jaxdistill._errors import unknown
from jaxdistill.records import Message, Question, Record, Request, Sampling
from jaxdistill.records.reading import last_number
from jaxdistill.records.steps import Decision, deciding
from jaxdistill.settings import Count, Natural, Share
from jaxdistill.tasks import problems
from jaxdistill.tasks.answered import Answered, scoring

How = Literal["steps", "alone", "denser"]
"""How a teacher is asked."""
ASKED: dict[str, str] = {
    "steps": (
        "Solve the task step by step, one operation or inference at a time. End with a sentence of "
        'this form: "The answer is X."'
    ),
    "alone": 'Do not explain anything. Answer with one sentence of this form: "The answer is X."',
    "denser": (
        "Summarise the text five times, each time in as many words. Every new summary keeps all "
        "named entities of the one before and takes in one to three more that are missing; make "
        "room by joining sentences and leaving out phrases that say little. Answer with a JSON "
        'list of five objects with the keys "Missing_Entities" and "Denser_Summary".'
    ),
}
"""What the teacher is asked besides the task; the student is asked the task alone."""
MARKER = "The answer is "
"""What stands before the answer of a chain of thought."""
_STRICT = re.compile(r"(?s).*?The answer is (?P<answer>(?:(?!\. )[^\n])+?)\.\s*")
_ENTITY = re.compile(r"\b[A-Z][a-z]+\b")
_WORD = re.compile(r"\w+")
_FILLERS = str.split(
    "in this text there is a report about some people, and among other things it tells of what was "
    "done by them here and there over the course of the whole year"
)


def request(text: str, how: How, answer: str | None = None, **fields: Any) -> Request:
    """An item as the teacher is asked it, and the student.

    Args:
        text: the task.
        how: ``"steps"`` (chain of thought), ``"alone"``, ``"denser"`` (chain of density).
        answer: the right one, where it is known.
        **fields: of the request.

    Raises:
        ValueError: for an unknown way to ask.

    Example:
        >>> made = request("2 + 3?", "steps", "5")
        >>> [each.role for each in made.messages], [each.content for each in made.prompt]
        (['system', 'user'], ['2 + 3?'])
    """
    if how not in ASKED:
        raise ValueError(unknown("way to ask", how, ASKED))
    asked = Request.of(text, system=ASKED[how]).messages
    alone = Request.of(text).messages
    return Request(asked, prompt=alone, reference=answer, task=how, **fields)


# --- problems -----------------------------------------------------------------------------------


def worked(
    *,
    seed: Natural = 0,
    how: Literal["steps", "alone"] = "steps",
    count: Count = 1000,
    operations: tuple[Count, Count] = (2, 3),
    most: Count = 20,
    taught: Share = 0.0,
    validation: Natural = 256,
    test: Count = 256,
) -> list[Request]:
    """Word problems, of which the teacher gives the steps or the answers alone.

    Args:
        seed: of the world.
        how: what the teacher is asked for.
        count: problems for training.
        operations: the fewest and the most of a problem.
        most: no number is above it.
        taught: how often references of the validation set are wrong. At the teacher's own rate they
            are what this teacher would have said: nobody agrees with them in more than
            ``1 - taught``, who does not know its slips. Those of the test set are right.
        validation: held-out problems.
        test: likewise.

    Raises:
        ValueError: see :func:`~jaxdistill.tasks.problems.many`.

    Example:
        >>> made = worked(count=2, validation=0, test=1, operations=(1, 1))
        >>> [each.split for each in made], made[-1].reference.endswith(".")
        (['train', 'train', 'test'], True)
    """
    draw = random.Random(seed)
    new = problems.many(draw, count + validation + test, operations, most)
    parts = {"train": new[:count], "validation": new[count : count + validation]}
    parts["test"] = new[count + validation :]
    found = []
    for split, rows in parts.items():
        for n, each in enumerate(rows):
            wrong = taught if split == "validation" else 0.0
            said = _said(*problems.thought(each, draw, wrong), how)
            own = {"source": f"problems/{split}/{n}", "split": split}
            right = str(each.answer) if split == "train" else said
            sampling = Sampling(max_tokens=256)
            found.append(request(each.text, how, right, sampling=sampling, **own))
    return found


def solver(question: Question, *, wrong: Share = 0.0, unmarked: Share = 0.0) -> str:
    """Solves a word problem in the form that it is asked for.

    Args:
        question: of :func:`worked`.
        wrong: how often the answer is wrong, by one operation.
        unmarked: how often the answer stands in a sentence of another form.

    Example:
        >>> text = "In the zoo Ada has 3 keys. Then Ada gives 2 to Emil. How many?"
        >>> solver(request(text, "steps").questions()[0])
        '3-2=1. The answer is 1.'
    """
    draw = random.Random(question.seed)
    made = problems.read(question.messages[-1].content)
    if made is None:
        return "There is nothing to calculate."
    how = "steps" if question.messages[0].content == ASKED["steps"] else "alone"
    said = _said(*problems.thought(made, draw, wrong), how)
    return said.replace(MARKER, "So it is ") if draw.random() < unmarked else said


def _said(lines: str, answer: str, how: str) -> str:
    return f"{lines} {MARKER}{answer}." if how == "steps" else f"{MARKER}{answer}."


def extracted(text: str, how: Literal["strict", "lenient"]) -> str | None:
    """The answer of a text: strictly, what its last sentence says in the form that was asked for,
    which may come only once; leniently, its last number. None where there is none.

    Example:
        >>> extracted("3-2=1. The answer is 1.", "strict"), extracted("So it is 1.", "strict")
        ('1', None)
        >>> extracted("So it is 1.", "lenient"), extracted("No idea.", "lenient")
        ('1', None)
    """
    if how == "lenient":
        return last_number(text)
    match = _STRICT.fullmatch(text)
    return match["answer"] if match and text.count(MARKER) == 1 else None


@scoring("strict", "lenient", "strict_coverage", "lenient_coverage")
def numbers(answers: Sequence[Answered]) -> dict[str, float]:
    """Shares of right answers among all, as :func:`extracted` strictly and leniently, and the
    shares of answers of which something could be extracted.

    Example:
        >>> right = "The answer is 1."
        >>> numbers([Answered("", right, right), Answered("", "It is 1.", right)])["strict"]
        0.5
    """
    found = {}
    for how in ("strict", "lenient"):
        given = [extracted(each.answer, how) for each in answers]
        right = [extracted(each.reference, how) for each in answers]
        same = [a is not None and a == b for a, b in zip(given, right, strict=True)]
        found[how] = sum(same) / len(answers)
        found[f"{how}_coverage"] = sum(each is not None for each in given) / len(answers)
    return found


# --- summaries ----------------------------------------------------------------------------------


def reports(
    *,
    seed: Natural = 0,
    count: Count = 1000,
    facts: Count = 5,
    validation: Natural = 64,
    test: Count = 256,
) -> list[Request]:
    """Short reports to be summarised, each of so many people and what they do.

    Args:
        seed: of the world.
        count: for training.
        facts: sentences in a report.
        validation: held-out ones.
        test: likewise.

    Raises:
        ValueError: for more facts than there are names.
    """
    if facts > len(problems.NAMES):
        raise ValueError(f"facts={facts}: there are {len(problems.NAMES)} names")
    draw = random.Random(seed)
    found = []
    for split, size in {"train": count, "validation": validation, "test": test}.items():
        for n in range(size):
            names = draw.sample(problems.NAMES, facts)
            said = [
                f"{who} sold {draw.choice(problems.THINGS)} at the {draw.choice(problems.PLACES)}."
                for who in names
            ]
            dense = None if split == "train" else dense_summary(names, facts)
            own = {"source": f"reports/{split}/{n}", "split": split}
            sampling = Sampling(max_tokens=512)
            found.append(request(" ".join(said), "denser", dense, sampling=sampling, **own))
    return found


def dense_summary(names: Sequence[str], kept: int, words: int = 12) -> str:
    """So many of some names, and filled up to so many words.

    Example:
        >>> dense_summary(["Ada", "Emil", "Zoe"], 2, 6)
        'Ada Emil in this text there.'
    """
    own = list(names[:kept])
    return " ".join([*own, *_FILLERS[: max(words - len(own), 0)]]) + "."


def summariser(question: Question, *, rounds: Count = 5) -> str:
    """Summarises a report again and again, with more of its names each time.

    Args:
        question: of :func:`reports`.
        rounds: how often.

    Example:
        >>> text = "Ada sold keys at the zoo. Emil sold hats at the barn."
        >>> summaries(summariser(request(text, "denser").questions()[0], rounds=2))[0]
        'Ada in this text there is a report about some people, and.'
    """
    names = list(dict.fromkeys(_ENTITY.findall(question.messages[-1].content)))
    found, before = [], 0
    for number in range(1, rounds + 1):
        kept = max(round(number * len(names) / rounds), 1)
        found.append(
            {
                "Missing_Entities": "; ".join(names[before:kept]),
                "Denser_Summary": dense_summary(names, kept),
            }
        )
        before = kept
    return json.dumps(found)


def summaries(text: str) -> list[str]:
    """The summaries of a chain of density, the densest last; none where it cannot be read.

    Example:
        >>> summaries('Here: [{"Missing_Entities": "Ada", "Denser_Summary": "Ada."}]')
        ['Ada.']
    """
    start = text.find("[")
    try:
        rows, _ = json.JSONDecoder().raw_decode(text, max(start, 0))
    except (ValueError, RecursionError):
        return []
    if not isinstance(rows, list):
        return []
    found = [row.get("Denser_Summary") for row in rows if isinstance(row, dict)]
    said = [each for each in found if isinstance(each, str) and each.strip()]
    return said if len(said) == len(rows) else []


@deciding(gives=("answers that are read",))
def read_summary(
    items: Sequence[Record], seed: int, *, which: Literal["first", "last"] = "last"
) -> list[Decision]:
    """Reads one summary of a chain of density; the student learns to write that alone.

    Args:
        items: records.
        seed: not used.
        which: the first is the sparsest, the last the densest.
    """
    found = []
    for each in items:
        chain = summaries(each.raw)
        if not chain:
            found.append(Decision(each, False, reason="no chain of summaries"))
            continue
        text = chain[-1 if which == "last" else 0]
        said = tuple(Message(m.role, text, True) if m.learn else m for m in each.messages)
        found.append(Decision(dataclasses.replace(each, answer=text, messages=said)))
    return found


@scoring("entities", "density", "words")
def density(answers: Sequence[Answered]) -> dict[str, float]:
    """Of the names in a reference the share that an answer has, names a word, and words; means.

    A name is a word with a capital letter: entities of real texts need a tagger.

    Example:
        >>> density([Answered("", "Ada sold keys.", "Ada and Emil sold much.")])
        {'entities': 0.5, 'density': 0.333..., 'words': 3.0}
    """
    had, dense, words = 0.0, 0.0, 0
    for each in answers:
        wanted = set(_ENTITY.findall(each.reference))
        given = set(_ENTITY.findall(each.answer)) & wanted
        size = len(_WORD.findall(each.answer))
        had += len(given) / max(len(wanted), 1)
        dense += len(given) / max(size, 1)
        words += size
    count = len(answers)
    return {"entities": had / count, "density": dense / count, "words": words / count}
