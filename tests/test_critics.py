"""The discriminator that student and critic help alike, by its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill.critics import cooperative_discriminator
from jaxdistill.net import Forward

KEY = jax.random.key(0)


def seen(logits):
    return Forward(logits, {}, {}, {})


def test_the_loss_is_the_published_one():
    student, teacher = (jax.random.normal(k, (6, 40)) for k in jax.random.split(KEY))
    critic = cooperative_discriminator(widths=(5, 3))
    params, state = critic.init(KEY, seen(student), {"out": teacher}, {})

    def scores(x):
        for name in ("fc1", "fc2", "fc3"):
            layer = params[name]
            x = np.maximum(x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0)
        return x

    rows = scores(np.concatenate([student, teacher]))
    goal = np.repeat(np.array([[1.0, 0.0], [0.0, 1.0]]), 6, axis=0)
    expected = optax.sigmoid_binary_cross_entropy(jnp.asarray(rows), jnp.asarray(goal)).mean()
    terms, _ = critic.terms(params, state, seen(student), {"out": teacher}, {}, step=0)
    term = terms["discriminator"]
    np.testing.assert_allclose(term.total / term.count, expected, rtol=1e-6)


def test_the_student_descends_it_too():
    """Adversarial would be the other sign: here both make the student easier to tell apart."""
    student, teacher = (jax.random.normal(k, (32, 10)) for k in jax.random.split(KEY))
    critic = cooperative_discriminator()
    params, state = critic.init(KEY, seen(student), {"out": teacher}, {})

    def loss(both):
        terms, _ = critic.terms(both[0], state, seen(both[1]), {"out": teacher}, {}, step=0)
        return terms["discriminator"].total / terms["discriminator"].count

    both, start = (params, student), loss((params, student))
    gradient = jax.jit(jax.grad(loss))
    for _ in range(100):
        both = jax.tree.map(lambda x, g: x - g, both, gradient(both))
    assert loss((both[0], student)) < start
    assert loss(both) < loss((both[0], student))


def test_padding_and_other_classes():
    student, teacher = jnp.ones((4, 10)), jnp.zeros((4, 10))
    critic = cooperative_discriminator(weight=0.5, name="d")
    params, state = critic.init(KEY, seen(student), {"out": teacher}, {})
    batch = {"where": jnp.array([True, True, False, False])}
    terms, _ = critic.terms(
        params, state, seen(student.at[2:].set(jnp.nan)), {"out": teacher}, batch, step=0
    )
    assert terms["d"].count == 2
    assert jnp.isfinite(terms["d"].total)
    with pytest.raises(ValueError, match="other classes"):
        critic.init(KEY, seen(student), {"out": jnp.zeros((4, 9))}, {})
