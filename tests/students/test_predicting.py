"""Students of every kind are asked, and say what their nets say."""

from functools import partial

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from PIL import Image
from students.parts import (
    BYTES,
    CLASSIFIER,
    DRAW,
    IMAGE,
    KINDS,
    NAMES_OF_TWO,
    SEEN,
    VIT,
    image_file,
    saved,
)

import jaxdistill as jd
from jaxdistill import models, students
from jaxdistill.data.images import decode_image
from jaxdistill.data.sentences import Sentences, encoded
from jaxdistill.net import from_function
from jaxdistill.training.export import load_exported


def test_an_image_classifier(tmp_path):
    folder, net, result = saved(tmp_path, VIT, IMAGE, CLASSIFIER)
    files = [image_file(tmp_path / f"{n}.png", seed=n) for n in range(3)]
    found = students.load(folder).predict(files)
    pixels = np.stack([decode_image(file, 8) for file in files]) / np.float32(255)
    pixels = (pixels - np.array(SEEN.mean)) / np.array(SEEN.std)
    logits = net.apply(*result, pixels.astype(np.float32)).out
    for each, file, row in zip(found, files, jax.nn.softmax(logits), strict=True):
        assert (each.input, each.kind) == (str(file), "classes")
        assert list(each.values.values()) == sorted(each.values.values(), reverse=True)
        assert each.best == NAMES_OF_TWO[int(row.argmax())]
        np.testing.assert_allclose([each.values[n] for n in NAMES_OF_TWO], row, atol=1e-4)

    student = students.load(folder)
    by_two = student.predict(files, batch_size=2)
    as_folder = student.predict(tmp_path / "0.png") + student.predict([tmp_path])
    for one, other in zip(found, by_two, strict=True):
        assert one.values == pytest.approx(other.values, abs=1e-5)
    assert [each.values for each in as_folder[1:]] == [each.values for each in found]
    # Arrays of any size are what the files hold, up to the rounding of pixels.
    arrays = [np.asarray(Image.open(file)) for file in files]
    for given in (arrays, np.stack(arrays), [a / np.float32(255) for a in arrays]):
        for one, other in zip(found, student.predict(given), strict=True):
            assert one.values == pytest.approx(other.values, abs=0.02)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_says_what_its_net_says(name, tmp_path):
    module, inputs, about, asked, shape = KINDS[name]
    folder, net, result = saved(tmp_path, module, inputs, about)
    student = students.load(folder)
    found = student.predict(asked)
    assert len(found) == (1 if isinstance(asked, str) else len(asked))
    alone = student.predict(asked[-1:] if not isinstance(asked, str) else asked)
    for each in found:
        assert each.kind == about.kind
        if about.kind == "features":
            assert each.values.shape == shape
        elif about.kind == "next":
            assert len(each.values) == shape
        else:
            assert set(each.values) == shape
    np.testing.assert_allclose(numbers(found[-1]), numbers(alone[0]), atol=1e-5)
    # The compiled function says the same without any of this.
    function = load_exported(folder / "student.jaxexport")
    given = jax.tree.map(lambda x: np.ones((3, *x.shape[1:]), x.dtype), inputs)
    jax.tree.map(
        partial(np.testing.assert_allclose, atol=1e-4),
        function(given),
        net.apply(*result, given).out,
    )


def numbers(prediction):
    values = prediction.values
    return values if isinstance(values, np.ndarray) else list(values.values())


def test_what_follows_a_text_is_read_behind_its_last_token(tmp_path):
    module, inputs, about, *_ = KINDS["decoder"]
    folder, net, result = saved(tmp_path, module, inputs, about)
    (said,) = students.load(folder).predict("ab")
    tokens = np.array([[256, 97, 98]], np.int32)
    expected = np.asarray(jax.nn.softmax(net.apply(*result, tokens).out[0, -1]))
    np.testing.assert_allclose(list(said.values.values()), np.sort(expected)[::-1][:5], rtol=1e-3)
    likeliest = int(expected.argmax())
    assert said.best in (BYTES.decode([likeliest]), f"<{likeliest}>")


def test_texts_are_seen_as_they_were_trained_on(tmp_path):
    module, inputs, about, *_ = KINDS["pairs"]
    folder, net, result = saved(tmp_path, module, inputs, about)
    pair = ("some text", "more of it")
    (said,) = students.load(folder).predict(pair)
    records = encoded(Sentences("a", pair[:1], np.array([0]), pair[1:]), BYTES, 12)
    seen = {k: v for k, v in records.gather(np.arange(1)).items() if k in inputs}
    assert seen["types"].sum() == 5
    np.testing.assert_allclose(said.values["score"], net.apply(*result, seen).out[0, 0], rtol=1e-4)


IMAGES = DRAW.uniform(size=(40, 6)).astype(np.float32)
RECORDS = {"image": IMAGES, "label": (IMAGES[:, 0] > 0.5).astype(np.int32)}


def of_linen():
    return jd.from_linen(nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)]))


def of_nnx():
    return jd.from_nnx(lambda rngs: nnx.Linear(6, 2, rngs=rngs))


def of_equinox():
    return jd.from_equinox(lambda key: eqx.nn.Linear(6, 2, key=key))


@pytest.mark.parametrize("make", [of_linen, of_nnx, of_equinox])
def test_a_net_of_ones_own_goes_the_same_way(make, tmp_path):
    net = make()
    loss = jd.objective.match(jd.losses.cross_entropy, name="ce", target="batch/label")
    distiller = jd.model_to_model(net, lambda *_: {}, loss, optax.adam(0.1))
    outcome = jd.fit(distiller, {}, RECORDS, 20, quiet=True)
    about = students.About("classes", class_names=NAMES_OF_TWO)
    folder = students.save(tmp_path / "student", net, outcome.result, IMAGES[:1], about)
    student = students.load(folder)
    assert student.module is None
    logits = net.apply(*outcome.result, IMAGES[:5]).out
    for each, row in zip(student.predict(IMAGES[:5]), jax.nn.softmax(logits), strict=True):
        np.testing.assert_allclose([each.values[n] for n in NAMES_OF_TWO], row, rtol=1e-4)
    with pytest.raises(ValueError, match=r"jaxdistill\.students\.load runs it"):
        models.load(folder)
    with pytest.raises(ValueError, match="has no form in timm"):
        students.export(folder, to="timm", out=tmp_path / "timm")
    weights = students.export(folder, to="safetensors", out=tmp_path / "weights")
    assert (weights / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()
    again = students.export(folder, to="stablehlo", out=tmp_path / "function")
    function = load_exported(again / "student.jaxexport")
    np.testing.assert_allclose(function(IMAGES), net.apply(*outcome.result, IMAGES).out, rtol=1e-4)


def test_what_is_said_of_a_net_is_held_against_it(tmp_path):
    net = of_linen()
    result = net.init(jax.random.key(0), IMAGES)
    for about, words in (
        (students.About("classes", class_names=("a", "b", "c")), r"of 3 classes .* is \[1, 2\]"),
        (students.About("clases"), "did you mean 'classes'"),
        (students.About(read="layers_9"), "layers_9"),
    ):
        with pytest.raises(ValueError, match=words):
            students.save(tmp_path / "student", net, result, IMAGES[:1], about)
    assert not any(tmp_path.iterdir())


def test_samples_are_not_predictions(tmp_path):
    net = from_function(lambda key, x: ({}, {}), lambda p, s, x, *, train, rng: (2 * x, {}, s))
    folder = students.save(tmp_path / "a", net, ({}, {}), IMAGES[:1], students.About("samples"))
    student = students.load(folder)
    np.testing.assert_allclose(student.outputs(IMAGES), 2 * IMAGES)
    with pytest.raises(ValueError, match="makes samples"):
        student.predict(IMAGES)
