"""Grades: the world and its script, how grades are read and compared, bad input."""

import collections
import json
import math
import random

import pytest
from records.made import golden
from scipy.stats import kendalltau, spearmanr

from jaxdistill.records import scripted
from jaxdistill.records.reading import last_score
from jaxdistill.tasks import gradings as tasks
from jaxdistill.tasks.answered import Answered

FORMS = ("parts", "numbers", "overall")


def answers(requests, **settings):
    teacher = scripted(lambda q: tasks.grader(q, **settings), name="grader", revision="1")
    return [next(iter(teacher.answer(each.questions()))).text for each in requests]


def test_gaps_are_filled_as_in_t2i_eval():
    for given, mean, zero in golden("scores_t2i_eval")["fill_na"]:
        assert tasks.filled(given) == pytest.approx(mean, abs=1e-12)
        assert tasks.filled(given, "zero") == zero
    assert tasks.filled([math.nan, 2.0, math.inf]) == [2.0, 2.0, 2.0]
    assert tasks.filled(["N/A", None]) == [0.0, 0.0]


def test_parts_of_a_grade_are_what_the_whole_is_made_of():
    for number in range(200):
        scene = tasks.drawn(random.Random(number))
        said = tasks.graded(scene)
        parts = dict(part.split(": ", 1) for part in said.split(". ")[1:])
        grades = {name: [int(x.split()[-1]) for x in parts[name].split(", ")] for name in parts}
        means = [sum(grades[name]) / len(grades[name]) for name in ("Look", "Kind", "Place")]
        assert last_score(said) == math.floor(sum(means) / 3 + 0.5)
        # All forms agree about the whole, and about every part that they have.
        assert last_score(tasks.graded(scene, "overall")) == last_score(said)
        numbers = tasks.graded(scene, "numbers")
        assert [
            int(x) for x in numbers.replace(",", "").replace(".", "").split() if x.isdigit()
        ] == [each for part in grades.values() for each in part]


def test_a_picture_is_graded_by_what_it_shows():
    star, moon = tasks.Thing("star", "red", "clean", 2), tasks.Thing("moon", "blue", "clean", 4)
    scene = tasks.Scene((("red", "star"), ("blue", "moon")), "left", (moon, star))
    assert last_score(tasks.graded(scene)) == 10
    swapped = scene._replace(things=(star._replace(place=5), moon))
    assert tasks.graded(swapped, "numbers") == "Look: 10, 10. Kind: 10, 10. Place: 1. Overall: 7"
    near = scene._replace(things=(star._replace(colour="yellow"), moon._replace(colour="red")))
    assert tasks.graded(near, "numbers") == "Look: 10, 10. Kind: 5, 1. Place: 10. Overall: 8"
    gone = scene._replace(things=(moon,))
    assert tasks.graded(gone, "numbers") == "Look: 0, 10. Kind: 0, 10. Place: 0. Overall: 3"


def test_the_world_is_a_function_of_its_seed_and_mostly_good():
    one, again, other = (tasks.gradings(count=50, held_out=300, seed=s) for s in (1, 1, 2))
    assert [r.id for r in one] == [r.id for r in again]
    assert len({r.messages for r in one}) == len(one)
    assert len({r.messages for r in one} & {r.messages for r in other}) < 20
    assert collections.Counter(r.split for r in one) == {
        "train": 50,
        "validation": 300,
        "test": 300,
    }
    assert all((r.reference is None) == (r.split == "train") for r in one)
    often = collections.Counter(last_score(r.reference) for r in one if r.reference)
    assert often[9.0] + often[10.0] > 300 > 30 > often[4.0] + often[5.0]


@pytest.mark.parametrize("form", FORMS)
def test_a_judge_errs_as_often_as_it_is_told_to(form):
    requests = tasks.gradings(count=1, held_out=300, form=form)[:-1]
    assert answers(requests, error=0.0) == [r.reference for r in requests]
    said = answers(requests, error=0.3, silent=0.2)
    assert said == answers(requests, error=0.3, silent=0.2)
    silent = [last_score(each) is None for each in said]
    assert 0.15 < sum(silent) / len(said) < 0.25
    wrong = sum(each != r.reference for each, r in zip(said, requests, strict=True))
    assert wrong > 200 if form == "parts" else wrong > 100


def test_a_judge_knows_only_its_world():
    request = tasks.gradings(count=1, held_out=1)[0]
    other = type(request).of("Caption: a cat", system=request.messages[0].content)
    with pytest.raises(ValueError, match="the grader knows nothing of 'Caption: a cat'"):
        answers([other])


def test_agreement_is_that_of_scipy_with_its_coverage():
    draw = random.Random(0)
    right = [draw.randint(0, 10) for _ in range(60)]
    said = [str(max(0, each + draw.choice((-2, 0, 1)))) for each in right]
    said[3], said[4] = "Overall: N/A", "nothing"
    found = tasks.rank_agreement(
        [Answered("", a, str(r)) for a, r in zip(said, right, strict=True)]
    )
    numbers = tasks.filled([last_score(each) for each in said])
    assert found["spearman"] == pytest.approx(spearmanr(numbers, right).statistic)
    assert found["kendall"] == pytest.approx(kendalltau(numbers, right).statistic)
    assert found["coverage"] == pytest.approx(58 / 60)
    by_zero = [Answered("", a, str(r)) for a, r in zip(said, right, strict=True)]
    assert tasks.rank_agreement(by_zero, fill="zero")["error"] > found["error"]


def test_errors_of_rare_grades_are_told_apart():
    common = [Answered("", "9", "9")] * 95
    rare = [Answered("", "9", "2")] * 4 + [Answered("", "5", "7.5")]
    found = tasks.rank_agreement([*common, *rare])
    assert found["rare_error"] == pytest.approx((4 * 7 + 2.5) / 5)
    assert found["error"] == pytest.approx((4 * 7 + 2.5) / 100)


def test_grades_that_tell_nothing_apart_do_not_agree():
    found = tasks.rank_agreement([Answered("", "?", "1"), Answered("", "no", "9")])
    assert found == {
        "spearman": 0.0, "kendall": 0.0, "coverage": 0.0, "error": 5.0, "rare_error": 5.0
    }  # fmt: skip
    assert set(found) == set(tasks.rank_agreement.metrics)
    with pytest.raises(ValueError, match="no grade in the reference 'good'"):
        tasks.rank_agreement([Answered("", "1", "good")])


def test_pictures_of_a_file(tmp_path):
    file = tmp_path / "pictures.jsonl"
    rows = [
        {"caption": "a cat", "picture": "A cat sleeps."},
        {"caption": "two dogs", "picture": "One dog.", "split": "test", "grade": 3.5},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, test = tasks.gradings_of_file(path=str(file), form="overall")
    assert train.prompt[0].content == "Caption: a cat\nPicture: A cat sleeps."
    assert (train.reference, test.reference, test.split) == (None, "Overall: 3.5", "test")
    assert train.messages[0].content == tasks.ASKED["overall"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"caption": "a cat"}, "no text under 'picture'"),
        ({"caption": "a", "picture": "b", "split": "test"}, "'grade' is None"),
        ({"caption": "a", "picture": "b", "split": "test", "grade": "nan"}, "'grade' is 'nan'"),
        ({"caption": "a", "picture": "b", "split": "test", "grade": 11}, "from 0 to 10"),
        ({"caption": "a", "picture": "b", "split": "test", "grade": True}, "'grade' is True"),
    ],
)
def test_a_file_that_is_not_right_names_its_line(tmp_path, row, message):
    file = tmp_path / "pictures.jsonl"
    file.write_text(json.dumps({"caption": "a", "picture": "b"}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=f"line 2 of .*{message}"):
        tasks.gradings_of_file(path=str(file))


def test_a_file_must_be_named():
    with pytest.raises(ValueError, match="grading needs pictures"):
        tasks.gradings_of_file(path="")
