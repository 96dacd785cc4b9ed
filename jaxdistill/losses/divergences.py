"""Divergences between the softmax of a student and of a teacher, per example or per token.

All are called as ``loss(student, teacher, *, ..., temperature, axis)`` on logits ``[..., K]``,
return one value per leading index, and are multiplied by the square of the temperature. The forward
divergence is :func:`jaxdistill.losses.hinton_kd`; language models call it :func:`forward_kl`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics as n
from jaxdistill.losses._hyper import Hyper, Inside
from jaxdistill.losses.logits import hinton_kd
from jaxdistill.settings import Fraction, Positive, Share

forward_kl = hinton_kd
"""Another name of :func:`hinton_kd`."""


def reverse_kl(
    student: jax.Array, teacher: jax.Array, *, temperature: Hyper[Positive] = 1.0, axis: int = -1
) -> jax.Array:
    r"""Reverse divergence: the student is punished for mass where the teacher has none.

    .. math:: \tau^2 \, \mathrm{KL}\bigl(\sigma(s/\tau) \,\|\, \sigma(t/\tau)\bigr)

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        temperature: :math:`\tau > 0`, a number or one per example; may be traced.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example or token, float32 or wider, times :math:`\tau^2`.

    Raises:
        ValueError: shapes that differ.

    Zero with zero gradient at equality. Where the teacher rules a class out the formula is
    infinite; the rule here: such classes leave the student too, which is renormalised on the others
    and gets no gradient there (a mask of the vocabulary, say). Equals DistiLLM's ``reverse_kl`` and
    TRL's GKD with ``beta=1``, at temperature 1 or divided by :math:`\tau^2`, as means over tokens.

    References:
        Gu, Dong, Wei, Huang 2024, "MiniLLM: knowledge distillation of large language models" (arXiv
        2306.08543).

    Example:
        >>> float(reverse_kl(jnp.array([0.0, 5.0]), jnp.array([1.0, -jnp.inf])))
        0.0
    """
    s, t = n.pair(student, teacher, axis)
    log_s, log_t = _on_support(s, t, temperature), n.log_softmax(t, temperature)
    return n.softened(n.kl(log_s, log_t), temperature, log_s)


def symmetric_kl(
    student: jax.Array,
    teacher: jax.Array,
    *,
    reverse_weight: Hyper[Share] = 0.5,
    temperature: Hyper[Positive] = 1.0,
    axis: int = -1,
) -> jax.Array:
    r"""A weighted sum of the forward and the reverse divergence (Jeffreys at weight one half,
    halved).

    .. math:: \tau^2 \bigl[(1 - w) \, \mathrm{KL}(t \,\|\, s) + w \, \mathrm{KL}(s \,\|\, t)\bigr]

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        reverse_weight: ``w``.
        temperature: :math:`\tau > 0`, a number or one per example; may be traced.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example or token, float32 or wider, times :math:`\tau^2`.

    Raises:
        ValueError: shapes that differ.

    Zero with zero gradient at equality; ruled-out classes as in :func:`reverse_kl`. Not the
    Jensen-Shannon divergence: that is :func:`jensen_shannon`. Equals DistiLLM's
    ``symmetric_kl(lam=w)`` minus ``(1 - w)`` times the teacher's entropy (its forward part is a
    cross-entropy).

    References:
        Ko, Kim, Chen, Yun 2024, "DistiLLM: towards streamlined distillation for large language
        models" (arXiv 2402.03898).

    Example:
        >>> z = jnp.array([1.0, 2.0])
        >>> float(symmetric_kl(z, z))
        0.0
    """
    s, t = n.pair(student, teacher, axis)
    log_t = n.log_softmax(t, temperature)
    forward = n.kl(log_t, n.log_softmax(s, temperature))
    log_s = _on_support(s, t, temperature)
    weight = n.beside(reverse_weight, forward)
    value = (1 - weight) * forward + weight * n.kl(log_s, log_t)
    return n.softened(value, temperature, log_s)


def skewed_forward_kl(
    student: jax.Array,
    teacher: jax.Array,
    *,
    skew: Hyper[Fraction] = 0.1,
    temperature: Hyper[Positive] = 1.0,
    axis: int = -1,
) -> jax.Array:
    r"""Forward divergence to a mixture that holds a share of the teacher: bounded by
    ``-log(skew)``.

    .. math:: \tau^2 \, \mathrm{KL}\bigl(t \,\|\, a t + (1 - a) s\bigr)

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        skew: ``a`` in [0, 1); 0 is the forward divergence.
        temperature: :math:`\tau > 0`, a number or one per example; may be traced.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example or token, float32 or wider, times :math:`\tau^2`.

    Raises:
        ValueError: shapes that differ.

    Zero with zero gradient at equality, finite for all logits (the mixture is summed in
    logarithms). DistiLLM's ``skewed_forward_kl(lam=a)`` is this plus the teacher's entropy.

    References:
        Ko, Kim, Chen, Yun 2024, "DistiLLM: towards streamlined distillation for large language
        models" (arXiv 2402.03898).

    Example:
        >>> far = jnp.array([0.0, 1e4])
        >>> float(skewed_forward_kl(far, -far))  # -log 0.1
        2.302585
    """
    s, t = n.pair(student, teacher, axis)
    log_s, log_t = n.log_softmax(s, temperature), n.log_softmax(t, temperature)
    value = n.kl(log_t, n.log_mixture(log_t, log_s, n.beside(skew, log_t[..., 0])))
    return n.softened(value, temperature, log_t, log_s)


def skewed_reverse_kl(
    student: jax.Array,
    teacher: jax.Array,
    *,
    skew: Hyper[Inside] = 0.1,
    temperature: Hyper[Positive] = 1.0,
    axis: int = -1,
) -> jax.Array:
    r"""Reverse divergence to a mixture that holds a share of the student: bounded by
    ``-log(skew)``.

    .. math:: \tau^2 \, \mathrm{KL}\bigl(s \,\|\, a s + (1 - a) t\bigr)

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        skew: ``a`` in (0, 1).
        temperature: :math:`\tau > 0`, a number or one per example; may be traced.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example or token, float32 or wider, times :math:`\tau^2`.

    Raises:
        ValueError: shapes that differ.

    Zero with zero gradient at equality, finite for all logits, ruled-out classes included. Equals
    DistiLLM's ``skewed_reverse_kl(lam=a)`` at temperature 1, as a mean over tokens.

    References:
        Ko, Kim, Chen, Yun 2024 (arXiv 2402.03898).

    Example:
        >>> far = jnp.array([0.0, 1e4])
        >>> float(skewed_reverse_kl(far, -far))
        2.302585
    """
    s, t = n.pair(student, teacher, axis)
    log_s, log_t = n.log_softmax(s, temperature), n.log_softmax(t, temperature)
    value = n.kl(log_s, n.log_mixture(log_s, log_t, n.beside(skew, log_s[..., 0])))
    return n.softened(value, temperature, log_t, log_s)


def generalized_jsd(
    student: jax.Array,
    teacher: jax.Array,
    *,
    beta: Hyper[Share] = 0.5,
    temperature: Hyper[Positive] = 1.0,
    axis: int = -1,
) -> jax.Array:
    r"""Generalised Jensen-Shannon divergence, with the two KL divergences at its ends.

    .. math:: \tau^2 \bigl[\beta \, \mathrm{KL}(t \,\|\, m) + (1 - \beta) \, \mathrm{KL}(s \,\|\,
        m)\bigr], \qquad m = \beta t + (1 - \beta) s

    At the numbers 0 and 1 (where the formula gives zero) it is the limit divided by its factor:
    forward KL at 0, reverse KL at 1. The scale therefore jumps there: near 0 the value is about
    ``beta`` times the forward KL.

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        beta: a number in [0, 1]; a traced value must lie strictly inside.
        temperature: :math:`\tau > 0`, a number or one per example; may be traced.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example or token, float32 or wider, times :math:`\tau^2`.

    Raises:
        ValueError: shapes that differ, or a number ``beta`` outside [0, 1].

    Zero with zero gradient at equality, finite for all logits; at ``beta=1`` ruled-out classes
    follow :func:`reverse_kl`. Equals TRL's ``generalized_jsd_loss`` divided by :math:`\tau^2` (it
    has none), as a mean over tokens, and DistiLLM's ``js_distance(lam=1 - beta)``.

    References:
        Agarwal, Vieillard, Zhou, Stanczyk, Ramos, Geist, Bachem 2024, "On-policy distillation of
        language models" (arXiv 2306.13649).

    Example:
        >>> far = jnp.array([0.0, 1e4])
        >>> float(generalized_jsd(far, -far))  # log 2
        0.693147
    """
    if isinstance(beta, (int, float)):
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must be in [0, 1], got {beta}")
        if beta == 0:
            return forward_kl(student, teacher, temperature=temperature, axis=axis)
        if beta == 1:
            return reverse_kl(student, teacher, temperature=temperature, axis=axis)
    s, t = n.pair(student, teacher, axis)
    log_t, log_s = n.log_softmax(t, temperature), n.log_softmax(s, temperature)
    return n.softened(n.jsd(log_t, log_s, beta), temperature, log_t, log_s)


def jensen_shannon(
    student: jax.Array, teacher: jax.Array, *, temperature: Hyper[Positive] = 1.0, axis: int = -1
) -> jax.Array:
    r"""The Jensen-Shannon divergence, symmetric and at most :math:`\tau^2 \log 2`.

    .. math:: \tau^2 \bigl[\tfrac12 \mathrm{KL}(t \,\|\, m) + \tfrac12 \mathrm{KL}(s \,\|\,
        m)\bigr], \qquad m = \tfrac12 (t + s)

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        temperature: :math:`\tau > 0`, a number or one per example; may be traced.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example or token, float32 or wider, times :math:`\tau^2`.

    Raises:
        ValueError: shapes that differ.

    Zero with zero gradient at equality, finite for all logits. Equals :func:`generalized_jsd` with
    ``beta=0.5``; DistillKit's ``dense_js_div`` divided by :math:`\tau^2`, as a sum over tokens.

    References:
        Lin 1991, "Divergence measures based on the Shannon entropy".

    Example:
        >>> z = jnp.array([1.0, 2.0])
        >>> float(jensen_shannon(z, z))
        0.0
    """
    return generalized_jsd(student, teacher, beta=0.5, temperature=temperature, axis=axis)


def total_variation(
    student: jax.Array, teacher: jax.Array, *, temperature: Hyper[Positive] = 1.0, axis: int = -1
) -> jax.Array:
    r"""Total variation: the mass that would have to move.

    .. math:: \tfrac{\tau^2}{2} \sum_k |t_k - s_k|

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        temperature: :math:`\tau > 0`, a number or one per example; may be traced.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example or token, float32 or wider, times :math:`\tau^2`.

    Raises:
        ValueError: shapes that differ.

    Zero with zero gradient at equality, finite for all logits. Equals DistiLLM's ``tv_distance``
    (mean over tokens) and DistillKit's ``dense_tvd`` divided by :math:`\tau^2` (sum over tokens).

    References:
        Wen, Li, Du, Mou 2023, "f-divergence minimization for sequence-level knowledge distillation"
        (arXiv 2307.15190).

    Example:
        >>> far = jnp.array([0.0, 1e4])
        >>> float(total_variation(far, -far))
        1.0
    """
    s, t = n.pair(student, teacher, axis)
    log_t, log_s = n.log_softmax(t, temperature), n.log_softmax(s, temperature)
    gap = n.kinked_gap(jnp.exp(log_s), jnp.exp(log_t))
    return n.softened(jnp.sum(jnp.abs(gap), axis=-1) / 2, temperature, log_t, log_s)


def _on_support(student: jax.Array, teacher: jax.Array, temperature: Any) -> jax.Array:
    """The student's log-softmax without the classes that the teacher rules out."""
    return n.log_softmax(jnp.where(jnp.isneginf(teacher), -jnp.inf, student), temperature)
