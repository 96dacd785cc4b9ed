"""A teacher of texts that is read from disk teaches what it teaches within the step."""

import json

import jax
import numpy as np
import pytest

from jaxdistill import recipe, registry
from jaxdistill.data import text
from jaxdistill.store import open_store

WORDS = ["abc abd", "hello", "", "a b c d e f g", "zz", "yes no yes"]
EVERY = {"codec": "top_k", "k": 257, "values": "float32", "missing": "sparse"}
DRAWS = {"codec": "sampled", "missing": "sparse"}


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": WORDS[i % 6] + str(i)}) for i in range(40)))
    return path


def config(lines, outputs=None, **distiller):
    net = {"net": "decoder", "width": 8, "depth": 1, "heads": 2}
    learns = {"name": "language_model"}
    taught = {**learns, "frozen": ("teacher",), "ce_weight": 0.5, **distiller}
    if outputs:
        taught["cached"] = {"outputs": {"out": outputs}}
    common = {
        "optimizer": {"name": "sgd", "learning_rate": 0.5}, "batch_size": 8, "steps": 3,
    }  # fmt: skip
    data = {"name": "json_lines", "path": str(lines), "length": 16, "pack": True}
    return {
        "title": "texts",
        "seed": 0,
        "data": {**data, "validation": 0.2, "test": 0.2},
        "recipe": ("teacher", "distil"),
        "stages": {
            "teacher": {"student": {**net, "width": 16}, "distiller": learns, **common},
            "distil": {"student": net, "distiller": taught, **common},
        },
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def test_it_teaches_what_a_live_teacher_does(lines, root, monkeypatch):
    def learnt(**settings):
        plan = recipe.plan(config(lines, **settings))
        return recipe.run(plan, root, quiet=True)["distil"].result[0]

    def close(a, b):
        np.testing.assert_allclose(a, b, atol=1e-5)

    live = learnt()
    jax.tree.map(close, live, learnt(outputs={"codec": "dense"}))
    jax.tree.map(close, live, learnt(outputs=EVERY, divergence={"missing": "renormalise"}))
    sampled = {"missing": "sampled"}
    drawn = learnt(outputs=DRAWS, divergence=sampled)
    apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), live, drawn)
    assert 1e-4 < max(jax.tree.leaves(apart)) < 0.3
    stores = [open_store(path) for path in (root / "caches").iterdir()]
    assert [store.manifest["identity"]["tokenizer"] for store in stores] == ["bytes"] * 3
    other = text.byte_tokenizer()._replace(fingerprint="other bytes")
    monkeypatch.setitem(registry.language.TOKENIZERS, "bytes", lambda context: other)
    with pytest.raises(ValueError, match=r"tokenizer: 'bytes' .* 'other bytes'"):
        learnt(outputs=DRAWS, divergence=sampled)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"writing": {"share": 1.0, "prompt": 3}}, "share is 1.0: no cache has read"),
        ({"divergence": {"name": "reverse_kl"}}, "'forward_kl' alone, not 'reverse_kl'"),
        ({"cached": {"output": {}}}, "'outputs'"),
    ],
)
def test_what_it_cannot_teach(lines, settings, words):
    given = config(lines, EVERY)
    given["stages"]["distil"]["distiller"] |= settings
    with pytest.raises(ValueError, match=words):
        recipe.plan(given)
