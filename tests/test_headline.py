"""What reports say first of every system: from what into what."""

from pathlib import Path

import pytest

from jaxdistill import config_files, headline, main
from jaxdistill.recipe.resolving import resolve

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
    "distill_weighted": ("far near shuffled", "distil", ""),
    "distillspec": ("target", "distil", ""),
    "dm": ("", "distil", ""),
    "dmd2": ("teacher", "student", ""),
    "ftd": ("", "distil", ""),
    "guidance": ("teacher", "student", ""),
    "hinton_mnist": ("teacher", "distilled", ""),
    "ict": ("teacher", "student", ""),
    "kip": ("", "distil", ""),
    "mae_vitb": ("teacher", "distil", "finetune"),
    "meal_v2": ("deep residual wide", "distil", ""),
    "mtt": ("", "distil", ""),
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


def test_a_fit_that_learns_from_itself_is_compared_with_its_first(tmp_path):
    import json

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
