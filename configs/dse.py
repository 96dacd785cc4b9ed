"""DSE: sentences encoded apart learn what a net that reads both at once says of each pair.

Barkan et al., Scalable Attentive Sentence-Pair Modeling via Distilled Sentence Embedding, AAAI
2020: on five pair tasks of GLUE a student that embeds each sentence by itself loses 4.6 % against
BERT on average, and compares candidates by orders of magnitude faster. Half of its loss is the
task's, half the squared distance to the teacher's logits, which are written down once; an embedding
is the mean over the tokens of the last four layers, and u, v, u v and |u - v| of a pair are scored.

STS-B of GLUE, from published BERTs: whole-word-masking BERT-large teaches, the student starts from
BERT-base. For MRPC and RTE (``--config.data.name=mrpc``) scores become classes:

    python -m jaxdistill.main --config=configs/dse.py --workdir=runs/dse
        --config.data.dir=<STS-B> --config.data.tokenizer.path=<folder of a BERT>
        --config.stages.large.checkpoint=<folder> --config.stages.base.checkpoint=<folder>

Small encoders, on pairs of passages of Python's own library (from one file or not), on STS-B or on
RO-STS; minutes:

    python -m jaxdistill.main --config=configs/dse.py:small --workdir=runs/dse_small
    python -m jaxdistill.claim --config=configs/dse.py:small --config.data.name=stsb
        --config.data.dir=<folder> --seeds=5 --workdir=runs/dse_claim

``models.compared`` scores all of one set of sentences against all of another with such a student.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, encoders, recipe
from jaxdistill.presets.claims import above
from jaxdistill.presets.images import LABELS, accuracy
from jaxdistill.presets.optimizers import adamw

SENTENCE = "Sentences encoded apart learn from a net that reads pairs at once."
SCORES = ("stsb", "ro_sts")
MASK = 103  # the number of [MASK] in BERT's vocabulary
TOP = {"head": "sentence", "top": 4, "first": False}


def halves(classes: int) -> dict:
    """The task and the distance to the teacher's logits, summed over the outputs, half each."""
    task = LABELS["labels"] if classes > 1 else {"loss": "logit_mse", "target": "batch/label"}
    soft = {"loss": "logit_mse", "target": "out", "weight": 0.5 * classes}
    return {"task": {**task, "weight": 0.5}, "teacher": soft}


def cached(stage: str) -> dict:
    """What the teacher says of each pair, by the pair's name."""
    return {"kind": "live", "stage": stage, "cached": {"outputs": {"out": {"codec": "dense"}}}}


def measured(classes: int, **settings) -> dict:
    own = {"sets": ("validation", "test"), **settings}
    return {"quality": accuracy(**own) if classes > 1 else {"evaluator": "correlation", **own}}


def published(data: dict) -> dict:
    classes = 1 if data.get("name", "stsb") in SCORES else 2
    tokenizer = {"name": "file", "path": "", "end": "[SEP]", "start": "[CLS]"}
    data = {"name": "stsb", "dir": "", "length": 128, "tokenizer": tokenizer, "test": 0.0, **data}
    epoch = 323  # 5,749 pairs less a tenth, in batches of 16
    given = encoders.pretraining(24, MASK, 1e-4, 0, 0, checkpoint="")
    whole = {"width": 1024, "heads": 16, "depth": 24}
    teacher = encoders.fine_tuning(data, "large", 24, 3 * epoch, evaluate=measured(classes))
    teacher["student"] |= {**whole, "classes": classes}
    own = {**encoders.BASE, "depth": 12, "dropout": 0.1, **TOP}
    learns = encoders.fine_tuning(data, "base", 12, 5 * epoch, evaluate=measured(classes))
    return recipe(
        title="DSE on STS-B",
        sentence=SENTENCE,
        data=data,
        stages={
            "large": {**given, "student": {**given["student"], **whole}},
            "base": encoders.pretraining(12, MASK, 1e-4, 0, 0, checkpoint=""),
            "teacher": {**teacher, "objective": task(classes)},
            "distil": {
                **learns,
                "student": {"net": "sentence_pair", "encoder": own, "classes": classes},
                "initial": {"stage": "base", "parts": encoders.body(12, "encoder/")},
                "targets": cached("teacher"),
                "objective": halves(classes),
            },
        },
    )


def small(data: dict) -> dict:
    name = data.get("name", "library_pairs")
    classes = 1 if name in SCORES else 2
    words = {"name": "bpe", "vocabulary": 2000}
    sets = {"length": 40, "tokenizer": words, "validation": 0.1}
    sets |= {"test": 0.2} if name == "library_pairs" else {"dir": "", "test": 0.0}
    net = {"net": "text_encoder", "width": 64, "heads": 4, "hidden": 128, "depth": 2}
    common = {"optimizer": adamw(1e-3, 50, weight_decay=0.01), "batch_size": 32}
    common |= {"steps": 800, "evaluate": measured(classes)}
    own = {
        "net": "sentence_pair",
        "encoder": {**net, **TOP, "top": 2},
        "hidden": 64,
        "classes": classes,
    }
    teacher = {**net, "head": "classes", "classes": classes, "dropout": 0.1}
    return recipe(
        title="DSE in small",
        sentence=SENTENCE,
        data={"name": name, **sets, **data},
        stages={
            "teacher": {"student": teacher, "objective": task(classes), **common},
            "distil": {
                "student": own,
                "targets": cached("teacher"),
                "objective": halves(classes),
                **common,
            },
        },
        claim=claim(classes),
    )


def task(classes: int) -> dict:
    return {"labels": halves(classes)["task"] | {"weight": 1.0}}


def claim(classes: int) -> dict:
    quality = "accuracy" if classes > 1 else "spearman"
    alone = at("stages/distil", targets=None, objective=task(classes))
    return {
        "sentence": "A net that reads pairs at once teaches one that reads each by itself.",
        "metric": f"distil/test/{quality}",
        "held_equal": ("net, steps, batches, optimizer and rate of the student",),
        "arms": {"distilled": {}, "alone": {"recipe": ("distil",), **alone}},
        "contrasts": {"logits": above("distilled", "alone", "with logits it is better")},
    }


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "", *, data: Mapping[str, Any] | None = None) -> ConfigDict:
    """The published run, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__, data=dict(data or {}))
