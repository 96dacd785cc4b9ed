"""iCT: a consistency model from data alone, of pairs of neighbouring levels on a grid that doubles.

Song and Dhariwal, Improved Techniques for Training Consistency Models, ICLR 2024: one step reaches
an FID of 2.51 on CIFAR-10 and 3.25 on ImageNet-64, two steps 2.24 and 2.77. No average in the
target, the pseudo-Huber distance, grids of 10 to 1280 intervals.

CIFAR-10, the published sizes:

    python -m jaxdistill.main --config=configs/ict.py --workdir=runs/ict

A ring of eight Gaussians; minutes a seed:

    python -m jaxdistill.claim --config=configs/ict.py:mixture --seeds=3 --workdir=runs/ict_ring

Digits, minutes; ``--config.data.name=fashion_mnist --config.data.dir=<folder>`` for Fashion-MNIST
at 14 x 14 pixels:

    python -m jaxdistill.main --config=configs/ict.py:small --workdir=runs/ict_small

Expect two steps nearer the density than one, both far nearer than one step of a denoiser.
"""

from ml_collections import ConfigDict

RING = {"name": "ring"}
CENTRED = ({"name": "normalise", "mean": (0.5,), "std": (0.5,)},)
# With perceptrons narrower than an image has pixels the teacher diverged.
HALVED = ({"name": "resize", "size": 14}, *CENTRED)
# The level of the noise between two steps, as published for CIFAR-10.
MIDDLE = (0.821,)
# The passes of the teacher that a student is measured against.
AGAINST = {"stage": "teacher", "solver": "heun", "in_steps": (1, 18)}
# What --tune compares on the ring.
MIDDLES = {"1/10": 0.1, "1/5": 0.2, "2/5": 0.4, "published": 0.821}
RATES = (1e-4, 3e-4, 1e-3)
PEAK = "stages/student/optimizer/learning_rate/peak"


def get_config(size: str = "") -> ConfigDict:
    """The published run, ``mixture`` on a density that is known, or ``small`` on digits."""
    sizes = {"": published, "mixture": mixture, "small": small}
    if size not in sizes:
        raise ValueError(f"configs/ict.py knows no size {size!r}, only :mixture and :small")
    return ConfigDict(sizes[size]())


def adam(peak: float, warmup: int = 100) -> dict:
    return {
        "name": "adamw",
        "learning_rate": {"schedule": "warmup_cosine", "peak": peak, "warmup": warmup},
    }


def published() -> dict:
    colours = {"name": "normalise", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return {
        "title": "iCT, CIFAR-10",
        "sentence": "A consistency model from data alone.",
        "seed": 0,
        "data": {"name": "tfds", "dataset": "cifar10", "dir": "", "validation": 0.02},
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("student",),
        "stages": {
            "student": {
                "student": {
                    "net": "denoiser",
                    "backbone": {"net": "unet", "depth": 8, "dropout": 0.3},
                    "sigma_min": 0.002,
                },
                "distiller": {"name": "consistency", "ema": 0.99993},
                "optimizer": {"name": "radam", "learning_rate": 1e-4},
                "view": {"augment": ({"name": "flip"}, colours)},
                "batch_size": 1024,
                "steps": 400_000,
                "checkpoint_every": 10_000,
            },
        },
    }


def mixture() -> dict:
    quality = {"evaluator": "density_quality", "sets": ("validation",), "density": RING}
    distiller = "stages/student/distiller"
    return {
        "title": "iCT on a ring",
        "sentence": "A consistency model from data alone.",
        "seed": 0,
        "data": {"name": "ring", "points": 20_000, "validation": 0.1, "test": 0.0},
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("student",),
        "stages": {
            "student": {
                "student": {
                    "net": "denoiser",
                    "backbone": {"net": "time_mlp", "width": 128, "depth": 2},
                    "sigma_min": 0.002,
                },
                "distiller": {"name": "consistency", "first": 10, "last": 80, "ema": 0.999},
                "optimizer": adam(1e-3),
                "batch_size": 256,
                "steps": 6000,
                "evaluate": {"quality": {**quality, "in_steps": (1, 2), "middle": MIDDLE}},
                "pictures": ("samples",),
            },
        },
        "claim": {
            "sentence": "One step is near the density, and two are nearer.",
            "metric": "student/validation/sliced_wasserstein_1",
            "arms": {
                "doubling": {},
                "fixed": {f"{distiller}/first": 40, f"{distiller}/last": 40},
            },
            "contrasts": {
                **gates("doubling"),
                "two steps": {
                    "sentence": "two steps are at most 0.7 of one above the floor",
                    "metric": "student/validation/two_step_gain",
                    "coefficients": {"doubling": 1},
                },
                "doubling": {
                    "sentence": "a grid that doubles beats one that stays",
                    "coefficients": {"fixed": 1, "doubling": -1},
                },
            },
        },
        "tune": {
            "metric": "student/validation/sliced_wasserstein_2",
            "lower": True,
            "seeds": 2,
            "grid": {
                "doubling": {
                    f"through {name}": {"stages/student/evaluate/quality/middle": (level,)}
                    for name, level in MIDDLES.items()
                }
            },
        },
    }


def gates(arm: str) -> dict:
    """What one step must reach on the ring: distance, shares of the modes, samples in modes."""
    return {
        "distance": {
            "sentence": "one step is at most 0.06 from the density",
            "coefficients": {arm: -1},
            "margin": -0.06,
        },
        "shares": {
            "sentence": "the shares of the modes are at most 0.08 off",
            "metric": "student/validation/mode_variation_1",
            "coefficients": {arm: -1},
            "margin": -0.08,
        },
        "modes": {
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
    return {
        "title": "iCT in small",
        "sentence": "A consistency model from data alone.",
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
                # The teacher is there to be compared with.
                "student": {**student, "sigma_min": 0.002},
                "distiller": {
                    "name": "consistency",
                    "frozen": ("classifier", "teacher"),
                    "first": 10,
                    "last": 80,
                    "labels": True,
                    "ema": 0.999,
                },
                # The best of three on a tuning seed.
                "optimizer": adam(3e-4),
                "steps": 16_000,
                "evaluate": {
                    "quality": {**quality, "in_steps": (1, 2), "middle": MIDDLE, "against": AGAINST}
                },
                "pictures": ("samples",),
            },
        },
        "variants": {
            "fashion_mnist": {
                "data/test": 0.0,
                "stages/classifier/steps": 2000,
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
            "arms": {"student": {}},
            "contrasts": {
                "one step": {
                    "sentence": "in one step",
                    "metric": "student/validation/closed_1",
                    "coefficients": {"student": 1},
                    "margin": 0.8,
                },
                "two steps": {
                    "sentence": "in two",
                    "metric": "student/validation/closed_2",
                    "coefficients": {"student": 1},
                    "margin": 0.8,
                },
            },
        },
        "tune": {
            "metric": "student/validation/kid_1",
            "lower": True,
            "seeds": 1,
            "grid": {"student": {f"rate {rate:.0e}": {PEAK: rate} for rate in RATES}},
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
