"""Vision transformers as Transformers publishes them: ViT, DeiT, MAE."""

from __future__ import annotations

from typing import Any

from jaxdistill.models.blocks import hidden_units
from jaxdistill.models.mae import MAE
from jaxdistill.models.pretrained.family import (
    Config,
    Family,
    activation,
    classes_of,
    fixed,
    labels,
    published,
)
from jaxdistill.models.pretrained.forms import (
    FIRST,
    SAME,
    Entry,
    fused,
    linear,
    norm,
    patches,
)
from jaxdistill.models.vit import ViT


def _common(config: Config) -> dict[str, Any]:
    fixed(config, qkv_bias=True)
    return {
        "patch": config.get("patch_size", 16),
        "width": config.get("hidden_size", 768),
        "depth": config.get("num_hidden_layers", 12),
        "heads": config.get("num_attention_heads", 12),
        "mlp_ratio": config.get("intermediate_size", 3072) / config.get("hidden_size", 768),
        "epsilon": config.get("layer_norm_eps", 1e-12),
        "activation": activation(config),
        "positions": "learned",
    }


def _image(config: Config) -> dict[str, tuple[tuple[int, ...], str]]:
    size = config.get("image_size", 224)
    return {"image": ((1, size, size, config.get("num_channels", 3)), "float32")}


def image_size(
    patch: int, encoder: Any, positions: Any, front_positions: bool = True
) -> tuple[int, int]:
    """The side of the images in pixels, and their channels, from the arrays' shapes."""
    front = front_positions * sum(name in encoder for name in ("cls_token", "distillation_token"))
    side = round((positions.shape[0] - front) ** 0.5)
    return side * patch, encoder["patch_embed"]["kernel"].shape[0] // patch**2


def _size(module: Any, variables: Any) -> tuple[int, int]:
    encoder = variables["params"]["encoder"]
    fixed_ones = variables["state"].get("constants", {}).get("encoder", {})
    return image_size(module.patch, encoder, {**encoder, **fixed_ones}["pos_embed"])


def _shared_config(module: Any, variables: Any) -> dict[str, Any]:
    if module.positions == "sincos":
        raise ValueError(
            f"positions are published as arrays, this net computes its own ({module.positions!r})"
        )
    if getattr(module, "distillation_token", False) and module.positions != "learned":
        raise ValueError(
            "a published DeiT has a position for its distillation token, and this net has none "
            f"({module.positions!r})"
        )
    size, channels = _size(module, variables)
    return {
        "image_size": size,
        "num_channels": channels,
        "patch_size": module.patch,
        "hidden_size": module.width,
        "num_hidden_layers": module.depth,
        "num_attention_heads": module.heads,
        "intermediate_size": hidden_units(module.width, module.mlp_ratio),
        "layer_norm_eps": module.epsilon,
        "hidden_act": published(module.activation),
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def _blocks(path: str, name: str, depth: int) -> list[Entry]:
    """The blocks of ViT, DeiT and both halves of the MAE in Transformers."""
    found = []
    for index in range(depth):
        own, theirs = f"{path}/block_{index}", f"{name}.{index}"
        parts = [f"{theirs}.attention.attention.{part}" for part in ("query", "key", "value")]
        found += norm(f"{own}/norm1", f"{theirs}.layernorm_before")
        found += fused(f"{own}/attn/qkv", parts)
        found += linear(f"{own}/attn/proj", f"{theirs}.attention.output.dense")
        found += norm(f"{own}/norm2", f"{theirs}.layernorm_after")
        found += linear(f"{own}/mlp/fc1", f"{theirs}.intermediate.dense")
        found += linear(f"{own}/mlp/fc2", f"{theirs}.output.dense")
    return found


# Positions of an MAE are never trained.
_FIXED, _DRAWN = (f"state/constants/{half}/pos_embed" for half in ("encoder", "decoder"))


def _encoder(module: Any, prefix: str) -> list[Entry]:
    path, embeddings = "params/encoder", f"{prefix}embeddings"
    positions = _FIXED if module.positions == "fixed" else f"{path}/pos_embed"
    projection = f"{embeddings}.patch_embeddings.projection"
    found = [
        Entry(f"{path}/cls_token", (f"{embeddings}.cls_token",), SAME),
        Entry(positions, (f"{embeddings}.position_embeddings",), FIRST),
        Entry(f"{path}/patch_embed/kernel", (f"{projection}.weight",), patches(module.patch)),
        Entry(f"{path}/patch_embed/bias", (f"{projection}.bias",), SAME),
        *_blocks(path, f"{prefix}encoder.layer", module.depth),
        *norm(f"{path}/norm", f"{prefix}layernorm"),
    ]
    if getattr(module, "distillation_token", False):
        token = f"{embeddings}.distillation_token"
        found.append(Entry(f"{path}/distillation_token", (token,), SAME))
    return found


def _vit(kind: str, *, distilled: bool, head: str, architecture: str) -> Family:
    """ViT and DeiT; ``head`` is the name of the classifier, nothing where there is none."""
    prefix = f"{kind}." if head else ""

    def module(config: Config) -> ViT:
        classes = classes_of(config) if head else 0
        return ViT(**_common(config), classes=classes, distillation_token=distilled)

    def entries(module: ViT) -> list[Entry]:
        found = _encoder(module, prefix)
        if module.classes:
            found += linear("params/head", head or "classifier")
            if distilled and head == "cls_classifier":
                found += linear("params/head_distilled", "distillation_classifier")
        return found

    def config(module: ViT, variables: Any) -> dict[str, Any]:
        return {
            "architectures": [architecture],
            "model_type": kind,
            **_shared_config(module, variables),
            **labels(module.classes or 2),
        }

    return Family(
        module,
        entries,
        _image,
        config,
        ignored=(r".*embeddings\.mask_token",),
        sized=("params/encoder/pos_embed",),
    )


def _mae() -> Family:
    def module(config: Config) -> MAE:
        common = _common(config)
        width = config.get("decoder_hidden_size", 512)
        ratio = config.get("decoder_intermediate_size", 2048) / width
        if ratio != common["mlp_ratio"]:
            raise ValueError(
                f"config.json has MLPs {common['mlp_ratio']} times as wide in the encoder and "
                f"{ratio} times in the decoder, and only one factor for both is implemented"
            )
        return MAE(
            **{**common, "positions": "fixed"},
            decoder_width=width,
            decoder_depth=config.get("decoder_num_hidden_layers", 8),
            decoder_heads=config.get("decoder_num_attention_heads", 16),
        )

    def entries(module: MAE) -> list[Entry]:
        path = "params/decoder"
        positions = _DRAWN if module.positions == "fixed" else f"{path}/pos_embed"
        return [
            *_encoder(module, "vit."),
            *linear(f"{path}/embed", "decoder.decoder_embed"),
            Entry(f"{path}/mask_token", ("decoder.mask_token",), SAME),
            Entry(positions, ("decoder.decoder_pos_embed",), FIRST),
            *_blocks(path, "decoder.decoder_layers", module.decoder_depth),
            *norm(f"{path}/norm", "decoder.decoder_norm"),
            *linear(f"{path}/pred", "decoder.decoder_pred"),
        ]

    def config(module: MAE, variables: Any) -> dict[str, Any]:
        return {
            "architectures": ["ViTMAEForPreTraining"],
            "model_type": "vit_mae",
            **_shared_config(module, variables),
            "decoder_hidden_size": module.decoder_width,
            "decoder_num_hidden_layers": module.decoder_depth,
            "decoder_num_attention_heads": module.decoder_heads,
            "decoder_intermediate_size": hidden_units(module.decoder_width, module.mlp_ratio),
        }

    sized = (_FIXED, _DRAWN)
    # As Transformers 5 writes them, and older ones do not.
    renamed = ((r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),)
    return Family(module, entries, _image, config, sized=sized, renamed=renamed)


FAMILIES: dict[str, Family] = {
    "ViTModel": _vit("vit", distilled=False, head="", architecture="ViTModel"),
    "ViTForImageClassification": _vit(
        "vit", distilled=False, head="classifier", architecture="ViTForImageClassification"
    ),
    "DeiTModel": _vit("deit", distilled=True, head="", architecture="DeiTModel"),
    "DeiTForImageClassificationWithTeacher": _vit(
        "deit",
        distilled=True,
        head="cls_classifier",
        architecture="DeiTForImageClassificationWithTeacher",
    ),
    "ViTMAEForPreTraining": _mae(),
}
