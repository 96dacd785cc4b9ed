"""Encoders of text distilled from an ensemble: a student of half the layers of two BERTs, and how
loyal it is to them.

Avram et al., Distilling the Knowledge of Romanian BERTs Using Multiple Teachers, LREC 2022: a
student of six layers keeps all but a point or two of two BERT-base teachers on seven tasks, and is
twice as fast. It starts from every second layer of the first teacher and learns as DistilBERT does:
softened logits of the masked tokens (weight 5, temperature 2), the tokens themselves (2), and the
direction of the last hidden state (1); weights, temperature and rates are DistilBERT's, as the
authors' code does not hold theirs. Loyalty to the teachers is measured on tasks that all were
fine-tuned for, each by itself: the share of equal labels, one minus the root of the Jensen-Shannon
divergence (Xu et al., EMNLP 2021), and for scores their correlation.

Two published BERTs of one vocabulary (teachers of different vocabularies have no logits in common
and are refused), texts to distil on, and LaRoSeDa to fine-tune and measure on:

    python -m jaxdistill.main --config=configs/bert_distil.py --workdir=runs/bert
        --config.stages.first.checkpoint=<folder> --config.stages.second.checkpoint=<folder>
        --config.data.dir=<folder of .txt files> --config.data.tokenizer.path=<folder of a teacher>
        --config.stages.<name>_task.data.dir=<LaRoSeDa> (three stages: first, second, student)
        --config.stages.<name>_task.data.tokenizer.path=<folder of a teacher>

Two encoders that have learnt the two halves of a set of passages of Python's own library, to tell
its packages apart, and a student of half their layers; minutes:

    python -m jaxdistill.main --config=configs/bert_distil.py:small --workdir=runs/bert_small
    python -m jaxdistill.claim --config=configs/bert_distil.py:small --seeds=3
        --workdir=runs/bert_claim

The small one runs on SST-2, LaRoSeDa and RO-STS (a regression) too:

    --config.data.name=sst2 --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, recipe
from jaxdistill.presets.claims import above
from jaxdistill.presets.encoders import CHOSEN, TOKENS, ensemble, fine_tuning, loyalty, pretraining
from jaxdistill.presets.images import LABELS, accuracy
from jaxdistill.presets.optimizers import adamw

TEACHERS = ("first", "second")
ENSEMBLE = ensemble({name: name for name in TEACHERS})
MASK = 4  # the number of [MASK] in the teachers' vocabulary


def direction(teacher: str) -> dict:
    """That of the last hidden state."""
    where = {"student": "block_5", "target": f"{teacher}/block_11", "where": "batch/mask"}
    return {"loss": "hidden_cosine", "weight": 1.0 / len(TEACHERS), **where}


def published() -> dict:
    tokenizer = {"name": "file", "path": "", "end": "[SEP]", "start": "[CLS]"}
    files = {"dir": "", "length": 512, "tokenizer": tokenizer, "test": 0.0}
    task = {"name": "laroseda", **files}
    # A folder of BertForMaskedLM is taken instead of training it.
    given = pretraining(12, MASK, 1e-4, 1_000_000, 10_000, checkpoint="")
    student = pretraining(6, MASK, 5e-4, 200_000, 5_000)
    student["student"]["dropout"] = 0.1
    student["objective"] = {
        "soft": {"loss": "hinton_kd", "temperature": 2.0, "weight": 5.0, **CHOSEN},
        "tokens": {**TOKENS, "weight": 2.0},
        **{f"direction_{name}": direction(name) for name in TEACHERS},
    }
    tasks = {name: f"{name}_task" for name in TEACHERS}
    loyal = {"accuracy": accuracy(batch_size=64), "loyalty": loyalty(*tasks.values())}
    return recipe(
        title="Romanian DistilBERT of two teachers",
        sentence="A student of half the layers is loyal to an ensemble of BERTs.",
        data={"name": "text_files", **files, "validation": 0.01},
        stages={
            "first": given,
            "second": given,
            "student": {
                **student,
                "initial": {"stage": "first", "layers": "every_second"},
                "targets": ENSEMBLE,
            },
            "first_task": fine_tuning(task, "first", 12, 4 * 675),
            "second_task": fine_tuning(task, "second", 12, 4 * 675),
            "student_task": {
                **fine_tuning(task, "student", 6, 4 * 675),
                # Nothing is learnt from them here: they are what it is compared with.
                "targets": ensemble(tasks),
                "evaluate": loyal,
                "pictures": ("reliability",),
            },
        },
    )


def small() -> dict:
    net = {"net": "text_encoder", "width": 32, "heads": 4, "hidden": 64, "head": "classes"}
    optimizer = adamw(2e-3, 50, weight_decay=0.01)
    common = {"optimizer": optimizer, "batch_size": 32, "log_every": 100}

    def teacher(number: int, low: float, high: float) -> dict:
        return {
            "student": {**net, "depth": 4, "dropout": 0.1},
            "records": {"share": (low, high)},
            "seed": number,
            "objective": LABELS,
            "steps": 400,
            "evaluate": {"accuracy": accuracy()},
            **common,
        }

    words = {"name": "bpe", "vocabulary": 2000}
    passages = {"length": 32, "tokenizer": words, "validation": 0.1, "test": 0.2}
    return recipe(
        title="A student of two encoders in small",
        sentence="A student of half the layers is loyal to an ensemble of two encoders.",
        data={"name": "library_passages", "dir": "", **passages},
        stages={
            # Unlike teachers: each has another start and another half of the records.
            "first": teacher(1, 0.0, 0.5),
            "second": teacher(2, 0.5, 1.0),
            "distil": {
                "student": {**net, "depth": 2},
                "initial": {"stage": "first", "layers": "every_second"},
                "targets": ENSEMBLE,
                "objective": {"soft": {"loss": "hinton_kd", "temperature": 2.0, "target": "out"}},
                "steps": 250,
                "evaluate": {"accuracy": accuracy(), "loyalty": loyalty(*TEACHERS)},
                "pictures": ("reliability",),
                **common,
            },
        },
        variants={
            "sst2": {"data/test": 0.0, "data/length": 32},
            "laroseda": {"data/test": 0.0, "data/length": 48},
            "ro_sts": pairs(),
        },
        claim=claim(),
    )


def claim() -> dict:
    objective = "stages/distil/objective"
    return {
        "sentence": "The student of an ensemble is more loyal to it than students of single "
        "teachers.",
        "metric": "distil/test/probability_loyalty",
        "held_equal": (
            "teachers, start (every second layer of the first one), steps, batches, records, "
            "optimizer and learning rate of the student",
        ),
        "arms": {
            "ensemble": {},
            "first teacher": {f"{objective}/soft/target": "first/out"},
            "second teacher": {f"{objective}/soft/target": "second/out"},
            "labels": {f"{objective}/soft": LABELS["labels"]},
        },
        "contrasts": contrasts("probability", "label"),
    }


def contrasts(*measures: str) -> dict:
    return {
        f"{arm}, {measure}": above(
            "ensemble",
            arm,
            f"more loyal to the ensemble than of {arm}, by its {measure}",
            metric=f"distil/test/{measure}_loyalty",
        )
        for arm in ("first teacher", "second teacher", "labels")
        for measure in measures
    }


def pairs() -> dict:
    """What the small run becomes on pairs of sentences with a score of how alike they are."""
    error = {"evaluator": "squared_error", "sets": ("validation", "test")}
    gap, distil = {"loss": "logit_mse", "target": "batch/label"}, "stages/distil"
    found = {
        **at("data", test=0.0, length=48),
        f"{distil}/targets/average": "logits",
        f"{distil}/objective/soft": {"loss": "logit_mse", "target": "out"},
        f"{distil}/evaluate/loyalty/scores": True,
        f"{distil}/pictures": (),
        "claim/metric": "distil/test/regression_loyalty",
        "claim/arms/labels": {f"{distil}/objective/soft": gap},
        "claim/contrasts": contrasts("regression", "rank"),
    }
    for stage in (*TEACHERS, "distil"):
        found |= at(f"stages/{stage}/student", classes=1)
        found |= at(f"stages/{stage}/evaluate", accuracy=error)
    for stage in TEACHERS:
        found |= at(f"stages/{stage}", objective={"labels": gap})
    return found


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__)
