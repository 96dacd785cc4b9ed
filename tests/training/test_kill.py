"""Real processes killed in the middle of each stage, and started again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jaxdistill
from jaxdistill.training.checkpoint import fingerprint, load_arrays, load_record

SCRIPT = Path(__file__).with_name("two_stages.py")
STAGES = ("teacher", "student")
STEPS, PATIENCE = 42, 300.0


def start(root):
    # Compilation is most of what a process does here; how well it optimizes does not matter.
    own = {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {os.environ['QUICK_XLA_FLAGS']}",
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


def steps_read(folder):
    """Which records every step read, in every life of the process: ``[(step, [index])]``."""
    path = folder / "order.jsonl"
    if not path.exists():
        return []
    # The last line may still be in the making.
    found = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    return [(line["step"], line["index"]) for line in found]


def metrics(folder):
    found = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in found]


def arrays_in(path):
    return fingerprint(load_arrays(path))


def test_a_killed_run_ends_like_an_unbroken_one(tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    finish(start(unbroken))

    draw = random.Random(7)
    for name, moment in (("teacher", "step"), ("student", "save"), ("student", "step")):
        folder = broken / name
        begun = len(steps_read(folder))
        late = begun + draw.randrange(8, STEPS - 26)

        def reached(folder=folder, late=late):
            return len(steps_read(folder)) > late

        def saving(folder=folder, reached=reached):
            """A checkpoint that has not got its name yet."""
            return reached() and any(not p.name.isdigit() for p in folder.glob("checkpoints/*"))

        kill_when(start(broken), reached if moment == "step" else saving)
        assert not (folder / "result").exists()
    finish(start(broken))

    for name in STAGES:
        whole, pieced = unbroken / name, broken / name
        assert arrays_in(pieced / "result") == arrays_in(whole / "result")
        kept = sorted(path.name for path in (whole / "checkpoints").iterdir())
        assert kept == sorted(path.name for path in (pieced / "checkpoints").iterdir())
        for checkpoint in kept:
            ours, theirs = (root / "checkpoints" / checkpoint for root in (pieced, whole))
            assert arrays_in(ours) == arrays_in(theirs)
        assert metrics(pieced) == metrics(whole)
        records = [load_record(root / "result") for root in (pieced, whole)]
        assert records[0].pop("seconds") > 0
        assert records[1].pop("seconds") > 0
        assert records[0] == records[1]

        expected = dict(steps_read(whole))
        assert list(expected) == list(range(STEPS)) == [step for step, _ in steps_read(whole)]
        again = steps_read(pieced)
        assert len(again) > STEPS
        assert {step for step, _ in again} == set(range(STEPS))
        assert all(index == expected[step] for step, index in again)
