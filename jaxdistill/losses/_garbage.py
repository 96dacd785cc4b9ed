"""The checks that garbage shows where it counts, and reaches nothing where it does not."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.losses._contract import Bench, value
from jaxdistill.losses._entry import BATCH
from jaxdistill.losses._hard_inputs import (
    carriers,
    cast,
    examples,
    is_float,
    on_examples,
    replace,
)
from jaxdistill.losses._labels import watched_labels
from jaxdistill.losses.masking import harmless


def check_not_finite(ready: Bench) -> None:
    """One NaN, or one infinity, in an example that counts gives a value that is not finite; the
    examples beside it are what they were."""
    whole, _ = ready.run(ready.args)
    for bad in (np.nan, np.inf):
        for place, args in _spoilt(ready, bad):
            out = np.asarray(ready.run(args)[0])
            assert not np.all(np.isfinite(out)), f"{bad} at {place} gives {out}"
            if ready.entry.kind != BATCH:
                others = np.isfinite(out).reshape(len(out), -1).all(axis=1)
                np.testing.assert_allclose(out[others], whole[others], rtol=1e-5, atol=1e-6)


def check_masked(ready: Bench) -> None:
    """What is masked reaches neither value nor gradient, whatever it is, in wide and in narrow
    floats. A loss per example is told by :func:`jaxdistill.losses.masked`."""
    entry = ready.entry
    size = examples(entry, ready.args)
    where = np.arange(size) < size - 1
    told = np.repeat(where, entry.group) if entry.kind == BATCH else None
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        args = cast(ready.args, dtype)
        outcomes = []
        for junk in (0, np.nan, -np.inf, 1e30):
            given = _last(ready, args, junk)
            if entry.kind != BATCH:
                rows = carriers(entry, args)
                given = tuple(
                    harmless(x, jnp.asarray(where)) if i in rows else x for i, x in enumerate(given)
                )
            outcomes.append(jax.tree.map(_wide, ready.run(given, told)))
        for out, gradients in outcomes:
            for ours, zeros in zip(
                jax.tree.leaves((out, gradients)), jax.tree.leaves(outcomes[0]), strict=True
            ):
                assert np.all(np.isfinite(ours)), f"not finite: {ours}"
                np.testing.assert_array_equal(ours, zeros)
            if entry.kind == BATCH:
                _nothing_last(ready, gradients)


def check_labels(ready: Bench) -> None:
    """A label that is no class gives 0, value and gradient, whatever its row holds; to a loss of
    the batch the example does not count. A run can tell of how many classes labels are."""
    entry = ready.entry
    parameters = [*inspect.signature(entry.loss).parameters]
    if "labels" not in parameters or parameters.index("labels") >= len(ready.args):
        return
    place = parameters.index("labels")
    labels = ready.args[place]
    with watched_labels() as watched:
        value(entry, ready.args, ready.kwargs)
    assert any(seen is labels for seen, _ in watched.given), "its labels are not watched"
    plain, _ = ready.run(ready.args)
    for label in (-100, -1, 10**6):
        args = replace(ready.args, (place,), (labels.at[-1].set(label),))
        for junk in (None, np.nan):
            given = args if junk is None else _last(ready, args, junk)
            out, gradients = jax.tree.map(np.asarray, ready.run(given))
            if entry.kind == BATCH:
                size = examples(entry, args)
                where = np.repeat(np.arange(size) < size - 1, entry.group)
                np.testing.assert_allclose(out, ready.run(ready.args, where)[0], rtol=1e-5)
            else:
                assert np.all(out[-1] == 0), f"label {label} gives {out[-1]}"
                np.testing.assert_allclose(out[:-1], plain[:-1], rtol=1e-5)
            _nothing_last(ready, gradients)


def check_empty(ready: Bench) -> None:
    """An empty batch is a ValueError that says so."""
    none = on_examples(ready.entry, ready.args, lambda x: x[:0])
    message = None
    try:
        jax.eval_shape(lambda: value(ready.entry, none, ready.kwargs))
    except ValueError as fault:
        message = str(fault)
    assert message is not None, "an empty batch is not refused"
    assert "empty" in message, f"an empty batch is refused by {message!r}"


CHECKS = (check_not_finite, check_masked, check_labels, check_empty)


def _spoilt(ready: Bench, bad: float) -> Iterator[tuple[Any, tuple]]:
    """The sample with one bad number at the start or the end of one array, one after another."""
    for position in carriers(ready.entry, ready.args):
        leaves, tree = jax.tree.flatten(ready.args[position])
        for number, leaf in enumerate(leaves):
            if not is_float(leaf):
                continue
            for at in (0, leaf.size - 1):
                flat = np.array(leaf).reshape(-1)
                flat[at] = bad
                spoilt = jnp.asarray(flat.reshape(leaf.shape))
                given = tree.unflatten([*leaves[:number], spoilt, *leaves[number + 1 :]])
                yield (position, number, at), replace(ready.args, (position,), (given,))


def _last(ready: Bench, args: tuple, junk: float) -> tuple:
    """The arguments with junk in the last example."""

    def change(x):
        if not is_float(x):
            return x
        filling = jnp.asarray(junk, jnp.float32).astype(x.dtype)
        return jnp.concatenate([x[:-1], jnp.full_like(x[-1:], filling)])

    return on_examples(ready.entry, args, change)


def _nothing_last(ready: Bench, gradients: tuple) -> None:
    size, rows = examples(ready.entry, ready.args), carriers(ready.entry, ready.args)
    for position, gradient in zip(ready.entry.student, gradients, strict=True):
        for leaf in jax.tree.leaves(gradient):
            assert np.all(np.isfinite(leaf)), f"gradient {leaf}"
            if position in rows:
                last = np.asarray(leaf).reshape(size, -1)[-1]
                assert np.all(last == 0), f"gradient {last} on what does not count"


def _wide(x: jax.Array) -> np.ndarray:
    return np.asarray(x, np.float32)
