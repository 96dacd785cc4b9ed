"""DINOv2 as Transformers publishes it, with registers and without."""

from __future__ import annotations

from typing import Any

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


def _family(kind: str, *, registers: bool, classified: bool) -> Family:
    prefix = f"{kind}." if classified else ""
    name = "Dinov2WithRegisters" if registers else "Dinov2"
    architecture = name + ("ForImageClassification" if classified else "Model")

    def module(config: Config) -> ViT:
        fixed(config, qkv_bias=True)
        gated = config.get("use_swiglu_ffn", False)
        return ViT(
            patch=config.get("patch_size", 16 if registers else 14),
            width=config.get("hidden_size", 768),
            depth=config.get("num_hidden_layers", 12),
            heads=config.get("num_attention_heads", 12),
            mlp_ratio=config.get("mlp_ratio", 4),
            epsilon=config.get("layer_norm_eps", 1e-6),
            activation="swiglu" if gated else activation(config),
            positions="learned",
            layer_scale=config.get("layerscale_value", _SCALE),
            registers=config.get("num_register_tokens", 4) if registers else 0,
            pool="cls_mean" if classified else "cls",
            classes=classes_of(config) if classified else 0,
        )

    def inputs(config: Config) -> dict[str, tuple[tuple[int, ...], str]]:
        size = config.get("image_size", 224)
        return {"image": ((1, size, size, config.get("num_channels", 3)), "float32")}

    def entries(module: ViT) -> list[Entry]:
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

    def config(module: ViT, variables: Any) -> dict[str, Any]:
        if module.positions != "learned" or module.layer_scale is None:
            raise ValueError(f"{architecture} has learned positions and a scale of every branch")
        if bool(module.registers) != registers:
            other = "Dinov2" if registers else "Dinov2WithRegisters"
            raise ValueError(
                f"this net has {module.registers} registers: it is a {other}, not a {name}"
            )
        encoder = variables["params"]["encoder"]
        size, channels = image_size(module.patch, encoder, encoder["pos_embed"])
        gated = module.activation == "swiglu"
        return {
            "architectures": [architecture],
            "model_type": kind,
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
            **({"num_register_tokens": module.registers} if registers else {}),
            **(labels(module.classes) if classified else {}),
        }

    return Family(
        module,
        entries,
        inputs,
        config,
        ignored=(r".*embeddings\.mask_token",),
        sized=("params/encoder/pos_embed",),
    )


FAMILIES: dict[str, Family] = {
    "Dinov2Model": _family("dinov2", registers=False, classified=False),
    "Dinov2ForImageClassification": _family("dinov2", registers=False, classified=True),
    "Dinov2WithRegistersModel": _family("dinov2_with_registers", registers=True, classified=False),
    "Dinov2WithRegistersForImageClassification": _family(
        "dinov2_with_registers", registers=True, classified=True
    ),
}
