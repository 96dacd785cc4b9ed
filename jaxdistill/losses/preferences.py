"""Losses of language models on preferences and rewards: rankings of answers, policy gradients.

They read log-probabilities of answers and of tokens; those of an answer are the sum over the tokens
that it learns, ``-jnp.sum(counted * cross_entropy(logits, labels), -1)``.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxdistill.losses import numerics as n
from jaxdistill.losses._entry import PER_EXAMPLE, PER_TOKEN, Entry, features
from jaxdistill.losses._hyper import Hyper
from jaxdistill.settings import NonNegative, Positive, Share

# From this gap of log-probabilities on, an exponential goes on as a line.
_STEEPEST = 20.0


@functools.partial(n.on_any_mesh, dropped=1)
def dpo(
    student: jax.Array,
    reference: jax.Array,
    *,
    beta: Hyper[Positive] = 0.1,
    smoothing: Hyper[Share] = 0.0,
) -> jax.Array:
    r"""DPO: an answer that was chosen should gain more on a frozen model than a rejected one.

    .. math:: -(1 - \epsilon) \log \sigma(z) - \epsilon \log \sigma(-z), \qquad
        z = \beta\,[(s_1 - r_1) - (s_2 - r_2)]

    Args:
        student: log-probabilities of whole answers ``[..., 2]``, the chosen one first.
        reference: those of the model that it started from, of the same shape; with zeros and
            ``beta=1`` this is the loss of a reward model, ``student`` being its rewards.
        beta: :math:`\beta > 0`, how near to the reference to stay; one for all, or one per pair.
        smoothing: :math:`\epsilon`, the share of pairs that are the wrong way round.

    Returns:
        ``[...]``, one value per pair, float32 or wider.

    Raises:
        ValueError: shapes that differ, and a last axis that is not two answers.

    The logarithm of 2 where nothing was gained; linear in the gap where the student is sure and
    wrong.

    References:
        Rafailov et al. 2023, "Direct preference optimization: your language model is secretly a
        reward model" (arXiv 2305.18290), equation 7; smoothing: Mitchell 2023, "A note on DPO with
        noisy preferences".

    Example:
        >>> pair = jnp.array([-5.0, -9.0])
        >>> round(float(dpo(pair, pair)), 4), round(float(dpo(pair, jnp.zeros(2), beta=1.0)), 4)
        (0.6931, 0.0181)
    """
    n.same_shape(student=student, reference=reference)
    n.rank(1, student=student)
    if student.shape[-1] != 2:
        raise ValueError(
            f"the last axis is the chosen answer and the rejected one, got {student.shape}"
        )
    s, r = n.widen(student, reference)
    gained = s - r
    gap = gained[..., 0] - gained[..., 1]
    z = n.beside(beta, gap) * gap
    wrong = n.beside(smoothing, gap)
    return (1 - wrong) * jax.nn.softplus(-z) + wrong * jax.nn.softplus(z)


@functools.partial(n.on_any_mesh, dropped=1)
def rrhf(student: jax.Array, rewards: jax.Array, *, margin: Hyper[NonNegative] = 0.0) -> jax.Array:
    r"""RRHF: of any two answers, the one with the higher reward should be more probable.

    .. math:: \sum_{(k, l) : r_k < r_l} \max(0, m + s_k - s_l)

    Args:
        student: log-probabilities of answers ``[..., K]``, each divided by its length.
        rewards: of the same shape; ``-inf`` is an answer that is not there. Equal ones make no
            pair.
        margin: :math:`m`, by how much more probable.

    Returns:
        ``[...]``, a sum over pairs for each prompt, float32 or wider; 0 where there is no pair.

    Raises:
        ValueError: shapes that differ.

    The paper adds the cross-entropy of the best answer, which is not divided by its length.

    References:
        Yuan et al. 2023, "RRHF: rank responses to align language models with human feedback without
        tears" (arXiv 2304.05302), equation 2.

    Example:
        >>> round(float(rrhf(jnp.array([-1.0, -0.5, -2.0]), jnp.array([3.0, 2.0, 1.0]))), 4)
        0.5
    """
    n.same_shape(student=student, rewards=rewards)
    n.rank(1, student=student)
    s, r = n.widen(student, rewards)
    there = ~jnp.isneginf(r)
    pairs = r[..., :, None] < r[..., None, :]
    pairs = pairs & there[..., :, None] & there[..., None, :]
    s = jnp.where(there, s, 0)
    gap = s[..., :, None] - s[..., None, :]
    costs = jax.nn.relu(n.beside(margin, gap) + gap)
    odd = jnp.any(jnp.isnan(r + s) | jnp.isposinf(r), axis=-1)  # no comparison holds of them
    return jnp.where(odd, jnp.nan, jnp.sum(jnp.where(pairs, costs, 0), axis=(-2, -1)))


@functools.partial(n.on_any_mesh, dropped=0)
def policy_gradient(
    student: jax.Array,
    reference: jax.Array,
    advantages: jax.Array,
    *,
    kl_weight: Hyper[NonNegative] = 0.0,
) -> jax.Array:
    r"""Reinforcement from a reward: tokens of good answers become more probable, near a frozen
    model.

    .. math:: -A\,\frac{p}{\operatorname{stop}(p)} + \beta\,(e^{\log r - \log p} - (\log r - \log p)
        - 1)

    whose gradient is that of :math:`-A \log p` (Williams 1992), and of an estimate of
    :math:`KL(p \| r)` that is never negative.

    Args:
        student: log-probabilities ``[..., T]`` of tokens that the student itself has drawn.
        reference: of the same tokens, by the model that it started from.
        advantages: how much better than expected, ``[..., T]``; see :func:`group_advantages`.
        kl_weight: :math:`\beta`.

    Returns:
        ``[..., T]``, one value per token, float32 or wider. Mask what is padding.

    Raises:
        ValueError: shapes that differ.

    The value is :math:`-A` where the student is its reference: only its gradient says something.
    Advantages have no gradient. Where a token is :math:`e^{20}` times less probable than to the
    reference, the estimate goes on as a line, and stays finite.

    References:
        Shao et al. 2024, "DeepSeekMath" (arXiv 2402.03300), equation 3 with one update for each
        draw; the estimate: Schulman 2020, "Approximating KL divergence".

    Example:
        >>> token = jnp.log(jnp.array([0.5]))
        >>> jax.grad(lambda x: policy_gradient(x, token, jnp.ones(1)).sum())(token).tolist()
        [-1.0]
    """
    n.same_shape(student=student, reference=reference, advantages=advantages)
    n.rank(1, student=student)
    s, r, a = n.widen(student, reference, advantages)
    gap = r - s
    most = jnp.minimum(gap, _STEEPEST)
    near = jnp.exp(most) * (1 + gap - most) - gap - 1
    return n.beside(kl_weight, s) * near - jax.lax.stop_gradient(a) * jnp.exp(
        s - jax.lax.stop_gradient(s)
    )


def group_advantages(rewards: jax.Array, *, scaled: bool = True) -> jax.Array:
    r"""How much better than the others each of the answers to one prompt is.

    .. math:: A_k = (r_k - \bar r) / \sigma_r

    Args:
        rewards: ``[..., K]``, of K answers to each prompt.
        scaled: whether to divide by their standard deviation (of all K, ``1e-4`` added).

    Returns:
        ``[..., K]``, float32 or wider; zeros where all are equal.

    References:
        Shao et al. 2024, "DeepSeekMath" (arXiv 2402.03300), section 4.1.2; without dividing: Liu et
        al. 2025, "Understanding R1-zero-like training".

    Example:
        >>> group_advantages(jnp.array([1.0, 0.0, 0.0, 1.0]), scaled=False).tolist()
        [0.5, -0.5, -0.5, 0.5]
    """
    (r,) = n.widen(rewards)
    n.rank(1, rewards=r)
    centred = r - r.mean(-1, keepdims=True)
    if not scaled:
        return centred
    return centred / (n.safe_sqrt(jnp.square(centred).mean(-1, keepdims=True)) + 1e-4)


CATALOGUE: tuple[Entry, ...] = (
    Entry(
        dpo,
        "preferences",
        PER_EXAMPLE,
        "-(1-e) log sigmoid(z) - e log sigmoid(-z), z = b [(s_1 - r_1) - (s_2 - r_2)]",
        "none",
        features((4, 2), (4, 2), smoothing=0.1),
        paper="Rafailov 2023, arXiv 2305.18290",
        invariances="a shift of both answers, of either side",
        hard={"equal": 0.693147},
        shift_invariant=True,
    ),
    Entry(
        rrhf,
        "preferences",
        PER_EXAMPLE,
        "sum over pairs r_k < r_l of max(0, m + s_k - s_l)",
        "none",
        features((4, 3), (4, 3)),
        paper="Yuan 2023, arXiv 2304.05302",
        invariances="shift of the student; any increasing function of the rewards",
        remarks="no pair: 0; -inf: no answer",
        teacher=None,
        shift_invariant=True,
    ),
    Entry(
        policy_gradient,
        "preferences",
        PER_TOKEN,
        "-A p / stop(p) + b (r/p - log(r/p) - 1)",
        "none",
        features((2, 5), (2, 5), (2, 5), kl_weight=0.1),
        paper="Shao 2024, arXiv 2402.03300",
        invariances="",
        remarks="the value alone says nothing",
        order=0,
    ),
)
