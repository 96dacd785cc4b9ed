"""A path of self-distillation beside a single fit, and beside scikit-learn fitted over and over.

    python benchmarks/theory.py                    # n = 2,000, 5,000 and 10,000; float64
    python benchmarks/theory.py --sizes 500 1000   # quick; targets need a size of 10,000
    python benchmarks/theory.py --sizes 20000 --dtype float32 --without-peer

- ``fit`` and ``path``: seconds of ``theory.ridge_fit`` and of ``theory.path`` with 20 steps,
  compiled, one output, the least of the repeats. (Outside of ``jax.jit`` both also check that the
  kernel is positive semi-definite, which costs a second factorisation each.)
- ``path_ratio``: the median over repeats of path over fit, taken in turn; at most 1.3 at 10,000.
- ``peer``: seconds of scikit-learn's ``KernelRidge`` with the same kernel, precomputed, fitted once
  for every one of the 20 steps, predictions included: one pass, in the same run.
- ``peer_ratio``: path over peer; at most 1/5.
- ``factorisations`` and ``solves``: Cholesky factorisations of the traced path, and solves a step;
  one of each. (Singular kernels take another branch, an eigendecomposition.)
- ``error``: the largest difference of fitted values from the peer's, over the largest value.
- ``gram``: seconds for the kernel itself, in blocks.
- ``memory_gib``: what XLA says that the compiled path holds: arguments, results and temporaries.

On a machine that is busy with other work set ``OPENBLAS_NUM_THREADS=1``: both sides use the same
library for linear algebra, and its threads wait for each other.

Prints a table and, as its last line, JSON; exits with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import theory

STEPS, RIDGE, WEIGHT, FEATURES = 20, 0.5, 0.3, 16
PATH_TARGET, PATH_SIZE, PEER_TARGET = 1.3, 10_000, 0.2


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """How long a call takes, and what it gives."""
    start = time.perf_counter()
    found = jax.block_until_ready(call())
    return time.perf_counter() - start, found


def single(kernel: jax.Array, targets: jax.Array) -> theory.Fit:
    """One ridge fit."""
    return theory.ridge_fit(kernel, targets, RIDGE)


def path(kernel: jax.Array, targets: jax.Array) -> theory.Fit:
    """All steps of self-distillation."""
    return theory.path(kernel, targets, RIDGE, WEIGHT, steps=STEPS)


def refits(kernel: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The same fitted values from scikit-learn, one fit a step."""
    from sklearn.kernel_ridge import KernelRidge

    options: Any = {"alpha": RIDGE, "kernel": "precomputed"}
    before, fitted = targets, []
    for _ in range(STEPS):
        model = KernelRidge(**options)
        model.fit(kernel, WEIGHT * targets + (1 - WEIGHT) * before)
        before = model.predict(kernel)
        fitted.append(before)
    return np.stack(fitted)


def counted(kernel: jax.Array, targets: jax.Array) -> tuple[int, int]:
    """Cholesky factorisations of the traced path, and solves a step of the branch that uses it."""
    text = str(jax.make_jaxpr(path)(kernel, targets))
    # Both branches, for regular and for singular kernels, scan over the steps.
    return len(re.findall(r"= cholesky\b", text)), text.count("= custom_linear_solve[") // 2


def measure(size: int, args: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(size, FEATURES)), args.dtype)
    targets = jnp.asarray(draw.normal(size=(size, 1)), args.dtype)
    rbf = functools.partial(theory.rbf, gamma=1 / FEATURES)
    gram, kernel = seconds(lambda: theory.gram(rbf, x))
    programs = [jax.jit(call).lower(kernel, targets).compile() for call in (single, path)]
    sizes: Any = programs[1].memory_analysis()
    held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    times: list[tuple[float, float]] = []
    fits: Any = None
    for _ in range(args.repeats):
        one, _ = seconds(lambda: programs[0](kernel, targets))
        all_steps, fits = seconds(lambda: programs[1](kernel, targets))
        times.append((one, all_steps))
    factorisations, solves = counted(kernel, targets)
    row: dict[str, Any] = {
        "size": size,
        "gram": gram,
        "fit": min(one for one, _ in times),
        "path": min(all_steps for _, all_steps in times),
        "path_ratio": statistics.median(all_steps / one for one, all_steps in times),
        "factorisations": factorisations,
        "solves": solves,
        "memory_gib": held / 2**30,
        "peer": None,
        "peer_ratio": None,
        "error": None,
    }
    if not args.without_peer:
        host = np.asarray(kernel), np.asarray(targets)
        row["peer"], expected = seconds(lambda: refits(*host))
        row["peer_ratio"] = row["path"] / row["peer"]
        gap = np.max(np.abs(np.asarray(fits.fitted) - expected))
        row["error"] = float(gap / np.max(np.abs(expected)))
    missed = []
    if size >= PATH_SIZE and row["path_ratio"] > PATH_TARGET:
        missed.append(f"path_ratio > {PATH_TARGET}")
    if row["peer_ratio"] is not None and row["peer_ratio"] > PEER_TARGET:
        missed.append(f"peer_ratio > {PEER_TARGET}")
    if (factorisations, solves) != (1, 1):
        missed.append("more than one factorisation, or solve a step")
    return {**row, "missed": missed}


def main() -> int:
    """Runs all sizes; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 5000, 10_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--without-peer", action="store_true", help="leave scikit-learn out")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", args.dtype == "float64")
    device = jax.devices()[0].device_kind
    print(f"{device}, jax {jax.__version__}, {args.dtype}, {STEPS} steps")
    print(
        f"{'n':>7}{'gram':>9}{'fit':>9}{'path':>9}{'ratio':>7}{'peer':>10}{'ratio':>8}"
        f"{'error':>10}{'GiB':>7}  targets"
    )
    rows = []
    for size in args.sizes:
        row = measure(size, args)
        rows.append(row)
        peer = f"{'':>28}"
        if row["peer"] is not None:
            peer = f"{row['peer']:>10.2f}{row['peer_ratio']:>8.3f}{row['error']:>10.1e}"
        print(
            f"{size:>7}{row['gram']:>9.2f}{row['fit']:>9.2f}{row['path']:>9.2f}"
            f"{row['path_ratio']:>7.2f}{peer}{row['memory_gib']:>7.2f}"
            f"  {', '.join(row['missed']) or 'met'}",
            flush=True,
        )
    report: dict[str, Any] = {
        "device": device,
        "jax": jax.__version__,
        "dtype": args.dtype,
        "steps": STEPS,
    }
    print(json.dumps({**report, "rows": rows}))
    return int(any(row["missed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
