"""Progress on a terminal, in a file, in a notebook, resumed, inside other work, and silent."""

import io

import jax
import numpy as np
import pytest

from jaxdistill import progress as module
from jaxdistill._files import seal_folder, verify_folder
from jaxdistill.data.content import Files
from jaxdistill.data.documents import Document
from jaxdistill.data.records import Source
from jaxdistill.data.text import windows
from jaxdistill.data.tokenizers import byte_tokenizer
from jaxdistill.evaluation.batches import sweep
from jaxdistill.progress import Progress, duration, shown, silence
from jaxdistill.store import Layout, begin, open_store


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(steps, seconds, **settings):
    """Runs to a number of steps, each of so many seconds, and returns the lines."""
    stream, clock = io.StringIO(), Clock()
    begin = settings.get("start", 0)
    with Progress(100, label="distil", stream=stream, clock=clock, **settings) as progress:
        for step in range(begin + 1, begin + steps + 1):
            clock.now += seconds
            progress.update(step, {"loss": 1 / step} if step % 5 == 0 else {})
    return stream.getvalue().splitlines()


def test_a_plain_line_every_ten_seconds_and_one_at_the_end():
    lines = run(12, 2.0)
    assert [line.split(",")[0] for line in lines] == [
        "distil: 5/100 steps",
        "distil: 10/100 steps",
        "distil: 12/100 steps",
    ]
    assert lines[1] == "distil: 10/100 steps, 20 s, 0.5 steps/s, 3 min 00 s left, loss 0.1"
    # What was last measured stays.
    assert lines[2].endswith("loss 0.1")


def test_one_line_only_when_the_last_was_just_written():
    assert len(run(5, 2.0)) == 1


def test_rate_counts_only_the_steps_of_this_run():
    (line,) = run(10, 0.5, start=90, batch_size=1000)
    assert line == "distil: 100/100 steps, 5.0 s, 2 steps/s, 2,000 examples/s, loss 0.01"


def test_the_first_step_is_left_out_of_the_rate():
    stream, clock = io.StringIO(), Clock()
    with Progress(3, label="teacher", stream=stream, clock=clock) as progress:
        for step, now in ((1, 60.0), (2, 61.0), (3, 62.0)):
            clock.now = now
            progress.update(step)
    assert "1 steps/s" in stream.getvalue().splitlines()[-1]


def test_terminal_shows_one_line_that_refreshes():
    stream = Terminal()
    with Progress(4, label="distil", start=1, stream=stream) as progress:
        for step in (2, 3, 4):
            progress.update(step, {"loss": 0.25})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.rstrip().split("\r")[-1].startswith("distil: 100%")
    assert "4/4" in text
    assert "loss 0.25" in text


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_silence_holds_for_all_that_runs_inside(stream):
    with silence(), silence(False), Progress(1, label="distil", stream=stream) as progress:
        progress.update(1, {"loss": 1.0})
    assert stream.getvalue() == ""
    with silence(False), Progress(1, label="distil", stream=stream) as progress:
        progress.update(1, {"loss": 1.0})
    assert "distil" in stream.getvalue()


def worked(count, seconds, stream, **settings):
    """Work inside other work: so many items, each of so many seconds."""
    clock, done = Clock(), []
    for item in shown(range(count), "hash", "files", stream=stream, clock=clock, **settings):
        clock.now += seconds
        done.append(item)
    return done, stream.getvalue().splitlines()


def test_short_work_inside_other_work_says_nothing():
    assert worked(5, 1.0, io.StringIO()) == ([0, 1, 2, 3, 4], [])


def test_long_work_inside_other_work_says_how_far_it_is():
    _, lines = worked(5, 6.0, io.StringIO())
    # Its rate counts all items: nothing is compiled with the first.
    assert lines == [
        "hash: 2/5 files, 12 s, 0.167 files/s, 18 s left",
        "hash: 4/5 files, 24 s, 0.167 files/s, 6.0 s left",
        "hash: 5/5 files, 30 s, 0.167 files/s",
    ]


def test_slow_work_says_how_long_each_takes():
    _, lines = worked(2, 90.0, io.StringIO())
    assert lines[0] == "hash: 1/2 files, 1 min 30 s, 1 min 30 s each, 1 min 30 s left"


def test_work_of_unknown_length():
    clock, stream = Clock(), io.StringIO()
    for _ in shown(iter("abc"), "read", "documents", stream=stream, clock=clock):
        clock.now += 10.0
    assert stream.getvalue().splitlines()[-1] == "read: 3 documents, 30 s, 0.1 documents/s"


def test_work_inside_other_work_leaves_nothing_on_a_terminal():
    _, lines = worked(3, 1.0, Terminal())
    assert "".join(lines).replace("\r", "").strip() == ""


def test_work_that_is_broken_off_is_closed(monkeypatch):
    closed = []
    monkeypatch.setattr(Progress, "close", lambda self: closed.append(self.label))
    for _ in shown(range(3), "hash"):
        break
    assert closed == ["hash"]


class Cell:
    """A notebook's output, as IPython's display calls make it."""

    def __init__(self):
        self.seen = []

    def display(self, data, raw, display_id):
        assert raw
        assert display_id
        self.update(data, raw)
        return self

    def update(self, data, raw):
        self.seen.append(data)


@pytest.fixture
def cell(monkeypatch):
    found = Cell()
    monkeypatch.setattr(module, "_in_kernel", lambda: True)
    monkeypatch.setattr("IPython.display.display", found.display)
    return found


def test_a_notebook_has_a_bar_without_widgets(cell):
    clock = Clock()
    with Progress(4, label="a<b", clock=clock) as progress:
        for step in (1, 2, 3, 4):
            clock.now += 0.15
            progress.update(step, {"loss": 0.5})
    assert [data["text/plain"].split(",")[0] for data in cell.seen] == [
        "a<b: 2/4 steps",
        "a<b: 4/4 steps",
        "a<b: 4/4 steps",
    ]
    assert '<progress value="4" max="4"' in cell.seen[-1]["text/html"]
    assert "a&lt;b: 4/4 steps" in cell.seen[-1]["text/html"]


def test_work_inside_other_work_goes_from_a_notebook_when_it_is_done(cell):
    clock = Clock()
    for _ in shown(range(3), "hash", clock=clock):
        clock.now += 0.7
    assert [bool(data["text/plain"]) for data in cell.seen] == [True, True, False]


def test_only_the_first_process_speaks(monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    assert run(10, 5.0) == []


def test_nothing_done_says_nothing():
    assert run(0, 1.0) == []


def test_a_fault_is_not_swallowed():
    stream = io.StringIO()
    progress = Progress(2, label="distil", stream=stream)
    progress.update(1)
    assert not progress.__exit__(KeyError, KeyError(), None)
    assert "1/2 steps" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.96, "10.0 s"),
        (59.7, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (90000, "25 h 00 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def _read(tmp_path):
    images = np.zeros((3, 2, 2, 1), np.uint8)
    Source("photos", ["a", "b", "c"], lambda rows: {"image": images[rows]}).contents()


def _files(tmp_path):
    for number in range(130):
        (tmp_path / f"{number}.bin").write_bytes(bytes([number]))
    return Files(sorted(tmp_path.glob("*.bin")))()


def _sealed(tmp_path):
    (tmp_path / "a").write_text("a")
    seal_folder(tmp_path)
    verify_folder(tmp_path)


def _stored(tmp_path):
    layout = Layout({"x": jax.ShapeDtypeStruct((2,), np.float32)})
    writer = begin(tmp_path / "store", {}, layout, 3, container="npy")
    for number in range(len(writer.parts())):
        first, last = writer.parts()[number]
        writer.write(number, {"x": np.zeros((last - first, 2), np.float32)}, {})
    writer.finish(["a", "b", "c"], {})
    assert not open_store(tmp_path / "store").verify()


def _swept(tmp_path):
    step = jax.jit(lambda variables, batch, number: batch["where"].sum())
    assert list(sweep(step, {}, [{"x": np.zeros(2)}])) == [2]


LONG = {
    "records": (_read, {"read photos"}),
    "files": (_files, {"hashes of files"}),
    "folders": (_sealed, {"seal", "verify"}),
    "stores": (_stored, {"open store", "verify store"}),
    "evaluations": (_swept, {"evaluate"}),
    "texts": (
        lambda path: windows([Document("a", "b")], byte_tokenizer(), 4, name="notes"),
        {"tokens of notes"},
    ),
}


@pytest.mark.parametrize("kind", LONG)
def test_what_takes_long_says_how_far_it_is(kind, tmp_path, monkeypatch):
    labels, begun = set(), Progress.__init__

    def begin(self, *given, label, **settings):
        labels.add(label.replace(f" {tmp_path.name}", ""))
        begun(self, *given, label=label, **settings)

    monkeypatch.setattr(Progress, "__init__", begin)
    work, expected = LONG[kind]
    work(tmp_path)
    assert expected <= labels
