"""Claims: arms, contrasts and verdicts."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from absl.flags import FLAGS
from absl.testing import flagsaver

from jaxdistill import claim, claims, config_files, recipe
from jaxdistill.overrides import override
from jaxdistill.training.report import write_claim

ALONE = {
    "student": {"net": "mlp", "widths": (4,)},
    "objective": {"labels": {"loss": "cross_entropy", "target": "batch/label"}},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "steps": 2,
    "evaluate": {"accuracy": {"evaluator": "classification", "sets": ("validation", "test")}},
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


def asked(margin: Any = 0.0, **coefficients):
    contrast = {"coefficients": coefficients, "margin": margin}
    return {"metric": "m", "contrasts": {"c": contrast}}


@pytest.mark.parametrize(
    ("margin", "verdict", "status"),
    [
        (0.0, "holds", 0),
        (0.1, "smaller than asked", 3),
        (0.2, "smaller than asked", 3),
        ({"value": 0.2, "from": "paper"}, "smaller than asked", 3),
    ],
)
def test_verdicts(margin, verdict, status):
    values = found(new=[0.6, 0.71, 0.79], old=[0.5, 0.6, 0.7])
    result = claim.answer(asked(margin, new=1, old=-1), values)
    assert result["verdict"] == result["contrasts"]["c"]["verdict"] == verdict
    assert claim.EXIT[verdict] == status
    assert result["contrasts"]["c"]["mean"] == pytest.approx(0.1)


def test_verdicts_below_zero():
    values = found(new=[0.6, 0.7, 0.8], old=[0.7, 0.81, 0.89])
    for margin, verdict, status in (
        (0.0, "contradicted", 1),
        (-0.05, "contradicted", 1),
        (-0.1, "not shown", 3),
        (-0.2, "holds", 0),
    ):
        assert claim.answer(asked(margin, new=1, old=-1), values)["verdict"] == verdict
        assert claim.EXIT[verdict] == status


def test_the_worst_verdict_is_that_of_the_claim():
    values = found(new=[0.6, 0.7, 0.81], old=[0.1, 0.21, 0.3])
    settings = asked(new=1, old=-1)
    settings["contrasts"]["other"] = {"coefficients": {"old": 1, "new": -1}}
    settings["contrasts"]["third"] = {"coefficients": {"new": 1, "old": -1}, "margin": 0.6}
    result = claim.answer(settings, values)
    verdicts = [c["verdict"] for c in result["contrasts"].values()]
    assert verdicts == ["holds", "contradicted", "smaller than asked"]
    assert result["verdict"] == "contradicted"
    # Three are asked together, two are answered at once.
    confidences = [c["confidence"] for c in result["contrasts"].values()]
    assert confidences == pytest.approx([1 - 0.05 / 3, 1 - 0.05 / 3, 0.95])


def test_equal_differences_are_known_to_one_record():
    values = found(new=[0.6] * 5, old=[0.5] * 5)
    known = claim.answer(asked(new=1, old=-1), values, records={"m": 100})["contrasts"]["c"]
    assert (known["low"], known["high"]) == pytest.approx((0.0876, 0.1124), abs=1e-4)
    unknown = claim.answer(asked(new=1, old=-1), values)["contrasts"]["c"]
    assert unknown["verdict"] == "not shown"
    # Of two weighted alike, one record counts for twice as much.
    double = claim.answer(asked(new=2, old=-2), values, records={"m": 100})["contrasts"]["c"]
    assert double["high"] - double["low"] == pytest.approx(2 * (known["high"] - known["low"]))


def test_what_is_not_finite_is_refused_by_name():
    values = found(new=[0.6, float("nan")], old=[0.5, 0.5])
    with pytest.raises(ValueError, match="m of arm 'new' with seed 8 is nan"):
        claim.answer(asked(new=1, old=-1), values, seeds=[7, 8])


def against(*ours, margin: Any = None):
    """The answer for one arm against a grid of two."""
    contrast = {"chosen": "ours", "grid": ("low", "high")}
    if margin is not None:
        contrast["margin"] = margin
    values = {"ours": ours, "low": (1.0, 1.2, 1.1), "high": (3.0, 3.1, 3.3)}
    runs = {arm: [{"loss": v} for v in own] for arm, own in values.items()}
    settings = {"metric": "loss", "contrasts": {"grid": contrast}}
    return claim.answer(settings, runs)["contrasts"]["grid"]


def test_a_chosen_arm_may_be_worse_than_the_grids_best_by_a_margin():
    good, unclear, bad = against(1.05, 1.21, 1.12), against(1.3, 1.2, 1.5), against(1.9, 2.2, 2.0)
    assert [c["verdict"] for c in (good, unclear, bad)] == ["holds", "not shown", "contradicted"]
    assert good["coefficients"] == {"low": 1, "ours": -1}
    assert good["margin"] == pytest.approx(-good["spread"] / 10)
    assert good["margin_from"] == "ours: a tenth of what the grid spans"
    given = against(1.9, 2.2, 2.0, margin={"value": -1.5, "from": "a reason"})
    assert (given["verdict"], given["margin_from"]) == ("holds", "ours: a reason")
    # Where the whole grid is as good as that, there was nothing to choose.
    assert against(1.05, 1.21, 1.12, margin=-3.0)["verdict"] == "not shown"


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
        ("claim.metric", "", "needs 'metric'"),
        ("claim.contrasts.gain", {"coefficients": {}}, "an arm in 'coefficients'"),
        ("claim.contrasts.gain", {"coefficients": {"alone": float("nan")}}, "finite number"),
        ("claim.contrasts.gain", {"chosen": "alone", "grid": "alone"}, "'grid' .* a sequence"),
        ("claim.contrasts.gain.margin", float("inf"), "'margin' .* finite number"),
        ("claim.contrasts.gain.margin", {"value": 1.0}, "needs 'from'"),
        ("claim.contrasts.gain.margin", {"from": "paper"}, "needs 'value'"),
        ("claim.contrasts.gain.margin", {"value": 1.0, "form": "paper"}, "did you mean 'from'"),
    ],
)
def test_refusals(path, value, words):
    config: Any = copy.deepcopy(CONFIG)
    config["claim"]["contrasts"]["gain"]["margin"] = 0.0
    with pytest.raises(ValueError, match=words):
        claim.arms_of(override(config, {path: value}))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("claim.metric", "last/tset/accuracy", "arm 'distilled' 'last/tset/accuracy': did you"),
        ("claim.contrasts.work.metric", "last/step_flop", "did you mean 'last/step_flops'"),
        ("claim.metric", "student/test/accuracy", "arm 'alone' 'student/test/accuracy'"),
    ],
)
def test_metrics_that_no_stage_measures(path, value, words):
    config = override(CONFIG, {path: value})
    arms = claim.arms_of(config)
    names = {name: recipe.metrics(recipe.plan(arm)) for name, arm in arms.items()}
    with pytest.raises(ValueError, match=words):
        claims.refuse_others(config, names)
    names = {name: recipe.metrics(recipe.plan(arm)) for name, arm in claim.arms_of(CONFIG).items()}
    claims.refuse_others({**CONFIG, "table": ("test/accuracy",)}, names)
    with pytest.raises(ValueError, match="metric of the table 'tset/accuracy': did you mean"):
        claims.refuse_others({**CONFIG, "table": ("tset/accuracy",)}, names)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "configs").glob("*.py")))
def test_claims_of_all_configs_are_well_formed(path):
    for variant in ("", ":small", ":mixture", ":order"):
        try:
            config = config_files.read(f"{path}{variant}")
        except ValueError:  # it has no such variant
            continue
        if config.get("claim"):
            assert claims.digest_of(config, claim.arms_of(config))


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
    tuned = claim.tune(config, tmp_path, quiet=True)
    assert tuned["best"] == {"distilled": best}
    edge = {"x": "seed=1 is the smallest", "y": "seed=2 is the largest"}[best]
    assert tuned["edges"] == {"distilled": [edge]}


def test_a_choice_inside_its_grid_is_on_no_edge(monkeypatch, tmp_path):
    metric = CONFIG["tune"]["metric"]
    monkeypatch.setattr(
        claim,
        "measure",
        lambda arms, seeds, *_: {n: [{metric: 0.5 - abs(c["seed"] - 2)} for _ in seeds]
                                 for n, c in arms.items()},
    )  # fmt: skip
    grid = {f"seed {seed}": {"seed": seed, "stages/student/steps": 3} for seed in (1, 2, 3)}
    config = {**CONFIG, "tune": {"metric": metric, "grid": {"distilled": grid}}}
    tuned = claim.tune(config, tmp_path, quiet=True)
    assert (tuned["best"], tuned["edges"]) == ({"distilled": "seed 2"}, {"distilled": []})


def test_settings_of_a_tuning():
    for tune, words in (
        ({"seeds": 0}, "'seeds' of tune is 0"),
        ({"metric": "student/validaton/accuracy"}, "unknown metric of arm 'distilled, x'"),
        ({"metric": ""}, "tune needs 'metric'"),
    ):
        with pytest.raises(ValueError, match=words):
            claim.tune({**CONFIG, "tune": {**CONFIG["tune"], **tune}}, Path(), quiet=True)


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
    # A teacher costs something, the same whatever the seed, to the operation.
    assert work["verdict"] == "holds"
    assert 0 < work["high"] - work["low"] < 40
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


def test_a_plan_says_what_would_be_run():
    arms = {**CONFIG["claim"]["arms"], "again": {"title": "the same stages"}}
    config = {**CONFIG, "claim": {**CONFIG["claim"], "arms": arms}}
    plans = {name: recipe.plan(arm) for name, arm in claim.arms_of(config).items()}
    lines = [line.split() for line in claim.planned(config, plans, seeds=3).splitlines()]
    assert ["gain", "last/test/accuracy", "above", "0"] in lines
    # What arms share is run once.
    assert ["teacher", "2", "distilled,", "again"] in lines
    assert ["alone", "2", "alone"] in lines
    assert lines[-1] == ["6", "steps", "a", "seed,", "3", "seeds"]


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """The command with a config and flags, each value measured being what ``values`` says."""

    def measure(arms, seeds, root, quiet, wanted, track):
        ran.extend(seeds)

        def value(arm, seed):
            return 0.5 + 0.1 * (arm == "distilled") + seed / 100 + seed % 2 / 100

        return {name: [dict.fromkeys(wanted, value(name, seed)) for seed in seeds] for name in arms}

    ran: list[int] = []
    monkeypatch.setattr(claim, "measure", measure)

    def run(config, *flags):
        ran.clear()
        monkeypatch.setattr(claim.command, "read_config", lambda: config)
        with flagsaver.flagsaver():
            FLAGS(["claim", f"--workdir={tmp_path}", "--quiet", *flags])
            status = claim.command.guarded(claim._run)
        captured = capsys.readouterr()
        return status, ran.copy(), captured.out + captured.err

    return run


def test_the_command_keeps_every_seed_and_says_where_it_ran(command, tmp_path):
    status, ran, text = command(CONFIG, "--first_seed=3", "--seeds=2")
    assert (status, ran) == (3, [3, 4])
    kept = json.loads((tmp_path / "claim.json").read_text())
    assert (kept["first_seed"], kept["seeds"]) == (3, [3, 4])
    assert kept["environments"][0]["seeds"] == [3, 4]
    for key in ("processor", "devices", "jax", "jaxdistill", "python"):
        assert str(kept["environments"][0][key]) in text
    record = json.loads((tmp_path / "seeds" / "4.json").read_text())
    assert record["config"] == kept["digest"]
    assert set(record["arms"]) == {"distilled", "alone"}
    for words in (
        "holds" if kept["verdict"] == "holds" else "not shown",
        "2 seeds are few",
        "by Holm's procedure",
        f"another test split ({kept['scope']['sets']['test']} records) would",
        "seeds 3 to 4",
    ):
        assert words in text
    # What ran is not run again, and more seeds are added.
    assert command(CONFIG, "--first_seed=3")[1] == [5, 6, 7]


def test_a_claim_whose_config_changed_since_its_seeds_ran_is_not_answered(command, tmp_path):
    assert command(CONFIG)[1] == [0, 1, 2, 3, 4]
    page = (tmp_path / "claim.json").read_bytes()
    gain = CONFIG["claim"]["contrasts"]["gain"]
    for path, value in (
        ("claim.contrasts.gain", {**gain, "margin": 0.01}),
        ("stages.alone.steps", 3),
        ("claim.metric", "last/test/nll"),
    ):
        status, ran, text = command(override(CONFIG, {path: value}))
        assert (status, ran) == (2, [])
        assert "the claim is not answered: its config has changed since seeds 0 to 4 ran" in text
        assert path.split(".")[-1] in text
        assert "--first_seed=5" in text
        assert "| verdict" not in text
    assert (tmp_path / "claim.json").read_bytes() == page


def test_words_and_reasons_are_no_change(tmp_path):
    gain = {**CONFIG["claim"]["contrasts"]["gain"], "margin": 0.01}
    said = {**gain, "sentence": "more", "margin": {"value": 0.01, "from": "paper"}}
    one = override(CONFIG, {"claim.contrasts.gain": gain})
    other = override(CONFIG, {"claim.contrasts.gain": said, "stages.alone.log_every": 7})
    assert claims.digest_of(one, claim.arms_of(one)) == claims.digest_of(
        other, claim.arms_of(other)
    )


def test_seeds_of_tuning_answer_nothing(command):
    assert "Seeds from 1000 on are for tuning" in command(CONFIG, "--first_seed=1000")[2]
