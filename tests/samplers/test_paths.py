"""Paths, conversions and schedules: algebra to 1e-10, and the numbers of public code."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import samplers
from jaxdistill.samplers import paths

PATHS = sorted(samplers.PATHS)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("name", PATHS)
def test_a_path_is_a_path(name):
    path = samplers.PATHS[name]()
    times = jnp.linspace(path.first, path.last, 9)[1:-1]
    ratio = path.sigma(times) / path.alpha(times)
    assert (jnp.diff(ratio) > 0).all()
    np.testing.assert_allclose(path.time(ratio), times, rtol=1e-10)
    if name.startswith("variance_preserving"):
        np.testing.assert_allclose(path.alpha(times) ** 2 + path.sigma(times) ** 2, 1, rtol=1e-12)


@pytest.mark.parametrize("name", PATHS)
def test_every_prediction_from_every_other(name):
    path = samplers.PATHS[name]()
    data, noise = normal(0, 5, 3), normal(1, 5, 3)
    t = path.first + (path.last - path.first) * jnp.array([0.03, 0.2, 0.5, 0.8, 0.95])
    x = samplers.add_noise(path, data, noise, t)
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    step = 1e-5 * t
    moved = [samplers.add_noise(path, data, noise, t + sign * step) for sign in (1, -1)]
    direct = {
        "data": data,
        "noise": noise,
        "v": alpha * noise - sigma * data,
        "velocity": (moved[0] - moved[1]) / (2 * step[:, None]),
        "score": -noise / sigma,
    }
    exact = {kind: samplers.convert(path, x, t, data, "data", kind) for kind in direct}
    for kind, value in direct.items():
        np.testing.assert_allclose(exact[kind], value, rtol=1e-6, atol=1e-6)
    for given, wanted in itertools.product(samplers.PREDICTIONS, repeat=2):
        found = samplers.convert(path, x, t, exact[given], given, wanted)
        scale = jnp.abs(exact[wanted]).max()
        np.testing.assert_allclose(found / scale, exact[wanted] / scale, atol=1e-10)


@pytest.mark.parametrize("wanted", samplers.PREDICTIONS)
def test_without_noise_nothing_is_infinite(wanted):
    def total(x, path):
        return samplers.convert(path, x, 0.0, x, "data", wanted).sum()

    for name in ("edm", "flow", "trigflow", "variance_preserving"):
        value, slope = jax.value_and_grad(total)(normal(0, 2, 3), samplers.PATHS[name]())
        assert jnp.isfinite(value)
        assert jnp.isfinite(slope).all()


def test_bfloat16_is_widened_and_a_batch_of_one_is_one():
    x = normal(0, 1, 4).astype(jnp.bfloat16)
    assert samplers.convert(samplers.flow(), x, 0.5, x, "noise", "v").dtype == jnp.float32
    one = samplers.convert(samplers.flow(), x, jnp.array([0.5]), x, "noise", "v")
    np.testing.assert_array_equal(one, samplers.convert(samplers.flow(), x, 0.5, x, "noise", "v"))


def test_refusals():
    x = jnp.ones((2, 3))
    with pytest.raises(ValueError, match="'velocity'"):
        samplers.convert(samplers.flow(), x, 0.5, x, "velocty", "data")
    with pytest.raises(ValueError, match="one an example"):
        samplers.convert(samplers.flow(), x, jnp.ones(3), x, "v", "data")


@pytest.mark.parametrize(("own", "other"), list(itertools.permutations(PATHS, 2)))
def test_a_denoiser_moves_to_another_path(own, other):
    own, other = samplers.PATHS[own](), samplers.PATHS[other]()
    ring = samplers.ring()
    x, t = normal(0, 4, 2), other.time(jnp.array([0.01, 0.1, 1.0, 10.0]))

    def denoise(x, t):
        return samplers.denoise(ring, x, t, path=own)

    moved = samplers.on_path(denoise, own, other)(x, t)
    np.testing.assert_allclose(moved, samplers.denoise(ring, x, t, path=other), atol=1e-10)


def test_a_flow_becomes_a_trigflow():
    """The transform of SANA-Sprint, which needs no training, is that of two paths."""
    flow, trig, ring = samplers.flow(), samplers.trigflow(sigma_data=0.5), samplers.ring()
    x, t = normal(0, 5, 2), jnp.array([0.1, 0.5, 0.8, 1.2, 1.5])

    def velocity(x, t):  # of unit-variance data, as the flow net is given
        return samplers.convert(
            flow, 0.5 * x, t, samplers.denoise(ring, 0.5 * x, t, path=flow_half), "data", "data"
        )

    flow_half = flow._replace(sigma=lambda t: 0.5 * t)
    time = jnp.sin(t) / (jnp.sin(t) + jnp.cos(t))
    norm = jnp.sqrt(time**2 + (1 - time) ** 2)
    seen = x / 0.5 * norm[:, None]
    data = velocity(seen, time) / 0.5
    noise = (seen - (1 - time)[:, None] * data) / time[:, None]
    slope = noise - data
    share = (1 - 2 * time)[:, None] * seen + (1 - 2 * time + 2 * time**2)[:, None] * slope
    f = share / norm[:, None]
    own = samplers.convert(trig, x, t, samplers.denoise(ring, x, t, path=trig), "data", "velocity")
    np.testing.assert_allclose(0.5 * f, own, atol=1e-10)


@pytest.mark.parametrize(
    ("case", "given"), [("epsilon", "noise"), ("sample", "data"), ("v_prediction", "v")]
)
def test_predictions_of_latent_consistency_models(golden, case, given):
    stored = golden(f"lcm_pred_x0_and_noise_{case}_diffusers")
    place = stored["in__timesteps"]
    alpha, sigma = (
        jnp.asarray(stored[f"in__{name}"][place], jnp.float64)[:, None, None, None]
        for name in ("alphas", "sigmas")
    )
    x, output = (jnp.asarray(stored[f"in__{k}"], jnp.float64) for k in ("sample", "model_output"))

    def both(output):
        data = paths.to_data(x, output, given, alpha, sigma)
        return data, paths.of_data(data, x, "noise", alpha, sigma)

    # Their tables are float32: alpha^2 + sigma^2 is 1 to seven digits, and they count on it.
    for name, own in zip(("x0", "noise"), both(output), strict=True):
        np.testing.assert_allclose(own, stored[f"out__{name}"], rtol=2e-6, atol=2e-6)
    slope = jax.grad(lambda output: sum(part.sum() for part in both(output)))(output)
    np.testing.assert_allclose(slope, stored["grad__model_output"], rtol=2e-6, atol=1e-5)


def test_the_ddim_step_of_latent_consistency_models(golden):
    stored = golden("lcm_ddim_solver_step_diffusers")
    squares = jnp.asarray(stored["out__alpha_cumprod_prev"])[stored["in__index"]]
    alpha, sigma = (
        jnp.sqrt(squares)[:, None, None, None],
        jnp.sqrt(1 - squares)[:, None, None, None],
    )
    data, noise = (jnp.asarray(stored[f"in__pred_{k}"], jnp.float64) for k in ("x0", "noise"))
    # A table as a path: time 0 is where the step starts, 1 where it ends.
    path = samplers.Path(
        lambda t: jnp.where(t == 0, 0.6, alpha), lambda t: jnp.where(t == 0, 0.8, sigma), None, 0, 1
    )
    x = 0.6 * data + 0.8 * noise
    reached = samplers.transition(path, x, data, 0.0, 1.0)
    np.testing.assert_allclose(reached, stored["out__x_prev"], rtol=1e-6, atol=1e-6)
    assert json.loads(str(stored["meta"]))["peer"] == "huggingface/diffusers"


def test_guidance_embedding(golden):
    stored = golden("guidance_scale_embedding_diffusers")
    found = samplers.guidance_embedding(jnp.asarray(stored["in__w"], jnp.float64), 32)
    rates = np.exp(-np.log(10000.0) * np.arange(16) / 15)
    turns = 1000 * stored["in__w"].astype(np.float64)[:, None] * rates
    exact = np.concatenate([np.sin(turns), np.cos(turns)], axis=1)
    np.testing.assert_allclose(found, exact, atol=1e-10)
    # Theirs takes the rates in float32, and a weight of 15 turns by 15,000.
    np.testing.assert_allclose(found, stored["out__embedding"], atol=2e-3)
    single = samplers.guidance_embedding(jnp.asarray(stored["in__w"], jnp.float32), 32)
    np.testing.assert_allclose(single, stored["out32__embedding"], atol=2e-3)
    with pytest.raises(ValueError, match="even"):
        samplers.guidance_embedding(jnp.ones(2), 7)


def test_guidance():
    conditional, unconditional = normal(0, 3, 2), normal(1, 3, 2)
    scales = jnp.array([0.0, 1.0, 3.0])
    found = samplers.guided(conditional, unconditional, scales)
    np.testing.assert_allclose(found[0], unconditional[0], rtol=1e-12)
    np.testing.assert_array_equal(found[1], conditional[1])
    np.testing.assert_allclose(found[2], 3 * conditional[2] - 2 * unconditional[2], rtol=1e-12)
    within = samplers.guided(
        conditional, unconditional, 3.0, t=jnp.array([0.1, 0.5, 0.9]), interval=(0.3, 0.6)
    )
    np.testing.assert_array_equal(within[0], conditional[0])
    np.testing.assert_allclose(within[1], 3 * conditional[1] - 2 * unconditional[1], rtol=1e-12)
    assert samplers.scale_of_weight(6.5) == 7.5


def test_karras():
    grid = samplers.karras(18)
    assert grid.shape == (19,)
    assert (grid[0], grid[-2], grid[-1]) == (80.0, 0.002, 0.0)
    inside = (80 ** (1 / 7) + 5 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(grid[5], inside, rtol=1e-10)
    assert samplers.karras(1).tolist() == [80.0, 0.0]
    assert samplers.karras(2, zero=False).shape == (3,)
    with pytest.raises(ValueError, match="at least 1"):
        samplers.karras(0)


def test_a_grid_that_grows_is_one_program():
    calls = []

    @jax.jit
    def grid(step):
        calls.append(step)
        count = samplers.doubling(step, 800)
        return jnp.where(
            jnp.arange(1281) < count, samplers.rising_karras(jnp.arange(1281), count), 80.0
        ), count

    expected = {0: 11, 99: 11, 100: 21, 200: 41, 799: 1281, 800: 1281}
    for step, count in expected.items():
        levels, found = grid(step)
        assert found == count
        np.testing.assert_allclose(levels[:count], samplers.karras(count)[:-1][::-1], rtol=1e-12)
    assert len(calls) == 1


def test_the_doubling_of_ict_by_its_formula():
    for steps, first, last in ((400_000, 10, 1280), (1000, 10, 1280), (300, 5, 40)):
        stage = np.floor(steps / (np.log2(np.floor(last / first)) + 1))
        for step in (0, 1, steps // 3, steps // 2, steps - 1):
            expected = min(first * 2 ** np.floor(step / stage), last) + 1
            assert int(samplers.doubling(step, steps, first, last)) == expected


def test_intervals_by_the_formula_of_ict():
    levels = samplers.karras(40)[:-1][::-1]
    found = jax.nn.softmax(samplers.discrete_lognormal(levels))
    erf = jax.scipy.special.erf((jnp.log(levels) + 1.1) / (jnp.sqrt(2.0) * 2.0))
    np.testing.assert_allclose(found, jnp.diff(erf) / jnp.diff(erf).sum(), rtol=1e-10)
    padded = jnp.concatenate([levels, jnp.full(5, 80.0)])
    again = jax.nn.softmax(samplers.discrete_lognormal(padded))
    np.testing.assert_allclose(again[:39], found, rtol=1e-12)
    assert (again[39:] == 0).all()


def test_the_adaptive_grid_of_consistency_models():
    for step in (0, 500, 1000):
        root = np.sqrt(step / 1000 * (151**2 - 2**2) + 2**2)
        count, decay = samplers.adaptive(step, 1000)
        assert int(count) == np.ceil(root - 1) + 1
        np.testing.assert_allclose(decay, np.exp(2 * np.log(0.9) / (count - 1)), rtol=1e-10)


def test_levels_that_are_drawn():
    drawn = jnp.log(samplers.lognormal(jax.random.key(0), (20_000,), -1.1, 2.0))
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [-1.1, 2.0], atol=0.05)
    times = samplers.logit_normal(jax.random.key(1), (20_000,))
    assert ((times > 0) & (times < 1)).all()
    np.testing.assert_allclose(times.mean(), 0.5, atol=0.01)
