"""Nets: models of any framework as two pure functions, and taps into their layers.

Everything in this library that trains, freezes, averages or distils a model does it through a
:class:`Net`. Adapters make one from a Flax Linen module, a Flax NNX module, an Equinox module, or
two plain functions.

A tap is a feature named by the path of the module that puts it out, ``"encoder/block_3"``. Taps
cost nothing: under ``jax.jit`` XLA removes whatever nobody reads, so a teacher that is tapped at
mid depth, and whose output is not used, runs half its layers. Inside a loop over layers
(``nn.scan``) XLA cannot do that: a Linen module may define ``for_taps(taps) -> module`` and return
itself with its loop split at the tapped layers.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from flax import traverse_util

from jaxdistill._errors import unknown

# Collections of Linen that hold what a call saw, not what it remembers.
_SEEN = ("intermediates", "perturbations")


class Forward(NamedTuple):
    """What a net gives back.

    Attributes:
        out: the output of the model.
        taps: ``{path: feature}`` for every tap that was asked for.
        state: what moves without being trained, after the call: batch statistics, a cache of keys
            and values.
        params: the parameters the call was made with, for losses that read a head's weights.
    """

    out: Any
    taps: dict[str, Any]
    state: Any
    params: Any


class Net(NamedTuple):
    """A model as two pure functions, in the shape of ``optax.GradientTransformation``.

    Attributes:
        init: ``(key, inputs) -> (params, state)``, nested dicts of arrays.
        apply: ``(params, state, inputs, *, taps=(), train=False, rng=None) -> Forward``. Without
            ``train`` the net is in evaluation mode: nothing is dropped and no statistic moves.
            ``rng`` is needed by whatever is random.

    Example:
        >>> net = from_linen(nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)]))
        >>> params, state = net.init(jax.random.key(0), jax.numpy.ones((8, 3)))
        >>> forward = net.apply(params, state, jax.numpy.ones((8, 3)), taps=("layers_0",))
        >>> forward.out.shape, forward.taps["layers_0"].shape
        ((8, 2), (8, 4))
    """

    init: Callable[..., tuple[Any, Any]]
    apply: Callable[..., Forward]


class TapError(ValueError):
    """A tap that names no layer, or a layer that does not have exactly one output."""


def from_linen(
    module: nn.Module, *, call: Callable[[nn.Module, Any, bool], Any] | None = None
) -> Net:
    """A net from a Flax Linen module.

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
        call: ``(module, inputs, train) -> out``, for a module that is called in another way.

    Raises:
        TapError: at ``apply``, if a tap names no layer, or a layer that was called more than once.
    """
    call = call or caller(module)

    def init(key, inputs):
        variables = nn.meta.unbox(module.init(key, inputs, False, method=call))
        params = variables.pop("params", {})
        return params, {k: v for k, v in variables.items() if not _recorded(k, v)}

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
        if taps:
            with nn.intercept_methods(record):
                out, moved = run()
        else:
            out, moved = run()
        seen: Any = traverse_util.flatten_dict(moved.get("intermediates", {}), sep="/")
        found = {tap: _linen_tap(tap, seen, ranks) for tap in taps}
        state = {k: moved.get(k, v) if train or k == "cache" else v for k, v in state.items()}
        return Forward(out, found, state, params)

    return Net(init, apply)


def from_nnx(
    build: Callable[..., Any], *, call: Callable[[Any, Any, bool], Any] | None = None
) -> Net:
    """A net from a Flax NNX module.

    The parameters are the variables of type ``nnx.Param``, the state is all others
    (``nnx.BatchStat``, ...) without the random streams, which are built anew from ``rng`` at every
    call. The module is called with the inputs, one pytree, after its ``train()`` or ``eval()``; a
    keyword for it is passed as for Linen. In evaluation mode the state comes back as it was given,
    but for variables of type ``nnx.Cache``.

    A tap is the path of attributes to a layer (``"layers/0"``), or to a value that a layer sows as
    ``nnx.Intermediate``. Layers inside ``nnx.scan`` are tapped all together, stacked on a new first
    axis (``"layers/dense"``), or one by one (``"layers/dense[3]"``).

    Args:
        build: makes the module, from ``nnx.Rngs``. It is traced once without computing anything,
            for the structure of the module, so a net also works where only its variables were
            restored.
        call: ``(module, inputs, train) -> out``, for a module that is called in another way.

    Raises:
        TapError: at ``apply``, if a tap names no layer, or a layer that was not called exactly
            once.
        ValueError: at ``apply``, if a random stream is used and there is no ``rng``.

    Example:
        >>> from flax import nnx
        >>> net = from_nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
        >>> params, state = net.init(jax.random.key(0), None)
        >>> net.apply(params, state, jax.numpy.ones((8, 3))).out.shape
        (8, 2)
    """
    from jaxdistill._nnx import make

    return make(build, call)


def from_equinox(
    build: Callable[[jax.Array], Any],
    *,
    batched: bool = False,
    call: Callable[[Any, Any, Any, Any], tuple[Any, Any]] | None = None,
) -> Net:
    """A net from an Equinox module.

    The parameters are the floating point arrays of the module, by the path of attributes; the state
    is its other arrays and whatever ``equinox.nn.StateIndex`` holds (the statistics of
    ``equinox.nn.BatchNorm``). Equinox models take one example: they run under ``jax.vmap`` with
    ``axis_name="batch"``, each example with its own key. In evaluation mode the module goes through
    ``equinox.nn.inference_mode`` and the state comes back as it was given.

    A tap is the path of attributes to a layer (``"layers/0"``); a stateful layer is tapped without
    its state. Inside a transformation of the model's own (``jax.lax.scan`` over layers,
    ``jax.checkpoint``) no layer can be tapped.

    Args:
        build: makes the module, from a key.
        batched: whether the model takes the whole batch itself, so that there is no ``jax.vmap``.
        call: ``(model, inputs, state, key) -> (out, state)``, for a model that is called in another
            way; else it gets ``state`` and ``key`` if its ``__call__`` takes them.

    Raises:
        ImportError: without Equinox, the extra ``equinox``.
        TapError: at ``apply``, if a tap names no layer, or a layer that was not called exactly
            once.

    Example:
        >>> import equinox as eqx
        >>> net = from_equinox(lambda key: eqx.nn.Linear(3, 2, key=key))
        >>> params, state = net.init(jax.random.key(0), None)
        >>> net.apply(params, state, jax.numpy.ones((8, 3))).out.shape
        (8, 2)
    """
    try:
        from jaxdistill._equinox import make
    except ModuleNotFoundError as error:
        if error.name != "equinox":
            raise
        raise ImportError(
            "from_equinox needs Equinox: pip install 'jaxdistill[equinox]'"
        ) from error
    return make(build, batched, call)


def from_function(init: Callable[..., tuple[Any, Any]], apply: Callable[..., tuple]) -> Net:
    """A net from two plain functions.

    Args:
        init: ``(key, inputs) -> (params, state)``; a net without state gives ``{}``.
        apply: ``(params, state, inputs, *, train, rng) -> (out, features, state)``. ``features`` is
            a dict of all that can be tapped; what is not asked for is dropped, and under
            ``jax.jit`` never computed.

    Raises:
        TapError: at ``apply``, if a tap is not among the features.

    Example:
        >>> def apply(params, state, inputs, *, train, rng):
        ...     hidden = jax.numpy.tanh(inputs @ params["in"])
        ...     return hidden @ params["out"], {"hidden": hidden}, state
        >>> init = lambda key, x: ({"in": jax.numpy.eye(3), "out": jax.numpy.ones((3, 1))}, {})
        >>> net = from_function(init, apply)
        >>> params, state = net.init(jax.random.key(0), None)
        >>> forward = net.apply(params, state, jax.numpy.ones((2, 3)), taps=["hidden"])
        >>> forward.taps["hidden"].shape
        (2, 3)
    """

    def net_apply(params, state, inputs, *, taps=(), train=False, rng=None):
        out, features, state = apply(params, state, inputs, train=train, rng=rng)
        for tap in as_taps(taps):
            if tap not in features:
                raise unknown_tap(tap, features)
        return Forward(out, {tap: features[tap] for tap in as_taps(taps)}, state, params)

    return Net(init, net_apply)


def as_taps(taps: Sequence[str]) -> tuple[str, ...]:
    """Taps as a tuple of paths without repetitions; a lone string, read as letters, is refused."""
    if isinstance(taps, str):
        raise TypeError(f"taps is a sequence of paths: write ({taps!r},)")
    return tuple(dict.fromkeys(taps))


def unknown_tap(tap: str, paths: Iterable[str]) -> TapError:
    """The error for a tap that names no layer: the nearest path, and a few others."""
    paths = list(paths)
    near = difflib.get_close_matches(tap, paths, n=6, cutoff=0.0)
    others = f" and {len(paths) - len(near)} more" if len(paths) > len(near) else ""
    return TapError(unknown("tap", tap, near).removesuffix(".") + f"{others}.")


def split_index(tap: str) -> tuple[str, int | None]:
    """The path of a tap and its index in a stack of layers: ``"dense[3]"`` is ``"dense"``, 3."""
    match = re.fullmatch(r"(.*)\[(\d+)\]", tap)
    return (match[1], int(match[2])) if match else (tap, None)


def feature(tap: str, fired: Sequence[Any]) -> Any:
    """The one value that a tap was given, or that of one layer in a stack.

    Args:
        tap: the path, with or without an index.
        fired: what the tapped layer put out, one entry per call.

    Raises:
        TapError: if the layer was not called exactly once, or if its index is beyond the stack.
    """
    if len(fired) != 1:
        raise TapError(
            f"tap {tap!r} fired {len(fired)} times, as that layer is called more than once: tap a "
            "layer around it, or give every call its own layer"
            if fired
            else f"tap {tap!r} fired 0 times: there is such a layer, but the model does not call it"
        )
    index = split_index(tap)[1]
    if index is None:
        return fired[0]
    depths = {x.shape[0] if x.ndim else 0 for x in jax.tree.leaves(fired[0])}
    if index >= min(depths, default=0):
        raise TapError(f"tap {tap!r} is beyond the stack of layers, which is {min(depths)} deep")
    return jax.tree.map(lambda x: x[index], fired[0])


def caller(module: Any) -> Callable[[Any, Any, bool], Any]:
    """How a Flax module is called: with its inputs, and the keyword it has for training or not."""
    takes = inspect.signature(type(module).__call__).parameters
    for name, negated in (("train", False), ("deterministic", True), ("use_running_average", True)):
        # A keyword that was also given to the constructor is refused by Flax: such a module stays
        # in that mode.
        if name in takes and vars(module).get(name) is None:
            return lambda module, inputs, train: module(inputs, **{name: train != negated})
    return lambda module, inputs, train: module(inputs)


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
