"""The checks that every loss passes; :mod:`jaxdistill.testing` is the way in."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdistill.losses._entry import BATCH, HARD, Entry
from jaxdistill.losses._hard_inputs import (
    by_example,
    carriers,
    cast,
    examples,
    hard_inputs,
    on_examples,
    replace,
)

_SMALL = 1e-4  # how near to zero a loss must be at equality, for inputs of size one


class Bench(NamedTuple):
    """A loss with a sample, compiled once: what the checks share.

    Attributes:
        entry: what is checked.
        args: positional arguments of the sample, in float32.
        kwargs: its keywords.
        run: ``(args, where=None) -> (value, gradients)``, compiled; gradients of the summed value
            in the student's arguments. A batch loss is always told ``where``, by default that all
            counts; every other check leaves it out.
        traces: how often Python ran the loss for ``run``, one number in a list.
    """

    entry: Entry
    args: tuple
    kwargs: dict
    run: Callable[..., tuple[jax.Array, tuple]]
    traces: list[int]


def bench(entry: Entry, *, seed: int = 0) -> Bench:
    """Makes the sample of an entry and compiles its value and gradient."""
    args, kwargs = entry.make(jax.random.key(seed), jnp.float32)
    traces = [0]

    @jax.jit
    def counted(given, where):
        traces[0] += 1
        return value_and_gradient(entry, given, _with(kwargs, where))

    def run(given, where=None):
        if where is None and entry.kind == BATCH:
            where = np.ones(examples(entry, given) * entry.group, bool)
        return counted(given, where)

    return Bench(entry, args, kwargs, run, traces)


def value_and_gradient(entry: Entry, args: tuple, kwargs: dict) -> tuple[jax.Array, tuple]:
    """The value of a loss, and the gradients of its sum in the student's arguments, eagerly."""

    def summed(*student):
        out = value(entry, replace(args, entry.student, student), kwargs)
        return jnp.sum(out), out

    student = tuple(args[i] for i in entry.student)
    gradients, out = jax.grad(summed, argnums=tuple(range(len(student))), has_aux=True)(*student)
    return out, gradients


def value(entry: Entry, args: tuple, kwargs: dict) -> jax.Array:
    """The value of a loss, eagerly."""
    return entry.outputs(entry.loss(*args, **kwargs))


def check_shape(ready: Bench) -> None:
    """A scalar for the batch, or one value per example with the batch leading; float32 or wider."""
    entry = ready.entry
    out, _ = ready.run(ready.args)
    assert out.dtype == jnp.float32, f"dtype {out.dtype} for float32 inputs"
    assert bool(jnp.all(jnp.isfinite(out))), f"not finite on a plain sample: {out}"
    if entry.kind == BATCH:
        assert out.shape == (), f"a batch loss is a scalar, got {out.shape}"
        assert "where" in inspect.signature(entry.loss).parameters, "a batch loss takes where"
    else:
        size = examples(entry, ready.args)
        assert out.shape[:1] == (size,), f"one value per example: {out.shape} for {size}"


def check_jit(ready: Bench) -> None:
    """The compiled loss does what the eager one does, and is traced once for one set of shapes."""
    compiled, _ = ready.run(ready.args)
    traced = ready.traces[0]
    ready.run(jax.tree.map(lambda x: jnp.array(x, copy=True), ready.args))
    assert ready.traces[0] == traced, "traced again for the same shapes"
    _near(compiled, value(ready.entry, ready.args, ready.kwargs), 1e-4, "eager")


def check_vmap(ready: Bench) -> None:
    """``jax.vmap`` over a new leading axis gives what a loop gives."""
    entry = ready.entry
    second, _ = entry.make(jax.random.key(1), jnp.float32)
    stacked = jax.tree.map(lambda *x: np.stack(x), ready.args, second)
    mapped = jax.jit(jax.vmap(lambda *args: value(entry, args, ready.kwargs)))(*stacked)
    looped = np.stack([ready.run(args)[0] for args in (ready.args, second)])
    _near(mapped, looped, 1e-4, "a loop")


def check_permutation(ready: Bench) -> None:
    """Other order of the examples, other order of the values; a batch loss does not care."""
    entry = ready.entry
    if not entry.permutation:
        return
    turned = on_examples(entry, ready.args, lambda x: jnp.flip(x, 0))
    expected, _ = ready.run(ready.args)
    expected = expected if entry.kind == BATCH else np.flip(expected, 0)
    _near(ready.run(turned)[0], expected, 1e-4, "the unpermuted value")


def check_shift(ready: Bench) -> None:
    """A constant added to an example's scores changes neither value nor gradient."""
    entry = ready.entry
    if not entry.shift_invariant:
        return
    first = entry.student[0]
    scores = np.asarray(ready.args[first])
    shift = np.linspace(-3, 3, scores[..., 0].size, dtype=scores.dtype)
    shifted = jnp.asarray(scores + shift.reshape(scores.shape[:-1] + (1,)))
    shifted = replace(ready.args, (first,), (shifted,))
    _near(ready.run(shifted), ready.run(ready.args), 1e-4, "the unshifted value")


def check_dtypes(ready: Bench) -> None:
    """bfloat16 and float16 are widened to float32 before anything is computed; float64 stays."""
    entry = ready.entry

    def dtype_for(dtype):
        args, kwargs = cast((ready.args, ready.kwargs), dtype)
        return jax.eval_shape(lambda: value(entry, args, kwargs)).dtype

    for low in (jnp.bfloat16, jnp.float16):
        assert dtype_for(low) == jnp.float32, f"{low.__name__} gives {dtype_for(low)}"
    with jax.enable_x64(True):
        assert dtype_for(jnp.float64) == jnp.float64, f"float64 gives {dtype_for(jnp.float64)}"
    rounded = cast(ready.args, jnp.bfloat16)
    exact = ready.run(cast(rounded, jnp.float32))
    _near(ready.run(rounded)[0], exact[0], 1e-4, "the same numbers in float32")


def check_gradient(ready: Bench) -> None:
    """First and second derivatives against central differences, in float64."""
    entry = ready.entry
    if entry.order == 0:
        return
    with jax.enable_x64(True):
        args, kwargs = cast((ready.args, ready.kwargs), jnp.float64)
        student = tuple(args[i] for i in entry.student)
        random = np.random.default_rng(0)
        along, against = (
            jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape)), student)
            for _ in range(2)
        )

        def total(given):
            return jnp.sum(value(entry, replace(args, entry.student, given), kwargs))

        @jax.jit
        def measured(given):
            if entry.order < 2:
                out, slope = jax.value_and_grad(total)(given)
                return out, _dot(slope, along), jnp.zeros(()), jnp.zeros(())
            (out, slope), (_, turn) = jax.jvp(jax.value_and_grad(total), (given,), (along,))
            return out, _dot(slope, along), _dot(slope, against), _dot(turn, against)

        step = 1e-5
        _, slope, _, curvature = measured(student)
        ahead, behind = (
            measured(jax.tree.map(lambda x, d, by=by: x + by * d, student, along))
            for by in (step, -step)
        )
        pairs = ((slope, ahead[0] - behind[0]), (curvature, ahead[2] - behind[2]))
        for order, (ours, difference) in enumerate(pairs, 1):
            ours, theirs = float(ours), float(difference) / (2 * step)
            assert abs(ours - theirs) <= 1e-5 * max(1.0, abs(theirs)), (
                f"order {order}: {ours} but finite differences give {theirs}"
            )


def check_precision(ready: Bench) -> None:
    """Every product of matrices, in the value and its gradient, asks for the highest precision.

    Factorisations and solves have no such setting: they work in the type of their operands.
    """
    entry = ready.entry
    jaxpr = jax.make_jaxpr(lambda args: value_and_gradient(entry, args, ready.kwargs))(ready.args)
    for equation in _equations(jaxpr.jaxpr):
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            wanted = (jax.lax.Precision.HIGHEST,) * 2
            assert equation.params["precision"] == wanted, f"coarse product: {equation}"
        if equation.primitive.name in ("cholesky", "triangular_solve", "lu", "eigh", "svd", "qr"):
            widths = [x.aval.dtype.itemsize for x in equation.invars]
            assert min(widths) >= 4, f"coarse solve: {equation}"


def check_meshes(ready: Bench) -> None:
    """The same value, jitted, under an Auto and an Explicit mesh with the batch sharded."""
    entry = ready.entry
    count = examples(entry, ready.args)
    devices = max(d for d in range(1, min(count, len(jax.devices())) + 1) if count % d == 0)
    expected, _ = ready.run(ready.args)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh(
            (devices,), ("data",), axis_types=(kind,), devices=jax.devices()[:devices]
        )
        with jax.set_mesh(mesh):
            rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
            chosen = carriers(entry, ready.args)
            placed = tuple(
                jax.device_put(x, rows if i in chosen else whole) for i, x in enumerate(ready.args)
            )
            out = jax.jit(lambda *args: value(entry, args, ready.kwargs))(*placed)
            jax.eval_shape(lambda *args: value_and_gradient(entry, args, ready.kwargs), *placed)
        _near(np.asarray(out), np.asarray(expected), 1e-4, f"no mesh, under {kind}")


def check_hard(ready: Bench) -> None:
    """Every hard input gives its declared value, and finite gradients."""
    problems = [f"{case}: {problem}" for case in HARD for problem in _problems(ready, case)]
    assert not problems, "; ".join(problems)


def _problems(ready: Bench, case: str) -> list[str]:
    """What is wrong with the outcome of one hard input."""
    entry = ready.entry
    given = hard_inputs(entry, ready.args, case)
    if given is None:
        return []
    args, where = given
    declared = entry.hard.get(case)
    if declared is None and (case == "masked" or (case == "equal" and entry.zero_at_equality)):
        declared = 0.0
    if declared == "refused":
        try:
            jax.eval_shape(lambda: value(entry, args, _with(ready.kwargs, where)))
        except ValueError:
            return []
        return ["not refused"]
    out, gradients = ready.run(args, where)
    problems = []
    if declared == "infinite":
        if not np.all(np.isposinf(out)):
            problems.append(f"{out} is not infinite")
    elif not np.all(np.isfinite(out)):
        problems.append(f"value {out}")
    elif isinstance(declared, (int, float)) and np.max(np.abs(out - declared)) > _SMALL:
        problems.append(f"value {out}, declared {declared}")
    for gradient in jax.tree.leaves(gradients):
        gradient = np.asarray(gradient, np.float32)
        if not np.all(np.isfinite(gradient)):
            problems.append(f"gradient {gradient}")
        elif case == "masked" and np.any(gradient != 0):
            problems.append("gradient not zero")
        elif case == "equal" and entry.zero_at_equality and np.max(np.abs(gradient)) > 1e-2:
            problems.append(f"gradient {gradient} where the loss is least")
    if case == "padding":
        problems += _padding(ready, out, gradients)
    return problems


def _padding(ready: Bench, out: jax.Array, gradients: tuple) -> list[str]:
    """The last example did not count: its absence changes nothing, and it gets no gradient."""
    entry = ready.entry
    kept = on_examples(entry, ready.args, lambda x: x[:-1])
    expected = jax.jit(lambda args: value(entry, args, ready.kwargs))(kept)
    _near(out, expected, 1e-4, "the value without the padding")
    count, chosen = examples(entry, ready.args), carriers(entry, ready.args)
    return [
        "gradient on the padding"
        for position, gradient in zip(entry.student, gradients, strict=True)
        if position in chosen
        for leaf in jax.tree.leaves(gradient)
        if np.any(np.asarray(by_example(leaf, count))[-1] != 0)
    ]


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
"""What every loss is checked for, one function each."""


def _with(kwargs: dict, where: jax.Array | None) -> dict:
    return kwargs if where is None else {**kwargs, "where": where}


def _dot(a: Any, b: Any) -> Any:
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
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)
