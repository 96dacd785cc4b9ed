"""What a student answered, and how good that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxdistill.evaluation.measuring import measuring

Score = Callable[..., dict[str, float]]
"""``answers -> {name: number}``, of all answers of a set together."""


class Answered(NamedTuple):
    """An answer of a student beside the right one.

    Attributes:
        prompt: what it was asked, as the template renders it.
        answer: what it wrote.
        reference: the right answer.
        task: of the request.
    """

    prompt: str
    answer: str
    reference: str
    task: str = ""


def scoring(*names: str) -> Callable[[Score], Score]:
    """Says which numbers a score gives, so that a claim about another is refused early.

    A score is a function ``(answers, **settings) -> {name: number}`` of keyword-only settings.
    """
    return lambda function: measuring(names, function)


@scoring("accuracy")
def exact(answers: Sequence[Answered], *, ignore_case: bool = False) -> dict[str, float]:
    """The share of answers that are the reference, spaces around them aside.

    Example:
        >>> exact([Answered("2 + 2?", " 4", "4"), Answered("2 + 3?", "6", "5")])
        {'accuracy': 0.5}
    """
    right = [_plain(each.answer, ignore_case) == _plain(each.reference, ignore_case)
             for each in answers]  # fmt: skip
    return {"accuracy": sum(right) / len(right)}


def _plain(text: str, ignore_case: bool) -> str:
    text = " ".join(text.split())
    return text.casefold() if ignore_case else text
