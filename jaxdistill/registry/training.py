"""Nets, optimizers and schedules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import optax

from jaxdistill import models
from jaxdistill._errors import unknown
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import Net
from jaxdistill.registry import samplers
from jaxdistill.registry._names import call, named, without
from jaxdistill.registry.condense import kernel_named
from jaxdistill.registry.schedules import schedule
from jaxdistill.theory import machines
from jaxdistill.training import optimizer


def _kernel_machine(kernel: Mapping[str, Any], classes: int | None = None) -> Net:
    return machines.kernel_machine(kernel_named(kernel), classes or 1)


NETS: dict[str, Callable[..., Any]] = {
    "mlp": models.MLP,
    "convnet": models.ConvNet,
    "cifar_resnet": models.cifar_resnet,
    "imagenet_resnet": models.imagenet_resnet,
    "vit": models.ViT,
    "mae": models.MAE,
    "kernel_machine": _kernel_machine,
    **samplers.NETS,
    "decoder": models.Decoder,
    "text_encoder": models.TextEncoder,
}


def _adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1, b2, eps)


def _sgd(momentum: float = 0.0, nesterov: bool = False) -> optax.GradientTransformation:
    return optax.trace(momentum, nesterov) if momentum else optax.identity()


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adamw": _adam,
    "sgd": _sgd,
    "lion": optax.scale_by_lion,
    "radam": optax.scale_by_radam,
}


def module(settings: Mapping[str, Any], info: Mapping[str, Any]) -> Any:
    """The Linen module of a stage's net, or the net itself where it is none.

    What it must know of the data comes from there unless it is given.
    """
    name = named("net", settings, "net")
    given = {
        "classes": info.get("classes") or 0,
        "channels": (info.get("image_shape") or (None,))[-1],
    }
    given["vocabulary"] = info.get("vocabulary")
    return call("net", NETS, name, without(settings, "net"), **given)


def net(settings: Mapping[str, Any], info: Mapping[str, Any]) -> Net:
    """The net of a stage, see :func:`module`."""
    made = module(settings, info)
    return made if isinstance(made, Net) else from_linen(made)


def transformation(settings: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
    """The optimizer of a stage; ``parts`` holds one for each part of what is learned, by name."""
    if named("optimizer", settings) == "parts":
        own: dict[Any, Any] = {
            key: transformation(part, steps) for key, part in without(settings, "name").items()
        }

        def label(params):
            for key in params:
                if key not in own:
                    raise ValueError(unknown("part in the optimizer 'parts'", key, own))
            return {key: key for key in params}

        return optax.partition(own, label)
    by_path = inspect.signature(optimizer.by_path).parameters
    shared = {k: v for k, v in settings.items() if k in by_path and v is not None}
    name = named("optimizer", settings)
    scale_by = call("optimizer", OPTIMIZERS, name, without(settings, "name", *by_path))
    if "learning_rate" not in shared:
        raise ValueError(f"optimizer {name!r} needs 'learning_rate'")
    shared["learning_rate"] = schedule(shared["learning_rate"], steps)
    return optimizer.by_path(scale_by, **shared)
