"""The weight of the ground truth, estimated by a work from two stages and used by a third."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import claim, config_files, recipe, theory
from jaxdistill.condense import Synthetic
from jaxdistill.distiller import Work
from jaxdistill.overrides import override
from jaxdistill.training.works import run_work


def config(**changes):
    found = config_files.load("self_distill_deep:small")
    for stage in found["stages"].values():
        if "work" not in stage:
            stage |= {"steps": 30, "student": {"net": "mlp", "widths": (16,)}}
    return override({**found, "mesh": {"data": 1, "fsdp": 1}}, changes)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    plan = recipe.plan(config())
    return plan, recipe.run(plan, tmp_path_factory.mktemp("guided"), quiet=True)


def test_the_estimate_is_that_of_the_closed_form(ran):
    plan, outcomes = ran
    source = plan.stage("guided").data["validation"]
    records = source.gather(np.arange(len(source)))
    first, alone = (
        jax.nn.softmax(plan.stage(name).net.apply(*outcomes[name].result, records["image"]).out)
        for name in ("first", "alone")
    )
    wanted = jax.nn.one_hot(records["label"], 10)
    expected = theory.optimal_weight(wanted, first, alone)
    values = outcomes["weigh"].values
    assert values["choice/free_weight"] == pytest.approx(float(expected.free), abs=1e-4)
    assert values["choice/weight"] == pytest.approx(float(expected.weight), abs=1e-4)
    assert values["choice/first_error"] == pytest.approx(
        outcomes["first"].values["validation/brier"], rel=1e-5
    )
    error = float(expected.error) / len(wanted)
    assert values["choice/expected_error"] == pytest.approx(error, rel=1e-4)


def test_the_student_is_trained_with_it(ran):
    _, outcomes = ran
    last = outcomes["guided"].metrics[-2]
    weight = outcomes["weigh"].values["choice/weight"]
    assert last["kind"] == "train"
    mixed = weight * last["labels"] + (1 - weight) * last["teacher"]
    assert last["loss"] == pytest.approx(mixed, rel=1e-4)


def test_all_of_the_ground_truth_is_the_first_net_again(ran, tmp_path):
    _, outcomes = ran
    arm = claim.arms_of(config())["tenths 10"]
    again = recipe.run(recipe.plan(arm), tmp_path, quiet=True)
    for one, other in zip(
        jax.tree.leaves(outcomes["first"].result),
        jax.tree.leaves(again["guided"].result),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_stage_with_a_seed_of_its_own_starts_anew():
    plan = recipe.plan(config(**{"stages.alone.seed": 1}))
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), {"first": recipe.shapes(plan)["first"]}
    )
    first = recipe.stage_of(plan, plan.stage("first"), {})
    alone = recipe.stage_of(plan, plan.stage("alone"), zeros)
    assert (first.seed, alone.seed) == (0, 1)
    assert (first.data.at(0)["index"] != alone.data.at(0)["index"]).any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages.weigh.work.frist": "first"}, ["'frist'", "'first'"]),
        ({"stages.weigh.work.first": "frist"}, ["'frist'", "'first'"]),
        ({"stages.weigh.work.alone": None}, ["needs 'alone'"]),
        ({"stages.weigh.work.labels": "label"}, ["'label'", "'labels'"]),
        ({"stages.weigh.work.outputs": "probs"}, ["'probs'", "'probabilities'"]),
        ({"stages.weigh.steps": 3}, ["trains nothing", "'steps'"]),
        ({"stages.guided.weights": "first"}, ["'first'", "chooses no weights"]),
        ({"stages.guided.weights": "wiegh"}, ["'wiegh'", "'weigh'"]),
        ({"data.validation": 0.0, "stages.guided.evaluate": {}, "stages.first.evaluate": {},
          "stages.alone.evaluate": {}, "stages.guided.pictures": ()}, ["there is none"]),
    ],
)  # fmt: skip
def test_refusals(changes, words):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        recipe.plan(config(**changes))
    for word in words:
        assert word in str(refusal.value)


def test_a_work_is_done_once_and_kept(ran, tmp_path):
    plan, outcomes = ran
    weigh = plan.stage("weigh")
    assert (weigh.kind, weigh.net, weigh.needs) == ("choice", None, ("first", "alone"))
    results = {name: outcomes[name].result for name in weigh.needs}
    asked = []

    def run(results, data, key):
        asked.append(key)
        return {"weights": {"labels": 0.25, "teacher": 0.75}, "weight": 0.25}

    work = Work(run, "choice", ("weight",))
    for _ in range(2):
        done = run_work(work, results, {}, directory=tmp_path, identity={"a": 1})
        assert done.result == {"weights": {"labels": 0.25, "teacher": 0.75}, "weight": 0.25}
        assert done.values == {"choice/weight": 0.25}
    assert len(asked) == 1
    with pytest.raises(ValueError, match="another run"):
        run_work(work, results, {}, directory=tmp_path, identity={"a": 2})


def test_arrays_of_a_work_are_kept_bit_for_bit(tmp_path):
    def run(results, data, key):
        return Synthetic(jax.random.normal(key, (3, 2, 2, 1)), jnp.eye(3), jnp.asarray(0.01))

    work = Work(run, "data_set", made=Synthetic)
    first = run_work(work, {}, {}, seed=3, directory=tmp_path)
    again = run_work(work, {}, {}, seed=3, directory=tmp_path)
    assert isinstance(again.result, Synthetic)
    jax.tree.map(np.testing.assert_array_equal, first.result, again.result)


def test_a_contrast_is_of_one_kind():
    both = {"chosen": "estimated", "grid": ("tenths 1",), "coefficients": {"tenths 1": 1}}
    with pytest.raises(ValueError, match="either 'coefficients', or"):
        claim.arms_of(override(config(), {"claim.contrasts": {"c": both}}))
    given = {"chosen": "estimated", "grid": ("tenths 11",)}
    with pytest.raises(ValueError, match=r"tenths 11.*tenths 1"):
        claim.arms_of(override(config(), {"claim.contrasts": {"c": given}}))
