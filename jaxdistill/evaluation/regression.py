"""Squared errors: of regressions, and of classifiers that are fitted to one-hot labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.evaluation.batches import Evaluator, Prepare, Read, compiled, run, summed, sweep
from jaxdistill.evaluation.loyalty import regression_loyalty
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.net import Net


def as_targets(labels: jax.Array, outputs: int) -> jax.Array:
    """Labels as what outputs are fitted to, ``[B, c]``: classes, integers, one-hot.

    Args:
        labels: integers ``[B]``, or floating ``[B]`` or ``[B, c]``.
        outputs: how many classes there are.

    Example:
        >>> as_targets(jnp.array([1, 0]), 2).tolist(), as_targets(jnp.array([0.5]), 1).tolist()
        ([[0.0, 1.0], [1.0, 0.0]], [[0.5]])
    """
    if jnp.issubdtype(labels.dtype, jnp.integer):
        return jax.nn.one_hot(labels, outputs)
    return labels if labels.ndim == 2 else labels[:, None]


def squared_error(
    net: Net,
    classes: int | None = None,
    prepare: Prepare | None = None,
    inputs: str = "image",
    *,
    label: str = "label",
    read: Read = "out",
) -> Evaluator:
    """The mean over the records of the squared error, summed over the outputs.

    Args:
        net: whose outputs are ``[B, c]``.
        classes: how many classes the labels are; None where they are no classes.
        prepare: ``(batch, key) -> batch`` before it runs.
        inputs: which entry of the batch it sees.
        label: which entry holds the targets: floating ``[B]`` or ``[B, c]``, or integers ``[B]``,
            classes that the outputs are to say one-hot.
        read: where its outputs are, as for :func:`~jaxdistill.evaluation.classification`.

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
        (out,) = run(net.apply, variables, batch, inputs, read)
        labels, where = batch[label], batch["where"]
        if classes is not None and not jnp.issubdtype(labels.dtype, jnp.integer):
            raise ValueError(f"labels of {classes} classes must be integers, got {labels.dtype}")
        wanted = as_targets(labels, out.shape[-1])
        if out.shape != wanted.shape:
            raise ValueError(f"outputs {out.shape} do not fit targets {wanted.shape}")
        out = out.astype(jnp.promote_types(out.dtype, jnp.float32))
        sums = {"squared_error": jnp.square(out - wanted).sum(-1)}
        if classes is not None:
            sums["accuracy"] = out.argmax(-1) == labels
        return {"count": where.sum(), **{k: jnp.where(where, v, 0).sum() for k, v in sums.items()}}

    step = compiled(step, prepare)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        totals = summed(sweep(step, result, data))
        count = totals.pop("count")
        return {name: float(value / count) for name, value in totals.items()}

    names = ("squared_error", "accuracy") if classes is not None else ("squared_error",)
    return measuring(names, evaluator, sweeps=True)


def correlation(
    net: Net,
    prepare: Prepare | None = None,
    inputs: str = "image",
    *,
    label: str = "label",
    read: Read = "out",
) -> Evaluator:
    """How outputs and targets of a regression go together over a set.

    Args:
        net: whose outputs are ``[B, 1]``.
        prepare: ``(batch, key) -> batch`` before it runs.
        inputs: which entry of the batch it sees.
        label: which entry holds the targets, floating ``[B]`` or ``[B, 1]``.
        read: where its outputs are, as for :func:`~jaxdistill.evaluation.classification`.

    Returns:
        An evaluator with the correlations ``pearson`` and, of ranks, ``spearman``; NaN where
        outputs or targets are all the same.

    Raises:
        ValueError: when it runs, for outputs that are not one a record, or a set without records.

    Example:
        >>> from jaxdistill.net import from_function
        >>> identity = from_function(
        ...     lambda key, x: ({}, {}), lambda params, state, x, train, rng: (x, {}, state)
        ... )
        >>> batch = {"image": jnp.array([[1.0], [3.0], [9.0]]), "label": jnp.array([0.0, 1.0, 2.0])}
        >>> round(correlation(identity)(({}, {}), {}, [batch])["spearman"], 6)
        1.0
    """

    def step(variables, batch):
        (out,) = run(net.apply, variables, batch, inputs, read)
        if out.ndim != 2 or out.shape[1] != 1:
            raise ValueError(f"a correlation is of one output a record, these are {out.shape}")
        return {"out": out[:, 0], "label": batch[label].reshape(-1), "where": batch["where"]}

    step = compiled(step, prepare)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        seen = list(sweep(step, result, data))
        out, wanted, where = (
            np.concatenate([b[k] for b in seen]) for k in ("out", "label", "where")
        )
        if not where.any():
            raise ValueError("there is nothing to evaluate: every record is padding")
        pair = out[where], wanted[where]
        return {
            "pearson": regression_loyalty(*pair),
            "spearman": regression_loyalty(*pair, kind="spearman"),
        }

    return measuring(("pearson", "spearman"), evaluator, sweeps=True)
