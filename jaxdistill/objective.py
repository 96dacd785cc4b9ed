"""Objectives: losses with their weights, sums and counts, and the learned parts that belong to
them.

A loss is a pure function of arrays. An objective says which arrays of a step it reads, what it is
worth, and what its values are divided by, so that means over examples, means over tokens and
batch-coupled values add up right over microbatches, devices and hosts. What is neither student nor
teacher (projectors, critics, memory banks) lives here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.losses.masking import harmless
from jaxdistill.net import Forward, Net, check_function, described
from jaxdistill.settings import Finite, Scheduled

Number = float | jax.Array
"""A weight that stays the same."""
Schedule = Callable[[jax.Array], Number]
"""A weight as a function of the step."""


class Term(NamedTuple):
    """One loss inside an objective: it adds ``weight * total / count`` to what is minimised.

    Attributes:
        weight: a number, or a schedule ``step -> number``.
        total: the sum of the loss over whatever is counted, a scalar.
        count: how many examples, tokens or batches that were; a count of zero makes the term zero.
        coupled: whether the value belongs to the batch as a whole (a Gram matrix, say), so that it
            is not the sum of its microbatches. Such a term refuses gradient accumulation.
    """

    weight: Number | Schedule
    total: jax.Array
    count: Number
    coupled: bool = False


class Objective(NamedTuple):
    """What a student minimises, as two pure functions.

    Attributes:
        init: ``(key, forward, targets, batch) -> (params, state)``: learned parts and running state
            of the loss.
        terms: ``(params, state, forward, targets, batch, *, step) -> ({name: Term}, state)``.
    """

    init: Callable[..., tuple[Any, Any]]
    terms: Callable[..., tuple[dict[str, Term], Any]]


def per_example(
    weight: Number | Schedule, values: jax.Array, where: jax.Array | None = None
) -> Term:
    """A term whose values are averaged over examples, or over tokens where there is more than one
    axis.

    Args:
        weight: a number or a schedule.
        values: ``[B, ...]``, one value per example or token.
        where: ``[B]`` or ``[B, ...]``, true or 1 where a value counts; it may weigh values by
            fractions. Values that do not count never reach the sum, even NaN, and get the
            gradient zero. A loss still turns a zero gradient into NaN where its own derivative is
            NaN: inputs that may not be finite are masked before the loss, by :func:`match` or
            :func:`jaxdistill.losses.masked`.

    Example:
        >>> term = per_example(1.0, jnp.array([1.0, jnp.nan, 3.0]), jnp.array([True, False, True]))
        >>> float(term.total), float(term.count)
        (4.0, 2.0)
    """
    if values.ndim == 0:
        raise ValueError(
            "per_example needs one value per example, got a scalar: use per_batch for it"
        )
    if where is None:
        return Term(weight, values.sum(), float(values.size))
    if where.shape != values.shape[: where.ndim]:
        raise ValueError(
            f"where {where.shape} does not lead the shape of the values {values.shape}"
        )
    share = where.reshape(where.shape + (1,) * (values.ndim - where.ndim)).astype(values.dtype)
    share = jnp.broadcast_to(share, values.shape)
    return Term(weight, jnp.sum(jnp.where(share == 0, 0, values) * share), share.sum())


def per_batch(weight: Number | Schedule, value: jax.Array) -> Term:
    """A term whose one value couples the examples of the batch."""
    if jnp.ndim(value) != 0:
        raise ValueError(
            f"per_batch needs a scalar, got shape {jnp.shape(value)}: use per_example for it"
        )
    return Term(weight, jnp.asarray(value), 1.0, coupled=True)


def weighted(terms: Mapping[str, Term], step: jax.Array) -> tuple[jax.Array, dict[str, tuple]]:
    """The loss of a step, and every term's (sum, count) for the metrics."""
    refuse_others(terms)
    loss, metrics = jnp.zeros(()), {}
    for name, term in terms.items():
        total, count = jnp.asarray(term.total), jnp.asarray(term.count, jnp.result_type(term.total))
        loss = loss + at(term.weight, step) * mean(total, count)
        metrics[name] = (total, count)
    return loss, {"loss": (loss, jnp.ones(())), **metrics}


def refuse_others(terms: Any) -> None:
    """Refuses what is no ``{name: Term}``.

    Raises:
        TypeError: saying what it is, and what makes terms.

    Example:
        >>> refuse_others({"l2": jnp.ones(8)})
        Traceback (most recent call last):
        ...
        TypeError: an objective gives {name: Term}, and 'l2' is an array (8,): per_example(weight,
        values) makes a term of values, per_batch(weight, value) of a value that couples the batch
    """
    hint = (
        "per_example(weight, values) makes a term of values, per_batch(weight, value) of a value "
        "that couples the batch"
    )
    if not isinstance(terms, Mapping):
        raise TypeError(f"an objective gives {{name: Term}}, not {_said(terms)}: {hint}")
    for name, term in terms.items():
        if not isinstance(term, Term):
            raise TypeError(
                f"an objective gives {{name: Term}}, and {name!r} is {_said(term)}: {hint}"
            )
        if jnp.ndim(term.total) or jnp.ndim(term.count):
            raise TypeError(
                f"the total of term {name!r} has shape {jnp.shape(term.total)}, its count "
                f"{jnp.shape(term.count)}: both are single numbers; {hint}"
            )


def _said(given: Any) -> str:
    """What something is that is no term."""
    if hasattr(given, "shape"):
        return f"an array {tuple(given.shape)}"
    return described(given)


def mean(total: jax.Array, count: jax.Array) -> jax.Array:
    """``total / count``, zero (with zero gradient) where nothing was counted."""
    return jnp.where(count == 0, 0, total / jnp.where(count == 0, 1, count))


def at(value: Any, step: jax.Array) -> Any:
    """A hyper-parameter at a step: schedules are called, constants are what they are."""
    return value(step) if callable(value) else value


def as_objective(objective: Objective | Callable) -> Objective:
    """Lifts a bare function ``(forward, targets, batch) -> {name: Term}`` into an objective.

    The function may take ``step`` as a keyword as well. An objective is returned as it is.
    """
    if isinstance(objective, Objective):
        return objective
    if isinstance(objective, Mapping):
        raise TypeError(f"objective is {described(objective)}: combine(objective) makes one of it")
    check_function(
        "objective", objective, "(forward, targets, batch) -> {name: Term}, or what match gives"
    )
    takes_step = "step" in inspect.signature(objective).parameters

    def terms(params, state, forward, targets, batch, *, step):
        extra = {"step": step} if takes_step else {}
        return objective(forward, targets, batch, **extra), state

    return Objective(lambda key, forward, targets, batch: ({}, {}), terms)


def combine(objectives: Mapping[str, Objective | Callable]) -> Objective:
    """Several objectives as one; each has its own learned parts under its name.

    Raises:
        ValueError: at ``init``, listing every objective that does not fit its arrays; and when two
            objectives give terms of one name.
    """
    parts = {name: as_objective(objective) for name, objective in objectives.items()}

    def init(key, forward, targets, batch):
        params, state, faults = {}, {}, []
        for name, part in parts.items():
            # A fold by name: adding one objective does not change how the others start.
            own = jax.random.fold_in(key, _stable_hash(name))
            try:
                params[name], state[name] = part.init(own, forward, targets, batch)
            except ValueError as fault:
                faults.append(f"- {name}: {fault}")
        if faults:
            raise ValueError("the objective does not fit its arrays:\n" + "\n".join(faults))
        return params, state

    def terms(params, state, forward, targets, batch, *, step):
        found, states = {}, {}
        for name, part in parts.items():
            new, states[name] = part.terms(
                params[name], state[name], forward, targets, batch, step=step
            )
            if twice := found.keys() & new.keys():
                raise ValueError(f"two objectives give a term named {sorted(twice)[0]!r}")
            found |= new
        return found, states

    return Objective(init, terms)


def match(
    loss: Callable,
    *,
    name: str,
    student: str = "out",
    target: str | None = "out",
    weight: Scheduled[Finite] = 1.0,
    where: str | None = None,
    arguments: Mapping[str, str] | None = None,
    projector: Callable[[tuple, tuple], Net] | None = None,
    kept: str | None = None,
    **hyper: Any,
) -> Objective:
    """One loss between an array of the student and one of its targets.

    Args:
        loss: ``loss(student, target, **arguments, **hyper)``; values per example or token, or a
            scalar that couples the batch.
        name: the term's name.
        student: where the student's array is found, see :func:`lookup`.
        target: likewise for what it is compared with; ``None`` for losses of the student alone.
        weight: a number or a schedule.
        where: likewise for the mask; the batch's own ``where`` (padding) by default. Where it is
            zero, nothing that was read reaches value or gradient, not even NaN or infinity.
        arguments: further arrays by keyword, e.g. ``{"labels": "batch/label"}``.
        projector: builds, from the shapes of student and target, a net that maps the student's
            array before it is compared. It is trained with the student and is no part of the
            result.
        kept: likewise for the places ``[B, N]`` that the student's tokens have among those of the
            target, where a student drops some: the target's others are left out.
        hyper: keywords of the loss; a callable one is a schedule of the step.

    Raises:
        ValueError: at ``init``, when the arrays do not fit the loss: both shapes, and the projector
            that helps.
    """

    def arrays(forward: Any, targets: Any, batch: Any) -> tuple[Any, tuple[Any, ...], Any]:
        find = functools.partial(lookup, forward=forward, targets=targets, batch=batch)
        extra = {keyword: find(path) for keyword, path in (arguments or {}).items()}
        return find(student), _goal(find, target, kept), extra

    def mask(forward, targets, batch):
        if where is None:
            return batch.get("where") if isinstance(batch, Mapping) else None
        return lookup(where, forward=forward, targets=targets, batch=batch)

    takes_where = "where" in inspect.signature(loss).parameters

    # What is a parameter has no rows: everything else that is read leads with the examples.
    whole = {key for key, path in (arguments or {}).items() if path.startswith("params/")}

    def value(feature, goal, extra, where, step):
        if where is not None:
            rows = {key: extra[key] for key in extra.keys() - whole}
            feature, goal, rows = harmless((feature, goal, rows), where)
            extra = {**extra, **rows, **({"where": where} if takes_where else {})}
        settings = {keyword: at(setting, step) for keyword, setting in hyper.items()}
        return loss(feature, *goal, **extra, **settings)

    def init(key, forward, targets, batch):
        feature, goal, extra = arrays(forward, targets, batch)
        params, state = {}, {}
        if projector is not None:
            net = projector(feature.shape, goal[0].shape)
            params, state = net.init(key, feature)
            feature = net.apply(params, state, feature).out
        where = mask(forward, targets, batch)
        try:
            step = jnp.zeros((), jnp.int32)
            jax.eval_shape(
                lambda own, goal, extra: value(own, goal, extra, where, step), feature, goal, extra
            )
        except (ValueError, TypeError) as fault:
            raise ValueError(_mismatch(student, target, feature, goal, projector, fault)) from fault
        return params, state

    def terms(params, state, forward, targets, batch, *, step):
        feature, goal, extra = arrays(forward, targets, batch)
        where = mask(forward, targets, batch)
        if projector is not None:
            net = projector(feature.shape, goal[0].shape)
            shown = feature if where is None else harmless(feature, where)
            projected = net.apply(params, state, shown, train=True)
            feature, state = projected.out, projected.state
        values = value(feature, goal, extra, where, step)
        if values.ndim == 0:
            return {name: per_batch(weight, values)}, state
        return {name: per_example(weight, values, where)}, state

    return Objective(init, terms)


def _goal(find: Callable[..., Any], target: str | None, kept: str | None) -> tuple[Any, ...]:
    """What the student is compared with, if anything; of its tokens ``[B, N, ...]`` those that are
    kept."""
    if target is None:
        return ()
    array = find(target, side="target")
    if kept is None:
        return (array,)
    places = find(kept)
    if array.ndim < 3 or places.ndim != 2 or array.shape[0] != places.shape[0]:
        raise ValueError(
            f"kept={kept!r} {places.shape} picks from tokens [B, N, ...], the target is "
            f"{array.shape}"
        )
    places = places.reshape(*places.shape, *(1,) * (array.ndim - 2))
    return (jnp.take_along_axis(array, places, axis=1),)


def lookup(path: str, *, forward: Forward, targets: Any, batch: Any, side: str = "student") -> Any:
    """The array that a path names.

    ``batch/<key>`` reads the batch and ``target/<key>`` the targets; ``out``, ``out/<key>`` and
    ``params/<path>`` read the student's forward pass, and any other path is one of its taps. With
    ``side="target"`` a path without such a prefix is a key of the targets.

    Raises:
        ValueError: if there is nothing under the path; the message lists what there is.
    """
    head, _, rest = path.partition("/")
    if head == "batch":
        if rest == "label" and isinstance(batch, Mapping) and rest not in batch:
            raise ValueError("it reads labels, and the records have none: take a loss without them")
        return _get(batch, rest, "key of the batch")
    if head == "target":
        return _get(targets, rest, "target")
    if side == "target":
        return _get(targets, path, "target")
    if head == "out":
        return _get(forward.out, rest, "output of the student") if rest else forward.out
    if head == "params":
        return functools.reduce(
            lambda tree, key: _get(tree, key, "parameter"), rest.split("/"), forward.params
        )
    return _get(forward.taps, path, "tap of the student")


def taps_of(*paths: str | None) -> tuple[str, ...]:
    """Those of some lookup paths that name taps of a net, each once."""
    fixed = ("out", "params", "batch", "target")
    return tuple(dict.fromkeys(path for path in paths if path and path.split("/")[0] not in fixed))


def _get(container: Any, key: str, kind: str) -> Any:
    from jaxdistill._errors import unknown

    if not isinstance(container, Mapping):
        raise ValueError(
            f"there is no {kind} named {key!r}: it is {type(container).__name__}, not a dict"
        )
    if key in container:
        return container[key]
    # Names may hold slashes themselves, such as those of merged targets.
    for place in (place for place, letter in enumerate(key) if letter == "/"):
        if key[:place] in container:
            return _get(container[key[:place]], key[place + 1 :], kind)
    raise ValueError(unknown(kind, key, container))


def _mismatch(student, target, feature, goal, projector, fault) -> str:
    shapes = f"student {student!r} {jnp.shape(feature)}"
    if goal:
        shapes += f" against target {target!r} {jnp.shape(goal[0])}"
    hint = ""
    if goal and projector is None and jnp.shape(feature) != jnp.shape(goal[0]):
        same_grid = jnp.shape(feature)[:-1] == jnp.shape(goal[0])[:-1]
        hint = f"; projector='{'linear' if same_grid else 'resize'}' would map one onto the other"
        if student == "out" and str(target).split("/")[-1] == "out":  # logits, not features
            hint = "; answers over other classes cannot be compared: take features, by taps"
    return f"{shapes}: {fault}{hint}"


def _stable_hash(name: str) -> int:
    import zlib

    return zlib.crc32(name.encode()) & 0x7FFFFFFF
