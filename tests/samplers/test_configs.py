"""What configs of samplers ask of the recipe."""

import jax

from jaxdistill import claim, config_files, recipe


def test_an_arm_that_takes_several_batches_a_step_is_planned():
    config = config_files.load("dmd2:mixture")
    with jax.enable_x64(False):
        arms = claim.arms_of({**config, "mesh": {"data": 1}})
        plan = recipe.plan(arms["adversarial"])
    assert plan.stage("student").settings["distiller"]["adversarial"]
    assert [stage.name for stage in plan.stages] == ["fit", "student"]
