"""Arithmetic word problems of several operations, whose answers are known.

The world draws problems from a seed; the script reads a problem, thinks one operation at a time and
errs at a known rate. Copies, near copies and questions of the test set can be planted among the
training problems, so that what a pipeline finds can be held against what is there.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

NAMES = (
    "Ada", "Boris", "Chloe", "Dmitri", "Elena", "Farid", "Greta", "Hugo", "Ines", "Jonas",
    "Karim", "Leila", "Mateo", "Nadia", "Oskar", "Petra", "Quentin", "Rosa", "Stefan", "Tamara",
    "Umar", "Vera", "Wanda", "Xavier", "Yusuf", "Zoe", "Anton", "Bianca", "Carlos", "Daria",
    "Emil", "Fiona", "Goran", "Hanna", "Igor", "Julia", "Kasper", "Lucia", "Marek", "Noemi",
)  # fmt: skip
"""Who has things."""
THINGS = (
    "apples", "books", "coins", "drums", "eggs", "flags", "grapes", "hats", "inkpots", "jars",
    "kites", "lamps", "melons", "nails", "oranges", "pencils", "quilts", "ropes", "stamps",
    "tickets", "umbrellas", "vases", "whistles", "yarns", "zippers", "acorns", "buttons",
    "candles", "dolls", "erasers", "feathers", "gloves", "hammers", "icicles", "jewels", "keys",
    "lemons", "marbles", "needles", "onions",
)  # fmt: skip
"""What they have."""
PLACES = (
    "market", "library", "harbour", "station", "museum", "orchard", "stadium", "bakery", "castle",
    "bridge", "garden", "school", "theatre", "airport", "chapel", "factory", "fountain",
    "gallery", "hospital", "island", "kitchen", "lighthouse", "meadow", "nursery", "office",
    "palace", "quarry", "river", "stable", "tower", "university", "village", "workshop", "zoo",
    "attic", "barn", "cellar", "ditch", "embassy", "forest",
)  # fmt: skip
"""Where they get or lose them."""
SENTENCES: Mapping[str, tuple[str, ...]] = {
    "+": (
        "buys {n} more at the {place}",
        "finds {n} near the {place}",
        "receives {n} from {other}",
        "borrows {n} from {other}",
        "collects {n} behind the {place}",
        "wins {n} against {other}",
    ),
    "-": (
        "gives {n} to {other}",
        "loses {n} close to the {place}",
        "sells {n} outside the {place}",
        "leaves {n} inside the {place}",
        "lends {n} to {other}",
        "breaks {n} around the {place}",
    ),
    "*": (
        "gets {n} times as many with {other}",
        "has {n} times as many after the {place}",
    ),
}
"""What happens to things, by operation."""
_BEGINS = (
    "{who} starts at the {place} with {n} {thing}.",
    "In the {place} {who} has {n} {thing}.",
    "{who} comes from the {place} with {n} {thing}.",
)
LINKS = ("Then", "Afterwards", "Later", "Next", "Soon", "Thereupon", "Finally")
"""What a sentence behind another may begin with."""
_ENDS = (
    "How many {thing} does {who} have now?",
    "How many {thing} are with {who} in the end?",
    "With how many {thing} does {who} go home?",
)
_NUMBERS = re.compile(r"\d+")


def _reader(form: str) -> re.Pattern[str]:
    """What finds a sentence of a form, and its number."""
    number = re.escape(form).replace(r"\{n\}", r"(\d+)")
    return re.compile(re.sub(r"\\{\w+\\}", r"\\w+", number), re.IGNORECASE)


_READERS = [(sign, _reader(form)) for sign, forms in SENTENCES.items() for form in forms]


class Problem(NamedTuple):
    """A problem: a first number, and what is done to it.

    Attributes:
        text: the question.
        start: the first number.
        steps: a sign and a number for each operation.
    """

    text: str
    start: int
    steps: tuple[tuple[str, int], ...]

    @property
    def totals(self) -> tuple[int, ...]:
        """The number behind each operation.

        Example:
            >>> Problem("", 3, (("+", 4), ("*", 2))).totals
            (7, 14)
        """
        found, total = [], self.start
        for sign, number in self.steps:
            total = applied(sign, total, number)
            found.append(total)
        return tuple(found)

    @property
    def answer(self) -> int:
        """The number behind the last operation."""
        return self.totals[-1]


def applied(sign: str, total: int, number: int) -> int:
    """One operation.

    Example:
        >>> applied("-", 7, 2), applied("*", 7, 2)
        (5, 14)
    """
    return {"+": total + number, "-": total - number, "*": total * number}[sign]


def problem(draw: random.Random, operations: int, most: int) -> Problem:
    """A problem in which no number leaves 0 to ``most``.

    Example:
        >>> made = problem(random.Random(0), 2, 20)
        >>> made == read(made.text), max(made.totals) <= 20
        (True, True)
    """
    start, steps = draw.randint(1, most), []
    total = start
    for _ in range(operations):
        sign, number = draw.choice(possible(total, most))
        steps.append((sign, number))
        total = applied(sign, total, number)
    return Problem(told(draw, start, steps), start, tuple(steps))


def possible(total: int, most: int) -> list[tuple[str, int]]:
    """Operations after which a number is still in 0 to ``most``: as many additions as subtractions
    where there are both, and a product now and then.

    Example:
        >>> sorted(set(possible(1, 2)))
        [('*', 2), ('+', 1), ('-', 1)]
    """
    up = [("+", number) for number in range(1, most - total + 1)]
    down = [("-", number) for number in range(1, total + 1)]
    times = [("*", number) for number in (2, 3) if 0 < total * number <= most]
    least = max(len(up), len(down))
    return [row for rows in (up, down, times) if rows for row in _filled(rows, least)]


def _filled(rows: list[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    return (rows * count)[: max(count, len(rows))]


def told(draw: random.Random, start: int, steps: Sequence[tuple[str, int]]) -> str:
    """A text that says what is done."""
    who, other = draw.sample(NAMES, 2)
    words = {"who": who, "thing": draw.choice(THINGS)}
    said = [draw.choice(_BEGINS).format(n=start, place=draw.choice(PLACES), **words)]
    for sign, number in steps:
        form = draw.choice(SENTENCES[sign])
        what = form.format(n=number, place=draw.choice(PLACES), other=other)
        said.append(f"{draw.choice(LINKS)} {who} {what}.")
    return " ".join([*said, draw.choice(_ENDS).format(**words)])


def read(text: str) -> Problem | None:
    """The problem that a text tells, whatever stands around it; None where there is none.

    Example:
        >>> read("In the zoo Ada has 3 keys. Then Ada gives 2 to Emil. How many?").steps
        (('-', 2),)
    """
    said = " ".join(text.split())
    start = _NUMBERS.search(said)
    found = [
        (match.start(), sign, int(match.group(1)))
        for sign, form in _READERS
        for match in form.finditer(said)
    ]
    if start is None or not found:
        return None
    steps = tuple((sign, number) for _, sign, number in sorted(found))
    return Problem(text, int(start.group()), steps)


def near_copy(draw: random.Random, text: str) -> str:
    """The same problem with a place or a link in another word.

    Example:
        >>> near_copy(random.Random(0), "In the zoo Ada has 3 keys.")
        'In the quarry Ada has 3 keys.'
    """
    links = [each for each in LINKS if each in text]
    if links and draw.random() < 0.3:
        old, words, form = draw.choice(links), LINKS, "{}"
    else:
        old = draw.choice([each for each in PLACES if f"the {each}" in text])
        words, form = PLACES, "the {}"
    new = draw.choice([each for each in words if form.format(each) not in text])
    return text.replace(form.format(old), form.format(new), 1)


def leaked(draw: random.Random, text: str) -> str:
    """A question of the test set as it turns up elsewhere: in other letters, with words around."""
    around = ("Solve this one: {}", "{} Show your work.", "A riddle for you. {} Can you tell?")
    said = draw.choice(around).format(text)
    return said.lower() if draw.random() < 0.3 else said


def many(draw: random.Random, count: int, operations: tuple[int, int], most: int) -> list[Problem]:
    """So many problems, no two of one text, each with a number of operations between two bounds.

    Raises:
        ValueError: for bounds out of order, and where there are not so many.

    Example:
        >>> [len(each.steps) for each in many(random.Random(0), 3, (2, 2), 9)]
        [2, 2, 2]
    """
    if operations[0] > operations[1]:
        raise ValueError(f"operations={tuple(operations)}: the fewest come first")
    found: dict[str, Problem] = {}
    for _ in range(10 * count):
        made = problem(draw, draw.randint(*operations), most)
        found.setdefault(made.text, made)
        if len(found) == count:
            break
    if len(found) < count:
        raise ValueError(f"there are no {count} different problems with most={most}")
    return list(found.values())


def thought(made: Problem, draw: random.Random, wrong: float) -> tuple[str, str]:
    """A problem solved one operation at a time, and the answer; with probability ``wrong`` one
    operation goes wrong, what follows builds on that, and so the answer is wrong.

    Example:
        >>> thought(Problem("", 3, (("+", 4), ("*", 2))), random.Random(0), 0.0)
        ('3+4=7. 7*2=14.', '14')
        >>> thought(Problem("", 3, (("+", 4), ("*", 2))), random.Random(0), 1.0)
        ('3+4=7. 7*2=11.', '11')
    """
    slip = draw.randrange(len(made.steps)) if draw.random() < wrong else None
    while True:
        lines, total = [], made.start
        for number, (sign, by) in enumerate(made.steps):
            found = applied(sign, total, by)
            if number == slip:
                found = slipped(draw, found)
            lines.append(f"{total}{sign}{by}={found}.")
            total = found
        if slip is None or total != made.answer:
            return " ".join(lines), str(total)
        slip = len(made.steps) - 1  # what came behind has hidden it


def slipped(draw: random.Random, right: int) -> int:
    """A number near another, not below 0.

    Example:
        >>> slipped(random.Random(0), 0)
        2
    """
    return draw.choice([right + by for by in (-3, -2, -1, 1, 2, 3) if right + by >= 0])
