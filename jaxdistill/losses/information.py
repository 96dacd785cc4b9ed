r"""Lower bounds on mutual information, from the scores of a critic: larger is better, so minimise
minus the bound.

A critic scores every student vector against every teacher vector of the batch: ``scores[i, j] =
f(s_i, t_j)``, ``[B, B]``, the pairs that belong together on the diagonal. It is learned and stays
outside. Every bound is one value in nats that couples the batch; ``where`` (``[B]``) drops rows and
their columns, and ``n`` counts the rest. Under a mesh the batch is the global one, which matters:
several bounds cannot exceed ``log n``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.losses._critic_scores import off_mean, per_row, square, tangent_exp
from jaxdistill.losses._geometry import pairs
from jaxdistill.losses._hyper import Hyper
from jaxdistill.losses.numerics import (
    count,
    is_class,
    masked_mean,
    on_any_mesh,
    widen,
)
from jaxdistill.settings import Share


@on_any_mesh
def barber_agakov_bound(
    log_likelihood: jax.Array, entropy: Any = 0.0, *, where: jax.Array | None = None
) -> jax.Array:
    r"""Barber and Agakov's bound: how well a decoder explains the teacher from the student.

    .. math:: I \ge \frac{1}{n} \sum_i \log q(t_i \mid s_i) + H(T)

    The mean squared error is this bound with a Gaussian decoder, cross-entropy with a categorical
    one, the cosine with a von Mises-Fisher one, each up to constants.

    Args:
        log_likelihood: ``[B]``, the log density of each teacher vector under the decoder.
        entropy: :math:`H(T)` where it is known; a constant, so that zero gives the same gradient.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar in nats, float32 or wider.

    Raises:
        ValueError: if the input is not one value per example.

    Hard values: ``entropy`` where nothing counts.

    Example:
        >>> float(barber_agakov_bound(jnp.array([-1.0, -3.0]), 2.5))
        0.5

    References:
        Barber and Agakov, `The IM Algorithm
        <https://papers.nips.cc/paper/2003/hash/a6ea8471c120fe8cc35a2954c9b9c595-Abstract.html>`_,
        2003
    """
    if jnp.ndim(log_likelihood) != 1:
        raise ValueError(f"log_likelihood must be [B], got shape {jnp.shape(log_likelihood)}")
    (log_likelihood,) = widen(log_likelihood)
    return masked_mean(log_likelihood, where) + jnp.asarray(entropy, log_likelihood.dtype)


@on_any_mesh
def tuba_bound(
    scores: jax.Array, baseline: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    r"""The tractable unnormalised Barber-Agakov bound, with a learned baseline.

    .. math:: I \ge 1 + \frac{1}{n} \sum_i (f_{ii} - a_i)
        - \frac{1}{n(n-1)} \sum_{i \ne j} e^{f_{ij} - a_i}

    Args:
        scores: ``[B, B]``.
        baseline: :math:`a`, the logarithm of the baseline, one per row of the scores, ``[B]``, or a
            scalar.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar in nats, float32 or wider. Low bias, high variance.

    Raises:
        ValueError: if the shapes do not fit.

    Hard values: 1 plus the mean of what is on the diagonal for a batch of one, which has no other
    pair; zero where nothing counts. Where the exponential would overflow it continues along its
    tangent, so that value and gradient stay finite.

    Equal to:
        Distiller ``tuba_lower_bound``.

    Example:
        >>> float(tuba_bound(jnp.zeros((3, 3)), jnp.zeros(3)))
        0.0

    References:
        Poole et al.,
        `On Variational Bounds of Mutual Information <https://arxiv.org/abs/1905.06922>`_, 2019
    """
    scores = square(scores, where)
    shifted = scores - per_row(baseline, scores, where)
    return _unnormalised(shifted, where)


@on_any_mesh
def nwj_bound(scores: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    r"""Nguyen, Wainwright and Jordan's bound: :func:`tuba_bound` with the baseline :math:`a = 1`.

    .. math:: I \ge \frac{1}{n} \sum_i f_{ii} - \frac{1}{n(n-1)} \sum_{i \ne j} e^{f_{ij} - 1}

    Args:
        scores: ``[B, B]``.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar in nats, float32 or wider. Low bias, high variance.

    Raises:
        ValueError: if the scores are not square.

    Hard values: the mean of the diagonal for a batch of one; zero where nothing counts.

    Equal to:
        Distiller ``nwj_lower_bound``.

    Example:
        >>> float(nwj_bound(jnp.ones((3, 3))))
        0.0

    References:
        Nguyen, Wainwright and Jordan, `Estimating Divergence Functionals and the Likelihood Ratio
        <https://arxiv.org/abs/0809.0853>`_, 2010
    """
    return _unnormalised(square(scores, where) - 1, where)


@on_any_mesh
def info_nce_bound(scores: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    r"""The InfoNCE bound, at most ``log n``.

    .. math:: I \ge \log n + \frac{1}{n} \sum_i \Bigl(f_{ii} - \log \sum_j e^{f_{ij}}\Bigr)

    Args:
        scores: ``[B, B]``.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar in nats, float32 or wider. High bias, low variance.

    Raises:
        ValueError: if the scores are not square.

    Hard values: zero for a batch of one and where nothing counts.

    Equal to:
        Distiller's InfoNCE bound as its paper writes it (the code takes the logarithm of an
        integer).

    Example:
        >>> round(float(info_nce_bound(100 * jnp.eye(4))), 4)
        1.3863

    References:
        van den Oord et al., `Representation Learning with Contrastive Predictive Coding
        <https://arxiv.org/abs/1807.03748>`_, 2018
    """
    scores = square(scores, where)
    number = count(where, scores)
    columns = jnp.where(pairs(where, scores.shape[0]), scores, -jnp.inf)
    columns = columns if where is None else jnp.where(where.astype(bool)[:, None], columns, 0)
    gain = jnp.diagonal(scores) - jax.nn.logsumexp(columns, axis=1)
    return masked_mean(gain, where) + jnp.log(jnp.maximum(number, 1))


@on_any_mesh
def jensen_shannon_objective(scores: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    r"""The Jensen-Shannon objective of f-GANs: stable to train a critic with, but no bound.

    .. math:: -\frac{1}{n} \sum_i \mathrm{softplus}(-f_{ii})
        - \frac{1}{n(n-1)} \sum_{i \ne j} \mathrm{softplus}(f_{ij})

    Args:
        scores: ``[B, B]``.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar in nats, at most zero, float32 or wider.

    Raises:
        ValueError: if the scores are not square.

    Hard values: zero where nothing counts.

    Equal to:
        vbmi ``js_fgan_lower_bound``; Deep InfoMax's objective.

    Example:
        >>> round(float(jensen_shannon_objective(jnp.zeros((3, 3)))), 4)
        -1.3863

    References:
        Hjelm et al.,
        `Learning Deep Representations by Mutual Information Estimation and Maximization
        <https://arxiv.org/abs/1808.06670>`_, 2019
    """
    scores = square(scores, where)
    joint = masked_mean(jax.nn.softplus(-jnp.diagonal(scores)), where)
    return -joint - off_mean(jax.nn.softplus(scores), where)


@on_any_mesh
def jensen_shannon_bound(scores: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    r"""The value of :func:`nwj_bound` with the gradient of :func:`jensen_shannon_objective`.

    .. math:: \mathrm{JS}(f) + \bigl[\mathrm{NWJ}(f + 1) - \mathrm{JS}(f)\bigr]_{\text{stopped}}

    The critic that is best for the objective, :math:`f = \log p(t|s)/p(t)`, is best for the bound
    at :math:`f + 1`. The difference is stopped, as the formula says.

    Args:
        scores: ``[B, B]``.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar in nats, float32 or wider.

    Raises:
        ValueError: if the scores are not square.

    Hard values: as :func:`nwj_bound`.

    Equal to:
        vbmi ``js_lower_bound`` where its NWJ is handed ``f + 1``.

    Example:
        >>> float(jensen_shannon_bound(jnp.zeros((3, 3))))
        0.0

    References:
        Poole et al.,
        `On Variational Bounds of Mutual Information <https://arxiv.org/abs/1905.06922>`_, 2019
    """
    objective = jensen_shannon_objective(scores, where=where)
    (wide,) = widen(scores)
    bound = nwj_bound(wide + 1, where=where)
    return objective + jax.lax.stop_gradient(bound - objective)


@on_any_mesh
def leave_one_out_bound(scores: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    r"""The leave-one-out form of InfoNCE: the normaliser of a pair leaves the pair itself out.

    .. math:: I \ge \frac{1}{n(n-1)} \sum_{i \ne j} (f_{ii} - m_{ij}), \qquad
        m_{ij} = \log \frac{1}{n-1} \sum_{k \ne j} e^{f_{ik}}

    It is :func:`mi_alpha_bound` at :math:`\alpha = 1`.

    Args:
        scores: ``[B, B]``.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar in nats, float32 or wider.

    Raises:
        ValueError: if the scores are not square.

    Hard values: as :func:`mi_alpha_bound`.

    Equal to:
        Distiller ``interpolated_lower_bound`` with ``alpha_logit`` to plus infinity (there
        documented the other way round).

    Example:
        >>> float(leave_one_out_bound(jnp.zeros((3, 3))))
        0.0

    References:
        Poole et al.,
        `On Variational Bounds of Mutual Information <https://arxiv.org/abs/1905.06922>`_, 2019
    """
    zeros = jnp.zeros(jnp.shape(scores)[:1], jnp.result_type(scores))
    return mi_alpha_bound(scores, zeros, alpha=1.0, where=where)


@on_any_mesh
def mi_alpha_bound(
    scores: jax.Array,
    baseline: jax.Array,
    *,
    alpha: Hyper[Share] = 0.01,
    where: jax.Array | None = None,
) -> jax.Array:
    r"""The interpolation between the unnormalised bound and the multi-sample one.

    .. math:: I \ge 1 + \mathrm{mean}_{i \ne j} (f_{ii} - b_{ij})
        - \mathrm{mean}_{i \ne j}\, e^{f_{ij} - b_{ii}}

    .. math:: b_{ij} = \log\bigl(\alpha\, e^{m_{ij}} + (1 - \alpha)\, e^{a_i}\bigr),
        \qquad m_{ij} = \log \frac{1}{n-1} \sum_{k \ne j} e^{f_{ik}}

    :math:`\alpha = 0` is :func:`tuba_bound` (low bias, high variance), :math:`\alpha = 1` the
    multi-sample bound (high bias, low variance), which cannot exceed ``log n``; in between it
    cannot exceed :math:`\log(n / \alpha)`.

    Args:
        scores: ``[B, B]``.
        baseline: :math:`a`, the logarithm of the baseline :math:`q(t)`, ``[B]``, or a scalar.
        alpha: in [0, 1]: the share itself, not its logit.
        where: ``[B]``, true for the rows that count.

    Returns:
        A scalar in nats, float32 or wider.

    Raises:
        ValueError: if the shapes do not fit.

    Hard values: zero for fewer than two rows, which have no other pair.

    Equal to:
        Distiller ``interpolated_lower_bound`` with ``alpha_logit = log(alpha / (1 - alpha))``. Its
        documentation has the two ends exchanged, and its command line feeds ``alpha`` as the logit.

    Example:
        >>> scores, baseline = jnp.eye(3), jnp.array([0.1, 0.2, 0.3])
        >>> bounds = mi_alpha_bound(scores, baseline, alpha=0.0), tuba_bound(scores, baseline)
        >>> [round(float(bound), 4) for bound in bounds]
        [0.9785, 0.9785]

    References:
        Poole et al.,
        `On Variational Bounds of Mutual Information <https://arxiv.org/abs/1905.06922>`_, 2019; He
        et al.,
        `Distiller: A Systematic Study of Model Distillation Methods in NLP
        <https://arxiv.org/abs/2109.11105>`_, 2021
    """
    scores = square(scores, where)
    size, number = scores.shape[0], count(where, scores)
    baseline = jnp.broadcast_to(per_row(baseline, scores, where), scores.shape)
    alpha = jnp.asarray(alpha, scores.dtype)
    if size < 2:
        return jnp.zeros((), scores.dtype)
    others = jnp.log(jnp.maximum(number - 1, 1))
    left_out = jnp.where(number < 2, 0, _log_leave_one_out(scores, where) - others)
    mixed = _log_mix(left_out, baseline, alpha)
    joint = off_mean(jnp.diagonal(scores)[:, None] - mixed, where)
    marginal = off_mean(tangent_exp(scores - jnp.diagonal(mixed)[:, None]), where)
    return jnp.where(number < 2, 0, 1 + joint - marginal)


def _log_mix(first: jax.Array, second: jax.Array, share: jax.Array) -> jax.Array:
    """``log(share e^first + (1 - share) e^second)``, exact and differentiable at both ends."""
    largest = jax.lax.stop_gradient(jnp.maximum(first, second))
    # At an end the other side leaves the sum; the largest must then be the side that stays.
    largest = jnp.where(share >= 1, jax.lax.stop_gradient(first), largest)
    largest = jnp.where(share <= 0, jax.lax.stop_gradient(second), largest)
    a = jnp.where(share <= 0, 0, share * jnp.exp(jnp.where(share <= 0, 0, first - largest)))
    b = jnp.where(share >= 1, 0, (1 - share) * jnp.exp(jnp.where(share >= 1, 0, second - largest)))
    return jnp.log(a + b) + largest


def _log_leave_one_out(scores: jax.Array, where: jax.Array | None) -> jax.Array:
    """``log sum_{k != j} exp scores[i, k]`` for every i and j; zero where there is no other k.

    The largest score of a row is left out by summing the others. To leave out another one it is
    subtracted from the sum, which keeps at least half of it, so nothing cancels.
    """
    allowed = pairs(where, scores.shape[0])
    row = jnp.where(allowed, scores, -jnp.inf)
    first = is_class(jnp.argmax(row, axis=1), row)
    others = allowed & ~first
    some = others.any(axis=1, keepdims=True)
    # Rows without two entries stand in as zeros, so that neither branch meets an infinity.
    row = jnp.where(some, row, 0)
    top = jax.lax.stop_gradient(jnp.max(row, axis=1, keepdims=True))
    parts = jnp.exp(row - top)
    rest = jnp.log(jnp.where(first, 1, jnp.sum(parts, axis=1, keepdims=True) - parts)) + top
    without_first = jax.nn.logsumexp(
        jnp.where(some, jnp.where(first, -jnp.inf, row), 0), axis=1, keepdims=True
    )
    return jnp.where(some, jnp.where(first, without_first, rest), 0)


def _unnormalised(shifted: jax.Array, where: jax.Array | None) -> jax.Array:
    """One plus the mean of the diagonal minus that of the exponentials beside it; zero if empty."""
    value = 1 + masked_mean(jnp.diagonal(shifted), where) - off_mean(tangent_exp(shifted), where)
    return jnp.where(count(where, shifted) == 0, 0, value)
