"""Classification against values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdistill.evaluation import classification, reliability
from jaxdistill.net import from_function

# The inputs are probabilities, and the net puts out their logarithms, scaled by its only parameter.
NET = from_function(
    lambda key, x: ({"scale": jnp.ones(())}, {}),
    lambda params, state, x, train, rng: (
        params["scale"] * jnp.log(x),
        {"twice": 2 * jnp.log(x)},
        state,
    ),
)
PLAIN = ({"scale": jnp.ones(())}, {})
FLAT = ({"scale": jnp.zeros(())}, {})
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.65, 0.25], [0.2, 0.2, 0.6]], np.float32
)
LABELS = np.array([0, 1, 1, 0], np.int32)


def padded(probabilities=PROBABILITIES, labels=LABELS):
    """Batches of three; the padding holds what would spoil every sum."""
    for start in range(0, len(labels), 3):
        share = probabilities[start : start + 3]
        missing = 3 - len(share)
        yield {
            "image": np.concatenate([share, np.full((missing, 3), np.nan, np.float32)]),
            "label": np.concatenate([labels[start : start + 3], np.full(missing, -7, np.int32)]),
            "where": np.arange(3) < len(share),
            "name": np.array(["a", "b", "c"]),
        }


def test_values_by_hand():
    found = classification(NET, top=(1, 2), bins=5)(PLAIN, {}, list(padded()))
    assert found["accuracy"] == 0.5
    assert found["errors"] == 2
    assert found["top2_accuracy"] == 1.0
    assert found["nll"] == pytest.approx(-np.log([0.7, 0.3, 0.65, 0.2]).mean(), abs=1e-6)
    entropy = -(PROBABILITIES * np.log(PROBABILITIES)).sum(1).mean()
    assert found["entropy"] == pytest.approx(entropy, abs=1e-6)
    # Of bins of 0.2, (0.4, 0.6] holds 0.5 and 0.6, both wrong, (0.6, 0.8] 0.7 and 0.65, right.
    assert found["ece"] == pytest.approx((2 * 0.55 + 2 * (1 - 0.675)) / 4, abs=1e-6)
    off = ((PROBABILITIES - np.eye(3)[LABELS]) ** 2).sum(1).mean()
    assert found["brier"] == pytest.approx(off, abs=1e-6)
    assert set(found) == {"accuracy", "errors", "top2_accuracy", "nll", "brier", "entropy", "ece"}
    assert all(type(value) is float for value in found.values())


def test_bins_by_hand():
    found = reliability(NET, bins=5)(PLAIN, list(padded()))
    np.testing.assert_array_equal(found.count, [0, 0, 2, 2, 0])
    np.testing.assert_allclose(found.confidence, [0, 0, 0.55, 0.675, 0], atol=1e-6)
    np.testing.assert_array_equal(found.accuracy, [0, 0, 0, 1, 0])


def test_confidence_on_an_edge_belongs_to_the_bin_below():
    batch = {"image": np.array([[0.5, 0.5], [1.0, 1e-30]], np.float32), "label": np.array([0, 0])}
    found = reliability(NET, bins=2)(PLAIN, [batch])
    np.testing.assert_array_equal(found.count, [1, 1])


def test_ties_go_to_the_first_class_for_every_k():
    batch = {"image": np.full((4, 4), 0.25, np.float32), "label": np.arange(4)}
    found = classification(NET, top=(1, 3))(PLAIN, {}, [batch])
    assert (found["accuracy"], found["top3_accuracy"]) == (0.25, 0.75)


def test_fidelity_by_hand():
    evaluator = classification(NET, teacher=NET)
    found = evaluator(PLAIN, {"teacher": FLAT}, list(padded()))
    alone = classification(NET)(FLAT, {}, list(padded()))
    for name in ("accuracy", "errors", "nll", "ece", "entropy"):
        assert found[f"teacher_{name}"] == alone[name]
    # The teacher is uniform and predicts the first class.
    assert found["agreement"] == 0.5
    kl = (np.log(1 / 3) - np.log(PROBABILITIES)).mean()
    assert found["kl"] == pytest.approx(kl, abs=1e-6)
    mixture = (PROBABILITIES + 1 / 3) / 2
    divergence = 0.5 * (PROBABILITIES * np.log2(PROBABILITIES / mixture)).sum(1)
    divergence += 0.5 * (1 / 3 * np.log2(1 / 3 / mixture)).sum(1)
    assert found["loyalty"] == pytest.approx(1 - np.sqrt(divergence).mean(), abs=1e-5)
    same = evaluator(PLAIN, {"teacher": PLAIN}, list(padded()))
    assert (same["agreement"], same["kl"]) == (1.0, 0.0)
    # The root of a divergence magnifies what float32 leaves of zero.
    assert same["loyalty"] == pytest.approx(1, abs=1e-3)


def test_batch_size_and_padding_change_nothing():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 10).astype(np.float32)
    labels = rng.integers(0, 3, 10)
    whole = [{"image": probabilities, "label": labels}]
    evaluator = classification(NET, teacher=NET, top=(2,))
    one = evaluator(PLAIN, {"teacher": FLAT}, whole)
    cut = evaluator(PLAIN, {"teacher": FLAT}, list(padded(probabilities, labels)))
    assert one == pytest.approx(cut, abs=1e-6)
    assert one["errors"] == cut["errors"]


def test_logits_of_a_tap_and_of_a_function():
    tapped = classification(NET, read="twice")(PLAIN, {}, list(padded()))
    function = classification(NET, read=lambda forward: 2 * forward.out)(PLAIN, {}, list(padded()))
    assert tapped == function
    assert tapped["nll"] != classification(NET)(PLAIN, {}, list(padded()))["nll"]


def test_what_is_prepared_is_seen_by_both_and_is_the_same_each_time():
    def prepare(batch, key):
        noise = jax.random.uniform(key, batch["image"].shape, minval=0.1)
        return {**batch, "seen": noise}

    evaluator = classification(NET, inputs="seen", teacher=NET, prepare=prepare)
    one = evaluator(PLAIN, {"teacher": PLAIN}, list(padded()))
    assert one == evaluator(PLAIN, {"teacher": PLAIN}, list(padded()))
    assert one["kl"] == 0.0
    assert one["nll"] != classification(NET)(PLAIN, {}, list(padded()))["nll"]


def test_uint8_images_are_seen_between_zero_and_one():
    raw = np.array([[255, 51, 51]], np.uint8)
    one = classification(NET)(PLAIN, {}, [{"image": raw, "label": np.array([1])}])
    assert one["nll"] == pytest.approx(-np.log(0.2 / 1.4), abs=1e-6)


def test_examples_are_shared_out_over_the_mesh_of_the_variables():
    mesh = Mesh(np.array(jax.devices()[:2]).reshape(2, 1), ("data", "fsdp"))
    seen = []

    def apply(params, state, x, train, rng):
        jax.debug.inspect_array_sharding(x, callback=seen.append)
        return params["scale"] * jnp.log(x), {}, state

    net = from_function(NET.init, apply)
    placed = jax.device_put(PLAIN, NamedSharding(mesh, PartitionSpec()))
    even = [{"image": PROBABILITIES, "label": LABELS}]
    found = classification(net)(placed, {}, even)
    assert seen[-1].shard_shape((4, 3)) == (2, 3)
    assert found == pytest.approx(classification(NET)(PLAIN, {}, even), abs=1e-6)
    uneven = classification(net)(placed, {}, list(padded()))
    assert uneven == pytest.approx(found, abs=1e-6)


def test_compiled_once():
    traces = []

    def apply(params, state, x, train, rng):
        traces.append(x.shape)
        return params["scale"] * jnp.log(x), {}, state

    evaluator = classification(from_function(NET.init, apply))
    for variables in (PLAIN, FLAT):
        evaluator(variables, {}, list(padded()))
    assert traces == [(3, 3)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "no batches"),
        ([{"image": PROBABILITIES, "label": LABELS, "where": np.zeros(4, bool)}], "padding"),
        ([{"image": PROBABILITIES, "label": LABELS + 2}], "2 labels are not classes"),
        ([{"image": PROBABILITIES, "label": LABELS[:, None]}], "logits must be"),
        ([{"images": PROBABILITIES, "label": LABELS}], "unknown key of the batch 'image'"),
    ],
)
def test_data_that_cannot_be_scored_is_refused(data, words):
    with pytest.raises(ValueError, match=words):
        classification(NET)(PLAIN, {}, data)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        classification(NET, top=(0,))
    with pytest.raises(ValueError, match="3 classes"):
        classification(NET, top=(5,))(PLAIN, {}, list(padded()))
    with pytest.raises(ValueError, match="did you mean 'teacher'"):
        classification(NET, teacher=NET, teacher_name="teacer")(PLAIN, {"teacher": PLAIN}, [])
