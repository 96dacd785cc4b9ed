"""DMAE: a ViT-B learns from a masked autoencoder of ViT-L, features and pixels at once, then is
fine-tuned.

Bai et al., Masked Autoencoders Enable Efficient Knowledge Distillers, CVPR 2023: 84.0 % on ImageNet
after 100 epochs of distillation, with a teacher pre-trained for 1600.

ImageNet from tfds, on a pod:

    python -m jaxdistill.main --config=configs/mae_vitb.py --workdir=runs/dmae

Digits, minutes on a laptop:

    python -m jaxdistill.main --config=configs/mae_vitb.py:small --workdir=runs/mae
    python -m jaxdistill.claim --config=configs/mae_vitb.py:small --seeds=5 --workdir=runs/mae_claim

The small one runs on Fashion-MNIST too:

    --config.data.name=fashion_mnist --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, masked_images, recipe
from jaxdistill.presets.claims import above, rates
from jaxdistill.presets.images import LABELS, accuracy, random_crop
from jaxdistill.presets.masked_images import PIXELS, autoencoder, features, pretraining
from jaxdistill.presets.optimizers import adamw

PEAK = "stages/distil/optimizer/learning_rate/peak"
# The changes that take the teacher away.
SEEDS = {"origin": "less than single seeds differ by"}
ALONE = {"recipe": ("distil",), "stages/distil/targets": None}
ALONE |= {"stages/distil/objective/features": None}


def taught(student: str, teacher: str, weight: float) -> dict:
    """Pixels, and the features of the teacher before its final norm."""
    terms = {"pixels": PIXELS, "features": features(student, teacher, weight)}
    return {"targets": {"kind": "live", "stage": "teacher"}, "objective": terms}


def published() -> dict:
    # 1,281,167 images less the hundredth of them kept for validation, in batches of 4096 and of
    # 1024.
    epoch, finetune_epoch = 309, 1238
    decoder, peak, crop = (512, 8, 16), 1.5e-4 * 16, random_crop(scale=(0.2, 1.0))
    large = autoencoder(16, 1024, 24, 16, decoder, dtype="bfloat16")
    base = autoencoder(16, 768, 12, 12, decoder, dtype="bfloat16")
    match = taught("encoder/block_8", "encoder/block_17", 1.0)
    common = {"batch_size": 4096, "log_every": 50, "checkpoint_every": 1000}
    # The folder of a finished teacher stage: then it is not trained again.
    given = {"checkpoint": ""}
    return recipe(
        title="DMAE, ViT-L to ViT-B",
        sentence="A ViT-B learns the features of a masked ViT-L at 3/4 of their depth.",
        data={"name": "imagenet2012", "dir": "", "image_size": 256, "validation": 0.01},
        stages={
            "teacher": pretraining(large, crop, peak, 40 * epoch, 1600 * epoch, **given, **common),
            "distil": pretraining(base, crop, peak, 20 * epoch, 100 * epoch, **match, **common),
            "finetune": masked_images.imagenet_fine_tuning(base, "distil", finetune_epoch),
        },
    )


def small() -> dict:
    teacher = autoencoder(2, 64, 4, 4, decoder=(32, 2, 4))
    student = autoencoder(2, 32, 3, 4, decoder=(32, 2, 4))
    probe = {"evaluator": "linear_probe", "labelled": 100, "read": "out/tokens"}
    probe |= {"sets": ("validation", "test")}
    # Weight and rate are the best of six settings on validation data (docs/masked_images.md); the
    # paper's weight is 1.
    match, peak = taught("encoder/block_1", "encoder/block_2", 30.0), 1e-2
    return recipe(
        title="DMAE in small",
        sentence="A masked autoencoder distilled into a smaller one, then fine-tuned.",
        data={"name": "digits", "dir": "", "validation": 0.1, "test": 0.2},
        stages={
            "teacher": {
                **pretraining(teacher, (), 3e-3, 60, 1000, checkpoint_every=500),
                "evaluate": {"probe": probe},
            },
            "distil": {
                **pretraining(student, (), peak, 60, 600, **match, checkpoint_every=200),
                "evaluate": {"probe": {**probe, "every": 200, "teacher": True}},
            },
            "finetune": {
                "student": masked_images.encoder(student),
                "initial": {"stage": "distil", "parts": {"encoder": "encoder"}},
                "objective": LABELS,
                "optimizer": adamw(1e-3, 20, b2=0.95, weight_decay=0.05),
                "batch_size": 40,
                "steps": 200,
                "records": {"labelled": 100},
                "evaluate": {"accuracy": accuracy(every=50)},
                "checkpoint_every": 100,
                "pictures": ("reliability",),
            },
        },
        variants={"fashion_mnist": fashion_mnist()},
        claim=claim(),
        tune=tune(),
    )


def tune() -> dict:
    """Six settings for each arm."""
    weight, weights = "stages/distil/objective/features/weight", (1.0, 10.0, 30.0, 100.0)
    distilled = {f"weight {value:g}": {weight: value, PEAK: 3e-3} for value in weights}
    distilled |= rates("distil", (1e-3, 1e-2))
    alone = rates("distil", (3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2))
    grid = {"distilled": distilled, "alone": alone}
    return {"metric": "distil/validation/probe_accuracy", "seeds": 2, "grid": grid}


def claim() -> dict:
    """Fixed before any seed was run: metric, arms, what they share, what is asked of them."""
    alone = {**ALONE, PEAK: 5e-3}
    random = "a random teacher does not help by more than a point"
    return {
        "sentence": "A distilled masked autoencoder has better features than one trained alone.",
        "metric": "distil/test/probe_accuracy",
        "held_equal": (
            "net, steps, batches, masks and optimizer of the student",
            "for distilled and for alone the best of six settings on validation data",
            "the 100 labels of the probe, the same for all arms of a seed",
        ),
        # Arms are measured at the end alone; the teacher is measured in its own stage.
        "common": {
            "recipe": ("teacher", "distil"),
            **at("stages/distil/evaluate/probe", every=0, teacher=False),
        },
        "arms": {
            "distilled": {},
            "alone": alone,
            # For the table: whether the student alone catches up in three times the steps.
            "alone longer": {**alone, "stages/distil/steps": 1800},
            "random teacher": {"stages/teacher/steps": 0},
            "masked apart": {"stages/distil/view/mask/shared": False},
        },
        "contrasts": {
            "distilled": above("distilled", "alone", "distilled beats alone"),
            "random teacher": above("alone", "random teacher", random, -0.01, **SEEDS),
            "masked apart": {
                "sentence": "masked apart, teacher and student lose more than half of the gain",
                "coefficients": {"distilled": 1, "masked apart": -2, "alone": 1},
            },
        },
    }


def fashion_mnist() -> dict:
    """What the small run becomes on Fashion-MNIST. A mask of 80 % leaves 10 patches of 49."""
    eighty, longer = {"stages/distil/view/mask/ratio": 0.8}, {"stages/distil/steps": 900}
    arms = {"alone": ALONE, "alone longer": {**ALONE, **longer}}
    arms |= {"eighty": eighty, "eighty alone": {**ALONE, **eighty}}
    beats = "distilled beats alone at 80 % masking"
    against = "at 80 % masking the student loses at most two points against 75 %"
    work = "a step at 80 % masking has fewer floating point operations"
    found = {
        "data/test": 0.0,
        "stages/teacher/steps": 1200,
        **at("stages/teacher/student", width=96, depth=6),
        "stages/distil/steps": 300,
        "stages/distil/objective/features/target": "encoder/block_4",
        "stages/distil/evaluate/probe/every": 100,
        # One rate for all arms, untuned.
        PEAK: 3e-3,
        "claim/held_equal": (
            "net, steps, batches, masks, optimizer and learning rate of the student",
            "the labels of the ten probes, of 1,000 labels each, the same for all arms of a seed",
        ),
        **{f"claim/arms/{name}": arm for name, arm in arms.items()},
        "claim/contrasts/eighty": above("eighty", "eighty alone", beats),
        "claim/contrasts/eighty against 75": above("eighty", "distilled", against, -0.02, **SEEDS),
        "claim/contrasts/work": above("distilled", "eighty", work, metric="distil/step_flops"),
    }
    for stage in ("distil", "finetune"):
        found |= at(f"stages/{stage}/student", width=48)
    for stage in ("teacher", "distil", "finetune"):
        found |= at(f"stages/{stage}/student", patch=4)
    for stage in ("teacher", "distil"):
        found |= at(f"stages/{stage}/view/mask", patch=4)
        found |= at(f"stages/{stage}/evaluate/probe", labelled=10_000, parts=10)
    return found


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__)
