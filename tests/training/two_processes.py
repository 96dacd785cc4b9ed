"""One of the processes of test_processes.py: a teacher of sliced parameters, its cache, a student.

python two_processes.py FOLDER SECONDS_A_STEP SECONDS_TO_FIND_THE_OTHER
"""

import functools
import json
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
from absl import flags

from jaxdistill import targets
from jaxdistill.data import sources
from jaxdistill.data.stream import stream
from jaxdistill.distiller import model_to_model
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.losses import cross_entropy, hinton_kd
from jaxdistill.main import guarded
from jaxdistill.models import MLP
from jaxdistill.objective import per_example
from jaxdistill.training import processes, teacher_cache
from jaxdistill.training.checkpoint import fingerprint
from jaxdistill.training.loop import Stage, run_stage
from jaxdistill.training.sharding import make_mesh

STEPS = 24


class Slow:
    """A stream that takes its time, so that a process can be lost in the middle."""

    def __init__(self, inner, seconds):
        self.inner, self.seconds = inner, seconds

    def at(self, step, takes=1):
        return self.inner.at(step, takes)

    def iterate(self, start=0, takes=1):
        for batch in self.inner.iterate(start, takes):
            time.sleep(self.seconds)
            yield batch


def main(root: Path, seconds: float) -> dict:
    mesh = make_mesh({"data": 1, "fsdp": 4})
    shard = (jax.process_index(), jax.process_count())
    source = sources.digits()
    teacher, student = from_linen(MLP(widths=(256, 64))), from_linen(MLP(widths=(256,)))
    tx = optax.adam(3e-3)

    def labels(forward, goal, batch):
        return {"ce": per_example(1.0, cross_entropy(forward.out, batch["label"]))}

    def soft(forward, goal, batch):
        return {"kd": per_example(1.0, hinton_kd(forward.out, goal["out"], temperature=4.0))}

    def run(name, distiller, records, wait):
        data = Slow(stream(records, 32, seed=3, shard=shard, threads=0), wait)
        stage = Stage(name, distiller, data, STEPS, log_every=4, checkpoint_every=6, seed=5)
        return run_stage(stage, root / name, mesh=mesh, quiet=True).result

    result = run("teacher", model_to_model(teacher, targets.labels(), labels, tx), source, 0.0)
    cache = teacher_cache.Cache(
        source,
        targets.merge({"teacher": targets.live(teacher, inputs="teacher")}),
        {"teacher": result},
        {"teacher/out": {"codec": "dense"}},
    )
    store = teacher_cache.write(
        cache, root / "cache", batch_size=64, part_bytes=20_000, mesh=mesh, quiet=True
    )
    distiller = model_to_model(
        student, targets.cached(teacher_cache.codecs(cache)), soft, tx, inputs="student",
        prepare=cache.prepare,
    )  # fmt: skip
    result = run("student", distiller, targets.attach(source, store), seconds)
    sliced = {
        leaf.sharding.shard_shape(leaf.shape)
        for leaf in jax.tree.leaves(result)
        if leaf.ndim == 2 and leaf.shape[0] == 64
    }
    assert sliced == {(64, 64)}, sliced
    gathered = jax.tree.map(processes.whole, result)
    if processes.is_first():
        np.savez(
            root / "student.npz",
            **{str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(gathered))},
        )
    return {"process": list(shard), "fingerprint": fingerprint(result)}


def command() -> int:
    print(json.dumps(main(Path(sys.argv[1]), float(sys.argv[2]))))
    return 0


if __name__ == "__main__":
    flags.FLAGS([*sys.argv[:1], "--distributed"])
    jax.distributed.initialize = functools.partial(
        jax.distributed.initialize, initialization_timeout=int(sys.argv[3])
    )
    sys.exit(guarded(command))
