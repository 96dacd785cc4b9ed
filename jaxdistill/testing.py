"""The contract of a loss as code, and tiny nets: what this library tests itself with, for your own
losses.

Describe a loss by one :class:`Entry` and hand it to :func:`check_loss`::

    from jaxdistill.testing import Entry, check_loss, scores

    entry = Entry(
        my_loss, "logits", "per example", "(s - t)^2", "none", scores(), zero_at_equality=True
    )
    check_loss(entry)

It makes a small sample, and checks that the loss does the same jitted and eager, vmapped and in a
loop, on permuted examples, and on every kind of mesh; that it is traced once; that low precision is
widened and float64 kept; that its gradient is the one of finite differences; that every product of
matrices asks for the highest precision; and that hard inputs give the declared, finite values and
gradients. Run with several devices (``XLA_FLAGS=--xla_force_host_platform_device_count=2``), or the
meshes are of one device.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdistill.losses._entry import BATCH, HARD, PER_EXAMPLE, PER_TOKEN, Entry, features, scores
from jaxdistill.net import Net, from_linen

__all__ = [
    "BATCH",
    "CHECKS",
    "HARD",
    "PER_EXAMPLE",
    "PER_TOKEN",
    "Bench",
    "Entry",
    "bench",
    "check_loss",
    "features",
    "hard_inputs",
    "scores",
    "tiny_net",
]

_SMALL = 1e-4  # how near to zero a loss must be at equality, for inputs of size one


class Bench(NamedTuple):
    """A loss with a sample, compiled once: what the checks share.

    Attributes:
        entry: what is checked.
        args: positional arguments of the sample, in float32.
        kwargs: its keywords.
        run: ``args -> (value, gradients)``, compiled; gradients of the summed value in the
            student's arguments.
        traces: how often Python ran the loss for ``run``, one number in a list.
    """

    entry: Entry
    args: tuple
    kwargs: dict
    run: Callable[[tuple], tuple[jax.Array, tuple]]
    traces: list[int]


def bench(entry: Entry, *, seed: int = 0) -> Bench:
    """Makes the sample of an entry and compiles its value and gradient."""
    args, kwargs = entry.make(jax.random.key(seed), jnp.float32)
    traces = [0]

    def counted(given):
        traces[0] += 1
        return value_and_gradient(entry, given, kwargs)

    return Bench(entry, args, kwargs, jax.jit(counted), traces)


def value_and_gradient(entry: Entry, args: tuple, kwargs: dict) -> tuple[jax.Array, tuple]:
    """The value of a loss, and the gradients of its sum in the student's arguments, eagerly."""

    def summed(*student):
        value = entry.outputs(entry.loss(*_replace(args, entry.student, student), **kwargs))
        return jnp.sum(value), value

    student = tuple(args[i] for i in entry.student)
    gradients, value = jax.grad(summed, argnums=tuple(range(len(student))), has_aux=True)(*student)
    return value, gradients


def check_loss(entry: Entry, *, seed: int = 0) -> None:
    """Runs every check of the contract on one loss.

    Args:
        entry: the loss and what it declares.
        seed: of the sample.

    Raises:
        AssertionError: with one line for every check that failed.

    Example:
        >>> from jaxdistill.losses import hinton_kd
        >>> check_loss(
        ...     Entry(hinton_kd, "logits", "per example", "KL", "T^2", scores(), scores=True)
        ... )
    """
    ready = bench(entry, seed=seed)
    failures = []
    for check in CHECKS:
        try:
            check(ready)
        except Exception as error:
            failures.append(f"{check.__name__}: {type(error).__name__}: {error}")
    if failures:
        raise AssertionError(f"{entry.name} breaks its contract:\n" + "\n".join(failures))


def check_shape(ready: Bench) -> None:
    """A scalar for the batch, or one value per example with the batch leading; float32 or wider."""
    entry = ready.entry
    value, _ = ready.run(ready.args)
    assert value.dtype == jnp.float32, f"dtype {value.dtype} for float32 inputs"
    assert bool(jnp.all(jnp.isfinite(value))), f"not finite on a plain sample: {value}"
    if entry.kind == BATCH:
        assert value.shape == (), f"a batch loss is a scalar, got {value.shape}"
        assert "where" in inspect.signature(entry.loss).parameters, "a batch loss takes where"
    elif entry.batched != ():
        size = _batch_size(entry, ready.args)
        assert value.shape[:1] == (size,), f"one value per example: {value.shape} for {size}"


def check_jit(ready: Bench) -> None:
    """The compiled loss does what the eager one does, and is traced once for one set of shapes."""
    compiled = ready.run(ready.args)
    other = jax.tree.map(lambda x: x + 0, ready.args)
    ready.run(other)
    assert ready.traces == [1], f"traced {ready.traces[0]} times"
    _near(compiled, value_and_gradient(ready.entry, ready.args, ready.kwargs), 1e-4, "eager")


def check_vmap(ready: Bench) -> None:
    """``jax.vmap`` over a new leading axis gives what a loop gives."""
    entry = ready.entry
    second, _ = entry.make(jax.random.key(1), jnp.float32)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), ready.args, second)
    mapped = jax.jit(jax.vmap(lambda *args: _value(entry, args, ready.kwargs)))(*stacked)
    looped = jnp.stack([ready.run(args)[0] for args in (ready.args, second)])
    _near(mapped, looped, 1e-4, "a loop")


def check_permutation(ready: Bench) -> None:
    """Other order of the examples, other order of the values; a batch loss does not care."""
    entry = ready.entry
    if not entry.permutation:
        return
    turned = _batched(entry, ready.args, lambda x: jnp.flip(x, 0))
    expected, _ = ready.run(ready.args)
    expected = expected if entry.kind == BATCH else jnp.flip(expected, 0)
    _near(ready.run(turned)[0], expected, 1e-4, "the unpermuted value")


def check_shift(ready: Bench) -> None:
    """A constant added to an example's scores changes neither value nor gradient."""
    entry = ready.entry
    if not entry.shift_invariant:
        return
    first = entry.student[0]
    scores = ready.args[first]
    shift = jnp.linspace(-3, 3, scores[..., 0].size, dtype=scores.dtype).reshape(
        scores[..., :1].shape
    )
    shifted = _replace(ready.args, (first,), (scores + shift,))
    _near(ready.run(shifted), ready.run(ready.args), 1e-4, "the unshifted value")


def check_dtypes(ready: Bench) -> None:
    """bfloat16 and float16 give float32, and float64 stays float64."""
    entry = ready.entry
    for dtype in (jnp.bfloat16, jnp.float16):
        args, kwargs = _cast(ready.args, dtype), _cast(ready.kwargs, dtype)
        out = jax.eval_shape(lambda args=args, kwargs=kwargs: _value(entry, args, kwargs))
        assert out.dtype == jnp.float32, f"{dtype.__name__} gives {out.dtype}"
    with jax.enable_x64(True):
        args, kwargs = entry.make(jax.random.key(0), jnp.float64)
        out = jax.eval_shape(lambda: _value(entry, args, kwargs))
        assert out.dtype == jnp.float64, f"float64 gives {out.dtype}"


def check_gradient(ready: Bench) -> None:
    """First and second derivatives against central differences, in float64."""
    entry = ready.entry
    if entry.order == 0:
        return
    with jax.enable_x64(True):
        args, kwargs = entry.make(jax.random.key(0), jnp.float64)
        student = tuple(args[i] for i in entry.student)
        keys = jax.random.split(jax.random.key(2), 2)
        along, against = (_like(key, student) for key in keys)

        def total(given):
            return jnp.sum(_value(entry, _replace(args, entry.student, given), kwargs))

        step = 1e-5

        @jax.jit
        def measured(given):
            ahead = _add(given, along, step)
            behind = _add(given, along, -step)
            if entry.order < 2:
                slope = jax.grad(total)(given)
                curvature = jnp.zeros(()), jnp.zeros(())
                values = total(ahead), total(behind)
            else:
                slope, turn = jax.jvp(jax.grad(total), (given,), (along,))
                (first, right), (second, left) = map(jax.value_and_grad(total), (ahead, behind))
                difference = jax.tree.map(lambda a, b: (a - b) / (2 * step), right, left)
                curvature = _dot(turn, against), _dot(difference, against)
                values = first, second
            return (_dot(slope, along), (values[0] - values[1]) / (2 * step)), curvature

        for order, (ours, theirs) in enumerate(measured(student), 1):
            scale = max(1.0, abs(float(theirs)))
            assert abs(float(ours - theirs)) <= 1e-5 * scale, (
                f"order {order}: {float(ours)} but finite differences give {float(theirs)}"
            )


def check_precision(ready: Bench) -> None:
    """Every product of matrices, in the value and its gradient, asks for the highest precision."""
    entry = ready.entry
    jaxpr = jax.make_jaxpr(lambda args: value_and_gradient(entry, args, ready.kwargs))(ready.args)
    for equation in _equations(jaxpr.jaxpr):
        if equation.primitive.name == "dot_general":
            wanted = (jax.lax.Precision.HIGHEST,) * 2
            assert equation.params["precision"] == wanted, f"coarse product: {equation}"


def check_meshes(ready: Bench) -> None:
    """The same value, jitted, under an Auto and an Explicit mesh with the batch sharded."""
    entry = ready.entry
    count = _batch_size(entry, ready.args)
    devices = max(d for d in range(1, min(count, len(jax.devices())) + 1) if count % d == 0)
    expected, _ = ready.run(ready.args)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh(
            (devices,), ("data",), axis_types=(kind,), devices=jax.devices()[:devices]
        )
        with jax.set_mesh(mesh):
            rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
            carriers = _carriers(entry, ready.args)
            placed = tuple(
                jax.device_put(x, rows if i in carriers else whole)
                for i, x in enumerate(ready.args)
            )
            value = jax.jit(lambda *args: _value(entry, args, ready.kwargs))(*placed)
        _near(np.asarray(value), np.asarray(expected), 1e-4, f"no mesh, under {kind}")


def check_hard(ready: Bench) -> None:
    """Every hard input gives its declared value, and finite gradients."""
    entry = ready.entry
    problems = []
    for case in HARD:
        given = hard_inputs(ready, case)
        if given is None:
            continue
        args, kwargs = given
        declared = entry.hard.get(case)
        if declared is None and case == "equal" and entry.zero_at_equality:
            declared = 0.0
        if declared is None and case == "masked":
            declared = 0.0
        if declared == "refused":
            try:
                _value(entry, args, kwargs)
            except ValueError:
                continue
            problems.append(f"{case}: not refused")
            continue
        same = [jnp.shape(x) for x in jax.tree.leaves(args)] == [
            jnp.shape(x) for x in jax.tree.leaves(ready.args)
        ]
        if same and case not in ("masked", "padding", "bf16"):
            value, gradients = ready.run(args)
        else:
            value, gradients = value_and_gradient(entry, args, kwargs)
        if declared == "infinite":
            if not bool(jnp.all(jnp.isposinf(value))):
                problems.append(f"{case}: {value} is not infinite")
        elif not bool(jnp.all(jnp.isfinite(value))):
            problems.append(f"{case}: value {value}")
        elif isinstance(declared, (int, float)):
            if float(jnp.max(jnp.abs(value - declared))) > _SMALL:
                problems.append(f"{case}: value {value}, declared {declared}")
        for gradient in jax.tree.leaves(gradients):
            if not bool(jnp.all(jnp.isfinite(gradient))):
                problems.append(f"{case}: gradient {gradient}")
            elif case == "masked" and bool(jnp.any(gradient != 0)):
                problems.append("masked: gradient not zero")
        if case == "padding":
            kept = _batched(entry, ready.args, lambda x: x[:-1])
            _near(value, _value(entry, kept, ready.kwargs), 1e-4, "the value without the padding")
            for position, gradient in zip(entry.student, gradients, strict=True):
                if position in _carriers(entry, args):
                    for leaf in jax.tree.leaves(gradient):
                        if bool(jnp.any(leaf[-1] != 0)):
                            problems.append("padding: gradient on the padding row")
        if case == "equal" and declared == 0.0 and entry.zero_at_equality:
            for gradient in jax.tree.leaves(gradients[:1]):
                if float(jnp.max(jnp.abs(gradient))) > 1e-2:
                    problems.append(f"equal: gradient {gradient} where the loss is least")
    assert not problems, "; ".join(problems)


CHECKS = (
    check_shape,
    check_jit,
    check_vmap,
    check_permutation,
    check_shift,
    check_dtypes,
    check_gradient,
    check_precision,
    check_meshes,
    check_hard,
)


def hard_inputs(ready: Bench, case: str) -> tuple[tuple, dict] | None:
    """A hard input made from the sample of a loss, or None where the case says nothing about it.

    Args:
        ready: a loss with its sample.
        case: one of ``HARD``.
    """
    entry, args, kwargs = ready.entry, ready.args, ready.kwargs
    first, second = entry.student[0], entry.teacher
    sides = (first,) if second is None else (first, second)
    if case == "large":
        return _on(args, sides, lambda x: 200 * x), kwargs
    if case == "saturated" and entry.scores:
        return _on(args, (first,), _certain), kwargs
    if case == "ruled out" and entry.accepts_neginf and second is not None:
        return _on(args, (second,), _ruled_out), kwargs
    if case == "zero rows":
        return _on(args, sides, lambda x: x.at[0].set(0)), kwargs
    if case == "duplicates":
        return _on(args, sides, lambda x: x.at[1].set(x[0])), kwargs
    if case == "single":
        return _batched(entry, args, lambda x: x[:1]), kwargs
    if case == "equal" and second is not None and _shapes(args[first]) == _shapes(args[second]):
        return _replace(args, (second,), (args[first],)), kwargs
    if case == "bf16":
        return _cast(args, jnp.bfloat16), _cast(kwargs, jnp.bfloat16)
    if case in ("masked", "padding") and entry.kind == BATCH:
        size = _batch_size(entry, args)
        if case == "masked":
            return args, {**kwargs, "where": jnp.zeros(size, bool)}
        carriers = [i for i in _carriers(entry, args)]
        spoilt = _on(args, carriers, lambda x: x.at[-1].set(jnp.nan))
        return spoilt, {**kwargs, "where": jnp.arange(size) < size - 1}
    return None


def tiny_net(
    outputs: int = 3, *, width: int = 4, statistics: bool = False, dropout: float = 0.0
) -> Net:
    """A net of two dense layers, for tests: taps ``"hidden"`` and ``"head"``.

    Args:
        outputs: how many outputs per example.
        width: of the hidden layer.
        statistics: whether batch statistics follow the hidden layer, so that there is state.
        dropout: the rate after the hidden layer.

    Example:
        >>> net = tiny_net(outputs=2)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 5)))
        >>> net.apply(params, state, jnp.ones((7, 5)), taps=("hidden",)).taps["hidden"].shape
        (7, 4)
    """
    return from_linen(_Tiny(outputs, width, statistics, dropout))


class _Tiny(nn.Module):
    outputs: int
    width: int
    statistics: bool
    dropout: float

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.relu(nn.Dense(self.width, name="hidden")(x.reshape(x.shape[0], -1)))
        if self.statistics:
            x = nn.BatchNorm(use_running_average=not train, name="statistics")(x)
        if self.dropout:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.outputs, name="head")(x)


def _value(entry: Entry, args: tuple, kwargs: dict) -> jax.Array:
    return entry.outputs(entry.loss(*args, **kwargs))


def _is_float(x: Any) -> bool:
    return isinstance(x, (jax.Array, np.ndarray)) and jnp.issubdtype(x.dtype, jnp.floating)


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype) if _is_float(x) else x, tree)


def _shapes(tree: Any) -> Any:
    return jax.tree.map(jnp.shape, tree)


def _replace(args: tuple, positions: tuple[int, ...], values: tuple) -> tuple:
    new = dict(zip(positions, values, strict=True))
    return tuple(new.get(i, x) for i, x in enumerate(args))


def _on(args: tuple, positions: Any, change: Callable) -> tuple:
    return tuple(
        jax.tree.map(lambda y: change(y) if _is_float(y) else y, x) if i in positions else x
        for i, x in enumerate(args)
    )


def _carriers(entry: Entry, args: tuple) -> tuple[int, ...]:
    return tuple(range(len(args))) if entry.batched is None else entry.batched


def _batched(entry: Entry, args: tuple, change: Callable) -> tuple:
    carriers = _carriers(entry, args)
    return tuple(jax.tree.map(change, x) if i in carriers else x for i, x in enumerate(args))


def _batch_size(entry: Entry, args: tuple) -> int:
    return jax.tree.leaves(args[_carriers(entry, args)[0]])[0].shape[0]


def _certain(scores: jax.Array) -> jax.Array:
    worst = jnp.argmin(scores, axis=-1).astype(jnp.int32)
    return 1e4 * jax.nn.one_hot(worst, scores.shape[-1], dtype=scores.dtype)


def _ruled_out(scores: jax.Array) -> jax.Array:
    rows = jnp.arange(scores[..., 0].size).reshape(scores.shape[:-1]) % scores.shape[-1]
    return jnp.where(jax.nn.one_hot(rows, scores.shape[-1], dtype=bool), -jnp.inf, scores)


def _like(key: jax.Array, tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten(
        [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    )


def _add(tree: Any, direction: Any, step: float) -> Any:
    return jax.tree.map(lambda x, d: x + step * d, tree, direction)


def _dot(a: Any, b: Any) -> jax.Array:
    products = jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)
    return sum(jax.tree.leaves(products))


def _near(ours: Any, theirs: Any, tolerance: float, what: str) -> None:
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape, f"{what}: shapes {a.shape} and {b.shape}"
        scale = max(1.0, float(np.max(np.abs(b), initial=0.0)))
        worst = float(np.max(np.abs(a - b), initial=0.0))
        assert worst <= tolerance * scale, f"differs from {what}: {a} and {b}"


def _equations(jaxpr: Any):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _equations(inner)
