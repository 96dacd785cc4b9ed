"""The loop: what stops it, what it refuses to mix, what it selects."""

import dataclasses
import os
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill.data.sources import arrays
from jaxdistill.data.stream import stream
from jaxdistill.distiller import Distiller
from jaxdistill.training.checkpoint import fingerprint
from jaxdistill.training.loop import Evaluation, Stage, run_stage
from jaxdistill.training.metrics import read_json_lines

NOISE = np.random.default_rng(0)
IMAGES = NOISE.normal(size=(64, 4)).astype(np.float32)
DATA = stream(arrays({"image": IMAGES}), 16, seed=0, threads=0)


def counter(trouble=None, *, size=1) -> Distiller:
    """The least there is to run: it sums what it sees, and counts."""

    def init(key, frozen, batch):
        return {"step": jnp.int32(0), "sum": jnp.zeros(size) + frozen.get("teacher", 0.0)}

    def step(state, frozen, batch):
        loss = batch["image"].sum()
        if trouble is not None:
            loss = jnp.where(state["step"] == trouble, jnp.nan, loss)
        state = {"step": state["step"] + 1, "sum": state["sum"] * 1.01 + loss}
        return state, {"loss": (loss, 1.0)}

    return Distiller(init, step, lambda state: state)


def stage(distiller=None, **settings) -> Stage:
    settings = {"name": "trial", "data": DATA, "steps": 12, "log_every": 2, **settings}
    return Stage(distiller=distiller or counter(), **settings)


def run(trial, directory=None):
    return run_stage(trial, directory, quiet=True)


def checkpoints(directory):
    return sorted(int(path.name) for path in (directory / "checkpoints").iterdir())


# --- what stops it ----------------------------------------------------------------------------


def test_a_loss_that_is_nan_stops_the_run_and_names_the_last_good_checkpoint(tmp_path):
    with pytest.raises(FloatingPointError, match=r"at step 7: .*loss.*nan.*0000000006"):
        run(stage(counter(trouble=6), checkpoint_every=3), tmp_path)
    assert checkpoints(tmp_path) == [3, 6]
    written = read_json_lines(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in written] == [2, 4, 6]
    mended = run(stage(checkpoint_every=3), tmp_path)
    assert fingerprint(mended.result) == fingerprint(run(stage()).result)


def test_nan_before_any_checkpoint(tmp_path):
    for directory in (None, tmp_path):
        with pytest.raises(FloatingPointError, match=r"at step 1: .*there is no checkpoint"):
            run(stage(counter(trouble=0), checkpoint_every=3), directory)


def test_a_nan_state_is_not_saved_though_its_line_is_not_due(tmp_path):
    with pytest.raises(FloatingPointError, match=r"at step 5: .*0000000003"):
        run(stage(counter(trouble=4), checkpoint_every=3, log_every=100), tmp_path)
    assert checkpoints(tmp_path) == [3]


def spoilt(at, where) -> Distiller:
    """One array of the state turns bad while all metrics stay fine."""
    base = counter()

    def init(key, frozen, batch):
        # A least value so far begins at infinity, which is no fault.
        state = {**base.init(key, frozen, batch), "least": jnp.full((), jnp.inf)}
        return {**state, "bad": {"kernel": jnp.ones((2, 2), jnp.bfloat16)}}

    def step(state, frozen, batch):
        kept = {"least": state["least"], "bad": state["bad"]}
        state, metrics = base.step({k: state[k] for k in ("step", "sum")}, frozen, batch)
        turned = jnp.where(state["step"] == at, where, 1.0).astype(jnp.bfloat16)
        kept["bad"] = {"kernel": kept["bad"]["kernel"] * turned}
        return {**state, **kept}, metrics

    return Distiller(init, step, lambda state: state)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_a_state_that_is_not_finite_stops_the_run_though_its_losses_are(tmp_path, value):
    message = r"at step 6: bad/kernel of the state, finite at step 4; .*0000000003"
    with pytest.raises(FloatingPointError, match=message):
        run(stage(spoilt(5, value), checkpoint_every=3), tmp_path)
    assert checkpoints(tmp_path) == [3]
    # Neither a checkpoint between two lines, nor an evaluation, nor the end passes it.
    with pytest.raises(FloatingPointError, match="at step 6: bad/kernel"):
        run(stage(spoilt(5, value), checkpoint_every=6, log_every=12), tmp_path / "checkpoint")
    seen = Evaluation("validation", lambda *_: {"x": 1.0}, every=6)
    with pytest.raises(FloatingPointError, match="at step 6: bad/kernel"):
        run(stage(spoilt(5, value), evaluations=(seen,), log_every=12))
    with pytest.raises(FloatingPointError, match="at step 12: bad/kernel"):
        run(stage(spoilt(12, value), log_every=100))
    run(stage(spoilt(100, value)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_evaluation_that_is_not_finite_stops_the_run(tmp_path, value):
    def evaluator(result, frozen, data):
        return {"fine": 1.0, "odd": value if int(result["step"]) == 8 else 0.5}

    trial = stage(evaluations=(Evaluation("validation", evaluator, every=4),), checkpoint_every=3)
    with pytest.raises(FloatingPointError, match=r"at step 8: .*validation/odd.*0000000006"):
        run(trial, tmp_path)
    own = Evaluation("validation", lambda *_: {"x": value})
    with pytest.raises(FloatingPointError, match=r"at step 0: .*teacher:validation/x"):
        run(stage(frozen={"teacher": jnp.ones(1)}, before=(("teacher", own),)))


def test_a_count_that_is_not_finite_stops_the_run():
    base = counter()

    def step(state, frozen, batch):
        state, metrics = base.step(state, frozen, batch)
        return state, {**metrics, "odd": (1.0, jnp.where(state["step"] == 3, jnp.inf, 1.0))}

    with pytest.raises(FloatingPointError, match=r"at step 3: .*odd"):
        run(stage(base._replace(step=step)))


def test_a_term_of_which_nothing_counts_is_warned_about_once(caplog):
    base = counter()

    def step(state, frozen, batch):
        state, metrics = base.step(state, frozen, batch)
        return state, {**metrics, "ce": (0.0, 0.0)}

    run(stage(base._replace(step=step)))
    said = [record.getMessage() for record in caplog.records]
    assert [text for text in said if "nothing counted for 'ce' up to step 2" in text] == said


def test_a_workdir_that_cannot_be_written_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")

    def never(*_):
        raise AssertionError("must not be traced")

    with pytest.raises(OSError, match=r"working directory .*file/run cannot be written"):
        run(stage(Distiller(never, never, never)), tmp_path / "file" / "run")


def test_a_disk_that_fills_up_leaves_a_run_that_can_go_on(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step, values, kind):
        if step == 6:
            # No file may grow further: to a process the same as a disk without space.
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))

    # Each number differs, or the file would be compressed to nothing.
    teacher = jnp.asarray(NOISE.normal(size=10_000), jnp.float32)
    trial = stage(counter(size=10_000), frozen={"teacher": teacher}, checkpoint_every=4)
    try:
        with pytest.raises(OSError, match=r"cannot save .*0000000008"):
            run_stage(trial, tmp_path, writers=[fill], quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoints(tmp_path) == [4]
    assert fingerprint(run(trial, tmp_path).result) == fingerprint(run(trial).result)


# --- what it refuses to mix -------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that ended with a fault, and one that is done."""
    settings = {
        "frozen": {"teacher": jnp.ones(1)},
        "checkpoint_every": 3,
        "identity": {"optimizer": {"rate": 0.1, "betas": (0.9, 0.99)}},
    }
    halfway, done = tmp_path_factory.mktemp("halfway"), tmp_path_factory.mktemp("done")
    with pytest.raises(FloatingPointError):
        run(stage(counter(trouble=6), **settings), halfway)
    run(stage(**settings), done)
    return settings, {"halfway": halfway, "done": done}


@pytest.mark.parametrize("where", ["halfway", "done"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"identity": {"optimizer": {"rate": 0.2, "betas": (0.9, 0.99)}}},
            r"config.optimizer.rate: 0.1 there, 0.2 now",
        ),
        (
            {"identity": {"optimizer": {"rate": 0.1, "betas": (0.9, 0.95), "clip": 1}}},
            r"betas\[1\]: 0.99 there, 0.95 now\n- config.optimizer.clip: absent there, 1 now",
        ),
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"steps": 20}, "steps: 12 there, 20 now"),
        ({"name": "other"}, "stage: trial there, other now"),
        (
            {"frozen": {"teacher": jnp.zeros(1)}},
            f"frozen.teacher: {fingerprint(jnp.ones(1))} there, {fingerprint(jnp.zeros(1))} now",
        ),
        ({"frozen": {}}, f"frozen.teacher: {fingerprint(jnp.ones(1))} there, absent now"),
    ],
)
def test_going_on_with_another_run_is_refused_naming_both_values(stopped, where, change, message):
    settings, places = stopped
    before = (places[where] / "metrics.jsonl").read_text()
    with pytest.raises(ValueError, match=message):
        run(stage(**{**settings, **change}), places[where])
    assert (places[where] / "metrics.jsonl").read_text() == before


def test_the_same_run_goes_on(stopped):
    settings, places = stopped
    results = [fingerprint(run(stage(**settings), places[name]).result) for name in places]
    assert results[0] == results[1]


# --- what it selects --------------------------------------------------------------------------

SCORES = {2: 0.1, 4: 0.9, 6: 0.3, 8: 0.9, 10: 0.5, 12: 0.2}


def scored(name="score", every=2, **settings):
    def evaluator(result, frozen, data):
        return {name: SCORES[int(result["step"])]}

    evaluations = (Evaluation("validation", evaluator, every=every),)
    return stage(evaluations=evaluations, best=("validation/score", "max"), **settings)


def test_the_best_is_kept_besides_the_newest_and_returned(tmp_path):
    outcome = run(scored(checkpoint_every=1, keep=2, returns="best"), tmp_path)
    assert checkpoints(tmp_path) == [4, 11, 12]
    assert int(outcome.result["step"]) == 4
    assert outcome.values["validation/score"] == 0.2
    assert int(jd.load_result(tmp_path)["step"]) == 4
    again = run(scored(checkpoint_every=1, keep=2, returns="best"), tmp_path)
    assert int(again.result["step"]) == 4
    assert again.metrics == outcome.metrics


def test_the_mean_over_all_evaluations_is_a_metric_where_it_is_asked_for():
    def evaluator(result, frozen, data):
        return {"score": SCORES[int(result["step"])]}

    asked = Evaluation("validation", evaluator, every=4, mean=True)
    other = Evaluation("train", evaluator, every=2)
    outcome = run(stage(evaluations=(asked, other)))
    means = [m["validation/mean/score"] for m in outcome.metrics if "validation/score" in m]
    assert means == pytest.approx([0.9, 0.9, 2.0 / 3])
    assert outcome.values["validation/mean/score"] == means[-1]
    assert "train/mean/score" not in outcome.values


def test_a_metric_that_is_nan_is_never_the_best(tmp_path, caplog):
    values = {3: 0.5, 6: float("nan"), 9: 0.4, 12: 0.3}

    def evaluator(result, frozen, data):
        return {"acc": values[int(result["step"])]}

    for first in (0.5, float("nan")):
        values[3] = first
        best = 3 if first == 0.5 else 9
        trial = stage(
            evaluations=(Evaluation("validation", evaluator, every=3),),
            best=("validation/acc", "max"),
            returns="best",
            checkpoint_every=1,
        )
        outcome = run(trial, tmp_path / str(best))
        assert int(outcome.result["step"]) == best
        assert checkpoints(tmp_path / str(best)) == [best, 11, 12]
        assert "validation/acc is nan at step 6" in caplog.text
        again = run(trial, tmp_path / str(best))
        np.testing.assert_equal(again.metrics, outcome.metrics)
    # The last one is a result, and that must be a number.
    values[12] = float("nan")
    with pytest.raises(FloatingPointError, match=r"at step 12: .*validation/acc"):
        run(trial, tmp_path / "last")


def test_the_last_is_returned_unless_told_otherwise(tmp_path):
    lowest = dataclasses.replace(scored(), best=("validation/score", "min"))
    assert int(run(lowest, tmp_path).result["step"]) == 12
    assert checkpoints(tmp_path) == [2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"returns": "best"}, "needs best, the metric"),
        ({"returns": "bset"}, "unknown result of a stage 'bset': did you mean 'best'"),
        ({"best": ("test/score", "max")}, "nothing is selected by the test set"),
        (
            {"best": ("validaton/score", "max")},
            "unknown set .*'validaton': did you mean 'validation'",
        ),
        ({"best": ("validation/score", "mx")}, "unknown direction 'mx': did you mean 'max'"),
    ],
)
def test_selections_that_cannot_be_made_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        stage(evaluations=(Evaluation("validation", print, every=2),), **settings)


def test_the_best_needs_a_directory_and_its_metric(tmp_path):
    with pytest.raises(ValueError, match="needs a directory"):
        run(scored(returns="best"))
    with pytest.raises(ValueError, match=r"unknown metric to select by 'validation/score'.*scope"):
        run(scored("scope"), tmp_path)


def test_the_test_set_is_evaluated_once_at_the_end():
    with pytest.raises(ValueError, match="evaluated once"):
        Evaluation("test", print, every=2)
    seen = []
    final = Evaluation(
        "test", lambda result, frozen, data: seen.append(int(result["step"])) or {"x": 1}
    )
    outcome = run(stage(evaluations=(final,)))
    assert seen == [12]
    assert outcome.values["test/x"] == 1.0


def test_teachers_are_measured_before_step_one(tmp_path):
    own = Evaluation("validation", lambda teacher, frozen, data: {"mean": float(teacher.mean())})
    trial = stage(frozen={"teacher": jnp.full(1, 3.0)}, before=(("teacher", own),))
    outcome = run(trial, tmp_path)
    assert outcome.metrics[0] == {"step": 0, "kind": "teacher", "teacher:validation/mean": 3.0}
    assert outcome.values["teacher:validation/mean"] == 3.0
    assert read_json_lines(tmp_path / "metrics.jsonl") == outcome.metrics


# --- the plan, shapes, metrics ----------------------------------------------------------------


def test_the_plan_is_carried_through_between_and_through_a_stop(tmp_path):
    given = []

    def trial(fails_at):
        def data(plan):
            given.append(plan)
            return DATA

        def between(result, frozen, plan):
            if int(result["step"]) == fails_at:
                raise RuntimeError("the machine goes away")
            seen = plan["seen"] if plan else np.zeros(0)
            return {"seen": np.append(seen, float(result["sum"][0])), "calls": len(seen) + 1}

        return stage(data=data, between=(3, between), checkpoint_every=4)

    run(trial(None), tmp_path / "unbroken")
    unbroken = given[-1]
    assert given[0] is None
    assert [plan["calls"] for plan in given[1:]] == [1, 2, 3, 4]
    with pytest.raises(RuntimeError):
        run(trial(9), tmp_path / "stopped")
    given.clear()
    run(trial(None), tmp_path / "stopped")
    assert [plan["calls"] for plan in given if plan] == [3, 4]
    assert given[-1]["seen"].dtype == np.float64
    np.testing.assert_array_equal(given[-1]["seen"], unbroken["seen"])


def test_a_step_that_changes_the_state_is_refused_before_it_is_compiled():
    def grows(state, frozen, batch):
        return {**state, "sum": jnp.zeros(3)}, {"loss": (0.0, 1.0)}

    def other(state, frozen, batch):
        return {"step": state["step"]}, {"loss": (0.0, 1.0)}

    def alone(state, frozen, batch):
        return state, {"loss": 0.0}

    base = counter()
    for step, message in (
        (
            grows,
            r"changes arrays of the state:\n- \['sum'\]: \(1,\) float32 becomes \(3,\) float32",
        ),
        (other, "changes the structure of the state"),
        (alone, "metric 'loss' must be a pair"),
    ):
        with pytest.raises(ValueError, match=message):
            run(stage(base._replace(step=step)))


def test_metrics_are_means_since_the_last_line(tmp_path):
    seen = []
    trial = stage(log_every=5)
    outcome = run_stage(
        trial, tmp_path, writers=[lambda step, values, kind: seen.append((step, kind))], quiet=True
    )
    assert seen == [(5, "train"), (10, "train"), (12, "train")]
    sums = [float(DATA.at(step)["image"].sum()) for step in range(12)]
    means = [line["loss"] for line in outcome.metrics]
    np.testing.assert_allclose(
        means, [np.mean(sums[a:b]) for a, b in ((0, 5), (5, 10), (10, 12))], rtol=1e-5
    )
    assert all(line["steps_per_second"] > 0 for line in outcome.metrics)


def test_means_over_a_run_and_its_parts_are_values_and_no_stop_changes_a_bit(tmp_path):
    settings = {"spans": {"early": (0, 5), "late": (7, 12)}, "log_every": 5, "checkpoint_every": 3}
    whole = run(stage(**settings))
    sums = [float(DATA.at(step)["image"].sum()) for step in range(12)]
    for name, first, last in (("loss", 0, 12), ("early/loss", 0, 5), ("late/loss", 7, 12)):
        assert whole.values[f"train/{name}"] == pytest.approx(np.mean(sums[first:last]), rel=1e-6)
    with pytest.raises(FloatingPointError):
        run(stage(counter(trouble=10), **settings), tmp_path)
    resumed = run(stage(**settings), tmp_path)
    assert resumed.values == whole.values
    assert run(stage(**settings), tmp_path).values == whole.values

    def numbers(outcome):
        lines = outcome.metrics
        return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in lines]

    # Nor does it add a line where a checkpoint was written.
    assert numbers(resumed) == numbers(whole)


def test_checkpoints_by_the_clock_change_no_number(tmp_path):
    outcome = run(stage(log_every=5, checkpoint_minutes=1e-9), tmp_path)
    assert checkpoints(tmp_path) == [10, 11]
    whole = run(stage(log_every=5))
    assert [line["step"] for line in outcome.metrics] == [5, 10, 12]
    assert outcome.values == whole.values
    assert fingerprint(outcome.result) == fingerprint(whole.result)
    run(stage(log_every=5, checkpoint_minutes=0), tmp_path / "none")
    assert not (tmp_path / "none" / "checkpoints").exists()


def test_a_distiller_without_data_and_its_resumption(tmp_path):
    def init(key, frozen, batch):
        assert batch == {}
        return {"step": jnp.int32(0), "key": key, "sum": jnp.zeros(())}

    def distiller(trouble=None):
        def step(state, frozen, batch):
            assert batch == {}
            drawn = jax.random.normal(jax.random.fold_in(state["key"], state["step"]))
            if trouble is not None:
                drawn = jnp.where(state["step"] == trouble, jnp.nan, drawn)
            sums = {"sum": state["sum"] + drawn, "step": state["step"] + 1}
            return {**state, **sums}, {"drawn": (drawn, 1.0)}

        return Distiller(init, step, lambda state: state["sum"], takes=0)

    whole = jd.fit(distiller(), {}, None, 12, quiet=True)
    settings = {"data": None, "checkpoint_every": 4}
    with pytest.raises(FloatingPointError, match="at step 10"):
        run(stage(distiller(9), **settings), tmp_path)
    assert run(stage(distiller(), **settings), tmp_path).result == whole.result
    assert jd.fit(distiller(), {}, None, 12, workdir=tmp_path / "fit", quiet=True).result


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 2.5}, "steps of stage 'trial' is 2.5: it must be a whole number, 0 or more"),
        ({"log_every": 0}, "log_every of stage 'trial' is 0: it must be a whole number, 1 or more"),
        ({"keep": -1}, "keep of stage 'trial' is -1: it must be a whole number, 1 or more"),
        ({"checkpoint_minutes": float("nan")}, "checkpoint_minutes of stage .trial. is nan"),
        ({"spans": {"late": (8, 13)}}, r"span 'late' .* is \(8, 13\): wanted .* in 0..12"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        stage(**settings)


def test_going_on_elsewhere_is_said(tmp_path, monkeypatch, caplog):
    with pytest.raises(FloatingPointError):
        run(stage(counter(trouble=6), checkpoint_every=3), tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(999))
    run(stage(checkpoint_every=3), tmp_path)
    assert "was written elsewhere (cores: " in caplog.text
    assert ", 999 now)" in caplog.text
