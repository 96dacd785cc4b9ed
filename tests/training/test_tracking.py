"""Trackers hold the lines of a run, each point once, whatever happens to the run or to them."""

import glob
import importlib.util
import json
import logging
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxdistill.training import tracking
from jaxdistill.training.metrics import json_lines
from jaxdistill.training.tracking import Sink, Tracker, sheet, watched

ROOT = Path(__file__).parents[2]
NAMES = sorted(tracking.TRACKERS)


@pytest.fixture(params=NAMES)
def name(request, monkeypatch, tmp_path):
    """Each tracker, offline."""
    package = {"tensorboard": "tensorboardX"}.get(request.param, request.param)
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'jaxdistill[{request.param}]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # Read once, when trackio is imported; every test has a project of its own in it.
    os.environ.setdefault("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("TRACKIO_PROJECT", f"{tmp_path.parent.name}-{tmp_path.name}")
    return request.param


def records(path):
    """The records of a file of Weights & Biases: blocks of 32 KiB, as LevelDB keeps its logs."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # all of it, or its last part
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def events(path):
    """The events of a file of TensorBoard."""
    from tensorboardX.proto.event_pb2 import Event

    data, at = Path(path).read_bytes(), 0
    while at < len(data):
        (size,) = struct.unpack("<Q", data[at : at + 8])
        event = Event()
        event.ParseFromString(data[at + 12 : at + 12 + size])
        at += size + 16
        yield event


def rows_of(name, root):
    """What a tracker holds, as ``(stage, step, metric, value)`` and pictures and texts by name."""
    points, other = [], set()
    if name == "tensorboard":
        for path in glob.glob(f"{root}/tensorboard/*/events*"):
            stage = Path(path).parent.name
            for event in events(path):
                for value in event.summary.value:
                    if value.HasField("simple_value"):
                        points.append((stage, event.step, value.tag, value.simple_value))
                    else:
                        other.add(value.tag.split("/")[0])
        return sorted(points), other
    if name == "wandb":
        # A process leaves a folder with all of it; the newest counts.
        newest = max(Path(root).glob("wandb/offline-run-*/*.wandb"), key=os.path.getmtime)
        rows, deadline = [], time.monotonic() + 60
        while not any(record.HasField("exit") for record in records(newest)):
            assert time.monotonic() < deadline, "its service has not written the end"
            time.sleep(0.05)
        for record in records(newest):
            if record.HasField("history"):
                items = record.history.item
                rows.append({i.key or i.nested_key[0]: json.loads(i.value_json) for i in items})
            if record.HasField("summary"):
                other |= {i.key or i.nested_key[0] for i in record.summary.update}
    else:
        from trackio.sqlite_storage import SQLiteStorage

        held = json.loads((Path(root) / "tracking.json").read_text())["id"]
        rows = SQLiteStorage.get_logs(os.environ["TRACKIO_PROJECT"], f"{Path(root).name} ({held})")
    for row in rows:
        for key, value in row.items():
            stage, slash, metric = key.partition("/")
            if slash and metric != "step" and isinstance(value, (int, float)):
                points.append((stage, row[f"{stage}/step"], metric, value))
            elif not slash and not key.startswith("_"):
                other.add(key)
    return sorted(points), other


LINES = {
    "teacher": [("train", 2, {"loss": 0.5}), ("evaluation", 2, {"test/accuracy": 0.75})],
    "student": [
        ("teacher", 0, {"teacher:test/accuracy": 0.75}),
        ("train", 2, {"loss": 0.25, "kd": 0.125}),
        ("train", 4, {"loss": 0.0625, "kd": 0.5}),
        ("evaluation", 4, {"test/accuracy": 1.0}),
    ],
}
POINTS = sorted(
    (stage, step, tag.replace(":", "/") if "/" in tag else f"{kind}/{tag}", value)
    for stage, lines in LINES.items()
    for kind, step, values in lines
    for tag, value in values.items()
)


def run(tracker, root, stages=LINES, lines=LINES):
    """Gives a tracker the lines of stages as the loop does, which writes them to files as well."""
    before = 0
    for stage in stages:
        folder = Path(root) / stage
        folder.mkdir(exist_ok=True)
        writer = tracker.stage(stage, before=before, folder=folder)
        own = json_lines(folder / "metrics.jsonl")
        for kind, step, values in lines[stage]:
            writer(step, values, kind)
            own(step, values, kind)
        before += max(step for _, step, _ in LINES[stage]) + 1
        yield writer
        tracker.end(writer, [{"step": s, "kind": k, **v} for k, s, v in lines[stage]])


def test_every_point_of_a_run_once(name, tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    for again in range(2):  # the same command once more, when all is done, changes nothing
        with watched([name], tmp_path, config={"seed": 3}) as (tracker,):
            list(run(tracker, tmp_path))
            tracker.summary({"student/test/accuracy": 1.0}, {"digits": picture})
        points, other = rows_of(name, tmp_path)
        assert points == POINTS, again
        assert "digits" in other
        for path in glob.glob(f"{tmp_path}/*/metrics.jsonl"):
            os.truncate(path, 0)


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from test_tracking import LINES, run, watched
import os
root = sys.argv[2]
with watched([sys.argv[3]], root) as (tracker,):
    stages = run(tracker, root)
    next(stages), next(stages)
    os.kill(os.getpid(), 9)
"""


def test_a_killed_run_goes_on_without_a_gap_and_nothing_twice(name, tmp_path):
    # What a tracker has kept of a process that was killed depends on when: nothing or all of it.
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path), name]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"} | {"PYTHONPATH": path}
    done = subprocess.run(command, env=env)
    assert done.returncode == -signal.SIGKILL
    identity = (tmp_path / "tracking.json").read_text()
    with watched([name], tmp_path) as (tracker,):
        # The last checkpoint was before the last lines of the student: they come again.
        list(run(tracker, tmp_path, lines={**LINES, "student": LINES["student"][1:]}))
    assert rows_of(name, tmp_path)[0] == POINTS
    assert (tmp_path / "tracking.json").read_text() == identity


def sink(rows, held=0, fails=lambda: False):
    def row(row):
        if fails():
            raise ConnectionError("no network")
        rows.append(row)

    return Sink(row, lambda *_: None, lambda failed: None, held)


def test_a_tracker_that_fails_stops_nothing_and_gets_what_it_lacks(tmp_path, caplog):
    rows, broken = [], [True]
    tracker = Tracker("wandb", lambda: sink(rows, fails=lambda: broken[0]))
    for stage, _ in zip(LINES, run(tracker, tmp_path), strict=False):
        broken[0] = stage == "teacher"
    tracker.close()
    assert [row.place for row in rows] == [2, 3, 5, 7]
    said = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert said == ["wandb fails, the run goes on without it: no network"]


@pytest.mark.parametrize("where", ["open", "summary", "close"])
def test_no_fault_of_a_tracker_reaches_the_run(tmp_path, caplog, where):
    def fail(*_):
        raise OSError("disk full")

    def begin():
        if where == "open":
            fail()
        rows = sink([])
        return rows._replace(**{where: fail})

    tracker = Tracker("trackio", begin)
    list(run(tracker, tmp_path))
    tracker.summary({"a": 1.0})
    tracker.close()
    assert [r.message for r in caplog.records] == [
        "trackio fails, the run goes on without it: disk full"
    ]


def test_values_of_one_step_are_one_row_and_what_is_held_is_passed_over(tmp_path):
    rows = []
    tracker = Tracker("wandb", lambda: sink(rows, held=4))
    list(run(tracker, tmp_path))
    tracker.close()
    assert [(row.stage, row.step, row.place, len(row.values)) for row in rows] == [
        ("student", 2, 5, 2),
        ("student", 4, 7, 3),
    ]


def test_trackers_that_cannot_be_used_are_refused(tmp_path, monkeypatch):
    with (
        pytest.raises(ValueError, match=r"unknown tracker 'wandbb'.*did you mean 'wandb'"),
        watched(["wandbb"], tmp_path),
    ):
        pass
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for each in NAMES:
        with pytest.raises(ImportError, match=rf"{each} needs: pip install \"jaxdistill\[{each}\]"):
            tracking.check([each])
    assert not list(tmp_path.iterdir())


def test_several_runs_of_a_directory_have_names_of_their_own(tmp_path):
    seen = [tracking._about(tmp_path, {}, part) for part in ("", "seed 0, alone", "seed 1, alone")]
    assert len({about.id for about in seen}) == 3
    assert seen[1].part == "seed-0-alone"
    assert seen[1].group == tmp_path.name


def test_a_sheet_of_images():
    drawn = sheet([np.zeros((3, 8, 8, 1)), np.ones((2, 80, 40, 3)) * [1.0, 0.5, 0.0]])
    assert drawn.shape == (64 + 80, 192, 3)
    assert drawn.dtype == np.uint8
    assert (drawn[0, 0] == 0).all()
    assert (drawn[-1, 0] == [255, 128, 0]).all()
    assert (drawn[-1, -1] == 255).all()  # shorter rows end in white
