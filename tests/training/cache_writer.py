"""Writes a cache, by test_caches.py as a process of its own: slowly enough to be killed, or onto a
disk that is too small at first.
"""

import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from jaxdistill import targets
from jaxdistill.data import sources
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models import MLP
from jaxdistill.store import open_store, writer
from jaxdistill.training import teacher_cache

WHOLE = writer.Unfinished.write


def slow(self, *args):
    time.sleep(0.1)
    WHOLE(self, *args)


def write(folder):
    net = from_linen(MLP(widths=(32, 16)))
    digits = sources.digits()
    variables = net.init(jax.random.key(0), digits.gather(np.arange(2))["image"])
    cache = teacher_cache.Cache(
        digits,
        targets.live(net, inputs="teacher"),
        {"teacher": variables},
        {"out": {"codec": "dense"}},
        views=3,
    )
    teacher_cache.write(cache, folder, quiet=True, batch_size=64, part_bytes=15_000)


def fill(disk):
    """Says what the full disk made of the writer, then gives it room and writes on."""
    try:
        write(f"{disk}/cache")
    except OSError as fault:
        print(fault)
    kept = {p: p.stat().st_mtime_ns for p in Path(disk).glob("cache/000-*.array_record")}
    assert not list(Path(disk).glob("cache/*.part*"))
    subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
    write(f"{disk}/cache")
    assert all(p.stat().st_mtime_ns == t for p, t in kept.items())
    print(f"{len(kept)} parts were kept")
    assert open_store(f"{disk}/cache").manifest["files"]


if __name__ == "__main__":
    if sys.argv[1] == "--disk":
        fill(sys.argv[2])
    else:
        writer.Unfinished.write = slow
        write(sys.argv[1])
