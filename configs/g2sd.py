"""G2SD: a small ViT learns from a masked autoencoder twice, first what it knows of any image, then
what its fine-tuned form knows of the classes.

Huang et al., Generic-to-Specific Distillation of Masked Autoencoders, CVPR 2023: a ViT-S reaches
98.7 % of the accuracy of the ViT-B that taught it, on ImageNet. Generic: behind a head of two
layers the student's decoder matches the features of the teacher's decoder, stopped in its middle,
for the same mask. Specific: a distillation token learns the class that the fine-tuned teacher
gives to the mixed image, beside the class token, which learns its labels.

ImageNet from tfds, on a pod, with a published teacher, whose weights must hold its decoder:

    python -m jaxdistill.main --config=configs/g2sd.py --workdir=runs/g2sd
        --config.stages.teacher.checkpoint=facebook/vit-mae-base

``:nkd`` is that with normalised KD in place of the distillation token. Digits, two minutes:

    python -m jaxdistill.main --config=configs/g2sd.py:small --workdir=runs/g2sd_small

The claim is of Fashion-MNIST with 2,000 labels:

    python -m jaxdistill.claim --config=configs/g2sd.py:small --seeds=5 --workdir=runs/g2sd_claim
        --config.data.name=fashion_mnist --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, masked_images, recipe
from jaxdistill.presets.claims import above, tuned
from jaxdistill.presets.images import LABELS, accuracy, random_crop
from jaxdistill.presets.masked_images import autoencoder, pretraining
from jaxdistill.presets.optimizers import adamw, layer_decay


def taught(block: int) -> dict:
    """The decoder of the teacher stopped in its middle, that of the student at its end."""
    path = f"decoder/block_{block}"
    live = {"kind": "live", "stage": "teacher"}
    return {
        "targets": live,
        "objective": masked_images.decoder_features(path, path),
        "pictures": None,
    }


RATE = "stages/specific/optimizer/learning_rate/peak"
NKD = {
    "loss": "normalised_kd",
    "arguments": {"labels": "batch/soft_label"},
    "non_target_weight": 1.0,
}


def published() -> dict:
    # 1,281,167 images less the hundredth of them kept for validation.
    epoch, fine, crop, peak = 309, 1238, random_crop(scale=(0.2, 1.0)), 1.5e-4 * 16
    base = autoencoder(16, 768, 12, 12, decoder=(512, 8, 16), dtype="bfloat16")
    half = autoencoder(16, 384, 12, 6, decoder=(256, 4, 8), dtype="bfloat16")
    common = {"batch_size": 4096, "log_every": 50, "checkpoint_every": 1000}
    # The folder of a finished stage, or a published network: then it is not trained again.
    given = {"checkpoint": ""}
    tutor = masked_images.imagenet_fine_tuning(base, "teacher", fine)
    token = masked_images.distillation_token(half, "tutor", "generic")
    decayed = adamw(1e-3 * 4, 5 * fine, weight_decay=0.05, rates=layer_decay(12, 0.75))
    return recipe(
        title="G2SD, ViT-B to ViT-S",
        sentence="A ViT-S learns from a masked ViT-B, then from its fine-tuned form.",
        data={"name": "imagenet2012", "dir": "", "image_size": 256, "validation": 0.01},
        stages={
            "teacher": masked_images.own_units(
                pretraining(base, crop, peak, 40 * epoch, 1600 * epoch, **given, **common)
            ),
            "tutor": {**tutor, **given},
            "generic": {
                **pretraining(half, crop, peak, 10 * epoch, 300 * epoch, **common),
                **taught(3),
            },
            "specific": {
                **masked_images.imagenet_fine_tuning(half, "generic", fine),
                **token,
                "student": {**token["student"], "dtype": "bfloat16"},
                "optimizer": decayed,
                "steps": 200 * fine,
            },
        },
    )


def nkd() -> dict:
    found = published()
    student = {**found["stages"]["specific"]["student"], "distillation_token": False}
    found["stages"]["specific"] |= {"student": student, "objective": {"nkd": NKD}}
    return found


def small() -> dict:
    teacher = autoencoder(2, 64, 4, 4, decoder=(32, 4, 4))
    student = autoencoder(2, 32, 3, 4, decoder=(32, 2, 4))
    few = {"records": {"labelled": 100}, "batch_size": 50, "evaluate": {"accuracy": accuracy()}}
    decayed = adamw(5e-3, 20, weight_decay=0.05, rates=layer_decay(4, 0.75))
    masked = pretraining(student, (), 1e-2, 60, 600, batch_size=64)
    mix = {"mix": {"name": "mixup", "alpha": 0.2, "smoothing": 0.1}}
    return recipe(
        title="G2SD in small",
        sentence="A small ViT learns from a masked autoencoder, then from its fine-tuned form.",
        data={"name": "digits", "dir": "", "validation": 0.1, "test": 0.2},
        stages={
            "teacher": pretraining(teacher, (), 3e-3, 60, 1000, batch_size=64),
            "tutor": {
                "student": masked_images.encoder(teacher),
                "initial": {"stage": "teacher", "parts": {"encoder": "encoder"}},
                "objective": LABELS,
                "optimizer": decayed,
                "steps": 300,
                **few,
            },
            "masked": masked,
            "generic": {**masked, **taught(1)},
            "specific": masked_images.distillation_token(
                student,
                "tutor",
                "generic",
                view=mix,
                optimizer={**decayed, "rates": layer_decay(3, 0.75)},
                steps=300,
                **few,
            ),
        },
        order=("teacher", "tutor", "generic", "specific"),
        variants={"fashion_mnist": fashion_mnist()},
        claim=claim(),
        tune=tuned("specific", claim()["arms"], (2e-3, 5e-3, 1e-2, 2e-2)),
    )


def fashion_mnist() -> dict:
    """What the small run becomes on Fashion-MNIST with 2,000 labels."""
    found = {"data/test": 0.0}
    for stage in ("teacher", "tutor", "masked", "generic", "specific"):
        found |= at(f"stages/{stage}/student", patch=7)
    for stage in ("teacher", "masked", "generic"):
        found |= at(f"stages/{stage}/view/mask", patch=7)
    for stage in ("tutor", "specific"):
        found |= at(f"stages/{stage}/records", labelled=2000)
    return found


def claim() -> dict:
    """Fixed before any seed was run, but for pilots."""
    return {
        "sentence": "What a masked autoencoder knows helps before what its fine-tuned form knows.",
        "metric": "specific/test/accuracy",
        "held_equal": (
            "net, labels, steps, batches and optimizer of the specific stage; its teacher",
            "the rates tried, of which each arm has its best, on validation images",
            "steps, batches and masks of what comes before it, where something does",
        ),
        "arms": {
            "generic, specific": {RATE: 1e-2},
            "masked, specific": {
                "recipe": ("teacher", "tutor", "masked", "specific"),
                "stages/specific/initial/stage": "masked",
                RATE: 2e-2,
            },
            "specific": {
                "recipe": ("teacher", "tutor", "specific"),
                "stages/specific/initial": None,
                RATE: 5e-3,
                # Nothing is there yet that could be kept.
                "stages/specific/optimizer/rates": (),
            },
        },
        "contrasts": {
            "specific": above(
                "generic, specific", "specific", "generic, then specific beats specific alone"
            ),
            "masked": above(
                "generic, specific",
                "masked, specific",
                "it loses at most half a point against a masked autoencoder of its own",
                -0.005,
                origin="less than single seeds differ by",
            ),
        },
    }


VARIANTS = {"": published, "nkd": nkd, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, that with normalised KD, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__)
