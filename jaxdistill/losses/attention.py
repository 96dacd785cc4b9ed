r"""Losses on where a net looks: spatial attention of maps, attention matrices, relations of
queries, keys and values.

``mask`` marks the tokens of a sequence that are real, ``[B, N]``; a loss per token gives zero where
it is false, and the same mask as ``where`` of the term divides by what counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.losses._geometry import choice, frobenius, maps, same_features, to_smaller_grid
from jaxdistill.losses.numerics import (
    einsum,
    entropy,
    kinked_gap,
    kl,
    l2_normalise,
    ratio,
    same_batch,
    same_shape,
    widen,
)
from jaxdistill.settings import Count, Positive

Relation = Literal["qq", "qk", "qv", "kq", "kk", "kv", "vq", "vk", "vv"]
Qkv = tuple[jax.Array, jax.Array, jax.Array] | jax.Array


def attention_transfer(
    student: jax.Array,
    teacher: jax.Array,
    *,
    form: Literal["mean_square", "norm"] = "mean_square",
    power: Positive = 2,
) -> jax.Array:
    r"""Attention transfer: the spatial maps of where activations are strong.

    .. math:: \frac{1}{HW} |Q(s) - Q(t)|_2^2, \qquad Q(f) = \frac{A}{|A|_2},
        \quad A = \sum_c |f_c|^p

    as the authors' code has it; the paper writes the norm :math:`|Q(s) - Q(t)|_2`.

    Args:
        student: maps ``[B, H, W, C]``.
        teacher: maps of any width and size; the larger grid is average-pooled to the smaller.
        form: ``"mean_square"`` (the code of the authors and of most ports) or ``"norm"`` (the
            paper).
        power: :math:`p`.

    Returns:
        ``[B]``, float32 or wider.

    Raises:
        ValueError: if they are not maps of one batch.

    Hard values: maps of zeros have attention zero, with gradient zero; zero with gradient zero at
    equality.

    Equal to:
        mdistiller ``at_loss`` and RepDistiller ``Attention`` (summed over stages), torchdistill
        ``ATLoss`` with ``mode="code"``; with ``form="norm"`` its ``mode="paper"``. KD_Lib leaves
        out the sum over channels and is not matched.

    Example:
        >>> student, teacher = jnp.ones((1, 1, 2, 3)), jnp.array([1.0, 0.0]).reshape(1, 1, 2, 1)
        >>> attention_transfer(student, teacher).round(4).tolist()
        [0.2929]

    References:
        Zagoruyko and Komodakis,
        `Paying More Attention to Attention <https://arxiv.org/abs/1612.03928>`_, 2017
    """
    student, teacher = widen(maps(student, "student"), maps(teacher, "teacher"))
    same_batch(student=student, teacher=teacher)

    def attention(x):
        strength = jnp.square(x) if power == 2 else jnp.abs(x) ** power
        return l2_normalise(jnp.mean(strength, axis=-1).reshape(x.shape[0], -1))

    student, teacher = to_smaller_grid(student, teacher)
    gap = kinked_gap(attention(student), attention(teacher))
    if choice("form", form, {"mean_square": True, "norm": False}):
        return jnp.mean(jnp.square(gap), axis=-1)
    return frobenius(gap, axis=-1)


def attention_mse(
    student: jax.Array,
    teacher: jax.Array,
    *,
    mask: jax.Array | None = None,
    heads: Literal["separate", "sum", "mean"] = "separate",
) -> jax.Array:
    r"""The mean squared gap between attention matrices.

    .. math:: \frac{1}{H L^2} \sum_{h,i,j} (S_{hij} - T_{hij})^2

    over the L real tokens of a sequence.

    Args:
        student: attention scores or probabilities ``[B, H, N, N]``.
        teacher: the same shape; with ``heads`` combined, the number of heads may differ.
        mask: ``[B, N]``, true for real tokens.
        heads: ``"separate"``, or the ``"sum"`` or ``"mean"`` over heads is compared.

    Returns:
        ``[B]``, float32 or wider.

    Raises:
        ValueError: if the shapes do not fit.

    Hard values: masked pairs may hold anything, NaN too; zero where all is masked;
    zero at equality.

    Equal to:
        TextBrewer ``att_mse_loss`` and, with ``heads="sum"``, ``att_mse_sum_loss`` (means in which
        a sequence weighs :math:`L^2`); TinyBERT's attention loss.

    Example:
        >>> attention_mse(jnp.ones((1, 2, 3, 3)), jnp.zeros((1, 2, 3, 3))).tolist()
        [1.0]

    References:
        Jiao et al., `TinyBERT <https://arxiv.org/abs/1909.10351>`_, 2020
    """
    student, teacher = _matrices(student, teacher)
    valid = _pairs(mask, student)
    student, teacher = (jnp.where(valid, x, 0) for x in (student, teacher))
    student, teacher = _heads(student, teacher, heads)
    total = jnp.sum(jnp.square(student - teacher), axis=(1, 2, 3))
    # One number per sequence: how many entries were compared.
    number = jnp.broadcast_to(valid, (student.shape[0], 1, *student.shape[2:])).sum((1, 2, 3))
    return ratio(total, number.astype(total.dtype) * student.shape[1])


def attention_kl(
    student: jax.Array,
    teacher: jax.Array,
    *,
    mask: jax.Array | None = None,
    heads: Literal["separate", "mean"] = "separate",
    kind: Literal["kl", "cross_entropy"] = "kl",
    masking: Literal["before", "after"] = "before",
) -> jax.Array:
    r"""How far the student's attention, a distribution over keys, is from the teacher's.

    .. math:: \frac{1}{H} \sum_h \mathrm{KL}\bigl(\sigma(T_{hi}) \,\|\, \sigma(S_{hi})\bigr)

    Args:
        student: attention scores before the softmax ``[B, H, N, N]`` (queries, then keys).
        teacher: the same shape; with ``heads="mean"`` the number of heads may differ. ``-inf``
            rules a key out.
        mask: ``[B, N]``, true for real tokens, as queries and as keys.
        heads: ``"separate"`` takes the mean of the heads' divergences, ``"mean"`` the divergence of
            mean scores.
        kind: ``"kl"``, or ``"cross_entropy"`` without the teacher's entropy.
        masking: masked keys leave ``"before"`` the softmax, or ``"after"`` it: then they hold mass
            on both sides and only their summands are dropped.

    Returns:
        ``[B, N]``, one value per query token, float32 or wider; zero where ``mask`` is false.

    Raises:
        ValueError: if the shapes do not fit.

    Hard values: a query without any key gives zero; zero at equality (``kind="kl"``).

    Equal to:
        TextBrewer ``att_ce_loss`` with ``kind="cross_entropy", masking="after"``, and with
        ``heads="mean"`` its ``att_ce_mean_loss`` (mean over real tokens).

    Example:
        >>> scores = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]])).reshape(1, 1, 2, 2)
        >>> attention_kl(jnp.zeros((1, 1, 2, 2)), scores).round(4).tolist()
        [[0.0, 0.1308]]

    References:
        Wang et al., `MiniLM <https://arxiv.org/abs/2002.10957>`_, 2020
    """
    if heads not in ("separate", "mean"):
        raise ValueError(unknown("treatment of heads", heads, ("separate", "mean")))
    student, teacher = _matrices(student, teacher)
    before = choice("time of masking", masking, {"before": True, "after": False})
    keys = _keys(mask, student)
    # Queries that do not count are cleared, so that garbage there reaches no gradient; with
    # masking="after" padding keys stay in the softmax of the others, as they are.
    queries = jnp.swapaxes(keys, -1, -2)
    student, teacher = (jnp.where(queries, x, 0) for x in (student, teacher))
    student, teacher = _heads(student, teacher, heads)
    values = _divergence(student, teacher, keys, kind, before)
    return _per_query(values, mask)


def relation_scores(
    first: jax.Array, second: jax.Array, *, heads: Count, truncate: bool = False
) -> jax.Array:
    r"""Scaled dot products between the vectors of two projections, in relation heads.

    .. math:: R_h = A_h B_h^\top / \sqrt{D / H}

    Args:
        first: ``[B, N, D]``, queries, keys or values with their heads side by side.
        second: the same shape.
        heads: the number of relation heads: any that divides D, and one number for student and
            teacher.
        truncate: whether channels beyond the last whole head are dropped (AutoDistil), not refused.

    Returns:
        ``[B, H, N, N]`` at the highest precision, float32 or wider.

    Raises:
        ValueError: if D is not a multiple of ``heads``.

    Example:
        >>> ones = jnp.ones((1, 2, 4))
        >>> relation_scores(ones, ones, heads=2)[0, 0, 0].round(3).tolist()
        [1.414, 1.414]
    """
    same_shape(first=first, second=second)
    first, second = widen(first, second)
    size = first.shape[-1] // heads
    if first.ndim != 3 or size == 0 or (first.shape[-1] % heads and not truncate):
        raise ValueError(
            f"relations need [B, N, D] with D a multiple of {heads} heads, got {first.shape}"
        )
    first, second = (
        x[..., : size * heads].reshape(*x.shape[:2], heads, size) for x in (first, second)
    )
    return einsum("bnhd,bmhd->bhnm", first, second) / jnp.sqrt(jnp.asarray(size, first.dtype))


def qkv_relations(
    student: Qkv,
    teacher: Qkv,
    *,
    heads: Count = 12,
    relations: Sequence[Relation] = ("qq", "kk", "vv"),
    kind: Literal["kl", "cross_entropy", "mse"] = "kl",
    truncate: bool = False,
    mask: jax.Array | None = None,
) -> jax.Array:
    r"""MiniLM's relations between queries, keys and values, which need no projector.

    .. math:: \frac{1}{|\mathcal R| H} \sum_{(a,b) \in \mathcal R} \sum_h
        \mathrm{KL}\bigl(\sigma(R^T_{ab,h})_{i\cdot} \,\|\, \sigma(R^S_{ab,h})_{i\cdot}\bigr)

    with :math:`R_{ab} = A B^\top / \sqrt{d}` in relation heads, see :func:`relation_scores`.

    Args:
        student: queries, keys and values, each ``[B, N, D_s]``, heads side by side; or all three
            side by side ``[B, N, 3 D_s]``, as a fused projection gives them.
        teacher: the same, each ``[B, N, D_t]``; the widths may differ.
        heads: relation heads, the same number for both, whatever the nets' own heads.
        relations: pairs of ``q``, ``k`` and ``v``: MiniLMv2 takes ``("qq", "kk", "vv")``, MiniLM
            ``("qk", "vv")``, G2SD all nine. The mean over them is taken.
        kind: ``"kl"``, ``"cross_entropy"``, or ``"mse"`` of the scores (AutoDistil).
        truncate: whether channels beyond the last whole head are dropped.
        mask: ``[B, N]``, true for real tokens.

    Returns:
        ``[B, N]``, one value per query token, float32 or wider; zero where ``mask`` is false.

    Raises:
        ValueError: if the shapes do not fit, or for an unknown relation.

    Hard values: zero rows give uniform relations; zero at equality (``"kl"``, ``"mse"``).

    Equal to:
        G2SD ``cal_relation_loss`` with the nine relations; AutoDistil's three with
        ``kind="mse", truncate=True`` (it sums the three).

    Example:
        >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 5, 8))
        >>> values = qkv_relations((q, k, v), (k, v, q), heads=2)
        >>> values.shape, bool((values > 0).all())
        ((2, 5), True)

    References:
        Wang et al., `MiniLMv2: Multi-Head Self-Attention Relation Distillation
        <https://arxiv.org/abs/2012.15828>`_, 2021
    """
    names = {"q": 0, "k": 1, "v": 2}
    possible = [a + b for a in names for b in names]
    total: Any = 0
    sides = [tuple(_real(x, mask) for x in _three(side)) for side in (student, teacher)]
    for relation in relations:
        if relation not in possible:
            raise ValueError(unknown("relation", relation, possible))
        first, second = (names[letter] for letter in relation)
        ours, theirs = (
            relation_scores(side[first], side[second], heads=heads, truncate=truncate)
            for side in sides
        )
        same_shape(student_relation=ours, teacher_relation=theirs)
        ours, theirs = widen(ours, theirs)
        keys = _keys(mask, ours)
        if kind == "mse":
            gap = jnp.where(keys, jnp.square(jnp.where(keys, ours - theirs, 0)), 0)
            number = jnp.broadcast_to(keys, gap.shape).sum(-1).astype(gap.dtype)
            values = jnp.mean(ratio(gap.sum(-1), number), axis=1)
        else:
            values = _divergence(ours, theirs, keys, kind, before=True)
        total = total + values
    return _per_query(total / len(relations), mask)


def _three(side: Qkv) -> Sequence[jax.Array]:
    """Queries, keys and values."""
    if isinstance(side, tuple | list):
        return side
    if side.ndim != 3 or side.shape[-1] % 3:
        raise ValueError(
            "relations need queries, keys and values, three arrays or one [B, N, 3 D], got "
            f"{side.shape}"
        )
    return jnp.split(side, 3, axis=-1)


def _matrices(student: jax.Array, teacher: jax.Array) -> tuple[jax.Array, jax.Array]:
    for name, x in (("student", student), ("teacher", teacher)):
        if jnp.ndim(x) != 4 or jnp.shape(x)[2] != jnp.shape(x)[3]:
            raise ValueError(f"{name} must be attention matrices [B, H, N, N], got {jnp.shape(x)}")
    student, teacher = widen(student, teacher)
    return student, teacher


def _heads(student: jax.Array, teacher: jax.Array, how: str) -> tuple[jax.Array, jax.Array]:
    if how != "separate":
        ways = {"separate": None, "sum": jnp.sum, "mean": jnp.mean}
        merge = choice("treatment of heads", how, ways)
        student, teacher = (merge(x, axis=1, keepdims=True) for x in (student, teacher))
    same_features(student, teacher)
    return student, teacher


def _keys(mask: jax.Array | None, scores: jax.Array) -> jax.Array:
    """``[B or 1, 1, 1, N]``, true for the keys that count."""
    if mask is None:
        return jnp.ones((1, 1, 1, scores.shape[-1]), bool)
    if mask.shape != (scores.shape[0], scores.shape[-1]):
        raise ValueError(f"mask must be {(scores.shape[0], scores.shape[-1])}, got {mask.shape}")
    return mask.astype(bool)[:, None, None, :]


def _real(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Zeros in the tokens that do not count."""
    if mask is None:
        return x
    if mask.shape != x.shape[:2]:
        raise ValueError(f"mask must be {x.shape[:2]}, got {mask.shape}")
    return jnp.where(mask.astype(bool)[..., None], x, 0)


def _pairs(mask: jax.Array | None, scores: jax.Array) -> jax.Array:
    keys = _keys(mask, scores)
    return keys & jnp.swapaxes(keys, -1, -2)


def _divergence(
    student: jax.Array, teacher: jax.Array, keys: jax.Array, kind: str, before: bool
) -> jax.Array:
    """``[B, N]`` from scores ``[B, H, N, N]``: the mean over heads of the divergence over keys."""
    with_entropy = choice("kind", kind, {"kl": False, "cross_entropy": True})
    if before:
        student, teacher = (jnp.where(keys, x, -jnp.inf) for x in (student, teacher))
        # A query whose keys are all ruled out looks nowhere: there is nothing to compare.
        nowhere = jnp.all(jnp.isneginf(teacher), axis=-1, keepdims=True)
        student, teacher = (jnp.where(nowhere, 0, x) for x in (student, teacher))
    log_s, log_t = jax.nn.log_softmax(student, -1), jax.nn.log_softmax(teacher, -1)
    if not before:
        # Dropped keys add nothing: no mass in the first argument of the divergence.
        log_t = jnp.where(keys, log_t, -jnp.inf)
        nowhere = jnp.zeros(log_t.shape[:-1] + (1,), bool)
    values = kl(log_t, log_s) + (entropy(log_t) if with_entropy else 0)
    return jnp.mean(jnp.where(nowhere[..., 0], 0, values), axis=1)


def _per_query(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    return values if mask is None else jnp.where(mask.astype(bool), values, 0)
