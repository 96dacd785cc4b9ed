"""Nets: models of any framework as two pure functions, and taps into their layers.

Everything in this library that trains, freezes, averages or distils a model does it through a
:class:`Net`. One is made from two plain functions here, and from modules of Flax Linen, Flax NNX
and Equinox in :mod:`jaxdistill.frameworks`.

A tap is a feature named by the path of the module that outputs it, ``"encoder/block_3"``. Taps
cost nothing: under ``jax.jit`` XLA removes whatever nobody reads, so a teacher that is tapped at
mid depth, and whose output is not used, runs half its layers. Inside a loop over layers
(``nn.scan``) XLA cannot do that: a Linen module may define ``for_taps(taps) -> module`` and return
itself with its loop split at the tapped layers.
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxdistill._errors import unknown


class Forward(NamedTuple):
    """What a net gives back.

    Attributes:
        out: the output of the model.
        taps: ``{path: feature}`` for every tap that was asked for.
        state: what changes without being trained, after the call: batch statistics, a cache of keys
            and values.
        params: the parameters the call was made with, for losses that read a head's weights.
    """

    out: Any
    taps: dict[str, Any]
    state: Any
    params: Any


def _no_module(variables: tuple[Any, Any]) -> Any:
    raise TypeError("this net was made from functions: there is no module to go back to")


class Net(NamedTuple):
    """A model as two pure functions, in the shape of ``optax.GradientTransformation``.

    Attributes:
        init: ``(key, inputs) -> (params, state)``, nested dicts of arrays.
        apply: ``(params, state, inputs, *, taps=(), train=False, rng=None) -> Forward``. Without
            ``train`` the net is in evaluation mode: nothing is dropped and no statistic moves.
            ``rng`` is needed by whatever is random.
        back: from ``(params, state)``, a student's result say, to what its framework has for
            trained modules, in evaluation mode: an NNX module; an Equinox module, with its
            ``equinox.nn.State`` where it has one; of Linen the variables, ``{"params": ...}``.

    Example:
        >>> from flax import linen as nn
        >>> from jaxdistill.frameworks.linen import from_linen
        >>> net = from_linen(nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)]))
        >>> params, state = net.init(jax.random.key(0), jax.numpy.ones((8, 3)))
        >>> forward = net.apply(params, state, jax.numpy.ones((8, 3)), taps=("layers_0",))
        >>> forward.out.shape, forward.taps["layers_0"].shape
        ((8, 2), (8, 4))
    """

    init: Callable[..., tuple[Any, Any]]
    apply: Callable[..., Forward]
    back: Callable[[tuple[Any, Any]], Any] = _no_module


class Trained(NamedTuple):
    """A trained module: ``net, variables = from_nnx(model)``.

    Attributes:
        net: the module as a net, whose ``init`` gives these variables whatever the key.
        variables: its ``(params, state)``.
    """

    net: Net
    variables: tuple[Any, Any]


class TapError(ValueError):
    """A tap that names no layer, or a layer that does not have exactly one output."""


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
        fired: what the tapped layer returned, one entry per call.

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


def variables_of(name: str, given: Any) -> tuple[Any, Any]:
    """The ``(params, state)`` that was given for a net.

    Raises:
        TypeError: for anything else, saying what it is and how to get there.

    Example:
        >>> variables_of("frozen['teacher']", {"kernel": 1.0})
        Traceback (most recent call last):
        ...
        TypeError: frozen['teacher'] must be (params, state), and is a dict of 'kernel': if these
        are the parameters of a net without a state, give (params, {})
    """
    pair = isinstance(given, tuple | list) and len(given) == 2
    if pair and _kind_of(given) is None:
        return given[0], given[1]
    if isinstance(given, Mapping) and "params" in given:
        hint = "give (variables['params'], {the others}), which from_linen(module, variables) does"
    elif isinstance(given, Mapping):
        hint = "if these are the parameters of a net without a state, give (params, {})"
    elif isinstance(given, Trained):
        hint = "give its variables alone"
    elif hasattr(given, "params") and hasattr(given, "state"):
        hint = "give (it.params, it.state)"
    else:
        hint = "a net's init gives them, and for trained modules from_nnx and its like"
    raise TypeError(f"{name} must be (params, state), and is {described(given)}: {hint}")


def described(given: Any) -> str:
    """What was given in place of a net, a module or variables, and which function takes it.

    Example:
        >>> described({"params": {}, "batch_stats": {}}), described((1, "a"))
        ("a dict of 'batch_stats', 'params'", 'a tuple of (int, str)')
    """
    if (kind := _kind_of([given])) is not None:
        return f"{kind.words} ({kind.alone})"
    if isinstance(given, type):
        return f"the class {given.__name__}"
    if isinstance(given, Mapping):
        names = sorted(map(repr, given))
        return f"a dict of {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
    if type(given) in (tuple, list):
        words = f"a {type(given).__name__} of ({', '.join(type(x).__name__ for x in given[:6])})"
        kind = _kind_of(given)
        return words if kind is None else f"{words} ({kind.together})"
    return "None" if given is None else f"a {type(given).__name__}"


def check_function(name: str, given: Any, form: str) -> None:
    """Refuses what is no function.

    Raises:
        TypeError: saying what was given and what is wanted.

    Example:
        >>> check_function("targets", None, "(sources, batch, key, step) -> dict")
        Traceback (most recent call last):
        ...
        TypeError: targets must be a function (sources, batch, key, step) -> dict, not None
    """
    if not callable(given) or foreign(given) or isinstance(given, type):
        raise TypeError(f"{name} must be a function {form}, not {described(given)}")


def foreign(given: Any) -> bool:
    """Whether something is of a framework: no function that builds a module, though callable."""
    return _kind_of([given]) is not None


class _Kind(NamedTuple):
    """A class of a framework, and what to do with one, alone and in a tuple."""

    module: str
    name: str
    words: str
    alone: str
    together: str


_MERGE = "nnx.merge(graphdef, state) gives the module", "nnx.merge(*it) gives the module"
_KINDS = (
    _Kind("flax.nnx", "State", "the State of an NNX module", *_MERGE),
    _Kind("flax.nnx", "GraphDef", "the GraphDef of an NNX module", *_MERGE),
    _Kind("flax.nnx", "Module", "a Flax NNX module", "from_nnx takes it", "from_nnx takes one"),
    _Kind(
        "flax.linen",
        "Module",
        "a Flax Linen module",
        "from_linen takes it",
        "from_linen(module, variables) takes both",
    ),
    _Kind(
        "equinox.nn",
        "State",
        "the State of an Equinox module",
        "from_equinox(model, state) takes it",
        "from_equinox(*it) takes both",
    ),
    _Kind(
        "equinox",
        "Module",
        "an Equinox module",
        "from_equinox takes it",
        "equinox.combine(*it) gives a model of its halves",
    ),
    _Kind("jaxdistill.net", "Net", "a Net", "it is one already", "variables go beside it"),
)


def _kind_of(given: Iterable[Any]) -> _Kind | None:
    """What the first is of which a framework has a class; none is imported to know."""
    given = list(given)
    for kind in _KINDS:
        found = getattr(sys.modules.get(kind.module), kind.name, None)
        if isinstance(found, type) and any(isinstance(each, found) for each in given):
            return kind
    return None


def pick(given: Mapping[Any, Any], paths: Iterable[Any]) -> dict[Any, Any]:
    """The entries of variables that a net has, by path.

    Raises:
        ValueError: naming those that are not there.
    """
    paths = list(paths)
    lost = [path for path in paths if path not in given]
    if lost:
        name = "/".join(lost[0]) if isinstance(lost[0], tuple) else lost[0]
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise ValueError(f"the variables are not those of this net: they lack {name!r}{more}")
    return {path: given[path] for path in paths}
