"""AM: a teacher's reasoning traces, without copies and leaks, of which only right ones are learnt.

Zhao et al., 1.4 Million Open-Source Distilled Reasoning Dataset to Empower Large Language Model
Training, 2025: students of verified traces of DeepSeek-R1 alone come out above the distilled models
that DeepSeek published (32B on AIME 2024, MATH-500, GPQA Diamond and LiveCodeBench). There is no
public code: orders, thresholds and limits are ours where the paper names none.

Requests without near-duplicates and questions of test sets; a teacher thinks and answers in tags;
traces whose tags are out of order, whose script changes or that repeat themselves go, then those
whose answer is not the reference. The student learns thinking and answer, from the task alone.

Requests from a file (`jaxdistill.tasks.reasoning.request` writes them as the teacher is asked), a
teacher behind a server, Qwen2.5 32B's size as the student:

    python -m jaxdistill.main --config=configs/reasoning_traces.py --workdir=runs/traces
        --config.data.path=<requests.jsonl> --config.data.tokenizer.path=<folder>
        --config.stages.base.checkpoint=<folder>

Word problems with planted copies, near copies and leaked questions, and a teacher that errs at a
known rate; minutes:

    python -m jaxdistill.main --config=configs/reasoning_traces.py:small --workdir=runs/traces
    python -m jaxdistill.claim --config=configs/reasoning_traces.py:small --workdir=runs/traces_5

Expect ``precision`` and ``complete`` of the records at 1, and a student of filtered traces some 30
points above one of raw traces.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import FULLY_SHARDED, at, chosen, language, recipe, written
from jaxdistill.presets.claims import above, reaches
from jaxdistill.presets.language import learning

SENTENCE = "A student learns the traces that are right, of questions that are new."
TEST = {"sets": ("test",)}
COPIES = ({"step": "exact_duplicates"}, {"step": "near_duplicates", "threshold": 0.7})
LEAKS = {"step": "decontaminated", "against": TEST}
SHAPE = ({"step": "finished"}, {"step": "tagged"}, {"step": "in_scripts"}, {"step": "unrepetitive"})
RIGHT = ({"step": "read_tags"}, {"step": "verified_mathematics"})
FILTERED = {"before": (*COPIES, LEAKS), "after": (*SHAPE, *RIGHT, LEAKS)}
BETTER, WORSE = 0.3, 0.6  # how often the small form's teachers are wrong


def published() -> dict:
    student = {**language.LARGE, "bias": True, "theta": 1e6}
    student |= {"width": 5120, "depth": 64, "heads": 40, "groups": 8, "hidden": 27648}
    semantic = {"step": "semantic_duplicates", "threshold": 0.95}
    filtered = {**FILTERED, "before": (*COPIES, semantic, LEAKS), "failures": 0.01, "pack": True}
    return recipe(
        title="AM-DeepSeek-R1-Distilled, 32B",
        sentence=SENTENCE,
        data=written.of_file(32_768),
        mesh=FULLY_SHARDED,
        rules=language.SHARED_OUT,
        stages={
            "base": written.finished(student),
            "write": written.writing({"r1": written.server("deepseek-reasoner")}, **filtered),
            "learn": learning(
                student,
                10_000,
                language.adamw(8e-5, 500, end=0.0),
                {"loss": language.next_token(16, 64)},
                data={"stage": "write"},
                initial={"stage": "base"},
                batch_size=64,
                checkpoint_every=500,
            ),
        },
    )


def small() -> dict:
    world = {"count": 1500, "operations": (2, 2), "most": 9, "samples": 2, "test": 256}
    teacher = {"teacher": written.script("thinker", wrong=BETTER, untagged=0.05)}
    planted = ({"measure": "planted"},)
    return recipe(
        title="Reasoning traces in small",
        sentence=SENTENCE,
        data=written.requests("traces", 88, words=768, **world),
        stages={
            "write": written.writing(teacher, measures=planted, **FILTERED),
            "learn": written.from_records(
                "write", {"answers": written.answers("solved", 28)}, steps=300, batch_size=32
            ),
        },
        claim=claim(),
    )


def claim() -> dict:
    whole = at("stages/write/work/teachers/teacher/script", wrong=WORSE)
    raw = at("stages/write/work", before=(), after=())
    few = "three of 256 problems"
    kept = "of what was planted, as the paper asks of its pipeline"
    gain = {"filtered": 1, "raw": -1}
    more = {"filtered, worse teacher": 1, "raw, worse teacher": -1}

    def of_records(name: str, least: float, sentence: str) -> dict:
        metric = f"write/records/{name}"
        return reaches("filtered, worse teacher", least, sentence, metric, kept)

    return {
        "sentence": "Steps keep the right traces of new questions, and these teach more than all.",
        "metric": "learn/test/accuracy",
        "held_equal": ("questions, answers, student, steps, batches, optimizer and rate",),
        "arms": {
            "filtered": {},
            "raw": raw,
            "filtered, worse teacher": whole,
            "raw, worse teacher": {**whole, **raw},
        },
        "contrasts": {
            "precise": of_records("precision", 0.99, "what is kept is right"),
            "complete": of_records("complete", 0.99, "what is right is kept"),
            "near copies": of_records("near_copies_found", 0.9, "near copies are found"),
            "leaks": of_records("leaks_gone", 0.99, "leaked questions are gone"),
            "filtered": above("filtered", "raw", "filtered traces beat raw ones", 0.01, origin=few),
            "worse teacher": above(
                "filtered, worse teacher",
                "raw, worse teacher",
                "so they do of a worse teacher",
                0.01,
                origin=few,
            ),
            "the more": {
                "sentence": "the more the worse the teacher",
                "coefficients": {**more, **{name: -value for name, value in gain.items()}},
            },
        },
    }


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published sizes, or with ``small`` a run of minutes."""
    return chosen(VARIANTS, variant, __file__)
