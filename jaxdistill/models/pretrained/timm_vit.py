"""Vision transformers under timm's names: ViT, DeiT, DINOv2, image towers of CLIP and SigLIP."""

from __future__ import annotations

import re
from typing import Any

from jaxdistill._errors import unknown
from jaxdistill.models.blocks import ACTIVATIONS
from jaxdistill.models.pretrained.family import (
    Config,
    Family,
    fixed,
    timm_arguments,
    timm_name,
)
from jaxdistill.models.pretrained.forms import (
    FIRST,
    SAME,
    Entry,
    linear,
    norm,
    patches,
    side_by_side,
)
from jaxdistill.models.pretrained.vision import image_size
from jaxdistill.models.vit import Pool, ViT, vit_size

_NAME = re.compile(
    r"(?:vit|deit)_(?P<size>[a-z0-9]+?)(?P<distilled>_distilled)?_patch(?P<patch>\d+)"
    r"(?P<plus>_plus)?(?:(?P<registers>_reg4)?_(?P<dino>dinov2)|"
    r"(?:_(?P<kind>clip|clip_quickgelu|siglip|siglip_gap))?_(?P<image>\d+))"
)
_KNOWN = (
    "of its vision transformers vit_<size>_patch<p>_<pixels>, deit_<size>[_distilled]_patch<p>_"
    "<pixels>, vit_<size>_patch14[_reg4]_dinov2, vit_<size>_patch<p>_clip[_quickgelu]_<pixels> and "
    "vit_<size>_patch<p>_siglip[_gap]_<pixels> are"
)
# Sizes that are there besides those of ``vit_size``, some of one family alone.
_SIZES: dict[str, dict[str, Any]] = {
    "xsmall": {"width": 256, "depth": 10, "heads": 4},
    "medium": {"width": 512, "depth": 12, "heads": 8},
    "betwixt": {"width": 640, "depth": 12, "heads": 10},
    "base plus": {"width": 896, "depth": 12, "heads": 14},
    "so400m": {"width": 1152, "depth": 27, "heads": 16, "mlp_ratio": 3.7362},
    "giantopt": {"width": 1536, "depth": 40, "heads": 16},
    "giant clip": {"width": 1408, "depth": 40, "heads": 16, "mlp_ratio": 48 / 11},
    "gigantic clip": {"width": 1664, "depth": 48, "heads": 16, "mlp_ratio": 64 / 13},
    # Of a pair of gate and value together, as there.
    "giant dinov2": {"width": 1536, "depth": 40, "heads": 24, "mlp_ratio": 2.66667 * 2},
}
_POOLS: dict[str, Pool] = {"token": "cls", "avg": "mean", "map": "map"}


def _size(match: re.Match[str], kind: str) -> dict[str, Any]:
    name = match["size"] + (" plus" if match["plus"] else "")
    for found in (f"{name} {kind}", name):
        if found in _SIZES:
            return _SIZES[found]
    return vit_size(name)


def _tanh(match: re.Match[str]) -> bool:
    """Whether a SigLIP has the GELU by a tanh, which depends on its size in timm."""
    shape = match["size"], match["patch"]
    return shape in (("base", "32"), ("so400m", "16"), ("giantopt", "16")) or (
        shape == ("large", "16") and match["image"] == "512"
    )


def _settings(config: Config) -> dict[str, Any]:
    """A name and its arguments as the keywords of timm's constructor."""
    match = timm_name(config, _NAME, _KNOWN)
    kind, _, form = (match["dino"] or match["kind"] or "").partition("_")
    size = _size(match, kind)
    siglip, registers = kind == "siglip", bool(match["registers"])
    gated = kind == "dinov2" and match["size"] == "giant"
    act = (
        "quick_gelu" if form == "quickgelu" else "gelu_tanh" if siglip and _tanh(match) else "gelu"
    )
    found = timm_arguments(
        config,
        img_size=int(match["image"] or 518),
        patch_size=int(match["patch"]),
        embed_dim=size["width"],
        depth=size["depth"],
        num_heads=size["heads"],
        mlp_ratio=size.get("mlp_ratio", 4.0),
        init_values=1e-5 if kind == "dinov2" else None,
        class_token=not siglip,
        reg_tokens=4 if registers else 0,
        no_embed_class=registers,
        pre_norm=kind == "clip",
        distilled=bool(match["distilled"]),
        act_layer=act,
        global_pool={"": "map", "gap": "avg"}[form] if siglip else "token",
        fc_norm=False if form == "gap" else None,
    )
    if not isinstance(found["img_size"], int):
        rows, columns = found["img_size"]
        if rows != columns:
            raise ValueError(f"images must be square, config.json has {rows} x {columns} pixels")
        found["img_size"] = rows
    if found["global_pool"] not in _POOLS:
        raise ValueError(unknown("global_pool", found["global_pool"], _POOLS))
    if found["global_pool"] == "avg":
        fixed(found, fc_norm=False)  # what is pooled is normed before, and not behind
    if found["reg_tokens"]:
        fixed(found, no_embed_class=True)
    if found["act_layer"] not in ACTIVATIONS:
        raise ValueError(unknown("act_layer", found["act_layer"], ACTIVATIONS))
    found["epsilon"] = 1e-5 if kind == "clip" else 1e-6
    if gated:
        # There a pair of units counts as two, here as three halves.
        pairs = int(found["embed_dim"] * found["mlp_ratio"]) // 2
        found |= {"act_layer": "swiglu", "mlp_ratio": 1.5 * pairs / found["embed_dim"]}
    return found


def _module(config: Config) -> ViT:
    given = _settings(config)
    return ViT(
        patch=given["patch_size"],
        width=given["embed_dim"],
        depth=given["depth"],
        heads=given["num_heads"],
        mlp_ratio=given["mlp_ratio"],
        classes=given["num_classes"],
        pool=_POOLS[given["global_pool"]],
        positions="learned",
        epsilon=given["epsilon"],
        activation=given["act_layer"],
        layer_scale=given["init_values"],
        class_token=given["class_token"],
        distillation_token=given["distilled"],
        registers=given["reg_tokens"],
        front_positions=not given["no_embed_class"],
        patch_bias=not given["pre_norm"],
        pre_norm=given["pre_norm"],
    )


def _inputs(config: Config) -> dict[str, tuple[tuple[int, ...], str]]:
    given = _settings(config)
    # What is left beside whole patches timm does not look at.
    side = given["img_size"] // given["patch_size"] * given["patch_size"]
    return {"image": ((1, side, side, given["in_chans"]), "float32")}


def _entries(module: ViT) -> list[Entry]:
    path, projection = "params/encoder", "patch_embed.proj"
    tokens = {"cls_token": module.class_token, "dist_token": module.distillation_token}
    tokens["reg_token"] = bool(module.registers)
    own = {"dist_token": "distillation_token", "reg_token": "registers"}
    found = [
        Entry(f"{path}/pos_embed", ("pos_embed",), FIRST),
        Entry(f"{path}/patch_embed/kernel", (f"{projection}.weight",), patches(module.patch)),
        *norm(f"{path}/norm", "norm"),
        *(Entry(f"{path}/{own.get(key, key)}", (key,), SAME) for key in tokens if tokens[key]),
    ]
    if module.patch_bias:
        found.append(Entry(f"{path}/patch_embed/bias", (f"{projection}.bias",), SAME))
    if module.pre_norm:
        found += norm(f"{path}/pre_norm", "norm_pre")
    for index in range(module.depth):
        block, theirs = f"{path}/block_{index}", f"blocks.{index}"
        for part in ("norm1", "norm2"):
            found += norm(f"{block}/{part}", f"{theirs}.{part}")
        for part in ("attn/qkv", "attn/proj", "mlp/fc1", "mlp/fc2"):
            found += linear(f"{block}/{part}", f"{theirs}.{part.replace('/', '.')}")
        if module.layer_scale is not None:
            for which in (1, 2):
                name = f"{theirs}.ls{which}.gamma"
                found.append(Entry(f"{block}/scale{which}/scale", (name,), SAME))
    if module.pool == "map":
        pool = "params/pool_attention"
        both = side_by_side(1, 2)
        found += [
            Entry(f"{pool}/probe", ("attn_pool.latent",), SAME),
            Entry(f"{pool}/qkv_kernel", ("attn_pool.q.weight", "attn_pool.kv.weight"), both),
            Entry(f"{pool}/qkv_bias", ("attn_pool.q.bias", "attn_pool.kv.bias"), both),
            *norm(f"{pool}/norm", "attn_pool.norm"),
        ]
        for part in ("proj", "mlp/fc1", "mlp/fc2"):
            found += linear(f"{pool}/{part}", f"attn_pool.{part.replace('/', '.')}")
    if module.classes:
        found += linear("params/head", "head")
        if module.distillation_token:
            found += linear("params/head_distilled", "head_dist")
    return found


def _named(module: ViT) -> str:
    """The name whose defaults say what no argument says: the norms, gates, and what is pooled."""
    if module.pre_norm:
        return "vit_base_patch32_clip_224"
    if module.activation == "swiglu":
        return f"vit_giant_patch14{'_reg4' if module.registers else ''}_dinov2"
    if module.pool != "cls":
        return f"vit_base_patch16_siglip{'_gap' if module.pool == 'mean' else ''}_224"
    if module.registers:
        return "vit_base_patch14_reg4_dinov2"
    if module.distillation_token:
        return "deit_base_distilled_patch16_224"
    return "vit_base_patch16_224"


def _config(module: ViT, variables: Any) -> dict[str, Any]:
    name = _named(module)
    gated = module.activation == "swiglu"
    expected = {
        "positions": "learned",
        "epsilon": 1e-5 if module.pre_norm else 1e-6,
        "patch_bias": not module.pre_norm,
        "front_positions": not module.registers and module.front_positions,
        "head_bias": True,
    }
    for key, value in expected.items():
        if getattr(module, key) != value:
            raise ValueError(
                f"timm's {name} has {key}={value!r}, this net has {getattr(module, key)!r}"
            )
    pools = {own: theirs for theirs, own in _POOLS.items()}
    if module.pool not in pools:
        raise ValueError(unknown("pool of a network of timm", module.pool, pools))
    encoder = variables["params"]["encoder"]
    positions = encoder["pos_embed"]
    size, channels = image_size(module.patch, encoder, positions, module.front_positions)
    # As many pairs as there are inputs of the second layer.
    units = encoder["block_0"]["mlp"]["fc2"]["kernel"].shape[0] if gated else 0
    return {
        "architecture": name,
        "num_classes": module.classes,
        "num_features": module.width,
        "global_pool": pools[module.pool],
        "model_args": {
            "embed_dim": module.width,
            "depth": module.depth,
            "num_heads": module.heads,
            "mlp_ratio": 2 * units / module.width if gated else module.mlp_ratio,
            "init_values": module.layer_scale,
            "patch_size": module.patch,
            "img_size": size,
            "in_chans": channels,
            "class_token": module.class_token,
            "reg_tokens": module.registers,
            "no_embed_class": not module.front_positions,
            **({} if gated else {"act_layer": module.activation}),
        },
        "pretrained_cfg": {
            "num_classes": module.classes,
            "input_size": [channels, size, size],
            # With this timm gives a network its size; it refuses that to those without positions.
            "fixed_input_size": True,
        },
    }


FAMILIES: dict[str, Family] = {
    "timm:vit": Family(_module, _entries, _inputs, _config, sized=("params/encoder/pos_embed",)),
}
