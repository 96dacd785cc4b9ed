"""Published weights against what their own libraries answer, see goldens/pretrained/make.py."""

import json
import shutil
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from safetensors.numpy import load_file, save_file

from jaxdistill import models
from jaxdistill.language import Sampling, generate
from jaxdistill.models.decoder import Decoder
from jaxdistill.models.resnet import ResNet
from jaxdistill.net import from_linen
from jaxdistill.training.sharding import make_mesh, shardings

GOLDENS = Path(__file__).parents[1] / "goldens" / "pretrained"
NAMES = sorted(folder.name for folder in GOLDENS.iterdir() if (folder / "case.npz").exists())
# What is asked of a folder besides its weights: its outputs are hidden states, not an embedding.
CHANGES = {"bert": {"head": "none"}}
UNREAD = ("pooler.*",)


def opened(name, **settings):
    return models.load(GOLDENS / name, allow=UNREAD, **CHANGES.get(name, {}), **settings)


def case(name):
    return dict(np.load(GOLDENS / name / "case.npz"))


def answers(found, there, dtype=None):
    """The output and the hidden states of a network, and a mask of where they are compared."""
    module = found.module
    given = {key: there[key] for key in ("image", "tokens", "mask", "types") if key in there}
    if dtype is not None and "image" in given:
        given["image"] = given["image"].astype(dtype)
    where = there.get("mask")
    if "noise" in there:
        given["keep"] = np.argsort(there["noise"], axis=1)[:, :4]
    if isinstance(module, ResNet):
        taps = [f"stage_{i + 1}" for i in range(len(module.blocks))]
    elif isinstance(module, Decoder):
        del given["mask"]
        # The last state is published behind the norm.
        taps = [f"layers_{i}" for i in range(module.depth - 1)] + ["norm"]
    else:
        inside = "encoder/" if "image" in there else ""
        taps = [f"{inside}block_{i}" for i in range(module.depth)]
    apply = jax.jit(partial(found.net.apply, taps=tuple(taps)))
    forward = apply(found.params, found.state, given)
    out = forward.out["pixels"] if isinstance(forward.out, dict) else forward.out
    arrays = {f"hidden_{i}": forward.taps[tap] for i, tap in enumerate(taps)}
    return arrays | {"out": out}, where


def largest_error(mine, theirs, where):
    mine, theirs = np.asarray(mine, np.float32), np.asarray(theirs)
    if where is not None and theirs.shape[:2] == where.shape:
        mine, theirs = mine[where], theirs[where]
    return np.abs(mine - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_is_the_published_one(name):
    there, found = case(name), opened(name)
    arrays, where = answers(found, there)
    if name == "vit_model":  # without a head the output is what is pooled
        there["out"] = there.pop("out")[:, 0]
    assert sum(key.startswith("hidden") for key in there) == len(arrays) - 1
    for key, array in arrays.items():
        assert largest_error(array, there[key], where) < 1e-5, key


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16(name):
    there = case(name)
    # Decoders of Transformers in bfloat16 are up to 0.034 away from their own answers in float32.
    limit = 3e-2 if "tokens" in there and "ForCausalLM" in opened(name).architecture else 2e-2
    found = opened(name, dtype=jnp.bfloat16)
    found = found._replace(net=from_linen(found.module.clone(dtype=jnp.bfloat16)))
    arrays, where = answers(found, there, jnp.bfloat16)
    if name == "vit_model":
        there["out"] = there.pop("out")[:, 0]
    for key, array in arrays.items():
        assert largest_error(array, there[key], where) < limit, key


@pytest.mark.parametrize("name", NAMES)
def test_export_loses_nothing(name, tmp_path):
    found = models.load(GOLDENS / name, allow=UNREAD)
    variables = (found.params, found.state)
    models.export(tmp_path, found.architecture, found.module, variables)
    again = models.load(tmp_path)
    assert again.module == found.module
    assert jax.tree.structure((again.params, again.state)) == jax.tree.structure(variables)
    for mine, theirs in zip(jax.tree.leaves(again[1:3]), jax.tree.leaves(variables), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    there = load_file(GOLDENS / name / "model.safetensors")
    for key, tensor in load_file(tmp_path / "model.safetensors").items():
        key = key.replace("decoder.decoder_layers.", "decoder.decoder_encoder.layer.")
        np.testing.assert_array_equal(tensor, there.get(key, tensor))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["vit", "qwen3", "bert_classes"])
def test_sharded_over_eight_devices(name):
    mesh = make_mesh({"data": 2, "fsdp": 2, "model": 2})
    rules = (
        (r"(fc1|up_proj|gate_proj|qkv|q_proj)/kernel", (None, "model")),
        (r"(fc2|down_proj|proj|o_proj)/kernel", ("model", None)),
        (r"(words|embed_tokens)/embedding", (None, "fsdp")),
    )
    there = case(name)
    found = opened(name, shardings=partial(shardings, mesh, rules=rules))
    arrays, where = answers(found, there)
    cut = [leaf for leaf in jax.tree.leaves(found.params) if not leaf.is_fully_replicated]
    assert len(cut) >= 6
    for key, array in arrays.items():
        assert largest_error(array, there[key], where) < 1e-5, key


@pytest.mark.parametrize("name", ["vit", "qwen3"])
def test_scanned_and_rematerialised_blocks(name, tmp_path):
    """Stacks are put where the rules for stacks say, and written as the layers they are of."""
    there = case(name)
    plain = opened(name)
    mesh = make_mesh({"data": 4, "fsdp": 2})
    rules = ((r"(blocks|layers)/.*kernel", (None, "fsdp")),)
    cut = partial(shardings, mesh, rules=rules)
    found = opened(name, scan=True, remat=True, shardings=cut)
    leaves = jax.tree_util.tree_leaves_with_path(found.params)
    stacks = [x.sharding.spec for path, x in leaves if x.ndim == 3 and "kernel" in str(path[-1])]
    assert stacks
    assert set(stacks) == {PartitionSpec(None, "fsdp")}
    arrays, where = answers(found, there)
    assert largest_error(arrays["out"], there["out"], where) < 1e-5
    restored = models.unstack_blocks(found.params)
    for mine, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(plain.params), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    variables = (found.params, found.state)
    models.export(tmp_path, found.architecture, found.module, variables)
    own, theirs = (load_file(f / "model.safetensors") for f in (tmp_path, GOLDENS / name))
    assert own.keys() <= theirs.keys()
    for key in own:
        np.testing.assert_array_equal(own[key], theirs[key])


@pytest.mark.parametrize("name", ["vit", "mae", "resnet_a", "roberta_classes", "qwen3"])
def test_gradients_are_finite_one_by_one_too(name):
    there, found = case(name), opened(name)
    inputs = {key: there[key] for key in ("image", "tokens") if key in there}
    if "noise" in there:
        inputs["keep"] = np.argsort(there["noise"], axis=1)[:, :4]

    def squares(params, one):
        out = found.net.apply(params, found.state, jax.tree.map(lambda x: x[None], one)).out
        return sum(jnp.square(leaf).mean() for leaf in jax.tree.leaves(out))

    grads = jax.jit(jax.vmap(jax.grad(squares), (None, 0)))(found.params, inputs)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.isfinite(leaf).all(), path


@pytest.mark.parametrize("name", ["llama3", "mistral", "qwen2", "qwen3"])
def test_cached_writing_is_uncached_writing(name):
    found = opened(name)
    prompts, new = jnp.array([[3, 4, 5, 6], [7, 8, 0, 0]]), 64
    lengths = jnp.array([4, 2])
    written = jax.jit(
        lambda: generate(
            found.net,
            (found.params, found.state),
            prompts,
            lengths,
            jax.random.key(0),
            new=new,
            sampling=Sampling(temperature=0),
        )
    )()
    tokens = np.zeros((2, 4 + new), np.int32)
    tokens[:, :4] = prompts
    whole = jax.jit(lambda t: found.net.apply(found.params, found.state, t).out.argmax(-1))
    ends = np.array(lengths)
    for _ in range(new):
        following = np.asarray(whole(tokens))[np.arange(2), ends - 1]
        tokens[np.arange(2), ends] = following
        ends += 1
    np.testing.assert_array_equal(written.tokens, tokens)


def in_shards(folder, name, parts=3):
    """A golden folder whose weights lie in several files with an index."""
    shutil.copy(GOLDENS / name / "config.json", folder)
    tensors = load_file(GOLDENS / name / "model.safetensors")
    where = {key: f"model-{i % parts}.safetensors" for i, key in enumerate(sorted(tensors))}
    for file in set(where.values()):
        save_file({k: tensors[k] for k in tensors if where[k] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def test_shards(tmp_path):
    whole, found = opened("bert_tokens"), models.load(in_shards(tmp_path, "bert_tokens"))
    for mine, theirs in zip(
        jax.tree.leaves(found.params), jax.tree.leaves(whole.params), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_a_new_head():
    with pytest.raises(ValueError, match=r"of another shape: classifier.weight \(5, 16\)"):
        opened("vit", classes=7)
    found = models.load(GOLDENS / "vit", classes=7, allow=("new head",))
    assert found.new == ("params/head/kernel", "params/head/bias")
    assert found.params["head"]["kernel"].shape == (16, 7)
    assert np.std(found.params["head"]["kernel"]) > 0
    old = opened("vit")
    np.testing.assert_array_equal(
        found.params["encoder"]["cls_token"], old.params["encoder"]["cls_token"]
    )


def test_a_head_where_none_was_published():
    with pytest.raises(ValueError, match=r"2 missing: classifier\.weight; classifier\.bias"):
        models.load(GOLDENS / "vit_model", classes=7, allow=UNREAD)
    found = models.load(GOLDENS / "vit_model", classes=7, allow=(*UNREAD, "new head"))
    assert found.params["head"]["kernel"].shape == (16, 7)


def test_other_sizes_of_images():
    with pytest.raises(ValueError, match=r"position_embeddings \(1, 17, 16\)"):
        opened("vit", image_size=32)
    found = models.load(GOLDENS / "vit", image_size=32, allow=("resized positions",))
    old = opened("vit").params["encoder"]["pos_embed"]
    new = found.params["encoder"]["pos_embed"]
    np.testing.assert_array_equal(new[0], old[0])
    wanted = jax.image.resize(old[1:].reshape(4, 4, 16), (8, 8, 16), "bicubic").reshape(64, 16)
    np.testing.assert_allclose(new[1:], wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "qwen2", "bert_masked"])
def test_a_longer_vocabulary(name):
    with pytest.raises(ValueError, match="of another shape"):
        opened(name, vocabulary=40)
    found = models.load(GOLDENS / name, vocabulary=40, allow=("padded vocabulary",))
    there = case(name)
    arrays, where = answers(found, there)
    assert largest_error(arrays["out"][..., :31], there["out"], where) < 1e-5
    with pytest.raises(ValueError, match="of another shape"):
        models.load(GOLDENS / name, vocabulary=20, allow=("padded vocabulary",))


def copied(folder, name="vit", **changes):
    shutil.copytree(GOLDENS / name, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_what_does_not_fit_is_named_at_once(tmp_path):
    tensors = load_file(GOLDENS / "vit" / "model.safetensors")
    del tensors["vit.layernorm.weight"]
    tensors["vit.extra"] = np.zeros(3, np.float32)
    tensors["classifier.bias"] = np.zeros(4, np.float32)
    save_file(tensors, copied(tmp_path) / "model.safetensors")
    with pytest.raises(ValueError, match="do not fit") as refusal:
        models.load(tmp_path)
    for words in (
        "1 missing: vit.layernorm.weight",
        "1 of another shape: classifier.bias (4,), for params/head/bias (5,)",
        "1 left over: vit.extra (3,)",
        "'new head'",
    ):
        assert words in str(refusal.value)
    found = models.load(tmp_path, allow=("vit.*", "new head"))
    assert set(found.new) == {"params/encoder/norm/scale", "params/head/bias"}
    np.testing.assert_array_equal(found.params["encoder"]["norm"]["scale"], np.ones(16))


def test_the_config_is_of_another_width(tmp_path):
    with pytest.raises(ValueError, match=r"value\.weight \(16, 16\) and .*, for .* \(32, 96\)"):
        models.load(copied(tmp_path, hidden_size=32))


def test_files_that_are_no_weights(tmp_path):
    folder = copied(tmp_path)
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated, or no safetensors"):
        models.load(folder)
    file.write_bytes(b"\xff" * 64)
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated, or no safetensors"):
        models.load(folder)
    file.rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin, which would have to be unpickled"):
        models.load(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor"):
        models.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is not there"):
        models.load(folder)


def test_a_missing_shard(tmp_path):
    folder = in_shards(tmp_path, "llama")
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks the shard model-1\.safetensors"):
        models.load(folder)


def test_a_shard_of_another_model(tmp_path):
    folder = in_shards(tmp_path, "llama")
    shutil.copy(folder / "model-0.safetensors", folder / "model-1.safetensors")
    with pytest.raises(ValueError, match=r"model-1\.safetensors does not hold"):
        models.load(folder)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("vit", {"architectures": ["ViTForImageClasification"]}, "'ViTForImageClassification'"),
        ("vit", {"architectures": []}, "names no architecture"),
        ("vit", {"hidden_act": "gelo"}, "did you mean 'gelu'"),
        ("vit", {"qkv_bias": False}, "qkv_bias=False, and only True is implemented"),
        ("timm_vit", {"architecture": "vit_so400m_patch14_siglip_224"}, "is not implemented"),
        ("timm_vit", {"architecture": "convnext_tiny"}, "architecture of timm 'convnext_tiny'"),
        ("timm_resnet", {"architecture": "resnetv2_50"}, "'resnetv2_50' is not implemented"),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "'yarn'"),
        ("llama", {"attention_bias": True}, "attention_bias=True"),
        ("mae", {"decoder_intermediate_size": 16}, "only one factor for both"),
    ],
)
def test_configs_of_what_is_not_there(name, changes, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        models.load(copied(tmp_path, name, **changes))


def test_attributes_and_sizes_that_there_are_not():
    with pytest.raises(ValueError, match="'classes'"):
        models.load(GOLDENS / "vit", clases=3)
    with pytest.raises(ValueError, match="image_size is for nets that see images"):
        models.load(GOLDENS / "llama", image_size=32)


def test_exports_that_nobody_could_open(tmp_path):
    vit = models.ViT(patch=4, width=8, depth=1, heads=2)
    variables = from_linen(vit).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(ValueError, match="this net computes its own"):
        models.export(tmp_path / "a", "ViTForImageClassification", vit, variables)
    with pytest.raises(ValueError, match="'ViTForImageClassification'"):
        models.export(tmp_path / "b", "ViTForClassification", vit, variables)
    net = models.imagenet_resnet(18, 3, variant="d")
    with pytest.raises(ValueError, match="export this one for timm"):
        models.export(tmp_path / "c", "ResNetForImageClassification", net, ({}, {}))
    assert not list(tmp_path.iterdir())
