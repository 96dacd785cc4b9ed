"""The world of word problems: what is told is what is read, and errors come at their rate."""

import itertools
import random
import re

import pytest

from jaxdistill.records.duplicates import near_duplicates
from jaxdistill.records.requests import Request
from jaxdistill.records.texts import jaccard, pieces
from jaxdistill.tasks import problems


def world(count=300, operations=(1, 4), most=20, seed=0):
    return problems.many(random.Random(seed), count, operations, most)


def test_every_problem_is_read_as_it_was_made():
    for each in world():
        assert problems.read(each.text) == each
        assert 1 <= len(each.steps) <= 4
        assert all(0 <= total <= 20 for total in (each.start, *each.totals))


def test_every_sentence_can_be_read():
    for sign, forms in problems.SENTENCES.items():
        for form in forms:
            said = form.format(n=3, place="zoo", other="Emil")
            found = problems.read(f"In the barn Ada has 2 keys. Then Ada {said}. How many?")
            assert found.steps == ((sign, 3),)
            assert found.start == 2


def test_it_depends_on_the_seed_alone():
    assert world(20) == world(20) != world(20, seed=1)


@pytest.mark.parametrize("wrong", [0.0, 0.3, 1.0])
def test_answers_are_wrong_at_the_rate_that_is_said(wrong):
    draw, made = random.Random(1), world(600)
    missed = 0
    for each in made:
        lines, answer = problems.thought(each, draw, wrong)
        missed += answer != str(each.answer)
        said = [line.rstrip(".").split("=") for line in lines.split()]
        assert len(said) == len(each.steps)
        assert said[-1][1] == answer
        # No more than one operation is wrong in itself, and what follows builds on it.
        slips = sum(value_of(left) != int(right) for left, right in said)
        assert slips == (answer != str(each.answer))
        for (_, before), (after, _) in itertools.pairwise(said):
            assert after.startswith(before)
    assert abs(missed / len(made) - wrong) < 0.06


def value_of(text):
    total, sign, by = re.fullmatch(r"(-?\d+)([-+*])(\d+)", text).groups()
    return problems.applied(sign, int(total), int(by))


def test_near_copies_are_near_and_other_problems_are_not():
    pytest.importorskip("datasketch")
    made, draw = world(400, (2, 3)), random.Random(2)
    copies = [problems.near_copy(draw, each.text) for each in made]
    for each, copy in zip(made, copies, strict=True):
        assert copy != each.text
        assert problems.read(copy).answer == each.answer
    near = [
        jaccard(pieces(each.text, 5, "characters"), pieces(copy, 5, "characters"))
        for each, copy in zip(made, copies, strict=True)
    ]
    assert sum(value >= 0.7 for value in near) > 0.9 * len(near)
    asked = sorted((Request.of(each.text) for each in made), key=lambda each: each.id)
    assert all(each.keep for each in near_duplicates(asked, 0))


def test_what_leaked_still_tells_the_problem():
    draw = random.Random(3)
    for each in world(50, (2, 3)):
        said = problems.leaked(draw, each.text)
        assert said != each.text
        assert problems.read(said).answer == each.answer


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="the fewest come first"):
        problems.many(random.Random(0), 1, (3, 2), 9)
    assert problems.read("What is the capital of France in 1990?") is None
    assert problems.read("no number") is None
