"""A function and arrays written, read back without their net, and files that are none."""

import logging
import sys
from functools import partial

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save

from jaxdistill import models
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.frameworks.nnx import from_nnx
from jaxdistill.net import from_function
from jaxdistill.training.checkpoint import fingerprint
from jaxdistill.training.export import (
    FUNCTION,
    load_exported,
    named_arrays,
    read_named_arrays,
    shapes_of,
    write_function,
)

NOISE = np.random.default_rng(0)
WEIGHTS = "model.safetensors"


def written(folder, net, result, inputs):
    """The files of a net, and the platforms that its function is for."""
    folder.mkdir(exist_ok=True)
    function, weights = folder / FUNCTION, folder / WEIGHTS
    assert write_function(function, net, result, inputs)
    weights.write_bytes(save(named_arrays(result)))
    platforms = jax.export.deserialize(bytearray(function.read_bytes())).platforms
    return function, weights, platforms


def images(count):
    return NOISE.normal(size=(count, 8, 8, 1)).astype(np.float32)


MAE = from_linen(
    models.MAE(
        patch=4,
        width=8,
        depth=1,
        heads=2,
        decoder_width=8,
        decoder_depth=1,
        decoder_heads=2,
        scan=True,
    )
)
RESNET = from_linen(models.ResNet(blocks=(1,), widths=(4,), classes=3, stem_width=4))
NNX = from_nnx(
    lambda rngs: nnx.Sequential(
        lambda x: x.reshape(x.shape[0], -1),
        nnx.Linear(64, 4, rngs=rngs),
        nnx.BatchNorm(4, rngs=rngs),
    )
)


def masked(count):
    keep = np.tile(np.array([[0, 3]], np.int32), (count, 1))
    return {"image": images(count), "keep": keep}


@pytest.mark.parametrize(
    ("net", "inputs"),
    [(MAE, masked), (RESNET, images), (NNX, images)],
    ids=["mae", "resnet", "nnx"],
)
def test_a_student_comes_back_with_equal_outputs_at_any_batch_size(net, inputs, tmp_path):
    # Positive, as variances must be, and no array at its initial value, which may be neutral.
    shapes = jax.eval_shape(net.init, jax.random.key(0), inputs(2))
    params, state = jax.tree.map(
        lambda x: jnp.asarray(NOISE.uniform(0.1, 0.5, x.shape), x.dtype), shapes
    )
    function, weights, platforms = written(tmp_path / "student", net, (params, state), inputs(2))
    assert platforms == ("cpu", "cuda", "tpu")
    exported = load_exported(function)
    assert fingerprint(read_named_arrays(weights)) == fingerprint((params, state))
    seen = inputs(5)
    expected = jax.jit(lambda seen: net.apply(params, state, seen).out)(seen)
    # Other sums than in a batch of five: one example alone is rounded otherwise.
    for count, close in ((5, 1e-6), (1, 5e-5)):
        found = exported(jax.tree.map(lambda x, n=count: x[:n], seen))
        own = jax.tree.map(lambda x, n=count: x[:n], expected)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=10 * close, atol=close), found, own)

    shapes = [entry["shape"] for entry in shapes_of(inputs(2)).values()]
    assert shapes[0] == ["b", 8, 8, 1]
    assert set(shapes_of(inputs(2))) == ({"image", "keep"} if inputs is masked else {"inputs"})


def test_every_type_is_kept(tmp_path):
    given = (
        {"half": jnp.asarray(NOISE.normal(size=3), jnp.bfloat16), "scalar": jnp.float32(2)},
        {"count": jnp.int32(3), "on": jnp.array([True, False])},
    )
    net = from_function(
        lambda key, x: given,
        lambda p, s, x, *, train, rng: (x * p["scalar"] + p["half"][None], {}, s),
    )
    _, weights, _ = written(tmp_path, net, given, np.ones((2, 3), np.float32))
    loaded = read_named_arrays(weights)
    assert jax.tree.map(lambda x: (x.shape, str(x.dtype)), loaded) == jax.tree.map(
        lambda x: (x.shape, str(x.dtype)), given
    )
    assert fingerprint(loaded) == fingerprint(given)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_lowers_on_one_platform_alone_is_exported_for_it(tmp_path, caplog):
    def apply(params, state, x, *, train, rng):
        return jnp.linalg.eigvals(x * params["scale"]).real.sum(-1), {}, state

    net = from_function(None, apply)
    result = ({"scale": jnp.float32(2)}, {})
    with caplog.at_level(logging.WARNING):
        function, _, platforms = written(tmp_path, net, result, np.ones((2, 3, 3), np.float32))
    assert platforms == ("cpu",)
    assert "student.jaxexport is for cpu alone" in caplog.text
    np.testing.assert_allclose(
        load_exported(function)(np.eye(3)[None].repeat(4, 0).astype("f4")), [6.0] * 4
    )


def test_a_net_that_computes_with_its_batch_size_is_refused(tmp_path):
    net = from_function(
        None, lambda p, s, x, *, train, rng: (x.reshape(x.shape[0] // 2, -1), {}, s)
    )
    with pytest.raises(ValueError, match="cannot be exported for any batch size"):
        write_function(tmp_path / FUNCTION, net, ({}, {}), np.ones((2, 3), np.float32))
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    net = from_linen(nn.Dense(3))
    result = net.init(jax.random.key(0), np.ones((1, 4), np.float32))
    folder = tmp_path_factory.mktemp("student")
    (folder / "config.json").write_text("{}")
    inputs = np.ones((1, 4), np.float32)
    return [*written(folder, net, result, inputs)[:2], folder / "config.json"]


@pytest.mark.parametrize(
    ("place", "load", "message"),
    [
        (0, load_exported, "is truncated, or no exported function"),
        (1, read_named_arrays, "is truncated, or no safetensors file"),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_files_are_refused(files, tmp_path, place, load, message, share):
    content = files[place].read_bytes()
    torn = tmp_path / files[place].name
    torn.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=f"{torn.name} {message}"):
        load(torn)


def test_other_files_are_refused(files, tmp_path):
    for load, other in (
        (load_exported, files[1]),
        (load_exported, files[2]),
        (read_named_arrays, files[0]),
    ):
        with pytest.raises(ValueError, match=f"{other.name} is truncated, or no"):
            load(other)
    for load in (load_exported, read_named_arrays):
        with pytest.raises(FileNotFoundError, match="absent"):
            load(tmp_path / "absent")

    (tmp_path / "other.safetensors").write_bytes(save({"weight": np.ones(2)}))
    with pytest.raises(ValueError, match=r"other\.safetensors holds no student: 'weight'"):
        read_named_arrays(tmp_path / "other.safetensors")


def test_without_the_extra_a_warning_says_what_is_left_out(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    monkeypatch.setitem(sys.modules, "jax._src.export.serialization", None)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    net = from_linen(nn.Dense(3))
    inputs = np.ones((1, 4), np.float32)
    result = net.init(jax.random.key(0), inputs)
    with caplog.at_level(logging.WARNING):
        assert not write_function(tmp_path / FUNCTION, net, result, inputs)
    assert 'no student.jaxexport: it needs pip install "jaxdistill[export]"' in caplog.text
    assert not any(tmp_path.iterdir())
    with pytest.raises(ImportError, match=r"jaxdistill\[export\]"):
        read_named_arrays(tmp_path / WEIGHTS)
