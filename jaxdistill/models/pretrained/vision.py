"""Vision transformers as Transformers and timm publish them: ViT, DeiT, MAE."""

from __future__ import annotations

import re
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
from jaxdistill.models.vit import ViT, vit_size


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


def image_size(patch: int, encoder: Any, positions: Any) -> tuple[int, int]:
    """The side of the images in pixels, and their channels, from the arrays' shapes."""
    front = sum(name in encoder for name in ("cls_token", "distillation_token"))
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


_TIMM = re.compile(
    r"(?:vit|deit)_(?P<size>tiny|small|base|large|huge)(?P<distilled>_distilled)?"
    r"_patch(?P<patch>\d+)_(?P<image>\d+)"
)


def _timm_settings(config: Config) -> dict[str, Any]:
    """A timm name and its ``model_args`` as the keywords of its constructor."""
    name = config["architecture"].split(".")[0]
    match = _TIMM.fullmatch(name)
    if match is None:
        raise ValueError(
            f"timm's {name!r} is not implemented: of its vision transformers "
            "vit_<size>_patch<p>_<pixels> and deit_<size>[_distilled]_patch<p>_<pixels> are"
        )
    size = vit_size(match["size"])
    given = dict(config.get("model_args") or {})
    known = {
        "img_size": int(match["image"]),
        "patch_size": int(match["patch"]),
        "embed_dim": size["width"],
        "depth": size["depth"],
        "num_heads": size["heads"],
        "in_chans": 3,
        "mlp_ratio": 4.0,
        "init_values": None,
        "reg_tokens": 0,
        "distilled": bool(match["distilled"]),
        "num_classes": config.get("num_classes", 1000),
        "global_pool": config.get("global_pool", "token"),
    }
    for key in given:
        if key not in known:
            raise ValueError(
                f"config.json has model_args {key}={given[key]!r}, and of those only "
                f"{', '.join(known)} are implemented"
            )
    found = {**known, **given}
    if not isinstance(found["img_size"], int):
        rows, columns = found["img_size"]
        if rows != columns:
            raise ValueError(f"images must be square, config.json has {rows} x {columns} pixels")
        found["img_size"] = rows
    fixed(found, global_pool="token", reg_tokens=0)
    return found


def _timm_vit() -> Family:
    def module(config: Config) -> ViT:
        given = _timm_settings(config)
        return ViT(
            patch=given["patch_size"],
            width=given["embed_dim"],
            depth=given["depth"],
            heads=given["num_heads"],
            mlp_ratio=given["mlp_ratio"],
            classes=given["num_classes"],
            positions="learned",
            layer_scale=given["init_values"],
            distillation_token=given["distilled"],
        )

    def inputs(config: Config) -> dict[str, tuple[tuple[int, ...], str]]:
        given = _timm_settings(config)
        return {"image": ((1, given["img_size"], given["img_size"], given["in_chans"]), "float32")}

    def entries(module: ViT) -> list[Entry]:
        path, projection = "params/encoder", "patch_embed.proj"
        found = [
            Entry(f"{path}/cls_token", ("cls_token",), SAME),
            Entry(f"{path}/pos_embed", ("pos_embed",), FIRST),
            Entry(f"{path}/patch_embed/kernel", (f"{projection}.weight",), patches(module.patch)),
            Entry(f"{path}/patch_embed/bias", (f"{projection}.bias",), SAME),
            *norm(f"{path}/norm", "norm"),
        ]
        if module.distillation_token:
            found.append(Entry(f"{path}/distillation_token", ("dist_token",), SAME))
        for index in range(module.depth):
            own, theirs = f"{path}/block_{index}", f"blocks.{index}"
            for part in ("norm1", "norm2"):
                found += norm(f"{own}/{part}", f"{theirs}.{part}")
            for part in ("attn/qkv", "attn/proj", "mlp/fc1", "mlp/fc2"):
                found += linear(f"{own}/{part}", f"{theirs}.{part.replace('/', '.')}")
            if module.layer_scale is not None:
                for which in (1, 2):
                    name = f"{theirs}.ls{which}.gamma"
                    found.append(Entry(f"{own}/scale{which}/scale", (name,), SAME))
        if module.classes:
            found += linear("params/head", "head")
            if module.distillation_token:
                found += linear("params/head_distilled", "head_dist")
        return found

    def config(module: ViT, variables: Any) -> dict[str, Any]:
        size, channels = _size(module, variables)
        kind = "deit" if module.distillation_token else "vit"
        distilled = "_distilled" if module.distillation_token else ""
        arguments = {
            "embed_dim": module.width,
            "depth": module.depth,
            "num_heads": module.heads,
            "mlp_ratio": module.mlp_ratio,
            "init_values": module.layer_scale,
            "patch_size": module.patch,
            "img_size": size,
            "in_chans": channels,
        }
        return {
            "architecture": f"{kind}_base{distilled}_patch16_224",
            "num_classes": module.classes,
            "num_features": module.width,
            "global_pool": "token",
            "model_args": arguments,
            "pretrained_cfg": {"num_classes": module.classes, "input_size": [channels, size, size]},
        }

    return Family(module, entries, inputs, config, sized=("params/encoder/pos_embed",))


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
    "timm:vit": _timm_vit(),
}
