"""Judge: a student grades pictures in parts, as its teacher does, and the whole last.

Tu et al., Automatic Evaluation for Text-to-image Generation (T2I-Eval), 2024: a judge is asked for
what a caption names, how it looks, what it is like and how it lies, and explains each answer before
its grade. A student of 7 B, taught by GPT-4o, follows people with a Spearman correlation of 0.580,
its teacher with 0.557, the same net untaught and asked for the whole alone with 0.294. Grades are
re-balanced: those of each whole number are brought to the 75th percentile of their counts.

Here pictures are given in words, one answer holds all parts, and all weights are trained. Pictures
of a file (`jaxdistill.tasks.gradings`), a teacher behind a server, Qwen2 7B as the student:

    python -m jaxdistill.main --config=configs/judge.py --workdir=runs/judge
        --config.data.task.path=<file.jsonl> --config.data.tokenizer.path=<folder>
        --config.stages.base.checkpoint=<folder>

Pictures of a world whose grades are known, a teacher that errs at a known rate; minutes:

    python -m jaxdistill.main --config=configs/judge.py:small --workdir=runs/judge_small
    python -m jaxdistill.claim --config=configs/judge.py:small --workdir=runs/judge_claim

Expect ``spearman`` of a student of parts near 0.7, far above that of one of the whole alone, and a
``coverage`` of 1.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import FULLY_SHARDED, at, chosen, language, recipe, written
from jaxdistill.presets.claims import above
from jaxdistill.presets.language import learning

SENTENCE = "Who grades the parts first grades the whole better."
GRADE = {"step": "read_score", "which": "last"}
KEPT = ({"step": "finished"}, GRADE)
BALANCED = (*KEPT, {"step": "balanced"})


def published() -> dict:
    student = {**language.LARGE, "bias": True, "theta": 1e6}
    student |= {"width": 3584, "depth": 28, "heads": 28, "groups": 4, "hidden": 18944}
    teacher = written.server("gpt-4o", key="OPENAI_API_KEY")
    tokenizer = {"name": "file", "path": ""}
    about = {"length": 4096, "tokenizer": tokenizer, "template": "tokenizer"}
    return recipe(
        title="T2I-Eval, 7B",
        sentence=SENTENCE,
        data={"name": "requests", "task": {"task": "gradings_of_file", "path": ""}, **about},
        mesh=FULLY_SHARDED,
        rules=language.SHARED_OUT,
        stages={
            "base": written.finished(student),
            "write": written.writing({"gpt": teacher}, BALANCED, failures=0.01),
            "learn": learning(
                student,
                1000,
                language.adamw(1e-5, 50, end=0.0),
                {"grades": written.answers("rank_agreement", 1024)},
                data={"stage": "write"},
                initial={"stage": "base"},
                batch_size=128,
            ),
        },
    )


def small() -> dict:
    data = written.requests("gradings", 64, count=600, held_out=500, form="parts")
    return recipe(
        title="A judge in small",
        sentence=SENTENCE,
        data={**data, "tokenizer": {**data["tokenizer"], "digits_apart": False}},
        stages={
            "write": written.writing({"teacher": written.script("grader", error=0.1)}, KEPT),
            "learn": written.from_records(
                "write",
                {"grades": written.answers("rank_agreement", 40)},
                steps=300,
                batch_size=32,
                distiller={"chunk": 4096},
            ),
        },
        claim=claim(),
    )


def claim() -> dict:
    rare = {"metric": "learn/test/rare_error"}
    return {
        "sentence": "Parts first beat the whole alone; balance makes rare grades right.",
        "metric": "learn/test/spearman",
        "held_equal": (
            "pictures, student, steps, batches, optimizer and rate; the teacher's errors",
        ),
        "arms": {
            "parts": {},
            "whole alone": {"data/task/form": "overall"},
            "parts, balanced": at("stages/write/work", after=BALANCED),
        },
        "contrasts": {
            "parts": above("parts", "whole alone", "parts first beat the whole alone"),
            "balanced": above(
                "parts", "parts, balanced", "balance lowers the error of rare grades", **rare
            ),
        },
    }


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published size, or with ``small`` a run of minutes."""
    return chosen(VARIANTS, variant, __file__)
