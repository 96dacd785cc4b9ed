r"""Losses that match a student's features with its teacher's, element by element.

All take channels-last arrays of one shape: a student of another width is projected first, outside
the loss. Those with ``axis`` reduce that axis alone and give one value per token or pixel
(``axis=(1, 2, 3)`` gives one per image), so that a mask of tokens fits; the others give one value
per example. ``gap`` is student minus teacher.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from jaxdistill.losses._geometry import choice, elementwise, mean_over, same_features
from jaxdistill.losses._hyper import Axes, Hyper, Over
from jaxdistill.losses.numerics import kinked_gap, l2_normalise, widen
from jaxdistill.settings import NonNegative, Positive


def layer_normalise(x: jax.Array, axis: Axes = -1, epsilon: float = 1e-6) -> jax.Array:
    """Mean zero and variance one over ``axis``, without scale or bias; a constant row gives zeros.

    Args:
        x: features of any shape.
        axis: the axis (or axes) that is normalised.
        epsilon: added to the variance.

    Returns:
        The shape and dtype of ``x``.

    Example:
        >>> layer_normalise(jnp.array([1.0, 3.0])).round(3).tolist()
        [-1.0, 1.0]
    """
    centred = x - jnp.mean(x, axis=axis, keepdims=True)
    return centred * jax.lax.rsqrt(
        jnp.mean(jnp.square(centred), axis=axis, keepdims=True) + epsilon
    )


def feature_match(
    student: jax.Array,
    teacher: jax.Array,
    *,
    normalise: Literal["none", "l2", "layer_norm"] = "none",
    distance: Literal["l2", "l1", "smooth_l1"] = "l2",
    sides: Literal["both", "teacher"] = "both",
    over: Over = "mean",
    beta: Hyper[Positive] = 1.0,
    epsilon: NonNegative = 1e-6,
    axis: Axes = -1,
) -> jax.Array:
    r"""The distance between features, after a normalisation of one or both sides.

    .. math:: \frac{1}{D} \sum_d \rho\bigl(n(s)_d - n(t)_d\bigr)

    with :math:`\rho(g) = g^2` (``"l2"``), :math:`|g|` (``"l1"``) or the smooth form of it
    (``"smooth_l1"``: :math:`g^2/2\beta` where :math:`|g| < \beta`, else :math:`|g| - \beta/2`), and
    :math:`n` the identity, division by the L2 norm, or layer normalisation without scale and bias.

    The normalisation must be said: some codes switch it silently. DMAE compares L2-normalised
    features where there is a projector between student and teacher, and plain ones where there is
    none.

    Args:
        student: features ``[..., D]``, projected to the teacher's width.
        teacher: features of the same shape.
        normalise: ``"none"``, ``"l2"`` or ``"layer_norm"``, over ``axis``.
        distance: ``"l2"`` (squared), ``"l1"`` or ``"smooth_l1"``.
        sides: ``"both"`` are normalised, or the ``"teacher"`` alone (a whitened target).
        over: ``"mean"`` or ``"sum"`` of the elements along ``axis``.
        beta: where ``"smooth_l1"`` turns from square to absolute.
        epsilon: added to the variance by ``"layer_norm"``.
        axis: what is normalised and reduced; an axis or several.

    Returns:
        ``[...]``, one value per token (the shape without ``axis``), float32 or wider.

    Raises:
        ValueError: if the shapes differ, with the projector that would fit; or for an unknown
            option.

    Hard values: a zero row is normalised to zeros with gradient zero; zero where student and
    teacher are equal (``sides="both"``).

    Equal to:
        DMAE ``forward_distillation_loss_embedding`` with ``normalise="l2", distance="l1"`` (with
        projector) or ``normalise="none", distance="l1"`` (without); G2SD with
        ``normalise="layer_norm", sides="teacher", distance="smooth_l1", beta=2``; torchdistill
        ``FTLoss`` and ``KTALoss`` (p = 1) with ``normalise="l2", distance="l1", axis=(1, 2, 3)``;
        torch ``mse_loss``, ``l1_loss``, ``smooth_l1_loss`` as they are.

    Example:
        >>> student, teacher = jnp.array([[3.0, 4.0]]), jnp.array([[4.0, 3.0]])
        >>> feature_match(student, teacher, normalise="l2", distance="l1").round(4).tolist()
        [0.2]

    References:
        Bai et al., `Masked Autoencoders Enable Efficient Knowledge Distillers
        <https://arxiv.org/abs/2208.12256>`_, 2023; Huang et al., `Generic-to-Specific Distillation
        of Masked Autoencoders <https://arxiv.org/abs/2302.14771>`_, 2023
    """
    same_features(student, teacher, axis=axis)
    student, teacher = widen(student, teacher)
    change = choice(
        "normalisation",
        normalise,
        {
            "none": lambda x: x,
            "l2": lambda x: l2_normalise(x, axis),
            "layer_norm": lambda x: layer_normalise(x, axis, epsilon),
        },
    )
    if choice("value of sides", sides, {"both": True, "teacher": False}):
        student = change(student)
    # What was normalised is equal up to rounding only; what was not is compared as it is.
    difference = jnp.subtract if normalise == "none" else kinked_gap
    return mean_over(axis, elementwise(difference(student, change(teacher)), distance, beta), over)


def hint(
    student: jax.Array, teacher: jax.Array, *, over: Over = "mean", axis: Axes = -1
) -> jax.Array:
    r"""FitNets' hint: the squared gap between a layer of the student and one of the teacher.

    .. math:: \frac{1}{D} \sum_d (s_d - t_d)^2

    Args:
        student: features ``[..., D]``, after the regressor where widths differ.
        teacher: features of the same shape.
        over: ``"mean"`` over ``axis``, or its ``"sum"``.
        axis: the axis (or axes) reduced: the channels.

    Returns:
        ``[...]``, one value per token or pixel, float32 or wider; its mean is the mean over
        everything.

    Raises:
        ValueError: if the shapes differ, with the projector that would fit.

    Hard values: none; zero where student and teacher are equal.

    Equal to:
        RepDistiller ``HintLoss``, mdistiller ``FitNet``, TextBrewer ``hid_mse_loss`` and DistillKit
        ``hs_mse`` (weighted mean under the mask), torchdistill's FitNets, HND and GHND configs with
        ``over="sum"`` (summed). The paper writes half the sum of squares.

    Example:
        >>> hint(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 4.0]])).tolist()
        [2.0]

    References:
        Romero et al., `FitNets: Hints for Thin Deep Nets <https://arxiv.org/abs/1412.6550>`_, 2015
    """
    return feature_match(student, teacher, distance="l2", over=over, axis=axis)


def smooth_l1(
    student: jax.Array,
    teacher: jax.Array,
    *,
    beta: Hyper[Positive] = 1.0,
    over: Over = "mean",
    axis: Axes = -1,
) -> jax.Array:
    r"""The Huber-like distance: square for small gaps, absolute for large ones.

    .. math:: \frac{1}{D}\sum_d \rho_\beta(s_d - t_d), \qquad
        \rho_\beta(g) = \begin{cases} g^2 / 2\beta & |g| < \beta \\
        |g| - \beta/2 & \text{else} \end{cases}

    Args:
        student: features ``[..., D]``.
        teacher: features of the same shape.
        beta: the gap at which the form changes, > 0.
        over: ``"mean"`` over ``axis``, or its ``"sum"``.
        axis: the axis (or axes) reduced.

    Returns:
        ``[...]``, one value per token or pixel, float32 or wider.

    Raises:
        ValueError: if the shapes differ.

    Hard values: none; zero where student and teacher are equal.

    Equal to:
        torch ``smooth_l1_loss`` (mean).

    Example:
        >>> smooth_l1(jnp.array([[0.5, 3.0]]), jnp.zeros((1, 2)), over="sum").tolist()
        [2.625]

    References:
        Girshick, `Fast R-CNN <https://arxiv.org/abs/1504.08083>`_, 2015
    """
    return feature_match(student, teacher, distance="smooth_l1", beta=beta, over=over, axis=axis)


def hidden_cosine(student: jax.Array, teacher: jax.Array, *, axis: Axes = -1) -> jax.Array:
    r"""One minus the cosine between the hidden states of student and teacher.

    .. math:: 1 - \frac{s \cdot t}{|s|\,|t|}

    Args:
        student: hidden states ``[..., D]``.
        teacher: hidden states of the same shape.
        axis: the axis (or axes) of a vector.

    Returns:
        ``[...]``, one value in [0, 2] per token, float32 or wider.

    Raises:
        ValueError: if the shapes differ, with the projector that would fit.

    Hard values: a zero row has cosine 0, so the value is 1 and the gradient zero there; zero where
    student and teacher are equal.

    Equal to:
        TextBrewer ``cos_loss``, DistillKit ``hs_cosine``, DistilBERT's cosine term (mean over
        unmasked tokens).

    Example:
        >>> student = jnp.array([[1.0, 0.0], [0.0, 0.0]])
        >>> hidden_cosine(student, jnp.array([[0.0, 2.0], [1.0, 1.0]])).tolist()
        [1.0, 1.0]

    References:
        Sanh et al., `DistilBERT <https://arxiv.org/abs/1910.01108>`_, 2019
    """
    same_features(student, teacher, axis=axis)
    student, teacher = widen(student, teacher)
    return 1 - jnp.sum(l2_normalise(student, axis) * l2_normalise(teacher, axis), axis=axis)


def pkd(
    student: jax.Array, teacher: jax.Array, *, over: Over = "sum", axis: Axes = -1
) -> jax.Array:
    r"""Patient distillation: the squared gap between L2-normalised states of the first token.

    .. math:: \sum_d \Bigl(\frac{s_d}{|s|} - \frac{t_d}{|t|}\Bigr)^2

    Args:
        student: states ``[..., D]`` of the token that represents the sequence (position 0 in BERT),
            e.g. ``[B, D]``, or ``[B, layers, D]`` for several layers at once.
        teacher: states of the same shape.
        over: ``"sum"`` over ``axis`` (the paper), or its ``"mean"``.
        axis: the axis of a vector.

    Returns:
        ``[...]``, one value per vector in [0, 4], float32 or wider.

    Raises:
        ValueError: if the shapes differ, with the projector that would fit.

    Hard values: a zero row stays zero, with gradient zero; zero where student and teacher point the
    same way.

    Equal to:
        TextBrewer ``pkd_loss`` on ``state[:, 0]``.

    Example:
        >>> pkd(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 5.0]])).tolist()
        [2.0]

    References:
        Sun et al., `Patient Knowledge Distillation for BERT Model Compression
        <https://arxiv.org/abs/1908.09355>`_, 2019
    """
    return feature_match(student, teacher, normalise="l2", distance="l2", over=over, axis=axis)
