"""One for all: students learn from a teacher of another family, stage by stage, in its logits.

Hao et al., One-for-All, NeurIPS 2023: features of unlike nets are unlike, so that nothing is gained
by matching them. Each stage of the student is projected to logits instead, and learns from the
teacher's last ones. ResNet-18 from DeiT-T reaches 71.34 % on ImageNet (69.75 alone, 70.22 by plain
distillation), and gains up to 8 points on CIFAR-100.

ImageNet from tfds, a teacher from a finished stage or published weights:

    python -m jaxdistill.main --config=configs/ofa_kd.py --workdir=runs/ofa
        --config.data.dir=<tfds> --config.stages.teacher.checkpoint=<folder, or a name on the hub>

Minutes, on digits or on 2,000 labels of Fashion-MNIST; a transformer teaches a convolutional net
(``vit_cnn``), or the other way round, or a mixer is taught (``cnn_vit``, ``cnn_mixer``):

    python -m jaxdistill.main --config=configs/ofa_kd.py:small --workdir=runs/ofa_small
    python -m jaxdistill.claim --config=configs/ofa_kd.py:small --config.pair=cnn_vit
        --config.data.name=fashion_mnist --config.data.dir=<folder> --workdir=runs/ofa_claim

The report shows how alike representations are (CKA) across families, and within one: a twin of the
teacher that has learned by itself.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxdistill._errors import unknown
from jaxdistill.presets import chosen, recipe
from jaxdistill.presets.claims import above, rates
from jaxdistill.presets.images import LABELS, accuracy, classifier, imagenet_resnet
from jaxdistill.presets.optimizers import adamw, sgd
from jaxdistill.presets.pairs import UNLIKE, Family
from jaxdistill.presets.zoo import labels, soft

HALF = "half a point, so that no difference counts as none lost"


def one_for_all(ours: Family, theirs: Family, exponents: tuple[float, ...], weight: float) -> dict:
    """An entry for each stage of the student and one for its logits, each with its exponent."""
    width = max(ours.width, theirs.width) if ours.maps else ours.width
    head = {"name": "stage_head", "stages": len(ours.stages), "width": width}
    head["front"] = ours.front
    loss = {"loss": "one_for_all", "temperature": 1.0}
    entries = {
        f"stage_{k}": {
            **loss,
            "student": tap,
            "projector": {**head, "stage": k},
            "exponent": exponent,
            "weight": weight,
        }
        for k, (tap, exponent) in enumerate(zip(ours.stages, exponents, strict=False), start=1)
    }
    return {**labels(), **entries, "logits": {**loss, "exponent": exponents[-1]}}


def published() -> dict:
    epoch = 2477  # 1,281,167 images less a hundredth for validation, in batches of 512
    stages = tuple(f"stage_{k}" for k in range(1, 5))
    student, teacher = Family({}, stages, 512, maps=True), Family({}, (), 192, front=1)
    rate = {"schedule": "step_decay", "peak": 0.2, "milestones": (30 * epoch, 60 * epoch)}
    tiny = {"net": "vit", "patch": 16, "width": 192, "depth": 12, "heads": 3}
    common = {"batch_size": 512, "epoch": epoch}
    deit = {**common, "epochs": 300}
    decayed = sgd(rate, weight_decay=1e-4)
    taught = {
        "targets": {"kind": "live", "stage": "teacher"},
        "objective": one_for_all(student, teacher, (1.5,) * 5, 1.0),
    }
    return recipe(
        title="One for all, ResNet-18 from DeiT-T",
        sentence="A residual net learns from a transformer, stage by stage, in its logits.",
        data={"name": "imagenet2012", "dir": "", "image_size": 256, "validation": 0.01},
        stages={
            "teacher": {
                **imagenet_resnet(18, adamw(1e-3, 5 * epoch, weight_decay=0.05), **deit),
                "student": {**tiny, "positions": "learned", "dtype": "bfloat16"},
                "checkpoint": "",
            },
            "distil": imagenet_resnet(18, decayed, epochs=100, **taught, **common),
        },
    )


def small(pair: str, data: dict) -> dict:
    if pair not in UNLIKE:
        raise ValueError(unknown("pair", pair, UNLIKE))
    digits = data.get("name", "digits") == "digits"
    smaller = () if digits else ({"name": "resize", "size": 16},)
    sets = {"name": "digits", "validation": 0.1, "test": 0.2}
    sets = sets if digits else {"dir": "", "validation": 0.05, "test": 0.0}
    # A teacher has learnt all labels, a student has 200, or 2,000.
    few, steps = {"labelled": 200 if digits else 2000}, 600 if digits else 1200
    theirs, ours = UNLIKE[pair]
    patch = {"patch": 2 if digits else 4}
    its, own_net = (f.net if f.maps else {**f.net, **patch} for f in (theirs, ours))
    seen = {"view": {"augment": smaller}}
    measured = {"accuracy": accuracy(augment=smaller)}
    soon, late = ours.stages[0], ours.stages[-1]
    middle = theirs.stages[len(theirs.stages) // 2]
    across = {"middle": (soon, middle), "last": (late, theirs.stages[-1])}
    within = {"middle": (middle, middle), "last": (theirs.stages[-1],) * 2}

    def alike(pairs: dict) -> dict:
        shared = {"evaluator": "cka", "records": 512, "augment": smaller}
        return {**shared, "pairs": pairs, "sets": ("validation",)}

    def student(objective: dict) -> dict:
        watched = {"evaluate": {**measured, "alike": alike(across)}}
        own = {"targets": {"kind": "live", "stage": "teacher"}, "objective": objective, **watched}
        return classifier(own_net, 400, **seen, **own, records=few)

    regrid = {"name": "regrid", "front": ours.front, "target_front": theirs.front}
    hint = {"loss": "hint", "student": late, "target": theirs.stages[-1], "projector": regrid}
    plain = {**labels(), **soft(1.0, 1.0)}
    twin = {"targets": {"kind": "live", "stage": "teacher"}, "seed": 1}
    twin["evaluate"] = {**measured, "alike": alike(within)}
    exponents = (1.0,) * (len(ours.stages) + 1)
    return recipe(
        title=f"One for all in small: {pair.replace('_', ' to ')}",
        sentence="A student learns from a net of another family, stage by stage, in its logits.",
        data={**sets, **data},
        stages={
            "teacher": classifier(its, steps, **seen, evaluate=measured),
            "twin": classifier(its, steps, **seen, **twin),
            "alone": student(LABELS),
            "kd": student(plain),
            "hints": student({**labels(), "hint": hint}),
            "distil": student(one_for_all(ours, theirs, exponents, 0.1)),
        },
        claim=claim(),
        tune={"metric": "last/validation/accuracy", "seeds": 2, "grid": grid(len(ours.stages))},
    )


def grid(stages: int) -> dict:
    """Peak rates of every arm, and besides how much the stages of the student weigh."""
    values = (1e-3, 3e-3, 1e-2)
    found = {arm: rates(arm, values) for arm in ("alone", "kd", "hints", "distil")}
    entries = [f"stages/distil/objective/stage_{k}/weight" for k in range(1, stages + 1)]
    whole = rates("distil", values, dict.fromkeys(entries, 1.0))
    return found | {"distil": found["distil"] | {f"{k}, weight 1": v for k, v in whole.items()}}


def claim() -> dict:
    arms = ("alone", "kd", "hints", "distil")
    return {
        "sentence": "Between unlike families logits teach at every stage, and features do not.",
        "metric": "last/test/accuracy",
        "held_equal": ("teacher, student, steps, batches, rate",),
        "arms": {name: {"recipe": ("teacher", name)} for name in arms},
        "contrasts": {
            "one for all": above("distil", "kd", "stages lose nothing", -0.005, origin=HALF),
            "kd": above("kd", "alone", "plain distillation loses nothing", -0.005, origin=HALF),
            "hints": above("kd", "hints", "hints are below plain distillation"),
        },
    }


VARIANTS = {"": published, "small": small}


def get_config(
    variant: str = "", *, pair: str = "vit_cnn", data: Mapping[str, Any] | None = None
) -> ConfigDict:
    """The published run, or with ``small`` one of minutes in a pair of families."""
    given = {"pair": pair, "data": dict(data or {})} if variant else {}
    return chosen(VARIANTS, variant, __file__, **given)
