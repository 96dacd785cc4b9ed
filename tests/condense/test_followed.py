"""How steep it is where experts went, and how far students stray from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import condense
from jaxdistill.condense import Students, Synthetic, Window
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models import ConvNet

SHAPE = (4, 4, 1)
NET = from_linen(ConvNet(width=2, depth=1, classes=3))
MODEL = condense.flat(NET, SHAPE)
DRAWN = np.random.default_rng(0)
IMAGES = DRAWN.normal(size=(9, *SHAPE)).astype(np.float32)
LABELS = np.arange(9) % 3
SET = Synthetic(jnp.asarray(IMAGES[:3]), jnp.eye(3), jnp.float32(0.5))


def loss(vector, images, labels):
    log_p = jax.nn.log_softmax(MODEL.apply(vector, images).out)
    return -(labels * log_p).sum(-1).mean()


def test_sharpness_is_the_largest_eigenvalue_of_the_hessian():
    paths = jnp.stack([MODEL.draw(jax.random.key(n)) for n in range(6)]).reshape(2, 3, -1)
    # Two batches, the second filled up with a record that does not count.
    fill, count = np.concatenate([IMAGES[5:], 9 * IMAGES[:1]]), np.arange(5) < 4
    data = [
        {"image": IMAGES[:5], "label": LABELS[:5], "where": np.ones(5, bool)},
        {"image": fill, "label": np.append(LABELS[5:], 0), "where": count},
    ]
    evaluator = condense.sharpness(NET, SHAPE, first=1, iterations=200)
    found = evaluator(paths, {}, data)
    hessian = jax.jit(jax.hessian(loss))
    wanted = []
    for vector in paths[:, 1:].reshape(4, -1):
        values = np.linalg.eigvalsh(hessian(vector, IMAGES, jnp.eye(3)[LABELS]))
        wanted.append(np.abs(values).max())
    assert tuple(found) == tuple(evaluator.metrics)
    np.testing.assert_allclose(found["sharpness"], np.mean(wanted), rtol=1e-3)
    with pytest.raises(ValueError, match=r"more than 3, \d+\], got \(2, 3, "):
        condense.sharpness(NET, SHAPE, first=3)(paths, {}, data)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_students_that_are_put_back_and_that_are_not(momentum):
    def trained(vector):
        velocity = 0.0
        for _ in range(2):
            velocity = momentum * velocity + jax.grad(loss)(vector, SET.images, SET.targets)
            vector = vector - SET.rate * velocity
        return vector

    def distance(end, start, goal):
        return float(jnp.square(end - goal).sum() / jnp.square(start - goal).sum())

    # The expert leaves the student's way in the first stretch, and takes its steps in the second.
    start = MODEL.draw(jax.random.key(0))
    away = trained(start) + 0.1 * jax.random.normal(jax.random.key(1), start.shape)
    goal = trained(away)
    path = jnp.stack([start, start, away, away, goal])
    evaluator = condense.strayed(
        NET,
        SHAPE,
        students=Students(steps=2, momentum=momentum),
        epochs=2,
        window=Window(first=0, last=3),
    )
    found = evaluator(SET, {"experts": path[None]}, [])
    assert tuple(found) == tuple(evaluator.metrics)
    first = distance(trained(start), start, away)
    np.testing.assert_allclose(found["matching_error"], first / 2, rtol=1e-4)
    whole = distance(trained(trained(start)), start, goal)
    assert whole > 1e-3
    np.testing.assert_allclose(found["accumulated_error"], whole, rtol=1e-4)
