"""Decoders of language as Transformers publishes them: Llama, Mistral, Qwen 2 and 3."""

from __future__ import annotations

from typing import Any

from jaxdistill.models.decoder import Decoder, LongContext
from jaxdistill.models.pretrained.family import Config, Family, activation, fixed, published
from jaxdistill.models.pretrained.forms import SAME, Entry, linear, norm

_EXAMPLE = {"tokens": ((1, 8), "int32")}
_WORDS = ("params/embed_tokens/embedding",)


def _rotary(config: Config) -> tuple[float, LongContext | None]:
    """The base of the rotary wave lengths and their stretch, from where configs have had them."""
    rotary = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    theta = float(rotary.get("rope_theta", config.get("rope_theta", 10_000.0)))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ValueError(
            f"config.json scales its rotary positions by {kind!r}, and only 'default' and "
            "'llama3' are implemented"
        )
    return theta, LongContext(
        factor=rotary["factor"],
        low=rotary["low_freq_factor"],
        high=rotary["high_freq_factor"],
        context=rotary["original_max_position_embeddings"],
    )


def _published_rotary(module: Decoder) -> dict[str, Any]:
    found = {"rope_type": "default", "rope_theta": module.theta}
    if module.stretch is None:
        return found
    factor, low, high, context = module.stretch
    return {
        **found,
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": context,
    }


def _family(architecture: str, kind: str, *, bias: bool, qk_norm: bool, window: bool) -> Family:
    def module(config: Config) -> Decoder:
        if kind != "qwen2":
            fixed(config, attention_bias=False)
        fixed(config, mlp_bias=False, use_sliding_window=False)
        heads = config["num_attention_heads"]
        theta, stretch = _rotary(config)
        return Decoder(
            vocabulary=config["vocab_size"],
            width=config["hidden_size"],
            depth=config["num_hidden_layers"],
            heads=heads,
            groups=config.get("num_key_value_heads") or heads,
            head_width=config.get("head_dim") or config["hidden_size"] // heads,
            hidden=config["intermediate_size"],
            tied=config.get("tie_word_embeddings", False),
            bias=bias,
            qk_norm=qk_norm,
            theta=theta,
            stretch=stretch,
            window=config.get("sliding_window") if window else None,
            activation=activation({"hidden_act": "silu", **config}),
            epsilon=config.get("rms_norm_eps", 1e-6),
        )

    def entries(module: Decoder) -> list[Entry]:
        found = [Entry(_WORDS[0], ("model.embed_tokens.weight",), SAME)]
        for index in range(module.depth):
            own, theirs = f"params/layers_{index}", f"model.layers.{index}"
            for part in ("input_layernorm", "post_attention_layernorm"):
                found += norm(f"{own}/{part}", f"{theirs}.{part}", bias=False)
            for part in ("q_proj", "k_proj", "v_proj"):
                path = f"{own}/self_attn/{part}"
                found += linear(path, f"{theirs}.self_attn.{part}", bias=module.bias)
            found += linear(f"{own}/self_attn/o_proj", f"{theirs}.self_attn.o_proj", bias=False)
            for part in ("q_norm", "k_norm") if module.qk_norm else ():
                found += norm(f"{own}/self_attn/{part}", f"{theirs}.self_attn.{part}", bias=False)
            for part in ("gate_proj", "up_proj", "down_proj"):
                found += linear(f"{own}/mlp/{part}", f"{theirs}.mlp.{part}", bias=False)
        found += norm("params/norm", "model.norm", bias=False)
        return found + ([] if module.tied else linear("params/lm_head", "lm_head", bias=False))

    def config(module: Decoder, params: Any) -> dict[str, Any]:
        own = {"bias": module.bias, "qk_norm": module.qk_norm}
        for key, value in {"bias": bias, "qk_norm": qk_norm}.items():
            if own[key] != value:
                raise ValueError(f"{architecture} has {key}={value}, this net has {own[key]}")
        if module.attention_cap or module.logit_cap or (module.window and not window):
            raise ValueError(f"{architecture} has no soft caps, and a window only in Mistral")
        groups = module.groups or module.heads
        found = {
            "architectures": [architecture],
            "model_type": kind,
            "vocab_size": module.vocabulary,
            "hidden_size": module.width,
            "num_hidden_layers": module.depth,
            "num_attention_heads": module.heads,
            "num_key_value_heads": groups,
            "head_dim": module.head_width or module.width // module.heads,
            "intermediate_size": module.hidden or -(-8 * module.width // 24) * 8,
            "rms_norm_eps": module.epsilon,
            "rope_theta": module.theta,
            "rope_parameters": _published_rotary(module),
            "tie_word_embeddings": module.tied,
            "hidden_act": published(module.activation),
        }
        return found | ({"sliding_window": module.window} if window else {})

    return Family(
        module,
        entries,
        lambda _: dict(_EXAMPLE),
        config,
        # A head that is tied is a copy, and the wave lengths follow from the config.
        ignored=(r".*rotary_emb\.inv_freq",),
        head=(),
        worded=(*_WORDS, "params/lm_head/kernel"),
    )


# What tells them apart: a bias of queries, keys and values, their norms, a sliding window.
_KINDS = {
    "Llama": {"bias": False, "qk_norm": False, "window": False},
    "Mistral": {"bias": False, "qk_norm": False, "window": True},
    "Qwen2": {"bias": True, "qk_norm": False, "window": False},
    "Qwen3": {"bias": False, "qk_norm": True, "window": False},
}
FAMILIES: dict[str, Family] = {
    f"{kind}ForCausalLM": _family(f"{kind}ForCausalLM", kind.lower(), **own)
    for kind, own in _KINDS.items()
}
