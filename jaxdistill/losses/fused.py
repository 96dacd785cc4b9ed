"""Divergences between two heads, without their logits: hidden states in, a sum out."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.losses import _chunks as c
from jaxdistill.losses import numerics as n
from jaxdistill.losses._hyper import Hyper
from jaxdistill.settings import Count, NonNegative, Positive, Share

Name = Literal["forward_kl", "reverse_kl", "jsd", "total_variation"]
DIVERGENCES: tuple[Name, ...] = get_args(Name)

_CHUNKS = c.Chunks()


class _Options(NamedTuple):
    divergence: Name
    teacher_cap: float | None
    teacher_classes: int
    with_labels: bool
    mixed: bool


def linear_divergence(
    student_hidden: jax.Array,
    student_head: jax.Array,
    teacher_hidden: jax.Array,
    teacher_head: jax.Array,
    labels: jax.Array | None = None,
    *,
    divergence: Name = "forward_kl",
    beta: Hyper[Share] = 0.5,
    temperature: Hyper[Positive] = 1.0,
    divergence_weight: Hyper[NonNegative] = 1.0,
    ce_weight: Hyper[NonNegative] = 1.0,
    weights: jax.Array | None = None,
    student_bias: jax.Array | None = None,
    teacher_bias: jax.Array | None = None,
    student_cap: Positive | None = None,
    teacher_cap: Positive | None = None,
    vocabulary: Count | None = None,
    unlike: Literal["refuse", "zero_mass"] = "refuse",
    chunks: c.Chunks = _CHUNKS,
) -> jax.Array:
    r"""A divergence of two language models from their last hidden states, summed over tokens.

    .. math::

        \sum_i w_i \bigl[a \, \tau^2 D(\sigma(t_i/\tau), \sigma(s_i/\tau)) - b \log
        \sigma(s_i)_{y_i}\bigr], \qquad s_i = c \tanh\bigl((h_i W + \text{bias}) / c\bigr)

    The divergence ``D`` is that of :func:`~jaxdistill.losses.forward_kl`,
    :func:`~jaxdistill.losses.reverse_kl`, :func:`~jaxdistill.losses.generalized_jsd` or
    :func:`~jaxdistill.losses.total_variation`. Logits exist for ``chunks.size`` tokens at a time,
    in float32 or wider; gradients are taken in closed form in the same pass, the head's summed in
    float32. Without differentiation only the value is computed.

    Args:
        student_hidden: ``[..., H]``.
        student_head: ``[H, V]``, of the same dtype.
        teacher_hidden: ``[..., G]``, the same tokens; a constant for the gradient, like all of the
            teacher.
        teacher_head: ``[G, V]``.
        labels: ``[...]``, integers; None leaves the cross-entropy out. A label that is no class
            adds none.
        divergence: ``"forward_kl"``, ``"reverse_kl"``, ``"jsd"`` or ``"total_variation"``.
        beta: of the JSD, a number in [0, 1] (0 and 1 are the two KL divergences) or traced,
            strictly inside.
        temperature: :math:`\tau > 0`, of the divergence only. A constant for the gradient, like all
            weights but ``weights``.
        divergence_weight: ``a``.
        ce_weight: ``b``, where there are labels.
        weights: ``[...]``, ``w``: a mask, or what each token counts; a token of weight 0 may hold
            NaN.
        student_bias: ``[V]``.
        teacher_bias: ``[V]``.
        student_cap: soft cap ``c`` of the student's logits; its slope is part of the gradient.
        teacher_cap: soft cap of the teacher's.
        vocabulary: how many columns are classes, where heads are padded: the others get no mass.
        unlike: what to do with heads of different width: ``"refuse"``, or ``"zero_mass"``, where a
            class that one side lacks has no mass there (never a logit of zero). In a KL divergence
            that would be infinite, such a class leaves the other side as well.
        chunks: how the tokens are gone over, see :class:`~jaxdistill.losses.Chunks`: how many at a
            time, over which axes of a mesh, and how precisely.

    Returns:
        A scalar, float32 or wider: a sum, to be divided by the sum of ``weights`` (over all
        devices).

    Raises:
        ValueError: shapes that do not fit, heads of different width, an unknown divergence.
        NotImplementedError: on a second derivative.

    All tokens at weight 0: 0, with zero gradients. Equals Liger's chunked
    ``LigerFusedLinearJSDLoss`` divided by the number of tokens, with ``divergence_weight =
    weight_soft_loss / temperature**2`` (it has no :math:`\tau^2`) and the same ``beta``.

    References:
        Hsu and others 2024, "Liger kernel" (arXiv 2410.10989), for the gradient in the forward
        pass.

    Example:
        >>> hidden, head = jnp.ones((3, 2)), jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> float(linear_divergence(hidden, head, hidden, head))
        0.0
    """
    divergence = _kind(divergence, beta, unlike)
    student, weights, leading = c.checked(
        c.Side(student_hidden, student_head, student_bias), weights
    )
    teacher, _, others = c.checked(c.Side(teacher_hidden, teacher_head, teacher_bias), None)
    if others != leading:
        raise ValueError(f"student and teacher must have the same tokens, got {leading}, {others}")
    ours, theirs = student.weight.shape[1], teacher.weight.shape[1]
    if ours != theirs and (unlike == "refuse" or chunks.vocabulary_axis is not None):
        raise ValueError(
            f"the heads have unlike vocabularies: student {ours}, teacher {theirs}. Pass "
            "unlike='zero_mass' to give the missing classes no mass (on unsharded heads), or pad "
            "the narrower head and name the number of classes with vocabulary="
        )
    most = max(ours, theirs) if vocabulary is None else vocabulary
    labels = c.checked_labels(labels, leading, min(ours, most))
    options = _Options(
        divergence, teacher_cap, min(theirs, most), labels is not None, ours != theirs
    )
    plan = c.Plan(_token_loss, options, student_cap, min(ours, most), chunks)
    numbers = c.numbers(
        student.hidden,
        beta=beta,
        temperature=temperature,
        divergence_weight=divergence_weight,
        ce_weight=ce_weight,
    )
    fixed = jax.lax.stop_gradient((teacher.weight, teacher.bias, teacher.hidden))
    return c.head_sum(plan, student, (fixed[2], labels), (*fixed[:2], numbers), weights)


def _kind(divergence: Name, beta: Any, unlike: str) -> Name:
    """The divergence after a look at its options: at its ends the JSD is a KL divergence."""
    if divergence not in DIVERGENCES:
        raise ValueError(unknown("divergence", divergence, DIVERGENCES))
    if unlike not in ("refuse", "zero_mass"):
        raise ValueError(unknown("value of unlike", unlike, ("refuse", "zero_mass")))
    if divergence != "jsd" or not isinstance(beta, (int, float)):
        return divergence
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be in [0, 1], got {beta}")
    return "forward_kl" if beta == 0 else "reverse_kl" if beta == 1 else "jsd"


def _token_loss(plan, logits, side, constants, with_grad):
    options = plan.options
    hidden, labels = side
    weight, bias, numbers = constants
    temperature = numbers["temperature"].astype(logits.dtype)
    teacher, _ = c.head_logits(
        hidden, weight, bias, options.teacher_cap, plan.chunks.precision, False
    )
    teacher = teacher.astype(logits.dtype)
    columns = c.column_indices(plan, teacher.shape[-1])
    teacher = jnp.where(columns < options.teacher_classes, teacher, -jnp.inf)
    student = logits
    if options.mixed:
        width = max(student.shape[-1], teacher.shape[-1])
        student, teacher = _filled(student, width), _filled(teacher, width)
        if options.divergence == "forward_kl":
            teacher = jnp.where(jnp.isneginf(student), -jnp.inf, teacher)
        if options.divergence == "reverse_kl":
            student = jnp.where(jnp.isneginf(teacher), -jnp.inf, student)
    values, gradient = divergence_of_logits(
        plan,
        options.divergence,
        student / temperature,
        teacher / temperature,
        numbers["beta"].astype(logits.dtype),
        with_grad,
    )
    scale = numbers["divergence_weight"].astype(logits.dtype)
    values = scale * temperature**2 * values
    if with_grad:
        gradient = (scale * temperature * gradient)[:, : logits.shape[-1]]
    if options.with_labels:
        hard, to_logits = cross_entropy_of_logits(plan, logits, labels, with_grad)
        scale = numbers["ce_weight"].astype(logits.dtype)
        values = values + scale * hard
        if with_grad:
            gradient = gradient + scale * to_logits
    return values, gradient


def divergence_of_logits(plan, divergence, student, teacher, beta, with_grad):
    """A divergence of a chunk and its gradient in the student's logits, both before temperature and
    weight."""
    log_p = student - c.class_logsumexp(plan, student)[:, None]
    log_q = teacher - c.class_logsumexp(plan, teacher)[:, None]
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    no_p, no_q = jnp.isneginf(log_p), jnp.isneginf(log_q)
    if divergence == "forward_kl":
        gap = jnp.where(no_q, 0, log_q) - jnp.where(no_q, 0, log_p)
        return c.class_sum(plan, q * gap), (p - q if with_grad else None)
    if divergence == "reverse_kl":
        slope = jnp.where(no_p, 0, log_p) - jnp.where(no_p, 0, log_q)
        values = c.class_sum(plan, p * slope)
        return values, (p * (slope - values[:, None]) if with_grad else None)
    if divergence == "total_variation":
        gap = n.kinked_gap(p, q)
        values = c.class_sum(plan, jnp.abs(gap)) / 2
        if not with_grad:
            return values, None
        slope = jnp.sign(gap) / 2
        return values, p * (slope - c.class_sum(plan, p * slope)[:, None])
    log_m = n.log_mixture(log_q, log_p, beta)
    slope = jnp.where(no_p, 0, log_p) - jnp.where(no_p, 0, log_m)
    reverse = c.class_sum(plan, p * slope)
    forward = c.class_sum(plan, q * (jnp.where(no_q, 0, log_q) - jnp.where(no_q, 0, log_m)))
    values = beta * forward + (1 - beta) * reverse
    return values, ((1 - beta) * p * (slope - reverse[:, None]) if with_grad else None)


def cross_entropy_of_logits(plan, logits, labels, with_grad):
    """Hard-label cross-entropy of a chunk and its gradient; a label that is no class gives zero."""
    is_class = (labels >= 0) & (labels < plan.classes)
    hit = c.column_indices(plan, logits.shape[-1]) == labels[:, None]
    normaliser = c.class_logsumexp(plan, logits)
    values = normaliser - c.class_sum(plan, jnp.where(hit, logits, 0))
    values = jnp.where(is_class, values, 0)
    if not with_grad:
        return values, None
    gradient = jnp.exp(logits - normaliser[:, None]) - hit.astype(logits.dtype)
    return values, jnp.where(is_class[:, None], gradient, 0)


def _filled(logits, width):
    return jnp.pad(logits, [(0, 0), (0, width - logits.shape[-1])], constant_values=-jnp.inf)
