"""Frontier LLMs: a teacher thinks at length, and its student answers the bare question.

Shirgaonkar et al., Knowledge Distillation Using Frontier Open-source LLMs, 2024: Llama 3.1 405B to
8B and 70B by plain fine-tuning on what it wrote. Asked to work step by step (questions, inference,
mathematics) or to make a summary denser again and again, its students match or pass on some data
sets what it answers without examples. There is no public code: prompts and settings are ours.

The teacher's prompt is not the student's: a record keeps both. Answers are extracted strictly (the
sentence that was asked for) and leniently (the last number), and each share of right answers stands
beside that of answers of which anything could be extracted.

Requests from a file (`jaxdistill.tasks.frontier.request` writes them), a teacher behind a server,
Llama 3.1 8B's size as the student; ``:density`` learns the last of five summaries:

    python -m jaxdistill.main --config=configs/frontier_llm.py --workdir=runs/frontier
        --config.data.path=<requests.jsonl> --config.data.tokenizer.path=<folder>
        --config.stages.base.checkpoint=<folder>

Word problems of several operations and a teacher that errs at a known rate; minutes.
``:small_density`` has reports of whom did what, and summaries:

    python -m jaxdistill.main --config=configs/frontier_llm.py:small --workdir=runs/frontier
    python -m jaxdistill.claim --config=configs/frontier_llm.py:small --workdir=runs/frontier_5

Expect steps to beat answers alone by far, and answers alone to agree with their teacher's on held
out problems of one operation as often as the teacher is right, no more.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import FULLY_SHARDED, at, chosen, language, recipe, written
from jaxdistill.presets.claims import above, reaches, within
from jaxdistill.presets.language import learning

SENTENCE = "What a long prompt brings out of a teacher, a student does when barely asked."
LLAMA_8B = {**language.LARGE, "width": 4096, "depth": 32, "heads": 32, "groups": 8}
LLAMA_8B |= {"hidden": 14336, "theta": 5e5, "epsilon": 1e-5}
STRICT = {"step": "read_marker", "marker": "The answer is"}
FILTER = ({"step": "finished"}, STRICT, {"step": "verified_mathematics"})
DENSEST = ({"step": "read_summary", "which": "last"},)
WRONG = 0.3  # how often the small form's teacher is


def fine_tuned(title: str, steps: tuple[dict, ...]) -> dict:
    teacher = {"llama": written.server("meta-llama/Llama-3.1-405B-Instruct")}
    return recipe(
        title=title,
        sentence=SENTENCE,
        data=written.of_file(4096),
        mesh=FULLY_SHARDED,
        rules=language.SHARED_OUT,
        stages={
            "base": written.finished(LLAMA_8B),
            "write": written.writing(teacher, steps, failures=0.01, pack=True),
            "learn": learning(
                LLAMA_8B,
                3000,
                language.adamw(1e-5, 100, end=0.0),
                {"loss": language.next_token(16, 64)},
                data={"stage": "write"},
                initial={"stage": "base"},
                batch_size=64,
                checkpoint_every=500,
            ),
        },
    )


def published() -> dict:
    return fine_tuned("Frontier LLMs, 405B to 8B", FILTER)


def density() -> dict:
    return fine_tuned("Frontier LLMs, chain of density", DENSEST)


def small() -> dict:
    world = {"how": "steps", "operations": (2, 2), "most": 9, "taught": WRONG}
    sizes = {"count": 1500, "validation": 64, "test": 256}
    teacher = {"teacher": written.script("solver", wrong=WRONG, unmarked=0.05)}
    answers = written.answers("numbers", 24)
    return recipe(
        title="Frontier LLMs in small",
        sentence=SENTENCE,
        data=written.requests("worked", 80, words=768, **world, **sizes),
        stages={
            "write": written.writing(teacher),
            "learn": written.from_records("write", {"answers": answers}, steps=300, batch_size=32),
        },
        claim=claim(),
    )


def claim() -> dict:
    alone = {"data/task/how": "alone", "stages/learn/evaluate/answers/new": 8}
    more = {"operations": (1, 1), "most": 5, "count": 4000, "validation": 1024}
    easy = {**alone, **at("data/task", **more), "stages/learn/steps": 400}
    filtered = at("stages/write/work", after=FILTER)
    far, few = "a fifth of the problems", "three of 256 problems"
    by = ("learn/validation/lenient", "about what sets of 1,024 and five seeds can tell")
    easy_arm, agree = "answers alone, one operation", "of one operation they agree with the teacher"
    return {
        "sentence": "A student of steps solves what a student of answers alone does not.",
        "metric": "learn/test/lenient",
        "held_equal": ("problems, rate of wrong answers, student, steps, batches, optimizer",),
        "arms": {
            "steps": {},
            "steps, filtered": filtered,
            "answers alone": alone,
            easy_arm: easy,
        },
        "contrasts": {
            "steps": above("steps", "answers alone", "by far", 0.2, origin=far),
            "filtered": above("steps, filtered", "steps", "no worse filtered", -0.01, origin=few),
            "ceiling": within(easy_arm, 1 - WRONG + 0.06, f"{agree} no more than it is right", *by),
            "reached": reaches(easy_arm, 1 - WRONG - 0.06, f"{agree} as often as it is right", *by),
        },
    }


def small_density() -> dict:
    denser = above("last", "first", "they are denser", 0.1, origin="a third of the names at stake")
    first = {"stages/write/work/after": ({"step": "read_summary", "which": "first"},)}
    how = {"steps": 300, "batch_size": 32}
    return recipe(
        title="Chain of density in small",
        sentence=SENTENCE,
        data=written.requests("reports", 88, words=768, count=1500, test=256),
        stages={
            "write": written.writing({"teacher": written.script("summariser")}, DENSEST),
            "learn": written.from_records(
                "write", {"summaries": written.answers("density", 24)}, **how
            ),
        },
        claim={
            "sentence": "A student of the last summaries packs more into as many words.",
            "metric": "learn/test/density",
            "held_equal": ("reports, student, steps, batches, optimizer and rate",),
            "arms": {"last": {}, "first": first},
            "contrasts": {"density": denser},
        },
    )


VARIANTS = {"": published, "density": density, "small": small, "small_density": small_density}


def get_config(variant: str = "") -> ConfigDict:
    """The published sizes, or with ``small`` a run of minutes; ``density`` learns summaries."""
    return chosen(VARIANTS, variant, __file__)
