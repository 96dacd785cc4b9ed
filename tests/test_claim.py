"""Claims: arms, contrasts and verdicts."""

import json

import pytest

from jaxdistill import claim
from jaxdistill.config import override
from jaxdistill.training.report import write_claim

ALONE = {
    "student": {"net": "mlp", "widths": (4,)},
    "objective": {"labels": {"loss": "cross_entropy", "target": "batch/label"}},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "steps": 2,
    "evaluate": {"accuracy": {"evaluator": "classification", "sets": ("test",)}},
}
CONFIG = {
    "title": "a test",
    "sentence": "",
    "seed": 0,
    "data": {"name": "digits", "validation": 0.1, "test": 0.2},
    "mesh": {"data": 1},
    "recipe": ("teacher", "student"),
    "stages": {
        "teacher": {**ALONE, "evaluate": None},
        "student": {
            **ALONE,
            "targets": {"kind": "live", "stage": "teacher"},
            "objective": {"kd": {"loss": "hinton_kd"}},
        },
        "alone": ALONE,
    },
    "claim": {
        "sentence": "distilled beats alone",
        "metric": "last/test/accuracy",
        "arms": {
            "distilled": {},
            "alone": {"recipe": ("alone",)},
        },
        "contrasts": {
            "gain": {"coefficients": {"distilled": 1, "alone": -1}},
            "work": {
                "metric": "last/step_flops",
                "coefficients": {"distilled": 1, "alone": -1},
            },
        },
    },
    "tune": {"metric": "student/validation/accuracy", "grid": {"distilled": {"x": {"seed": 1}}}},
}


def found(**arms):
    return {name: [{"m": value} for value in values] for name, values in arms.items()}


def asked(margin=0.0, **coefficients):
    contrast = {"coefficients": coefficients, "margin": margin}
    return {"metric": "m", "contrasts": {"c": contrast}}


@pytest.mark.parametrize(
    ("margin", "verdict", "status"),
    [(0.0, "holds", 0), (0.2, "contradicted", 1), (0.1, "not shown", 3)],
)
def test_verdicts(margin, verdict, status):
    values = found(new=[0.6, 0.71, 0.79], old=[0.5, 0.6, 0.7])
    result = claim.answer(asked(margin, new=1, old=-1), values)
    assert result["verdict"] == result["contrasts"]["c"]["verdict"] == verdict
    assert claim.EXIT[verdict] == status
    assert result["contrasts"]["c"]["mean"] == pytest.approx(0.1)


def test_the_worst_verdict_is_that_of_the_claim():
    values = found(new=[0.6, 0.7], old=[0.5, 0.6])
    settings = asked(new=1, old=-1)
    settings["contrasts"]["other"] = {"coefficients": {"old": 1, "new": -1}}
    result = claim.answer(settings, values)
    assert [c["verdict"] for c in result["contrasts"].values()] == ["holds", "contradicted"]
    assert result["verdict"] == "contradicted"


def test_a_metric_that_was_not_measured():
    with pytest.raises(ValueError, match="'m'"):
        claim.answer({**asked(a=1), "metric": "n"}, found(a=[1.0]))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("claim.contrasts.gain.coefficients", {"distiled": 1}, "'distilled'"),
        ("claim.contrasts.gain", {"coefficients": {"alone": 1}, "margins": 1}, "'margin'"),
        ("claim.arms.distilled", {"stages/studnt/steps": 3}, "'student'"),
        ("claim", {"metric": "m", "arm": {}, "contrasts": {}}, "'arms'"),
        ("claim", None, "no claim"),
    ],
)
def test_refusals(path, value, words):
    with pytest.raises(ValueError, match=words):
        claim.arms_of(override(CONFIG, {path: value}))


def test_nothing_is_tuned_on_the_test_set(tmp_path):
    config = override(CONFIG, {"tune.metric": "student/test/accuracy"})
    with pytest.raises(ValueError, match="validation"):
        claim.tune(config, tmp_path, quiet=True)
    with pytest.raises(ValueError, match="'distilled'"):
        claim.tune(override(CONFIG, {"tune.grid": {"distiled": {}}}), tmp_path, quiet=True)


@pytest.mark.parametrize(("lower", "best"), [(True, "y"), (False, "x")])
def test_the_best_setting_is_the_highest_or_the_lowest(monkeypatch, tmp_path, lower, best):
    metric = CONFIG["tune"]["metric"]
    values = {"x": [0.9, 0.7], "y": [0.5, 0.6]}

    def measure(arms, seeds, root, quiet):
        (name,) = arms
        return {name: [{metric: value} for value in values[name[-1]]]}

    monkeypatch.setattr(claim, "measure", measure)
    grid = {"distilled": {"x": {"seed": 1}, "y": {"seed": 2}}}
    config = {**CONFIG, "tune": {"metric": metric, "lower": lower, "grid": grid}}
    assert claim.tune(config, tmp_path, quiet=True)["best"] == {"distilled": best}


def test_arms_are_run_share_stages_and_are_answered(tmp_path):
    arms = claim.arms_of(CONFIG)
    assert [arm["recipe"] for arm in arms.values()] == [("teacher", "student"), ("alone",)]
    seeds = [0, 1]
    wanted = ("last/test/accuracy", "last/step_flops")
    values = claim.measure(arms, seeds, tmp_path, True, wanted)
    names = sorted(path.name.split("-")[0] for path in tmp_path.glob("stages/*"))
    assert names == ["alone"] * 2 + ["student"] * 2 + ["teacher"] * 2
    result = claim.answer(CONFIG["claim"], values)
    gain, work = result["contrasts"]["gain"], result["contrasts"]["work"]
    alone, distilled = result["arms"]["alone"], result["arms"]["distilled"]
    assert gain["differences"] == pytest.approx(
        [a - b for a, b in zip(distilled, alone, strict=True)]
    )
    # A teacher costs something, the same whatever the seed.
    assert work["verdict"] == "holds"
    assert work["low"] == work["high"] > 0
    table = claim.table({**result, "verdict": "holds"}, seeds)
    assert "seed 1" in table
    write_claim(tmp_path, {"title": "t", "seeds": seeds, **result})
    assert json.loads((tmp_path / "claim.json").read_text())["verdict"] == result["verdict"]
    # Done stages are read, not run again.
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("stages/*/metrics.jsonl")}
    assert (
        claim.measure(arms, seeds[:1], tmp_path, True)["alone"][0].items()
        <= values["alone"][0].items()
    )
    assert before == {p: p.stat().st_mtime_ns for p in before}
