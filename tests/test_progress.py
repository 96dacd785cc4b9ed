"""Progress on a terminal, in a file, resumed, and silent."""

import io

import pytest

from jaxdistill.training.progress import Progress, duration


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
def test_quiet(stream):
    with Progress(1, label="distil", stream=stream, quiet=True) as progress:
        progress.update(1, {"loss": 1.0})
    assert stream.getvalue() == ""


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
