"""DataDAM: a set whose maps of attention and mean features in random nets are those of real images.

Sajedi et al., DataDAM: Efficient Dataset Distillation with Attention Matching, ICCV 2023: up to 6.5
points above the methods before it on CIFAR-100. The published code takes maps of the first power,
and batch statistics in place of the paper's instance norm; the default here is the paper's norm.

CIFAR-10, 10 images of a class, from a folder with `train.npz` and `test.npz`:

    python -m jaxdistill.main --config=configs/datadam.py --workdir=runs/datadam
        --config.data.dir=<folder>

`:cifar100`, `:mnist`, `:fashion_mnist` are the others. Digits, one image of a class; a minute:

    python -m jaxdistill.main --config=configs/datadam.py:small --workdir=runs/datadam_small
    python -m jaxdistill.claim --config=configs/datadam.py:small --seeds=5
        --workdir=runs/datadam_claim

Beside DM on 10,000 images of Fashion-MNIST, by a small protocol of our own:

    python -m jaxdistill.claim --config=configs/datadam.py:order --seeds=3
        --workdir=runs/datadam_order --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

SIZES = ("", "cifar100", "mnist", "fashion_mnist", "order", "small")
AUGMENT = ("color", "crop", "cutout", "flip", "scale", "rotate")
# A mirrored digit is none.
NO_FLIP = ("color", "crop", "cutout", "scale", "rotate")
# All layers but the last, whose features are matched as they are.
MATCHED = {"attention_weight": 100.0, "feature_weight": 1.0, "power": 1.0}


def get_config(size: str = "") -> ConfigDict:
    """The published run on CIFAR-10 or another data set, or with ``small`` one of minutes."""
    if size not in SIZES:
        raise ValueError(f"configs/datadam.py knows no size {size!r}, only {SIZES[1:]}")
    own = {"small": small, "order": order}
    return ConfigDict(own[size]() if size in own else published(size or "cifar10"))


def published(name: str, each: int = 10) -> dict:
    grey = "mnist" in name
    augment = NO_FLIP if name == "mnist" else AUGMENT
    return {
        "title": f"DataDAM on {name}, {each} images of a class",
        "sentence": "Where random nets look on a small set can be where they look on all images.",
        "seed": 0,
        "data": {"name": name, "dir": "", "validation": 0.0, "whiten": "channels"},
        "mesh": {"data": 1, "fsdp": 1},
        "recipe": ("distil",),
        "stages": {
            "distil": {
                "student": {"net": "convnet", "padding": 3 if grey else 1},
                "distiller": {
                    "name": "match_features",
                    "sets": ("train",),
                    "each": each,
                    "real_batch": 64,
                    "attention": ("relu_0", "relu_1"),
                    **MATCHED,
                    "augment": augment,
                },
                "optimizer": {"name": "sgd", "momentum": 0.5, "learning_rate": 1.0},
                "steps": 20_000,
                "checkpoint_every": 1000,
                "evaluate": {
                    "fresh": {
                        "evaluator": "fresh_nets",
                        "sets": ("test",),
                        "nets": 10,
                        "protocol": {
                            "steps": 1800 * -(-10 * each // 64),
                            "batch_size": 64,
                            "augment": augment,
                        },
                    }
                },
                "pictures": ("synthetic",),
            }
        },
    }


def small() -> dict:
    protocol = {"steps": 300, "batch_size": 256, "learning_rate": 0.02, "every": 50}
    fresh = {"evaluator": "fresh_nets", "sets": ("validation", "test"), "nets": 5, "every": 200}
    evaluate = {"fresh": {**fresh, "protocol": protocol}}
    return {
        "title": "DataDAM in small",
        "sentence": "Where random nets look on a small set can be where they look on all images.",
        "seed": 0,
        "data": {"name": "digits", "dir": "", "validation": 0.15, "test": 0.2},
        "mesh": {"data": 1, "fsdp": 1},
        "recipe": ("distil",),
        "stages": {
            "distil": {
                "student": {"net": "convnet", "width": 16, "depth": 2},
                "distiller": {
                    "name": "match_features",
                    "sets": ("train",),
                    "each": 1,
                    "real_batch": 64,
                    "attention": ("relu_0",),
                    **MATCHED,
                    "augment": ("crop", "scale", "rotate"),
                },
                "optimizer": {"name": "sgd", "momentum": 0.5, "learning_rate": 0.5},
                "steps": 600,
                "evaluate": evaluate,
                "pictures": ("synthetic",),
            },
            "random": real("random", evaluate),
            "herding": real("herding", evaluate),
        },
        "table": ("validation/accuracy",),
        "claim": against_real("DataDAM"),
    }


def order() -> dict:
    """DataDAM beside DM, on 10,000 images of Fashion-MNIST, with 10 of a class."""
    fresh = {
        "evaluator": "fresh_nets",
        "sets": ("test",),
        "nets": 3,
        "protocol": {"steps": 300, "learning_rate": 0.01, "batch_size": 128},
    }
    student = {"net": "convnet", "width": 32, "depth": 2}
    dm = {"stages/distil/distiller/attention": ()}

    return {
        "title": "DataDAM and DM on Fashion-MNIST",
        "sentence": "Where nets look says more of images than their mean features do.",
        "seed": 0,
        # 10,015 images to train on; the other 49,985 are for validation.
        "data": {
            "name": "fashion_mnist",
            "dir": "",
            "validation": 5 / 6,
            "whiten": "channels",
        },
        "mesh": {"data": 1, "fsdp": 1},
        "recipe": ("distil",),
        "stages": {
            "distil": {
                "student": student,
                "distiller": {
                    "name": "match_features",
                    "sets": ("train",),
                    "each": 10,
                    "real_batch": 64,
                    "attention": ("relu_0",),
                    **MATCHED,
                    "augment": AUGMENT,
                },
                # The published rate of either.
                "optimizer": {"name": "sgd", "momentum": 0.5, "learning_rate": 1.0},
                "steps": 200,
                "evaluate": {"fresh": fresh},
                "pictures": ("synthetic",),
            }
        },
        "claim": {
            "sentence": "Nets on ten images of a class by DataDAM are above those by DM.",
            "metric": "distil/test/accuracy",
            "held_equal": ("start, steps, real batches, fresh nets and their training",),
            "arms": {"datadam": {}, "dm": dm},
            "contrasts": {
                "order": {
                    "sentence": "DataDAM is above DM",
                    "coefficients": {"datadam": 1, "dm": -1},
                }
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


def against_real(name: str) -> dict:
    """The claim that a condensed set is worth more than a real one of its size."""
    return {
        "sentence": f"Ten images by {name} are worth more than ten real ones.",
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
    }
