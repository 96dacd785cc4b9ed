"""What a net costs to use: its size, its operations, how long one forward pass takes here."""

from __future__ import annotations

import statistics
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdistill.net import Net

# A forward pass is measured so often, but no longer than so many seconds.
_MOST, _LEAST, _SECONDS = 50, 5, 1.0


class Costs(NamedTuple):
    """What one forward pass of a net costs.

    Attributes:
        parameters: how many numbers are trained.
        bytes: of all its arrays, parameters and statistics.
        operations: of the pass, as XLA counts them (a multiplication and an addition are two, the
            inside of a loop counts once); None where it does not.
        seconds: the median of several passes on the default device, compiled, without the first
            ones; None where that was not measured.
        examples: how many inputs the pass had.
    """

    parameters: int
    bytes: int
    operations: float | None
    seconds: float | None
    examples: int


def costs(net: Net, variables: Any, inputs: Any, *, timed: bool = True) -> Costs:
    """What a forward pass of a net costs on these inputs.

    Args:
        net: which one.
        variables: its ``(params, state)``.
        inputs: what it sees, examples on the first axis.
        timed: whether the pass is compiled and measured too.

    Example:
        >>> from flax import linen as nn
        >>> from jaxdistill.frameworks.linen import from_linen
        >>> net, inputs = from_linen(nn.Dense(3)), np.ones((1, 4), np.float32)
        >>> found = costs(net, net.init(jax.random.key(0), inputs), inputs)
        >>> found.parameters, found.bytes, found.operations, found.seconds > 0
        (15, 60, 27.0, True)
    """
    device = jax.local_devices()[0]
    params, state = jax.device_put(jax.device_get(variables), device)
    inputs = jax.device_put(inputs, device)
    lowered = jax.jit(lambda p, s, x: net.apply(p, s, x).out).lower(params, state, inputs)
    said: Any = lowered.cost_analysis() or {}
    return Costs(
        parameters=sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params)),
        bytes=sum(int(leaf.nbytes) for leaf in jax.tree.leaves((params, state))),
        operations=float(said["flops"]) if said.get("flops", 0) > 0 else None,
        seconds=_median(lowered.compile(), params, state, inputs) if timed else None,
        examples=len(jax.tree.leaves(inputs)[0]),
    )


def _median(run: Any, *arguments: Any) -> float:
    for _ in range(2):
        jax.block_until_ready(run(*arguments))
    found: list[float] = []
    begun = time.perf_counter()
    while len(found) < _MOST:
        before = time.perf_counter()
        jax.block_until_ready(run(*arguments))
        found.append(time.perf_counter() - before)
        if len(found) >= _LEAST and time.perf_counter() - begun > _SECONDS:
            break
    return statistics.median(found)
