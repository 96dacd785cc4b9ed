"""The law of the capacity gap: a student's best teacher is not the largest, but so many times its
own size.

Zhang et al., Towards the Law of Capacity Gap in Distilling Language Models (MiniMA), ACL 2025: the
best teacher's size is proportional to the student's, about 2.5 times, so a 3B model learns from 7B.
Half of the loss is cross-entropy, half the divergence to the teacher.

The published sizes, with a newly initialised student (the paper prunes it from the teacher), on a
JSON-lines file; a finished teacher with ``--config.stages.teacher.checkpoint=<folder>``:

    python -m jaxdistill.main --config=configs/capacity_gap.py --workdir=runs/minima
        --config.data.path=<file.jsonl> --config.data.tokenizer.path=<folder with tokenizer.json>

A ladder of five teachers and two students on the source of Python's standard library; minutes:

    python -m jaxdistill.claim --config=configs/capacity_gap.py:small --seeds=3
        --workdir=runs/capacity_claim

What students lose by teacher goes into ``language.fit_capacity_law``. At this size the effect may
be absent; the claim says so then.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import FULLY_SHARDED, chosen, language, recipe
from jaxdistill.presets.claims import above
from jaxdistill.presets.language import adamw, decoder, learning

WIDTHS = (40, 48, 64, 96, 160)
HALVES = language.from_labels_and_teacher("teacher", divergence_weight=0.5, ce_weight=0.5)


def published() -> dict:
    three = {**language.LLAMA_7B, "width": 3072, "depth": 24, "heads": 24, "hidden": 8192}
    common = {
        "steps": 30_000,
        "optimizer": adamw(3e-4, 300),
        "evaluate": {"loss": language.next_token(32, 64)},
        "batch_size": 1024,
        "checkpoint_every": 1000,
    }
    return recipe(
        title="MiniMA, 7B to 3B",
        sentence="A student learns most from a teacher about 2.5 times its size.",
        data=language.json_lines("text", 4096, pack=True, validation=0.01, test=0.0),
        mesh=FULLY_SHARDED,
        rules=language.SHARED_OUT,
        stages={
            "teacher": learning(language.LLAMA_7B, checkpoint="", **common),
            "student": learning(three, distiller={**HALVES, "chunk": 256}, **common),
        },
    )


def small() -> dict:
    common = {
        "steps": 300,
        "optimizer": adamw(3e-3, 50),
        "evaluate": {"loss": language.next_token(128, 8)},
        "batch_size": 32,
        "log_every": 100,
    }
    halves = {**HALVES, "chunk": 1024}
    return recipe(
        title="The capacity gap in small",
        sentence="The largest teacher is not the best.",
        data=language.standard_library(),
        stages={
            "teacher": learning(decoder(48, 2), distiller={"chunk": 1024}, **common),
            "smaller": learning(decoder(24, 2), distiller=halves, **common),
            "student": learning(
                decoder(32, 2), distiller=halves, pictures=("positions",), **common
            ),
        },
        claim=claim(),
    )


def claim() -> dict:
    largest = "the largest teacher is at most 0.005 nats better than that of 2.25 times the size"
    equal = "half of what a step of the ladder makes, from 64 to 96"
    smaller = "for the smaller student it is worse than that of 2.8 times the size"
    return {
        "sentence": "The largest teacher of a ladder is not better than one of 2.25 times the "
        "student's size.",
        "metric": "student/validation/loss",
        "held_equal": (
            "steps, data, batch size, optimizer of all teachers",
            "start, steps, data and optimizer of the students",
        ),
        "arms": {f"width {width}": {"stages/teacher/student/width": width} for width in WIDTHS},
        "contrasts": {
            "largest": above("width 160", "width 48", largest, -0.005, origin=equal),
            "gap": above("width 160", "width 48", "it is worse"),
            "smaller student": above(
                "width 160", "width 40", smaller, metric="smaller/validation/loss"
            ),
        },
    }


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published sizes, or with ``small`` a ladder of minutes."""
    return chosen(VARIANTS, variant, __file__)
