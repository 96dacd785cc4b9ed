"""Nets that jump, against the numbers of public code, and what must be true of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import samplers
from jaxdistill.samplers import losses


def wide(stored, kind="in"):
    start = f"{kind}__"
    return {
        key.removeprefix(start): jnp.asarray(value, float) if value.dtype.kind == "f" else value
        for key, value in stored.items()
        if key.startswith(start)
    }


def over_channels(matrix, x, *rest):
    """A net over the channels of [B, H, W, C]."""
    return jnp.einsum("ij,bhwj->bhwi", matrix, x) + sum(
        each.reshape((each.shape[0] if each.ndim > 1 else 1, 1, 1, -1)) for each in rest
    )


def test_mean_flow(golden):
    stored = golden("meanflow")
    given, params = wide(stored), wide(stored, "param")
    t, r = (jax.nn.sigmoid(given[f"{k}_normal"] - 0.4).reshape(-1) for k in "tr")
    t, r = jnp.maximum(t, r), jnp.minimum(t, r)
    rows = jnp.arange(8)
    r = jnp.where(rows < 6, t, r)
    x, noise = given["imgs"], given["e"]
    at = samplers.add_noise(samplers.flow(), x, noise, t)
    velocity = noise - x

    def loss(params):
        def net(labels):
            def average(x, t, width):
                told = params["b"][None] * jnp.sin(2 * t)[:, None]
                told = told + params["c"][None] * jnp.cos(width)[:, None]
                return jnp.tanh(over_channels(params["A"], x, params["E"][labels], told))

            return average

        labels = jnp.asarray(given["labels"])
        zero = jnp.zeros_like(t)
        seen = [net(each)(at, t, zero) for each in (labels, jnp.full_like(labels, 4))]
        follow = samplers.guided_velocity(velocity, *seen, scale=1.0, share=0.5)
        dropped = rows < (given["drop_u"] < 0.1).sum()
        follow = jnp.where(dropped[:, None, None, None], velocity, follow)
        own = net(jnp.where(dropped, 4, labels))
        said, target = samplers.mean_velocity_target(own, at, t, r, follow)
        plain = ((said - velocity) ** 2).sum((1, 2, 3))
        return samplers.adaptive_square(said, target).mean(), plain

    (value, plain), slopes = jax.value_and_grad(loss, has_aux=True)(params)
    np.testing.assert_allclose(value, stored["out__loss"], rtol=1e-9)
    np.testing.assert_allclose(plain, stored["out__v_loss"], rtol=1e-6)
    for name, slope in slopes.items():
        np.testing.assert_allclose(slope, stored[f"grad__{name}"], rtol=1e-6, atol=1e-10)


def test_shortcuts(golden):
    stored = golden("shortcut")
    params, out = wide(stored, "param"), wide(stored, "out")
    t, size = 1 - out["t"][:8], out["dt_base"][:8]
    labels = out["labels"][:8]

    def velocity(x, t, width):
        told = params["b"][None] * jnp.sin(2 * (1 - t))[:, None]
        told = told + params["c"][None] * jnp.cos(-jnp.log2(width))[:, None]
        # Their time runs from noise to data.
        return -3 * jnp.tanh(over_channels(params["A"], x, params["E"][labels], told))

    found = samplers.shortcut_target(velocity, out["x_t"][:8], t, 2.0**-size)
    np.testing.assert_allclose(found, -out["v_target"][:8], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("inner", ["fixed", "student"])
def test_consistency_trajectories(golden, inner):
    stored = golden("ctm_sony")
    params, out = wide(stored, "param"), wide(stored, "out")
    last = lambda x: jnp.moveaxis(x, 1, -1)  # noqa: E731
    x, reached = last(out["x_t"]), last(out["x_u"])
    t, u, s = out["t"], out["u"], out["s"]

    def net(matrix, bias):
        def data(x, t, s):
            parts = samplers.scalings(t, 0.5)
            skip, outer, inside = (each.reshape(-1, 1, 1, 1) for each in parts)
            clock = [1000 / 4 * jnp.log(each + 1e-44) for each in (t, s)]
            wave = jnp.sin(clock[0] / 500) + jnp.cos(clock[1] / 700)
            told = wave[:, None] * bias[None]
            return skip * x + outer * over_channels(matrix, inside * x, told)

        return data

    def loss(matrix, bias):
        fixed = net(params["W_target"], params["b_target"])
        how = {"end": 0.002, "inner": inner}
        found = samplers.trajectory(net(matrix, bias), fixed, x, reached, t, u, s, **how)
        return ((found.estimate - found.target) ** 2).mean(), found

    own = params["W_model"], params["b_model"]
    (value, found), slopes = jax.value_and_grad(loss, (0, 1), has_aux=True)(*own)
    np.testing.assert_allclose(found.estimate, last(out["estimate"]), rtol=1e-6, atol=1e-8)
    if inner == "fixed":
        np.testing.assert_allclose(found.target, last(out["target"]), rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(value, stored["out__loss"], rtol=1e-6)
        for slope, name in zip(slopes, ("W_model", "b_model"), strict=True):
            np.testing.assert_allclose(slope, stored[f"grad__{name}"], rtol=1e-6, atol=1e-9)
    else:
        assert abs(found.target - last(out["target"])).max() > 1e-4
    with pytest.raises(ValueError, match="unknown net of the inner jump 'studnet'"):
        samplers.trajectory(None, None, x, x, t, u, s, end=0.1, inner="studnet")


def table(squares):
    """A path whose times are places in a table, rounded down as schedulers round."""
    alpha = jnp.sqrt(jnp.asarray(squares, float))
    sigma = jnp.sqrt(1 - jnp.asarray(squares, float))
    at = lambda values: lambda t: values[jnp.floor(t).astype(int)]  # noqa: E731
    return samplers.Path(at(alpha), at(sigma), None, 0, 999)


def test_phases(golden):
    stored = golden("pcm_multiphase")
    given = wide(stored)
    ends = samplers.segment_ends(50, 4)[given["index"]]
    times = stored["out__ddim_timesteps_prev"][ends]
    np.testing.assert_array_equal(times, stored["out__t_edge"])
    path = table(given["alphas_cumprod"])
    here = jnp.asarray(stored["out__ddim_timesteps"])[given["index"]].astype(float)
    x = samplers.add_noise(path, given["pred_x0"], given["pred_noise"], here)
    reached = samplers.transition(path, x, given["pred_x0"], here, jnp.asarray(times, float))
    np.testing.assert_allclose(reached, stored["out__x_edge"], rtol=1e-6, atol=1e-6)
    assert samplers.segment_ends(50, 1).max() == 0
    np.testing.assert_array_equal(samplers.segment_ends(50, 50), np.arange(50))
    with pytest.raises(ValueError, match="50 steps have 1 to 50 segments, not 51"):
        samplers.segment_ends(50, 51)


@pytest.mark.parametrize(("case", "place"), [("mid", 1), ("last", 3)])
def test_steps_of_trajectory_consistency(golden, monkeypatch, case, place):
    stored = golden(f"tcd_step_{case}_diffusers")
    given, times = wide(stored), [*stored["out__timesteps"], 0]
    path = table(given["alphas_cumprod"])
    t, s = (jnp.asarray(float(each)) for each in times[place : place + 2])

    def data_of(output):
        return samplers.convert(path, given["sample"], t, output, "noise", "data")

    def reached(output):
        monkeypatch.setattr(jax.random, "normal", lambda *_: given["noise"])
        solver = samplers.trajectory_consistency(lambda *_: data_of(output), path, eta=0.3)
        return solver.step((), given["sample"], t, s, None)[1]

    found = reached(given["model_output"])
    np.testing.assert_allclose(found, stored["out__prev_sample"], rtol=1e-6, atol=1e-6)
    slope = jax.grad(lambda output: reached(output).sum())(given["model_output"])
    assert np.isfinite(slope).all()


def test_the_ends_of_trajectory_consistency_are_ddim_and_multistep_sampling():
    path, ring = samplers.edm(), samplers.ring()
    say = lambda x, t: samplers.denoise(ring, x, t)  # noqa: E731
    x = 3 * jax.random.normal(jax.random.key(0), (4, 2), float)
    times = jnp.array([3.0, 1.0, 0.0])
    run = lambda solver: samplers.sample(solver, times, x, key=jax.random.key(1))  # noqa: E731
    for eta, other in ((0.0, samplers.ddim), (1.0, samplers.consistency)):
        ours = run(samplers.trajectory_consistency(say, path, eta=eta))
        np.testing.assert_allclose(ours, run(other(say, path)), rtol=1e-9, atol=1e-9)


def test_straight_lines_as_a_quarter_of_a_circle(golden):
    stored = golden("sana_trigflow")
    given = wide(stored)
    last = lambda x: jnp.moveaxis(x, 1, -1)  # noqa: E731

    def velocity(x, t):
        return over_channels(given["A"], x, jnp.cos(3 * t)[:, None] * given["b"][None])

    found = samplers.flow_as_trigflow(velocity)(last(given["x"]), given["t"])
    np.testing.assert_allclose(found, last(stored["out__F"]), rtol=1e-6, atol=1e-8)
    # It means the same data.
    ring = samplers.ring()
    flow, trig = samplers.flow(), samplers.trigflow(sigma_data=1.0)
    x = jax.random.normal(jax.random.key(0), (5, 2), float)
    t = jnp.linspace(0.1, 1.4, 5)

    def exact(x, t):
        return samplers.convert(
            flow, x, t, samplers.denoise(ring, x, t, path=flow), "data", "velocity"
        )

    said = samplers.flow_as_trigflow(exact)(x, t)
    data = jnp.cos(t)[:, None] * x - jnp.sin(t)[:, None] * said
    np.testing.assert_allclose(data, samplers.denoise(ring, x, t, path=trig), atol=1e-10)


def test_two_steps_in_one(golden):
    stored = golden("progressive_distillation_dpm")
    given, params = wide(stored), wide(stored, "param")
    low, high = (jnp.arctan(jnp.exp(-each / 2)) for each in (20.0, -20.0))
    log_snr = lambda u: -2 * jnp.log(jnp.tan(low + u * (high - low)))  # noqa: E731
    # Where there is no noise left, theirs takes what the teacher says of the data.
    path = samplers.Path(
        lambda u: jnp.where(u == 0, 1, jnp.sqrt(jax.nn.sigmoid(log_snr(u)))),
        lambda u: jnp.where(u == 0, 0, jnp.sqrt(jax.nn.sigmoid(-log_snr(u)))),
        None,
        0,
        1,
    )
    t = (jnp.asarray(given["i"]) + 1.0) / 8
    middle, s = t - 1 / 16, t - 1 / 8
    x = samplers.add_noise(path, given["x"], given["eps"], t)

    def say(matrix, bias):
        wave = lambda u: jnp.cos(log_snr(u) / 5)[:, None] * bias[None]  # noqa: E731
        return lambda x, u: over_channels(matrix, x, wave(u))

    teacher = say(params["A_t"], params["b_t"])
    first = teacher(x, t)
    second = teacher(samplers.transition(path, x, first, t, middle), middle)
    target = losses.progressive_target(path, x, first, second, t, middle, s)
    np.testing.assert_allclose(target, stored["out__x_target"], rtol=1e-6, atol=1e-6)

    def paid(own):
        values = losses.truncated(say(*own)(x, t), target, path.alpha(t), path.sigma(t))
        return values.mean(), values

    own = params["A"], params["b"]
    (value, values), slopes = jax.value_and_grad(paid, has_aux=True)(own)
    np.testing.assert_allclose(values, stored["out__losses"], rtol=1e-6)
    np.testing.assert_allclose(value, stored["out__loss"], rtol=1e-6)
    for slope, name in zip(slopes, "Ab", strict=True):
        np.testing.assert_allclose(slope, stored[f"grad__{name}"], rtol=1e-5, atol=1e-7)


def test_two_steps_of_euler_in_one(golden):
    stored = golden("progressive_distillation_jcm")
    given, params = wide(stored), wide(stored, "param")
    path, places = samplers.edm(), jnp.asarray(given["indices"])
    levels = lambda place: samplers.rising_karras(8 - place, 9)  # noqa: E731
    t, middle, s = (levels(places + each) for each in (0, 0.5, 1))
    x = samplers.add_noise(path, given["x"], given["z"], t)

    def say(matrix, bias):
        def data(x, sigma):
            skip, out, inner = (e.reshape(-1, 1, 1, 1) for e in samplers.scalings(sigma, 0.5))
            wave = jnp.cos(jnp.log(sigma) / 4)[:, None] * bias[None]
            return skip * x + out * over_channels(matrix, inner * x, wave)

        return data

    teacher = say(params["A_t"], params["b_t"])
    first = teacher(x, t)
    second = teacher(samplers.transition(path, x, first, t, middle), middle)
    target = losses.progressive_target(path, x, first, second, t, middle, s)

    def paid(own):
        return losses.truncated(say(*own)(x, t), target, 1.0, t).mean()

    value, slopes = jax.value_and_grad(paid)((params["A"], params["b"]))
    np.testing.assert_allclose(value, stored["out__loss"], rtol=1e-6)
    for slope, name in zip(slopes, "Ab", strict=True):
        np.testing.assert_allclose(slope, stored[f"grad__{name}"], rtol=1e-5, atol=1e-8)


def test_a_step_of_a_quarter_of_a_circle(golden, monkeypatch):
    stored = golden("scm_step_diffusers")
    given = wide(stored)
    t, s = (
        jnp.asarray(each, float) for each in golden("scm_timesteps_diffusers")["out__timesteps"][:2]
    )
    path = samplers.trigflow(sigma_data=0.5)
    monkeypatch.setattr(jax.random, "normal", lambda *_: given["noise"])

    def data_of(output):
        return jnp.cos(t) * given["sample"] - jnp.sin(t) * output

    def both(output):
        solver = samplers.consistency(lambda *_: data_of(output), path)
        _, reached, data = solver.step((), given["sample"], t, s, None)
        return reached, data

    reached, data = both(given["model_output"])
    np.testing.assert_allclose(data, stored["out__denoised"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(reached, stored["out__prev_sample"], rtol=1e-6, atol=1e-6)


def test_tangents_by_the_root_mean_square(golden):
    stored = golden("scm_mnist_loss")
    given, params, out = wide(stored), wide(stored, "param"), wide(stored, "out")
    t = given["t"].reshape(-1)
    x = jnp.cos(given["t"]) * given["x0"] + jnp.sin(given["t"]) * given["z"]
    # Theirs is divided by the root of the mean square, ours by that of the sum.
    root = 4.0
    how = {"sigma_data": 0.5, "ramp": 0.4, "c": 0.1 * root}
    found = root * losses.tangent_target(x, t, out["F"], out["F_dot"], given["u"], **how)
    np.testing.assert_allclose(found, out["g"], rtol=1e-6, atol=1e-8)
    log = params["lv"] + params["lv1"] * t
    squares = (found**2).mean((1, 2, 3))
    np.testing.assert_allclose((squares / jnp.exp(log) + log).mean(), out["loss"], rtol=1e-6)
