"""Derivatives along a direction, and what to say of nets that have none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

# What JAX puts in the place of a derivative that it will not find in forward mode: it says so when
# the program is made, long after it was traced.
_ABSENT = "custom_lin"


def along(
    function: Callable[..., jax.Array], points: Sequence[Any], directions: Sequence[Any]
) -> tuple[jax.Array, jax.Array]:
    """What a function says at a point, and its derivative along a direction.

    Raises:
        ValueError: when it is traced, for a function with a part that has no forward-mode
            derivative, such as attention by a kernel of its own.

    Example:
        >>> import jax.numpy as jnp
        >>> value, slope = along(lambda x: x**2, (jnp.array(3.0),), (jnp.array(1.0),))
        >>> float(value), float(slope)
        (9.0, 6.0)
    """

    def both(points: Any, directions: Any) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(function, points, directions)

    given = tuple(points), tuple(directions)
    if _lacks(jax.make_jaxpr(both)(*given).jaxpr):
        raise ValueError(
            "the net has a part whose derivative is known in reverse mode alone (jax.custom_vjp), "
            "and it is differentiated in forward mode: take attention without a kernel of its own, "
            "such as jax.nn.dot_product_attention(..., implementation='xla')"
        )
    return both(*given)


def _lacks(jaxpr: Any) -> bool:
    """Whether a program, or one within it, holds what has no derivative."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == _ABSENT:
            return True
        for part in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns") and _lacks(inner):
                return True
    return False
