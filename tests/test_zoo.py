"""The zoo: every method is a recipe that fits, in every published pair; what it refuses."""

import numpy as np
import pytest

from jaxdistill import config_files, recipe
from jaxdistill.overrides import smoke
from jaxdistill.presets import zoo
from jaxdistill.presets.pairs import PAIRS, convolutional

# Those whose heads, views and targets are like no other's.
OWN = ("sskd", "ft", "ofd")


def small(method, **changes):
    settings = [f"method={method}", *(f"{key}={value}" for key, value in changes.items())]
    return config_files.read("kd_zoo:small", settings)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("method", zoo.METHODS)
def test_stages_are_in_order_and_the_last_one_distils(method, pair):
    config = config_files.load(f"kd_zoo:{method}", [f"pair={pair}"])
    names = config["recipe"]
    assert set(config["stages"]) == set(names)
    assert names[0] in ("teacher", "own")
    assert names[-1] == "distil"
    own = config["stages"]["distil"]
    # What teaches, and what the student goes on from, came before.
    assert own["targets"]["stage"] in names[:-1]
    assert (own.get("initial") or {"stage": names[0]})["stage"] in names[:-1]
    assert own["student"] == PAIRS[pair][1].net
    assert own["view"]["augment"]


@pytest.mark.parametrize("method", OWN)
def test_what_is_like_no_other_runs(method, tmp_path):
    config = smoke(small(method))
    for stage in config["stages"].values():
        stage["evaluate"] = {}
    outcomes = recipe.run(recipe.plan(config), tmp_path, quiet=True)
    assert list(outcomes) == list(config["recipe"])
    assert np.isfinite(outcomes["distil"].values["train/loss"])


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("kd_zoo:crdd", [], ["'crdd'", "'crd'"]),
        ("kd_zoo:small", ["method=fitnet"], ["unknown method 'fitnet'", "'fitnets'"]),
        ("kd_zoo:kd", ["pair=resnet56_resnet8"], ["unknown pair", "'resnet56_resnet20'"]),
        ("ofa_kd:small", ["pair=vit_vit"], ["unknown pair", "'vit_cnn'"]),
    ],
)
def test_an_unknown_name_is_told_the_nearest(name, settings, words):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        config_files.read(name, settings)
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("crd", {"stages.distil.objective.crd_0.examples": 100}, ["examples=100", "1274"]),
        ("ofd", {"stages.distil.targets.cached": "{'views': 1}"}, ["take 'cached' out"]),
        ("ft", {"stages.paraphraser.student.tap": "relu_3"}, ["'relu_3'", "'relu_2'"]),
        ("ft", {"stages.paraphraser.student.head.name": "parafraser"}, ["'paraphraser'"]),
        ("kr", {"stages.distil.objective.review.target": "('relu_0',)"}, ["as many stages"]),
    ],
)
def test_what_does_not_fit_is_refused_while_planning(method, changes, words):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        recipe.plan(small(method, **changes))
    for word in words:
        assert word in str(refusal.value)


def test_a_stage_head_that_reads_tokens_of_maps_is_refused():
    settings = ["stages.distil.objective.stage_1.projector.front=3", "pair=cnn_vit"]
    config = config_files.read("ofa_kd:small", settings)
    config["recipe"] = ("teacher", "distil")
    with pytest.raises(ValueError, match="17 tokens less 3 in front are no square"):
        recipe.plan(config)


def test_every_method_has_taps_that_convolutional_nets_give():
    pair = (convolutional(4), convolutional(2))
    for method in zoo.METHODS:
        stages = zoo.stages(method, pair, zoo.Soft(), lambda name, said: said)
        for term in stages["distil"]["objective"].values():
            assert term["loss"]
