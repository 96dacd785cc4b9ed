"""FTD: trajectories are matched that lead through flat places, where errors add up less.

Du et al., Minimizing the Accumulated Trajectory Error to Improve Dataset Distillation, CVPR 2023:
46.8, 66.6 and 73.8 % on CIFAR-10 with 1, 10 and 50 images of a class, 25.2, 43.4 and 50.7 on
CIFAR-100, the averaged images being measured by nets that were trained on the others before. What
others measured afresh is 46.0, 65.3, 73.2 and 24.4, 42.5, 48.5.

CIFAR-10, 10 images of a class, from a folder with `train.npz` and `test.npz`:

    python -m jaxdistill.main --config=configs/ftd.py --workdir=runs/ftd --config.data.dir=<folder>

`:cifar100`, `:mnist`, `:fashion_mnist` are the others. Digits, one image of a class; minutes:

    python -m jaxdistill.main --config=configs/ftd.py:small --workdir=runs/ftd_small
    python -m jaxdistill.claim --config=configs/ftd.py:small --seeds=5 --workdir=runs/ftd_claim

Beside MTT on 10,000 images of Fashion-MNIST, by a small protocol of our own:

    python -m jaxdistill.claim --config=configs/ftd.py:order --seeds=3
        --workdir=runs/ftd_order --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

SIZES = ("", "cifar100", "mnist", "fashion_mnist", "order", "small")
AUGMENT = ("color", "crop", "cutout", "flip", "scale", "rotate")
# A mirrored digit is none.
NO_FLIP = ("color", "crop", "cutout", "scale", "rotate")
EXPERTS, EPOCHS, RECORDS = 100, 50, {"mnist": 60_000, "fashion_mnist": 60_000}


def get_config(size: str = "") -> ConfigDict:
    """The published run on CIFAR-10 or another data set, or with ``small`` one of minutes."""
    if size not in SIZES:
        raise ValueError(f"configs/ftd.py knows no size {size!r}, only {SIZES[1:]}")
    own = {"small": small, "order": order}
    return ConfigDict(own[size]() if size in own else published(size or "cifar10"))


def published(name: str) -> dict:
    grey, hundred = "mnist" in name, name == "cifar100"
    augment = NO_FLIP if name == "mnist" else AUGMENT
    student = {"net": "convnet", "padding": 3 if grey else 1}
    rates = (1000.0, 1e-5, 0.01) if hundred else (100.0, 1e-5, 0.001)
    return {
        "title": f"FTD on {name}, 10 images of a class",
        "sentence": "Experts that stay where it is flat are followed with less error.",
        "seed": 0,
        "data": {
            "name": name,
            "dir": "",
            "validation": 0.0,
            "whiten": "channels" if grey else "absolute",
        },
        "mesh": {"data": 1, "fsdp": 1},
        "recipe": ("experts", "distil"),
        "stages": {
            "experts": {
                "student": student,
                "distiller": {
                    "name": "experts",
                    "sets": ("train",),
                    "experts": EXPERTS,
                    "epochs": EPOCHS,
                    "at_once": 10,
                    "batch_size": 256,
                    "learning_rate": 0.01,
                    "augment": augment,
                    "flatness": {"rho": 0.01, "alpha": 1.0 if hundred else 0.3},
                },
                "steps": RECORDS.get(name, 50_000) // 256 * EPOCHS * EXPERTS // 10,
                "log_every": 500,
            },
            "distil": {
                "student": student,
                "distiller": {
                    "name": "match_trajectories",
                    "frozen": ("experts",),
                    "sets": ("train",),
                    "each": 10,
                    "student_steps": 20 if hundred else 30,
                    "epochs": 2,
                    "window": {"first": 0, "last": 40 if hundred else 20},
                    "ema": 0.9995,
                    "rate": rates[2],
                    "augment": augment,
                },
                "optimizer": parts(*rates[:2]),
                "steps": 5000,
                "checkpoint_every": 500,
                "evaluate": {
                    "fresh": {
                        "evaluator": "fresh_nets",
                        "sets": ("test",),
                        "nets": 5,
                        "protocol": {
                            "steps": 1000 * -(-100 * (10 if hundred else 1) // 256),
                            "learning_rate": None,
                            "augment": augment,
                        },
                    }
                },
                "pictures": ("synthetic",),
            },
        },
    }


def parts(images: float, rate: float) -> dict:
    """SGD for the images, and for the students' learning rate."""
    return {
        "name": "parts",
        "images": {"name": "sgd", "momentum": 0.5, "learning_rate": images},
        "rate": {"name": "sgd", "momentum": 0.5, "learning_rate": rate},
    }


def small() -> dict:
    student = {"net": "convnet", "width": 16, "depth": 2}
    protocol = {"steps": 300, "learning_rate": 0.02, "every": 50}
    evaluate = {
        "validation": {
            "evaluator": "fresh_nets",
            "sets": ("validation",),
            "nets": 3,
            "every": 100,
            "protocol": protocol,
        },
        "test": {"evaluator": "fresh_nets", "sets": ("test",), "nets": 5, "protocol": protocol},
    }
    return {
        "title": "FTD in small",
        "sentence": "Experts that stay where it is flat are followed with less error.",
        "seed": 0,
        "data": {"name": "digits", "dir": "", "validation": 0.15, "test": 0.2},
        "mesh": {"data": 1, "fsdp": 1},
        "recipe": ("experts", "distil"),
        "stages": {
            "experts": {
                "student": student,
                "distiller": {
                    "name": "experts",
                    "sets": ("train",),
                    "experts": 6,
                    "epochs": 20,
                    "batch_size": 64,
                    "learning_rate": 0.02,
                    "flatness": {"rho": 0.01, "alpha": 0.3},
                },
                "steps": 18 * 20,
            },
            "distil": {
                "student": student,
                "distiller": {
                    "name": "match_trajectories",
                    "frozen": ("experts",),
                    "sets": ("train",),
                    "each": 1,
                    "student_steps": 10,
                    "epochs": 2,
                    "window": {"first": 0, "last": 8},
                    "ema": 0.98,
                    "rate": 0.02,
                },
                "optimizer": parts(10.0, 1e-5),
                "steps": 300,
                "evaluate": evaluate,
                "pictures": ("synthetic",),
            },
            "random": real("random", evaluate),
            "herding": real("herding", evaluate),
        },
        "table": ("validation/accuracy",),
        "claim": {
            "sentence": "Ten images by FTD are worth more than ten real ones.",
            "metric": "last/test/accuracy",
            "held_equal": ("images of a class, fresh nets and their training",),
            "arms": {
                "condensed": {},
                "random": {"recipe": ("random",)},
                "herding": {"recipe": ("herding",)},
            },
            "contrasts": {
                "random": {
                    "sentence": "above a random real subset of equal size",
                    "coefficients": {"condensed": 1, "random": -1},
                },
                "herding": {
                    "sentence": "above herding of equal size",
                    "coefficients": {"condensed": 1, "herding": -1},
                },
            },
        },
    }


def order() -> dict:
    """FTD beside MTT, on 10,000 images of Fashion-MNIST, with one of a class."""
    fresh = {
        "evaluator": "fresh_nets",
        "sets": ("test",),
        "nets": 3,
        "protocol": {"steps": 300, "learning_rate": 0.01, "batch_size": 128},
    }
    student = {"net": "convnet", "width": 32, "depth": 2}
    return {
        "title": "FTD and MTT on Fashion-MNIST",
        "sentence": "Experts that stay where it is flat are followed with less error.",
        "seed": 0,
        # 10,015 images to train on; the other 49,985 are for validation.
        "data": {
            "name": "fashion_mnist",
            "dir": "",
            "validation": 5 / 6,
            "whiten": "channels",
        },
        "mesh": {"data": 1, "fsdp": 1},
        "recipe": ("experts", "distil"),
        "stages": {
            "experts": {
                "student": student,
                "distiller": {
                    "name": "experts",
                    "sets": ("train",),
                    "experts": 3,
                    "epochs": 8,
                    "batch_size": 256,
                    "learning_rate": 0.02,
                    "flatness": {"rho": 0.01, "alpha": 0.3},
                },
                "steps": 39 * 8,
            },
            "distil": {
                "student": student,
                "distiller": {
                    "name": "match_trajectories",
                    "frozen": ("experts",),
                    "sets": ("train",),
                    "each": 1,
                    "student_steps": 10,
                    "epochs": 1,
                    "window": {"first": 0, "last": 4},
                    "rate": 0.02,
                    "ema": 0.98,
                },
                "optimizer": parts(30.0, 1e-5),
                "steps": 200,
                "evaluate": {"fresh": fresh},
                "pictures": ("synthetic",),
            },
        },
        "claim": {
            "sentence": "Nets on one image of a class by FTD are above those by MTT.",
            "metric": "distil/test/accuracy",
            "held_equal": (
                "steps and rate of the experts, and where students start",
                "start, steps and rates of the set, fresh nets and their training",
            ),
            "arms": {
                "ftd": {},
                "flat": {"stages/distil/distiller/ema": None},
                "mtt": {
                    "stages/experts/distiller/flatness": None,
                    "stages/distil/distiller/ema": None,
                },
            },
            "contrasts": {
                "order": {
                    "sentence": "FTD is above MTT",
                    "coefficients": {"ftd": 1, "mtt": -1},
                },
                "experts": {
                    "sentence": "flat experts alone are better",
                    "coefficients": {"flat": 1, "mtt": -1},
                },
                "average": {
                    "sentence": "averaged images alone are better",
                    "coefficients": {"ftd": 1, "flat": -1},
                },
            },
        },
    }


def real(choice: str, evaluate: dict) -> dict:
    """A stage that chooses real images."""
    return {
        "student": {"net": "convnet", "width": 16, "depth": 2},
        "distiller": {"name": "chosen", "sets": ("train",), "each": 1, "choice": choice},
        "steps": 1,
        "evaluate": evaluate,
        "pictures": ("synthetic",),
    }
