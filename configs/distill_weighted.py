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

LABELS = {"loss": "cross_entropy", "target": "batch/label", "where": "batch/has_label"}
SOURCES = ("near", "far", "shuffled")
TASK, OTHERS = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
SHARE = 0.8


def get_config(size: str = "") -> ConfigDict:
    """The run in small, or without ``small`` the same with wider nets for MNIST."""
    if size not in ("", "small"):
        raise ValueError(f"configs/distill_weighted.py knows no size {size!r}, only :small")
    return ConfigDict(recipe() if size else {**recipe(), **large()})


def recipe() -> dict:
    accuracy = {"evaluator": "classification", "sets": ("validation", "test")}

    def adamw(peak: float) -> dict:
        return {
            "name": "adamw",
            "learning_rate": {"schedule": "warmup_cosine", "peak": peak, "warmup": 50},
        }

    def source(data: dict, **settings) -> dict:
        return {
            "data": data,
            "student": {"net": "mlp", "widths": (128, 128)},
            "objective": {"labels": {"loss": "cross_entropy", "target": "batch/label"}},
            "optimizer": adamw(3e-3),
            "batch_size": 64,
            "steps": 600,
            "evaluate": {"accuracy": accuracy},
            **settings,
        }

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

    task = {"name": "digits", "dir": "", "validation": 0.15, "test": 0.25, "only": TASK}
    others = {**task, "only": OTHERS}
    distil = "stages/distil"
    alone = {
        "recipe": ("distil",),
        f"{distil}/targets": None,
        f"{distil}/transfer": None,
        **{f"{distil}/objective/{name}": None for name in SOURCES},
    }
    return {
        "title": "DistillWeighted in small",
        "sentence": "A student with few labels learns from nets of other tasks.",
        "seed": 0,
        "data": task,
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": (*SOURCES, "distil"),
        "stages": {
            "near": source(others),
            "far": source({"name": "photographs", "dir": "", "size": 8, "grey": True, "test": 0.2}),
            "shuffled": source(others, records={"shuffled": True}),
            "distil": {
                "student": {"net": "mlp", "widths": (64, 64)},
                "targets": {
                    "kind": "merge",
                    "members": {name: {"kind": "live", "stage": name} for name in SOURCES},
                    "cached": {"views": 1, "outputs": {"out": {"codec": "dense"}}},
                },
                "records": {"labels": 50},
                "transfer": {
                    "sources": {name: name for name in SOURCES},
                    "power": 12.0,
                    "labelled": 50,
                    "read": "hidden_1",
                },
                "objective": {
                    "labels": {**LABELS, "weight": SHARE},
                    **{name: head(name) for name in SOURCES},
                },
                "optimizer": adamw(3e-3),
                "batch_size": 64,
                "steps": 600,
                "evaluate": {"accuracy": accuracy},
                "pictures": ("reliability",),
            },
        },
        "variants": {
            "mnist": images("mnist", "fashion_mnist"),
            "fashion_mnist": images("fashion_mnist", "mnist"),
        },
        "claim": {
            "sentence": "The nearest source teaches best, and its score tells which that is.",
            "metric": "distil/test/accuracy",
            "held_equal": (
                "net, steps, batches, optimizer and labels of the student",
                "the share of the labels' loss, for the student alone 1 in place of 0.8",
            ),
            "arms": {
                "weighted": {},
                "nearest": {f"{distil}/transfer/power": "nearest"},
                "uniform": {f"{distil}/transfer/power": 0.0},
                "worst": {
                    f"{distil}/transfer": None,
                    **{f"{distil}/objective/{name}": None for name in SOURCES[:2]},
                },
                "alone": {**alone, f"{distil}/objective/labels/weight": 1.0},
            },
            "contrasts": {
                "near over far": {
                    "sentence": "the other digits score above photographs",
                    "metric": "distil/sources/near_over_far",
                    "coefficients": {"weighted": 1},
                },
                "far over shuffled": {
                    "sentence": "photographs score above shuffled labels",
                    "metric": "distil/sources/far_over_shuffled",
                    "coefficients": {"weighted": 1},
                },
                "nearest": {
                    "sentence": "the nearest source beats labels alone",
                    "coefficients": {"nearest": 1, "alone": -1},
                },
                "weighted": {
                    "sentence": "weighing is at most half a point below equal weights",
                    "coefficients": {"weighted": 1, "uniform": -1},
                    "margin": -0.005,
                },
                "worst": {
                    "sentence": "the worst source gives at most a point more than labels alone",
                    "coefficients": {"alone": 1, "worst": -1},
                    "margin": -0.01,
                },
            },
        },
    }


def large() -> dict:
    """MNIST at its own size is what the small run becomes there."""
    return {"data": {"name": "mnist", "dir": "", "validation": 0.1, "test": 0.0, "only": TASK}}


def images(near: str, far: str) -> dict:
    """What the run becomes on one of MNIST and Fashion-MNIST, with the other as the far source."""
    names = {"near": near, "far": far, "shuffled": near}
    return {
        "data/test": 0.0,
        **{f"stages/{stage}/data/name": name for stage, name in names.items()},
        **{f"stages/{stage}/data/test": 0.0 for stage in names},
        "stages/far/data/size": None,
        "stages/far/data/grey": None,
        # As many records as digits has, so that a batch holds as many labels as there.
        "stages/distil/records": {"labelled": 500, "labels": 50},
        "stages/distil/targets/cached/container": "npy",
    }
