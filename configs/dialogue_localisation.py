"""Localised dialogues: translated by a teacher, learnt in short as states, acts and replies.

Moradshahi, Semnani, Lam, Zero and Few-Shot Localization of Task-Oriented Dialogue Agents with a
Distilled Representation, EACL 2023: from Chinese to English, without an English dialogue, 46.7 % of
tasks succeed; with a tenth of them, within 5 % of training on all. A turn is some questions to one
model, which sees the state and the last two acts in place of all that was said. Entities are marked
in the translator's question and put back; translations of another meaning (cosine under 0.8) go.

Here a turn has three questions (state, act, reply): when to look a place up follows from the state.
Dialogues of a file (`jaxdistill.tasks.localising`), a translator behind a server, a dictionary of
words in place of sentence embeddings, and a decoder of mBART-50's size:

    python -m jaxdistill.main --config=configs/dialogue_localisation.py --workdir=runs/dialogues
        --config.data.task.path=<file.jsonl> --config.data.task.language=<language>
        --config.data.tokenizer.path=<folder>
        --config.stages.write.work.after.1.embedder.path=<file.json>

A world of places to be found, a translator of known errors; 2.3 minutes a seed on one core:

    python -m jaxdistill.main --config=configs/dialogue_localisation.py:small --workdir=runs/small
    python -m jaxdistill.claim --config=configs/dialogue_localisation.py:small --workdir=runs/claim

Expect ``records/precision`` near 1, ``joint_goal`` between 0.7 and 1, and about 0.6 for a student
that sees all that was said.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import FULLY_SHARDED, at, chosen, language, recipe, written
from jaxdistill.presets.claims import above
from jaxdistill.presets.language import learning

SENTENCE = "A state in place of all that was said, entities put back, other meanings dropped."
ALIGNED = ({"step": "aligned"},)
MEASURED = ({"measure": "translations"},)


def alike(**embedder) -> tuple:
    return ({"step": "similar", "embedder": embedder, "threshold": 0.8},)


ALIKE = alike(name="dialogue_world")


def learnt(history: str = "compact") -> tuple:
    return ({"step": "localised", "history": history},)


def service(prompt: int, new: int, **settings) -> dict:
    play = {"play": "service", "history": "compact", **settings}
    asked = {"sets": ("validation", "test"), "prompt": prompt, "new": new, "batch_size": 128}
    return {"evaluator": "conversed", "play": play, **asked}


def published() -> dict:
    student = {**language.LARGE, "width": 1024, "depth": 24, "heads": 16, "hidden": 4096}
    task = {"task": "dialogues_of_file", "path": "", "language": "English", "marked": True}
    tokenizer = {"name": "file", "path": ""}
    steps = (*ALIGNED, *alike(name="dictionary", path=""), *learnt())
    return recipe(
        title="Localised dialogues, 0.6B",
        sentence=SENTENCE,
        data={"name": "requests", "task": task, "length": 512, "tokenizer": tokenizer},
        mesh=FULLY_SHARDED,
        rules=language.SHARED_OUT,
        stages={
            "write": written.writing({"translator": written.server("nllb-200")}, steps, pack=True),
            "learn": learning(
                student,
                10_000,
                language.adamw(1e-4, 500, end=0.0),
                {"service": service(480, 128, places="")},
                data={"stage": "write"},
                batch_size=256,
            ),
        },
    )


def small() -> dict:
    task = {"count": 500, "held_out": 128, "marked": True}
    steps = (*ALIGNED, *ALIKE, *learnt())
    teacher = {"translator": written.script("translator")}
    return recipe(
        title="Localised dialogues in small",
        sentence=SENTENCE,
        data=written.requests("localised_dialogues", 112, words=1024, **task),
        stages={
            "write": written.writing(teacher, steps, measures=MEASURED, pack=True),
            "learn": written.from_records(
                "write",
                {"service": service(96, 24)},
                steps=300,
                rate=5e-3,
                batch_size=16,
                distiller={"chunk": 4096},
            ),
        },
        claim=claim(),
    )


def claim() -> dict:
    after = "stages/write/work/after"
    full = {after: (*ALIGNED, *ALIKE, *learnt("full"))}
    full |= at("stages/learn/evaluate/service/play", history="full")
    goal = {"metric": "learn/test/joint_goal"}
    return {
        "sentence": "Compact beats full history, alignment none; the filter makes pairs right.",
        "metric": "write/records/precision",
        "held_equal": ("dialogues, student, steps, tokens of a batch, optimizer and rate",),
        "arms": {
            "compact": {},
            "full history": full,
            "not aligned": {"data/task/marked": False, after: (*ALIKE, *learnt())},
            "not filtered": {after: (*ALIGNED, *learnt()), "recipe": ("write",)},
        },
        "contrasts": {
            "compact": above(
                "compact", "full history", "a compact state beats full history", **goal
            ),
            "aligned": above("compact", "not aligned", "entities put back beat none", **goal),
            "filtered": above("compact", "not filtered", "the filter makes more pairs right"),
        },
    }


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published size, or with ``small`` a run of minutes."""
    return chosen(VARIANTS, variant, __file__)
