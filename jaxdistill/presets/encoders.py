"""Encoders of text: pre-training on masked tokens, fine-tuning on a task, loyalty to teachers.

The sizes are those of BERT-base (Devlin et al., NAACL 2019), the rates those of DistilBERT.
"""

from __future__ import annotations

from typing import Any

from jaxdistill.presets.images import LABELS, accuracy
from jaxdistill.presets.optimizers import adamw

BASE = {"net": "text_encoder", "width": 768, "heads": 12}
"""The size of BERT base."""
CHOSEN = {"where": "batch/chosen"}
"""A loss counts where tokens were chosen to be predicted."""
TOKENS = {**LABELS["labels"], **CHOSEN}
"""Cross-entropy on the chosen tokens."""


def optimizer(peak: float, warmup: int) -> dict[str, Any]:
    """AdamW with gradients clipped.

    Example:
        >>> optimizer(2e-5, 100)["clip"]
        5.0
    """
    return adamw(peak, warmup, weight_decay=0.01, clip=5.0)


def ensemble(stages: dict[str, str]) -> dict[str, Any]:
    """The mean of what several stages say, each by a name of its own.

    Example:
        >>> ensemble({"first": "first_task"})["members"]
        {'first': {'kind': 'live', 'stage': 'first_task'}}
    """
    members = {name: {"kind": "live", "stage": stage} for name, stage in stages.items()}
    return {"kind": "ensemble", "members": members}


def pretraining(
    depth: int, token: int, peak: float, steps: int, checkpoint_every: int, **settings: Any
) -> dict[str, Any]:
    """A stage that predicts masked tokens.

    Args:
        depth: layers of the encoder.
        token: the number of ``[MASK]`` in the vocabulary.
        peak: the learning rate.
        steps: how many.
        checkpoint_every: steps.
        **settings: what else the stage says.

    Example:
        >>> pretraining(12, token=4, peak=1e-4, steps=10, checkpoint_every=5)["view"]
        {'mask': {'token': 4, 'share': 0.15}}
    """
    return {
        "student": {**BASE, "depth": depth, "head": "masked"},
        "view": {"mask": {"token": token, "share": 0.15}},
        "objective": {"tokens": TOKENS},
        "optimizer": optimizer(peak, 10_000),
        "batch_size": 256,
        "steps": steps,
        "checkpoint_every": checkpoint_every,
        **settings,
    }


def fine_tuning(
    data: dict[str, Any], start: str, depth: int, steps: int, **settings: Any
) -> dict[str, Any]:
    """A stage that fine-tunes the encoder of another stage on a task.

    Example:
        >>> fine_tuning({"name": "sst2"}, "student", 1, 100)["initial"]["parts"]["block_0"]
        'block_0'
    """
    return {
        "data": data,
        "student": {**BASE, "depth": depth, "head": "classes", "dropout": 0.1},
        "initial": {"stage": start, "parts": body(depth)},
        "objective": LABELS,
        "optimizer": optimizer(2e-5, 100),
        "batch_size": 16,
        "steps": steps,
        "evaluate": {"accuracy": accuracy(batch_size=64)},
        **settings,
    }


def body(depth: int, under: str = "") -> dict[str, str]:
    """The parts of an encoder without its head, for ``initial``; of one that is itself a part of
    the student, under the path of that.

    Example:
        >>> body(1, "encoder/")["encoder/block_0"]
        'block_0'
    """
    parts = ("words", "places", "kinds", "norm", *(f"block_{index}" for index in range(depth)))
    return {under + path: path for path in parts}


def tinybert(depth: int, every: int, heads: int) -> dict[str, Any]:
    """What TinyBERT learns inside: embeddings, and of each layer attention scores and hidden states
    as every so-manieth layer of the teacher has them, all squared distances where there is text.

    Args:
        depth: layers of the student.
        every: how many of the teacher's stand for one.
        heads: attention heads of both.

    Example:
        >>> tinybert(4, 3, 12)["hidden_0"]["target"]
        'block_2'
    """

    def entry(ours: str, theirs: str, **loss: Any) -> dict[str, Any]:
        return {"student": ours, "target": theirs, "where": "batch/mask", **loss}

    hint = {"loss": "hint", "projector": "linear"}
    scores = {"loss": "qkv_relations", "relations": ("qk",), "kind": "mse", "heads": heads}
    scores["arguments"] = {"mask": "batch/mask"}
    found = {"embeddings": entry("embeddings", "embeddings", **hint)}
    for layer in range(depth):
        ours, theirs = f"block_{layer}", f"block_{every * (layer + 1) - 1}"
        found[f"attention_{layer}"] = entry(f"{ours}/attn/qkv", f"{theirs}/attn/qkv", **scores)
        found[f"hidden_{layer}"] = entry(ours, theirs, **hint)
    return found


def loyalty(*teachers: str) -> dict[str, Any]:
    """How often a student labels as its teachers do, and how near its probabilities are.

    Example:
        >>> loyalty("first", "second")["against"]
        ('first', 'second')
    """
    own = {"evaluator": "loyalty", "teacher": False, "against": teachers, "scores": False}
    return {**own, "sets": ("validation", "test"), "batch_size": 64}
