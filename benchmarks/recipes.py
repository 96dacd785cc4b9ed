"""What the small recipes wait for: compilation, and data.

    python benchmarks/recipes.py                          # every config in :small
    python benchmarks/recipes.py --configs mae_vitb ddk   # some
    python benchmarks/recipes.py --keep found             # goes on where it was broken off
    python benchmarks/recipes.py --smoke                  # one, a few steps; no target is checked

For every stage of every config in its ``:small`` form:

- ``compile``: seconds to trace and to compile its step, once; at most 20 of the processor's time,
  which is no less than what an idle machine takes. By the wall's clock a busy machine shows.
- ``alone``: records a second that Grain reads with nothing else to do; tokens for texts.
- ``waiting``: the share of the time of some steps, taken as the loop takes them, in which no step
  runs because the next batch is not there; at most 5 %.

The weights are zeros of the right shapes: what a net knows changes no time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from _configs import config_of, one_by_one, options, tell
from _measure import compiled, finish, parser, table

from jaxdistill import recipe
from jaxdistill.recipe.stages import stage_of
from jaxdistill.training.loop import abstract, check, stream_of

COMPILE, WAITING = 20.0, 0.05
LEAST = 0.5  # seconds of steps that are timed


def measured(name: str, steps: int) -> Iterator[dict[str, Any]]:
    """The stages of a config, as the loop runs them, on shapes."""
    # On one device.
    plan = recipe.plan({**config_of(name, "small"), "mesh": {"data": 1, "fsdp": 1}})
    results = recipe.shapes(plan)
    for planned in plan.stages:
        stage = stage_of(plan, planned, {other: results[other] for other in planned.needs})
        if stage.steps:
            yield {"config": name, "stage": planned.name, **measure(stage, steps)}


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
    metrics: Any = ()
    waited, begun, number = 0.0, 0.0, -2
    while number < steps or time.perf_counter() - begun < LEAST:
        if number == 0:
            jax.block_until_ready(held)
            waited, begun = 0.0, time.perf_counter()
        asked = time.perf_counter()
        given = next(batches)
        taken = time.perf_counter() - asked
        # As in the loop, the step before may still be running; nothing waits then.
        if all(leaf.is_ready() for leaf in jax.tree.leaves(metrics)):
            waited += taken
        held, metrics = made.call(held, fixed, jax.tree.map(jnp.asarray, given))
        number += 1
    jax.block_until_ready(held)
    whole = time.perf_counter() - begun
    batches.close()
    return {
        "compile_seconds": made.trace_seconds + made.compile_seconds,
        "trace_seconds": made.trace_seconds,
        "processor_seconds": made.processor_seconds,
        "alone_per_second": steps * unit / reading,
        "unit": "tokens" if "tokens" in example else "records",
        "steps": number,
        "step_ms": 1e3 * whole / number,
        "waiting": waited / whole,
        **made.memory,
    }


def main() -> int:
    made = parser(__doc__, "one config, a few steps; no target is checked")
    made.add_argument("--steps", type=int, default=40, help="at least")
    options(made)
    args = made.parse_args()
    if args.smoke:
        args.configs, args.steps = ["hinton_mnist"], 3
    if args.one:
        tell(measured(args.one, args.steps))
        return 0
    found, faults = one_by_one(__file__, args, "--steps", str(args.steps))
    missed = []
    rows = {f"{row.pop('config')}: {row.pop('stage')}": row for row in found}
    for label, row in rows.items():
        if row["processor_seconds"] > COMPILE:
            missed.append(f"{label}: {row['processor_seconds']:.0f} s to compile")
        if row["waiting"] > WAITING:
            missed.append(f"{label}: waits {row['waiting']:.0%} of its time")
    cells = [
        (
            label,
            f"{row['compile_seconds']:.1f}",
            f"{row['processor_seconds']:.1f}",
            f"{row['alone_per_second']:,.0f} {row['unit']}",
            f"{row['step_ms']:.1f}",
            f"{row['waiting']:.1%}",
        )
        for label, row in rows.items()
    ]
    columns = ("stage", "compile s", "of processor", "read alone, a second", "step ms", "waiting")
    print(table(columns, cells), end="\n\n")
    return finish("recipes", args, {"stages": rows}, missed, faults)


if __name__ == "__main__":
    sys.exit(main())
