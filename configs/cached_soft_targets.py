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

from jaxdistill.presets import at, chosen, recipe
from jaxdistill.presets.claims import above
from jaxdistill.presets.images import classifier

# Bytes a sample of ten classes stand in the name of each arm. A codec that leaves classes out says
# what becomes of them.
CODECS = {
    "dense, 40 bytes": {"codec": "dense"},
    "dense bfloat16, 20 bytes": {"codec": "dense", "dtype": "bfloat16"},
    "quantised, 18 bytes": {"codec": "quantised"},
    "top 5, 19 bytes": {"codec": "top_k", "k": 5, "missing": "uniform"},
    "top 3, 13 bytes": {"codec": "top_k", "k": 3, "missing": "uniform"},
    "top 1, 7 bytes": {"codec": "top_k", "k": 1, "missing": "uniform"},
    "sampled 50, 16 bytes": {"codec": "sampled", "draws": 50, "slots": 8, "missing": "sampled"},
}


def small() -> dict:
    cached = {"views": 1, "outputs": {"out": {"codec": "dense"}}}
    outputs = "stages/distil/targets/cached/outputs"
    return recipe(
        title="Cached soft targets",
        sentence="A student learns from a teacher's logits, live or from disk.",
        data={"name": "digits", "dir": "", "validation": 0.15, "test": 0.2},
        stages={
            "teacher": classifier({"net": "mlp", "widths": (256, 256), "dropout": 0.3}, steps=600),
            "distil": classifier(
                {"net": "mlp", "widths": (32,)},
                steps=600,
                targets={"kind": "live", "stage": "teacher", "cached": cached},
                objective={"soft": {"loss": "hinton_kd", "temperature": 1.0}},
                pictures=("reliability",),
            ),
        },
        variants={"mnist": images(), "fashion_mnist": images()},
        claim={
            "sentence": "A teacher on disk teaches as well as a live one.",
            "metric": "distil/test/accuracy",
            "held_equal": ("teacher, net, steps, batches and optimizer of the student",),
            "arms": {
                "live": at("stages/distil/targets", cached=None),
                **{name: at(outputs, out=codec) for name, codec in CODECS.items()},
            },
            "contrasts": {
                name: above(
                    name,
                    "live",
                    f"{name}: at most half a point below the live teacher",
                    -0.005,
                    origin="less than two records of the test set of digits",
                )
                for name in CODECS
                if not name.startswith("top 1")  # for the table
            },
        },
    )


def images() -> dict:
    """What the run becomes on MNIST and Fashion-MNIST."""
    return {
        "data/test": 0.0,
        **at("stages/teacher", steps=3000, batch_size=128),
        **at("stages/teacher/student", widths=(512, 512)),
        **at("stages/distil", steps=3000, batch_size=128),
        **at("stages/distil/student", widths=(128,)),
        **at("stages/distil/targets/cached", container="npy"),
    }


VARIANTS = {"": small, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The run in small; there is no other."""
    return chosen(VARIANTS, variant, __file__)
