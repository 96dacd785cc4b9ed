"""Towers of images and texts as Transformers publishes them: CLIP and SigLIP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxdistill.models.blocks import hidden_units
from jaxdistill.models.clip import CLIP, TextTower
from jaxdistill.models.pretrained.family import Config, Family, activation, fixed, published
from jaxdistill.models.pretrained.forms import (
    LINEAR,
    ONE,
    SAME,
    Entry,
    fused,
    linear,
    norm,
    patches,
    reshaped,
)
from jaxdistill.models.pretrained.vision import image_size
from jaxdistill.models.vit import ViT

_TEXT = {"tokens": ((1, 8), "int32")}
# What Transformers takes where a config says nothing.
_DEFAULTS = {
    "clip": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    "siglip": {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
}
_SHAPES = {
    "clip_vision": (768, 3072, 12, 12),
    "clip_text": (512, 2048, 12, 8),
    "siglip_vision": (768, 3072, 12, 12),
    "siglip_text": (768, 3072, 12, 12),
}


def _blocks_settings(kind: str, tower: str, given: Config) -> dict[str, Any]:
    width, hidden, depth, heads = _SHAPES[f"{kind}_{tower}"]
    given = {**_DEFAULTS[kind], **given}
    width = given.get("hidden_size", width)
    return {
        "width": width,
        "depth": given.get("num_hidden_layers", depth),
        "heads": given.get("num_attention_heads", heads),
        "mlp_ratio": given.get("intermediate_size", hidden) / width,
        "epsilon": given["layer_norm_eps"],
        "activation": activation(given),
    }


def _image_settings(kind: str, given: Config, outputs: int) -> dict[str, Any]:
    fixed(given, vision_use_head=True)
    clip = kind == "clip"
    return {
        **_blocks_settings(kind, "vision", given),
        "patch": given.get("patch_size", 32 if clip else 16),
        "positions": "learned",
        "class_token": clip,
        "patch_bias": not clip,
        "pre_norm": clip,
        "pool": "cls" if clip else "map",
        "classes": outputs,
        "head_bias": False,
    }


def _text_settings(kind: str, given: Config, outputs: int) -> dict[str, Any]:
    clip = kind == "clip"
    found = {
        **_blocks_settings(kind, "text", given),
        "vocabulary": given.get("vocab_size", 49_408 if clip else 32_000),
        "positions": given.get("max_position_embeddings", 77 if clip else 64),
        "causal": clip,
        "pool": "end" if clip else "last",
        "outputs": outputs,
        "head_bias": not clip,
    }
    if clip:
        # Configs of the first release name token 2, which ends nothing: the highest number does.
        end = given.get("eos_token_id", 49_407)
        found["end"] = None if end == 2 else end
    return found


def _width(given: Config, kind: str, tower: str) -> int:
    return given.get("hidden_size", _SHAPES[f"{kind}_{tower}"][0])


def _blocks(path: str, name: str, depth: int) -> list[Entry]:
    found = []
    for index in range(depth):
        own, theirs = f"{path}/block_{index}", f"{name}.encoder.layers.{index}".removeprefix(".")
        parts = [f"{theirs}.self_attn.{part}_proj" for part in ("q", "k", "v")]
        found += fused(f"{own}/attn/qkv", parts)
        found += linear(f"{own}/attn/proj", f"{theirs}.self_attn.out_proj")
        for number in (1, 2):
            found += norm(f"{own}/norm{number}", f"{theirs}.layer_norm{number}")
            found += linear(f"{own}/mlp/fc{number}", f"{theirs}.mlp.fc{number}")
    return found


def _image_entries(settings: Mapping[str, Any], path: str, name: str) -> list[Entry]:
    dot = f"{name}." if name else ""
    own, embeddings = f"{path}/encoder", f"{dot}embeddings"
    projection = f"{embeddings}.patch_embedding"
    found = [
        Entry(f"{own}/pos_embed", (f"{embeddings}.position_embedding.weight",), SAME),
        Entry(f"{own}/patch_embed/kernel", (f"{projection}.weight",), patches(settings["patch"])),
        *_blocks(own, name, settings["depth"]),
        *norm(f"{own}/norm", f"{dot}post_layernorm"),
    ]
    if settings["class_token"]:
        token = f"{embeddings}.class_embedding"
        found.append(Entry(f"{own}/cls_token", (token,), reshaped((1, 1, -1), (-1,))))
    if settings["patch_bias"]:
        found.append(Entry(f"{own}/patch_embed/bias", (f"{projection}.bias",), SAME))
    if settings["pre_norm"]:
        found += norm(f"{own}/pre_norm", f"{dot}pre_layrnorm")
    if settings["pool"] == "map":
        own, theirs = f"{path}/pool_attention", f"{dot}head"
        found += [
            Entry(f"{own}/probe", (f"{theirs}.probe",), SAME),
            Entry(f"{own}/qkv_kernel", (f"{theirs}.attention.in_proj_weight",), LINEAR),
            Entry(f"{own}/qkv_bias", (f"{theirs}.attention.in_proj_bias",), SAME),
            *linear(f"{own}/proj", f"{theirs}.attention.out_proj"),
            *norm(f"{own}/norm", f"{theirs}.layernorm"),
            *linear(f"{own}/mlp/fc1", f"{theirs}.mlp.fc1"),
            *linear(f"{own}/mlp/fc2", f"{theirs}.mlp.fc2"),
        ]
    return found + (
        linear(f"{path}/head", "visual_projection", bias=False) if settings["classes"] else []
    )


def _text_entries(settings: Mapping[str, Any], path: str, name: str) -> list[Entry]:
    dot = f"{name}." if name else ""
    embeddings = f"{dot}embeddings"
    found = [
        Entry(f"{path}/words/embedding", (f"{embeddings}.token_embedding.weight",), SAME),
        Entry(f"{path}/pos_embed", (f"{embeddings}.position_embedding.weight",), SAME),
        *_blocks(path, name, settings["depth"]),
        *norm(f"{path}/norm", f"{dot}final_layer_norm"),
    ]
    if settings["head_bias"]:
        return found + linear(f"{path}/head", f"{dot}head")
    return found + (
        linear(f"{path}/head", "text_projection", bias=False) if settings["outputs"] else []
    )


def _shared_config(module: Any) -> dict[str, Any]:
    return {
        "hidden_size": module.width,
        "num_hidden_layers": module.depth,
        "num_attention_heads": module.heads,
        "intermediate_size": hidden_units(module.width, module.mlp_ratio),
        "layer_norm_eps": module.epsilon,
        "hidden_act": published(module.activation),
    }


def _image_config(kind: str, module: ViT, params: Any) -> dict[str, Any]:
    expected = _image_settings(kind, {}, 0)
    for key in ("positions", "class_token", "patch_bias", "pre_norm", "pool"):
        if getattr(module, key) != expected[key]:
            raise ValueError(
                f"{kind} has towers of images with {key}={expected[key]!r}, this one has "
                f"{getattr(module, key)!r}"
            )
    encoder = params["encoder"]
    size, channels = image_size(module.patch, encoder, encoder["pos_embed"])
    return {
        "model_type": f"{kind}_vision_model",
        **_shared_config(module),
        "image_size": size,
        "num_channels": channels,
        "patch_size": module.patch,
        **({"projection_dim": module.classes} if module.classes else {}),
    }


def _text_config(kind: str, module: TextTower) -> dict[str, Any]:
    expected = _text_settings(kind, {}, 0)
    for key in ("causal", "pool", "head_bias"):
        if getattr(module, key) != expected[key]:
            raise ValueError(
                f"{kind} has towers of texts with {key}={expected[key]!r}, this one has "
                f"{getattr(module, key)!r}"
            )
    size = "projection_dim" if kind == "clip" else "projection_size"
    return {
        "model_type": f"{kind}_text_model",
        **_shared_config(module),
        "vocab_size": module.vocabulary,
        "max_position_embeddings": module.positions,
        **({size: module.outputs} if module.outputs else {}),
        **({"eos_token_id": 2 if module.end is None else module.end} if kind == "clip" else {}),
    }


def _size(config: Config, kind: str) -> tuple[tuple[int, ...], str]:
    side = config.get("image_size", 224)
    return (1, side, side, config.get("num_channels", 3)), "float32"


# Counters of positions, which follow from the config.
_IGNORED = (r".*\.position_ids", r"position_ids")


def _image_family(architecture: str, kind: str, *, projected: bool) -> Family:
    # Alone, a tower has had a prefix in some versions of Transformers and none in others.
    name = "vision_model" if projected else ""

    def module(config: Config) -> ViT:
        outputs = config.get("projection_dim", 512) if projected else 0
        return ViT(**_image_settings(kind, config, outputs))

    def config(module: ViT, variables: Any) -> dict[str, Any]:
        found = _image_config(kind, module, variables["params"])
        return {"architectures": [architecture], **found}

    return Family(
        module,
        lambda module: _image_entries(vars(module), "params", name),
        lambda config: {"image": _size(config, kind)},
        config,
        ignored=_IGNORED,
        sized=("params/encoder/pos_embed",),
        renamed=() if projected else ((r"^vision_model\.", ""),),
    )


def _text_family(architecture: str, kind: str, *, projected: bool) -> Family:
    name = "text_model" if projected else ""

    def module(config: Config) -> TextTower:
        outputs = config.get("projection_dim", 512) if projected else 0
        if kind == "siglip":
            outputs = config.get("projection_size") or _width(config, kind, "text")
        return TextTower(**_text_settings(kind, config, outputs))

    return Family(
        module,
        lambda module: _text_entries(vars(module), "params", name),
        lambda config: dict(_TEXT),
        lambda module, _: {"architectures": [architecture], **_text_config(kind, module)},
        ignored=_IGNORED,
        worded=("params/words/embedding",),
        renamed=() if projected else ((r"^text_model\.", ""),),
    )


def _both(architecture: str, kind: str) -> Family:
    def module(config: Config) -> CLIP:
        image, text = config.get("vision_config") or {}, config.get("text_config") or {}
        if kind == "clip":
            outputs = config.get("projection_dim", 512), config.get("projection_dim", 512)
        else:
            outputs = 0, text.get("projection_size") or _width(text, kind, "text")
        return CLIP(
            image=_image_settings(kind, image, outputs[0]),
            text=_text_settings(kind, text, outputs[1]),
            bias=kind == "siglip",
        )

    def entries(module: CLIP) -> list[Entry]:
        number = SAME if kind == "clip" else ONE
        found = [Entry("params/logit_scale", ("logit_scale",), number)]
        if module.bias:
            found.append(Entry("params/logit_bias", ("logit_bias",), number))
        found += _image_entries(module.image, "params/image", "vision_model")
        return found + _text_entries(module.text, "params/text", "text_model")

    def inputs(config: Config) -> dict[str, tuple[tuple[int, ...], str]]:
        return {"image": _size(config.get("vision_config") or {}, kind), **_TEXT}

    def config(module: CLIP, variables: Any) -> dict[str, Any]:
        params = variables["params"]
        outputs = module.image["classes"]
        return {
            "architectures": [architecture],
            "model_type": kind,
            "vision_config": _image_config(kind, ViT(**module.image), params["image"]),
            "text_config": _text_config(kind, TextTower(**module.text)),
            **({"projection_dim": outputs} if outputs else {}),
        }

    return Family(
        module,
        entries,
        inputs,
        config,
        ignored=_IGNORED,
        head=("params/image/head", "params/text/head"),
        sized=("params/image/encoder/pos_embed",),
        worded=("params/text/words/embedding",),
    )


# Of networks with two towers the architecture that each is alone.
_TOWERS = {
    ("CLIPModel", "image"): "CLIPVisionModelWithProjection",
    ("CLIPModel", "text"): "CLIPTextModelWithProjection",
    ("SiglipModel", "image"): "SiglipVisionModel",
    ("SiglipModel", "text"): "SiglipTextModel",
}


def tower(config: Config, sees: str | None) -> Config:
    """The config of that tower of a network which sees images, or texts; of any other network its
    own config."""
    names = config.get("architectures") or ("",)
    alone = _TOWERS.get((names[0], sees or ""))
    if alone is None:
        return config
    given = config.get("vision_config" if sees == "image" else "text_config") or {}
    shared = {key: config[key] for key in ("projection_dim",) if key in config}
    return {**given, **shared, "architectures": [alone]}


def other_tower(config: Config) -> tuple[str, ...]:
    """Regular expressions of the tensors that a tower alone does not read."""
    image = "Vision" in (config.get("architectures") or ("",))[0]
    rest = (r"text_model\..*", r"text_projection\..*")
    if not image:
        rest = (r"vision_model\..*", r"visual_projection\..*")
    return *rest, r"logit_(scale|bias)"


FAMILIES: dict[str, Family] = {
    "CLIPModel": _both("CLIPModel", "clip"),
    "CLIPVisionModel": _image_family("CLIPVisionModel", "clip", projected=False),
    "CLIPVisionModelWithProjection": _image_family(
        "CLIPVisionModelWithProjection", "clip", projected=True
    ),
    "CLIPTextModel": _text_family("CLIPTextModel", "clip", projected=False),
    "CLIPTextModelWithProjection": _text_family(
        "CLIPTextModelWithProjection", "clip", projected=True
    ),
    "SiglipModel": _both("SiglipModel", "siglip"),
    "SiglipVisionModel": _image_family("SiglipVisionModel", "siglip", projected=False),
    "SiglipTextModel": _text_family("SiglipTextModel", "siglip", projected=False),
}
