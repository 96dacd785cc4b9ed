"""Fused heads against the naive form: memory, time and agreement, for value and gradients.

    python benchmarks/fused_losses.py                 # float32, N=2048, V=32768, 256 and 512 wide
    python benchmarks/fused_losses.py --shape large   # bfloat16, N=8192, V=128256: for one big GPU

Prints a line per variant and, as its last line, JSON: ``temp_mib`` is what XLA says that the
compiled step needs besides its arguments and results, ``growth`` how much more at twice the tokens,
``seconds`` the least of some runs, ``naive_ratio`` that time over the naive form's in the same
process, ``error`` the largest difference from the naive loss and gradients over their largest
values, and ``full_logits`` whether an array of all tokens times all classes occurs in the compiled
program.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import losses

SHAPES = {
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
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return step.lower(*arguments).compile()


def seconds(program, arguments, runs):
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        best = min(best, time.perf_counter() - start)
    return best


def error(ours, theirs):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    as_float = lambda x: np.asarray(x, np.float32)  # noqa: E731
    return max(
        float(np.max(np.abs(as_float(a) - as_float(b))) / np.max(np.abs(as_float(b))))
        for a, b in pairs
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="cpu")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--chunks", type=int, nargs="+", default=[256])
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    tokens, classes = shape["tokens"], shape["classes"]
    arguments, twice = make(shape, tokens), make(shape, 2 * tokens)
    mib = 2**20
    results = {}
    for name, divergence, ce_weight in (
        ("kl", "forward_kl", 0.0),
        ("jsd", "jsd", 0.0),
        ("jsd+ce", "jsd", 1.0),
    ):
        program = compiled(functools.partial(naive, divergence, ce_weight), arguments)
        reference = program(*arguments)
        slow = seconds(program, arguments, options.runs)
        temp = program.memory_analysis().temp_size_in_bytes / mib
        print(
            f"{name:8} naive       temp {temp:8.1f} MiB                 {slow:7.3f} s", flush=True
        )
        results[f"{name}/naive"] = {"temp_mib": round(temp, 1), "seconds": round(slow, 4)}
        del program
        for chunk in options.chunks:
            loss = functools.partial(fused, divergence, ce_weight, chunk)
            program = compiled(loss, arguments)
            temp = program.memory_analysis().temp_size_in_bytes / mib
            double = compiled(loss, twice).memory_analysis().temp_size_in_bytes / mib
            fast = seconds(program, arguments, options.runs)
            row = {
                "temp_mib": round(temp, 1),
                "growth": round(double / temp - 1, 4),
                "seconds": round(fast, 4),
                "naive_ratio": round(fast / slow, 3),
                "error": error(program(*arguments), reference),
                "full_logits": bool(re.search(rf"\[{tokens},{classes}\]", program.as_text())),
            }
            results[f"{name}/chunk={chunk}"] = row
            print(
                f"{name:8} chunk {chunk:5} temp {temp:8.1f} MiB ({row['growth']:+6.1%} at 2N) "
                f"{fast:7.3f} s = {row['naive_ratio']:.2f} naive, error {row['error']:.1e}",
                flush=True,
            )
        del program, reference
    device = jax.devices()[0]
    print(json.dumps({"device": device.device_kind, "jax": jax.__version__, **shape, **results}))


if __name__ == "__main__":
    main()
