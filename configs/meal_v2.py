"""MEAL V2: a trained student goes on from an ensemble's soft labels alone, with a discriminator
that it helps, and without hard labels or weight decay.

Shen and Savvides, MEAL V2, 2020: ResNet-50 reaches 80.67 % on ImageNet at 224 pixels, from
SENet-154 and ResNet-152; ResNet-18 rises from 69.76 to 73.19.

ImageNet from tfds, teachers from finished stages (here ResNet-152 and ResNet-101, of one library;
their folders go into stages.<name>.checkpoint); about 180 epochs of ResNet-50:

    python -m jaxdistill.main --config=configs/meal_v2.py --workdir=runs/meal

Digits, three teachers, their outputs cached with four shifted views a record; minutes:

    python -m jaxdistill.main --config=configs/meal_v2.py:small --workdir=runs/meal_small
    python -m jaxdistill.claim --config=configs/meal_v2.py:small --seeds=5 --workdir=runs/meal_claim

The small one runs on MNIST and Fashion-MNIST too:

    --config.data.name=fashion_mnist --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

IMAGENET = {"name": "normalise", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
LABELS = {"labels": {"loss": "cross_entropy", "target": "batch/label"}}


def get_config(size: str = "") -> ConfigDict:
    """The published run, or with ``small`` one of minutes."""
    if size not in ("", "small"):
        raise ValueError(f"configs/meal_v2.py knows no size {size!r}, only :small")
    return ConfigDict(small() if size else published())


def ensemble(*teachers: str) -> dict:
    """Mean probabilities for the soft labels, mean logits for the discriminator."""
    members = {name: {"kind": "live", "stage": name} for name in teachers}
    return {
        "kind": "merge",
        "members": {
            "soft": {"kind": "ensemble", "members": members, "average": "probabilities"},
            "raw": {"kind": "ensemble", "members": members, "average": "logits"},
        },
    }


def objective() -> dict:
    """Both of weight 1, at temperature 1."""
    return {
        "soft": {"loss": "hinton_kd", "temperature": 1.0, "target": "soft/out"},
        "discriminator": {"loss": "cooperative_discriminator", "target": "raw/out"},
    }


def published() -> dict:
    epoch = 2477  # 1,281,167 images less a hundredth for validation, in batches of 512
    crop = ({"name": "random_resized_crop", "size": 224}, {"name": "flip"}, IMAGENET)
    seen = {"augment": ({"name": "resize", "size": 224}, IMAGENET), "batch_size": 512}
    accuracy = {
        "evaluator": "classification",
        "sets": ("validation", "test"),
        "every": 5 * epoch,
        "top": (1, 5),
        **seen,
    }

    def trained(depth: int, epochs: int) -> dict:
        return {
            "student": {"net": "imagenet_resnet", "depth": depth, "dtype": "bfloat16"},
            "view": {"augment": crop},
            "objective": LABELS,
            "optimizer": {
                "name": "sgd",
                "momentum": 0.9,
                "nesterov": True,
                "weight_decay": 1e-4,
                "learning_rate": {"schedule": "warmup_cosine", "peak": 0.2, "warmup": 5 * epoch},
            },
            "batch_size": 512,
            "steps": epochs * epoch,
            "evaluate": {"accuracy": accuracy},
            "checkpoint_every": epoch,
            "checkpoint": "",
        }

    return {
        "title": "MEAL V2, ResNet-50",
        "sentence": "A trained ResNet-50 goes on from two teachers' soft labels.",
        "seed": 0,
        "data": {"name": "imagenet2012", "dir": "", "image_size": 256, "validation": 0.01},
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("resnet152", "resnet101", "start", "distil"),
        "stages": {
            "resnet152": trained(152, 100),
            "resnet101": trained(101, 100),
            "start": trained(50, 100),
            "distil": {
                **trained(50, 180),
                "initial": {"stage": "start"},
                "targets": ensemble("resnet152", "resnet101"),
                "objective": objective(),
                "optimizer": {
                    "name": "sgd",
                    "momentum": 0.9,
                    "learning_rate": {
                        "schedule": "step_decay",
                        "peak": 0.01,
                        "milestones": (100 * epoch,),
                    },
                },
                "pictures": ("reliability",),
            },
        },
    }


def small() -> dict:
    accuracy = {"evaluator": "classification", "sets": ("validation", "test")}
    view = {"augment": ({"name": "shift", "pixels": 1},)}

    def adamw(peak: float) -> dict:
        return {
            "name": "adamw",
            "learning_rate": {"schedule": "warmup_cosine", "peak": peak, "warmup": 50},
        }

    def trained(student: dict, steps: int) -> dict:
        return {
            "student": student,
            "view": view,
            "objective": LABELS,
            "optimizer": adamw(3e-3),
            "batch_size": 64,
            "steps": steps,
            "evaluate": {"accuracy": accuracy},
        }

    student = {"net": "mlp", "widths": (32,)}
    distil = "stages/distil"
    return {
        "title": "MEAL V2 in small",
        "sentence": "A trained student goes on from three teachers' cached soft labels.",
        "seed": 0,
        "data": {"name": "digits", "dir": "", "validation": 0.15, "test": 0.2},
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("wide", "deep", "residual", "start", "distil"),
        "stages": {
            "wide": trained({"net": "mlp", "widths": (512, 512), "dropout": 0.3}, 800),
            "deep": trained({"net": "mlp", "widths": (256, 256, 256), "dropout": 0.2}, 800),
            "residual": trained({"net": "cifar_resnet", "depth": 8}, 400),
            "start": trained(student, 300),
            "distil": {
                **trained(student, 1000),
                "initial": {"stage": "start"},
                "targets": {
                    **ensemble("wide", "deep", "residual"),
                    "cached": {"views": 4, "outputs": {"out": {"codec": "dense"}}},
                },
                "objective": objective(),
                # The best of four, on validation data; for hard labels another is, see below.
                "optimizer": adamw(1e-1),
                "pictures": ("reliability",),
            },
        },
        "variants": {"mnist": images(1e-2, 1e-2), "fashion_mnist": images(3e-2, 1e-2)},
        "claim": {
            "sentence": "Soft labels of an ensemble take a trained student further than labels do.",
            "metric": "distil/test/accuracy",
            "held_equal": (
                "the trained student that all arms go on from, their steps, batches and views",
                "for soft and for hard labels the best of four rates on validation data",
            ),
            "arms": {
                "ensemble": {},
                "labels": labels_alone(4, 3e-2),
                "one teacher": {
                    "recipe": ("wide", "start", "distil"),
                    f"{distil}/targets/members": ensemble("wide")["members"],
                },
                "no discriminator": {f"{distil}/objective/discriminator": None},
                "five classes": {
                    f"{distil}/targets/cached/outputs/out": {
                        "codec": "top_k",
                        "k": 5,
                        "missing": "uniform",
                    }
                },
            },
            "contrasts": {
                "labels": {
                    "sentence": "the ensemble's soft labels beat hard labels",
                    "coefficients": {"ensemble": 1, "labels": -1},
                },
                "one teacher": {
                    "sentence": "three teachers are at most half a point below one",
                    "coefficients": {"ensemble": 1, "one teacher": -1},
                    "margin": -0.005,
                },
                "discriminator helps little": {
                    "sentence": "without the discriminator at most a point is lost",
                    "coefficients": {"no discriminator": 1, "ensemble": -1},
                    "margin": -0.01,
                },
                "discriminator harms little": {
                    "sentence": "with the discriminator at most a point is lost",
                    "coefficients": {"ensemble": 1, "no discriminator": -1},
                    "margin": -0.01,
                },
                "five classes": {
                    "sentence": "five classes of ten stored lose at most half a point",
                    "coefficients": {"five classes": 1, "ensemble": -1},
                    "margin": -0.005,
                },
            },
        },
        "tune": {
            "metric": "distil/validation/accuracy",
            "seeds": 2,
            "grid": {
                arm: {
                    f"rate {rate:.0e}": {f"{distil}/optimizer/learning_rate/peak": rate}
                    for rate in (3e-3, 1e-2, 3e-2, 1e-1)
                }
                for arm in ("ensemble", "labels")
            },
        },
    }


def labels_alone(views: int, rate: float) -> dict:
    """The same student going on with hard labels, on the views that the cache holds, at the best of
    the same four rates for this arm."""
    return {
        "recipe": ("start", "distil"),
        "stages/distil/targets": None,
        "stages/distil/objective": LABELS,
        "stages/distil/records": {"views": views},
        "stages/distil/optimizer/learning_rate/peak": rate,
    }


def images(soft: float, hard: float) -> dict:
    """What the small run becomes on MNIST and Fashion-MNIST, with the best of the same four rates
    for soft and for hard labels there."""
    found = {"data/test": 0.0}
    for stage, steps in {"wide": 3000, "deep": 3000, "residual": 800, "start": 600}.items():
        found[f"stages/{stage}/steps"] = steps
    for stage in ("wide", "deep", "residual", "start", "distil"):
        found[f"stages/{stage}/batch_size"] = 128
    return {
        **found,
        "stages/distil/steps": 3000,
        "stages/distil/targets/cached/views": 1,
        "stages/distil/targets/cached/container": "npy",
        "stages/distil/optimizer/learning_rate/peak": soft,
        "claim/arms/labels": labels_alone(1, hard),
    }
