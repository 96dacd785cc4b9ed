"""Names of samplers: their nets, data, algorithms and evaluators."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdistill import models, samplers
from jaxdistill.data import sources
from jaxdistill.distiller import Distiller
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import Net
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, forwarding, module, offered, record
from jaxdistill.registry.optimizers import transformation
from jaxdistill.samplers.sprint import ADVERSARY
from jaxdistill.settings import Count, Natural, Positive

BACKBONES: dict[str, Entry] = {
    "time_mlp": module(models.TimeMLP),
    "unet": module(models.UNet),
    "dit": module(models.DiT),
}


DENSITIES: dict[str, Entry] = {"ring": offered(samplers.ring)}


def _backbone(part: Mapping[str, Any], classes: int) -> Net:
    context = Context(info={"classes": classes})
    return from_linen(call("backbone", BACKBONES, part, context, "net"))


@forwarding(samplers.denoiser)
def _denoiser(
    context: Context, *, backbone: Mapping[str, Any], conditional: bool = False, **rest: Any
) -> Net:
    classes = (context.classes or 0) if conditional else 0
    return samplers.denoiser(_backbone(backbone, classes), **rest)


def _students(context: Context, *, one: Mapping[str, Any], count: Count) -> Net:
    """Several nets, one for each part of the classes."""
    high = one.get("sigma_max", 80.0)
    return samplers.students(_one(one, context), context.classes or 0, count=count, sigma_max=high)


def _one(part: Mapping[str, Any], context: Context) -> Net:
    return call("net of one student", {"denoiser": _denoiser}, part, context, "net")


NETS: dict[str, Entry] = {"denoiser": _denoiser, "students": _students}


def density_of(part: Mapping[str, Any]) -> samplers.Mixture:
    return call("density", DENSITIES, part, Context())


def _ring(
    context: Context, *, points: Count = 20_000, modes: Count = 8, classes: Natural = 0
) -> sources.Source:
    """Points of a ring of Gaussians, the same for every run: ``image`` ``[n, 2]`` and ``label``."""
    ring = samplers.ring(modes=modes, classes=classes)
    drawn, chosen = jax.device_get(samplers.draw(jax.random.key(0), ring, points))
    labels = np.asarray(ring.labels)[chosen]
    return sources.arrays({"image": drawn.astype(np.float32), "label": labels}, name="ring")


DATA: dict[str, Entry] = {"ring": _ring}


@dataclasses.dataclass(frozen=True)
class _Teacher:
    """What a sampler learns from: the denoiser of an earlier stage, or an exact density."""

    stage: str | None = None
    density: Mapping[str, Any] | None = None


def teacher_of(part: Mapping[str, Any] | None, context: Context) -> samplers.Teacher | None:
    if part is None:
        return None
    said = record("a sampler's teacher", _Teacher, part)
    if (said.stage is None) == (said.density is None):
        raise ValueError("a sampler's teacher is either a 'stage' or a 'density'")
    if said.density is not None:
        source = density_of(said.density)
        return lambda frozen: lambda x, sigma, label=None: samplers.denoise(source, x, sigma, label)
    net = context.net_of(said.stage or "", "stage of a sampler's teacher")
    return samplers.teacher_net(net, said.stage or "")


def _taught(
    function: Callable[..., Distiller], *, needed: bool = False, jumps: bool = False
) -> Entry:
    """An algorithm whose teacher is named in the config, and may be needed; and whose student may
    have to be one that jumps."""

    @forwarding(function)
    def entry(
        context: Context, *, teacher: Mapping[str, Any] | None = None, **rest: Any
    ) -> Distiller:
        if needed and teacher is None:
            raise ValueError(f"{function.__name__!r} learns from a teacher alone: give 'teacher'")
        if jumps:
            _refuse_still(function.__name__, context.student)
        taught = dataclasses.replace(context, teacher=teacher_of(teacher, context))
        return offered(function)(taught, **rest)

    return entry


def _differentiated(context: Context, algorithm: str) -> Net:
    """The net inside of a student that is a denoiser, as that of TrigFlow."""
    student = context.student
    if student.get("net") != "denoiser" or student.get("time") not in ("angle", "flow"):
        raise ValueError(
            f"{algorithm!r} differentiates by the angle: its student must be the net 'denoiser' "
            "with time='angle' or time='flow'"
        )
    classes = (context.classes or 0) if student.get("conditional") else 0
    net = _backbone(student["backbone"], classes)
    return samplers.as_trigflow(net) if student["time"] == "flow" else net


def _refuse_still(name: str, student: Mapping[str, Any]) -> None:
    """Refuses a student that is not told where a jump ends."""
    told = (student.get("backbone") or {}).get("jumps")
    if student.get("net") != "denoiser" or student.get("time") != "angle" or not told:
        raise ValueError(
            f"{name!r} trains jumps: its student must be the net 'denoiser' with time='angle', and "
            "its backbone with jumps=True"
        )


@forwarding(samplers.continuous_consistency, "sigma_data")
def _continuous_consistency(
    context: Context, *, teacher: Mapping[str, Any] | None = None, **rest: Any
) -> Distiller:
    net = _differentiated(context, "continuous_consistency")
    return samplers.continuous_consistency(
        net, context.tx, teacher_of(teacher, context), context.prepare, context.initial, **rest
    )


@forwarding(samplers.latent_adversarial, "sigma_data")
def _latent_adversarial(
    context: Context,
    *,
    teacher: Mapping[str, Any],
    features: str,
    adversary: samplers.Adversary = ADVERSARY,
    critic_optimizer: Mapping[str, Any] | None = None,
    critic_updates: Count = 1,
    **rest: Any,
) -> Distiller:
    found = teacher_of(teacher, context)
    assert found is not None  # the key is needed
    trunk = context.net_of(features, "stage whose features are judged")
    return samplers.latent_adversarial(
        _differentiated(context, "latent_adversarial"),
        context.tx,
        transformation(critic_optimizer or context.optimizer or {}, context.steps * critic_updates),
        found,
        samplers.features_of(trunk, features, adversary.taps),
        from_linen(models.CriticHead()),
        context.prepare,
        context.initial,
        adversary=adversary,
        critic_updates=critic_updates,
        **rest,
    )


@dataclasses.dataclass(frozen=True)
class _Reward:
    """What images are to look like: a mode of a density, or a class of an earlier stage."""

    density: Mapping[str, Any] | None = None
    mode: Natural = 0
    stage: str | None = None
    label: Natural = 0


def _reward(part: Mapping[str, Any] | None, context: Context) -> Any:
    if part is None:
        return None
    said = record("a reward", _Reward, part)
    if (said.stage is None) == (said.density is None):
        raise ValueError("a reward is either of a 'density' and its 'mode' or of a 'stage'")
    if said.density is not None:
        source = density_of(said.density)
        if said.mode >= len(source.means):
            raise ValueError(f"mode={said.mode} is none of {len(source.means)}, counted from 0")
        return samplers.near_mode(source, said.mode)
    net = context.net_of(said.stage or "", "stage of a reward")
    return samplers.of_class(net, said.stage or "", said.label)


@forwarding(samplers.segmented)
def _segmented(
    context: Context,
    *,
    teacher: Mapping[str, Any],
    features: str | None = None,
    adversary: samplers.Adversary = ADVERSARY,
    critic_optimizer: Mapping[str, Any] | None = None,
    reward: Mapping[str, Any] | None = None,
    **rest: Any,
) -> Distiller:
    found, judge = teacher_of(teacher, context), None
    assert found is not None  # the key is needed
    if features is not None:
        trunk = context.net_of(features, "stage whose features are judged")
        judge = samplers.Judge(
            samplers.features_of(trunk, features, adversary.taps),
            from_linen(models.CriticHead()),
            transformation(critic_optimizer or context.optimizer or {}, context.steps),
            adversary,
        )
    return samplers.segmented(
        context.net, context.tx, found, context.prepare, context.initial, judge,
        _reward(reward, context), **rest,
    )  # fmt: skip


@forwarding(samplers.distribution_matching)
def _distribution_matching(
    context: Context,
    *,
    teacher: Mapping[str, Any],
    adversarial: bool = False,
    fake_optimizer: Mapping[str, Any] | None = None,
    ratio: Count = 5,
    labels: bool = False,
    pairs: str | None = None,
    levels: Sequence[Positive] = (80.0,),
    estimate: str | None = None,
    **rest: Any,
) -> Distiller:
    found = teacher_of(teacher, context)
    assert found is not None  # the key is needed
    fake = context.net if estimate is None else context.net_of(estimate, "stage of the estimate")
    return samplers.distribution_matching(
        context.net,
        fake,
        context.tx,
        # The estimate is updated more often: its schedule is as much longer.
        transformation(fake_optimizer or context.optimizer or {}, context.steps * ratio),
        found,
        from_linen(models.CriticHead()) if adversarial else None,
        (context.classes or 0) if labels else 0,
        context.prepare,
        context.initial,
        samplers.pair_loss(context.net, pairs, high=max(levels)) if pairs else None,
        ratio=ratio,
        labels=labels,
        levels=levels,
        estimate=estimate,
        **rest,
    )


@forwarding(samplers.flow_pairs)
def _flow_pairs(
    context: Context, *, teacher: Mapping[str, Any], labels: bool = False, **rest: Any
) -> Distiller:
    found = teacher_of(teacher, context)
    assert found is not None  # the key is needed
    classes = (context.classes or 0) if labels else 0
    return samplers.flow_pairs(
        found, context.steps, classes, context.prepare, labels=labels, **rest
    )


@forwarding(samplers.degradation)
def _degradation(
    context: Context, *, generator: str, labels: bool = False, **rest: Any
) -> Distiller:
    return samplers.degradation(
        context.net,
        (generator, context.net_of(generator, "stage of the generator")),
        context.tx,
        context.steps,
        (context.classes or 0) if labels else 0,
        context.prepare,
        context.initial,
        labels=labels,
        **rest,
    )


@forwarding(_distribution_matching, "teacher", "estimate")
def _backtracking(context: Context, *, path: str, interval: Count = 1000, **rest: Any) -> Distiller:
    matched = _distribution_matching(context, teacher={"stage": path}, estimate=path, **rest)
    return samplers.backtracking(matched, path, interval=interval)


def _on_axis(
    context: Context,
    *,
    of: Mapping[str, Any],
    stacked: Sequence[str] = (),
    divided: Sequence[str] = (),
) -> Distiller:
    """Several students at once, each with its own classes."""
    if context.student.get("net") != "students":
        raise ValueError(
            "'students' trains several at once: its student must be the net 'students', not "
            f"{context.student.get('net')!r}"
        )
    one = context.student["one"]
    inner = dataclasses.replace(context, student=one, student_net=_one(one, context))
    return samplers.on_axis(
        call("distiller of one student", DISTILLERS, of, inner),
        context.classes or 0,
        context.student["count"],
        stacked=stacked,
        divided=divided,
    )


DISTILLERS: dict[str, Entry] = {
    "students": _on_axis,
    "denoising": _taught(samplers.denoising),
    "consistency": _taught(samplers.consistency_training),
    "continuous_consistency": _continuous_consistency,
    "latent_adversarial": _latent_adversarial,
    "mean_flow": _taught(samplers.mean_flow, jumps=True),
    "shortcuts": _taught(samplers.shortcuts, jumps=True),
    "consistency_trajectories": _taught(samplers.consistency_trajectories, needed=True, jumps=True),
    "progressive": _taught(samplers.progressive, needed=True),
    "bootstrapped": _taught(samplers.bootstrapped, needed=True, jumps=True),
    "latent_consistency": _taught(samplers.latent_consistency, needed=True),
    "segmented": _segmented,
    "distribution_matching": _distribution_matching,
    "flow_pairs": _flow_pairs,
    "degradation": _degradation,
    "backtracking": _backtracking,
}
