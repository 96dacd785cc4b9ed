"""Long prompts for teachers, short ones for students: what is asked, read and counted."""

import json

import pytest

from jaxdistill import records
from jaxdistill.records.requests import Request
from jaxdistill.tasks import frontier
from jaxdistill.tasks.answered import Answered


def teacher(function, **settings):
    return records.scripted(
        lambda question: function(question, **settings), name="script", revision="1"
    )


def train(made):
    return [each for each in made if each.split == "train"]


@pytest.mark.parametrize("how", ["steps", "alone"])
def test_a_teacher_obeys_its_prompt_and_the_student_never_sees_it(how, tmp_path):
    asked = train(frontier.worked(how=how, count=20))
    written = records.write(asked, teacher(frontier.solver), tmp_path / "set")
    for each in written.records():
        assert [m.role for m in each.messages] == ["user", "assistant"]
        assert [m.role for m in each.asked] == ["system", "user"]
        assert frontier.extracted(each.raw, "strict") == each.reference
        assert ("=" in each.raw) == (how == "steps")
    assert len(written) == 20


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("2+3=5. The answer is 5.", "5", "5"),
        ("2+3=5. The answer is 5", None, "5"),
        ("So it is 5.", None, "5"),
        ("The answer is 4. No, wait. The answer is 5.", None, "5"),
        ("The answer is 5. I am sure.", None, "5"),
        ("The answer is $1,250.50.", "$1,250.50", "1250.50"),
        ("No idea.", None, None),
        ("", None, None),
    ],
)
def test_what_is_extracted(text, strict, lenient):
    assert frontier.extracted(text, "strict") == strict
    assert frontier.extracted(text, "lenient") == lenient


def test_what_cannot_be_extracted_counts_as_wrong_and_not_as_covered():
    right = "The answer is 5."
    answers = [Answered("", said, right) for said in (right, "It is 5.", "It is 6.", "None.")]
    assert frontier.numbers(answers) == {
        "strict": 0.25,
        "strict_coverage": 0.25,
        "lenient": 0.5,
        "lenient_coverage": 0.75,
    }


def test_the_teachers_own_labels_are_wrong_at_its_rate():
    made = frontier.worked(count=1, validation=500, test=50, taught=0.3, operations=(1, 1))
    right = [
        frontier.extracted(each.reference, "strict")
        == frontier.extracted(frontier.solver(each.questions()[0]), "strict")
        for each in made
        if each.split == "validation"
    ]
    assert abs(sum(right) / len(right) - 0.7) < 0.06
    for each in made:
        if each.split == "test":
            assert each.reference == frontier.solver(each.questions()[0])


@pytest.mark.parametrize("unmarked", [0.0, 0.5])
def test_answers_of_another_form_come_at_their_rate(unmarked):
    asked = train(frontier.worked(count=400, how="alone"))
    said = [frontier.solver(each.questions()[0], unmarked=unmarked) for each in asked]
    strict = [frontier.extracted(each, "strict") for each in said]
    assert abs(sum(each is None for each in strict) / 400 - unmarked) < 0.08
    lenient = [frontier.extracted(each, "lenient") for each in said]
    assert lenient == [each.reference for each in asked]


@pytest.mark.parametrize(("which", "share"), [("first", 0.2), ("last", 1.0)])
def test_a_student_learns_one_summary_of_the_chain(which, share, tmp_path):
    asked = train(frontier.reports(count=10, facts=5))
    step = records.step(frontier.read_summary, which=which)
    written = records.write(asked, teacher(frontier.summariser), tmp_path / "set", after=[step])
    answers = []
    for each in written.records():
        names = frontier._ENTITY.findall(each.messages[0].content)
        assert each.messages[-1].content == each.answer
        assert each.messages[-1].learn
        assert json.loads(each.raw)[0]["Denser_Summary"]
        answers.append(Answered("", each.answer, frontier.dense_summary(names, 5)))
    found = frontier.density(answers)
    assert found["entities"] == pytest.approx(share)
    assert found["words"] == 12


@pytest.mark.parametrize(
    "text",
    ["", "no list", "[1, 2]", '[{"Denser_Summary": 3}]', '[{"Denser": "a"}]', "[" * 99999, "[]"],
)
def test_a_chain_that_cannot_be_read_is_none(text):
    assert not frontier.summaries(text)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"way to ask 'step'.*'steps'"):
        frontier.request("2 + 3?", "step")
    with pytest.raises(ValueError, match="there are 40 names"):
        frontier.reports(facts=41)
    assert frontier.solver(Request.of("Who?").questions()[0]) == "There is nothing to calculate."
