"""Real processes of four kinds of distillation that are killed, terminated and interrupted at
seeded moments, one while it writes a checkpoint and one while it writes a cache: in the end they
leave what an unbroken one leaves."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from training import four_kinds

import jaxdistill
from jaxdistill.store import open_store
from jaxdistill.training.checkpoint import fingerprint, load_arrays, load_record

PATIENCE = 300.0
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class Processes:
    """A process with everything imported, and those that it makes."""

    def __init__(self, cache: Path):
        self.mother = subprocess.Popen(
            [sys.executable, four_kinds.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "XLA_FLAGS": os.environ["QUICK_XLA_FLAGS"],
                "JAX_COMPILATION_CACHE_DIR": str(cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
                "PYTHONPATH": os.pathsep.join(
                    [str(Path(jaxdistill.__file__).parents[1]), str(Path(__file__).parents[1])]
                ),
            },
        )

    def start(self, root: Path) -> int:
        """Begins to work in a folder, or goes on; the process that does it."""
        print(root, file=self.mother.stdin, flush=True)
        return int(self.mother.stdout.readline())

    def ended(self) -> int:
        return int(self.mother.stdout.readline())


@pytest.fixture
def processes(tmp_path):
    found = Processes(tmp_path / "compiled")
    yield found
    found.mother.stdin.close()
    found.mother.wait()
    found.mother.stdout.close()


def count(root: Path, name: str) -> int:
    path = root / "happened"
    return path.read_text().split("\n").count(name) if path.exists() else 0


def is_saving(folder: Path) -> bool:
    """Whether there is a checkpoint that has not got its name yet."""
    return any(not path.name.isdigit() for path in folder.glob("checkpoints/*"))


def send(processes: Processes, root: Path, number: signal.Signals, moment) -> str:
    """Starts a process, sends it a signal at a moment, and gives what it says at its end."""
    child = processes.start(root)
    deadline = time.monotonic() + PATIENCE
    while not moment():
        os.kill(child, 0)
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(child, number)
    assert processes.ended() == (-number if number == signal.SIGKILL else 128 + number)
    return (root / "errors").read_text()


def moments(root: Path):
    """Twelve of them: a signal, its place, and whether it has been reached."""
    draw = random.Random(11)
    for name in four_kinds.KINDS:
        numbers = draw.sample(SIGNALS, 3)
        steps = sorted(draw.sample(range(3, four_kinds.STEPS - 3), 3))
        for number, step in zip(numbers, steps, strict=True):
            if name == "language" and step == steps[-1]:
                part = draw.randrange(2, four_kinds.PARTS - 1)
                yield signal.SIGTERM, "cache", lambda part=part: count(root, "cache") >= part
            elif name == "sampler" and number == signal.SIGKILL:
                folder = root / name
                yield number, name, lambda folder=folder: is_saving(folder)
            else:
                # What was done again counts again, so the moments lie a little before the step.
                yield number, name, lambda name=name, step=step: count(root, name) >= step


def read(root: Path, name: str) -> list[tuple[int, list[int]]]:
    """Which records every step read, in every life of the process."""
    path = root / f"{name}.order"
    if not path.exists():  # it takes no batches
        return []
    # The last line of a life may be torn.
    found = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return [(line["step"], line["index"]) for line in found]


def lines(folder: Path):
    found = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in found]


def test_processes_that_are_told_to_end_or_killed_lose_nothing(tmp_path, processes):
    whole, pieced = tmp_path / "whole", tmp_path / "pieced"
    processes.start(whole)
    assert processes.ended() == 0, (whole / "errors").read_text()

    sent = []
    for number, place, moment in moments(pieced):
        said = send(processes, pieced, number, moment)
        sent.append((number, place))
        assert "Traceback" not in said
        if number != signal.SIGKILL:
            assert f"stopped by {number.name}: " in said.splitlines()[-1]
            assert "the same command goes on" in said.splitlines()[-1]
    assert len(sent) == 12
    assert {place for _, place in sent} == {*four_kinds.KINDS, "cache"}
    processes.start(pieced)
    assert processes.ended() == 0, (pieced / "errors").read_text()

    for name in four_kinds.KINDS:
        ours, theirs = pieced / name, whole / name
        expected = dict(read(whole, name))
        again = read(pieced, name)
        assert len(again) >= len(expected)
        assert {step for step, _ in again} == expected.keys()
        assert all(index == expected[step] for step, index in again)
        assert fingerprint(load_arrays(ours / "result")) == fingerprint(
            load_arrays(theirs / "result")
        )
        assert lines(ours) == lines(theirs)
        records = [load_record(folder / "result") for folder in (ours, theirs)]
        for record in records:
            record.pop("seconds")
            record.pop("lines")
        assert records[0] == records[1]
        assert sorted(path.name for path in ours.iterdir()) == sorted(
            path.name for path in theirs.iterdir()
        )
    stores = [open_store(root / "cache") for root in (pieced, whole)]
    assert [store.verify() for store in stores] == [[], []]
    rows = [store.read(np.arange(four_kinds.RECORDS)) for store in stores]
    for name in rows[0]:
        np.testing.assert_array_equal(rows[0][name], rows[1][name])
    assert [file["checksum"] for file in stores[0].manifest["files"]] == [
        file["checksum"] for file in stores[1].manifest["files"]
    ]
