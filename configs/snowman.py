"""Snowman: commonsense of what is and what is not so, the latter asked about again.

Wang et al., Snowman: A Million-scale Chinese Commonsense Knowledge Graph Distilled from Foundation
Model, 2023: over ten million triples from ChatGPT, of which people accept 90.6 %; negative ones are
accepted less often, so ChatGPT is asked again, with examples, whether each of them holds. There is
no public code: the prompts, in English, relations, votes and the student are ours.

Things from a file in JSON lines (``head``), such as ``jaxdistill.records.expand`` writes; a writer
and a critic behind servers; a student of 350 M parameters that finishes ``head relation [GEN]``:

    python -m jaxdistill.main --config=configs/snowman.py --workdir=runs/snowman
        --config.data.task.path=<file> --config.data.tokenizer.path=<folder>

A small world, its writer wrong about 30 % of what is not so, its critic about 10 %; minutes:

    python -m jaxdistill.main --config=configs/snowman.py:small --workdir=runs/snowman_small
    python -m jaxdistill.claim --config=configs/snowman.py:small --seeds=5 --workdir=runs/snowman_5

Expect ``accepted``, the share of right ones among negative triples, as the closed form of n votes
has it (``expected``), and a student of what was confirmed that is wrong less often.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import FULLY_SHARDED, at, chosen, language, recipe, written
from jaxdistill.presets.claims import above, within

SENTENCE = "What is not so is asked about again, and only what is confirmed is learnt."
ERROR = 0.1  # of each vote, in the small form


def confirmed(critic: dict, votes: int) -> tuple[dict, ...]:
    return ({"step": "confirmed", "critic": critic, "votes": votes},)


def published() -> dict:
    writer = written.server("gpt-3.5-turbo", "OPENAI_API_KEY")
    tidy = ({"step": "finished"}, {"step": "normalised"})
    unique = {"step": "exact_duplicates", "of": "conversation"}
    student = {"net": "decoder", "dtype": "bfloat16", "width": 1024, "depth": 24, "heads": 16}
    tokenizer = {"name": "file", "path": ""}
    task = {"task": "commonsense", "path": "", "samples": 10}
    return recipe(
        title="Snowman",
        sentence=SENTENCE,
        data={"name": "requests", "task": task, "length": 64, "tokenizer": tokenizer},
        mesh=FULLY_SHARDED,
        rules=language.SHARED_OUT,
        stages={
            "write": written.writing(
                {"chatgpt": writer},
                (*tidy, unique, *confirmed(writer, 1)),
                failures=0.01,
                pack=True,
            ),
            "learn": language.learning(
                student,
                20_000,
                language.adamw(1e-4, 1000, end=0.0),
                {},
                data={"stage": "write"},
                batch_size=256,
                checkpoint_every=2000,
            ),
        },
    )


def small() -> dict:
    writer = {"writer": written.script("tell_tails", wrong=0.1, wrong_negative=0.3)}
    measured = {"measure": "acceptance", "votes": 3, "error": ERROR}
    critic = written.script("confirm_tails", error=ERROR)
    return recipe(
        title="Snowman in small",
        sentence=SENTENCE,
        data=written.requests("commonsense", 96, words=700),
        stages={
            "write": written.writing(writer, confirmed(critic, 3), measures=(measured,), pack=True),
            "learn": written.from_records(
                "write",
                {"tails": {**written.answers("right_share", 8), "prompt": 24, "temperature": 1.0}},
                steps=200,
                batch_size=16,
            ),
        },
        claim=claim(),
    )


def claim() -> dict:
    def asked(votes: int, **settings) -> dict:
        critic = written.script("confirm_tails", error=ERROR, **settings)
        return at("stages/write/work", after=confirmed(critic, votes) if votes else ()) | {
            "stages/write/work/measures": (
                {"measure": "acceptance", "votes": votes, "error": ERROR},
            )
        }

    drawn = "three standard errors of a hundredth"
    alone = {"recipe": ("write",)}
    return {
        "sentence": "The more votes confirm what is not so, the more of it is right.",
        "metric": "write/records/accepted",
        "held_equal": ("answers of the writer, student, steps, batches, optimizer and rate",),
        "arms": {
            "three votes": {},
            "one vote": {**asked(1), **alone},
            "one mind": {**asked(3, alike=1.0), **alone},
            "unconfirmed": asked(0),
        },
        "contrasts": {
            "votes": above("three votes", "unconfirmed", "confirmed ones are right", 0.2),
            "three": within(
                "three votes", 0.03, "as many as three votes promise", "write/records/off", drawn
            ),
            "one": within(
                "one vote", 0.03, "as many as one vote promises", "write/records/off", drawn
            ),
            "alike": above("three votes", "one mind", "votes of one mind are worth less"),
            "student": above(
                "three votes", "unconfirmed", "so are a student's", 0.1, "learn/test/negative"
            ),
        },
    }


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published form, or with ``small`` a run of minutes."""
    return chosen(VARIANTS, variant, __file__)
