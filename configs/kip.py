"""KIP and FRePo: points on which kernel ridge regression fits all others.

Nguyen, Chen, Lee, Dataset Meta-Learning from Kernel Ridge-Regression, ICLR 2021: with the tangent
kernel of a fully connected net of one hidden layer 10, 100 and 500 points reach 85.5, 97.2 and
98.4 % on MNIST. Kernels of convolutional nets are not offered.

MNIST, one image per class, from a folder with `train.npz` and `test.npz` or the official files:

    python -m jaxdistill.main --config=configs/kip.py --workdir=runs/kip --config.data.dir=<folder>

`:fashion_mnist`, `:cifar10`, `:cifar100` are the others. Digits, seconds:

    python -m jaxdistill.main --config=configs/kip.py:small --workdir=runs/kip_small
    python -m jaxdistill.claim --config=configs/kip.py:small --seeds=5 --workdir=runs/kip_claim

The small recipe has a stage `frepo` too (Zhou et al., NeurIPS 2022: features of nets that are
trained on the set, instead of a kernel), which its claim compares with herding.
"""

from functools import partial

from ml_collections import ConfigDict

from jaxdistill.presets import ONE_DEVICE, chosen, condense, recipe
from jaxdistill.presets.claims import above

SENTENCE = "A handful of learned points serve kernel regression like thousands of images."
KERNEL = {
    "name": "ntk",
    "depth": 1,
    "weight_variance": 2.0,
    "bias_variance": 1e-4,
    "angles": "products",
}
MACHINE = {"net": "kernel_machine", "kernel": KERNEL}


def adam(rate: float) -> dict:
    return {"name": "adamw", "learning_rate": rate}


def by_kernel(*sets: str, **settings) -> dict:
    """The accuracy of the kernel's own regression on the learned points."""
    return {"evaluator": "kernel_accuracy", "sets": sets, "kernel": KERNEL, **settings}


def by_nets(*sets: str) -> dict:
    """FRePo's nets are trained on real-valued targets by Adam, and so are those on real images. The
    rate is the best of four on validation data for either set, the largest of them."""
    adam = {"learning_rate": 1e-2, "momentum": None}
    return condense.fresh_nets(5, {"steps": 500, **adam, "loss": "squared"}, sets)


def published(name: str) -> dict:
    distil = condense.synthetic(
        student=MACHINE,
        distiller={
            "name": "match_kernel",
            "each": 1,
            "real_batch": 5000,
            "learn_targets": False,
        },
        optimizer=adam(0.01 if "mnist" in name else 0.04),
        steps=2000,
        evaluate={"kernel": by_kernel("test")},
    )
    title = f"KIP on {name}, one image per class"
    return condense.published(title, SENTENCE, name, {"distil": distil})


def small() -> dict:
    kernel = {"kernel": by_kernel("validation", "test", every=100)}
    nets = {**kernel, "nets_validation": by_nets("validation"), "nets": by_nets("test")}
    distil = condense.synthetic(
        student=MACHINE,
        distiller={"name": "match_kernel", "each": 1, "real_batch": 512},
        optimizer=adam(0.01),
        steps=600,
        evaluate=kernel,
    )
    frepo = condense.synthetic(
        student=condense.SMALL,
        distiller={"name": "match_regression", "each": 1, "real_batch": 256, "pool": 4},
        optimizer=adam(0.01),
        steps=600,
        evaluate=nets,
    )
    return recipe(
        title="KIP in small",
        sentence=SENTENCE,
        data={"name": "digits", "dir": "", "validation": 0.15, "test": 0.2},
        mesh=ONE_DEVICE,
        order=("distil",),
        stages={
            "distil": distil,
            "frepo": frepo,
            "random": condense.real("random", kernel),
            "herding": condense.real("herding", nets),
        },
        table=("validation/kernel_accuracy",),
        claim=claim(),
    )


def claim() -> dict:
    base = condense.against_real(
        "KIP",
        arms={"frepo": {"recipe": ("frepo",)}},
        contrasts={
            "frepo": above(
                "frepo",
                "herding",
                "nets on ten images by FRePo are above those on herding's",
                metric="last/test/accuracy",
            )
        },
    )
    return {
        **base,
        "metric": "last/test/kernel_accuracy",
        "held_equal": (
            "images per class, the kernel and its ridge",
            "fresh nets, their loss and their training, for FRePo",
        ),
    }


VARIANTS = {
    "": partial(published, "mnist"),
    "fashion_mnist": partial(published, "fashion_mnist"),
    "cifar10": partial(published, "cifar10"),
    "cifar100": partial(published, "cifar100"),
    "small": small,
}


def get_config(variant: str = "") -> ConfigDict:
    """The published run on MNIST or another data set, or with ``small`` one of seconds."""
    return chosen(VARIANTS, variant, __file__)
