"""DistillNearest and DistillWeighted: which of several trained nets, of other tasks, should teach a
student that has a few labels.

Borup et al., Distilling from Similar Tasks for Transfer Learning on a Budget, ICCV 2023: over eight
tasks 5.6 points above transfer from ImageNet. Sources are scored by PARC on the labelled records;
the student has a head for each, dropped at the end, and its loss weighs them by a power of their
scores. The share of the labels (0.8), the power (12) and the temperature (1) are unverified.

Digits: the task is to tell 0 to 4 with 50 labels; the sources have learnt 5 to 9, patches of two
photographs, and 5 to 9 with their labels shuffled; minutes:

    python -m jaxdistill.main --config=configs/distill_weighted.py:small --workdir=runs/weighted
    python -m jaxdistill.claim --config=configs/distill_weighted.py:small --seeds=5
        --workdir=runs/weighted_claim

The small one runs on MNIST, with Fashion-MNIST as the far source, and the other way round
(``--config.data.name=fashion_mnist`` and the folders exchanged):

    --config.data.name=mnist --config.data.dir=<MNIST> --config.stages.near.data.dir=<MNIST>
    --config.stages.far.data.dir=<Fashion-MNIST> --config.stages.shuffled.data.dir=<MNIST>
"""

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, recipe
from jaxdistill.presets.claims import above, reaches
from jaxdistill.presets.images import LABELS, classifier

TASK, OTHERS = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
SOURCES = ("near", "far", "shuffled")
# Of the labels' loss.
SHARE = 0.8
DIGITS = {"name": "digits", "dir": "", "validation": 0.15, "test": 0.25, "only": TASK}


def source(data: dict, **settings) -> dict:
    return classifier({"net": "mlp", "widths": (128, 128)}, steps=600, data=data, **settings)


def head(name: str) -> dict:
    """A linear head of the student for the classes of a source."""
    return {
        "loss": "hinton_kd",
        "temperature": 1.0,
        "student": "hidden_1",
        "target": f"{name}/out",
        "projector": "linear",
        "weight": 1 - SHARE,
    }


def small() -> dict:
    others = {**DIGITS, "only": OTHERS}
    photographs = {"name": "photographs", "dir": "", "size": 8, "grey": True, "test": 0.2}
    labels = {**LABELS["labels"], "where": "batch/has_label", "weight": SHARE}
    sources = {name: name for name in SOURCES}
    distil = classifier(
        {"net": "mlp", "widths": (64, 64)},
        steps=600,
        targets={
            "kind": "merge",
            "members": {name: {"kind": "live", "stage": name} for name in SOURCES},
            "cached": {"views": 1, "outputs": {"out": {"codec": "dense"}}},
        },
        records={"labels": 50},
        weights="weigh",
        objective={"labels": labels, **{name: head(name) for name in SOURCES}},
        pictures=("reliability",),
    )
    weigh = {"name": "transfer_weights", "sources": sources, "power": 12.0, "labelled": 50}
    weigh |= {"read": "hidden_1"}
    return recipe(
        title="DistillWeighted in small",
        sentence="A student with few labels learns from nets of other tasks.",
        data=DIGITS,
        stages={
            "near": source(others),
            "far": source(photographs),
            "shuffled": source(others, records={"shuffled": True}),
            "weigh": {"work": weigh},
            "distil": distil,
        },
        variants={
            "mnist": images("mnist", "fashion_mnist"),
            "fashion_mnist": images("fashion_mnist", "mnist"),
        },
        claim=claim(),
    )


def claim() -> dict:
    power, objective = "stages/weigh/work/power", "stages/distil/objective"
    half_a_point = "weighing is at most half a point below equal weights"
    a_point = "the worst source gives at most a point more than labels alone"
    alone = {"recipe": ("distil",), **at("stages/distil", targets=None, weights=None)}
    alone |= at(objective, **dict.fromkeys(SOURCES)) | at(f"{objective}/labels", weight=1.0)
    return {
        "sentence": "The nearest source teaches best, and its score tells which that is.",
        "metric": "distil/test/accuracy",
        "held_equal": (
            "net, steps, batches, optimizer and labels of the student",
            "the share of the labels' loss, for the student alone 1 instead of 0.8",
        ),
        "arms": {
            "weighted": {},
            "nearest": {power: "nearest"},
            "uniform": {power: 0.0},
            "worst": {**at("stages/distil", weights=None), **at(objective, near=None, far=None)},
            "alone": alone,
        },
        "contrasts": {
            "near over far": scores("near_over_far", "the other digits score above photographs"),
            "far over shuffled": scores(
                "far_over_shuffled", "photographs score above shuffled labels"
            ),
            "nearest": above("nearest", "alone", "the nearest source beats labels alone"),
            "weighted": above("weighted", "uniform", half_a_point, -0.005),
            "worst": above("alone", "worst", a_point, -0.01),
        },
    }


def scores(pair: str, sentence: str) -> dict:
    return reaches("weighted", 0.0, sentence, metric=f"weigh/choice/{pair}")


def mnist() -> dict:
    """MNIST at its own size is what the small run becomes there."""
    data = {"name": "mnist", "dir": "", "validation": 0.1, "test": 0.0, "only": TASK}
    return {**small(), "data": data}


def images(near: str, far: str) -> dict:
    """What the run becomes on one of MNIST and Fashion-MNIST, with the other as the far source."""
    found = {"data/test": 0.0}
    for stage, name in {"near": near, "far": far, "shuffled": near}.items():
        found |= at(f"stages/{stage}/data", name=name, test=0.0)
    # As many records as digits has, so that a batch holds as many labels as there.
    found |= at("stages/distil", records={"labelled": 500, "labels": 50})
    found |= at("stages/distil/targets/cached", container="npy")
    return {**found, **at("stages/far/data", size=None, grey=None)}


VARIANTS = {"": mnist, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The run in small, or without ``small`` the same with wider nets for MNIST."""
    return chosen(VARIANTS, variant, __file__)
