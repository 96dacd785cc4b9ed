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
digits); the student has seen no English. Minutes:

    python -m jaxdistill.main --config=configs/ddk.py:small --workdir=runs/ddk_small
    python -m jaxdistill.claim --config=configs/ddk.py:small --seeds=5 --workdir=runs/ddk_claim

Expect the weight of ``english`` to rise to 0.4 and to fall, ``largest_ratio`` below equal shares'.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import FULLY_SHARDED, chosen, language, recipe
from jaxdistill.presets.claims import above, rates
from jaxdistill.presets.language import adamw, decoder, learning

SENTENCE = "Domains are drawn more often the further the student is behind there."
# What --tune chose of these, with equal shares as by the gap.
RATE, RATES = 1e-2, (1e-3, 3e-3, 1e-2, 3e-2)
FROM_TEACHER = language.from_labels_and_teacher("teacher", divergence_weight=0.2, ce_weight=1.0)


def by_the_gap(every: int, batches: int, batch_size: int) -> dict:
    measured = {"every": every, "batches": batches, "batch_size": batch_size}
    return {"name": "domain_weights", "against": "teacher", "smoothing": 0.5, **measured}


def gap(loss: dict, **settings) -> dict:
    return {**loss, "evaluator": "domain_gap", "against": "teacher", **settings}


def published() -> dict:
    qwen = {**language.LARGE, "bias": True, "theta": 1e6}
    large = {**qwen, "width": 5120, "depth": 40, "heads": 40, "hidden": 13696}
    student = {**qwen, "width": 2048, "depth": 24, "heads": 16, "hidden": 5504}
    loss = language.next_token(32, 64)
    files = {"tokenizer": {"name": "file", "path": ""}, "validation": 0.01, "test": 0.0}
    learns = {
        "steps": 30_000,
        "optimizer": adamw(3e-5, 1000, end=0.0),
        "evaluate": {"loss": loss},
        "checkpoint": "",
        "batch_size": 128,
    }
    return recipe(
        title="DDK, 14B to 1.8B",
        sentence=SENTENCE,
        data={"name": "domain_files", "dir": "", "length": 4096, **files},
        mesh=FULLY_SHARDED,
        rules=language.SHARED_OUT,
        stages={
            "teacher": learning(large, **learns),
            "student": learning(student, **learns),
            "distil": learning(
                student,
                30_000,
                adamw(3e-5, 1000, end=3e-6),
                {"loss": loss, "gap": gap(loss)},
                FROM_TEACHER,
                initial={"stage": "student"},
                between=by_the_gap(1000, 156, 32),
                batch_size=128,
                checkpoint_every=1000,
            ),
        },
    )


def shares(**starved: float) -> dict:
    """Every domain is drawn as often as any other, but for those that are starved."""
    equal = {"code": 1.0, "english": 1.0, "tables": 1.0, "numbers": 1.0}
    return {"name": "fixed_shares", "shares": {**equal, **starved}, "every": 1_000_000}


def small() -> dict:
    loss, student = language.next_token(128, 8), decoder(48, 1)
    by_domain = gap(loss, sets=("validation", "test"))
    grid = dict.fromkeys(("by the gap", "equal shares"), rates("distil", RATES))
    learns = {
        "steps": 400,
        "optimizer": adamw(3e-3, 50, end=0.0),
        "evaluate": {"loss": loss},
        "distiller": {"chunk": 1024},
        "batch_size": 32,
    }
    data = {"name": "domains", "length": 64, "size": 300_000, "validation": 0.1, "test": 0.1}
    return recipe(
        title="DDK in small",
        sentence=SENTENCE,
        data=data,
        stages={
            "teacher": learning(decoder(96, 2), between=shares(), **learns),
            "student": learning(student, between=shares(english=0.0), **learns),
            "distil": learning(
                student,
                60,  # while it is behind: after some hundred the kinds of text hardly differ
                adamw(RATE, 5, end=0.0),
                {"loss": loss, "gap": by_domain},
                {**FROM_TEACHER, "chunk": 1024},
                initial={"stage": "student"},
                between=by_the_gap(10, 4, 128),
                batch_size=32,
                log_every=10,
                pictures=("positions",),
            ),
        },
        claim=claim(),
        tune={"metric": "distil/validation/largest_ratio", "lower": True, "seeds": 1, "grid": grid},
    )


def claim() -> dict:
    lower = "the largest ratio of perplexities is lower than with equal shares"
    smoothed = "the mean ratio is no worse smoothed than not"
    of_means = {"metric": "distil/test/mean_ratio", "origin": "a hundredth of the teacher's own"}
    return {
        "sentence": "Drawing domains by the gap to the teacher closes the largest gap.",
        "metric": "distil/test/largest_ratio",
        "held_equal": ("teacher, start, loss, steps, batches, optimizer; rates tuned alike",),
        "arms": {
            "by the gap": {},
            "not smoothed": {"stages/distil/between/smoothing": 1.0},
            "equal shares": {"stages/distil/between": shares()},
        },
        "contrasts": {
            "by the gap": above("equal shares", "by the gap", lower),
            "smoothing": above("not smoothed", "by the gap", smoothed, -0.01, **of_means),
        },
    }


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published sizes, or with ``small`` a run of minutes."""
    return chosen(VARIANTS, variant, __file__)
