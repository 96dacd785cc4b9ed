"""Solvers by their order on the exact score, and the loop that runs them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import samplers

RING = samplers.ring()


def exact(path):
    return lambda x, t, *ends: samplers.denoise(RING, x, t, path=path)


def points(count=6):
    return jnp.asarray(np.random.default_rng(0).normal(size=(count, 2)))


@pytest.mark.parametrize(
    ("solver", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpm_solver", 2)]
)
@pytest.mark.parametrize("name", ["variance_preserving", "edm", "flow", "trigflow"])
def test_the_order_of_a_solver(solver, order, name):
    path = samplers.PATHS[name]()
    made = samplers.SOLVERS[solver](exact(path), path)
    # Where modes part, so that the flow is curved; even steps of the logarithm.
    ratios = [jnp.exp(jnp.linspace(jnp.log(0.8), jnp.log(0.2), n + 1)) for n in (64, 128, 512)]
    run = jax.jit(lambda times, x: samplers.sample(made, times, x))
    x = 0.5 * points() * path.alpha(path.time(0.8))
    coarse, fine, best = (run(path.time(ratio), x) for ratio in ratios)
    errors = [jnp.abs(found - best).max() for found in (coarse, fine)]
    # Against a grid that is m times finer an error is short of its own share of 1 / m^p.
    measured = jnp.log2(errors[0] / errors[1] * (1 - 4.0**-order) / (1 - 8.0**-order))
    np.testing.assert_allclose(measured, order, atol=0.2)


@pytest.mark.parametrize("solver", ["ddim", "euler", "heun", "dpm_solver"])
def test_of_one_gaussian_the_flow_is_known(solver):
    path, deviation = samplers.edm(), 0.5
    one = samplers.mixture([1.0], [[0.3, -0.2]], [deviation**2])
    made = samplers.SOLVERS[solver](lambda x, t: samplers.denoise(one, x, t), path)
    x, mean = 10 * points(), jnp.array([[0.3, -0.2]])
    found = samplers.sample(made, samplers.karras(400, high=10.0), x)
    expected = mean + (x - mean) * deviation / np.sqrt(deviation**2 + 100)
    np.testing.assert_allclose(found, expected, atol=2e-2 if solver in ("ddim", "euler") else 1e-3)


@pytest.mark.parametrize("solver", sorted(samplers.SOLVERS))
def test_steps_in_two_parts(solver):
    path = samplers.edm()
    made, times = samplers.SOLVERS[solver](exact(path), path), samplers.karras(6)
    x, key = 80 * points(), jax.random.key(3)
    whole, data = samplers.sample(made, times, x, key=key, return_data=True)
    assert data.shape == (6, 6, 2)
    np.testing.assert_allclose(data[-1], whole, atol=1e-10)
    middle = samplers.sample(made, times, x, key=key, stop=2)
    again = samplers.sample(made, times, middle, key=key, start=2)
    if solver != "dpm_solver":  # which remembers the step before
        np.testing.assert_allclose(again, whole, atol=1e-12)
    assert jnp.isfinite(again).all()


def test_ancestral_steps_keep_the_spread():
    path = samplers.variance_preserving()
    one = samplers.mixture([1.0], [[0.0]], [1.0])
    made = samplers.ddim(lambda x, t: samplers.denoise(one, x, t, path=path), path, eta=1.0)
    x = jax.random.normal(jax.random.key(0), (4000, 1))
    found = samplers.sample(made, jnp.linspace(path.last, 0, 201), x, key=jax.random.key(1))
    np.testing.assert_allclose(found.std(), 1.0, atol=0.05)
    assert abs(jnp.corrcoef(found[:, 0], x[:, 0])[0, 1]) < 0.1


def test_a_consistency_function_in_one_step_is_itself():
    path, x = samplers.edm(), 80 * points()
    made = samplers.consistency(exact(path), path)
    np.testing.assert_array_equal(
        samplers.sample(made, jnp.array([80.0, 0.0]), x), exact(path)(x, jnp.full(6, 80.0))
    )


def test_one_program_for_all_values_of_times():
    path, calls = samplers.edm(), []

    def denoise(x, t):
        calls.append(1)
        return samplers.denoise(RING, x, t)

    run = jax.jit(lambda times, x: samplers.sample(samplers.ddim(denoise, path), times, x))
    run(samplers.karras(5), points())
    traced = len(calls)
    run(samplers.karras(5, high=10.0), points())
    assert len(calls) == traced


def test_no_step_to_do():
    with pytest.raises(ValueError, match="no step"):
        samplers.sample(samplers.ddim(exact(samplers.edm()), samplers.edm()), [1.0], points())
