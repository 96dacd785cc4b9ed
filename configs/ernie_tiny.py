"""ERNIE-Tiny: four stages from a general to a finished student, each changing one thing.

Su et al., ERNIE-Tiny: A Progressive Distillation Framework for Pretrained Transformer Compression,
2021: a BERT of four layers keeps more than 98 % of BERT-base's score on GLUE and is a point above
others of its size. General distillation (GD) learns inside from the pretrained teacher on general
text; general-enhanced distillation (GED) from the fine-tuned teacher on the same text;
task-adaptive distillation (TAD) from it on the text of the task; task-specific distillation (TSD)
its answers and labels too. The authors' code is not public: the structure is the paper's, what is
learnt inside is TinyBERT's (attention scores and hidden states, squared), all weights are 1.

SST-2 from a published BERT-base; general text in a folder of .txt files:

    python -m jaxdistill.main --config=configs/ernie_tiny.py --workdir=runs/ernie
        --config.data.dir=<text> --config.data.tokenizer.path=<folder of a BERT>
        --config.stages.pretrained.checkpoint=<folder of that BERT>
        --config.task.dir=<SST-2> --config.task.tokenizer.path=<folder of that BERT>

Passages of Python's own library, to be told apart by their package: all are general text, and 2,400
have labels. Minutes; the claim has each subset of the first three stages before the last, all with
the same steps in total:

    python -m jaxdistill.main --config=configs/ernie_tiny.py:small --workdir=runs/ernie_small
    python -m jaxdistill.claim --config=configs/ernie_tiny.py:small --seeds=5
        --workdir=runs/ernie_claim
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxdistill.presets import chosen, encoders, recipe
from jaxdistill.presets.claims import above
from jaxdistill.presets.images import LABELS, accuracy
from jaxdistill.presets.optimizers import adamw

SENTENCE = "A small encoder comes from general knowledge to a task in four stages."
BEFORE = {"gd": "pretrained", "ged": "finetuned", "tad": "finetuned"}  # stage: its teacher
MASK = 103  # the number of [MASK] in BERT's vocabulary


def chain(student: dict, learnt: dict, lengths: Mapping[str, dict], task: dict) -> dict:
    """All four stages; each starts from the one before, with a new optimizer."""
    found, before = {}, None
    for stage, own in lengths.items():
        targets = {"kind": "live", "stage": BEFORE.get(stage, "finetuned")}
        said = {"student": student, "objective": learnt, "targets": targets, **own}
        said |= task if stage in ("tad", "tsd") else {"student": {**student, "head": "none"}}
        found[stage] = said | {"initial": begun(before, student["depth"])}
        before = stage
    soft = {"loss": "hinton_kd", "temperature": 1.0}
    found["tsd"] |= {"objective": {**learnt, "soft": soft, **LABELS}}
    return found


def begun(before: str | None, depth: int) -> dict | None:
    """The encoder that the stage before it left; a head learns in the last stage alone."""
    return {"stage": before, "parts": encoders.body(depth)} if before else None


def published(task: dict) -> dict:
    tokenizer = {"name": "file", "path": "", "end": "[SEP]", "start": "[CLS]"}
    files = {"dir": "", "length": 128, "tokenizer": tokenizer, "test": 0.0}
    epoch = 1894  # 67,349 sentences less a tenth, in batches of 32
    task = {"name": "sst2", **files, **task}
    tiny = {**encoders.BASE, "width": 312, "depth": 4, "hidden": 1200, "head": "classes"}
    general = {"optimizer": encoders.optimizer(1e-4, 10_000), "batch_size": 256}
    general |= {"checkpoint_every": 5000}
    own = {"optimizer": encoders.optimizer(5e-5, epoch), "batch_size": 32}
    lengths = {"gd": {**general, "steps": 400_000}, "ged": {**general, "steps": 200_000}}
    lengths |= {"tad": {**own, "steps": 20 * epoch}, "tsd": {**own, "steps": 3 * epoch}}
    data = {"data": task, "evaluate": {"accuracy": accuracy(batch_size=64)}}
    given = encoders.pretraining(12, MASK, 1e-4, 1_000_000, 10_000, checkpoint="")
    finetuned = encoders.fine_tuning(task, "pretrained", 12, 3 * epoch, batch_size=32)
    return recipe(
        title="ERNIE-Tiny, BERT-base to four layers",
        sentence=SENTENCE,
        data={"name": "text_files", **files, "validation": 0.01},
        stages={
            "pretrained": given,
            "finetuned": finetuned,
            **chain(tiny, encoders.tinybert(4, 3, 12), lengths, data),
        },
    )


TOTAL = 1200  # steps of all stages of an arm together
DEPTH = 2


def small() -> dict:
    net = {"net": "text_encoder", "width": 64, "heads": 4, "hidden": 128, "depth": 4}
    student = {**net, "width": 32, "hidden": 64, "depth": DEPTH, "head": "classes"}
    common = {"optimizer": adamw(2e-3, 50, weight_decay=0.01), "batch_size": 32}
    few = {"records": {"labelled": 300}, "evaluate": {"accuracy": accuracy()}}
    lengths = {stage: {**common, "steps": TOTAL // 4} for stage in (*BEFORE, "tsd")}
    words = {"name": "bpe", "vocabulary": 2000}
    return recipe(
        title="ERNIE-Tiny in small",
        sentence=SENTENCE,
        data={
            "name": "library_passages",
            **{"length": 32, "tokenizer": words, "validation": 0.1, "test": 0.2},
        },
        stages={
            "pretrained": {
                "student": {**net, "head": "masked"},
                "view": {"mask": {"token": 1, "share": 0.15}},
                "objective": {"tokens": encoders.TOKENS},
                **common,
                "steps": 1500,
            },
            "finetuned": {
                "student": {**net, "head": "classes", "dropout": 0.1},
                "initial": {"stage": "pretrained", "parts": encoders.body(4)},
                "objective": LABELS,
                **common,
                **few,
                "steps": 600,
            },
            **chain(student, encoders.tinybert(DEPTH, 2, 4), lengths, few),
        },
        claim=claim(),
    )


def claim() -> dict:
    arms = {}
    for count in range(len(BEFORE) + 1):
        for stages in itertools.combinations(BEFORE, count):
            arms[" + ".join((*stages, "tsd"))] = subset(stages)
    whole = " + ".join((*BEFORE, "tsd"))
    return {
        "sentence": "Stages that change one thing at a time lose nothing against fewer.",
        "metric": "tsd/test/accuracy",
        "held_equal": ("teachers, net, batches, optimizer, rate, the steps of all stages",),
        "arms": arms,
        "contrasts": {
            "direct": above(whole, "tsd", "the whole chain beats the last stage alone"),
            "general": above(
                whole, "gd + tsd", "it is at most a point below general and last", -0.01,
                origin="less than single seeds differ by",
            ),
        },
    }  # fmt: skip


def subset(stages: Sequence[str]) -> dict:
    """The arm of these stages and the last, each with its part of the steps."""
    order = (*stages, "tsd")
    found: dict[str, Any] = {"recipe": ("pretrained", "finetuned", *order)}
    for stage, before in zip(order, (None, *stages), strict=True):
        found[f"stages/{stage}/initial"] = begun(before, DEPTH)
        found[f"stages/{stage}/steps"] = TOTAL // len(order)
    return found


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "", *, task: Mapping[str, Any] | None = None) -> ConfigDict:
    """The published run, or with ``small`` one of minutes; ``task`` says what its data are."""
    given = {} if variant else {"task": dict(task or {})}
    return chosen(VARIANTS, variant, __file__, **given)
