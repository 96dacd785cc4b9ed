"""The gradient through training on a synthetic set: is it right, what does it cost.

    python benchmarks/condense.py                     # a minute or two on a CPU
    python benchmarks/condense.py --width 32 --side 28

- ``difference``: the exact gradient beside central differences in float64, over 20 inner steps, the
  largest relative error of several directions; at most 1e-4.
- ``stopped``: TESLA's gradient beside that of the loss with the inner iterates stopped, over 8
  steps, the largest error over the largest entry; at most 1e-5.
- ``angle``: the cosine of TESLA's gradient and the exact one, and the ratio of their lengths.
- ``growth``: bytes of temporaries, as XLA says, of both forms with 10 and 80 inner steps. TESLA's
  grow by at most 5 %; the exact one's by about one vector of parameters a step, at most 1.25.
- ``times``: milliseconds of one outer step, compiled, of both forms, and of the exact one written
  plainly in torch where an interpreter with it is given, all in turn and on as many cores.

Prints a table and, as its last line, JSON; exits with 1 when a target is missed.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _measure import compiled, finish, in_turn, median_ms, parser, ratio, spread, table
from _worker import Worker, finds_torch, torch_option

from jaxdistill.condense import Inner, Target, flat, matching_gradient, matching_loss
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models import ConvNet

CLASSES, RATE = 10, 0.02
TARGETS = {"difference": 1e-4, "stopped": 1e-5, "growth_stopped": 1.05, "vectors_a_step": 1.25}


def case(net: ConvNet, side: int, steps: int, dtype: Any = np.float32) -> dict[str, Any]:
    """A student, where it starts and shall be, and a set of one image of a class."""
    model = flat(from_linen(net), (side, side, 1))
    rng = np.random.default_rng(0)
    start = model.draw(jax.random.key(0)).astype(dtype)
    synthetic = {"images": jnp.asarray(rng.normal(size=(CLASSES, side, side, 1)), dtype)}
    labels = jnp.eye(CLASSES, dtype=dtype)

    def loss(vector, synthetic, number):
        del number
        scores = jax.nn.log_softmax(model.apply(vector, synthetic["images"]).out)
        return -(labels * scores).sum(-1).mean()

    away = jnp.asarray(rng.normal(size=start.shape), dtype)
    return {
        "inner": Inner(loss, jnp.arange(steps)),
        "start": start,
        "goal": start + 0.02 * away,
        "synthetic": synthetic,
        "rate": jnp.asarray(RATE, dtype),
        "model": model,
    }


def gradient(found: dict[str, Any], stopped: bool) -> Callable[..., Any]:
    """``(synthetic, rate) -> ((loss, finite steps), gradients)``."""
    inner = found["inner"]
    return functools.partial(
        matching_gradient,
        inner,
        found["start"],
        [Target(inner.steps, found["goal"])],
        stopped=stopped,
    )


def difference(net: ConvNet, side: int, steps: int = 20) -> float:
    """Relative error of the exact gradient along some directions, in float64."""
    with jax.enable_x64(True):
        found = case(net, side, steps, np.float64)
        targets = [Target(steps, found["goal"])]
        loss = jax.jit(functools.partial(matching_loss, found["inner"], found["start"], targets))
        _, (slopes, slope) = jax.jit(gradient(found, False))(found["synthetic"], found["rate"])
        errors = []
        # Tiny steps: the loss jumps where an image crosses the kink of a ReLU.
        size = 1e-8
        for seed in range(3):
            way = jax.random.normal(jax.random.key(seed), slopes["images"].shape, np.float64)
            sides = [
                float(loss({"images": found["synthetic"]["images"] + s * way}, found["rate"]))
                for s in (size, -size)
            ]
            expected = (sides[0] - sides[1]) / (2 * size)
            errors.append(abs(float((slopes["images"] * way).sum()) / expected - 1))
        sides = [float(loss(found["synthetic"], found["rate"] + s)) for s in (size, -size)]
        errors.append(abs(float(slope) / ((sides[0] - sides[1]) / (2 * size)) - 1))
    return max(errors)


def stopped_error(net: ConvNet, side: int, steps: int = 8) -> float:
    """TESLA's gradient against automatic differentiation of the loss with stopped iterates."""
    found = case(net, side, steps)

    def loss(synthetic, rate):
        vector = found["start"]
        for number in range(steps):
            held = jax.lax.stop_gradient(vector)
            vector = vector - rate * jax.grad(found["inner"].loss)(held, synthetic, number)
        away = jnp.square(vector - found["goal"]).sum()
        return away / jnp.square(found["start"] - found["goal"]).sum()

    given = found["synthetic"], found["rate"]
    _, ours = jax.jit(gradient(found, True))(*given)
    expected = jax.jit(jax.grad(loss, argnums=(0, 1)))(*given)
    errors = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / jnp.abs(b).max(), ours, expected)
    return max(float(error) for error in jax.tree.leaves(errors))


def angle(net: ConvNet, side: int, steps: int) -> tuple[float, float]:
    """Cosine of TESLA's gradient and the exact one, and the ratio of their lengths."""
    found = case(net, side, steps)
    exact, stopped = (
        np.asarray(jax.jit(gradient(found, s))(found["synthetic"], found["rate"])[1][0]["images"])
        for s in (False, True)
    )
    lengths = np.linalg.norm(exact), np.linalg.norm(stopped)
    return float((exact * stopped).sum() / (lengths[0] * lengths[1])), float(
        lengths[1] / lengths[0]
    )


def temporaries(net: ConvNet, side: int, steps: int, stopped: bool) -> int:
    """Bytes of temporaries of the compiled gradient."""
    found = case(net, side, steps)
    made = compiled(gradient(found, stopped), found["synthetic"], found["rate"])
    return int(made.memory["temporary_mib"] * 2**20)


def times(net: ConvNet, side: int, steps: int, repeats: int, python: str | None) -> dict[str, Any]:
    """Milliseconds of one outer step, once it is compiled, and what torch's share is."""
    found = case(net, side, steps)
    given = found["synthetic"], found["rate"]
    calls: dict[str, Callable[[], Any]] = {}
    result: dict[str, Any] = {}
    for name, stopped in (("exact", False), ("stopped", True)):
        made = compiled(gradient(found, stopped), *given)
        calls[name] = functools.partial(made.call, *given)
        result[f"compile_seconds_{name}"] = made.trace_seconds + made.compile_seconds
    worker = None
    if python is not None:
        settings = {"case": "unrolled", "width": net.width, "depth": net.depth, "side": side}
        settings |= {"steps": steps, "classes": CLASSES, "rate": RATE}
        worker = Worker(python, settings, len(os.sched_getaffinity(0)))
        calls["torch"] = functools.partial(worker.steps, 1)
    taken = in_turn(calls, repeats)
    result |= {f"{name}_ms": median_ms(each) for name, each in taken.items()}
    if worker is not None:
        worker.close()
        result |= {"of_torch": ratio(taken, "exact", "torch"), "torch": worker.version}
    return result


def main() -> int:
    """Measures all, prints it, and says whether the targets are met."""
    made = parser(__doc__)
    made.add_argument("--width", type=int, default=16)
    made.add_argument("--depth", type=int, default=2)
    made.add_argument("--side", type=int, default=8)
    made.add_argument("--repeats", type=int, default=11)
    torch_option(made)
    given = made.parse_args()
    if given.smoke:
        given.width, given.depth, given.side, given.repeats = 4, 1, 4, 1
    net = ConvNet(width=given.width, depth=given.depth)
    size = case(net, given.side, 1)["model"].size
    result: dict[str, Any] = {
        "parameters": size,
        "difference": difference(net, given.side),
        "stopped": stopped_error(net, given.side),
        "angle": {steps: angle(net, given.side, steps) for steps in (1, 10, 40)},
    }
    for name, stopped in (("exact", False), ("stopped", True)):
        few, many = (temporaries(net, given.side, steps, stopped) for steps in (10, 80))
        result[f"bytes_{name}"] = {10: few, 80: many}
        result[f"growth_{name}"] = many / few
    exact = result["bytes_exact"]
    result["vectors_a_step"] = (exact[80] - exact[10]) / 70 / (4 * size)
    python = finds_torch(given)
    result["times"] = {
        steps: times(net, given.side, steps, given.repeats, python) for steps in (10, 40)
    }
    rows = [
        ("exact gradient and differences, float64", f"{result['difference']:.1e}"),
        ("TESLA's and the stopped loss", f"{result['stopped']:.1e}"),
        *(
            (f"cosine, ratio of lengths, {n} steps", f"{c:.3f}, {r:.2f}")
            for n, (c, r) in result["angle"].items()
        ),
        ("temporaries at 80 over 10 steps, TESLA", f"{result['growth_stopped']:.3f}"),
        ("vectors of parameters a step, exact", f"{result['vectors_a_step']:.2f}"),
        *(
            (f"milliseconds, {name}, {n} steps", f"{row[f'{name}_ms']:.1f}")
            for name in ("exact", "stopped", *(("torch",) if python else ()))
            for n, row in result["times"].items()
        ),
        *(
            (f"exact over torch, {n} steps", spread(row["of_torch"]))
            for n, row in result["times"].items()
            if python
        ),
    ]
    print(table(("figure", "value"), rows), end="\n\n")
    missed = [
        f"{name}: {result[name]:.3g}, at most {target}"
        for name, target in TARGETS.items()
        if not result[name] <= target
    ]
    return finish("condense", given, result, missed)


if __name__ == "__main__":
    sys.exit(main())
