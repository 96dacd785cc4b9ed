"""Samplers of images, measured, drawn and exported in the size that their view gives them."""

import importlib.util
from pathlib import Path

import jax

from jaxdistill import pictures, present, recipe
from jaxdistill.config import override, plain, smoke

CONFIG = Path(__file__).parents[2] / "configs" / "ict.py"
SMALLER = ({"name": "resize", "size": 4}, {"name": "normalise", "mean": (0.5,), "std": (0.5,)})


def test_a_view_that_resizes_is_sampled_in_its_own_size(tmp_path):
    spec = importlib.util.spec_from_file_location("ict", CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with jax.enable_x64(False):
        config = {**plain(module.get_config("small")), "mesh": {"data": 1}}
        quality = "stages.student.evaluate.quality"
        changes = {
            **{f"stages.{stage}.view.augment": SMALLER for stage in config["recipe"]},
            "stages.classifier.evaluate": None,
            "stages.teacher.evaluate": None,
            f"{quality}.augment": SMALLER,
            f"{quality}.in_steps": (1,),
            f"{quality}.against": {"stage": "teacher", "solver": "heun", "in_steps": (1, 2)},
        }
        plan = recipe.plan(smoke(override(config, changes)))
        found = recipe.run(plan, tmp_path, quiet=True)
        assert {"test/kid_1", "test/kid_teacher_2"} <= found["student"].values.keys()
        assert present.student(tmp_path, plan, found)
        picture = pictures.samples(plan, plan.stage("student"), found)
    assert {rows.shape for rows in picture.data.values()} == {(pictures.SHOWN, 4, 4, 1)}
