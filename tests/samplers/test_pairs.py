"""Pairs of noise and sample: rows in their places, of the teacher's own flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import samplers
from jaxdistill.net import Forward, Net

ONE = samplers.mixture([1.0], np.zeros((1, 2)), [0.25])
RING = samplers.ring(classes=2)
BATCH = {"image": jnp.zeros((4, 2)), "label": jnp.zeros(4, int)}


def gaussian(frozen):
    return lambda x, sigma, label=None: samplers.denoise(ONE, x, sigma)


def ring(frozen):
    return lambda x, sigma, label=None: samplers.denoise(RING, x, sigma, label)


def made(teacher, steps=3, **settings):
    distiller = samplers.flow_pairs(teacher, steps, 2, **settings)
    state = jax.jit(distiller.init)(jax.random.key(0), {}, BATCH)
    for _ in range(steps):
        state, _ = jax.jit(distiller.step)(state, {}, BATCH)
    return distiller.result(state)


def flow_map(noise, high=80.0):
    """Where the flow of a Gaussian of deviation 0.5 leads noise to."""
    return high * noise * 0.5 / np.sqrt(0.25 + high**2)


def test_every_step_fills_rows_of_its_own():
    pairs = made(gaussian, in_steps=40)
    assert pairs["noise"].shape == pairs["sample"].shape == (12, 2)
    assert len(np.unique(np.asarray(pairs["noise"]).round(6), axis=0)) == 12
    np.testing.assert_allclose(pairs["sample"], flow_map(pairs["noise"]), rtol=0.02)


def test_samples_are_of_their_labels():
    pairs = made(ring, labels=True, in_steps=40, steps=8)
    apart = pairs["sample"][:, None] - RING.means[None]
    nearest = np.asarray(RING.labels)[np.argmin((apart**2).sum(-1), 1)]
    assert (nearest == pairs["label"]).mean() > 0.9
    assert set(np.asarray(pairs["label"]).tolist()) == {0, 1}


@pytest.mark.parametrize(("factor", "left"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.25)])
def test_a_generator_of_the_flow_pays_nothing(factor, left):
    pairs = made(gaussian, in_steps=40, steps=8)
    net = Net(
        lambda key, inputs: ({}, {}),
        lambda params, state, inputs, **_: Forward(
            factor * flow_map(inputs["image"] / 80.0), {}, state, params
        ),
    )
    loss = samplers.pair_loss(net, "pairs")
    values = loss({"net": ({}, {})}, {"pairs": pairs}, jax.random.key(1), 4096)
    assert values.shape == (4096,)
    whole = (pairs["sample"] ** 2).mean()
    assert float(values.mean() / whole) == pytest.approx(left, abs=0.03)
    with pytest.raises(ValueError, match="pairs in the frozen variables"):
        loss({"net": ({}, {})}, {"pair": pairs}, jax.random.key(1), 4)
