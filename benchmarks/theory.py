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

Both sides use the same library for linear algebra, on one thread unless ``OPENBLAS_NUM_THREADS``
says otherwise: where there is other work its threads wait for each other, and a solve, which is
bound by memory, gains less from them than a factorisation.

Prints a table and, as its last line, JSON; exits with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
from typing import Any

# Read when the library is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np
from _measure import compiled, finish, in_turn, parser, ratio, seconds, table

from jaxdistill import theory

STEPS, RIDGE, WEIGHT, FEATURES = 20, 0.5, 0.3, 16
PATH_TARGET, PATH_SIZE, PEER_TARGET = 1.3, 10_000, 0.2


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
    gram = seconds(lambda: theory.gram(rbf, x)).wall
    kernel = theory.gram(rbf, x)
    programs = {call.__name__: compiled(call, kernel, targets) for call in (single, path)}
    calls = {n: lambda made=made: made.call(kernel, targets) for n, made in programs.items()}
    times = in_turn(calls, args.repeats, warmup=0)
    fits = programs["path"].call(kernel, targets)
    factorisations, solves = counted(kernel, targets)
    row: dict[str, Any] = {
        "size": size,
        "gram": gram,
        "fit": min(each.wall for each in times["single"]),
        "path": min(each.wall for each in times["path"]),
        "path_ratio": ratio(times, "path", "single")["ratio"],
        "factorisations": factorisations,
        "solves": solves,
        "memory_gib": programs["path"].memory["peak_mib"] / 2**10,
        "peer": None,
        "peer_ratio": None,
        "error": None,
    }
    if not args.without_peer:
        host = np.asarray(kernel), np.asarray(targets)
        kept: list[np.ndarray] = []
        row["peer"] = seconds(lambda: kept.append(refits(*host))).wall
        expected = kept[0]
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
    made = parser(__doc__)
    made.add_argument("--sizes", type=int, nargs="+", default=[2000, 5000, 10_000])
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    made.add_argument("--without-peer", action="store_true", help="leave scikit-learn out")
    args = made.parse_args()
    if args.smoke:
        args.sizes, args.repeats = [200], 1
    jax.config.update("jax_enable_x64", args.dtype == "float64")
    rows = [measure(size, args) for size in args.sizes]
    columns = ("n", "gram s", "fit s", "path s", "ratio", "peer s", "ratio", "error", "GiB")
    cells = [
        (
            row["size"],
            *(f"{row[name]:.2f}" for name in ("gram", "fit", "path", "path_ratio")),
            *(
                "" if row[name] is None else f"{row[name]:{form}}"
                for name, form in (("peer", ".2f"), ("peer_ratio", ".3f"), ("error", ".1e"))
            ),
            f"{row['memory_gib']:.2f}",
        )
        for row in rows
    ]
    print(f"{args.dtype}, {STEPS} steps\n\n{table(columns, cells)}", end="\n\n")
    missed = [f"n={row['size']}: {each}" for row in rows for each in row["missed"]]
    return finish("theory", args, {"steps": STEPS, "rows": rows}, missed)


if __name__ == "__main__":
    sys.exit(main())
