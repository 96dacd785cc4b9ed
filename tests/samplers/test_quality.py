"""What evaluators of samplers measure, and samplers of images in the size that their view gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import config_files, models, pictures, recipe, samplers
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import from_function
from jaxdistill.overrides import override, smoke
from jaxdistill.samplers import quality

SMALLER = ({"name": "resize", "size": 4}, {"name": "normalise", "mean": (0.5,), "std": (0.5,)})


def test_a_view_that_resizes_is_sampled_in_its_own_size(tmp_path):
    with jax.enable_x64(False):
        config = {**config_files.load("ict:small"), "mesh": {"data": 1}}
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
        assert recipe.write_student(tmp_path, plan, found)
        picture = pictures.samples(plan, plan.stage("student"), found)
    assert {rows.shape for rows in picture.data.values()} == {(pictures.SHOWN, 4, 4, 1)}


POINT = samplers.denoiser(from_linen(models.TimeMLP(width=4, depth=1)))
INPUTS = {"image": jnp.ones((1, 2)), "sigma": jnp.ones(1)}
CLASSIFIER = from_function(
    lambda key, x: ({}, {}), lambda params, state, x, train, rng: (x, {"raw": x}, state)
)
IMAGES = np.random.default_rng(0).normal(size=(24, 2)).astype(np.float32)
ROWS = [{"image": IMAGES, "label": np.zeros(24, int)}]


def of_density(**settings):
    return quality.density_quality(POINT, samplers.ring(classes=2), draws=64, **settings)


def of_images(**settings):
    read = {"read": "raw", "draws": 20, "fid": True}
    return quality.image_quality(POINT, ("classifier", CLASSIFIER), ROWS, **read, **settings)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (of_density, {}),
        (of_density, {"in_steps": (4, 1, 2)}),
        (of_density, {"in_steps": (3,), "label": 1, "solver": "heun"}),
        (of_density, {"in_steps": (1,), "scale": 2.0, "label": 0}),
        (of_images, {}),
        (of_images, {"in_steps": (1,), "against": ("teacher", quality.sampler(POINT), (1, 2))}),
    ],
)
def test_what_is_measured_is_what_is_said(make, settings):
    with jax.enable_x64(False):
        variables = POINT.init(jax.random.key(0), INPUTS)
        if "scale" in settings:
            settings = {**settings, "embedded": True}
        evaluator = make(**settings)
        found = evaluator(variables, {"classifier": ({}, {}), "teacher": variables}, ROWS)
    assert sorted(found) == sorted(evaluator.metrics)
    assert all(type(value) is float and np.isfinite(value) for value in found.values())
    if "rise" in found:
        one, two, four = (found[f"sliced_wasserstein_{n}"] for n in (1, 2, 4))
        np.testing.assert_allclose(found["rise"], max(two - one, four - two))
    if "fid_gain" in found:
        np.testing.assert_allclose(found["fid_gain"], 1 - found["fid_2"] / found["fid_1"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"solver": "hoin"}, "did you mean 'heun'"),
        ({"low": 1.0, "high": 0.5}, "low=1.0 must be above 0, and high=0.5 above it"),
        ({"middle": (1.0, 2.0)}, r"middle=\(1.0, 2.0\) must fall, from below high=80.0"),
        ({"middle": (90.0,)}, "from below high=80.0"),
    ],
)
def test_levels_that_do_not_fall_are_refused(settings, words):
    for make in (of_density, of_images):
        with pytest.raises(ValueError, match=words):
            make(**settings)
