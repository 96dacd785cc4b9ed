"""GPT-2 as Transformers publishes it."""

from __future__ import annotations

from typing import Any

from jaxdistill.models.decoder import Decoder
from jaxdistill.models.pretrained.decoders import EXAMPLE, PUBLISHED, WORDS, activation, check_plain
from jaxdistill.models.pretrained.family import Config, Family, fixed
from jaxdistill.models.pretrained.forms import SAME, Entry, linear, norm

_NAME = "GPT2LMHeadModel"
_GPT2 = {
    "norm": "layer",
    "bias": True,
    "out_bias": True,
    "fused": True,
    "gated": False,
}


def _module(config: Config) -> Decoder:
    fixed(
        config,
        add_cross_attention=False,
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
    )
    width, heads = config.get("n_embd", 768), config.get("n_head", 12)
    return Decoder(
        **_GPT2,
        vocabulary=config.get("vocab_size", 50_257),
        width=width,
        depth=config.get("n_layer", 12),
        heads=heads,
        groups=heads,
        head_width=width // heads,
        hidden=config.get("n_inner") or 4 * width,
        places=config.get("n_positions", 1024),
        tied=config.get("tie_word_embeddings", True),
        activation=activation(config.get("activation_function", "gelu_new")),
        epsilon=config.get("layer_norm_epsilon", 1e-5),
    )


def _layer(path: str, name: str) -> list[Entry]:
    # Published [in, out], as here.
    return [
        Entry(f"{path}/kernel", (f"{name}.weight",), SAME),
        Entry(f"{path}/bias", (f"{name}.bias",), SAME),
    ]


def _entries(module: Decoder) -> list[Entry]:
    found = [
        Entry(WORDS[0], ("transformer.wte.weight",), SAME),
        Entry("params/embed_positions/embedding", ("transformer.wpe.weight",), SAME),
        *norm("params/norm", "transformer.ln_f"),
    ]
    for index in range(module.depth):
        own, theirs = f"params/layers_{index}", f"transformer.h.{index}"
        found += norm(f"{own}/input_layernorm", f"{theirs}.ln_1")
        found += norm(f"{own}/post_attention_layernorm", f"{theirs}.ln_2")
        found += _layer(f"{own}/self_attn/qkv_proj", f"{theirs}.attn.c_attn")
        found += _layer(f"{own}/self_attn/o_proj", f"{theirs}.attn.c_proj")
        found += _layer(f"{own}/mlp/up_proj", f"{theirs}.mlp.c_fc")
        found += _layer(f"{own}/mlp/down_proj", f"{theirs}.mlp.c_proj")
    return found + ([] if module.tied else linear("params/lm_head", "lm_head", bias=False))


def _config(module: Decoder, variables: Any) -> dict[str, Any]:
    expected = {**_GPT2, "places": module.places or "learned positions"}
    check_plain(module, _NAME, "gpt2", expected)
    if (module.groups or module.heads) != module.heads:
        raise ValueError(f"{_NAME} has as many groups as heads")
    return {
        "architectures": [_NAME],
        "model_type": "gpt2",
        "vocab_size": module.vocabulary,
        "n_embd": module.width,
        "n_layer": module.depth,
        "n_head": module.heads,
        "n_inner": module.neurons(),
        "n_positions": module.places,
        "layer_norm_epsilon": module.epsilon,
        "tie_word_embeddings": module.tied,
        "activation_function": PUBLISHED[module.activation],
    }


_FAMILY = Family(
    _module,
    _entries,
    lambda _: dict(EXAMPLE),
    _config,
    # Masks, and a head that is tied.
    ignored=(r"transformer\.h\.\d+\.attn\.(masked_)?bias", r"lm_head\.weight"),
    head=(),
    worded=(*WORDS, "params/lm_head/kernel"),
    # The first release has no prefix.
    renamed=((r"^(wte|wpe|ln_f|h)\.", r"transformer.\1."),),
)
FAMILIES: dict[str, Family] = {_NAME: _FAMILY}
