"""The loss from hidden states beside Liger's and eager torch's in the same process.

On a GPU the shapes are those that Liger publishes figures of: 128,256 classes, widths 2,048 and
4,096. Everywhere bfloat16, half the JSD and half the cross-entropy, value and gradients in the
student's states and head.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _measure import compiled, in_turn, median_ms

from jaxdistill import losses


class Sizes(NamedTuple):
    """Classes, widths of both nets' hidden states, numbers of tokens."""

    classes: int
    student: int
    teacher: int
    tokens: tuple[int, ...]


PUBLISHED = Sizes(128_256, 2048, 4096, (1024, 2048, 4096, 8192))
CPU = Sizes(32_768, 256, 512, (2048,))
TINY = Sizes(1000, 64, 128, (64, 128))
# bfloat16 logits: the losses of two programs may differ by so much of their value.
ERROR_TARGET = 1e-2


def missing() -> str:
    """Why there is nothing to stand beside; empty where there is."""
    if importlib.util.find_spec("torch"):
        return ""
    return "no torch in this interpreter: the table beside Liger and eager torch is left out"


def sizes(smoke: bool) -> Sizes:
    """What fits the device."""
    return TINY if smoke else PUBLISHED if jax.default_backend() == "gpu" else CPU


def rows(repeats: int, size: Sizes) -> list[dict[str, Any]]:
    """Milliseconds and MiB at most, for every number of tokens; what is not installed is absent,
    and on a CPU PyTorch's memory."""
    found = []
    for tokens in size.tokens:
        arrays = _arrays(size, tokens)
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
        ours = float(fused.call(*arrays)[0])
        for name, call in _of_torch(arrays).items():
            value, peak = _first_of_torch(call)
            row |= {f"{name}_error": abs(value - ours) / abs(ours)}
            row |= {f"{name}_mib": peak} if peak else {}
            calls[name] = call
        times = in_turn(calls, repeats, warmup=3)
        row |= {f"{name}_ms": median_ms(each) for name, each in times.items()}
        found.append(row)
    return found


def _arrays(size: Sizes, tokens: int) -> tuple[jax.Array, ...]:
    keys = jax.random.split(jax.random.key(0), 5)

    def normal(key: jax.Array, *shape: int) -> jax.Array:
        return (jax.random.normal(key, shape) / shape[-1] ** 0.25).astype(jnp.bfloat16)

    return (
        normal(keys[0], tokens, size.student),
        normal(keys[1], size.classes, size.student).T,
        normal(keys[2], tokens, size.teacher),
        normal(keys[3], size.classes, size.teacher).T,
        jax.random.randint(keys[4], (tokens,), 0, size.classes, jnp.int32),
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
    """The same in torch on the same device: eager, and Liger's where it is installed. Each gives
    its loss, when its gradients are there."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch.nn import functional as f  # pyright: ignore[reportMissingImports]

    place = "cuda" if torch.cuda.is_available() else "cpu"

    def moved(x: jax.Array, trained: bool = False) -> Any:
        here = torch.tensor(np.asarray(x, np.float32), device=place).to(torch.bfloat16)
        return here.requires_grad_(trained)

    hidden, head = moved(arrays[0], True), moved(arrays[1].T, True)
    teacher_hidden, teacher_head = moved(arrays[2]), moved(arrays[3].T)
    labels = torch.tensor(np.asarray(arrays[4]), device=place, dtype=torch.long)

    def gradients(loss: Any) -> float:
        torch.autograd.grad(loss, (hidden, head))
        return float(loss.detach())  # waits

    def eager() -> float:
        said = f.log_softmax((hidden @ head.T).float(), -1)
        goal = f.log_softmax((teacher_hidden @ teacher_head.T).float(), -1)
        middle = torch.logaddexp(said, goal) - np.log(2)
        jsd = (
            f.kl_div(middle, said, log_target=True, reduction="sum")
            + f.kl_div(middle, goal, log_target=True, reduction="sum")
        ) / 2
        return gradients((jsd + f.nll_loss(said, labels, reduction="sum")) / (2 * len(labels)))

    found: dict[str, Callable[[], Any]] = {"eager": eager}
    if importlib.util.find_spec("liger_kernel"):
        from liger_kernel.chunked_loss import (  # pyright: ignore[reportMissingImports]
            LigerFusedLinearJSDLoss,
        )

        loss = LigerFusedLinearJSDLoss(
            weight_hard_loss=0.5, weight_soft_loss=0.5, beta=0.5, compiled=place == "cuda"
        )

        def liger() -> float:
            value = loss(hidden, head, teacher_hidden, teacher_head, labels, None, None)
            # Some versions give the parts as well.
            return gradients(value[0] if isinstance(value, tuple) else value)

        found["liger"] = liger
    return found


def _first_of_torch(call: Callable[[], Any]) -> tuple[float, float]:
    """The loss, and MiB at most on a GPU."""
    import torch  # pyright: ignore[reportMissingImports]

    value = call()
    if not torch.cuda.is_available():
        return value, 0.0
    torch.cuda.reset_peak_memory_stats()
    call()
    return value, torch.cuda.max_memory_allocated() / 2**20
