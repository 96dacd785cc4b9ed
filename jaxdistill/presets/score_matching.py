"""Distillation of samplers by matching scores: stages of ImageNet and of the ring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxdistill.presets.optimizers import adamw
from jaxdistill.presets.samplers import CENTRED_64, IMAGENET_64, RING, denoiser, labelled


def imagenet_64_stage(distiller: dict[str, Any], steps: int, **settings: Any) -> dict[str, Any]:
    """A stage with the sizes of DMD2, which starts as the teacher.

    Example:
        >>> imagenet_64_stage({"name": "backtracking"}, 40_000)["batch_size"]
        280
    """
    return {
        "student": denoiser(IMAGENET_64, conditional=True),
        "distiller": labelled(distiller),
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
        >>> from jaxdistill.presets.samplers import imagenet_64
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


def students(one: dict[str, Any], count: int) -> dict[str, Any]:
    """Several nets of one kind, each for a part of the classes.

    Example:
        >>> students({"net": "denoiser"}, 4)["count"]
        4
    """
    return {"net": "students", "count": count, "one": one}


def of_each(
    name: str,
    teacher: dict[str, Any],
    frozen: tuple[str, ...] = (),
    stacked: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """An algorithm with labels for every one of several students.

    Args:
        name: of the algorithm.
        teacher: whom they learn from.
        frozen: earlier stages that it reads.
        stacked: whether each starts from one of several students, not all from one net.
        settings: further keys of the algorithm.

    Example:
        >>> of_each("denoising", {"stage": "teacher"})["of"]["name"]
        'denoising'
    """
    of = {"name": name, "teacher": teacher, "labels": True, **settings}
    start = ("initial",) if stacked else ()
    return {"name": "students", "of": of, "frozen": frozen, "stacked": start}
