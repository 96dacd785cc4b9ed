"""The programs of docs/own_nets.md run, and go on where they were stopped."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill import evaluation

PAGE = (Path(__file__).parents[1] / "docs" / "own_nets.md").read_text()
PROGRAM = r"## ([\w ]+)\n+(?:<!--[^>]*-->\n)?```python\n(.*?)```"
PROGRAMS = dict(re.findall(PROGRAM, PAGE, re.DOTALL))


def run(program):
    own = {"__name__": "__main__"}
    exec(compile(program, "own_nets.md", "exec"), own)
    return own["outcome"]


def test_each_framework_has_a_program_of_less_than_forty_lines():
    assert list(PROGRAMS) == ["Flax Linen", "Flax NNX", "Equinox"]
    assert all(len(list(filter(str.strip, p.splitlines()))) < 40 for p in PROGRAMS.values())


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_goes_on_where_it_was_stopped(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    classification, calls = evaluation.classification, []

    def stopped(*arguments):
        evaluator = classification(*arguments)

        def measure(*given):
            calls.append(given)
            if len(calls) == 2:
                raise RuntimeError("power cut")
            return evaluator(*given)

        return measure

    monkeypatch.setattr(evaluation, "classification", stopped)
    with pytest.raises(RuntimeError, match="power cut"):
        run(PROGRAMS[name])
    outcome = run(PROGRAMS[name])
    # At steps 100, 200 (cut short), and 200 and 300 again: what was done is not done again.
    assert len(calls) == 4
    assert outcome.values["validation/accuracy"] > 0.85
    assert re.search(r"\[\d( \d){4}\]", capsys.readouterr().out)
    kept = jd.load_result(next(tmp_path.glob("runs/own_*/**/result")).parent)
    for mine, theirs in zip(jax.tree.leaves(outcome.result), jax.tree.leaves(kept), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    if name == "Flax NNX":
        monkeypatch.chdir(tmp_path / "runs")
        unbroken = run(PROGRAMS[name])
        assert unbroken.values == outcome.values
