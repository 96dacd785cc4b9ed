"""Hybrid Distillation by values: places of dropped tokens that do not compose, and a slice of
attention that is no distribution, would not show in the accuracy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import config_files, models, recipe
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.losses import feature_match, qkv_relations
from jaxdistill.net import Forward
from jaxdistill.objective import match
from jaxdistill.overrides import override, smoke

NET = {"patch": 2, "width": 8, "depth": 4, "heads": 2, "classes": 3}
DROPS = {"drop_before": (0, 1, 3), "keep_share": 0.8}
PLACES = tuple(f"encoder/kept_{i}" for i in DROPS["drop_before"])


def config(size):
    return config_files.load(f"hybrid_distill:{size}")


def images(count=3):
    return jax.random.uniform(jax.random.key(0), (count, 8, 8, 1))


def forward(settings, variables, taps, train=True):
    net = from_linen(models.ViT(**{**NET, **settings}))
    apply = jax.jit(lambda *own: net.apply(*own, images(), taps=taps, train=train))
    return jax.device_get(apply(*variables))


def start(**settings):
    net = from_linen(models.ViT(**{**NET, **settings}))
    return jax.jit(net.init)(jax.random.key(1), images())


def without_change(variables):
    """Blocks that give what they are given: a token stays what it was at first."""
    params, state = variables
    quiet = lambda path, x: x * 0 if "proj" in str(path) or "fc2" in str(path) else x  # noqa: E731
    return jax.tree_util.tree_map_with_path(quiet, params), state


def test_the_least_redundant_tokens_stay():
    tokens = np.random.default_rng(0).normal(size=(4, 2 + 10, 6)).astype(np.float32)
    found = np.asarray(models.least_redundant(jnp.asarray(tokens), 0.7, front=2))
    for row, places in zip(tokens, found, strict=True):
        patches = row[2:]
        mean = patches.mean(0)
        cosine = patches @ mean / np.linalg.norm(patches, axis=1) / np.linalg.norm(mean)
        assert places.tolist() == [0, 1, *(2 + np.sort(np.argsort(cosine)[:7]))]
    whole = models.least_redundant(jnp.asarray(tokens), 1.0, front=2)
    np.testing.assert_array_equal(whole, np.broadcast_to(np.arange(12), (4, 12)))
    assert models.least_redundant(jnp.asarray(tokens), 0.01, front=2).shape == (4, 3)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("distilled", [False, True])
def test_places_compose_over_the_drops(scan, distilled):
    settings = {**DROPS, "scan": scan, "distillation_token": distilled}
    variables = without_change(start(**settings))
    taps = (*PLACES, "encoder/block_0", "encoder/block_2", "encoder/block_3")
    found = forward(settings, variables, taps).taps
    whole = forward(settings, variables, ("encoder/block_0",), train=False).taps
    whole = whole["encoder/block_0"]
    front = 1 + distilled
    assert [found[place].shape[1] - front for place in PLACES] == [12, 9, 7]  # of 16
    for block, place in ((0, PLACES[0]), (2, PLACES[1]), (3, PLACES[2])):
        places = found[place]
        assert (places[:, :front] == np.arange(front)).all()
        assert (np.diff(places, axis=1) > 0).all()  # each once, in order
        taken = np.take_along_axis(whole, places[:, :, None], axis=1)
        np.testing.assert_array_equal(found[f"encoder/block_{block}"], taken)
    before = [set(map(int, found[place][0])) for place in PLACES]
    assert before[2] < before[1] < before[0]


def test_tokens_are_dropped_in_training_alone():
    variables = start(**DROPS)
    plain = forward({}, variables, ("encoder",), train=False)
    found = forward(DROPS, variables, ("encoder",), train=False)
    np.testing.assert_array_equal(plain.taps["encoder"], found.taps["encoder"])
    trained = forward(DROPS, variables, ("encoder",))
    assert trained.taps["encoder"].shape[1] == 1 + 7
    scanned = {**DROPS, "scan": True}
    params, state = variables
    stacked = ({**params, "encoder": models.stack_blocks(params["encoder"])}, state)
    same = forward(scanned, stacked, ("encoder",))
    np.testing.assert_allclose(same.taps["encoder"], trained.taps["encoder"], atol=1e-5)


def sliced(qkv, places, heads):
    """The relations of QK and VV among all tokens, sliced on rows and columns, renormalised."""
    parts = np.split(qkv.astype(np.float64), 3, axis=-1)
    found = []
    for first, second in ((0, 1), (2, 2)):
        a, b = (parts[i].reshape(*qkv.shape[:2], heads, -1) for i in (first, second))
        scores = np.einsum("bnhd,bmhd->bhnm", a, b) / np.sqrt(a.shape[-1])
        whole = np.exp(scores - scores.max(-1, keepdims=True))
        whole /= whole.sum(-1, keepdims=True)
        rows = np.take_along_axis(whole, places[:, None, :, None], axis=2)
        both = np.take_along_axis(rows, places[:, None, None, :], axis=3)
        assert (both.sum(-1) < 0.99).all()  # a slice alone is no distribution
        found.append(both / both.sum(-1, keepdims=True))
    return found


def entry(loss, kept="encoder/kept_1", **settings):
    return match(loss, name="term", student="own", target="theirs", kept=kept, **settings)


def term(objective, own, theirs, places):
    given = Forward({}, {"own": own, "encoder/kept_1": places}, {}, {})
    learned = objective.init(jax.random.key(0), given, {"theirs": theirs}, {})
    found, _ = objective.terms(*learned, given, {"theirs": theirs}, {}, step=jnp.zeros(()))
    return float(found["term"].total / found["term"].count)


def test_relations_are_those_of_the_tokens_that_are_left():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(2, 5, 3 * 8)).astype(np.float32)
    theirs = rng.normal(size=(2, 9, 3 * 12)).astype(np.float32)
    places = np.array([[0, 2, 3, 7, 8], [0, 1, 4, 5, 6]])
    ours = sliced_all(own, heads=4)
    goal = sliced(theirs, places, heads=4)
    expected = np.mean(
        [(t * (np.log(t) - np.log(s))).sum(-1).mean() for s, t in zip(ours, goal, strict=True)]
    )
    objective = entry(qkv_relations, relations=("qk", "vv"), heads=4)
    found = term(objective, jnp.asarray(own), jnp.asarray(theirs), jnp.asarray(places))
    assert found == pytest.approx(expected, rel=1e-5)
    parts = [tuple(jnp.split(jnp.asarray(x), 3, -1)) for x in (own, own[:, ::-1])]
    fused = qkv_relations(jnp.asarray(own), jnp.asarray(own[:, ::-1]), heads=2)
    np.testing.assert_array_equal(fused, qkv_relations(*parts, heads=2))


def sliced_all(qkv, heads):
    parts = np.split(qkv.astype(np.float64), 3, axis=-1)
    found = []
    for first, second in ((0, 1), (2, 2)):
        a, b = (parts[i].reshape(*qkv.shape[:2], heads, -1) for i in (first, second))
        scores = np.einsum("bnhd,bmhd->bhnm", a, b) / np.sqrt(a.shape[-1])
        whole = np.exp(scores)
        found.append(whole / whole.sum(-1, keepdims=True))
    return found


def test_features_are_those_of_the_tokens_that_are_left():
    rng = np.random.default_rng(1)
    own, theirs = (rng.normal(size=(2, n, 6)).astype(np.float32) for n in (3, 7))
    places = np.array([[0, 4, 6], [0, 1, 5]])
    taken = np.stack([theirs[i, row] for i, row in enumerate(places)])
    expected = float(feature_match(jnp.asarray(own), jnp.asarray(taken)).mean())
    objective = entry(feature_match)
    found = term(objective, jnp.asarray(own), jnp.asarray(theirs), jnp.asarray(places))
    assert found == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r"kept='encoder/kept_1' \(2, 3\) picks from tokens"):
        term(objective, jnp.asarray(own), jnp.zeros((2, 6)), jnp.asarray(places))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"student.drop_before": (0, 4)}, "names block 4, and blocks are 0 to 3"),
        ({"student.keep_share": 0.0}, "above 0"),
        ({"student.drop_before": ()}, "unknown tap 'encoder/kept_2'"),
        ({"objective.features.kept": None}, "projector maps the last axis alone"),
        (
            {"student": {"net": "cifar_resnet", "depth": 8}},
            "unknown tap 'encoder'",
        ),
        ({"objective.relations.heads": 5}, "multiple of 5 heads"),
        ({"evaluate.looks.against": "mask"}, "did you mean 'masked'"),
        ({"evaluate.looks.heads": 5}, "multiple of 5 heads"),
        ({"evaluate.looks.front": 0}, "17 patches are no grid"),
        ({"evaluate.looks.blocks": ("encoder/block_9/attn/qkv",)}, "unknown tap.*block_9"),
        ({"evaluate.probe.read": "encode"}, "unknown tap 'encode'"),
    ],
    ids=lambda given: given if isinstance(given, str) else "-".join(given),
)
def test_what_does_not_fit_is_refused_before_training(changes, said):
    changes = {f"stages.distil.{key}": value for key, value in changes.items()}
    with pytest.raises(ValueError, match="(?s)stage 'distil'.*" + said):
        recipe.plan(smoke(override({**config("small"), "mesh": {"data": 1}}, changes)))


def test_the_published_config_is_that_of_the_paper():
    distil = config("")["stages"]["distil"]
    features, relations = (distil["objective"][name] for name in ("features", "relations"))
    assert distil["student"]["drop_before"] == (0, 4, 8)
    assert features["kept"] == relations["kept"] == "encoder/kept_8"
    assert features["target"] == "supervised/encoder"
    assert relations["target"] == "masked/encoder/block_10/attn/qkv"
    assert (relations["relations"], relations["heads"]) == (("qk", "vv"), 12)
    assert (features.get("weight", 1.0), relations["weight"]) == (1.0, 2.0)
    assert (features["distance"], features["sides"]) == ("smooth_l1", "teacher")
