"""What teacher-written records cost: records a second and memory of every step.

    python benchmarks/records.py                    # 10,000 and 100,000 records
    python benchmarks/records.py --sizes 10000 100000 1000000 --keep found.jsonl
                                                    # hours; goes on where it was broken off
    python benchmarks/records.py --smoke            # small sizes, no target is checked

Records are short: a prompt of 12 to 30 words of 3,000, of which one in six is a near-duplicate of
another, an answer of a few. Each step and size is run in a process of its own, on one thread but
for what JAX and the workers of verification do. Records a second are by the processor's clock,
which counts what verification's processes do too; memory is the most that was held beyond the
records. Targets: near-duplicates at 5,000 a second or more, and memory that grows no faster than
the records.

Steps that compare all pairs or run other programs (``FEWER``) are measured on fewer.
Where datatrove is installed, its MinHash runs on the same texts beside ours, with as many values,
bands and one process.

Prints a table and, as its last line, JSON; exits with 1 when a target is missed.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _measure import alone, finish, highest, parser, resident, table

from jaxdistill import records
from jaxdistill.registry import STEPS
from jaxdistill.registry.context import Context

TARGET, LINEAR = 5000, 1.3
WORDS = [f"w{i}" for i in range(3000)]
# Records at most, of steps that are quadratic or start processes.
FEWER = {
    "novel": 30_000,
    "semantic_duplicates": 20_000,
    "verified_code": 100,
    "verified_mathematics": 2000,
}
# Steps that ask a teacher, or read what only one kind of task has.
LEFT_OUT = ("aligned", "asked_by_type", "confirmed", "joined", "judged", "localised")
SETTINGS: dict[str, dict[str, Any]] = {
    "capped": {"most": 1000},
    "decontaminated": {"against": [" ".join(WORDS[i : i + 20]) for i in range(0, 2000, 20)]},
    "repeated": {"times": {"a": 2}},
    "unlike": {"against": [" ".join(WORDS[i : i + 20]) for i in range(0, 2000, 20)]},
    "verified_code": {"allow": True},
    "within": {"by": "score", "least": 3},
}


def texts(count: int) -> list[str]:
    """Short texts, one in six near another."""
    drawn = random.Random(0)
    found: list[str] = []
    for _ in range(count):
        own = drawn.choices(WORDS, k=drawn.randint(12, 30))
        if found and drawn.random() < 1 / 6:
            own = drawn.choice(found).split()
            own[drawn.randrange(len(own))] = drawn.choice(WORDS)
        found.append(" ".join(own))
    return found


def requests(count: int) -> list[records.Request]:
    """About these texts."""
    return [
        records.Request.of(
            text,
            source=str(number),
            task="ab"[number % 2],
            reference=str(number),
            tests=("assert f(1) == 2",),
            meta={"type": f"type {number % 50}", "passage": f"text {number // 3}"},
        )
        for number, text in enumerate(texts(count))
    ]


def answered(count: int) -> list[records.Record]:
    """Records of them, in the order of their ids."""
    found = []
    for number, each in enumerate(requests(count)):
        said = (str(number), "<think>2 + 3</think><answer>5</answer>", '["a"]', f"#### {number}")
        text = "def f(n): return n + 1" if count <= FEWER["verified_code"] else said[number % 4]
        response = records.Response(each.questions()[0].id, 0, text, teacher="t")
        found.append(records.record_of(each, response))
    for each in found:
        each.scores["score"] = float(int(each.id[:4], 16) % 11)  # type: ignore[index]
    return sorted(found, key=lambda each: each.id)


def one(name: str, count: int) -> dict[str, float]:
    """One step in this process."""
    if name == "datatrove's MinHash":
        return measured(datatrove(texts(count)), count)
    if name == "asking and writing":
        asked = requests(count)
        return measured(lambda: writing(asked), count)
    items = answered(count)
    step = STEPS[name](Context(), **SETTINGS.get(name, {}))
    step.run(items[:2], 0)  # imports and compilation are no work on records
    return measured(lambda: list(step.run(items, 0)), count)


def measured(call: Callable[[], Any], count: int) -> dict[str, float]:
    """Records a second, and bytes held beyond those before."""
    before, begun, wall = resident(), _processor(), time.perf_counter()
    call()
    taken, wall = _processor() - begun, time.perf_counter() - wall
    return {
        "records": count,
        "a_second": count / max(taken, 1e-9),
        "a_second_of_the_wall": count / wall,
        "bytes": float(max(highest() - before, 0)),
    }


def _processor() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    theirs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + theirs.ru_utime + theirs.ru_stime


def writing(asked: Sequence[records.Request]) -> None:
    """The whole way but for steps, with a teacher that costs nothing."""

    def answer(questions: Sequence[records.Question]) -> Any:
        return (records.Response(each.id, each.sample, "5") for each in questions)

    with tempfile.TemporaryDirectory() as folder:
        records.write(asked, records.Teacher("t", "1", answer), Path(folder) / "set")


def datatrove(found: Sequence[str]) -> Callable[[], Any]:
    """Its four stages on the same texts; 5-grams of words, 25 bands of 5 values."""
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.text import TextNormConfig
    from datatrove.utils.word_tokenizers import WordTokenizer
    from loguru import logger

    logger.remove()
    documents = [Document(text, str(number)) for number, text in enumerate(found)]
    config = MinhashConfig(
        n_grams=5,
        num_buckets=25,
        hashes_per_bucket=5,
        hash_config=HashConfig(hash_fc="sha1"),
        norm_config=TextNormConfig(norm_numbers=False),  # these words differ in nothing else
    )

    class Spaces(WordTokenizer):
        """Words between spaces; its own tokenizers need more packages."""

        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    words: Any = Spaces()

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            stages: list[list[Any]] = [
                [documents, MinhashDedupSignature(f"{folder}/signatures", config, words)],
                [MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)],
                [MinhashDedupCluster(f"{folder}/buckets", f"{folder}/removed", config=config)],
                [documents, MinhashDedupFilter(f"{folder}/removed")],
            ]
            for number, stage in enumerate(stages):
                # Buckets are worked on one after the other here.
                LocalPipelineExecutor(
                    stage,
                    tasks=25 if number == 1 else 1,
                    workers=1,
                    logging_dir=f"{folder}/{number}",
                ).run()

    return run


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    made.add_argument("--steps", nargs="+", default=[])
    made.add_argument("--keep", default="", help="a file of what was found; read if it is there")
    made.add_argument("--one", help=argparse.SUPPRESS)
    options = made.parse_args()
    if options.one:
        name, count = json.loads(options.one)
        print(json.dumps(one(name, count)))
        return 0
    sizes = [200] if options.smoke else sorted(options.sizes)
    extra = ["datatrove's MinHash"] if importlib.util.find_spec("datatrove") else []
    every = [name for name in STEPS if name not in LEFT_OUT]
    wanted = options.steps or [*every, "asking and writing", *extra]
    asked = {}
    for size in sizes:
        for name in wanted:
            fewer = min(size, FEWER.get(name, size))
            asked[json.dumps([name, fewer])] = (name, fewer)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows, faults = alone(__file__, list(asked), keep=options.keep)
    found: dict[str, list[dict[str, float]]] = {}
    for key, row in rows.items():
        found.setdefault(asked[key][0], []).append(row)
    found = {name: found[name] for name in wanted if name in found}
    shown = [
        (name, f"{r['records']:,}", f"{r['a_second']:,.0f}", f"{r['bytes'] / r['records']:,.0f}")
        for name, runs in found.items()
        for r in runs
    ]
    print(table(("step", "records", "a second", "bytes a record"), shown), end="\n\n")
    return finish("records", options, {"steps": found}, missed(found), faults)


def missed(found: dict[str, list[dict[str, float]]]) -> list[str]:
    """Which targets were."""
    runs = found.get("near_duplicates", [])
    lost = [
        f"near_duplicates: {r['a_second']:.0f} a second of {r['records']}, at least {TARGET}"
        for r in runs
        if r["a_second"] < TARGET
    ]
    for name, each in found.items():
        small, large = each[0], each[-1]
        growth = large["bytes"] / max(small["bytes"], 1)
        times = large["records"] / small["records"]
        # Of little memory the allocator decides.
        if growth > LINEAR * times and large["bytes"] > 2**26:
            lost.append(f"{name}: {growth:.1f} times the memory for {times:.0f} times the records")
    return lost


if __name__ == "__main__":
    sys.exit(main())
