"""The zoo: every method of torchdistill's table, and some besides, as one argument.

Matsubara, torchdistill, RRPR@ICPR 2020 and NLP-OSS 2023: ResNet-18 from ResNet-34 on ImageNet,
100 epochs, top-1 69.76 alone, 71.37 by plain distillation, 71.71 by PAD, 71.64 by knowledge
review, 71.95 by DIST. On CIFAR-100 the pairs of RepDistiller (Tian et al., ICLR 2020), 240 epochs:
ResNet-56 to 20 69.06 alone, 70.66 by plain distillation, 71.16 by CRD.

    python -m jaxdistill.main --config=configs/kd_zoo.py:crd --workdir=runs/crd
        --config.data.dir=<tfds>
    python -m jaxdistill.main --config=configs/kd_zoo.py:dist --config.pair=wrn40x2_wrn16x2 ...

Methods and pairs are those of jaxdistill/presets/zoo.py and pairs.py. In small, on digits or on
2,000 labels of Fashion-MNIST, one method (a minute), or all of them from one teacher:

    python -m jaxdistill.main --config=configs/kd_zoo.py:small --config.method=rkd --workdir=runs/z
    python -m jaxdistill.claim --config=configs/kd_zoo.py:small --config.data.name=fashion_mnist
        --config.data.dir=<folder> --workdir=runs/zoo
    python benchmarks/zoo.py --claim=runs/zoo

The last prints the table: accuracy and agreement with intervals, time and memory of a step.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxdistill._errors import unknown
from jaxdistill.presets import chosen, recipe, zoo
from jaxdistill.presets.claims import above
from jaxdistill.presets.images import (
    IMAGENET,
    LABELS,
    accuracy,
    classifier,
    imagenet_accuracy,
    random_crop,
)
from jaxdistill.presets.optimizers import sgd
from jaxdistill.presets.pairs import PAIRS, convolutional

STEPS = {"teacher": 600, "own": 300, "distil": 300}
# Maps of 14 pixels or less and a few hundred steps: where a published weight, for larger maps and
# a hundred epochs, would let a term drown the labels, it has another.
WEIGHTS = {
    "attention_transfer": 20.0,
    "factor_transfer": 100.0,
    "nst": 10.0,
    "pkt": 3000.0,
    "similarity_preserving": 300.0,
}
FIRST = 100  # steps of the stages before the last
LOST = "a point of test accuracy"


class Protocol(NamedTuple):
    """How a published pair is trained."""

    data: dict
    epoch: int
    batch: int
    epochs: int
    first: int  # epochs of the stages before the last
    optimizer: dict
    view: tuple
    measured: dict
    kd: zoo.Soft


def step_decay(peak: float, epoch: int, *epochs: int) -> dict:
    return {"schedule": "step_decay", "peak": peak, "milestones": tuple(epoch * e for e in epochs)}


# Images less a hundredth or a tenth for validation, in batches of 256 and of 64.
IMAGENET_EPOCH, CIFAR_EPOCH = 4954, 703
ON_IMAGENET = Protocol(
    {"name": "imagenet2012", "dir": "", "image_size": 256, "validation": 0.01},
    *(IMAGENET_EPOCH, 256, 100, 20),
    sgd(step_decay(0.1, IMAGENET_EPOCH, 30, 60, 90), weight_decay=1e-4),
    random_crop(),
    imagenet_accuracy(256, every=5 * IMAGENET_EPOCH),
    zoo.Soft(0.5, 1.0),
)
ON_CIFAR = Protocol(
    {"name": "cifar100", "dir": "", "validation": 0.1},
    *(CIFAR_EPOCH, 64, 240, 30),
    sgd(step_decay(0.05, CIFAR_EPOCH, 150, 180, 210), weight_decay=5e-4),
    ({"name": "random_crop", "padding": 4}, {"name": "flip"}, IMAGENET),
    accuracy(augment=(IMAGENET,), every=10 * CIFAR_EPOCH),
    zoo.Soft(0.9, 4.0),
)


def published(method: str, pair: str, data: dict) -> dict:
    if pair not in PAIRS:
        raise ValueError(unknown("pair", pair, PAIRS))
    own = ON_IMAGENET if pair == "resnet34_resnet18" else ON_CIFAR

    def trained(stage: str, said: dict) -> dict:
        whole = stage in ("teacher", "own", "distil")
        rate = own.optimizer
        if not whole:
            rate = sgd(own.optimizer["learning_rate"]["peak"])
        return {
            "objective": LABELS,
            "optimizer": rate,
            "batch_size": own.batch,
            "steps": own.epoch * (own.epochs if whole else own.first),
            "evaluate": {"accuracy": own.measured},
            "checkpoint_every": own.epoch,
            **said,
            "view": {"augment": own.view, **said.get("view", {})},
        }

    return recipe(
        title=f"The zoo: {method}, {pair}",
        sentence="A student learns by one of many methods.",
        data={**own.data, **data},
        stages=zoo.stages(method, PAIRS[pair], own.kd, trained),
    )


def small(method: str, pair: str, data: dict) -> dict:
    digits = data.get("name", "digits") == "digits"
    smaller = () if digits else ({"name": "resize", "size": 14},)
    sets = {"name": "digits", "validation": 0.1, "test": 0.2}
    if not digits:
        sets = {"dir": "", "validation": 0.05, "test": 0.0, "records": 2000}

    def trained(stage: str, said: dict) -> dict:
        steps = STEPS.get(stage, FIRST)
        own = {"evaluate": {"accuracy": accuracy(augment=smaller, sets=("test",))}}
        own["spans"] = {"early": (0, 20), "late": (steps - 20, steps)}
        own["view"] = {"augment": smaller, **said.get("view", {})}
        own["objective"] = {
            name: {**term, "weight": WEIGHTS[term["loss"]]} if term["loss"] in WEIGHTS else term
            for name, term in said.get("objective", LABELS).items()
        }
        return classifier(steps=steps, **{**said, **own})

    pair_of = (convolutional(16), convolutional(8))
    kd = zoo.Soft()
    arms = {name: zoo.stages(name, pair_of, kd, trained, apart=True) for name in zoo.METHODS}
    arms["alone"] = {"alone": trained("distil", {"student": pair_of[1].net})}
    own = zoo.stages(method, pair_of, kd, trained)
    others = {name: stage for stages in arms.values() for name, stage in stages.items()}
    return recipe(
        title=f"The zoo in small: {method}",
        sentence="A student learns by one of many methods.",
        data={**sets, **data},
        stages={**others, **own},
        order=tuple(own),
        claim=claim({name: tuple(stages) for name, stages in arms.items()}),
    )


def claim(arms: Mapping[str, tuple[str, ...]]) -> dict:
    others = [name for name in arms if name not in ("alone", "kd")]
    return {
        "sentence": "No method costs a point against plain distillation.",
        "metric": "last/test/accuracy",
        "held_equal": (
            "teacher, student, batches, optimizer and steps of the last stage",
            "weights as published or near; nothing tuned",
        ),
        "arms": {name: {"recipe": stages} for name, stages in arms.items()},
        "contrasts": {
            name: above(name, "kd", f"{name} costs at most a point", -0.01, origin=LOST)
            for name in others
        },
    }


VARIANTS = {"": published, "small": small}


def get_config(
    variant: str = "",
    *,
    method: str = "kd",
    pair: str = "resnet34_resnet18",
    data: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """One method in its published run, named by the variant or the argument, or in small."""
    variants = {**VARIANTS, **dict.fromkeys(zoo.METHODS, published)}
    given = {"method": variant if variant in zoo.METHODS else method, "pair": pair}
    return chosen(variants, variant, __file__, **given, data=dict(data or {}))
