"""ConvNeXt and MobileNetV3 as timm and Transformers publish them."""

from __future__ import annotations

import re
from typing import Any

from jaxdistill.models.convnext import ConvNeXt
from jaxdistill.models.mobilenet import MobileNetV3
from jaxdistill.models.pretrained.family import (
    Config,
    Family,
    classes_of,
    fixed,
    labels,
    timm_arguments,
    timm_name,
)
from jaxdistill.models.pretrained.forms import (
    CONVOLUTION,
    LINEAR,
    POINT,
    POINTWISE,
    SAME,
    Entry,
    Form,
    batch_norm,
    linear,
    norm,
    reshaped,
)


def _with_bias(path: str, name: str, form: Form) -> list[Entry]:
    return [
        Entry(f"{path}/kernel", (f"{name}.weight",), form),
        Entry(f"{path}/bias", (f"{name}.bias",), SAME),
    ]


# --- ConvNeXt ----------------------------------------------------------------------------------

# What the parts of a block are called: depthwise, norm, both linear layers, response, factor.
_TRANSFORMERS = ("dwconv", "layernorm", "pwconv1", "pwconv2", "grn", "layer_scale_parameter")
_TIMM = ("conv_dw", "norm", "mlp.fc1", "mlp.fc2", "mlp.grn", "gamma")


def _convnext_stages(module: ConvNeXt, prefix: str, timm: bool) -> list[Entry]:
    convolution, normed, first, second, response, scale = _TIMM if timm else _TRANSFORMERS
    found = []
    for stage, blocks in enumerate(module.blocks):
        own, theirs = f"params/stage_{stage + 1}", f"{prefix}stages.{stage}"
        if stage:
            down = f"{theirs}.downsample" if timm else f"{theirs}.downsampling_layer"
            found += norm(f"{own}/down_norm", f"{down}.0")
            found += _with_bias(f"{own}/down_conv", f"{down}.1", CONVOLUTION)
        for index in range(blocks):
            path, name = (
                f"{own}/block_{index}",
                f"{theirs}.{'blocks' if timm else 'layers'}.{index}",
            )
            found += _with_bias(f"{path}/conv_dw", f"{name}.{convolution}", CONVOLUTION)
            found += norm(f"{path}/norm", f"{name}.{normed}")
            # Small networks of timm have them as convolutions of 1x1.
            form = POINT if timm else LINEAR
            found += _with_bias(f"{path}/fc1", f"{name}.{first}", form)
            found += _with_bias(f"{path}/fc2", f"{name}.{second}", form)
            if module.response_norm:
                form = SAME if timm else reshaped((-1,), (1, 1, 1, -1))
                found += [
                    Entry(f"{path}/grn/scale", (f"{name}.{response}.weight",), form),
                    Entry(f"{path}/grn/bias", (f"{name}.{response}.bias",), form),
                ]
            if module.layer_scale is not None:
                found.append(Entry(f"{path}/scale", (f"{name}.{scale}",), SAME))
    return found


def _convnext(kind: str) -> Family:
    second = kind == "convnextv2"
    architecture = f"ConvNext{'V2' if second else ''}ForImageClassification"

    def module(config: Config) -> ConvNeXt:
        fixed(config, hidden_act="gelu")
        scale = config.get("layer_scale_init_value", 1e-6)
        return ConvNeXt(
            blocks=tuple(config.get("depths") or (3, 3, 9, 3)),
            widths=tuple(config.get("hidden_sizes") or (96, 192, 384, 768)),
            classes=classes_of(config),
            patch=config.get("patch_size", 4),
            layer_scale=None if second or not scale else scale,
            response_norm=second,
            last_epsilon=config.get("layer_norm_eps", 1e-12),
        )

    def entries(module: ConvNeXt) -> list[Entry]:
        embeddings = f"{kind}.embeddings"
        return [
            *_with_bias("params/stem_conv", f"{embeddings}.patch_embeddings", CONVOLUTION),
            *norm("params/stem_norm", f"{embeddings}.layernorm"),
            *_convnext_stages(module, f"{kind}.encoder.", timm=False),
            *norm("params/norm", f"{kind}.layernorm"),
            *(linear("params/head", "classifier") if module.classes else []),
        ]

    def config(module: ConvNeXt, variables: Any) -> dict[str, Any]:
        if module.response_norm != second or (second and module.layer_scale is not None):
            raise ValueError(f"{architecture} has response norms in version 2 alone, scales in 1")
        if module.epsilon != 1e-6:
            raise ValueError(f"{architecture} has norms with an epsilon of 1e-6")
        return {
            "architectures": [architecture],
            "model_type": kind,
            "num_channels": variables["params"]["stem_conv"]["kernel"].shape[2],
            "num_stages": len(module.blocks),
            "depths": list(module.blocks),
            "hidden_sizes": list(module.widths),
            "patch_size": module.patch,
            "hidden_act": "gelu",
            "layer_norm_eps": module.last_epsilon,
            **({} if second else {"layer_scale_init_value": module.layer_scale or 0.0}),
            **labels(module.classes),
        }

    return Family(module, entries, _inputs, config)


def _inputs(config: Config) -> dict[str, tuple[tuple[int, ...], str]]:
    arguments = config.get("model_args") or {}
    channels = arguments.get("in_chans", config.get("num_channels", 3))
    return {"image": ((1, 64, 64, channels), "float32")}


_SIZES = {
    "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
    "huge": ((3, 3, 27, 3), (352, 704, 1408, 2816)),
}
_CONVNEXT = re.compile(rf"convnext(?P<second>v2)?_(?P<size>{'|'.join(_SIZES)})")


def _timm_convnext_module(config: Config) -> ConvNeXt:
    known = f"of these convnext_<size> and convnextv2_<size> are, with {', '.join(_SIZES)}"
    match = timm_name(config, _CONVNEXT, known)
    depths, dims = _SIZES[match["size"]]
    second = bool(match["second"])
    found = timm_arguments(
        config,
        global_pool="avg",
        depths=depths,
        dims=dims,
        patch_size=4,
        use_grn=second,
        ls_init_value=None if second else 1e-6,
        norm_eps=None,
        conv_mlp=False,
        drop_path_rate=0.0,
    )
    fixed(found, global_pool="avg")
    epsilon = found["norm_eps"] or 1e-6
    return ConvNeXt(
        blocks=tuple(found["depths"]),
        widths=tuple(found["dims"]),
        classes=found["num_classes"],
        patch=found["patch_size"],
        layer_scale=found["ls_init_value"],
        response_norm=found["use_grn"],
        epsilon=epsilon,
        last_epsilon=epsilon,
    )


def _timm_convnext_entries(module: ConvNeXt) -> list[Entry]:
    return [
        *_with_bias("params/stem_conv", "stem.0", CONVOLUTION),
        *norm("params/stem_norm", "stem.1"),
        *_convnext_stages(module, "", timm=True),
        *norm("params/norm", "head.norm"),
        *(linear("params/head", "head.fc") if module.classes else []),
    ]


def _timm_convnext_config(module: ConvNeXt, variables: Any) -> dict[str, Any]:
    if module.epsilon != module.last_epsilon or len(module.blocks) != 4:
        raise ValueError("timm's ConvNeXt has four stages, and one epsilon for all of its norms")
    channels = variables["params"]["stem_conv"]["kernel"].shape[2]
    return {
        "architecture": "convnextv2_tiny" if module.response_norm else "convnext_tiny",
        "num_classes": module.classes,
        "num_features": module.widths[-1],
        "global_pool": "avg",
        "model_args": {
            "depths": list(module.blocks),
            "dims": list(module.widths),
            "patch_size": module.patch,
            "in_chans": channels,
            "use_grn": module.response_norm,
            "ls_init_value": module.layer_scale,
            "norm_eps": module.epsilon,
        },
        "pretrained_cfg": {"num_classes": module.classes},
    }


# --- MobileNetV3 -------------------------------------------------------------------------------

_MOBILE = re.compile(r"mobilenetv3_(?P<size>small|large)_(?P<width>050|075|100)")


def _mobile_module(config: Config) -> MobileNetV3:
    known = (
        "of these mobilenetv3_small_<width> and mobilenetv3_large_<width> are, with 050, 075 and "
        "100"
    )
    match = timm_name(config, _MOBILE, known)
    given = timm_arguments(config, global_pool="avg")
    fixed(given, global_pool="avg")
    size: Any = match["size"]
    return MobileNetV3(size=size, width=int(match["width"]) / 100, classes=given["num_classes"])


def _mobile_entries(module: MobileNetV3) -> list[Entry]:
    def convolution(path: str, name: str) -> Entry:
        return Entry(f"params/{path}/kernel", (f"{name}.weight",), CONVOLUTION)

    found = [convolution("stem_conv", "conv_stem"), *batch_norm("stem_norm", "bn1")]
    stages = module.stages()
    for stage, forms in enumerate(stages):
        for index, form in enumerate(forms):
            own, theirs = f"stage_{stage + 1}/block_{index}", f"blocks.{stage}.{index}"
            if form.expansion == 1:
                parts = {"depth": ("conv_dw", "bn1"), "": ("conv_pw", "bn2")}
            else:
                parts = {
                    "expand": ("conv_pw", "bn1"),
                    "depth": ("conv_dw", "bn2"),
                    "": ("conv_pwl", "bn3"),
                }
            for part, (conv, normed) in parts.items():
                part = f"{part}_" if part else ""
                found.append(convolution(f"{own}/{part}conv", f"{theirs}.{conv}"))
                found += batch_norm(f"{own}/{part}norm", f"{theirs}.{normed}")
            if form.squeeze:
                for part in ("reduce", "expand"):
                    path, name = f"params/{own}/squeeze/{part}", f"{theirs}.se.conv_{part}"
                    found += _with_bias(path, name, POINTWISE)
    last = f"blocks.{len(stages)}.0"
    found += [convolution("last_conv", f"{last}.conv"), *batch_norm("last_norm", f"{last}.bn1")]
    found += _with_bias("params/last", "conv_head", POINTWISE)
    return found + (linear("params/head", "classifier") if module.classes else [])


def _mobile_config(module: MobileNetV3, variables: Any) -> dict[str, Any]:
    name = f"mobilenetv3_{module.size}_{round(100 * module.width):03d}"
    if not _MOBILE.fullmatch(name) or round(100 * module.width) != 100 * module.width:
        raise ValueError(f"timm has MobileNetV3 at 0.5, 0.75 and 1 of its width: {module.width}")
    channels = variables["params"]["stem_conv"]["kernel"].shape[2]
    return {
        "architecture": name,
        "num_classes": module.classes,
        "global_pool": "avg",
        "model_args": {"in_chans": channels},
        "pretrained_cfg": {"num_classes": module.classes},
    }


FAMILIES: dict[str, Family] = {
    "ConvNextForImageClassification": _convnext("convnext"),
    "ConvNextV2ForImageClassification": _convnext("convnextv2"),
    "timm:convnext": Family(
        _timm_convnext_module, _timm_convnext_entries, _inputs, _timm_convnext_config
    ),
    "timm:mobilenet": Family(
        _mobile_module,
        _mobile_entries,
        _inputs,
        _mobile_config,
        ignored=(r".*\.num_batches_tracked",),
    ),
}
