"""Distillation of samplers by matching scores: stages of ImageNet and of the ring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxdistill.presets.optimizers import adamw
from jaxdistill.presets.samplers import CENTRED_64, IMAGENET_64, RING, denoiser


def imagenet_64_stage(distiller: dict[str, Any], steps: int, **settings: Any) -> dict[str, Any]:
    """A stage with the sizes of DMD2, which starts as the teacher.

    Example:
        >>> imagenet_64_stage({"name": "backtracking"}, 40_000)["batch_size"]
        280
    """
    return {
        "student": denoiser(IMAGENET_64, conditional=True),
        "distiller": {**distiller, "labels": True},
        "initial": {"stage": "teacher"},
        "optimizer": {
            "name": "adamw",
            "weight_decay": 0.01,
            "clip": 10.0,
            "learning_rate": 2e-6,
        },
        "view": CENTRED_64,
        "batch_size": 280,
        "steps": steps,
        "checkpoint_every": 1000,
        **settings,
    }


def before_student(config: Mapping[str, Any], **stages: Any) -> dict[str, Any]:
    """A run with further stages, just before that of the student.

    Example:
        >>> before_student(imagenet_64("", "", {}), degraded={})["recipe"]
        ('teacher', 'degraded', 'student')
    """
    found = {**config["stages"]}
    student = found.pop("student")
    found |= {**stages, "student": student}
    return {**config, "stages": found, "recipe": tuple(found)}


def ring_stage(
    student: dict[str, Any], distiller: dict[str, Any], peak: float, steps: int, **settings: Any
) -> dict[str, Any]:
    """A stage of a sampler of the ring.

    Example:
        >>> ring_stage({}, {"name": "denoising"}, 1e-3, 500)["batch_size"]
        256
    """
    return {
        "student": student,
        "distiller": distiller,
        "optimizer": adamw(peak, min(100, steps // 10)),
        "batch_size": 256,
        "steps": steps,
        **settings,
    }


def path_quality(**settings: Any) -> dict[str, Any]:
    """How far the points of a path of denoisers are from the ring.

    Example:
        >>> path_quality()["evaluator"]
        'path_quality'
    """
    known = {"evaluator": "path_quality", "sets": ("validation",)}
    return {**known, "density": dict(RING), **settings}
