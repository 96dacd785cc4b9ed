"""MIX-KD: mixed pairs for student and teacher, a few of them, and logits of one scale.

Choi et al., Understanding the Role of Mixup in Knowledge Distillation, WACV 2023. A net that was
trained on mixed pairs (mixup) is smoother and, at a high temperature, a worse teacher. So the
teacher is trained on images as they are, the student on batches of which some are mixed, and both
losses read logits divided by their own standard deviation, in place of a temperature.

A tenth of the labels' loss and nine tenths of the teacher's; nine tenths of a batch are drawn to
stay as they are, with replacement, so that about 59 % do. CIFAR-100 from tfds, ResNet-110 to
ResNet-20, 240 epochs:

    python -m jaxdistill.main --config=configs/mix_kd.py --workdir=runs/mix_kd
        --config.data.dir=<tfds folder>

Digits, a convolutional net of width 24 and one of width 6; minutes:

    python -m jaxdistill.main --config=configs/mix_kd.py:small --workdir=runs/mix_kd_small
    python -m jaxdistill.claim --config=configs/mix_kd.py:small --workdir=runs/mix_kd_claim

The small one on Fashion-MNIST, 2,000 labels: ``--config.data.name=fashion_mnist
--config.data.dir=<folder>``, 45 s a seed. ``within_share`` says how smooth a net is: the share of
its features' variance within classes. Expect it to be larger in a teacher of mixed pairs, whose
student is as good here as another, and partly mixed as good as all mixed.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, recipe
from jaxdistill.presets.claims import above, tuned
from jaxdistill.presets.images import CIFAR100, accuracy, cifar_stage, classifier, shifted_crop
from jaxdistill.presets.optimizers import sgd

SENTENCE = "A student learns from its teacher on partly mixed batches, by logits of one scale."
MIXED = {"mix": {"name": "mixup", "alpha": 1.0}}
PARTLY = {"mix": {"name": "partial_mixup", "alpha": 1.0, "plain": 0.9}}
MIXED_LABELS = {"labels": {"loss": "soft_cross_entropy", "target": "batch/soft_label"}}
HIGH = 20.0
SMOOTH = {"evaluator": "class_spread"}


def soft(labels: str, teacher: str, wanted: str = "batch/soft_label", **settings) -> dict:
    """A tenth of a loss of labels, and nine tenths of one of the teacher's logits."""
    return {
        "labels": {"loss": labels, "target": wanted, "weight": 0.1},
        "teacher": {"loss": teacher, "weight": 0.9, **settings},
    }


STANDARDISED = soft("standardised_cross_entropy", "standardised_kd")


def softened(temperature: float, wanted: str = "batch/soft_label") -> dict:
    labels = "soft_cross_entropy" if "soft" in wanted else "cross_entropy"
    return soft(labels, "hinton_kd", wanted, temperature=temperature)


def published(data: dict) -> dict:
    epoch = 703  # 50,000 images less a tenth for validation, in batches of 64
    falls = tuple(epoch * n for n in (150, 180, 210))
    optimizer = sgd(
        {"schedule": "step_decay", "peak": 0.05, "milestones": falls}, weight_decay=5e-4
    )
    whole = {"augment": (CIFAR100,)}
    measured = {"accuracy": accuracy(**whole), "smooth": {**SMOOTH, **whole, "read": "pooled"}}

    def stage(depth: int, **settings) -> dict:
        net = {"net": "cifar_resnet", "depth": depth, "shortcut": "conv"}
        own = {"evaluate": measured, **settings}
        return cifar_stage(net, optimizer, CIFAR100, 64, epoch, epochs=240, **own)

    taught = {"targets": {"kind": "live", "stage": "plain"}, "objective": STANDARDISED}
    return recipe(
        title="MIX-KD, ResNet-110 to ResNet-20",
        sentence=SENTENCE,
        data={"name": "cifar100", "dir": "", "validation": 0.1, "test": 0.0, **data},
        stages={
            "plain": stage(110),
            "distil": stage(20, view={"augment": shifted_crop(CIFAR100), **PARTLY}, **taught),
        },
    )


def small(data: dict) -> dict:
    """On digits, or on a half of the pixels of MNIST or Fashion-MNIST, with 2,000 labels."""
    given = data.get("name", "digits") == "digits"
    few = {"validation": 0.15, "test": 0.3}
    few = few if given else {"validation": 0.05, "test": 0.0, "records": 2000}
    seen = {} if given else {"augment": ({"name": "resize", "size": 14},)}
    large = {"net": "convnet", "width": 24, "depth": 2, "norm": "batch"}
    measured = {"accuracy": accuracy(**seen), "smooth": {**SMOOTH, **seen, "read": "features"}}
    taught = {"targets": {"kind": "live", "stage": "plain"}, "pictures": ("reliability",)}

    def stage(net: dict, view: dict, **settings) -> dict:
        return classifier(net, 600, evaluate=measured, view={**seen, **view}, **settings)

    return recipe(
        title="MIX-KD in small",
        sentence=SENTENCE,
        data={"name": "digits", "dir": "", **few, **data},
        stages={
            "plain": stage(large, {}),
            "mixed": stage(large, MIXED, objective=MIXED_LABELS),
            "distil": stage(
                {**large, "width": 6}, PARTLY, objective=STANDARDISED, peak=1e-1, **taught
            ),
        },
        order=("plain", "distil"),
        claim=claim(seen),
        tune=tuned("distil", claim(seen)["arms"], (3e-2, 1e-1, 3e-1)),
    )


def claim(seen: dict) -> dict:
    def arm(objective: dict, view: dict, teacher: str = "plain") -> dict:
        told = {"kind": "live", "stage": teacher}
        own = at("stages/distil", objective=objective, view={**seen, **view}, targets=told)
        return {"recipe": (teacher, "distil"), **own}

    high = softened(HIGH, "batch/label")
    worse = "a teacher that was trained on mixed pairs teaches worse at a high temperature"
    few = "partly mixed with logits of one scale is at most half a point below all mixed"
    return {
        "sentence": "Mixed pairs make a teacher teach worse; few of them do its student no harm.",
        "metric": "distil/test/accuracy",
        "held_equal": ("nets, steps, batches, optimizer and rate of student and teachers",),
        "arms": {
            "partly": {},
            "all mixed": arm(softened(4.0), MIXED),
            "plain teacher": arm(high, {}),
            "mixed teacher": arm(high, {}, "mixed"),
        },
        "contrasts": {
            "mixed teacher": above("plain teacher", "mixed teacher", worse),
            "partly": above("partly", "all mixed", few, -0.005, origin="what seeds differ by"),
        },
    }


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "", *, data: Mapping[str, Any] | None = None) -> ConfigDict:
    """The published run, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__, data=dict(data or {}))
