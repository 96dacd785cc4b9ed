"""Distilling a regularised net on MNIST, and what soft targets teach about digits that the student
never saw.

Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015, section 3: a teacher of
two layers of 1200 with dropout and shifted images makes 67 test errors, a student of two layers of
800 alone 146, and distilled at a temperature of 20, from images that are not shifted, 74. Distilled
without any three it makes 206, and 109 once the bias of the threes is corrected; from sevens and
eights alone 47.3 % errors, and 13.2 % after the correction.

The whole of MNIST; a quarter of an hour of one core for the teacher, five minutes for a student:

    python -m jaxdistill.main --config=configs/hinton_mnist.py --workdir=runs/hinton
        --config.data.dir=<MNIST>
    python -m jaxdistill.claim --config=configs/hinton_mnist.py --seeds=5 --workdir=runs/claim
        --config.data.dir=<MNIST>

All seeds share a teacher with ``--config.stages.teacher.checkpoint=<folder of its stage>``. Digits:

    python -m jaxdistill.main --config=configs/hinton_mnist.py:small --workdir=runs/hinton_small

Unlike the paper's, a tenth of the training images is for validation: biases are chosen on it.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import chosen, recipe
from jaxdistill.presets.claims import above, within
from jaxdistill.presets.images import LABELS, accuracy, classifier
from jaxdistill.presets.optimizers import sgd, warmup_cosine

# On MNIST, for every arm: which errors, how many at most, and how many the paper has.
GATES = {
    "teacher": ("errors", 90, 67),
    "distilled": ("errors", 98, 74),
    "without_threes": ("bias_class_errors", 25, 14),
    "sevens_and_eights": ("bias_errors", 2000, 1320),
}


def mnist() -> dict:
    data = {"name": "mnist", "dir": "", "validation": 0.1, "test": 0.0}
    # Students see plain images, so that the teacher runs over them once.
    cached = {"views": 1, "container": "npy"}
    return soft_targets(data, 1200, 800, 2, 128, 100 * 422, 60 * 422, cached, GATES)


def small() -> dict:
    data = {"name": "digits", "dir": "", "validation": 0.15, "test": 0.2}
    return soft_targets(data, 256, 64, 1, 64, 1500, 600, None, {})


def soft_targets(
    data: dict,
    teacher: int,
    student: int,
    pixels: int,
    batch: int,
    teacher_steps: int,
    student_steps: int,
    cached: dict | None,
    gates: dict,
) -> dict:
    """Nets of two layers of so many units; the teacher's images are shifted by so many pixels."""
    measured = accuracy(every=student_steps // 4)
    net = {"net": "mlp", "widths": (student, student)}
    kept = {"checkpoint_every": student_steps // 4, "pictures": ("reliability",)}
    evaluate = {"accuracy": measured}
    # A rate of 1e-3 after a hundred steps of warming up.
    alone = classifier(net, student_steps, 1e-3, 100, batch, evaluate=evaluate, **kept)
    regularised = {"dropout": 0.5, "input_dropout": 0.2}
    distilled = {
        **alone,
        "targets": {"kind": "live", "stage": "teacher", "cached": cached},
        "objective": {
            "soft": {"loss": "hinton_kd", "temperature": 20.0, "weight": 0.9},
            "labels": {**LABELS["labels"], "weight": 0.1},
        },
    }

    def transferred(records: dict, classes: tuple[int, ...]) -> dict:
        bias = {"evaluator": "class_bias", "classes": classes, "sets": ("test",), "teacher": False}
        evaluate = {"accuracy": measured, "bias": bias}
        return {**distilled, "records": records, "evaluate": evaluate, "pictures": ()}

    eights = transferred({"only": (7, 8)}, (7, 8))
    return recipe(
        title="Soft targets on MNIST",
        sentence="What a small net learns from the soft targets of a large one.",
        data=data,
        stages={
            "teacher": {
                **alone,
                "student": {"net": "mlp", "widths": (teacher, teacher), **regularised},
                "view": {"augment": ({"name": "shift", "pixels": pixels},)},
                "optimizer": sgd(warmup_cosine(0.1, 400), 0.9, max_norm=3.0),
                "steps": teacher_steps,
                "checkpoint": "",
                "checkpoint_every": teacher_steps // 4,
                "pictures": (),
            },
            "alone": alone,
            "distilled": distilled,
            "without_threes": transferred({"exclude": (3,)}, (3,)),
            # A fifth of the images, in as many epochs.
            "sevens_and_eights": {**eights, "steps": student_steps // 5},
        },
        claim=claim(gates),
        tune=tune(),
    )


def claim(gates: dict) -> dict:
    """What the paper reports, with nine tenths of its images to train on."""
    taught = ("distilled", "without_threes", "sevens_and_eights")
    arms = {"teacher": ("teacher",), "alone": ("alone",)} | {n: ("teacher", n) for n in taught}
    contrasts = {"fewer": above("alone", "distilled", "distilled makes fewer errors than alone")}
    for arm, (name, most, published) in gates.items():
        origin = f"the paper, with all 60,000 images, has {published}"
        said, metric = f"{arm}: at most {most} {name}", f"last/test/{name}"
        contrasts[arm] = within(arm, most, said, metric=metric, origin=origin)
    if gates:
        said = "distilled makes at most 0.65 of the errors of the same net alone"
        contrasts["share"] = {"sentence": said, "coefficients": {"alone": 0.65, "distilled": -1}}
    return {
        "sentence": "Soft targets carry over what the teacher knows, even of unseen digits.",
        "metric": "last/test/errors",
        "held_equal": ("net, steps, batch size, optimizer and learning rate of the student",),
        "arms": {name: {"recipe": stages} for name, stages in arms.items()},
        "contrasts": contrasts,
    }


def tune() -> dict:
    """Temperatures of the soft targets, on validation images."""
    path = "stages/distilled/objective/soft/temperature"
    grid = {"distilled": {f"temperature {t:g}": {path: t} for t in (4.0, 8.0, 20.0)}}
    return {"metric": "last/validation/errors", "lower": True, "seeds": 1, "grid": grid}


VARIANTS = {"": mnist, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The whole of MNIST, or with ``small`` scikit-learn's digits."""
    return chosen(VARIANTS, variant, __file__)
