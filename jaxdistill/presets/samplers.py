"""Distillation of samplers: a ring of Gaussians, digits, ImageNet at 64 pixels, and their gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxdistill.presets import at, recipe
from jaxdistill.presets.claims import reaches, within
from jaxdistill.presets.images import accuracy, classifier
from jaxdistill.presets.optimizers import adamw

CENTRED = ({"name": "normalise", "mean": (0.5,), "std": (0.5,)},)
"""Grey images in [-1, 1]."""
COLOURS = {"name": "normalise", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
"""Images of three colours in [-1, 1]."""
HALVED = ({"name": "resize", "size": 14}, *CENTRED)
"""Images of half the size: with perceptrons narrower than an image has pixels the teacher
diverged.
"""
MIDDLE = (0.821,)
"""The noise between two steps, as published for iCT on CIFAR-10."""
RING = {"name": "ring"}
"""Eight Gaussians on a ring."""
INSIDE = ("block", "given/(time|guidance|out)")
"""Every kernel of a perceptron but those that read and write the image, and that of labels."""
INSIDE_64 = ("conv_", "qkv", "proj", "given/")
"""The kernels of the net for ImageNet that get adapters."""
IMAGENET_64 = {
    "net": "unet",
    "width": 192,
    "multipliers": (1, 2, 3, 4),
    "depth": 3,
    "attention": (32, 16, 8),
    "dropout": 0.1,
    "dtype": "bfloat16",
}
"""The published net for ImageNet at 64 pixels."""
CENTRED_64 = {"augment": ({"name": "resize", "size": 64}, COLOURS)}
"""Images of 64 pixels in [-1, 1]."""


def denoiser(backbone: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """A backbone with the preconditioning of EDM.

    Example:
        >>> denoiser({"net": "unet"}, conditional=True)
        {'net': 'denoiser', 'backbone': {'net': 'unet'}, 'conditional': True}
    """
    return {"net": "denoiser", "backbone": backbone, **settings}


def perceptron(width: int, depth: int, **settings: Any) -> dict[str, Any]:
    """A perceptron that sees the level of the noise.

    Example:
        >>> perceptron(128, 2)
        {'net': 'time_mlp', 'width': 128, 'depth': 2}
    """
    return {"net": "time_mlp", "width": width, "depth": depth, **settings}


def adapters(rank: int, where: tuple[str, ...] = INSIDE) -> dict[str, Any]:
    """A student that is the net of the stage ``teacher`` with low-rank adapters.

    Example:
        >>> adapters(8, ("block",))
        {'net': 'lora', 'base': 'teacher', 'at': ('block',), 'rank': 8}
    """
    return {"net": "lora", "base": "teacher", "at": where, "rank": rank}


def imagenet_64(title: str, sentence: str, student: dict[str, Any]) -> dict[str, Any]:
    """A published run on ImageNet at 64 x 64 pixels: the teacher of EDM's sizes, and a student.

    Args:
        title: of the run.
        sentence: what it shows.
        student: its stage.

    Example:
        >>> imagenet_64("", "", {})["recipe"]
        ('teacher', 'student')
    """
    teacher = {
        "student": denoiser(IMAGENET_64, conditional=True),
        "distiller": {"name": "denoising", "labels": True, "ema": 0.9999},
        "optimizer": adamw(1e-4, 10_000),
        "view": CENTRED_64,
        "batch_size": 4096,
        "steps": 610_000,
        "checkpoint": "",
        "checkpoint_every": 10_000,
    }
    data = {"name": "imagenet2012", "dir": "", "image_size": 64, "validation": 0.01}
    stages = {"teacher": teacher, "student": {**student, "view": CENTRED_64}}
    return recipe(title, sentence, data, stages)


def halvings(
    steps: Mapping[str, tuple[int, int]],
    teacher: dict[str, Any],
    initial: str,
    *,
    labels: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Stages of progressive distillation, each the teacher and the start of the next.

    Args:
        steps: for each stage how many steps its student makes, and its length.
        teacher: of the first.
        initial: the stage that it starts from.
        labels: whether labels are inputs.
        settings: further keys of all stages.

    Example:
        >>> stages = halvings({"two": (2, 9), "one": (1, 9)}, {"stage": "teacher"}, "teacher")
        >>> stages["one"]["distiller"]["teacher"], stages["one"]["initial"]
        ({'stage': 'two'}, {'stage': 'two'})
    """
    stages: dict[str, Any] = {}
    for name, (intervals, length) in steps.items():
        distiller = {
            "name": "progressive",
            "teacher": teacher,
            "intervals": intervals,
            "labels": labels,
            "frozen": (teacher["stage"],) if "stage" in teacher else (),
        }
        start = {"initial": {"stage": initial}, "steps": length}
        stages[name] = {"distiller": distiller, **start, **settings}
        initial, teacher = name, {"stage": name}
    return stages


def on_ring(title: str, sentence: str, stages: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """A run on eight Gaussians on a ring, whose density and scores are known.

    Example:
        >>> on_ring("", "", {"student": {}}, classes=2)["data"]["classes"]
        2
    """
    data = {"name": "ring", **settings, "points": 20_000, "validation": 0.1, "test": 0.0}
    return recipe(title, sentence, data, stages)


def density_quality(density: Mapping[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """How far samples are from a density that is known, and how they share out its modes.

    Example:
        >>> density_quality(in_steps=(1,))["density"]
        {'name': 'ring'}
    """
    known = {"evaluator": "density_quality", "sets": ("validation",)}
    return {**known, "density": dict(density or RING), **settings}


def ring_fit(student: dict[str, Any], steps: int) -> dict[str, Any]:
    """A stage that fits a denoiser to the ring: where students start from.

    Example:
        >>> ring_fit({}, 1500)["distiller"]["teacher"]
        {'density': {'name': 'ring'}}
    """
    quality = density_quality(solver="heun", in_steps=(1, 18), draws=20_000)
    return {
        "student": student,
        "distiller": {"name": "denoising", "teacher": {"density": RING}},
        "optimizer": adamw(2e-3, 100),
        "batch_size": 256,
        "steps": steps,
        "evaluate": {"quality": quality},
    }


def ring_gates(arm: str, before: str = "") -> dict[str, Any]:
    """What one step must reach on the ring: distance, shares of the modes, samples in modes.

    Args:
        arm: of which it is asked.
        before: put before the names of the contrasts.

    Example:
        >>> list(ring_gates("plain", "plain, "))
        ['plain, distance', 'plain, shares', 'plain, modes']
    """
    found = "student/validation"
    return {
        f"{before}distance": within(
            arm,
            0.06,
            "one step is at most 0.06 from the density",
            origin="exact samples are 0.004 from it, one step of a fitted net 0.5",
        ),
        f"{before}shares": within(
            arm,
            0.08,
            "the shares of the modes are at most 0.08 off",
            metric=f"{found}/mode_variation_1",
            origin="exact samples are 0.003 off, one step of a fitted net 0.17",
        ),
        f"{before}modes": reaches(
            arm,
            0.75,
            "at least 0.75 of the samples are within three deviations of a mode",
            metric=f"{found}/mode_quality_1",
            origin="of exact samples 0.99 are, of one step of a fitted net none",
        ),
    }


def two_steps(arm: str) -> dict[str, Any]:
    """What two steps must gain over one on the ring.

    Example:
        >>> two_steps("doubling")["metric"]
        'student/validation/two_step_gain'
    """
    sentence = "two steps are at most 0.7 of one above the floor"
    return reaches(arm, 0.0, sentence, metric="student/validation/two_step_gain")


def on_digits(
    title: str,
    sentence: str,
    teacher: dict[str, Any],
    student: dict[str, Any],
) -> dict[str, Any]:
    """A run on digits: a classifier, in whose features samples are compared with data, a teacher
    and a student.

    Example:
        >>> on_digits("", "", {}, {})["recipe"]
        ('classifier', 'teacher', 'student')
    """
    net = {"net": "mlp", "widths": (256, 128)}
    judge = classifier(
        net,
        500,
        1e-3,
        100,
        128,
        view={"augment": CENTRED},
        evaluate={"accuracy": accuracy(augment=CENTRED)},
    )
    data = {"name": "digits", "dir": "", "validation": 0.2, "test": 0.2}
    return recipe(
        title, sentence, data, {"classifier": judge, "teacher": teacher, "student": student}
    )


def labelled(distiller: dict[str, Any]) -> dict[str, Any]:
    """An algorithm with labels; one for several students says it of theirs.

    Example:
        >>> labelled({"name": "denoising"})
        {'name': 'denoising', 'labels': True}
    """
    return distiller if distiller["name"] == "students" else {**distiller, "labels": True}


def digits_stage(
    student: dict[str, Any],
    distiller: dict[str, Any],
    peak: float,
    steps: int,
    quality: dict[str, Any] | None,
    pictures: tuple[str, ...] = ("samples",),
    **settings: Any,
) -> dict[str, Any]:
    """A stage of a sampler of digits, class by class.

    Example:
        >>> digits_stage({}, {"name": "denoising"}, 1e-3, 8000, image_quality())["batch_size"]
        128
    """
    return {
        "student": student,
        "distiller": labelled(distiller),
        "optimizer": adamw(peak, 100),
        "view": {"augment": CENTRED},
        "batch_size": 128,
        "steps": steps,
        "evaluate": {"quality": quality} if quality else {},
        "pictures": pictures,
        **settings,
    }


def digits_teacher(student: dict[str, Any]) -> dict[str, Any]:
    """The teacher of digits, measured in 1 to 18 steps.

    Example:
        >>> digits_teacher({})["steps"]
        8000
    """
    return digits_stage(
        student,
        {"name": "denoising", "frozen": ("classifier",), "ema": 0.999},
        1e-3,
        8000,
        image_quality(solver="heun", in_steps=(1, 2, 4, 8, 18)),
        ("samples", "by_steps"),
    )


def image_quality(**settings: Any) -> dict[str, Any]:
    """How far samples are from data, in the features of the stage ``classifier``.

    Example:
        >>> image_quality(in_steps=(1,))["read"]
        'hidden_1'
    """
    return {
        "evaluator": "image_quality",
        "sets": ("validation", "test"),
        "classifier": "classifier",
        "read": "hidden_1",
        "labels": True,
        "augment": CENTRED,
        **settings,
    }


def student_quality(**settings: Any) -> dict[str, Any]:
    """The quality of a student's samples, and how much they close of the gap between one step of
    the stage ``teacher`` and its many.

    Example:
        >>> student_quality(in_steps=(1,))["against"]["in_steps"]
        (1, 18)
    """
    against = {"stage": "teacher", "solver": "heun", "in_steps": (1, 18)}
    return image_quality(**settings, against=against)


def gap_claim(arms: dict[str, Any], contrasts: dict[str, tuple[str, str, int]]) -> dict[str, Any]:
    """That a student closes at least 80 % of the gap to its teacher.

    Args:
        arms: of the claim.
        contrasts: for each name its sentence, its arm and the student's number of steps.

    Example:
        >>> gap_claim({"student": {}}, {"one step": ("in one step", "student", 1)})["contrasts"]
        {'one step': {'sentence': 'in one step', 'coefficients': {'student': 1},
                      'margin': {'value': 0.8, 'from': "most of what the teacher's steps gain"},
                      'metric': 'student/validation/closed_1'}}
    """
    origin = "most of what the teacher's steps gain"
    return {
        "sentence": "One step of the student closes at least 80 % of the gap between one step "
        "of the teacher and its many.",
        "metric": "student/validation/kid_1",
        "arms": arms,
        "contrasts": {
            name: reaches(arm, 0.8, sentence, f"student/validation/closed_{steps}", origin)
            for name, (sentence, arm, steps) in contrasts.items()
        },
    }


def gap_claim_in_two_steps() -> dict[str, Any]:
    """:func:`gap_claim` of one arm, in one step and in two.

    Example:
        >>> list(gap_claim_in_two_steps()["contrasts"])
        ['one step', 'two steps']
    """
    asked = {"one step": ("in one step", "student", 1), "two steps": ("in two", "student", 2)}
    return gap_claim({"student": {}}, asked)


def tuned_by_kid(grid: dict[str, Any]) -> dict[str, Any]:
    """Settings are chosen by the kernel distance of one step's samples on validation data.

    Example:
        >>> tuned_by_kid({})["lower"]
        True
    """
    return {"metric": "student/validation/kid_1", "lower": True, "seeds": 1, "grid": grid}


def fashion_mnist(**settings: Any) -> dict[str, Any]:
    """What a run on digits becomes on Fashion-MNIST: its images are of 14 x 14 pixels.

    Example:
        >>> fashion_mnist()["stages/student/student/backbone/width"]
        384
    """
    judge = "stages/classifier"
    found = {"data/test": 0.0, f"{judge}/steps": 2000, f"{judge}/view/augment": HALVED}
    found[f"{judge}/evaluate/accuracy/augment"] = HALVED
    for stage in ("stages/teacher", "stages/student"):
        found[f"{stage}/student/backbone/width"] = 384
        found[f"{stage}/view/augment"] = HALVED
        found |= at(f"{stage}/evaluate/quality", augment=HALVED, fid=True, draws=5000)
    return {**found, **settings}
