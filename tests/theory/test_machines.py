"""The distiller of kernel fits against the closed forms, and through the loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import theory
from jaxdistill.data.sources import arrays
from jaxdistill.data.stream import stream
from jaxdistill.theory import machines
from jaxdistill.training.loop import Stage, run_stage
from jaxdistill.training.sharding import make_mesh

RIDGE = 0.3


def kernel(x, others):
    return theory.rbf(x, others, gamma=0.5)


@pytest.fixture
def records():
    generator = np.random.default_rng(0)
    points, held = (generator.normal(size=(n, 2)).astype(np.float32) for n in (12, 7))
    labels, wanted = (generator.normal(size=(n,)).astype(np.float32) for n in (12, 7))
    return {"image": points, "label": labels}, {"image": held, "label": wanted}


def steps_of(distiller, frozen, batch, count):
    state, found = distiller.init(jax.random.key(0), frozen, batch), []
    for _ in range(count):
        state, metrics = jax.jit(distiller.step)(state, frozen, batch)
        found.append((state.fit, metrics))
    return state, found


@pytest.mark.parametrize("weight", [0.0, 0.25, -0.5])
def test_a_constant_weight_follows_the_path(records, weight):
    train, _ = records
    distiller = machines.self_distilled_fit(kernel, ridge=RIDGE, weight=weight)
    _, found = steps_of(distiller, {}, train, 5)
    path = theory.path(kernel(train["image"], train["image"]), jnp.asarray(train["label"])[:, None],
                       RIDGE, weight, steps=5)  # fmt: skip
    for step, (fit, metrics) in enumerate(found):
        np.testing.assert_allclose(fit.fitted, path.fitted[step], rtol=2e-4, atol=1e-5)
        error = np.mean((path.fitted[step][:, 0] - train["label"]) ** 2)
        total, count = metrics["train_error"]
        np.testing.assert_allclose(total / count, error, rtol=1e-3)


def test_the_best_weight_is_that_of_the_chosen_path(records):
    train, held = records
    distiller = machines.self_distilled_fit(kernel, ridge=RIDGE, weight="best", held_out="mine")
    state, found = steps_of(distiller, {"mine": held}, train, 4)
    chosen = theory.chosen_path(
        kernel(train["image"], train["image"]),
        jnp.asarray(train["label"])[:, None],
        RIDGE,
        kernel(held["image"], train["image"]),
        jnp.asarray(held["label"])[:, None],
        steps=4,
    )
    weights = [float(metrics["weight"][0]) for _, metrics in found]
    np.testing.assert_allclose(weights, chosen.weights, atol=1e-3)
    net = machines.kernel_machine(kernel)
    predicted = net.apply(*distiller.result(state), held["image"]).out
    error = np.sum((predicted[:, 0] - held["label"]) ** 2)
    np.testing.assert_allclose(error, chosen.errors[-1], rtol=1e-3)


def test_classes_become_one_hot_targets(records):
    train, _ = records
    batch = {"image": train["image"], "label": np.arange(12, dtype=np.int32) % 3}
    distiller = machines.self_distilled_fit(kernel, 3, ridge=RIDGE)
    state = distiller.init(jax.random.key(0), {}, batch)
    np.testing.assert_array_equal(state.targets, np.eye(3)[batch["label"]])


def test_a_stopped_run_goes_on_as_if_it_never_had(records, tmp_path):
    train, _ = records
    source = arrays(train)

    def stage(steps):
        return Stage(
            "fits",
            machines.self_distilled_fit(kernel, ridge=RIDGE, weight=0.3),
            stream(source, len(source), seed=0),
            steps,
            checkpoint_every=2,
        )

    one = make_mesh({"data": 1, "fsdp": 1})
    whole = run_stage(stage(4), tmp_path / "whole", mesh=one, quiet=True)

    class Stop(Exception):
        pass

    def stop(step, values, kind):
        if step == 3:
            raise Stop

    first = Stage(**{**vars(stage(4)), "log_every": 1})
    with pytest.raises(Stop):
        run_stage(first, tmp_path / "stopped", mesh=one, quiet=True, writers=[stop])
    again = run_stage(stage(4), tmp_path / "stopped", mesh=one, quiet=True)
    for one, other in zip(
        jax.tree.leaves(whole.result), jax.tree.leaves(again.result), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ridge": -1.0}, "ridge must be at least 0"),
        ({"ridge": 1.0, "weight": "most"}, "'best', got 'most'"),
        ({"ridge": 1.0, "weight": float("nan")}, "weight must be finite"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        machines.self_distilled_fit(kernel, **arguments)


def test_labels_of_another_width(records):
    train, _ = records
    with pytest.raises(ValueError, match="labels must have 2 outputs"):
        machines.self_distilled_fit(kernel, 2, ridge=1.0).init(jax.random.key(0), {}, train)


def test_a_machine_has_no_taps():
    net = machines.kernel_machine(kernel)
    params, state = net.init(jax.random.key(0), jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="no taps"):
        net.apply(params, state, jnp.ones((2, 2)), taps=("layer",))
