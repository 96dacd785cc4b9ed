"""Adapters in files: as peft wrote them, and as it opens them; see goldens/adapters/make.py."""

import importlib.util
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import case as asked
from published import largest_error, opened
from safetensors.numpy import load_file, save_file

from jaxdistill import from_linen, lora, models

ADAPTERS = Path(__file__).parent / "goldens" / "adapters"
NAMES = sorted(folder.name for folder in ADAPTERS.iterdir() if folder.is_dir())


def network(name, **settings):
    found = opened(name, **settings)
    return found, lora.Published(found.module, (found.params, found.state), found.architecture)


def answered(found, adapters, there):
    weights = lora.merged(found.params, adapters, 1.0)
    given = {key: there[key] for key in ("image", "tokens") if key in there}
    out = jax.jit(found.net.apply)(weights, found.state, given).out
    return out["text_embedding"] if isinstance(out, dict) else out


@pytest.mark.parametrize("name", NAMES)
def test_what_peft_wrote_answers_as_there(name, tmp_path):
    found, net = network(name)
    adapters = lora.load_adapters(ADAPTERS / name, net)
    there = np.load(ADAPTERS / name / "case.npz")["out"]
    assert largest_error(answered(found, adapters, asked(name)), there) < 1e-5
    assert (
        largest_error(answered(found, jax.tree.map(jnp.zeros_like, adapters), asked(name)), there)
        > 1e-2
    )
    # Written again they have the same names and shapes, of the same product.
    lora.save_adapters(tmp_path, adapters, 1.0, net)
    mine = load_file(tmp_path / "adapter_model.safetensors")
    theirs = load_file(ADAPTERS / name / "adapter_model.safetensors")
    said = [json.loads((path / lora.CONFIG).read_text()) for path in (tmp_path, ADAPTERS / name)]
    assert set(theirs) <= set(mine)
    assert said[0]["fan_in_fan_out"] == said[1]["fan_in_fan_out"]
    assert said[0]["peft_type"] == said[1]["peft_type"] == "LORA"
    assert {mine[key].ndim - theirs[key].ndim for key in theirs} == {0}


@pytest.mark.parametrize("style", ["peft", "diffusers"])
@pytest.mark.parametrize("name", ["llama", "vit", "gpt2"])
def test_what_is_written_is_read_again(name, style, tmp_path):
    found, net = network(name, scan=True)
    at = ("attn", "mlp", "embed_tokens" if name == "llama" else "attn")
    drawn = lora.start(jax.random.key(0), found.params, at=at, rank=2)
    drawn = jax.tree.map(lambda x: x + 0.1, drawn)
    lora.save_adapters(tmp_path, drawn, 1.5, net, style=style)
    again = lora.load_adapters(tmp_path, net)
    for key, pair in lora.trees.pairs(drawn).items():
        own = lora.trees.pairs(again)[key]
        np.testing.assert_array_equal(own["down"], pair["down"])
        np.testing.assert_allclose(own["up"], 1.5 * pair["up"], rtol=1e-6)
    assert jax.tree.structure(again) == jax.tree.structure(drawn)


def test_nets_without_a_published_form_have_their_paths_as_names(tmp_path):
    module = models.UNet(width=8, multipliers=(1,), depth=1, attention=(4,))
    shapes = jax.eval_shape(
        from_linen(module).init,
        jax.random.key(0),
        {"image": jnp.ones((1, 4, 4, 1)), "time": jnp.ones(1)},
    )
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[0])
    drawn = lora.start(jax.random.key(0), params, at=("conv", "qkv"), rank=2)
    net = lora.Published(module, shapes, "jaxdistill")
    lora.save_adapters(tmp_path, drawn, 1.0, net, style="diffusers", prefix="unet")
    names = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    assert names["unet.down_0_0.conv_0.lora_A.weight"].shape == (2, 8, 3, 3)
    assert names["unet.down_0_0.conv_0.lora_B.weight"].shape == (8, 2, 1, 1)
    again = lora.load_adapters(tmp_path, net, prefix="unet")
    jax.tree.map(np.testing.assert_array_equal, again, drawn)
    with pytest.raises(ValueError, match=r"'unet\..*belong to no layer"):
        lora.load_adapters(tmp_path, net)


def changed(folder, **changes):
    path = folder / lora.CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_is_no_low_rank_pair_of_the_net_is_refused(tmp_path):
    _, net = network("llama")
    folder = tmp_path / "there"
    shutil.copytree(ADAPTERS / "llama", folder)
    with pytest.raises(FileNotFoundError, match="no adapters: neither adapter_model"):
        lora.load_adapters(tmp_path, net)
    for key, value in (("use_dora", True), ("bias", "all"), ("peft_type", "IA3")):
        kept = json.loads((folder / lora.CONFIG).read_text())
        changed(folder, **{key: value})
        with pytest.raises(ValueError, match=f"{key}={value!r}, and only"):
            lora.load_adapters(folder, net)
        changed(folder, **kept)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    first = sorted(tensors)[0]
    save_file({**tensors, "base_model.model.other.lora_A.weight": tensors[first]}, file)
    with pytest.raises(
        ValueError, match=r"'base_model\.model\.other.*no layer of a LlamaForCausalLM"
    ):
        lora.load_adapters(folder, net)
    save_file({key: value for key, value in tensors.items() if key != first}, file)
    with pytest.raises(ValueError, match=r"without|belong to no layer"):
        lora.load_adapters(folder, net)
    save_file({**tensors, first: tensors[first][:, :-1]}, file)
    with pytest.raises(ValueError, match="are not for a kernel of"):
        lora.load_adapters(folder, net)
    with pytest.raises(ValueError, match="unknown style of adapters 'pfet': did you mean 'peft'"):
        lora.save_adapters(tmp_path, {}, 1.0, net, style="pfet")
    found, images = network("vit")
    places = lora.start(jax.random.key(0), found.params, at=("pos_embed",), rank=1)
    with pytest.raises(ValueError, match="encoder/pos_embed is no weight of a layer in ViTFor"):
        lora.save_adapters(tmp_path, places, 1.0, images)
    other = {
        "layers_7": {
            "mlp": {"up_proj": {"kernel": {"down": np.ones((2, 1)), "up": np.ones((1, 2))}}}
        }
    }
    with pytest.raises(ValueError, match="unknown kernel that adapters are for 'layers_7"):
        lora.save_adapters(tmp_path, other, 1.0, net)


def test_peft_opens_what_is_written(tmp_path):
    pytest.importorskip("peft")
    spec = importlib.util.spec_from_file_location("make", ADAPTERS / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    for name in NAMES:
        found, net = network(name)
        drawn = lora.start(jax.random.key(0), found.params, at=("attn", "mlp"), rank=2)
        drawn = jax.tree.map(lambda x: x + 0.1, drawn)
        lora.save_adapters(tmp_path / name, drawn, 1.5, net)
        there = make.answer(name, tmp_path / name)
        scaled = lora.together(found.params, [(drawn, 1.5)])
        assert largest_error(answered(found, scaled, asked(name)), there) < 1e-5, name
