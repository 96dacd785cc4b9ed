"""The decoder of jaxdistill.models and its step of distillation in plain torch, to stand beside."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxdistill.models import Decoder


def missing() -> str:
    """Why there is nothing to stand beside; empty where torch is installed."""
    return (
        "" if importlib.util.find_spec("torch") else "torch is not installed: its arm is left out"
    )


def tensors(tree: Mapping[str, Any], trained: bool) -> dict[str, Any]:
    """The parameters of a decoder, flat by path, linear layers as torch has them."""
    import torch  # pyright: ignore[reportMissingImports]
    from flax import traverse_util

    flat: Any = traverse_util.flatten_dict(tree, sep="/")
    return {
        path: torch.tensor(
            np.array(array).T.copy() if path.endswith("kernel") else np.array(array),
            requires_grad=trained,
        )
        for path, array in flat.items()
    }


def logits(module: Decoder, p: Mapping[str, Any], tokens: Any) -> Any:
    """What the decoder says of tokens ``[B, T]``; tied, without biases, caps and windows."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch.nn import functional as f  # pyright: ignore[reportMissingImports]

    batch, length = tokens.shape
    size = module.width // module.heads
    groups = module.groups or module.heads
    half = size // 2
    frequencies = module.theta ** (-torch.arange(half) / half)
    angles = torch.arange(length)[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()

    def norm(x: Any, name: str) -> Any:
        return f.rms_norm(x, (module.width,), p[f"{name}/scale"], module.epsilon)

    def apart(x: Any, heads: int) -> Any:
        return x.view(batch, length, heads, size).transpose(1, 2)

    def turned(x: Any) -> Any:
        first, second = x[..., :half], x[..., half:]
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    x = f.embedding(tokens, p["embed_tokens/embedding"])
    for index in range(module.depth):
        own = f"layers_{index}"
        h = norm(x, f"{own}/input_layernorm")
        query, key, value = (
            apart(f.linear(h, p[f"{own}/self_attn/{part}_proj/kernel"]), heads)
            for part, heads in (("q", module.heads), ("k", groups), ("v", groups))
        )
        mixed = f.scaled_dot_product_attention(
            turned(query), turned(key), value, is_causal=True, enable_gqa=True
        )
        mixed = mixed.transpose(1, 2).reshape(batch, length, module.width)
        x = x + f.linear(mixed, p[f"{own}/self_attn/o_proj/kernel"])
        h = norm(x, f"{own}/post_attention_layernorm")
        gate = f.silu(f.linear(h, p[f"{own}/mlp/gate_proj/kernel"]))
        units = gate * f.linear(h, p[f"{own}/mlp/up_proj/kernel"])
        x = x + f.linear(units, p[f"{own}/mlp/down_proj/kernel"])
    return f.linear(norm(x, "norm"), p["embed_tokens/embedding"])


def distillation_step(
    student: tuple[Decoder, Any], teacher: tuple[Decoder, Any], tokens: Any, rate: float
) -> Callable[[], float]:
    """A step of AdamW on the forward KL to the teacher, as it is usually written; gives the loss.

    Args:
        student: the module and its parameters.
        teacher: likewise.
        tokens: ``[B, T]``.
        rate: of learning.
    """
    import torch  # pyright: ignore[reportMissingImports]
    from torch.nn import functional as f  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    ours, theirs = tensors(student[1], True), tensors(teacher[1], False)
    optimizer = torch.optim.AdamW(ours.values(), lr=rate)
    read = torch.tensor(np.array(tokens), dtype=torch.long)

    def step() -> float:
        with torch.no_grad():
            goal = f.log_softmax(logits(teacher[0], theirs, read), -1)
        said = f.log_softmax(logits(student[0], ours, read), -1)
        loss = f.kl_div(said, goal, log_target=True, reduction="sum") / read.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step
