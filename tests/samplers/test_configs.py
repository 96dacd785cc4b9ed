"""What configs of samplers ask of the recipe."""

import jax
import optax
import pytest

from jaxdistill import claim, config_files, recipe, registry
from jaxdistill.overrides import flattened, override
from jaxdistill.registry.context import Context


def test_an_arm_that_takes_several_batches_a_step_is_planned():
    config = config_files.load("dmd2:mixture")
    with jax.enable_x64(False):
        arms = claim.arms_of({**config, "mesh": {"data": 1}})
        plan = recipe.plan(arms["adversarial"])
    assert plan.stage("student").settings["distiller"]["adversarial"]
    assert [stage.name for stage in plan.stages] == ["fit", "student"]


JUMPING = {
    "net": "denoiser",
    "time": "angle",
    "backbone": {"net": "time_mlp", "width": 8, "jumps": True},
}
EXACT = {"density": {"name": "ring"}}


@pytest.mark.parametrize(
    ("part", "student", "words"),
    [
        ({"name": "mean_flow"}, {**JUMPING, "time": "log"}, "'mean_flow' trains jumps: its stude"),
        ({"name": "shortcuts"}, {**JUMPING, "backbone": {"net": "time_mlp"}}, "with jumps=True"),
        ({"name": "consistency_trajectories"}, JUMPING, "learns from a teacher alone"),
        ({"name": "progressive", "intervals": 1}, JUMPING, "learns from a teacher alone"),
        ({"name": "bootstrapped"}, JUMPING, "learns from a teacher alone"),
        ({"name": "segmented"}, JUMPING, "needs 'teacher'"),
        ({"name": "segmented", "teacher": EXACT, "reward": {}}, JUMPING, "a reward is either of"),
        (
            {"name": "segmented", "teacher": EXACT, "reward": {**EXACT, "mode": 8}},
            JUMPING,
            "mode=8 is none of 8",
        ),
        ({"name": "segmented", "teacher": EXACT, "weight": 2.0}, JUMPING, "'weight'"),
        ({"name": "segmented", "teacher": EXACT, "end": "edgy"}, JUMPING, "edge"),
        ({"name": "segmented", "teacher": EXACT, "segments": 33}, JUMPING, "1 to 32 segments"),
    ],
)
def test_what_cannot_jump_or_please_is_refused(part, student, words):
    net = registry.net(student, {"classes": 0})
    context = Context(
        student_net=net, student=student, transformation=optax.adam(1e-3), optimizer={}
    )
    with pytest.raises(ValueError, match=words):
        registry.distiller(part, context)


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        ("multi_student", {"stages/student/student/count": 3}, "3 students cannot share out 8"),
        (
            "multi_student",
            {"stages/student/student": {"net": "denoiser", "backbone": {"net": "time_mlp"}}},
            "its student must be the net 'students'",
        ),
        ("multi_student", {"stages/student/distiller/of/name": "denoisng"}, "'denoising'"),
        ("multi_student", {"data/classes": 0, "data/modes": 7}, "4 students cannot share out"),
        ("disback", {"stages/student/distiller/path": "degradd"}, "did you mean 'degraded'"),
        ("disback", {"stages/degraded/distiller/generator": "awy"}, "did you mean 'away'"),
        ("disback", {"stages/degraded/distiller/records": 0}, "'records'"),
        ("disback", {"stages/student/distiller/teacher": {"stage": "fit"}}, "'teacher'"),
    ],
)
def test_what_does_not_fit_is_one_sentence_before_anything_runs(config, changes, words):
    found = override(config_files.load(f"{config}:mixture"), flattened(changes))
    with pytest.raises(ValueError, match=words) as refusal, jax.enable_x64(False):
        recipe.plan({**found, "mesh": {"data": 1}})
    assert "Traceback" not in str(refusal.value)
