"""Self-distillation of deep nets under label noise, its weight of the ground truth estimated from
one extra training.

Borup and Andersen, Even your Teacher Needs Guidance, NeurIPS 2021: at every step the loss is

    a |softmax(s) - one_hot(y)|^2 + (1 - a) |softmax(s) - softmax(t)|^2

with the student of the step before as teacher. Two nets tell the best `a`: one trained on labels
alone, the first, and one trained on the teacher alone. Where nets are linear in their parameters
the formula is exact; here it is an estimate, for 3 trainings in place of 11.

CIFAR-10, ResNet-18, five generations with a fixed weight of 0.6, as the official code runs it (75
epochs, batches of 16, Adam at 1e-4). Two differences: selection there is by the test set, here by
none; the sum of the norms of its parameters (1e-4) is left out:

    python -m jaxdistill.main --config=configs/self_distill_deep.py --workdir=runs/generations
        --config.data.dir=<folder of tensorflow_datasets>

Digits of which 30 % bear a wrong label, in training and validation; seconds, and about 10 minutes:

    python -m jaxdistill.main --config=configs/self_distill_deep.py:small --workdir=runs/deep
    python -m jaxdistill.claim --config=configs/self_distill_deep.py:small --seeds=5
        --workdir=runs/deep_claim

The same on Fashion-MNIST:

    --config.data.name=fashion_mnist --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

TENTHS = tuple(range(11))


def get_config(size: str = "") -> ConfigDict:
    """The published generations, or with ``small`` the estimate on digits."""
    if size not in ("", "small"):
        raise ValueError(f"configs/self_distill_deep.py knows no size {size!r}, only :small")
    return ConfigDict(small() if size else published())


def objective(labels: float | None, teacher: float | None) -> dict:
    """The two squared distances with their weights; None leaves one out."""
    entries = {
        "labels": {"loss": "brier_score", "target": "batch/label", "weight": labels},
        "teacher": {"loss": "probability_distance", "weight": teacher},
    }
    return {name: entry for name, entry in entries.items() if entry["weight"] is not None}


def published() -> dict:
    epoch, generations, weight = 2812, 5, 0.6
    view = {"augment": ({"name": "random_crop", "padding": 4}, {"name": "flip"})}
    common = {
        "student": {"net": "imagenet_resnet", "depth": 18},
        "optimizer": {"name": "adamw", "learning_rate": 1e-4},
        "view": view,
        "batch_size": 16,
        "steps": 75 * epoch,
        "evaluate": {
            "accuracy": {
                "evaluator": "classification",
                "sets": ("validation", "test"),
                "every": 5 * epoch,
            }
        },
        "checkpoint_every": epoch,
    }
    stages = {"generation_1": {**common, "objective": objective(1.0, None)}}
    for number in range(2, generations + 1):
        stages[f"generation_{number}"] = {
            **common,
            "targets": {"kind": "live", "stage": f"generation_{number - 1}"},
            "objective": objective(weight, 1 - weight),
            # Every generation starts anew.
            "seed": number - 1,
        }
    return {
        "title": "Generations of ResNet-18 on CIFAR-10",
        "sentence": "Each net learns from labels and from the one before.",
        "seed": 0,
        "data": {"name": "tfds", "dataset": "cifar10", "dir": "", "validation": 0.1},
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": tuple(stages),
        "stages": stages,
    }


def small() -> dict:
    common = {
        "student": {"net": "mlp", "widths": (128, 128)},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "batch_size": 64,
        # Long enough to learn wrong labels by heart, which is what there is to mend.
        "steps": 3000,
        "log_every": 100,
        "evaluate": {
            "accuracy": {"evaluator": "classification", "sets": ("validation", "test")},
        },
    }
    taught = {**common, "targets": {"kind": "live", "stage": "first"}}
    guided = "stages/guided"
    grid = {
        f"tenths {tenths}": {
            "recipe": ("first", "guided"),
            f"{guided}/guidance": None,
            f"{guided}/objective/labels/weight": tenths / 10,
            f"{guided}/objective/teacher/weight": 1 - tenths / 10,
        }
        for tenths in TENTHS
    }
    return {
        "title": "The weight of the ground truth from one extra training",
        "sentence": "A net that learns from its own first training under label noise.",
        "seed": 0,
        "data": {"name": "digits", "dir": "", "validation": 0.2, "test": 0.2, "wrong": 0.3},
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("first", "alone", "guided"),
        "stages": {
            "first": {**common, "objective": objective(1.0, None)},
            "alone": {**taught, "objective": objective(None, 1.0)},
            "guided": {
                **taught,
                # Each weight is multiplied by its share. All three stages start alike.
                "objective": objective(1.0, 1.0),
                "guidance": {
                    "first": "first",
                    "alone": "alone",
                    "labels": "labels",
                    "teacher": "teacher",
                },
                "pictures": ("reliability",),
            },
        },
        "variants": {
            "fashion_mnist": {
                "data/test": 0.0,
                **{
                    f"stages/{stage}/{key}": value
                    for stage in ("first", "alone", "guided")
                    for key, value in (("batch_size", 128), ("records", {"labelled": 5000}))
                },
            }
        },
        "claim": {
            "sentence": "The estimated weight is as good as the best of a grid, for 3 trainings "
            "in place of 11.",
            "metric": "guided/validation/brier",
            "held_equal": (
                "net, start, order of the data, steps, batch size, optimizer, rate; the same wrong "
                "labels, and validation labels are as wrong as those of training",
            ),
            "arms": {"estimated": {}, **grid},
            "contrasts": {
                "grid": {
                    "sentence": "within one standard error of the best of eleven weights",
                    "chosen": "estimated",
                    "grid": tuple(f"tenths {tenths}" for tenths in TENTHS),
                },
                "labels alone": {
                    "sentence": "the true test labels are met better than from noisy labels alone",
                    "metric": "guided/test/accuracy",
                    "coefficients": {"estimated": 1, "tenths 10": -1},
                },
            },
        },
    }
