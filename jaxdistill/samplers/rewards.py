"""Rewards of images that a sampler may follow by their gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxdistill.distiller import entry
from jaxdistill.net import Net
from jaxdistill.samplers.mixtures import Mixture

Reward = Callable[[Mapping[str, Any]], Callable[[jax.Array], jax.Array]]
"""A function of frozen variables to one of images ``[B, ...]`` to how much they please, ``[B]``."""


def near_mode(source: Mixture, mode: int, spread: float = 0.2) -> Reward:
    """A reward for points of a mode of a density: the probability that they are of it, were all
    modes round with one standard deviation. Points well within other modes are hardly moved.

    Args:
        source: the density.
        mode: which.
        spread: that deviation.
    """

    def pleased(x):
        flat = x.reshape(len(x), -1)
        means, weights = (part.astype(flat.dtype) for part in (source.means, source.weights))
        squares = ((flat[:, None] - means[None]) ** 2).sum(-1)
        logits = jnp.log(weights)[None] - squares / (2 * spread**2)
        return jax.nn.softmax(logits)[:, mode]

    return lambda frozen: pleased


def of_class(net: Net, name: str, label: int) -> Reward:
    """A reward for images of a class: the logarithm of its probability.

    Args:
        net: a classifier.
        name: under which its ``(params, state)`` are in the frozen variables.
        label: the class.

    Raises:
        ValueError: when it is asked, if they are not there.
    """

    def reward(frozen):
        variables = entry("net of a reward in the frozen variables", name, frozen)
        return lambda x: jax.nn.log_softmax(net.apply(*variables, x).out)[:, label]

    return reward


def refuse_flat(reward: Callable[[jax.Array], jax.Array], x: Any) -> None:
    """Refuses a reward that has no gradient. It is traced, not run.

    Args:
        reward: of images.
        x: images, or their shapes and types.

    Raises:
        ValueError: saying what is wrong.

    Example:
        >>> refuse_flat(lambda x: jnp.round(x).sum(-1), jnp.ones((2, 3)))
        Traceback (most recent call last):
        ValueError: the reward is not differentiable: no gradient comes from it to the images
    """
    out = jax.eval_shape(reward, x)
    if not jnp.issubdtype(out.dtype, jnp.floating) or out.shape != x.shape[:1]:
        raise ValueError(
            f"a reward is one number an image, {x.shape[:1]} in floating point, not {out.shape} in "
            f"{out.dtype}"
        )
    moved = jax.make_jaxpr(lambda x, along: jax.jvp(reward, (x,), (along,))[1])(x, x)
    reached = {moved.jaxpr.invars[1]}
    for step in moved.jaxpr.eqns:
        if any(not isinstance(each, core.Literal) and each in reached for each in step.invars):
            reached.update(step.outvars)
    last = moved.jaxpr.outvars[0]
    if isinstance(last, core.Literal) or last not in reached:
        raise ValueError(
            "the reward is not differentiable: no gradient comes from it to the images"
        )
