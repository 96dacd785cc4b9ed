"""What the small recipes wait for: compilation, and data.

    python benchmarks/recipes.py                          # every config in :small
    python benchmarks/recipes.py --configs mae_vitb ddk   # some
    python benchmarks/recipes.py --smoke                  # one, a few steps; no target is checked

For every stage of every config in its ``:small`` form:

- ``compile``: seconds to trace and to compile its step, once; at most 20. Taken once, so a busy
  machine shows.
- ``alone``: records a second that Grain reads with nothing else to do; tokens for texts.
- ``waiting``: the share of the time of some steps that the loop waits for the next batch, the step
  itself being waited for; at most 5 %. The loop does not wait for its steps, so it hides more.

The weights are zeros of the right shapes: what a net knows changes no time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _configs import config_of, names
from _measure import compiled, finish, parser, table

from jaxdistill import recipe
from jaxdistill.recipe.stages import stage_of
from jaxdistill.training.loop import abstract, check, stream_of

COMPILE, WAITING = 20.0, 0.05


def stages(name: str) -> Iterator[tuple[str, Any]]:
    """The stages of a config as the loop runs them, on shapes."""
    # On one device.
    plan = recipe.plan({**config_of(name, "small"), "mesh": {"data": 1, "fsdp": 1}})
    results = recipe.shapes(plan)
    for planned in plan.stages:
        yield planned.name, stage_of(plan, planned, {n: results[n] for n in planned.needs})


def zeros(x: Any) -> Any:
    if not isinstance(x, jax.ShapeDtypeStruct):
        return jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
    return jnp.zeros(x.shape, x.dtype)


def measure(stage: Any, steps: int) -> dict[str, Any]:
    """One stage: its step compiled, its data read alone, and both together."""
    distiller = stage.distiller
    stream = stream_of(stage.data, None)
    example = stream.at(0, distiller.takes)
    batch, frozen = abstract(example), dict(stage.frozen)
    key = jax.random.key(0)
    state = check(distiller, key, {**frozen, **stage.initial}, frozen, batch)
    made = compiled(distiller.step, state, frozen, batch, donate_argnums=0)
    held, fixed = jax.tree.map(zeros, (state, frozen))
    steps = min(steps, stage.steps)
    examples = max((len(leaf) for leaf in jax.tree.leaves(example) if leaf.ndim), default=1)
    unit = example["tokens"].size if "tokens" in example else examples * distiller.takes

    alone = stream.iterate(0, distiller.takes)
    next(alone)  # threads begin
    begun = time.perf_counter()
    for _ in range(steps):
        next(alone)
    reading = time.perf_counter() - begun
    alone.close()

    batches = stream.iterate(0, distiller.takes)
    waited, begun = 0.0, 0.0
    for number in range(steps + 2):
        if number == 2:
            waited, begun = 0.0, time.perf_counter()
        asked = time.perf_counter()
        given = next(batches)
        waited += time.perf_counter() - asked
        held, _ = made.call(held, fixed, jax.tree.map(jnp.asarray, given))
        jax.block_until_ready(held)
    whole = time.perf_counter() - begun
    batches.close()
    return {
        "compile_seconds": made.trace_seconds + made.compile_seconds,
        "trace_seconds": made.trace_seconds,
        "alone_per_second": steps * unit / reading,
        "unit": "tokens" if "tokens" in example else "records",
        "step_ms": 1e3 * whole / max(steps, 1),
        "waiting": waited / whole,
        **made.memory,
    }


def main() -> int:
    made = parser(__doc__, "one config, a few steps; no target is checked")
    made.add_argument("--configs", nargs="+", choices=names(), default=names(), metavar="config")
    made.add_argument("--steps", type=int, default=40)
    args = made.parse_args()
    if args.smoke:
        args.configs, args.steps = ["hinton_mnist"], 3
    rows, missed = {}, []
    for number, name in enumerate(args.configs):
        print(f"{number + 1}/{len(args.configs)} {name}", file=sys.stderr, flush=True)
        for stage_name, stage in stages(name):
            if not stage.steps:
                continue
            label = f"{name}: {stage_name}"
            row = rows[label] = measure(stage, args.steps)
            if row["compile_seconds"] > COMPILE:
                missed.append(f"{label}: {row['compile_seconds']:.0f} s to compile")
            if row["waiting"] > WAITING:
                missed.append(f"{label}: waits {row['waiting']:.0%} of its time")
    cells = [
        (
            label,
            f"{row['trace_seconds']:.1f}",
            f"{row['compile_seconds']:.1f}",
            f"{row['alone_per_second']:,.0f} {row['unit']}",
            f"{row['step_ms']:.1f}",
            f"{row['waiting']:.1%}",
        )
        for label, row in rows.items()
    ]
    columns = ("stage", "trace s", "with compile", "read alone, a second", "step ms", "waiting")
    print(table(columns, cells), end="\n\n")
    worst = np.median([row["waiting"] for row in rows.values()])
    return finish("recipes", args, {"stages": rows, "median_waiting": float(worst)}, missed)


if __name__ == "__main__":
    sys.exit(main())
