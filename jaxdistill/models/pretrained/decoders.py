"""Decoders of language as Transformers publishes them: Llama, Mistral, Qwen, Gemma."""

from __future__ import annotations

from typing import Any

from jaxdistill._errors import unknown
from jaxdistill.models.decoder import Decoder, LongContext
from jaxdistill.models.decoder_layers import Activation
from jaxdistill.models.pretrained.family import Config, Family, fixed
from jaxdistill.models.pretrained.forms import SAME, Entry, linear, norm

EXAMPLE = {"tokens": ((1, 8), "int32")}
WORDS = ("params/embed_tokens/embedding",)
# What Transformers calls the activations of a decoder; the last name of each is written.
_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "gelu": "gelu_exact",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
}
PUBLISHED = {own: theirs for theirs, own in _ACTIVATIONS.items()}


def activation(name: str) -> Activation:
    if name not in _ACTIVATIONS:
        raise ValueError(unknown("hidden_act", name, _ACTIVATIONS))
    return _ACTIVATIONS[name]


def _rotary(
    config: Config, given: Config | None = None, default: float = 10_000.0
) -> tuple[float, LongContext | float | None]:
    """The base of the rotary wave lengths and their stretch, from where configs have had them."""
    found: Config = given or config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = found.get("rope_type", found.get("type", "default"))
    theta = float(found.get("rope_theta", config.get("rope_theta", default)))
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, float(found["factor"])
    if kind != "llama3":
        raise ValueError(
            f"config.json scales its rotary positions by {kind!r}, and only 'default', 'linear' "
            "and 'llama3' are implemented"
        )
    return theta, LongContext(
        factor=found["factor"],
        low=found["low_freq_factor"],
        high=found["high_freq_factor"],
        context=found["original_max_position_embeddings"],
    )


def _published_rotary(theta: float, stretch: LongContext | float | None) -> dict[str, Any]:
    found = {"rope_type": "default", "rope_theta": theta}
    if stretch is None:
        return found
    if not isinstance(stretch, LongContext):
        return {**found, "rope_type": "linear", "factor": stretch}
    factor, low, high, context = stretch
    return {
        **found,
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": context,
    }


def _global_every(config: Config, default: int) -> int:
    """Every how many layers one sees all tokens, from where configs have had it."""
    depth = config["num_hidden_layers"]
    kinds = config.get("layer_types")
    if kinds is None:
        return config.get("sliding_window_pattern") or default
    whole = [index for index, kind in enumerate(kinds) if kind == "full_attention"]
    # Where no layer sees all, any number beyond their depth says so.
    every = whole[0] + 1 if whole else depth + 1
    if whole != list(range(every - 1, depth, every)) or len(kinds) != depth:
        raise ValueError(
            f"config.json has layer_types={kinds!r}, and only a full_attention in every so many "
            "layers is implemented"
        )
    return every


def _layer_types(module: Decoder) -> list[str]:
    return [
        "full_attention" if (index + 1) % (module.global_every or 1) == 0 else "sliding_attention"
        for index in range(module.depth)
    ]


def _shared(config: Config) -> dict[str, Any]:
    """What all of them say in the same words."""
    heads = config["num_attention_heads"]
    return {
        "vocabulary": config["vocab_size"],
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "heads": heads,
        "groups": config.get("num_key_value_heads") or heads,
        "head_width": config.get("head_dim") or config["hidden_size"] // heads,
        "hidden": config["intermediate_size"],
        "epsilon": config.get("rms_norm_eps", 1e-6),
    }


def _gemma_settings(config: Config, kind: str) -> dict[str, Any]:
    fixed(config, attention_bias=False)
    if config.get("use_bidirectional_attention"):
        fixed(config, use_bidirectional_attention=False)
    name = config.get("hidden_activation") or config.get("hidden_act", "gelu_pytorch_tanh")
    found: dict[str, Any] = {
        **_shared({"head_dim": 256, **config}),
        "tied": config.get("tie_word_embeddings", True),
        # The first release says "gelu" and means its approximation by a tanh.
        "activation": "gelu" if name == "gelu" else activation(name),
        "norm": "rms_plus_one",
        "scaled": True,
    }
    if kind == "gemma":
        theta, stretch = _rotary(config)
        return {**found, "theta": theta, "stretch": stretch}
    found |= {
        "post_norms": True,
        "window": config.get("sliding_window", 4096),
        "query_scale": config.get("query_pre_attn_scalar", 256) ** -0.5,
        "attention_cap": config.get("attn_logit_softcapping", 50.0 if kind == "gemma2" else None),
        "logit_cap": config.get("final_logit_softcapping", 30.0 if kind == "gemma2" else None),
    }
    if kind == "gemma2":
        theta, stretch = _rotary(config)
        return {
            **found,
            "global_every": _global_every(config, 2),
            "theta": theta,
            "stretch": stretch,
        }
    rotary = config.get("rope_parameters") or {}
    whole = rotary.get("full_attention") or config.get("rope_scaling") or {"rope_type": "default"}
    theta, stretch = _rotary(config, whole, 1_000_000.0)
    local = rotary.get("sliding_attention") or {}
    fixed(local, rope_type="default")
    return {
        **found,
        "global_every": _global_every(config, 6),
        "qk_norm": True,
        "theta": theta,
        "stretch": stretch,
        "local_theta": float(local.get("rope_theta", config.get("rope_local_base_freq", 10_000.0))),
    }


def _gemma_config(module: Decoder, kind: str) -> dict[str, Any]:
    name = PUBLISHED[module.activation]
    found: dict[str, Any] = {"hidden_act" if kind == "gemma" else "hidden_activation": name}
    rotary = _published_rotary(module.theta, module.stretch)
    if kind == "gemma":
        return {**found, "rope_theta": module.theta, "rope_parameters": rotary}
    head_width = module.head_width or module.width // module.heads
    scalar = module.query_scale**-2 if module.query_scale else float(head_width)
    found |= {
        "sliding_window": module.window,
        "layer_types": _layer_types(module),
        # A whole number in Transformers.
        "query_pre_attn_scalar": round(scalar),
        "attn_logit_softcapping": module.attention_cap,
        "final_logit_softcapping": module.logit_cap,
        "rope_parameters": rotary,
    }
    if kind == "gemma3_text":
        local = _published_rotary(module.local_theta or module.theta, None)
        found["rope_parameters"] = {"full_attention": rotary, "sliding_attention": local}
    return found


def _llama_settings(config: Config, kind: str) -> dict[str, Any]:
    if kind != "qwen2":
        fixed(config, attention_bias=False)
    fixed(config, mlp_bias=False, use_sliding_window=False)
    theta, stretch = _rotary(config)
    return {
        **_shared(config),
        "tied": config.get("tie_word_embeddings", False),
        "theta": theta,
        "stretch": stretch,
        "window": config.get("sliding_window") if kind == "mistral" else None,
        "activation": activation(config.get("hidden_act", "silu")),
    }


def _llama_config(module: Decoder, kind: str) -> dict[str, Any]:
    found = {
        "rope_theta": module.theta,
        "rope_parameters": _published_rotary(module.theta, module.stretch),
        "hidden_act": PUBLISHED[module.activation],
    }
    return found | ({"sliding_window": module.window} if kind == "mistral" else {})


# What a kind may not have otherwise: an attribute of the net that its config has no word for.
_PLAIN = {
    "bias": False,
    "qk_norm": False,
    "norm": "rms",
    "post_norms": False,
    "scaled": False,
    "places": 0,
    "fused": False,
    "out_bias": False,
    "gated": True,
    "experts": 0,
    "window": None,
    "global_every": None,
    "local_theta": None,
    "query_scale": None,
    "attention_cap": None,
    "logit_cap": None,
}
# What a kind's config does have a word for.
_SAID = {
    "mistral": ("window",),
    "gemma2": ("window", "global_every", "query_scale", "attention_cap", "logit_cap"),
    "gemma3_text": (
        "window",
        "global_every",
        "local_theta",
        "query_scale",
        "attention_cap",
        "logit_cap",
    ),
}


def check_plain(module: Decoder, architecture: str, kind: str, own: dict[str, Any]) -> None:
    expected = {**_PLAIN, **own}
    for key, value in expected.items():
        if key not in _SAID.get(kind, ()) and getattr(module, key) != value:
            raise ValueError(
                f"{architecture} has {key}={value!r}, this net has {getattr(module, key)!r}"
            )


def _family(architecture: str, kind: str, **own: Any) -> Family:
    """A kind that names its tensors as Llama does; ``own`` is what sets it apart from Llama."""
    gemma = kind.startswith("gemma")

    def module(config: Config) -> Decoder:
        settings = _gemma_settings if gemma else _llama_settings
        return Decoder(**{**settings(config, kind), **own})

    def entries(module: Decoder) -> list[Entry]:
        found = [Entry(WORDS[0], ("model.embed_tokens.weight",), SAME)]
        norms = ["input_layernorm", "post_attention_layernorm"]
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"] * module.post_norms
        for index in range(module.depth):
            own, theirs = f"params/layers_{index}", f"model.layers.{index}"
            for part in norms:
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

    def config(module: Decoder, variables: Any) -> dict[str, Any]:
        check_plain(module, architecture, kind, own)
        describe = _gemma_config if gemma else _llama_config
        return {
            "architectures": [architecture],
            "model_type": kind,
            "vocab_size": module.vocabulary,
            "hidden_size": module.width,
            "num_hidden_layers": module.depth,
            "num_attention_heads": module.heads,
            "num_key_value_heads": module.groups or module.heads,
            "head_dim": module.head_width or module.width // module.heads,
            "intermediate_size": module.neurons(),
            "rms_norm_eps": module.epsilon,
            "tie_word_embeddings": module.tied,
            **describe(module, kind),
        }

    return Family(
        module,
        entries,
        lambda _: dict(EXAMPLE),
        config,
        # Wave lengths follow from the config; a head that is tied is a copy.
        ignored=(r".*rotary_emb\.inv_freq",),
        head=(),
        worded=(*WORDS, "params/lm_head/kernel"),
    )


_GEMMA = {"norm": "rms_plus_one", "scaled": True}
FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": _family("LlamaForCausalLM", "llama"),
    "MistralForCausalLM": _family("MistralForCausalLM", "mistral"),
    "Qwen2ForCausalLM": _family("Qwen2ForCausalLM", "qwen2", bias=True),
    "Qwen3ForCausalLM": _family("Qwen3ForCausalLM", "qwen3", qk_norm=True),
    "GemmaForCausalLM": _family("GemmaForCausalLM", "gemma", **_GEMMA),
    "Gemma2ForCausalLM": _family("Gemma2ForCausalLM", "gemma2", **_GEMMA, post_norms=True),
    "Gemma3ForCausalLM": _family(
        "Gemma3ForCausalLM", "gemma3_text", **_GEMMA, post_norms=True, qk_norm=True
    ),
}
