"""What reports say first of every system: from what into what."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxdistill import config_files, headline, main, recipe, students
from jaxdistill.overrides import smoke
from jaxdistill.presets.images import accuracy, classifier
from jaxdistill.recipe.resolving import resolve
from jaxdistill.training.costs import costs

ROOT = Path(__file__).parents[1]
# For every config the stages that it learns from, its student, and what becomes of that. Small data
# sets learn from none, nor does a fit that learns from itself.
FROM_WHAT_INTO_WHAT = {
    "bert_distil": ("first second", "distil", ""),
    "cached_soft_targets": ("teacher", "distil", ""),
    "capacity_gap": ("teacher", "student", ""),
    "datadam": ("", "distil", ""),
    "datm": ("", "distil", ""),
    "dc": ("", "distil", ""),
    "ddk": ("teacher", "distil", ""),
    "dialogue_localisation": ("write", "learn", ""),
    "distill_weighted": ("far near shuffled", "distil", ""),
    "distillspec": ("target", "distil", ""),
    "dm": ("", "distil", ""),
    "boot": ("teacher", "student", ""),
    "dmd": ("teacher", "student", ""),
    "dmd2": ("teacher", "student", ""),
    "ftd": ("", "distil", ""),
    "frontier_llm": ("write", "learn", ""),
    "guidance": ("teacher", "student", ""),
    "hinton_mnist": ("teacher", "distilled", ""),
    "hyper_sd": ("teacher", "student", ""),
    "ict": ("teacher", "student", ""),
    "jumps": ("teacher", "student", ""),
    "judge": ("write", "learn", ""),
    "kip": ("", "distil", ""),
    "lcm_lora": ("teacher", "student", ""),
    "lora_guidance": ("teacher", "student", ""),
    "mae_vitb": ("teacher", "distil", "finetune"),
    "meal_v2": ("deep residual wide", "distil", ""),
    "mtt": ("", "distil", ""),
    "own_images": ("teacher", "distil", "finetune"),
    "own_text": ("teacher", "distil", ""),
    "reasoning_traces": ("write", "learn", ""),
    "sana_sprint": ("teacher", "student", ""),
    "scm": ("teacher", "student", ""),
    "self_distill_deep": ("first", "guided", ""),
    "self_distill_kernel": ("", "best", ""),
    "ssld": ("teacher", "distil", ""),
}


@pytest.mark.parametrize("name", FROM_WHAT_INTO_WHAT)
def test_teachers_and_student_of_a_system(name):
    plan = resolve(config_files.load(f"{ROOT}/configs/{name}.py:small"))
    student = headline.student_of(plan)
    teachers = headline.teachers_of(plan, student)
    after = headline.after(plan, student)
    found = (" ".join(p.name for p in teachers), student.name, " ".join(p.name for p in after))
    assert found == FROM_WHAT_INTO_WHAT[name]


def test_new_systems_say_it_as_well():
    """A system that is not listed must at least have a student."""
    for path in (ROOT / "configs").glob("*.py"):
        if path.stem not in FROM_WHAT_INTO_WHAT and "small" in path.read_text():
            plan = resolve(config_files.load(f"{path}:small"))
            assert headline.student_of(plan).name in plan.config["recipe"]


TINY = {"net": "mlp", "widths": (4,)}


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """What is said of a student that is measured before it has learnt anything, how often nets were
    measured, and its working directory."""
    measured = {"probe": {"evaluator": "classification", "sets": ("validation",), "teacher": True}}
    learns = {
        "student": TINY,
        "targets": {"kind": "live", "stage": "teacher"},
        "objective": {"kd": {"loss": "hinton_kd"}},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "evaluate": {"accuracy": accuracy(sets=("validation",))},
    }
    teacher = {**classifier({**TINY, "widths": (8,)}, steps=2), "evaluate": {}}
    stages = {
        "teacher": teacher,
        "start": {**learns, "steps": 0, "evaluate": measured},
        "distil": {**learns, "steps": 2, "initial": {"stage": "start"}},
        "finetune": {**classifier(TINY, steps=2), "initial": {"stage": "distil"}},
    }
    config = {
        "data": {"name": "digits", "validation": 0.1, "test": 0.2},
        "recipe": tuple(stages),
        "stages": stages,
    }
    root = tmp_path_factory.mktemp("started")
    times = []

    def counted(*args):
        times.append(args)
        return costs(*args)

    with pytest.MonkeyPatch.context() as patch:
        for module in (recipe.student, students.saving):
            patch.setattr(module, "costs", counted)
        main.run(smoke(config), str(root), quiet=True)
    return json.loads((root / "report.json").read_text())["answer"], len(times), root


def test_what_is_measured_before_it_learns_is_not_the_student(started):
    rows = started[0]["rows"]
    assert [(row["name"], row["role"]) for row in rows] == [
        ("teacher", "teacher"),
        ("start", "student at first"),
        ("distil", "student"),
        ("finetune", "from the student"),
    ]
    assert started[0]["into"]["name"] == "distil"
    # It is the stage before that has measured the teacher.
    assert "validation/accuracy" in rows[0]["values"]


@pytest.mark.parametrize("part", ["validation", "test"])
def test_teacher_and_student_are_compared_on_one_set(part):
    """That of the claim, if the teacher was measured on it."""
    own = {"test/probe_accuracy": 0.4, "validation/probe_accuracy": 0.6}
    theirs = {name: 0.5 for name in own if part == "test" or name.startswith(part)}
    rows = [
        {"name": "teacher", "role": "teacher", "values": theirs},
        {"name": "distil", "role": "student", "values": own},
    ]
    plan = SimpleNamespace(config={"claim": {"metric": "distil/test/probe_accuracy"}})
    found = headline._metrics(plan, SimpleNamespace(name="distil"), rows)
    assert found == [f"{part}/probe_accuracy"]


def test_report_and_card_say_what_was_measured_once(started):
    answer, times, root = started
    assert times == 2  # the teacher, and a student whose form stays
    said = json.loads((root / "student" / "config.json").read_text())["jaxdistill"]["costs"]
    assert said["student"]["seconds"] == answer["rows"][-1]["seconds"]
    assert said["teacher"]["seconds"] == answer["rows"][0]["seconds"]


@pytest.mark.parametrize(
    ("student", "words"),
    [
        ({"net": "published", "path": "a/llama", "changes": {"depth": 2, "remat": True}},
         "llama, depth 2"),
        ({"net": "published", "path": "owner/name"}, "owner/name"),
        ({"net": "mlp", "widths": (4,)}, "mlp"),
    ],
)  # fmt: skip
def test_a_student_is_called_by_what_it_is(student, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    settings = {"checkpoint": "", "student": student}
    assert headline.described(SimpleNamespace(kind="net", settings=settings)) == words


def test_published_weights_are_called_by_their_name():
    stage = SimpleNamespace(kind="net", settings={"checkpoint": "owner/name", "student": None})
    assert headline.described(stage) == "owner/name"


def test_a_fit_that_learns_from_itself_is_compared_with_its_first(tmp_path):
    config = config_files.load(f"{ROOT}/configs/self_distill_kernel.py:small")
    config["recipe"] = ("guided",)
    config["stages"]["guided"]["steps"] = 3
    config["stages"]["guided"]["pictures"] = ()
    main.run(config, str(tmp_path), quiet=True)
    answer = json.loads((tmp_path / "report.json").read_text())["answer"]
    first, last = answer["rows"]
    assert (first["role"], last["role"]) == ("teacher", "student")
    assert first["name"] == "first fit"
    metric = "validation/squared_error"
    assert metric in answer["metrics"]
    assert 0 < last["values"][metric] != first["values"][metric]
    assert first["operations"] == last["operations"] > 0
