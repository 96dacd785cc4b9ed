"""Nets from NNX modules: random streams, what is state, loops over layers, inherited layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdistill.frameworks.nnx import from_nnx
from jaxdistill.net import TapError

KEY, OTHER = jax.random.split(jax.random.key(0))
INPUTS = jax.random.normal(jax.random.key(1), (3, 4))


class Layer(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        hidden = self.dropout(self.dense(x))
        self.sow(nnx.Intermediate, "hidden", hidden)
        return x + hidden


def test_dropout_under_grad():
    net = from_nnx(Layer)
    params, state = net.init(KEY, INPUTS)

    def loss(params, rng):
        return (net.apply(params, state, INPUTS, train=True, rng=rng).out ** 2).sum()

    gradient = jax.jit(jax.grad(loss))
    first, again, other = gradient(params, KEY), gradient(params, KEY), gradient(params, OTHER)
    np.testing.assert_array_equal(first["dense"]["kernel"], again["dense"]["kernel"])
    assert (first["dense"]["kernel"] != other["dense"]["kernel"]).any()
    # Under eager grad too, where a variable made outside may not be written to.
    np.testing.assert_allclose(
        jax.grad(loss)(params, KEY)["dense"]["kernel"], first["dense"]["kernel"], rtol=1e-5
    )


class Drops(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Dropout(0.5, rngs=rngs) for _ in range(2)])

    def __call__(self, x):
        return [layer(x) for layer in self.layers]


def test_every_layer_draws_its_own_mask():
    first, second = from_nnx(Drops).apply({}, {}, jnp.ones((4, 8)), train=True, rng=KEY).out
    assert (first != second).any()


def test_a_legacy_key_is_as_good():
    net = from_nnx(Layer)
    params, state = net.init(jax.random.PRNGKey(0), INPUTS)
    out = net.apply(params, state, INPUTS, train=True, rng=jax.random.PRNGKey(1)).out
    same = net.apply(params, state, INPUTS, train=True, rng=jax.random.key(1)).out
    np.testing.assert_array_equal(out, same)


def test_a_stream_without_rng_is_refused_where_it_is_used():
    net = from_nnx(Layer)
    variables = net.init(KEY, INPUTS)
    net.apply(*variables, INPUTS)
    with pytest.raises(ValueError, match="its apply needs rng"):
        net.apply(*variables, INPUTS, train=True)


def test_random_streams_are_no_state():
    params, state = from_nnx(Layer).init(KEY, INPUTS)
    assert jax.tree.map(jnp.shape, params) == {"dense": {"bias": (4,), "kernel": (4, 4)}}
    assert state == {}


class Decoder(nnx.Module):
    def __init__(self, rngs):
        self.position = nnx.Cache(jnp.zeros((), jnp.int32))
        self.count = nnx.BatchStat(jnp.zeros(()))
        self.table = nnx.data(jnp.arange(4.0))

    def __call__(self, x):
        self.position[...] += 1
        self.count[...] += 1
        return x + self.table[None]


def test_a_cache_moves_in_evaluation_too():
    net = from_nnx(Decoder)
    params, state = net.init(KEY, INPUTS)
    assert params == {}
    assert state.keys() == {"position", "count", "table"}
    after = net.apply(params, state, INPUTS).state
    assert (int(after["position"]), float(after["count"])) == (1, 0.0)
    after = net.apply(params, after, INPUTS, train=True).state
    assert (int(after["position"]), float(after["count"])) == (2, 1.0)
    np.testing.assert_array_equal(after["table"], state["table"])


class Keyword(nnx.Module):
    def __init__(self, rngs):
        del rngs

    def __call__(self, x, train):
        return x + train


def test_training_is_passed_by_keyword_or_by_call():
    zero = jnp.zeros(())
    assert from_nnx(Keyword).apply({}, {}, zero, train=True).out == 1
    assert from_nnx(Keyword).apply({}, {}, zero).out == 0
    net = from_nnx(Keyword, call=lambda module, inputs, train: module(inputs, 5 if train else 3))
    assert net.apply({}, {}, zero, train=True).out == 5


class Heir(nnx.Linear):
    """Inherits its ``__call__``."""


class Shared(nnx.Module):
    def __init__(self, rngs):
        self.first = Heir(4, 4, rngs=rngs)
        self.second = nnx.Linear(4, 4, rngs=rngs)
        self.idle = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        return self.second(self.second(self.first(x)))


def test_layers_called_other_than_once():
    net = from_nnx(Shared)
    variables = net.init(KEY, INPUTS)
    params = variables[0]["first"]
    found = net.apply(*variables, INPUTS, taps=("first",)).taps["first"]
    np.testing.assert_allclose(found, INPUTS @ params["kernel"] + params["bias"][None], rtol=1e-6)
    with pytest.raises(TapError, match="'second' fired 2 times"):
        net.apply(*variables, INPUTS, taps=("second",))
    with pytest.raises(TapError, match="'idle' fired 0 times"):
        net.apply(*variables, INPUTS, taps=("idle",))


class Scanned(nnx.Module):
    def __init__(self, rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=0, out_axes=0)
        def layers(rngs):
            return Layer(rngs)

        self.layers = layers(rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def loop(layer, x):
            return layer(x)

        return loop(self.layers, x)


def test_layers_of_a_loop_are_tapped_together_or_one_by_one():
    net = from_nnx(Scanned)
    params, state = net.init(KEY, INPUTS)
    taps = ("layers", "layers[2]", "layers/hidden", "layers/dense[1]")
    forward = net.apply(params, state, INPUTS, taps=taps, train=True, rng=KEY)
    found = forward.taps
    np.testing.assert_array_equal(found["layers"][2], forward.out)
    np.testing.assert_array_equal(found["layers[2]"], forward.out)
    kept = found["layers/hidden"] != 0
    assert (kept[0] != kept[1]).any()  # every layer of the stack draws its own mask
    assert found["layers/dense[1]"].shape == INPUTS.shape
    with pytest.raises(TapError, match="3 deep"):
        net.apply(params, state, INPUTS, taps=("layers[3]",))


class Rematerialised(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([Layer(rngs), Layer(rngs)])

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.remat(lambda layer, x: layer(x))(layer, x)
        return x


def test_taps_reach_into_rematerialised_layers():
    net = from_nnx(Rematerialised)
    params, state = net.init(KEY, INPUTS)
    net.apply(params, state, INPUTS)  # in evaluation no key is read, also not by the transformation

    def loss(params):
        forward = net.apply(params, state, INPUTS, taps=("layers/0/dense",), train=True, rng=KEY)
        return forward.taps["layers/0/dense"].sum()

    gradient = jax.jit(jax.grad(loss))(params)["layers"]
    assert (gradient["0"]["dense"]["bias"] == 3).all()
    assert (gradient["1"]["dense"]["bias"] == 0).all()
