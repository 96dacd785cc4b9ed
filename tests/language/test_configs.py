"""The published sizes as their configs say them, on shapes: every name, every rule of sharding."""

import json
import math

import jax
import pytest

from jaxdistill import config_files, recipe
from jaxdistill.overrides import override
from jaxdistill.training.sharding import make_mesh, shardings

# Llama 2 7B and TinyLlama, Qwen 1.5 14B and 1.8B, MiniMA's teacher and a student of its sizes.
BILLIONS = {
    "distillspec": {"target": 6.74, "draft": 1.1, "distil": 1.1},
    "ddk": {"teacher": 14.2, "student": 1.84, "distil": 1.84},
    "capacity_gap": {"teacher": 6.74, "student": 2.9},
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Two files of texts, and a tokenizer of as many tokens as Llama 2's and as Qwen 1.5's."""
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("texts")
    rows = [{"prompt": "w1 w2", "completion": f"w{i}", "text": "w3 " * 1000} for i in range(100)]
    for name in ("a", "b"):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for size in (32_000, 151_936):
        ends = ("</s>", "<|endoftext|>")
        words = {**{f"w{i}": i for i in range(size - 2)}, ends[0]: size - 2, ends[1]: size - 1}
        made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
        made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        (folder / str(size)).mkdir()
        made.save(str(folder / str(size) / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("name", BILLIONS)
def test_the_published_sizes_are_planned(name, texts):
    given = {"dir": str(texts)} if name == "ddk" else {"path": str(texts / "a.jsonl")}
    size = 151_936 if name == "ddk" else 32_000
    given |= {"tokenizer.path": str(texts / str(size)), "validation": 0.1}
    given |= {"test": 0.0} if name != "distillspec" else {}
    changes = {f"data.{key}": value for key, value in given.items()}
    config = override(config_files.load(name), changes)
    plan = recipe.plan(config)
    mesh, tokens = make_mesh(config["mesh"]), jax.ShapeDtypeStruct((1, 8), "int32")
    for stage, billions in BILLIONS[name].items():
        params, _ = jax.eval_shape(plan.stage(stage).net.init, jax.random.key(0), tokens)
        leaves = jax.tree.leaves(params)
        assert abs(sum(leaf.size for leaf in leaves) / 1e9 / billions - 1) < 0.02
        assert len(leaves) < 20, "layers are not stacked"
        where = jax.tree.leaves(shardings(mesh, params, config["rules"]))
        for leaf, sharding in zip(leaves, where, strict=True):
            share = math.prod(sharding.shard_shape(leaf.shape)) / leaf.size
            assert share == 1 / mesh.size or leaf.size < 1e6
