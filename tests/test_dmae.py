"""DMAE by values: accuracy notices no unnormalised or lost loss, and no tap one block off."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import config_files, recipe, registry
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models import MAE, export, masking
from jaxdistill.overrides import override, smoke

WEIGHT = 30.0


def config(size):
    return config_files.load(f"mae_vitb:{size}")


@pytest.fixture(scope="module")
def step():
    """One step of the small config: what it reported, and all that went in."""
    plan = recipe.plan({**config("small"), "mesh": {"data": 1}})
    teacher = plan.stages[0].net
    seen = {"image": jnp.zeros((1, 8, 8, 1)), "keep": jnp.zeros((1, 4), jnp.int32)}
    frozen = {"teacher": jax.jit(teacher.init)(jax.random.key(7), seen)}
    stage = recipe.stage_of(plan, plan.stages[1], frozen)
    batch = {key: value[:16] for key, value in stage.data.at(0).items()}
    state = jax.jit(stage.distiller.init)(jax.random.key(0), frozen, batch)
    _, metrics = jax.jit(stage.distiller.step)(state, frozen, batch)
    # The step draws its view from the first of three keys of this one; the mask is the second part
    # of the view, and the student's the first of two keys.
    key = jax.random.split(jax.random.fold_in(state.key, 0), 3)[0]
    mask_key = jax.random.split(jax.random.fold_in(key, 1))[0]
    keep, mask = masking.random_masking(mask_key, 16, 16, 0.75)
    inputs = {"image": jnp.asarray(batch["image"]), "keep": keep}
    blocks = [f"encoder/block_{i}" for i in range(4)]
    theirs = jax.jit(partial(teacher.apply, taps=blocks))(*frozen["teacher"], inputs)
    student = partial(plan.stages[1].net.apply, taps=blocks[:3], train=True)
    ours = jax.jit(student)(state.params["net"], state.state["net"], inputs, rng=key)
    projector = dict(_leaves(jax.device_get(state.params["objective"]["features"])))
    patches = masking.patchify(inputs["image"], 2)
    seen = jax.device_get((ours, theirs, patches, mask, projector))
    return plan, seen, {name: float(a / b) for name, (a, b) in metrics.items()}


def features(step, student="encoder/block_1", teacher="encoder/block_2", normalise=True):
    """The feature term of the paper, written out with numpy."""
    ours, theirs, _, _, projector = step[1]
    pair = [ours.taps[student] @ projector["kernel"] + projector["bias"], theirs.taps[teacher]]
    if normalise:
        pair = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in pair]
    return np.abs(pair[0] - pair[1]).mean()


def _leaves(tree):
    for key, value in tree.items():
        yield from _leaves(value) if isinstance(value, dict) else [(key, value)]


def test_both_terms_have_the_published_values(step):
    ours, _, patches, mask, _ = step[1]
    error = ((ours.out["pixels"] - patches) ** 2).mean(-1)
    pixels = (error * mask).sum() / mask.sum()
    metrics = step[-1]
    assert metrics["pixels"] == pytest.approx(pixels, rel=1e-4)
    assert metrics["features"] == pytest.approx(features(step), rel=1e-4)
    assert metrics["loss"] == pytest.approx(pixels + WEIGHT * features(step), rel=1e-4)


def test_features_that_are_not_normalised_would_be_seen(step):
    assert abs(features(step, normalise=False) - features(step)) > 0.01 * features(step)


@pytest.mark.parametrize(
    "blocks",
    [
        ("encoder/block_0", "encoder/block_2"),
        ("encoder/block_2", "encoder/block_2"),
        ("encoder/block_1", "encoder/block_1"),
        ("encoder/block_1", "encoder/block_3"),
    ],
)
def test_a_tap_one_block_off_would_be_seen(step, blocks):
    assert abs(features(step, *blocks) - step[-1]["features"]) > 1e-3 * step[-1]["features"]


def test_masks_apart_give_the_teacher_other_patches(step):
    plan = step[0]
    apart = override(plan.config, {"stages.distil.view.mask.shared": False})
    info = plan.stages[0].data["train"].info
    for settings, same in ((plan.config, True), (apart, False)):
        view = registry.view(settings["stages"]["distil"]["view"], info)
        batch = view({"image": np.zeros((4, 8, 8, 1), np.float32)}, jax.random.key(0))
        keep = [np.asarray(batch[side]["keep"]) for side in ("student", "teacher")]
        assert np.array_equal(*keep) == same


def test_the_published_config_is_that_of_the_paper():
    """Three quarters of the depth of both, 0-based; weight 1; 4096 images a step."""
    published = config("")
    distil = published["stages"]["distil"]
    term = distil["objective"]["features"]
    assert (term["student"], term["target"]) == ("encoder/block_8", "encoder/block_17")
    assert term["weight"] == 1.0
    assert distil["batch_size"] == 4096
    assert distil["optimizer"]["learning_rate"]["peak"] == pytest.approx(1.5e-4 * 4096 / 256)
    assert (distil["optimizer"]["b2"], distil["optimizer"]["weight_decay"]) == (0.95, 0.05)
    assert distil["student"]["depth"] == 12
    assert published["stages"]["teacher"]["student"]["depth"] == 24


def test_a_published_masked_autoencoder_teaches(tmp_path):
    given = {"patch": 2, "width": 16, "depth": 4, "heads": 2}
    module = MAE(**given, decoder_width=8, decoder_depth=1, decoder_heads=2, positions="fixed")
    seen = {"image": jnp.zeros((1, 8, 8, 1)), "keep": jnp.zeros((1, 4), jnp.int32)}
    params, state = from_linen(module).init(jax.random.key(3), seen)
    export(tmp_path / "published", "ViTMAEForPreTraining", module, (params, state))
    changes = {
        "recipe": ("teacher", "distil"),
        "stages.teacher.checkpoint": str(tmp_path / "published"),
        "stages.distil.evaluate": None,
        "mesh": {"data": 1},
    }
    plan = recipe.plan(smoke(override(config("small"), changes)))
    found = recipe.run(plan, tmp_path / "run", quiet=True)
    for mine, theirs in zip(
        jax.tree.leaves(found["teacher"].result), jax.tree.leaves((params, state)), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    assert found["distil"].metrics[-1]["features"] > 0
