"""ModernBERT as Transformers publishes it."""

from __future__ import annotations

from functools import partial
from typing import Any

from jaxdistill.models.modern_bert import Head, ModernBert
from jaxdistill.models.pretrained.family import (
    Config,
    Family,
    activation,
    classes_of,
    fixed,
    labels,
    published,
)
from jaxdistill.models.pretrained.forms import SAME, Entry, linear, norm

_HEADS: dict[str, Head] = {
    "Model": "sentence",
    "ForMaskedLM": "masked",
    "ForSequenceClassification": "classes",
    "ForTokenClassification": "tokens",
}


def _global_every(config: Config) -> int:
    """The first of every how many blocks sees all tokens, from where configs have had it."""
    kinds, depth = config.get("layer_types"), config["num_hidden_layers"]
    if kinds is None:
        return config.get("global_attn_every_n_layers", 3)
    whole = [index for index, kind in enumerate(kinds) if kind == "full_attention"]
    # Where only the first sees all, any number beyond their depth says so.
    every = whole[1] if len(whole) > 1 else depth
    if whole != list(range(0, depth, every)) or len(kinds) != depth:
        raise ValueError(
            f"config.json has layer_types={kinds!r}, and only a full_attention in the first of "
            "every so many layers is implemented"
        )
    return every


def _theta(config: Config, kind: str, older: str, default: float) -> float:
    found = (config.get("rope_parameters") or {}).get(kind) or {}
    fixed(found, rope_type="default")
    return float(found.get("rope_theta", config.get(older, default)))


def _module(head: Head, config: Config) -> ModernBert:
    fixed(config, classifier_activation=config.get("hidden_activation", "gelu"))
    fixed(config, decoder_bias=True, tie_word_embeddings=True)
    fixed(config, mlp_bias=config.get("attention_bias", False))
    return ModernBert(
        vocabulary=config["vocab_size"],
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        global_every=_global_every(config),
        window=config.get("local_attention", 128) // 2,
        theta=_theta(config, "full_attention", "global_rope_theta", 160_000.0),
        local_theta=_theta(config, "sliding_attention", "local_rope_theta", 10_000.0),
        head=head,
        classes=classes_of(config) if head in ("classes", "tokens") else 2,
        pool=config.get("classifier_pooling", "cls"),
        norm_bias=config.get("norm_bias", False),
        bias=config.get("attention_bias", False),
        head_dense_bias=config.get("classifier_bias", False),
        activation=activation(config, "hidden_activation"),
        epsilon=config.get("norm_eps", 1e-5),
    )


def _entries(head: Head, module: ModernBert) -> list[Entry]:
    prefix = "" if head == "sentence" else "model."
    table = f"{prefix}embeddings.tok_embeddings.weight"
    normed = module.norm_bias
    found = [
        Entry("params/words/embedding", (table,), SAME),
        *norm("params/norm_embeddings", f"{prefix}embeddings.norm", normed),
        *norm("params/norm", f"{prefix}final_norm", normed),
    ]
    names = {"qkv": "attn.Wqkv", "proj": "attn.Wo", "fc1": "mlp.Wi", "fc2": "mlp.Wo"}
    for index in range(module.depth):
        own, theirs = f"params/block_{index}", f"{prefix}layers.{index}"
        for part, name in names.items():
            found += linear(f"{own}/{part}", f"{theirs}.{name}", bias=module.bias)
        if index:
            found += norm(f"{own}/norm1", f"{theirs}.attn_norm", normed)
        found += norm(f"{own}/norm2", f"{theirs}.mlp_norm", normed)
    if head != "sentence":
        found += linear("params/dense", "head.dense", bias=module.head_dense_bias)
        found += norm("params/head_norm", "head.norm", normed)
    if head == "masked":
        found.append(Entry("params/head_bias", ("decoder.bias",), SAME))
    if head in ("classes", "tokens"):
        found += linear("params/head", "classifier")
    return found


def _config(architecture: str, head: Head, module: ModernBert, variables: Any) -> dict[str, Any]:
    if module.head != head:
        raise ValueError(f"{architecture} has the head {head!r}, this net has {module.head!r}")
    name = published(module.activation)
    kinds = ["full_attention", *["sliding_attention"] * (module.global_every - 1)]
    rotary = {"full_attention": module.theta, "sliding_attention": module.local_theta}
    return {
        "architectures": [architecture],
        "model_type": "modernbert",
        "vocab_size": module.vocabulary,
        "hidden_size": module.width,
        "num_hidden_layers": module.depth,
        "num_attention_heads": module.heads,
        "intermediate_size": module.hidden,
        "layer_types": (kinds * module.depth)[: module.depth],
        "local_attention": 2 * module.window,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in rotary.items()
        },
        "classifier_pooling": module.pool,
        "norm_bias": module.norm_bias,
        "attention_bias": module.bias,
        "mlp_bias": module.bias,
        "classifier_bias": module.head_dense_bias,
        "hidden_activation": name,
        "classifier_activation": name,
        "norm_eps": module.epsilon,
        # Theirs by default is a number that small vocabularies do not reach.
        **({} if module.vocabulary > 50_283 else {"pad_token_id": 0}),
        **(labels(module.classes) if head in ("classes", "tokens") else {}),
    }


def _family(architecture: str, head: Head) -> Family:
    return Family(
        partial(_module, head),
        partial(_entries, head),
        lambda _: {"tokens": ((1, 8), "int32")},
        partial(_config, architecture, head),
        # A copy of the embedding.
        ignored=(r"decoder\.weight",),
        worded=("params/words/embedding", "params/head_bias"),
    )


FAMILIES: dict[str, Family] = {
    f"ModernBert{suffix}": _family(f"ModernBert{suffix}", head) for suffix, head in _HEADS.items()
}
