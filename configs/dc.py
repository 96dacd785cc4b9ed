"""DC and DSA: a set whose gradients are those of real images, class by class, while a net is
trained on it.

Zhao, Mopuri, Bilen, Dataset Condensation with Gradient Matching, ICLR 2021, and Zhao and Bilen,
Dataset Condensation with Differentiable Siamese Augmentation, ICML 2021. ConvNet-3, one image of a
class: MNIST 91.7 (DC) and 88.7 (DSA), Fashion-MNIST 70.5 and 70.6, CIFAR-10 28.3 and 28.8 %.

The default is DSA on CIFAR-10, 10 images of a class, from a folder with `train.npz` and `test.npz`:

    python -m jaxdistill.main --config=configs/dc.py --workdir=runs/dsa --config.data.dir=<folder>

`:cifar100`, `:mnist`, `:fashion_mnist` are the others; the latter two with one image of a class, DC
where `augment` is empty:

    python -m jaxdistill.main --config=configs/dc.py:mnist --workdir=runs/dc_mnist
        --config.data.dir=<folder> --config.stages.distil.distiller.augment="()"
        --config.stages.distil.distiller.images_from=noise

Digits, one image of a class, by DC; about a minute:

    python -m jaxdistill.main --config=configs/dc.py:small --workdir=runs/dc_small
    python -m jaxdistill.claim --config=configs/dc.py:small --seeds=5 --workdir=runs/dc_claim
"""

from ml_collections import ConfigDict

SIZES = ("", "cifar100", "mnist", "fashion_mnist", "small")
AUGMENT = ("color", "crop", "cutout", "flip", "scale", "rotate")
# A mirrored digit is none.
NO_FLIP = ("color", "crop", "cutout", "scale", "rotate")
# Steps with one net, and the net's own between them, by images of a class.
LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


def get_config(size: str = "") -> ConfigDict:
    """The published run on CIFAR-10 or another data set, or with ``small`` one of minutes."""
    if size not in SIZES:
        raise ValueError(f"configs/dc.py knows no size {size!r}, only {SIZES[1:]}")
    return ConfigDict(small() if size == "small" else published(size or "cifar10"))


def published(name: str) -> dict:
    grey = "mnist" in name
    each = 1 if grey else 10
    augment = NO_FLIP if name == "mnist" else AUGMENT
    outer, inner = LOOPS[each]
    return {
        "title": f"DSA on {name}, {each} images of a class",
        "sentence": "Gradients on a small set can be those on all images.",
        "seed": 0,
        "data": {"name": name, "dir": "", "validation": 0.0, "whiten": "channels"},
        "mesh": {"data": 1, "fsdp": 1},
        "recipe": ("distil",),
        "stages": {
            "distil": {
                "student": {"net": "convnet", "padding": 3 if grey else 1},
                "distiller": {
                    "name": "match_gradients",
                    "sets": ("train",),
                    "each": each,
                    "outer": outer,
                    "inner": inner * -(-10 * each // 256),
                    "real_batch": 256,
                    "augment": augment,
                    "images_from": "random",
                },
                "optimizer": {"name": "sgd", "momentum": 0.5, "learning_rate": 0.1},
                "steps": 1000 * outer,
                "checkpoint_every": 200,
                "evaluate": {
                    "fresh": {
                        "evaluator": "fresh_nets",
                        "sets": ("test",),
                        "nets": 20,
                        "protocol": {
                            # 300 epochs for DC, which is not augmented.
                            "steps": 1000 * -(-10 * each // 256),
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
        "title": "DC in small",
        "sentence": "Gradients on a small set can be those on all images.",
        "seed": 0,
        "data": {"name": "digits", "dir": "", "validation": 0.15, "test": 0.2},
        "mesh": {"data": 1, "fsdp": 1},
        "recipe": ("distil",),
        "stages": {
            "distil": {
                "student": {"net": "convnet", "width": 16, "depth": 2},
                "distiller": {
                    "name": "match_gradients",
                    "sets": ("train",),
                    "each": 1,
                    "real_batch": 64,
                    "images_from": "random",
                },
                "optimizer": {"name": "sgd", "momentum": 0.5, "learning_rate": 0.1},
                "steps": 600,
                "evaluate": evaluate,
                "pictures": ("synthetic",),
            },
            "random": real("random", evaluate),
            "herding": real("herding", evaluate),
        },
        "table": ("validation/accuracy",),
        "claim": against_real("DC"),
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
