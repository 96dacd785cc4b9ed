"""The engine of the fused losses: a linear head and a loss on its logits, a few tokens at a time.

The gradient in the logits of a chunk is known in closed form, so it is taken while the chunk's
logits are there: the forward pass leaves the gradients of the sum, and the backward pass only
scales them. Nothing is computed twice, and no array of all tokens times all classes ever exists.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxdistill.losses import numerics as n
from jaxdistill.settings import Count


class Chunks(NamedTuple):
    """How a fused loss goes over its tokens: nothing here changes its value.

    Attributes:
        size: tokens at a time; memory is a few times ``size * V`` floats plus the head's gradient.
        token_axis: the axis (or axes) of the current mesh over which tokens are sharded.
        vocabulary_axis: the axis of the current mesh over which the columns of the heads are
            sharded.
        precision: of the products with the heads, as for :func:`jax.numpy.matmul`.
    """

    size: Count = 256
    token_axis: str | tuple[str, ...] | None = None
    vocabulary_axis: str | None = None
    precision: str | jax.lax.Precision | None = None


class Plan(NamedTuple):
    """What is fixed when a fused loss is traced.

    Attributes:
        token_loss: ``(plan, logits, side, constants, with_grad) -> (values [C], dlogits [C, V] or
            None)``, for the raw logits of a chunk in float32 or wider (after the soft cap).
        options: hashable options of the token loss.
        cap: soft cap of the student's logits, or None.
        classes: how many of the head's columns are classes; the others have no mass.
        chunks: how the tokens are gone over.
    """

    token_loss: Callable
    options: Any
    cap: float | None
    classes: int
    chunks: Chunks


class Side(NamedTuple):
    """A head and what goes into it; ``bias`` may be None."""

    hidden: jax.Array
    weight: jax.Array
    bias: jax.Array | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def head_sum(plan: Plan, student: Side, side: Any, constants: Any, weights: jax.Array) -> jax.Array:
    """``sum_i weights_i loss(student_i, side_i)``, differentiable once in the student and the
    weights.

    Args:
        plan: what is fixed.
        student: hidden states ``[N, H]``, a head ``[H, V]``, a bias ``[V]`` or None.
        side: a pytree of arrays ``[N, ...]`` that the token loss reads, chunked with the tokens.
        constants: a pytree that it reads whole. Leaves named with ``[.., V]`` last are sharded with
            the classes.
        weights: ``[N]``, float; rows of weight 0 may hold anything.
    """
    return _run(plan, False, student, side, constants, weights)[0]


def _forward(plan, student, side, constants, weights):
    once = jax.tree.map(_once, (student, weights))
    total, values, gradients = _run(plan, True, once[0], side, constants, once[1])
    return total, (values, gradients)


def _backward(plan, kept, cotangent):
    values, gradients = kept
    scaled = jax.tree.map(
        lambda g: (g.astype(cotangent.dtype) * cotangent).astype(g.dtype), gradients
    )
    return scaled, None, None, (values * cotangent).astype(values.dtype)


head_sum.defvjp(_forward, _backward)


@jax.custom_jvp
def _once(x):
    return x


@_once.defjvp
def _refuse(primals, tangents):
    raise NotImplementedError(
        "fused losses have no second derivative: their gradient is taken in the forward pass. Use "
        "the loss on logits (forward_kl, generalized_jsd, ...) where second derivatives are needed"
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(plan, with_grad, student, side, constants, weights):
    local = functools.partial(_local, plan, with_grad)
    arguments = (student, side, constants, weights)
    axes = (plan.chunks.token_axis, plan.chunks.vocabulary_axis)
    if axes == (None, None):
        if AxisType.Explicit in jax.sharding.get_abstract_mesh().axis_types:
            specs = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, (student, weights))
            out = (P(), specs[1], specs[0] if with_grad else None)
            automatic: Any = jax.sharding.auto_axes(local, out_sharding=out)
            return automatic(*arguments)
        return local(*arguments)
    tokens, classes = axes
    specs: Any = (P(tokens), P(None, classes), None if student.bias is None else P(classes))
    head = Side(*specs)
    # Of the constants, what ends in the classes is a head or a bias; scalars are on every device.
    whole = jax.tree.map(
        lambda x: P(*(None,) * (x.ndim - 1), classes) if x.ndim else P(), constants
    )
    rows = jax.tree.map(lambda x: P(tokens), side)
    return jax.shard_map(
        local,
        in_specs=(head, rows, whole, P(tokens)),
        out_specs=(P(), P(tokens), head if with_grad else None),
        check_vma=False,
    )(*arguments)


def _local(plan, with_grad, student, side, constants, weights):
    tokens, width = student.hidden.shape
    wide = n.wide_dtype(student.hidden, student.weight)
    chunk = min(plan.chunks.size, tokens)
    steps = -(-tokens // chunk)

    def chunked(x):
        if steps * chunk != tokens:
            x = jnp.pad(x, [(0, steps * chunk - tokens)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(steps, chunk, *x.shape[1:])

    zero = jnp.zeros((), wide)
    bias = None if student.bias is None else jnp.zeros(student.bias.shape, wide)
    start = (zero, jnp.zeros(student.weight.shape, wide), bias) if with_grad else (zero,)
    swept: Any = jax.lax.scan(
        functools.partial(_chunk, plan, with_grad, student, constants),
        start,
        (chunked(student.hidden), jax.tree.map(chunked, side), chunked(weights)),
    )
    carry, stacked = swept

    def over_tokens(x: Any) -> Any:
        axis = plan.chunks.token_axis
        return x if axis is None or x is None else jax.lax.psum(x, axis)

    total = over_tokens(carry[0])
    values = stacked[0].reshape(-1)[:tokens].astype(weights.dtype)
    if not with_grad:
        return total, values, None
    bias = None if student.bias is None else over_tokens(carry[2]).astype(student.bias.dtype)
    gradients = Side(
        stacked[1].reshape(-1, width)[:tokens],
        over_tokens(carry[1]).astype(student.weight.dtype),
        bias,
    )
    return total, values, gradients


def _chunk(plan, with_grad, student, constants, carry, inputs):
    """One step of the scan: the sum and the head's gradient so far; values, gradients in hidden
    states."""
    hidden, rows, weight = inputs
    wide = carry[0].dtype
    counts = weight != 0
    hidden = n.clear(hidden, counts)
    rows = jax.tree.map(lambda x: n.clear(x, counts), rows)
    how = {"precision": plan.chunks.precision, "preferred_element_type": wide}
    logits, slope = head_logits(
        hidden, student.weight, student.bias, plan.cap, plan.chunks.precision, with_grad
    )
    columns = column_indices(plan, logits.shape[-1])
    logits = jnp.where(columns < plan.classes, logits, -jnp.inf)
    values, gradient = plan.token_loss(plan, logits, rows, constants, with_grad)
    values = jnp.where(counts, values, 0)
    total = carry[0] + jnp.sum(values * weight.astype(wide))
    if not with_grad:
        return (total,), (values,)
    gradient = gradient * weight.astype(wide)[:, None]
    if slope is not None:
        gradient = gradient * slope
    narrow = gradient.astype(student.weight.dtype)
    to_hidden = jnp.matmul(narrow, student.weight.T, **how)
    if plan.chunks.vocabulary_axis is not None:
        to_hidden = jax.lax.psum(to_hidden, plan.chunks.vocabulary_axis)
    to_weight = carry[1] + jnp.matmul(hidden.T, narrow, **how)
    to_bias = None if student.bias is None else carry[2] + jnp.sum(gradient, axis=0)
    return (total, to_weight, to_bias), (values, to_hidden.astype(hidden.dtype))


def head_logits(hidden, weight, bias, cap, precision, with_slope):
    """The logits of a chunk, wide, after the soft cap, and the slope of the cap (None without
    one)."""
    wide = n.wide_dtype(hidden, weight)
    logits = jnp.matmul(hidden, weight, precision=precision, preferred_element_type=wide)
    if bias is not None:
        logits = logits + bias.astype(wide)[None]
    if cap is None:
        return logits, None
    squashed = jnp.tanh(logits / cap)
    return cap * squashed, (1 - jnp.square(squashed)) if with_slope else None


def column_indices(plan: Plan, columns: int) -> jax.Array:
    """``[1, columns]``: which class each column of this device is."""
    first = 0
    if plan.chunks.vocabulary_axis is not None:
        first = jax.lax.axis_index(plan.chunks.vocabulary_axis) * columns
    return first + jax.lax.broadcasted_iota(jnp.int32, (1, columns), 1)


def class_sum(plan: Plan, x: jax.Array) -> jax.Array:
    """The sum over all classes, those of other devices included."""
    total = jnp.sum(x, axis=-1)
    return (
        total
        if plan.chunks.vocabulary_axis is None
        else jax.lax.psum(total, plan.chunks.vocabulary_axis)
    )


def class_logsumexp(plan: Plan, x: jax.Array) -> jax.Array:
    """The log of the summed exponentials over all classes; ``-inf`` where no class is left."""
    largest = jnp.max(x, axis=-1)
    if plan.chunks.vocabulary_axis is not None:
        largest = jax.lax.pmax(largest, plan.chunks.vocabulary_axis)
    finite = jnp.where(jnp.isneginf(largest), 0, largest)
    return finite + jnp.log(class_sum(plan, jnp.exp(x - finite[:, None])))


def checked(student: Side, weights: jax.Array | None) -> tuple[Side, jax.Array, tuple[int, ...]]:
    """The student with its tokens in one axis, and the weights (1 for every token where None)."""
    hidden, weight, bias = student
    n.rank(1, hidden=hidden)
    if weight.ndim != 2 or hidden.shape[-1] != weight.shape[0]:
        raise ValueError(
            f"a head must be [H, V] and the hidden states [..., H], got {weight.shape} and "
            f"{hidden.shape}"
        )
    if bias is not None and bias.shape != weight.shape[1:]:
        raise ValueError(f"the bias of a head {weight.shape} must be [V], got {bias.shape}")
    if hidden.dtype != weight.dtype:
        raise ValueError(
            f"hidden states and head must have one dtype, got {hidden.dtype} and {weight.dtype}"
        )
    if hidden.size == 0:
        raise ValueError(f"an empty batch: hidden states of shape {hidden.shape} give no loss")
    leading = hidden.shape[:-1]
    wide = n.wide_dtype(hidden)
    if weights is None:
        weights = jnp.ones(leading, wide)
    if weights.shape != leading:
        raise ValueError(
            f"weights must have the shape of the tokens {leading}, got {weights.shape}"
        )
    flat = Side(hidden.reshape(-1, hidden.shape[-1]), weight, bias)
    return flat, weights.reshape(-1).astype(wide), leading


def checked_labels(
    labels: jax.Array | None, leading: tuple[int, ...], classes: int
) -> jax.Array | None:
    """The labels of all tokens in one axis, or None."""
    if labels is None:
        return None
    if labels.shape != leading or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels must be integers of shape {leading}, got {labels.dtype} {labels.shape}"
        )
    n.given_labels(labels, classes)
    return labels.reshape(-1).astype(jnp.int32)


def numbers(like: jax.Array, **named: Any) -> dict[str, jax.Array]:
    """Hyper-parameters, traced or not, as wide constants."""
    wide = n.wide_dtype(like)
    return {name: jax.lax.stop_gradient(jnp.asarray(x).astype(wide)) for name, x in named.items()}
