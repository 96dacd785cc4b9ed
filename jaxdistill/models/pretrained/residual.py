"""Residual networks as timm, torchvision and Transformers publish them."""

from __future__ import annotations

import re
from typing import Any

from jaxdistill.models.pretrained.family import (
    Config,
    Family,
    classes_of,
    fixed,
    labels,
    timm_arguments,
    timm_name,
)
from jaxdistill.models.pretrained.forms import CONVOLUTION, Entry, batch_norm, linear
from jaxdistill.models.resnet import ResNet, imagenet_resnet

_COUNTERS = (r".*\.num_batches_tracked",)


def _convolution(path: str, name: str) -> Entry:
    return Entry(f"params/{path}/kernel", (f"{name}.weight",), CONVOLUTION)


def _unit(path: tuple[str, str], name: tuple[str, str]) -> list[Entry]:
    """A convolution and its norm."""
    return [_convolution(path[0], name[0]), *batch_norm(path[1], name[1])]


def _shortcuts(module: ResNet) -> list[tuple[int, int, bool]]:
    """Every block of the net, and whether its shape changes."""
    outputs = [w * (4 if module.bottleneck else 1) for w in module.widths]
    found, incoming = [], module.stem_width
    for stage, blocks in enumerate(module.blocks):
        for index in range(blocks):
            strided = index == 0 and stage > 0
            changes = strided or incoming != outputs[stage]
            found.append((stage, index, changes))
            incoming = outputs[stage]
    return found


_NAME = re.compile(r"resnet(?P<depth>\d+)(?P<variant>[cd]?)")


def _timm_module(config: Config) -> ResNet:
    known = "of its residual networks resnet18, 34, 50, 101 and 152 are, with c or d behind"
    match = timm_name(config, _NAME, known)
    given: dict[str, Any] = {"depth": int(match["depth"]), "variant": match["variant"] or "b"}
    net = imagenet_resnet(**given)
    said = timm_arguments(
        config,
        global_pool="avg",
        layers=net.blocks,
        channels=net.widths,
        stem_width=net.stem_width // 2 if net.deep_stem else net.stem_width,
    )
    fixed(said, global_pool="avg")
    if not net.deep_stem:
        fixed(said, stem_width=net.stem_width)
    return net.clone(
        blocks=tuple(said["layers"]),
        widths=tuple(said["channels"]),
        stem_width=said["stem_width"] * (2 if net.deep_stem else 1),
        classes=said["num_classes"],
    )


def _timm_entries(module: ResNet) -> list[Entry]:
    found = []
    if module.deep_stem:
        for own, theirs in (("_1", 0), ("_2", 3)):
            path = (f"stem/conv{own}", f"stem/norm{own}")
            found += _unit(path, (f"conv1.{theirs}", f"conv1.{theirs + 1}"))
    stem = "conv1.6" if module.deep_stem else "conv1"
    found += _unit(("stem/conv", "stem/norm"), (stem, "bn1"))
    first = int(module.shortcut == "pool")
    for stage, index, changes in _shortcuts(module):
        own, theirs = f"stage_{stage + 1}/block_{index}", f"layer{stage + 1}.{index}"
        for number in range(1, 4 if module.bottleneck else 3):
            path = (f"{own}/conv_{number}", f"{own}/norm_{number}")
            found += _unit(path, (f"{theirs}.conv{number}", f"{theirs}.bn{number}"))
        if changes:
            path = (f"{own}/shortcut_conv", f"{own}/shortcut_norm")
            names = (f"{theirs}.downsample.{first}", f"{theirs}.downsample.{first + 1}")
            found += _unit(path, names)
    return found + (linear("params/head", "fc") if module.classes else [])


def _timm_config(module: ResNet, variables: Any) -> dict[str, Any]:
    variants = {(False, "conv"): "", (True, "conv"): "c", (True, "pool"): "d"}
    variant = variants.get((module.deep_stem, module.shortcut))
    if variant is None or module.stride_first or not module.large_images:
        raise ValueError("timm has residual networks of the forms b, c and d, for large images")
    first = variables["params"]["stem"]["conv_1" if module.deep_stem else "conv"]["kernel"]
    arguments = {
        "layers": list(module.blocks),
        "channels": list(module.widths),
        "in_chans": first.shape[2],
        **({"stem_width": module.stem_width // 2} if module.deep_stem else {}),
    }
    return {
        "architecture": f"resnet{50 if module.bottleneck else 18}{variant}",
        "num_classes": module.classes,
        "num_features": module.widths[-1] * (4 if module.bottleneck else 1),
        "global_pool": "avg",
        "model_args": arguments,
        "pretrained_cfg": {"num_classes": module.classes},
    }


def _timm_inputs(config: Config) -> dict[str, tuple[tuple[int, ...], str]]:
    channels = (config.get("model_args") or {}).get("in_chans", 3)
    return {"image": ((1, 64, 64, channels), "float32")}


def _module(config: Config) -> ResNet:
    fixed(config, hidden_act="relu", downsample_in_first_stage=False)
    bottleneck = config.get("layer_type", "bottleneck") == "bottleneck"
    sizes = config.get("hidden_sizes", [256, 512, 1024, 2048])
    return ResNet(
        blocks=tuple(config.get("depths", [3, 4, 6, 3])),
        widths=tuple(size // 4 if bottleneck else size for size in sizes),
        classes=classes_of(config),
        stem_width=config.get("embedding_size", 64),
        bottleneck=bottleneck,
        stride_first=config.get("downsample_in_bottleneck", False),
    )


def _entries(module: ResNet) -> list[Entry]:
    def unit(path: tuple[str, str], name: str) -> list[Entry]:
        return _unit(path, (f"{name}.convolution", f"{name}.normalization"))

    found = unit(("stem/conv", "stem/norm"), "resnet.embedder.embedder")
    for stage, index, changes in _shortcuts(module):
        own = f"stage_{stage + 1}/block_{index}"
        theirs = f"resnet.encoder.stages.{stage}.layers.{index}"
        for number in range(3 if module.bottleneck else 2):
            path = (f"{own}/conv_{number + 1}", f"{own}/norm_{number + 1}")
            found += unit(path, f"{theirs}.layer.{number}")
        if changes:
            path = (f"{own}/shortcut_conv", f"{own}/shortcut_norm")
            found += unit(path, f"{theirs}.shortcut")
    return found + linear("params/head", "classifier.1")


def _config(module: ResNet, variables: Any) -> dict[str, Any]:
    if module.deep_stem or module.shortcut != "conv" or not module.large_images:
        raise ValueError(
            "Transformers has residual networks with a stem of 7x7 and convolutions as shortcuts "
            "alone: export this one for timm"
        )
    wider = 4 if module.bottleneck else 1
    return {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "num_channels": variables["params"]["stem"]["conv"]["kernel"].shape[2],
        "embedding_size": module.stem_width,
        "hidden_sizes": [width * wider for width in module.widths],
        "depths": list(module.blocks),
        "layer_type": "bottleneck" if module.bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": module.stride_first,
        **labels(module.classes),
    }


def _inputs(config: Config) -> dict[str, tuple[tuple[int, ...], str]]:
    return {"image": ((1, 64, 64, config.get("num_channels", 3)), "float32")}


FAMILIES: dict[str, Family] = {
    "ResNetForImageClassification": Family(_module, _entries, _inputs, _config, _COUNTERS),
    "timm:resnet": Family(_timm_module, _timm_entries, _timm_inputs, _timm_config, _COUNTERS),
}
