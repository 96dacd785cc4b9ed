"""Every kind of distillation through the one loop: batch statistics with a projector, a bank and a
discriminator; an averaged teacher; a mixture changed between steps; three networks in turn;
trajectories; on-policy; two stages.

Each kind is small enough to be read at a glance. All pass the same four trials: shapes first,
stopped and resumed bit for bit, several seeds at once, two devices.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import targets
from jaxdistill.data.sources import arrays
from jaxdistill.data.stream import stream
from jaxdistill.distiller import Distiller, model_to_model
from jaxdistill.net import Forward, Net
from jaxdistill.objective import Objective, per_batch, per_example
from jaxdistill.training.loop import Stage, over_seeds, run_stage
from jaxdistill.training.sharding import make_mesh

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(256, 8)).astype(np.float32)
LABELS = (IMAGES[:, 0] > 0).astype(np.int32)
SOURCE = arrays({"image": IMAGES, "label": LABELS})
BATCHES = stream(SOURCE, 32, seed=0, threads=0)
ADAM = optax.adam(1e-2)
STEPS, STOP = 12, 5


def perceptron(hidden: int, classes: int = 2) -> Net:
    """One hidden layer, centred by batch statistics."""

    def init(key, inputs):
        first, second = jax.random.split(key)
        params = {
            "first": 0.3 * jax.random.normal(first, (inputs.shape[-1], hidden)),
            "second": 0.3 * jax.random.normal(second, (hidden, classes)),
        }
        return params, {"mean": jnp.zeros(hidden)}

    def apply(params, state, inputs, *, taps=(), train=False, rng=None):
        sums = inputs @ params["first"]
        mean = sums.mean(0) if train else state["mean"]
        hidden = jnp.tanh(sums - mean[None])
        moved = {"mean": 0.9 * state["mean"] + 0.1 * jax.lax.stop_gradient(mean)}
        out = hidden @ params["second"]
        return Forward(out, {"hidden": hidden}, moved if train else state, params)

    return Net(init, apply)


TEACHER, STUDENT = perceptron(32), perceptron(8)


def divergence(teacher, student):
    log_teacher, log_student = jax.nn.log_softmax(teacher), jax.nn.log_softmax(student)
    return (jnp.exp(log_teacher) * (log_teacher - log_student)).sum(-1)


def cross_entropy(forward, goal, batch):
    losses = optax.softmax_cross_entropy_with_integer_labels(forward.out, batch["label"])
    return {"ce": per_example(1.0, losses)}


def no_targets(sources, batch, key, step):
    return {}


def stage(distiller: Distiller, frozen: dict[str, Any], **settings: Any) -> Stage:
    settings = {"name": "trial", "data": BATCHES, "steps": STEPS, "log_every": 4, **settings}
    return Stage(distiller=distiller, frozen=frozen, **settings)


def trained_teacher() -> Any:
    """Stage one of the hand-over: a teacher from labels."""
    return run_stage(
        stage(model_to_model(TEACHER, no_targets, cross_entropy, ADAM), {}), quiet=True
    ).result


def projector_bank_discriminator() -> Stage:
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
    return stage(distiller, {"teacher": trained_teacher()})


def averaged_teacher() -> Stage:
    """The teacher is a running average of the student."""

    def objective(forward, goal, batch):
        agreement = {"kd": per_example(1.0, divergence(goal["out"], forward.out))}
        return agreement | cross_entropy(forward, goal, batch)

    return stage(
        model_to_model(STUDENT, targets.live(STUDENT, "ema"), objective, ADAM, ema=0.9), {}
    )


def changing_mixture() -> Stage:
    """Classes are drawn by the gap of teacher and student, measured on the host between steps."""

    def reweigh(result, frozen, plan):
        gap = divergence(
            TEACHER.apply(*frozen["teacher"], IMAGES).out, STUDENT.apply(*result, IMAGES).out
        )
        shares = np.array([gap[label == LABELS].mean() for label in (0, 1)], np.float64)
        return {"weights": (shares / shares.sum())[LABELS]}

    def objective(forward, goal, batch):
        return {"kd": per_example(1.0, divergence(goal["out"], forward.out))}

    distiller = model_to_model(STUDENT, targets.live(TEACHER), objective, ADAM)
    mixture = lambda plan: stream(SOURCE, 32, seed=0, weights=plan and plan["weights"], threads=0)  # noqa: E731
    return stage(distiller, {"teacher": trained_teacher()}, data=mixture, between=(4, reweigh))


class Three(NamedTuple):
    step: jax.Array
    key: jax.Array
    generator: Any
    critic: Any
    optimizers: Any


def three_networks(ratio: int = 3) -> Stage:
    """Distribution matching: a generator, its samples' score, an exact score, in one step."""
    tx_generator, tx_critic = optax.adam(1e-3), optax.adam(3e-3)

    def exact(frozen, noisy, sigma):
        return frozen["mean"] + (noisy - frozen["mean"]) * frozen["variance"] / (
            frozen["variance"] + sigma**2
        )

    def net(params, inputs, sigma):
        hidden = jnp.tanh(inputs @ params["in"] + jnp.log(sigma) * params["time"][None])
        return hidden @ params["out"]

    def init(key, frozen, batch):
        keys = jax.random.split(key, 4)
        two = [
            {
                "in": 0.3 * jax.random.normal(a, (2, 16)),
                "time": jnp.zeros(16),
                "out": 0.1 * jax.random.normal(b, (16, 2)),
            }
            for a, b in (keys[:2], keys[2:])
        ]
        return Three(jnp.int32(0), key, *two, (tx_generator.init(two[0]), tx_critic.init(two[1])))

    def step(state, frozen, batch):
        key_g, key_s, key_c = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        latent = batch["image"][..., :2]

        def matching(generator):
            sample = net(generator, latent[0], 1.0)
            sigma = jnp.exp(jax.random.normal(key_s, (sample.shape[0], 1)))
            noisy = jax.lax.stop_gradient(sample) + sigma * jax.random.normal(key_g, sample.shape)
            push = net(state.critic, noisy, sigma) - exact(frozen["real"], noisy, sigma)
            return 0.5 * ((sample - jax.lax.stop_gradient(sample - push)) ** 2).sum(-1).mean()

        loss, grads = jax.value_and_grad(matching)(state.generator)
        updates, opt = tx_generator.update(grads, state.optimizers[0])
        generator = optax.apply_updates(state.generator, updates)

        def criticise(carry, part):
            critic, opt = carry
            latent, key = part
            sample = net(generator, latent, 1.0)
            sigma = jnp.exp(jax.random.normal(key, (sample.shape[0], 1)))
            noisy = sample + sigma * jax.random.normal(jax.random.fold_in(key, 1), sample.shape)
            fit = lambda params: ((net(params, noisy, sigma) - sample) ** 2).mean()  # noqa: E731
            value, grads = jax.value_and_grad(fit)(critic)
            updates, opt = tx_critic.update(grads, opt)
            return (optax.apply_updates(critic, updates), opt), value

        parts = (latent, jax.random.split(key_c, ratio))
        (critic, opt_c), values = jax.lax.scan(
            criticise, (state.critic, state.optimizers[1]), parts
        )
        metrics = {"matching": (loss, 1.0), "critic": (values.sum(), float(ratio))}
        return Three(state.step + 1, state.key, generator, critic, (opt, opt_c)), metrics

    real = {"mean": jnp.ones((1, 2)), "variance": jnp.array([[0.5, 0.1]])}
    return stage(Distiller(init, step, lambda state: state.generator, ratio), {"real": real})


class Synthetic(NamedTuple):
    step: jax.Array
    key: jax.Array
    learned: Any
    labels: jax.Array
    opt: Any


def trajectory_matching(inner: int = 4) -> Stage:
    """The result is a data set, learned through the training of a linear model on it."""
    tx = optax.sgd(1e-3)

    def loss(weights, images, labels):
        logits = images @ weights.reshape(8, 2)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def init(key, frozen, batch):
        learned = {"images": frozen["real"]["image"], "rate": jnp.float32(0.1)}
        return Synthetic(jnp.int32(0), key, learned, frozen["real"]["label"], tx.init(learned))

    def step(state, frozen, batch):
        key_path, key_start = jax.random.split(jax.random.fold_in(state.key, state.step))
        path = frozen["paths"][jax.random.randint(key_path, (), 0, 3)]
        begin = jax.random.randint(key_start, (), 0, 4)
        start, goal = path[begin], path[begin + 2]

        def outer(learned):
            def descend(weights, _):
                return weights - learned["rate"] * jax.grad(loss)(
                    weights, learned["images"], state.labels
                ), None

            end, _ = jax.lax.scan(jax.checkpoint(descend), start, None, length=inner)
            return ((end - goal) ** 2).sum() / ((start - goal) ** 2).sum()

        value, grads = jax.value_and_grad(outer)(state.learned)
        updates, opt = tx.update(grads, state.opt)
        learned = optax.apply_updates(state.learned, updates)
        return Synthetic(state.step + 1, state.key, learned, state.labels, opt), {
            "match": (value, 1.0)
        }

    paths = jnp.cumsum(0.1 * jax.random.normal(jax.random.key(3), (3, 7, 16)), 1)
    real = {"image": jnp.asarray(IMAGES[:4]), "label": jnp.asarray(LABELS[:4])}
    distiller = Distiller(init, step, lambda state: {**state.learned, "labels": state.labels})
    return stage(distiller, {"paths": paths, "real": real})


class Writer(NamedTuple):
    step: jax.Array
    key: jax.Array
    params: jax.Array
    opt: Any
    buffer: jax.Array


def on_policy(vocabulary: int = 8, length: int = 10, rows: int = 64) -> Stage:
    """A bigram student writes sequences into a buffer; the teacher judges what is drawn from it."""

    def init(key, frozen, batch):
        draft = frozen["draft"]
        return Writer(
            jnp.int32(0), key, draft, ADAM.init(draft), jnp.zeros((rows, length), jnp.int32)
        )

    def step(state, frozen, batch):
        key_write, key_mix, key_draw = jax.random.split(
            jax.random.fold_in(state.key, state.step), 3
        )
        count = batch["tokens"].shape[0]

        def write(token, key):
            token = jax.random.categorical(key, state.params[token])
            return token, token

        start = jnp.zeros(count, jnp.int32)
        _, written = jax.lax.scan(write, start, jax.random.split(key_write, length))
        place = (state.step % (rows // count)) * count
        buffer = jax.lax.dynamic_update_slice(state.buffer, written.T, (place, 0))
        filled = jnp.minimum((state.step + 1) * count, rows)
        own = buffer[jax.random.randint(key_draw, (count,), 0, filled)]
        tokens = jnp.where(jax.random.bernoulli(key_mix, 0.5, (count, 1)), own, batch["tokens"])
        judge = lambda params: divergence(frozen["teacher"][tokens], params[tokens]).mean()  # noqa: E731
        value, grads = jax.value_and_grad(judge)(state.params)
        updates, opt = ADAM.update(grads, state.opt)
        params = optax.apply_updates(state.params, updates)
        return Writer(state.step + 1, state.key, params, opt, buffer), {"kl": (value, 1.0)}

    teacher, draft = jax.random.normal(jax.random.key(4), (2, vocabulary, vocabulary))
    tokens = arrays({"tokens": RNG.integers(0, vocabulary, (128, length))})
    data = stream(tokens, 16, seed=0, threads=0)
    return stage(
        Distiller(init, step, lambda s: s.params), {"teacher": teacher, "draft": draft}, data=data
    )


KINDS = [
    projector_bank_discriminator,
    averaged_teacher,
    changing_mixture,
    three_networks,
    trajectory_matching,
    on_policy,
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def assert_equal(one: Any, other: Any) -> None:
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), jax.tree_util.keystr(path))


def numbers(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in metrics]


@each_kind
def test_resumed_equals_unbroken(kind, tmp_path, monkeypatch):
    trial = kind()
    whole = run_stage(trial, quiet=True)
    first = [line["step"] for line in whole.metrics]
    assert first[-1] == STEPS

    class Stopped(Exception):
        pass

    import dataclasses

    class Interrupting:
        """A stream that fails in the middle of the run, like a machine that goes away."""

        def __init__(self, inner):
            self.inner = inner

        def at(self, step, takes=1):
            return self.inner.at(step, takes)

        def iterate(self, start=0, takes=1):
            for place, batch in enumerate(self.inner.iterate(start, takes), start):
                if place == STOP + 2:
                    raise Stopped
                yield batch

    data = trial.data
    broken = (lambda plan: Interrupting(data(plan))) if callable(data) else Interrupting(data)
    kept = dataclasses.replace(trial, checkpoint_every=STOP)
    with pytest.raises(Stopped):
        run_stage(dataclasses.replace(kept, data=broken), tmp_path, quiet=True)
    resumed = run_stage(kept, tmp_path, quiet=True)
    assert_equal(resumed.result, whole.result)
    # The checkpoint writes the metrics up to it, so compare with an unbroken run that keeps
    # checkpoints too.
    unbroken = run_stage(kept, tmp_path / "unbroken", quiet=True)
    assert numbers(resumed.metrics) == numbers(unbroken.metrics)
    assert_equal(unbroken.result, whole.result)
    # What is finished is read, not run again.
    again = run_stage(dataclasses.replace(kept, data=broken), tmp_path, quiet=True)
    assert_equal(again.result, whole.result)


@each_kind
def test_several_seeds_at_once(kind):
    trial = kind()
    batch = (trial.data(None) if callable(trial.data) else trial.data).at(0, trial.distiller.takes)
    many = over_seeds(trial.distiller, 3)
    state = jax.jit(many.init)(jax.random.key(2), trial.frozen, batch)
    state, _ = jax.jit(many.step)(state, trial.frozen, batch)
    alone = jax.jit(trial.distiller.init)(
        jax.random.split(jax.random.key(2), 3)[1], trial.frozen, batch
    )
    alone, _ = jax.jit(trial.distiller.step)(alone, trial.frozen, batch)
    for ours, theirs in zip(
        jax.tree.leaves(many.result(state)),
        jax.tree.leaves(trial.distiller.result(alone)),
        strict=True,
    ):
        np.testing.assert_allclose(ours[1], theirs, rtol=2e-4, atol=1e-5)


@each_kind
def test_two_devices_equal_one(kind):
    trial = kind()
    one = run_stage(trial, mesh=make_mesh({"data": 1}, jax.devices()[:1]), quiet=True)
    two = run_stage(trial, mesh=make_mesh({"data": 2}, jax.devices()[:2]), quiet=True)
    for a, b in zip(jax.tree.leaves(one.result), jax.tree.leaves(two.result), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_teacher_is_left_untouched():
    trial = projector_bank_discriminator()
    before = jax.tree.map(np.array, trial.frozen)
    run_stage(trial, quiet=True)
    assert_equal(trial.frozen, before)


def test_two_stages_hand_over():
    teacher = trained_teacher()

    def objective(forward, goal, batch):
        return {"kd": per_example(1.0, divergence(goal["out"], forward.out))}

    first = run_stage(
        stage(
            model_to_model(STUDENT, targets.live(TEACHER), objective, ADAM), {"teacher": teacher}
        ),
        quiet=True,
    )
    second = model_to_model(STUDENT, no_targets, cross_entropy, ADAM, initial="student")
    none = run_stage(stage(second, {}, initial={"student": first.result}, steps=0), quiet=True)
    assert_equal(none.result, first.result)
    tuned = run_stage(stage(second, {}, initial={"student": first.result}), quiet=True)
    assert (
        tuned.metrics[-1]["ce"]
        < run_stage(
            stage(model_to_model(STUDENT, no_targets, cross_entropy, ADAM), {}), quiet=True
        ).metrics[-1]["ce"]
    )
