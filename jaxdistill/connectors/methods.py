"""Objectives of published methods that train nets and variances beside the student."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxdistill import adapt, losses
from jaxdistill.connectors import nets
from jaxdistill.connectors.owning import Arrays, Call, Nets, owning
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.objective import Objective
from jaxdistill.settings import Count, Finite, Positive, Scheduled


def variational(
    *,
    name: str = "vid",
    student: str,
    target: str,
    weight: Scheduled[Finite] = 1.0,
    variance: Positive = 5.0,
    epsilon: Positive = 1e-5,
) -> Objective:
    r"""Variational information distillation: the teacher's maps as a Gaussian whose mean three 1x1
    convolutions of the student's give, with one variance a channel.

    Args:
        name: the term's name.
        student: maps ``[B, H, W, C]``, or vectors ``[B, D]``.
        target: maps of the same grid.
        weight: a number or a schedule.
        variance: where the variances start.
        epsilon: below which none falls.

    References:
        Ahn et al. Variational Information Distillation for Knowledge Transfer. CVPR 2019.
    """

    def made(ours: Arrays, theirs: Arrays) -> tuple[Nets, dict]:
        width = theirs[0].shape[-1]
        # The softplus of it is the variance less epsilon.
        start = jnp.log(jnp.expm1(jnp.asarray(variance - epsilon, jnp.float32)))
        return {"mean": (from_linen(nets.Mean(width)), ours[0])}, {
            "raw_variance": jnp.full(width, start)
        }

    def value(call: Call, own: Any, ours: Arrays, theirs: Arrays, where: Any) -> jax.Array:
        mean, raw = call("mean", ours[0]), own["raw_variance"]
        return losses.vid(mean, theirs[0], raw, epsilon=epsilon)

    return owning(name, (student,), (target,), weight, made, value)


def prime_aware(
    *,
    name: str = "pad",
    student: str = "pooled",
    target: str = "pooled",
    weight: Scheduled[Finite] = 1.0,
) -> Objective:
    """Prime-aware adaptive distillation: squared gaps of embeddings, each weighed by a variance
    that a normalised linear map reads from the student's.

    Args:
        name: the term's name.
        student: embeddings ``[B, D]``; of another width than the teacher's they pass a linear map.
        target: embeddings ``[B, D]``.
        weight: a number or a schedule.

    References:
        Zhang et al. Prime-Aware Adaptive Distillation. ECCV 2020.
    """

    def made(ours: Arrays, theirs: Arrays) -> tuple[Nets, dict]:
        width = theirs[0].shape[-1]
        variance = from_linen(nets.Normalised(width, affine=True))
        own = {"variance": (variance, ours[0])}
        if ours[0].shape[-1] != width:
            own["projector"] = (adapt.linear(ours[0].shape, theirs[0].shape), ours[0])
        return own, {}

    def value(call: Call, own: Any, ours: Arrays, theirs: Arrays, where: Any) -> jax.Array:
        seen = call("projector", ours[0]) if "projector" in own else ours[0]
        return losses.pad(seen, theirs[0], call("variance", ours[0]))

    return owning(name, (student,), (target,), weight, made, value)


def simple_recipe(
    *,
    name: str = "srd",
    student: str = "pooled",
    target: str = "pooled",
    weight: Scheduled[Finite] = 1.0,
    exponent: Positive = 4.0,
) -> Objective:
    """The simple recipe: a linear map of the student's embeddings against the teacher's, both
    normalised over the batch, by the logarithm of a sum.

    Args:
        name: the term's name.
        student: embeddings ``[B, D]``.
        target: embeddings of any width.
        weight: a number or a schedule.
        exponent: of the gaps.

    References:
        Miles and Mikolajczyk. Understanding the Role of the Projector in Knowledge Distillation.
        AAAI 2024.
    """

    def made(ours: Arrays, theirs: Arrays) -> tuple[Nets, dict]:
        projector = from_linen(nets.Normalised(theirs[0].shape[-1], affine=False))
        norm = from_linen(nets.BatchNorm())
        return {"projector": (projector, ours[0]), "norm": (norm, theirs[0])}, {}

    def value(call: Call, own: Any, ours: Arrays, theirs: Arrays, where: Any) -> jax.Array:
        wanted = jax.lax.stop_gradient(call("norm", theirs[0]))
        return losses.srd(call("projector", ours[0]), wanted, exponent=exponent, where=where)

    return owning(name, (student,), (target,), weight, made, value)


def knowledge_review(
    *,
    name: str = "review",
    student: Sequence[str],
    target: Sequence[str],
    weight: Scheduled[Finite] = 1.0,
    width: Count | None = None,
) -> Objective:
    """Knowledge review: from the last stage to the first, what the deeper stages know is fused into
    each, by attention, and compared with the teacher's stage on a pyramid of grids.

    Args:
        name: the term's name.
        student: maps of every stage, ``[B, H, W, C]``.
        target: as many maps of the teacher.
        weight: a number or a schedule.
        width: channels in which stages are fused, at most 256 and those of the last one by default.

    References:
        Chen et al. Distilling Knowledge via Knowledge Review. CVPR 2021.
    """
    if len(student) != len(target) or not student:
        raise ValueError(
            f"knowledge review needs as many stages of the student as of the teacher, got "
            f"{len(student)} and {len(target)}"
        )

    def made(ours: Arrays, theirs: Arrays) -> tuple[Nets, dict]:
        middle = width or min(256, ours[-1].shape[-1])
        review = nets.Review(tuple(x.shape[-1] for x in theirs), middle)
        return {"review": (from_linen(review), ours)}, {}

    def value(call: Call, own: Any, ours: Arrays, theirs: Arrays, where: Any) -> jax.Array:
        fused = call("review", ours)
        pairs = zip(fused, theirs, strict=True)
        return functools.reduce(jnp.add, (losses.review(s, t) for s, t in pairs))

    return owning(name, tuple(student), tuple(target), weight, made, value)


def overhauled(
    *,
    name: str = "overhaul",
    student: Sequence[str],
    target: Sequence[str],
    norms: Sequence[str],
    weight: Scheduled[Finite] = 1e-3,
) -> Objective:
    r"""The overhaul of feature distillation: a partial distance of stages before their rectifiers,
    behind 1x1 convolutions with norm, to the teacher's above its margins.

    Stage i of n counts :math:`2^{i - n + 1}`. Margins are those that the teacher's norms have, see
    :func:`jaxdistill.losses.overhaul_margin`; their parameters are read as ``params/<norm>/...``
    from the targets.

    Args:
        name: the term's name.
        student: maps before their rectifier.
        target: as many maps of the teacher.
        norms: the paths of its batch norms there.
        weight: a number or a schedule.

    References:
        Heo et al. A Comprehensive Overhaul of Feature Distillation. ICCV 2019.
    """
    if not len(student) == len(target) == len(norms) or not student:
        raise ValueError(
            "the overhaul needs as many stages of the student as of the teacher, and a norm for "
            f"each, got {len(student)}, {len(target)} and {len(norms)}"
        )

    def made(ours: Arrays, theirs: Arrays) -> tuple[Nets, dict]:
        pairs = zip(ours, theirs[: len(ours)], strict=True)
        own = {
            f"to_{i}": (adapt.convolution(s.shape, t.shape), s) for i, (s, t) in enumerate(pairs)
        }
        return own, {}

    def value(call: Call, own: Any, ours: Arrays, theirs: Arrays, where: Any) -> jax.Array:
        size = len(ours)
        maps, affine = theirs[:size], theirs[size:]
        total = jnp.zeros(())
        for i in range(size):
            margin = losses.overhaul_margin(affine[2 * i], affine[2 * i + 1])
            gaps = losses.overhaul(call(f"to_{i}", ours[i]), maps[i], margin)
            total = total + 2.0 ** (i - size + 1) * gaps
        return total

    numbers = [f"params/{norm}/{part}" for norm in norms for part in ("scale", "bias")]
    return owning(name, tuple(student), (*target, *numbers), weight, made, value)


def flow(
    *,
    name: str = "fsp",
    student: Sequence[str],
    target: Sequence[str],
    weight: Scheduled[Finite] = 1.0,
    form: Literal["mean_square", "column_norm"] = "mean_square",
) -> Objective:
    """The flow of the solution procedure between each layer and the next, summed.

    The paper has student and teacher of one width; maps of another width pass a 1x1 convolution
    with norm here.

    Args:
        name: the term's name.
        student: maps of two layers or more, ``[B, H, W, C]``.
        target: as many maps of the teacher.
        weight: a number or a schedule.
        form: see :func:`jaxdistill.losses.fsp`.

    References:
        Yim et al. A Gift from Knowledge Distillation. CVPR 2017.
    """
    if len(student) != len(target) or len(student) < 2:
        raise ValueError(
            "the flow needs two layers or more, as many of the student as of the teacher, got "
            f"{len(student)} and {len(target)}"
        )

    def made(ours: Arrays, theirs: Arrays) -> tuple[Nets, dict]:
        return {
            f"to_{i}": (adapt.convolution(s.shape, (*s.shape[:-1], t.shape[-1])), s)
            for i, (s, t) in enumerate(zip(ours, theirs, strict=True))
            if s.shape[-1] != t.shape[-1]
        }, {}

    def value(call: Call, own: Any, ours: Arrays, theirs: Arrays, where: Any) -> jax.Array:
        seen = [call(f"to_{i}", x) if f"to_{i}" in own else x for i, x in enumerate(ours)]
        pairs = zip(itertools.pairwise(seen), itertools.pairwise(theirs), strict=True)
        pooling = "max" if form == "column_norm" else "average"
        gaps = (losses.fsp(s, t, form=form, pooling=pooling) for s, t in pairs)
        return functools.reduce(jnp.add, gaps)

    return owning(name, tuple(student), tuple(target), weight, made, value)
