"""Nets from Flax NNX modules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast, overload

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

from jaxdistill.net import (
    Forward,
    Net,
    Trained,
    as_taps,
    caller,
    described,
    feature,
    foreign,
    pick,
    split_index,
    unknown_tap,
    variables_of,
)

Call = Callable[[Any, Any, bool], Any]
"""How a model is called: ``(model, inputs, train) -> output``."""
# A module's GraphDef, and by path its parameters, its other variables and its random streams.
_Parts = tuple[Any, dict, dict, dict]


@overload
def from_nnx(given: nnx.Module, *, call: Call | None = None) -> Trained: ...
@overload
def from_nnx(given: Callable[..., Any], *, call: Call | None = None) -> Net: ...
def from_nnx(given: nnx.Module | Callable[..., Any], *, call: Call | None = None) -> Net | Trained:
    """A net from what builds a Flax NNX module, or the net and the variables of a trained one.

    The parameters are the variables of type ``nnx.Param``, the state is all others
    (``nnx.BatchStat``, ...) without the random streams, which are rebuilt from ``rng`` at every
    call. The module is called with the inputs, one pytree, after its ``train()`` or ``eval()``; a
    keyword for it is passed as for Linen. In evaluation mode the state comes back as it was given,
    but for variables of type ``nnx.Cache``.

    A tap is the path of attributes to a layer (``"layers/0"``), or to a value that a layer sows as
    ``nnx.Intermediate``. Layers inside ``nnx.scan`` are tapped all together, stacked on a new first
    axis (``"layers/dense"``), or one by one (``"layers/dense[3]"``).

    Args:
        given: a module; or a class or function that makes one from ``nnx.Rngs``, which is traced
            once without computing anything, for the structure of the module, so that such a net
            also works where only its variables were restored.
        call: ``(module, inputs, train) -> out``, for a module that is called in another way.

    Returns:
        From a builder a :class:`~jaxdistill.net.Net`; from a module a
        :class:`~jaxdistill.net.Trained` of the net and its ``(params, state)``. ``net.back`` makes
        a module of such a pair.

    Raises:
        TypeError: for anything else, saying what it was and what to call.
        TapError: at ``apply``, if a tap names no layer, or a layer that was not called exactly
            once.
        ValueError: at ``apply``, if a random stream is used and there is no ``rng``.

    Example:
        >>> from flax import nnx
        >>> net = from_nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
        >>> params, state = net.init(jax.random.key(0), None)
        >>> net.apply(params, state, jax.numpy.ones((8, 3))).out.shape
        (8, 2)
        >>> net, variables = from_nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
        >>> net.back(variables)(jax.numpy.ones((8, 3))).shape
        (8, 2)
    """
    if isinstance(given, nnx.Module):
        _, params, state, _ = _split(given)
        variables = _tree(params), _tree(state)
        structure = _split(nnx.eval_shape(lambda: nnx.clone(given)))
        return Trained(_net(lambda: structure, lambda key, inputs: variables, call), variables)
    if not callable(given) or foreign(given):
        raise TypeError(
            f"from_nnx takes an NNX module, or what makes one from nnx.Rngs, not {described(given)}"
        )

    def built(rngs: nnx.Rngs) -> nnx.Module:
        module = given(rngs)
        if not isinstance(module, nnx.Module):
            raise TypeError(f"what from_nnx was given makes {described(module)}, no NNX module")
        return module

    def init(key, inputs):
        del inputs  # an NNX module knows its shapes
        _, params, state, _ = _split(built(nnx.Rngs(key)))
        return _tree(params), _tree(state)

    return _net(lambda: _split(nnx.eval_shape(lambda: built(nnx.Rngs(0)))), init, call)


def _net(split: Callable[[], _Parts], init: Callable[..., Any], call: Call | None) -> Net:
    """The net of a module whose parts are known once they are needed."""
    structure = functools.cache(split)

    def apply(params, state, inputs, *, taps=(), train=False, rng=None):
        taps = as_taps(taps)
        graphdef, own_params, own_state, streams = structure()
        leaves = _fill(own_params, params) | _fill(own_state, state) | _keys(streams, rng)
        # Without the copy, a module under jax.grad would write into variables that were made
        # outside of it.
        module = nnx.merge(graphdef, nnx.from_flat_state(leaves), copy=True)
        if rng is None:
            _lock(module)
        module.train() if train else module.eval()

        layers = {"/".join(_names(path)): layer for path, layer in nnx.iter_modules(module) if path}
        for path in {split_index(tap)[0] for tap in taps} & layers.keys():
            # The module is a copy of our own, so its layers may be made to record without harm to
            # any other.
            layers[path].__class__ = _recording(type(layers[path]))
        run = call or caller(module)
        # Outside of nnx.capture, what a module sows would become a part of it.
        out, sown = nnx.capture(lambda module: run(module, inputs, train), nnx.Intermediate)(module)
        seen: Any = traverse_util.flatten_dict(_tree(_flat(sown)), sep="/")
        found = {tap: _tap(tap, seen, layers) for tap in taps}

        after = _split(module)[2]
        moves = object if train else nnx.Cache
        moved = {p: after[p] if isinstance(own_state[p], moves) else leaves[p] for p in own_state}
        return Forward(out, found, _tree(moved), params)

    def back(variables):
        graphdef, own_params, own_state, streams = structure()
        params, state = variables_of("the result", variables)
        leaves = _fill(own_params, params) | _fill(own_state, state) | _keys(streams, None)
        module = nnx.merge(graphdef, nnx.from_flat_state(leaves), copy=True)
        module.eval()
        return module

    return Net(init, apply, back)


class _NoKey(nnx.RngKey):
    """A key that was not given: reading it is an error."""

    def get_value(self, **_):
        raise ValueError("the net draws random numbers (dropout, say): its apply needs rng")


@functools.cache
def _recording(cls: type) -> type:
    """A layer's class, made to sow what it puts out; cached, as NNX keeps every class for good."""

    def __call__(self, *args, **kwargs):
        out = cls.__call__(self, *args, **kwargs)
        self.sow(nnx.Intermediate, "__call__", out)
        return out

    return type(cls.__name__, (cls,), {"__call__": __call__})


def _split(module: Any) -> _Parts:
    graphdef, params, streams, state = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return graphdef, _flat(params), _flat(state), _flat(streams)


def _flat(state: Any) -> dict[tuple, Any]:
    return dict(nnx.to_flat_state(state))


def _names(path: tuple) -> tuple[str, ...]:
    return tuple(map(str, path))


def _value(leaf: Any) -> Any:
    return leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf


def _tree(flat: Mapping[tuple, Any]) -> dict:
    """Variables by path as nested dicts of arrays; numbers of layers in lists become strings."""
    return traverse_util.unflatten_dict({_names(path): _value(leaf) for path, leaf in flat.items()})


def _fill(own: Mapping[tuple, Any], tree: Mapping) -> dict[tuple, Any]:
    given = pick(traverse_util.flatten_dict(tree), map(_names, own))
    return {path: given[_names(path)] for path in own}


def _keys(streams: Mapping[tuple, Any], rng: jax.Array | None) -> dict[tuple, Any]:
    """The state of all random streams: every key is drawn from ``rng``, every counter is zero."""
    rng = jax.random.key(0) if rng is None else rng
    if not jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
        rng = jax.random.wrap_key_data(rng)

    def fresh(position, leaf):
        if isinstance(leaf, nnx.RngKey):
            key = jax.random.fold_in(cast(jax.Array, rng), position)
            return jax.random.split(key, leaf.shape) if leaf.shape else key
        return jnp.zeros(leaf.shape, leaf.dtype)

    return {path: fresh(i, leaf) for i, (path, leaf) in enumerate(streams.items())}


def _lock(module: Any) -> None:
    for _, node in nnx.iter_graph(module):
        if isinstance(node, nnx.RngStream):
            node.key = _NoKey(node.key.get_value(), tag=node.tag)


def _tap(tap: str, seen: Mapping[str, tuple], layers: Mapping[str, Any]) -> Any:
    path = split_index(tap)[0]
    fired = seen.get(f"{path}/__call__", seen.get(path))
    if fired is None and path not in layers:
        sown = {name for name in seen if not name.endswith("/__call__")}
        raise unknown_tap(tap, {*layers, *sown})
    return feature(tap, fired or ())
