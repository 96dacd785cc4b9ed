"""Streams: the order is a function of the seed, whatever reads it and wherever it starts."""

import itertools
import subprocess
import sys
import threading

import numpy as np
import pytest

from jaxdistill.data import sources
from jaxdistill.data.stream import evaluation_batches, stream


def numbers(n=50, name="numbers"):
    image = np.arange(n, dtype=np.float32).reshape(n, 1, 1, 1)
    return sources.arrays({"image": image, "label": np.arange(n) % 5}, name=name)


def indices(batches, steps, start=0):
    return np.concatenate([batches.at(step)["index"] for step in range(start, start + steps)])


def same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], strict=True)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("start", [0, 7])
def test_iterate_gives_what_at_gives_from_any_step(threads, start):
    batches = stream(numbers(), 8, seed=3, threads=threads)
    for step, batch in enumerate(itertools.islice(batches.iterate(start), 20), start):
        same(batch, batches.at(step))


def test_every_epoch_is_another_permutation():
    read = indices(stream(numbers(), 8, seed=0), 25)  # 200 records: four epochs
    epochs = read.reshape(4, 50)
    assert (np.sort(epochs) == np.arange(50)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert not (epochs == np.arange(50)).all(1).any()


def test_the_seed_is_all_that_matters():
    first, again, other = (indices(stream(numbers(), 8, seed=seed), 6) for seed in (1, 1, 2))
    assert (first == again).all()
    assert not (first == other).all()
    # The seed of one run must not give the epochs of another, one later.
    second_epoch = indices(stream(numbers(), 50, seed=1), 1, start=1)
    assert not (second_epoch == indices(stream(numbers(), 50, seed=2), 1)).all()


def test_the_order_is_fixed_for_all_time():
    assert indices(stream(numbers(10), 5, seed=0), 2).tolist() == [0, 8, 9, 3, 7, 5, 1, 2, 6, 4]


def test_without_shuffling_records_come_in_order():
    read = indices(stream(numbers(10), 4, seed=0, order="given"), 5)
    assert (read == np.arange(20) % 10).all()


@pytest.mark.parametrize("weights", [None, np.arange(50)])
def test_processes_share_every_batch(weights):
    whole = stream(numbers(), 12, seed=5, weights=weights)
    shares = [stream(numbers(), 12, seed=5, weights=weights, shard=(i, 3)) for i in range(3)]
    for step in (0, 3, 4, 9):
        parts = [share.at(step) for share in shares]
        same(whole.at(step), {k: np.concatenate([part[k] for part in parts]) for k in parts[0]})


def test_takes_stacks_consecutive_batches():
    batches = stream(numbers(), 4, seed=0)
    stacked = batches.at(2, takes=3)
    assert stacked["image"].shape == (3, 4, 1, 1, 1)
    for place in range(3):
        same({key: value[place] for key, value in stacked.items()}, batches.at(6 + place))
    same(next(batches.iterate(2, takes=3)), stacked)


def test_weights_draw_records_as_often_as_they_say():
    weights = np.zeros(50)
    weights[[3, 40]] = [1, 3]
    read = indices(stream(numbers(), 50, seed=0, weights=weights), 40)
    assert set(read) == {3, 40}
    assert (read == 40).mean() == pytest.approx(0.75, abs=0.04)


def test_a_mixture_may_change_between_steps():
    whole = sources.concatenate([numbers(30, "small"), numbers(70, "large")])
    even = stream(whole, 100, seed=0, weights={"small": 1, "large": 1})
    share = np.mean([even.at(step)["group"].mean() for step in range(20)])
    assert share == pytest.approx(0.5, abs=0.05)
    assert (stream(whole, 100, seed=0, weights={"large": 2}).at(20)["group"] == 1).all()
    with pytest.raises(ValueError, match=r"unknown group of .* 'larg': did you mean 'large'"):
        stream(whole, 10, seed=0, weights={"larg": 1})


@pytest.mark.parametrize(
    ("batch_size", "settings", "words"),
    [
        (51, {}, "a batch of 51 is larger than 'numbers', which holds 50 records"),
        (0, {}, "a batch of 0 cannot be shared"),
        (10, {"shard": (0, 3)}, "a batch of 10 cannot be shared evenly by 3 processes"),
        (9, {"shard": (3, 3)}, "process in 0..processes-1"),
        (8, {"seed": -1}, "seed must lie in"),
        (8, {"order": "givn"}, "unknown order of a stream 'givn': did you mean 'given'"),
        (8, {"order": "given", "weights": np.ones(50)}, "no order to keep"),
        (8, {"weights": np.ones(49)}, "50 records but weights have shape"),
        (8, {"weights": np.zeros(50)}, "not all zero"),
        (8, {"weights": -np.ones(50)}, "not negative"),
    ],
)
def test_bad_streams_are_refused(batch_size, settings, words):
    with pytest.raises(ValueError, match=words):
        stream(numbers(), batch_size, **{"seed": 0, **settings})


def test_bad_steps_are_refused():
    with pytest.raises(ValueError, match="not -1 and 1"):
        stream(numbers(), 8, seed=0).at(-1)


def test_an_error_in_a_record_reaches_the_reader():
    def read(positions):
        raise OSError("the disk is gone")

    broken = sources.Source("broken", sources.Ids(9, str), read)
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream(broken, 3, seed=0).iterate())


@pytest.mark.parametrize("threads", [0, 2])
def test_evaluation_covers_every_record_once_and_can_be_repeated(threads):
    batches = evaluation_batches(numbers(10), 4, threads=threads)
    for _ in range(2):
        read = list(batches)
        assert len(read) == len(batches) == 3
        assert all(batch["image"].shape == (4, 1, 1, 1) for batch in read)
        where = np.concatenate([batch["where"] for batch in read])
        index = np.concatenate([batch["index"] for batch in read])
        assert where.tolist() == [True] * 10 + [False] * 2
        assert index[where].tolist() == list(range(10))


def test_evaluation_is_shared_and_padded_alike():
    whole = list(evaluation_batches(numbers(10), 4))
    shares = [list(evaluation_batches(numbers(10), 4, shard=(i, 2))) for i in range(2)]
    for batch, first, second in zip(whole, *shares, strict=True):
        same(batch, {key: np.concatenate([first[key], second[key]]) for key in batch})


@pytest.mark.parametrize("pixels", [1, 2**16])
def test_what_is_read_ahead_is_what_is_read_when_asked(pixels):
    """Small batches come from the threads many at a time, large ones one by one."""
    image = np.arange(10 * pixels, dtype=np.float32).reshape(10, pixels)
    source = sources.Source("set", sources.Ids(10, str), lambda rows: {"image": image[rows]})
    for start in (0, 37):
        ahead = stream(source, 5, seed=0).iterate(start)
        asked = stream(source, 5, seed=0, threads=0).iterate(start)
        for _ in range(70):
            same(next(ahead), next(asked))
        ahead.close()
    batches = evaluation_batches(source, 4)
    assert [int(batch["where"].sum()) for batch in batches] == [4, 4, 2]


def test_readers_that_are_left_behind_stop():
    # Threads of this reader alone: those of other tests come and go meanwhile.
    before = set(threading.enumerate())
    reading = stream(numbers(), 8, seed=0).iterate()
    next(reading), next(reading)
    started = set(threading.enumerate()) - before
    assert started
    reading.close()
    for thread in started:
        thread.join(10)
    assert not any(thread.is_alive() for thread in started)


QUIT = """
import sys
from jaxdistill.data import sources, stream
reading = stream.stream(sources.digits(), 64, seed=0).iterate(10)
next(reading)
assert "tensorflow" not in sys.modules
"""


def test_a_reader_still_open_at_exit_says_nothing():
    command = [sys.executable, "-W", "error", "-c", QUIT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
