"""Distillers: an algorithm as pure functions, and the one step factory from model to model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill import gradients
from jaxdistill._errors import unknown
from jaxdistill.net import Net, check_function, described
from jaxdistill.objective import Objective, as_objective, at
from jaxdistill.settings import Count, Fraction, Scheduled

Metrics = dict[str, tuple[jax.Array, jax.Array]]
"""The metrics of a step: ``{name: (sum, count)}``."""
Kind = Literal["net", "data_set", "records", "choice", "images", "arrays"]
"""What a result is: a net's ``(params, state)``; a data set, see
:class:`jaxdistill.condense.Synthetic`; records that a teacher wrote, arrays of one length by name;
a choice (names, numbers, indices); images, rows ``[n, H, W, C]`` in [0, 1] by name; or other
arrays that later stages read.
"""
Student = Net | Callable[[Mapping[str, Any]], Net]
"""What is trained: a net, or a function from the frozen variables to a net, for a student that
shares weights with them (low-rank adapters on their teacher).
"""


class Distiller(NamedTuple):
    """An algorithm of distillation, in the shape of ``optax.GradientTransformation``.

    Attributes:
        init: ``(key, frozen, batch) -> state``.
        step: ``(state, frozen, batch) -> (state, metrics)``; every metric is a pair (sum, count).
            The state has a field ``step``, the number of steps done. ``frozen`` (teacher weights,
            trajectories, scores) is an argument: never closed over, donated or differentiated.
        result: ``state -> result``, what the algorithm was for: a student's ``(params, state)``, a
            synthetic set.
        takes: how many batches one step takes; with more than one they are stacked on a new first
            axis, with 0 the batch is an empty dict.
        kind: what the result is. Export, restoring, pictures and reports ask for it.
    """

    init: Callable[..., Any]
    step: Callable[..., tuple[Any, Metrics]]
    result: Callable[[Any], Any]
    takes: int = 1
    kind: Kind = "net"


class Work(NamedTuple):
    """An algorithm that trains nothing: a selection, a search, records that a teacher writes.

    Attributes:
        run: ``(results, data, key) -> result``: the results of earlier stages by name, the sets of
            the stage by name, a key of its own. It runs on the host and may take long. Numbers
            about a result that is no choice come beside it, as :class:`Reported`.
        kind: what the result is.
        metrics: the names of the numbers that a choice holds or that are reported, so that claims
            may ask for them.
        weighs: the entries of an objective that a choice of ``weights`` multiplies.
        made: makes the result from the arrays that it is stored as, by name.
        keeps: whether ``run`` is given ``folder=``, a path of its own beside its result (None where
            nothing is kept), in which it keeps what people read and what it needs to resume.
    """

    run: Callable[[Any, Any, jax.Array], Any]
    kind: Kind
    metrics: tuple[str, ...] = ()
    weighs: tuple[str, ...] = ()
    made: Callable[..., Any] = dict
    keeps: bool = False


class Reported(NamedTuple):
    """What a work leaves, with numbers about it.

    Attributes:
        result: of the kind of the work.
        numbers: finite, by name; they are reported as ``<kind>/<name>``.
    """

    result: Any
    numbers: Mapping[str, float]


class State(NamedTuple):
    """The state of :func:`model_to_model`, and of :func:`~jaxdistill.players.players`.

    Attributes:
        step: how many steps were done, int32.
        key: the key of the run; the randomness of a step is drawn from ``fold_in(key, step)``.
        params: all that is trained, by part: ``{"net": ..., "objective": ...}``, or the parts that
            players train.
        state: the same parts, of what changes without training: batch statistics, memory banks.
        opt: the optimizer's state over ``params``; of players one for each of them.
        ema: the running average of the student's ``(params, state)``, or None; of players those of
            the parts that have one.
    """

    step: jax.Array
    key: jax.Array
    params: dict[str, Any]
    state: dict[str, Any]
    opt: Any
    ema: Any


def _check_optimizer(tx):
    if not callable(getattr(tx, "init", None)) or not callable(getattr(tx, "update", None)):
        raise TypeError(
            f"tx must be an optimizer of optax, such as optax.adam(1e-3), not {described(tx)}"
        )


def model_to_model(
    student: Student,
    targets: Callable[..., Any],
    objective: Objective | Callable,
    tx: optax.GradientTransformation,
    *,
    inputs: str = "image",
    taps: Sequence[str] = (),
    prepare: Callable[[Any, jax.Array], Any] | None = None,
    ema: Scheduled[Fraction] | None = None,
    accumulate: Count = 1,
    initial: str | None = None,
    returns: Literal["student", "ema"] = "student",
    gradient_norm: bool = False,
) -> Distiller:
    """Distils into a student net: the one step factory of knowledge distillation.

    Args:
        student: the net that is trained, or a function of the frozen variables to it.
        targets: ``(sources, batch, key, step) -> dict``, what it learns from, see
            :mod:`jaxdistill.targets`. ``sources`` holds ``frozen`` and, stopped, ``"ema"`` and
            ``"self"``.
        objective: an :class:`~jaxdistill.objective.Objective`, or a function
            ``(forward, targets, batch) -> {name: Term}``.
        tx: the optimizer, over ``{"net": ..., "objective": ...}``.
        inputs: which entry of the batch the student sees.
        taps: which of its features the objective reads.
        prepare: ``(batch, key) -> batch``, what both nets must share, drawn once before either
            runs: a view, a mask.
        ema: decay of the student's running average, a number or a schedule over the number of steps
            done.
        accumulate: into how many microbatches a batch is cut. Sums and counts are added over all of
            them before anything is divided, so the gradient is that of the whole batch;
            batch-coupled terms refuse it.
        initial: the name in the frozen variables that are given to ``init`` of ``(params, state)``
            to start from. Where its trees lack an entry, the student's own start is kept.
        returns: whether the result is the student or its running average.
        gradient_norm: whether the norm of the gradient is measured, one more pass over it.

    Returns:
        A :class:`Distiller` with :class:`State`, whose result is the student's ``(params, state)``.

    Example:
        >>> from jaxdistill.frameworks.linen import from_linen
        >>> from jaxdistill.objective import per_example
        >>> import flax.linen as nn
        >>> net = from_linen(nn.Dense(3))
        >>> teacher = net.init(jax.random.key(0), jnp.ones((4, 2)))
        >>> distiller = model_to_model(
        ...     net,
        ...     lambda sources, batch, *_: net.apply(*sources["teacher"], batch["image"]).out,
        ...     lambda forward, goal, batch: {
        ...         "l2": per_example(1.0, ((forward.out - goal) ** 2).mean(-1))
        ...     },
        ...     optax.sgd(0.1),
        ... )
        >>> frozen, batch = {"teacher": teacher}, {"image": jnp.ones((4, 2))}
        >>> state = distiller.init(jax.random.key(1), frozen, batch)
        >>> state, metrics = distiller.step(state, frozen, batch)
        >>> int(state.step), sorted(metrics)
        (1, ['l2', 'loss'])
    """
    if not isinstance(student, Net):
        check_function("student", student, "of what is frozen to a net, or a Net")
    check_function("targets", targets, "(sources, batch, key, step) -> dict, see targets.live")
    objective = as_objective(objective)
    _check_optimizer(tx)
    gradients_of = gradients.accumulated(accumulate)
    taps = tuple(taps)
    if returns not in ("student", "ema"):
        raise ValueError(unknown("result", returns, ("student", "ema")))
    if returns == "ema" and ema is None:
        raise ValueError("returns='ema' needs the decay of a running average: give ema")

    def forward(frozen, own, batch, rng):
        return net_of(student, frozen).apply(*own, batch[inputs], taps=taps, train=True, rng=rng)

    def init(key, frozen, batch):
        key_net, key_objective, key_step = jax.random.split(key, 3)
        batch = prepare(batch, key_step) if prepare else batch
        own = net_of(student, frozen).init(key_net, batch[inputs])
        if initial is not None:
            own = transplant(own, entry("initial student", initial, frozen))
        average = jax.tree.map(jnp.copy, own) if ema is not None else None
        seen = forward(frozen, own, batch, key_step)
        start = jnp.zeros((), jnp.int32)
        goal = targets(_sources(frozen, own, average), batch, key_step, start)
        learned, kept = objective.init(key_objective, seen, goal, batch)
        params = {"net": own[0], "objective": learned}
        moving = {"net": own[1], "objective": kept}
        return State(start, key, params, moving, tx.init(params), average)

    def step(state: State, frozen, batch):
        key = jax.random.fold_in(state.key, state.step)
        key_prepare, key_targets, key_net = jax.random.split(key, 3)
        batch = prepare(batch, key_prepare) if prepare else batch
        sources = _sources(frozen, (state.params["net"], state.state["net"]), state.ema)
        goal = targets(sources, batch, key_targets, state.step)

        def terms(params, moving, goal, batch, rng):
            seen = forward(frozen, (params["net"], moving["net"]), batch, rng)
            found, kept = objective.terms(
                params["objective"], moving["objective"], seen, goal, batch, step=state.step
            )
            return found, {"net": seen.state, "objective": kept}

        grads, metrics, moving = gradients_of(terms, state, goal, batch, key_net)
        if gradient_norm:
            metrics["gradient_norm"] = (optax.tree.norm(grads), jnp.ones(()))
        params, opt = advance(tx, state.params, state.opt, grads)
        average = averaged(ema, state.ema, (params["net"], moving["net"]), state.step)
        return State(state.step + 1, state.key, params, moving, opt, average), metrics

    def result(state: State):
        return state.ema if returns == "ema" else (state.params["net"], state.state["net"])

    return Distiller(init, step, result)


def net_of(student: Student, frozen: Mapping[str, Any]) -> Net:
    """The net of a student that may be built on what is frozen."""
    return student if isinstance(student, Net) else student(frozen)


def on_shared(make: Callable[[Net], Distiller], student: Student) -> Distiller:
    """An algorithm for a net, for a student that may be built on what is frozen instead.

    Args:
        make: gives the algorithm for a net; at every call it is made anew, for the net that the
            student is on what was given. Its ``result`` may not depend on the net.
        student: the net, or a function of the frozen variables to it.
    """
    if isinstance(student, Net):
        return make(student)
    said = make(with_base(student, ("what is frozen",)))

    def of(frozen: Any) -> Distiller:
        net = student(frozen)
        # What a config says is checked by its values, also while a step is traced.
        with jax.ensure_compile_time_eval():
            return make(net)

    def init(key: Any, frozen: Any, batch: Any) -> Any:
        return of(frozen).init(key, frozen, batch)

    def step(state: Any, frozen: Any, batch: Any) -> tuple[Any, Metrics]:
        return of(frozen).step(state, frozen, batch)

    return said._replace(init=init, step=step)


def with_base(
    student: Callable[[Mapping[str, Any]], Net],
    names: Sequence[str],
    nets: Mapping[str, Net] | None = None,
) -> Net:
    """A student that is built on what is frozen, as a net of both: its parameters are
    ``{"own": ..., "base": {name: variables}}``, see :func:`on_base`. Its ``back`` is that of the
    student; given the nets of these names, it has a start, too."""

    def init(key: Any, inputs: Any) -> Any:
        if nets is None or any(name not in nets for name in names):
            raise ValueError(f"a net that shares weights with {', '.join(names)} starts from these")
        base = {name: nets[name].init(key, inputs) for name in names}
        own, state = student(base).init(key, inputs)
        return {"own": own, "base": base}, state

    def apply(params: Any, state: Any, inputs: Any, **how: Any) -> Any:
        return student(params["base"]).apply(params["own"], state, inputs, **how)

    def back(variables: Any) -> Any:
        params, state = variables
        return student(params["base"]).back((params["own"], state))

    return Net(init, apply, back)


def on_base(result: Any, frozen: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The variables of :func:`with_base`: those of a student and those that it is built on, which
    stay where they are."""
    params, state = result
    return {"own": params, "base": {name: frozen[name] for name in names}}, state


def entry(kind: str, name: str, frozen: Mapping[str, Any]) -> Any:
    """The frozen variables of a name.

    Raises:
        ValueError: if there are none; ``kind`` says what they should have been.
    """
    if name not in frozen:
        raise ValueError(unknown(kind, name, frozen))
    return frozen[name]


def advance(tx: optax.GradientTransformation, params: Any, opt: Any, grads: Any) -> tuple[Any, Any]:
    """Parameters and the optimizer's state after one update."""
    updates, opt = tx.update(grads, opt, params)
    return optax.apply_updates(params, updates), opt


def averaged(decay: Any, average: Any, new: Any, step: jax.Array) -> Any:
    """A running average after a step, or None where there is no decay; integers are copied."""
    if decay is None:
        return None
    share = at(decay, step + 1)

    def move(old, value):
        if not jnp.issubdtype(value.dtype, jnp.inexact):
            return value
        return (share * old + (1 - share) * value).astype(value.dtype)

    return jax.tree.map(move, average, new)


def _sources(frozen: Mapping[str, Any], own: Any, average: Any) -> dict[str, Any]:
    """What targets are made of."""
    return {
        **frozen,
        "ema": jax.lax.stop_gradient(average),
        "self": jax.lax.stop_gradient(own),
    }


def transplant(own: Any, given: Any) -> Any:
    """A tree of arrays with those entries replaced that a given tree has under the same path.

    Args:
        own: nested dicts (or tuples of them) of arrays.
        given: the same, with some of the entries; it may hold no others.

    Raises:
        ValueError: listing all paths of ``given`` that ``own`` lacks, and all whose shapes differ.

    Example:
        >>> transplant({"a": jnp.zeros(2), "b": jnp.zeros(1)}, {"a": jnp.ones(2)})
        {'a': Array([1., 1.], dtype=float32), 'b': Array([0.], dtype=float32)}
    """
    faults: list[str] = []

    def walk(own: Any, given: Any, path: list[str]) -> Any:
        here, there = own, given
        if isinstance(own, dict) and isinstance(given, dict):
            for extra in sorted(given.keys() - own.keys()):
                faults.append(f"- {'/'.join([*path, extra])}: the student has no such entry")
            return {
                k: walk(v, given[k], [*path, str(k)]) if k in given else v for k, v in own.items()
            }
        if isinstance(own, tuple) and isinstance(given, tuple) and len(own) == len(given):
            return tuple(walk(a, b, path) for a, b in zip(own, given, strict=True))
        if jnp.shape(here) != jnp.shape(there):
            faults.append(f"- {'/'.join(path)}: {jnp.shape(here)} here, {jnp.shape(there)} given")
            return here
        return jnp.asarray(there, here.dtype)

    grown = walk(own, given, [])
    if faults:
        raise ValueError("the initial student does not fit:\n" + "\n".join(faults))
    return grown
