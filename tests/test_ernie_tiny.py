"""The stages of ERNIE-Tiny: each changes its teacher, its text or its loss, and nothing else."""

import itertools

import pytest

from jaxdistill import config_files, recipe
from jaxdistill.claims import arms_of

SMALL = config_files.load("ernie_tiny:small")
ARMS = arms_of(SMALL)
BEFORE = ("gd", "ged", "tad")


def test_every_subset_of_the_chain_is_an_arm():
    subsets = [s for n in range(4) for s in itertools.combinations(BEFORE, n)]
    assert set(ARMS) == {" + ".join((*subset, "tsd")) for subset in subsets}


@pytest.mark.parametrize("arm", ARMS)
def test_each_stage_starts_from_the_one_before_and_all_arms_take_equal_steps(arm):
    config = ARMS[arm]
    stages = [name for name in config["recipe"] if name in (*BEFORE, "tsd")]
    assert " + ".join(stages) == arm
    steps = [config["stages"][name]["steps"] for name in stages]
    assert sum(steps) == 1200
    starts = [config["stages"][name].get("initial") for name in stages]
    assert [start and start["stage"] for start in starts] == [None, *stages[:-1]]
    # A head learns in the last stage alone.
    assert not any("head" in start["parts"] for start in starts[1:])


def test_one_thing_changes_at_a_time():
    stages = SMALL["stages"]
    teachers = {name: stages[name]["targets"]["stage"] for name in (*BEFORE, "tsd")}
    assert teachers == {"gd": "pretrained"} | dict.fromkeys(("ged", "tad", "tsd"), "finetuned")
    few = {name: "records" in stages[name] for name in teachers}
    assert few == {"gd": False, "ged": False, "tad": True, "tsd": True}
    inside = dict(stages["gd"]["objective"])
    assert all(dict(stages[name]["objective"]) == inside for name in BEFORE)
    assert set(stages["tsd"]["objective"]) - set(inside) == {"soft", "labels"}
    assert {term["loss"] for term in inside.values()} == {"qkv_relations", "hint"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": ("pretrained", "finetuned", "tad", "tsd")}, "ged"),
        ({"recipe": ("finetuned", "gd", "tsd")}, "pretrained"),
    ],
)
def test_a_chain_with_a_stage_missing_is_refused_before_anything_runs(changes, said):
    with pytest.raises(ValueError, match=rf"(?s)stage '(tad|finetuned|gd)'.*'{said}'"):
        recipe.plan({**SMALL, **changes})
