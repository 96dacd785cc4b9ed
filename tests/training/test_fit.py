"""Without a config: arrays, a teacher and `fit`; what another run has left is refused."""

import os
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

import jaxdistill as jd
from jaxdistill.data.sources import arrays
from jaxdistill.data.stream import stream
from jaxdistill.losses import cross_entropy, hinton_kd
from jaxdistill.training.checkpoint import fingerprint

NOISE = np.random.default_rng(0)


@pytest.fixture(scope="module")
def outside():
    """As somebody would write it who has arrays and a teacher, and nothing else of this library."""
    images = NOISE.normal(size=(256, 8)).astype("float32")
    teacher = jd.from_linen(nn.Sequential([nn.Dense(16), nn.relu, nn.Dense(3)]))
    student = jd.from_linen(nn.Dense(3))

    def objective(forward, goal, batch):
        return {"kd": jd.per_example(1.0, hinton_kd(forward.out, goal["out"], temperature=2.0))}

    distiller = jd.model_to_model(student, jd.targets.live(teacher), objective, optax.adam(3e-2))
    frozen = {"teacher": teacher.init(jax.random.key(0), images[:1])}
    return distiller, frozen, images, student


def test_fit_on_arrays(outside, tmp_path):
    distiller, frozen, images, student = outside
    settings = {
        "steps": 40,
        "workdir": tmp_path,
        "log_every": 10,
        "checkpoint_every": 20,
        "quiet": True,
    }
    outcome = jd.fit(distiller, frozen, {"image": images}, **settings)
    assert outcome.metrics[-1]["kd"] < 0.5 * outcome.metrics[0]["kd"]
    params, state = outcome.result
    assert student.apply(params, state, images).out.shape == (256, 3)
    assert outcome.seconds > 0

    loaded = jd.load_result(tmp_path)
    assert fingerprint(loaded[0]) == fingerprint(params)
    again = jd.fit(distiller, frozen, {"image": images}, **settings)
    assert fingerprint(again.result) == fingerprint(outcome.result)

    for change, message in (
        ({"steps": 41}, "steps: 40 there, 41 now"),
        ({"batch_size": 64}, "data.batch_size: 128 there, 64 now"),
        ({"seed": 1}, "seed: 0 there, 1 now"),
    ):
        with pytest.raises(ValueError, match=message):
            jd.fit(distiller, frozen, {"image": images}, **{**settings, **change})
    with pytest.raises(ValueError, match=r"data.records: \w+ there, \w+ now"):
        jd.fit(distiller, frozen, {"image": images + 1}, **settings)


def varied(outside, **change):
    """The distiller and the data of ``outside``, with one thing changed."""
    _, frozen, images, student = outside
    teacher = jd.from_linen(nn.Sequential([nn.Dense(16), nn.relu, nn.Dense(3)]))
    given = {"rate": 1e-2, "temperature": 2.0, "tx": optax.adam, "images": images, "goal": 0.0}
    given |= {"returns": "student", "shift": np.zeros((1, 3), np.float32), **change}

    def objective(forward, goal, batch):
        out = goal["out"] + given["shift"]
        kd = hinton_kd(forward.out, out, temperature=given["temperature"])
        l2 = ((forward.out - out) ** 2).mean(-1)
        return {"kd": jd.per_example(1.0, kd + given["goal"] * l2)}

    tx = given["tx"](given["rate"])
    distiller = jd.model_to_model(
        student, jd.targets.live(teacher), objective, tx, ema=0.9, returns=given["returns"]
    )
    source = arrays({"image": given["images"]})
    return distiller, frozen, stream(source, 32, seed=given.get("order", 0), threads=0)


@pytest.fixture(scope="module")
def kept(outside, tmp_path_factory):
    """One run that is done, and one that was stopped behind its checkpoint."""
    places = {name: tmp_path_factory.mktemp(name) for name in ("done", "stopped")}
    settings = {"steps": 4, "checkpoint_every": 2, "quiet": True}
    jd.fit(*varied(outside), workdir=places["done"], **settings)

    def fail(result, frozen, data):
        raise RuntimeError("the machine goes away")

    late = (jd.Evaluation("validation", fail, every=3),)
    with pytest.raises(RuntimeError):
        jd.fit(*varied(outside), workdir=places["stopped"], evaluations=late, **settings)
    fine = (jd.Evaluation("validation", lambda *_: {"x": 1.0}, every=3),)
    return {
        "done": (places["done"], settings),
        "stopped": (places["stopped"], {**settings, "evaluations": fine}),
    }


@pytest.mark.parametrize("where", ["done", "stopped"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rate": 1.1e-2}, "computes.step"),
        ({"rate": optax.cosine_decay_schedule(1e-2, 100)}, "computes.init"),
        ({"temperature": 2.5}, "computes.step"),
        ({"tx": optax.sgd}, "computes.step"),
        ({"goal": 0.5}, "computes.step"),
        ({"shift": np.full((1, 3), 0.1, np.float32)}, "computes.step"),
        ({"returns": "ema"}, "computes.result"),
        ({"images": NOISE.normal(size=(256, 8)).astype("float32")}, "data.records"),
        ({"order": 1}, "data.first"),
    ],
)
def test_fit_refuses_what_another_run_has_left(outside, kept, where, change, named):
    workdir, settings = kept[where]
    with pytest.raises(ValueError, match=rf"(?s)is of another run.*- {named}: \w+ there, \w+ now"):
        jd.fit(*varied(outside, **change), workdir=workdir, **settings)


def test_fit_goes_on_with_the_same_written_anew(outside, kept):
    results = []
    for workdir, settings in kept.values():
        results.append(fingerprint(jd.fit(*varied(outside), workdir=workdir, **settings).result))
    assert results[0] == results[1]


def test_what_a_step_computes_is_known_in_every_process():
    program = (
        "import jax, jax.numpy as jnp, optax\n"
        "import jaxdistill as jd\n"
        "from jaxdistill.testing import tiny_net\n"
        "from jaxdistill._computed import computed\n"
        "net = tiny_net(dropout=0.5, statistics=True)\n"
        "aim = jnp.arange(3.0)[None]\n"
        "terms = lambda forward, goal, batch: {\n"
        "    'l2': jd.per_example(1.0, ((forward.out - aim) ** 2).mean(-1))}\n"
        "own = jd.model_to_model(net, lambda *_: {}, terms, optax.adamw(0.1), ema=0.9)\n"
        "batch = {'image': jnp.ones((4, 5))}\n"
        "state = jax.eval_shape(own.init, jax.random.key(0), {}, batch)\n"
        "print(computed(own.step, state, {}, batch))\n"
    )
    said = []
    for seed in "12":
        own = {**os.environ, "PYTHONHASHSEED": seed, "XLA_FLAGS": ""}
        own["PYTHONPATH"] = str(Path(jd.__file__).parents[1])
        said.append(subprocess.run([sys.executable, "-c", program], env=own, capture_output=True))
    assert said[0].stdout == said[1].stdout != b"", said[0].stderr.decode()


def test_fit_with_everything_it_takes(outside):
    distiller, frozen, images, _ = outside
    plans = []
    evaluation = jd.Evaluation("validation", lambda result, frozen, data: {"one": 1.0}, every=2)
    outcome = jd.fit(
        distiller,
        frozen,
        lambda plan: plans.append(plan) or stream(arrays({"image": images}), 32, seed=1, threads=0),
        steps=4,
        evaluations=[evaluation],
        between=(2, lambda result, frozen, plan: (plan or 0) + 1),
        quiet=True,
    )
    assert plans == [None, 1, 2]
    assert outcome.values["validation/one"] == 1.0


def test_fit_refuses_arrays_of_unequal_length(outside):
    distiller, frozen, images, _ = outside
    with pytest.raises(ValueError, match="256"):
        jd.fit(distiller, frozen, {"image": images, "label": np.zeros(3)}, steps=1)


def labelled(outside, **settings):
    """A distiller that learns from labels as well, and what it is given besides."""
    _, _, images, student = outside

    def objective(forward, goal, batch):
        return {
            "ce": jd.per_example(1.0, cross_entropy(forward.out, batch["label"])),
            "turned": jd.per_example(1.0, cross_entropy(forward.out[:, :2], images_turned)),
        }

    images_turned = np.zeros(32 // settings.get("accumulate", 1), np.int32)
    targets = jd.targets.labels()
    distiller = jd.model_to_model(student, targets, objective, optax.sgd(0.1), **settings)
    return distiller, {"image": images}


WRONG_LABELS = {
    "none of them": (np.full(256, 9), r"256 of 256 records: 9 "),
    "from one": (np.arange(256) % 3 + 1, r"3 \(85, .*they count from 1"),
    "minus one": (np.arange(256) % 3 - 1, r"-1 \(86, .*has_label"),
    "floats": (np.zeros(256), "must be integers, got float32"),
    "one-hot": (np.eye(3, dtype=int)[np.arange(256) % 3], "without the class axis"),
    "64 bits": (np.full(256, 2**32 + 1), "4294967297"),
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("labels", WRONG_LABELS)
def test_labels_are_held_against_the_classes_of_the_losses_that_take_them(
    outside, tmp_path, labels, accumulate
):
    distiller, data = labelled(outside, accumulate=accumulate)
    given, message = WRONG_LABELS[labels]
    with pytest.raises(ValueError, match=message):
        jd.fit(
            distiller, {}, {**data, "label": given}, steps=2, batch_size=32, workdir=tmp_path / "w"
        )
    assert not (tmp_path / "w").exists()


def test_labels_of_what_is_evaluated_on_are_held_against_the_same_classes(outside):
    distiller, data = labelled(outside)
    data = {**data, "label": np.arange(256) % 3}
    outcome = jd.fit(distiller, {}, data, steps=2, batch_size=32, quiet=True)
    assert np.isfinite(outcome.metrics[-1]["ce"])
    other = arrays({**data, "label": np.arange(256) % 4}, name="other")
    evaluation = jd.Evaluation("test", lambda *given: {"one": 1.0}, other)
    with pytest.raises(ValueError, match=r"test 'other': labels are from 0 to 2, but not those"):
        jd.fit(distiller, {}, data, steps=2, batch_size=32, evaluations=[evaluation], quiet=True)


def test_a_result_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(ValueError, match="holds no result: the stage is not done"):
        jd.load_result(tmp_path)
