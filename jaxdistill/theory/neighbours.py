r"""What others proved about distilling linear and kernel models, beside repeated ridge fits.

Weights are those of the ground truth here too, also where a paper counts the teacher's,
:math:`\xi = 1 - \alpha`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.losses.numerics import matmul, ratio, same_shape, widen
from jaxdistill.theory import _checks
from jaxdistill.theory.ridge import shrinkage
from jaxdistill.theory.step_filters import direction_inputs


class Rounds(NamedTuple):
    """Rounds of self-distillation under a constraint on the training error.

    Attributes:
        multipliers: ``[rounds]``, the ridge of every round; infinite once collapsed.
        filters: ``[rounds, n]``, what is left of every direction of the first targets; zero once
            collapsed.
        norms: ``[rounds]``, of what was fitted.
    """

    multipliers: jax.Array
    filters: jax.Array
    norms: jax.Array


def constrained_rounds(
    values: jax.Array, coordinates: jax.Array, error: Any, rounds: int
) -> Rounds:
    r"""Self-distillation that fits with the least norm to a given training error, until it
    collapses.

    .. math:: f_t = \arg\min_f \|f\| \quad \text{with} \quad
        \tfrac1n \sum_i |f(x_i) - y_{t-1, i}|^2 \le \epsilon

    is the ridge fit whose ridge :math:`c_t` solves
    :math:`\frac1n \sum_j (\frac{c_t}{c_t + d_j} z_j)^2 = \epsilon`, with z the coordinates of
    :math:`y_{t-1}`. Once :math:`\|y_{t-1}\| \le \sqrt{n \epsilon}` the zero function is good
    enough, and all is lost.

    Args:
        values: eigenvalues ``[n]`` of the kernel, all above zero.
        coordinates: ``[n]``, the targets in its eigenvectors, :math:`V^\top y`.
        error: :math:`\epsilon`, above zero.
        rounds: how many.

    Raises:
        ValueError: if shapes do not fit, for an eigenvalue or error that is not positive, or
            coordinates that are not finite.

    Example:
        >>> found = constrained_rounds(jnp.ones(1), jnp.array([2.5]), 1.0, 3)
        >>> found.norms.round(4).tolist(), found.multipliers.round(4).tolist()
        ([1.5, 0.5, 0.0], [0.6667, 2.0, inf])

    References:
        Mobahi, Farajtabar and Bartlett, `Self-Distillation Amplifies Regularization in Hilbert
        Space <https://arxiv.org/abs/2002.05715>`_, 2020
    """
    values, coordinates, radius = _constraint(values, coordinates, error)
    if rounds < 1:
        raise ValueError(f"rounds must be 1 or more, got {rounds}")

    return _rounds(values, coordinates, radius, rounds)


def multiplier_bounds(values: jax.Array, norm: Any, error: Any) -> tuple[jax.Array, jax.Array]:
    r"""Between what the ridge of a round of :func:`constrained_rounds` lies.

    .. math:: \frac{d_{\min} e}{\|y\| - e} \le c \le \frac{d_{\max} e}{\|y\| - e}, \qquad
        e = \sqrt{n \epsilon}

    Args:
        values: eigenvalues ``[n]``.
        norm: :math:`\|y\|` of the round's targets, above :math:`e`.
        error: :math:`\epsilon`, above zero.

    Returns:
        The two bounds.

    Raises:
        ValueError: for an error that is not positive, or a norm that is not above :math:`e` (the
            fit has collapsed).

    Example:
        >>> [float(bound) for bound in multiplier_bounds(jnp.array([1.0, 4.0]), 3.0, 0.5)]
        [0.5, 2.0]
    """
    _checks.spectrum_values(values)
    _checks.positive(error=error)
    _checks.scalar(norm=norm)
    (values,) = widen(values)
    norm, error = (jnp.asarray(x).astype(values.dtype) for x in (norm, error))
    radius = jnp.sqrt(values.size * error)
    if _checks.concrete(norm, radius) and norm <= radius:
        raise ValueError(
            f"norm must be above the root of n times the error, {float(radius):.4g}, got "
            f"{float(norm):.4g}: the fit has collapsed to zero"
        )
    share = radius / (norm - radius)
    return jnp.min(values) * share, jnp.max(values) * share


def guaranteed_rounds(values: jax.Array, coordinates: jax.Array, error: Any) -> jax.Array:
    r"""How many rounds :func:`constrained_rounds` surely does before it collapses.

    .. math:: \frac{\|y_0\| / \sqrt{n \epsilon} - 1}{\kappa}, \qquad \kappa = d_{\max} / d_{\min}

    Args:
        values: eigenvalues ``[n]``, all above zero.
        coordinates: ``[n]``, :math:`V^\top y`.
        error: :math:`\epsilon`, above zero.

    Returns:
        A number; a fit is not zero in the rounds up to it.

    Raises:
        ValueError: as :func:`constrained_rounds`.

    Example:
        >>> float(guaranteed_rounds(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]), 0.5))
        2.0

    References:
        Mobahi, Farajtabar and Bartlett, `Self-Distillation Amplifies Regularization in Hilbert
        Space <https://arxiv.org/abs/2002.05715>`_, 2020
    """
    values, coordinates, radius = _constraint(values, coordinates, error)
    norm = jnp.sqrt(jnp.sum(jnp.square(coordinates)))
    return jnp.maximum((norm / radius - 1) * jnp.min(values) / jnp.max(values), 0)


def linear_student(x: jax.Array, teacher: jax.Array) -> jax.Array:
    r"""What a linear student learns of a linear teacher, by gradient flow from zero on the
    teacher's probabilities: the projection of its weights onto the span of the data.

    .. math:: w = X^\top (X X^\top)^{+} X w^*

    With as many independent points as features that is the teacher itself. It holds for every loss
    that is strictly convex in the logits and least where they agree, for one output or several.

    Args:
        x: points ``[n, d]``.
        teacher: weights ``[d, c]``.

    Returns:
        ``[d, c]``, float32 or wider.

    Raises:
        ValueError: if shapes do not fit or values are not finite.

    Example:
        >>> linear_student(jnp.array([[1.0, 1.0]]), jnp.array([[3.0], [1.0]])).round(4).tolist()
        [[2.0], [2.0]]

    References:
        Phuong and Lampert, `Towards Understanding Knowledge Distillation
        <https://arxiv.org/abs/2105.13093>`_, 2019
    """
    shapes = jnp.shape(x), jnp.shape(teacher)
    if len(shapes[0]) != 2 or len(shapes[1]) != 2 or shapes[0][1] != shapes[1][0]:
        raise ValueError(f"x must be [n, d] and teacher [d, c], got {shapes[0]} and {shapes[1]}")
    _checks.finite(x=x, teacher=teacher)
    x, teacher = widen(x, teacher)
    _, sizes, directions = jnp.linalg.svd(x, full_matrices=False)
    rounding = max(x.shape) * float(jnp.finfo(x.dtype).eps)
    spans = (sizes > rounding * jnp.max(sizes)).astype(x.dtype)
    return matmul(directions.T, spans[:, None] * matmul(directions, teacher))


class NoisyLabels(NamedTuple):
    """The best weight under label noise, and what it is worth.

    Attributes:
        weight: of the ground truth, wherever it lies.
        risk: the expected squared error of the parameters at that weight.
        first: the same of the first fit (weight 1).
    """

    weight: jax.Array
    risk: jax.Array
    first: jax.Array


def noisy_labels(values: jax.Array, signal: jax.Array, noise: Any, ridge: Any) -> NoisyLabels:
    r"""The best weight of a linear student of a ridge fit to noisy labels,
    :math:`y = X \theta + g \eta`.

    In the right singular vectors of X the student's parameters are the true ones with noise
    :math:`g / s`, times :math:`a - \xi a (1 - a)`; the risk is a parabola in
    :math:`\xi = 1 - \alpha` with its minimum at

    .. math:: \xi^* = \frac{\sum_j u_j \bigl(g^2 a_j / s_j^2 - (1 - a_j) \theta_j^2\bigr)}
        {\sum_j u_j^2 \bigl(\theta_j^2 + g^2 / s_j^2\bigr)}, \qquad
        a = \frac{s^2}{s^2 + \lambda}, \quad u = a (1 - a)

    It may lie outside [0, 1]: much noise asks for :math:`\xi > 1`, a student that leans away from
    the labels, and none for :math:`\xi < 0`.

    Args:
        values: squared singular values ``[n]`` of X, :math:`s^2`: eigenvalues of its linear kernel.
        signal: ``[n]``, the true parameters in its right singular vectors.
        noise: g, the standard deviation of the labels, at least zero.
        ridge: :math:`\lambda`, above zero.

    Raises:
        ValueError: if shapes do not fit, for a negative noise or a ridge that is not positive.

    Example:
        >>> best = noisy_labels(jnp.array([1.0, 3.0]), jnp.ones(2), 100.0, 1.0)
        >>> bool(best.weight < 0), bool(best.risk < best.first)
        (True, True)

    References:
        Das and Sanghavi, `Understanding Self-Distillation in the Presence of Label Noise
        <https://arxiv.org/abs/2301.13304>`_, 2023
    """
    _checks.positive(ridge=ridge)
    _checks.at_least_zero(noise=noise)
    values, ridge = direction_inputs(values, ridge)
    signal, noise = _beside(values, signal=signal), jnp.asarray(noise).astype(values.dtype)
    kept, square = shrinkage(values, ridge), jnp.square(signal)
    # Shares of the noise, g^2 / s^2 times what is kept squared, without a division by s.
    spread = jnp.square(noise) * values / jnp.square(values + ridge)
    left = 1 - kept
    above = jnp.sum(left * spread - left * kept * left * square)
    below = jnp.sum(jnp.square(left) * (jnp.square(kept) * square + spread))
    teacher = ratio(above, below)

    def risk(share):
        lean = 1 - share * left
        return jnp.sum(jnp.square(1 - kept * lean) * square + jnp.square(lean) * spread)

    return NoisyLabels(1 - teacher, risk(teacher), risk(jnp.zeros_like(teacher)))


def effective_logits(
    teacher: jax.Array, labels: jax.Array, *, weight: Any, temperature: Any = 1.0
) -> jax.Array:
    r"""The logits that a mix of labels and softened teacher asks for: where the gradient of the
    logistic loss vanishes.

    .. math:: \frac{1 - \alpha}{T} \bigl(\sigma(z / T) - \sigma(z_t / T)\bigr)
        + \alpha \bigl(\sigma(z) - y\bigr) = 0

    A linearised net trained from zero converges to their interpolant of least norm,
    ``ridge_fit(tangent_kernel, effective_logits, 0)``.

    Args:
        teacher: its logits :math:`z_t`, any shape, one binary problem each.
        labels: y of the same shape, in [0, 1].
        weight: :math:`\alpha` of the labels, in [0, 1): labels alone have no finite logits.
        temperature: T, above zero. The cross-entropy with the teacher is not multiplied by T^2.

    Returns:
        The logits, of the shape of ``teacher``, float32 or wider; differentiable.

    Raises:
        ValueError: if the shapes differ, for a weight outside [0, 1), labels outside [0, 1], a
            temperature that is not positive, or values that are not finite.

    Example:
        >>> effective_logits(jnp.array([2.0]), jnp.array([1.0]), weight=0.0).round(4).tolist()
        [2.0]

    References:
        Ji and Zhu, `Knowledge Distillation in Wide Neural Networks: Risk Bound, Data Efficiency and
        Imperfect Teacher <https://arxiv.org/abs/2010.10090>`_, 2020
    """
    same_shape(teacher=teacher, labels=labels)
    _checks.finite(teacher=teacher, labels=labels)
    _checks.positive(temperature=temperature)
    _checks.scalar(weight=weight)
    if _checks.concrete(weight) and not 0 <= weight < 1:
        raise ValueError(f"weight must be in [0, 1), got {float(weight)}")
    _checks.shares(labels=labels)
    teacher, labels = widen(teacher, labels)
    weight, heat = (jnp.asarray(x).astype(teacher.dtype) for x in (weight, temperature))

    return _effective_logits(teacher, labels, weight, heat)


def _constraint(
    values: Any, coordinates: Any, error: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Eigenvalues, coordinates, and the norm at which a fit collapses."""
    _checks.spectrum_values(values)
    _checks.positive(error=error)
    if _checks.concrete(values) and _checks.smallest(values) <= 0:
        raise ValueError(
            "eigenvalues must be above 0, the smallest is 0: with a singular kernel an error may "
            "be out of reach, and no number of rounds is guaranteed"
        )
    values, coordinates = widen(values, coordinates)
    coordinates = _beside(values, coordinates=coordinates)
    return values, coordinates, jnp.sqrt(values.size * jnp.asarray(error).astype(values.dtype))


def _beside(values: jax.Array, **named: Any) -> jax.Array:
    ((name, array),) = named.items()
    if jnp.shape(array) != values.shape:
        raise ValueError(
            f"{name} must have one entry per eigenvalue, {values.shape}, got {jnp.shape(array)}"
        )
    _checks.finite(**named)
    return jnp.asarray(array).astype(values.dtype)


@functools.partial(jax.jit, static_argnames="rounds")
def _rounds(values: jax.Array, coordinates: jax.Array, radius: jax.Array, rounds: int) -> Rounds:
    def step(kept, _):
        inside = kept * coordinates
        size = jnp.sqrt(jnp.sum(jnp.square(inside)))
        alive = size > radius
        gap = jnp.where(alive, size - radius, 1)
        low, high = (jnp.log(d * radius / gap) for d in (jnp.min(values), jnp.max(values)))

        # In the logarithm, as the bounds are a condition number apart.
        def halve(_, ends):
            middle = (ends[0] + ends[1]) / 2
            left = jnp.exp(middle) / (jnp.exp(middle) + values) * inside
            short = jnp.sum(jnp.square(left)) < jnp.square(radius)
            return jnp.where(short, middle, ends[0]), jnp.where(short, ends[1], middle)

        halvings = jnp.finfo(values.dtype).nmant + 8
        multiplier = jnp.exp(sum(jax.lax.fori_loop(0, halvings, halve, (low, high))) / 2)
        kept = jnp.where(alive, kept * values / (values + multiplier), 0)
        norm = jnp.sqrt(jnp.sum(jnp.square(kept * coordinates)))
        return kept, Rounds(jnp.where(alive, multiplier, jnp.inf), kept, norm)

    return jax.lax.scan(step, jnp.ones_like(values), length=rounds)[1]


@jax.jit
def _effective_logits(
    teacher: jax.Array, labels: jax.Array, weight: jax.Array, heat: jax.Array
) -> jax.Array:
    def slope(z):
        # Above zero all is told by the small probabilities of the other side.
        def side(sign, target):
            soft = jax.nn.sigmoid(sign * z / heat) - jax.nn.sigmoid(sign * teacher / heat)
            hard = jax.nn.sigmoid(sign * z) - target
            return sign * ((1 - weight) / heat * soft + weight * hard)

        return jnp.where(z > 0, side(-1.0, 1 - labels), side(1.0, labels))

    # Beyond these the teacher's part outweighs whatever the labels say.
    pull = jnp.log(2.0) + jax.nn.relu(jnp.log(ratio(weight * heat, 1 - weight) + 1e-30))
    high = jnp.maximum(heat, 1) * (pull + jax.nn.softplus(teacher / heat))
    low = -jnp.maximum(heat, 1) * (pull + jax.nn.softplus(-teacher / heat))
    low, high = (jax.lax.stop_gradient(end) for end in (low, high))

    def halve(_, ends):
        middle = (ends[0] + ends[1]) / 2
        beyond = slope(middle) > 0
        return jnp.where(beyond, ends[0], middle), jnp.where(beyond, middle, ends[1])

    halvings = jnp.finfo(teacher.dtype).nmant + 8
    ends = jax.lax.fori_loop(0, halvings, halve, (low, high))
    root = jax.lax.stop_gradient((ends[0] + ends[1]) / 2)
    # One step of Newton's polishes the root and carries the gradient of the implicit function.
    steepness = jax.lax.stop_gradient(jax.jvp(slope, (root,), (jnp.ones_like(root),))[1])
    return root - ratio(slope(root), steepness)
