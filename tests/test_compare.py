"""Runs side by side: what differs is found, what is alike is left out, half a run is read too."""

import re
import sys

import pytest
from absl.testing import flagsaver

from jaxdistill import cli, compare
from jaxdistill._files import Damaged, write_json, write_sealed
from jaxdistill.training.metrics import as_text


def config(**changes):
    student = {"steps": 40, "optimizer": {"name": "sgd", "learning_rate": 0.1}, **changes}
    return {
        "title": "A run",
        "seed": 0,
        "recipe": ["teacher", "student"],
        "claim": {"metric": str(changes)},
        "stages": {"teacher": {"steps": 40}, "student": student},
    }


def lines(loss):
    """The metrics of a stage whose loss starts at a value."""
    train = [{"step": s, "kind": "train", "loss": loss / s} for s in (10, 20, 40)]
    test = {"step": 40, "kind": "evaluation", "test/accuracy": 1 - loss / 10}
    return [{"step": 0, "kind": "teacher", "teacher:test/accuracy": 0.9}, *train, test]


@pytest.fixture
def run(tmp_path):
    """Writes a working directory, of a finished run or of one that was stopped."""

    def write(name, config, stages, finished=True):
        root = tmp_path / name
        root.mkdir(parents=True)
        write_sealed(root / "config.json", config)
        for stage, written in stages.items():
            folder = root / "stages" / f"{stage}-0123456789abcdef"
            folder.mkdir(parents=True)
            (folder / "metrics.jsonl").write_text(as_text(written))
        if finished:
            environment = {"devices": "1 × cpu", "jaxdistill": "0.2.0", "jax": "0.10.2"}
            report = {"stages": [{"seconds": 2.0}, {"seconds": 3.0}], "environment": environment}
            write_json(root / "report.json", report)
        return root

    return write


@pytest.fixture
def runs(run):
    one = run("one", config(), {"teacher": lines(1.0), "student": lines(2.0)})
    other = {"optimizer": {"name": "adam"}, "view": {"mask": 0.5}}
    two = run("two", config(**other), {"teacher": lines(1.0), "student": lines(3.0)})
    half = run("half", config(), {"teacher": lines(1.0), "student": lines(2.5)[:3]}, finished=False)
    return [one, two, half]


def test_settings_that_differ_and_no_others(runs):
    found = compare.settings_that_differ([compare.read(root) for root in runs])
    assert found == {
        "stages.student.optimizer.name": ["sgd", "adam", "sgd"],
        "stages.student.optimizer.learning_rate": ["0.1", "–", "0.1"],
        "stages.student.view": ["–", '{"mask": 0.5}', "–"],
    }


def test_last_values_and_curves(runs):
    read = [compare.read(root) for root in runs]
    values = compare.last_values(read)
    assert list(values["student"]) == ["test/accuracy", "training loss"]
    assert values["student"]["test/accuracy"] == pytest.approx([0.8, 0.7, None])
    assert values["student"]["training loss"] == pytest.approx([0.05, 0.075, 0.125])
    (charts,) = [charts for stage, charts in compare.curves(read).items() if stage == "student"]
    assert list(charts) == ["training loss"]
    assert [series.label for series in charts["training loss"]] == ["one", "two", "half"]
    assert charts["training loss"][1].y == pytest.approx((0.3, 0.15, 0.075))


def test_tables_and_the_page(runs):
    read = [compare.read(root) for root in runs]
    said = compare.text(read)
    assert re.search(r"^  state +finished +finished +student, step 20 of 40$", said, re.M)
    assert re.search(r"^  test/accuracy ↑ +0.8000\* +0.7000 +–$", said, re.M)
    assert "Last values of teacher\n  the same in all runs" in said
    page = compare.page(read)
    for words in (
        "<b>0.8000</b>",
        "accuracy, test",
        "adam",
        "half",
        "step 20 of 40",
        "the same in all runs",
    ):
        assert words in page
    assert page.count("<svg") == 1  # the loss of the student; the teachers are alike
    assert "http" not in page


def test_the_command_writes_one_page(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    words = ["compare", *map(str, runs), f"--out={tmp_path / 'x.html'}"]
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
        cli.run(words)
    assert ended.value.code == 0
    assert "<svg" in (tmp_path / "x.html").read_text()
    assert capsys.readouterr().out.endswith("x.html\n")


def test_what_cannot_be_compared(run, runs, tmp_path):
    with pytest.raises(ValueError, match=r"no working directory of a run: it has no config.json"):
        compare.read(tmp_path)
    claim = run("claim", config(), {"teacher": lines(1.0)})
    (claim / "stages" / "teacher-fedcba9876543210").mkdir()
    with pytest.raises(ValueError, match="many runs in one"):
        compare.read(claim)
    with pytest.raises(ValueError, match="which runs"):
        compare._compare([str(runs[0])])
    with pytest.raises(ValueError, match="given twice"):
        compare._compare([str(runs[0]), f"{runs[0]}/../one"])
    (runs[0] / "config.json").write_text("{}")
    with pytest.raises(Damaged, match=r"config.json is damaged"):
        compare.read(runs[0])


def test_a_value_that_is_not_finite(run):
    bad = [{"step": 10, "kind": "train", "loss": float("nan")}]
    roots = [run("a", config(), {"student": bad}), run("b", config(), {"student": lines(1.0)})]
    assert re.search(
        r"training loss ↓ +nan +0.0250$", compare.text([compare.read(r) for r in roots]), re.M
    )
