"""The loss from hidden states beside Liger's and eager torch's in the same process.

Shapes and steps are those of ``fused_losses``, in bfloat16: JSD and cross-entropy in equal parts,
value and gradients in the student's states and head; on a GPU in the sizes that Liger publishes
figures of.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from _measure import in_turn, median_ms
from fused_losses import CASES, SHAPES, fused, make, naive, step

# Numbers of tokens that Liger publishes figures of.
PUBLISHED = (1024, 2048, 4096, 8192)
CASE, CHUNK = "jsd+ce", 256
# bfloat16 logits: the losses of two programs may differ by so much of their value.
ERROR_TARGET = 1e-2


def missing() -> str:
    """Why there is nothing to stand beside; empty where there is."""
    if importlib.util.find_spec("torch"):
        return ""
    return "no torch in this interpreter: the table beside Liger and eager torch is left out"


def rows(repeats: int, smoke: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The shape that fits the device, and milliseconds and MiB at most for every number of tokens;
    what is not installed is absent, and on a CPU PyTorch's memory."""
    name = "small" if smoke else "large" if jax.default_backend() == "gpu" else "cpu"
    shape = {**SHAPES[name], "dtype": "bfloat16"}
    found = []
    for tokens in PUBLISHED if name == "large" else (shape["tokens"],):
        arrays = make(shape, tokens, CASE)
        programs = {
            "fused": step(functools.partial(fused, *CASES[CASE], CHUNK), arrays),
            "plain": step(functools.partial(naive, *CASES[CASE]), arrays),
        }
        calls: dict[str, Callable[[], Any]] = {
            arm: lambda made=made, arrays=arrays: made.call(*arrays)
            for arm, made in programs.items()
        }
        row: dict[str, Any] = {"tokens": tokens}
        row |= {f"{arm}_mib": made.memory["peak_mib"] for arm, made in programs.items()}
        ours = float(calls["fused"]()[0])
        for arm, call in _of_torch(arrays).items():
            value, peak = _first_of_torch(call)
            # Theirs is half of either part, a mean over tokens; ours whole parts, a sum.
            row[f"{arm}_error"] = abs(2 * tokens * value - ours) / abs(ours)
            row |= {f"{arm}_mib": peak} if peak else {}
            calls[arm] = call
        times = in_turn(calls, repeats, warmup=3)
        row |= {f"{arm}_ms": median_ms(each) for arm, each in times.items()}
        found.append(row)
    return shape, found


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
