"""What is put before and behind a net: boundaries, TrigFlow, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import models, samplers
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.samplers import denoisers


def small(**settings):
    net = denoisers.denoiser(from_linen(models.TimeMLP(width=8, depth=1, classes=3)), **settings)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))
    inputs = {"image": x, "sigma": jnp.array([0.002, 0.1, 1.0, 80.0])}
    params, state = net.init(jax.random.key(0), inputs)
    params = jax.tree.map(lambda p: p + 0.1, params)
    return net, (jax.tree.map(lambda p: p.astype(jnp.float64), params), state), inputs


def test_scalings_of_latent_consistency_models(golden):
    stored = golden("lcm_boundary_scalings_diffusers")
    skip, out = denoisers.latent_scalings(jnp.asarray(stored["in__timestep"], jnp.float64))
    np.testing.assert_allclose(skip, stored["out__c_skip"], rtol=1e-7)
    np.testing.assert_allclose(out, stored["out__c_out"], rtol=1e-10)


@pytest.mark.parametrize("least", [0.0, 0.002])
def test_the_boundary(least):
    net, variables, inputs = small(sigma_min=least)
    at_least = {**inputs, "sigma": jnp.full(4, least)}
    np.testing.assert_allclose(net.apply(*variables, at_least).out, inputs["image"], atol=1e-10)


def test_scalings_are_those_of_edm():
    sigma = jnp.array([0.002, 0.5, 80.0])
    skip, out, inner = denoisers.scalings(sigma, 0.5)
    np.testing.assert_allclose(skip, 0.25 / (sigma**2 + 0.25), rtol=1e-12)
    np.testing.assert_allclose(out, 0.5 * sigma / jnp.sqrt(sigma**2 + 0.25), rtol=1e-12)
    # Unit variance in, unit variance to be said.
    np.testing.assert_allclose(inner**2 * (sigma**2 + 0.25), 1, rtol=1e-12)


def test_it_is_trigflow_with_the_other_sign():
    net, variables, inputs = small(time="angle")
    trig = samplers.trigflow(sigma_data=0.5)
    t = trig.time(inputs["sigma"])
    seen = trig.alpha(t)[:, None] * inputs["image"]
    inner = from_linen(models.TimeMLP(width=8, depth=1, classes=3))
    f = -inner.apply(*variables, {"image": seen / 0.5, "time": t}).out
    expected = jnp.cos(t)[:, None] * seen - jnp.sin(t)[:, None] * 0.5 * f
    np.testing.assert_allclose(net.apply(*variables, inputs).out, expected, atol=1e-10)


def test_a_flow_becomes_trigflow_without_training():
    inner = from_linen(models.TimeMLP(width=8, depth=1, classes=3))
    straight, variables, inputs = small(time="flow")
    turned = denoisers.denoiser(denoisers.as_trigflow(inner), time="angle")
    found, expected = (net.apply(*variables, inputs).out for net in (turned, straight))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    # And it is the denoiser of the path of straight lines, of data whose deviation is 1.
    path = samplers.flow()
    t = path.time(inputs["sigma"] / 0.5)
    x = path.alpha(t)[:, None] * inputs["image"] / 0.5
    velocity = inner.apply(*variables, {"image": x, "time": t}).out
    data = samplers.convert(path, x, t, velocity, "velocity", "data")
    np.testing.assert_allclose(expected, 0.5 * data, rtol=1e-12, atol=1e-12)


def test_noise_alone_becomes_a_sample():
    net, variables, inputs = small()
    expected = {"image": 80 * inputs["image"], "sigma": jnp.full(4, 80.0)}
    found = net.apply(*variables, inputs["image"]).out
    np.testing.assert_array_equal(found, net.apply(*variables, expected).out)


def test_no_noise_is_finite_in_value_and_slope():
    for time in ("log", "angle"):
        net, variables, inputs = small(time=time)
        zero = {**inputs, "sigma": jnp.zeros(4)}

        def total(params, net=net, variables=variables, zero=zero):
            return net.apply(params, variables[1], zero).out.sum()

        value, slope = jax.value_and_grad(total)(variables[0])
        assert jnp.isfinite(value)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def test_bfloat16_inside_is_wide_outside():
    net = denoisers.denoiser(from_linen(models.TimeMLP(width=8, depth=1, dtype=jnp.bfloat16)))
    inputs = {"image": jnp.ones((1, 2), jnp.bfloat16), "sigma": jnp.ones(1, jnp.bfloat16)}
    assert net.apply(*net.init(jax.random.key(0), inputs), inputs).out.dtype == jnp.float32


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_guided_as_a_function(scale):
    net, variables, inputs = small()
    label = jnp.array([0, 1, 2, -1])

    def run(label):
        return net.apply(*variables, {**inputs, "label": label}).out

    found = denoisers.as_function(net, variables, label=label, scale=scale)(
        inputs["image"], inputs["sigma"]
    )
    nothing = run(jnp.full(4, -1))
    np.testing.assert_allclose(found, nothing + scale * (run(label) - nothing), atol=1e-10)
    with pytest.raises(ValueError, match="needs labels"):
        denoisers.as_function(net, variables, scale=2.0)(inputs["image"], inputs["sigma"])


def test_refusals():
    with pytest.raises(ValueError, match="'angle'"):
        denoisers.denoiser(from_linen(models.TimeMLP()), time="angel")
