"""What a net costs whoever uses it: parameters, bytes, operations and time of one forward pass."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxdistill.net import Net

# A forward pass is timed at least so often, and for about so many seconds.
_TIMES, _SECONDS = 5, 0.3


class Costs(NamedTuple):
    """What a net costs, see :func:`costs`.

    Attributes:
        parameters: numbers that were trained, without running state such as batch statistics.
        bytes: of parameters and state, as they are stored.
        operations: floating-point operations of a forward pass of one example, as XLA counts them
            (a product and a sum are two); loops of a known length count as often as they run.
        seconds: of a forward pass of one example, compiled: the least of several, as whatever else
            runs on the machine only adds; None where the device has too little memory for it.
        device: what it was timed on.
    """

    parameters: int
    bytes: int
    operations: float
    seconds: float | None
    device: str


def costs(net: Net, result: Any, inputs: Any) -> Costs:
    """Measures a net in evaluation mode on one example.

    Args:
        net: the net.
        result: its ``(params, state)``.
        inputs: what it sees: arrays with the batch on the first axis, of which the first example
            is taken.

    Returns:
        The costs. Time differs from call to call; all else is determined.

    Example:
        >>> from flax import linen as nn
        >>> from jaxdistill.frameworks.linen import from_linen
        >>> net, x = from_linen(nn.Dense(4, use_bias=False)), jnp.ones((8, 3))
        >>> found = costs(net, net.init(jax.random.key(0), x), x)
        >>> found.parameters, found.bytes, found.operations
        (12, 48, 24.0)
    """
    result = jax.tree.map(jnp.asarray, result)
    leaves = jax.tree.leaves(result)
    # On a mesh whose devices all hold the same, one of them is what a user has.
    if all(leaf.is_fully_replicated for leaf in leaves):
        result = jax.tree.map(lambda leaf: leaf.addressable_data(0), result)
    inputs = jax.tree.map(lambda x: jnp.asarray(x[:1]), inputs)

    def forward(result, inputs):
        return net.apply(*result, inputs).out

    compiled = jax.jit(forward)
    held = {device.device_kind for leaf in leaves for device in leaf.devices()}
    return Costs(
        parameters=sum(int(np.size(leaf)) for leaf in jax.tree.leaves(result[0])),
        bytes=sum(int(np.size(leaf)) * leaf.dtype.itemsize for leaf in leaves),
        operations=_operations(compiled.trace(result, inputs).jaxpr),
        seconds=_seconds(compiled, result, inputs),
        device=", ".join(sorted(held)) or jax.devices()[0].device_kind,
    )


def _operations(closed: Any) -> float:
    """Those of a jaxpr. XLA counts the body of a loop once, whatever its length."""
    whole = _analysed(closed)
    for loop in _scans(closed.jaxpr):
        body = loop.params["jaxpr"]
        whole += loop.params["length"] * _operations(body) - _analysed(body)
    return whole


def _analysed(closed: Any) -> float:
    shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in closed.in_avals]
    analysis: Any = jax.jit(core.jaxpr_as_fun(closed)).lower(*shapes).cost_analysis()
    return float((analysis or {}).get("flops", 0.0))


def _scans(jaxpr: Any) -> Iterator[Any]:
    """The outermost loops of a known length, in whatever is called."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "scan":
            yield eqn
            continue
        for inner in jax.tree.leaves(
            tuple(eqn.params.values()),
            is_leaf=lambda x: isinstance(x, (core.ClosedJaxpr, core.Jaxpr)),
        ):
            if isinstance(inner, core.ClosedJaxpr):
                yield from _scans(inner.jaxpr)
            elif isinstance(inner, core.Jaxpr):
                yield from _scans(inner)


def _seconds(forward: Any, result: Any, inputs: Any) -> float | None:
    try:
        jax.block_until_ready(forward(result, inputs))  # compiles
        taken: list[float] = []
        while len(taken) < _TIMES or sum(taken) < _SECONDS:
            begun = time.perf_counter()
            jax.block_until_ready(forward(result, inputs))
            taken.append(time.perf_counter() - begun)
    except jax.errors.JaxRuntimeError as fault:
        if "RESOURCE_EXHAUSTED" not in str(fault):
            raise
        logging.warning("a forward pass is not timed: %s", str(fault).splitlines()[0])
        return None
    return min(taken)
