"""Names of samplers: their nets, data, algorithms and evaluators."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdistill import models, samplers
from jaxdistill._errors import unknown
from jaxdistill.data import sources, split
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.distiller import Distiller
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import Net
from jaxdistill.registry._names import call, flattened, named, without
from jaxdistill.samplers import quality
from jaxdistill.samplers.solvers import SolverName

BACKBONES: dict[str, Callable[..., Any]] = {
    "time_mlp": models.TimeMLP,
    "unet": models.UNet,
    "dit": models.DiT,
}
DENSITIES: dict[str, Callable[..., samplers.Mixture]] = {"ring": samplers.ring}
# Records in a batch that a classifier looks at.
BATCH = 250


def _backbone(settings: Mapping[str, Any], **given: Any) -> Net:
    name = named("backbone", settings, "net")
    return from_linen(call("backbone", BACKBONES, name, without(settings, "net"), **given))


def _denoiser(
    backbone: Mapping[str, Any],
    classes: int | None = None,
    conditional: bool = False,
    sigma_data: float = 0.5,
    sigma_min: float = 0.0,
    sigma_max: float = 80.0,
    time: Any = "log",
) -> Net:
    inner = _backbone(backbone, classes=(classes or 0) if conditional else 0)
    return samplers.denoiser(
        inner, sigma_data=sigma_data, sigma_min=sigma_min, sigma_max=sigma_max, time=time
    )


NETS: dict[str, Callable[..., Net]] = {"denoiser": _denoiser}


def _density(settings: Mapping[str, Any]) -> samplers.Mixture:
    return call("density", DENSITIES, named("density", settings), without(settings, "name"))


def _ring(points: int = 20_000, modes: int = 8, classes: int = 0) -> sources.Source:
    """Points of a ring of Gaussians, the same for every run: ``image`` ``[n, 2]`` and ``label``."""
    ring = samplers.ring(modes=modes, classes=classes)
    drawn, chosen = jax.device_get(samplers.draw(jax.random.key(0), ring, points))
    labels = np.asarray(ring.labels)[chosen]
    return sources.arrays({"image": drawn.astype(np.float32), "label": labels}, name="ring")


DATA: dict[str, Callable[..., Any]] = {"ring": _ring}


def _teacher(
    settings: Mapping[str, Any] | None, nets: Mapping[str, Net]
) -> samplers.Teacher | None:
    """An exact density, or the denoiser of an earlier stage."""
    if settings is None:
        return None
    for key in settings:
        if key not in ("stage", "density"):
            raise ValueError(unknown("key of a sampler's teacher", key, ("stage", "density")))
    if "density" in settings:
        source = _density(settings["density"])
        return lambda frozen: lambda x, sigma, label=None: samplers.denoise(source, x, sigma, label)
    name = named("teacher", settings, "stage")
    if name not in nets:
        raise ValueError(unknown("stage of a sampler's teacher", name, nets))
    return samplers.teacher_net(nets[name], name)


def _configured(
    function: Callable[..., Distiller], make: Callable[..., Distiller], *, less: Sequence[str] = ()
) -> Callable[..., Distiller]:
    """``make`` with the keywords of ``function`` as keys of a config, beside its own.

    The defaults stay where they belong.
    """
    theirs, own = inspect.signature(function).parameters, inspect.signature(make).parameters
    keys = {
        name: parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in {**theirs, **own}.items()
        if name not in less and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }

    @functools.wraps(function)
    def made(**settings):
        return make(**settings)

    made.__signature__ = inspect.Signature(list(keys.values()))  # type: ignore[attr-defined]
    return made


def _taught(function: Callable[..., Distiller]) -> Callable[..., Distiller]:
    """An algorithm whose teacher is named in the config."""

    def make(nets, teacher=None, **settings):
        return function(teacher=_teacher(teacher, nets), **settings)

    return _configured(function, make)


def _continuous_consistency(student, info, nets, teacher=None, **settings) -> Distiller:
    if student["net"] != "denoiser" or student.get("time") != "angle":
        raise ValueError(
            "'continuous_consistency' differentiates by the angle: its student must be the net "
            "'denoiser' with time='angle'"
        )
    classes = info.get("classes", 0) if student.get("conditional") else 0
    return samplers.continuous_consistency(
        _backbone(student["backbone"], classes=classes),
        teacher=_teacher(teacher, nets),
        **settings,
    )


def _distribution_matching(
    net,
    optimizer,
    transformation,
    steps,
    info,
    nets,
    teacher,
    adversarial=False,
    fake_optimizer=None,
    ratio=5,
    labels=False,
    **settings,
) -> Distiller:
    found = _teacher(teacher, nets)
    if found is None:
        raise ValueError("'distribution_matching' needs 'teacher'")
    return samplers.distribution_matching(
        net,
        net,
        # The estimate is updated more often: its schedule is as much longer.
        fake_tx=transformation(fake_optimizer or optimizer, steps * ratio),
        teacher=found,
        ratio=ratio,
        head=from_linen(models.CriticHead()) if adversarial else None,
        labels=labels,
        classes=info.get("classes", 0) if labels else 0,
        **settings,
    )


DISTILLERS: dict[str, Callable[..., Distiller]] = {
    "denoising": _taught(samplers.denoising),
    "consistency": _taught(samplers.consistency_training),
    "continuous_consistency": _configured(
        samplers.continuous_consistency, _continuous_consistency, less=("net", "sigma_data")
    ),
    "distribution_matching": flattened(
        _configured(
            samplers.distribution_matching,
            _distribution_matching,
            less=("fake", "fake_tx", "head", "classes"),
        ),
        noise=(samplers.Noise, {name: name for name in samplers.Noise._fields}),
        discriminator=(
            samplers.Discriminator,
            {name: name for name in samplers.Discriminator._fields},
        ),
    ),
}


def _density_quality(
    net: Net,
    seed: int,
    density: Mapping[str, Any],
    draws: int = 100_000,
    in_steps: Sequence[int] = (1, 2),
    solver: SolverName = "consistency",
    high: float = 80.0,
    low: float = 0.002,
    middle: Sequence[float] = (),
    scale: float | None = None,
    label: int | None = None,
    embedded: bool = False,
) -> Any:
    return quality.density_quality(
        net,
        _density(density),
        seed,
        draws=draws,
        in_steps=in_steps,
        label=label,
        solver=solver,
        high=high,
        low=low,
        middle=middle,
        scale=scale,
        embedded=embedded,
    )


def _image_quality(
    net: Net,
    nets: Mapping[str, Net],
    sets: split.Splits,
    seed: int,
    info: Mapping[str, Any],
    classifier: str,
    read: str,
    prepare: Any = None,
    draws: int = 1000,
    in_steps: Sequence[int] = (1, 2),
    solver: SolverName = "consistency",
    high: float = 80.0,
    low: float = 0.002,
    middle: Sequence[float] = (),
    scale: float | None = None,
    embedded: bool = False,
    fid: bool = False,
    labels: bool = False,
    against: Mapping[str, Any] | None = None,
) -> Any:
    if classifier not in nets:
        raise ValueError(unknown("stage of the classifier", classifier, nets))
    teacher = None
    if against is not None:
        name = named("teacher to compare with", against, "stage")
        if name not in nets:
            raise ValueError(unknown("stage to compare with", name, nets))
        how = without(against, "stage", "in_steps")
        teacher = (name, quality.sampler(nets[name], **how), tuple(against["in_steps"]))
    train = evaluation_batches(sets["train"], BATCH)
    return quality.image_quality(
        net,
        (classifier, nets[classifier]),
        train,
        info.get("classes", 0),
        prepare,
        teacher,
        seed,
        read=read,
        labels=labels,
        draws=draws,
        in_steps=in_steps,
        fid=fid,
        solver=solver,
        high=high,
        low=low,
        middle=middle,
        scale=scale,
        embedded=embedded,
    )


EVALUATORS: dict[str, Callable[..., Any]] = {
    "density_quality": _density_quality,
    "image_quality": _image_quality,
}
