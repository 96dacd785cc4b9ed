"""MEAL V2: a trained student continues with only an ensemble's soft labels, with a discriminator
that it helps, and without hard labels or weight decay.

Shen and Savvides, MEAL V2, 2020: ResNet-50 reaches 80.67 % on ImageNet at 224 pixels, from
SENet-154 and ResNet-152; ResNet-18 rises from 69.76 to 73.19.

ImageNet from tfds, teachers from finished stages (here ResNet-152 and ResNet-101, of one library;
their folders go into stages.<name>.checkpoint); about 180 epochs of ResNet-50:

    python -m jaxdistill.main --config=configs/meal_v2.py --workdir=runs/meal

Digits, three teachers, their outputs cached with four shifted views a record; minutes:

    python -m jaxdistill.main --config=configs/meal_v2.py:small --workdir=runs/meal_small
    python -m jaxdistill.claim --config=configs/meal_v2.py:small --seeds=5 --workdir=runs/meal_claim

On MNIST and Fashion-MNIST: ``--config.data.name=fashion_mnist --config.data.dir=<folder>``.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, recipe
from jaxdistill.presets.claims import above, rates
from jaxdistill.presets.images import LABELS, classifier, imagenet_accuracy, imagenet_resnet
from jaxdistill.presets.optimizers import sgd, warmup_cosine

TEACHERS = ("wide", "deep", "residual")
PEAK = "stages/distil/optimizer/learning_rate/peak"


def ensemble(*teachers: str) -> dict:
    """Mean probabilities for the soft labels, mean logits for the discriminator."""
    members = {name: {"kind": "live", "stage": name} for name in teachers}
    own = {"kind": "ensemble", "members": members}
    both = {"soft": {**own, "average": "probabilities"}, "raw": {**own, "average": "logits"}}
    return {"kind": "merge", "members": both}


def going_on(targets: dict) -> dict:
    """What the last stage does with its targets, both terms of weight 1, at temperature 1."""
    soft = {"loss": "hinton_kd", "temperature": 1.0, "target": "soft/out"}
    discriminator = {"loss": "cooperative_discriminator", "target": "raw/out"}
    return {
        "initial": {"stage": "start"},
        "targets": targets,
        "objective": {"soft": soft, "discriminator": discriminator},
        "pictures": ("reliability",),
    }


def published() -> dict:
    epoch = 2477  # 1,281,167 images less a hundredth for validation, in batches of 512
    decayed = sgd(warmup_cosine(0.2, 5 * epoch), nesterov=True, weight_decay=1e-4)
    lower = sgd({"schedule": "step_decay", "peak": 0.01, "milestones": (100 * epoch,)})
    measured = {"accuracy": imagenet_accuracy(512, every=5 * epoch)}
    common = {"batch_size": 512, "epoch": epoch, "evaluate": measured, "checkpoint": ""}
    taught = going_on(ensemble("resnet152", "resnet101"))
    return recipe(
        title="MEAL V2, ResNet-50",
        sentence="A trained ResNet-50 continues with two teachers' soft labels.",
        data={"name": "imagenet2012", "dir": "", "image_size": 256, "validation": 0.01},
        stages={
            "resnet152": imagenet_resnet(152, decayed, epochs=100, **common),
            "resnet101": imagenet_resnet(101, decayed, epochs=100, **common),
            "start": imagenet_resnet(50, decayed, epochs=100, **common),
            "distil": imagenet_resnet(50, lower, epochs=180, **taught, **common),
        },
    )


def small() -> dict:
    shift = {"augment": ({"name": "shift", "pixels": 1},)}
    wide = {"net": "mlp", "widths": (512, 512), "dropout": 0.3}
    deep = {"net": "mlp", "widths": (256, 256, 256), "dropout": 0.2}
    student = {"net": "mlp", "widths": (32,)}
    cached = {"views": 4, "outputs": {"out": {"codec": "dense"}}}
    taught = going_on({**ensemble(*TEACHERS), "cached": cached})
    best = 1e-1  # of four rates on validation data; for hard labels another is, see the claim
    grid = {arm: rates("distil", (3e-3, 1e-2, 3e-2, 1e-1)) for arm in ("ensemble", "labels")}
    return recipe(
        title="MEAL V2 in small",
        sentence="A trained student continues with three teachers' cached soft labels.",
        data={"name": "digits", "dir": "", "validation": 0.15, "test": 0.2},
        stages={
            "wide": classifier(wide, 800, view=shift),
            "deep": classifier(deep, 800, view=shift),
            "residual": classifier({"net": "cifar_resnet", "depth": 8}, 400, view=shift),
            "start": classifier(student, 300, view=shift),
            "distil": classifier(student, 1000, best, view=shift, **taught),
        },
        variants={"mnist": images(1e-2, 1e-2), "fashion_mnist": images(3e-2, 1e-2)},
        claim=claim(),
        tune={"metric": "distil/validation/accuracy", "seeds": 2, "grid": grid},
    )


def claim() -> dict:
    one = at("stages/distil/targets", members=ensemble("wide")["members"])
    few = {"origin": "less than four records of the test set of digits"}
    three = "three teachers are at most half a point below one"
    stored = "five classes of ten stored lose at most half a point"
    less = "without the discriminator at most a point is lost"
    more = "with the discriminator at most a point is lost"
    five = {"codec": "top_k", "k": 5, "missing": "uniform"}
    return {
        "sentence": "Soft labels of an ensemble take a trained student further than labels do.",
        "metric": "distil/test/accuracy",
        "held_equal": (
            "the trained student that all arms go on from, their steps, batches and views",
            "for soft and for hard labels the best of four rates on validation data",
        ),
        "arms": {
            "ensemble": {},
            "labels": labels_alone(4, 3e-2),
            "one teacher": {"recipe": ("wide", "start", "distil"), **one},
            "no discriminator": at("stages/distil/objective", discriminator=None),
            "five classes": at("stages/distil/targets/cached/outputs", out=five),
        },
        "contrasts": {
            "labels": above("ensemble", "labels", "the ensemble's soft labels beat hard labels"),
            "one teacher": above("ensemble", "one teacher", three, -0.005, **few),
            "discriminator helps little": above("no discriminator", "ensemble", less, -0.01, **few),
            "discriminator harms little": above("ensemble", "no discriminator", more, -0.01, **few),
            "five classes": above("five classes", "ensemble", stored, -0.005, **few),
        },
    }


def labels_alone(views: int, rate: float) -> dict:
    """The same student going on with hard labels, on the views that the cache holds."""
    own = at("stages/distil", targets=None, objective=LABELS, records={"views": views})
    return {"recipe": ("start", "distil"), **own, PEAK: rate}


def images(soft: float, hard: float) -> dict:
    """What the small run becomes on MNIST and Fashion-MNIST, with the best of the same four rates
    for soft and for hard labels there."""
    found = {"data/test": 0.0, PEAK: soft, "claim/arms/labels": labels_alone(1, hard)}
    steps = {"wide": 3000, "deep": 3000, "residual": 800, "start": 600, "distil": 3000}
    for stage, count in steps.items():
        found |= at(f"stages/{stage}", steps=count, batch_size=128)
    return {**found, **at("stages/distil/targets/cached", views=1, container="npy")}


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__)
