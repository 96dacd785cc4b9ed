"""Hybrid Distillation: a ViT learns what to tell apart from a teacher of classes, and where to look
from a masked autoencoder, on ever fewer of its patches.

Shi et al., Hybrid Distillation: Connecting Masked Autoencoders with Contrastive Learners, ICLR
2024: ViT-B with 83.7 % on ImageNet, from MAE and DeiT. The final tokens match the normed ones of
the supervised teacher; relations of queries and keys, and of values, in the last block but one
match those of the masked one. Before three of its blocks the student drops the patches that others
resemble; the teachers see all of them, and of what they give the same are left out.

ImageNet from tfds, on a pod, with published teachers:

    python -m jaxdistill.main --config=configs/hybrid_distill.py --workdir=runs/hybrid
        --config.stages.supervised.checkpoint=facebook/deit-base-patch16-224
        --config.stages.masked.checkpoint=facebook/vit-mae-base

Digits, two minutes:

    python -m jaxdistill.main --config=configs/hybrid_distill.py:small --workdir=runs/hybrid_small

The claim is of Fashion-MNIST with 1,000 labels:

    python -m jaxdistill.claim --config=configs/hybrid_distill.py:small --seeds=5
        --workdir=runs/hybrid_claim --config.data.name=fashion_mnist --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, masked_images, recipe
from jaxdistill.presets.claims import above
from jaxdistill.presets.images import LABELS, accuracy, classifier, random_crop
from jaxdistill.presets.masked_images import autoencoder, pretraining
from jaxdistill.presets.optimizers import adamw


def published() -> dict:
    # 1,281,167 images less the hundredth of them kept for validation.
    epoch, fine, peak = 309, 1238, 1.5e-4 * 16
    base = autoencoder(16, 768, 12, 12, decoder=(512, 8, 16), dtype="bfloat16")
    vit = masked_images.encoder(base, dtype="bfloat16")
    crop = random_crop(scale=(0.2, 1.0))
    common = {"batch_size": 4096, "log_every": 50, "checkpoint_every": 1000}
    # The folder of a finished stage, or a published network: then it is not trained again.
    given = {"checkpoint": ""}
    return recipe(
        title="Hybrid Distillation, ViT-B",
        sentence="A ViT-B learns features from a supervised ViT-B, relations from a masked one.",
        data={"name": "imagenet2012", "dir": "", "image_size": 256, "validation": 0.01},
        stages={
            "supervised": {
                **masked_images.imagenet_fine_tuning(base, "", fine),
                "student": {**vit, "pool": "cls", "drop_path": 0.1},
                "initial": None,
                "optimizer": adamw(1e-3, 5 * fine, weight_decay=0.05),
                "steps": 300 * fine,
                **given,
            },
            "masked": masked_images.own_units(
                pretraining(base, crop, peak, 40 * epoch, 1600 * epoch, **given, **common)
            ),
            "distil": {
                "student": {**vit, "classes": 0, "drop_before": (0, 4, 8)},
                "view": {"augment": crop},
                "optimizer": adamw(peak, 10 * epoch, b2=0.95, weight_decay=0.05),
                "steps": 300 * epoch,
                **masked_images.two_teachers(block=10, last_drop=8, heads=12),
                **common,
            },
            "finetune": masked_images.imagenet_fine_tuning(base, "distil", fine),
        },
    )


def small() -> dict:
    masked = autoencoder(2, 48, 4, 4, decoder=(32, 2, 4))
    vit = masked_images.encoder(masked)
    probe = {"evaluator": "linear_probe", "labelled": 100, "read": "encoder"}
    looks = {
        "evaluator": "attention",
        "blocks": tuple(f"encoder/block_{i}/attn/qkv" for i in range(4)),
        "heads": 4,
    }
    measured = {
        "probe": {**probe, "sets": ("validation", "test"), "teacher": False},
        "looks": {**looks, "sets": ("validation", "test"), "teacher": False},
    }
    against = {**measured, "looks": {**measured["looks"], "against": "masked"}}
    supervised = classifier(vit, steps=500, peak=2e-3)
    return recipe(
        title="Hybrid Distillation in small",
        sentence="A small ViT learns features from a supervised one, relations from a masked one.",
        data={"name": "digits", "dir": "", "validation": 0.1, "test": 0.2},
        stages={
            "supervised": {**supervised, "evaluate": {"accuracy": accuracy(), **measured}},
            "masked": {
                **pretraining(masked, (), 3e-3, 60, 1000, batch_size=64),
                "evaluate": measured,
            },
            "distil": {
                "student": {**vit, "drop_before": (0, 1, 2)},
                "optimizer": adamw(3e-3, 50, b2=0.95, weight_decay=0.05),
                "batch_size": 64,
                "steps": 400,
                "evaluate": against,
                **masked_images.two_teachers(block=2, last_drop=2, heads=4),
            },
        },
        variants={"fashion_mnist": fashion_mnist()},
        claim=claim(),
    )


def fashion_mnist() -> dict:
    """What the small run becomes on Fashion-MNIST, with a probe of 1,000 labels."""
    found = {"data/test": 0.0, "stages/masked/view/mask/patch": 7}
    # Long enough that masked and supervised nets look at different things.
    for stage, steps in (("supervised", 1000), ("masked", 2000), ("distil", 800)):
        found[f"stages/{stage}/steps"] = steps
        found |= at(f"stages/{stage}/student", patch=7)
        found |= at(f"stages/{stage}/evaluate/probe", labelled=1000)
    return found


def claim() -> dict:
    """Fixed before any seed was run, but for pilots."""
    everything = at("stages/distil/student", drop_before=())
    for term in ("features", "relations"):
        everything |= at(f"stages/distil/objective/{term}", kept=None)
    # What a step of the student costs without its teachers.
    alone = {"recipe": ("distil",), "stages/distil/steps": 2, "stages/distil/evaluate/looks": None}
    alone |= at("stages/distil", targets=None, objective=LABELS)
    alone |= at("stages/distil/optimizer/learning_rate", warmup=0)
    gap, work = "distil/test/attention_gap", "distil/step_flops"
    seeds = {"origin": "less than single seeds differ by"}
    within, fifth = "it loses at most a point against features alone", "dropping saves a fifth"
    half = "dropping loses at most half a point"
    return {
        "sentence": "Features of one teacher and relations of another give the good of both.",
        "metric": "distil/test/probe_accuracy",
        "held_equal": ("net, steps, batches and optimizer of the student; both teachers",),
        "arms": {
            "hybrid": {},
            "features": {"stages/distil/objective/relations": None},
            "relations": {"stages/distil/objective/features": None},
            "all tokens": everything,
            "work": alone,
            "work, all tokens": {**alone, "stages/distil/student/drop_before": ()},
        },
        "contrasts": {
            "relations": above("hybrid", "relations", "hybrid beats relations alone"),
            "features": above("hybrid", "features", within, -0.01, **seeds),
            "gap": above("features", "hybrid", "it looks as far as the masked teacher", metric=gap),
            "tokens": above("hybrid", "all tokens", half, -0.005, **seeds),
            "work": {
                "sentence": fifth,
                "coefficients": {"work, all tokens": 0.8, "work": -1},
                "metric": work,
            },
        },
    }


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__)
