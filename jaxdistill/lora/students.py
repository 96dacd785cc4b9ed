"""Students that are their frozen teacher and adapters beside its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from jaxdistill.lora import trees
from jaxdistill.lora.trees import Basis, Path
from jaxdistill.models.layouts import ADAPTERS
from jaxdistill.net import Forward, Net
from jaxdistill.settings import Count, Fraction, NonNegative, Positive

BASES = "adapter_bases"
"""Where a student's state holds the halves of adapters that are never trained, beside what moves in
its base."""
# Layers that are linear in a kernel, and as narrow ones of their own kind run by `down` alone.
_LAYERS = (nn.Dense, nn.DenseGeneral, nn.Conv)


def adapted(
    base: Net,
    stage: str,
    *,
    at: Sequence[str],
    rank: Count = 8,
    alpha: Positive | None = None,
    scale: NonNegative | None = None,
    dropout: Fraction = 0.0,
    basis: Basis | None = None,
    stacked: Sequence[str] = trees.STACKS,
) -> Callable[[Mapping[str, Any]], Net]:
    r"""A student that shares all weights with a frozen net, and learns adapters of some kernels.

    A layer computes :math:`x W + s \, (x D) U`. Dense layers and convolutions of Flax Linen do so
    without a copy of their kernel; any other kernel (of a layer of another kind or framework, of
    experts, of an embedding) is replaced by the sum while the net runs. Either way the parameters
    of the forward pass are the sums, for losses that read a head.

    As nothing has been learnt yet, the student is the frozen net. What moves without being trained,
    such as statistics of a batch, is the student's own, and starts as that of the net.

    Args:
        base: the net.
        stage: under which name its variables are frozen.
        at: regular expressions, searched for in the paths of its kernels
            (``"encoder/block_0/attn/qkv/kernel"``); see :func:`kernels`.
        rank: of each adapter.
        alpha: the scale s is ``alpha / rank``, so that it stays right for other ranks; the rank
            itself by default.
        scale: s itself, instead of ``alpha``; with 0 the student is its base.
        dropout: rate at which inputs of adapters are dropped in training.
        basis: which half of each adapter is a random orthonormal basis, kept in the state and never
            trained.
        stacked: names of trees whose arrays have an axis of layers in front.

    Returns:
        A function from what is frozen to the net, whose parameters are those of the adapters alone.
        Its ``back`` gives a module of the framework with all in its weights.

    Raises:
        ValueError: for both ``alpha`` and ``scale``; at ``init``, as :func:`start`; at ``apply``,
            for adapters that the net has no place for, and for dropout where adapters cannot see
            their inputs.

    References:
        Hu et al. LoRA: low-rank adaptation of large language models. ICLR 2022.

    Example:
        >>> from jaxdistill.frameworks.linen import from_linen
        >>> base = from_linen(nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)]))
        >>> frozen = {"teacher": base.init(jax.random.key(0), jnp.ones((8, 3)))}
        >>> net = adapted(base, "teacher", at=("layers_2",), rank=1)(frozen)
        >>> params, state = net.init(jax.random.key(1), jnp.ones((8, 3)))
        >>> jax.tree.map(jnp.shape, params)
        {'layers_2': {'kernel': {'down': (4, 1), 'up': (1, 2)}}}
    """
    factor = scale_of(rank, alpha, scale)

    def student(frozen: Mapping[str, Any]) -> Net:
        def init(key: jax.Array, inputs: Any) -> tuple[Any, Any]:
            params, state = frozen[stage]
            # A cache of keys and values is as long as the inputs say, and no part of what is kept.
            there = jax.eval_shape(base.init, key, inputs)[1]
            if there.keys() - state.keys():
                state = {**base.init(key, inputs)[1], **state}
            how = {"at": at, "rank": rank, "basis": basis, "stacked": stacked}
            own, bases = trees.parted(trees.start(key, params, **how), basis)
            return own, {**state, BASES: bases} if basis else dict(state)

        def apply(
            params: Any,
            state: Any,
            inputs: Any,
            *,
            taps: Any = (),
            train: bool = False,
            rng: Any = None,
        ) -> Forward:
            weights = jax.lax.stop_gradient(frozen[stage][0])
            adapters = adapters_of((params, state))
            moving = {name: each for name, each in state.items() if name != BASES}
            trees.check_fit(weights, adapters)
            run = _Run(base, factor, dropout if train else 0.0, rng)
            forward = run(weights, adapters, moving, inputs, taps=taps, train=train)
            kept = {**forward.state, BASES: state[BASES]} if BASES in state else forward.state
            return Forward(forward.out, forward.taps, kept, trees.merged(weights, adapters, factor))

        def back(variables: tuple[Any, Any]) -> Any:
            weights = trees.merged(frozen[stage][0], adapters_of(variables), factor)
            moving = {name: each for name, each in variables[1].items() if name != BASES}
            return base.back((weights, moving))

        return Net(init, apply, back)

    return student


def scale_of(rank: int = 8, alpha: float | None = None, scale: float | None = None) -> float:
    """What the product of a pair is multiplied by, from what :func:`adapted` takes.

    Raises:
        ValueError: for both ``alpha`` and ``scale``.

    Example:
        >>> scale_of(4, alpha=8.0), scale_of(4)
        (2.0, 1.0)
    """
    if alpha is not None and scale is not None:
        raise ValueError("adapters have either 'alpha' or 'scale', which is alpha / rank")
    return scale if scale is not None else (alpha or rank) / rank


def adapters_of(variables: tuple[Any, Any]) -> Any:
    """The adapters of a student's ``(params, state)``, with their frozen halves where they have
    such."""
    params, state = variables
    return trees.whole(params, state.get(BASES, {}))


class _Run(NamedTuple):
    """How a net is called with adapters: beside its layers, or else within their kernels."""

    base: Net
    scale: float
    dropout: float
    rng: Any

    def __call__(self, weights: Any, adapters: Any, state: Any, inputs: Any, **how: Any) -> Forward:
        paths = trees.pairs(adapters)
        beside = self._beside(weights, paths, state, inputs, how)
        within = {path: pair for path, pair in paths.items() if path not in beside}
        if within and self.dropout:
            raise ValueError(
                f"adapters of {'/'.join(next(iter(within)))!r} are added to the kernel, as they "
                "cannot see what it reads: take dropout=0, or leave it out of the patterns"
            )
        weights = trees.merged(weights, traverse_util.unflatten_dict(within), self.scale)
        forward, _ = self._called(weights, beside, state, inputs, how)
        moved = {name: each for name, each in forward.state.items() if name != ADAPTERS}
        return forward._replace(state=moved)

    def _beside(
        self, weights: Any, paths: Mapping[Path, Any], state: Any, inputs: Any, how: Any
    ) -> dict[Path, Any]:
        """The adapters that layers find beside them when the net is traced."""
        found: set[int] = set()

        def trace(weights: Any, paths: Any, state: Any, inputs: Any) -> Any:
            forward, seen = self._called(weights, paths, state, inputs, how)
            found.update(seen)
            return forward.out

        jax.eval_shape(trace, weights, dict(paths), state, inputs)
        return {path: pair for place, (path, pair) in enumerate(paths.items()) if place in found}

    def _called(
        self, weights: Any, paths: Mapping[Path, Any], state: Any, inputs: Any, how: Any
    ) -> tuple[Forward, set[int]]:
        """The net with a collection of adapters, and the numbers of those that a layer used.

        The number stands in the path of the adapter, as within loops a layer does not know its own.
        """
        found: set[int] = set()
        marked = {(*path, str(place)): pair for place, (path, pair) in enumerate(paths.items())}
        given = {**state, ADAPTERS: traverse_util.unflatten_dict(marked)} if paths else state

        def widened(layer_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            out = layer_call(*args, **kwargs)
            layer = context.module
            if (
                context.method_name != "__call__"
                or type(layer) not in _LAYERS
                or not layer.has_variable(ADAPTERS, "kernel")
                or _is_grouped(layer)
            ):
                return out
            ((number, pair),) = layer.get_variable(ADAPTERS, "kernel").items()
            found.add(int(number))
            return out + self._change(layer, args[0] if args else kwargs["inputs"], pair, out.dtype)

        with nn.intercept_methods(widened):
            return self.base.apply(weights, given, inputs, rng=self.rng, **how), found

    def _change(
        self, layer: Any, x: jax.Array, pair: Mapping[str, jax.Array], dtype: Any
    ) -> jax.Array:
        """What a layer puts out more: the same layer, as narrow as the rank, and the way up."""
        down, up = pair["down"].astype(dtype), pair["up"].astype(dtype)
        rank = down.shape[-1]
        narrow = layer.clone(features=rank, use_bias=False, dtype=dtype, parent=None, name=None)
        hidden = narrow.apply({"params": {"kernel": down}}, self._dropped(layer, x))
        return self.scale * jnp.tensordot(hidden, up, 1)

    def _dropped(self, layer: Any, x: jax.Array) -> jax.Array:
        if not self.dropout:
            return x
        if not layer.has_rng("params"):
            raise ValueError(
                "dropout of adapters draws random numbers, and there is no rng"
                + ("" if self.rng is None else " within this loop over layers: take dropout=0")
            )
        kept = jax.random.bernoulli(layer.make_rng("dropout"), 1 - self.dropout, x.shape)
        return jnp.where(kept, x / (1 - self.dropout), jnp.zeros((), x.dtype)).astype(x.dtype)


def _is_grouped(layer: Any) -> bool:
    """Whether outputs of a layer read some of its inputs alone, or not all of its kernel."""
    if isinstance(layer, nn.Conv):
        return layer.feature_group_count != 1 or layer.mask is not None
    return bool(getattr(layer, "batch_dims", ()))
