"""Grades for pictures against their captions, taken apart into sub-questions (T2I-Eval).

The grade of a whole is hard to learn; what it is made of is less so. A judge is asked how things
look, whether they are what the caption names, and how they lie to each other, explains each answer
before its number, and grades the whole last. A picture is given in words: records hold text.

In the world below a caption names two things and how they lie; a picture has them with a state, a
colour and a place, or lacks one. Grades are whole numbers from 0 to 10.

References:
    Tu et al. Automatic evaluation for text-to-image generation: task-decomposed framework,
    distilled training, and meta-evaluation benchmark. 2024, https://arxiv.org/abs/2411.15488
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxdistill.data.documents import json_rows
from jaxdistill.records.reading import last_score
from jaxdistill.records.requests import Message, Question, Request, Sampling
from jaxdistill.settings import Count, Natural, Share
from jaxdistill.tasks.answered import Answered, scoring

Form = Literal["parts", "numbers", "overall"]
"""How a judge answers: each part explained and graded before the whole, graded alone, or only the
whole.
"""
SHAPES = ("circle", "square", "triangle", "star", "heart", "moon")
"""Of the things in a picture; no two of one picture are alike in it."""
COLOURS = ("red", "yellow", "green", "blue")
"""Each is near to those beside it."""
PLACES = (1, 2, 3, 4, 5)
"""From left to right."""
STATES = {"clean": 10, "dusty": 8, "scratched": 6, "torn": 3, "broken": 1}
"""How a thing may look, and what that is worth."""
_WORDS = "You grade how well a picture shows what its caption asks for, from 0 (not at all) to 10."
_PARTS = (
    f"{_WORDS} First find what the caption names: things, what each is like, how they lie to each "
    "other. {how}Grade each thing's look (is it real and sound?) and kind (is it what the caption "
    "says?), and their place (do they lie as it says?), as 'Look: ', 'Kind: ' and 'Place: '; what "
    "is missing gets 0. End with 'Overall: ' and the number for the whole alone."
)
ASKED = {
    "parts": _PARTS.format(how="Say of each what you see, and what is not as asked, as 'Seen: '. "),
    "numbers": _PARTS.format(how=""),
    "overall": f"{_WORDS} Answer with 'Overall: ' and the number alone.",
}
"""What a teacher is told, by form."""


class Thing(NamedTuple):
    """Something in a picture."""

    shape: str
    colour: str
    state: str
    place: int


class Scene(NamedTuple):
    """A caption with its picture.

    Attributes:
        wanted: colour and shape of the two things that the caption names.
        side: where the first lies of the second, ``"left"`` or ``"right"``.
        things: of the picture.
    """

    wanted: tuple[tuple[str, str], tuple[str, str]]
    side: str
    things: tuple[Thing, ...]

    @property
    def text(self) -> str:
        """As it is shown to judges and students."""
        (colour, shape), (other_colour, other) = self.wanted
        caption = f"{shape} {colour} {self.side} of {other} {other_colour}"
        seen = ", ".join(f"{t.shape} {t.state} {t.colour} {t.place}" for t in self.things)
        return f"Caption: {caption}. Picture: {seen or 'nothing'}."


# --- asking ------------------------------------------------------------------------------------


def gradings(
    *, count: Count = 400, held_out: Count = 800, form: Form = "parts", seed: Natural = 0
) -> list[Request]:
    """Pictures of the world to be graded.

    The teacher is told how to grade; the student is shown caption and picture alone. No picture is
    there twice.

    Args:
        count: pictures to learn from.
        held_out: pictures of each of validation and test.
        form: how the judge answers.
        seed: of the world.

    Example:
        >>> first = gradings(count=1, held_out=1)[0]
        >>> print(first.prompt[0].content)
        Caption: star blue left of heart green. Picture: star clean blue 2.
        >>> print(first.reference)
        Seen: clean blue 2, missing. Look: 10, 0. Kind: 10, 0. Place: 0. Overall: 3
    """
    found, known = [], set()
    for split, size in (("validation", held_out), ("test", held_out), ("train", count)):
        for number in range(size):
            source = f"gradings/{seed}/{split}/{number}"
            draw = random.Random(source)
            while (scene := drawn(draw)).text in known:
                pass
            known.add(scene.text)
            right = None if split == "train" else graded(scene, form)
            found.append(_request(scene.text, form, source, split, right))
    return found


def gradings_of_file(*, path: str, form: Form = "parts") -> list[Request]:
    """Pictures of a file to be graded, as :func:`gradings`.

    Args:
        path: in JSON lines: ``caption``, ``picture`` (a description), and of those that are held
            out ``split`` and ``grade``, that of people.
        form: how the judge answers.

    Raises:
        ValueError: without a file; for a line without one of its keys, or with a grade that is no
            number from 0 to 10, naming the line.
    """
    if not path:
        raise ValueError("grading needs pictures: --config.data.task.path=<file.jsonl>")
    return [_read(row, f"line {number} of {path}", form) for number, row in json_rows(Path(path))]


def _request(text: str, form: Form, source: str, split: str, reference: str | None) -> Request:
    return Request.of(
        text,
        system=ASKED[form],
        prompt=(Message("user", text),),
        source=source,
        split=split,
        reference=reference,
        sampling=Sampling(temperature=0.0),
        task=form,
    )


def _read(row: dict[str, Any], where: str, form: Form) -> Request:
    for key in ("caption", "picture"):
        if not isinstance(row.get(key), str):
            raise ValueError(f"{where} has no text under {key!r}")
    split, grade = row.get("split", "train"), row.get("grade")
    sound = isinstance(grade, (int, float)) and not isinstance(grade, bool) and 0 <= grade <= 10
    if split != "train" and not sound:
        raise ValueError(f"{where}, of {split!r}: 'grade' is {grade!r}, no number from 0 to 10")
    text = f"Caption: {row['caption']}\nPicture: {row['picture']}"
    right = None if split == "train" else f"Overall: {grade}"
    return _request(text, form, where, split, right)


# --- the world ---------------------------------------------------------------------------------


def drawn(draw: random.Random) -> Scene:
    """A caption with a picture, mostly a good one: of low grades there are few.

    Args:
        draw: what it is drawn from.
    """
    shapes = draw.sample(SHAPES, 2)
    colours = draw.choices(COLOURS, k=2)
    first, second = zip(colours, shapes, strict=True)
    side = draw.choice(("left", "right"))
    low, high = sorted(draw.sample(PLACES, 2))
    places = [low, high] if (side == "left") == (draw.random() < 0.8) else [high, low]
    things = []
    for (colour, shape), place in zip((first, second), places, strict=True):
        other = draw.choice([each for each in COLOURS if each != colour])
        seen = other if draw.random() < 0.2 else colour
        spoilt = draw.choice([each for each in STATES if each != "clean"])
        state = spoilt if draw.random() < 0.3 else "clean"
        if draw.random() < 0.95:
            things.append(Thing(shape, seen, state, place))
    return Scene((first, second), side, tuple(things))


def graded(scene: Scene, form: Form = "parts") -> str:
    """The right answer about a scene.

    The whole is the mean of how its two things look, of what they are, and of how they lie,
    rounded; what is missing gets 0, a colour beside the right one 5, another one 1, and so the
    wrong side.

    Args:
        scene: caption and picture.
        form: see :data:`Form`.

    Example:
        >>> things = (Thing("star", "red", "torn", 2), Thing("moon", "blue", "clean", 4))
        >>> scene = Scene((("red", "star"), ("green", "moon")), "left", things)
        >>> print(graded(scene))
        Seen: torn red 2, clean blue not green 4. Look: 3, 10. Kind: 10, 5. Place: 10. Overall: 8
        >>> graded(scene, "numbers"), graded(scene, "overall")
        ('Look: 3, 10. Kind: 10, 5. Place: 10. Overall: 8', 'Overall: 8')
    """
    there = {each.shape: each for each in scene.things}
    seen, look, kind = [], [], []
    for colour, shape in scene.wanted:
        thing = there.get(shape)
        seen.append(_words_of(thing, colour))
        look.append(STATES[thing.state] if thing else 0)
        kind.append(_alike(colour, thing.colour) if thing else 0)
    places = [there[shape].place for _, shape in scene.wanted if shape in there]
    fits = len(places) == 2 and (places[0] < places[1]) == (scene.side == "left")
    place = [10 if fits else 1 if len(places) == 2 else 0]
    whole = math.floor((sum(look) / 2 + sum(kind) / 2 + place[0]) / 3 + 0.5)
    parts = {"Look": look, "Kind": kind, "Place": place}
    grades = [f"{name}: {', '.join(map(str, part))}." for name, part in parts.items()]
    first = [f"Seen: {', '.join(seen)}."] if form == "parts" else []
    return " ".join([*first, *(grades if form != "overall" else ()), f"Overall: {whole}"])


def _words_of(thing: Thing | None, colour: str) -> str:
    if thing is None:
        return "missing"
    unlike = "" if thing.colour == colour else f" not {colour}"
    return f"{thing.state} {thing.colour}{unlike} {thing.place}"


def _alike(colour: str, other: str) -> int:
    if colour == other:
        return 10
    return 5 if abs(COLOURS.index(colour) - COLOURS.index(other)) == 1 else 1


# --- the script --------------------------------------------------------------------------------


def grader(question: Question, *, error: Share = 0.1, silent: Share = 0.0) -> str:
    """A judge of the world that looks wrongly at times: it reads caption and picture, and answers
    about what it saw in the form that it is told to.

    Args:
        question: a request of :func:`gradings`.
        error: how often it is wrong about the state, the colour and the place of each thing.
        silent: how often it gives no number for the whole, but ``N/A``.

    Raises:
        ValueError: for a question that is not about a picture of the world.
    """
    draw = random.Random(question.seed)
    told = question.messages[0].content
    form = next((each for each, text in ASKED.items() if text == told), None)
    scene = read(question.messages[-1].content)
    if form is None or scene is None:
        raise ValueError(f"the grader knows nothing of {question.messages[-1].content[:80]!r}")
    seen = tuple(_seen(each, draw, error) for each in scene.things)
    answer = graded(scene._replace(things=seen), form)  # type: ignore[arg-type]
    return re.sub(r"\d+$", "N/A", answer) if draw.random() < silent else answer


def _seen(thing: Thing, draw: random.Random, error: float) -> Thing:
    """A thing as a judge sees it who errs."""

    def other(value: Any, possible: Sequence[Any]) -> Any:
        wrong = draw.choice([each for each in possible if each != value])
        return wrong if draw.random() < error else value

    return Thing(
        thing.shape,
        other(thing.colour, COLOURS),
        other(thing.state, list(STATES)),
        other(thing.place, PLACES),
    )


_CAPTION = re.compile(r"Caption: (\w+) (\w+) (left|right) of (\w+) (\w+)\. Picture: (.*)\.")
_THING = re.compile(r"(\w+) (\w+) (\w+) (\d)")


def read(text: str) -> Scene | None:
    """A scene of the world from its words, None of any other text.

    Example:
        >>> scene = drawn(random.Random(0))
        >>> read(scene.text) == scene, read("Caption: a cat")
        (True, None)
    """
    match = _CAPTION.fullmatch(text.strip())
    if match is None:
        return None
    shape, colour, side, other, other_colour, seen = match.groups()
    things = [
        Thing(name, said, state, int(place)) for name, state, said, place in _THING.findall(seen)
    ]
    return Scene(((colour, shape), (other_colour, other)), side, tuple(things))


# --- how good grades are -----------------------------------------------------------------------


def filled(grades: Sequence[Any], by: Literal["mean", "zero"] = "mean") -> list[float]:
    """Grades without gaps, as T2I-Eval compares them: what is no number is replaced by the mean of
    the others, or by zero. Of grades that are all missing the mean is taken to be zero too.

    Filling makes correlations higher than they are where much is missing: look at the coverage.

    Args:
        grades: numbers, and anything else for those that are missing.
        by: what takes their place.

    Example:
        >>> filled([1, "N/A", 3]), filled([1, None, 3], "zero")
        ([1.0, 2.0, 3.0], [1.0, 0.0, 3.0])
    """
    numbers = [
        float(each) if isinstance(each, (int, float)) and math.isfinite(each) else None
        for each in grades
    ]
    known = [each for each in numbers if each is not None]
    place = math.fsum(known) / len(known) if known and by == "mean" else 0.0
    return [place if each is None else each for each in numbers]


@scoring("spearman", "kendall", "coverage", "error", "rare_error")
def rank_agreement(
    answers: Sequence[Answered],
    *,
    fill: Literal["mean", "zero"] = "mean",
    rare: Share = 0.05,
) -> dict[str, float]:
    """How the grades of a student agree with the right ones: the last number that stands alone in
    each answer against that of its reference (:func:`jaxdistill.records.reading.last_score`).

    Args:
        answers: answers whose references hold a grade.
        fill: what takes the place of a grade that cannot be read, see :func:`filled`.
        rare: scores of which fewer than this share of the references have each are rare.

    Returns:
        ``spearman`` and ``kendall`` (tau-b), 0 where all grades of one side are equal;
        ``coverage``, the share of answers that have a grade; ``error``, the mean absolute one, and
        ``rare_error``, that on references whose whole score is rare: that on all if none is.

    Raises:
        ValueError: for a reference without a grade.

    Example:
        >>> said = [("Overall: 9", "10"), ("8", "9"), ("so 2", "1"), ("?", "9")]
        >>> found = rank_agreement([Answered("", *each) for each in said], rare=0.3)
        >>> found["coverage"], round(found["error"], 2), found["rare_error"]
        (0.75, 1.42, 1.0)
    """
    from scipy import stats

    given = [last_score(each.answer) for each in answers]
    right = [last_score(each.reference) for each in answers]
    if None in right:
        lacking = answers[right.index(None)].reference
        raise ValueError(f"rank_agreement: there is no grade in the reference {lacking!r}")
    known = filled(given, fill)
    errors = [abs(one - float(other)) for one, other in zip(known, right, strict=True)]  # type: ignore[arg-type]
    often = Counter(math.floor(float(each)) for each in right)  # type: ignore[arg-type]
    seldom = [
        error
        for error, each in zip(errors, right, strict=True)
        if often[math.floor(float(each))] < rare * len(right)  # type: ignore[arg-type]
    ]
    ranks: dict[str, Any] = {"spearman": stats.spearmanr, "kendall": stats.kendalltau}
    ordered = len(set(known)) > 1 and len(set(right)) > 1
    return {
        **{
            name: float(of(known, right).statistic) if ordered else 0.0
            for name, of in ranks.items()
        },
        "coverage": sum(each is not None for each in given) / len(given),
        "error": math.fsum(errors) / len(errors),
        "rare_error": math.fsum(seldom or errors) / len(seldom or errors),
    }
