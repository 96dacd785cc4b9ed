"""Trials of one student: what an objective owns, and teachers that move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from contract.parts import (
    ADAM,
    BATCHES,
    IMAGES,
    LABELS,
    SOURCE,
    STUDENT,
    TEACHER,
    Trial,
    agreement,
    cross_entropy,
    divergence,
    equal,
    falls,
    near,
    stage,
    trained_teacher,
)

from jaxdistill import targets
from jaxdistill.data.stream import stream
from jaxdistill.distiller import Distiller, model_to_model
from jaxdistill.net import Net
from jaxdistill.objective import Objective, per_batch, per_example
from jaxdistill.training.loop import over_seeds


def projector_bank_discriminator() -> Trial:
    """The objective owns a projector, a memory bank by record and a cooperative discriminator."""

    def init(key, forward, goal, batch):
        wide, narrow = goal["hidden"].shape[-1], forward.taps["hidden"].shape[-1]
        first, second = jax.random.split(key)
        params = {
            "projector": 0.1 * jax.random.normal(first, (narrow, wide)),
            "discriminator": 0.1 * jax.random.normal(second, (4,)),
        }
        return params, {"bank": jnp.zeros((len(SOURCE), wide))}

    def terms(params, state, forward, goal, batch, *, step):
        temperature = 1 + 3 * jnp.exp(-step / 20.0)
        projected = forward.taps["hidden"] @ params["projector"]
        bank = state["bank"].at[batch["index"]].set(jax.lax.stop_gradient(projected))
        similar, others = (projected * goal["hidden"]).sum(-1), projected @ state["bank"][:64].T
        pair = jnp.concatenate([forward.out, goal["out"]], -1)
        kd = temperature**2 * divergence(goal["out"] / temperature, forward.out / temperature)
        gram = ((forward.out @ forward.out.T - goal["out"] @ goal["out"].T) ** 2).mean()
        return {
            "kd": per_example(lambda step: 1.0 / (1 + step), kd),
            "hint": per_example(0.1, ((projected - goal["hidden"]) ** 2).mean(-1)),
            "contrast": per_example(0.01, jax.nn.logsumexp(others, -1) - similar),
            "discriminator": per_example(0.01, jax.nn.softplus(-pair @ params["discriminator"])),
            "gram": per_batch(0.1, gram),
        }, {"bank": bank}

    teacher = targets.live(TEACHER, taps=("hidden",))
    distiller = model_to_model(STUDENT, teacher, Objective(init, terms), ADAM, taps=("hidden",))
    frozen = {"teacher": trained_teacher()}
    kept = jax.tree.map(np.array, frozen)

    def right(outcome):
        equal(frozen, kept)  # a teacher is left as it was
        falls("hint")(outcome)

    return Trial(stage(distiller, frozen), right)


def averaged_teacher() -> Trial:
    """The teacher is a running average of the student."""

    def objective(forward, goal, batch):
        return agreement(forward, goal, batch) | cross_entropy(forward, goal, batch)

    distiller = model_to_model(STUDENT, targets.live(STUDENT, "ema"), objective, ADAM, ema=0.9)
    return Trial(stage(distiller), falls("ce"))


def changing_mixture() -> Trial:
    """Classes are drawn by the gap of teacher and student, measured on the host between steps."""

    def reweigh(result, frozen, plan):
        gap = divergence(
            TEACHER.apply(*frozen["teacher"], IMAGES).out, STUDENT.apply(*result, IMAGES).out
        )
        shares = np.array([gap[label == LABELS].mean() for label in (0, 1)], np.float64)
        return {"weights": (shares / shares.sum())[LABELS]}

    distiller = model_to_model(STUDENT, targets.live(TEACHER), agreement, ADAM)
    mixture = lambda plan: stream(SOURCE, 32, seed=0, weights=plan and plan["weights"], threads=0)  # noqa: E731
    frozen = {"teacher": trained_teacher()}
    return Trial(stage(distiller, frozen, data=mixture, between=(4, reweigh)), falls("kd"))


class Ageing(NamedTuple):
    step: jax.Array
    inner: Any
    ages: Any


def ageing(inner: Distiller, ages: int, every: int) -> Distiller:
    """What a distiller learned, a stack of its results after every so many steps."""

    def init(key, frozen, batch):
        state = inner.init(key, frozen, batch)
        stack = jax.tree.map(lambda leaf: jnp.stack([leaf] * ages), inner.result(state))
        return Ageing(state.step, state, stack)

    def step(state, frozen, batch):
        new, metrics = inner.step(state.inner, frozen, batch)
        place = jnp.minimum(new.step // every, ages - 1)
        stack = jax.tree.map(
            lambda all, leaf: all.at[place].set(leaf), state.ages, inner.result(new)
        )
        return Ageing(new.step, new, stack), metrics

    return Distiller(init, step, lambda state: state.ages, kind="arrays")


def of_age(net: Net, stage: str, every: int, inputs: str = "image") -> Callable[..., Any]:
    """Targets of a teacher that is read from a stack, an older one after every so many steps."""

    def taught(sources, batch, key, step):
        age = jax.tree.map(lambda leaf: leaf[step // every], sources[stage])
        return targets.live(net, inputs=inputs)({"teacher": age}, batch, key, step)

    return taught


def moving_teacher() -> Trial:
    """The teacher is read from a stack of its own checkpoints, the later the longer one learns."""
    every, batch = 4, BATCHES.at(0)
    ages = [TEACHER.init(jax.random.key(age), batch["image"]) for age in range(3)]
    frozen = {"ages": jax.tree.map(lambda *leaves: jnp.stack(leaves), *ages)}

    taught = of_age(TEACHER, "ages", every)

    distiller = model_to_model(STUDENT, taught, agreement, ADAM)

    def right(outcome):
        falls("kd")(outcome)
        # A step learns from the teacher of its age, and from no other.
        moving = jax.jit(distiller.step)
        still = jax.jit(model_to_model(STUDENT, targets.live(TEACHER), agreement, ADAM).step)
        start = jax.jit(distiller.init)(jax.random.key(0), frozen, batch)
        for step, age in ((0, 0), (3, 0), (4, 1), (11, 2)):
            state = start._replace(step=jnp.int32(step))
            ours, theirs = moving(state, frozen, batch), still(state, {"teacher": ages[age]}, batch)
            near(ours[0].params, theirs[0].params, 1e-6)

    return Trial(stage(distiller, frozen), right)


def stacked_students() -> Trial:
    """Students on an axis, as one array a weight: each is what it would be alone."""
    alone = model_to_model(STUDENT, targets.live(TEACHER), agreement, ADAM)
    frozen = {"teacher": trained_teacher()}
    many = over_seeds(alone, 3)

    def right(outcome):
        stacked, _ = outcome.result
        assert stacked["first"].shape == (3, 8, 8)
        state = jax.jit(alone.init)(
            jax.random.split(jax.random.key(0), 3)[1], frozen, BATCHES.at(0)
        )
        step = jax.jit(alone.step)
        for place in range(outcome.metrics[-1]["step"]):
            state, _ = step(state, frozen, BATCHES.at(place))
        near(jax.tree.map(lambda leaf: leaf[1], outcome.result), alone.result(state))
        assert not np.allclose(stacked["first"][0], stacked["first"][1])

    return Trial(stage(many, frozen), right)
