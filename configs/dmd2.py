"""DMD2: a generator of one step whose samples a teacher and an estimate of their own density agree
on.

Yin et al., Improved Distribution Matching Distillation, NeurIPS 2024: on ImageNet-64 one step
reaches an FID of 1.28. Five updates of the estimate for one of the generator, and a discriminator
on the estimate's features.

ImageNet at 64 x 64, the published sizes; the teacher is trained first, or given by
``--config.stages.teacher.checkpoint=<folder of a stage>``:

    python -m jaxdistill.main --config=configs/dmd2.py --workdir=runs/dmd2
        --config.data.dir=<folder>

A ring of eight Gaussians, whose score is exact; minutes a seed:

    python -m jaxdistill.claim --config=configs/dmd2.py:mixture --seeds=3 --workdir=runs/dmd2_ring

Digits, minutes; ``--config.data.name=fashion_mnist --config.data.dir=<folder>`` for Fashion-MNIST
at 14 x 14 pixels:

    python -m jaxdistill.main --config=configs/dmd2.py:small --workdir=runs/dmd2_small

Expect one step of the student near the many of its teacher, and far from the teacher's own one
step: ``sliced_wasserstein_<steps>`` on the ring, ``kid_<steps>`` on images, ``kid_real`` the floor.
"""

from ml_collections import ConfigDict

RING = {"name": "ring"}
CENTRED = ({"name": "normalise", "mean": (0.5,), "std": (0.5,)},)
# With perceptrons narrower than an image has pixels the teacher diverged.
HALVED = ({"name": "resize", "size": 14}, *CENTRED)

# The passes of the teacher that a student is measured against.
AGAINST = {"stage": "teacher", "solver": "heun", "in_steps": (1, 18)}
RATES = (5e-5, 2e-4, 1e-3)
PEAK = "stages/student/optimizer/learning_rate/peak"


def get_config(size: str = "") -> ConfigDict:
    """The published run, ``mixture`` on a density that is known, or ``small`` on digits."""
    sizes = {"": published, "mixture": mixture, "small": small}
    if size not in sizes:
        raise ValueError(f"configs/dmd2.py knows no size {size!r}, only :mixture and :small")
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
        "title": "DMD2, ImageNet-64",
        "sentence": "One step of a generator replaces the many of its teacher.",
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
                "student": student,
                "distiller": {
                    "name": "distribution_matching",
                    "frozen": ("teacher",),
                    "teacher": {"stage": "teacher"},
                    "adversarial": True,
                    "labels": True,
                },
                "initial": {"stage": "teacher"},
                "optimizer": {
                    "name": "adamw",
                    "weight_decay": 0.01,
                    "clip": 10.0,
                    "learning_rate": 2e-6,
                },
                "view": view,
                "batch_size": 280,
                # Of the generator: a fifth of the published 200,000 updates of the estimate.
                "steps": 40_000,
                "checkpoint_every": 1000,
            },
        },
    }


def mixture() -> dict:
    student = {"net": "denoiser", "backbone": {"net": "time_mlp", "width": 128, "depth": 2}}
    quality = {"evaluator": "density_quality", "sets": ("validation",), "density": RING}
    return {
        "title": "DMD2 on a ring",
        "sentence": "One step of a generator replaces the many of its teacher.",
        "seed": 0,
        "data": {"name": "ring", "points": 20_000, "validation": 0.1, "test": 0.0},
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("fit", "student"),
        "stages": {
            # Where generator and estimate start from; the teacher is the density itself.
            "fit": {
                "student": student,
                "distiller": {"name": "denoising", "teacher": {"density": RING}},
                "optimizer": adam(2e-3),
                "batch_size": 256,
                "steps": 1500,
                "evaluate": {
                    "quality": {**quality, "solver": "heun", "in_steps": (1, 18), "draws": 20_000}
                },
            },
            "student": {
                "student": student,
                "distiller": {
                    "name": "distribution_matching",
                    "teacher": {"density": RING},
                    "ratio": 5,
                    "adversarial": False,
                },
                "initial": {"stage": "fit"},
                "optimizer": adam(5e-4),
                "batch_size": 256,
                "steps": 1000,
                "evaluate": {"quality": {**quality, "in_steps": (1,)}},
                "pictures": ("samples",),
            },
        },
        "claim": {
            "sentence": "One step of a generator is as good as the many of its teacher.",
            "metric": "student/validation/sliced_wasserstein_1",
            "arms": {
                "plain": {},
                "adversarial": {"stages/student/distiller/adversarial": True},
            },
            "contrasts": {**gates("plain"), **gates("adversarial")},
        },
    }


def gates(arm: str) -> dict:
    """What one step must reach on the ring: distance, shares of the modes, samples in modes."""
    return {
        f"{arm}, distance": {
            "sentence": "one step is at most 0.06 from the density",
            "coefficients": {arm: -1},
            "margin": -0.06,
        },
        f"{arm}, shares": {
            "sentence": "the shares of the modes are at most 0.08 off",
            "metric": "student/validation/mode_variation_1",
            "coefficients": {arm: -1},
            "margin": -0.08,
        },
        f"{arm}, modes": {
            "sentence": "at least 0.75 of the samples are within three deviations of a mode",
            "metric": "student/validation/mode_quality_1",
            "coefficients": {arm: 1},
            "margin": 0.75,
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
    adversarial = {"stages/student/distiller/adversarial": True}

    def rates(arm: dict) -> dict:
        return {f"rate {rate:.0e}": {**arm, PEAK: rate} for rate in RATES}

    return {
        "title": "DMD2 in small",
        "sentence": "One step of a generator replaces the many of its teacher.",
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
                "evaluate": {
                    "quality": {**quality, "solver": "heun", "in_steps": (1, 2, 4, 8, 18)}
                },
                "pictures": ("samples", "by_steps"),
            },
            "student": {
                **stage,
                "distiller": {
                    "name": "distribution_matching",
                    "frozen": ("classifier", "teacher"),
                    "teacher": {"stage": "teacher"},
                    "ratio": 5,
                    "adversarial": False,
                    "labels": True,
                    "ema": 0.99,
                },
                "initial": {"stage": "teacher"},
                "optimizer": adam(2e-4),
                "steps": 2500,
                "evaluate": {"quality": {**quality, "in_steps": (1,), "against": AGAINST}},
                "pictures": ("samples",),
            },
        },
        "variants": {
            "fashion_mnist": {
                "data/test": 0.0,
                "stages/classifier/steps": 2000,
                "stages/student/steps": 1000,
                "stages/classifier/view/augment": HALVED,
                "stages/classifier/evaluate/accuracy/augment": HALVED,
                **halved("teacher"),
                **halved("student"),
            }
        },
        "claim": {
            "sentence": "One step of the student closes at least 80 % of the gap between one step "
            "of the teacher and its many.",
            "metric": "student/validation/kid_1",
            "arms": {"plain": {}, "adversarial": adversarial},
            "contrasts": {
                "plain": {
                    "sentence": "without the discriminator",
                    "metric": "student/validation/closed_1",
                    "coefficients": {"plain": 1},
                    "margin": 0.8,
                },
                "adversarial": {
                    "sentence": "with it",
                    "metric": "student/validation/closed_1",
                    "coefficients": {"adversarial": 1},
                    "margin": 0.8,
                },
            },
        },
        "tune": {
            "metric": "student/validation/kid_1",
            "lower": True,
            "seeds": 1,
            "grid": {"plain": rates({}), "adversarial": rates(adversarial)},
        },
    }


def halved(stage: str) -> dict:
    """What a sampler of Fashion-MNIST has in place of digits': its images are of 14 x 14 pixels."""
    quality = f"stages/{stage}/evaluate/quality"
    return {
        f"stages/{stage}/student/backbone/width": 384,
        f"stages/{stage}/view/augment": HALVED,
        f"{quality}/augment": HALVED,
        f"{quality}/fid": True,
        f"{quality}/draws": 5000,
    }
