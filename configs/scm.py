"""sCM: a consistency model of continuous time, trained by one forward-mode derivative a step.

Lu and Song, Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models, 2024: in two
steps an FID of 2.06 on CIFAR-10 and 1.48 on ImageNet-64.

CIFAR-10 with the settings of EDM; the teacher is trained first, or given by
``--config.stages.teacher.checkpoint=<folder of a stage>``:

    python -m jaxdistill.main --config=configs/scm.py --workdir=runs/scm

A ring of eight Gaussians, whose score is exact; minutes a seed:

    python -m jaxdistill.claim --config=configs/scm.py:mixture --seeds=3 --workdir=runs/scm_ring

Digits, minutes; ``--config.data.name=fashion_mnist --config.data.dir=<folder>`` for Fashion-MNIST
at 14 x 14 pixels:

    python -m jaxdistill.main --config=configs/scm.py:small --workdir=runs/scm_small

Expect one and two steps of the student far nearer the density than one of the teacher, and two
nearer than one.
"""

from ml_collections import ConfigDict

RING = {"name": "ring"}
CENTRED = ({"name": "normalise", "mean": (0.5,), "std": (0.5,)},)
# With perceptrons narrower than an image has pixels the teacher diverged.
HALVED = ({"name": "resize", "size": 14}, *CENTRED)
# The level of the noise between two steps, that of iCT on CIFAR-10.
MIDDLE = (0.821,)
# The passes of the teacher that a student is measured against.
AGAINST = {"stage": "teacher", "solver": "heun", "in_steps": (1, 18)}
RATES = (1e-4, 3e-4, 1e-3)
PEAK = "stages/student/optimizer/learning_rate/peak"


def get_config(size: str = "") -> ConfigDict:
    """The published run, ``mixture`` on a density that is known, or ``small`` on digits."""
    sizes = {"": published, "mixture": mixture, "small": small}
    if size not in sizes:
        raise ValueError(f"configs/scm.py knows no size {size!r}, only :mixture and :small")
    return ConfigDict(sizes[size]())


def adam(peak: float, warmup: int = 100) -> dict:
    return {
        "name": "adamw",
        "learning_rate": {"schedule": "warmup_cosine", "peak": peak, "warmup": warmup},
    }


def published() -> dict:
    student = {
        "net": "denoiser",
        "backbone": {"net": "unet", "dropout": 0.13, "dtype": "bfloat16"},
        "time": "angle",
    }
    colours = {"name": "normalise", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    view = {"augment": ({"name": "flip"}, colours)}
    return {
        "title": "sCM, CIFAR-10",
        "sentence": "A consistency model of continuous time, by one forward-mode derivative.",
        "seed": 0,
        "data": {"name": "tfds", "dataset": "cifar10", "dir": "", "validation": 0.02},
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("teacher", "student"),
        "stages": {
            "teacher": {
                "student": student,
                "distiller": {"name": "denoising", "ema": 0.9995},
                "optimizer": adam(1e-3, 20_000),
                "view": view,
                "batch_size": 512,
                "steps": 400_000,
                "checkpoint": "",
                "checkpoint_every": 10_000,
            },
            "student": {
                "student": student,
                "distiller": {
                    "name": "continuous_consistency",
                    "frozen": ("teacher",),
                    "teacher": {"stage": "teacher"},
                    "ema": 0.9999,
                },
                "initial": {"stage": "teacher"},
                "optimizer": adam(1e-4, 1000),
                "view": view,
                "batch_size": 512,
                "steps": 200_000,
                "checkpoint_every": 10_000,
            },
        },
    }


def mixture() -> dict:
    student = {
        "net": "denoiser",
        "backbone": {"net": "time_mlp", "width": 128, "depth": 2},
        "time": "angle",
    }
    quality = {"evaluator": "density_quality", "sets": ("validation",), "density": RING}
    unweighted = {"stages/student/distiller/weighting": "none", PEAK: 3e-4}

    def rates(arm: dict) -> dict:
        return {f"rate {rate:.0e}": {**arm, PEAK: rate} for rate in RATES}

    return {
        "title": "sCM on a ring",
        "sentence": "A consistency model of continuous time, by one forward-mode derivative.",
        "seed": 0,
        "data": {"name": "ring", "points": 20_000, "validation": 0.1, "test": 0.0},
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("fit", "student"),
        "stages": {
            # Where the student starts from; the teacher is the density itself.
            "fit": {
                "student": student,
                "distiller": {"name": "denoising", "teacher": {"density": RING}},
                "optimizer": adam(2e-3),
                "batch_size": 256,
                "steps": 2000,
                "evaluate": {
                    "quality": {**quality, "solver": "heun", "in_steps": (1, 18), "draws": 20_000}
                },
            },
            "student": {
                "student": student,
                "distiller": {
                    "name": "continuous_consistency",
                    "teacher": {"density": RING},
                    "warmup": 500,
                    "ema": 0.999,
                },
                "initial": {"stage": "fit"},
                # The best of three on tuning seeds, the lowest of them; without the weight 3e-4 is.
                "optimizer": adam(1e-4),
                "batch_size": 256,
                "steps": 8000,
                "evaluate": {"quality": {**quality, "in_steps": (1, 2), "middle": MIDDLE}},
                "pictures": ("samples",),
            },
        },
        "claim": {
            "sentence": "One step is near the density, and two are nearer.",
            "metric": "student/validation/sliced_wasserstein_1",
            "arms": {
                "weighted": {},
                "unweighted": unweighted,
            },
            "contrasts": {
                **gates("weighted"),
                "two steps": {
                    "sentence": "two steps are at most 0.7 of one above the floor",
                    "metric": "student/validation/two_step_gain",
                    "coefficients": {"weighted": 1},
                },
                "weight": {
                    "sentence": "the learned weight beats none",
                    "coefficients": {"unweighted": 1, "weighted": -1},
                },
            },
        },
        "tune": {
            "metric": "student/validation/sliced_wasserstein_1",
            "lower": True,
            "seeds": 2,
            "grid": {"weighted": rates({}), "unweighted": rates(unweighted)},
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
    student = {"net": "denoiser", "backbone": backbone, "conditional": True, "time": "angle"}
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
        "title": "sCM in small",
        "sentence": "A consistency model of continuous time, by one forward-mode derivative.",
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
                    "name": "continuous_consistency",
                    "frozen": ("classifier", "teacher"),
                    "teacher": {"stage": "teacher"},
                    "warmup": 1000,
                    "labels": True,
                    "ema": 0.999,
                },
                "initial": {"stage": "teacher"},
                # The best of three on a tuning seed, the lowest of them.
                "optimizer": adam(1e-4),
                "steps": 8000,
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
