"""KIP and FRePo: points on which kernel ridge regression fits all others.

Nguyen, Chen, Lee, Dataset Meta-Learning from Kernel Ridge-Regression, ICLR 2021: with the tangent
kernel of a fully connected net of one hidden layer 10, 100 and 500 points reach 85.5, 97.2 and
98.4 % on MNIST. Kernels of convolutional nets are not offered.

MNIST, one image of a class, from a folder with `train.npz` and `test.npz` or the official files:

    python -m jaxdistill.main --config=configs/kip.py --workdir=runs/kip --config.data.dir=<folder>

`:fashion_mnist`, `:cifar10`, `:cifar100` are the others. Digits, seconds:

    python -m jaxdistill.main --config=configs/kip.py:small --workdir=runs/kip_small
    python -m jaxdistill.claim --config=configs/kip.py:small --seeds=5 --workdir=runs/kip_claim

The small recipe has a stage `frepo` too (Zhou et al., NeurIPS 2022: features of nets that are
trained on the set, in place of a kernel), which its claim compares with herding.
"""

from ml_collections import ConfigDict

SIZES = ("", "fashion_mnist", "cifar10", "cifar100", "small")
KERNEL = {
    "name": "ntk",
    "depth": 1,
    "weight_variance": 2.0,
    "bias_variance": 1e-4,
    "angles": "products",
}


def get_config(size: str = "") -> ConfigDict:
    """The published run on MNIST or another data set, or with ``small`` one of minutes."""
    if size not in SIZES:
        raise ValueError(f"configs/kip.py knows no size {size!r}, only {SIZES[1:]}")
    return ConfigDict(small() if size == "small" else published(size or "mnist"))


def published(name: str) -> dict:
    return {
        "title": f"KIP on {name}, one image of a class",
        "sentence": "A handful of learned points serve kernel regression like thousands of images.",
        "seed": 0,
        "data": {"name": name, "dir": "", "validation": 0.0, "whiten": "channels"},
        "mesh": {"data": 1, "fsdp": 1},
        "recipe": ("distil",),
        "stages": {
            "distil": {
                "student": {"net": "kernel_machine", "kernel": KERNEL},
                "distiller": {
                    "name": "match_kernel",
                    "sets": ("train",),
                    "each": 1,
                    "real_batch": 5000,
                    "learn_targets": False,
                },
                "optimizer": {"name": "adamw", "learning_rate": 0.01 if "mnist" in name else 0.04},
                "steps": 2000,
                "evaluate": {
                    "kernel": {
                        "evaluator": "kernel_accuracy",
                        "sets": ("test",),
                        "kernel": KERNEL,
                    }
                },
                "pictures": ("synthetic",),
            }
        },
    }


def small() -> dict:
    evaluate = {
        "kernel": {
            "evaluator": "kernel_accuracy",
            "sets": ("validation", "test"),
            "every": 100,
            "kernel": KERNEL,
        }
    }
    # FRePo's nets are trained on real-valued targets by Adam, and so are those on real images. The
    # rate is the best of four on validation data for either set, the largest of them.
    by_nets = {
        "evaluator": "fresh_nets",
        "nets": 5,
        "protocol": {"steps": 500, "learning_rate": 1e-2, "momentum": None, "loss": "squared"},
    }
    with_nets = {
        **evaluate,
        "nets_validation": {**by_nets, "sets": ("validation",)},
        "nets": {**by_nets, "sets": ("test",)},
    }
    return {
        "title": "KIP in small",
        "sentence": "A handful of learned points serve kernel regression like thousands of images.",
        "seed": 0,
        "data": {"name": "digits", "dir": "", "validation": 0.15, "test": 0.2},
        "mesh": {"data": 1, "fsdp": 1},
        "recipe": ("distil",),
        "stages": {
            "distil": {
                "student": {"net": "kernel_machine", "kernel": KERNEL},
                "distiller": {
                    "name": "match_kernel",
                    "sets": ("train",),
                    "each": 1,
                    "real_batch": 512,
                },
                "optimizer": {"name": "adamw", "learning_rate": 0.01},
                "steps": 600,
                "evaluate": evaluate,
                "pictures": ("synthetic",),
            },
            "frepo": {
                "student": {"net": "convnet", "width": 16, "depth": 2},
                "distiller": {
                    "name": "match_regression",
                    "sets": ("train",),
                    "each": 1,
                    "real_batch": 256,
                    "pool": 4,
                },
                "optimizer": {"name": "adamw", "learning_rate": 0.01},
                "steps": 600,
                "evaluate": with_nets,
                "pictures": ("synthetic",),
            },
            "random": real("random", evaluate),
            "herding": real("herding", with_nets),
        },
        "table": ("validation/kernel_accuracy",),
        "claim": claim(),
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


def claim() -> dict:
    """That a condensed set is worth more than a real one of its size."""
    return {
        "sentence": "Ten images by KIP are worth more than ten real ones.",
        "metric": "last/test/kernel_accuracy",
        "held_equal": (
            "images of a class, the kernel and its ridge",
            "fresh nets, their loss and their training, for FRePo",
        ),
        "arms": {
            "condensed": {},
            "frepo": {"recipe": ("frepo",)},
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
            "frepo": {
                "sentence": "nets on ten images by FRePo are above those on herding's",
                "metric": "last/test/accuracy",
                "coefficients": {"frepo": 1, "herding": -1},
            },
        },
    }
