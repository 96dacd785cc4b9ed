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
--config.data.dir=<folder>``. ``within_share`` says how smooth a net is: the share of its features'
variance that lies within classes.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, recipe
from jaxdistill.presets.claims import above, rates
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


def published() -> dict:
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
        data={"name": "cifar100", "dir": "", "validation": 0.1, "test": 0.0},
        stages={
            "plain": stage(110),
            "distil": stage(20, view={"augment": shifted_crop(CIFAR100), **PARTLY}, **taught),
        },
    )


def small() -> dict:
    large = {"net": "convnet", "width": 24, "depth": 2, "norm": "batch"}
    net = {**large, "width": 6}
    measured = {"accuracy": accuracy(), "smooth": {**SMOOTH, "read": "features"}}
    labelled = {"data/test": 0.0, "data/validation": 0.1, "data/records": 2000}
    return recipe(
        title="MIX-KD in small",
        sentence=SENTENCE,
        data={"name": "digits", "dir": "", "validation": 0.15, "test": 0.3, "records": None},
        stages={
            "plain": classifier(large, 600, evaluate=measured),
            "mixed": classifier(large, 600, evaluate=measured, view=MIXED, objective=MIXED_LABELS),
            "distil": classifier(
                net,
                600,
                targets={"kind": "live", "stage": "plain"},
                view=PARTLY,
                objective=STANDARDISED,
                evaluate=measured,
                pictures=("reliability",),
            ),
        },
        order=("plain", "distil"),
        variants=dict.fromkeys(("mnist", "fashion_mnist"), labelled),
        claim=claim(),
        tune={
            "metric": "distil/validation/accuracy",
            "seeds": 2,
            "grid": {arm: rates("distil", (3e-3, 1e-2, 3e-2)) for arm in claim()["arms"]},
        },
    )


def claim() -> dict:
    def arm(objective: dict, view: dict | None = None, teacher: str = "plain") -> dict:
        told = {"kind": "live", "stage": teacher}
        own = at("stages/distil", objective=objective, view=view, targets=told)
        return {"recipe": (teacher, "distil"), **own}

    high = softened(HIGH, "batch/label")
    worse = "a teacher that was trained on mixed pairs teaches worse at a high temperature"
    few = "partly mixed with logits of one scale is at most half a point below all mixed"
    noise = "what seeds differ by"
    return {
        "sentence": "Mixed pairs make a teacher teach worse; few of them do its student no harm.",
        "metric": "distil/test/accuracy",
        "held_equal": ("nets, steps, batches, optimizer and rate of student and teachers",),
        "arms": {
            "partly": {},
            "all mixed": arm(softened(4.0), MIXED),
            "plain teacher": arm(high),
            "mixed teacher": arm(high, teacher="mixed"),
        },
        "contrasts": {
            "mixed teacher": above("plain teacher", "mixed teacher", worse),
            "partly": above("partly", "all mixed", few, -0.005, origin=noise),
        },
    }


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__)
