"""Distillation of language models: sizes of published decoders, their optimizer and sharding."""

from __future__ import annotations

from typing import Any

from jaxdistill.presets.optimizers import warmup_cosine

SHARED_OUT = (
    (r"layers/.*kernel$", (None, "fsdp")),
    (r"embedding$", (None, "fsdp")),
    (r"kernel$", ("fsdp",)),
)
"""Rules that divide every matrix by its first axis behind that of the layers, and embeddings by
their width, since a vocabulary need not divide.
"""
LARGE = {"net": "decoder", "dtype": "bfloat16", "tied": False, "remat": True, "scan": True}
"""A large decoder: its layers are stacked, and computed again on the way back."""
LLAMA_7B = {**LARGE, "width": 4096, "depth": 32, "heads": 32, "hidden": 11008, "epsilon": 1e-5}
"""The size of Llama 7B."""


def adamw(peak: float, warmup: int, **schedule: Any) -> dict[str, Any]:
    """AdamW as language models are trained with it, its gradients clipped.

    Example:
        >>> adamw(3e-4, 300)["b2"]
        0.95
    """
    rate = warmup_cosine(peak, warmup, **schedule)
    return {"name": "adamw", "b2": 0.95, "weight_decay": 0.1, "clip": 1.0, "learning_rate": rate}


def from_labels_and_teacher(
    stage: str,
    divergence_weight: float,
    ce_weight: float,
    divergence: str = "forward_kl",
    **settings: Any,
) -> dict[str, Any]:
    """What a student learns from the text itself and from the distribution of a teacher.

    Example:
        >>> from_labels_and_teacher("teacher", 0.2, 1.0)["divergence"]
        {'name': 'forward_kl', 'weight': 0.2}
    """
    apart = {"name": divergence, "weight": divergence_weight}
    return {"frozen": (stage,), "divergence": apart, "ce_weight": ce_weight, **settings}


def next_token(batch_size: int, batches: int, **settings: Any) -> dict[str, Any]:
    """The loss on so many batches of held-out text.

    Example:
        >>> next_token(64, 8)
        {'evaluator': 'next_token', 'batch_size': 64, 'batches': 8}
    """
    return {"evaluator": "next_token", "batch_size": batch_size, "batches": batches, **settings}


def decoder(width: int, depth: int) -> dict[str, Any]:
    """A decoder of minutes.

    Example:
        >>> decoder(64, 1)["heads"]
        4
    """
    return {"net": "decoder", "width": width, "depth": depth, "heads": 4, "groups": 2}


def json_lines(text: str, length: int, **settings: Any) -> dict[str, Any]:
    """A file of JSON lines, whose place and whose tokenizer the command line says.

    Example:
        >>> json_lines("text", 4096, pack=True)["tokenizer"]["end"]
        '</s>'
    """
    tokenizer = {"name": "file", "path": "", "end": "</s>"}
    own = {"text": text, "length": length, "tokenizer": tokenizer, **settings}
    return {"name": "json_lines", "path": "", **own}


def standard_library() -> dict[str, Any]:
    """The source of Python's standard library, byte by byte, split by module.

    Example:
        >>> standard_library()["length"]
        64
    """
    held_out = {"validation": 0.08, "test": 0.08}
    return {"name": "standard_library", "length": 64, "modules": None, **held_out}


def learning(
    student: dict[str, Any],
    steps: int,
    optimizer: dict[str, Any],
    evaluate: dict[str, Any],
    distiller: dict[str, Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """A stage of a language model that learns from text, and from a teacher if its ``distiller``
    says so.

    Example:
        >>> learning({}, 400, adamw(3e-3, 50), {}, {"chunk": 1024})["distiller"]
        {'name': 'language_model', 'chunk': 1024}
    """
    return {
        "student": student,
        "distiller": {"name": "language_model", **(distiller or {})},
        "optimizer": optimizer,
        "steps": steps,
        "evaluate": evaluate,
        **settings,
    }
