"""Which proposals of a draft its target accepts, and how many tokens that makes a call."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.language.sampling import Part

Lenience = Literal["ratio", "square", "power"]


class Acceptance(NamedTuple):
    r"""Which proposals of the draft q the target p accepts: with probability ``min(1, f(p) / q)``.

    Attributes:
        lenience: :math:`\epsilon` in (0, 1]; 1 is lossless, the output is the target's.
        function: f: ``"ratio"`` :math:`p / \epsilon`, ``"square"`` :math:`p / \epsilon^2`,
            ``"power"`` :math:`p^\epsilon`.
    """

    lenience: Part = 1.0
    function: Lenience = "ratio"


LOSSLESS = Acceptance()


def check_acceptance(acceptance: Acceptance) -> Acceptance:
    """Refuses an unknown function, and a lenience that is not in (0, 1].

    Raises:
        ValueError: naming it.
    """
    if acceptance.function not in get_args(Lenience):
        raise ValueError(unknown("function of lenience", acceptance.function, get_args(Lenience)))
    if not 0 < acceptance.lenience <= 1:
        raise ValueError(f"lenience must be in (0, 1], got {acceptance.lenience}")
    return acceptance


def lenient(log_target: jax.Array, acceptance: Acceptance) -> jax.Array:
    """``log f(p)`` of log-probabilities ``log p``, see :class:`Acceptance`."""
    lenience, function = check_acceptance(acceptance)
    if lenience == 1:
        return log_target
    if function == "power":
        return log_target * lenience
    over = jnp.log(jnp.asarray(lenience, log_target.dtype))
    return log_target - over * (2 if function == "square" else 1)


def acceptance_probabilities(
    log_draft: jax.Array, log_target: jax.Array, acceptance: Acceptance = LOSSLESS
) -> jax.Array:
    r"""How likely the next proposal is accepted, by the exact sum over the vocabulary.

    .. math:: \sum_v \min(q_v, f(p_v)), \qquad = 1 - \mathrm{TV}(p, q) \text{ if lossless}

    Args:
        log_draft: ``[..., V]``, log-probabilities the draft samples with, truncation applied.
        log_target: the same of the target.
        acceptance: lossless by default.

    Returns:
        ``[...]``, in [0, 1].

    References:
        Zhou et al. 2024, "DistillSpec: improving speculative decoding via knowledge distillation"
        (arXiv 2310.08461).

    Example:
        >>> p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.9, 0.1]))
        >>> round(float(acceptance_probabilities(q, p)), 3)
        0.6
    """
    return jnp.exp(jnp.minimum(log_draft, lenient(log_target, acceptance))).sum(-1)


def block_efficiency(rate: Any, block: int) -> Any:
    r"""Tokens a call of the target gives where every proposal is accepted with one probability.

    .. math:: \frac{1 - \alpha^{\gamma + 1}}{1 - \alpha} = \sum_{k=0}^{\gamma} \alpha^k

    Args:
        rate: :math:`\alpha`, in [0, 1].
        block: :math:`\gamma`, proposals a block.

    References:
        Leviathan, Kalman, Matias 2023, "Fast inference from transformers via speculative decoding"
        (arXiv 2211.17192), equation 1.

    Example:
        >>> block_efficiency(0.5, 2), block_efficiency(1.0, 3)
        (1.75, 4.0)
    """
    return sum(rate**k for k in range(block + 1))


def wall_clock_factor(efficiency: Any, block: int, cost: Any) -> Any:
    """How many times faster than the target alone: ``efficiency / (cost * block + 1)``.

    Args:
        efficiency: tokens a call of the target, see :func:`block_efficiency`.
        block: proposals a block.
        cost: time of a draft's call over time of a target's.

    Example:
        >>> wall_clock_factor(3.0, 5, 0.1)
        2.0
    """
    return efficiency / (cost * block + 1)
