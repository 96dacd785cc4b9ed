"""What ``test_signals.py`` kills: a model, a data set, a sampler and a language model are distilled
one after another, and a teacher's answers are written, all of it slowly enough to be caught.

python four_kinds.py: reads folders from standard input, works in each in a process of its own that
has everything imported, and says its number, and then how it ended.
"""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from contract import networks, streams, students

from jaxdistill.data import sources
from jaxdistill.data.records import subset
from jaxdistill.store import writer
from jaxdistill.training import teacher_cache
from jaxdistill.training.loop import Evaluation, run_stage, stream_of
from jaxdistill.training.sharding import make_mesh
from jaxdistill.training.signals import Stopped

KINDS = {
    "model": students.changing_mixture,
    "data": streams.trajectory_matching,
    "sampler": networks.matched_density,
    "language": streams.on_policy,
}
STEPS, PARTS, PAUSE = 20, 6, 0.012
RECORDS = 60
WHOLE = writer.Unfinished.write


def happened(root: Path, what: str) -> None:
    with (root / "happened").open("a") as file:
        file.write(what + "\n")
    time.sleep(PAUSE)


class Watched:
    """A stream that writes down which records it gave."""

    def __init__(self, inner, order: Path):
        self.inner, self.order = inner, order

    def at(self, step, takes=1):
        return self.inner.at(step, takes)

    def iterate(self, start=0, takes=1):
        for step, batch in enumerate(self.inner.iterate(start, takes), start):
            with self.order.open("a") as file:
                file.write(json.dumps({"step": step, "index": batch["index"].tolist()}) + "\n")
            yield batch


def distil(root: Path, name: str) -> None:
    """One kind; what happens in it is written down before every evaluation."""

    def paced(result, frozen, data):
        happened(root, name)
        return {"sum": float(sum(jnp.sum(x) for x in jax.tree.leaves(result)))}

    own = KINDS[name]().stage

    def data(plan):
        return Watched(stream_of(own.data, plan), root / f"{name}.order")

    stage = dataclasses.replace(
        own,
        name=name,
        data=data if own.distiller.takes else None,
        steps=STEPS,
        evaluations=(Evaluation("pace", paced, every=1),),
        checkpoint_every=6,
        log_every=4,
        spans={"late": (STEPS // 2, STEPS)},
    )
    run_stage(stage, root / name, mesh=make_mesh({"data": 1}, jax.devices()[:1]), quiet=True)


def write_cache(root: Path) -> None:
    def goal(frozen, batch, key, step):
        return {"out": batch["image"].reshape(len(batch["image"]), -1) @ frozen["teacher"]}

    def slow(self, *args):
        happened(root, "cache")
        WHOLE(self, *args)

    writer.Unfinished.write = slow
    cache = teacher_cache.Cache(
        subset(sources.digits(), np.arange(RECORDS)),
        goal,
        {"teacher": jnp.asarray(np.random.default_rng(0).normal(size=(64, 5)), jnp.float32)},
        {"out": {"codec": "dense"}},
        prepare=lambda batch, key: batch,
    )
    width = 5 * 4 + 16 + 8 + 4
    teacher_cache.write(
        cache,
        root / "cache",
        container="npy",
        batch_size=RECORDS // PARTS,
        part_bytes=width * RECORDS // PARTS,
        mesh=make_mesh({"data": 1}, jax.devices()[:1]),
        quiet=True,
    )


def work(root: Path) -> int:
    try:
        for name in KINDS:
            distil(root, name)
        write_cache(root)
        return 0
    except Stopped as stop:
        print(stop, file=sys.stderr, flush=True)
        return 128 + stop.number


def main() -> None:
    for line in sys.stdin:
        root = Path(line.strip())
        root.mkdir(exist_ok=True)
        # Nothing of JAX has begun but its imports, which take longer than all the rest.
        child = os.fork()
        if not child:
            errors = os.open(root / "errors", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(errors, 2)
            os._exit(work(root))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
