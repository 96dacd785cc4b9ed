"""Teachers that are recorded on their way to a generator, and generators that go back along it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import models, samplers
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.samplers import quality
from jaxdistill.samplers.backtracking import point

RING = samplers.ring()
ADAM = optax.adam(1e-3)
NET = samplers.denoiser(from_linen(models.TimeMLP(width=8, depth=1)))
BATCH = {"image": samplers.draw(jax.random.key(5), RING, 8)[0].astype(jnp.float32)}
STEPS, RECORDS = 6, 3


def variables(seed):
    return NET.init(jax.random.key(seed), {**BATCH, "sigma": jnp.ones(8)})


FROZEN = {"teacher": variables(1), "generator": variables(2)}


def degradation(**settings):
    settings = {"records": RECORDS, **settings}
    return samplers.degradation(NET, ("generator", NET), ADAM, STEPS, initial="teacher", **settings)


def ran(distiller, frozen, steps):
    step = jax.jit(distiller.step)
    state = jax.jit(distiller.init)(jax.random.key(0), frozen, BATCH)
    for _ in range(steps):
        state, metrics = step(state, frozen, BATCH)
    assert all(jnp.isfinite(total) for total, _ in metrics.values())
    return distiller.result(state)


@pytest.fixture(scope="module")
def path():
    with jax.enable_x64(True):
        return ran(degradation(), FROZEN, STEPS)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_path_begins_at_the_teacher_and_holds_what_was_recorded(path):
    assert {len(leaf) for leaf in jax.tree.leaves(path)} == {RECORDS + 1}
    same(point(path, 0), FROZEN["teacher"])
    for record in (1, 2):
        shorter = ran(degradation(), FROZEN, record * STEPS // RECORDS)
        same(point(shorter, record), point(path, record))
        assert not np.array_equal(
            jax.tree.leaves(point(path, record))[0], jax.tree.leaves(point(path, record + 1))[0]
        )


def test_fewer_steps_than_records_leave_no_gap_at_the_end():
    short = samplers.degradation(
        NET, ("generator", NET), ADAM, 2, initial="teacher", records=RECORDS
    )
    found = ran(short, FROZEN, 2)
    same(point(found, 0), FROZEN["teacher"])
    assert (jax.tree.leaves(found)[0][RECORDS] != jax.tree.leaves(FROZEN["teacher"])[0]).any()


def matched(teacher, **settings):
    return samplers.distribution_matching(
        NET, NET, ADAM, ADAM, samplers.teacher_net(NET, teacher), ratio=2, **settings
    )


def test_the_estimate_starts_at_the_end_of_the_path_and_the_generator_where_it_is_told(path):
    moving = samplers.backtracking(
        matched("path", initial="generator", estimate="path"), "path", interval=2
    )
    frozen = {**FROZEN, "path": path}
    state = jax.jit(moving.init)(jax.random.key(0), frozen, BATCH)
    same(state.params["fake"], point(path, RECORDS)[0])
    same(state.params["net"], FROZEN["generator"][0])


def test_a_path_that_stays_is_a_teacher_that_stays():
    """Every step is the one of distribution matching, bit for bit."""
    still = jax.tree.map(lambda x: jnp.stack([x, x]), FROZEN["teacher"])
    moving = samplers.backtracking(
        matched("path", initial="generator", estimate="path"), "path", interval=2
    )
    plain = matched("teacher", initial="generator", estimate="teacher")
    frozen = {**FROZEN, "path": still}
    same(ran(moving, frozen, 4), ran(plain, FROZEN, 4))


def test_the_last_target_is_the_teacher_itself(path):
    """After the intervals a step from one state is that with the teacher, bit for bit."""
    moving = samplers.backtracking(matched("path"), "path", interval=2)
    frozen, plain = {**FROZEN, "path": path}, matched("teacher")
    state = jax.jit(plain.init)(jax.random.key(0), FROZEN, BATCH)
    for step, alike in ((2 * RECORDS - 1, True), (2 * (RECORDS - 1) - 1, False)):
        state = state._replace(step=jnp.asarray(step, jnp.int32))
        ours, _ = jax.jit(moving.step)(state, frozen, BATCH)
        theirs, _ = jax.jit(plain.step)(state, FROZEN, BATCH)
        leaves = [jax.tree.leaves(each.params["net"]) for each in (ours, theirs)]
        assert all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True)) == alike


def test_a_path_is_measured_point_by_point(path):
    evaluator = samplers.path_quality(NET, RING, steps=2, draws=200)
    found = evaluator(path, {}, ())
    assert set(found) == set(evaluator.metrics)
    one = quality.density_quality(NET, RING, draws=200, in_steps=(2,), solver="heun")
    distances = [one(point(path, i), {}, ())["sliced_wasserstein_2"] for i in range(RECORDS + 1)]
    assert found["first"] == distances[0]
    assert found["last"] == distances[-1]
    assert found["least_rise"] == pytest.approx(np.diff(distances).min())


def test_refusals(path):
    with pytest.raises(ValueError, match="number of classes"):
        degradation(labels=True)
    with pytest.raises(ValueError, match="'generator'"):
        degradation().init(jax.random.key(0), {"teacher": FROZEN["teacher"]}, BATCH)
    moving = samplers.backtracking(matched("path"), "path", interval=1)
    with pytest.raises(ValueError, match="unknown path of teachers in the frozen variables 'path'"):
        moving.init(jax.random.key(0), {"pth": path}, BATCH)
    short = jax.tree.map(lambda x: x[:1], path)
    with pytest.raises(ValueError, match="nothing to go back along"):
        moving.init(jax.random.key(0), {"path": short}, BATCH)
