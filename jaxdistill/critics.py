"""Objectives with a critic: a small net that tells student from teacher, trained with both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdistill.frameworks.linen import from_linen
from jaxdistill.losses.masking import harmless
from jaxdistill.objective import Objective, lookup, per_example
from jaxdistill.settings import Count, Finite, Scheduled


class _Discriminator(nn.Module):
    widths: Sequence[int]

    @nn.compact
    def __call__(self, scores: jax.Array) -> jax.Array:
        # As published, the last layer is rectified too: its scores are never below 0.
        for number, width in enumerate((*self.widths, 2)):
            scores = nn.relu(nn.Dense(width, name=f"fc{number + 1}")(scores))
        return scores


def cooperative_discriminator(
    *,
    name: str = "discriminator",
    student: str = "out",
    target: str = "out",
    weight: Scheduled[Finite] = 1.0,
    widths: Sequence[Count] | None = None,
) -> Objective:
    r"""A discriminator of the student's logits and the teachers', whose loss both descend.

    .. math:: \frac{1}{4} \sum_{j \in \{1, 2\}} \mathrm{BCE}(D(z_s)_j, [1, 0]_j) +
        \mathrm{BCE}(D(z_t)_j, [0, 1]_j)

    This is not adversarial: the student gains by being recognised, which keeps it from
    copying the teachers exactly. It is the published form of MEAL V2.

    Args:
        name: the term's name.
        student: where the student's logits ``[B, K]`` are found, see
            :func:`jaxdistill.objective.lookup`.
        target: likewise for the teachers', the mean of their logits.
        weight: a number or a schedule.
        widths: of the hidden layers, ``(K / 8, K / 64)`` by default, at least 8 and 4.

    Returns:
        An :class:`~jaxdistill.objective.Objective` whose one term is averaged over examples; its
        parameters are no part of the result.

    References:
        Shen and Savvides, MEAL V2: Boosting vanilla ResNet-50 to 80%+ top-1 accuracy on ImageNet
        without tricks, 2020, https://arxiv.org/abs/2009.08453
    """

    def arrays(forward, targets, batch):
        find = {"forward": forward, "targets": targets, "batch": batch}
        z_s, z_t = lookup(student, **find), lookup(target, side="target", **find)
        if z_s.shape != z_t.shape:
            raise ValueError(f"student {z_s.shape} and teacher {z_t.shape} have other classes")
        return z_s, z_t

    def net(classes: int):
        chosen = widths if widths is not None else (max(classes // 8, 8), max(classes // 64, 4))
        return from_linen(_Discriminator(tuple(chosen)))

    def init(key, forward, targets, batch):
        z_s, _ = arrays(forward, targets, batch)
        return net(z_s.shape[-1]).init(key, z_s)

    def terms(params, state, forward, targets, batch, *, step):
        z_s, z_t = arrays(forward, targets, batch)
        where = batch.get("where") if isinstance(batch, Mapping) else None
        if where is not None:
            z_s, z_t = harmless((z_s, z_t), where)
        scores = net(z_s.shape[-1]).apply(params, state, jnp.concatenate([z_s, z_t])).out
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        # BCE of a score s is softplus(s) for target 0 and softplus(-s) for target 1.
        of_student, of_teacher = jnp.split(scores, 2)
        signs = jnp.array([-1.0, 1.0], scores.dtype)
        both = jax.nn.softplus(of_student * signs[None]) + jax.nn.softplus(
            -of_teacher * signs[None]
        )
        return {name: per_example(weight, both.sum(-1) / 4, where)}, state

    return Objective(init, terms)
