"""UniversalNER: a student finds what a text says of any type, as a teacher who named all of it.

Zhou et al., UniversalNER: Targeted Distillation from Large Language Models for Open Named Entity
Recognition, ICLR 2024: LLaMA 7B and 13B, of 45,889 passages in which ChatGPT named 240,725 entities
of 13,020 types, come out 7 to 9 points of F1 above ChatGPT on 43 data sets without their labels.
Questions about types that a passage does not have are drawn as often as types occur.

A file of requests (`jaxdistill.tasks.entities.request` makes one of a passage), a teacher behind a
server, a student of Llama 7B's size:

    python -m jaxdistill.main --config=configs/universal_ner.py --workdir=runs/ner
        --config.data.path=<requests.jsonl> --config.data.tokenizer.path=<folder>
        --config.stages.base.checkpoint=<folder>

Passages of an invented world, whose teacher leaves out or mistakes one pair in ten; minutes:

    python -m jaxdistill.main --config=configs/universal_ner.py:small --workdir=runs/ner_small
    python -m jaxdistill.claim --config=configs/universal_ner.py:small --seeds=5 --workdir=runs/ner

Tagged passages, such as RONEC's: ``--config.data.task.path=<file>``, and the same for the script
of the teacher, ``--config.stages.write.work.teachers.tagger.script.path=<file>``.

Expect ``absent``, the share of questions about absent types that are answered by none, near 0
without negatives, and ``f1`` far above with them.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import FULLY_SHARDED, at, chosen, language, recipe, written
from jaxdistill.presets.claims import above, within

SENTENCE = "A student answers which entities of a type a text has, also of types it does not have."
UNSEEN = ("eastern city", "northern river", "southern ship")
NEGATIVES = {"step": "negatives", "ratio": 1.0, "by": "frequency"}


def steps(*more: dict, most: int, **first) -> tuple[dict, ...]:
    """One question a type, perhaps negatives, and one conversation a passage."""
    return ({"step": "asked_by_type", **first}, *more, {"step": "joined", "most": most})


def published() -> dict:
    answers = written.answers("set_f1", 256, sets=("test",))
    return recipe(
        title="UniversalNER, 7B",
        sentence=SENTENCE,
        data=written.of_file(1024),
        mesh=FULLY_SHARDED,
        rules=language.SHARED_OUT,
        stages={
            "base": written.finished(language.LLAMA_7B),
            "write": written.writing(
                {"chatgpt": written.server("gpt-3.5-turbo", "OPENAI_API_KEY")},
                ({"step": "finished"}, *steps(NEGATIVES, most=24)),
                failures=0.01,
            ),
            "learn": language.learning(
                language.LLAMA_7B,
                530,  # three epochs
                {**language.adamw(2e-5, 21, end=0.0), "weight_decay": 0.0},
                {"answers": answers},
                data={"stage": "write"},
                initial={"stage": "base"},
                batch_size=256,
                checkpoint_every=100,
            ),
        },
    )


def small() -> dict:
    world = {"train": 500, "unseen": UNSEEN, "system": ""}
    tagger = {"tagger": written.script("name_entities", missed=0.05, wrong=0.05, broken=0.02)}
    measured = ({"measure": "entity_truth"},)
    asked = steps(NEGATIVES, most=4, without=UNSEEN)
    return recipe(
        title="UniversalNER in small",
        sentence=SENTENCE,
        data=written.requests("entities", 96, words=600, **world),
        stages={
            "write": written.writing(tagger, asked, measures=measured),
            "learn": written.from_records(
                "write",
                {"answers": {**written.answers("set_f1", 16), "prompt": 64}},
                steps=500,
                batch_size=32,
            ),
        },
        claim=claim(),
    )


def claim() -> dict:
    def drawn(*negatives: dict) -> dict:
        return at("stages/write/work", after=steps(*negatives, most=4, without=UNSEEN))

    return {
        "sentence": "Negatives keep a student from finding types that a text does not have.",
        "metric": "learn/test/f1",
        "held_equal": ("passages, teacher, student, steps, batches, optimizer and rate",),
        "arms": {"by frequency": {}, "no negatives": drawn()},
        "contrasts": {
            "f1": above(
                "by frequency", "no negatives", "negatives are worth 10 points of F1", 0.1
            ),
            "collapse": within(
                "no negatives", 0.05, "without them hardly any absent type is seen to be absent",
                "learn/test/absent",
            ),
            "unseen": above(
                "by frequency", "no negatives", "so they are on types never asked about",
                metric="learn/test/unseen_f1",
            ),
        },
    }  # fmt: skip


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published sizes, or with ``small`` a run of minutes."""
    return chosen(VARIANTS, variant, __file__)
