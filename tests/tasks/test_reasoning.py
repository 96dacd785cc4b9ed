"""Traces: what is planted is found, what is right stays, and the measure says so."""

import pytest

from jaxdistill import records, registry
from jaxdistill.presets import written as presets
from jaxdistill.records import contamination, duplicates, mathematics, reading
from jaxdistill.records.steps import Decision
from jaxdistill.registry.context import Context
from jaxdistill.registry.record_steps import steps
from jaxdistill.tasks import reasoning
from jaxdistill.tasks.answered import Answered


def teacher(**settings):
    return records.scripted(
        lambda question: reasoning.thinker(question, **settings), name="script", revision="1"
    )


def train(**settings):
    made = reasoning.traces(**{"count": 100, "validation": 2, "test": 30, **settings})
    return [each for each in made if each.split == "train"], made


def written(folder, asked, before=(), after=(), **script):
    found = records.write(asked, teacher(**script), folder, before=before, after=after)
    return reasoning.planted(found, {each.id: each for each in asked})


def test_planted_faults_are_found(tmp_path):
    pytest.importorskip("datasketch")
    pytest.importorskip("math_verify")
    asked, made = train(samples=2)
    tests = [each.messages[-1].content for each in made if each.split == "test"]
    leaks = records.step(contamination.decontaminated, against=tests)
    before = [
        records.step(duplicates.exact_duplicates),
        records.step(duplicates.near_duplicates),
        leaks,
    ]
    after = [
        records.step(reading.read_tags),
        records.step(mathematics.verified_mathematics, workers=1),
        leaks,
    ]
    found = written(tmp_path / "set", asked, before, after, wrong=0.4, untagged=0.1)
    assert found["precision"] == found["complete"] == 1
    assert found["copies_found"] == 1
    assert found["near_copies_found"] >= 0.9
    assert found["leaks_gone"] == 1


def test_the_measure_sees_what_was_missed(tmp_path):
    asked, _ = train()
    raw = written(tmp_path / "raw", asked, wrong=0.4, untagged=0.2)
    assert raw["complete"] == 1
    assert abs(raw["precision"] - 0.6 * 0.8) < 0.1
    assert raw["copies_found"] == raw["near_copies_found"] == 0
    assert raw["leaks_gone"] == 0

    def every_second(items, seed):
        return [Decision(each, n % 2 == 0, reason="second") for n, each in enumerate(items)]

    half = written(tmp_path / "half", asked, after=[records.step(every_second)])
    assert half["precision"] == 1
    assert abs(half["complete"] - 0.5) < 0.1

    # A problem about which nobody was asked is lost, even if nothing right was dropped.
    def unasked(items, seed):
        return [Decision(each, each.meta["of"] >= 50, reason="unasked") for each in items]

    half = records.step(unasked)
    half = half._replace(facts=half.facts._replace(requests=True))
    found = written(tmp_path / "unasked", asked, before=[half])
    assert found["precision"] == 1
    assert 0.4 < found["complete"] < 0.65


def test_a_teacher_is_asked_for_tags_and_a_student_is_not():
    asked, made = train()
    assert all(each.messages[0].content == reasoning.ASKED for each in made)
    assert all(len(each.conversation) == 1 for each in made)
    assert len({each.id for each in made}) == len(made)
    counts = [sum(e.meta["kind"] == kind for e in asked) for kind in reasoning.KINDS]
    assert counts == [100, 15, 15, 20]


@pytest.mark.parametrize(
    "text", ["7", "<think>a</think>7", "<answer>7</answer>", "<think>a<answer>7</answer>"]
)
def test_an_answer_without_its_tags_is_none(text):
    assert reasoning.part(text) is None
    found = reasoning.solved([Answered("", text, "<think>a</think><answer>7</answer>")])
    assert found == {"accuracy": 0, "coverage": 0}


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="the test set has only 3"):
        reasoning.traces(count=10, test=3, leaks=4)
    assert "none" in reasoning.thinker(records.Request.of("Who are you?").questions()[0])


def data(seed=0, **settings):
    world = {"count": 30, "test": 8, "validation": 4, "leaks": 3, **settings}
    return registry.data(presets.requests("traces", 128, **world), seed)


def test_every_run_has_a_world_of_its_own():
    one, same, other = (data(seed)["train"].info["requests"].keys() for seed in (0, 0, 1))
    assert one == same
    assert not one & other


def test_the_test_set_of_the_data_is_kept_out():
    sets = data()
    context = Context(sets=sets)
    (found,) = steps([{"step": "decontaminated", "against": {"sets": ("test",)}}], context)
    asked = list(sets["train"].info["requests"].values())
    gone = {d.record.meta["kind"] for d in found.run(asked, 0) if not d.keep}
    assert gone == {"leak"}
    with pytest.raises(ValueError, match="set of 'against' 'tests': did you mean 'test'"):
        steps([{"step": "decontaminated", "against": {"sets": ("tests",)}}], context)
    plain = registry.data({"name": "digits", "validation": 0.1, "test": 0.2})
    with pytest.raises(ValueError, match="has no requests"):
        steps([{"step": "unlike", "against": {"sets": ("test",)}}], Context(sets=plain))
    (short,) = steps([{"step": "decontaminated", "against": ["a b c"], "n": 2}], context)
    assert short.settings["against"] == ["a b c"]
