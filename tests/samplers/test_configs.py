"""What configs of samplers ask of the recipe."""

import importlib.util
from pathlib import Path

import jax

from jaxdistill import claim, recipe
from jaxdistill.config import plain

CONFIGS = Path(__file__).parents[2] / "configs"


def test_an_arm_that_takes_several_batches_a_step_is_planned():
    spec = importlib.util.spec_from_file_location("dmd2", CONFIGS / "dmd2.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with jax.enable_x64(False):
        arms = claim.arms_of({**plain(module.get_config("mixture")), "mesh": {"data": 1}})
        plan = recipe.plan(arms["adversarial"])
    assert plan.stage("student").settings["distiller"]["adversarial"]
    assert [stage.name for stage in plan.stages] == ["fit", "student"]
