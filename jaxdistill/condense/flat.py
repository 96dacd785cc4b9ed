"""A net whose parameters are one vector: what a trajectory is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxdistill.net import Forward, Net


class Flat(NamedTuple):
    """A net on vectors of parameters; made by :func:`flat`.

    Attributes:
        size: how many parameters there are, P.
        draw: ``key -> [P]``, a fresh start.
        apply: ``(vector [P], images, taps=()) -> Forward``, in training mode: batch statistics are
            those of the batch, and none are kept.
        unravel: ``vector -> params`` of the net.
        paths: the path of every parameter.
    """

    size: int
    draw: Callable[[jax.Array], jax.Array]
    apply: Callable[..., Forward]
    unravel: Callable[[jax.Array], Any]
    paths: tuple[str, ...]


def flat(net: Net, image_shape: Sequence[int]) -> Flat:
    """A net whose parameters are one vector, for images of a given shape.

    Args:
        net: the net.
        image_shape: (H, W, C).

    Example:
        >>> from jaxdistill.models import ConvNet
        >>> from jaxdistill.frameworks.linen import from_linen
        >>> net = flat(from_linen(ConvNet(width=4, depth=1, classes=3)), (8, 8, 1))
        >>> vector = net.draw(jax.random.key(0))
        >>> vector.shape, net.apply(vector, jnp.ones((2, 8, 8, 1))).out.shape
        ((243,), (2, 3))
    """
    example = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes, state_shapes = jax.eval_shape(net.init, key, example)
    names = tuple(jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(shapes))
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes))

    def zeros(tree, dtype=None):
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype or leaf.dtype), tree)

    def unravel(vector):
        # Parameters are of the vector's type: nothing of float64 is lost.
        return ravel_pytree(zeros(shapes, vector.dtype))[1](vector)

    def draw(key):
        params, _ = net.init(key, jnp.zeros(example.shape))
        return ravel_pytree(params)[0]

    def apply(vector, images, taps=()):
        # Running statistics are not read in training mode: any of the right shape will do.
        return net.apply(unravel(vector), zeros(state_shapes), images, taps=taps, train=True)

    return Flat(size, draw, apply, unravel, names)
