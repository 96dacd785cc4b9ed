"""Steps that judge answers: judges and rewards, thresholds, votes, pairs of better and worse."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, cast, get_args

from jaxdistill._errors import unknown
from jaxdistill.records.answers import Answers, Teacher, ask
from jaxdistill.records.nouns import Record, made_from
from jaxdistill.records.requests import Request, Sampling
from jaxdistill.records.steps import SAMPLES, Decision, deciding, short
from jaxdistill.records.texts import Text, normal, text_of
from jaxdistill.settings import Finite, NonNegative, Share

_BRACED = re.compile(r"\{(\w+)\}")

Judge = Callable[[Sequence[Record]], Iterable[float | None]]
"""``records -> a number for each``, None where it cannot say: a reward model, another teacher, a
perplexity. Attributes ``name`` and ``revision`` say in manifests which one it is.
"""


@deciding(gives=("score {name}",))
def judged(
    items: Sequence[Record],
    seed: int,
    *,
    judge: Judge,
    name: str = "score",
    least: Finite | None = None,
    most: Finite | None = None,
) -> list[Decision]:
    """Asks a judge, puts its number into ``scores``, and drops what it cannot judge or finds bad.

    A perplexity is a judge with ``most``, a reward one with ``least``.

    Args:
        items: records.
        seed: not used.
        judge: gives a number for each record, or None.
        name: of the score.
        least: a record needs so much.
        most: so much is not too much.

    Raises:
        ValueError: if the judge gives another count of numbers, or what is no finite number.
    """
    given = list(judge(items))
    if len(given) != len(items):
        raise ValueError(f"judge of {name!r}: {len(given)} numbers for {len(items)} records")
    found = []
    for each, value in zip(items, given, strict=True):
        if value is None:
            found.append(Decision(each, False, reason="no number from the judge"))
            continue
        score = _number(value, name, each)
        scored = dataclasses.replace(each, scores={**each.scores, name: score})
        found.append(Decision(scored, *_between(score, least, most)))
    return found


def _number(value: Any, name: str, record: Record) -> float:
    try:
        score = math.nan if isinstance(value, (str, bool)) else float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(
            f"judge of {name!r} answered {value!r} for record {record.id}: a judge gives a finite "
            "number, or None where it cannot say"
        )
    return score


def _between(score: float, least: float | None, most: float | None) -> tuple[bool, float, str]:
    low = least is not None and score < least
    high = most is not None and score > most
    return not (low or high), score, "score too low" if low else "score too high" if high else ""


@deciding(needs=("score {by}",))
def within(
    items: Sequence[Record],
    seed: int,
    *,
    by: str,
    least: Finite | None = None,
    most: Finite | None = None,
) -> list[Decision]:
    """Keeps records by a score that an earlier step gave.

    Args:
        items: records.
        seed: not used.
        by: the name of the score.
        least: a record needs so much.
        most: so much is not too much.
    """
    found = []
    for each in items:
        if by in each.scores:
            found.append(Decision(each, *_between(each.scores[by], least, most)))
        else:
            found.append(Decision(each, False, reason=f"no score {by}"))
    return found


@dataclasses.dataclass(frozen=True)
class Asked:
    """A judge that is a teacher: it is asked about a record, perhaps several times, and what it
    says is read. Its answers are kept, so it too is asked once.

    Attributes:
        teacher: who judges; its name should not be that of who wrote, or it judges itself.
        question: ``record -> request``; ``sampling.n`` of it is the number of votes.
        read: ``text -> number``, or None where it says none, which does not vote. For yes and no
            1 and 0: the mean is the share of yes.
        answers: where its answers are kept.
        told: what tells it from a judge of the same teacher with other questions or another reader,
            for manifests.

    Example:
        >>> from jaxdistill.records.nouns import Provenance
        >>> from jaxdistill.records.requests import Response
        >>> def answer(questions):
        ...     return [Response(q.id, q.sample, "yes 9") for q in questions]
        >>> judge = Asked(
        ...     Teacher("critic", "1", answer),
        ...     lambda record: Request.of(f"Is this right? {record.answer}", source=record.id),
        ...     lambda text: float(text.split()[-1]),
        ...     Answers(),
        ... )
        >>> list(judge([Record("a", (), Provenance("writer"), answer="5")]))
        [9.0]
    """

    teacher: Teacher
    question: Callable[[Record], Request]
    read: Callable[[str], float | None]
    answers: Answers
    told: str = ""

    @property
    def name(self) -> str:
        """That of the teacher."""
        return self.teacher.name

    @property
    def revision(self) -> str:
        """That of the teacher, and what it is told."""
        return " ".join(filter(None, (self.teacher.revision, self.told)))

    def __call__(self, items: Sequence[Record]) -> list[float | None]:
        """The mean of what it says about each record.

        Raises:
            ValueError: if some of its answers failed, and if none of them says a number.
        """
        asked = [self.question(each).questions() for each in items]
        failed = ask(self.teacher, [q for each in asked for q in each], self.answers)
        if failed:
            raise ValueError(
                f"judge {self.name!r} left {len(failed)} questions without an answer "
                f"({failed[0].error}): run it again"
            )
        found = [self._mean(each) for each in asked]
        if asked and not any(each is not None for each in found):
            said = self.answers.get(self.teacher, asked[0][0]).text
            raise ValueError(
                f"judge {self.name!r} says no number about any of {len(asked)} records, but "
                f"{short(said)}: ask it for one, or read its answers in another way"
            )
        return found

    def _mean(self, questions: Sequence[Any]) -> float | None:
        said = (self.read(self.answers.get(self.teacher, each).text) for each in questions)
        votes = [each for each in said if each is not None]
        return math.fsum(votes) / len(votes) if votes else None


def question_of(text: str, sampling: Sampling) -> Callable[[Record], Request]:
    """What a judge is asked about a record.

    Args:
        text: the question, with texts of the record in braces: ``{prompt}``, ``{answer}``,
            ``{rationale}``, ``{reference}``, ``{raw}``, ``{conversation}``.
        sampling: how it draws; ``n`` is the number of votes.

    Raises:
        ValueError: for braces around anything else, and for a question about nothing.

    Example:
        >>> from jaxdistill.records.nouns import Provenance
        >>> ask_ = question_of("Is {answer} right?", Sampling())
        >>> ask_(Record("a", (), Provenance("writer"), answer="5")).messages[0].content
        'Is 5 right?'
        >>> question_of("Is {anser} right?", Sampling())
        Traceback (most recent call last):
        ValueError: unknown text of a record in the question 'anser': did you mean 'answer'? ...
    """
    named = _BRACED.findall(text)
    for each in named:
        if each not in get_args(Text):
            raise ValueError(unknown("text of a record in the question", each, get_args(Text)))
    if not named:
        raise ValueError(
            f"question={short(text)} says of no text of the record, such as {{answer}}"
        )

    def asks(record: Record) -> Request:
        said = _BRACED.sub(lambda found: text_of(record, cast("Text", found[1])), text)
        return Request.of(said, source=record.id, sampling=sampling)

    return asks


@deciding(needs=(SAMPLES,), gives=("score {name}",), undoes=(SAMPLES,))
def voted(
    items: Sequence[Record],
    seed: int,
    *,
    among: Literal["request", "source"] = "request",
    least: Share = 0.0,
    keep: Literal["one", "all"] = "one",
    name: str = "votes",
) -> list[Decision]:
    """Keeps the answer that most answers to one request give (Wang et al., Self-Consistency, 2023).

    Answers are equal if they are the same number, or the same text but for case and spaces. Where
    two lead, none is kept.

    Args:
        items: records.
        seed: not used.
        among: whose answers vote together: those to one request, or to all requests of one source,
            which several teachers may have answered.
        least: the share of votes that the leading answer needs.
        keep: one record of those that agree, the first by id, or all.
        name: of the score, the share of votes.
    """
    groups: dict[str, list[Record]] = {}
    for each in items:
        key = each.source if among == "source" else each.provenance.request
        groups.setdefault(key or each.id, []).append(each)
    found = []
    for members in groups.values():
        votes = Counter(canonical_answer(each.answer) for each in members)
        (leader, most), *others = votes.most_common(2)
        tie = bool(others) and others[0][1] == most
        chosen = False
        for each in members:
            answer = canonical_answer(each.answer)
            share = votes[answer] / len(members)
            agrees = answer == leader and not tie
            weak = agrees and share < least
            reason = "tie" if tie else "too few votes" if weak else "" if agrees else "outvoted"
            if not reason and chosen and keep == "one":
                reason = "agrees with another"
            chosen = chosen or not reason
            scored = dataclasses.replace(each, scores={**each.scores, name: share})
            found.append(Decision(scored, not reason, share, reason))
    return found


def canonical_answer(text: str) -> str:
    """An answer as votes are counted.

    Example:
        >>> canonical_answer("1,000.0") == canonical_answer("1000"), canonical_answer(" Yes. ")
        (True, 'yes')
    """
    plain = normal(text).strip(".!")
    digits = plain.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", plain) else plain
    try:
        number = Decimal(digits)
    except InvalidOperation:
        return plain
    short = number.is_finite() and abs(number.adjusted()) < 30
    return f"{number.normalize():f}" if short else plain


@deciding(needs=(SAMPLES, "score {by}"), undoes=(SAMPLES,))
def preferred(
    items: Sequence[Record], seed: int, *, by: str = "score", margin: NonNegative = 0.0
) -> list[Decision]:
    """Makes of the answers to each request one record of the best and the worst: for DPO and its
    kin. The better answer is the record's, the worse one stands in ``meta["rejected"]``, all of
    them with their scores, best first, in ``meta["ranked"]``.

    Args:
        items: records.
        seed: not used.
        by: the score that says what is better.
        margin: by how much the two must differ at least; equal scores make no pair.
    """
    groups: dict[str, list[Record]] = {}
    found = []
    for each in items:
        if by in each.scores:
            groups.setdefault(each.provenance.request or each.id, []).append(each)
        else:
            found.append(Decision(each, False, reason=f"no score {by}"))
    for members in groups.values():
        ranked = sorted(members, key=lambda each: (-each.scores[by], each.id))
        best, worst = ranked[0], ranked[-1]
        gap = best.scores[by] - worst.scores[by]
        paired = gap > 0 and gap >= margin
        reason = "in a pair" if paired else "no worse answer"
        found += [Decision(each, False, each.scores[by], reason) for each in ranked]
        if paired:
            all_ = [{"answer": each.raw, by: each.scores[by]} for each in ranked]
            meta = {**best.meta, "rejected": worst.raw, "ranked": all_}
            found.append(Decision(made_from(ranked, "preferred", meta=meta), True, gap))
    return found
