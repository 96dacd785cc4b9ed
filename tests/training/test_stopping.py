"""Signals, locks, read-only disks: a run that is told to stop keeps what it has, and only one
process works in a folder."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.data.sources import arrays
from jaxdistill.data.stream import stream
from jaxdistill.distiller import Distiller
from jaxdistill.training.checkpoint import fingerprint
from jaxdistill.training.lock import locked
from jaxdistill.training.loop import Evaluation, Stage, run_stage
from jaxdistill.training.signals import Stopped, held, stoppable

IMAGES = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
DATA = stream(arrays({"image": IMAGES}), 16, seed=0, threads=0)
BOTH = (signal.SIGTERM, signal.SIGINT)


class Knocking:
    """The stream, which sends a signal when a batch is asked for."""

    def __init__(self, knock):
        self.knock = knock

    def at(self, step, takes=1):
        return DATA.at(step, takes)

    def iterate(self, start=0, takes=1):
        for step, batch in enumerate(DATA.iterate(start, takes), start):
            self.knock("batch", step)
            yield batch


def trial(number=None, place=None, at=None) -> Stage:
    """A stage that sends a signal to its own process at one place and step."""

    def knock(here, step):
        if (here, step) == (place, at):
            os.kill(os.getpid(), number)

    def init(key, frozen, batch):
        return {"step": jnp.int32(0), "key": key, "sum": jnp.zeros(3)}

    def step(state, frozen, batch):
        drawn = jax.random.normal(jax.random.fold_in(state["key"], state["step"]), (3,))
        loss = batch["image"].sum() + drawn.sum()
        state = {**state, "step": state["step"] + 1, "sum": state["sum"] * 1.01 + loss * drawn}
        return state, {"loss": (loss, 1.0)}

    def evaluator(result, frozen, data):
        knock("evaluation", int(result["step"]))
        return {"sum": float(result["sum"].sum())}

    def between(result, frozen, plan):
        knock("between", int(result["step"]))
        return {"calls": (plan or {"calls": 0})["calls"] + 1, "metrics": {"told": 1.0}}

    return Stage(
        "trial",
        Distiller(init, step, lambda state: state),
        lambda plan: Knocking(knock),
        12,
        evaluations=(Evaluation("validation", evaluator, every=4, mean=True),),
        between=(4, between),
        best=("validation/sum", "max"),
        spans={"late": (6, 12)},
        log_every=5,
        identity={"trial": 1},
    )


def numbers(outcome):
    lines = [{k: v for k, v in x.items() if k != "steps_per_second"} for x in outcome.metrics]
    return lines, outcome.values, fingerprint(outcome.result)


@pytest.fixture(scope="module")
def whole():
    return numbers(run_stage(trial(), quiet=True))


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize(
    ("place", "at", "kept"),
    [
        ("batch", 0, 0),
        ("batch", 7, 7),
        ("evaluation", 4, 4),
        ("evaluation", 12, 12),
        ("between", 0, 0),
        ("between", 8, 8),
    ],
)
def test_a_run_that_is_told_to_stop_goes_on_as_if_it_had_not(
    tmp_path, whole, number, place, at, kept
):
    with pytest.raises(Stopped) as caught:
        run_stage(trial(number, place, at), tmp_path, quiet=True)
    said = f"stopped by {signal.Signals(number).name}: after step {kept} of 12 of stage 'trial'"
    assert str(caught.value).startswith(said)
    assert f"{kept:010d}; the same command goes on from there" in str(caught.value)
    assert caught.value.code == 128 + number
    assert not (tmp_path / "lock").exists()
    assert numbers(run_stage(trial(), tmp_path, quiet=True)) == whole
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_a_folder_nothing_is_kept_and_that_is_said():
    with pytest.raises(Stopped, match="without a working directory nothing is kept"):
        run_stage(trial(signal.SIGTERM, "batch", 3), quiet=True)


def test_signals_wait_while_held_and_a_second_interrupt_ends_at_once():
    with stoppable():
        passed = []

        def inside():
            with held(), held():
                os.kill(os.getpid(), signal.SIGTERM)
                passed.append(True)

        with pytest.raises(Stopped):
            inside()
        assert passed
        with held(stop=False):
            os.kill(os.getpid(), signal.SIGTERM)  # it is on its way to stop already
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


class Cleared:
    """What sends a signal while Python clears it up."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


class Plain:
    """What can be referred to weakly."""


class Number:
    """What sends a signal while NumPy converts it: as an array without axes, it has no length."""

    def __len__(self):
        raise TypeError

    def __getitem__(self, place):
        raise IndexError

    def __float__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return 1.0


@pytest.mark.parametrize(
    "where", ["a finaliser", "a callback of the collector", "a reference", "a number"]
)
def test_a_signal_that_comes_where_nothing_can_be_raised_comes_again(where):
    def collecting(phase, info):
        if phase == "start":
            os.kill(os.getpid(), signal.SIGTERM)

    def wait():
        if where == "a finaliser":
            Cleared()
        elif where == "a reference":
            weakref.finalize(Plain(), os.kill, os.getpid(), signal.SIGTERM)
        elif where == "a number":
            assert np.mean(np.array([Number(), 2.0], np.float64)) == 1.5
        else:
            gc.callbacks.append(collecting)
            try:
                gc.collect()
            finally:
                gc.callbacks.remove(collecting)
        for _ in range(1000):  # the handler runs between two short sleeps
            time.sleep(0.01)

    with stoppable(), pytest.raises(Stopped):
        wait()


def test_handlers_of_others_stay():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(True))
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [True]


def test_a_command_ends_with_the_status_of_the_signal_and_one_sentence(tmp_path):
    program = (
        "import os, sys\n"
        "from absl import flags\n"
        "from jaxdistill import main\n"
        "flags.FLAGS(sys.argv[:1])\n"
        "sys.exit(main.guarded(lambda: os.kill(os.getpid(), int(sys.argv[1])) or 0))\n"
    )
    for number in BOTH:
        command = [sys.executable, "-c", program, str(int(number))]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 128 + number
        assert done.stderr == f"stopped by {number.name}: the same command goes on\n"


def test_two_runs_in_one_folder_are_refused_naming_the_other(tmp_path):
    def second(step, values, kind):
        with pytest.raises(OSError, match=rf"is in use by process {os.getpid()} on .*, since 20"):
            run_stage(trial(), tmp_path, quiet=True)
        seen.append(step)

    seen = []
    run_stage(trial(), tmp_path, writers=[second], quiet=True)
    assert seen
    assert not (tmp_path / "lock").exists()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from jaxdistill.training.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(OSError, match=f"in use by process {other.pid} on"), locked(tmp_path):
            pass
    finally:
        other.kill()
        other.communicate()
    assert json.loads((tmp_path / "lock").read_text())["pid"] == other.pid
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_a_finished_run_is_read_without_touching_anything(tmp_path, whole):
    run_stage(trial(), tmp_path, quiet=True)

    def touched():
        # A file that comes and goes changes its folder.
        return {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.rglob("*"))}

    before = touched()
    assert numbers(run_stage(trial(), tmp_path, quiet=True)) == whole
    assert touched() == before
