"""A student with its teacher's classifier, and maps under the statistics of another image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import from_linen, losses, models
from jaxdistill.data.mixing import mixed_statistics
from jaxdistill.net import TapError
from jaxdistill.sharing import _shifting, shared_classifier

KEY = jax.random.key(0)
IMAGES = jax.random.uniform(KEY, (6, 8, 8, 1))
LARGE = models.ConvNet(width=6, depth=2, classes=4)
SMALL = models.ConvNet(width=3, depth=2, classes=4, norm="batch")
FROZEN = {"teacher": from_linen(LARGE).init(KEY, IMAGES)}


def student(**settings):
    return shared_classifier(SMALL, "teacher", read="features", **settings)(FROZEN)


def test_features_are_classified_by_the_teachers_own_weights():
    net = student()
    params, state = net.init(KEY, IMAGES)
    seen = net.apply(params, state, IMAGES, taps=("features",))
    head = FROZEN["teacher"][0]["head"]
    wanted = seen.taps["features"] @ head["kernel"] + head["bias"][None]
    np.testing.assert_allclose(seen.out, wanted, rtol=1e-5, atol=1e-6)
    assert seen.taps["features"].shape == (6, 24)
    np.testing.assert_array_equal(seen.params["classifier"]["kernel"], head["kernel"])
    assert "classifier" not in params
    own = from_linen(SMALL).apply(params["body"], state, IMAGES, taps=("features",))
    projected = own.taps["features"] @ params["projector"]["kernel"]
    np.testing.assert_allclose(seen.taps["features"], projected, rtol=1e-5, atol=1e-6)


def test_shifted_features_are_of_the_same_weights_and_leave_the_statistics_alone():
    net = student(shifted_at="relu_0", alpha=1.0)
    params, state = net.init(KEY, IMAGES)
    own = {"taps": ("features", "shifted"), "train": True}
    seen = net.apply(params, state, IMAGES, rng=KEY, **own)
    assert abs(seen.taps["features"] - seen.taps["shifted"]).max() > 1e-3
    again = net.apply(params, state, IMAGES, rng=KEY, **own)
    np.testing.assert_array_equal(seen.taps["shifted"], again.taps["shifted"])
    plain = from_linen(SMALL).apply(params["body"], state, IMAGES, train=True)
    jax.tree.map(np.testing.assert_array_equal, seen.state, plain.state)
    with pytest.raises(TapError, match="shifted"):
        net.apply(params, state, IMAGES, taps=("shifted",))


@pytest.mark.parametrize("at", ["", "relu_0"])
def test_statistics_are_mixed_where_they_are_asked_for(at):
    params, state = from_linen(SMALL).init(KEY, IMAGES)
    moved = from_linen(SMALL, call=_shifting(at))
    still = moved.apply(params, state, (IMAGES, jnp.ones(6)), taps=("relu_0",))
    plain = from_linen(SMALL).apply(params, state, IMAGES, taps=("relu_0",))
    np.testing.assert_allclose(still.out, plain.out, atol=1e-4)
    weights = jnp.linspace(0, 1, 6)
    seen = moved.apply(params, state, (IMAGES, weights), taps=("relu_0", "conv_1"))
    if at:
        wanted = mixed_statistics(plain.taps["relu_0"], weights)
        pooled = wanted.reshape(6, 4, 2, 4, 2, 3).mean((2, 4))
        kernel = params["conv_1"]["kernel"]
        rows = np.asarray(models.convnet.convolved(pooled, kernel, 1))
        rows = rows + np.asarray(params["conv_1"]["bias"])
        np.testing.assert_allclose(seen.taps["conv_1"], rows, rtol=1e-4, atol=1e-5)
    else:
        wanted = from_linen(SMALL).apply(params, state, mixed_statistics(IMAGES, weights)).out
        np.testing.assert_allclose(seen.out, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"head": "haed"}, "unknown classifier among the teacher's parameters 'haed'.*'head'"),
        ({"head": "conv_0"}, "'conv_0' of the teacher is no linear layer"),
    ],
)
def test_what_is_no_classifier_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        student(**settings)


def test_vectors_have_no_statistics_to_mix():
    net = student(shifted_at="features")
    given = net.init(KEY, IMAGES)
    with pytest.raises(ValueError, match="statistics are of maps"):
        net.apply(*given, IMAGES, taps=("shifted",), train=True, rng=KEY)


def test_features_count_by_what_both_nets_see():
    s, t = jax.random.normal(KEY, (2, 3, 4))
    classifier = jax.random.normal(jax.random.key(1), (4, 2)) * 3
    sure, unsure = jnp.array([4.0, 0.0]), jnp.array([0.0, 1.0])
    ours, theirs = jnp.stack([sure, unsure, unsure]), jnp.stack([unsure, sure, unsure])
    values = losses.class_weighted_match(s, t, ours, theirs, classifier)
    for row, label in enumerate((0, 0, 1)):
        weights = np.exp(np.abs(classifier[:, label]))
        gaps = np.square(np.asarray(s[row] - t[row]))
        np.testing.assert_allclose(values[row], (weights / weights.sum() * gaps).sum(), rtol=1e-5)


def test_a_contrast_of_both_positives_is_the_mean_of_two():
    s, t, moved = jax.random.normal(KEY, (3, 5, 4))
    parts = losses.info_nce(s, moved), losses.info_nce(moved, t)
    np.testing.assert_allclose(losses.shifted_contrast(s, t, moved), sum(parts) / 2, rtol=1e-6)
    assert float(losses.shifted_contrast(s[:1], t[:1], moved[:1])) == 0
