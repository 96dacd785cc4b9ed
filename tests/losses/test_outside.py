"""The losses in other people's training loops: bare Flax NNX and bare Equinox, nothing else of
ours."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from jaxdistill.losses import cross_entropy, hinton_kd


@pytest.fixture(autouse=True)
def _usual_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


def _data():
    keys = jax.random.split(jax.random.key(0), 2)
    inputs = jax.random.normal(keys[0], (32, 4))
    teacher = 3 * inputs @ jax.random.normal(keys[1], (4, 3))
    return inputs, teacher, jnp.argmax(teacher, axis=-1)


def _objective(logits, teacher, labels):
    soft = hinton_kd(logits, teacher, temperature=2.0)
    return jnp.mean(0.9 * soft + 0.1 * cross_entropy(logits, labels))


def test_nnx():
    inputs, teacher, labels = _data()
    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.3), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        loss, gradients = nnx.value_and_grad(
            lambda model: _objective(model(inputs), teacher, labels)
        )(model)
        optimizer.update(model, gradients)
        return loss

    trace = [float(step(model, optimizer)) for _ in range(40)]
    assert trace[-1] < 0.3 * trace[0]


def test_equinox():
    eqx = pytest.importorskip("equinox")
    inputs, teacher, labels = _data()
    model = eqx.nn.Linear(4, 3, key=jax.random.key(1))

    @eqx.filter_jit
    def step(model):
        loss, gradients = eqx.filter_value_and_grad(
            lambda model: _objective(jax.vmap(model)(inputs), teacher, labels)
        )(model)
        return eqx.apply_updates(model, jax.tree.map(lambda g: -0.3 * g, gradients)), loss

    trace = []
    for _ in range(40):
        model, loss = step(model)
        trace.append(float(loss))
    assert trace[-1] < 0.3 * trace[0]
