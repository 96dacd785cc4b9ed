"""Nets from Flax Linen modules."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any, overload

import jax
from flax import errors, traverse_util
from flax import linen as nn
from flax.core import unfreeze

from jaxdistill.net import (
    Forward,
    Net,
    TapError,
    Trained,
    as_taps,
    caller,
    described,
    feature,
    split_index,
    unknown_tap,
    variables_of,
)

# Collections of Linen that hold what a call saw, not what it remembers.
_SEEN = ("intermediates", "perturbations")


Call = Callable[[Any, Any, bool], Any]
"""How a module is called: ``(module, inputs, train) -> output``."""


@overload
def from_linen(module: nn.Module, *, call: Call | None = None) -> Net: ...
@overload
def from_linen(
    module: nn.Module, variables: Mapping[str, Any], *, call: Call | None = None
) -> Trained: ...
def from_linen(
    module: nn.Module, variables: Mapping[str, Any] | None = None, *, call: Call | None = None
) -> Net | Trained:
    """A net from a Flax Linen module, or, given its variables too, the net and these.

    The inputs are one pytree, the single positional argument of the module. Whether it trains is
    passed as the keyword that its ``__call__`` takes: ``train``, or ``deterministic`` or
    ``use_running_average`` (the opposite), or not at all. ``rng`` serves every name that the module
    asks a key for (``dropout``, ``droppath``, ...).

    The state is every collection that ``init`` leaves besides the parameters and what is merely
    recorded (``intermediates``, ``perturbations``, and collections of values that are sown). In
    evaluation mode it comes back as it was given, but for the collection ``cache``, where decoders
    keep their keys and values.

    A tap is the output of a module (``"encoder/block_3"``), or a value that a module sows into
    ``intermediates`` (``"encoder/block_3/weights"``). Layers inside ``nn.scan`` with
    ``"intermediates"`` in its ``variable_axes`` are tapped all together, stacked on a new first
    axis (``"layers/dense"``), or one by one (``"layers/dense[3]"``).

    Args:
        module: a module that is not bound. If it has a method ``for_taps(taps) -> module``, that is
            called before it is applied, so that it can arrange itself around the tapped layers; it
            must keep its parameters.
        variables: of a module that has been trained, ``{"params": ..., "batch_stats": ...}``.
        call: ``(module, inputs, train) -> out``, for a module that is called in another way.

    Returns:
        A :class:`~jaxdistill.net.Net`; with variables a :class:`~jaxdistill.net.Trained` of the
        net and its ``(params, state)``. ``net.back`` gives such a dict of variables.

    Raises:
        TypeError: for anything but a module and a dict of variables, saying what it was.
        ValueError: at ``apply``, if the module reads a collection that its variables lack.
        TapError: at ``apply``, if a tap names no layer, or a layer that was called more than once.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"from_linen takes a Flax Linen module, not {described(module)}")
    if module.scope is not None:
        raise TypeError("from_linen takes a module that is not bound: from_linen(*module.unbind())")
    call = call or caller(module)

    def init(key, inputs):
        return _parts(module.init(key, inputs, False, method=call))

    def apply(params, state, inputs, *, taps=(), train=False, rng=None):
        taps = as_taps(taps)
        own = module.for_taps(taps) if taps and hasattr(module, "for_taps") else module
        wanted = {split_index(tap)[0] for tap in taps}
        ranks: dict[str, list[int]] = {}

        def record(layer_call, args, kwargs, context):
            out = layer_call(*args, **kwargs)
            path = "/".join(context.module.path)
            if path and context.method_name == "__call__":
                ranks[path] = _ranks(out)
                if path in wanted:
                    context.module.sow("intermediates", "__call__", out)
            return out

        run = functools.partial(
            own.apply,
            {"params": params, **state},
            inputs,
            train,
            method=call,
            # A module that asks for a key of another name is given one drawn from `params`.
            rngs=None if rng is None else {"params": rng},
            mutable=[*state, *(["intermediates"] if taps else [])],
        )
        try:
            with nn.intercept_methods(record) if taps else contextlib.nullcontext():
                out, moved = run()
        except errors.ScopeCollectionNotFound as fault:
            raise ValueError(
                f"{type(module).__name__} reads more than the variables that it was given hold, "
                f"{sorted(['params', *state])}: {str(fault).partition(' (https')[0]}"
            ) from fault
        seen: Any = traverse_util.flatten_dict(moved.get("intermediates", {}), sep="/")
        found = {tap: _linen_tap(tap, seen, ranks) for tap in taps}
        state = {k: moved.get(k, v) if train or k == "cache" else v for k, v in state.items()}
        return Forward(out, found, state, params)

    def back(variables):
        params, state = variables_of("the result", variables)
        return {"params": params, **state}

    if variables is None:
        return Net(init, apply, back)
    own = _parts(_checked(variables))
    return Trained(Net(lambda key, inputs: own, apply, back), own)


def _checked(variables: Any) -> Mapping[str, Any]:
    if isinstance(variables, Mapping) and (not variables or "params" in variables):
        return variables
    raise TypeError(
        "from_linen takes the variables that module.init gives, {'params': ..., 'batch_stats': "
        f"...}}, not {described(variables)}"
    )


def _parts(variables: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The parameters, and what moves besides."""
    variables = dict(nn.meta.unbox(unfreeze(dict(variables))))
    params = variables.pop("params", {})
    return params, {k: v for k, v in variables.items() if not _recorded(k, v)}


def _recorded(collection: str, tree: Mapping) -> bool:
    sown = any(isinstance(leaf, tuple) for leaf in traverse_util.flatten_dict(tree).values())
    return collection in _SEEN or sown


def _ranks(out: Any) -> list[int]:
    return [getattr(leaf, "ndim", 0) for leaf in jax.tree.leaves(out)]


def _linen_tap(tap: str, seen: Mapping[str, tuple], ranks: Mapping[str, list[int]]) -> Any:
    path, index = split_index(tap)
    fired = seen.get(f"{path}/__call__", seen.get(path))
    if fired is None and path in ranks:
        raise TapError(
            f"tap {tap!r} is inside nn.scan or nn.vmap, which keeps what its layers put out only "
            "if told to: add 'intermediates': 0 to its variable_axes, or tap a layer outside it"
        )
    if fired is None:
        raise unknown_tap(tap, {*ranks, *(name.removesuffix("/__call__") for name in seen)})
    if index is not None and ranks.get(path) == _ranks(fired[0]):
        raise TapError(f"tap {tap!r} picks from a stack of layers, but {path!r} is a single layer")
    return feature(tap, fired)
