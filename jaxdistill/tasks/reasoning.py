"""Reasoning traces as AM-DeepSeek-R1-Distilled has them: thinking and answer in tags, verified.

Zhao et al., 1.4 Million Open-Source Distilled Reasoning Dataset to Empower Large Language Model
Training, 2025 (arXiv 2503.19633).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from jaxdistill.evaluation.measuring import measuring
from jaxdistill.records import Question, Record, Request, Sampling
from jaxdistill.records.cleaning import tags_pattern
from jaxdistill.records.reading import last_number
from jaxdistill.records.shards import Written
from jaxdistill.settings import Count, Natural, Share
from jaxdistill.tasks import problems
from jaxdistill.tasks.answered import Answered, scoring

ASKED = (
    "Work the task out before you answer. Write your reasoning between <think> and </think>, then "
    "nothing but the final result between <answer> and </answer>."
)
"""What the teacher is asked besides the task; the student is asked the task alone."""
_TAGS = tags_pattern(("think", "answer"))
KINDS = ("clean", "copy", "near copy", "leak")
"""What a training request of the world is, ``meta["kind"]``."""


MEASURED = ("precision", "complete", "copies_found", "near_copies_found", "leaks_gone")
"""The numbers of :func:`planted`."""


def request(text: str, answer: str | None = None, **fields: Any) -> Request:
    """An item of mathematics as the teacher is asked it.

    Args:
        text: the task.
        answer: the right one, where it is known.
        **fields: of the request.

    Example:
        >>> request("2 + 3?", "5").conversation[0].content
        '2 + 3?'
    """
    alone = Request.of(text).messages
    asked = Request.of(text, system=ASKED).messages
    return Request(asked, prompt=alone, reference=answer, task="reasoning", **fields)


def traces(
    *,
    seed: Natural = 0,
    count: Count = 1000,
    operations: tuple[Count, Count] = (2, 3),
    most: Count = 20,
    copies: Share = 0.15,
    near_copies: Share = 0.15,
    leaks: Natural = 20,
    validation: Natural = 64,
    test: Count = 256,
    samples: Count = 1,
) -> list[Request]:
    """Word problems for training, some of them planted, and held-out ones.

    Args:
        seed: of the world.
        count: different problems for training.
        operations: the fewest and the most of a problem.
        most: no number is above it.
        copies: how many are there twice, by their share.
        near_copies: how many are there again in slightly other words.
        leaks: questions of the test set among those for training.
        validation: held-out problems.
        test: likewise.
        samples: answers that the teacher gives to each.

    Raises:
        ValueError: for more leaks than test problems, and operations out of order.

    Example:
        >>> made = traces(count=20, test=4, validation=1, leaks=2)
        >>> sorted({each.meta["kind"] for each in made if each.split == "train"})
        ['clean', 'copy', 'leak', 'near copy']
    """
    if leaks > test:
        raise ValueError(f"leaks={leaks}: the test set has only {test} problems")
    draw = random.Random(seed)
    new = problems.many(draw, count + validation + test, operations, most)
    train, held_out = new[:count], new[count:]
    asked = {
        "clean": [(n, each.text) for n, each in enumerate(train)],
        "copy": [(n, _again(draw, train[n].text)) for n in _some(draw, count, copies)],
        "near copy": [
            (n, problems.near_copy(draw, train[n].text)) for n in _some(draw, count, near_copies)
        ],
    }
    asked["leak"] = [
        (count + validation + n, problems.leaked(draw, held_out[validation + n].text))
        for n in range(leaks)
    ]
    own, found = Sampling(n=samples, max_tokens=256), []
    for kind, rows in asked.items():
        for n, text in rows:
            known = {"source": f"problems/{kind}/{n}", "meta": {"kind": kind, "of": n}}
            found.append(request(text, str(new[n].answer), sampling=own, **known))
    for n, each in enumerate(held_out):
        split = "validation" if n < validation else "test"
        said = _tagged(*problems.thought(each, draw, 0.0))
        found.append(request(each.text, said, source=f"problems/{split}/{n}", split=split))
    return found


def _some(draw: random.Random, count: int, share: float) -> list[int]:
    return sorted(draw.sample(range(count), round(share * count)))


def _again(draw: random.Random, text: str) -> str:
    """The same text but for letters' case and spaces."""
    return draw.choice((text, text.lower(), text.replace(" ", "  ")))


def thinker(question: Question, *, wrong: Share = 0.0, untagged: Share = 0.0) -> str:
    """Solves a word problem in tags.

    Args:
        question: whose last message tells a problem.
        wrong: how often the answer is wrong, by one operation.
        untagged: how often a tag is missing.

    Example:
        >>> asked = request("In the zoo Ada has 3 keys. Then Ada gives 2 to Emil. How many?")
        >>> thinker(asked.questions()[0])
        '<think>3-2=1.</think><answer>1</answer>'
    """
    draw = random.Random(question.seed)
    made = problems.read(question.messages[-1].content)
    if made is None:
        return "<think>There is nothing to calculate.</think><answer>none</answer>"
    lines, answer = problems.thought(made, draw, wrong)
    said = _tagged(lines, answer)
    return said.replace("</think>", "") if draw.random() < untagged else said


def _tagged(thinking: str, answer: str) -> str:
    return f"<think>{thinking}</think><answer>{answer}</answer>"


def part(text: str) -> str | None:
    """The answer part of a text in tags, None where a tag is missing.

    Example:
        >>> part("<think>3-2=1.</think> <answer>1</answer>"), part("1")
        ('1', None)
    """
    match = _TAGS.fullmatch(text)
    return match.group(2).strip() if match else None


def right(text: str, answer: str) -> bool:
    """Whether a text in tags ends in the right number.

    Example:
        >>> right("<think>3-2=1.</think><answer>1 key</answer>", "1"), right("1", "1")
        (True, False)
    """
    said = part(text)
    return said is not None and last_number(said) == last_number(answer)


@functools.partial(measuring, MEASURED)
def planted(written: Written, requests: Mapping[str, Request]) -> dict[str, float]:
    """What steps did to planted faults, held against what is known of :func:`traces`.

    Returns:
        ``precision``, of what was kept the share with right answers; ``complete``, of the right
        answers that should stay the share that did: one of each problem should, none of the test
        set, and what is right of a problem about which nobody was asked counts as lost;
        ``copies_found`` and ``near_copies_found``, of planted ones the share that was not asked
        beside its original; ``leaks_gone``, of planted questions of the test set the share that is
        not left.
    """
    stayed, gone = list(written.records()), [each.item for each in written.dropped()]
    unasked = {each.id for each in gone if isinstance(each, Request)}
    asked = [each for each in requests.values() if each.id not in unasked]
    kept = sum(map(_right, stayed))
    known = {each.meta["of"] for each in asked}
    lost = sum(
        each.sampling.n
        for each in requests.values()
        if each.meta["kind"] == "clean" and each.meta["of"] not in known
    )
    lost += sum(
        _right(each) for each in gone if isinstance(each, Record) and each.meta["kind"] != "leak"
    )
    originals = {each.meta["of"] for each in asked if each.meta["kind"] == "clean"}

    def found(kind: str) -> float:
        own = [each for each in requests.values() if each.meta["kind"] == kind]
        beside = [each for each in own if each.id not in unasked and each.meta["of"] in originals]
        return 1 - len(beside) / max(len(own), 1)

    leaks = {each.meta["of"] for each in stayed if each.meta["kind"] == "leak"}
    count = sum(each.meta["kind"] == "leak" for each in requests.values())
    return {
        "precision": kept / max(len(stayed), 1),
        "complete": kept / max(kept + lost, 1),
        "copies_found": found("copy"),
        "near_copies_found": found("near copy"),
        "leaks_gone": 1 - len(leaks) / max(count, 1),
    }


def _right(record: Record) -> bool:
    return right(record.raw, record.reference or "")


@scoring("accuracy", "coverage")
def solved(answers: Sequence[Answered]) -> dict[str, float]:
    """The share of right answers in tags, and that of answers in tags at all.

    Example:
        >>> said = "<think>3-2=1.</think><answer>1</answer>"
        >>> solved([Answered("", said, "1"), Answered("", said, "2"), Answered("", "1", "1")])
        {'accuracy': 0.333..., 'coverage': 0.666...}
    """
    given = [part(each.answer) for each in answers]
    good = [right(each.answer, each.reference.rpartition("<answer>")[2]) for each in answers]
    return {
        "accuracy": sum(good) / len(answers),
        "coverage": sum(each is not None for each in given) / len(answers),
    }
