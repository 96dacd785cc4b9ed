r"""What a student remembers of a teacher on images from elsewhere: features that count for a class,
and instances that stay what they are under other statistics."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxdistill.losses._geometry import same_features
from jaxdistill.losses._hyper import Hyper
from jaxdistill.losses.contrastive import info_nce
from jaxdistill.losses.numerics import (
    matmul,
    on_any_mesh,
    same_batch,
    same_shape,
    unless_odd,
    widen,
)
from jaxdistill.settings import Positive


def class_weighted_match(
    student: jax.Array,
    teacher: jax.Array,
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    classifier: jax.Array,
) -> jax.Array:
    r"""The squared gap of features, weighed by what they count for the class that both nets see.

    .. math:: \sum_d a_{kd} (s_d - t_d)^2, \qquad a_k = \mathrm{softmax}_d |W_{dk}|, \qquad
        k = \arg\max \tfrac12 (\sigma(z_s) + \sigma(z_t))

    Args:
        student: features ``[B, D]``, projected to the teacher's width.
        teacher: features of the same shape.
        student_logits: ``[B, K]``.
        teacher_logits: ``[B, K]``.
        classifier: ``[D, K]``, the weights of the teacher's classifier.

    Returns:
        ``[B]``, float32 or wider. What is chosen by the logits has no gradient in them.

    Raises:
        ValueError: if the shapes do not fit.

    Hard values: zero where both features are equal.

    The formula is ours: the paper's could not be read.

    Example:
        >>> one = jnp.ones((1, 2))
        >>> logits, classifier = jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 0.0], [0.0, 9.0]])
        >>> class_weighted_match(one, 0 * one, logits, logits, classifier).tolist()
        [1.0]

    References:
        Tang et al., Distribution Shift Matters for Knowledge Distillation with Webly Collected
        Images, ICCV 2023.
    """
    same_features(student, teacher)
    same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    same_batch(student=student, student_logits=student_logits)
    student, teacher, classifier = widen(student, teacher, classifier)
    wanted = (student.shape[-1], student_logits.shape[-1])
    if jnp.ndim(student) != 2 or classifier.shape != wanted:
        raise ValueError(
            f"the classifier must be [D, K], {wanted} of features {student.shape} and logits "
            f"{student_logits.shape}, got {classifier.shape}"
        )
    ours, theirs = widen(student_logits, teacher_logits)
    both = jax.nn.softmax(ours) + jax.nn.softmax(theirs)
    seen = jax.nn.one_hot(jnp.argmax(both, axis=-1), both.shape[-1], dtype=student.dtype)
    weights = matmul(seen, jax.nn.softmax(jnp.abs(classifier.T)))
    values = jnp.sum(weights * jnp.square(student - teacher), axis=-1)
    return unless_odd(values, both.sum(-1))


@on_any_mesh
def shifted_contrast(
    student: jax.Array,
    teacher: jax.Array,
    shifted: jax.Array,
    *,
    temperature: Hyper[Positive] = 0.1,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""InfoNCE with two positives: an image under other statistics is still that image, to the
    student as to its teacher.

    .. math:: \tfrac12 \bigl(\mathrm{InfoNCE}(s, \tilde s) + \mathrm{InfoNCE}(\tilde s, t)\bigr)

    Args:
        student: vectors ``[B, D]`` of the images.
        teacher: its vectors of the images, of the same shape.
        shifted: the student's vectors of the same images with the statistics of others, see
            :func:`jaxdistill.data.mixing.mixed_statistics`.
        temperature: :math:`\tau > 0`; may be traced.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ValueError: if the shapes differ, with the projector that would fit.

    Hard values: zero for a batch of one and where nothing counts; a zero row has cosine zero to
    all.

    Example:
        >>> rows = jnp.eye(3)
        >>> round(float(shifted_contrast(rows, rows, rows, temperature=1.0)), 4)
        0.5514

    References:
        Tang et al., Distribution Shift Matters for Knowledge Distillation with Webly Collected
        Images, ICCV 2023 (MixDistribution; the formula is ours).
    """
    how = {"temperature": temperature, "where": where}
    return (info_nce(student, shifted, **how) + info_nce(shifted, teacher, **how)) / 2
