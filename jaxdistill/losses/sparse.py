"""Divergences to a teacher of which only some classes per token are known: its best ``K``, or a
sample.

What the missing classes are worth is a named rule, for the rules are not equal:

- ``"renormalise"``: student and teacher are both renormalised on the known classes; the student's
mass elsewhere costs
  nothing (MaxText, tunix).
- ``"zero"``: the missing classes have no mass, so the known ones are inflated to sum to 1; the
student keeps its full
  normaliser (DistillKit ``ZERO``).
- ``"tail"``: the missing classes are one more class, with the mass that is left on either side
(DistillKit
  ``SYMMETRIC_UNIFORM``).
- ``"sampled"``: the values are shares of draws from the teacher and are taken as they are, so that
the gradient is
  unbiased. For KL only.

Ids out of range and values of ``-inf`` are padding. Values are log-probabilities of the teacher at
temperature 1 (at the loss's own temperature for ``"sampled"``); another temperature raises them to
the power ``1/temperature`` before they are normalised, and under ``"tail"`` the rest with them as
one class, which is an approximation.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.losses import numerics as n
from jaxdistill.losses._entry import PER_TOKEN, Entry
from jaxdistill.losses._hyper import Hyper, Inside
from jaxdistill.settings import Positive

Missing = Literal["renormalise", "zero", "tail", "sampled"]
RULES: tuple[Missing, ...] = get_args(Missing)


@functools.partial(n.on_any_mesh, dropped=1)
def sparse_kl(
    student: jax.Array,
    ids: jax.Array,
    log_teacher: jax.Array,
    *,
    missing: Missing = "tail",
    temperature: Hyper[Positive] = 1.0,
) -> jax.Array:
    r"""Forward divergence to the known classes of a teacher.

    .. math:: \tau^2 \, \mathrm{KL}(t \,\|\, s) \quad \text{over the classes that the rule leaves}

    Under ``"sampled"`` it is :math:`\tau^2 \sum_k t_k (\log t_k - \log s_k)` with the shares as
    they are; its gradient in the logits is :math:`(\sum_k t_k) s - t`.

    Args:
        student: logits ``[..., V]``.
        ids: ``[..., K]``, integers; distinct, padding out of range.
        log_teacher: ``[..., K]``, log-probabilities; ``-inf`` is padding.
        missing: ``"renormalise"``, ``"zero"``, ``"tail"`` or ``"sampled"``.
        temperature: :math:`\tau > 0`, a number or one per token.

    Returns:
        ``[...]``, one value per token, float32 or wider, times :math:`\tau^2`.

    Raises:
        ValueError: shapes that do not fit, or an unknown rule.

    Finite for all finite students, saturated ones included: the student's tail is summed from its
    own logits. A token of padding only is 0 (under ``"tail"`` too, where one class is left on
    either side). Equals DistillKit's ``sparse_kl_div`` divided by :math:`\tau^2`, as a sum
    (``ZERO`` and ``SYMMETRIC_UNIFORM``), and tunix' top-k KL.

    References:
        Anshumann, Zaidi, Kedia and others 2025, "Sparse logit sampling" (arXiv 2503.16870), for
        ``"sampled"``.

    Example:
        >>> logits = jnp.array([2.0, 1.0, 0.0])
        >>> log_p = jax.nn.log_softmax(logits)
        >>> float(sparse_kl(logits, jnp.array([0, 1]), log_p[:2]))
        0.0
    """
    log_s, log_t = _known(student, ids, log_teacher, missing, temperature, tail=missing == "tail")
    value = n.kl(log_t, log_s)
    return n.beside(temperature, value) ** 2 * value


@functools.partial(n.on_any_mesh, dropped=1)
def sparse_jsd(
    student: jax.Array,
    ids: jax.Array,
    log_teacher: jax.Array,
    *,
    beta: Hyper[Inside] = 0.5,
    missing: Missing = "tail",
    temperature: Hyper[Positive] = 1.0,
) -> jax.Array:
    r"""Generalised Jensen-Shannon divergence to the known classes of a teacher.

    .. math:: \tau^2 \bigl[\beta \, \mathrm{KL}(t \,\|\, m) + (1 - \beta) \, \mathrm{KL}(s \,\|\,
        m)\bigr], \qquad m = \beta t + (1 - \beta) s

    Args:
        student: logits ``[..., V]``.
        ids: ``[..., K]``, integers; distinct, padding out of range.
        log_teacher: ``[..., K]``, log-probabilities; ``-inf`` is padding.
        beta: strictly between 0 and 1; one half is the Jensen-Shannon divergence.
        missing: ``"renormalise"``, ``"zero"`` (the student's mass elsewhere counts against a
            teacher without any) or ``"tail"``.
        temperature: :math:`\tau > 0`, a number or one per token.

    Returns:
        ``[...]``, one value per token, float32 or wider, times :math:`\tau^2`.

    Raises:
        ValueError: shapes that do not fit, an unknown rule, or ``"sampled"``.

    Finite for all finite students. Equals DistillKit's ``sparse_js_div`` divided by :math:`\tau^2`,
    as a sum.

    References:
        Agarwal and others 2024, "On-policy distillation of language models" (arXiv 2306.13649).

    Example:
        >>> logits = jnp.array([2.0, 1.0, 0.0])
        >>> log_p = jax.nn.log_softmax(logits)
        >>> float(sparse_jsd(logits, jnp.array([0, 1]), log_p[:2]))
        0.0
    """
    _not_sampled(missing, "sparse_jsd")
    log_s, log_t = _known(
        student, ids, log_teacher, missing, temperature, tail=missing != "renormalise"
    )
    value = n.jsd(log_t, log_s, beta)
    return n.beside(temperature, value) ** 2 * value


@functools.partial(n.on_any_mesh, dropped=1)
def sparse_total_variation(
    student: jax.Array,
    ids: jax.Array,
    log_teacher: jax.Array,
    *,
    missing: Missing = "tail",
    temperature: Hyper[Positive] = 1.0,
) -> jax.Array:
    r"""Total variation to the known classes of a teacher.

    .. math:: \tfrac{\tau^2}{2} \sum_k |t_k - s_k| \quad \text{over the classes that the rule
        leaves}

    Args:
        student: logits ``[..., V]``.
        ids: ``[..., K]``, integers; distinct, padding out of range.
        log_teacher: ``[..., K]``, log-probabilities; ``-inf`` is padding.
        missing: ``"renormalise"``, ``"zero"`` (the student's mass elsewhere counts whole) or
            ``"tail"``.
        temperature: :math:`\tau > 0`, a number or one per token.

    Returns:
        ``[...]``, one value per token, float32 or wider, times :math:`\tau^2`.

    Raises:
        ValueError: shapes that do not fit, an unknown rule, or ``"sampled"``.

    Finite for all finite students; gradient zero at equality. Equals DistillKit's ``sparse_tvd``
    divided by :math:`\tau^2`, as a sum.

    References:
        Wen, Li, Du, Mou 2023, "f-divergence minimization for sequence-level knowledge distillation"
        (arXiv 2307.15190).

    Example:
        >>> logits = jnp.array([2.0, 1.0, 0.0])
        >>> log_p = jax.nn.log_softmax(logits)
        >>> float(sparse_total_variation(logits, jnp.array([0, 1]), log_p[:2]))
        0.0
    """
    _not_sampled(missing, "sparse_total_variation")
    log_s, log_t = _known(
        student, ids, log_teacher, missing, temperature, tail=missing != "renormalise"
    )
    value = jnp.sum(jnp.abs(n.kinked_gap(jnp.exp(log_s), jnp.exp(log_t))), axis=-1) / 2
    return n.beside(temperature, value) ** 2 * value


def teacher_values(
    ids: jax.Array, log_teacher: jax.Array, vocabulary: int, missing: str, temperature: Any
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """What a rule makes of the known classes: ids in range, whether known, log-values, log of the
    tail.

    The log of the tail is ``-inf`` under every rule but ``"tail"``.
    """
    if missing not in RULES:
        raise ValueError(unknown("rule for missing classes", missing, RULES))
    n.same_shape(ids=ids, log_teacher=log_teacher)
    known = (ids >= 0) & (ids < vocabulary) & ~jnp.isneginf(log_teacher)
    values = jnp.where(known, log_teacher, -jnp.inf)
    none = jnp.full(values.shape[:-1], -jnp.inf, values.dtype)
    if missing == "sampled":
        return jnp.where(known, ids, 0), known, values, none
    power = 1 / n.beside(temperature, values)
    tail = none
    if missing == "tail":
        total = jnp.minimum(jnp.sum(jnp.exp(values), axis=-1), 1)
        # Of classes that are all known nothing is left but what rounding makes of it.
        none_left = (total == 1) | (jnp.sum(known, axis=-1) == vocabulary)
        tail = jnp.where(none_left, -jnp.inf, jnp.log1p(-jnp.where(none_left, 0, total)))
        tail = tail * (power if power.ndim == 0 else power[..., 0])
    powered = jnp.where(known, power * jnp.where(known, values, 0), -jnp.inf)
    everything = jnp.concatenate([powered, tail[..., None]], axis=-1)
    empty = jnp.all(jnp.isneginf(everything), axis=-1, keepdims=True)
    everything = jnp.where(
        empty, everything, jax.nn.log_softmax(jnp.where(empty, 0, everything), axis=-1)
    )
    return jnp.where(known, ids, 0), known, everything[..., :-1], everything[..., -1]


def _known(student, ids, log_teacher, missing, temperature, *, tail):
    """The log-probabilities of both on the known classes, and on the tail as a last class."""
    s, t = n.widen(student, log_teacher)
    if s.shape[:-1] != ids.shape[:-1] or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(
            f"ids must be integers with the leading shape of the student {s.shape}, got "
            f"{ids.dtype} {ids.shape}"
        )
    places, known, log_t, log_t_tail = teacher_values(ids, t, s.shape[-1], missing, temperature)
    s = s / n.beside(temperature, s)
    inside = jnp.where(known, jnp.take_along_axis(s, places, axis=-1), -jnp.inf)
    if missing == "renormalise":
        # All that is read of the other classes is whether they are numbers.
        inside = jnp.where(known & n.odd_scores(s)[..., None], jnp.nan, inside)
        empty = ~jnp.any(known, axis=-1, keepdims=True)
        log_s = jax.nn.log_softmax(jnp.where(empty, 0, inside), axis=-1)
        return jnp.where(known, log_s, -jnp.inf), log_t
    if not tail:
        return inside - jax.nn.logsumexp(s, axis=-1, keepdims=True), log_t
    # The sum of the others is all that is read of the whole vocabulary: with the known classes it
    # gives the normaliser too.
    others = jnp.put_along_axis(
        s, jnp.where(known, places, s.shape[-1]), -jnp.inf, axis=-1, inplace=False, mode="drop"
    )
    whole = jnp.all(jnp.isneginf(others), axis=-1, keepdims=True)
    rest = jax.nn.logsumexp(jnp.where(whole, 0, others), axis=-1, keepdims=True)
    both = jnp.concatenate([inside, jnp.where(whole, -jnp.inf, rest)], axis=-1)
    return (
        jax.nn.log_softmax(both, axis=-1),
        jnp.concatenate([log_t, log_t_tail[..., None]], axis=-1),
    )


def _not_sampled(missing: str, name: str) -> None:
    if missing == "sampled":
        raise ValueError(f"{name} has no rule 'sampled': shares of draws are unbiased for KL only")


def _sample(missing: str, **kwargs: Any):
    def make(key, dtype):
        keys = jax.random.split(key, 3)
        student = 2 * jax.random.normal(keys[0], (2, 3, 7), dtype)
        teacher = jax.nn.log_softmax(2 * jax.random.normal(keys[1], (2, 3, 7), dtype))
        values, ids = jax.lax.top_k(teacher, 3)
        return (student, ids.astype(jnp.int32), values), {"missing": missing, **kwargs}

    return make


_COMMON = {
    "family": "tokens",
    "kind": PER_TOKEN,
    "normaliser": "T^2",
    "invariances": "shift of the student; order of the ids",
    "scores": True,
    "teacher": None,
    "shift_invariant": True,
}

CATALOGUE: tuple[Entry, ...] = (
    *(
        Entry(
            sparse_kl,
            formula="T^2 KL(t || s) on the known classes",
            make=_sample(rule, temperature=2.0),
            label=rule,
            paper="arXiv 2503.16870" if rule == "sampled" else "",
            equal_to=equal_to,
            remarks="padding only: 0",
            **_COMMON,
        )
        for rule, equal_to in (
            ("renormalise", (("tunix LogitStrategy, MaxText top-k", "mean"),)),
            ("zero", (("DistillKit sparse_kl_div ZERO", "divided by T^2; sum"),)),
            ("tail", (("DistillKit sparse_kl_div SYMMETRIC_UNIFORM", "divided by T^2; sum"),)),
            ("sampled", ()),
        )
    ),
    *(
        Entry(
            loss,
            formula=formula,
            make=_sample(rule, temperature=2.0),
            label=rule,
            equal_to=((f"DistillKit {peer} {theirs}", "divided by T^2; sum"),) if theirs else (),
            remarks="padding only: 0 (zero: the student's whole mass counts)",
            **_COMMON,
        )
        for loss, formula, peer in (
            (sparse_jsd, "T^2 JSD_b(t, s) on the known classes", "sparse_js_div"),
            (sparse_total_variation, "T^2/2 sum |t - s| on the known classes", "sparse_tvd"),
        )
        for rule, theirs in (("renormalise", ""), ("zero", "ZERO"), ("tail", "SYMMETRIC_UNIFORM"))
    ),
)
