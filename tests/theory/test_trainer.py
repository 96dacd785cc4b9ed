"""The library's own training against its closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdistill as jd
from jaxdistill import losses, theory
from jaxdistill.training.sharding import make_mesh


def _linear(features):
    return jd.from_function(
        lambda key, x: ({"w": jnp.zeros((features, 1))}, {}),
        lambda params, state, x, train, rng: (x @ params["w"], {}, state),
    )


@pytest.mark.parametrize("points", [3, 8])
def test_a_linear_student_reaches_the_projection_of_its_teacher(points):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(points, 5)).astype(np.float32)
    net = _linear(5)
    teacher = jnp.asarray(draw.normal(size=(5, 1)), jnp.float32)

    def objective(forward, goal, batch):
        value = losses.soft_binary_cross_entropy(forward.out, jax.nn.sigmoid(goal["out"]))
        return {"kd": jd.per_example(1.0, value)}

    distiller = jd.model_to_model(net, jd.targets.live(net), objective, optax.sgd(2.0, 0.9))
    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    outcome = jd.fit(
        distiller,
        {"teacher": ({"w": teacher}, {})},
        {"image": x},
        steps=1500,
        batch_size=points,
        log_every=500,
        mesh=mesh,
        quiet=True,
    )
    params, _ = outcome.result
    expected = theory.linear_student(jnp.asarray(x), teacher)
    np.testing.assert_allclose(params["w"], expected, atol=2e-3)
    if points < 5:
        assert float(jnp.linalg.norm(expected - teacher)) > 0.1


def test_a_wide_net_follows_its_tangent_kernel():
    width, rate, steps = 4096, 0.5, 200

    def init(key, x):
        first, second = jax.random.split(key)
        return {
            "in": jax.random.normal(first, (x.shape[1], width)),
            "out": jax.random.normal(second, (width, 1)),
        }, {}

    def apply(params, state, x, train, rng):
        hidden = jax.nn.relu(x @ params["in"] * jnp.sqrt(2 / x.shape[1]))
        return hidden @ params["out"] / jnp.sqrt(width), {}, state

    net, teacher = jd.from_function(init, apply), _linear(3)
    draw = np.random.default_rng(0)
    x, new = (jnp.asarray(draw.normal(size=(n, 3)), jnp.float32) for n in (6, 4))
    frozen = {"teacher": ({"w": jnp.array([[1.0], [-0.5], [0.3]])}, {})}

    def objective(forward, goal, batch):
        return {"l2": jd.per_example(1.0, jnp.square(forward.out - goal["out"]).sum(-1) / 2)}

    distiller = jd.model_to_model(net, jd.targets.live(teacher), objective, optax.sgd(rate))
    batch = {"image": x}
    state = jax.jit(distiller.init)(jax.random.key(0), frozen, batch)
    params = state.params["net"]
    tangent = lambda a, b: theory.empirical_ntk(net, params, {}, a, b, outputs="mean")  # noqa: E731
    kernel, cross = tangent(x, x), tangent(new, x)
    wide = theory.ntk(x, depth=1)
    # The last layer has weight variance 1, so every entry is half of that with 2.
    assert float(jnp.max(jnp.abs(kernel - wide / 2)) / jnp.max(wide / 2)) < 0.1

    start = [net.apply(params, {}, points).out for points in (x, new)]
    goal = teacher.apply(*frozen["teacher"], x).out
    found = theory.spectrum(kernel)
    left = (1 - rate * found.values / x.shape[0]) ** steps
    inside = (1 - left)[:, None] * jnp.matmul(found.vectors.T, goal - start[0])
    moved = theory.spectral_fit(found, jnp.matmul(found.vectors, inside), 0.0)
    expected = start[1] + theory.predict(cross, moved.coefficients)

    step = jax.jit(distiller.step)
    for _ in range(steps):
        state, _ = step(state, frozen, batch)
    trained = net.apply(state.params["net"], {}, new).out
    gap = jnp.linalg.norm(trained - expected) / jnp.linalg.norm(expected - start[1])
    assert float(gap) < 0.03
    # Trained to the end it interpolates with the least norm.
    end = theory.ridge_fit(kernel, goal - start[0], 0.0)
    final = start[1] + theory.predict(cross, end.coefficients)
    gap = jnp.linalg.norm(trained - final) / jnp.linalg.norm(final - start[1])
    assert float(gap) < 0.2
