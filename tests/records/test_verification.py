"""Mathematics and programs are verified in other processes, within limits."""

import subprocess
import sys
import time

import pytest
from records.made import golden, kept, reasons, record

from jaxdistill import records
from jaxdistill.records import programs
from jaxdistill.records.mathematics import compared, verified_mathematics
from jaxdistill.records.programs import program_of, verified_code
from jaxdistill.records.workers import Worker


@pytest.fixture(scope="module")
def mathematics():
    return pytest.importorskip("math_verify")


def test_answers_agree_with_math_verify(mathematics):
    rows = golden("answers_math_verify")["rows"]
    assert len(rows) == 60
    pairs = [(gold, target) for gold, target, *_ in rows]
    found = compared(pairs, 5.0, 4096, 2)
    for (gold, target, right, _, gold_read, target_read), verdict in zip(rows, found, strict=True):
        assert (verdict == "right") == right, (gold, target)
        if not right:
            unread = "reference" if not gold_read else "answer" if not target_read else "wrong"
            assert unread in verdict, (gold, target, verdict)


def test_right_answers_stay_and_hard_ones_time_out(mathematics):
    items = [
        record("5", reference="5.0"),
        record("6", reference="5"),
        record("words", reference="5"),
        record("5"),
        record("$99999999^{9999999999}$", reference="$9^{99999999999} + 1$"),
    ]
    outcome = kept(verified_mathematics, items, seconds=1.0, workers=1)
    assert [r.answer for r in outcome.kept] == ["5"]
    assert outcome.kept[0].scores == {"right": 1.0}
    found = reasons(outcome)
    assert found.pop("no reference") == 1
    assert found.pop("wrong answer") >= 1
    assert found.pop("answer cannot be read") == 1
    marked = kept(verified_mathematics, items[:3], keep_wrong=True, workers=1)
    assert [r.scores["right"] for r in marked.kept].count(1.0) == 1
    assert len(marked.kept) == 3


SLOW = """
import sys, time
print('"ready"', flush=True)
for line in sys.stdin:
    if "slow" in line:
        time.sleep(60)
    print(line, end="", flush=True)
"""


def test_a_silent_worker_is_ended_and_another_takes_over(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    worker = Worker(str(tmp_path / "slow.py"), (), 1.0)
    try:
        assert worker.ask(["fine"]) == ["fine"]
        begin = time.monotonic()
        assert worker.ask(["slow"]) is None
        assert time.monotonic() - begin < 30
        assert worker.ask(["again", 2]) == ["again", 2]
    finally:
        worker.close()


def test_a_worker_that_cannot_start_says_why(tmp_path):
    (tmp_path / "broken.py").write_text("raise ModuleNotFoundError('nothing here')")
    with pytest.raises(ImportError, match="did not start: ModuleNotFoundError: nothing here"):
        Worker(str(tmp_path / "broken.py"), (), 1.0).ask([])


# --- programs ----------------------------------------------------------------------------------

FORBIDDEN = {
    "network": "import socket; socket.socket()",
    "write": "open('written', 'w')",
    "truncate": "open('kept', 'r+')",
    "remove": "import os; os.remove('kept')",
    "rename": "import os; os.rename('kept', 'other')",
    "folder": "import os; os.mkdir('folder')",
    "mode": "import os; os.chmod('kept', 0)",
    "process": "import subprocess; subprocess.run(['true'])",
    "fork": "import os; os.fork()",
    "signal": "import os; os.kill(os.getppid(), 15)",
    "limits": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (99, 99))",
}


@pytest.fixture(scope="module")
def kernel():
    if not programs.confines():
        pytest.skip("this machine confines no programs")


def run(answer, *tests, **settings):
    items = [record(answer, tests=tests)]
    return kept(verified_code, items, allow=True, **{"seconds": 2, "workers": 2, **settings})


@pytest.mark.parametrize("what", FORBIDDEN)
def test_programs_reach_neither_network_nor_files_nor_processes(kernel, what):
    program = f"try:\n    {FORBIDDEN[what]}\nexcept (OSError, ValueError):\n    refused = True"
    assert run(program, "assert refused").kept
    # The same program is not refused by Python itself.
    if what in ("write", "folder"):
        outcome = run(program, "refused", isolation="none")
        assert reasons(outcome) == {"failed a test": 1}


def test_passing_programs_stay(kernel):
    answer = "Here:\n```python\nimport math, json, re\ndef f(n):\n    return n + 1\n```\nDone."
    outcome = run(answer, "assert f(1) == 2", "assert f(2) == 3")
    assert outcome.kept[0].scores == {"passed": 1.0}
    half = run(answer, "assert f(1) == 2", "assert f(2) == 4")
    assert reasons(half) == {"failed a test": 1}
    assert half.dropped[0][1].score == 0.5
    assert run(answer, "assert f(1) == 2", "assert f(2) == 4", least=0.5).kept
    assert run(answer, "assert f(1) == 2", "assert False", most=1).kept
    assert reasons(run(answer)) == {"no tests": 1}


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("while True: pass", "timed out"),
        ("import time; time.sleep(100)", "timed out"),
        ("held = bytearray(2**33)", "failed a test"),
        ("import sys; sys.exit(0)", "failed a test"),
        ("import os; os._exit(0)", "failed a test"),
        ("while True: print('x' * 10**6)", "failed a test"),
        ("syntax error", "failed a test"),
        ("import os; assert 'HOME' not in os.environ and False", "failed a test"),
    ],
)
def test_programs_that_misbehave(kernel, program, reason, monkeypatch):
    monkeypatch.setattr(programs, "_PATIENCE", 2.0)
    assert reasons(run(program, "assert True", seconds=1)) == {reason: 1}


def test_threads_and_the_standard_library_work(kernel):
    program = (
        "import collections, decimal, fractions, itertools, random, statistics, threading\n"
        "found = []\nt = threading.Thread(target=found.append, args=(1,)); t.start(); t.join()"
    )
    assert run(program, "assert found == [1]").kept


def test_nothing_runs_unless_asked(monkeypatch):
    with pytest.raises(ValueError, match="say allow=True if that is wanted"):
        records.step(verified_code)
    with pytest.raises(ValueError, match="say allow=True"):
        verified_code([record("x", tests=("y",))], 0)
    monkeypatch.setattr(programs, "confines", lambda: False)
    with pytest.raises(ValueError, match="cannot hold programs off the network"):
        records.step(verified_code, allow=True)
    records.step(verified_code, allow=True, isolation="none")


def test_the_last_block_is_the_program():
    assert program_of("```py\na\n```\nbetter:\n```python\nb\n```") == "b\n"
    assert program_of("x = 1") == "x = 1"


def test_the_workers_import_nothing_of_the_library():
    for name in ("_worker_code", "_worker_mathematics"):
        code = (
            "import runpy, sys; "
            f"runpy.run_path({str(programs.__file__.replace('programs', name))!r}); "
            "print([m for m in sys.modules if m.startswith(('jaxdistill', 'jax', 'numpy'))])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
        )
        assert done.stdout.strip() == "[]"
