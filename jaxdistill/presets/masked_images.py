"""Masked autoencoders: their sizes, their pre-training, and how their encoders are fine-tuned.

He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022.
"""

from __future__ import annotations

from typing import Any

from jaxdistill.presets.images import imagenet_accuracy, random_crop
from jaxdistill.presets.optimizers import adamw

PIXELS = {
    "loss": "hint",
    "student": "out/pixels",
    "target": "batch/patches",
    "where": "batch/mask",
}
"""The mean squared error of hidden patches."""
NORMED = {
    "loss": "feature_match",
    "normalise": "layer_norm",
    "sides": "teacher",
    "distance": "smooth_l1",
    "beta": 2.0,
}
"""Features of a teacher, normed, that a student is to match as they are."""


def autoencoder(
    patch: int, width: int, depth: int, heads: int, decoder: tuple[int, int, int], **settings: Any
) -> dict[str, Any]:
    """A masked autoencoder; the decoder by its width, depth and heads.

    Example:
        >>> autoencoder(2, 32, 3, 4, decoder=(32, 2, 4))["decoder_depth"]
        2
    """
    sizes = {"patch": patch, "width": width, "depth": depth, "heads": heads}
    names = ("decoder_width", "decoder_depth", "decoder_heads")
    return {"net": "mae", **sizes, **dict(zip(names, decoder, strict=True)), **settings}


def encoder(autoencoder: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The encoder of a masked autoencoder as a classifier of the mean token.

    Example:
        >>> encoder(autoencoder(2, 32, 3, 4, decoder=(32, 2, 4)))["net"]
        'vit'
    """
    sizes = {key: autoencoder[key] for key in ("patch", "width", "depth", "heads")}
    return {"net": "vit", **sizes, "pool": "mean", **settings}


def features(student: str, teacher: str, weight: float) -> dict[str, Any]:
    """Features of the teacher, before the final norm, behind a linear projector of the student's.

    Example:
        >>> features("encoder/block_8", "encoder/block_17", 1.0)["projector"]
        'linear'
    """
    return {
        "loss": "feature_match",
        "normalise": "l2",
        "distance": "l1",
        "student": student,
        "target": teacher,
        "projector": "linear",
        "weight": weight,
    }


def pretraining(
    student: dict[str, Any],
    augment: tuple[dict[str, Any], ...],
    peak: float,
    warmup: int,
    steps: int,
    **settings: Any,
) -> dict[str, Any]:
    """A stage that fills in three quarters of the patches, the same ones for student and teacher.

    Example:
        >>> pretraining({"net": "mae", "patch": 2}, (), 3e-3, 60, 1000)["view"]["mask"]
        {'patch': 2, 'ratio': 0.75, 'shared': True}
    """
    mask = {"patch": student["patch"], "ratio": 0.75, "shared": True}
    return {
        "student": student,
        "view": {"augment": augment, "mask": mask},
        "objective": {"pixels": PIXELS},
        "optimizer": adamw(peak, warmup, b2=0.95, weight_decay=0.05),
        "steps": steps,
        "pictures": ("reconstruction",),
        **settings,
    }


def own_units(stage: dict[str, Any]) -> dict[str, Any]:
    """A stage of :func:`pretraining` that draws each patch in units of its own mean and deviation.

    Example:
        >>> stage = own_units(pretraining({"net": "mae", "patch": 2}, (), 3e-3, 60, 1000))
        >>> stage["view"]["mask"]["normalise"]
        True
    """
    mask = {**stage["view"]["mask"], "normalise": True}
    return {**stage, "view": {**stage["view"], "mask": mask}}


def decoder_features(student: str, teacher: str) -> dict[str, Any]:
    """All tokens of a teacher's decoder, normed, behind a head of two layers of the student's: an
    objective in place of pixels (Huang et al., G2SD, CVPR 2023).

    Example:
        >>> decoder_features("decoder/block_3", "decoder/block_3")["features"]["beta"]
        2.0
    """
    head = {"name": "mlp", "exact": True}
    return {"features": {**NORMED, "student": student, "target": teacher, "projector": head}}


def two_teachers(block: int, last_drop: int, heads: int) -> dict[str, Any]:
    """Final features of a stage ``supervised``, relations of a block of a stage ``masked``, both of
    the patches that are left after the last drop (Shi et al., Hybrid Distillation, ICLR 2024).

    Args:
        block: whose relations are learnt.
        last_drop: the last block before which the student drops patches.
        heads: relation heads.

    Example:
        >>> two_teachers(block=10, last_drop=8, heads=12)["objective"]["features"]["kept"]
        'encoder/kept_8'
    """
    kept, qkv = f"encoder/kept_{last_drop}", f"encoder/block_{block}/attn/qkv"
    features = {"student": "encoder", "target": "supervised/encoder", "projector": "linear"}
    relations = {"student": qkv, "target": f"masked/{qkv}", "relations": ("qk", "vv")}
    # The loss is the mean of the two relations, the paper's their sum.
    relations |= {"loss": "qkv_relations", "heads": heads, "weight": 2.0}
    members = {name: {"kind": "live", "stage": name} for name in ("supervised", "masked")}
    return {
        "targets": {"kind": "merge", "members": members},
        "objective": {
            "features": {**NORMED, **features, "kept": kept},
            "relations": {**relations, "kept": kept},
        },
    }


def distillation_token(
    autoencoder: dict[str, Any], teacher: str, stage: str | None, **settings: Any
) -> dict[str, Any]:
    """A stage in which an encoder learns mixed labels by its class token, and by a distillation
    token the class that a classifier gives to the same mixed images; half and half.

    Args:
        autoencoder: whose encoder it is.
        teacher: the stage of the classifier.
        stage: where the encoder was trained.
        **settings: of the stage.

    Example:
        >>> mae = autoencoder(2, 32, 3, 4, decoder=(32, 2, 4))
        >>> list(distillation_token(mae, "tutor", "generic")["objective"])
        ['labels', 'teacher']
    """
    mixed = {"loss": "soft_cross_entropy", "student": "head", "target": "batch/soft_label"}
    hard = {"loss": "hard_kd", "student": "head_distilled"}
    return {
        "student": encoder(autoencoder, pool="cls", distillation_token=True),
        "targets": {"kind": "live", "stage": teacher},
        "initial": {"stage": stage, "parts": {"encoder": "encoder"}},
        "objective": {"labels": {**mixed, "weight": 0.5}, "teacher": {**hard, "weight": 0.5}},
        "pictures": ("reliability",),
        **settings,
    }


def imagenet_fine_tuning(autoencoder: dict[str, Any], stage: str, epoch: int) -> dict[str, Any]:
    """The published fine-tuning on ImageNet: 100 epochs in batches of 1024.

    Args:
        autoencoder: whose encoder is fine-tuned.
        stage: where it was trained.
        epoch: steps of one.

    Example:
        >>> mae = autoencoder(16, 768, 12, 12, decoder=(512, 8, 16))
        >>> imagenet_fine_tuning(mae, "distil", 1238)["steps"]
        123800
    """
    erased = {"name": "random_erasing", "probability": 0.25}
    return {
        "student": encoder(autoencoder, drop_path=0.1, dtype="bfloat16"),
        "initial": {"stage": stage, "parts": {"encoder": "encoder"}},
        "view": {
            "augment": (*random_crop(), erased),
            "mix": {"name": "mixup_or_cutmix", "smoothing": 0.1},
        },
        "objective": {"labels": {"loss": "soft_cross_entropy", "target": "batch/soft_label"}},
        "optimizer": adamw(5e-4 * 4, 5 * epoch, b2=0.999, weight_decay=0.05),
        "batch_size": 1024,
        "steps": 100 * epoch,
        "evaluate": {"accuracy": imagenet_accuracy(1024, every=5 * epoch)},
        "checkpoint_every": epoch,
        "pictures": ("reliability",),
    }
