"""The contract of a loss as code, and tiny nets: what this library tests itself with, for your own
losses.

Describe a loss by one :class:`Entry` and hand it to :func:`check_loss`::

    from jaxdistill.testing import Entry, check_loss, scores

    entry = Entry(
        my_loss, "logits", "per example", "(s - t)^2", "none", scores(), zero_at_equality=True
    )
    check_loss(entry)

It makes a small sample, and checks that the loss does the same jitted and eager, vmapped and in a
loop, on permuted examples, and on every kind of mesh; that it is traced once; that low precision is
widened and float64 kept; that its gradient is the one of finite differences; that every product of
matrices asks for the highest precision; that hard inputs give the declared, finite values and
gradients; that NaN and infinities show in the value if they count and reach nothing if they are
masked; that a label which is no class gives zero; and that an empty batch is refused. Run with
several devices (``XLA_FLAGS=--xla_force_host_platform_device_count=2``), or the meshes are of one
device.
"""

from __future__ import annotations

from flax import linen as nn

from jaxdistill.frameworks.linen import from_linen
from jaxdistill.losses import _contract, _garbage
from jaxdistill.losses._contract import Bench, bench
from jaxdistill.losses._entry import BATCH, HARD, PER_EXAMPLE, PER_TOKEN, Entry, features, scores
from jaxdistill.losses._hard_inputs import hard_inputs
from jaxdistill.net import Net

CHECKS = _contract.CHECKS + _garbage.CHECKS
"""What :func:`check_loss` checks, one function each."""

__all__ = [
    "BATCH",
    "CHECKS",
    "HARD",
    "PER_EXAMPLE",
    "PER_TOKEN",
    "Bench",
    "Entry",
    "bench",
    "check_loss",
    "features",
    "hard_inputs",
    "scores",
    "tiny_net",
]


def check_loss(entry: Entry, *, seed: int = 0) -> None:
    """Runs every check of the contract on one loss.

    Args:
        entry: the loss and what it declares.
        seed: of the sample.

    Raises:
        AssertionError: with one line for every check that failed.

    Example:
        >>> from jaxdistill.losses import hinton_kd
        >>> check_loss(
        ...     Entry(hinton_kd, "logits", "per example", "KL", "T^2", scores(), scores=True)
        ... )
    """
    ready = bench(entry, seed=seed)
    failures = []
    for check in CHECKS:
        try:
            check(ready)
        except Exception as error:
            failures.append(f"{check.__name__}: {type(error).__name__}: {error}")
    if failures:
        raise AssertionError(f"{entry.name} breaks its contract:\n" + "\n".join(failures))


def tiny_net(
    outputs: int = 3, *, width: int = 4, statistics: bool = False, dropout: float = 0.0
) -> Net:
    """A net of two dense layers, for tests: taps ``"hidden"`` and ``"head"``.

    Args:
        outputs: how many outputs per example.
        width: of the hidden layer.
        statistics: whether batch statistics follow the hidden layer, so that there is state.
        dropout: the rate after the hidden layer.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> net = tiny_net(outputs=2)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 5)))
        >>> net.apply(params, state, jnp.ones((7, 5)), taps=("hidden",)).taps["hidden"].shape
        (7, 4)
    """
    return from_linen(_Tiny(outputs, width, statistics, dropout))


class _Tiny(nn.Module):
    outputs: int
    width: int
    statistics: bool
    dropout: float

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.relu(nn.Dense(self.width, name="hidden")(x.reshape(x.shape[0], -1)))
        if self.statistics:
            x = nn.BatchNorm(use_running_average=not train, name="statistics")(x)
        if self.dropout:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.outputs, name="head")(x)
