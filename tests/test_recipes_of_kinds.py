"""Every kind of distillation as a recipe: plain data of at most 60 lines and one entry of a table.

What is the kind's own is put into the tables of the registry; nothing else of the library knows of
it. All recipes pass the same trials: they run by the command and leave what they say; the same
command computes nothing again; what is misspelt or wrong is refused when they are planned.
"""

from __future__ import annotations

import copy
import importlib
import pprint
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract.parts import equal
from contract.recipes import parts

from jaxdistill import main, recipe, registry
from jaxdistill.condense import Synthetic
from jaxdistill.distiller import Distiller, Work
from jaxdistill.recipe.planned import folder
from jaxdistill.settings import Count, Earlier, keys
from jaxdistill.training.works import run_work

FOLDER = Path(__file__).parent / "contract" / "recipes"
KINDS = {
    file.stem: importlib.import_module(f"contract.recipes.{file.stem}").KIND
    for file in sorted(FOLDER.glob("*.py"))
    if file.stem != "parts"
}
each_kind = pytest.mark.parametrize("name", KINDS)
# How a part of a config says what it is.
NAMES = {"net": "net", "loss": "loss", "evaluator": "evaluator", "kind": "kind of targets"}


@pytest.fixture
def kind(name, monkeypatch):
    """A kind, its entries in the tables."""
    found = KINDS[name]
    for (table, entry), function in {**parts.SHARED, **found.entries}.items():
        monkeypatch.setitem(registry.TABLES[table], entry, function)
    return found


def files(root):
    """All that a run keeps of its stages, with the times at which it was written."""
    return {
        file: file.stat().st_mtime_ns for file in (root / "stages").rglob("*") if file.is_file()
    }


@each_kind
def test_a_recipe_runs_and_is_not_run_again(kind, tmp_path):
    main.run(kind.config, str(tmp_path), quiet=True)
    before = files(tmp_path)
    plan = recipe.plan(kind.config)
    outcomes = recipe.run(plan, tmp_path, quiet=True)
    assert files(tmp_path) == before
    assert {planned.name: planned.kind for planned in plan.stages} == kind.kinds
    kind.right(recipe.settled(plan, {n: o.result for n, o in outcomes.items()}), outcomes)
    for planned in plan.stages:
        assert (folder(tmp_path, planned.name, planned.identity) / "result").is_dir()
        if planned.kind == "net" and planned.net is not None:
            restored = recipe.restore(tmp_path, planned.name)
            equal((restored.params, restored.state), outcomes[planned.name].result)
        elif planned.kind != "net":
            with pytest.raises(ValueError, match=planned.kind):
                recipe.restore(tmp_path, planned.name)
    page = (tmp_path / "report.html").read_text()
    for planned in plan.stages:
        shown = {"images": f"{planned.name}: what it leaves", "records": ">records</th>"}
        assert shown.get(planned.kind, planned.name) in page


@each_kind
def test_what_is_wrong_is_refused_when_a_recipe_is_planned(kind):
    tried = 0
    for path, table, part in own_parts(kind):
        domains = {key: parameter.annotation for key, parameter in keys(table[part]).items()}
        wrong = {key: parts.refused(domain) for key, domain in domains.items()}
        for key, value in {"nonsuch": 1, **wrong}.items():
            with pytest.raises(ValueError, match=f"'{key}'"):
                recipe.resolve(changed(kind.config, path, key, value))
            tried += 1
    assert tried


def own_parts(kind):
    """Where a config names an entry of the kind, with the table and the name."""
    tables = {table for table, _ in kind.entries}

    def walk(value, path):
        for key, inner in value.items() if isinstance(value, dict) else ():
            found = [NAMES[key]] if key in NAMES else tables if key == "name" else ()
            for table in found:
                if isinstance(inner, str) and (table, inner) in kind.entries:
                    yield path, registry.TABLES[table], inner
            yield from walk(inner, (*path, key))

    yield from walk(kind.config, ())


def changed(config, path, key, value):
    config = copy.deepcopy(config)
    part = config
    for step in path:
        part = part[step]
    part[key] = value
    return config


@each_kind
def test_a_recipe_is_short_and_plain(name):
    kind = KINDS[name]
    assert len(pprint.pformat(kind.config, width=100, compact=True).splitlines()) <= 60
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= 150
    plain = (str, int, float, bool, type(None))
    assert all(isinstance(leaf, plain) for leaf in jax.tree.leaves(kind.config))


@each_kind
def test_entries_are_what_the_tables_want(name):
    for function in KINDS[name].entries.values():
        assert parts.lines(function) <= 15
        assert all(parameter.annotation is not np.ndarray for parameter in keys(function).values())


# --- what earlier stages hand on ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "value", "words"),
    [
        ("written", "student.data", {"stage": "writen"}, ["does not come before", "'written'"]),
        ("written", "student.data", {"stage": "teacher"}, ["'teacher'", "'net'", "'records'"]),
        ("written", "student.data", {"stage": "written", "shar": 1}, ["'shar'", "'stage'"]),
        ("written", "student.data", {"share": 1}, ["'name'", "'stage'"]),
        ("search", "distil.chosen", {"student.hiden": "search/width"}, ["'hiden'", "'hidden'"]),
        ("search", "distil.chosen", {"student.hidden": "serch/width"}, ["'serch'", "'search'"]),
        ("search", "distil.chosen", {"student.hidden": "teacher/width"}, ["chooses nothing"]),
        (
            "search",
            "distil.chosen",
            {"student.hidden": "search"},
            ["'<stage>/<name in its choice>"],
        ),
        ("adapters", "adapted.student.base", "teachr", ["'teachr'", "'teacher'"]),
    ],
)
def test_what_cannot_be_handed_on_is_refused(kind, path, value, words):
    *path, key = path.split(".")
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        recipe.resolve(changed(kind.config, ("stages", *path), key, value))
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "results", "words"),
    [
        ("search", {"search": {"width": 0}}, ["'distil'", "'hidden'", "is 0", "1 or more"]),
        ("search", {"search": {"widths": 4}}, ["'width'", "'widths'"]),
        ("written", {"written": {"tokens": np.zeros((0, 10), int)}}, ["'student'", "is empty"]),
    ],
)
def test_what_was_handed_on_is_held_against_the_stage(kind, results, words):
    plan = recipe.resolve(kind.config)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        recipe.settled(plan, results)
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "path", "value", "last"),
    [
        ("written", ("written", "work", "count"), 64, "student"),
        ("search", ("search", "work", "most"), 0.4, "distil"),
        ("adapters", ("teacher", "steps"), 9, "adapted"),
    ],
)
def test_a_stage_is_another_where_what_it_reads_is(kind, path, value, last):
    *path, key = path
    others = [kind.config, changed(kind.config, ("stages", *path), key, value)]
    one, other = (recipe.resolve(config).stage(last).identity for config in others)
    assert one != other


@pytest.mark.parametrize("name", ["written"])
def test_what_is_not_written_yet_is_planned_and_not_traced(kind):
    plan = recipe.plan(kind.config)
    shapes = recipe.shapes(plan)
    assert shapes["teacher"] is not None
    assert shapes["written"] is shapes["student"] is None
    rows = {row.stage: row for row in recipe.summary(plan)}
    assert rows["student"].builds_on == ("written",)
    assert rows["student"].steps == 12
    assert rows["student"].operations is None
    with pytest.raises(ValueError, match=r"'student'.*'written'"):
        recipe.step_flops(plan, "student")
    rows = np.arange(120).reshape(12, 10) % 8
    settled = recipe.settled(plan, {"written": {"tokens": rows, "next": rows}})
    assert recipe.step_flops(settled, "student") >= 0


def test_a_plan_traces_a_stage_once_and_compiles_what_takes_steps(monkeypatch):
    from jaxdistill.presets.images import classifier
    from jaxdistill.recipe import planning

    traced = []
    checked = planning.check
    monkeypatch.setattr(
        planning, "check", lambda *args, **where: [traced.append(1), checked(*args, **where)][1]
    )
    learns = classifier({"net": "mlp", "widths": (4,)}, steps=60)
    stages = {"start": {**learns, "steps": 0}, "learnt": {**learns, "initial": {"stage": "start"}}}
    config = {"data": {"name": "digits"}, "recipe": tuple(stages), "stages": stages}
    start, learnt = recipe.summary(recipe.plan(config))
    assert len(traced) == len(stages)
    assert start.parameters == learnt.parameters
    assert start.operations is start.bytes is None
    assert learnt.operations > 0 < learnt.bytes


def test_what_was_planned_is_not_traced_again_when_it_runs(monkeypatch, tmp_path):
    from jaxdistill.presets.images import classifier
    from jaxdistill.recipe import stages

    traced, made = [], stages.distiller_of

    def counted(planned, *args):
        found = made(planned, *args)

        def step(*given):
            traced.append(planned.name)
            return found.step(*given)

        return found._replace(step=step)

    monkeypatch.setattr(stages, "distiller_of", counted)
    learns = classifier({"net": "mlp", "widths": (4,)}, steps=60)
    follows = {
        "targets": {"kind": "live", "stage": "teacher"},
        "objective": {"kd": {"loss": "hinton_kd", "temperature": 2.0}},
        "initial": {"stage": "teacher"},
    }
    plain = {"data": {"name": "digits", "validation": 0.1, "test": 0.2}, "mesh": {"data": 1}}
    config = {**plain, "recipe": ("teacher", "student")}
    config["stages"] = {"teacher": learns, "student": {**learns, **follows}}
    plan = recipe.plan(config)
    recipe.summary(plan)
    recipe.run(plan, tmp_path, quiet=True)
    assert traced == ["teacher", "student"]


class Descent(NamedTuple):
    step: Any
    images: Any
    targets: Any


def small_set(context, *, each: Count = 4):
    """A data set that nothing was read for: an image of each class goes to where it should be."""
    targets = jax.nn.one_hot(jnp.repeat(jnp.arange(2), each), 2)

    def init(key, frozen, batch):
        return Descent(jnp.int32(0), jax.random.uniform(key, (2 * each, 4)), targets)

    def step(state, frozen, batch):
        gap = state.images - state.targets[:, :1]
        images = state.images - 0.5 * gap
        return Descent(state.step + 1, images, state.targets), {
            "gap": ((gap**2).sum(), jnp.ones(()))
        }

    def result(state):
        return Synthetic(state.images.reshape(-1, 2, 2, 1), state.targets, jnp.ones(()))

    return Distiller(init, step, result, takes=0, kind="data_set")


def test_a_recipe_without_data(monkeypatch, tmp_path):
    monkeypatch.setitem(registry.TABLES["distiller"], "small_set", small_set)
    trained = {
        "data": {"stage": "made"},
        "student": {"net": "mlp", "widths": (4,), "classes": 2},
        "objective": {"soft": {"loss": "soft_cross_entropy", "target": "batch/targets"}},
        "optimizer": parts.ADAM,
        "steps": 2,
    }
    made = {"distiller": {"name": "small_set"}, "steps": 4}
    config = {"recipe": ("made", "trained"), "stages": {"made": made, "trained": trained}}
    main.run(config, str(tmp_path), quiet=True)
    plan = recipe.plan(config)
    assert plan.stage("made").kind == "data_set"
    assert plan.stage("made").net is None
    outcomes = recipe.run(plan, tmp_path, quiet=True)
    source = recipe.settled(plan, {"made": outcomes["made"].result}).stage("trained").data["train"]
    np.testing.assert_array_equal(source.labels(), np.repeat([0, 1], 4))
    assert recipe.restore(tmp_path).params

    trained["data"] = None
    with pytest.raises(ValueError, match="takes batches, and there is no data"):
        recipe.resolve(config)
    made["evaluate"] = {"accuracy": {"evaluator": "classification"}}
    with pytest.raises(ValueError, match=r"'accuracy'.*'validation'"):
        recipe.resolve(config)


@pytest.mark.parametrize(
    ("kind", "result", "words"),
    [
        ("records", {"a": np.zeros(3), "b": np.zeros(2)}, "one length"),
        ("records", {}, "nothing"),
        ("records", {"a": np.zeros((0, 2))}, "one length"),
        ("records", {"text": np.array(["x"])}, "text must be tokens"),
        ("records", [1, 2], "by name, not list"),
        ("images", {"a": np.zeros((2, 4, 4))}, "rows"),
        ("images", {"a": np.full((2, 4, 4, 1), np.nan)}, r"lie in \[0, 1\]"),
    ],
)
def test_a_result_is_of_the_kind_that_was_promised(kind, result, words, tmp_path):
    work = Work(lambda results, data, key: result, kind)
    with pytest.raises(ValueError, match=words):
        run_work(work, {}, {}, directory=tmp_path)
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize("name", ["search"])
def test_a_cache_is_of_the_records_that_were_written(kind, monkeypatch, tmp_path):
    def copied(context, *, of: Earlier):
        def run(results, data, key):
            return {k: v for k, v in data["train"].gather(np.arange(64)).items() if k != "index"}

        return Work(run, "records")

    monkeypatch.setitem(registry.TABLES["work"], "copied", copied)
    copies = {"work": {"name": "copied", "of": "teacher"}}
    targets = {"stage": "teacher", "cached": {"views": 1}}
    student = {**kind.config["stages"]["distil"], "data": {"stage": "copies"}, "targets": targets}
    stages = {**kind.config["stages"], "copies": copies, "distil": student}
    config = {**kind.config, "recipe": ("teacher", "search", "copies", "distil"), "stages": stages}
    plan = recipe.plan(config)
    with pytest.raises(ValueError, match="is not done"):
        recipe.finished(plan, tmp_path, ("teacher",))
    recipe.run(plan, tmp_path, quiet=True)
    results = recipe.finished(plan, tmp_path, plan.stage("distil").needs)
    settled = recipe.settled(plan, results)
    store = recipe.open_cache(settled, settled.stage("distil"), results, tmp_path)
    assert store.records == 64
    assert settled.stage("distil").data["train"].ids[0].startswith("copies/")
