"""Self-distillation of deep nets under label noise, its weight of the ground truth estimated from
one extra training.

Borup and Andersen, Even your Teacher Needs Guidance, NeurIPS 2021: at every step the loss is

    a |softmax(s) - one_hot(y)|^2 + (1 - a) |softmax(s) - softmax(t)|^2

with the student of the step before as teacher. Two nets tell the best `a`: one trained on labels
alone, the first, and one trained on the teacher alone. Where nets are linear in their parameters
the formula is exact; here it is an estimate, for 3 trainings instead of 11.

CIFAR-10, ResNet-18, five generations with a fixed weight of 0.6, as the official code runs it (75
epochs, batches of 16, Adam at 1e-4). Two differences: selection there is by the test set, here by
none; the sum of the norms of its parameters (1e-4) is left out:

    python -m jaxdistill.main --config=configs/self_distill_deep.py --workdir=runs/generations
        --config.data.dir=<folder of tensorflow_datasets>

Digits of which 30 % have a wrong label, in training and validation; seconds, and about 10 minutes:

    python -m jaxdistill.main --config=configs/self_distill_deep.py:small --workdir=runs/deep
    python -m jaxdistill.claim --config=configs/self_distill_deep.py:small --seeds=5
        --workdir=runs/deep_claim

The same on Fashion-MNIST:

    --config.data.name=fashion_mnist --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, recipe
from jaxdistill.presets.claims import above
from jaxdistill.presets.images import accuracy


def objective(labels: float | None, teacher: float | None) -> dict:
    """The two squared distances with their weights; None leaves one out."""
    entries = {
        "labels": {"loss": "brier_score", "target": "batch/label", "weight": labels},
        "teacher": {"loss": "probability_distance", "weight": teacher},
    }
    return {name: entry for name, entry in entries.items() if entry["weight"] is not None}


def published() -> dict:
    epoch, generations, weight = 2812, 5, 0.6
    common = {
        "student": {"net": "imagenet_resnet", "depth": 18},
        "optimizer": {"name": "adamw", "learning_rate": 1e-4},
        "view": {"augment": ({"name": "random_crop", "padding": 4}, {"name": "flip"})},
        "batch_size": 16,
        "steps": 75 * epoch,
        "evaluate": {"accuracy": accuracy(every=5 * epoch)},
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
    return recipe(
        title="Generations of ResNet-18 on CIFAR-10",
        sentence="Each net learns from labels and from the one before.",
        data={"name": "tfds", "dataset": "cifar10", "dir": "", "validation": 0.1},
        stages=stages,
    )


def small() -> dict:
    common = {
        "student": {"net": "mlp", "widths": (128, 128)},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "batch_size": 64,
        # Long enough to learn wrong labels by heart, which is what there is to mend.
        "steps": 3000,
        "log_every": 100,
        "evaluate": {"accuracy": accuracy()},
    }
    taught = {**common, "targets": {"kind": "live", "stage": "first"}}
    # Each weight is multiplied by its share. All three stages start alike.
    guided = {**taught, "objective": objective(1.0, 1.0), "weights": "weigh"}
    return recipe(
        title="The weight of the ground truth from one extra training",
        sentence="A net that learns from its own first training under label noise.",
        data={"name": "digits", "dir": "", "validation": 0.2, "test": 0.2, "wrong": 0.3},
        stages={
            "first": {**common, "objective": objective(1.0, None)},
            "alone": {**taught, "objective": objective(None, 1.0)},
            "weigh": {"work": {"name": "guided_weights", "first": "first", "alone": "alone"}},
            "guided": {**guided, "pictures": ("reliability",)},
        },
        variants={"fashion_mnist": fashion_mnist()},
        claim=claim(),
    )


def fixed(tenths: int) -> dict:
    """The arm that guides with a weight of the grid instead of the estimated one."""
    path = "stages/guided"
    return {
        "recipe": ("first", "guided"),
        **at(path, weights=None),
        **at(f"{path}/objective/labels", weight=tenths / 10),
        **at(f"{path}/objective/teacher", weight=1 - tenths / 10),
    }


def claim() -> dict:
    grid = {f"tenths {tenths}": fixed(tenths) for tenths in range(11)}
    true_labels = "the true test labels are met better than from noisy labels alone"
    return {
        "sentence": "The estimated weight is as good as the best of a grid, for 3 trainings "
        "instead of 11.",
        "metric": "guided/validation/brier",
        "held_equal": (
            "net, start, order of the data, steps, batch size, optimizer, rate; the same wrong "
            "labels, and validation labels are as wrong as those of training",
        ),
        "arms": {"estimated": {}, **grid},
        "contrasts": {
            "grid": {
                "sentence": "behind the best of eleven weights by at most a tenth of their range",
                "chosen": "estimated",
                "grid": tuple(grid),
            },
            "labels alone": above(
                "estimated", "tenths 10", true_labels, metric="guided/test/accuracy"
            ),
        },
    }


def fashion_mnist() -> dict:
    found = {"data/test": 0.0}
    for stage in ("first", "alone", "guided"):
        found |= at(f"stages/{stage}", batch_size=128, records={"labelled": 5000})
    return found


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published generations, or with ``small`` the estimate on digits."""
    return chosen(VARIANTS, variant, __file__)
