"""Adapters as students in configs: an image net that is run, a decoder and samplers that are
planned."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxdistill import config_files, lora, main, recipe
from jaxdistill.models import pretrained
from jaxdistill.overrides import override
from jaxdistill.presets.images import classifier
from jaxdistill.recipe.running import restore

VIT = {"net": "vit", "patch": 4, "width": 8, "depth": 1, "heads": 2}
ADAPTED = {"net": "lora", "base": "teacher", "at": ("attn", "fc1"), "rank": 2, "alpha": 4.0}


def test_a_run_leaves_adapters_and_a_student_with_all_in_its_weights(tmp_path):
    teacher = classifier(VIT, steps=3, warmup=1)
    student = {
        **classifier(ADAPTED, steps=3, warmup=1),
        "targets": {"stage": "teacher"},
    }
    student["objective"] = {"kd": {"loss": "hinton_kd", "weight": 1.0}}
    config = {
        "data": {"name": "digits"},
        "recipe": ("teacher", "student"),
        "stages": {"teacher": teacher, "student": student},
    }
    main.run(config, str(tmp_path), quiet=True)
    found = restore(tmp_path)
    assert set(found.params) == {"own", "base"}
    base = restore(tmp_path, "teacher")
    (stage,) = found.params["base"]
    jax.tree.map(np.testing.assert_array_equal, found.params["base"][stage][0], base.params)
    images = np.linspace(0, 1, 2 * 64, dtype="float32").reshape(2, 8, 8, 1)
    weights = lora.merged(base.params, found.params["own"], 2.0)
    ours = found.net.apply(found.params, found.state, images).out
    np.testing.assert_allclose(
        ours, base.net.apply(weights, base.state, images).out, rtol=1e-4, atol=1e-5
    )
    written = load_file(tmp_path / "student" / "model.safetensors")
    assert any(
        array.shape == (24, 8)
        and np.allclose(array.T, weights["encoder"]["block_0"]["attn"]["qkv"]["kernel"])
        for array in written.values()
    )
    # The adapters alone, for peft on the teacher as Transformers opens it.
    folder = recipe.export_adapters(tmp_path, tmp_path / "adapter")
    said = json.loads((folder / lora.CONFIG).read_text())
    assert (said["r"], said["lora_alpha"]) == (2, 4.0)
    names = load_file(folder / "adapter_model.safetensors")
    first = "base_model.model.vit.layers.0.attention.q_proj.lora_A.weight"
    assert first in names, sorted(names)
    net = lora.Published(*positioned(base), "ViTForImageClassification")
    again = lora.load_adapters(folder, net)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6),
        lora.merged(base.params, again, 1.0),
        weights,
    )
    with pytest.raises(ValueError, match="is there already"):
        recipe.export_adapters(tmp_path, folder)


def positioned(base):
    """A net and its variables with positions as arrays, as they are published."""
    return pretrained.with_positions(base.module, (base.params, base.state), (8, 8, 1))


def test_a_run_without_adapters_has_none_to_export(tmp_path):
    stages = {"student": classifier({"net": "mlp", "widths": (4,)}, steps=2, warmup=1)}
    config = {"data": {"name": "digits"}, "recipe": ("student",), "stages": stages}
    main.run(config, str(tmp_path), quiet=True)
    with pytest.raises(ValueError, match="no adapters, as its net is 'mlp'"):
        recipe.export_adapters(tmp_path, tmp_path / "adapter", style="diffusers")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    ("name", "base", "stage", "at"),
    [
        ("distillspec:small", "draft", "distil", ("_proj",)),
        ("dmd2:mixture", "fit", "student", ("block", "head")),
        ("dmd2:small", "teacher", "student", ("block",)),
    ],
)
def test_other_kinds_of_distillation_take_them_as_well(name, base, stage, at):
    config = config_files.load(name)
    changes = {
        f"stages.{stage}.initial": None,
    }
    # As on the command line.
    said = f"{{'net': 'lora', 'base': {base!r}, 'at': {at!r}, 'rank': 2}}"
    config = override(config_files.changed(config, [f"stages.{stage}.student={said}"]), changes)
    plan = recipe.resolve(config)
    planned = plan.stage(stage)
    assert base in planned.needs
    traced = recipe.plan(config).traced[stage]
    own = traced.result[0]["own"]
    assert {path[-1] for path in lora.trees.pairs(own)} == {"kernel"}
    frozen = jax.tree.leaves(dict(traced.stage.frozen)[base])
    assert lora.numbers(own) < 0.2 * sum(leaf.size for leaf in frozen)


def test_patterns_without_a_path_are_refused_at_planning():
    stages = {
        "teacher": classifier(VIT, steps=3, warmup=1),
        "student": classifier({**ADAPTED, "at": ("atn",)}, steps=3, warmup=1),
    }
    config = {"data": {"name": "digits"}, "recipe": tuple(stages), "stages": stages}
    with pytest.raises(ValueError, match=r"'student'.*unknown path of kernels.*'atn'.*attn"):
        recipe.plan(config)


@pytest.mark.parametrize("parts", [{"encoder": "own/encoder"}, {"": "own"}])
def test_a_later_stage_goes_on_with_adapters(parts):
    stages = {
        "teacher": classifier(VIT, steps=3, warmup=1),
        "first": classifier(ADAPTED, steps=3, warmup=1),
        "second": classifier(ADAPTED, steps=3, warmup=1),
    }
    stages["second"]["initial"] = {"stage": "first", "parts": parts}
    config = {"data": {"name": "digits"}, "recipe": tuple(stages), "stages": stages}
    traced = recipe.plan(config).traced["second"]
    assert set(traced.result[0]) == {"own", "base"}
    (started, _) = traced.stage.initial["initial"]
    assert jax.tree.structure(started) == jax.tree.structure(traced.result[0]["own"])
