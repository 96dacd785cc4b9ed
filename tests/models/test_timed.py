"""Nets that are told a time: shapes, what they listen to, and forward mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import models
from jaxdistill.frameworks.linen import from_linen

NETS = {
    "mlp": models.TimeMLP(width=8, depth=1, classes=3, guidance=True),
    "dit": models.DiT(patch=2, width=16, depth=2, heads=2, classes=3, guidance=True),
    "unet": models.UNet(
        width=8, multipliers=(1, 2), depth=1, attention=(2,), classes=3, guidance=True
    ),
}


@pytest.fixture(params=NETS, scope="module")
def ready(request):
    net = from_linen(NETS[request.param])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 1)), jnp.float32)
    inputs = {
        "image": x,
        "time": jnp.array([0.3, 1.2]),
        "label": jnp.array([0, 2]),
        "guidance": jnp.array([1.0, 3.0]),
    }
    params, state = jax.jit(net.init)(jax.random.key(0), inputs)
    # Heads and gates start at zero: move everything.
    params = jax.tree.map(lambda p: p + 0.05, params)
    return jax.jit(lambda inputs: net.apply(params, state, inputs).out), inputs, net, params


def test_it_listens_to_all_it_is_told(ready):
    run, inputs, _, _ = ready
    out = run(inputs)
    assert out.shape == inputs["image"].shape
    for name, other in (("time", 0.1), ("label", 1), ("guidance", 0.5)):
        told = {**inputs, name: inputs[name] + jnp.asarray(other, inputs[name].dtype)}
        if name == "label":
            told[name] = jnp.array([1, 1])
        assert (run(told) != out).any(), name
    none = {**inputs, "label": jnp.array([-1, -1])}
    without = {k: v for k, v in inputs.items() if k != "label"}
    np.testing.assert_array_equal(run(none), run(without))
    # Examples are seen one by one.
    first = jax.tree.map(lambda x: x[:1], inputs)
    np.testing.assert_allclose(run(first), out[:1], atol=1e-5)


def test_without_a_scale_its_layer_stays_as_it_is(ready):
    _, inputs, net, params = ready
    alone = {name: each for name, each in inputs.items() if name != "guidance"}
    slopes = jax.jit(jax.grad(lambda p: (net.apply(p, {}, alone).out ** 2).sum()))(params)
    given = slopes["given"]
    assert given["time"]["kernel"].any()
    assert not given["guidance"]["kernel"].any()


def test_forward_mode_agrees_with_differences(ready):
    run, inputs, _, _ = ready

    def along(s):
        return run({**inputs, "image": inputs["image"] * (1 + s), "time": inputs["time"] + s})

    _, slope = jax.jvp(along, (0.0,), (1.0,))
    measured = (along(1e-2) - along(-1e-2)) / 2e-2
    np.testing.assert_allclose(slope, measured, atol=0.05 * float(jnp.abs(slope).max()))


def test_the_bottleneck_is_a_tap_a_critic_reads(ready):
    _, inputs, net, params = ready
    head = from_linen(models.CriticHead())

    def logits(params):
        feature = net.apply(params, {}, inputs, taps=("bottleneck",)).taps["bottleneck"]
        assert feature.shape[0] == 2
        variables = head.init(jax.random.key(1), feature)
        return head.apply(*variables, feature).out

    assert jax.eval_shape(logits, params).shape == (2, 1)


def test_sides_that_cannot_be_halved():
    net = models.UNet(width=8, multipliers=(1, 1, 1), depth=1)
    x = {"image": jnp.ones((1, 6, 6, 1)), "time": jnp.ones(1)}
    with pytest.raises(ValueError, match="fewer multipliers"):
        jax.eval_shape(net.init, jax.random.key(0), x)
