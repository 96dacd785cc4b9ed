"""DM: a set whose mean features in random nets are those of the real images of each class.

Zhao and Bilen, Dataset Condensation with Distribution Matching, WACV 2023: ConvNet-3 trained on it
reaches 26.0, 48.9 and 63.0 % on CIFAR-10 with 1, 10 and 50 images of a class (random real ones:
14.4, 26.0, 43.4).

CIFAR-10, 10 images of a class, from a folder with `train.npz` and `test.npz`:

    python -m jaxdistill.main --config=configs/dm.py --workdir=runs/dm --config.data.dir=<folder>

`:cifar100`, `:mnist` and `:fashion_mnist` are the published settings for these. Digits, one image
of a class; about a minute:

    python -m jaxdistill.main --config=configs/dm.py:small --workdir=runs/dm_small
    python -m jaxdistill.claim --config=configs/dm.py:small --seeds=5 --workdir=runs/dm_claim
"""

from ml_collections import ConfigDict

SIZES = ("", "cifar100", "mnist", "fashion_mnist", "small")
AUGMENT = ("color", "crop", "cutout", "flip", "scale", "rotate")
# A mirrored digit is none.
NO_FLIP = ("color", "crop", "cutout", "scale", "rotate")


def get_config(size: str = "") -> ConfigDict:
    """The published run on CIFAR-10 or another data set, or with ``small`` one of minutes."""
    if size not in SIZES:
        raise ValueError(f"configs/dm.py knows no size {size!r}, only {SIZES[1:]}")
    return ConfigDict(small() if size == "small" else published(size or "cifar10"))


def published(name: str, each: int = 10) -> dict:
    grey = "mnist" in name
    augment = NO_FLIP if name == "mnist" else AUGMENT
    return {
        "title": f"DM on {name}, {each} images of a class",
        "sentence": "The means of features in random nets are enough to make a small set.",
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
                    "real_batch": 256,
                    "augment": augment,
                },
                "optimizer": {"name": "sgd", "momentum": 0.5, "learning_rate": 1.0},
                "steps": 20_000,
                "checkpoint_every": 1000,
                "evaluate": {
                    "fresh": {
                        "evaluator": "fresh_nets",
                        "sets": ("test",),
                        "nets": 20,
                        "protocol": {
                            "steps": 1000 * -(-10 * each // 256),
                            "batch_size": 256,
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
    evaluate = {
        "fresh": {**fresh, "protocol": protocol},
        "mlp": {
            **fresh,
            "sets": ("test",),
            "student": {"net": "mlp", "widths": (64,)},
            "name": "mlp",
            "protocol": protocol,
        },
    }
    return {
        "title": "DM in small",
        "sentence": "The means of features in random nets are enough to make a small set.",
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
                    "augment": ("crop", "scale", "rotate"),
                },
                "optimizer": {"name": "sgd", "momentum": 0.5, "learning_rate": 1.0},
                "steps": 600,
                "evaluate": evaluate,
                "pictures": ("synthetic",),
            },
            "random": real("random", evaluate),
            "herding": real("herding", evaluate),
        },
        "table": ("validation/accuracy",),
        "claim": against_real("DM"),
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
