"""Nets that jump: right answers have no loss, and stay; what is wrong is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import models, samplers
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import Forward, Net
from jaxdistill.settings import fault, keys

ADAM = optax.adam(1e-3)
RING = samplers.ring(classes=2)
# Of one Gaussian all jumps are known.
VARIANCE = 0.25
ONE = samplers.mixture([1.0], np.zeros((1, 2)), [VARIANCE])
DISTILLERS = {
    "MeanFlow": (samplers.mean_flow, {}),
    "shortcuts": (samplers.shortcuts, {}),
    "CTM": (samplers.consistency_trajectories, {}),
    "progressive": (samplers.progressive, {"intervals": 4}),
}


def exact(frozen, source=ONE):
    return lambda x, sigma, label=None: samplers.denoise(source, x, sigma, label)


def batch(count=8, source=RING):
    points, chosen = samplers.draw(jax.random.key(5), source, count)
    return {"image": points, "label": source.labels[chosen]}


def known(apply):
    """A net with nothing to learn but one number that does not matter."""

    def run(params, state, inputs, *, taps=(), train=False, rng=None):
        return Forward(apply(inputs) + 0 * params["a"], {}, state, params)

    return Net(lambda key, inputs: ({"a": jnp.zeros(())}, {}), run)


def right(inputs):
    """What is said of the data so that the jump leads along the flow of the Gaussian."""
    x, t, s = inputs["image"], inputs["sigma"][:, None], inputs["until"][:, None]
    share, still = s / t, s == t
    there = jnp.sqrt((VARIANCE + s**2) / (VARIANCE + t**2))
    gap = jnp.where(still, 1, 1 - share)
    return x * jnp.where(still, VARIANCE / (VARIANCE + t**2), (there - share) / gap)


def wrong(inputs):
    return right(inputs) * (1 + 0.1 * inputs["until"] / inputs["sigma"])[:, None]


def paid(make, net, name="loss", **settings):
    distiller = make(net, ADAM, exact, **settings)
    data = batch(64, ONE)
    state = jax.jit(distiller.init)(jax.random.key(0), {}, data)
    total, count = jax.jit(distiller.step)(state, {}, data)[1][name]
    return float(total / count)


def test_the_right_jump_has_no_loss():
    assert paid(samplers.mean_flow, known(right)) < 1e-12
    assert paid(samplers.mean_flow, known(wrong)) > 1e-5
    # Of shortcuts the narrowest is the velocity, which the right one is only in the limit.
    fine, coarse = (paid(samplers.shortcuts, known(right), finest=2**n) for n in (14, 5))
    assert fine < 1e-9 < coarse < 1e-3
    assert paid(samplers.shortcuts, known(wrong)) > 1e-5


def test_right_trajectories_have_no_loss_but_that_of_the_teachers_steps():
    def values(net, levels):
        make = samplers.consistency_trajectories
        return paid(make, known(net), levels=levels, ahead=3, denoising=0.0)

    # The steps of Heun's method are of second order: four times as many, squared 256 times less.
    assert values(right, 160) < values(right, 40) / 100 < 1e-5
    assert values(wrong, 160) > 100 * values(right, 160)


def test_a_halving_is_two_steps_of_the_teacher():
    """The loss of a student that says what one step must say is nothing."""
    path, intervals = samplers.edm(), 4

    def answer(inputs):
        x, t = inputs["image"], inputs["sigma"]
        grid = samplers.rising_karras(jnp.arange(2 * intervals + 1), 2 * intervals + 1)
        place = jnp.abs(grid[None] - t[:, None]).argmin(1)
        middle, s = grid[place - 1], grid[place - 2]
        say = exact({})
        y = samplers.transition(path, x, say(x, t), t, middle)
        z = samplers.transition(path, y, say(y, middle), middle, s)
        share = (s / t)[:, None]
        return (z - share * x) / (1 - share)

    assert paid(samplers.progressive, known(answer), intervals=intervals) < 1e-12
    nearly = lambda inputs: answer(inputs) * 1.01  # noqa: E731
    assert paid(samplers.progressive, known(nearly), intervals=intervals) > 1e-6


def mlp(**settings):
    net = from_linen(models.TimeMLP(width=8, depth=1, jumps=True, **settings))
    return samplers.denoiser(net, time="angle")


@pytest.mark.parametrize("data", ["teacher", "data", "labels"])
@pytest.mark.parametrize("name", DISTILLERS)
def test_steps_are_one_program_and_move_what_is_trained(name, data):
    make, settings = DISTILLERS[name]
    taught = name in ("CTM", "progressive") or data == "teacher"
    teacher = (lambda frozen: exact(frozen, RING)) if taught else None
    labels = data == "labels"
    net = mlp(classes=2 if labels else 0)
    distiller = make(net, ADAM, teacher, labels=labels, ema=0.9, **settings)
    state = before = jax.jit(distiller.init)(jax.random.key(0), {}, batch())
    traces = []

    @jax.jit
    def step(state):
        traces.append(1)
        return distiller.step(state, {}, batch())

    for _ in range(3):
        state, metrics = step(state)
    assert len(traces) == 1
    assert all(jnp.isfinite(total / count) for total, count in metrics.values())
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, before.params)
    assert moved["net"]["given"]["until"]["kernel"]
    jax.tree.map(np.testing.assert_array_equal, distiller.result(state)[0], state.ema["net"][0])


def test_guidance_within_mean_flow_is_a_pass_of_the_net_itself():
    net, data = mlp(classes=2), batch(32)
    settings = {"labels": True, "unlabelled": 0.0, "equal": 1.0}

    def moved(scale, share):
        made = samplers.mean_flow(net, optax.sgd(1.0), scale=scale, share=share, **settings)
        state = jax.jit(made.init)(jax.random.key(0), {}, data)
        # A net that says something of labels.
        state = state._replace(params=jax.tree.map(lambda x: x + 0.1, state.params))
        return jax.tree.leaves(jax.jit(made.step)(state, {}, data)[0].params)

    plain = samplers.mean_flow(net, optax.sgd(1.0), **settings)
    state = jax.jit(plain.init)(jax.random.key(0), {}, data)
    state = state._replace(params=jax.tree.map(lambda x: x + 0.1, state.params))
    unguided = jax.tree.leaves(jax.jit(plain.step)(state, {}, data)[0].params)
    for ours, theirs in zip(moved(1.0, 0.0), unguided, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert any((abs(a - b) > 1e-6).any() for a, b in zip(moved(2.0, 0.0), unguided, strict=True))


def test_a_net_that_is_not_told_where_to_says_what_it_says_of_the_data():
    net, x = mlp(), {"image": jnp.ones((3, 2)), "sigma": jnp.arange(1.0, 4.0)}
    params = jax.tree.map(lambda p: p + 0.1, net.init(jax.random.key(0), x)[0])
    same = net.apply(params, {}, {**x, "until": x["sigma"]}).out
    np.testing.assert_array_equal(net.apply(params, {}, x).out, same)
    other = net.apply(params, {}, {**x, "until": 0 * x["sigma"]}).out
    assert abs(other - same).max() > 1e-4
    # The exported student goes all the way.
    noise = jax.random.normal(jax.random.key(1), (3, 2), float)
    whole = {"image": 80 * noise, "sigma": jnp.full(3, 80.0), "until": jnp.zeros(3)}
    np.testing.assert_array_equal(
        net.apply(params, {}, noise).out, net.apply(params, {}, whole).out
    )


def test_jumps_of_the_right_net_follow_the_flow():
    say = samplers.as_function(known(right), ({"a": jnp.zeros(())}, {}))
    x = 80 * jax.random.normal(jax.random.key(0), (5, 2), float)
    expected = x * 0.5 / np.sqrt(VARIANCE + 80**2)
    for times in ([80.0, 0.0], [80.0, 3.0, 0.2, 0.0]):
        found = samplers.sample(samplers.jump(say, samplers.edm()), jnp.array(times), x)
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: samplers.mean_flow(mlp(), ADAM, scale=2.0), "give labels=True"),
        (lambda: samplers.mean_flow(mlp(), ADAM, exact, labels=True, scale=2.0), "no teacher"),
        (lambda: samplers.shortcuts(mlp(), ADAM, finest=48), "power of 2"),
        (lambda: samplers.shortcuts(mlp(), ADAM, target="average"), "'ema'"),
        (lambda: samplers.shortcuts(mlp(), ADAM, ema=None), "give ema"),
        (lambda: samplers.consistency_trajectories(mlp(), ADAM, exact, levels=1), "2 or more"),
        (lambda: samplers.consistency_trajectories(mlp(), ADAM, exact, inner="fxed"), "'fixed'"),
        (lambda: samplers.progressive(mlp(), ADAM, exact, intervals=1, low=90.0), "low=90.0"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("name", DISTILLERS)
def test_settings_have_domains_and_defaults_that_lie_in_them(name):
    for key, parameter in keys(DISTILLERS[name][0]).items():
        assert fault(jnp.zeros(()), parameter.annotation) is not None, key
        if parameter.default is not parameter.empty:
            assert fault(parameter.default, parameter.annotation) is None, key
