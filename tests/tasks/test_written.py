"""Stages that write and learn: from requests through a teacher and steps to a student."""

import json
import random
import shutil

import numpy as np
import pytest

from jaxdistill import recipe, registry
from jaxdistill.language.answering import said
from jaxdistill.presets import recipe as whole
from jaxdistill.presets import written as presets
from jaxdistill.records import Decision, Request, open_written
from jaxdistill.records.canonical import line
from jaxdistill.registry import record_steps, tasks
from jaxdistill.settings import Count, Share


def sums(*, count: Count = 200, held_out: Share = 0.25) -> list[Request]:
    """Sums of two digits, in their order."""
    pairs = [(a, b) for a in range(10) for b in range(10)] * -(-count // 100)
    return [
        Request.of(
            f"What is {a} plus {b}?",
            source=f"sums/{number}",
            reference=str(a + b),
            task="sums" if number % 2 else "more sums",
            split="test" if number < held_out * count else "train",
        )
        for number, (a, b) in enumerate(pairs[:count])
    ]


def adder(question, *, errors: Share = 0.0) -> str:
    """Adds, or is one too high."""
    first, second = (int(w) for w in question.messages[-1].content[:-1].split() if w.isdigit())
    return str(first + second + (random.Random(question.seed).random() < errors))


def right(records, seed):
    return [Decision(r, r.answer == r.reference, reason="wrong") for r in records]


@pytest.fixture(autouse=True)
def names(monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "sums", tasks.plain(sums))
    monkeypatch.setitem(tasks.SCRIPTS, "adder", tasks.settled(adder))
    monkeypatch.setitem(record_steps.STEPS, "right", record_steps._plain(right))


def config(errors=0.0, after=(), **learn):
    return whole(
        "Sums",
        "",
        presets.requests("sums", 16, words=300),
        {
            "write": presets.writing({"adder": presets.script("adder", errors=errors)}, after),
            "learn": presets.from_records(
                "write",
                {"answers": presets.answers("exact", 4, sets=("test",))},
                **{
                    "steps": 2,
                    "student": {"net": "decoder", "width": 8, "depth": 1, "heads": 2},
                    **learn,
                },
            ),
        },
    )


def test_a_student_learns_what_the_steps_leave(tmp_path):
    made = recipe.plan(config(0.3, ({"step": "right"},)))
    assert made.stage("write").kind == "records"
    assert made.stage("write").metrics == ("records/asked", "records/kept")
    assert made.stage("learn").metrics == ("test/accuracy",)
    outcomes = recipe.run(made, tmp_path, quiet=True)
    numbers = outcomes["write"].values
    folder = next(tmp_path.glob("stages/write-*/records"))
    found = open_written(folder)
    assert numbers == {"records/asked": 150.0, "records/kept": float(len(found))}
    assert 60 < len(found) < 150
    assert all(each.answer == each.reference for each in found.records())
    assert {each.provenance.teacher for each in found.records()} == {"adder"}
    # Windows are those of the records, tasks numbered as in the whole data set.
    windows = outcomes["write"].result
    assert len(windows["tokens"]) == len(found)
    assert set(windows["task"][:, 0].tolist()) == {0, 1}
    assert 0 <= outcomes["learn"].values["test/accuracy"] <= 1


def test_a_run_that_was_killed_before_it_had_written_asks_nobody_again(tmp_path, monkeypatch):
    made = config()
    first = recipe.run(recipe.plan(made), tmp_path, stages=["write"], quiet=True)["write"]
    stage = next(tmp_path.glob("stages/write-*"))
    manifest = json.loads((stage / "records" / "manifest.json").read_text())
    for folder in ("records", "result"):
        shutil.rmtree(stage / folder)

    def nobody(question, *, errors: Share = 0.0) -> str:
        raise AssertionError("this was answered before")

    monkeypatch.setitem(tasks.SCRIPTS, "adder", tasks.settled(nobody))
    again = recipe.run(recipe.plan(made), tmp_path, stages=["write"], quiet=True)["write"]
    assert json.loads((stage / "records" / "manifest.json").read_text()) == manifest
    for name, column in first.result.items():
        np.testing.assert_array_equal(again.result[name], column)


def test_right_answers_are_read_from_the_windows_as_they_were_given():
    sets = registry.data(config()["data"])
    info = sets["test"].info
    chat, first = info["chat"], sets["test"].gather(range(3))
    for row, name in zip(range(3), sets["test"].ids, strict=False):
        tokens = first["label"][row][first["counted"][row]].tolist()
        assert said(chat, tokens) == info["requests"][name].reference


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["data"].update(path="a.jsonl"), ["one of 'task' and a file of requests"]),
        (lambda c: c["data"]["task"].update(task="sumz"), ["unknown task 'sumz'", "'sums'"]),
        (
            lambda c: c["data"]["task"].update(held_out=1.0),
            ["no request of 'sums' is of the split 'train'"],
        ),
        (
            lambda c: c["stages"]["write"]["work"].update(teachers={}),
            ["'teachers' of work 'written' names nobody"],
        ),
        (
            lambda c: c["stages"]["write"]["work"].update(teachers={"d": {"teacher": "decodr"}}),
            ["unknown teacher of records 'decodr'", "did you mean 'decoder'"],
        ),
        (
            lambda c: c["stages"]["write"]["work"].update(
                teachers={"d": {"teacher": "decoder", "length": 32}}
            ),
            ["name it by 'decoder'"],
        ),
        (
            lambda c: c["stages"]["write"]["work"].update(after=({"step": "voted"},) * 2),
            ["'voted'", "needs"],
        ),
        (
            lambda c: c["stages"]["learn"]["evaluate"]["answers"].update(score={"score": "exat"}),
            ["unknown score of answers 'exat'", "did you mean 'exact'"],
        ),
        (
            lambda c: c.update(data={"name": "standard_library", "length": 16, "modules": 30}),
            ["'written' asks the requests of the data set 'requests'"],
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anybody_is_asked(change, words):
    made = config()
    change(made)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        recipe.plan(made)
    for word in words:
        assert word in str(refusal.value)


def test_requests_of_a_file_are_those_of_the_task(tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(line(each) for each in sums()))
    part = config()["data"]
    own = {key: value for key, value in part.items() if key != "task"}
    found = registry.data({**own, "path": str(path)})
    assert found["train"].fingerprint() == registry.data(part)["train"].fingerprint()
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    rows[0]["reference"] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="sums/0 is held out: it needs the right answer"):
        registry.data({**own, "path": str(path)})


def test_a_decoder_of_an_earlier_stage_writes(tmp_path):
    made = config(steps=0)
    net = {"net": "decoder", "width": 8, "depth": 1, "heads": 2}
    made["stages"]["teacher"] = {
        "student": net,
        "distiller": {"name": "language_model"},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "steps": 1,
        "batch_size": 8,
    }
    work = made["stages"]["write"]["work"]
    work |= {"decoder": "teacher", "teachers": {"own": {"teacher": "decoder", "length": 600}}}
    made["recipe"] = ("teacher", "write")
    found = recipe.run(recipe.plan(made), tmp_path, quiet=True)["write"].values
    assert found["records/asked"] == 150
