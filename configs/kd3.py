"""KD3: a student learns from images off the web, as its teacher's own are not to be had.

Tang et al., Distribution Shift Matters for Knowledge Distillation with Webly Collected Images, ICCV
2023: CIFAR-10 95.21, CIFAR-100 78.44; without selection 4.99 points less, without the shared
classifier 1.79, without mixed statistics 0.73. There is no public code, and its equations could not
be read: names and intent are the paper's, formulas, weights and shares are ours.

Every so many steps the pool is sifted: of each predicted class those images stay that the mean of
both nets' predictions is surest of. The student's features are brought to its teacher's width and
classified by its teacher's classifier; they match the teacher's where that looks, and an image must
stay itself under the channel statistics of another. Of the pool no label is ever read.

CIFAR-10 from tfds and any folder of images, ResNet-32x4 to ResNet-8x4 (the paper: 34 to 18):

    python -m jaxdistill.main --config=configs/kd3.py --workdir=runs/kd3
        --config.data.dir=<tfds folder> --config.web=<folder>

Digits, of a pool of other digits, photographs, inverted and noisy digits; minutes:

    python -m jaxdistill.main --config=configs/kd3.py:small --workdir=runs/kd3_small
    python -m jaxdistill.claim --config=configs/kd3.py:small --workdir=runs/kd3_claim

MNIST, of a pool of resized digits, Fashion-MNIST, inverted and noisy digits: ``--config.data.name=
mnist --config.data.dir=<MNIST> --config.web=<Fashion-MNIST>``. Expect ``precision``, the share of
plain digits in the selection, above ``base_rate``, that in the pool.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, recipe
from jaxdistill.presets.claims import above, reaches, tuned
from jaxdistill.presets.images import CIFAR10, accuracy, cifar_stage, classifier
from jaxdistill.presets.optimizers import sgd, warmup_cosine

SENTENCE = "A student learns from images of elsewhere, of which it sees those that both nets know."
LARGE = {"net": "convnet", "width": 24, "depth": 2}  # the small run's teacher
SIFTED = {"name": "joint_selection", "against": "teacher", "share": 0.2}
SOFT = {"teacher": {"loss": "hinton_kd", "temperature": 4.0}}
READ = {"student_logits": "out", "teacher_logits": "target/out"}
READ |= {"classifier": "params/classifier/kernel"}


def remembered(tap: str, features: float, shifted: float) -> dict:
    """Soft targets, class-weighted features, instances under other statistics."""
    both = {"student": "features", "target": tap}
    match = {"loss": "class_weighted_match", **both, "arguments": READ, "weight": features}
    contrast = {"loss": "shifted_contrast", **both, "arguments": {"shifted": "shifted"}}
    return {**SOFT, "features": match, "shifted": {**contrast, "weight": shifted}}


def sharing(body: dict, read: str, shifted_at: str) -> dict:
    """The net of a student with its teacher's classifier."""
    own = {"body": body, "read": read, "shifted_at": shifted_at}
    return {"net": "shared_classifier", "teacher": "teacher", **own}


def published(data: dict, web: str) -> dict:
    epoch = 352  # 50,000 images less a tenth, in batches of 128
    optimizer = sgd(warmup_cosine(0.05, 0), weight_decay=5e-4)
    data = {"name": "cifar10", "dir": "", "validation": 0.1, "test": 0.0, **data}
    images = {"name": "image_folder", "dir": web, "image_size": 32, "labels": False}
    pool = {"name": "pool", "tested": data, "parts": {"web": {**images, "validation": 0.0}}}
    net = {"net": "cifar_resnet", "depth": 32, "width_multiplier": 4}

    def stage(student: dict, **settings) -> dict:
        return cifar_stage(student, optimizer, CIFAR10, 128, epoch, epochs=200, **settings)

    taught = {"data": pool, "targets": {"kind": "live", "stage": "teacher"}}
    taught["between"] = {**SIFTED, "every": 10 * epoch, "augment": (CIFAR10,)}
    taught["objective"] = remembered("pooled", 1.0, 0.1)
    return recipe(
        title="KD3, ResNet-32x4 to ResNet-8x4",
        sentence=SENTENCE,
        data=data,
        stages={
            "teacher": stage(net),
            "distil": stage(sharing({**net, "depth": 8}, "pooled", "stage_1"), **taught),
        },
    )


def small(data: dict, web: str) -> dict:
    digits = {"name": "digits", "validation": 0.15, "test": 0.3}
    if data.get("name", "digits") == "digits":
        mine, elsewhere, seen = {"share": (0.0, 0.5)}, "photographs", {}
        part = {**digits, "share": (0.5, 1.0)}
        other = {"name": "photographs", "size": 8, "grey": True, "share": (0.0, 0.2), "test": 0.0}
        data, how_long = {**digits, **data}, {"steps": 600}
    else:
        mine, elsewhere, seen = None, "clothes", {"augment": ({"name": "resize", "size": 14},)}
        part = {**digits, "validation": 0.0, "test": 0.0, "frame": 4}
        other = {"name": "fashion_mnist", "dir": web, "test": 0.0, "share": (0.0, 0.6)}
        data = {"dir": "", "validation": 0.05, "test": 0.0, **data}
        how_long = {"steps": 300, "peak": 1e-2}  # it sees half of the pool, once
    parts = {"digits": part, elsewhere: other}
    parts |= {f"{kind} digits": {**part, "change": kind} for kind in ("inverted", "noisy")}
    how = {"view": seen, "evaluate": {"accuracy": accuracy(**seen)}}
    selected = {"evaluator": "selection_precision", "sets": ("train",), "wanted": ("digits",)}
    measured = {**how["evaluate"], "selected": {**selected, "share": 0.2, **seen}}
    asked = claim({"digits": part})
    return recipe(
        title="KD3 in small",
        sentence=SENTENCE,
        data=data,
        stages={
            "teacher": classifier(LARGE, 600, records=mine, **how),
            "distil": classifier(
                sharing({**LARGE, "width": 8}, "features", "relu_0"),
                **how_long,
                data={"name": "pool", "tested": data, "parts": parts},
                targets={"kind": "live", "stage": "teacher"},
                objective=remembered("features", 1.0, 0.1),
                between={**SIFTED, "every": 100, **seen},
                **{**how, "evaluate": measured},
            ),
        },
        claim=asked,
        tune=tuned("distil", asked["arms"], (1e-3, 3e-3, 1e-2)),
    )


def claim(wanted: dict) -> dict:
    alone = at("stages/distil", student={**LARGE, "width": 8}, objective=SOFT)
    whole = {**alone, **at("stages/distil", between=None), "stages/distil/evaluate/selected": None}
    lost = {"margin": -0.01, "origin": "of the order of what seeds differ by"}
    return {
        "sentence": "What both nets are sure of teaches more than the whole pool.",
        "metric": "distil/test/accuracy",
        "held_equal": ("body, steps, batches, optimizer and rate of the student; its teacher",),
        "arms": {
            **{"whole method": {}, "selection": alone, "whole pool": whole},
            # What selection could reach at best: without it the test-bed would show nothing.
            "digits alone": {**whole, "stages/distil/data/parts": wanted},
        },
        "contrasts": {
            "control": above("digits alone", "whole pool", "digits alone beat the whole pool"),
            "pool": above("whole method", "whole pool", "the whole beats the whole pool"),
            "selection": above("selection", "whole pool", "selection beats the whole pool", 0.02),
            "whole method": above("whole method", "selection", "the whole is no worse", **lost),
            "precision": reaches(
                "whole method", 0.0, "more of it is digits than of the pool", "distil/train/lift"
            ),
        },
    }


VARIANTS = {"": published, "small": small}


def get_config(
    variant: str = "", *, data: Mapping[str, Any] | None = None, web: str = ""
) -> ConfigDict:
    """The published run, or with ``small`` one of minutes; ``web`` is the folder of the pool."""
    return chosen(VARIANTS, variant, __file__, data=dict(data or {}), web=web)
