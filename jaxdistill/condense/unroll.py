r"""Training on a synthetic set inside a loss: N steps of a student, and the gradient through them.

Two gradients have one name. ``exact`` is that of the loss: memory is one parameter vector a step
(two with momentum), as the steps are rematerialised. ``stopped`` takes the student of every step as
given: memory does not grow with N, but it is another gradient (that of the loss with the inner
iterates stopped).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.loops import scan

Loss = Callable[[jax.Array, Any, Any], jax.Array]


class Target(NamedTuple):
    """Where a student is to be, and after how many of its steps.

    Attributes:
        step: 1 to N.
        vector: ``[P]``.
        weight: of its share of the loss.
    """

    step: int
    vector: jax.Array
    weight: float = 1.0


class Inner(NamedTuple):
    """The training of a student on a synthetic set.

    Attributes:
        loss: ``(vector [P], synthetic, step's own arrays) -> scalar``; ``synthetic`` is any tree.
        each: what else each step needs, a tree of arrays ``[N, ...]``: which images, how they
            are augmented.
        momentum: of the student's SGD; the first step has none.
    """

    loss: Loss
    each: Any
    momentum: float = 0.0

    @property
    def steps(self) -> int:
        """N."""
        return jax.tree.leaves(self.each)[0].shape[0]


def matching_loss(
    inner: Inner, start: jax.Array, targets: Sequence[Target], synthetic: Any, rate: jax.Array
) -> jax.Array:
    r"""How far a student ends from an expert, relative to how far the expert went.

    .. math:: \sum_j w_j \frac{\|\theta_{n_j} - \theta^*_j\|^2}{\|\theta_0 - \theta^*_j\|^2}

    Args:
        inner: the training of the student.
        start: :math:`\theta_0`, ``[P]``.
        targets: at least one, by their steps in order.
        synthetic: what the student is trained on.
        rate: the learning rate, a scalar.

    Raises:
        ValueError: for targets out of order, or beyond the last step.
    """
    return _followed(inner, start, targets, synthetic, rate)[0]


def _followed(
    inner: Inner, start: jax.Array, targets: Sequence[Target], synthetic: Any, rate: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """:func:`matching_loss`, and how many of the steps led to a finite student."""
    _check(inner, targets)
    # Without momentum none is carried: each step would keep it.
    vector, momentum = start, jnp.zeros_like(start) if inner.momentum else None
    first, value, finite = 0, jnp.zeros((), start.dtype), []

    @jax.checkpoint
    def step(carry, each):
        vector, momentum = carry
        gradient = jax.grad(inner.loss)(vector, synthetic, each)
        if momentum is not None:
            gradient = momentum = inner.momentum * momentum + gradient
        vector = vector - rate * gradient
        return (vector, momentum), jnp.isfinite(vector).all()

    for target in targets:
        each = jax.tree.map(lambda x, a=first, b=target.step: x[a:b], inner.each)
        (vector, momentum), whole = scan(step, (vector, momentum), each)
        first = target.step
        value = value + target.weight * _relative(vector, start, target.vector)
        finite.append(whole)
    return value, _until_broken(jnp.concatenate(finite))


def matching_gradient(
    inner: Inner,
    start: jax.Array,
    targets: Sequence[Target],
    synthetic: Any,
    rate: jax.Array,
    *,
    stopped: bool = False,
) -> tuple[tuple[jax.Array, jax.Array], tuple[Any, jax.Array]]:
    r"""Value of :func:`matching_loss` and its gradients for ``(synthetic, rate)``.

    With ``stopped`` they are those of the loss in which the students :math:`\theta_i` inside the
    inner gradients are constants: with :math:`G = \sum_i w_i g_i`, where :math:`w_i` is what
    momentum makes of step i's gradient in all,

    .. math:: \frac{\partial L}{\partial x} = -\frac{2 a}{D} \sum_i w_i \frac{\partial}{\partial x}
        \langle \theta_N - \theta^*, g_i(\theta_i; x) \rangle, \qquad
        \frac{\partial L}{\partial a} = -\frac{2}{D} \langle \theta_N - \theta^*, G \rangle

    The students are run through twice and none is kept. For one step it equals the exact gradient.

    Args:
        inner: the training of the student.
        start: ``[P]``.
        targets: one alone, at the last step, if ``stopped``.
        synthetic: a tree of arrays.
        rate: the learning rate.
        stopped: which gradient.

    Returns:
        ``((value, finite), gradients)``: ``finite`` counts the steps before the first after which
        a number of the student is not finite, N where there is none.

    Raises:
        ValueError: for targets that do not fit.

    References:
        Cui et al., `Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory
        <https://arxiv.org/abs/2211.10586>`_, ICML 2023
    """
    if not stopped:

        def loss(synthetic, rate):
            return _followed(inner, start, targets, synthetic, rate)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(synthetic, rate)
    _check(inner, targets)
    if len(targets) != 1 or targets[0].step != inner.steps:
        raise ValueError(
            f"the stopped gradient has one target, after the last of its {inner.steps} steps; "
            f"these are after steps {[target.step for target in targets]}"
        )
    target = targets[0].vector
    none = jnp.zeros_like(start)
    left = jnp.arange(inner.steps, 0, -1).astype(start.dtype)
    mu = inner.momentum
    weights = (1 - mu**left) / (1 - mu)

    def gradient(vector, each):
        return jax.grad(inner.loss)(vector, synthetic, each)

    def forward(carry, part):
        vector, momentum, total = carry
        each, weight = part
        found = gradient(vector, each)
        momentum = mu * momentum + found
        vector = vector - rate * momentum
        return (vector, momentum, total + weight * found), jnp.isfinite(vector).all()

    (last, _, total), finite = scan(forward, (start, none, none), (inner.each, weights))
    scale = targets[0].weight / jnp.square(start - target).sum()
    error = last - target

    def backward(carry, part):
        vector, momentum, sums = carry
        each, weight = part

        found, pull = jax.vjp(lambda s: jax.grad(inner.loss)(vector, s, each), synthetic)
        (own,) = pull(-2 * scale * rate * weight * error)
        momentum = mu * momentum + found
        return (vector - rate * momentum, momentum, jax.tree.map(jnp.add, sums, own)), None

    zeros = jax.tree.map(jnp.zeros_like, synthetic)
    (_, _, slopes), _ = scan(backward, (start, none, zeros), (inner.each, weights))
    value = targets[0].weight * _relative(last, start, target)
    return (value, _until_broken(finite)), (slopes, -2 * scale * (error @ total))


def _relative(vector: jax.Array, start: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.square(vector - target).sum() / jnp.square(start - target).sum()


def _until_broken(finite: jax.Array) -> jax.Array:
    """How many are true before the first that is not; int32."""
    return jnp.cumprod(finite.astype(jnp.int32)).sum()


def _check(inner: Inner, targets: Sequence[Target]) -> None:
    steps = [target.step for target in targets]
    if not steps or steps != sorted(set(steps)) or steps[0] < 1 or steps[-1] > inner.steps:
        raise ValueError(f"targets must be after steps 1 to {inner.steps}, in order, got {steps}")
