"""The pipeline: the same bytes whatever happens on the way."""

import dataclasses
import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from jaxdistill import records
from jaxdistill._files import Damaged
from jaxdistill.records import Answers, Decision, Request, Response, Sampling, Teacher, deciding


def requests(count=30, **fields):
    return [Request.of(f"what is {i}?", source=f"items/{i}", **fields) for i in range(count)]


def oracle(asked=None, *, shuffled=0, stop_after=None, name="oracle"):
    def answer(questions):
        order = list(questions)
        random.Random(shuffled).shuffle(order)
        for number, each in enumerate(order):
            if number == stop_after:
                raise KeyboardInterrupt
            if asked is not None:
                asked.append((each.id, each.sample))
            yield Response(each.id, each.sample, f"{each.messages[-1].content} {each.seed % 7}")

    return Teacher(name, "1", answer)


def last_digit(items, seed, *, least: int = 3):
    return [
        Decision(r, int(r.answer[-1]) >= least, float(r.answer[-1]), "small digit") for r in items
    ]


@deciding(requests=True)
def half(items, seed):
    return [Decision(r, int(r.id, 16) % 2 == 0, reason="odd") for r in items]


STEPS = {"before": [records.step(half)], "after": [records.step(last_digit, least=2)]}


def digests(folder):
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
def test_the_same_bytes_in_whatever_order_requests_and_answers_come(tmp_path, container):
    if container == "parquet":
        pytest.importorskip("pyarrow")
    found = []
    for run in range(3):
        asked = requests(sampling=Sampling(n=3))
        random.Random(run).shuffle(asked)
        records.write(
            asked, oracle(shuffled=run), tmp_path / f"{run}", **STEPS, container=container, size=7
        )
        found.append(digests(tmp_path / f"{run}"))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) > 4
    lines = [*records.open_written(tmp_path / "0").records()]
    assert [r.id for r in lines] == sorted(r.id for r in lines)


def test_both_containers_hold_the_same_records(tmp_path):
    pytest.importorskip("pyarrow")
    one, two = (
        records.write(requests(), oracle(), tmp_path / each, **STEPS, container=each)
        for each in ("jsonl", "parquet")
    )
    assert [*one.records()] == [*two.records()]
    two.verify()


def test_a_second_run_asks_nothing(tmp_path):
    asked = []
    first = records.write(requests(), oracle(asked), tmp_path / "set", **STEPS)
    count = len(asked)
    assert count
    again = records.write(requests(), oracle(asked), tmp_path / "set", **STEPS)
    assert again.manifest == first.manifest
    kept = Answers(tmp_path / "set.answers")
    other = records.write(requests(), oracle(asked), tmp_path / "other", answers=kept, **STEPS)
    assert len(asked) == count
    assert digests(tmp_path / "other") == digests(tmp_path / "set")
    assert other.manifest == first.manifest


def test_more_samples_later_ask_only_the_new_ones(tmp_path):
    asked, answers = [], Answers()
    records.write(requests(5), oracle(asked), tmp_path / "one", answers=answers)
    more = requests(5, sampling=Sampling(n=4))
    records.write(more, oracle(asked), tmp_path / "four", answers=answers)
    assert len(asked) == len(set(asked)) == 20


def test_a_teacher_that_stops_keeps_what_it_said(tmp_path):
    asked = []
    with pytest.raises(KeyboardInterrupt):
        records.write(requests(), oracle(asked, stop_after=11), tmp_path / "set")
    assert not (tmp_path / "set").exists()
    records.write(requests(), oracle(asked), tmp_path / "set")
    assert len(asked) == len(set(asked)) == 30
    records.write(requests(), oracle(), tmp_path / "unbroken")
    assert digests(tmp_path / "set") == digests(tmp_path / "unbroken")


KILLED = """
import os, sys, signal
sys.path.insert(0, {tests!r})
import test_writing as t
from jaxdistill import records
from jaxdistill.records import shards

def killing(file, rows, write=shards._write_lines):
    count = write(file, rows)
    if file.name == "records-00001.jsonl":
        os.kill(os.getpid(), signal.SIGKILL)
    return count

shards._write_lines = killing
records.write(t.requests(), t.oracle(), {folder!r}, **t.STEPS, size=4)
"""


def test_killed_in_the_middle_of_writing_and_resumed(tmp_path):
    code = textwrap.dedent(KILLED).format(
        tests=str(Path(__file__).parent), folder=str(tmp_path / "set")
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=120, check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "set").exists()
    assert (tmp_path / "set.part" / "records-00001.jsonl").exists()
    asked = []
    records.write(requests(), oracle(asked), tmp_path / "set", **STEPS, size=4)
    assert asked == []
    records.write(requests(), oracle(), tmp_path / "unbroken", **STEPS, size=4)
    assert digests(tmp_path / "set") == digests(tmp_path / "unbroken")
    assert not (tmp_path / "set.part").exists()


def test_nothing_vanishes(tmp_path):
    written = records.write(requests(), oracle(), tmp_path / "set", **STEPS)
    dropped = [*written.dropped()]
    assert len(written) + len(dropped) == 30
    assert {each.verdict.step for each in dropped} == {"half", "last_digit"}
    for each in dropped:
        assert not each.verdict.keep
        assert each.verdict.reason
        if each.verdict.step == "last_digit":
            assert each.verdict.score == float(each.item.answer[-1]) < 2
            assert each.item.history[-1] == each.verdict
    counts = written.manifest["after"][0]
    assert counts["came"] == counts["kept"] + sum(counts["dropped"].values())
    for each in written.records():
        assert each.provenance.teacher == "oracle"
        assert [v.step for v in each.history] == ["last_digit"]


def test_several_teachers_in_one_run(tmp_path):
    asked = [dataclasses.replace(r, teacher="ab"[i % 2]) for i, r in enumerate(requests(10))]
    a, b = oracle(name="a"), oracle(name="b")
    written = records.write(asked, [a, b], tmp_path / "set", weights={"b": 0.5})
    weights = {(r.provenance.teacher, r.weight) for r in written.records()}
    assert weights == {("a", 1.0), ("b", 0.5)}


def test_failed_answers_are_said_and_asked_again(tmp_path):
    healthy = False

    def answer(questions):
        for number, each in enumerate(questions):
            bad = number == 0 and not healthy
            finish, error = ("failed", "timeout") if bad else ("stop", "")
            yield Response(each.id, each.sample, "1", finish, error)

    teacher = Teacher("shaky", "1", answer)
    with pytest.raises(ValueError, match=r"1 of 30 questions failed \('timeout'\).*run it again"):
        records.write(requests(), teacher, tmp_path / "set")
    allowed = records.write(requests(), teacher, tmp_path / "few", answers=Answers(), failures=0.1)
    assert len(allowed) == 29
    assert allowed.manifest["failed"] == 1
    (lost,) = allowed.dropped()
    assert (lost.verdict.reason, lost.verdict.detail) == ("failed", "timeout")
    healthy = True
    assert len(records.write(requests(), teacher, tmp_path / "set")) == 30


def test_a_folder_of_something_else_is_refused(tmp_path):
    records.write(requests(), oracle(), tmp_path / "set", **STEPS)
    other = [records.step(last_digit, least=5)]
    with pytest.raises(ValueError, match="holds records of something else") as fault:
        records.write(requests(), oracle(), tmp_path / "set", before=STEPS["before"], after=other)
    assert "after" in str(fault.value)


def test_damage_is_seen(tmp_path):
    written = records.write(requests(), oracle(), tmp_path / "set")
    file = tmp_path / "set" / "records-00000.jsonl"
    file.write_bytes(file.read_bytes().replace(b"what is 3", b"what is 4", 1))
    with pytest.raises(Damaged, match=r"records-00000.jsonl is not what manifest.json says"):
        written.verify()
    (answers,) = (tmp_path / "set.answers").glob("*/*.jsonl")
    answers.write_bytes(answers.read_bytes()[:-5])
    with pytest.raises(Damaged, match="its name is not the hash"):
        Answers(tmp_path / "set.answers")


def _seedless(items, seed):
    drawn = np.random.default_rng()
    return [Decision(r, bool(drawn.random() < 0.5), reason="chance") for r in items]


def _lossy(items, seed):
    return [Decision(r) for r in items[1:]]


def _doubling(items, seed):
    return [Decision(r) for r in [*items, items[0]]]


def _orphans(items, seed):
    return [Decision(r) for r in [*items, dataclasses.replace(items[0], id="new")]]


def _untold(items, seed):
    return list(items)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (_lossy, "decided nothing about 1 of 30 records"),
        (_doubling, "decides twice"),
        (_orphans, "is new and names no parents"),
        (_untold, "for a Decision"),
    ],
)
def test_broken_steps_are_caught(tmp_path, broken, said):
    with pytest.raises(ValueError, match=said):
        records.write(requests(), oracle(), tmp_path / "set", after=[records.step(broken)])
    assert not (tmp_path / "set").exists()


def test_a_step_that_forgets_its_seed_is_caught(tmp_path):
    step = records.step(_seedless)
    runs = [
        records.write(requests(), oracle(), tmp_path / str(i), after=[step]).manifest["shards"]
        for i in range(2)
    ]
    assert runs[0] != runs[1]
    kept = [*records.open_written(tmp_path / "0").records()]
    with pytest.raises(ValueError, match="'_seedless' decides otherwise when it is run again"):
        records.refuse_unsteady(step, kept)
    records.refuse_unsteady(records.step(last_digit), kept)


def _stranger(questions):
    yield Response("unknown", 0, "")


def _twice(questions):
    for each in [*questions, questions[0]]:
        yield Response(each.id, each.sample, "")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda questions: [], "left 30 of 30 questions without an answer"),
        (_stranger, "was not asked"),
        (_twice, "answered twice"),
        (lambda questions: ["text"], "for a Response"),
    ],
)
def test_what_teachers_may_not_do(tmp_path, answer, said):
    with pytest.raises(ValueError, match=said):
        records.write(requests(), Teacher("bad", "1", answer), tmp_path / "set")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"requests": requests(2) + requests(1)}, "give each item a source of its own"),
        ({"requests": requests(2, teacher="orcle")}, "did you mean 'oracle'"),
        ({"teachers": []}, "teachers need names"),
        ({"weights": {"orcale": 1.0}}, "did you mean 'oracle'"),
        ({"failures": 2}, "failures=2 must be"),
        ({"before": [records.step(last_digit)]}, "put it into 'after'"),
        ({"container": "csv"}, "container='csv' must be"),
    ],
)
def test_bad_calls_ask_nobody(tmp_path, call, said):
    asked = []
    arguments = {"requests": requests(), "teachers": oracle(asked), "folder": tmp_path / "s"}
    with pytest.raises(ValueError, match=said):
        records.write(**{**arguments, **call})
    assert asked == []
    assert not (tmp_path / "s").exists()


@deciding(gives=("unique",), undoes=(records.steps.SAMPLES,))
def _unique(items, seed): ...


@deciding(undoes=("unique",))
def _copying(items, seed): ...


@deciding(needs=(records.steps.SAMPLES,))
def _voting(items, seed): ...


@deciding(gives=("score {name}",))
def _scoring(items, seed, *, name: str): ...


@deciding(needs=("score {by}",))
def _best(items, seed, *, by: str): ...


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ([_voting, _unique], None),
        ([_unique, _voting], "needs all answers, which '_unique' before it has undone"),
        ([_copying, _unique], None),
        ([_unique, _copying], "would undo what '_unique' before it gives"),
        ([(_best, {"by": "x"})], "needs score x, which nothing before it gives"),
        ([(_scoring, {"name": "x"}), (_best, {"by": "x"})], None),
        ([(_scoring, {"name": "y"}), (_best, {"by": "x"})], "needs score x"),
    ],
)
def test_orders_that_cannot_be(order, said):
    pairs = [each if isinstance(each, tuple) else (each, {}) for each in order]
    steps = [records.step(function, **settings) for function, settings in pairs]
    if said is None:
        return records.refuse_order(steps)
    with pytest.raises(ValueError, match=said):
        records.refuse_order(steps)


def test_the_filters_bring_no_jax():
    code = "import sys, jaxdistill.records; print('jax' in sys.modules, 'pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["False", "False"], done.stderr
