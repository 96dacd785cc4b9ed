"""What a net costs, against what can be counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec

from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import from_function
from jaxdistill.training.costs import costs

WIDTH = 16


def products(loop):
    """A net of five products with one matrix each, written as a loop or one after the other."""

    def apply(params, state, inputs, *, train, rng):
        def body(x, matrix):
            return x @ matrix, None

        if loop == "unrolled":
            for matrix in params:
                inputs, _ = body(inputs, matrix)
        elif loop == "scan":
            inputs, _ = jax.lax.scan(body, inputs, params)
        else:  # a loop in what is called in a loop
            once = jax.jit(lambda x, _: jax.lax.scan(body, x, params))
            inputs, _ = jax.lax.scan(lambda x, i: (once(x, i)[0], None), inputs, jnp.arange(3))
        return inputs, {}, state

    return from_function(lambda key, x: (jnp.zeros((5, WIDTH, WIDTH)), {}), apply)


@pytest.mark.parametrize(("loop", "products_done"), [("unrolled", 5), ("scan", 5), ("nested", 15)])
def test_operations_are_those_of_all_turns_of_a_loop(loop, products_done):
    net, x = products(loop), jnp.ones((4, WIDTH))
    found = costs(net, net.init(jax.random.key(0), x), x)
    wanted = products_done * 2 * WIDTH**2
    assert wanted <= found.operations <= 1.1 * wanted + 50
    assert found.parameters == 5 * WIDTH**2
    assert 0 < found.seconds < 10


def test_state_is_held_but_was_not_trained():
    net, x = from_linen(nn.BatchNorm(use_running_average=True)), np.ones((2, 3), np.float32)
    found = costs(net, net.init(jax.random.key(0), x), x)
    assert (found.parameters, found.bytes) == (6, 4 * 12)


def test_a_mesh_changes_no_count():
    net, x = from_linen(nn.Dense(8)), jnp.ones((2, 8))
    result = net.init(jax.random.key(0), x)
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    for spec in (PartitionSpec(), PartitionSpec("data")):
        placed = jax.device_put(result, NamedSharding(mesh, spec))
        assert costs(net, placed, x)[:3] == costs(net, result, x)[:3]


def test_what_does_not_fit_is_counted_but_not_timed(monkeypatch, caplog):
    net, x = from_linen(nn.Dense(8)), jnp.ones((2, 8))
    result = net.init(jax.random.key(0), x)

    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(jax, "block_until_ready", full)
    found = costs(net, result, x)
    assert found.seconds is None
    assert found.parameters == 72
    assert "not timed" in caplog.text
