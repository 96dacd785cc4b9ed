"""Fused heads against the naive form: memory, time and agreement, for value and gradients.

    python benchmarks/fused_losses.py                 # float32, N=2048, V=32768, 256 and 512 wide
    python benchmarks/fused_losses.py --shape large   # bfloat16, N=8192, V=128256: for one big GPU
    python benchmarks/fused_losses.py --shape large --device H200   # its memory there, from here

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

``sparse`` learns from the 64 best classes of a cached teacher, so it has no teacher's head.
With ``--device`` the steps are compiled for a device that is not here, and nothing is run.
"""

from __future__ import annotations

import functools
import itertools
import re
import sys
from typing import Any

import _absent
import jax
import jax.numpy as jnp
import numpy as np
from _measure import compiled, finish, in_turn, median_ms, parser, ratio, spread, table

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
CASES = {
    "kl": ("forward_kl", 0.0),
    "jsd": ("jsd", 0.0),
    "jsd+ce": ("jsd", 1.0),
    "sparse": ("sparse", 0.0),
}
KNOWN = 64  # classes of a cached teacher

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
        "sparse": {"temp_mib": 160, **_EVERY},
    },
    "large": {**dict.fromkeys(CASES, _LARGE), "sparse": {**_LARGE, "peak_mib": 3814}},  # 4 GB
}


def make(shape, tokens, case):
    """Hidden states, heads and labels at the scale of a trained model's logits."""
    keys = jax.random.split(jax.random.key(0), 6)
    dtype = jnp.dtype(shape["dtype"])

    def normal(key, *size):
        return (jax.random.normal(key, size) / size[-1] ** 0.25).astype(dtype)

    classes, ours, theirs = shape["classes"], shape["student"], shape["teacher"]
    student = normal(keys[0], tokens, ours), normal(keys[1], classes, ours).T
    if CASES[case][0] == "sparse":
        # Distinct in a row, spread over the vocabulary.
        first = jax.random.randint(keys[4], (tokens, 1), 0, classes, jnp.int32)
        ids = (first + jnp.arange(KNOWN, dtype=jnp.int32) * (classes // KNOWN)) % classes
        known = jax.nn.log_softmax(jax.random.normal(keys[5], (tokens, KNOWN + 1)))
        return *student, ids, known[:, 1:]
    return (
        *student,
        normal(keys[2], tokens, theirs),
        normal(keys[3], classes, theirs).T,
        jax.random.randint(keys[4], (tokens,), 0, classes, jnp.int32),
    )


def naive(divergence, ce_weight, hidden, head, *taught):
    """The same sum with all logits at once."""
    student = jnp.matmul(hidden, head, preferred_element_type=jnp.float32)
    if divergence == "sparse":
        return jnp.sum(losses.sparse_kl(student, *taught))
    teacher_hidden, teacher_head, labels = taught
    teacher = jnp.matmul(teacher_hidden, teacher_head, preferred_element_type=jnp.float32)
    loss = losses.forward_kl if divergence == "forward_kl" else losses.jensen_shannon
    total = jnp.sum(loss(student, teacher))
    if ce_weight:
        total += ce_weight * jnp.sum(losses.cross_entropy(student, labels))
    return total


def fused(divergence, ce_weight, chunk, hidden, head, *taught):
    """The fused sum."""
    if divergence == "sparse":
        return losses.linear_sparse_kl(hidden, head, *taught, chunks=losses.Chunks(chunk))
    teacher_hidden, teacher_head, labels = taught
    return losses.linear_divergence(
        hidden,
        head,
        teacher_hidden,
        teacher_head,
        labels if ce_weight else None,
        divergence=divergence,
        ce_weight=ce_weight,
        chunks=losses.Chunks(chunk),
    )


def step(loss, arguments):
    """The compiled step: the sum, and its gradients in the student's hidden states and head."""
    return compiled(jax.value_and_grad(loss, argnums=(0, 1)), *arguments)


def error(ours, theirs):
    """The largest difference over the largest value, over all arrays."""
    worst = 0.0
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        worst = max(worst, float(np.max(np.abs(a - b)) / np.max(np.abs(b))))
    return worst


def programs(shape, case, chunk, tokens, place=None):
    """The compiled steps, and what is known of them before they are run."""

    def arguments(count):
        shapes = jax.eval_shape(lambda: make(shape, count, case))
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes
        )

    plain = step(functools.partial(naive, *CASES[case]), arguments(tokens))
    loss = functools.partial(fused, *CASES[case], chunk)
    program = step(loss, arguments(tokens))
    doubled = step(loss, arguments(2 * tokens)).memory["temporary_mib"]
    temp, peak = (program.memory[name] for name in ("temporary_mib", "peak_mib"))
    whole = rf"\[{tokens},{shape['classes']}\]"
    known = {
        "case": case,
        "chunk": chunk,
        "tokens": tokens,
        "temp_mib": round(temp, 1),
        "peak_mib": round(peak, 1),
        "naive_temp_mib": round(plain.memory["temporary_mib"], 1),
        "naive_peak_mib": round(plain.memory["peak_mib"], 1),
        "growth": round(doubled / temp - 1, 4),
        "full_logits": int(re.search(whole, str(program.call.as_text())) is not None),
    }
    return program, plain, known


def measure(shape, case, chunk, tokens, runs):
    """One row of the table: a fused form against its naive form."""
    program, plain, known = programs(shape, case, chunk, tokens)
    arguments = make(shape, tokens, case)
    difference = error(program.call(*arguments), plain.call(*arguments))
    calls = {
        name: lambda made=made: made.call(*arguments)
        for name, made in (("fused", program), ("naive", plain))
    }
    times = in_turn(calls, runs)
    found = ratio(times, "fused", "naive")
    return {
        **known,
        "seconds": round(median_ms(times["fused"]) / 1e3, 4),
        "naive_seconds": round(median_ms(times["naive"]) / 1e3, 4),
        "naive_ratio": round(found["ratio"], 3),
        "quartiles": found["quartiles"],
        "error": difference,
    }


def main() -> int:
    """Runs all cases; 1 where a target is missed."""
    made = parser(__doc__)
    made.add_argument("--shape", choices=SHAPES, default="cpu")
    made.add_argument("--cases", choices=CASES, nargs="+", default=list(CASES))
    made.add_argument("--chunks", type=int, nargs="+", default=[256])
    made.add_argument("--tokens", type=int, nargs="+", help="in place of the shape's own")
    made.add_argument("--runs", type=int, default=5)
    _absent.option(made)
    options = made.parse_args()
    if options.smoke:
        options.shape, options.runs = "small", 2
    shape, targets = SHAPES[options.shape], TARGETS.get(options.shape, {})
    counts = options.tokens or [shape["tokens"]]
    chosen = list(itertools.product(options.cases, options.chunks, counts))
    if options.device:
        with _absent.as_on_accelerators():
            place = jax.sharding.SingleDeviceSharding(_absent.devices(options.device)[0])
            rows = [programs(shape, *each, place)[-1] for each in chosen]
    else:
        rows = [measure(shape, *each, options.runs) for each in chosen]
    for row in rows:
        case, tokens = row["case"], row["tokens"]
        row["missed"] = [
            f"{case}, {tokens} tokens: {key} {row[key]} > {most}"
            for key, most in targets.get(case, {}).items()
            if row.get(key, 0) > most
        ]
    columns = ("case", "tokens", "chunk", "temporary MiB", "naive", "at 2N", "peak MiB", "naive")
    cells = [
        (
            row["case"],
            row["tokens"],
            row["chunk"],
            f"{row['temp_mib']:,.1f}",
            f"{row['naive_temp_mib']:,.1f}",
            f"{row['growth']:+.1%}",
            f"{row['peak_mib']:,.1f}",
            f"{row['naive_peak_mib']:,.1f}",
        )
        for row in rows
    ]
    if not options.device:
        columns += ("s", "naive", "ratio", "error")
        cells = [
            (
                *cell,
                f"{row['seconds']:.4f}",
                f"{row['naive_seconds']:.4f}",
                spread({"ratio": row["naive_ratio"], "quartiles": row["quartiles"]}),
                f"{row['error']:.1e}",
            )
            for cell, row in zip(cells, rows, strict=True)
        ]
    print(", ".join(f"{value} {name}" for name, value in shape.items()), end="\n\n")
    print(table(columns, cells), end="\n\n")
    missed = [each for row in rows for each in row["missed"]]
    name = _absent.named("fused_losses", options)
    return finish(name, options, {"shape": shape, "rows": rows}, missed)


if __name__ == "__main__":
    sys.exit(main())
