"""Nets from Equinox modules; importing this without the extra ``equinox`` says so."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args, overload

try:
    import equinox as eqx
except ModuleNotFoundError as error:
    if error.name != "equinox":
        raise
    raise ImportError("from_equinox needs Equinox: pip install 'jaxdistill[equinox]'") from error
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.extend.core import get_opaque_trace_state

from jaxdistill._errors import unknown
from jaxdistill.net import (
    Forward,
    Net,
    TapError,
    Trained,
    as_taps,
    described,
    feature,
    foreign,
    pick,
    unknown_tap,
    variables_of,
)

Call = Callable[[Any, Any, Any, Any], tuple[Any, Any]]
"""How a model is called: ``(model, inputs, state, key) -> (output, state)``."""

Channels = Literal["last", "first"]
"""Where the features of a model have their channels."""


@overload
def from_equinox(
    given: eqx.Module,
    state: eqx.nn.State | None = None,
    *,
    batched: bool = False,
    call: Call | None = None,
    channels: Channels = "last",
) -> Trained: ...
@overload
def from_equinox(
    given: Callable[[jax.Array], Any],
    *,
    batched: bool = False,
    call: Call | None = None,
    channels: Channels = "last",
) -> Net: ...
def from_equinox(
    given: eqx.Module | Callable[[jax.Array], Any],
    state: eqx.nn.State | None = None,
    *,
    batched: bool = False,
    call: Call | None = None,
    channels: Channels = "last",
) -> Net | Trained:
    """A net from what builds an Equinox module, or the net and the variables of a trained one.

    The parameters are the floating point arrays of the module, by the path of attributes; the state
    is its other arrays and whatever ``equinox.nn.StateIndex`` holds (the statistics of
    ``equinox.nn.BatchNorm``). Equinox models take one example: they run under ``jax.vmap`` with
    ``axis_name="batch"``, each example with its own key. In evaluation mode the module goes through
    ``equinox.nn.inference_mode`` and the state comes back as it was given.

    A tap is the path of attributes to a layer (``"layers/0"``); a stateful layer is tapped without
    its state. Inside a transformation of the model's own (``jax.lax.scan`` over layers,
    ``jax.checkpoint``) no layer can be tapped.

    Args:
        given: a module; or a class or function that makes one from a key, or what
            ``equinox.nn.make_with_state`` makes of it.
        state: of a module that has one: what ``equinox.nn.make_with_state`` gave beside it, after
            training.
        batched: whether the model takes the whole batch itself, so that there is no ``jax.vmap``.
        call: ``(model, inputs, state, key) -> (out, state)``, for a model that is called in another
            way; else it gets ``state`` and ``key`` if its ``__call__`` takes them.
        channels: ``"first"`` where taps are grids ``[C, H, W]`` of an example, as those of
            Equinox's convolutions are: losses, projectors and the taps of other nets have channels
            last, and so they are handed on. Taps of fewer axes, and the output, stay as they are.

    Returns:
        From a builder a :class:`~jaxdistill.net.Net`; from a module a
        :class:`~jaxdistill.net.Trained` of the net and its ``(params, state)``. ``net.back`` makes
        a module of such a pair, or ``(module, state)`` of one that has a state.

    Raises:
        TypeError: for anything else, saying what it was and what to call.
        ValueError: for a module without the state that it needs, or half of a module; for a place
            of channels that is none.
        TapError: at ``apply``, if a tap names no layer, or a layer that was not called exactly
            once.

    Example:
        >>> import equinox as eqx
        >>> net = from_equinox(lambda key: eqx.nn.Linear(3, 2, key=key))
        >>> params, state = net.init(jax.random.key(0), None)
        >>> net.apply(params, state, jax.numpy.ones((8, 3))).out.shape
        (8, 2)
        >>> net, variables = from_equinox(eqx.nn.Linear(3, 2, key=jax.random.key(0)))
        >>> net.back(variables)(jax.numpy.ones(3)).shape
        (2,)
    """
    if channels not in get_args(Channels):
        raise ValueError(unknown("place of channels", channels, get_args(Channels)))
    how = _How(batched, call, channels)
    if isinstance(given, eqx.Module):
        model, memory = _whole(given, state)
        variables = _trees(model, memory)
        shapes = eqx.filter_eval_shape(lambda: (model, memory))
        own = _net(lambda: shapes, lambda key, inputs: variables, how)
        return Trained(own, variables)
    if not callable(given) or foreign(given) or state is not None:
        raise TypeError(
            "from_equinox takes an Equinox module, with its state if it has one, or what makes one "
            f"from a key, not {described(given)}"
        )

    def checked(model):
        if call is None and not isinstance(model, eqx.Module):
            raise TypeError(f"what from_equinox was given makes {described(model)}, no module")
        return model

    def construct(key):
        made = given(key)
        # Equinox users have their own way to say what make_with_state says.
        if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], eqx.nn.State):
            return checked(made[0]), made[1]
        return eqx.nn.make_with_state(lambda: checked(made))()

    def init(key, inputs):
        del inputs  # an Equinox module knows its shapes
        return _trees(*construct(key))

    return _net(lambda: eqx.filter_eval_shape(construct, jax.random.key(0)), init, how)


def _whole(model: Any, state: Any) -> tuple[Any, eqx.nn.State]:
    """A trained model and its state, checked."""
    if state is not None and not isinstance(state, eqx.nn.State):
        raise TypeError(
            f"the state of a module must be an equinox.nn.State, not {described(state)}"
        )
    # What was read from a file may be arrays of numpy.
    model = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, model)
    stateful = any(map(_is_index, jax.tree.leaves(model, is_leaf=_is_index)))
    if stateful and state is None:
        raise ValueError(
            f"{type(model).__name__} has a state that was not given: from_equinox(model, state) "
            "with the two that equinox.nn.make_with_state made, after training"
        )
    for path, layer in [((), model), *_layers(model)]:
        for field in dataclasses.fields(layer):
            kind = str(field.type)
            needed = re.search("Array|Callable", kind) and not re.search("None|Optional", kind)
            if needed and getattr(layer, field.name) is None:
                place = "/".join((*_names(path), field.name))
                raise ValueError(
                    f"{place!r} is None: this is half of a model, and equinox.combine(half, other) "
                    "gives it back"
                )
    return model, eqx.nn.State(model) if state is None else state


class _How(NamedTuple):
    """How a model is called, and how its features are handed on."""

    batched: bool
    call: Call | None
    channels: Channels


def _net(split: Callable[[], tuple[Any, eqx.nn.State]], init: Callable[..., Any], how: _How) -> Net:
    """The net of a model and its state, of which the structure is known once it is needed."""
    structure = functools.cache(split)

    def apply(params, state, inputs, *, taps=(), train=False, rng=None):
        taps = as_taps(taps)
        model, memory = structure()
        model, memory = _fill(model, memory, params, state)
        model = eqx.nn.inference_mode(model, value=not train)
        run = how.call or _caller(model)

        def one(inputs, key):
            recording, seen = _record(model, taps)
            out, moved = run(recording, inputs, memory, key)
            return out, {tap: feature(tap, seen[tap]) for tap in taps}, moved

        if how.batched:
            out, found, moved = one(inputs, rng)
        else:
            keys = None if rng is None else jax.random.split(rng, _batch_size(inputs))
            axes = (0, None if rng is None else 0)
            # Statistics over the axis are the same for every example, so the state has no such
            # axis.
            over_batch = jax.vmap(one, axes, (0, 0, None), axis_name="batch")
            out, found, moved = over_batch(inputs, keys)
        if how.channels == "first":
            found = jax.tree.map(lambda x: jnp.moveaxis(x, 1, -1) if x.ndim > 3 else x, found)
        return Forward(out, found, _trees(model, moved)[1] if train else state, params)

    def back(variables):
        model, memory = _fill(*structure(), *variables_of("the result", variables))
        model = eqx.nn.inference_mode(model)
        return (model, memory) if _named_memory(model, memory) else model

    return Net(init, apply, back)


def _caller(model: Any) -> Callable[[Any, Any, Any, Any], tuple[Any, Any]]:
    takes = inspect.signature(type(model).__call__).parameters

    def call(model, inputs, state, key):
        keyword = {"key": key} if "key" in takes else {}
        if "state" in takes:
            return model(inputs, state=state, **keyword)
        return model(inputs, **keyword), state

    return call


def _batch_size(inputs: Any) -> int:
    return jax.tree.leaves(inputs)[0].shape[0]


# --- Variables: what a model and its equinox.nn.State hold, by the names of attributes.


def _names(path: tuple) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((entry,), simple=True) for entry in path)


def _is_index(node: Any) -> bool:
    return isinstance(node, eqx.nn.StateIndex)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)


def _named(tree: Any) -> dict[tuple[str, ...], Any]:
    return {_names(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _named_memory(model: Any, memory: eqx.nn.State) -> dict[tuple[str, ...], Any]:
    """What the state holds by the path of the index to it, in the order of the state's leaves."""
    nodes = jax.tree_util.tree_leaves_with_path(model, is_leaf=_is_index)
    return {
        (*_names(path), *names): leaf
        for path, index in nodes
        if _is_index(index)
        for names, leaf in _named(memory.get(index)).items()
    }


def _trees(model: Any, memory: eqx.nn.State) -> tuple[dict, dict]:
    arrays = {path: leaf for path, leaf in _named(model).items() if _is_array(leaf)}
    params = {p: x for p, x in arrays.items() if jnp.issubdtype(x.dtype, jnp.inexact)}
    others = {p: x for p, x in arrays.items() if p not in params}
    state = others | _named_memory(model, memory)
    return traverse_util.unflatten_dict(params), traverse_util.unflatten_dict(state)


def _fill(
    model: Any, memory: eqx.nn.State, params: Mapping, state: Mapping
) -> tuple[Any, eqx.nn.State]:
    given = traverse_util.flatten_dict(params) | traverse_util.flatten_dict(state)
    named = _named(model)
    own = pick(given, [path for path, leaf in named.items() if _is_array(leaf)])
    leaves = [own.get(path, leaf) for path, leaf in named.items()]
    values = list(pick(given, _named_memory(model, memory)).values())
    return (
        jax.tree.unflatten(jax.tree.structure(model), leaves),
        jax.tree.unflatten(jax.tree.structure(memory), values),
    )


# --- Taps: layers that report what they put out.


def _layers(node: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """All layers inside a node, with the path to each."""
    children = jax.tree_util.tree_leaves_with_path(node, is_leaf=lambda child: child is not node)
    for (entry,), child in children:
        if isinstance(child, eqx.Module) and callable(child):
            yield (*path, entry), child
        if not jax.tree_util.all_leaves([child]):
            yield from _layers(child, (*path, entry))


def _record(model: Any, taps: tuple[str, ...]) -> tuple[Any, dict[str, list]]:
    """The model with its tapped layers made to report, and the lists they report to."""
    paths = {"/".join(_names(path)): path for path, _ in _layers(model)}
    outside = get_opaque_trace_state(convention="jaxdistill")
    seen: dict[str, list] = {tap: [] for tap in taps}

    def report(tap, out):
        if get_opaque_trace_state(convention="jaxdistill") != outside:
            raise TapError(
                f"tap {tap!r} is inside a transformation of the model's own (scan, vmap, "
                "checkpoint, jit), and only the model can hand anything out of it: tap a layer "
                "outside it, or unroll it"
            )
        stateful = isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], eqx.nn.State)
        seen[tap].append(out[0] if stateful else out)

    for tap in sorted(
        taps, key=lambda tap: -tap.count("/")
    ):  # inner layers before those around them
        if tap not in paths:
            raise unknown_tap(tap, paths)
        model = eqx.tree_at(
            functools.partial(_at, paths[tap]),
            model,
            replace_fn=functools.partial(_reporting, functools.partial(report, tap)),
        )
    return model, seen


def _at(path: tuple, node: Any) -> Any:
    for entry in path:
        if isinstance(entry, jax.tree_util.GetAttrKey):
            node = getattr(node, entry.name)
        else:
            node = node[entry.key if isinstance(entry, jax.tree_util.DictKey) else entry.idx]
    return node


def _reporting(report: Callable[[Any], None], layer: Any) -> Any:
    reporting = object.__new__(_reporter(type(layer)))
    for field in dataclasses.fields(layer):
        object.__setattr__(reporting, field.name, getattr(layer, field.name))
    object.__setattr__(reporting, "report_", report)
    return reporting


@functools.cache
def _reporter(cls: type) -> type:
    """A layer's class, made to report: a subclass, as models ask their layers for their type."""

    class Reporter(cls):
        report_: Callable[[Any], None] = eqx.field(static=True, kw_only=True)

        def __call__(self, *args, **kwargs):
            out = cls.__call__(self, *args, **kwargs)
            self.report_(out)
            return out

    return Reporter
