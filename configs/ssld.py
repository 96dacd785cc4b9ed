"""SSLD: a student learns from a strong teacher without labels, on its own records and on those of
an unlabelled pool of which the teacher is most sure.

Cui et al., Beyond Self-Supervision, 2021: MobileNetV3-large rises from 75.2 to 79.0 % on ImageNet,
ResNet50-D from 79.1 to 83.0 %. The loss is half of KL both ways (called Jensen-Shannon there);
label smoothing is off; the four million images of a pool that the teacher is surest of are chosen
class by class.

A folder of images as pool and training set, a finished ResNet-152 as teacher:

    python -m jaxdistill.main --config=configs/ssld.py --workdir=runs/ssld
        --config.data.dir=<folder>

Digits, 100 of which count as the student's own, the rest being the pool; minutes:

    python -m jaxdistill.main --config=configs/ssld.py:small --workdir=runs/ssld_small
    python -m jaxdistill.claim --config=configs/ssld.py:small --seeds=5 --workdir=runs/ssld_claim

The small one runs on MNIST and Fashion-MNIST too:

    --config.data.name=mnist --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

IMAGENET = {"name": "normalise", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
LABELS = {"labels": {"loss": "cross_entropy", "target": "batch/label"}}
BOTH_WAYS = {"teacher": {"loss": "symmetric_kl", "weight": 1.0}}


def get_config(size: str = "") -> ConfigDict:
    """The published run, or with ``small`` one of minutes."""
    if size not in ("", "small"):
        raise ValueError(f"configs/ssld.py knows no size {size!r}, only :small")
    return ConfigDict(small() if size else published())


def published() -> dict:
    epoch = 4882  # five million images in batches of 1024
    crop = ({"name": "random_resized_crop", "size": 224}, {"name": "flip"}, IMAGENET)
    seen = {"augment": ({"name": "resize", "size": 224}, IMAGENET), "batch_size": 1024}
    accuracy = {
        "evaluator": "classification",
        "sets": ("validation", "test"),
        "top": (1, 5),
        **seen,
    }

    def sgd(peak: float, warmup: int) -> dict:
        return {
            "name": "sgd",
            "momentum": 0.9,
            "weight_decay": 7e-5,
            "learning_rate": {"schedule": "warmup_cosine", "peak": peak, "warmup": warmup},
        }

    common = {
        "view": {"augment": crop},
        "batch_size": 1024,
        "evaluate": {"accuracy": accuracy},
        "checkpoint_every": epoch,
    }
    return {
        "title": "SSLD, ResNet-50",
        "sentence": "A ResNet-50 learns from a ResNet-152 without any label.",
        "seed": 0,
        "data": {"name": "image_folder", "dir": "", "image_size": 256, "validation": 0.01},
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("teacher", "distil", "finetune"),
        "stages": {
            "teacher": {
                "student": {"net": "imagenet_resnet", "depth": 152, "dtype": "bfloat16"},
                "objective": LABELS,
                "optimizer": sgd(0.4, 5 * epoch),
                "steps": 120 * epoch,
                "checkpoint": "",
                **common,
            },
            "distil": {
                "student": {"net": "imagenet_resnet", "depth": 50, "dtype": "bfloat16"},
                "targets": {"kind": "live", "stage": "teacher"},
                "objective": BOTH_WAYS,
                "optimizer": sgd(0.4, 5 * epoch),
                "steps": 360 * epoch,
                **common,
            },
            # On the labelled set alone, at a hundredth of the rate, with the same loss.
            "finetune": {
                "student": {"net": "imagenet_resnet", "depth": 50, "dtype": "bfloat16"},
                "initial": {"stage": "distil"},
                "targets": {"kind": "live", "stage": "teacher"},
                "objective": BOTH_WAYS,
                "optimizer": sgd(0.004, 0),
                "steps": 60 * epoch // 4,
                "pictures": ("reliability",),
                **common,
            },
        },
    }


def small() -> dict:
    accuracy = {"evaluator": "classification", "sets": ("validation", "test")}
    optimizer = {
        "name": "adamw",
        "learning_rate": {"schedule": "warmup_cosine", "peak": 3e-3, "warmup": 50},
    }
    student = {"net": "mlp", "widths": (64, 64)}
    distil = "stages/distil"
    return {
        "title": "SSLD in small",
        "sentence": "A student learns without labels, on what its teacher is sure of.",
        "seed": 0,
        "data": {"name": "digits", "dir": "", "validation": 0.15, "test": 0.2},
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("teacher", "distil"),
        "stages": {
            "teacher": {
                "student": {"net": "cifar_resnet", "depth": 8},
                "objective": LABELS,
                "optimizer": optimizer,
                "batch_size": 64,
                "steps": 400,
                "evaluate": {"accuracy": accuracy},
            },
            "distil": {
                "student": student,
                "targets": {
                    "kind": "live",
                    "stage": "teacher",
                    "cached": {"views": 1, "outputs": {"out": {"codec": "dense"}}},
                },
                # 100 records of the student's own, and of the rest the surest of each class.
                "records": {"labelled": 100, "selected": 60},
                "objective": BOTH_WAYS,
                "optimizer": optimizer,
                "batch_size": 64,
                "steps": 1000,
                "evaluate": {"accuracy": accuracy},
                "pictures": ("reliability",),
            },
        },
        "variants": {"mnist": images(), "fashion_mnist": images()},
        "claim": {
            "sentence": "An unlabelled pool and a teacher are worth more than labels.",
            "metric": "distil/test/accuracy",
            "held_equal": ("net, steps, batch size, optimizer and learning rate of the student",),
            "arms": {
                "pool": {},
                "own records": {f"{distil}/records/selected": None},
                "labels": {
                    "recipe": ("distil",),
                    f"{distil}/targets": None,
                    f"{distil}/records/selected": None,
                    f"{distil}/objective": LABELS,
                },
                "one way": {
                    f"{distil}/objective/teacher": {"loss": "hinton_kd", "temperature": 1.0}
                },
            },
            "contrasts": {
                "pool": {
                    "sentence": "the pool adds to the student's own records",
                    "coefficients": {"pool": 1, "own records": -1},
                },
                "own records": {
                    "sentence": "on the same records the teacher beats labels",
                    "coefficients": {"own records": 1, "labels": -1},
                },
                "both ways": {
                    "sentence": "KL both ways is at most a point below soft labels",
                    "coefficients": {"pool": 1, "one way": -1},
                    "margin": -0.01,
                },
            },
        },
    }


def images() -> dict:
    """What the small run becomes on MNIST and Fashion-MNIST."""
    return {
        "data/test": 0.0,
        "stages/teacher/steps": 1500,
        "stages/teacher/batch_size": 128,
        "stages/distil/records": {"labelled": 1000, "selected": 2000},
        "stages/distil/student/widths": (128, 128),
        "stages/distil/batch_size": 128,
        "stages/distil/steps": 2000,
        "stages/distil/targets/cached/container": "npy",
    }
