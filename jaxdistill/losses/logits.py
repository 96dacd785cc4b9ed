"""Losses on the logits of one example (or one pixel, with ``axis``): labels, soft labels, soft
targets, distances.

Every function returns one value per example, not reduced. A loss with a temperature is multiplied
by its square, always, so that the size of its gradient does not depend on it. A temperature is a
number, traced or not, or an array with one value per example.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics as n
from jaxdistill.losses._hyper import Hyper
from jaxdistill.settings import Count, NonNegative, Positive, Share


def cross_entropy(
    logits: jax.Array, labels: jax.Array, *, label_smoothing: Hyper[Share] = 0.0, axis: int = -1
) -> jax.Array:
    r"""Cross-entropy with integer labels.

    .. math:: -(1 - a) \log s_y - \tfrac{a}{K} \sum_k \log s_k, \qquad s = \mathrm{softmax}(z)

    Args:
        logits: ``[..., K]`` (classes at ``axis``).
        labels: ``[...]``, integers. A label that is no class (``-100``, say) gives zero.
        label_smoothing: the share ``a`` spread evenly over all ``K`` classes, the label included.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example, float32 or wider, not reduced.

    Raises:
        ValueError: labels that are no integers or do not fit the logits.

    A class with logit ``-inf`` has no mass: infinite if it is the label or labels are smoothed,
    finite otherwise. Equals ``torch.nn.functional.cross_entropy(reduction="none")`` and ``optax``
    (integer labels).

    References:
        Szegedy and others 2016, "Rethinking the inception architecture for computer vision" (arXiv
        1512.00567), for label smoothing.

    Example:
        >>> float(cross_entropy(jnp.array([0.0, 0.0]), jnp.array(1)))
        0.693147
    """
    (z,) = n.last(axis, *n.widen(logits))
    n.rank(1, logits=z)
    known, labels, z = n.labelled(labels, z)
    log_s = n.log_softmax(z)
    value = -n.pick(log_s, labels)
    if not (isinstance(label_smoothing, (int, float)) and label_smoothing == 0):
        share = n.beside(label_smoothing, value)
        value = (1 - share) * value - share * jnp.mean(log_s, axis=-1)
    return jnp.where(known, value, 0)


def soft_cross_entropy(logits: jax.Array, probabilities: jax.Array, *, axis: int = -1) -> jax.Array:
    r"""Cross-entropy with probabilities: soft labels, mixed labels, a teacher's softmax.

    .. math:: -\sum_k p_k \log s_k, \qquad s = \mathrm{softmax}(z)

    Args:
        logits: ``[..., K]`` (classes at ``axis``).
        probabilities: same shape, at least 0; they need not sum to 1.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example, float32 or wider. At equality it is the entropy of ``p``,
        not zero.

    Raises:
        ValueError: shapes that differ.

    A class of probability 0 adds nothing, be its logit ``-inf``. Equals
    ``optax.softmax_cross_entropy``; with ``probabilities = softmax(teacher / T)`` and ``logits /
    T`` it is TextBrewer's ``kd_ce_loss`` per example.

    References:
        Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network" (arXiv
        1503.02531).

    Example:
        >>> float(soft_cross_entropy(jnp.array([0.0, 0.0]), jnp.array([0.3, 0.7])))
        0.693147
    """
    z, p = n.last(axis, *n.widen(logits, probabilities))
    n.same_shape(logits=z, probabilities=p)
    log_s = n.log_softmax(z)
    return -jnp.sum(p * jnp.where(p == 0, 0, log_s), axis=-1)


def soft_binary_cross_entropy(
    logits: jax.Array, probabilities: jax.Array, *, axis: int = -1
) -> jax.Array:
    r"""Binary cross-entropy of every class on its own, with soft targets (mixed labels, teacher
    probabilities).

    .. math:: \tfrac1K \sum_k p_k\,\mathrm{softplus}(-z_k) + (1 - p_k)\,\mathrm{softplus}(z_k)

    Args:
        logits: ``[..., K]`` (classes at ``axis``).
        probabilities: same shape, in [0, 1].
        axis: the axis of the classes.

    Returns:
        ``[...]``, the mean over the classes, float32 or wider.

    Raises:
        ValueError: shapes that differ.

    Logits of plus or minus infinity are fine where the target agrees with them. Equals the mean
    over classes of ``torch.nn.functional.binary_cross_entropy_with_logits(reduction="none")``.

    References:
        Wightman, Touvron, Jégou 2021, "ResNet strikes back" (arXiv 2110.00476).

    Example:
        >>> float(soft_binary_cross_entropy(jnp.zeros(3), jnp.array([0.0, 0.5, 1.0])))
        0.693147
    """
    z, p = n.last(axis, *n.widen(logits, probabilities))
    n.same_shape(logits=z, probabilities=p)
    yes = p * jax.nn.softplus(jnp.where(p == 0, 0, -z))
    no = (1 - p) * jax.nn.softplus(jnp.where(p == 1, 0, z))
    return jnp.mean(yes + no, axis=-1)


def hinton_kd(
    student: jax.Array, teacher: jax.Array, *, temperature: Hyper[Positive] = 1.0, axis: int = -1
) -> jax.Array:
    r"""Soft targets: how far the softened student is from the softened teacher.

    .. math:: \tau^2 \, \mathrm{KL}\bigl(\sigma(t/\tau) \,\|\, \sigma(s/\tau)\bigr)

    As :math:`\tau \to \infty` it tends to :math:`\tfrac{1}{2K}\sum_k (\bar s_k - \bar t_k)^2` on
    centred logits.

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        temperature: :math:`\tau > 0`, a number or one per example; may be traced.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example, float32 or wider, times :math:`\tau^2`. Nothing is
        stopped.

    Raises:
        ValueError: shapes that differ.

    Zero, with zero gradient, at equality. Finite for all finite students; infinite where the
    student has ``-inf`` and the teacher does not. Equals mdistiller, RepDistiller, ModelOpt (their
    means over the batch), big_vision ``kl`` per example, DistillKit ``kl``; torchdistill's
    soft-only form and its ``SKDInstanceLoss`` lack the factor :math:`\tau^2`, and DistiLLM's
    ``forward_kl`` is a cross-entropy: this plus the teacher's entropy.

    References:
        Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network" (arXiv
        1503.02531).

    Example:
        >>> float(hinton_kd(jnp.array([0.0, 0.0]), jnp.array([0.0, -jnp.inf])))
        0.693147
    """
    s, t = n.pair(student, teacher, axis)
    log_t, log_s = n.log_softmax(t, temperature), n.log_softmax(s, temperature)
    return n.softened(n.kl(log_t, log_s), temperature, log_t)


def standardise(logits: jax.Array, *, epsilon: NonNegative = 1e-7, axis: int = -1) -> jax.Array:
    r"""Logits with mean 0 and standard deviation 1 per example, so that a student need not copy the
    scale.

    .. math:: (z - \bar z) / (\epsilon + \mathrm{std}(z)), \qquad \mathrm{std}^2 = \tfrac{1}{K-1}
        \sum_k (z_k - \bar z)^2

    Args:
        logits: ``[..., K]`` (classes at ``axis``).
        epsilon: added to the standard deviation.
        axis: the axis of the classes.

    Returns:
        The same shape. Classes at ``-inf`` stay there and enter neither mean nor deviation; equal
        logits give zeros.

    References:
        Sun, Ren, Li, Wang, Cao 2024, "Logit standardization in knowledge distillation" (arXiv
        2403.01427).

    Example:
        >>> standardise(jnp.array([1.0, 2.0, 3.0])).tolist()
        [-1.0, 0.0, 1.0]
    """
    (z,) = n.last(axis, *n.widen(logits))
    inside = ~jnp.isneginf(z)
    number = jnp.sum(inside, axis=-1, keepdims=True).astype(z.dtype)
    known = jnp.where(inside, z, 0)
    mean = n.ratio(jnp.sum(known, axis=-1, keepdims=True), number)
    centred = jnp.where(inside, known - mean, 0)
    variance = n.ratio(
        jnp.sum(jnp.square(centred), axis=-1, keepdims=True), jnp.maximum(number - 1, 1)
    )
    scaled = centred / (epsilon + n.safe_sqrt(variance))
    return jnp.moveaxis(jnp.where(inside, scaled, -jnp.inf), -1, axis)


def standardised_kd(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: Hyper[Positive] = 1.0,
    epsilon: NonNegative = 1e-7,
    axis: int = -1,
) -> jax.Array:
    r"""Soft targets between standardised logits: :func:`hinton_kd` of :func:`standardise`.

    .. math:: \tau^2 \, \mathrm{KL}\bigl(\sigma(\mathcal Z(t)/\tau) \,\|\, \sigma(\mathcal
        Z(s)/\tau)\bigr)

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape; ``-inf`` is a class that the teacher rules out.
        temperature: :math:`\tau > 0`.
        epsilon: added to the standard deviations.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example, float32 or wider, times :math:`\tau^2`. Unchanged when
        either side's logits are shifted or scaled.

    Raises:
        ValueError: shapes that differ.

    Finite for constant logits (they become zeros; the gradient there is of the order of 1/epsilon).
    Equals the authors' ``kd_loss(logit_stand=True)`` and the soft part of torchdistill's
    ``LogitStdKDLoss``.

    References:
        Sun, Ren, Li, Wang, Cao 2024, "Logit standardization in knowledge distillation" (arXiv
        2403.01427).

    Example:
        >>> t = jnp.array([1.0, 2.0, 4.0])
        >>> float(standardised_kd(3 * t + 1, t)) < 1e-6
        True
    """
    s, t = n.pair(student, teacher, axis)
    return hinton_kd(
        standardise(s, epsilon=epsilon), standardise(t, epsilon=epsilon), temperature=temperature
    )


def standardised_cross_entropy(
    logits: jax.Array, probabilities: jax.Array, *, epsilon: NonNegative = 1e-7, axis: int = -1
) -> jax.Array:
    r"""Cross-entropy of standardised logits with soft labels: :func:`soft_cross_entropy` of
    :func:`standardise`.

    .. math:: -\sum_k p_k \log \sigma(\mathcal Z(z))_k

    Args:
        logits: ``[..., K]`` (classes at ``axis``).
        probabilities: same shape, at least 0: mixed labels.
        epsilon: added to the standard deviations.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example, float32 or wider. Unchanged when the logits are shifted or
        scaled, so that it says which class is likeliest, and not by how much. The gradient flows
        through the standard deviation.

    Raises:
        ValueError: shapes that differ.

    Finite for constant logits (they become zeros). With ``epsilon=0`` the first part of MIX-KD's
    ``MIXSTDLoss``, whose second is :func:`standardised_kd`: a tenth of the one and nine tenths of
    the other.

    References:
        Choi, Jeon, Shukla, Turaga 2023, "Understanding the role of mixup in knowledge distillation:
        an empirical study" (arXiv 2211.03946).

    Example:
        >>> z, p = jnp.array([1.0, 2.0, 4.0]), jnp.array([0.0, 0.5, 0.5])
        >>> bool(abs(standardised_cross_entropy(5 * z + 1, p) - standardised_cross_entropy(z, p))
        ...     < 1e-6)
        True
    """
    z, p = n.last(axis, *n.widen(logits, probabilities))
    return soft_cross_entropy(standardise(z, epsilon=epsilon), p)


def logit_mse(student: jax.Array, teacher: jax.Array, *, axis: int = -1) -> jax.Array:
    r"""Mean squared difference of logits.

    .. math:: \tfrac1K \sum_k (s_k - t_k)^2

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape, finite.
        axis: the axis of the classes.

    Returns:
        ``[...]``, the mean over the classes, float32 or wider.

    Raises:
        ValueError: shapes that differ.

    With a temperature and its square it would be the same, so it takes none. TextBrewer's
    ``kd_mse_loss`` is its mean divided by :math:`\tau^2`; big_vision's ``l2`` is ``K`` times it.

    References:
        Ba, Caruana 2014, "Do deep nets really need to be deep?" (arXiv 1312.6184).

    Example:
        >>> float(logit_mse(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])))
        2.0
    """
    s, t = n.pair(student, teacher, axis)
    return jnp.mean(jnp.square(s - t), axis=-1)


def logit_distance(
    student: jax.Array,
    teacher: jax.Array,
    *,
    log_probabilities: bool = False,
    epsilon: NonNegative = 1e-12,
    axis: int = -1,
) -> jax.Array:
    r"""Euclidean distance of logits, or of their log-softmax.

    .. math:: \sqrt{\textstyle\sum_k (s_k - t_k)^2 + \epsilon}

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape, finite.
        log_probabilities: compare ``log softmax`` of both, which ignores a shift.
        epsilon: under the root, which makes the gradient zero (not infinite) at equality, where the
            value is ``sqrt(epsilon)``.
        axis: the axis of the classes.

    Returns:
        ``[...]``, one value per example, float32 or wider.

    Raises:
        ValueError: shapes that differ.

    Equals big_vision's ``euclidean`` and ``logsoftmax_euclidean``.

    References:
        Beyer and others 2022, "Knowledge distillation: a good teacher is patient and consistent"
        (arXiv 2106.05237).

    Example:
        >>> float(logit_distance(jnp.array([3.0, 4.0]), jnp.zeros(2)))
        5.0
    """
    s, t = n.pair(student, teacher, axis)
    if log_probabilities:
        s, t = n.log_softmax(s), n.log_softmax(t)
    return jnp.sqrt(jnp.sum(jnp.square(s - t), axis=-1) + epsilon)


def top_k_agreement(
    student: jax.Array, teacher: jax.Array, *, k: Count = 1, axis: int = -1
) -> jax.Array:
    """Whether the teacher's best class is among the student's ``k`` best: a measure, without a
    gradient.

    Args:
        student: logits ``[..., K]`` (classes at ``axis``).
        teacher: logits of the same shape.
        k: how many of the student's classes count.
        axis: the axis of the classes.

    Returns:
        ``[...]``, 0 or 1 in float32 or wider. Equals big_vision's ``agree``.

    Example:
        >>> float(top_k_agreement(jnp.array([3.0, 2.0, 1.0]), jnp.array([0.0, 1.0, 0.0]), k=2))
        1.0
    """
    s, t = n.pair(student, teacher, axis)
    chosen = jax.lax.top_k(s, k)[1]
    best = jnp.argmax(t, axis=-1).astype(chosen.dtype)
    return jnp.any(chosen == best[..., None], axis=-1).astype(s.dtype)
