"""Losses and weights for language models beyond the divergences: other tokenizers, rankings,
MiniLLM."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics as n
from jaxdistill.losses._entry import PER_TOKEN, Entry
from jaxdistill.losses._hyper import Hyper
from jaxdistill.settings import NonNegative, Positive, Share


@functools.partial(n.on_any_mesh, dropped=1)
def universal_logit_distillation(
    student: jax.Array, teacher: jax.Array, *, temperature: Hyper[Positive] = 1.0
) -> jax.Array:
    r"""ULD: compare sorted probabilities, for vocabularies that have nothing in common.

    .. math:: \tau^2 \sum_k |t_{(k)} - s_{(k)}|

    where the probabilities are sorted downwards and the shorter vocabulary is filled up with zeros.

    Args:
        student: logits ``[..., V]``.
        teacher: logits ``[..., W]``, the same leading shape; ``-inf`` is a class that the teacher
            rules out.
        temperature: :math:`\tau > 0`, a number or one per token.

    Returns:
        ``[...]``, one value per token, float32 or wider, times :math:`\tau^2`.

    Raises:
        ValueError: leading shapes that differ.

    Zero where one distribution is a permutation of the other, at equality above all (gradient zero
    there). Which token of one tokenizer meets which of the other is decided by the caller.

    References:
        Boizard, El Haddad, Hudelot, Colombo 2024, "Towards cross-tokenizer distillation: the
        universal logit distillation loss for LLMs" (arXiv 2402.12030).

    Example:
        >>> longer = jnp.array([1.0, 0.0, -jnp.inf])
        >>> float(universal_logit_distillation(jnp.array([0.0, 1.0]), longer))
        0.0
    """
    s, t = n.widen(student, teacher)
    n.rank(1, student=s, teacher=t)
    if s.shape[:-1] != t.shape[:-1]:
        raise ValueError(
            f"student and teacher must have one leading shape, got {s.shape} and {t.shape}"
        )
    log_p, log_q = n.log_softmax(s, temperature), n.log_softmax(t, temperature)
    p, q = (jnp.sort(jnp.exp(each), axis=-1, descending=True) for each in (log_p, log_q))
    width = max(p.shape[-1], q.shape[-1])
    p, q = (jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])]) for x in (p, q))
    value = jnp.sum(jnp.abs(n.kinked_gap(p, q)), axis=-1)
    return n.softened(value, temperature, log_p, log_q)


@functools.partial(n.on_any_mesh, dropped=1)
def logistic_ranking(
    student: jax.Array, ids: jax.Array, log_teacher: jax.Array, *, epsilon: NonNegative = 1e-9
) -> jax.Array:
    r"""The student's logits should rank the teacher's known classes as the teacher does.

    .. math:: \operatorname{mean}_{(k, l) : t_k > t_l + \epsilon} \mathrm{softplus}(s_l - s_k)

    Args:
        student: logits ``[..., V]``.
        ids: ``[..., K]``, integers; padding out of range.
        log_teacher: ``[..., K]``, log-probabilities; ``-inf`` is padding.
        epsilon: the smallest probability, and difference, that counts.

    Returns:
        ``[...]``, the mean over the pairs of a token, float32 or wider; 0 where there is no pair.

    Raises:
        ValueError: shapes that do not fit.

    Equals DistillKit's ``sparse_logistic_ranking_loss`` where all tokens have equally many pairs
    (it averages over the pairs of all tokens together).

    References:
        Burges and others 2005, "Learning to rank using gradient descent".

    Example:
        >>> float(logistic_ranking(jnp.zeros(3), jnp.array([0, 1]), jnp.log(jnp.array([0.7, 0.2]))))
        0.693147
    """
    chosen, probabilities, known = _chosen(student, ids, log_teacher)
    gap = chosen[..., :, None] - chosen[..., None, :]
    return _over_pairs(jax.nn.softplus(-gap), probabilities, known, epsilon)


@functools.partial(n.on_any_mesh, dropped=1)
def hinge_ranking(
    student: jax.Array,
    ids: jax.Array,
    log_teacher: jax.Array,
    *,
    margin: Hyper[NonNegative] | None = None,
    epsilon: NonNegative = 1e-8,
) -> jax.Array:
    r"""The student's probabilities should keep the teacher's order of its known classes, by a
    margin.

    .. math:: \operatorname{mean}_{(k, l) : t_k > t_l + \epsilon} \max(0, m_{kl} - (s_k - s_l)),
        \qquad m_{kl} = t_k - t_l \text{ or } m

    with the softmax of both over the whole vocabulary.

    Args:
        student: logits ``[..., V]``.
        ids: ``[..., K]``, integers; padding out of range.
        log_teacher: ``[..., K]``, log-probabilities; ``-inf`` is padding.
        margin: one margin for all pairs; None asks for the teacher's own.
        epsilon: the smallest probability, and difference, that counts.

    Returns:
        ``[...]``, the mean over the pairs of a token, float32 or wider; 0 where there is no pair.

    Raises:
        ValueError: shapes that do not fit.

    Equals DistillKit's ``sparse_hinge_loss(margin)`` where all tokens have equally many pairs (it
    averages over the pairs of all tokens together).

    References:
        Herbrich, Graepel, Obermayer 1999, "Support vector learning for ordinal regression".

    Example:
        >>> float(hinge_ranking(jnp.zeros(2), jnp.array([0, 1]), jnp.log(jnp.array([0.75, 0.25]))))
        0.5
    """
    (wide,) = n.widen(student)
    chosen, probabilities, known = _chosen(jax.nn.softmax(wide, axis=-1), ids, log_teacher)
    gap = chosen[..., :, None] - chosen[..., None, :]
    wanted = probabilities[..., :, None] - probabilities[..., None, :]
    if margin is not None:
        wanted = jnp.full_like(wanted, margin)
    return _over_pairs(jax.nn.relu(wanted - gap), probabilities, known, epsilon)


def minillm_single_step(student_log_probs: jax.Array, teacher_log_probs: jax.Array) -> jax.Array:
    r"""MiniLLM's single-step term, elementwise: summed over a vocabulary it is the reverse
    divergence.

    .. math:: s (\log s - \log t)

    Args:
        student_log_probs: any shape: log-probabilities of the tokens taken, or of the whole
            vocabulary.
        teacher_log_probs: the same shape.

    Returns:
        The same shape, float32 or wider. Where the student has no mass it is 0.

    Raises:
        ValueError: shapes that differ.

    Equals TRL's ``_single_step_decomposition_loss``, as a mean over tokens. Infinite where the
    teacher alone has none.

    References:
        Gu, Dong, Wei, Huang 2024 (arXiv 2306.08543), equation 5.

    Example:
        >>> float(minillm_single_step(jnp.log(jnp.array(0.5)), jnp.log(jnp.array(0.25))))
        0.346574
    """
    n.same_shape(student_log_probs=student_log_probs, teacher_log_probs=teacher_log_probs)
    s, t = n.widen(student_log_probs, teacher_log_probs)
    absent = jnp.isneginf(s)
    return jnp.exp(s) * (jnp.where(absent, 0, s) - jnp.where(absent, 0, t))


def minillm_advantages(
    student_log_probs: jax.Array,
    teacher_log_probs: jax.Array,
    *,
    discount: Share = 0.9,
    length_normalised: bool = True,
    masked_length: NonNegative = 0.0,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""What a sampled token is worth for the reverse divergence of the rest of its sequence:
    MiniLLM's weight.

    .. math:: A_i = \sum_{j \ge i} \gamma^{j - i} (\log t_j - \log s_j) \Big/ \sum_{j \ge i}
        \gamma^{j - i}

    without the division if not ``length_normalised``; sums run over the tokens that count. With
    discount 0 it is the difference of the token alone.

    Args:
        student_log_probs: ``[..., T]``, of the tokens taken.
        teacher_log_probs: the same shape.
        discount: :math:`\gamma` in [0, 1].
        length_normalised: whether to divide.
        masked_length: what a token that does not count adds to the length (TRL: ``1e-4``).
        where: ``[..., T]``, true where a token counts.

    Returns:
        ``[..., T]``, float32 or wider, with nothing stopped; 0 where no token is left. A weight of
        a policy gradient, not a loss: stop its gradient there.

    Raises:
        ValueError: shapes that differ.

    Equals TRL's ``_compute_advantage(length_normalization=True)`` with ``masked_length=1e-4``; its
    other form is this one times :math:`\gamma^i`.

    References:
        Gu, Dong, Wei, Huang 2024 (arXiv 2306.08543), equation 7.

    Example:
        >>> minillm_advantages(jnp.zeros(3), jnp.array([1.0, 2.0, 6.0]), discount=1.0).tolist()
        [3.0, 4.0, 6.0]
    """
    n.same_shape(student_log_probs=student_log_probs, teacher_log_probs=teacher_log_probs)
    s, t = n.widen(student_log_probs, teacher_log_probs)
    if where is None:
        where = jnp.ones(s.shape, bool)
    counts = where.astype(bool)
    reward = jnp.where(counts, jnp.where(counts, t, 0) - jnp.where(counts, s, 0), 0)
    length = jnp.where(counts, 1, masked_length).astype(s.dtype)

    def discounted(values):
        def add(later, value):
            total = value + discount * later
            return total, total

        first = jnp.moveaxis(values, -1, 0)
        _, sums = jax.lax.scan(add, jnp.zeros_like(first[0]), first, reverse=True)
        return jnp.moveaxis(sums, 0, -1)

    total = discounted(reward)
    return n.ratio(total, discounted(length)) if length_normalised else total


def _chosen(values: jax.Array, ids: jax.Array, log_teacher: jax.Array):
    """The student's values at the known classes, the teacher's probabilities, which are known."""
    s, t = n.widen(values, log_teacher)
    n.same_shape(ids=ids, log_teacher=t)
    if s.shape[:-1] != ids.shape[:-1] or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(
            f"ids must be integers with the leading shape of the student {s.shape}, got "
            f"{ids.dtype} {ids.shape}"
        )
    known = (ids >= 0) & (ids < s.shape[-1])
    chosen = jnp.take_along_axis(s, jnp.where(known, ids, 0), axis=-1)
    chosen = jnp.where(n.odd_scores(s)[..., None], jnp.nan, chosen)
    return chosen, jnp.where(known, jnp.exp(t), 0), known


def _over_pairs(costs, probabilities, known, epsilon):
    known = known & (probabilities > epsilon)
    first, second = probabilities[..., :, None], probabilities[..., None, :]
    pairs = (first > second + epsilon) & known[..., :, None] & known[..., None, :]
    total = jnp.sum(jnp.where(pairs, costs, 0), axis=(-2, -1))
    mean = n.ratio(total, jnp.sum(pairs, axis=(-2, -1)).astype(total.dtype))
    odd = ~jnp.all(jnp.isfinite(probabilities), axis=-1)  # no comparison holds of them
    return jnp.where(odd, jnp.nan, mean)


def _top_k(key, dtype):
    keys = jax.random.split(key)
    student = 2 * jax.random.normal(keys[0], (2, 3, 7), dtype)
    teacher = jax.nn.log_softmax(2 * jax.random.normal(keys[1], (2, 3, 7), dtype))
    values, ids = jax.lax.top_k(teacher, 3)
    return (student, ids.astype(jnp.int32), values), {}


def _unlike(key, dtype):
    keys = jax.random.split(key)
    student = 2 * jax.random.normal(keys[0], (2, 3, 5), dtype)
    return (student, 2 * jax.random.normal(keys[1], (2, 3, 7), dtype)), {"temperature": 2.0}


def _log_probs(key, dtype):
    return tuple(-jax.random.exponential(k, (2, 5), dtype) for k in jax.random.split(key)), {}


CATALOGUE: tuple[Entry, ...] = (
    Entry(
        universal_logit_distillation,
        "tokens",
        PER_TOKEN,
        "T^2 sum_k |sorted t - sorted s|",
        "T^2",
        _unlike,
        paper="Boizard 2024, arXiv 2402.12030",
        invariances="shift and permutation of either side",
        hard={"equal": 0.0},
        scores=True,
        zero_at_equality=True,
        shift_invariant=True,
        accepts_neginf=True,
    ),
    Entry(
        logistic_ranking,
        "tokens",
        PER_TOKEN,
        "mean over pairs softplus(s_l - s_k)",
        "mean over the pairs of a token",
        _top_k,
        equal_to=(("DistillKit sparse_logistic_ranking_loss", "token mean, equally many pairs"),),
        invariances="shift of the student; order of the ids",
        remarks="no pair: 0",
        scores=True,
        teacher=None,
        shift_invariant=True,
    ),
    Entry(
        hinge_ranking,
        "tokens",
        PER_TOKEN,
        "mean over pairs max(0, t_k - t_l - s_k + s_l)",
        "mean over the pairs of a token",
        _top_k,
        equal_to=(("DistillKit sparse_hinge_loss", "margin; token mean, equally many pairs"),),
        invariances="shift of the student; order of the ids",
        remarks="no pair: 0",
        scores=True,
        teacher=None,
        shift_invariant=True,
    ),
    Entry(
        minillm_single_step,
        "tokens",
        PER_TOKEN,
        "s (log s - log t)",
        "none",
        _log_probs,
        paper="Gu 2024, arXiv 2306.08543",
        equal_to=(("TRL _single_step_decomposition_loss", "token mean"),),
        invariances="",
        hard={"equal": 0.0},
        remarks="student without mass: 0",
    ),
)
