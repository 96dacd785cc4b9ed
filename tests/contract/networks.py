"""Trials of several networks in turn, all by the one factory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from contract.parts import (
    BATCHES,
    STUDENT,
    TEACHER,
    Trial,
    equal,
    falls,
    one_step,
    stage,
    trained_teacher,
)
from contract.structures import perceptron_of

from jaxdistill.distiller import Distiller
from jaxdistill.net import Net
from jaxdistill.players import Player, players


def mean(values):
    """Values per example as a metric."""
    return values.sum(), jnp.asarray(values.size, jnp.float32)


def matched_density(ratio: int = 3) -> Trial:
    """Distribution matching: a generator, the score of its samples, an exact score."""

    def exact(frozen, noisy, sigma):
        share = frozen["variance"] / (frozen["variance"] + sigma**2)
        return frozen["mean"] + (noisy - frozen["mean"]) * share

    def say(variables, inputs, sigma):
        params = variables[0]
        hidden = jnp.tanh(inputs @ params["first"] + jnp.log(sigma) * params["time"][None])
        return hidden @ params["second"]

    def init(key, frozen, batch):
        def one(key):
            return {**perceptron_of(key, 2, 16), "time": jnp.zeros(16)}, {}

        first, second = jax.random.split(key)
        return {"net": one(first), "critic": one(second)}

    def samples(nets, turn):
        level, noise = jax.random.split(turn.key)
        sample = say(nets["net"], turn.batch["image"][:, :2], 1.0)
        sigma = jnp.exp(jax.random.normal(level, (len(sample), 1)))
        return sample, sample + sigma * jax.random.normal(noise, sample.shape), sigma

    def match(nets, turn):
        sample, noisy, sigma = samples(nets, turn)
        noisy = jax.lax.stop_gradient(noisy)
        push = say(nets["critic"], noisy, sigma) - exact(turn.frozen["real"], noisy, sigma)
        gap = sample - jax.lax.stop_gradient(sample - push)
        values = 0.5 * (gap**2).sum(-1)
        return values.mean(), {"matching": mean(values)}

    def criticise(nets, turn):
        sample, noisy, sigma = samples(nets, turn)
        values = ((say(nets["critic"], noisy, sigma) - sample) ** 2).mean(-1)
        return values.mean(), {"critic": mean(values)}

    turns = {
        "net": Player(match, optax.adam(1e-3)),
        "critic": Player(criticise, optax.adam(3e-3), updates=ratio),
    }
    real = {"mean": jnp.ones((1, 2)), "variance": jnp.array([[0.5, 0.1]])}
    return Trial(stage(players(turns, init, own_batches=True), {"real": real}), falls("critic"))


def run(variables, inputs):
    """A net of two layers."""
    return jnp.tanh(inputs @ variables[0]["first"]) @ variables[0]["second"]


def dreaming(
    encoder: Net, teacher: Net, create_tx: Any, judge_tx: Any, updates: int = 2, codes: int = 3
) -> Distiller:
    """An encoder and a generator that a discriminator finds out, labelled by the frozen
    ``"teacher"``."""

    def init(key, frozen, batch):
        keys = jax.random.split(key, 3)
        return {
            "encoder": encoder.init(keys[0], batch["image"]),  # with batch statistics
            "generator": (perceptron_of(keys[1], 2 + codes, 16, 8), {}),
            "critic": (perceptron_of(keys[2], 8, 16, 1), {}),
        }

    def dreamt(nets, turn):
        """Images of drawn labels, and the labels."""
        of_code, of_label = jax.random.split(turn.key)
        label = jax.random.randint(of_label, turn.batch["label"].shape, 0, 2)
        code = jax.random.normal(of_code, (len(label), codes))
        return run(nets["generator"], jnp.concatenate([jax.nn.one_hot(label, 2), code], -1)), label

    def create(nets, turn):
        encoded = encoder.apply(*nets["encoder"], turn.batch["image"], train=True)
        code = jnp.pad(encoded.out, ((0, 0), (0, codes)))
        back = ((run(nets["generator"], code) - turn.batch["image"]) ** 2).mean(-1)
        images, label = dreamt(nets, turn)
        judged = teacher.apply(*turn.frozen["teacher"], images).out
        named = optax.softmax_cross_entropy_with_integer_labels(judged, label)
        found = jax.nn.softplus(-run(nets["critic"], images)[:, 0])
        metrics = {"back": mean(back), "named": mean(named), "found": mean(found)}
        value = (back + named + 0.1 * found).mean()
        return value, metrics, {"encoder": encoded.state}

    def judge(nets, turn):
        images, _ = dreamt(nets, turn)
        real, false = (run(nets["critic"], x)[:, 0] for x in (turn.batch["image"], images))
        paid = jax.nn.softplus(-real) + jax.nn.softplus(false)
        return paid.mean(), {"critic": mean(paid)}

    made = Player(create, create_tx, trains=("encoder", "generator"))
    turns = {"critic": Player(judge, judge_tx, updates=updates), "both": made}
    how: Any = {"ema": {"generator": 0.5}, "own_batches": True, "kind": "arrays"}
    return players(turns, init, returns=("encoder", "generator"), **how)


def encoder_generator_discriminator() -> Trial:
    """An encoder and a generator that a discriminator finds out, labelled by a frozen teacher."""
    distiller = dreaming(STUDENT, TEACHER, optax.adam(1e-2), optax.adam(1e-2))

    def right(outcome):
        falls("back")(outcome)
        falls("named")(outcome)
        assert outcome.result["encoder"][1]["mean"].any()  # its statistics moved

    return Trial(stage(distiller, {"teacher": trained_teacher()}), right)


def forgetting(net: Net, tx: Any, bound_tx: Any, updates: int = 5) -> tuple[dict[str, Player], Any]:
    """The players of CLUB, and their start: features forget a nuisance, the second entry of an
    image, by a bound that is fitted before every step."""

    def nuisance(batch):
        return batch["image"][:, 1:2]

    def features(nets, batch, **how):
        return net.apply(*nets["net"], batch["image"], taps=("hidden",), **how)

    def init(key, frozen, batch):
        own = net.init(key, batch["image"])
        bound = perceptron_of(jax.random.fold_in(key, 1), len(own[0]["second"]), 8, 1)
        return {"net": own, "bound": (bound, {})}

    def likelihood(nets, hidden, wanted):
        return -0.5 * ((wanted - run(nets["bound"], hidden)) ** 2).sum(-1)

    def fit(nets, turn):
        hidden = jax.lax.stop_gradient(features(nets, turn.batch, train=True).taps["hidden"])
        values = -likelihood(nets, hidden, nuisance(turn.batch))
        return values.mean(), {"fit": mean(values)}

    def forget(nets, turn):
        seen = features(nets, turn.batch, train=True)
        labels = turn.batch["label"]
        told = optax.softmax_cross_entropy_with_integer_labels(seen.out, labels)
        wanted = nuisance(turn.batch)
        mixed = jax.random.permutation(turn.key, wanted)
        hidden = seen.taps["hidden"]
        bound = likelihood(nets, hidden, wanted) - likelihood(nets, hidden, mixed)
        metrics = {"ce": mean(told), "bound": mean(bound)}
        return (told + 0.5 * bound).mean(), metrics, {"net": seen.state}

    return {"bound": Player(fit, bound_tx, updates=updates), "net": Player(forget, tx)}, init


def bound_in_turn() -> Trial:
    """CLUB: a bound that needs its own fit in turn."""
    turns, init = forgetting(STUDENT, optax.adam(1e-2), optax.adam(3e-2))

    def right(outcome):
        falls("fit")(outcome)
        falls("ce")(outcome)
        # The net's loss leaves the bound as it is: that would make it loose.
        still = {**turns, "bound": turns["bound"]._replace(tx=optax.sgd(0.0))}
        before, after = one_step(players(still, init), {}, BATCHES.at(0))
        equal(before.params["bound"], after.params["bound"])
        assert (before.params["net"]["first"] != after.params["net"]["first"]).all()

    return Trial(stage(players(turns, init)), right)
