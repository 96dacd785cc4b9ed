"""DistillSpec: a draft model learns from its target on the text that it writes itself, so that
speculative decoding accepts more of it.

Zhou et al., DistillSpec: Improving Speculative Decoding via Knowledge Distillation, ICLR 2024:
10 to 45 % faster than speculative decoding with a draft that was only trained on the task; which
divergence is best hangs on task and decoding.

The run on a pod: a target of the size of Llama 2 7B and a draft of 1.1B on prompts and answers in a
JSON-lines file, both fine-tuned first. Finished ones are taken instead with
``--config.stages.target.checkpoint=<folder>``, and likewise the draft:

    python -m jaxdistill.main --config=configs/distillspec.py --workdir=runs/distillspec
        --config.data.path=<file.jsonl> --config.data.tokenizer.path=<folder with tokenizer.json>

The source of Python's own standard library, byte by byte, split by module; minutes:

    python -m jaxdistill.main --config=configs/distillspec.py:small --workdir=runs/distillspec_small
    python -m jaxdistill.claim --config=configs/distillspec.py:small --seeds=3
        --workdir=runs/distillspec_claim

Expect ``acceptance`` of the distilled draft above that of the arm that goes on with labels alone.
"""

from ml_collections import ConfigDict

# What --tune chose for drafts that learn from their target by total variation, and from labels.
RATE, LABELS_RATE = 3e-3, 1e-2


def get_config(size: str = "") -> ConfigDict:
    """The run on a pod, or with ``small`` one of minutes."""
    if size not in ("", "small"):
        raise ValueError(f"configs/distillspec.py knows no size {size!r}, only :small")
    return ConfigDict(small() if size else published())


def adamw(peak: float, warmup: int) -> dict:
    return {
        "name": "adamw",
        "b2": 0.95,
        "weight_decay": 0.1,
        "clip": 1.0,
        "learning_rate": {"schedule": "warmup_cosine", "peak": peak, "warmup": warmup},
    }


def published() -> dict:
    common = {"batch_size": 256, "checkpoint_every": 1000}
    kind = {"net": "decoder", "dtype": "bfloat16", "tied": False, "remat": True, "scan": True}
    llama = {**kind, "width": 4096, "depth": 32, "heads": 32, "hidden": 11008, "epsilon": 1e-5}
    tiny = {**kind, "width": 2048, "depth": 22, "heads": 32, "groups": 4, "hidden": 5632}
    loss = {"evaluator": "next_token", "batch_size": 64, "batches": 16}
    drafting = {
        "evaluator": "drafting",
        "against": "target",
        "prompt": 512,
        "new": 128,
        "block": 5,
        "batch_size": 64,
        "batches": 8,
    }
    return {
        "title": "DistillSpec, 7B to 1.1B",
        "sentence": "A draft that learns from its target on its own text is accepted more often.",
        "seed": 0,
        "data": {
            "name": "json_lines",
            "path": "",
            "text": "completion",
            "prompt": "prompt",
            "length": 1024,
            "tokenizer": {"name": "file", "path": "", "end": "</s>"},
            "validation": 0.02,
            "test": 0.02,
        },
        "mesh": {"data": 1, "fsdp": -1},
        # Every matrix is shared out by its first axis behind that of the layers, embeddings by
        # their width: a vocabulary need not divide.
        "rules": (
            (r"layers/.*kernel$", (None, "fsdp")),
            (r"embedding$", (None, "fsdp")),
            (r"kernel$", ("fsdp",)),
        ),
        "recipe": ("target", "draft", "distil"),
        "stages": {
            "target": {
                "student": llama,
                "distiller": {"name": "language_model"},
                "optimizer": adamw(1e-5, 500),
                "steps": 5000,
                "evaluate": {"loss": loss},
                "checkpoint": "",
                **common,
            },
            "draft": {
                "student": tiny,
                "distiller": {"name": "language_model"},
                "optimizer": adamw(3e-5, 500),
                "steps": 5000,
                "evaluate": {"loss": loss},
                "checkpoint": "",
                **common,
            },
            "distil": {
                "student": tiny,
                "initial": {"stage": "draft"},
                "distiller": {
                    "name": "language_model",
                    "frozen": ("target",),
                    "divergence": "forward_kl",
                    "prompt": 512,
                    "share": 1.0,
                },
                "optimizer": adamw(3e-5, 500),
                "steps": 20_000,
                "evaluate": {"loss": loss, "drafting": drafting},
                **common,
            },
        },
    }


def small() -> dict:
    target = {"net": "decoder", "width": 128, "depth": 2, "heads": 4, "groups": 2}
    draft = {"net": "decoder", "width": 64, "depth": 1, "heads": 4, "groups": 2}
    loss = {"evaluator": "next_token", "batch_size": 64, "batches": 8}
    drafting = {
        "evaluator": "drafting",
        "against": "target",
        "prompt": 16,
        "new": 48,
        "batch_size": 64,
        "batches": 6,
    }
    greedy = {**drafting, "block": 4, "batches": 2, "sets": ("test",)}
    greedy |= {"sampling": {"temperature": 0.0}, "prefix": "greedy_"}
    rate = "stages/distil/optimizer/learning_rate/peak"
    own, fixed = "stages/distil/distiller", {"stages/distil/distiller/share": 0.0}
    labels = {f"{own}/divergence_weight": 0.0, f"{own}/ce_weight": 1.0}
    arms = {
        "total variation": {},
        "total variation, fixed text": fixed,
        "forward KL": {f"{own}/divergence": "forward_kl"},
        "labels": {**labels, **fixed, rate: LABELS_RATE},
    }
    rates = {
        name: {rate: value} for name, value in (("low", 1e-3), ("middle", 3e-3), ("high", 1e-2))
    }
    return {
        "title": "DistillSpec in small",
        "sentence": "A draft that learns from its target on its own text is accepted more often.",
        "seed": 0,
        "data": {
            "name": "standard_library",
            "length": 64,
            "modules": None,
            "validation": 0.08,
            "test": 0.08,
        },
        "mesh": {"data": -1, "fsdp": 1},
        "recipe": ("target", "draft", "distil"),
        "stages": {
            "target": {
                "student": target,
                "distiller": {"name": "language_model", "chunk": 1024},
                "optimizer": adamw(3e-3, 100),
                "batch_size": 32,
                "steps": 1000,
                "evaluate": {"loss": loss},
                # A finished one, so that the seeds of a claim share it.
                "checkpoint": "",
            },
            "draft": {
                "student": draft,
                "distiller": {"name": "language_model", "chunk": 1024},
                "optimizer": adamw(3e-3, 100),
                "batch_size": 32,
                "steps": 600,
                "evaluate": {"loss": loss},
            },
            "distil": {
                "student": draft,
                "initial": {"stage": "draft"},
                "distiller": {
                    "name": "language_model",
                    "frozen": ("target",),
                    "divergence": "total_variation",
                    "divergence_weight": 1.0,
                    "ce_weight": 0.0,
                    "prompt": 16,
                    "share": 1.0,
                    "chunk": 1024,
                },
                "optimizer": adamw(RATE, 50),
                "batch_size": 32,
                "steps": 300,
                "evaluate": {
                    "loss": loss,
                    "drafting": {**drafting, "sets": ("validation", "test")},
                    "greedy": greedy,
                },
                "pictures": ("positions",),
            },
        },
        "claim": {
            "sentence": "A draft that learns from its target is accepted more often.",
            "metric": "distil/test/acceptance",
            "held_equal": (
                "target, start, steps, batch size and optimizer of the draft",
                "the learning rates tried on validation modules, one of three for labels and "
                "total variation; what else distils shares that of the latter",
                "the tokens that count in a batch, written or not",
            ),
            "arms": arms,
            "contrasts": {
                "distilled": {
                    "sentence": "by total variation on its own text it is accepted more by 0.03 "
                    "than with labels",
                    "coefficients": {"total variation": 1, "labels": -1},
                    "margin": 0.03,
                },
                "own text": {
                    "sentence": "its own text is at most half a point worse than fixed text",
                    "coefficients": {"total variation": 1, "total variation, fixed text": -1},
                    "margin": -0.005,
                },
                "total variation": {
                    "sentence": "on its own text total variation beats forward KL",
                    "coefficients": {"total variation": 1, "forward KL": -1},
                },
                "greedy": {
                    "sentence": "greedy blocks are longer than with labels",
                    "metric": "distil/test/greedy_block_efficiency",
                    "coefficients": {"total variation": 1, "labels": -1},
                },
            },
        },
        "tune": {
            "metric": "distil/validation/acceptance",
            "seeds": 1,
            "grid": dict.fromkeys(("total variation", "labels"), rates),
        },
    }
