"""Matching gradients, features and kernels, against published code, by hand and by their claims."""

from functools import partial
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits
from sklearn.kernel_ridge import KernelRidge

from jaxdistill import theory
from jaxdistill.condense import (
    attention_maps,
    chosen,
    flat,
    gradient_distance,
    match_features,
    match_gradients,
    match_kernel,
    match_regression,
    mean_distance,
)
from jaxdistill.condense.regression import centred, support_fit
from jaxdistill.condense.subsets import Choice
from jaxdistill.condense.synthetic import one_hot
from jaxdistill.data.sources import arrays
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models import ConvNet
from jaxdistill.progress import Progress
from jaxdistill.theory.ridge import predict
from jaxdistill.training.fit import fit
from jaxdistill.training.sharding import make_mesh

GOLDENS = Path(__file__).parents[1] / "goldens"
DIGITS = load_digits()
IMAGES = (DIGITS.images[:300, ..., None] / 16).astype(np.float32)
LABELS = DIGITS.target[:300].astype(np.int32)
RECORDS = {"image": IMAGES, "label": LABELS}
SHAPE = (8, 8, 1)
NET = from_linen(ConvNet(width=4, depth=2))
MODEL = flat(NET, SHAPE)
SGD = optax.sgd(1.0)


def run(distiller, steps, **settings):
    return fit(
        distiller,
        {"train": RECORDS},
        RECORDS,
        steps,
        quiet=True,
        mesh=make_mesh({"data": 1, "fsdp": 1}),
        log_every=1,
        **settings,
    )


def losses(outcome):
    return [line["loss"] for line in outcome.metrics if line["kind"] == "train"]


@pytest.mark.parametrize(
    ("kind", "case"), [("rows", "ours"), ("squared", "mse"), ("cosine", "cos")]
)
def test_distance_of_gradients_equals_published_code(kind, case):
    golden = np.load(GOLDENS / f"gradient_match_{case}_dcbench.npz")

    def tree(name):
        arrays = [golden[f"{name}{i}"] for i in range(4)]
        # Theirs have the outputs first, ours last.
        return [np.moveaxis(a, 0, -1) if a.ndim > 1 else a for a in arrays]

    with jax.enable_x64(True):
        syn, real = ([jnp.asarray(a, "float64") for a in tree(f"in__{x}")] for x in ("syn", "real"))
        value, slopes = jax.value_and_grad(gradient_distance)(syn, real, kind)
        np.testing.assert_allclose(value, golden["out__loss"], rtol=1e-12)
        for found, wanted in zip(slopes, tree("grad__syn"), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-14)


def test_distance_of_dead_gradients_is_finite():
    dead = {"kernel": jnp.zeros((3, 2))}
    value, slopes = jax.value_and_grad(gradient_distance)(dead, {"kernel": jnp.ones((3, 2))})
    assert value == 2.0
    assert np.isfinite(slopes["kernel"]).all()
    with pytest.raises(ValueError, match="'rows'"):
        gradient_distance(dead, dead, "row")


def test_maps_of_attention():
    feature = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 5)).astype(np.float32)
    maps = np.abs(feature) ** 2
    maps = maps.sum(-1).reshape(2, 3, 16)
    maps = maps / np.linalg.norm(maps, axis=-1, keepdims=True)
    np.testing.assert_allclose(attention_maps(feature, 2.0), maps, rtol=1e-5)
    slopes = jax.grad(lambda x: attention_maps(x).sum())(jnp.zeros((1, 2, 2, 1)))
    assert np.isfinite(slopes).all()


def test_first_step_of_distribution_matching_by_hand():
    """All real records of each class, no augmentation: the loss needs no draw but that of the
    net."""
    counts = np.bincount(LABELS)
    keep = np.concatenate([np.flatnonzero(c == LABELS)[: counts.min()] for c in range(10)])
    records = {"image": IMAGES[keep], "label": LABELS[keep]}
    settings = {"each": 2, "real_batch": int(counts.min())}
    taps = ("features", "relu_0")
    for attention in ((), ("relu_0",)):
        distiller = match_features(NET, SHAPE, 10, optax.sgd(1.0), attention=attention, **settings)
        frozen = {"train": records}
        state = distiller.init(jax.random.key(0), frozen, None)
        _, metrics = jax.jit(distiller.step)(state, frozen, None)
        key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0), 3)[0]
        apply = lambda x, key=key: MODEL.apply(MODEL.draw(key), x, taps).taps  # noqa: E731
        real, own = apply(records["image"]), apply(state.params["images"])
        expected = 0.0
        for c in range(10):
            chosen_real = np.flatnonzero(records["label"] == c)
            side = [
                {k: v[rows] for k, v in found.items()}
                for found, rows in ((own, slice(2 * c, 2 * c + 2)), (real, chosen_real))
            ]
            means = [np.asarray(s["features"]).mean(0) for s in side]
            expected += np.square(means[0] - means[1]).sum()
            if attention:
                maps = [np.asarray(attention_maps(s["relu_0"])).mean(0) for s in side]
                expected += 100 * np.square(maps[0] - maps[1]).sum()
        assert float(metrics["loss"][0]) == pytest.approx(expected, rel=1e-4)


def test_mean_distance_needs_no_equal_numbers():
    a, b = jnp.ones((2, 3, 4)), jnp.zeros((2, 7, 4))
    assert mean_distance(a, b) == 8.0


METHODS = {
    "DSA": lambda: match_gradients(
        NET, SHAPE, 10, optax.sgd(0.1), each=2, real_batch=16, outer=3, inner=2,
        augment=("crop", "scale"), images_from="random",
    ),
    "DM": lambda: match_features(NET, SHAPE, 10, optax.sgd(1.0), each=1, augment=("crop",)),
    "KIP": lambda: match_kernel(theory.ntk, 10, optax.adam(1e-2), each=1, learn_targets=True),
    "FRePo": lambda: match_regression(
        NET, SHAPE, 10, optax.adam(1e-2), each=1, pool=2, oldest=4, real_batch=64
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_methods_learn_and_resume(name, tmp_path, monkeypatch):
    distiller = METHODS[name]()
    whole = run(distiller, 12)
    assert np.isfinite(whole.result.images).all()
    start = distiller.result(distiller.init(jax.random.key(0), {"train": RECORDS}, None))
    assert (np.asarray(whole.result.images) != start.images).any()
    if name == "KIP":
        assert np.mean(losses(whole)[-4:]) < np.mean(losses(whole)[:4])

    def until_seven(progress, done, means=None):
        if progress.label == "fit" and done == 8:
            raise InterruptedError("step 8")

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "update", until_seven)
        with pytest.raises(InterruptedError, match="step 8"):
            run(distiller, 12, workdir=tmp_path, checkpoint_every=3)
    resumed = run(distiller, 12, workdir=tmp_path, checkpoint_every=3)
    jax.tree.map(np.testing.assert_array_equal, whole.result, resumed.result)


def test_gradients_of_real_images_are_a_fixed_point():
    """A set that is the real batch has distance zero but for the rounding in its cosines."""
    keep = np.concatenate([np.flatnonzero(c == LABELS)[:5] for c in range(10)])
    records = {"image": IMAGES[keep], "label": LABELS[keep]}
    distiller = match_gradients(
        NET, SHAPE, 10, optax.sgd(0.1), each=5, real_batch=5, images_from="random"
    )
    state = distiller.init(jax.random.key(0), {"train": records}, None)
    _, metrics = jax.jit(distiller.step)(state, {"train": records}, None)
    assert float(metrics["loss"][0]) < 0.1


def test_ridge_regression_is_that_of_scikit_learn():
    images, targets = IMAGES[:20].reshape(20, -1), centred(LABELS[:20], 10)
    kernel = theory.linear(images)
    found = predict(theory.linear(IMAGES[20:], images), support_fit(kernel, targets, 1e-2))
    model = KernelRidge(alpha=1e-2 * float(np.trace(kernel)) / 20, kernel="linear")
    model.fit(images, np.asarray(targets))
    expected = model.predict(IMAGES[20:].reshape(280, -1))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_real_subsets_as_a_work():
    for choice in get_args(Choice):
        work = chosen(10, each=3, choice=choice, rate=0.02)
        assert work.kind == "data_set"
        found = work.run({}, {"train": arrays(RECORDS)}, jax.random.key(0))
        images = np.asarray(found.images).reshape(30, -1)
        rows = IMAGES.reshape(300, -1)
        places = [int(np.flatnonzero((rows == image).all(1))[0]) for image in images]
        np.testing.assert_array_equal(LABELS[places], np.repeat(np.arange(10), 3))
        np.testing.assert_array_equal(found.targets, one_hot(3, 10))
        assert found.rate == np.float32(0.02)
        again = work.run({}, {"train": RECORDS}, jax.random.key(0))
        jax.tree.map(np.testing.assert_array_equal, found, again)


def test_results_are_data_sets():
    for name, make in METHODS.items():
        assert make().kind == "data_set", name


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: chosen(10, each=1, choice="herd"), "'herding'"),
        (
            partial(match_features, NET, SHAPE, 10, optax.sgd(1.0), each=1, images_from="real"),
            "'random'",
        ),
        (
            partial(match_features, NET, SHAPE, 10, SGD, each=1, attention=("relu_7",)),
            "'relu_7'",
        ),
        (
            partial(match_gradients, NET, SHAPE, 10, SGD, each=1, distance="x"),
            "'cosine'",
        ),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(
            lambda: make().step(
                make().init(jax.random.key(0), {"train": RECORDS}, None), {"train": RECORDS}, None
            )
        )
