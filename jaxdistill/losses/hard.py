"""Hard targets: of what a teacher says, its best class alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics as n
from jaxdistill.losses._hyper import Hyper
from jaxdistill.losses.logits import cross_entropy
from jaxdistill.settings import Share


def hard_kd(
    student: jax.Array,
    teacher: jax.Array,
    *,
    label_smoothing: Hyper[Share] = 0.0,
    axis: int = -1,
) -> jax.Array:
    r"""Hard distillation: cross-entropy with the teacher's best class.

    .. math:: -\log s_{\hat y}, \qquad \hat y = \operatorname{argmax}_k t_k

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape; of equal ones the first counts.
        label_smoothing: see :func:`cross_entropy`.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example, float32 or wider. Piecewise constant in the teacher.

    Raises:
        ValueError: shapes that differ.

    Equals DeiT's ``DistillationLoss`` of the type ``hard`` and the second term of G2SD's specific
    stage (means over the batch).

    References:
        Touvron, Cord, Douze, Massa, Sablayrolles, Jégou 2021, "Training data-efficient image
        transformers & distillation through attention" (arXiv 2012.12877).

    Example:
        >>> float(hard_kd(jnp.array([0.0, 0.0]), jnp.array([1.0, 2.0])))
        0.693147
    """
    s, t = n.pair(student, teacher, axis)
    value = cross_entropy(s, jnp.argmax(t, axis=-1), label_smoothing=label_smoothing)
    # The largest of some numbers hides what is not one.
    known = jnp.all(jnp.isfinite(t) | jnp.isneginf(t), axis=-1)
    return n.unless_empty(jnp.where(known, value, jnp.nan), t, s)
