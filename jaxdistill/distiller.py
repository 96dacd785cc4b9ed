"""Distillers: an algorithm as pure functions, and the one step factory from model to model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill._errors import unknown
from jaxdistill.net import Net
from jaxdistill.objective import Objective, Term, as_objective, at, mean, weighted

Metrics = dict[str, tuple[jax.Array, jax.Array]]
# What a result is: a net's (params, state), arrays that are a data set, records that a teacher
# wrote, a choice (names, numbers, indices), or images.
Kind = Literal["net", "data_set", "records", "choice", "images"]


class Distiller(NamedTuple):
    """An algorithm of distillation, in the shape of ``optax.GradientTransformation``.

    Attributes:
        init: ``(key, frozen, batch) -> state``.
        step: ``(state, frozen, batch) -> (state, metrics)``; every metric is a pair (sum, count).
            The state has a field ``step``, the number of steps done. ``frozen`` (teacher weights,
            trajectories, scores) is an
            argument: never closed over, donated or differentiated.
        result: ``state -> result``, what the algorithm was for: a student's ``(params, state)``, a
            synthetic set.
        takes: how many batches one step eats; with more than one they are stacked on a new first
            axis, with 0 the batch is an empty dict.
        kind: what the result is. Export, restoring, pictures and reports ask for it.
    """

    init: Callable[..., Any]
    step: Callable[..., tuple[Any, Metrics]]
    result: Callable[[Any], Any]
    takes: int = 1
    kind: Kind = "net"


class Work(NamedTuple):
    """What trains nothing: a selection, a search, mining, records that a teacher writes.

    Attributes:
        run: ``(results, data, key) -> result``: the results of earlier stages by name, the sets of
            the stage by name, a key of its own. It runs on the host and may take long; what can
            be gone on with it keeps itself, in a store.
        kind: what the result is.
    """

    run: Callable[[Any, Any, jax.Array], Any]
    kind: Kind


class Whole(NamedTuple):
    """A target that has no examples, such as a teacher's head: microbatches are given all of it."""

    value: Any


class State(NamedTuple):
    """The state of :func:`model_to_model`.

    Attributes:
        step: how many steps were done, int32.
        key: the key of the run; the randomness of a step is drawn from ``fold_in(key, step)``.
        params: ``{"net": ..., "objective": ...}``, all that is trained.
        state: the same two parts of what moves without being trained: batch statistics, memory
            banks.
        opt: the optimizer's state over ``params``.
        ema: the running average of the student's ``(params, state)``, or None.
    """

    step: jax.Array
    key: jax.Array
    params: dict[str, Any]
    state: dict[str, Any]
    opt: Any
    ema: Any


def model_to_model(
    student: Net,
    targets: Callable[..., Any],
    objective: Objective | Callable,
    tx: optax.GradientTransformation,
    *,
    inputs: str = "image",
    taps: Sequence[str] = (),
    prepare: Callable[[Any, jax.Array], Any] | None = None,
    ema: float | Callable[[jax.Array], Any] | None = None,
    accumulate: int = 1,
    initial: str | None = None,
    returns: Literal["student", "ema"] = "student",
    gradient_norm: bool = False,
) -> Distiller:
    """Distils into a student net: the one step factory of knowledge distillation.

    Args:
        student: the net that is trained.
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
    objective = as_objective(objective)
    taps = tuple(taps)
    if accumulate < 1:
        raise ValueError(f"accumulate must be 1 or more microbatches, got {accumulate}")
    if returns not in ("student", "ema"):
        raise ValueError(unknown("result", returns, ("student", "ema")))
    if returns == "ema" and ema is None:
        raise ValueError("returns='ema' needs the decay of a running average: give ema")

    def sources(state: State, frozen):
        own = (state.params["net"], state.state["net"])
        return {
            **frozen,
            "ema": jax.lax.stop_gradient(state.ema),
            "self": jax.lax.stop_gradient(own),
        }

    def init(key, frozen, batch):
        key_net, key_objective, key_step = jax.random.split(key, 3)
        batch = prepare(batch, key_step) if prepare else batch
        params, net_state = student.init(key_net, batch[inputs])
        if initial is not None:
            if initial not in frozen:
                raise ValueError(unknown("initial student", initial, frozen))
            params, net_state = transplant((params, net_state), frozen[initial])
        average = jax.tree.map(jnp.copy, (params, net_state)) if ema is not None else None
        state = State(
            jnp.zeros((), jnp.int32), key, {"net": params}, {"net": net_state}, None, average
        )
        forward = student.apply(
            params, net_state, batch[inputs], taps=taps, train=True, rng=key_step
        )
        goal = targets(sources(state, frozen), batch, key_step, state.step)
        learned, moving = objective.init(key_objective, forward, goal, batch)
        params = {"net": params, "objective": learned}
        return state._replace(
            params=params, state={"net": net_state, "objective": moving}, opt=tx.init(params)
        )

    def forward_terms(params, moving, goal, batch, rng, step):
        forward = student.apply(
            params["net"], moving["net"], batch[inputs], taps=taps, train=True, rng=rng
        )
        terms, own = objective.terms(
            params["objective"], moving["objective"], forward, goal, batch, step=step
        )
        return terms, {"net": forward.state, "objective": own}

    def gradients(state: State, goal, batch, rng):
        def loss(params):
            terms, moving = forward_terms(params, state.state, goal, batch, rng, state.step)
            value, metrics = weighted(terms, state.step)
            return value, (metrics, moving)

        (_, (metrics, moving)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        return grads, metrics, moving

    def accumulated_gradients(state: State, goal, batch, rng):
        leaves, tree = jax.tree.flatten((goal, batch), is_leaf=_is_whole)
        micro = [None if _is_whole(x) else _microbatches(x, accumulate) for x in leaves]
        indices = jnp.arange(accumulate)

        def only_sums(params, moving, part):
            own, index = part
            goal, batch = tree.unflatten(
                [x if _is_whole(x) else cut for x, cut in zip(leaves, own, strict=True)]
            )
            terms, moving = forward_terms(
                params, moving, goal, batch, jax.random.fold_in(rng, index), state.step
            )
            _refuse_coupled(terms)
            return terms, moving

        # What is divided by must be known before the gradient. Of this first pass only what the
        # counts need is compiled: nothing of the nets, unless a count itself depends on them.
        def counting(moving, part):
            terms, moving = only_sums(state.params, moving, part)
            return moving, {
                name: jnp.asarray(term.count, jnp.float32) for name, term in terms.items()
            }

        _, counts = scan(counting, state.state, (micro, indices))
        counts = jax.lax.stop_gradient(jax.tree.map(lambda count: count.sum(0), counts))

        def one(carry, part):
            grads, moving = carry

            def loss(params):
                terms, new = only_sums(params, moving, part)
                shares = {
                    name: at(term.weight, state.step) * mean(jnp.asarray(term.total), counts[name])
                    for name, term in terms.items()
                }
                return sum(shares.values()), (
                    {n: jnp.asarray(t.total) for n, t in terms.items()},
                    new,
                )

            (value, (totals, moving)), new = jax.value_and_grad(loss, has_aux=True)(state.params)
            return (jax.tree.map(jnp.add, grads, new), moving), (value, totals)

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        (grads, moving), (values, totals) = scan(one, (zeros, state.state), (micro, indices))
        metrics = {name: (total.sum(0), counts[name]) for name, total in totals.items()}
        return grads, {"loss": (values.sum(), jnp.ones(())), **metrics}, moving

    def step(state: State, frozen, batch):
        key_prepare, key_targets, key_net = jax.random.split(
            jax.random.fold_in(state.key, state.step), 3
        )
        batch = prepare(batch, key_prepare) if prepare else batch
        goal = targets(sources(state, frozen), batch, key_targets, state.step)
        compute = gradients if accumulate == 1 else accumulated_gradients
        grads, metrics, moving = compute(state, goal, batch, key_net)
        if gradient_norm:
            metrics["gradient_norm"] = (optax.tree.norm(grads), jnp.ones(()))
        updates, opt = tx.update(grads, state.opt, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        average = state.ema
        if ema is not None:
            decay = at(ema, state.step + 1)
            average = _moved(average, (params["net"], moving["net"]), decay)
        return State(state.step + 1, state.key, params, moving, opt, average), metrics

    def result(state: State):
        return state.ema if returns == "ema" else (state.params["net"], state.state["net"])

    return Distiller(init, step, result)


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


def scan(body: Callable, carry: Any, xs: Any) -> tuple[Any, Any]:
    """``jax.lax.scan``, unrolled on CPU where the body has convolutions: there XLA runs those in
    loops 50 times slower."""
    unroll = jax.default_backend() == "cpu" and _convolves(body, carry, xs)
    return jax.lax.scan(body, carry, xs, unroll=unroll)


def for_each(function: Callable, xs: Any) -> Any:
    """``function`` of every row of ``xs``, all at once; on CPU one after another, which is faster
    there, unless it has convolutions, see :func:`scan`."""

    def body(carry, x):
        return carry, function(x)

    if jax.default_backend() == "cpu" and not _convolves(body, None, xs):
        return jax.lax.map(function, xs)
    return jax.vmap(function)(xs)


def _convolves(body: Callable, carry: Any, xs: Any) -> bool:
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
    return "conv_general_dilated" in str(jax.make_jaxpr(body)(carry, first))


def _is_whole(x: Any) -> bool:
    return isinstance(x, Whole)


def _microbatches(x: jax.Array, parts: int) -> jax.Array:
    if x.ndim == 0 or x.shape[0] % parts:
        raise ValueError(f"cannot cut an array of shape {x.shape} into {parts} microbatches")
    # Every microbatch takes rows from all over the batch, so that a batch sharded over devices
    # stays so.
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)


def _refuse_coupled(terms: dict[str, Term]) -> None:
    coupled = [name for name, term in terms.items() if term.coupled]
    if coupled:
        raise ValueError(
            f"terms {coupled} couple the examples of a batch: they are not the sum of their "
            "microbatches, so they refuse accumulate > 1; take a larger batch, or drop them"
        )


def _moved(average: Any, new: Any, decay: Any) -> Any:
    def move(old, value):
        if not jnp.issubdtype(value.dtype, jnp.inexact):
            return value
        return (decay * old + (1 - decay) * value).astype(value.dtype)

    return jax.tree.map(move, average, new)
