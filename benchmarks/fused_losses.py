"""Fused heads against the naive form: memory, time and agreement, for value and gradients.

    python benchmarks/fused_losses.py                 # float32, N=2048, V=32768, 256 and 512 wide
    python benchmarks/fused_losses.py --shape large   # bfloat16, N=8192, V=128256: for one big GPU

Prints a table and, as its last line, JSON. The exit status is 1 where a target of the shape is
missed; the small shape has none, it shows that the program runs.

- ``temp_mib``: what XLA says that the compiled step needs besides its arguments and results;
  ``peak_mib`` with them.
- ``growth``: of ``temp_mib`` at twice the tokens.
- ``seconds``: the median. Naive and fused steps take turns, and ``naive_ratio`` is the median of
  the ratios of neighbours, so that a machine that is busy for a while slows both.
- ``error``: the largest difference of loss and gradients from the naive ones, over the largest
  value of each array.
- ``full_logits``: whether an array of all tokens times all classes occurs in the compiled text.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import losses

SHAPES: dict[str, dict[str, Any]] = {
    "small": {"tokens": 64, "classes": 512, "student": 16, "teacher": 32, "dtype": "float32"},
    "cpu": {"tokens": 2048, "classes": 32768, "student": 256, "teacher": 512, "dtype": "float32"},
    "large": {
        "tokens": 8192,
        "classes": 128256,
        "student": 2048,
        "teacher": 4096,
        "dtype": "bfloat16",
    },
}

# Divergence, weight of the cross-entropy.
CASES = {"kl": ("forward_kl", 0.0), "jsd": ("jsd", 0.0), "jsd+ce": ("jsd", 1.0)}

# The most that a measured value may be.
_EVERY = {"growth": 0.05, "naive_ratio": 1.0, "error": 1e-5, "full_logits": 0}
_LARGE = {
    "peak_mib": 5245,  # 5.5 GB
    "growth": 0.05,
    "naive_ratio": 1.15,
    "seconds": 0.067,
    "error": 2e-2,  # bfloat16 gradients
    "full_logits": 0,
}
TARGETS: dict[str, dict[str, dict[str, float]]] = {
    "cpu": {
        "kl": {"temp_mib": 160, **_EVERY},
        "jsd": {"temp_mib": 300, **_EVERY},
        "jsd+ce": {"temp_mib": 300, **_EVERY},
    },
    "large": dict.fromkeys(CASES, _LARGE),
}


def make(shape, tokens):
    """Hidden states, heads and labels at the scale of a trained model's logits."""
    keys = jax.random.split(jax.random.key(0), 5)
    dtype = jnp.dtype(shape["dtype"])

    def normal(key, *size):
        return (jax.random.normal(key, size) / size[-1] ** 0.25).astype(dtype)

    classes, ours, theirs = shape["classes"], shape["student"], shape["teacher"]
    return (
        normal(keys[0], tokens, ours),
        normal(keys[1], classes, ours).T,
        normal(keys[2], tokens, theirs),
        normal(keys[3], classes, theirs).T,
        jax.random.randint(keys[4], (tokens,), 0, classes, jnp.int32),
    )


def naive(divergence, ce_weight, hidden, head, teacher_hidden, teacher_head, labels):
    """The same sum with all logits at once."""
    student = jnp.matmul(hidden, head, preferred_element_type=jnp.float32)
    teacher = jnp.matmul(teacher_hidden, teacher_head, preferred_element_type=jnp.float32)
    loss = losses.forward_kl if divergence == "forward_kl" else losses.jensen_shannon
    total = jnp.sum(loss(student, teacher))
    if ce_weight:
        total += ce_weight * jnp.sum(losses.cross_entropy(student, labels))
    return total


def fused(divergence, ce_weight, chunk, hidden, head, teacher_hidden, teacher_head, labels):
    """The fused sum."""
    return losses.linear_divergence(
        hidden,
        head,
        teacher_hidden,
        teacher_head,
        labels if ce_weight else None,
        divergence=divergence,
        ce_weight=ce_weight,
        chunk=chunk,
    )


def compiled(loss, arguments):
    """The compiled step: the sum, and its gradients in the student's hidden states and head."""
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return step.lower(*arguments).compile()


def memory(program):
    """MiB of temporary arrays, and of those with arguments and results."""
    sizes = program.memory_analysis()
    temp = sizes.temp_size_in_bytes
    held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return temp / 2**20, (temp + held) / 2**20


def seconds(program, arguments):
    """How long one step takes."""
    start = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    return time.perf_counter() - start


def error(ours, theirs):
    """The largest difference over the largest value, over all arrays."""
    worst = 0.0
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        worst = max(worst, float(np.max(np.abs(a - b)) / np.max(np.abs(b))))
    return worst


def measure(shape, case, chunk, runs):
    """One row of the table: a fused form against its naive form."""
    tokens, classes = shape["tokens"], shape["classes"]
    arguments = make(shape, tokens)
    plain = compiled(functools.partial(naive, *CASES[case]), arguments)
    loss = functools.partial(fused, *CASES[case], chunk)
    program = compiled(loss, arguments)
    twice = jax.eval_shape(lambda: make(shape, 2 * tokens))
    doubled, _ = memory(compiled(loss, twice))
    temp, peak = memory(program)
    difference = error(program(*arguments), plain(*arguments))
    slow, fast = [], []
    for _ in range(runs):
        slow.append(seconds(plain, arguments))
        fast.append(seconds(program, arguments))
    ratios = [a / b for a, b in zip(fast, slow, strict=True)]
    return {
        "case": case,
        "chunk": chunk,
        "temp_mib": round(temp, 1),
        "peak_mib": round(peak, 1),
        "naive_temp_mib": round(memory(plain)[0], 1),
        "growth": round(doubled / temp - 1, 4),
        "seconds": round(statistics.median(fast), 4),
        "naive_seconds": round(statistics.median(slow), 4),
        "naive_ratio": round(statistics.median(ratios), 3),
        "error": difference,
        "full_logits": int(
            re.search(rf"\[{tokens},{classes}\]", str(program.as_text())) is not None
        ),
    }


def main() -> int:
    """Runs all cases; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="cpu")
    parser.add_argument("--cases", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--chunks", type=int, nargs="+", default=[256])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    shape, targets = SHAPES[options.shape], TARGETS.get(options.shape, {})
    device = jax.devices()[0].device_kind
    print(f"{device}, jax {jax.__version__}, {shape}")
    print(f"{'case':8}{'chunk':>6}{'temp MiB':>10}{'naive':>9}{'at 2N':>8}", end="")
    print(f"{'seconds':>10}{'naive':>9}{'ratio':>7}{'error':>10}  targets")
    rows = []
    for case in options.cases:
        for chunk in options.chunks:
            row = measure(shape, case, chunk, options.runs)
            missed = [f"{k} > {most}" for k, most in targets.get(case, {}).items() if row[k] > most]
            row["missed"] = missed
            rows.append(row)
            verdict = ", ".join(missed) or ("met" if targets else "none")
            print(
                f"{case:8}{chunk:6}{row['temp_mib']:10.1f}{row['naive_temp_mib']:9.1f}"
                f"{row['growth']:+8.1%}{row['seconds']:10.4f}{row['naive_seconds']:9.4f}"
                f"{row['naive_ratio']:7.2f}{row['error']:10.1e}  {verdict}",
                flush=True,
            )
    print(json.dumps({"device": device, "jax": jax.__version__, **shape, "rows": rows}))
    return int(any(row["missed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
