"""Squared errors: of regressions, and of classifiers that are fitted to one-hot labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.evaluation._batches import Evaluator, Prepare, Read, compiled, run, sweep
from jaxdistill.net import Net


def squared_error(
    net: Net,
    *,
    inputs: str = "image",
    label: str = "label",
    read: Read = "out",
    prepare: Prepare | None = None,
) -> Evaluator:
    """The mean over the records of the squared error, summed over the outputs.

    Args:
        net: whose outputs are ``[B, c]``.
        inputs: which entry of the batch it sees.
        label: which entry holds the targets: floating ``[B]`` or ``[B, c]``, or integers ``[B]``,
            classes that the outputs are to say one-hot.
        read: where its outputs are, as for :func:`~jaxdistill.evaluation.classification`.
        prepare: ``(batch, key) -> batch`` before it runs.

    Returns:
        An evaluator with ``squared_error``, and for classes ``accuracy``, that of the largest
        output.

    Raises:
        ValueError: when it runs, for outputs that do not fit the targets, or a set without records.

    Example:
        >>> from jaxdistill.net import from_function
        >>> identity = from_function(
        ...     lambda key, x: ({}, {}), lambda params, state, x, train, rng: (x, {}, state)
        ... )
        >>> batch = {"image": jnp.array([[1.0], [3.0]]), "label": jnp.array([0.0, 3.0])}
        >>> squared_error(identity)(({}, {}), {}, [batch])
        {'squared_error': 0.5}
    """

    def step(variables, batch):
        (out,) = run(net, variables, batch, inputs, read)
        labels, where = batch[label], batch["where"]
        classes = jnp.issubdtype(labels.dtype, jnp.integer)
        wanted = jax.nn.one_hot(labels, out.shape[-1]) if classes else labels
        wanted = wanted[:, None] if wanted.ndim == 1 else wanted
        if out.shape != wanted.shape:
            raise ValueError(f"outputs {out.shape} do not fit targets {wanted.shape}")
        out = out.astype(jnp.promote_types(out.dtype, jnp.float32))
        sums = {"squared_error": jnp.square(out - wanted).sum(-1)}
        if classes:
            sums["accuracy"] = out.argmax(-1) == labels
        return {"count": where.sum(), **{k: jnp.where(where, v, 0).sum() for k, v in sums.items()}}

    step = compiled(step, prepare)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        totals: dict[str, float] = {}
        for sums in sweep(step, result, data):
            for name, value in sums.items():
                totals[name] = totals.get(name, 0.0) + float(value)
        count = totals.pop("count")
        if not count:
            raise ValueError("there is nothing to evaluate: every record is padding")
        return {name: value / count for name, value in totals.items()}

    return evaluator
