r"""Contrastive representation distillation with memory banks, which are explicit state.

The banks hold an embedding of every training example, of student and teacher. A step reads:

    negatives = crd_negatives(key, index, bank, count=4096)
    bank = crd_calibrate(bank, student, teacher, negatives)      # sets the constants, once
    values = crd(student, teacher, bank, negatives)              # [B]
    bank = crd_update(bank, student, teacher, index)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.losses._geometry import same_features
from jaxdistill.losses._hyper import Hyper
from jaxdistill.losses.numerics import (
    HIGHEST,
    beside,
    clear,
    l2_normalise,
    on_any_mesh,
    wide_dtype,
    widen,
)
from jaxdistill.settings import Count, NonNegative, Positive, Share


class Bank(NamedTuple):
    """The state of :func:`crd`.

    Attributes:
        student: ``[M, D]``, an embedding of every example, rows of length about one.
        teacher: ``[M, D]``.
        log_z: ``[2]``, the logarithms of the normalising constants: teacher rows against student
            embeddings, student rows against teacher embeddings.
        calibrated: whether ``log_z`` is set.
    """

    student: jax.Array
    teacher: jax.Array
    log_z: jax.Array
    calibrated: jax.Array


def crd_bank(key: jax.Array, examples: int, width: int) -> Bank:
    """Banks of uniform random rows, of root-mean-square length one, not yet calibrated.

    Args:
        key: a random key.
        examples: M, the size of the training set.
        width: D, of the embeddings.

    Returns:
        Banks in float32.

    Example:
        >>> bank = crd_bank(jax.random.key(0), 100, 8)
        >>> bank.student.shape, bool(bank.calibrated)
        ((100, 8), False)
    """
    bound = (3 / width) ** 0.5
    first, second = jax.random.split(key)
    student, teacher = (
        jax.random.uniform(k, (examples, width), minval=-bound, maxval=bound)
        for k in (first, second)
    )
    return Bank(student, teacher, jnp.zeros(2), jnp.zeros((), bool))


def crd_negatives(key: jax.Array, index: jax.Array, bank: Bank, *, count: Count) -> jax.Array:
    """Which rows of the banks each example is compared with: itself, then uniform draws.

    Args:
        key: a random key.
        index: ``[B]``, the number of each example in the training set.
        bank: the banks.
        count: K, how many negatives.

    Returns:
        ``[B, 1 + K]`` indices, the example's own first. A draw may hit it again, as in the authors'
        code.

    Example:
        >>> bank = crd_bank(jax.random.key(0), 100, 8)
        >>> rows = crd_negatives(jax.random.key(1), jnp.array([3, 5]), bank, count=4)
        >>> rows.shape, rows[:, 0].tolist()
        ((2, 5), [3, 5])
    """
    shape = (index.shape[0], count)
    drawn = jax.random.randint(key, shape, 0, bank.student.shape[0], dtype=index.dtype)
    return jnp.concatenate([index[:, None], drawn], axis=1)


@on_any_mesh
def crd_calibrate(
    bank: Bank,
    student: jax.Array,
    teacher: jax.Array,
    negatives: jax.Array,
    *,
    temperature: Hyper[Positive] = 0.07,
    where: jax.Array | None = None,
) -> Bank:
    r"""Sets the normalising constants from a first batch; does nothing once they are set.

    .. math:: Z = \frac{M}{n(1 + K)} \sum_{b,k} e^{v_b \cdot m_{bk} / \tau}

    Args:
        bank: the banks.
        student: embeddings ``[B, D]``, rows of length one.
        teacher: embeddings ``[B, D]``, rows of length one.
        negatives: ``[B, 1 + K]``, see :func:`crd_negatives`.
        temperature: :math:`\tau`.
        where: ``[B]``, true for the rows that count; a batch where nothing does sets nothing.

    Returns:
        The banks with ``log_z``. Its gradient is stopped: the constants are constants.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> bank = crd_bank(jax.random.key(0), 10, 4)
        >>> rows = crd_negatives(jax.random.key(1), jnp.arange(2), bank, count=3)
        >>> ones = jnp.full((2, 4), 0.5)
        >>> bool(crd_calibrate(bank, ones, ones, rows).calibrated)
        True
    """
    scores = _scores(bank, clear(student, where), clear(teacher, where), negatives, temperature)
    size = jnp.log(jnp.asarray(bank.student.shape[0], scores.dtype))
    if where is None:
        number = jnp.log(jnp.asarray(negatives.size, scores.dtype))
        log_z, some = jax.nn.logsumexp(scores, axis=(1, 2)) + size - number, True
    else:
        counts = where.astype(bool)[None, :, None]
        rows = jnp.sum(counts)
        some = rows > 0
        number = jnp.log(jnp.maximum(rows, 1).astype(scores.dtype) * negatives.shape[1])
        log_z = jax.nn.logsumexp(scores, axis=(1, 2), where=counts | ~some) + size - number
    set_now = ~bank.calibrated & some
    log_z = jnp.where(set_now, jax.lax.stop_gradient(log_z), bank.log_z.astype(scores.dtype))
    return bank._replace(log_z=log_z, calibrated=bank.calibrated | some)


@on_any_mesh
def crd(
    student: jax.Array,
    teacher: jax.Array,
    bank: Bank,
    negatives: jax.Array,
    *,
    temperature: Hyper[Positive] = 0.07,
    epsilon: NonNegative = 1e-7,
) -> jax.Array:
    r"""Contrastive representation distillation: noise contrast against both memory banks.

    .. math:: -\log \frac{P_0}{P_0 + K/M + \epsilon}
        - \sum_{k=1}^{K} \log \frac{K/M}{P_k + K/M + \epsilon},
        \qquad P_k = \frac{e^{v \cdot m_k / \tau}}{Z}

    once with the student's embedding and the teacher's bank, once the other way round, and both are
    added.

    Args:
        student: embeddings ``[B, D]``, rows of length one.
        teacher: embeddings ``[B, D]``, rows of length one; their embedding is trained too.
        bank: calibrated banks of ``M`` rows, see :func:`crd_calibrate`; constants.
        negatives: ``[B, 1 + K]``, see :func:`crd_negatives`: the first of each row is the positive.
        temperature: :math:`\tau`.
        epsilon: as in the formula.

    Returns:
        ``[B]``, the sum over negatives and both directions, float32 or wider.

    Raises:
        ValueError: if the shapes do not fit.

    The temperature only scales the similarities; there is no factor :math:`\tau^2`.

    Hard values: computed from logarithms, so embeddings of any length give finite values and
    gradients. Without calibration the constants are one.

    Equal to:
        RepDistiller and mdistiller ``CRDLoss``, torchdistill ``CRDLoss`` (mean over the batch).

    Example:
        >>> bank = crd_bank(jax.random.key(0), 10, 4)
        >>> rows = crd_negatives(jax.random.key(1), jnp.arange(2), bank, count=3)
        >>> ones = jnp.full((2, 4), 0.5)
        >>> crd(ones, ones, crd_calibrate(bank, ones, ones, rows), rows).shape
        (2,)

    References:
        Tian et al., `Contrastive Representation Distillation <https://arxiv.org/abs/1910.10699>`_,
        2020
    """
    scores = _scores(bank, student, teacher, negatives, temperature)
    log_p = scores - bank.log_z.astype(scores.dtype)[:, None, None]
    noise = (negatives.shape[1] - 1) / bank.student.shape[0]
    log_noise = jnp.log(jnp.asarray(noise, log_p.dtype))
    log_total = jnp.logaddexp(log_p, jnp.log(jnp.asarray(noise + epsilon, log_p.dtype)))
    found = log_total[..., 0] - log_p[..., 0]
    refused = jnp.sum(log_total[..., 1:] - log_noise, axis=-1) if noise else 0
    return jnp.sum(found + refused, axis=0)


@on_any_mesh
def crd_update(
    bank: Bank,
    student: jax.Array,
    teacher: jax.Array,
    index: jax.Array,
    *,
    momentum: Share = 0.5,
    where: jax.Array | None = None,
) -> Bank:
    r"""Moves the rows of this batch's examples towards their new embeddings.

    .. math:: m \leftarrow \frac{\mu m + (1 - \mu) v}{|\mu m + (1 - \mu) v|}

    Args:
        bank: the banks.
        student: embeddings ``[B, D]``.
        teacher: embeddings ``[B, D]``.
        index: ``[B]``, the number of each example in the training set; one that comes twice is set
            by one of its two.
        momentum: :math:`\mu`.
        where: ``[B]``, false for rows that leave the banks as they are.

    Returns:
        New banks; no gradient flows through them.

    Example:
        >>> bank = crd_bank(jax.random.key(0), 4, 2)
        >>> new = crd_update(bank, jnp.eye(2), jnp.eye(2), jnp.array([0, 3]), momentum=0.0)
        >>> new.student[jnp.array([0, 3])].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    size = bank.student.shape[0]
    place = index if where is None else jnp.where(where.astype(bool), index, size)

    def moved(memory, embedding):
        embedding = jax.lax.stop_gradient(clear(embedding, where)).astype(memory.dtype)
        row = momentum * jnp.take(memory, index, axis=0, mode="clip") + (1 - momentum) * embedding
        return memory.at[place].set(l2_normalise(row), mode="drop")

    return bank._replace(student=moved(bank.student, student), teacher=moved(bank.teacher, teacher))


def _scores(
    bank: Bank, student: jax.Array, teacher: jax.Array, negatives: jax.Array, temperature: Any
) -> jax.Array:
    """``[2, B, 1 + K]``: student against the teacher's bank, teacher against the student's."""
    same_features(student, teacher)
    student, teacher = widen(student, teacher)
    width = bank.student.shape[1]
    if student.ndim != 2 or student.shape[1] != width:
        raise ValueError(f"embeddings must be [B, {width}] as the banks, got {student.shape}")
    if negatives.ndim != 2 or negatives.shape[0] != student.shape[0]:
        raise ValueError(f"negatives must be [{student.shape[0]}, 1 + K], got {negatives.shape}")
    dtype = wide_dtype(student)

    def against(embedding, memory):
        rows = jax.lax.stop_gradient(memory[negatives]).astype(dtype)
        return jnp.einsum("bd,bkd->bk", embedding, rows, precision=HIGHEST)

    scores = jnp.stack([against(student, bank.teacher), against(teacher, bank.student)])
    return scores / beside(temperature, scores)
