"""Gradients of an objective's terms: of a batch at once, or of its microbatches one by one.

Both read the parameters, the moving state and the number of the step from the state of a run, and
``terms(params, moving, targets, batch, rng) -> ({name: Term}, moving)``. They return the gradient,
the metrics, each a pair (sum, count), and the state that moved.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.loops import scan
from jaxdistill.losses._labels import labels_of
from jaxdistill.objective import Term, at, mean, refuse_others, weighted


class Whole(NamedTuple):
    """A target that has no examples, such as a teacher's head: microbatches are given all of it."""

    value: Any


def accumulated(parts: int) -> Callable[..., tuple]:
    """How a gradient is computed in so many parts, :func:`of_batch` where it is one.

    Raises:
        ValueError: for no part.
    """
    if parts < 1:
        raise ValueError(f"accumulate must be 1 or more microbatches, got {parts}")
    return of_batch if parts == 1 else functools.partial(of_microbatches, parts=parts)


def of_batch(terms: Callable, state: Any, goal: Any, batch: Any, rng: jax.Array) -> tuple:
    """The gradient of a batch at once."""

    def loss(params):
        found, moving = terms(params, state.state, goal, batch, rng)
        value, metrics = weighted(found, state.step)
        return value, (metrics, moving)

    (_, (metrics, moving)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    return grads, metrics, moving


def of_microbatches(
    terms: Callable, state: Any, goal: Any, batch: Any, rng: jax.Array, *, parts: int
) -> tuple:
    """The gradient of the same batch, part by part: sums and counts are added over all parts before
    anything is divided.

    Raises:
        ValueError: for a batch that cannot be cut evenly, and for terms that couple its examples.
    """
    cut, whole = _microbatches((goal, batch), parts)

    def terms_of(params, moving, part):
        own, index = part
        goal, batch = whole(own)
        labels_of(batch)
        found, moving = terms(params, moving, goal, batch, jax.random.fold_in(rng, index))
        _refuse_coupled(found)
        return found, moving

    def add(carry, part):
        grads, moving = carry

        def loss(params):
            found, new = terms_of(params, moving, part)
            totals = {name: jnp.asarray(term.total) for name, term in found.items()}
            shares = [
                at(term.weight, state.step) * mean(totals[name], counts[name])
                for name, term in found.items()
            ]
            return sum(shares), (totals, new)

        (value, (totals, moving)), new = jax.value_and_grad(loss, has_aux=True)(state.params)
        return (jax.tree.map(jnp.add, grads, new), moving), (value, totals)

    micro = (cut, jnp.arange(parts))
    counts = _counts(terms_of, state, micro)
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    (grads, moving), (values, totals) = scan(add, (zeros, state.state), micro)
    metrics = {name: (total.sum(0), counts[name]) for name, total in totals.items()}
    return grads, {"loss": (values.sum(), jnp.ones(())), **metrics}, moving


def _counts(terms_of: Callable, state: Any, micro: Any) -> dict[str, jax.Array]:
    """What the sums are divided by, which must be known before the gradient.

    Of this pass only what the counts need is compiled: nothing of the nets, unless a count itself
    depends on them.
    """

    def count(moving, part):
        found, moving = terms_of(state.params, moving, part)
        return moving, {name: jnp.asarray(t.count, jnp.float32) for name, t in found.items()}

    _, counts = scan(count, state.state, micro)
    return jax.lax.stop_gradient(jax.tree.map(lambda each: each.sum(0), counts))


def _microbatches(tree: Any, parts: int) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The arrays of a tree cut into parts, and how one part of each makes the tree again.

    Every part takes rows from all over the batch, so that a batch sharded over devices stays so.
    """
    leaves, structure = jax.tree.flatten(tree, is_leaf=_is_whole)

    def cut(x: Any) -> Any:
        if _is_whole(x):
            return None
        if x.ndim == 0 or x.shape[0] % parts:
            raise ValueError(f"cannot cut an array of shape {x.shape} into {parts} microbatches")
        return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    def whole(own: list[Any]) -> Any:
        pairs = zip(leaves, own, strict=True)
        return structure.unflatten([x if _is_whole(x) else mine for x, mine in pairs])

    return [cut(x) for x in leaves], whole


def _is_whole(x: Any) -> bool:
    return isinstance(x, Whole)


def _refuse_coupled(terms: dict[str, Term]) -> None:
    refuse_others(terms)
    coupled = [name for name, term in terms.items() if term.coupled]
    if coupled:
        raise ValueError(
            f"terms {coupled} couple the examples of a batch: they are not the sum of their "
            "microbatches, so they refuse accumulate > 1; take a larger batch, or drop them"
        )
