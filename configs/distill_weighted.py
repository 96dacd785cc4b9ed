"""DistillNearest and DistillWeighted: which of several trained nets, of other tasks, should teach a
student that has a few labels.

Borup et al., Distilling from Similar Tasks for Transfer Learning on a Budget, ICCV 2023: over eight
tasks 5.6 points above transfer from ImageNet. Sources are scored by PARC on the labelled records;
the student has a head for each, dropped at the end, and its loss weighs them by a power of their
scores. The power (12) is unverified.

The task is to tell digits 0 to 4 with two labels a class. Sources have learnt the same classes from
other records, shifted (near), patches of photographs (far), and shuffled labels; minutes:

    python -m jaxdistill.main --config=configs/distill_weighted.py:small --workdir=runs/weighted
    python -m jaxdistill.claim --config=configs/distill_weighted.py:small --workdir=runs/nearest

The small one runs on MNIST, with Fashion-MNIST as the far source, and the other way round
(``--config.data.name=fashion_mnist`` and the folders exchanged):

    --config.data.name=mnist --config.data.dir=<MNIST> --config.stages.near.data.dir=<MNIST>
    --config.stages.far.data.dir=<Fashion-MNIST> --config.stages.shuffled.data.dir=<MNIST>
"""

import itertools

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, recipe
from jaxdistill.presets.claims import above, rates, reaches
from jaxdistill.presets.images import LABELS, classifier

TASK, LABELLED = (0, 1, 2, 3, 4), 10
PAIR = ("mnist", "fashion_mnist")
SOURCES = ("near", "far", "shuffled")
# Which records the sources have learnt from, and which the student sees.
THEIRS, OURS = (0.0, 0.5), (0.5, 1.0)
# What --tune chose: share of the labels' loss, temperature of the sources, rate of labels alone.
SHARE, TEMPERATURE, ALONE = 0.2, 10.0, 1e-2
DIGITS = {"name": "digits", "dir": "", "validation": 0.15, "test": 0.25, "only": TASK}


def source(data: dict, **settings) -> dict:
    view = {"augment": ({"name": "shift", "pixels": 2},)}
    return classifier({"net": "mlp", "widths": (128, 128)}, 600, data=data, view=view, **settings)


def head(name: str) -> dict:
    """A linear head of the student for the classes of a source."""
    own = {"weight": 1 - SHARE, "temperature": TEMPERATURE, "projector": "linear"}
    return {"loss": "hinton_kd", "student": "hidden_1", "target": f"{name}/out", **own}


def taught(share: float, temperature: float) -> dict:
    """The share of the labels' loss and the temperature of the sources, as changes."""
    own = {"weight": 1 - share, "temperature": temperature}
    found = {f"{name}/{key}": value for name in SOURCES for key, value in own.items()}
    return at("stages/distil/objective", **{"labels/weight": share, **found})


def small() -> dict:
    photographs = {"name": "photographs", "dir": "", "size": 8, "grey": True, "test": 0.2}
    labels = {**LABELS["labels"], "where": "batch/has_label", "weight": SHARE}
    sources = {name: name for name in SOURCES}
    live = {name: {"kind": "live", "stage": name} for name in SOURCES}
    cached = {"views": 1, "outputs": {"out": {"codec": "dense"}}}
    distil = classifier(
        {"net": "mlp", "widths": (64, 64)},
        steps=600,
        targets={"kind": "merge", "members": live, "cached": cached},
        records={"share": OURS, "labels": LABELLED},
        weights="weigh",
        objective={"labels": labels, **{name: head(name) for name in SOURCES}},
        pictures=("reliability",),
    )
    weigh = {"name": "transfer_weights", "sources": sources, "power": 12.0, "read": "hidden_1"}
    weigh |= {"labelled": LABELLED, "share": OURS}
    tried = rates("distil", (1e-3, 3e-3, 1e-2, 3e-2))
    pairs = itertools.product((80, 50, 20, 5), (1, 4, 10, 30))
    shared = {f"{share} %, temperature {t}": taught(share / 100, float(t)) for share, t in pairs}
    grid = {"nearest": {**shared, **tried}, "alone": tried}
    return recipe(
        title="DistillWeighted in small",
        sentence="A student with few labels learns from nets of other tasks.",
        data=DIGITS,
        stages={
            "near": source(DIGITS, records={"share": THEIRS}),
            "far": source(photographs),
            "shuffled": source(DIGITS, records={"share": THEIRS, "shuffled": True}),
            "weigh": {"work": weigh},
            "distil": distil,
        },
        variants={near: images(near, far) for near, far in (PAIR, PAIR[::-1])},
        claim=claim(),
        tune={"metric": "distil/validation/accuracy", "seeds": 3, "grid": grid},
    )


def claim() -> dict:
    power, objective = "stages/weigh/work/power", "stages/distil/objective"
    far, shuffled = "the same classes score above photographs", "and above shuffled labels"
    noise, score = "one or two records of the test set of digits", "weigh/choice/near_over"
    half_a_point = "weighing is at most half a point below equal weights"
    a_point = "shuffled labels give at most a point more than labels alone"
    alone = {"recipe": ("distil",), **at("stages/distil", targets=None, weights=None)}
    alone |= at(objective, **dict.fromkeys(SOURCES)) | at(f"{objective}/labels", weight=1.0)
    alone |= at("stages/distil/optimizer/learning_rate", peak=ALONE)
    return {
        "sentence": "The nearest source teaches best, and its score tells which that is.",
        "metric": "distil/test/accuracy",
        "held_equal": (
            "net, steps, batches, optimizer and labels of the student",
            "rates, and the share and temperature of sources, are the best on validation data",
        ),
        "arms": {
            "weighted": {},
            "nearest": {power: "nearest"},
            "uniform": {power: 0.0},
            "worst": {**at("stages/distil", weights=None), **at(objective, near=None, far=None)},
            "alone": alone,
        },
        "contrasts": {
            "near over far": reaches("weighted", 0.0, far, f"{score}_far"),
            "near over shuffled": reaches("weighted", 0.0, shuffled, f"{score}_shuffled"),
            "nearest": above("nearest", "alone", "the nearest source beats labels alone"),
            "weighted": above("weighted", "uniform", half_a_point, -0.005, origin=noise),
            "worst": above("alone", "worst", a_point, -0.01, origin=noise),
        },
    }


def images(near: str, far: str) -> dict:
    """On one of MNIST and Fashion-MNIST, with the other as the far source."""
    found = {"data/test": 0.0}
    for stage, name in {"near": near, "far": far, "shuffled": near}.items():
        found |= at(f"stages/{stage}/data", name=name, test=0.0)
    # As many records as digits has, so that a batch holds as many labels as there.
    found |= at("stages/distil", records={"share": OURS, "labelled": 500, "labels": LABELLED})
    found |= at("stages/distil/targets/cached", container="npy")
    return {**found, **at("stages/far/data", size=None, grey=None)}


def mnist() -> dict:
    """MNIST at its own size is what the small run becomes there."""
    return {**small(), "data": {**DIGITS, "name": "mnist", "validation": 0.1, "test": 0.0}}


VARIANTS = {"": mnist, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """MNIST, or with ``small`` the run on digits."""
    return chosen(VARIANTS, variant, __file__)
