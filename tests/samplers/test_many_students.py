"""Several students of one teacher: one is the algorithm itself, and none learns of others' part."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from jaxdistill import models, samplers
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.samplers.distribution_matching import OWN, generated
from jaxdistill.samplers.many_students import owned, parts

RING = samplers.ring(modes=8, classes=4)
CLASSES = 4
NET = samplers.denoiser(from_linen(models.TimeMLP(width=8, depth=1, classes=CLASSES)))
ADAM = optax.adam(1e-2)
HEAD = from_linen(models.CriticHead())


def exact(frozen):
    return lambda x, sigma, label=None: samplers.denoise(RING, x, sigma, label)


def batch(count=16, takes=0):
    points, chosen = samplers.draw(jax.random.key(5), RING, max(takes, 1) * count)
    found = {"image": points.astype(jnp.float32), "label": RING.labels[chosen]}
    return jax.tree.map(lambda x: x.reshape(takes, count, *x.shape[1:]), found) if takes else found


def matching(**settings):
    settings = {"ratio": 2, "labels": True, "classes": CLASSES, **settings}
    return samplers.distribution_matching(NET, NET, ADAM, ADAM, exact, **settings)


def denoising(**settings):
    return samplers.denoising(NET, ADAM, exact, labels=True, unlabelled=0.0, **settings)


def begun(distiller, frozen=None, takes=0):
    data = batch(takes=takes)
    return jax.jit(distiller.init)(jax.random.key(0), frozen or {}, data), data


def ran(distiller, steps=2, frozen=None, takes=0):
    state, data = begun(distiller, frozen, takes)
    step = jax.jit(distiller.step)
    for _ in range(steps):
        state, metrics = step(state, frozen or {}, data)
    assert all(jnp.isfinite(total) for total, _ in metrics.values())
    assert int(state.step) == steps
    return distiller.result(state)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("make", [matching, denoising])
def test_one_student_is_the_algorithm_itself(make):
    plain, one = make(), samplers.on_axis(make(), CLASSES, 1)
    expected = ran(plain)
    # Batched matrix products may round differently.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[0], b, rtol=2e-5, atol=2e-6),
        ran(one),
        expected,
    )


def test_students_learn_of_their_own_classes_alone():
    """The embedding of a class moves in the student that owns it, and in no other."""
    distiller = samplers.on_axis(matching(), CLASSES, 2)
    start, _ = begun(distiller)
    before, after = distiller.result(start)[0], ran(distiller)[0]
    tables = [each["given"]["label"]["embedding"] for each in (before, after)]
    moved = (np.asarray(tables[0]) != np.asarray(tables[1])).any(-1)
    np.testing.assert_array_equal(moved, [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0]])


def test_students_begin_apart_and_draw_apart():
    start, _ = begun(samplers.on_axis(matching(), CLASSES, 2))
    kernel = start.students.params["net"]["in"]["kernel"]
    assert (kernel[0] != kernel[1]).any()
    first, second = jax.random.key_data(start.students.key)
    assert (first != second).any()


def test_labels_are_drawn_from_ones_own():
    keys, like = jax.random.split(jax.random.key(0)), jnp.zeros((64, 2), jnp.float32)
    nets = {"net": NET.init(keys[0], {**batch(64), "sigma": jnp.ones(64)})}
    _, label = generated(NET, (80.0,), CLASSES, nets, {OWN: jnp.array([1, 3])}, keys, like)
    assert set(np.asarray(label).tolist()) == {1, 3}


def test_rows_of_ones_own_repeat_and_others_are_never_there():
    rows = {"label": jnp.array([0, 3, 0, 1, 3]), "x": jnp.arange(5)}
    assert owned(rows, jnp.array([0, 1]), 5)["x"].tolist() == [0, 2, 3, 0, 2]
    assert owned(rows, jnp.array([3]), 2)["x"].tolist() == [1, 4]


def test_with_a_discriminator_every_batch_of_a_step_is_shared_out():
    distiller = samplers.on_axis(matching(head=HEAD), CLASSES, 2)
    assert distiller.takes == 2
    params, _ = ran(distiller, takes=2)
    assert {len(leaf) for leaf in jax.tree.leaves(params)} == {2}


def test_pairs_are_read_whole_or_divided():
    """Divided pairs move the embeddings of one's own classes alone, whole ones those of all."""
    noise = jax.random.normal(jax.random.key(1), (32, 2), jnp.float32)
    pairs = {"noise": noise, "sample": noise, "label": jnp.arange(32) % CLASSES}
    for divided, others in (((), True), (("pairs",), False)):
        inner = matching(pairs=samplers.pair_loss(NET, "pairs"))
        distiller = samplers.on_axis(inner, CLASSES, 2, divided=divided)
        frozen = {"pairs": pairs}
        start, _ = begun(distiller, frozen)
        tables = [
            params["given"]["label"]["embedding"]
            for params, _ in (distiller.result(start), ran(distiller, frozen=frozen))
        ]
        moved = (np.asarray(tables[0]) != np.asarray(tables[1])).any(-1)
        assert moved[0, 2:4].any() == others


def test_every_example_is_answered_by_the_student_of_its_label():
    many = samplers.students(NET, CLASSES, count=2)
    inputs = {**batch(6), "sigma": jnp.ones(6), "label": jnp.array([0, 1, 2, 3, -1, 4])}
    variables = many.init(jax.random.key(0), inputs)
    found = many.apply(*variables, inputs).out
    for row, number in ((0, 0), (1, 0), (2, 1), (3, 1)):
        own = NET.apply(*samplers.student_of(variables, number), inputs).out
        np.testing.assert_allclose(found[row], own[row], rtol=1e-6)
    assert np.isnan(found[4:]).all()  # nobody owns these
    noise = jnp.ones((6, 2), jnp.float32)
    in_turn = {
        "image": 80 * noise,
        "sigma": jnp.full(6, 80.0, "float32"),
        "label": jnp.arange(6) % CLASSES,
    }
    same(many.apply(*variables, noise).out, many.apply(*variables, in_turn).out)


def test_students_start_from_students_or_all_from_one():
    distiller = samplers.on_axis(matching(initial="start"), CLASSES, 2, stacked=("start",))
    learned = ran(samplers.on_axis(denoising(), CLASSES, 2))
    state, _ = begun(distiller, {"start": learned})
    same(state.students.params["net"], learned[0])
    shared = samplers.on_axis(matching(initial="start"), CLASSES, 2)
    one = samplers.student_of(learned, 1)
    state, _ = begun(shared, {"start": one})
    for number in range(2):
        same(jax.tree.map(lambda x, n=number: x[n], state.students.params["fake"]), one[0])


def test_students_lie_on_an_axis_of_the_mesh():
    distiller = samplers.on_axis(matching(), CLASSES, 4)
    state, data = begun(distiller)
    alone, _ = jax.jit(distiller.step)(state, {}, data)
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    on_axis = jax.NamedSharding(mesh, jax.P("model"))
    spread = state._replace(
        students=jax.tree.map(lambda x: jax.device_put(x, on_axis), state.students)
    )
    after, _ = jax.jit(distiller.step)(spread, {}, data)
    kernel = after.students.params["net"]["in"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape)[0] == 1
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        distiller.result(after),
        distiller.result(alone),
    )


def test_refusals():
    with pytest.raises(ValueError, match="3 students cannot share out 4 classes evenly"):
        parts(CLASSES, 3)
    with pytest.raises(ValueError, match="cannot share out 0 classes"):
        samplers.students(NET, 0, count=2)
    many = samplers.students(NET, CLASSES, count=2)
    inputs = {"image": jnp.ones((1, 2)), "sigma": jnp.ones(1)}
    with pytest.raises(ValueError, match="give 'label'"):
        many.init(jax.random.key(0), inputs)
    distiller = samplers.on_axis(matching(), CLASSES, 4)
    with pytest.raises(ValueError, match="has none"):
        distiller.init(jax.random.key(0), {}, {"image": jnp.ones((8, 2))})
    with pytest.raises(ValueError, match="a batch of 2 cannot be shared out among 4"):
        distiller.init(jax.random.key(0), {}, batch(2))
    with pytest.raises(ValueError, match="there is no student 2: the last of 2 is 1"):
        samplers.student_of(({"a": jnp.ones((2, 1))}, {}), 2)
