"""Nets, optimizers and schedules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax

from jaxdistill import models, targets
from jaxdistill._errors import unknown
from jaxdistill.build import samplers
from jaxdistill.build._names import call, named, without
from jaxdistill.build.condense import kernel_named
from jaxdistill.net import Net, from_linen
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


def _warmup_cosine(peak: float, warmup: int, steps: int, end: float = 0.0) -> optax.Schedule:
    steps = max(steps, 1)
    # Two steps of a smoke run are fewer than any warm-up.
    warmup = min(warmup, steps // 2)
    if not warmup:
        return optax.cosine_decay_schedule(peak, steps, end / peak)
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps, end)


def _step_decay(peak: float, milestones: Sequence[int], factor: float = 0.1) -> optax.Schedule:
    return optax.piecewise_constant_schedule(peak, dict.fromkeys(milestones, factor))


def _linear(start: float, end: float, steps: int, begin: int = 0) -> optax.Schedule:
    return optax.linear_schedule(start, end, max(steps - begin, 1), begin)


def _cosine(start: float, end: float, steps: int) -> optax.Schedule:
    half = optax.cosine_decay_schedule(1.0, max(steps, 1))
    return lambda step: end + (start - end) * half(step)


def _exponential(start: float, rate: float, every: int = 1) -> optax.Schedule:
    return optax.exponential_decay(start, every, rate)


SCHEDULES: dict[str, Callable[..., Any]] = {
    "warmup_cosine": _warmup_cosine,
    "step_decay": _step_decay,
    "linear": _linear,
    "cosine": _cosine,
    "exponential": _exponential,
    "snapshot_every": lambda every: targets.snapshot_every(every),
}


def net(settings: Mapping[str, Any], info: Mapping[str, Any]) -> Net:
    """The net of a stage; ``classes`` and ``channels`` come from the data unless they are given."""
    name = named("net", settings, "net")
    given = {"classes": info.get("classes"), "channels": (info.get("image_shape") or (None,))[-1]}
    made = call("net", NETS, name, without(settings, "net"), **given)
    return made if isinstance(made, Net) else from_linen(made)


def schedule(value: Any, steps: int) -> Any:
    """A number as it is; a dict that names a ``schedule`` as a function of the step."""
    if isinstance(value, Mapping) and "schedule" in value:
        return call(
            "schedule", SCHEDULES, value["schedule"], without(value, "schedule"), steps=steps
        )
    return value


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
