"""Temperatures that differ from example to example, for the losses on logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics as n
from jaxdistill.settings import NonNegative, Positive


def flsw_temperature(
    student: jax.Array,
    teacher: jax.Array,
    *,
    base_temperature: Positive = 4.0,
    scale: NonNegative = 1.0,
    exponent: Positive = 2.0,
    epsilon: NonNegative = 1e-4,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""A temperature per example, lower where student and teacher point apart (focal logit-wise
    weights).

    .. math:: \tau_i = \tau_0 + b \, (\bar w - w_i), \qquad w_i = (1 - \cos(s_i, t_i))^{\gamma}

    Args:
        student: logits ``[B, K]``.
        teacher: logits of the same shape.
        base_temperature: :math:`\tau_0`.
        scale: ``b``.
        exponent: :math:`\gamma`.
        epsilon: added to the norms in the cosine.
        where: ``[B]``, true where an example enters the mean of ``w``.

    Returns:
        ``[B]``, a constant for the gradient; pass it as ``temperature``. Positive as long as
        ``base_temperature > scale * 2**exponent``. Equals TextBrewer's
        ``flsw_temperature_scheduler``.

    Raises:
        ValueError: shapes that differ.

    References:
        Wen, Lai, Qian 2019, "Preparing lessons: improve knowledge distillation with better
        supervision" (arXiv 1911.07471).

    Example:
        >>> student, teacher = jnp.eye(2), jnp.array([[1.0, 0.0], [1.0, 0.0]])
        >>> flsw_temperature(student, teacher).round(1).tolist()
        [4.5, 3.5]
    """
    s, t = jax.lax.stop_gradient(n.pair(student, teacher, -1))
    norms = (n.safe_norm(s) + epsilon) * (n.safe_norm(t) + epsilon)
    cosine = jnp.sum(s * t, axis=-1) / norms
    weight = jnp.maximum(1 - cosine, 0) ** exponent
    return base_temperature + scale * (n.masked_mean(weight, where) - weight)


def cwsm_temperature(
    student: jax.Array,
    *,
    base_temperature: Positive = 4.0,
    scale: NonNegative = 1.0,
    epsilon: NonNegative = 1e-3,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""A temperature per example, lower where the student is unsure (confidence weighted by the
    softmax maximum).

    .. math:: \tau_i = \tau_0 + b \, (\bar w - w_i), \qquad w_i = 1 / (\max_k s_{ik} + \epsilon)

    Args:
        student: logits ``[B, K]``.
        base_temperature: :math:`\tau_0`.
        scale: ``b``.
        epsilon: added to the student's largest probability.
        where: ``[B]``, true where an example enters the mean of ``w``.

    Returns:
        ``[B]``, a constant for the gradient; pass it as ``temperature``. Equals TextBrewer's
        ``cwsm_temperature_scheduler``.

    References:
        Wen, Lai, Qian 2019 (arXiv 1911.07471).

    Example:
        >>> cwsm_temperature(jnp.array([[0.0, 0.0], [9.0, 0.0]])).round(1).tolist()
        [3.5, 4.5]
    """
    (s,) = jax.lax.stop_gradient(n.widen(student))
    weight = 1 / (jnp.max(jax.nn.softmax(s, axis=-1), axis=-1) + epsilon)
    return base_temperature + scale * (n.masked_mean(weight, where) - weight)
