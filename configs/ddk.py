"""DDK: the domains in which a student is furthest behind its teacher are drawn more often.

Liu et al., DDK: Distilling Domain Knowledge for Efficient Large Language Models, NeurIPS 2024:
Qwen1.5 14B to 1.8B, mean of 11 tasks 55.4 against 52.9 of plain distillation. Every so many steps
both nets are measured on held-out text of every domain, and the ratio of their perplexities moves
the weights, smoothed towards equal ones.

The published sizes, on JSON-lines files, one a domain; finished nets are taken instead of the first
two stages with ``--config.stages.teacher.checkpoint=<folder>``:

    python -m jaxdistill.main --config=configs/ddk.py --workdir=runs/ddk
        --config.data.dir=<folder of .jsonl files> --config.data.tokenizer.path=<folder>

Four kinds of text that every installation has (source, English, character tables, pixels of
digits); the student has hardly seen the last one. Minutes:

    python -m jaxdistill.main --config=configs/ddk.py:small --workdir=runs/ddk_small
    python -m jaxdistill.claim --config=configs/ddk.py:small --seeds=3 --workdir=runs/ddk_claim

Expect the weight of ``numbers`` to rise above a quarter and to fall again, and ``largest_ratio``
below that of equal shares.
"""

from ml_collections import ConfigDict


def get_config(size: str = "") -> ConfigDict:
    """The published sizes, or with ``small`` a run of minutes."""
    if size not in ("", "small"):
        raise ValueError(f"configs/ddk.py knows no size {size!r}, only :small")
    return ConfigDict(small() if size else published())


def adamw(peak: float, warmup: int, end: float = 0.0) -> dict:
    rate = {"schedule": "warmup_cosine", "peak": peak, "warmup": warmup, "end": end}
    return {"name": "adamw", "b2": 0.95, "weight_decay": 0.1, "clip": 1.0, "learning_rate": rate}


def published() -> dict:
    qwen = {"net": "decoder", "bias": True, "tied": False, "theta": 1e6, "dtype": "bfloat16"}
    qwen |= {"remat": True, "scan": True}
    student = {**qwen, "width": 2048, "depth": 24, "heads": 16, "hidden": 5504}
    learns = {"distiller": {"name": "language_model"}, "batch_size": 128}
    loss = {"evaluator": "next_token", "batch_size": 32, "batches": 64}
    return {
        "title": "DDK, 14B to 1.8B",
        "sentence": "Domains are drawn more often the further the student is behind there.",
        "seed": 0,
        "data": {
            "name": "domain_files",
            "dir": "",
            "length": 4096,
            "tokenizer": {"name": "file", "path": ""},
            "validation": 0.01,
            "test": 0.0,
        },
        "mesh": {"data": 1, "fsdp": -1},
        "rules": (
            (r"layers/.*kernel$", (None, "fsdp")),
            (r"embedding$", (None, "fsdp")),
            (r"kernel$", ("fsdp",)),
        ),
        "recipe": ("teacher", "student", "distil"),
        "stages": {
            "teacher": {
                "student": {**qwen, "width": 5120, "depth": 40, "heads": 40, "hidden": 13696},
                "optimizer": adamw(3e-5, 1000),
                "steps": 30_000,
                "evaluate": {"loss": loss},
                "checkpoint": "",
                **learns,
            },
            "student": {
                "student": student,
                "optimizer": adamw(3e-5, 1000),
                "steps": 30_000,
                "evaluate": {"loss": loss},
                "checkpoint": "",
                **learns,
            },
            "distil": {
                "student": student,
                "initial": {"stage": "student"},
                "distiller": {
                    "name": "language_model",
                    "frozen": ("teacher",),
                    "divergence": "forward_kl",
                    "divergence_weight": 0.2,
                    "ce_weight": 1.0,
                },
                "between": {
                    "name": "domain_weights",
                    "against": "teacher",
                    "every": 1000,
                    "smoothing": 0.5,
                    "batches": 156,
                    "batch_size": 32,
                },
                "optimizer": adamw(3e-5, 1000, 3e-6),
                "batch_size": 128,
                "steps": 30_000,
                "evaluate": {
                    "loss": loss,
                    "gap": {**loss, "evaluator": "domain_gap", "against": "teacher"},
                },
                "checkpoint_every": 1000,
            },
        },
    }


def small() -> dict:
    teacher = {"net": "decoder", "width": 96, "depth": 2, "heads": 4, "groups": 2}
    student = {"net": "decoder", "width": 48, "depth": 1, "heads": 4, "groups": 2}
    equal = {"code": 1.0, "english": 1.0, "tables": 1.0, "numbers": 1.0}
    common = {"batch_size": 32, "log_every": 50}
    learns = {"name": "language_model", "chunk": 1024}
    loss = {"evaluator": "next_token", "batch_size": 128, "batches": 8}
    shares = {"name": "fixed_shares", "shares": equal, "every": 1_000_000}
    between = "stages/distil/between"
    return {
        "title": "DDK in small",
        "sentence": "Domains are drawn more often the further the student is behind there.",
        "seed": 0,
        "data": {
            "name": "domains",
            "length": 64,
            "size": 300_000,
            "validation": 0.1,
            "test": 0.1,
        },
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("teacher", "student", "distil"),
        "stages": {
            "teacher": {
                "student": teacher,
                "distiller": learns,
                "between": shares,
                "optimizer": adamw(3e-3, 50),
                "steps": 400,
                "evaluate": {"loss": loss},
                **common,
            },
            # One domain is starved.
            "student": {
                "student": student,
                "distiller": learns,
                "between": {**shares, "shares": {**equal, "numbers": 0.02}},
                "optimizer": adamw(3e-3, 50),
                "steps": 400,
                "evaluate": {"loss": loss},
                **common,
            },
            "distil": {
                "student": student,
                "initial": {"stage": "student"},
                "distiller": {
                    **learns,
                    "frozen": ("teacher",),
                    "divergence": "forward_kl",
                    "divergence_weight": 0.2,
                    "ce_weight": 1.0,
                },
                "between": {
                    "name": "domain_weights",
                    "against": "teacher",
                    "every": 25,
                    "smoothing": 0.5,
                    "batches": 4,
                    "batch_size": 128,
                },
                "optimizer": adamw(1e-3, 25),
                "steps": 300,
                "evaluate": {
                    "loss": loss,
                    "gap": {**loss, "evaluator": "domain_gap", "against": "teacher"},
                },
                **common,
                "log_every": 25,
                "pictures": ("positions",),
            },
        },
        "claim": {
            "sentence": "Drawing domains by the gap to the teacher closes the largest gap.",
            "metric": "distil/validation/largest_ratio",
            "held_equal": ("teacher, start, loss, steps, batch size and optimizer",),
            "arms": {
                "by the gap": {},
                "not smoothed": {f"{between}/smoothing": 1.0},
                "equal shares": {between: shares},
            },
            "contrasts": {
                "by the gap": {
                    "sentence": "the largest ratio of perplexities is lower by 0.05 than with "
                    "equal shares",
                    "coefficients": {"equal shares": 1, "by the gap": -1},
                    "margin": 0.05,
                },
                "smoothing": {
                    "sentence": "the mean ratio is no worse smoothed than not",
                    "metric": "distil/validation/mean_ratio",
                    "coefficients": {"not smoothed": 1, "by the gap": -1},
                    "margin": -0.01,
                },
            },
        },
    }
