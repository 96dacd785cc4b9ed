"""Real processes that train as one: the numbers of one process, and none of them lost for good."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from training import two_processes

import jaxdistill
from jaxdistill.store import open_store
from jaxdistill.training.metrics import read_json_lines

SCRIPT = Path(two_processes.__file__)
PATIENCE = 300.0


def start(root, seconds=0.0, count=2, patience=120):
    """Two processes, with four devices between them, or the first of them alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {os.environ['QUICK_XLA_FLAGS']}",
        "PYTHONPATH": str(Path(jaxdistill.__file__).parents[1]),
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
    }
    return [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(root), str(seconds), str(patience)],
            env={**os.environ, **own, "JAX_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(count)
    ]


def finish(processes):
    """What each of them says last."""
    said = [process.communicate(timeout=PATIENCE) for process in processes]
    for process, (_, errors) in zip(processes, said, strict=True):
        assert process.returncode == 0, errors.decode()[-3000:]
    return [json.loads(output.splitlines()[-1]) for output, _ in said]


def metrics(root, stage):
    found = read_json_lines(root / stage / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in found]


def test_two_processes_train_cache_and_resume_to_the_numbers_of_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"

    alone = start(tmp_path / "alone", count=1, patience=5)[0]

    def kept():
        """The last step of the student that is kept."""
        return max(
            (int(path.name) for path in two.glob("student/checkpoints/*") if path.name.isdigit()),
            default=0,
        )

    def behind():
        """Two slow processes, as soon as they have kept a step of the student."""
        before = kept()
        pair = start(two, seconds=0.1)
        deadline = time.monotonic() + PATIENCE
        while kept() == before:
            assert all(process.poll() is None for process in pair), pair[0].communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return pair

    # One of the two is interrupted: both stop at the same step, and keep it.
    pair = behind()
    pair[1].send_signal(signal.SIGINT)
    said = [process.communicate(timeout=PATIENCE)[1].decode() for process in pair]
    assert [process.returncode for process in pair] == [143, 130], said
    for text, name in zip(said, ("SIGTERM", "SIGINT"), strict=True):
        assert f"stopped by {name}: after step" in text
        assert "kept in" in text

    # One of the two is lost, the one that coordinates them or the other: who is left cannot go on
    # alone, and leaves nothing that says it is done.
    for lost in (0, 1):
        pair = behind()
        pair[lost].kill()
        pair[lost].communicate()
        assert pair[lost].returncode == -signal.SIGKILL
        left = pair[1 - lost]
        errors = left.communicate(timeout=PATIENCE)[1].decode()
        assert left.returncode == 2, errors
        last = errors.splitlines()[-1]
        assert last.startswith("error: another process of this run is gone; the same command")
        assert "Traceback" not in errors
    assert not (two / "student" / "result").exists()

    # One that is started alone does not wait for good.
    errors = alone.communicate(timeout=PATIENCE)[1].decode()
    assert alone.returncode == 2, errors
    assert "error: the other processes of this run were not found; start this" in errors

    pair = start(two)
    # On four of this process's own devices, while they start.
    first = two_processes.main(one, 0.0)
    both = finish(pair)
    assert both[0]["fingerprint"] == both[1]["fingerprint"]
    assert first["process"] == [0, 1]
    assert [said["process"] for said in both] == [[0, 2], [1, 2]]

    for stage in ("teacher", "student"):
        ours, theirs = metrics(two, stage), metrics(one, stage)
        # Written by one of the processes, once.
        assert [line["step"] for line in ours] == [line["step"] for line in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert a.keys() == b.keys()
            np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
    with np.load(one / "student.npz") as theirs, np.load(two / "student.npz") as ours:
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    stores = [open_store(root / "cache") for root in (one, two)]
    assert all(not store.verify() for store in stores)
    assert len({file["name"].split("-")[0] for file in stores[1].manifest["files"]}) == 2
    rows = [store.read(np.arange(1797))["teacher/out/values"] for store in stores]
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-4, atol=1e-5)
