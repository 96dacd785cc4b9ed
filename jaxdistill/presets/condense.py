"""Distillation of data sets: published settings, experts, and real images to be compared with.

ConvNets of three blocks of 128 channels, whitened images and differentiable Siamese augmentation
are those of Zhao and Bilen (ICML 2021, WACV 2023) and of all who came after them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jaxdistill.presets import ONE_DEVICE, recipe
from jaxdistill.presets.claims import above
from jaxdistill.presets.optimizers import sgd

DIGITS = {"name": "digits", "dir": "", "validation": 0.15, "test": 0.2}
"""Scikit-learn's digits with a validation and a test set."""
SMALL = {"net": "convnet", "width": 16, "depth": 2}
"""The net of digits."""
MIDDLE = {"net": "convnet", "width": 32, "depth": 2}
"""The net of the small protocols on Fashion-MNIST."""
FLAT = {"rho": 0.01, "alpha": 0.3}
"""The published settings of flat experts (FTD)."""


def augmentation(name: str = "") -> tuple[str, ...]:
    """The published augmentation of a data set; a mirrored digit is none.

    Example:
        >>> augmentation("mnist")
        ('color', 'crop', 'cutout', 'scale', 'rotate')
    """
    flip = () if name == "mnist" else ("flip",)
    return ("color", "crop", "cutout", *flip, "scale", "rotate")


def convnet(name: str) -> dict[str, Any]:
    """The published net; images of 28 x 28 pixels are padded to 32.

    Example:
        >>> convnet("fashion_mnist")
        {'net': 'convnet', 'padding': 3}
    """
    return {"net": "convnet", "padding": 3 if "mnist" in name else 1}


def data_sets(
    published: Callable[[str], dict[str, Any]], **more: Callable[[], dict[str, Any]]
) -> dict[str, Callable[[], dict[str, Any]]]:
    """The variants of a config: its published run on CIFAR-10, which is the default, CIFAR-100,
    MNIST and Fashion-MNIST, and more.

    Example:
        >>> list(data_sets(lambda name: {}, small=dict))
        ['', 'cifar100', 'mnist', 'fashion_mnist', 'small']
    """
    found = {name: partial(published, name) for name in ("cifar100", "mnist", "fashion_mnist")}
    return {"": partial(published, "cifar10"), **found, **more}


def published(
    title: str, sentence: str, name: str, stages: dict[str, Any], whiten: str = "channels"
) -> dict[str, Any]:
    """A published run on all images of a data set, of which none are held back for validation.

    Example:
        >>> published("", "", "mnist", {"distil": {}})["recipe"]
        ('distil',)
    """
    data = {"name": name, "dir": "", "validation": 0.0, "whiten": whiten}
    return recipe(title, sentence, data, stages, mesh=ONE_DEVICE)


def small(
    method: str,
    sentence: str,
    stages: dict[str, Any],
    evaluate: dict[str, Any],
    *,
    arms: Mapping[str, Any] | None = None,
    contrasts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A run on digits, one image of a class, with the claim of :func:`against_real`.

    Args:
        method: its name.
        sentence: what the run shows.
        stages: those of the method.
        evaluate: how every set of images is measured.
        arms: more of them.
        contrasts: more of them.

    Example:
        >>> list(small("DM", "", {"distil": {}}, {})["stages"])
        ['distil', 'random', 'herding']
    """
    real_ones = {"random": real("random", evaluate), "herding": real("herding", evaluate)}
    return recipe(
        f"{method} in small",
        sentence,
        DIGITS,
        {**stages, **real_ones},
        order=tuple(stages),
        mesh=ONE_DEVICE,
        table=("validation/accuracy",),
        claim=against_real(method, arms, contrasts),
    )


def against_real(
    method: str,
    arms: Mapping[str, Any] | None = None,
    contrasts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The claim that a condensed set is worth more than a real one of its size, drawn at random or
    by herding.

    Args:
        method: its name.
        arms: more of them.
        contrasts: more of them.

    Example:
        >>> list(against_real("DM")["arms"])
        ['condensed', 'random', 'herding']
    """
    return {
        "sentence": f"Ten images by {method} are worth more than ten real ones.",
        "metric": "last/test/accuracy",
        "held_equal": ("images of a class, fresh nets and their training",),
        "arms": {
            "condensed": {},
            **(arms or {}),
            "random": {"recipe": ("random",)},
            "herding": {"recipe": ("herding",)},
        },
        "contrasts": {
            "random": above("condensed", "random", "above a random real subset of equal size"),
            "herding": above("condensed", "herding", "above herding of equal size"),
            **(contrasts or {}),
        },
    }


def middle(
    title: str, sentence: str, stages: dict[str, Any], claim: dict[str, Any]
) -> dict[str, Any]:
    """A run on 10,000 images of Fashion-MNIST, by a small protocol of our own, in which methods are
    compared with each other.

    Example:
        >>> middle("", "", {"distil": {}}, {"arms": {}})["claim"]["metric"]
        'distil/test/accuracy'
    """
    # 10,015 images to train on; the other 49,985 are for validation.
    images = {"name": "fashion_mnist", "dir": "", "validation": 5 / 6, "whiten": "channels"}
    claim = {"metric": "distil/test/accuracy", **claim}
    return recipe(title, sentence, images, stages, mesh=ONE_DEVICE, claim=claim)


def real(choice: str, evaluate: dict[str, Any]) -> dict[str, Any]:
    """A stage that chooses real images of digits, one of a class.

    Example:
        >>> real("herding", {})["work"]["choice"]
        'herding'
    """
    return {
        "work": {"name": "chosen", "each": 1, "choice": choice},
        "evaluate": {label: {"student": SMALL, **spec} for label, spec in evaluate.items()},
        "pictures": ("synthetic",),
    }


def synthetic(
    student: dict[str, Any],
    distiller: dict[str, Any],
    optimizer: dict[str, Any],
    steps: int,
    evaluate: dict[str, Any],
    **settings: Any,
) -> dict[str, Any]:
    """A stage whose result is a set of learned images, made from the training set.

    Example:
        >>> synthetic(SMALL, {"name": "match_features"}, sgd(1.0), 600, {})["distiller"]
        {'name': 'match_features', 'sets': ('train',)}
    """
    return {
        "student": student,
        "distiller": {**distiller, "sets": ("train",)},
        "optimizer": optimizer,
        "steps": steps,
        "evaluate": evaluate,
        "pictures": ("synthetic",),
        **settings,
    }


def experts(
    student: dict[str, Any], steps: int, settings: dict[str, Any], **stage: Any
) -> dict[str, Any]:
    """A stage in which many nets are trained on all images, whose trajectories are then matched.

    Example:
        >>> experts(SMALL, 360, {"experts": 6, "epochs": 20})["distiller"]["name"]
        'experts'
    """
    return {
        "student": student,
        "distiller": {"name": "experts", "sets": ("train",), **settings},
        "steps": steps,
        **stage,
    }


def published_experts(name: str, epochs: int, **settings: Any) -> dict[str, Any]:
    """A hundred experts of a data set, ten at once.

    Example:
        >>> published_experts("cifar10", 50)["steps"]
        97500
    """
    records, count, at_once = 60_000 if "mnist" in name else 50_000, 100, 10
    own = {"experts": count, "epochs": epochs, "at_once": at_once, "batch_size": 256}
    own |= {"learning_rate": 0.01, "augment": augmentation(name), **settings}
    steps = records // 256 * epochs * count // at_once
    return experts(convnet(name), steps, own, log_every=500)


def small_experts(**settings: Any) -> dict[str, Any]:
    """Six experts of digits.

    Example:
        >>> small_experts(flatness=FLAT)["steps"]
        360
    """
    own = {"experts": 6, "epochs": 20, "batch_size": 64, "learning_rate": 0.02, **settings}
    return experts(SMALL, 18 * 20, own)


def middle_experts(**settings: Any) -> dict[str, Any]:
    """Three experts of 10,000 images.

    Example:
        >>> middle_experts()["steps"]
        312
    """
    own = {"experts": 3, "epochs": 8, "batch_size": 256, "learning_rate": 0.02, **settings}
    return experts(MIDDLE, 39 * 8, own)


def trajectories(
    each: int, epochs: int, students: dict[str, Any], **settings: Any
) -> dict[str, Any]:
    """What matches trajectories of the stage ``experts``: the students' ``steps`` on the small set
    lead where so many epochs on all images do.

    Example:
        >>> trajectories(1, 2, {"steps": 10}, window={"first": 0, "last": 8})["frozen"]
        ('experts',)
    """
    own = {"each": each, "epochs": epochs, "students": students}
    return {"name": "match_trajectories", "frozen": ("experts",), **own, **settings}


def parts(images: float, rate: float, labels: float | None = None) -> dict[str, Any]:
    """SGD for the images, for the students' learning rate, and for the labels if they are learned.

    Example:
        >>> list(parts(100.0, 1e-5))
        ['name', 'images', 'rate']
    """
    learned = {} if labels is None else {"labels": sgd(labels)}
    return {"name": "parts", "images": sgd(images, 0.5), "rate": sgd(rate, 0.5), **learned}


def fresh_nets(
    nets: int, protocol: dict[str, Any], sets: tuple[str, ...] = ("test",), **settings: Any
) -> dict[str, Any]:
    """The accuracy of so many nets that are trained on the small set alone.

    Example:
        >>> fresh_nets(5, {"steps": 300})["evaluator"]
        'fresh_nets'
    """
    return {
        "evaluator": "fresh_nets",
        "sets": sets,
        "nets": nets,
        "protocol": protocol,
        **settings,
    }


def small_matching() -> dict[str, Any]:
    """How sets of digits are measured, whose nets are trained for moments of an epoch.

    Example:
        >>> small_matching()["fresh"]["nets"]
        5
    """
    protocol = {"steps": 300, "batch_size": 256, "learning_rate": 0.02, "every": 50}
    return {"fresh": fresh_nets(5, protocol, ("validation", "test"), every=200)}


def small_trajectories() -> dict[str, Any]:
    """How sets of digits are measured that match trajectories: with fewer nets while they learn.

    Example:
        >>> list(small_trajectories())
        ['validation', 'test']
    """
    protocol = {"steps": 300, "learning_rate": 0.02, "every": 50}
    return {
        "validation": fresh_nets(3, protocol, ("validation",), every=100),
        "test": fresh_nets(5, protocol),
    }


def middle_nets() -> dict[str, Any]:
    """How sets of 10,000 images are measured.

    Example:
        >>> middle_nets()["fresh"]["nets"]
        3
    """
    return {"fresh": fresh_nets(3, {"steps": 300, "learning_rate": 0.01, "batch_size": 128})}
