"""What it costs to check a result of 500 MB when it is loaded, and to know whose it is.

A tree of random float32 arrays is saved as a stage saves its result. Then its files are compared
with their checksums, and all of it is loaded, which compares them too; in turn, over and over. The
target is that the comparison takes at most a tenth of the loading without it.

    python benchmarks/checksums.py [--smoke]

Prints a table, then one JSON object; exits with 1 when the target is missed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
from _measure import finish, parser, table

from jaxdistill._files import checksum
from jaxdistill.training.checkpoint import load_tree, save_tree

TARGET = 0.10
LAYERS, REPEATS = 60, 7


def main() -> int:
    arguments = parser(__doc__, "a tree of 2 MB").parse_args()
    side = 128 if arguments.smoke else 1448
    noise = np.random.default_rng(0)
    arrays = {
        f"layer_{i}": jnp.asarray(noise.standard_normal((side, side), np.float32))
        for i in range(LAYERS)
    }
    size = sum(array.nbytes for array in arrays.values())
    seconds: dict[str, list[float]] = {"checksums": [], "load": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result"
        start = time.perf_counter()
        save_tree(path, arrays, {})
        saved = time.perf_counter() - start
        shapes = jax.eval_shape(lambda: arrays)
        files = [file for file in path.rglob("*") if file.is_file()]
        load_tree(path, shapes)
        for _ in range(2 if arguments.smoke else REPEATS):
            start = time.perf_counter()
            for file in files:
                checksum(file)
            seconds["checksums"].append(time.perf_counter() - start)
            start = time.perf_counter()
            jax.block_until_ready(load_tree(path, shapes)[0])
            seconds["load"].append(time.perf_counter() - start)
    check, load = (median(found) for found in seconds.values())
    share = check / (load - check)
    rows = [
        ("checksums of all files", f"{check * 1e3:.0f}"),
        ("loading, with them", f"{load * 1e3:.0f}"),
        ("saving, until it is on the disk", f"{saved * 1e3:.0f}"),
    ]
    print(table((f"{size / 1e6:.0f} MB", "ms"), rows), end="\n\n")
    print(f"share of the loading without them: {share:.1%}, at most {TARGET:.0%}\n")
    missed = [f"checksums take {share:.1%} of the loading"] if share > TARGET else []
    found = {"bytes": size, "checksums": check, "load": load, "save": saved, "share": share}
    return finish("checksums", arguments, found, missed if not arguments.smoke else [])


if __name__ == "__main__":
    sys.exit(main())
