"""DINOv2 as Transformers publishes it, with registers and without."""

from __future__ import annotations

import itertools
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
from jaxdistill.models.pretrained.forms import FIRST, SAME, Entry, fused, linear, norm, patches
from jaxdistill.models.pretrained.vision import image_size
from jaxdistill.models.vit import ViT

# Where factors start is no part of a config that speaks of trained ones.
_SCALE = 1.0


class _Form(NamedTuple):
    """A published form.

    Attributes:
        registers: whether it has them.
        classified: whether it has a head.
    """

    registers: bool
    classified: bool

    @property
    def kind(self) -> str:
        return "dinov2_with_registers" if self.registers else "dinov2"

    @property
    def name(self) -> str:
        return "Dinov2WithRegisters" if self.registers else "Dinov2"

    @property
    def architecture(self) -> str:
        return self.name + ("ForImageClassification" if self.classified else "Model")


def _module(form: _Form, config: Config) -> ViT:
    fixed(config, qkv_bias=True)
    gated = config.get("use_swiglu_ffn", False)
    return ViT(
        patch=config.get("patch_size", 16 if form.registers else 14),
        width=config.get("hidden_size", 768),
        depth=config.get("num_hidden_layers", 12),
        heads=config.get("num_attention_heads", 12),
        mlp_ratio=config.get("mlp_ratio", 4),
        epsilon=config.get("layer_norm_eps", 1e-6),
        activation="swiglu" if gated else activation(config),
        positions="learned",
        layer_scale=config.get("layerscale_value", _SCALE),
        registers=config.get("num_register_tokens", 4) if form.registers else 0,
        pool="cls_mean" if form.classified else "cls",
        classes=classes_of(config) if form.classified else 0,
    )


def _inputs(config: Config) -> dict[str, tuple[tuple[int, ...], str]]:
    size = config.get("image_size", 224)
    return {"image": ((1, size, size, config.get("num_channels", 3)), "float32")}


def _entries(form: _Form, module: ViT) -> list[Entry]:
    prefix = f"{form.kind}." if form.classified else ""
    path, embeddings = "params/encoder", f"{prefix}embeddings"
    projection = f"{embeddings}.patch_embeddings.projection"
    found = [
        Entry(f"{path}/cls_token", (f"{embeddings}.cls_token",), SAME),
        Entry(f"{path}/pos_embed", (f"{embeddings}.position_embeddings",), FIRST),
        Entry(f"{path}/patch_embed/kernel", (f"{projection}.weight",), patches(module.patch)),
        Entry(f"{path}/patch_embed/bias", (f"{projection}.bias",), SAME),
        *norm(f"{path}/norm", f"{prefix}layernorm"),
    ]
    if module.registers:
        found.append(Entry(f"{path}/registers", (f"{embeddings}.register_tokens",), SAME))
    names = ("fc1", "fc2") if module.activation != "swiglu" else ("weights_in", "weights_out")
    for index in range(module.depth):
        own, theirs = f"{path}/block_{index}", f"{prefix}encoder.layer.{index}"
        parts = [f"{theirs}.attention.attention.{part}" for part in ("query", "key", "value")]
        found += fused(f"{own}/attn/qkv", parts)
        found += linear(f"{own}/attn/proj", f"{theirs}.attention.output.dense")
        for number in (1, 2):
            scale = f"{theirs}.layer_scale{number}.lambda1"
            found += norm(f"{own}/norm{number}", f"{theirs}.norm{number}")
            found.append(Entry(f"{own}/scale{number}/scale", (scale,), SAME))
            found += linear(f"{own}/mlp/fc{number}", f"{theirs}.mlp.{names[number - 1]}")
    return found + (linear("params/head", "classifier") if module.classes else [])


def _config(form: _Form, module: ViT, variables: Any) -> dict[str, Any]:
    if module.positions != "learned" or module.layer_scale is None:
        raise ValueError(f"{form.architecture} has learned positions and a scale of every branch")
    if bool(module.registers) != form.registers:
        other = "Dinov2" if form.registers else "Dinov2WithRegisters"
        raise ValueError(
            f"this net has {module.registers} registers: it is a {other}, not a {form.name}"
        )
    encoder = variables["params"]["encoder"]
    size, channels = image_size(module.patch, encoder, encoder["pos_embed"])
    gated = module.activation == "swiglu"
    return {
        "architectures": [form.architecture],
        "model_type": form.kind,
        "image_size": size,
        "num_channels": channels,
        "patch_size": module.patch,
        "hidden_size": module.width,
        "num_hidden_layers": module.depth,
        "num_attention_heads": module.heads,
        "mlp_ratio": module.mlp_ratio,
        "layer_norm_eps": module.epsilon,
        "layerscale_value": module.layer_scale,
        "hidden_act": "gelu" if gated else published(module.activation),
        "use_swiglu_ffn": gated,
        "qkv_bias": True,
        **({"num_register_tokens": module.registers} if form.registers else {}),
        **(labels(module.classes) if form.classified else {}),
    }


def _family(form: _Form) -> Family:
    return Family(
        partial(_module, form),
        partial(_entries, form),
        _inputs,
        partial(_config, form),
        ignored=(r".*embeddings\.mask_token",),
        sized=("params/encoder/pos_embed",),
    )


_FORMS = [_Form(*each) for each in itertools.product((False, True), repeat=2)]
FAMILIES: dict[str, Family] = {form.architecture: _family(form) for form in _FORMS}
