"""Losses on logits that couple the examples of a batch: correlations, Gram matrices, and labels
softened over it.

All return a scalar and take ``where``, so that padding never enters a matrix. Under a mesh they
mean the global batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics as n
from jaxdistill.losses._entry import BATCH, Entry, scores
from jaxdistill.losses._hyper import Hyper
from jaxdistill.losses.logits import cross_entropy
from jaxdistill.settings import NonNegative, Positive


@n.on_any_mesh
def dist(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: Hyper[Positive] = 1.0,
    inter_weight: Hyper[NonNegative] = 1.0,
    intra_weight: Hyper[NonNegative] = 1.0,
    epsilon: NonNegative = 1e-8,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""DIST: match the predictions up to scale and shift, along classes and along the batch.

    .. math:: \tau^2 \bigl[a \bigl(1 - \tfrac1B \sum_i \rho(s_i, t_i)\bigr) + b \bigl(1 - \tfrac1K
        \sum_k \rho(s_{\cdot k}, t_{\cdot k})\bigr)\bigr]

    with softmax at :math:`\tau` and Pearson's correlation :math:`\rho`.

    Args:
        student: logits ``[B, K]``.
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        temperature: :math:`\tau > 0`.
        inter_weight: ``a``, correlations between the classes of an example.
        intra_weight: ``b``, correlations between the examples, class by class.
        epsilon: added to the product of the norms in a correlation.
        where: ``[B]``, true where an example counts.

    Returns:
        A scalar over the batch, float32 or wider, times :math:`\tau^2`; 0 if nothing counts.

    Raises:
        ValueError: shapes that differ or are not ``[B, K]``.

    Hard values: a constant row or column has correlation 0 and no gradient (a batch of one: the
    second term is ``b``). Equals hunto's ``DIST`` (``tau``), and torchdistill's ``DISTLoss`` with
    ``epsilon=0``.

    References:
        Huang, You, Wang, Qian, Xu 2022, "Knowledge distillation from a stronger teacher" (arXiv
        2205.10536).

    Example:
        >>> z = jnp.array([[1.0, 2.0, 4.0], [0.0, 3.0, 1.5]])
        >>> float(dist(z, z, epsilon=0.0)) < 1e-5
        True
    """
    s, t = _matrices(student, teacher, where)
    p, q = n.softmax(s, temperature), n.softmax(t, temperature)
    number = n.count(where, p)
    p, q = n.clear(p, where), n.clear(q, where)
    classes = p.shape[-1]
    rows = _correlation(p, q, jnp.asarray(classes, p.dtype), None, epsilon)
    inter = 1 - n.masked_mean(rows, where)
    keep = None if where is None else where[None]
    intra = 1 - jnp.mean(_correlation(p.T, q.T, number, keep, epsilon))
    a, b = n.beside(inter_weight, inter), n.beside(intra_weight, intra)
    value = n.beside(temperature, inter) ** 2 * (a * inter + b * intra)
    return jnp.where(number == 0, 0, value)


@n.on_any_mesh
def class_correlation(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: Hyper[Positive] = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""The class level of MLKD: which classes are predicted together over a batch.

    .. math:: \tfrac{\tau^2}{K} \| S^\top S - T^\top T \|_F^2

    with the softmax matrices ``S, T`` of shape ``[B, K]`` at :math:`\tau`.

    Args:
        student: logits ``[B, K]``.
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        temperature: :math:`\tau > 0`.
        where: ``[B]``, true where an example counts.

    Returns:
        A scalar over the batch, float32 or wider, times :math:`\tau^2`; 0 if nothing counts.

    Raises:
        ValueError: shapes that differ or are not ``[B, K]``.

    Zero with zero gradient at equality. Equals ``cc_loss`` of MLKD divided by :math:`\tau^2` (it
    has none). The Gram matrices are at the highest precision.

    References:
        Jin, Wang, Lin 2023, "Multi-level logit distillation" (CVPR 2023).

    Example:
        >>> certain = jnp.array([[0.0, -jnp.inf], [0.0, -jnp.inf]])
        >>> float(class_correlation(jnp.zeros((2, 2)), certain))
        1.5
    """
    s, t = _matrices(student, teacher, where)
    p = n.clear(n.softmax(s, temperature), where)
    q = n.clear(n.softmax(t, temperature), where)
    gap = n.matmul(q.T, q) - n.matmul(p.T, p)
    return n.beside(temperature, gap) ** 2 * jnp.sum(jnp.square(gap)) / p.shape[-1]


@n.on_any_mesh
def batch_correlation(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: Hyper[Positive] = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""The batch level of MLKD: which examples are predicted alike.

    .. math:: \tfrac{\tau^2}{B} \| S S^\top - T T^\top \|_F^2

    with the softmax matrices ``S, T`` of shape ``[B, K]`` at :math:`\tau`.

    Args:
        student: logits ``[B, K]``.
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        temperature: :math:`\tau > 0`.
        where: ``[B]``, true where an example counts; ``B`` above is their number.

    Returns:
        A scalar over the batch, float32 or wider, times :math:`\tau^2`; 0 if nothing counts.

    Raises:
        ValueError: shapes that differ or are not ``[B, K]``.

    Zero with zero gradient at equality. Equals ``bc_loss`` of MLKD divided by :math:`\tau^2` (it
    has none). The Gram matrices are at the highest precision.

    References:
        Jin, Wang, Lin 2023, "Multi-level logit distillation" (CVPR 2023).

    Example:
        >>> z = jnp.array([[1.0, 2.0], [3.0, 1.0]])
        >>> float(batch_correlation(z, z))
        0.0
    """
    s, t = _matrices(student, teacher, where)
    p = n.clear(n.softmax(s, temperature), where)
    q = n.clear(n.softmax(t, temperature), where)
    total = jnp.sum(jnp.square(n.gram(q) - n.gram(p)))
    return n.beside(temperature, total) ** 2 * n.ratio(total, n.count(where, p))


@n.on_any_mesh
def direction_skd(
    student: jax.Array,
    teacher: jax.Array,
    *,
    regulariser: Positive = 0.1,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""The direction term of SKD: Mahalanobis length of the difference of cosine matrices.

    .. math:: \tfrac1B \sum_i \sqrt{D_i^\top (\Sigma + \lambda I)^{-1} D_i}

    where ``D`` is the difference of the ``[B, B]`` cosine matrices of the logits, and
    :math:`\Sigma` the covariance of its columns over its rows (divided by ``B - 1``). The instance
    term of SKD is :func:`hinton_kd` without its factor.

    Args:
        student: logits ``[B, K]``, finite.
        teacher: logits of the same shape, finite.
        regulariser: :math:`\lambda > 0`.
        where: ``[B]``, true where an example counts.

    Returns:
        A scalar over the batch, float32 or wider; 0 if nothing counts.

    Raises:
        ValueError: shapes that differ or are not ``[B, K]``.

    Zero with zero gradient (not NaN) at equality and for a batch of one; a zero row has cosine 0
    with everything. Equals torchdistill's ``SKDDirectionLoss(tikhonov)``. Gram matrices and solve
    are at the highest precision.

    References:
        Jeong, Lee, Choi 2026, "Streamlined knowledge distillation" (CVPR 2026).

    Example:
        >>> z = jnp.array([[1.0, 2.0], [3.0, 1.0]])
        >>> float(direction_skd(2 * z, z))
        0.0
    """
    s, t = _matrices(student, teacher, where)
    gap = n.gram(n.l2_normalise(s)) - n.gram(n.l2_normalise(t))
    number = n.count(where, gap)
    centred = gap - n.ratio(jnp.sum(gap, axis=0, keepdims=True), number)
    centred = n.clear(centred, where)
    covariance = n.matmul(centred.T, centred) / jnp.maximum(number - 1, 1)
    factor = jnp.linalg.cholesky(covariance + regulariser * jnp.eye(len(gap), dtype=gap.dtype))
    with jax.default_matmul_precision("highest"):
        whitened = jax.scipy.linalg.solve_triangular(factor, gap.T, lower=True)
    return n.masked_mean(n.safe_norm(whitened, axis=0), where)


@n.on_any_mesh
def universal_self_kd(
    student: jax.Array,
    weak: jax.Array,
    labels: jax.Array,
    *,
    target_weight: Hyper[NonNegative] = 1.0,
    non_target_weight: Hyper[NonNegative] = 0.1,
    weak_weight: Hyper[NonNegative] = 0.005,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""USKD: without a teacher, soft labels from the student's own confidence and the rank of its
    classes.

    .. math:: -\tfrac1B \sum_i \bigl[a \, c_i \log s_{iy} + b \sum_{k \ne y} z_{ik} \log \hat
        s_{ik}\bigr] + m \, \mathrm{CE}_{0.1}(y, w)

    with :math:`c_i = 1 + s_{iy}^2 - \overline{s_y^2}` (mean over the batch), ``z`` Zipf's weights
    1/rank of the classes, ranked by the weak head and the student together, renormalised without
    the label, :math:`\hat s` the softmax of the other classes, and a weak head trained with label
    smoothing 0.1. ``c`` and ``z`` are constants for the gradient.

    Args:
        student: logits ``[B, K]`` of the network.
        weak: logits ``[B, K]`` of a linear head on a middle layer.
        labels: ``[B]``, integers. An example whose label is no class does not count.
        target_weight: ``a``.
        non_target_weight: ``b``.
        weak_weight: ``m``.
        where: ``[B]``, true where an example counts.

    Returns:
        A scalar over the batch, float32 or wider; 0 if nothing counts.

    Raises:
        ValueError: shapes that differ or do not fit.

    Equals cls_KD's ``USKDLoss`` (alpha, beta, mu) for integer labels.

    References:
        Yang, Zeng, Li, Zhang, Yuan, Li 2023, "From knowledge distillation to self-knowledge
        distillation" (arXiv 2303.13005).

    Example:
        >>> z = jnp.zeros((1, 2))
        >>> float(universal_self_kd(z, z, jnp.array([0])))  # 1.005 log 2
        0.696612
    """
    s, w = _matrices(student, weak, where, second="weak")
    known, labels, s, w = n.labelled(labels, s, w)
    where = known if where is None else known & where.astype(bool)
    log_s = n.log_softmax(s)
    target = n.pick(log_s, labels)
    square = jnp.exp(2 * target)
    confidence = jax.lax.stop_gradient(1 + square - n.masked_mean(square, where))
    p_weak = jax.nn.softmax(w, axis=-1)
    # As published: probabilities of the weak head and log-probabilities of the student.
    order = (
        p_weak / (1 - n.pick(p_weak, labels) + 1e-6)[:, None] + log_s / (1 - target + 1e-6)[:, None]
    )
    position = jnp.argsort(jnp.argsort(order, axis=-1, descending=True), axis=-1)
    label = n.is_class(labels, s)
    zipf = jnp.where(label, 0, 1 / (1 + position).astype(s.dtype))
    zipf = jax.lax.stop_gradient(zipf / jnp.maximum(jnp.sum(zipf, axis=-1, keepdims=True), 1e-6))
    others = n.log_softmax(jnp.where(label, -jnp.inf, s))
    others = -jnp.sum(zipf * jnp.where(label, 0, others), axis=-1)
    value = -n.beside(target_weight, s[:, 0]) * confidence * target
    value += n.beside(non_target_weight, value) * others
    value += n.beside(weak_weight, value) * cross_entropy(w, labels, label_smoothing=0.1)
    return n.masked_mean(value, where)


def _matrices(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None, second: str = "teacher"
) -> tuple[jax.Array, jax.Array]:
    for name, array in (("student", student), (second, teacher)):
        if jnp.ndim(array) != 2:
            raise ValueError(f"{name} must be [B, K], got shape {jnp.shape(array)}")
    n.same_shape(**{"student": student, second: teacher})
    s, t = n.widen(student, teacher)
    return n.clear(s, where), n.clear(t, where)


def _correlation(p, q, number, where, epsilon):
    """Pearson's correlation of the rows; only ``number`` columns, those of ``where``, count."""

    def centred(x):
        x = x - n.ratio(jnp.sum(x, axis=-1, keepdims=True), number)
        return x if where is None else jnp.where(where, x, 0)

    p, q = centred(p), centred(q)
    return n.ratio(jnp.sum(p * q, axis=-1), n.safe_norm(p) * n.safe_norm(q) + epsilon)


CATALOGUE: tuple[Entry, ...] = (
    Entry(
        dist,
        "logits",
        BATCH,
        "T^2 [a (1 - mean_i rho(s_i, t_i)) + b (1 - mean_k rho(s_k, t_k))]",
        "T^2, mean over examples and classes",
        scores(temperature=2.0),
        paper="Huang 2022, arXiv 2205.10536",
        equal_to=(
            ("hunto DIST", "inter_weight=beta, intra_weight=gamma"),
            ("torchdistill DISTLoss", "epsilon=0"),
        ),
        invariances="shift of either side",
        hard={"single": "finite"},
        remarks="constant row or column: correlation 0, gradient 0",
        scores=True,
        zero_at_equality=True,
        shift_invariant=True,
        accepts_neginf=True,
    ),
    Entry(
        class_correlation,
        "logits",
        BATCH,
        "T^2 |S'S - T'T|^2 / K",
        "T^2 / K",
        scores(temperature=2.0),
        paper="Jin 2023, CVPR",
        equal_to=(("MLKD cc_loss", "divided by T^2"),),
        invariances="shift of either side",
        scores=True,
        zero_at_equality=True,
        shift_invariant=True,
        accepts_neginf=True,
    ),
    Entry(
        batch_correlation,
        "logits",
        BATCH,
        "T^2 |SS' - TT'|^2 / B",
        "T^2 / B",
        scores(temperature=2.0),
        paper="Jin 2023, CVPR",
        equal_to=(("MLKD bc_loss", "divided by T^2"),),
        invariances="shift of either side",
        scores=True,
        zero_at_equality=True,
        shift_invariant=True,
        accepts_neginf=True,
    ),
    Entry(
        direction_skd,
        "logits",
        BATCH,
        "mean_i sqrt(D_i' (C + l I)^-1 D_i)",
        "mean over examples",
        scores(),
        paper="Jeong 2026, CVPR",
        equal_to=(("torchdistill SKDDirectionLoss", "regulariser=tikhonov"),),
        invariances="scale of either side",
        hard={"single": 0.0},
        remarks="zero row: cosine 0",
        scores=True,
        zero_at_equality=True,
    ),
    Entry(
        universal_self_kd,
        "logits",
        BATCH,
        "-a c log s_y - b sum z log s_others + m CE(weak)",
        "mean over examples",
        scores(labels=True),
        paper="Yang 2023, arXiv 2303.13005",
        equal_to=(
            ("cls_KD USKDLoss", "target_weight=alpha, non_target_weight=beta, weak_weight=mu"),
        ),
        invariances="none (the ranking is not)",
        remarks="soft labels are stopped",
        student=(0, 1),
        teacher=None,
        scores=True,
        order=0,
    ),
)
