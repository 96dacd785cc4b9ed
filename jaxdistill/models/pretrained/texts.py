"""Encoders of text as Transformers publishes them: BERT, RoBERTa, DistilBERT, ELECTRA."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from jaxdistill.models.pretrained.family import (
    Config,
    Family,
    activation,
    classes_of,
    fixed,
    labels,
    published,
)
from jaxdistill.models.pretrained.forms import SAME, Entry, fused, linear, norm
from jaxdistill.models.text_encoder import Head, TextEncoder

_EXAMPLE = {"tokens": ((1, 8), "int32")}
_WORDS = ("params/words/embedding", "params/head_bias")


class _Names(NamedTuple):
    """Where a kind keeps its parts.

    Attributes:
        kind: the prefix of its tensors.
        blocks: the name before a block's number.
        parts: of a block: query, key and value; ``proj``, ``norm1``, ``fc1``, ``fc2``, ``norm2``.
        masked: of the masked head: its dense layer, its norm and its bias.
        pooler: the dense layer before the classifier.
        head: the classifier behind it.
        replaced: the two dense layers that tell which tokens were replaced.
    """

    kind: str
    blocks: str
    parts: tuple[str, ...]
    masked: tuple[str, str, str]
    pooler: str
    head: str
    replaced: tuple[str, str] = ("", "")


_BERT_PARTS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
_BERT = _Names(
    "bert",
    "encoder.layer",
    _BERT_PARTS,
    ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions"),
    "bert.pooler.dense",
    "classifier",
)
_ROBERTA = _Names(
    "roberta",
    "encoder.layer",
    _BERT_PARTS,
    ("lm_head.dense", "lm_head.layer_norm", "lm_head"),
    "classifier.dense",
    "classifier.out_proj",
)
_ELECTRA = _Names(
    "electra",
    "encoder.layer",
    _BERT_PARTS,
    ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head"),
    "classifier.dense",
    "classifier.out_proj",
    ("discriminator_predictions.dense", "discriminator_predictions.dense_prediction"),
)
_DISTILBERT = _Names(
    "distilbert",
    "transformer.layer",
    (
        "attention.q_lin",
        "attention.k_lin",
        "attention.v_lin",
        "attention.out_lin",
        "sa_layer_norm",
        "ffn.lin1",
        "ffn.lin2",
        "output_layer_norm",
    ),
    ("vocab_transform", "vocab_layer_norm", "vocab_projector"),
    "pre_classifier",
    "classifier",
)


def _bert_settings(config: Config) -> dict[str, Any]:
    fixed(config, position_embedding_type="absolute", is_decoder=False)
    roberta = config.get("model_type") == "roberta"
    return {
        "vocabulary": config["vocab_size"],
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "hidden": config["intermediate_size"],
        "positions": config["max_position_embeddings"],
        "types": config.get("type_vocab_size", 2),
        "padding": config.get("pad_token_id", 1) if roberta else None,
        "activation": activation(config),
        "epsilon": config.get("layer_norm_eps", 1e-12),
    }


def _electra_settings(config: Config) -> dict[str, Any]:
    found = _bert_settings(config)
    embedding = config.get("embedding_size", 128)
    # Where they are as wide as the hidden states nothing projects them.
    narrow = 0 if embedding == found["width"] else embedding
    return {**found, "embedding": narrow, "pooled": "gelu"}


def _electra_config(module: TextEncoder) -> dict[str, Any]:
    return {**_bert_config(module), "embedding_size": module.embedding or module.width}


def _distilbert_settings(config: Config) -> dict[str, Any]:
    return {
        "vocabulary": config["vocab_size"],
        "width": config["dim"],
        "depth": config["n_layers"],
        "heads": config["n_heads"],
        "hidden": config["hidden_dim"],
        "positions": config["max_position_embeddings"],
        "types": 0,
        "activation": activation(config, "activation"),
        "pooled": "relu",
    }


def _bert_config(module: TextEncoder) -> dict[str, Any]:
    if not module.types:
        raise ValueError("BERT and its like have embeddings of the kinds of tokens, this net none")
    padding = {} if module.padding is None else {"pad_token_id": module.padding}
    return {
        "vocab_size": module.vocabulary,
        "hidden_size": module.width,
        "num_hidden_layers": module.depth,
        "num_attention_heads": module.heads,
        "intermediate_size": module.hidden or 4 * module.width,
        "max_position_embeddings": module.positions,
        "type_vocab_size": module.types,
        "hidden_act": published(module.activation),
        "layer_norm_eps": module.epsilon,
        **padding,
    }


def _distilbert_config(module: TextEncoder) -> dict[str, Any]:
    if module.epsilon != 1e-12:
        raise ValueError(
            f"DistilBERT has norms with an epsilon of 1e-12, this net's is {module.epsilon}"
        )
    return {
        "vocab_size": module.vocabulary,
        "dim": module.width,
        "n_layers": module.depth,
        "n_heads": module.heads,
        "hidden_dim": module.hidden or 4 * module.width,
        "max_position_embeddings": module.positions,
        "activation": published(module.activation),
    }


class _Kind(NamedTuple):
    """A kind of encoder: its names, and its settings from a config and back."""

    names: _Names
    settings: Callable[[Config], dict[str, Any]]
    describe: Callable[[TextEncoder], dict[str, Any]]


def _module(kind: _Kind, head: Head, config: Config) -> TextEncoder:
    classes = classes_of(config) if head in ("classes", "tokens") else 2
    return TextEncoder(**kind.settings(config), head=head, classes=classes)


def _entries(names: _Names, head: Head, module: TextEncoder) -> list[Entry]:
    prefix = "" if head in ("none", "sentence") else f"{names.kind}."
    embeddings = f"{prefix}embeddings"
    tables = [("words", "word"), ("places", "position")]
    tables += [("kinds", "token_type")] if module.types else []
    found = [
        Entry(f"params/{own}/embedding", (f"{embeddings}.{theirs}_embeddings.weight",), SAME)
        for own, theirs in tables
    ]
    found += norm("params/norm", f"{embeddings}.LayerNorm")
    for index in range(module.depth):
        own = f"params/block_{index}"
        parts = [f"{prefix}{names.blocks}.{index}.{part}" for part in names.parts]
        found += fused(f"{own}/attn/qkv", parts[:3])
        found += linear(f"{own}/attn/proj", parts[3])
        found += norm(f"{own}/norm1", parts[4])
        found += linear(f"{own}/fc1", parts[5])
        found += linear(f"{own}/fc2", parts[6])
        found += norm(f"{own}/norm2", parts[7])
    if head == "masked":
        dense, own_norm, bias = names.masked
        found += linear("params/dense", dense)
        found += norm("params/head_norm", own_norm)
        found.append(Entry("params/head_bias", (f"{bias}.bias",), SAME))
    if head == "classes":
        found += linear("params/pooler", names.pooler)
        found += linear("params/head", names.head)
    if head == "tokens":
        found += linear("params/head", "classifier")
    if head == "replaced":
        found += linear("params/pooler", names.replaced[0])
        found += linear("params/head", names.replaced[1])
    if module.embedding:
        found += linear("params/project", f"{prefix}embeddings_project")
    return found


def _config(
    architecture: str, kind: _Kind, head: Head, module: TextEncoder, variables: Any
) -> dict[str, Any]:
    if module.head != head:
        raise ValueError(f"{architecture} has the head {head!r}, this net has {module.head!r}")
    if module.embedding and kind.names.kind != "electra":
        raise ValueError(f"{architecture} has embeddings as wide as its hidden states")
    return {
        "architectures": [architecture],
        "model_type": kind.names.kind,
        **kind.describe(module),
        **(labels(module.classes) if head in ("classes", "tokens") else {}),
    }


# Copies of the embedding and of its bias, and a counter.
_IGNORED = (
    r".*\.position_ids",
    r".*\.token_type_ids",
    r"cls\.predictions\.decoder\..*",
    r"lm_head\.decoder\..*",
    r"generator_lm_head\.weight",
    r"vocab_projector\.weight",
)


def _family(architecture: str, kind: _Kind, head: Head) -> Family:
    return Family(
        partial(_module, kind, head),
        partial(_entries, kind.names, head),
        lambda _: dict(_EXAMPLE),
        partial(_config, architecture, kind, head),
        _IGNORED,
        worded=_WORDS,
    )


_HEADS: dict[str, Head] = {
    "Model": "sentence",
    "ForMaskedLM": "masked",
    "ForSequenceClassification": "classes",
    "ForTokenClassification": "tokens",
}
_KINDS = {
    "Bert": _Kind(_BERT, _bert_settings, _bert_config),
    "Roberta": _Kind(_ROBERTA, _bert_settings, _bert_config),
    "DistilBert": _Kind(_DISTILBERT, _distilbert_settings, _distilbert_config),
    "Electra": _Kind(_ELECTRA, _electra_settings, _electra_config),
}
FAMILIES: dict[str, Family] = {
    kind + suffix: _family(kind + suffix, about, head)
    for kind, about in _KINDS.items()
    for suffix, head in _HEADS.items()
}
FAMILIES["ElectraForPreTraining"] = _family("ElectraForPreTraining", _KINDS["Electra"], "replaced")
