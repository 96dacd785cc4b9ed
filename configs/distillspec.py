"""DistillSpec: a draft model learns from its target on the text that it writes itself, so that
speculative decoding accepts more of it.

Zhou et al., DistillSpec: Improving Speculative Decoding via Knowledge Distillation, ICLR 2024:
10 to 45 % faster than speculative decoding with a draft that was only trained on the task; which
divergence is best depends on task and decoding.

The run on a pod: a target of the size of Llama 2 7B and a draft of 1.1B on prompts and answers in a
JSON-lines file, both fine-tuned first. Finished ones are taken instead with
``--config.stages.target.checkpoint=<folder>``, and likewise the draft:

    python -m jaxdistill.main --config=configs/distillspec.py --workdir=runs/distillspec
        --config.data.path=<file.jsonl> --config.data.tokenizer.path=<folder with tokenizer.json>

The source of Python's own standard library, byte by byte, split by module; minutes:

    python -m jaxdistill.main --config=configs/distillspec.py:small --workdir=runs/distillspec_small
    python -m jaxdistill.claim --config=configs/distillspec.py:small --seeds=3
        --workdir=runs/distillspec_claim

Expect ``acceptance`` of the distilled draft above that of the arm that continues with labels alone.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxdistill.presets import FULLY_SHARDED, at, chosen, language, recipe
from jaxdistill.presets.claims import above
from jaxdistill.presets.language import adamw, decoder, learning

SENTENCE = "A draft that learns from its target on its own text is accepted more often."
PEAK = "stages/distil/optimizer/learning_rate/peak"
# What --tune chose for drafts that learn from their target by total variation, and from labels.
RATE, LABELS_RATE = 3e-3, 1e-2


def drafting(prompt: int, new: int, batches: int, **settings) -> dict:
    """How much of a draft's text its target accepts."""
    lengths = {"prompt": prompt, "new": new, "batch_size": 64, "batches": batches}
    return {"evaluator": "drafting", "against": "target", **lengths, **settings}


def published() -> dict:
    tiny = {**language.LARGE, "width": 2048, "depth": 22, "heads": 32, "groups": 4, "hidden": 5632}
    loss = {"loss": language.next_token(64, 16)}
    own_text = {"frozen": ("target",), "writing": {"prompt": 512, "share": 1.0}}
    common: dict[str, Any] = {"batch_size": 256, "checkpoint_every": 1000}
    return recipe(
        title="DistillSpec, 7B to 1.1B",
        sentence=SENTENCE,
        data=language.json_lines("completion", 1024, prompt="prompt", validation=0.02, test=0.02),
        mesh=FULLY_SHARDED,
        rules=language.SHARED_OUT,
        stages={
            "target": learning(
                language.LLAMA_7B, 5000, adamw(1e-5, 500), loss, checkpoint="", **common
            ),
            "draft": learning(tiny, 5000, adamw(3e-5, 500), loss, checkpoint="", **common),
            "distil": learning(
                tiny,
                20_000,
                adamw(3e-5, 500),
                {**loss, "drafting": drafting(512, 128, 8, block=5)},
                own_text,
                initial={"stage": "draft"},
                **common,
            ),
        },
    )


def small() -> dict:
    loss, draft = {"loss": language.next_token(64, 8)}, decoder(64, 1)
    greedy = {"sampling": {"temperature": 0.0}, "prefix": "greedy_", "sets": ("test",)}
    own_text = language.from_labels_and_teacher(
        "target", 1.0, 0.0, "total_variation", writing={"prompt": 16, "share": 1.0}, chunk=1024
    )
    rates = {"low": {PEAK: 1e-3}, "middle": {PEAK: 3e-3}, "high": {PEAK: 1e-2}}
    grid = {"total variation": rates, "labels": rates}
    learns = {"distiller": {"chunk": 1024}, "evaluate": loss, "batch_size": 32}
    return recipe(
        title="DistillSpec in small",
        sentence=SENTENCE,
        data=language.standard_library(),
        stages={
            # A finished one may be given, so that the seeds of a claim share it.
            "target": learning(decoder(128, 2), 1000, adamw(3e-3, 100), checkpoint="", **learns),
            "draft": learning(draft, 600, adamw(3e-3, 100), **learns),
            "distil": learning(
                draft,
                300,
                adamw(RATE, 50),
                {
                    **loss,
                    "drafting": drafting(16, 48, 6, sets=("validation", "test")),
                    "greedy": drafting(16, 48, 2, block=4, **greedy),
                },
                own_text,
                initial={"stage": "draft"},
                batch_size=32,
                pictures=("positions",),
            ),
        },
        claim=claim(),
        tune={"metric": "distil/validation/acceptance", "seeds": 1, "grid": grid},
    )


def claim() -> dict:
    own = "stages/distil/distiller"
    fixed_text = at(f"{own}/writing", share=0.0)
    labels = {**at(own, ce_weight=1.0), **at(f"{own}/divergence", weight=0.0), **fixed_text}
    three_points = "by total variation on its own text it is accepted more by 0.03 than with labels"
    fixed = "its own text is at most half a point worse than fixed text"
    both = ("total variation", "total variation, fixed text")
    more, fewer = "6 % more tokens a call in blocks of four", "1 % fewer tokens a call"
    longer = "greedy blocks are longer than with labels"
    blocks = "distil/test/greedy_block_efficiency"
    kl = "on its own text total variation beats forward KL"
    return {
        "sentence": "A draft that learns from its target is accepted more often.",
        "metric": "distil/test/acceptance",
        "held_equal": (
            "target, start, steps, batch size and optimizer of the draft",
            "the learning rates tried on validation modules, one of three for labels and "
            "total variation; what else distils shares that of the latter",
            "the tokens that count in a batch, written or not",
        ),
        "arms": {
            "total variation": {},
            "total variation, fixed text": fixed_text,
            "forward KL": at(f"{own}/divergence", name="forward_kl"),
            "labels": {**labels, PEAK: LABELS_RATE},
        },
        "contrasts": {
            "distilled": above("total variation", "labels", three_points, 0.03, origin=more),
            "own text": above(*both, fixed, -0.005, origin=fewer),
            "total variation": above("total variation", "forward KL", kl),
            "greedy": above("total variation", "labels", longer, metric=blocks),
        },
    }


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The run on a pod, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__)
