"""Sentences encoded apart: what is cut out of a pair, what is pooled, and all against all."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxdistill.data.sentences import Sentences, encoded
from jaxdistill.data.text import byte_tokenizer
from jaxdistill.models import SentencePair, TextEncoder, apart, compared, pair_features
from jaxdistill.models.text_encoder import mean_of_text
from jaxdistill.training.sharding import make_mesh

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"


def _golden(name):
    with np.load(GOLDENS / f"{name}.npz") as file:
        stored = {key: file[key] for key in file.files}
    assert json.loads(str(stored["meta"]))["case"] == name
    origin = (GOLDENS / "ORIGIN.md").read_text()
    assert f"| {name} |" in origin
    return stored


def _compare(function, stored, *names):
    """Values and the gradients of their sum, in float64."""
    with jax.enable_x64(True):
        inputs = {name: jnp.asarray(stored[f"in__{name}"], jnp.float64) for name in names}
        out = function(**inputs)
        np.testing.assert_allclose(out, stored["out__out"], rtol=1e-12, atol=1e-12)
        grads = jax.grad(lambda given: function(**given).sum())(inputs)
        for name in names:
            if f"grad__{name}" in stored:
                wanted = stored[f"grad__{name}"]
                np.testing.assert_allclose(grads[name], wanted, rtol=1e-12, atol=1e-12)


def test_pooling_is_the_published_one():
    stored = _golden("dse_pooler")
    mask = jnp.asarray(stored["in__mask"], bool)

    def pooled(**layers):
        return mean_of_text(jnp.concatenate(list(layers.values()), -1), mask, first=False)

    _compare(pooled, stored, "h2", "h3", "h4", "h5")


def test_features_of_a_pair_are_the_published_ones():
    def features(u, v):
        return pair_features(u, v)

    _compare(features, _golden("dse_pair_features"), "u", "v")


def _encoder(**settings):
    own = {"width": 8, "depth": 3, "heads": 2, "positions": 32, "head": "sentence", "top": 2}
    return TextEncoder(vocabulary=257, first=False, **{**own, **settings})


PAIRS = [("ab", "cde"), ("a longer text", "x"), ("same", "same")]


def _records(pairs=PAIRS, length=24):
    first, second = zip(*pairs, strict=True)
    labels = np.zeros(len(pairs), np.float32)
    given = Sentences("pairs", first, labels, second)
    found = encoded(given, byte_tokenizer(), length).gather(np.arange(len(pairs)))
    return {key: jnp.asarray(found[key]) for key in ("tokens", "mask", "types")}


def _alone(texts, length=24):
    given = Sentences("alone", texts, np.zeros(len(texts), np.int32))
    found = encoded(given, byte_tokenizer(), length).gather(np.arange(len(texts)))
    return {key: jnp.asarray(found[key]) for key in ("tokens", "mask")}


@pytest.mark.parametrize("which", [0, 1])
def test_the_texts_of_a_pair_are_as_if_encoded_alone(which):
    cut = apart(_records())[which]
    alone = _alone([pair[which] for pair in PAIRS])
    np.testing.assert_array_equal(cut["mask"], alone["mask"])
    shown = [jnp.where(x["mask"], x["tokens"], -1) for x in (cut, alone)]
    np.testing.assert_array_equal(*shown)


def test_what_stands_behind_a_text_changes_nothing():
    net = SentencePair(_encoder(), hidden=4, classes=1)
    pairs = _records()
    variables = net.init(jax.random.key(0), pairs)
    long = _records(length=31)
    np.testing.assert_allclose(net.apply(variables, pairs), net.apply(variables, long), atol=1e-6)


def test_padding_and_the_first_token_are_not_pooled():
    net = _encoder()
    texts = _alone(["ab", "c"])
    out, variables = net.init_with_output(jax.random.key(0), texts)
    states = _encoder(head="none", top=1).apply(variables, texts)
    mask = np.array(texts["mask"])
    mask[:, 0] = False
    for row in range(2):
        np.testing.assert_allclose(out[row, 8:], states[row][mask[row]].mean(0), atol=1e-6)
    # A text of nothing but its first token keeps it.
    lone = {"tokens": texts["tokens"][:1], "mask": jnp.arange(24)[None] < 1}
    assert np.isfinite(net.apply(variables, lone)).all()
    assert np.abs(net.apply(variables, lone)).sum() > 0


@pytest.mark.parametrize("comparison", ["features", "product"])
def test_all_against_all_is_pair_by_pair(comparison):
    net = SentencePair(_encoder(), hidden=4, classes=1, comparison=comparison)
    pairs = _records([(a, b) for a, _ in PAIRS for _, b in PAIRS])
    variables = net.init(jax.random.key(0), pairs)
    embed = [
        net.apply(variables, _alone([pair[which] for pair in PAIRS]), method="embed")
        for which in (0, 1)
    ]
    found = compared(net, variables, *embed, block=2)
    assert found.shape == (3, 3, 1)
    np.testing.assert_allclose(found.reshape(9, 1), net.apply(variables, pairs), atol=1e-5)


def test_every_device_scores_its_own_candidates():
    net = SentencePair(_encoder(), hidden=4, classes=2)
    variables = net.init(jax.random.key(0), _records())
    queries, candidates = jax.random.normal(jax.random.key(1), (2, 16, 16))
    alone = compared(net, variables, queries, candidates)
    mesh = make_mesh({"data": 8})
    placed = jax.device_put(candidates, NamedSharding(mesh, PartitionSpec("data")))
    found = jax.jit(lambda *given: compared(net, variables, *given))(queries, placed)
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert {shard.data.shape for shard in found.addressable_shards} == {(16, 2, 2)}


@pytest.mark.parametrize(
    ("inputs", "net", "said"),
    [
        (jnp.ones((1, 4), int), {}, "pairs of sentences are 'tokens', 'mask' and 'types'"),
        (None, {"encoder": _encoder(head="none", top=1)}, "head='sentence'"),
        (None, {"comparison": "product", "classes": 2}, "one output, not 2"),
        (None, {"encoder": _encoder(top=4)}, "top=4 of the blocks cannot be read: there are 3"),
        (None, {"encoder": _encoder(scan=True)}, "they are a loop"),
    ],
)
def test_what_cannot_be_is_refused(inputs, net, said):
    made = SentencePair(**{"encoder": _encoder(), "classes": 1, **net})
    with pytest.raises(ValueError, match=said):
        made.init(jax.random.key(0), _records() if inputs is None else inputs)


def test_embeddings_of_other_widths_are_refused():
    net = SentencePair(_encoder(), classes=1, comparison="product")
    with pytest.raises(ValueError, match=r"not \[2, 3\] and \[2, 4\]"):
        compared(net, {}, jnp.ones((2, 3)), jnp.ones((2, 4)))


def test_a_pair_with_an_empty_text_is_refused():
    with pytest.raises(ValueError, match="the second text of pair number 1 of 'pairs' is empty"):
        _records([("a", "b"), ("c", " ")])
