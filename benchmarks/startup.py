"""How long the library and its command take to start, each in a process of its own.

    python benchmarks/startup.py [--smoke]

Prints a table, then one JSON object. Two bars: ``import jaxdistill`` brings at most 0.3 s beyond
``import jax``, and ``jaxdistill list`` answers within 1.5 s. Commands that touch no device run with
a device that does not exist, so that one that does would fail. What is beyond JAX is the median of
differences of times taken in turn; files are in the system's cache, as the first round is left out.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from _measure import Seconds, finish, in_turn, median_ms, parser, quartiles, table

BEYOND_JAX = 0.3
LIST = 1.5
PYTHON = "nothing"
JAX = "import jax"
CALLS: Mapping[str, Sequence[str]] = {
    PYTHON: ("-c", ""),
    JAX: ("-c", "import jax"),
    "import jaxdistill": ("-c", "import jax, jaxdistill"),
    "losses": ("-c", "from jaxdistill import losses"),
    "fit and nets": ("-c", "from jaxdistill import fit, model_to_model, from_linen"),
    "jaxdistill": ("-m", "jaxdistill"),
    "jaxdistill list": ("-m", "jaxdistill", "list"),
    "jaxdistill show": ("-m", "jaxdistill", "show", "mae_vitb"),
    "jaxdistill run --help": ("-m", "jaxdistill", "run", "--help"),
}


def main() -> int:
    made = parser(__doc__, "one round, no target is checked")
    made.add_argument("--repeats", type=int, default=11)
    arguments = made.parse_args()
    repeats = 1 if arguments.smoke else arguments.repeats
    calls = {name: lambda own=words: started(own) for name, words in CALLS.items()}
    times = in_turn(calls, repeats)
    results: dict[str, Any] = {}
    rows = []
    for name, taken in times.items():
        own = {"milliseconds": median_ms(taken)}
        own["processor_milliseconds"] = 1e3 * statistics.median(t.processor for t in taken)
        cells = [f"{each:.0f}" for each in own.values()]
        if CALLS[name][0] == "-c" and name not in (PYTHON, JAX):
            pairs = list(zip(taken, times[JAX], strict=True))
            low, middle, high = quartiles([a.wall - b.wall for a, b in pairs])
            processor = statistics.median(a.processor - b.processor for a, b in pairs)
            own |= {"beyond_jax": middle, "quartiles": [low, high], "processor_beyond": processor}
            cells.append(f"{1e3 * middle:.0f} ({1e3 * low:.0f} to {1e3 * high:.0f})")
            cells.append(f"{1e3 * processor:.0f}")
        results[name] = own
        rows.append((name, *cells, *[""] * (4 - len(cells))))
    columns = ("started", "ms", "processor ms", "ms beyond jax", "processor ms beyond jax")
    print(table(columns, rows), end="\n\n")
    missed = []
    beyond, listed = results["import jaxdistill"]["beyond_jax"], results["jaxdistill list"]
    if beyond > BEYOND_JAX:
        missed.append(f"import jaxdistill: {beyond:.2f} s beyond jax, at most {BEYOND_JAX}")
    if listed["milliseconds"] > 1e3 * LIST:
        missed.append(f"jaxdistill list: {listed['milliseconds']:.0f} ms, at most {1e3 * LIST:.0f}")
    return finish("startup", arguments, {"times": results}, missed)


def started(words: Sequence[str]) -> Seconds:
    """A process from its start to its end; its times are those of children that ended."""
    environment = {**os.environ, "JAX_PLATFORMS": "no_such_device"}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    call = [sys.executable, *words]
    subprocess.run(call, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Seconds(wall, own)


if __name__ == "__main__":
    sys.exit(main())
