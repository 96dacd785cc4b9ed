"""Nets by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from jaxdistill import connectors, lora, models
from jaxdistill.distiller import Student
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models import pretrained
from jaxdistill.models.sentence_pair import Comparison
from jaxdistill.net import Net
from jaxdistill.registry import pools, samplers
from jaxdistill.registry.condense import kernel_named
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, forwarding, module, stages_in
from jaxdistill.settings import Count, Earlier, Natural
from jaxdistill.theory import machines


def _kernel_machine(context: Context, *, kernel: Mapping[str, Any]) -> Net:
    return machines.kernel_machine(kernel_named(kernel), context.classes or 1)


def _published(
    context: Context, *, path: str, changes: Mapping[str, Any] | None = None
) -> nn.Module:
    """The form of a published network, with attributes of its module that are others; its weights
    are not read."""
    sees = "text" if context.vocabulary else "image"
    return pretrained.module_of(path, sees, **(changes or {}))


HEADS: dict[str, Callable[..., nn.Module]] = {
    "paraphraser": connectors.Paraphraser,
    "embedding": connectors.Embedding,
}


def _extended(context: Context, *, stage: Earlier, tap: str, head: Mapping[str, Any]) -> Any:
    """An earlier net that stays as it is, with a head that learns on one of its features."""
    entries = {name: module(made) for name, made in HEADS.items()}
    own = from_linen(call("head", entries, head, context))
    return connectors.extended(context.net_of(stage), stage, tap, own)


def _sentence_pair(
    context: Context,
    *,
    encoder: Mapping[str, Any],
    hidden: Natural = 512,
    classes: Count | None = None,
    comparison: Comparison = "features",
) -> nn.Module:
    """Two sentences, encoded apart by one encoder, and a score of both."""
    made = net_module(encoder, context.info)
    return models.SentencePair(made, hidden, classes or context.classes or 1, comparison)


@forwarding(lora.adapted)
def _lora(context: Context, *, base: Earlier, **rest: Any) -> Any:
    """An earlier net that stays as it is, and low-rank adapters of its kernels that learn."""
    return lora.adapted(context.net_of(base), base, **rest)


NETS: dict[str, Entry] = {
    "mlp": module(models.MLP),
    "convnet": module(models.ConvNet),
    "cifar_resnet": module(models.cifar_resnet),
    "imagenet_resnet": module(models.imagenet_resnet),
    "vit": module(models.ViT),
    "convnext": module(models.ConvNeXt),
    "mobilenet": module(models.MobileNetV3),
    "mae": module(models.MAE),
    "mixer": module(models.Mixer),
    "wide_resnet": module(models.WideResNet),
    "extended": _extended,
    "lora": _lora,
    "kernel_machine": _kernel_machine,
    "published": _published,
    **samplers.NETS,
    "decoder": module(models.Decoder),
    "text_encoder": module(models.TextEncoder),
    "sentence_pair": _sentence_pair,
}


NETS["shared_classifier"] = pools.classifier_of(lambda part, info: net_module(part, info))


def net_module(part: Mapping[str, Any], info: Mapping[str, Any]) -> Any:
    """The Linen module of a stage's net, or the net itself where it is none.

    What it must know of the data comes from there unless it is given.
    """
    return _made(part, info, {})


def net(
    part: Mapping[str, Any], info: Mapping[str, Any], nets: Mapping[str, Net] | None = None
) -> Student:
    """The net of a stage, or a function to it of the results that it shares weights with.

    Args:
        part: of the config.
        info: what is known of the data.
        nets: those of earlier stages.
    """
    made = _made(part, info, nets or {})
    return lifted(made) if isinstance(made, nn.Module) else made


def lifted(made: nn.Module) -> Net:
    """A Linen module as a net; equal modules are one net, so that what is compiled is shared."""
    try:
        hash(made)
    except TypeError:  # attributes such as dicts
        return from_linen(made)
    return _lifted(made)


@functools.lru_cache(maxsize=32)
def _lifted(made: nn.Module) -> Net:
    return from_linen(made)


def shared(part: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The earlier stages that the net of a stage shares weights with, by the domains of its
    keywords; such an entry gives a function of their results to a net."""
    entry = NETS.get((part or {}).get("net", ""))
    return stages_in(entry, part) if entry is not None and part is not None else ()


def adapts(part: Mapping[str, Any] | None) -> str | None:
    """The earlier stage whose net that of a stage is, with adapters; None for any other net."""
    return part["base"] if part and part.get("net") == "lora" else None


def _made(part: Mapping[str, Any], info: Mapping[str, Any], nets: Mapping[str, Net]) -> Any:
    return call("net", NETS, part, Context(info=info, nets=nets), "net")
