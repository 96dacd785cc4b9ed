"""DATM: experts are matched where they are as difficult as a set of that size can learn.

Guo et al., Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching, ICLR
2024: small sets learn from early epochs, large ones from late ones; labels are learned too. 46.9,
66.8 and 76.1 % on CIFAR-10 with 1, 10 and 50 images of a class, 27.9, 47.2 and 55.0 on CIFAR-100,
the best of all evaluations on the test set.

CIFAR-10, 10 images of a class, from a folder with `train.npz` and `test.npz`:

    python -m jaxdistill.main --config=configs/datm.py --workdir=runs/datm
        --config.data.dir=<folder>

`:cifar100`, `:mnist`, `:fashion_mnist` are the others. Digits, one image of a class; minutes:

    python -m jaxdistill.main --config=configs/datm.py:small --workdir=runs/datm_small
    python -m jaxdistill.claim --config=configs/datm.py:small --seeds=5 --workdir=runs/datm_claim

Early and late windows on 10,000 images of Fashion-MNIST, by a small protocol of our own:

    python -m jaxdistill.claim --config=configs/datm.py:order --seeds=3
        --workdir=runs/datm_order --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

SIZES = ("", "cifar100", "mnist", "fashion_mnist", "order", "small")
AUGMENT = ("color", "crop", "cutout", "flip", "scale", "rotate")
# A mirrored digit is none.
NO_FLIP = ("color", "crop", "cutout", "scale", "rotate")
EXPERTS, EPOCHS, RECORDS = 100, 100, {"mnist": 60_000, "fashion_mnist": 60_000}


def get_config(size: str = "") -> ConfigDict:
    """The published run on CIFAR-10 or another data set, or with ``small`` one of minutes."""
    if size not in SIZES:
        raise ValueError(f"configs/datm.py knows no size {size!r}, only {SIZES[1:]}")
    own = {"small": small, "order": order}
    return ConfigDict(own[size]() if size in own else published(size or "cifar10"))


def published(name: str) -> dict:
    grey, hundred = "mnist" in name, name == "cifar100"
    augment = NO_FLIP if name == "mnist" else AUGMENT
    student = {"net": "convnet", "padding": 3 if grey else 1}
    # The window ends at first after 10 or 30 epochs, at last after 20 or 50.
    window = {"first": 0, "begin": 10, "last": 20, "grown": 1000}
    if hundred:
        window = {"first": 0, "begin": 30, "last": 50, "grown": 2000}
    return {
        "title": f"DATM on {name}, 10 images of a class",
        "sentence": "A set learns best from experts as difficult as its size allows.",
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
                    "flatness": {"rho": 0.01, "alpha": 0.3},
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
                    "student_steps": 80,
                    "epochs": 2,
                    "window": window,
                    "rate": 0.01,
                    "batch_size": 1000 if hundred else 100,
                    "soft": True,
                    "images_from": "correct",
                    "threshold": 1.0,
                    "augment": augment,
                },
                "optimizer": parts(1000.0 if hundred else 100.0, 1e-5, 10.0 if hundred else 2.0),
                "steps": 10_000,
                "checkpoint_every": 500,
                "evaluate": {
                    "fresh": {
                        "evaluator": "fresh_nets",
                        "sets": ("test",),
                        "nets": 5,
                        "protocol": {
                            "batch_size": 128,
                            "steps": 1000 * -(-100 * (10 if hundred else 1) // 128),
                            "learning_rate": None,
                            "augment": augment,
                        },
                    }
                },
                "pictures": ("synthetic",),
            },
        },
    }


def parts(images: float, rate: float, labels: float) -> dict:
    """SGD for the images, for the students' learning rate, and for the labels."""
    return {
        "name": "parts",
        "images": {"name": "sgd", "momentum": 0.5, "learning_rate": images},
        "rate": {"name": "sgd", "momentum": 0.5, "learning_rate": rate},
        "labels": {"name": "sgd", "momentum": 0.9, "learning_rate": labels},
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
        "title": "DATM in small",
        "sentence": "A set learns best from experts as difficult as its size allows.",
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
                    "window": {"first": 0, "begin": 4, "last": 8, "grown": 100},
                    "soft": True,
                    "images_from": "correct",
                    "threshold": 1.0,
                    "rate": 0.02,
                },
                "optimizer": parts(10.0, 1e-5, 2.0),
                "steps": 300,
                "evaluate": evaluate,
                "pictures": ("synthetic",),
            },
            "random": real("random", evaluate),
            "herding": real("herding", evaluate),
        },
        "table": ("validation/accuracy",),
        "claim": {
            "sentence": "Ten images by DATM are worth more than ten real ones.",
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
    """Early and late windows for one and for ten images of a class, on 10,000 images of
    Fashion-MNIST."""
    fresh = {
        "evaluator": "fresh_nets",
        "sets": ("test",),
        "nets": 3,
        "protocol": {"steps": 300, "learning_rate": 0.01, "batch_size": 128},
    }
    student = {"net": "convnet", "width": 32, "depth": 2}
    distil = "stages/distil"
    late = {f"{distil}/distiller/window": {"first": 4, "last": 7}}
    larger = {
        f"{distil}/distiller/each": 10,
        f"{distil}/distiller/batch_size": 50,
        f"{distil}/optimizer/images/learning_rate": 300.0,
    }
    return {
        "title": "Windows of DATM on Fashion-MNIST",
        "sentence": "A set learns best from experts as difficult as its size allows.",
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
                    "window": {"first": 0, "last": 3},
                    "rate": 0.02,
                    "soft": True,
                    "images_from": "correct",
                    "threshold": 1.0,
                },
                "optimizer": parts(30.0, 1e-5, 2.0),
                "steps": 200,
                "evaluate": {"fresh": fresh},
                "pictures": ("synthetic",),
            },
        },
        "claim": {
            "sentence": "Small sets learn from early epochs, larger ones from late epochs.",
            "metric": "distil/test/accuracy",
            "held_equal": (
                "the experts, and how many steps of theirs a student follows",
                "start, steps and rates of sets of one size, fresh nets and their training",
            ),
            "arms": {
                "one, early": {},
                "one, late": late,
                "ten, early": larger,
                "ten, late": {**larger, **late},
            },
            "contrasts": {
                "one": {
                    "sentence": "with one image of a class early epochs are better",
                    "coefficients": {"one, early": 1, "one, late": -1},
                },
                "ten": {
                    "sentence": "with ten images of a class late epochs are better",
                    "coefficients": {"ten, late": 1, "ten, early": -1},
                },
                "crossing": {
                    "sentence": "late epochs gain on early ones from one image to ten",
                    "coefficients": {
                        "ten, late": 1,
                        "ten, early": -1,
                        "one, late": -1,
                        "one, early": 1,
                    },
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
