"""Nets from Equinox modules: examples and batches, what is state, taps in transformations."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import adapt
from jaxdistill.frameworks.equinox import from_equinox
from jaxdistill.net import TapError

KEY, OTHER = jax.random.split(jax.random.key(0))
INPUTS = jax.random.normal(jax.random.key(1), (6, 4))


def sequential(key):
    first, last = jax.random.split(key)
    return eqx.nn.Sequential(
        [
            eqx.nn.Linear(4, 4, key=first),
            eqx.nn.BatchNorm(4, "batch", mode="ema"),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Dropout(0.5),
            eqx.nn.MLP(4, 2, 8, 1, key=last),
        ]
    )


def test_state_has_the_names_of_attributes():
    params, state = from_equinox(sequential).init(KEY, INPUTS)
    assert jax.tree.map(jnp.shape, state) == {
        "layers": {"1": {"ema_first_time_index": (), "ema_state_index": {"0": (4,), "1": (4,)}}}
    }
    assert params["layers"]["4"]["layers"]["1"]["weight"].shape == (2, 8)


def test_layers_that_ask_for_the_type_of_others_can_be_tapped():
    net = from_equinox(sequential)
    variables = net.init(KEY, INPUTS)
    taps = ("layers/1", "layers/4", "layers/4/layers/0")
    forward = net.apply(*variables, INPUTS, taps=taps, train=True, rng=KEY)
    plain = net.apply(*variables, INPUTS, train=True, rng=KEY)
    np.testing.assert_array_equal(forward.out, plain.out)
    np.testing.assert_array_equal(forward.taps["layers/4"], forward.out)
    # A stateful layer is tapped without its state, normalised over the batch.
    assert forward.taps["layers/1"].shape == (6, 4)
    assert forward.taps["layers/4/layers/0"].shape == (6, 8)
    np.testing.assert_array_equal(forward.state["layers"]["1"]["ema_first_time_index"], False)


def test_every_example_has_its_own_key():
    net = from_equinox(lambda key: eqx.nn.Dropout(0.5))
    ones = jnp.ones((4, 16))
    out = net.apply({}, {}, ones, train=True, rng=KEY).out
    assert len({row.tobytes() for row in np.asarray(out)}) == 4
    np.testing.assert_array_equal(net.apply({}, {}, ones).out, ones)
    with pytest.raises(RuntimeError, match="requires a key"):
        net.apply({}, {}, ones, train=True)


class Batched(eqx.Module):
    weight: jax.Array
    table: jax.Array  # not a floating point array: no parameter

    def __init__(self, key):
        self.weight = jax.random.normal(key, (4, 2))
        self.table = jnp.arange(2)

    def __call__(self, x):
        return (x - x.mean(0, keepdims=True)) @ self.weight[:, self.table]


def test_models_of_batches():
    net = from_equinox(Batched, batched=True)
    params, state = net.init(KEY, INPUTS)
    assert (params.keys(), state.keys()) == ({"weight"}, {"table"})
    out = net.apply(params, state, INPUTS).out
    np.testing.assert_allclose(out.mean(0), jnp.zeros(2), atol=1e-6)
    moved = net.apply(params, state, INPUTS, train=True).state
    np.testing.assert_array_equal(moved["table"], state["table"])


def test_another_way_to_call():
    def call(model, inputs, state, key):
        return model(inputs["x"]) + inputs["shift"], state

    net = from_equinox(lambda key: eqx.nn.Linear(4, 2, key=key), call=call)
    inputs = {"x": INPUTS, "shift": jnp.ones((6, 2))}
    params, state = net.init(KEY, inputs)
    expected = INPUTS @ params["weight"].T + params["bias"][None] + 1
    np.testing.assert_allclose(net.apply(params, state, inputs).out, expected, rtol=1e-5)


class Wrapper(eqx.Module):
    layer: eqx.nn.Linear
    how: str = eqx.field(static=True)

    def __call__(self, x):
        if self.how == "scan":
            return jax.lax.scan(lambda x, _: (self.layer(x), None), x, None, length=2)[0]
        if self.how == "vmap":
            return jax.vmap(self.layer)(x[None])[0]
        if self.how == "checkpoint":
            return jax.checkpoint(lambda x: self.layer(x))(x)
        if self.how == "twice":
            return self.layer(self.layer(x))
        return self.layer.weight @ x


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("scan", "inside a transformation of the model's own"),
        ("vmap", "inside a transformation of the model's own"),
        ("checkpoint", "inside a transformation of the model's own"),
        ("twice", "fired 2 times"),
        ("never", "fired 0 times"),
    ],
)
def test_taps_that_cannot_be(how, message):
    net = from_equinox(lambda key: Wrapper(eqx.nn.Linear(4, 4, key=key), how))
    variables = net.init(KEY, INPUTS)
    assert net.apply(*variables, INPUTS).out.shape == (6, 4)
    with pytest.raises(TapError, match=message):
        net.apply(*variables, INPUTS, taps=("layer",))


def test_grids_are_handed_on_channels_last_where_the_model_has_them_first():
    def made(key):
        return eqx.nn.Sequential(
            [
                eqx.nn.Conv2d(1, 3, 2, key=key),
                eqx.nn.Lambda(jnp.ravel),
                eqx.nn.Linear(12, 2, key=key),
            ]
        )

    images = jax.random.normal(KEY, (5, 1, 3, 3))
    taps = ("layers/0", "layers/1")
    nets = {place: from_equinox(made, channels=place) for place in ("first", "last")}
    seen = {}
    for place, net in nets.items():
        seen[place] = net.apply(*net.init(KEY, images), images, taps=taps)
    assert seen["first"].taps["layers/0"].shape == (5, 2, 2, 3)
    np.testing.assert_array_equal(
        seen["first"].taps["layers/0"], jnp.moveaxis(seen["last"].taps["layers/0"], 1, -1)
    )
    np.testing.assert_array_equal(seen["first"].taps["layers/1"], seen["last"].taps["layers/1"])
    np.testing.assert_array_equal(seen["first"].out, seen["last"].out)
    with pytest.raises(ValueError, match="channels='first'"):
        adapt.linear((5, 3, 2, 2), (5, 8, 2, 2))
    with pytest.raises(ValueError, match=r"place of channels 'frist'.*did you mean 'first'"):
        from_equinox(made, channels="frist")
