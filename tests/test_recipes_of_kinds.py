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

import jax
import numpy as np
import pytest
from contract.parts import equal
from contract.recipes import parts

from jaxdistill import main, recipe, registry
from jaxdistill.recipe.planned import folder
from jaxdistill.settings import keys

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
        shown = {"images": f"{planned.name}: what it leaves", "records": "records</span>"}
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
