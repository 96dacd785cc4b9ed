"""Optimizers by path: what decays, what learns faster or slower, what stays as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdistill.settings import NonNegative, Positive, Scheduled
from jaxdistill.training.sharding import path_name

NO_DECAY = r"(bias|scale|cls_token|mask_token|position\w*)$"
"""Biases, norms and single tokens are not decayed, as is common for ViTs and ResNets alike."""


def by_path(
    scale_by: optax.GradientTransformation,
    *,
    learning_rate: Scheduled[NonNegative],
    weight_decay: NonNegative = 0.0,
    no_decay: str = NO_DECAY,
    clip: Positive | None = None,
    max_norm: Positive | None = None,
    rates: Sequence[tuple[str, NonNegative]] = (),
    frozen: Sequence[str] = (),
) -> optax.GradientTransformation:
    """An optimizer with decoupled weight decay and learning rates by the path of a parameter.

    Args:
        scale_by: turns gradients into directions: ``optax.scale_by_adam()``, ``optax.trace(0.9)``.
        learning_rate: a number or an optax schedule.
        weight_decay: added as ``weight_decay * parameter`` before the learning rate.
        no_decay: a regular expression; parameters whose path it is found in do not decay.
        clip: the largest global norm of a gradient.
        max_norm: the largest L2 norm of the weights into one unit: after every step the columns of
            a kernel, over all axes but its last, are scaled back to it (Srivastava et al., Dropout,
            JMLR 2014). Arrays of one axis have none.
        rates: pairs of a regular expression and a factor on the learning rate; the first match
            counts.
        frozen: regular expressions of parameters that do not move.

    Paths begin with ``net/`` for the student and with ``objective/`` for what belongs to the loss.

    Raises:
        ValueError: for a pattern that is no regular expression; at ``init``, for one that no
            parameter matches (that of ``no_decay`` may).

    Example:
        >>> tx = by_path(optax.scale_by_adam(), learning_rate=0.1, frozen=["net/head"])
        >>> params = {"net": {"head": {"kernel": jax.numpy.ones(2)}, "body": jax.numpy.ones(2)}}
        >>> grads = jax.tree.map(jax.numpy.ones_like, params)
        >>> updates, _ = tx.update(grads, tx.init(params), params)
        >>> updates["net"]["head"]["kernel"].tolist(), updates["net"]["body"].round(3).tolist()
        ([0.0, 0.0], [-0.1..., -0.1...])
    """
    own = {"no_decay": [no_decay], "rates": [each for each, _ in rates], "frozen": frozen}
    for key, patterns in own.items():
        for pattern in patterns:
            _refuse_no_expression(key, pattern)
    parts = [] if clip is None else [optax.clip_by_global_norm(clip)]
    parts.append(scale_by)
    if weight_decay:
        parts.append(
            optax.add_decayed_weights(
                weight_decay, lambda tree: _map_names(tree, lambda n: not re.search(no_decay, n))
            )
        )
    parts.append(optax.scale_by_learning_rate(learning_rate))
    if rates:
        parts.append(_scale_by_path(rates))
    if max_norm is not None:
        parts.append(_bounded_columns(max_norm))
    tx = optax.chain(*parts)
    if frozen:
        # Partitioned rather than zeroed: frozen parameters take no moments and no memory.
        def label(tree):
            return _map_names(
                tree, lambda n: "frozen" if any(re.search(p, n) for p in frozen) else "trained"
            )

        tx = optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, label)
    return _checked(tx, [pattern for pattern, _ in rates] + list(frozen))


def _refuse_no_expression(key: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as fault:
        raise ValueError(
            f"{key} has {pattern!r}, which is no regular expression: {fault}; "
            r"a parameter's path is e.g. 'net/head/kernel', and a literal character is written \."
        ) from fault


def _scale_by_path(rates: Sequence[tuple[str, float]]) -> optax.GradientTransformation:
    def factor(name: str) -> float:
        return next((rate for pattern, rate in rates if re.search(pattern, name)), 1.0)

    def update(updates, state, params=None):
        del params
        factors = _map_names(updates, factor)
        return jax.tree.map(lambda u, f: u * f, updates, factors), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _bounded_columns(most: float) -> optax.GradientTransformation:
    """Shortens an update so that no column of a kernel is longer than ``most`` after it."""

    def bounded(update, kernel):
        if kernel.ndim < 2:
            return update
        moved = kernel + update
        norm = jnp.linalg.norm(moved, axis=tuple(range(kernel.ndim - 1)), keepdims=True)
        return moved * jnp.minimum(1.0, most / jnp.maximum(norm, most)) - kernel

    def update(updates, state, params=None):
        return jax.tree.map(bounded, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _checked(
    tx: optax.GradientTransformation, patterns: Sequence[str]
) -> optax.GradientTransformation:
    def init(params):
        names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        for pattern in patterns:
            if not any(re.search(pattern, name) for name in names):
                raise ValueError(
                    f"no parameter's path matches {pattern!r}; there are, e.g., {names[:5]}"
                )
        return tx.init(params)

    return optax.GradientTransformation(init, tx.update)


def _map_names(tree: Any, fn: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: fn(path_name(path)), tree)
