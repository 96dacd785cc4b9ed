r"""Grids of noise levels, and the distributions that levels are drawn from while training.

Levels are the :math:`\sigma` of the path :func:`~jaxdistill.samplers.edm`. Grids for sampling fall,
as samplers go through them; where a grid is indexed by training it rises, so that the larger index
is the noisier one.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxdistill.settings import Count, Positive


def karras(
    steps: Count,
    low: Positive = 0.002,
    high: Positive = 80.0,
    rho: Positive = 7.0,
    *,
    zero: bool = True,
) -> jax.Array:
    r"""Falling levels, evenly spaced in :math:`\sigma^{1/\rho}`.

    Args:
        steps: how many steps a sampler takes through them.
        low: the least level above zero.
        high: the first one.
        rho: how much more of them lie near ``low``.
        zero: whether the grid ends with 0 after ``steps`` levels; else it has ``steps + 1`` down to
            ``low``.

    Returns:
        ``[steps + 1]``.

    Raises:
        ValueError: for no step, and levels that do not rise from ``low`` to ``high``.

    References:
        Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022, (5).

    Example:
        >>> karras(2).round(3).tolist()
        [80.0, 0.002, 0.0]
    """
    if steps < 1:
        raise ValueError(f"a sampler needs at least 1 step, got {steps}")
    refuse_fall(low, high)
    count = steps if zero else steps + 1
    found = rising_karras(jnp.arange(count), count, low, high, rho)[::-1]
    return jnp.append(found, 0.0) if zero else found


def rising_karras(index, count, low: float = 0.002, high: float = 80.0, rho: float = 7.0):
    """The levels with the given indices in a grid of ``count`` that rises from ``low`` to ``high``.

    The count may be traced: a grid that grows while training needs no new program. A grid of one
    level is ``high``.
    """
    share = jnp.where(count > 1, index / jnp.maximum(count - 1, 1), 1.0)
    root = low ** (1 / rho) + share * (high ** (1 / rho) - low ** (1 / rho))
    # The ends exactly: a boundary condition is one at ``low``.
    return jnp.where(share == 0, low, jnp.where(share >= 1, high, root**rho))


def refuse_fall(low: float, high: float) -> None:
    """Refuses levels that do not rise from above 0.

    Raises:
        ValueError: naming both.
    """
    if not 0 < low < high:
        raise ValueError(
            f"levels rise from above 0: low={low} must be above 0, and high={high} above it"
        )


def log_snr_steps(low: float, high: float, steps: int) -> jax.Array:
    """Falling levels evenly spaced in the logarithm, ``[steps + 1]`` from ``high`` to ``low``."""
    return jnp.exp(jnp.linspace(math.log(high), math.log(low), steps + 1))


def doubling(step: int | jax.Array, steps: int, first: int = 10, last: int = 1280) -> jax.Array:
    r"""How many levels the grid of iCT has at a step, :math:`\min(s_0 2^{\lfloor k/K' \rfloor},
    s_1) + 1`.

    Args:
        step: k, may be traced.
        steps: K, how many there will be.
        first: :math:`s_0`.
        last: :math:`s_1`; :math:`K' = \lfloor K / (\log_2 \lfloor s_1 / s_0 \rfloor + 1) \rfloor`.

    References:
        Song and Dhariwal, Improved Techniques for Training Consistency Models, 2023.

    Example:
        >>> [int(doubling(step, 800)) for step in (0, 99, 100, 799)]
        [11, 11, 21, 1281]
    """
    stages = int(last // first).bit_length()  # floor(log2) + 1
    stage = jnp.asarray(step) // max(steps // stages, 1)
    return jnp.minimum(first * 2 ** jnp.minimum(stage, 30 - int(first).bit_length()), last) + 1


def adaptive(
    step: int | jax.Array, steps: int, first: int = 2, last: int = 150, decay: float = 0.9
) -> tuple[jax.Array, jax.Array]:
    r"""The grid and the decay of the target's average of the first consistency models.

    .. math:: N = \Bigl\lceil \sqrt{\tfrac{k}{K}((s_1+1)^2 - s_0^2) + s_0^2} - 1 \Bigr\rceil + 1,
        \qquad \mu = \exp(s_0 \log \mu_0 / (N - 1))

    Returns:
        The count N and the decay :math:`\mu`.

    References:
        Song et al., Consistency Models, 2023, appendix C. They write the decay with N for our
        N - 1, as their public code has it.
    """
    share = jnp.asarray(step) / steps
    root = jnp.sqrt(share * ((last + 1) ** 2 - first**2) + first**2)
    count = (jnp.ceil(root - 1) + 1).astype(jnp.int32)
    return count, jnp.exp(first * math.log(decay) / jnp.maximum(count - 1, 1))


def discrete_lognormal(levels: jax.Array, mean: float = -1.1, std: float = 2.0) -> jax.Array:
    r"""The logarithm of how often iCT draws the interval above each level of a rising grid.

    .. math:: p(i) \propto \mathrm{erf}\frac{\log\sigma_{i+1} - m}{\sqrt 2 s}
        - \mathrm{erf}\frac{\log\sigma_i - m}{\sqrt 2 s}

    Args:
        levels: ``[n]`` rising, all above 0; equal neighbours (padding) are never drawn.
        mean: m.
        std: s.

    Returns:
        ``[n - 1]``, not normalised.
    """
    below = jax.scipy.special.erf((jnp.log(levels) - mean) / (2**0.5 * std))
    share = below[1:] - below[:-1]
    return jnp.where(share > 0, jnp.log(jnp.where(share > 0, share, 1)), -jnp.inf)


def lognormal(key: jax.Array, shape, mean: float = -1.2, std: float = 1.2) -> jax.Array:
    r"""Levels :math:`\sigma` with :math:`\log\sigma \sim N(m, s^2)`, as EDM trains on."""
    return jnp.exp(mean + std * jax.random.normal(key, shape))


def logit_normal(key: jax.Array, shape, mean: float = 0.0, std: float = 1.0) -> jax.Array:
    """Times in (0, 1) whose logit is normal, as flow matching trains on."""
    return jax.nn.sigmoid(mean + std * jax.random.normal(key, shape))
