"""The loss from hidden states on one GPU, beside Liger's and eager torch's in the same process.

Shapes are those that Liger publishes figures of: 128,256 classes, widths 2,048 and 4,096, bfloat16,
half the JSD and half the cross-entropy, value and gradients in the student's states and head.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _measure import compiled, in_turn, median_ms

from jaxdistill import losses

CLASSES, STUDENT, TEACHER = 128_256, 2048, 4096
TOKENS = (1024, 2048, 4096, 8192)


def missing() -> str:
    """Why there is no table; empty where JAX has a GPU."""
    if jax.default_backend() == "gpu":
        return ""
    return f"JAX runs on {jax.default_backend()}: the table beside Liger on one GPU is left out"


def rows(repeats: int) -> list[dict[str, Any]]:
    """Milliseconds and MiB at most, for every number of tokens; what is not installed is absent."""
    found = []
    for tokens in TOKENS:
        arrays = _arrays(tokens)
        fused = compiled(jax.value_and_grad(_fused, argnums=(0, 1)), *arrays)
        plain = compiled(jax.value_and_grad(_naive, argnums=(0, 1)), *arrays)
        calls: dict[str, Callable[[], Any]] = {
            "fused": lambda f=fused, a=arrays: f.call(*a),
            "plain": lambda f=plain, a=arrays: f.call(*a),
        }
        row: dict[str, Any] = {
            "tokens": tokens,
            "fused_mib": fused.memory["peak_mib"],
            "plain_mib": plain.memory["peak_mib"],
        }
        for name, call in _of_torch(arrays).items():
            row[f"{name}_mib"] = _peak_of_torch(call)
            calls[name] = call
        times = in_turn(calls, repeats, warmup=3)
        row |= {f"{name}_ms": median_ms(each) for name, each in times.items()}
        found.append(row)
    return found


def _arrays(tokens: int) -> tuple[jax.Array, ...]:
    keys = jax.random.split(jax.random.key(0), 5)

    def normal(key: jax.Array, *size: int) -> jax.Array:
        return (jax.random.normal(key, size) / size[-1] ** 0.25).astype(jnp.bfloat16)

    return (
        normal(keys[0], tokens, STUDENT),
        normal(keys[1], CLASSES, STUDENT).T,
        normal(keys[2], tokens, TEACHER),
        normal(keys[3], CLASSES, TEACHER).T,
        jax.random.randint(keys[4], (tokens,), 0, CLASSES, jnp.int32),
    )


def _fused(hidden, head, teacher_hidden, teacher_head, labels):
    total = losses.linear_divergence(
        hidden,
        head,
        teacher_hidden,
        teacher_head,
        labels,
        divergence="jsd",
        divergence_weight=0.5,
        ce_weight=0.5,
    )
    return total / len(labels)


def _naive(hidden, head, teacher_hidden, teacher_head, labels):
    student = jnp.matmul(hidden, head, preferred_element_type=jnp.float32)
    teacher = jnp.matmul(teacher_hidden, teacher_head, preferred_element_type=jnp.float32)
    jsd = losses.generalized_jsd(student, teacher, beta=0.5).mean()
    return (jsd + losses.cross_entropy(student, labels).mean()) / 2


def _of_torch(arrays: tuple[jax.Array, ...]) -> dict[str, Callable[[], Any]]:
    """The same in torch on the same GPU: eager, and Liger's where it is installed."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch  # pyright: ignore[reportMissingImports]
    from torch.nn import functional as f  # pyright: ignore[reportMissingImports]

    if not torch.cuda.is_available():
        return {}

    def moved(x: jax.Array, trained: bool = False) -> Any:
        here = torch.tensor(np.asarray(x, np.float32), device="cuda").to(torch.bfloat16)
        return here.requires_grad_(trained)

    hidden, head = moved(arrays[0], True), moved(arrays[1].T, True)
    teacher_hidden, teacher_head = moved(arrays[2]), moved(arrays[3].T)
    labels = torch.tensor(np.asarray(arrays[4]), device="cuda", dtype=torch.long)

    def gradients(loss: Any) -> None:
        torch.autograd.grad(loss, (hidden, head))
        torch.cuda.synchronize()

    def eager() -> None:
        said = f.log_softmax((hidden @ head.T).float(), -1)
        goal = f.log_softmax((teacher_hidden @ teacher_head.T).float(), -1)
        middle = torch.logaddexp(said, goal) - np.log(2)
        jsd = (
            f.kl_div(middle, said, log_target=True, reduction="sum")
            + f.kl_div(middle, goal, log_target=True, reduction="sum")
        ) / 2
        gradients((jsd + f.nll_loss(said, labels, reduction="sum")) / (2 * len(labels)))

    found: dict[str, Callable[[], Any]] = {"eager": eager}
    if importlib.util.find_spec("liger_kernel"):
        from liger_kernel.chunked_loss import (  # pyright: ignore[reportMissingImports]
            LigerFusedLinearJSDLoss,
        )

        loss = LigerFusedLinearJSDLoss(weight_hard_loss=0.5, weight_soft_loss=0.5, beta=0.5)
        found["liger"] = lambda: gradients(
            loss(hidden, head, teacher_hidden, teacher_head, labels, None, None)
        )
    return found


def _peak_of_torch(call: Callable[[], Any]) -> float:
    import torch  # pyright: ignore[reportMissingImports]

    call()
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated() / 2**20
