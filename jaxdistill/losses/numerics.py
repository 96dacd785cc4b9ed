"""What every loss does first and last: wide floats, checked shapes, finite roots and logarithms,
masked means."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxdistill.losses._labels import given_labels

HIGHEST = jax.lax.Precision.HIGHEST


def wide_dtype(*arrays: Any) -> jnp.dtype:
    """The dtype in which a loss of these arrays is computed: float32, or float64 where one of them
    has it."""
    with jax.numpy_dtype_promotion("standard"):
        kinds = [jnp.result_type(array) for array in arrays]
        floats = [kind for kind in kinds if jnp.issubdtype(kind, jnp.floating)]
        return functools.reduce(jnp.promote_types, floats, jnp.dtype("float32"))


def widen(*arrays: Any) -> tuple[jax.Array, ...]:
    """The arrays in one float dtype, at least float32; float64 stays float64, and integers become
    floats.

    Always returns a tuple: ``(x,) = widen(x)`` for one array.

    Raises:
        ValueError: if one of them is empty: nothing can be said about an empty batch.
    """
    if empty := [jnp.shape(array) for array in arrays if jnp.size(array) == 0]:
        raise ValueError(f"an empty batch: an array of shape {empty[0]} gives no loss")
    dtype = wide_dtype(*arrays)
    return tuple(jnp.asarray(array).astype(dtype) for array in arrays)


def same_shape(**named: jax.Array) -> None:
    """Raises a ValueError that names both shapes unless all arrays have one shape."""
    (first, array), *others = named.items()
    for name, other in others:
        if jnp.shape(other) != jnp.shape(array):
            raise ValueError(
                f"{first} and {name} must have one shape, got {first} {jnp.shape(array)} "
                f"and {name} {jnp.shape(other)}"
            )


def same_batch(**named: jax.Array) -> None:
    """Raises a ValueError that names both shapes unless all arrays have one leading size."""
    (first, array), *others = named.items()
    for name, other in others:
        if jnp.shape(other)[:1] != jnp.shape(array)[:1]:
            raise ValueError(
                f"{first} and {name} must have one leading size, got {first} {jnp.shape(array)} "
                f"and {name} {jnp.shape(other)}"
            )


def rank(minimum: int, **named: jax.Array) -> None:
    """Raises a ValueError unless every array has at least ``minimum`` axes."""
    for name, array in named.items():
        if jnp.ndim(array) < minimum:
            raise ValueError(f"{name} needs at least {minimum} axes, got shape {jnp.shape(array)}")


def check_labels(labels: jax.Array, scores: jax.Array) -> None:
    """Raises a ValueError unless integer labels have the shape of the scores without the last
    axis."""
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise ValueError(f"labels must be integers, got {jnp.result_type(labels)}")
    if jnp.shape(labels) != jnp.shape(scores)[:-1]:
        raise ValueError(
            f"labels must have the shape of the scores without the class axis, got labels "
            f"{jnp.shape(labels)} and scores {jnp.shape(scores)} (classes last)"
        )
    given_labels(labels, jnp.shape(scores)[-1])


def labelled(labels: jax.Array, *scores: jax.Array) -> tuple[jax.Array, ...]:
    """Which labels are classes, the labels, and the scores; where a label is none, it is 0 and so
    are its scores, so that the row reaches neither value nor gradient.

    A loss then gives 0 there: ``jnp.where(known, value, 0)``.
    """
    check_labels(labels, scores[0])
    known = (labels >= 0) & (labels < scores[0].shape[-1])
    return known, jnp.where(known, labels, 0), *(clear(each, known) for each in scores)


def pair(student: jax.Array, teacher: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Student and teacher scores of one shape, wide, classes last."""
    rank(1, student=student, teacher=teacher)
    same_shape(student=student, teacher=teacher)
    s, t = last(axis, *widen(student, teacher))
    return s, t


def last(axis: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The arrays with ``axis`` moved to the end."""
    return tuple(jnp.moveaxis(array, axis, -1) for array in arrays)


def beside(value: Any, array: jax.Array) -> jax.Array:
    """A hyper-parameter in the dtype of an array, ready to be multiplied with it.

    A scalar stays a scalar; an array of the leading axes of ``array`` (one value per example) gets
    the axes that it lacks.
    """
    value = jnp.asarray(value).astype(array.dtype)
    if value.ndim == 0:
        return value
    if value.shape != array.shape[: value.ndim]:
        raise ValueError(
            "a hyper-parameter with one value per example must lead the shape "
            f"{array.shape}, got {value.shape}"
        )
    return value.reshape(value.shape + (1,) * (array.ndim - value.ndim))


def log_softmax(scores: jax.Array, temperature: Any = 1.0) -> jax.Array:
    """``log softmax(scores / temperature)`` over the last axis; ``-inf`` is a class without mass.

    A row of ``-inf`` alone has no mass anywhere: it stays as it is, with finite gradients, and
    :func:`unless_empty` says so of the value.
    """
    scores = scores / beside(temperature, scores)
    largest = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    empty = jnp.isneginf(largest)
    shifted = scores - jnp.where(empty, 0, largest)
    total = jnp.sum(jnp.exp(shifted), axis=-1, keepdims=True)
    return shifted - jnp.log(jnp.where(empty, 1, total))


def softmax(scores: jax.Array, temperature: Any = 1.0) -> jax.Array:
    """``softmax(scores / temperature)`` over the last axis; NaN where every class is ruled out."""
    log_p = log_softmax(scores, temperature)
    return unless_empty(jnp.exp(log_p), log_p[..., None, :])


def unless_empty(values: jax.Array, *log_p: jax.Array) -> jax.Array:
    """The values, NaN with zero gradient where one of the distributions rules every class out: it
    is none, so there is nothing to compare."""
    for each in log_p:
        values = jnp.where(jnp.all(jnp.isneginf(each), axis=-1), jnp.nan, values)
    return values


def softened(values: jax.Array, temperature: Any, *log_p: jax.Array) -> jax.Array:
    """Divergences of softened distributions, times the square of the temperature; see
    :func:`unless_empty`."""
    return unless_empty(beside(temperature, values) ** 2 * values, *log_p)


def unless_odd(values: jax.Array, *inputs: jax.Array) -> jax.Array:
    """The values, NaN where one of the inputs (of their shape) is not finite: for losses that only
    compare them, since a comparison with NaN is as good as any other."""
    for each in inputs:
        values = jnp.where(jnp.isfinite(each), values, jnp.nan)
    return values


def odd_scores(scores: jax.Array) -> jax.Array:
    """Whether any score of a row is NaN or plus infinity, for losses that read some classes
    only."""
    return jnp.any(jnp.isnan(scores) | jnp.isposinf(scores), axis=-1)


def is_class(labels: jax.Array, scores: jax.Array) -> jax.Array:
    """True at the label of every example, in the shape of the scores (classes last); never
    materialised by XLA."""
    return (
        jax.lax.broadcasted_iota(labels.dtype, scores.shape, scores.ndim - 1) == labels[..., None]
    )


def pick(values: jax.Array, labels: jax.Array) -> jax.Array:
    """``values[..., labels]``, by comparison and sum, which shards over classes and over any
    mesh."""
    return jnp.sum(jnp.where(is_class(labels, values), values, 0), axis=-1)


def kl(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """``sum p (log p - log q)`` over the last axis.

    A class with ``log_p = -inf`` adds nothing, and its gradient is zero, whatever ``log_q`` is
    there; a class with mass in ``p`` and ``log_q = -inf`` makes the value infinite.
    """
    absent = jnp.isneginf(log_p)
    gap = jnp.where(absent, 0, log_p) - jnp.where(absent, 0, log_q)
    return jnp.sum(jnp.exp(log_p) * gap, axis=-1)


def log_mixture(log_p: jax.Array, log_q: jax.Array, share: Any) -> jax.Array:
    """``log(share p + (1 - share) q)`` along the last axis, finite wherever one of the two is."""
    share = beside(share, log_p)
    one, other = jnp.log(share) + log_p, jnp.log1p(-share) + log_q
    largest = jax.lax.stop_gradient(jnp.maximum(one, other))
    empty = jnp.isneginf(largest)
    largest = jnp.where(empty, 0, largest)
    total = jnp.exp(one - largest) + jnp.exp(other - largest)
    return jnp.where(empty, -jnp.inf, jnp.log(jnp.where(empty, 1, total)) + largest)


def jsd(log_p: jax.Array, log_q: jax.Array, beta: Any) -> jax.Array:
    """``beta KL(p || m) + (1 - beta) KL(q || m)`` with ``m = beta p + (1 - beta) q``."""
    beta = beside(beta, log_p[..., 0])
    log_m = log_mixture(log_p, log_q, beta)
    return beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)


def entropy(log_p: jax.Array) -> jax.Array:
    """``-sum p log p`` over the last axis, where classes without mass add nothing."""
    return -jnp.sum(jnp.exp(log_p) * jnp.where(jnp.isneginf(log_p), 0, log_p), axis=-1)


def log1mexp(log_p: jax.Array) -> jax.Array:
    """``log(1 - exp(log_p))`` for ``log_p <= 0``, exact at both ends; ``-inf`` (gradient zero) at
    ``log_p = 0``."""
    near = log_p > -0.6931472
    one = log_p >= 0
    safe = jnp.where(one, -1, log_p)
    value = jnp.where(
        near,
        jnp.log(-jnp.expm1(jnp.where(near, safe, -0.5))),
        jnp.log1p(-jnp.exp(jnp.where(near, -1, safe))),
    )
    return jnp.where(one, -jnp.inf, value)


def clear(array: jax.Array, where: jax.Array | None) -> jax.Array:
    """Zeros in the rows that do not count, so that garbage there reaches neither value nor
    gradient."""
    return array if where is None else jnp.where(_aligned(where, array), array, 0)


def count(where: jax.Array | None, array: jax.Array) -> jax.Array:
    """How many leading rows count, in the dtype of the array."""
    if where is None:
        return jnp.asarray(array.shape[0], array.dtype)
    return jnp.sum(where.astype(array.dtype))


def masked_sum(values: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """The sum of what counts; ``where`` leads the shape of the values."""
    return jnp.sum(clear(values, where))


def masked_mean(values: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """The mean of what counts, zero with zero gradient where nothing does."""
    if where is None:
        return jnp.mean(values) if values.size else jnp.zeros((), values.dtype)
    number = jnp.sum(jnp.broadcast_to(_aligned(where, values), values.shape).astype(values.dtype))
    return ratio(masked_sum(values, where), number)


def ratio(total: jax.Array, number: jax.Array) -> jax.Array:
    """``total / number``, zero with zero gradient where ``number`` is zero."""
    none = number == 0
    return jnp.where(none, 0, total / jnp.where(none, 1, number))


def safe_sqrt(x: jax.Array) -> jax.Array:
    """The square root with gradient zero (not infinity) at zero."""
    none = x <= 0  # not of NaN, which stays what it is
    return jnp.where(none, 0, jnp.sqrt(jnp.where(none, 1, x)))


def kinked_gap(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """``student - teacher``, zero with zero gradient where the two differ by rounding alone.

    For losses with a kink at equality: there the sign of a rounding error would be the gradient.
    """
    gap = student - teacher
    size = jax.lax.stop_gradient(jnp.maximum(jnp.abs(student), jnp.abs(teacher)))
    rounding = 16 * jnp.finfo(gap.dtype).eps * size
    return jnp.where((jnp.abs(gap) <= rounding) & jnp.isfinite(rounding), 0, gap)


def safe_norm(x: jax.Array, axis: int | tuple[int, ...] = -1, keepdims: bool = False) -> jax.Array:
    """The Euclidean norm, with gradient zero at zero and no overflow where the norm itself has
    none."""
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(x)), axis=axis, keepdims=True)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    root = safe_sqrt(jnp.sum(jnp.square(x / scale), axis=axis, keepdims=True)) * scale
    return root if keepdims else jnp.squeeze(root, axis)


def l2_normalise(
    x: jax.Array, axis: int | tuple[int, ...] = -1, epsilon: float = 1e-12
) -> jax.Array:
    """``x / max(norm, epsilon)``; a zero row stays zero, and its gradient is zero."""
    norm = safe_norm(x, axis, keepdims=True)
    short = norm <= epsilon
    return jnp.where(short, 0, x / jnp.where(short, 1, norm))


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """``a @ b`` at the highest precision: TPUs and TF32 units are silently coarse otherwise."""
    return jnp.matmul(a, b, precision=HIGHEST)


def einsum(subscripts: str, *arrays: jax.Array) -> jax.Array:
    """``jnp.einsum`` at the highest precision."""
    return jnp.einsum(subscripts, *arrays, precision=HIGHEST)


def gram(x: jax.Array) -> jax.Array:
    """``x @ x.T`` over the last two axes at the highest precision."""
    return matmul(x, jnp.swapaxes(x, -1, -2))


def on_any_mesh(loss: Callable, *, dropped: int | None = None) -> Callable:
    """Lets a loss run under an Explicit mesh as it does under an Auto mesh or none.

    Sharding is then automatic inside. The result of a batch-coupled loss is replicated, so that its
    value always means the global batch; that of a loss per token is sharded as its first argument
    without the last ``dropped`` axes.
    """

    @functools.wraps(loss)
    def wrapped(*args, **kwargs):
        if AxisType.Explicit not in jax.sharding.get_abstract_mesh().axis_types:
            return loss(*args, **kwargs)
        leaves, tree = jax.tree.flatten((args, kwargs))
        arrays = [isinstance(leaf, jax.Array) for leaf in leaves]

        def rebuilt(*given):
            given = iter(given)
            both = [
                next(given) if is_array else leaf
                for leaf, is_array in zip(leaves, arrays, strict=True)
            ]
            positional, named = jax.tree.unflatten(tree, both)
            return loss(*positional, **named)

        given = [leaf for leaf, is_array in zip(leaves, arrays, strict=True) if is_array]
        if dropped is None:
            spec = P()
        else:
            first = jax.typeof(given[0])
            spec = P(*(tuple(first.sharding.spec) + (None,) * first.ndim)[: first.ndim - dropped])
        return jax.sharding.auto_axes(rebuilt, out_sharding=spec)(*given)

    return wrapped


def _aligned(where: jax.Array, array: jax.Array) -> jax.Array:
    if where.shape != array.shape[: where.ndim]:
        raise ValueError(f"where {where.shape} does not lead the shape {array.shape}")
    return where.astype(bool).reshape(where.shape + (1,) * (array.ndim - where.ndim))
