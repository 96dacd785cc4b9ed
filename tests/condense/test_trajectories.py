"""Experts, the gradient through training, and the matching of trajectories."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from jaxdistill.condense import (
    Flatness,
    Inner,
    Students,
    Target,
    Window,
    flat,
    match_trajectories,
    matching_gradient,
    matching_loss,
    open_trajectories,
    save_trajectories,
    siamese,
    train_experts,
)
from jaxdistill.condense.experts import expert_loss, loss_direction
from jaxdistill.condense.students import balanced, dealt, perturbed
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models import ConvNet
from jaxdistill.progress import Progress
from jaxdistill.training.fit import fit

DIGITS = load_digits()
IMAGES = (DIGITS.images[:200, ..., None] / 16).astype(np.float32)
LABELS = DIGITS.target[:200].astype(np.int32)
RECORDS = {"image": IMAGES, "label": LABELS}
SHAPE = (8, 8, 1)
NET = from_linen(ConvNet(width=2, depth=2))
MODEL = flat(NET, SHAPE)


@pytest.fixture
def doubles():
    with jax.enable_x64(True):
        yield


def inner_of(steps, momentum=0.0, dtype=np.float32, soft=True):
    """A student on ten digits, six of them in a step, augmented."""
    augmentation = siamese(("scale", "flip"))

    def loss(vector, synthetic, part):
        rows, drawn = part
        images = augmentation.apply(drawn, synthetic["images"][rows])
        scores = jax.nn.log_softmax(MODEL.apply(vector, images).out)
        return -(jax.nn.softmax(synthetic["labels"][rows]) * scores).sum(-1).mean()

    rows = dealt(jax.random.key(0), 10, 6, steps)
    drawn = jax.vmap(lambda k: augmentation.draw(k, 6))(jax.random.split(jax.random.key(1), steps))
    synthetic = {
        "images": jnp.asarray(IMAGES[:10], dtype),
        "labels": jnp.asarray(np.eye(10) * 3, dtype),
    }
    start = MODEL.draw(jax.random.key(2)).astype(dtype)
    goal = start + 0.02 * jax.random.normal(jax.random.key(3), start.shape, dtype)
    return Inner(loss, (rows, drawn), momentum), start, goal, synthetic, jnp.asarray(0.1, dtype)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_outer_gradient_against_finite_differences(doubles, momentum):
    inner, start, goal, synthetic, rate = inner_of(20, momentum, np.float64)
    targets = [Target(10, 0.5 * (start + goal), 0.5), Target(20, goal)]
    loss = jax.jit(lambda s, r: matching_loss(inner, start, targets, s, r))
    (value, finite), gradients = jax.jit(
        functools.partial(matching_gradient, inner, start, targets)
    )(synthetic, rate)
    assert finite == 20
    assert value == pytest.approx(float(loss(synthetic, rate)), rel=1e-9)
    point = {**synthetic, "rate": rate}
    slopes = {**gradients[0], "rate": gradients[1]}
    # A student's step jumps where an image crosses the kink of a ReLU: the difference is a tiny
    # one, so that none does.
    for name, key in zip(point, jax.random.split(jax.random.key(5), 3), strict=True):
        way = jax.random.normal(key, point[name].shape, np.float64)
        moved = []
        for size in (1e-8, -1e-8):
            there = {**point, name: point[name] + size * way}
            moved.append(loss({k: there[k] for k in synthetic}, there["rate"]))
        expected = float(moved[0] - moved[1]) / 2e-8
        assert float((slopes[name] * way).sum()) == pytest.approx(expected, rel=1e-4)


def stopped_loss(inner, start, goal, synthetic, rate):
    vector, momentum = start, jnp.zeros_like(start)
    for i in range(inner.steps):
        part = jax.tree.map(lambda x, i=i: x[i], inner.each)
        gradient = jax.grad(inner.loss)(jax.lax.stop_gradient(vector), synthetic, part)
        momentum = inner.momentum * momentum + gradient
        vector = vector - rate * momentum
    return jnp.square(vector - goal).sum() / jnp.square(start - goal).sum()


def test_stopped_gradient_is_that_of_the_loss_with_stopped_iterates():
    inner, start, goal, synthetic, rate = inner_of(3, momentum=0.5)
    (value, finite), gradients = jax.jit(
        lambda s, r: matching_gradient(inner, start, [Target(3, goal)], s, r, stopped=True)
    )(synthetic, rate)
    assert finite == 3
    expected = jax.jit(
        jax.value_and_grad(lambda s, r: stopped_loss(inner, start, goal, s, r), argnums=(0, 1))
    )(synthetic, rate)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, (value, gradients), expected)


def test_both_gradients_are_equal_for_one_step_and_differ_for_more():
    def both(steps):
        inner, start, goal, synthetic, rate = inner_of(steps)
        gradient = functools.partial(matching_gradient, inner, start, [Target(steps, goal)])
        return [
            jax.jit(functools.partial(gradient, stopped=stopped))(synthetic, rate)[1][0]
            for stopped in (False, True)
        ]

    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, *both(1))
    exact, stopped = both(3)
    assert np.abs(exact["images"] - stopped["images"]).max() > 1e-3 * np.abs(exact["images"]).max()


@pytest.mark.parametrize("stopped", [False, True])
def test_steps_are_counted_until_one_breaks(stopped):
    def loss(vector, synthetic, number):
        del synthetic
        return jnp.where(number == 2, jnp.nan, 1.0) * vector.sum()

    inner = Inner(loss, jnp.arange(4))
    start, targets = jnp.ones(2), [Target(4, jnp.zeros(2))]
    (value, finite), _ = matching_gradient(
        inner, start, targets, jnp.ones(1), jnp.float32(0.1), stopped=stopped
    )
    assert np.isnan(value)
    assert finite == 2


def test_targets_must_fit():
    inner, start, goal, synthetic, rate = inner_of(2)
    for targets in ([], [Target(3, goal)], [Target(2, goal), Target(1, goal)]):
        with pytest.raises(ValueError, match="1 to 2"):
            matching_loss(inner, start, targets, synthetic, rate)
    with pytest.raises(ValueError, match="one target"):
        matching_gradient(inner, start, [Target(1, goal)], synthetic, rate, stopped=True)


def test_batches_are_dealt_without_replacement():
    rows = np.asarray(dealt(jax.random.key(0), 10, 4, 5))
    assert rows.shape == (5, 4)
    for first in (0, 2):
        assert len(set(rows[first : first + 2].ravel())) == 8
    assert (np.sort(dealt(jax.random.key(1), 6, 6, 2), axis=1) == np.arange(6)).all()


def test_flat_steps_by_hand():
    """Three steps on a quadratic, from the formula in plain numpy."""
    curve = np.array([1.0, 4.0, 9.0, 0.5])
    vector = own = np.array([1.0, -0.5, 0.3, 2.0])
    flatness = Flatness(rho=0.3, alpha=0.4)

    def loss(v):
        return 0.5 * (jnp.asarray(curve, jnp.float32) * v**2).sum() + (v**3).sum() / 6, None

    slope = lambda v: curve * v + v**2 / 2  # noqa: E731
    for _ in range(3):
        _, direction = loss_direction(loss, jnp.asarray(vector, jnp.float32), flatness)
        vector = vector - 0.05 * np.asarray(direction)
        g = slope(own)
        away = 0.3 * own**2 * g / np.linalg.norm(np.abs(own) * g)
        perturbed_slope = slope(own + away)
        unit = perturbed_slope / np.linalg.norm(perturbed_slope)
        own = own - 0.05 * (perturbed_slope - 0.4 * (g - (g @ unit) * unit))
        np.testing.assert_allclose(vector, own, rtol=1e-5)


def test_gradient_penalty_is_of_pixels():
    augmentation = siamese(())
    vector = MODEL.draw(jax.random.key(0))
    images = jnp.asarray(np.repeat(IMAGES[:3], 1, -1))
    plain, penalised = (
        expert_loss(MODEL, augmentation, None, images, jnp.asarray(LABELS[:3]), 1.0, weight)
        for weight in (0.0, 2.0)
    )
    slopes = jax.jit(jax.grad(lambda x: MODEL.apply(vector, x).out.sum()))(images)
    expected = 2.0 * np.mean((np.linalg.norm(slopes, axis=-1) - 1) ** 2)
    assert jax.jit(penalised)(vector)[0] - jax.jit(plain)(vector)[0] == pytest.approx(
        expected, rel=1e-4
    )


def test_balance_and_perturbation():
    assert float(balanced(jnp.asarray(10), 20)) == pytest.approx(np.log(8) / np.log(5))
    assert float(balanced(jnp.asarray(4), 20)) == pytest.approx(np.log(5) / np.log(14))
    vector = MODEL.draw(jax.random.key(0))
    moved = MODEL.unravel(perturbed(jax.random.key(1), MODEL, vector, 1.0))
    still = MODEL.unravel(vector)
    assert perturbed(jax.random.key(1), MODEL, vector, 0.0) is vector
    np.testing.assert_array_equal(moved["head"]["kernel"], still["head"]["kernel"])
    ratio = moved["conv_1"]["kernel"] / still["conv_1"]["kernel"] - 1
    assert float(jnp.square(ratio).sum()) == pytest.approx(1.0, rel=1e-3)


def experts_of(**settings):
    return train_experts(
        NET, SHAPE, 10, **{"experts": 4, "epochs": 2, "batch_size": 100, **settings}
    )


def run(distiller, frozen, steps, **settings):
    return fit(
        distiller, frozen, RECORDS, steps, quiet=True, mesh=one_device(), log_every=2, **settings
    )


def one_device():
    from jaxdistill.training.sharding import make_mesh

    return make_mesh({"data": 1, "fsdp": 1})


@pytest.fixture(scope="module")
def trained():
    whole = run(experts_of(momentum=0.9, learning_rate=0.05), {"train": RECORDS}, 4)
    return np.asarray(whole.result)


def test_experts_in_groups_are_the_same_experts(trained):
    assert trained.shape == (4, 3, MODEL.size)
    halves = run(experts_of(momentum=0.9, learning_rate=0.05, at_once=2), {"train": RECORDS}, 8)
    np.testing.assert_allclose(halves.result, trained, atol=1e-6)
    assert len({tuple(row) for row in trained[:, 0, :5]}) == 4


def test_an_expert_by_hand(trained):
    """The first expert's first epoch with plain SGD."""
    key = jax.random.fold_in(jax.random.key(0), 0)
    order = jax.random.permutation(jax.random.fold_in(key, 0), 200)
    vector, moved = jnp.asarray(trained[0, 0]), 0.0

    @jax.jit
    @jax.grad
    def slope(vector, images, labels):
        scores = MODEL.apply(vector, images).out
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    np.testing.assert_array_equal(vector, MODEL.draw(jax.random.fold_in(key, 2)))
    for rows in (order[:100], order[100:]):
        moved = 0.9 * moved + slope(vector, IMAGES[rows], LABELS[rows])
        vector = vector - 0.05 * moved
    np.testing.assert_allclose(trained[0, 1], vector, atol=1e-5)


def test_experts_refuse():
    with pytest.raises(ValueError, match="divide"):
        experts_of(at_once=3)
    for settings, words in (({"batch_size": 300}, "does not fit"), ({"steps": 9}, "take 4 steps")):
        with pytest.raises(ValueError, match=words):
            jax.eval_shape(experts_of(**settings).init, jax.random.key(0), {"train": RECORDS}, None)


def test_trajectories_are_kept_and_foreign_ones_refused(trained, tmp_path):
    identity = {"net": {"width": 2}, "data": "digits"}
    save_trajectories(tmp_path / "kept", trained, identity, part_bytes=2 * 4 * MODEL.size)
    found = open_trajectories(tmp_path / "kept", identity)
    np.testing.assert_array_equal(found, trained)
    with pytest.raises(ValueError, match=r"net.width: 2 there, 4 now"):
        open_trajectories(tmp_path / "kept", {"net": {"width": 4}})
    with pytest.raises(ValueError, match="is no store"):
        open_trajectories(tmp_path / "absent")


def sgd(images):
    """Plain SGD, with a rate of its own for each part."""
    rates = {"images": images, "labels": images, "rate": 1e-4}
    parts = {name: optax.sgd(rate) for name, rate in rates.items()}
    return optax.partition(parts, lambda params: {name: name for name in params})


def matching(tx=None, **settings):
    usual = {"each": 1, "students": Students(3), "epochs": 1, "window": Window(0, 2)}
    return match_trajectories(NET, SHAPE, 10, tx or sgd(0.1), **usual | settings)


OPTIONS = {
    "MTT": {"augment": ("crop", "scale")},
    "TESLA": {"gradient": "stopped"},
    "FTD": {"ema": 0.9, "students": Students(3, batch_size=4)},
    "DATM": {
        "soft": True,
        "images_from": "correct",
        "threshold": 0.0,
        "window": Window(0, 2, begin=1, grown=3),
    },
    "smooth": {
        "epochs": 2,
        "window": Window(0, 1),
        "waypoints": "growing",
        "students": Students(3, momentum=0.9, balance=True, perturb=1.0),
        "images_from": "clusters",
    },
}


@pytest.mark.parametrize("name", OPTIONS)
def test_sets_are_condensed(name, trained):
    distiller = matching(**OPTIONS[name])
    outcome = run(distiller, {"experts": trained, "train": RECORDS}, 6)
    images, targets, rate = outcome.result
    assert images.shape == (10, 8, 8, 1)
    assert np.isfinite(images).all()
    np.testing.assert_allclose(np.sum(targets, -1), 1, atol=1e-5)
    lines = [line for line in outcome.metrics if line["kind"] == "train"]
    assert np.isfinite([line["loss"] for line in lines]).all()
    if name == "DATM":
        assert [line["skipped"] for line in lines] == [1.0, 1.0, 1.0]
        assert rate == np.float32(0.01)
    else:
        assert rate != np.float32(0.01)
        start = distiller.init(jax.random.key(0), {"experts": trained, "train": RECORDS}, None)
        assert (images != distiller.result(start).images).any()


def test_the_loss_falls(trained):
    distiller = matching(sgd(10.0), students=Students(5), window=Window(0, 1))
    outcome = run(distiller, {"experts": trained[:1], "train": RECORDS}, 40)
    losses = [line["loss"] for line in outcome.metrics if line["kind"] == "train"]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_a_stopped_and_resumed_run_is_the_same(trained, tmp_path, monkeypatch):
    frozen = {"experts": trained, "train": RECORDS}
    distiller = matching(augment=("crop", "color"), ema=0.9)
    whole = run(distiller, frozen, 6)

    def until_four(progress, done, means=None):
        if progress.label == "fit" and done == 5:
            raise InterruptedError("step 5")

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "update", until_four)
        with pytest.raises(InterruptedError, match="step 5"):
            run(distiller, frozen, 6, workdir=tmp_path, checkpoint_every=2)
    assert not (tmp_path / "result").exists()
    resumed = run(distiller, frozen, 6, workdir=tmp_path, checkpoint_every=2)
    jax.tree.map(np.testing.assert_array_equal, whole.result, resumed.result)
    foreign = {"experts": trained + 1, "train": RECORDS}
    with pytest.raises(ValueError, match="another run"):
        run(distiller, foreign, 6, workdir=tmp_path, checkpoint_every=2)


def test_not_a_number_names_the_step(trained):
    broken = np.array(trained)
    broken[:, :, 0] = np.nan
    distiller = matching()

    def step(state, frozen, batch):
        paths = jnp.where(state.step < 3, frozen["experts"], frozen["broken"])
        return distiller.step(state, {**frozen, "experts": paths}, batch)

    frozen = {"experts": trained, "broken": broken, "train": RECORDS}
    with pytest.raises(FloatingPointError, match=r"not finite at step 4.*'finite_steps': 0"):
        fit(
            distiller._replace(step=step),
            frozen,
            RECORDS,
            10,
            quiet=True,
            mesh=one_device(),
            log_every=10,
        )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"window": Window(0, 3)}, "the experts have 2"),
        ({"window": Window(2, 2)}, "window"),
        ({"gradient": "tesla"}, "'stopped'"),
        ({"images_from": "real"}, "'random'"),
        ({"gradient": "stopped", "waypoints": "equal"}, "waypoints"),
        ({"students": Students(1), "epochs": 2, "window": Window(0, 1)}, "at least as many"),
    ],
)
def test_refusals(settings, words, trained):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(
            matching(**settings).init,
            jax.random.key(0),
            {"experts": trained, "train": RECORDS},
            None,
        )


def test_trajectories_of_another_net_are_refused(trained):
    for frozen, words in (
        ({"experts": trained[..., :-1], "train": RECORDS}, "for this net"),
        ({"train": RECORDS}, "'experts'"),
        ({"experts": trained, "train": {"image": IMAGES}}, "'label'"),
    ):
        with pytest.raises(ValueError, match=words):
            jax.eval_shape(matching().init, jax.random.key(0), frozen, None)
