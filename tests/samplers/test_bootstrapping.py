"""BOOT: the signal's step is DDIM's, the right net has no loss, and no data is read."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import models, samplers
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import Forward, Net
from jaxdistill.samplers import quality

ADAM = optax.adam(1e-3)
RING = samplers.ring(classes=2)
VARIANCE = 0.25
ONE = samplers.mixture([1.0], np.zeros((1, 2)), [VARIANCE])


@pytest.mark.parametrize("name", samplers.PATHS)
def test_the_step_of_the_signal_is_that_of_ddim(name):
    path = samplers.PATHS[name]()
    noise, x = jax.random.normal(jax.random.key(0), (2, 5, 2), float)
    t, s = (path.time(jnp.linspace(low, 10 * low, 5)) for low in (2.0, 0.3))
    say = lambda x, t: samplers.denoise(RING, x, t, path=path)  # noqa: E731
    alpha, sigma = (lambda t, c=c: c(t)[:, None] for c in (path.alpha, path.sigma))
    signal = (x - sigma(t) * noise) / alpha(t)
    found, width = samplers.signal_target(say, path, signal, noise, t, s)
    reached = samplers.transition(path, x, say(x, t), t, s)
    np.testing.assert_allclose(found, (reached - sigma(s) * noise) / alpha(s), atol=1e-12)
    assert ((width > 0) & (width < 1)).all()


def test_two_orders_of_the_signals_step():
    """Against the exact way of a Gaussian, halving a step leaves a fourth or an eighth."""
    path, noise = samplers.edm(), jnp.ones((1, 2))
    say = lambda x, t: samplers.denoise(ONE, x, t)  # noqa: E731

    def error(order, step):
        t, s = jnp.ones(1), jnp.full(1, 1.0 - step)
        x = 2 * noise
        kept = jnp.sqrt((VARIANCE + s**2) / (VARIANCE + t**2))
        wanted = (kept * 2 - s)[:, None] * noise
        found, _ = samplers.signal_target(say, path, x - noise, noise, t, s, order=order)
        return float(abs(found - wanted).max())

    for order in (1, 2):
        ratio = error(order, 0.02) / error(order, 0.01)
        np.testing.assert_allclose(np.log2(ratio), order + 1, atol=0.1)
    with pytest.raises(ValueError, match="order=3"):
        error(3, 0.1)


def known(apply):
    def run(params, state, inputs, *, taps=(), train=False, rng=None):
        return Forward(apply(inputs) + 0 * params["a"], {}, state, params)

    return Net(lambda key, inputs: ({"a": jnp.zeros(())}, {}), run)


def right(inputs):
    """The signal at a level on the way of a Gaussian, from pure noise; exact in the mean there."""
    x, t, s = inputs["image"], inputs["sigma"][:, None], inputs["until"][:, None]
    first = VARIANCE / (VARIANCE + t**2) * x + x  # where the boundary says the way begins
    return first * jnp.sqrt((VARIANCE + s**2) / (VARIANCE + t**2)) - s / t * x


def exact(frozen, source=ONE):
    return lambda x, sigma, label=None: samplers.denoise(source, x, sigma, label)


def paid(net, **settings):
    made = samplers.bootstrapped(net, ADAM, exact, (2,), count=64, **settings)
    state = jax.jit(made.init)(jax.random.key(0), {}, {})
    metrics = jax.jit(made.step)(state, {}, {})[1]
    return [float(metrics[k][0] / metrics[k][1]) for k in ("loss", "boundary")]


def test_the_right_signal_has_no_loss_but_that_of_the_teachers_steps():
    (coarse, begun), (fine, _) = (paid(known(right), intervals=n, order=2) for n in (50, 200))
    assert fine < coarse / 100 < 1e-6
    assert begun < 1e-20
    wrong = known(lambda inputs: right(inputs) * 1.01)
    assert min(paid(wrong, intervals=200, order=2)) > 1e-10


def test_no_data_is_read():
    net = samplers.denoiser(from_linen(models.TimeMLP(width=8, depth=1, jumps=True)), time="angle")
    made = samplers.bootstrapped(net, ADAM, lambda f: exact(f, RING), (2,), count=8, ema=0.9)
    assert made.takes == 0
    state = before = jax.jit(made.init)(jax.random.key(0), {}, {})
    step = jax.jit(made.step)
    for _ in range(2):
        state, metrics = step(state, {}, {})
    assert all(jnp.isfinite(total) for total, _ in metrics.values())
    kernels = [s.params["net"]["given"]["until"]["kernel"] for s in (before, state)]
    assert (kernels[0] != kernels[1]).any()


def test_guidance_is_the_teachers_and_an_input():
    backbone = models.TimeMLP(width=8, depth=1, jumps=True, guidance=True, classes=2)
    net = samplers.denoiser(from_linen(backbone), time="angle")
    settings = {"count": 8, "labels": True, "scales": (1.0, 4.0)}
    made = samplers.bootstrapped(net, ADAM, lambda f: exact(f, RING), (2,), 2, **settings)
    state = jax.jit(made.init)(jax.random.key(0), {}, {})
    state, _ = jax.jit(made.step)(state, {}, {})
    state, metrics = jax.jit(made.step)(state, {}, {})
    assert jnp.isfinite(metrics["loss"][0])
    assert state.params["net"]["given"]["guidance"]["kernel"].any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"labels": True}, "number of classes"),
        ({"scales": (1.0, 2.0)}, "need labels=True"),
        ({"scales": (2.0, 1.0), "labels": True, "classes": 2}, "must rise"),
        ({"low": 90.0}, "low=90.0"),
    ],
)
def test_refusals(settings, words):
    with pytest.raises(ValueError, match=words):
        samplers.bootstrapped(known(right), ADAM, exact, (2,), **settings)


def test_the_error_along_the_way_of_the_right_signal():
    def way(inputs):
        x, t, s = inputs["image"], inputs["sigma"][:, None], inputs["until"][:, None]
        return x * (jnp.sqrt((VARIANCE + s**2) / (VARIANCE + t**2)) - s / t)

    measured = quality.signal_error(known(way), ONE, draws=200)
    variables = ({"a": jnp.zeros(())}, {})
    found = measured(variables, {}, [])
    # What is left is the error of the steps of Heun's method.
    assert max(found[f"{name}_signal_error"] for name in ("early", "middle", "last")) < 0.01
    off = quality.signal_error(known(lambda i: way(i) + 3.0), ONE, draws=200)(variables, {}, [])
    np.testing.assert_allclose(off["last_signal_error"], np.sqrt(18), atol=0.01)
    with pytest.raises(ValueError, match="must fall"):
        quality.signal_error(known(way), ONE, early=0.5)
