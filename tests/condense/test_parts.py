"""The parts of which data sets are condensed, against values worked out by other means."""

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxdistill import condense, settings
from jaxdistill.condense import fit_whitening, flat, pixels, siamese
from jaxdistill.condense.augment import FAMILIES, Draw, Family
from jaxdistill.condense.subsets import centre_rows, cluster_rows, herding_rows, random_rows
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.loops import for_each, scan
from jaxdistill.models import ConvNet
from jaxdistill.models.convnet import convolved

DIGITS = load_digits()
IMAGES = (DIGITS.images[..., None] / 16).astype(np.float32)
LABELS = DIGITS.target.astype(np.int32)


def test_convolution_by_slices_is_a_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    for padding in (1, 3):
        ours, theirs = (convolved(x, kernel, padding, slices=s) for s in (True, False))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "shape", "count"),
    [
        ({"classes": 100}, (32, 32, 3), 504_420),
        ({"depth": 4, "classes": 200}, (64, 64, 3), 857_160),
        ({"padding": 3}, (28, 28, 1), 317_706),
    ],
)
def test_convnet_has_the_published_number_of_parameters(settings, shape, count):
    assert flat(from_linen(ConvNet(**settings)), shape).size == count


def test_convnet_normalises_each_channel_of_each_image():
    net = from_linen(ConvNet(width=4, depth=1, classes=2, pool="none"))
    x = jax.random.normal(jax.random.key(0), (3, 6, 6, 2))
    params, state = net.init(jax.random.key(1), x)
    feature = net.apply(params, state, x, taps=("conv_0", "relu_0", "features")).taps
    conv = np.asarray(feature["conv_0"])
    normal = (conv - conv.mean((1, 2), keepdims=True)) / np.sqrt(
        conv.var((1, 2), keepdims=True) + 1e-5
    )
    np.testing.assert_allclose(feature["relu_0"], np.maximum(normal, 0), atol=1e-5)
    assert feature["features"].shape == (3, 144)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"norm": "instanse"}, "'instance'"),
        ({"pool": "avg"}, "'average'"),
        ({"depth": 4}, "too small"),
    ],
)
def test_convnet_refuses(settings, words):
    with pytest.raises(ValueError, match=words):
        flat(from_linen(ConvNet(**settings)), (8, 8, 1))


def test_a_flat_net_is_the_net():
    net = from_linen(ConvNet(width=4, depth=2))
    vector_net = flat(net, (8, 8, 1))
    vector = vector_net.draw(jax.random.key(3))
    params, state = net.init(jax.random.key(3), IMAGES[:1])
    jax.tree.map(np.testing.assert_array_equal, vector_net.unravel(vector), params)
    np.testing.assert_array_equal(
        vector_net.apply(vector, IMAGES[:5]).out, net.apply(params, state, IMAGES[:5]).out
    )
    assert vector_net.size == vector.size == len(vector)


@pytest.mark.parametrize("name", FAMILIES)
def test_augmentation_is_the_same_for_all_images_of_one_draw(name):
    augmentation = siamese((name,))
    images = jax.random.uniform(jax.random.key(0), (1, 8, 8, 3))
    images = jnp.concatenate([images] * 8)
    one = augmentation.apply(augmentation.draw(jax.random.key(2), 1), images)
    np.testing.assert_array_equal(one[0], one[1])
    own = augmentation.apply(augmentation.draw(jax.random.key(2), 8), images)
    assert (own[:1] != own[1:]).any()
    grads = jax.grad(lambda x: augmentation.apply(Draw(0, jnp.full((1, 5), 0.4)), x).sum())(images)
    assert np.isfinite(grads).all()
    assert np.abs(grads).sum() > 0


def drawn(*numbers):
    return Draw(jnp.zeros((), jnp.int32), jnp.array([[*numbers, *[0.5] * (5 - len(numbers))]]))


def test_augmentations_at_known_draws():
    image = jnp.asarray(IMAGES[:1])
    middle = [("color", drawn(0.5, 0.5, 0.5)), ("crop", drawn(0.5, 0.5)), ("rotate", drawn(0.5))]
    for name, draw in middle:
        np.testing.assert_allclose(siamese((name,)).apply(draw, image), image, atol=1e-5)
    flipped = siamese(("flip",)).apply(drawn(0.4), image)
    np.testing.assert_array_equal(flipped, image[:, :, ::-1])
    moved = siamese(("crop",)).apply(drawn(0.0, 0.99), image)
    np.testing.assert_array_equal(moved[:, 1:, :-1], image[:, :-1, 1:])
    # Centre 4 of 0..8 and side 4: rows and columns 2 to 5.
    hole = siamese(("cutout",)).apply(drawn(0.5, 0.5), jnp.ones_like(image))
    assert hole.sum() == 64 - 16
    assert (hole[0, 2:6, 2:6] == 0).all()
    # A ratio of one is in the middle of nothing: (1 - 1/1.2) / (1.2 - 1/1.2)
    same = (1 - 1 / 1.2) / (1.2 - 1 / 1.2)
    still = siamese(("scale",)).apply(drawn(same, same), image)
    np.testing.assert_allclose(still, image, atol=1e-5)


def test_one_family_is_drawn_for_a_batch():
    assert tuple(FAMILIES) == get_args(Family)
    augmentation = siamese(get_args(Family))
    draws = [int(augmentation.draw(jax.random.key(i), 1).family) for i in range(60)]
    assert set(draws) == set(range(6))
    with pytest.raises(ValueError, match="'color'"):
        siamese(("colour",))
    with pytest.raises(TypeError, match="sequence"):
        siamese("color")
    np.testing.assert_array_equal(siamese(()).apply(draws[0], IMAGES), IMAGES)


@pytest.mark.parametrize("kind", ["absolute", "relative", "unit", "channels"])
def test_whitenings(kind):
    train = (IMAGES * 255).astype(np.uint8)
    found = fit_whitening(train, kind=kind)
    white = found.apply(train)
    rows = train.reshape(len(train), -1) / 255.0
    ridge = 0.1
    if kind in ("relative", "channels"):
        rows = (rows - rows.mean()) / rows.std()
    if kind == "unit":
        rows = rows - rows.mean(1, keepdims=True)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    if kind == "channels":
        np.testing.assert_allclose(white.reshape(len(rows), -1), rows, atol=1e-5)
    else:
        centred = rows if kind == "unit" else rows - rows.mean(0)
        covariance = centred.T @ centred / (len(rows) - (kind == "absolute"))
        if kind != "absolute":
            ridge *= np.trace(covariance) / 64
        u, s, _ = np.linalg.svd(covariance)
        expected = centred @ (u / np.sqrt(s + ridge)) @ u.T
        np.testing.assert_allclose(white.reshape(len(rows), -1), expected, atol=1e-4)
    if kind != "unit":
        np.testing.assert_allclose(found.invert(white), train / 255.0, atol=1e-4)
        np.testing.assert_array_equal(pixels(white, found), train)
    with pytest.raises(ValueError, match="images"):
        found.apply(np.zeros((2, 4, 4, 1)))


def test_an_unknown_whitening():
    with pytest.raises(ValueError, match="'absolute'"):
        fit_whitening(IMAGES, kind="absolut")


def test_real_subsets_are_of_their_classes():
    found = {
        "random": random_rows(jax.random.key(0), jnp.asarray(LABELS), 5, 10),
        "herding": herding_rows(jnp.asarray(IMAGES), jnp.asarray(LABELS), 5, 10),
        "centres": centre_rows(jnp.asarray(IMAGES), jnp.asarray(LABELS), 5, 10),
        "clusters": cluster_rows(
            jax.random.key(0), jnp.asarray(IMAGES).reshape(-1, 64), jnp.asarray(LABELS), 5, 10
        ),
    }
    for name, rows in found.items():
        assert (LABELS[rows] == np.arange(10)[:, None]).all(), name
        assert len(set(np.asarray(rows).ravel())) == 50, name


def test_herding_by_hand():
    rows = IMAGES.reshape(len(IMAGES), -1)
    own = np.flatnonzero(LABELS == 3)
    mean, chosen = rows[own].mean(0), []
    for _ in range(4):
        away = [
            np.square(rows[[*chosen, i]].mean(0) - mean).sum() if i not in chosen else np.inf
            for i in own
        ]
        chosen.append(own[int(np.argmin(away))])
    found = herding_rows(jnp.asarray(IMAGES), jnp.asarray(LABELS), 4, 10)
    assert list(found[3]) == chosen


def test_records_that_are_wanted_come_first():
    where = jnp.asarray(np.arange(len(LABELS)) % 7 == 0)
    rows = random_rows(jax.random.key(1), jnp.asarray(LABELS), 5, 10, where)
    assert (np.asarray(rows) % 7 == 0).all()


def test_a_loop_is_unrolled_where_there_are_convolutions():
    def unrolled(body, carry):
        jaxpr = jax.make_jaxpr(lambda c: scan(body, c, jnp.arange(3.0)))(carry)
        scans = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "scan"]
        return [e.params["unroll"] for e in scans]

    plain = unrolled(lambda c, x: (c * x, x), jnp.ones(()))
    kernel = jnp.ones((3, 3, 1, 1))
    convolving = unrolled(
        jax.checkpoint(lambda c, x: (convolved(c, kernel, 1, slices=False) + x, None)),
        jnp.ones((1, 4, 4, 1)),
    )
    assert plain == [1]
    assert convolving != [1]


def test_rows_with_convolutions_are_taken_all_at_once():
    kernel = jnp.ones((3, 3, 1, 1))
    images = jnp.arange(32.0).reshape(2, 1, 4, 4, 1)
    for slices, loops in ((True, 1), (False, 0)):

        def blurred(image, slices=slices):
            return convolved(image, kernel, 1, slices=slices)

        found = jax.make_jaxpr(lambda x, f=blurred: for_each(f, x))(images)
        assert sum(each.primitive.name == "scan" for each in found.jaxpr.eqns) == loops
        close = np.testing.assert_allclose
        close(for_each(blurred, images), jnp.stack([blurred(image) for image in images]), rtol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "chosen",
        "fit_whitening",
        "fresh_nets",
        "kernel_accuracy",
        "match_features",
        "match_gradients",
        "match_kernel",
        "match_regression",
        "match_trajectories",
        "ranked",
        "sharpness",
        "strayed",
        "train_experts",
    ],
)
def test_settings_have_domains(name):
    found = settings.keys(getattr(condense, name))
    assert found
    for key, parameter in found.items():
        assert parameter.annotation not in (Any, parameter.empty), key
        if parameter.default is not parameter.empty:
            assert settings.fault(parameter.default, parameter.annotation) is None, key
        assert settings.fault(object(), parameter.annotation), key


def test_groups_of_settings_are_read_from_mappings():
    domain = settings.keys(condense.match_trajectories)["students"].annotation
    given = {"steps": 3, "momentum": 0.9}
    assert settings.made(given, domain) == condense.Students(3, momentum=0.9)
    assert "'momentum'" in settings.fault({"steps": 3, "momentun": 0.9}, domain)
    assert "steps" in settings.fault({"momentum": 0.9}, domain)
