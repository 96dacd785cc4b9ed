"""Hyper-SD: its limits are CTM and PCM, a judge and a reward move it, flat rewards are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import models, samplers
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import Forward, Net
from jaxdistill.players import Turn
from jaxdistill.samplers.segmented import compared

ADAM = optax.adam(1e-3)
RING = samplers.ring(classes=2)
VARIANCE = 0.25
ONE = samplers.mixture([1.0], np.zeros((1, 2)), [VARIANCE])


def exact(frozen, source=RING):
    return lambda x, sigma, label=None: samplers.denoise(source, x, sigma, label)


def batch(count=8):
    points, chosen = samplers.draw(jax.random.key(5), RING, count)
    return {"image": points, "label": RING.labels[chosen]}


def nets():
    """Two nets that do not look at where a jump ends, and points on a way."""
    x, reached = jax.random.normal(jax.random.key(0), (2, 6, 2), float)
    t, u, s = jnp.full(6, 4.0), jnp.full(6, 2.0), jnp.full(6, 0.5)
    one, other = (lambda x, t, s, k=k: jnp.tanh(k * x) / (1 + t)[:, None] for k in (1.0, 1.5))
    return one, other, x, reached, t, u, s


def test_one_segment_is_a_consistency_trajectory():
    one, other, x, reached, t, u, s = nets()
    ours = samplers.segment(one, other, x, reached, t, u, s)
    # Where the way ends there, the last jump leads nowhere.
    theirs = samplers.trajectory(one, other, x, reached, t, u, s, end=0.5, inner="fixed")
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert abs(ours.estimate - ours.target).max() > 0.01
    # A jump of no width is the point that the teacher came to.
    still = samplers.segment(one, other, x, reached, t, u, u)
    np.testing.assert_allclose(still.target, reached, atol=1e-15)


@pytest.mark.parametrize("segments", [1, 2, 8, 16])
def test_ends_lie_within_their_segments(segments):
    """A net that says nothing of the data shows where its jump ended."""
    levels, ends = 16, []

    def run(params, state, inputs, *, taps=(), train=False, rng=None):
        return Forward(0 * inputs["image"] * params["a"], {}, state, params)

    net = Net(lambda key, inputs: ({"a": jnp.ones(())}, {}), run)
    grid = np.asarray(samplers.rising_karras(jnp.arange(levels + 1), levels + 1))
    for end in ("drawn", "edge"):
        points = compared(
            net, exact, None, False, levels=levels, segments=segments, end=end, order=1,
            scale=None, low=0.002, high=80.0,
        )  # fmt: skip
        own = {"net": net.init(jax.random.key(0), None)}
        key = jax.random.key(3)
        _, s, _, _ = points(own, Turn({}, own, batch(400), key, jnp.zeros(())), key)
        ends.append(set(np.abs(grid[None] - np.asarray(s)[:, None]).argmin(1).tolist()))
    edges = set(np.asarray(samplers.segment_ends(levels, segments)).tolist())
    assert ends[1] == edges
    assert ends[0] == set(range(levels))


def answer(inputs):
    x, t = inputs["image"], inputs["sigma"][:, None]
    return x * VARIANCE / (VARIANCE + t**2)


def test_a_grid_as_fine_as_its_segments_is_the_teachers_step():
    """With as many segments as steps the target is the teacher's own: its denoiser is right."""

    def run(params, state, inputs, *, taps=(), train=False, rng=None):
        return Forward(answer(inputs) + 0 * params["a"], {}, state, params)

    net = Net(lambda key, inputs: ({"a": jnp.zeros(())}, {}), run)

    def paid(segments, end="edge"):
        made = samplers.segmented(
            net, ADAM, lambda f: exact(f, ONE), levels=8, segments=segments, end=end
        )
        state = jax.jit(made.init)(jax.random.key(0), {}, batch(64))
        total, count = jax.jit(made.step)(state, {}, batch(64))[1]["loss"]
        return float(total / count)

    assert paid(8) < 1e-12 < 1e-4 < paid(1)


def mlp(classes=0):
    return samplers.denoiser(from_linen(models.TimeMLP(width=8, depth=1, classes=classes)))


def judge(weight=0.5):
    net = mlp()
    variables = net.init(jax.random.key(9), {"image": jnp.ones((1, 2)), "sigma": jnp.ones(1)})
    settings = samplers.Adversary(taps=("bottleneck",), weight=weight)
    features = samplers.features_of(net, "teacher", settings.taps)
    found = samplers.Judge(features, from_linen(models.CriticHead()), ADAM, settings)
    return found, {"teacher": variables}


@pytest.mark.parametrize("labels", [False, True])
def test_steps_are_one_program_with_a_judge_and_a_reward(labels):
    critic, frozen = judge()
    reward = samplers.near_mode(RING, 0)
    scale = {"scale": 2.0} if labels else {}
    made = samplers.segmented(
        mlp(2 if labels else 0), ADAM, exact, None, None, critic, reward, labels=labels, **scale
    )
    state = before = jax.jit(made.init)(jax.random.key(0), frozen, batch())
    traces = []

    @jax.jit
    def step(state):
        traces.append(1)
        return made.step(state, frozen, batch())

    for _ in range(2):
        state, metrics = step(state)
    assert len(traces) == 1
    assert set(metrics) == {"loss", "generator", "reward", "critic"}
    assert all(jnp.isfinite(total / count) for total, count in metrics.values())
    for part in ("net", "heads"):
        moved = jax.tree.map(lambda a, b: (a != b).any(), state.params[part], before.params[part])
        assert any(jax.tree.leaves(moved)), part
    jax.tree.map(np.testing.assert_array_equal, made.result(state)[0], state.ema["net"][0])


def test_a_reward_is_followed():
    reward = samplers.near_mode(RING, 0)
    feedback = samplers.Feedback(weight=1.0, enough=1.0)
    made = samplers.segmented(
        mlp(), optax.adam(1e-2), exact, None, None, None, reward, square=0.0, feedback=feedback
    )
    state = jax.jit(made.init)(jax.random.key(0), {}, batch(32))
    step, found = jax.jit(made.step), []
    for _ in range(60):
        state, metrics = step(state, {}, batch(32))
        found.append(float(metrics["reward"][0] / metrics["reward"][1]))
    assert found[-1] > found[0] + 0.1


def test_the_reward_of_a_class_is_the_logarithm_of_its_probability():
    net = from_linen(models.MLP(widths=(4,), classes=3))
    x = jax.random.normal(jax.random.key(0), (5, 2), float)
    variables = net.init(jax.random.key(1), x)
    found = samplers.of_class(net, "judge", 2)({"judge": variables})(x)
    expected = jax.nn.log_softmax(net.apply(*variables, x).out)[:, 2]
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="'judge'"):
        samplers.of_class(net, "jugde", 2)({"judge": variables})


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (lambda x: jnp.round(x).sum(-1), "not differentiable"),
        (lambda x: jax.lax.stop_gradient(x).sum(-1), "not differentiable"),
        (lambda x: x.argmax(-1), "floating point, not"),
        (lambda x: x.sum(), "one number an image"),
    ],
)
def test_a_reward_without_a_gradient_is_refused_before_compilation(reward, words):
    made = samplers.segmented(mlp(), ADAM, exact, None, None, None, lambda frozen: reward)
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(made.init, jax.random.key(0), {}, batch())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"levels": 8, "segments": 9}, "8 steps have 1 to 8 segments, not 9"),
        ({"scale": 2.0}, "needs labels=True"),
        ({"low": 90.0}, "low=90.0"),
    ],
)
def test_refusals(settings, words):
    with pytest.raises(ValueError, match=words):
        samplers.segmented(mlp(), ADAM, exact, **settings)
