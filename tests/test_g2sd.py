"""G2SD by values: a decoder tapped one block off, a token in a wrong place, a teacher that sees
another image than the student would not show in the accuracy."""

import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import config_files, models, recipe, registry
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models.blocks import Block
from jaxdistill.models.pretrained.exporting import with_positions
from jaxdistill.overrides import override, smoke


def config(size):
    return config_files.load(f"g2sd:{size}")


def seen(masked):
    image = jnp.zeros((1, 8, 8, 1))
    return {"image": image, "keep": jnp.zeros((1, 4), jnp.int32)} if masked else image


@pytest.fixture(scope="module")
def plan():
    return recipe.plan({**config("small"), "mesh": {"data": 1}})


def one_step(plan, name, teacher, masked):
    """A step of a stage: what it reported, its state and batch before, and its teacher."""
    planned, other = plan.stage(name), plan.stage(teacher)
    results = {teacher: jax.jit(other.net.init)(jax.random.key(7), seen(masked))}
    if planned.settings["initial"]:
        start = plan.stage("generic")
        results["generic"] = jax.jit(start.net.init)(jax.random.key(8), seen(True))
    stage = recipe.stage_of(plan, planned, results)
    batch = {key: value[:16] for key, value in stage.data.at(0).items()}
    init = jax.jit(stage.distiller.init)
    state = init(jax.random.key(0), {**stage.frozen, **stage.initial}, batch)
    _, metrics = jax.jit(stage.distiller.step)(state, stage.frozen, batch)
    # The step draws its view from the first of three keys of this one.
    key = jax.random.split(jax.random.fold_in(state.key, 0), 3)[0]
    batch = jax.jit(registry.view(planned.settings["view"], planned.info))(batch, key)
    taught = partial(other.net.apply, *results[teacher])
    return state, batch, taught, {name: float(a / b) for name, (a, b) in metrics.items()}


def normed(x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def gelu(x):
    return np.asarray(jax.nn.gelu(x, approximate=False))


def test_the_generic_term_is_that_of_the_paper(plan):
    """All tokens behind a head of two layers, against the decoder in its middle, for one mask."""
    state, batch, teacher, metrics = one_step(plan, "generic", "teacher", masked=True)
    np.testing.assert_array_equal(batch["student"]["keep"], batch["teacher"]["keep"])
    places = [*(f"decoder/block_{i}" for i in range(4)), "decoder/norm"]
    theirs = jax.device_get(jax.jit(partial(teacher, taps=places))(batch["teacher"]).taps)
    student = partial(plan.stage("generic").net.apply, taps=("decoder/block_1",))
    own = (state.params["net"], state.state["net"])
    ours = np.asarray(jax.jit(student)(*own, batch["student"]).taps["decoder/block_1"])
    head = jax.device_get(state.params["objective"]["features"])
    units = gelu(ours @ head["fc1"]["kernel"] + head["fc1"]["bias"])
    predicted = units @ head["fc2"]["kernel"] + head["fc2"]["bias"]
    for place in places:
        gap = np.abs(predicted - normed(theirs[place]))
        assert gap.shape == (16, 17, 32)
        value = np.where(gap < 2, gap**2 / 4, gap - 1).mean()
        if place == "decoder/block_1":
            assert metrics["features"] == pytest.approx(value, rel=1e-4)
        else:  # a tap one block off would be seen
            assert abs(metrics["features"] - value) > 1e-3 * value


def test_the_specific_terms_are_those_of_the_paper(plan):
    """Mixed labels at one head, at the other the class that the teacher gives to the mixed
    image."""
    state, batch, teacher, metrics = one_step(plan, "specific", "tutor", masked=False)
    np.testing.assert_array_equal(batch["student"], batch["teacher"])
    shares = np.asarray(batch["soft_label"])
    assert (np.sort(shares, -1)[:, -2] > 0.02).any()  # two are mixed
    student = partial(plan.stage("specific").net.apply, taps=("head", "head_distilled"))
    own = (state.params["net"], state.state["net"])
    forward = jax.device_get(jax.jit(student)(*own, batch["student"]))
    first, second = forward.taps["head"], forward.taps["head_distilled"]
    np.testing.assert_allclose(forward.out, (first + second) / 2, atol=1e-6)
    soft = -(shares * np.asarray(jax.nn.log_softmax(first))).sum(-1).mean()
    best = np.argmax(jax.jit(teacher)(batch["teacher"]).out, -1)
    hard = -np.asarray(jax.nn.log_softmax(second))[np.arange(16), best].mean()
    assert metrics["labels"] == pytest.approx(soft, rel=1e-4)
    assert metrics["teacher"] == pytest.approx(hard, rel=1e-4)
    assert metrics["loss"] == pytest.approx((soft + hard) / 2, rel=1e-4)


@pytest.mark.parametrize("positions", ["sincos", "fixed"])
def test_a_distillation_token_takes_the_published_positions(positions):
    """Class token and patches stand where they stood, and it stands nowhere."""
    encoder = models.Encoder(
        patch=4, width=8, depth=1, heads=2, positions=positions, distillation_token=True
    )
    image = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1))
    variables = jax.jit(encoder.init)(jax.random.key(1), image)
    params = jax.device_get(variables["params"])
    places = models.sincos_positions(8, (2, 2), cls_token=True)
    if positions == "fixed":  # an array of a published one fits
        assert variables["constants"]["pos_embed"].shape == (5, 8)
        places = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
        variables = {"params": params, "constants": {"pos_embed": jnp.asarray(places)}}
    embed = params["patch_embed"]
    patches = np.asarray(models.patchify(image, 4)) @ embed["kernel"] + embed["bias"] + places[1:]
    front = [params["cls_token"] + places[0], params["distillation_token"]]
    front = [np.broadcast_to(token, (2, 1, 8)) for token in front]
    tokens = np.concatenate([*front, patches], axis=1)
    tokens = Block(heads=2).apply({"params": params["block_0"]}, tokens)
    found = jax.jit(encoder.apply)(variables, image)
    assert found.shape == (2, 6, 8)
    expected = normed(np.asarray(tokens)) * params["norm"]["scale"] + params["norm"]["bias"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_such_a_token_is_published_with_a_position_of_zeros(tmp_path):
    sizes = {"patch": 4, "width": 8, "depth": 1, "heads": 2, "classes": 3}
    module = models.ViT(**sizes, distillation_token=True)
    image = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    variables = from_linen(module).init(jax.random.key(0), image)
    there, given = with_positions(module, variables, (8, 8, 1))
    assert (there.positions, given[0]["encoder"]["pos_embed"].shape) == ("learned", (6, 8))
    ours, theirs = (
        jax.jit(from_linen(net).apply)(*own, image).out
        for net, own in ((module, variables), (there, given))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    module = module.clone(positions="fixed")
    variables = from_linen(module).init(jax.random.key(0), image)
    with pytest.raises(ValueError, match="has a position for its distillation token"):
        models.export(tmp_path, "DeiTForImageClassificationWithTeacher", module, variables)


def test_rates_fall_from_block_to_block(plan):
    """The factors of the published code for its layers, of a token that is new the whole rate."""
    stage = plan.stage("specific")
    rates = stage.settings["optimizer"]["rates"]
    paths = {
        "patch_embed/kernel": 0.75**4,
        "cls_token": 0.75**4,
        "block_0/attn/qkv/kernel": 0.75**3,
        "block_2/mlp/fc1/bias": 0.75,
        "norm/scale": 1.0,
        "distillation_token": 1.0,
    }
    sgd = {"name": "sgd", "learning_rate": 1.0, "rates": rates}
    params = {"net": jax.eval_shape(stage.net.init, jax.random.key(0), seen(False))[0]}
    params = jax.tree.map(lambda x: jnp.zeros(x.shape), params)
    tx = registry.transformation(sgd, 10)
    updates = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)[0]["net"]
    for path, rate in paths.items():
        found = updates["encoder"]
        for key in path.split("/"):
            found = found[key]
        np.testing.assert_allclose(found, -rate, rtol=1e-6)
    np.testing.assert_allclose(updates["head_distilled"]["bias"], -1.0)


def published_teacher(folder):
    module = models.MAE(
        patch=2,
        width=16,
        depth=2,
        heads=2,
        decoder_width=8,
        decoder_depth=2,
        decoder_heads=2,
        positions="fixed",
    )
    models.export(
        folder,
        "ViTMAEForPreTraining",
        module,
        from_linen(module).init(jax.random.key(3), seen(True)),
    )
    return folder


def generic_from(folder):
    changes = {
        "recipe": ("teacher", "generic"),
        "stages.teacher.checkpoint": str(folder),
        "mesh": {"data": 1},
    }
    return smoke(override(config("small"), changes))


def test_a_teacher_without_its_decoder_is_refused_by_name(tmp_path):
    from safetensors.numpy import load_file, save_file

    whole = published_teacher(tmp_path / "whole")
    recipe.plan(generic_from(whole))
    for name in ("lost", "encoder"):
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        (folder / "checksums.json").unlink(missing_ok=True)
        weights = load_file(folder / "model.safetensors")
        kept = {key: value for key, value in weights.items() if not key.startswith("decoder.")}
        save_file(kept, folder / "model.safetensors")
    said = json.loads((tmp_path / "encoder" / "config.json").read_text())
    said["architectures"] = ["ViTMAEModel"]
    (tmp_path / "encoder" / "config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match="'ViTMAEModel' is a masked autoencoder without its dec"):
        recipe.plan(generic_from(tmp_path / "encoder"))
    with pytest.raises(ValueError, match=r"missing: decoder\.decoder_embed\.weight"):
        recipe.run(recipe.plan(generic_from(tmp_path / "lost")), tmp_path / "run", quiet=True)
    net = {"net": "vit", "patch": 2, "width": 16, "depth": 2, "heads": 2}
    labels = {"labels": {"loss": "cross_entropy", "target": "batch/label"}}
    vit = {"student": net, "objective": labels, "view": None, "pictures": None}
    changes = {f"stages.teacher.{key}": value for key, value in vit.items()}
    with pytest.raises(ValueError, match="unknown tap 'decoder/block_1'"):
        recipe.plan(override(generic_from(""), changes))


def test_the_published_config_is_that_of_the_paper():
    published = config("")
    generic, specific = (published["stages"][name] for name in ("generic", "specific"))
    term = generic["objective"]["features"]
    assert list(generic["objective"]) == ["features"]
    assert (term["student"], term["target"]) == ("decoder/block_3", "decoder/block_3")
    assert (term["distance"], term["beta"], term["sides"]) == ("smooth_l1", 2.0, "teacher")
    assert (generic["student"]["decoder_width"], generic["student"]["decoder_depth"]) == (256, 4)
    assert published["stages"]["teacher"]["student"]["decoder_depth"] == 8
    assert generic["view"]["mask"] == {"patch": 16, "ratio": 0.75, "shared": True}
    assert generic["optimizer"]["learning_rate"]["peak"] == pytest.approx(1.5e-4 * 4096 / 256)
    assert specific["student"]["pool"] == "cls"
    assert specific["student"]["distillation_token"]
    assert specific["optimizer"]["learning_rate"]["peak"] == pytest.approx(1e-3 * 1024 / 256)
    assert specific["optimizer"]["rates"][11] == (r"^net/encoder/block_11/", 0.75)
    assert specific["view"]["mix"] == {"name": "mixup_or_cutmix", "smoothing": 0.1}
    nkd = config("nkd")["stages"]["specific"]
    assert nkd["objective"]["nkd"]["non_target_weight"] == 1.0
    assert not nkd["student"]["distillation_token"]
