"""The law of the capacity gap: a student's best teacher is not the largest, but so many times its
own size.

Zhang et al., Towards the Law of Capacity Gap in Distilling Language Models (MiniMA), ACL 2025: the
best teacher's size is proportional to the student's, about 2.5 times, so a 3B model learns from 7B.
Half of the loss is cross-entropy, half the divergence to the teacher.

The published sizes, with the student started anew (the paper prunes it from the teacher), on a
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

WIDTHS = (40, 48, 64, 96, 160)


def get_config(size: str = "") -> ConfigDict:
    """The published sizes, or with ``small`` a ladder of minutes."""
    if size not in ("", "small"):
        raise ValueError(f"configs/capacity_gap.py knows no size {size!r}, only :small")
    return ConfigDict(small() if size else published())


def adamw(peak: float, warmup: int) -> dict:
    rate = {"schedule": "warmup_cosine", "peak": peak, "warmup": warmup}
    return {"name": "adamw", "b2": 0.95, "weight_decay": 0.1, "clip": 1.0, "learning_rate": rate}


def halves(chunk: int = 256) -> dict:
    return {
        "name": "language_model",
        "frozen": ("teacher",),
        "divergence": "forward_kl",
        "divergence_weight": 0.5,
        "ce_weight": 0.5,
        "chunk": chunk,
    }


def published() -> dict:
    llama = {
        "net": "decoder",
        "dtype": "bfloat16",
        "tied": False,
        "remat": True,
        "scan": True,
        "epsilon": 1e-5,
    }
    common = {"batch_size": 1024, "steps": 30_000, "checkpoint_every": 1000}
    loss = {"evaluator": "next_token", "batch_size": 32, "batches": 64}
    return {
        "title": "MiniMA, 7B to 3B",
        "sentence": "A student learns most from a teacher about 2.5 times its size.",
        "seed": 0,
        "data": {
            "name": "json_lines",
            "path": "",
            "text": "text",
            "length": 4096,
            "pack": True,
            "tokenizer": {"name": "file", "path": "", "end": "</s>"},
            "validation": 0.01,
            "test": 0.0,
        },
        "mesh": {"data": 1, "fsdp": -1},
        "rules": (
            (r"layers/.*kernel$", (None, "fsdp")),
            (r"embedding$", (None, "fsdp")),
            (r"kernel$", ("fsdp",)),
        ),
        "recipe": ("teacher", "student"),
        "stages": {
            "teacher": {
                "student": {**llama, "width": 4096, "depth": 32, "heads": 32, "hidden": 11008},
                "distiller": {"name": "language_model"},
                "optimizer": adamw(3e-4, 300),
                "evaluate": {"loss": loss},
                "checkpoint": "",
                **common,
            },
            "student": {
                "student": {**llama, "width": 3072, "depth": 24, "heads": 24, "hidden": 8192},
                "distiller": halves(),
                "optimizer": adamw(3e-4, 300),
                "evaluate": {"loss": loss},
                **common,
            },
        },
    }


def small() -> dict:
    def net(width: int) -> dict:
        return {"net": "decoder", "width": width, "depth": 2, "heads": 4, "groups": 2}

    loss = {"evaluator": "next_token", "batch_size": 128, "batches": 8}
    common = {"batch_size": 32, "steps": 300, "evaluate": {"loss": loss}, "log_every": 100}
    student = {"distiller": halves(1024), "optimizer": adamw(3e-3, 50), **common}
    teacher = "stages/teacher/student/width"
    return {
        "title": "The capacity gap in small",
        "sentence": "The largest teacher is not the best.",
        "seed": 0,
        "data": {
            "name": "standard_library",
            "length": 64,
            "modules": None,
            "validation": 0.08,
            "test": 0.08,
        },
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("teacher", "smaller", "student"),
        "stages": {
            "teacher": {
                "student": net(48),
                "distiller": {"name": "language_model", "chunk": 1024},
                "optimizer": adamw(3e-3, 50),
                **common,
            },
            "smaller": {"student": net(24), **student},
            "student": {"student": net(32), **student, "pictures": ("positions",)},
        },
        "claim": {
            "sentence": "The largest teacher of a ladder is not better than one of 2.25 times the "
            "student's size.",
            "metric": "student/validation/loss",
            "held_equal": (
                "steps, data, batch size, optimizer of all teachers",
                "start, steps, data and optimizer of the students",
            ),
            "arms": {f"width {width}": {teacher: width} for width in WIDTHS},
            "contrasts": {
                "largest": {
                    "sentence": "the largest teacher is at most 0.005 nats better than that of "
                    "2.25 times the size",
                    "coefficients": {"width 160": 1, "width 48": -1},
                    "margin": -0.005,
                },
                "gap": {
                    "sentence": "it is worse",
                    "coefficients": {"width 160": 1, "width 48": -1},
                },
                "smaller student": {
                    "sentence": "for the smaller student it is worse than that of 2.8 times the "
                    "size",
                    "metric": "smaller/validation/loss",
                    "coefficients": {"width 160": 1, "width 40": -1},
                },
            },
        },
    }
