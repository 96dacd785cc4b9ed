"""Answers with rewards: what is compared, what is held near, what becomes more probable."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import language, losses
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models import Decoder

NET = from_linen(Decoder(vocabulary=11, width=8, depth=1, heads=2))
DRAWN = np.random.default_rng(0)
TOKENS = jnp.asarray(DRAWN.integers(1, 11, (4, 3, 6)), jnp.int32)
COUNTED = jnp.broadcast_to(jnp.arange(6) >= 3, TOKENS.shape)
REWARD = jnp.array([[2.0, 1.0, 0.0], [0.0, 1.0, -jnp.inf], [1.0, 1.0, 1.0], [0.3, 0.1, 0.2]])
BATCH = {
    "tokens": TOKENS,
    "label": jnp.roll(TOKENS, -1, -1),
    "counted": COUNTED,
    "reward": REWARD,
}
START = {"start": NET.init(jax.random.key(0), {"tokens": TOKENS[:, 0]})}
NEAR = {"start": NET.init(jax.random.key(5), {"tokens": TOKENS[:, 0]})}


def likelihood(variables):
    """The log-probability of every answer, one at a time."""
    found = np.zeros(REWARD.shape)
    for row, place in np.ndindex(*REWARD.shape):
        out = NET.apply(*variables, {"tokens": TOKENS[row, place][None]}).out[0]
        taken = -losses.cross_entropy(out, BATCH["label"][row, place])
        found[row, place] = float(jnp.sum(jnp.where(COUNTED[row, place], taken, 0)))
    return found


def step(loss, reference=None, *, rate=0.5, steps=1, frozen=START, **settings):
    distiller = language.rewarded(NET, optax.sgd(rate), loss, reference, "start", **settings)
    state = distiller.init(jax.random.key(1), frozen, BATCH)
    moved = jax.jit(distiller.step)
    first = None
    for _ in range(steps):
        state, metrics = moved(state, frozen, BATCH)
        first = first or {name: float(total / count) for name, (total, count) in metrics.items()}
    return first, distiller.result(state)


def test_dpo_compares_best_and_worst():
    frozen = {"start": START["start"], "near": NEAR["start"]}
    metrics, _ = step("dpo", "near", frozen=frozen, beta=0.7)
    gained = likelihood(START["start"]) - likelihood(NEAR["start"])
    pairs = [(0, 0, 2), (1, 1, 0), (3, 0, 1)]  # of equal rewards none is made
    gaps = np.array([gained[row, best] - gained[row, worst] for row, best, worst in pairs])
    expected = np.log1p(np.exp(-0.7 * gaps)).mean()
    np.testing.assert_allclose(metrics["dpo"], expected, rtol=1e-4)


def test_rrhf_ranks_all_answers_that_are_there():
    metrics, _ = step("rrhf")
    mean = likelihood(START["start"]) / 3
    expected, reward = np.zeros(4), np.asarray(REWARD)
    for row in range(4):
        for k, other in np.ndindex(3, 3):
            if -np.inf < reward[row, k] < reward[row, other]:
                expected[row] += max(0.0, mean[row, k] - mean[row, other])
    np.testing.assert_allclose(metrics["rrhf"], expected.mean(), rtol=1e-4, atol=1e-6)
    best = -3 * mean[np.arange(4), reward.argmax(-1)]
    np.testing.assert_allclose(metrics["labels"], best.mean(), rtol=1e-4)


@pytest.mark.parametrize(
    ("loss", "reference"),
    [("dpo", "start"), ("rrhf", None), ("policy_gradient", None), ("policy_gradient", "start")],
)
def test_better_answers_gain(loss, reference):
    before = likelihood(START["start"])
    _, after = step(loss, reference, rate=0.2, steps=20, kl_weight=0.0, beta=1.0)
    gained = likelihood(after) - before
    for row, best, worst in ((0, 0, 2), (1, 1, 0), (3, 0, 1)):
        assert gained[row, best] > gained[row, worst]


def test_answers_of_one_reward_teach_a_policy_nothing():
    frozen = {"start": START["start"]}
    alike = {**BATCH, "reward": jnp.zeros_like(REWARD)}
    distiller = language.rewarded(NET, optax.sgd(1.0), "policy_gradient", "start", "start")
    state = distiller.init(jax.random.key(1), frozen, alike)
    state, _ = distiller.step(state, frozen, alike)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        distiller.result(state)[0],
        START["start"][0],
    )


def test_what_does_not_count_has_no_gradient():
    """Another prompt of the same length in a place that is not there changes nothing."""
    other = {**BATCH, "tokens": TOKENS.at[1, 2].set(7), "label": BATCH["label"].at[1, 2].set(3)}
    results = []
    for batch in (BATCH, other):
        distiller = language.rewarded(NET, optax.sgd(1.0), "rrhf", None, "start")
        state = distiller.init(jax.random.key(1), START, batch)
        results.append(distiller.result(distiller.step(state, START, batch)[0])[0])
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_references_are_where_they_belong():
    with pytest.raises(ValueError, match="dpo compares with the model"):
        language.rewarded(NET, optax.sgd(0.1), "dpo")
    with pytest.raises(ValueError, match="rrhf knows no reference"):
        language.rewarded(NET, optax.sgd(0.1), "rrhf", "start")
