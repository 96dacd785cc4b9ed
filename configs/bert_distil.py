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

Two published BERTs of one vocabulary (teachers of unlike vocabularies have no logits in common and
are refused), texts to distil on, and LaRoSeDa to fine-tune and measure on:

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

LABELS = {"labels": {"loss": "cross_entropy", "target": "batch/label"}}
TEACHERS = ("first", "second")
ENSEMBLE = {
    "kind": "ensemble",
    "members": {name: {"kind": "live", "stage": name} for name in TEACHERS},
}


def get_config(size: str = "") -> ConfigDict:
    """The published run, or with ``small`` one of minutes."""
    if size not in ("", "small"):
        raise ValueError(f"configs/bert_distil.py knows no size {size!r}, only :small")
    return ConfigDict(small() if size else published())


def published() -> dict:
    tokenizer = {"name": "file", "path": "", "end": "[SEP]", "start": "[CLS]"}
    task = {"name": "laroseda", "dir": "", "length": 512, "tokenizer": tokenizer, "test": 0.0}
    base = {"net": "text_encoder", "width": 768, "heads": 12}
    accuracy = {"evaluator": "classification", "sets": ("validation", "test"), "batch_size": 64}

    # The number of [MASK] in the teachers' vocabulary.
    mask = {"mask": {"token": 4, "share": 0.15}}
    chosen = {"where": "batch/chosen"}
    tokens = {"loss": "cross_entropy", "target": "batch/label", **chosen}

    def optimizer(peak: float, warmup: int) -> dict:
        return {
            "name": "adamw",
            "weight_decay": 0.01,
            "clip": 5.0,
            "learning_rate": {"schedule": "warmup_cosine", "peak": peak, "warmup": warmup},
        }

    def given() -> dict:
        return {
            "student": {**base, "depth": 12, "head": "masked"},
            "view": mask,
            "objective": {"tokens": tokens},
            "optimizer": optimizer(1e-4, 10_000),
            "batch_size": 256,
            "steps": 1_000_000,
            "checkpoint_every": 10_000,
            "checkpoint": "",  # a folder of BertForMaskedLM, taken in place of training it
        }

    def tuned(start: str, depth: int) -> dict:
        blocks = [f"block_{index}" for index in range(depth)]
        return {
            "data": task,
            "student": {**base, "depth": depth, "head": "classes", "dropout": 0.1},
            "initial": {
                "stage": start,
                "parts": {path: path for path in ("words", "places", "kinds", "norm", *blocks)},
            },
            "objective": LABELS,
            "optimizer": optimizer(2e-5, 100),
            "batch_size": 16,
            "steps": 4 * 675,
            "evaluate": {"accuracy": accuracy},
        }

    return {
        "title": "Romanian DistilBERT of two teachers",
        "sentence": "A student of half the layers is loyal to an ensemble of BERTs.",
        "seed": 0,
        "data": {
            "name": "text_files",
            "dir": "",
            "length": 512,
            "tokenizer": tokenizer,
            "validation": 0.01,
            "test": 0.0,
        },
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("first", "second", "student", "first_task", "second_task", "student_task"),
        "stages": {
            "first": given(),
            "second": given(),
            "student": {
                "student": {**base, "depth": 6, "head": "masked", "dropout": 0.1},
                "initial": {"stage": "first", "layers": "every_second"},
                "targets": ENSEMBLE,
                "view": mask,
                "objective": {
                    "soft": {"loss": "hinton_kd", "temperature": 2.0, "weight": 5.0, **chosen},
                    "tokens": {**tokens, "weight": 2.0},
                    **{
                        f"direction_{name}": {
                            "loss": "hidden_cosine",
                            "student": "block_5",
                            "target": f"{name}/block_11",
                            "weight": 1.0 / len(TEACHERS),
                            "where": "batch/mask",
                        }
                        for name in TEACHERS
                    },
                },
                "optimizer": optimizer(5e-4, 10_000),
                "batch_size": 256,
                "steps": 200_000,
                "checkpoint_every": 5_000,
            },
            "first_task": tuned("first", 12),
            "second_task": tuned("second", 12),
            "student_task": {
                **tuned("student", 6),
                # Nothing is learnt from them here: they are what it is compared with.
                "targets": {
                    "kind": "ensemble",
                    "members": {
                        name: {"kind": "live", "stage": f"{name}_task"} for name in TEACHERS
                    },
                },
                "evaluate": {
                    "accuracy": accuracy,
                    "loyalty": loyal(*(f"{name}_task" for name in TEACHERS)),
                },
                "pictures": ("reliability",),
            },
        },
    }


def loyal(*teachers: str, scores: bool = False) -> dict:
    return {
        "evaluator": "loyalty",
        "teacher": False,
        "against": teachers,
        "scores": scores,
        "sets": ("validation", "test"),
        "batch_size": 64,
    }


def small() -> dict:
    net = {"net": "text_encoder", "width": 32, "heads": 4, "hidden": 64, "head": "classes"}
    accuracy = {"evaluator": "classification", "sets": ("validation", "test")}
    optimizer = {
        "name": "adamw",
        "weight_decay": 0.01,
        "learning_rate": {"schedule": "warmup_cosine", "peak": 2e-3, "warmup": 50},
    }
    common = {"optimizer": optimizer, "batch_size": 32, "log_every": 100}
    soft = "stages/distil/objective/soft"

    def teacher(number: int, low: float, high: float) -> dict:
        return {
            "student": {**net, "depth": 4, "dropout": 0.1},
            "records": {"share": (low, high)},
            "seed": number,
            "objective": LABELS,
            "steps": 400,
            "evaluate": {"accuracy": accuracy},
            **common,
        }

    def contrast(arm: str, metric: str) -> dict:
        return {
            "sentence": f"more loyal to the ensemble than of {arm}, by its {metric}",
            "metric": f"distil/test/{metric}_loyalty",
            "coefficients": {"ensemble": 1, arm: -1},
        }

    return {
        "title": "A student of two encoders in small",
        "sentence": "A student of half the layers is loyal to an ensemble of two encoders.",
        "seed": 0,
        "data": {
            "name": "library_passages",
            "dir": "",
            "length": 32,
            "tokenizer": {"name": "bpe", "vocabulary": 2000},
            "validation": 0.1,
            "test": 0.2,
        },
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": (*TEACHERS, "distil"),
        "stages": {
            # Unlike teachers: each has another start and another half of the records.
            "first": teacher(1, 0.0, 0.5),
            "second": teacher(2, 0.5, 1.0),
            "distil": {
                "student": {**net, "depth": 2},
                "initial": {"stage": "first", "layers": "every_second"},
                "targets": ENSEMBLE,
                "objective": {"soft": {"loss": "hinton_kd", "temperature": 2.0, "target": "out"}},
                "steps": 250,
                "evaluate": {"accuracy": accuracy, "loyalty": loyal(*TEACHERS)},
                "pictures": ("reliability",),
                **common,
            },
        },
        "variants": {"sst2": reviews(32), "laroseda": reviews(48), "ro_sts": pairs()},
        "claim": {
            "sentence": "The student of an ensemble is more loyal to it than students of single "
            "teachers.",
            "metric": "distil/test/probability_loyalty",
            "held_equal": (
                "teachers, start (every second layer of the first one), steps, batches, records, "
                "optimizer and learning rate of the student",
            ),
            "arms": {
                "ensemble": {},
                "first teacher": {f"{soft}/target": "first/out"},
                "second teacher": {f"{soft}/target": "second/out"},
                "labels": {soft: LABELS["labels"]},
            },
            "contrasts": {
                f"{arm}, {metric}": contrast(arm, metric)
                for arm in ("first teacher", "second teacher", "labels")
                for metric in ("probability", "label")
            },
        },
    }


def reviews(length: int) -> dict:
    """What the small run becomes on reviews, which come with a test set."""
    return {"data/test": 0.0, "data/length": length}


def pairs() -> dict:
    """What the small run becomes on pairs of sentences with a score of how alike they are."""
    gap = {"loss": "logit_mse", "target": "batch/label"}
    found = {
        "data/test": 0.0,
        "data/length": 48,
        "stages/distil/targets/average": "logits",
        "stages/distil/objective/soft": {"loss": "logit_mse", "target": "out"},
        "stages/distil/evaluate/loyalty/scores": True,
        "stages/distil/pictures": (),
        "claim/metric": "distil/test/regression_loyalty",
        "claim/arms/labels": {"stages/distil/objective/soft": gap},
        "claim/contrasts": {
            f"{arm}, {metric}": {
                "sentence": f"more loyal to the ensemble than of {arm}, by its {metric}",
                "metric": f"distil/test/{metric}_loyalty",
                "coefficients": {"ensemble": 1, arm: -1},
            }
            for arm in ("first teacher", "second teacher", "labels")
            for metric in ("regression", "rank")
        },
    }
    for stage in (*TEACHERS, "distil"):
        found[f"stages/{stage}/student/classes"] = 1
        found[f"stages/{stage}/evaluate/accuracy"] = {
            "evaluator": "squared_error",
            "sets": ("validation", "test"),
        }
    for stage in TEACHERS:
        found[f"stages/{stage}/objective"] = {"labels": gap}
    return found
