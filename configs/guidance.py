"""Guidance distilled: one pass of a student that is told the scale replaces two of its teacher.

Meng et al., On Distillation of Guided Diffusion Models, CVPR 2023, stage one: the student sees the
scale of guidance as an input and learns what the teacher, guided with it, says of the noised data.

ImageNet at 64 x 64; the teacher is trained first, or given by
``--config.stages.teacher.checkpoint=<folder of a stage>``:

    python -m jaxdistill.main --config=configs/guidance.py --workdir=runs/guidance
        --config.data.dir=<folder>

A ring of eight Gaussians in two classes, where the guided teacher is exact; minutes a seed:

    python -m jaxdistill.claim --config=configs/guidance.py:mixture --seeds=3
        --workdir=runs/guidance_ring

Digits, minutes:

    python -m jaxdistill.main --config=configs/guidance.py:small --workdir=runs/guidance_small

Expect samples as near those of the exact guided teacher as two passes of a net are.
"""

from ml_collections import ConfigDict

RING = {"name": "ring", "classes": 2}
CENTRED = ({"name": "normalise", "mean": (0.5,), "std": (0.5,)},)
# The scale that samples are compared at; 1 is no guidance.
SCALE = 3.0


def get_config(size: str = "") -> ConfigDict:
    """The published run, ``mixture`` on a density that is known, or ``small`` on digits."""
    sizes = {"": published, "mixture": mixture, "small": small}
    if size not in sizes:
        raise ValueError(f"configs/guidance.py knows no size {size!r}, only :mixture and :small")
    return ConfigDict(sizes[size]())


def adam(peak: float, warmup: int = 100) -> dict:
    return {
        "name": "adamw",
        "learning_rate": {"schedule": "warmup_cosine", "peak": peak, "warmup": warmup},
    }


def published() -> dict:
    backbone = {
        "net": "unet",
        "width": 192,
        "multipliers": (1, 2, 3, 4),
        "depth": 3,
        "attention": (32, 16, 8),
        "dropout": 0.1,
        "dtype": "bfloat16",
    }
    student = {"net": "denoiser", "backbone": backbone, "conditional": True}
    view = {
        "augment": (
            {"name": "resize", "size": 64},
            {"name": "normalise", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
        )
    }
    return {
        "title": "Guidance distilled, ImageNet-64",
        "sentence": "One pass that is told the scale replaces two.",
        "seed": 0,
        "data": {"name": "imagenet2012", "dir": "", "image_size": 64, "validation": 0.01},
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("teacher", "student"),
        "stages": {
            "teacher": {
                "student": student,
                "distiller": {"name": "denoising", "labels": True, "ema": 0.9999},
                "optimizer": adam(1e-4, 10_000),
                "view": view,
                "batch_size": 4096,
                "steps": 610_000,
                "checkpoint": "",
                "checkpoint_every": 10_000,
            },
            "student": {
                "student": {**student, "backbone": {**backbone, "guidance": True}},
                "distiller": {
                    "name": "denoising",
                    "frozen": ("teacher",),
                    "teacher": {"stage": "teacher"},
                    "labels": True,
                    "scales": (1.0, 5.0),
                    "ema": 0.9999,
                },
                "initial": {"stage": "teacher"},
                "optimizer": adam(1e-4, 1000),
                "view": view,
                "batch_size": 2048,
                "steps": 100_000,
                "checkpoint_every": 10_000,
            },
        },
    }


def mixture() -> dict:
    backbone = {"net": "time_mlp", "width": 128, "depth": 2}
    distiller, quality = "stages/student/distiller", "stages/student/evaluate/quality"
    return {
        "title": "Guidance distilled on a ring",
        "sentence": "One pass that is told the scale replaces two.",
        "seed": 0,
        "data": {"name": "ring", "classes": 2, "points": 20_000, "validation": 0.1, "test": 0.0},
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("student",),
        "stages": {
            "student": {
                "student": {
                    "net": "denoiser",
                    "backbone": {**backbone, "guidance": True},
                    "conditional": True,
                },
                "distiller": {
                    "name": "denoising",
                    "teacher": {"density": RING},
                    "labels": True,
                    "scales": (1.0, 5.0),
                    "ema": 0.999,
                },
                "optimizer": adam(2e-3),
                "batch_size": 256,
                "steps": 4000,
                "evaluate": {
                    "quality": {
                        "evaluator": "density_quality",
                        "sets": ("validation",),
                        "density": RING,
                        "solver": "heun",
                        "in_steps": (1, 18),
                        "label": 0,
                        "scale": SCALE,
                        "embedded": True,
                        "draws": 20_000,
                    }
                },
                "pictures": ("samples",),
            },
        },
        "claim": {
            "sentence": "One pass that is told the scale is as good as two.",
            "metric": "student/validation/sliced_wasserstein_18",
            "arms": {
                "one pass": {},
                "two passes": {
                    f"{distiller}/scales": None,
                    f"{quality}/embedded": False,
                    "stages/student/student/backbone/guidance": False,
                },
            },
            "contrasts": {
                "distance": {
                    "sentence": "at most 0.06 from the samples of the exact guided teacher",
                    "coefficients": {"one pass": -1},
                    "margin": -0.06,
                },
                "one pass": {
                    "sentence": "at most 0.02 further than two passes of a net",
                    "coefficients": {"two passes": 1, "one pass": -1},
                    "margin": -0.02,
                },
            },
        },
    }


def small() -> dict:
    backbone = {"net": "time_mlp", "width": 256, "depth": 3}
    student = {"net": "denoiser", "backbone": backbone, "conditional": True}
    quality = {
        "evaluator": "image_quality",
        "sets": ("validation", "test"),
        "classifier": "classifier",
        "read": "hidden_1",
        "labels": True,
        "augment": CENTRED,
    }
    stage = {"student": student, "view": {"augment": CENTRED}, "batch_size": 128}
    guided = {**quality, "solver": "heun", "in_steps": (1, 18), "scale": SCALE}
    return {
        "title": "Guidance distilled in small",
        "sentence": "One pass that is told the scale replaces two.",
        "seed": 0,
        "data": {"name": "digits", "dir": "", "validation": 0.2, "test": 0.2},
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("classifier", "teacher", "student"),
        "stages": {
            # In whose features samples are compared with data.
            "classifier": {
                "student": {"net": "mlp", "widths": (256, 128)},
                "objective": {"labels": {"loss": "cross_entropy", "target": "batch/label"}},
                "optimizer": adam(1e-3),
                "view": {"augment": CENTRED},
                "batch_size": 128,
                "steps": 500,
                "evaluate": {
                    "accuracy": {
                        "evaluator": "classification",
                        "sets": ("validation", "test"),
                        "augment": CENTRED,
                    }
                },
            },
            "teacher": {
                **stage,
                "distiller": {
                    "name": "denoising",
                    "frozen": ("classifier",),
                    "labels": True,
                    "ema": 0.999,
                },
                "optimizer": adam(1e-3),
                "steps": 8000,
                "evaluate": {"quality": guided},
                "pictures": ("samples",),
            },
            "student": {
                **stage,
                "student": {**student, "backbone": {**backbone, "guidance": True}},
                "distiller": {
                    "name": "denoising",
                    "frozen": ("classifier", "teacher"),
                    "teacher": {"stage": "teacher"},
                    "labels": True,
                    "scales": (1.0, 5.0),
                    "ema": 0.999,
                },
                "initial": {"stage": "teacher"},
                "optimizer": adam(1e-3),
                "steps": 8000,
                "evaluate": {"quality": {**guided, "embedded": True}},
                "pictures": ("samples",),
            },
        },
    }
