"""The multilayer perceptron against plain matrix products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.models import MLP

IMAGES = jax.random.uniform(jax.random.key(1), (3, 4, 4, 2))


def variables_of(net, inputs=IMAGES):
    shapes = jax.eval_shape(net.init, jax.random.key(0), inputs)
    noise = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(noise.normal(size=leaf.shape), leaf.dtype), shapes)


def test_two_hidden_layers_by_hand():
    net = MLP(widths=(6, 5), classes=3)
    variables = variables_of(net)
    params = jax.tree.map(np.asarray, variables["params"])
    units = np.asarray(IMAGES).reshape(3, -1)
    for name in ("hidden_0", "hidden_1"):
        units = np.maximum(units @ params[name]["kernel"] + params[name]["bias"], 0)
    expected = units @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(net.apply(variables, IMAGES), expected, rtol=1e-5, atol=1e-6)


def test_uint8_and_dict_mean_the_same_as_floats():
    net = MLP(widths=(6,), classes=3)
    raw = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 4, 4, 1)), jnp.uint8)
    variables = variables_of(net, raw)
    expected = net.apply(variables, raw.astype(jnp.float32) / 255)
    np.testing.assert_array_equal(net.apply(variables, raw), expected)
    np.testing.assert_array_equal(net.apply(variables, {"image": raw, "label": None}), expected)


def test_dropout_only_in_training():
    net = MLP(widths=(64,), classes=3, dropout=0.5, input_dropout=0.5)
    variables = variables_of(net)
    plain = MLP(widths=(64,), classes=3).apply(variables, IMAGES)
    np.testing.assert_array_equal(net.apply(variables, IMAGES), plain)
    drawn = [
        net.apply(variables, IMAGES, train=True, rngs={"dropout": jax.random.key(seed)})
        for seed in (0, 1)
    ]
    assert not np.allclose(drawn[0], drawn[1])


def test_computes_in_bfloat16_with_float32_parameters_and_output():
    net = MLP(widths=(6,), classes=3, dtype=jnp.bfloat16)
    variables = variables_of(net)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    out, captured = net.apply(variables, IMAGES, capture_intermediates=True)
    assert captured["intermediates"]["hidden_0"]["__call__"][0].dtype == jnp.bfloat16
    assert out.dtype == jnp.float32


@pytest.mark.parametrize(
    ("inputs", "message"),
    [(jnp.zeros((2, 4), jnp.int32), "int32"), ({"label": jnp.zeros(2)}, r"only \['label'\]")],
)
def test_refuses_what_is_no_image(inputs, message):
    with pytest.raises(ValueError, match=message):
        MLP().init(jax.random.key(0), inputs)
