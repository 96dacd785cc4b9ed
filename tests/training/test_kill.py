"""Real processes killed in the middle of each stage, and started again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

import jaxdistill
from jaxdistill.training.checkpoint import load_arrays, load_record

SCRIPT = Path(__file__).with_name("two_stages.py")
STAGES = ("teacher", "student")
STEPS, PATIENCE = 60, 300.0


def start(root):
    own = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": str(Path(jaxdistill.__file__).parents[1]),
    }
    command = [sys.executable, str(SCRIPT), str(root)]
    return subprocess.Popen(command, env={**os.environ, **own}, stderr=subprocess.PIPE)


def finish(process):
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors.decode()


def kill_when(process, happens):
    """SIGKILL as soon as something has happened; it must not have ended by then."""
    deadline = time.monotonic() + PATIENCE
    while not happens():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def order(folder):
    """Which records every step read, in every life of the process: ``[(step, [index])]``."""
    return [(line["step"], line["index"]) for line in lines(folder / "order.jsonl")]


def metrics(folder):
    found = lines(folder / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in found]


def assert_same_arrays(one, other):
    one, other = load_arrays(one), load_arrays(other)
    ours, theirs = (jax.tree_util.tree_leaves_with_path(tree) for tree in (one, other))
    assert [path for path, _ in ours] == [path for path, _ in theirs]
    for (path, a), (_, b) in zip(ours, theirs, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path


def test_a_killed_run_ends_like_an_unbroken_one(tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    finish(start(unbroken))

    draw = random.Random(7)
    for name in STAGES:
        folder = broken / name
        step = draw.randrange(8, STEPS - 20)

        def reached(folder=folder, step=step):
            path = folder / "order.jsonl"
            return path.exists() and path.read_text().count("\n") > step

        kill_when(start(broken), reached)
        assert not (folder / "result").exists()

        kept = {path.name for path in (folder / "checkpoints").iterdir()}

        def saving(folder=folder, kept=kept):
            """A checkpoint that has not got its name yet."""
            names = {path.name for path in (folder / "checkpoints").iterdir()}
            return any(not name.isdigit() for name in names - kept)

        kill_when(start(broken), saving)
        assert not (folder / "result").exists()
    finish(start(broken))

    for name in STAGES:
        whole, pieced = unbroken / name, broken / name
        assert_same_arrays(pieced / "result", whole / "result")
        kept = sorted(path.name for path in (whole / "checkpoints").iterdir())
        assert kept == sorted(path.name for path in (pieced / "checkpoints").iterdir())
        for checkpoint in kept:
            assert_same_arrays(pieced / "checkpoints" / checkpoint, whole / "checkpoints" / checkpoint)
        assert metrics(pieced) == metrics(whole)
        records = [load_record(root / "result") for root in (pieced, whole)]
        assert records[0].pop("seconds") > 0
        assert records[1].pop("seconds") > 0
        assert records[0] == records[1]

        expected = dict(order(whole))
        assert len(order(whole)) == len(expected) == STEPS
        again = order(pieced)
        assert len(again) > STEPS
        assert {step for step, _ in again} == set(range(STEPS))
        assert all(index == expected[step] for step, index in again)
