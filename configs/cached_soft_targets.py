"""Soft targets from disk: what each codec of a cache costs in bytes, and what in accuracy.

A student of one hidden layer learns from a wide teacher's logits alone, at temperature 1, live or
from caches of several codecs; no label is used.

    python -m jaxdistill.main --config=configs/cached_soft_targets.py:small --workdir=runs/cached
    python -m jaxdistill.claim --config=configs/cached_soft_targets.py:small --seeds=5
        --workdir=runs/cached_claim

On Fashion-MNIST or MNIST:

    --config.data.name=fashion_mnist --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

# Bytes a sample of ten classes stand in the name of each arm.
CODECS = {
    "dense, 40 bytes": {"codec": "dense"},
    "dense bfloat16, 20 bytes": {"codec": "dense", "dtype": "bfloat16"},
    "quantised, 18 bytes": {"codec": "quantised"},
    "top 5, 19 bytes": {"codec": "top_k", "k": 5},
    "top 3, 13 bytes": {"codec": "top_k", "k": 3},
    "top 1, 7 bytes": {"codec": "top_k", "k": 1},
    "sampled 50, 16 bytes": {"codec": "sampled", "draws": 50, "slots": 8},
}


def get_config(size: str = "") -> ConfigDict:
    """The run in small; there is no other."""
    if size not in ("", "small"):
        raise ValueError(f"configs/cached_soft_targets.py knows no size {size!r}, only :small")
    return ConfigDict(recipe())


def recipe() -> dict:
    accuracy = {"evaluator": "classification", "sets": ("validation", "test")}
    optimizer = {
        "name": "adamw",
        "learning_rate": {"schedule": "warmup_cosine", "peak": 3e-3, "warmup": 50},
    }
    targets = "stages/distil/targets"
    # A codec without a rule for missing classes has none missing.
    rule = {"top_k": {"missing": "uniform"}, "sampled": {"missing": "sampled"}}
    arms = {
        name: {f"{targets}/cached/outputs/out": {**codec, **rule.get(codec["codec"], {})}}
        for name, codec in CODECS.items()
    }
    return {
        "title": "Cached soft targets",
        "sentence": "A student learns from a teacher's logits, live or from disk.",
        "seed": 0,
        "data": {"name": "digits", "dir": "", "validation": 0.15, "test": 0.2},
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("teacher", "distil"),
        "stages": {
            "teacher": {
                "student": {"net": "mlp", "widths": (256, 256), "dropout": 0.3},
                "objective": {"labels": {"loss": "cross_entropy", "target": "batch/label"}},
                "optimizer": optimizer,
                "batch_size": 64,
                "steps": 600,
                "evaluate": {"accuracy": accuracy},
            },
            "distil": {
                "student": {"net": "mlp", "widths": (32,)},
                "targets": {
                    "kind": "live",
                    "stage": "teacher",
                    "cached": {"views": 1, "outputs": {"out": {"codec": "dense"}}},
                },
                "objective": {"soft": {"loss": "hinton_kd", "temperature": 1.0}},
                "optimizer": optimizer,
                "batch_size": 64,
                "steps": 600,
                "evaluate": {"accuracy": accuracy},
                "pictures": ("reliability",),
            },
        },
        "variants": {"mnist": images(), "fashion_mnist": images()},
        "claim": {
            "sentence": "A teacher on disk teaches as well as a live one.",
            "metric": "distil/test/accuracy",
            "held_equal": ("teacher, net, steps, batches and optimizer of the student",),
            "arms": {"live": {f"{targets}/cached": None}, **arms},
            "contrasts": {
                name: {
                    "sentence": f"{name}: at most half a point below the live teacher",
                    "coefficients": {name: 1, "live": -1},
                    "margin": -0.005,
                }
                for name in CODECS
                if not name.startswith("top 1")  # for the table
            },
        },
    }


def images() -> dict:
    """What the run becomes on MNIST and Fashion-MNIST."""
    return {
        "data/test": 0.0,
        "stages/teacher/student/widths": (512, 512),
        "stages/teacher/steps": 3000,
        "stages/teacher/batch_size": 128,
        "stages/distil/student/widths": (128,),
        "stages/distil/steps": 3000,
        "stages/distil/batch_size": 128,
        "stages/distil/targets/cached/container": "npy",
    }
