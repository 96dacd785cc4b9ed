r"""Losses on the relations between the examples of a batch: distances, angles, similarities,
kernels.

Each couples the batch, so it is one value, and ``where`` (``[B]``, false for padding) keeps rows
out of every sum, mean and neighbourhood: the value is that of the batch without them. Features
``[B, ...]`` are flattened; the widths of student and teacher may differ unless a loss says
otherwise. ``n`` is the number of rows that count.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxdistill.losses._geometry import (
    batch_rows,
    off_diagonal,
    pairs,
    smooth_absolute,
    square_distances,
)
from jaxdistill.losses._hyper import Hyper
from jaxdistill.losses.numerics import (
    count,
    gram,
    l2_normalise,
    on_any_mesh,
    ratio,
    safe_norm,
    wide_dtype,
)
from jaxdistill.settings import NonNegative


@on_any_mesh
def rkd_distance(
    student: jax.Array,
    teacher: jax.Array,
    *,
    epsilon: NonNegative = 0.0,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Relational distillation of distances, in units of the mean distance.

    .. math:: \frac{1}{n^2} \sum_{ij}
        \rho\Bigl(\frac{|s_i - s_j|}{\mu_s} - \frac{|t_i - t_j|}{\mu_t}\Bigr)

    with :math:`\mu` the mean over pairs of two rows, and :math:`\rho` the smooth L1 distance (beta
    1).

    Args:
        student: features ``[B, ...]``.
        teacher: features ``[B, ...]`` of any width.
        epsilon: added to the mean distances.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar, float32 or wider; invariant to the scale of either side.

    Raises:
        ValueError: if the batches differ.

    Hard values: zero for a batch of one and where nothing counts; equal rows are 1e-6 apart, with
    gradient zero.

    Equal to:
        the distance part of mdistiller ``rkd_loss``, RepDistiller, torchdistill and KD_Lib
        ``RKDLoss``.

    Example:
        >>> points = jnp.array([[0.0], [1.0], [3.0]])
        >>> float(rkd_distance(points, 10 * points))
        0.0

    References:
        Park et al., `Relational Knowledge Distillation <https://arxiv.org/abs/1904.05068>`_, 2019
    """
    student, teacher = batch_rows(student, teacher, where)
    distinct = off_diagonal(where, student.shape[0])

    def relative(x):
        square = square_distances(x, x)
        alike = ~distinct | (square <= 1e-12)
        distance = jnp.where(alike, 1e-6, jnp.sqrt(jnp.where(alike, 1, square)))
        distance = jnp.where(distinct, distance, 0)
        mean = ratio(jnp.sum(distance), jnp.sum(distinct.astype(x.dtype)))
        return ratio(distance, mean + epsilon)

    gap = smooth_absolute(relative(student) - relative(teacher))
    return ratio(jnp.sum(gap), jnp.square(count(where, gap)))


@on_any_mesh
def rkd_angle(
    student: jax.Array, teacher: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    r"""Relational distillation of angles: the cosine at every corner of every triangle of examples.

    .. math:: \frac{1}{n^3} \sum_{ijk}
        \rho\bigl(\cos\angle s_j s_i s_k - \cos\angle t_j t_i t_k\bigr)

    with :math:`\rho` the smooth L1 distance (beta 1). Of the ``B^3`` triangles it holds some at a
    time.

    Args:
        student: features ``[B, ...]``.
        teacher: features ``[B, ...]`` of any width.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar, float32 or wider; invariant to scale, shift and rotation of either side.

    Raises:
        ValueError: if the batches differ.

    Hard values: zero for a batch of one and where nothing counts; an edge between equal rows has
    cosine zero and gradient zero.

    Equal to:
        the angle part of mdistiller ``rkd_loss``, RepDistiller, torchdistill and KD_Lib
        ``RKDLoss``.

    Example:
        >>> points = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        >>> float(rkd_angle(points, 3 * points + 1))
        0.0

    References:
        Park et al., `Relational Knowledge Distillation <https://arxiv.org/abs/1904.05068>`_, 2019
    """
    student, teacher = batch_rows(student, teacher, where)
    size, counts = student.shape[0], pairs(where, student.shape[0])

    def cosines(corners, x):
        # The corner first: on a mesh every device has the corners of its own examples.
        return gram(l2_normalise(corners[:, None, :] - x[None, :, :]))

    def total(part):
        ours, theirs, both = part
        gap = smooth_absolute(cosines(ours, student) - cosines(theirs, teacher))
        return jnp.sum(jnp.where(both[:, :, None] & both[:, None, :], gap, 0))

    parts = _parts(size, size * (size + student.shape[1] + teacher.shape[1]))
    if parts == 1:
        found = total((student, teacher, counts))
    else:
        # Corners of a part come from all over the batch, so that one shared out stays so.
        cut = jax.tree.map(
            lambda x: x.reshape(size // parts, parts, *x.shape[1:]).swapaxes(0, 1),
            (student, teacher, counts),
        )
        step = jax.checkpoint(lambda sum_, part: (sum_ + total(part), None))
        found, _ = jax.lax.scan(step, jnp.zeros((), student.dtype), cut)
    return ratio(found, count(where, student) ** 3)


# So many numbers of triangles are held at a time.
_AT_ONCE = 2**21


def _parts(size: int, each: int) -> int:
    """Into how many parts corners are cut, of which each holds so many numbers: the fewest that
    divide the batch."""
    enough = (parts for parts in range(1, size + 1) if size % parts == 0)
    return next((n for n in enough if size // n * each <= _AT_ONCE), max(size, 1))


@on_any_mesh
def rkd(
    student: jax.Array,
    teacher: jax.Array,
    *,
    distance_weight: Hyper[NonNegative] = 25.0,
    angle_weight: Hyper[NonNegative] = 50.0,
    epsilon: NonNegative = 0.0,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Relational distillation: :func:`rkd_distance` and :func:`rkd_angle`, weighted.

    .. math:: a \cdot \text{distance} + b \cdot \text{angle}

    Args:
        student: features ``[B, ...]``.
        teacher: features ``[B, ...]`` of any width.
        distance_weight: :math:`a`; zero leaves the part out.
        angle_weight: :math:`b`; zero leaves the part, and its ``B^3`` triangles, out.
        epsilon: of the distances.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ValueError: if the batches differ.

    Hard values: as its two parts.

    Equal to:
        mdistiller ``rkd_loss`` and RepDistiller ``RKDLoss`` with (25, 50), torchdistill's example
        with (1, 2), KD_Lib with (0.5, 0.5) and
        ``epsilon=1e-7``.

    Example:
        >>> points = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        >>> float(rkd(points, 3 * points))
        0.0

    References:
        Park et al., `Relational Knowledge Distillation <https://arxiv.org/abs/1904.05068>`_, 2019
    """

    # A weight of zero that is known now leaves its part out; a traced one cannot.
    def off(weight):
        return isinstance(weight, int | float) and weight == 0

    value = jnp.zeros((), wide_dtype(student, teacher))
    if not off(distance_weight):
        distance = rkd_distance(student, teacher, epsilon=epsilon, where=where)
        value = value + distance_weight * distance
    if not off(angle_weight):
        value = value + angle_weight * rkd_angle(student, teacher, where=where)
    return value


@on_any_mesh
def similarity_preserving(
    student: jax.Array, teacher: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    r"""Similarity-preserving distillation: the rows of the batch's Gram matrix, each of length one.

    .. math:: \frac{1}{n^2} \Bigl\| r(S S^\top) - r(T T^\top) \Bigr\|_F^2

    where :math:`r` divides each row by its L2 norm.

    Args:
        student: features ``[B, ...]``.
        teacher: features ``[B, ...]`` of any width.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar, float32 or wider; invariant to scale and rotation of either side.

    Raises:
        ValueError: if the batches differ.

    Hard values: a zero row has similarity zero to all, with gradient zero; zero where nothing
    counts.

    Equal to:
        mdistiller ``similarity_loss`` and RepDistiller ``Similarity``. torchdistill divides by the
        L1 norm, against the paper, and is not matched.

    Example:
        >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> float(similarity_preserving(rows, jnp.ones((2, 3)))).__round__(4)
        0.2929

    References:
        Tung and Mori,
        `Similarity-Preserving Knowledge Distillation <https://arxiv.org/abs/1907.09682>`_, 2019
    """
    student, teacher = batch_rows(student, teacher, where)
    gap = l2_normalise(gram(student)) - l2_normalise(gram(teacher))
    return ratio(jnp.sum(jnp.square(gap)), jnp.square(count(where, gap)))


@on_any_mesh
def pkt(
    student: jax.Array,
    teacher: jax.Array,
    *,
    epsilon: NonNegative = 1e-7,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""Probabilistic knowledge transfer: who is near whom, as a distribution per row.

    .. math:: \frac{1}{n^2} \sum_{ij}
        q_{ij} \log \frac{q_{ij} + \epsilon}{p_{ij} + \epsilon}, \qquad
        p_{ij} = \frac{1 + \cos(s_i, s_j)}{\sum_k 1 + \cos(s_i, s_k)}

    and :math:`q` likewise of the teacher; the diagonal is kept.

    Args:
        student: features ``[B, ...]``.
        teacher: features ``[B, ...]`` of any width.
        epsilon: added to norms and probabilities.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar, float32 or wider; the mean over pairs, not the sum per row.

    Raises:
        ValueError: if the batches differ.

    Hard values: a zero row has cosine zero to all, with gradient zero (the public code gives NaN);
    zero for a batch of one, at equality and where nothing counts.

    Equal to:
        mdistiller ``pkt_loss``, RepDistiller ``PKT``, torchdistill ``PKTLoss``.

    Example:
        >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> float(pkt(rows, jnp.ones((2, 2)))).__round__(4)
        0.0294

    References:
        Passalis and Tefas, `Learning Deep Representations with Probabilistic Knowledge Transfer
        <https://arxiv.org/abs/1803.10837>`_, 2018
    """
    student, teacher = batch_rows(student, teacher, where)
    counts = pairs(where, student.shape[0])

    def neighbours(x):
        norm = safe_norm(x, keepdims=True)
        zero = norm == 0
        unit = jnp.where(zero, 0, x / jnp.where(zero, 1, norm + epsilon))
        near = jnp.where(counts, (gram(unit) + 1) / 2, 0)
        return ratio(near, jnp.sum(near, axis=1, keepdims=True))

    p, q = neighbours(student), neighbours(teacher)
    gap = jnp.where(counts, q * (jnp.log(q + epsilon) - jnp.log(p + epsilon)), 0)
    return ratio(jnp.sum(gap), jnp.square(count(where, gap)))
