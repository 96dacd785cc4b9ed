"""Optimizers by path: what decays, what has a rate of its own, what stays, what is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill.settings import fault, keys
from jaxdistill.training.optimizer import by_path

PARAMS = {
    "net": {"head": {"kernel": jnp.full(2, 2.0), "bias": jnp.full(2, 2.0)}, "body": jnp.ones(2)}
}


def moved(**settings) -> Any:
    """The updates of one step of gradient descent along gradients of one."""
    tx = by_path(optax.identity(), **{"learning_rate": 0.1, **settings})
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    updates: Any = tx.update(gradients, tx.init(PARAMS), PARAMS)[0]
    return updates["net"]


@pytest.mark.parametrize(
    ("settings", "kernel", "bias", "body"),
    [
        ({}, -0.1, -0.1, -0.1),
        ({"learning_rate": lambda step: 0.5 + step}, -0.5, -0.5, -0.5),
        ({"weight_decay": 0.5}, -0.2, -0.1, -0.15),
        ({"weight_decay": 0.5, "no_decay": "head"}, -0.1, -0.1, -0.15),
        ({"clip": 0.6**0.5}, *3 * [-0.1 * 0.1**0.5]),
        ({"rates": [("kernel$", 3.0), ("head", 0.0)]}, -0.3, 0.0, -0.1),
        ({"frozen": ["body"]}, -0.1, -0.1, 0.0),
    ],
)
def test_one_step(settings, kernel, bias, body):
    found = moved(**settings)
    for value, wanted in ((found["head"]["kernel"], kernel), (found["head"]["bias"], bias)):
        np.testing.assert_allclose(value, wanted, rtol=1e-6)
    np.testing.assert_allclose(found["body"], body, rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 3), (2, 2, 3)])
def test_weights_into_a_unit_are_bounded(shape):
    columns = jnp.array([1.0, 2.0, 4.0]) / 2
    params = {"kernel": jnp.broadcast_to(columns, shape), "bias": jnp.full(3, 9.0)}
    gradients = jax.tree.map(jnp.zeros_like, params)
    tx = by_path(optax.identity(), learning_rate=0.1, max_norm=2.0)
    updates = tx.update(gradients, tx.init(params), params)[0]
    found: Any = optax.apply_updates(params, updates)
    np.testing.assert_allclose(found["bias"], params["bias"])
    # The norms were 1, 2 and 4.
    wanted = np.broadcast_to([0.5, 1.0, 1.0], shape)
    np.testing.assert_allclose(found["kernel"], wanted, rtol=1e-6)


@pytest.mark.parametrize("key", ["no_decay", "rates", "frozen"])
def test_patterns_that_are_none(key):
    wrong = {"no_decay": "(bias", "rates": [("(bias", 1.0)], "frozen": ["(bias"]}
    with pytest.raises(ValueError, match=rf"{key} has '\(bias'.*e.g. 'net/head/kernel'"):
        moved(**{key: wrong[key]})


@pytest.mark.parametrize("key", ["rates", "frozen"])
def test_patterns_that_nothing_matches(key):
    with pytest.raises(ValueError, match="no parameter's path matches 'heads'"):
        moved(**{key: [("heads", 1.0)] if key == "rates" else ["heads"]})


def test_settings_have_domains():
    domains = {key: parameter.annotation for key, parameter in keys(by_path).items()}
    for key, good, bad in (
        ("learning_rate", {"schedule": "cosine"}, -0.1),
        ("weight_decay", 0.0, float("nan")),
        ("no_decay", "x", 3),
        ("clip", None, 0.0),
        ("max_norm", None, 0.0),
        ("rates", (("head", 0.0),), (("head", -1.0),)),
        ("frozen", ("head",), "head"),
    ):
        assert fault(good, domains.pop(key)) is None
        assert fault(bad, keys(by_path)[key].annotation) is not None
    assert not domains
