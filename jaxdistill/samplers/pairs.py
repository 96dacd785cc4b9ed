"""Pairs of noise and what a teacher makes of it in many steps: made once, and learnt from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.distiller import Distiller, entry
from jaxdistill.losses.numerics import widen
from jaxdistill.net import Net
from jaxdistill.players import Nets
from jaxdistill.samplers import _training as common
from jaxdistill.samplers._training import Prepare
from jaxdistill.samplers.denoisers import Teacher, noised
from jaxdistill.samplers.paths import edm
from jaxdistill.samplers.schedules import karras, refuse_fall
from jaxdistill.samplers.solvers import SOLVERS, SolverName, sample
from jaxdistill.settings import Count, Finite, Positive

PairLoss = Callable[[Nets, Mapping[str, Any], jax.Array, int], jax.Array]
"""``(nets, frozen, key, count) -> [count]``, what a generator pays on so many pairs."""


class Making(NamedTuple):
    """The state of :func:`flow_pairs`: how many steps were done, the key of the run, the pairs."""

    step: jax.Array
    key: jax.Array
    pairs: dict[str, jax.Array]


def flow_pairs(
    teacher: Teacher,
    steps: int,
    classes: int = 0,
    prepare: Prepare | None = None,
    *,
    solver: SolverName = "heun",
    in_steps: Count = 18,
    low: Positive = 0.002,
    high: Positive = 80.0,
    labels: bool = False,
    scale: Finite | None = None,
) -> Distiller:
    """Pairs of noise and a teacher's sample of it; a step makes as many as its batch has examples.

    Of the batch only the shape is read.

    Args:
        teacher: the denoiser.
        steps: how many there will be.
        classes: how many there are, for labels.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` has the samples' shape.
        solver: of :data:`~jaxdistill.samplers.SOLVERS`; one without chance of its own.
        in_steps: how many steps the teacher takes.
        low: the least level above zero.
        high: the level of the noise at the start.
        labels: whether the teacher is given labels, drawn evenly.
        scale: of guidance, None for none.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` whose result are arrays: ``noise`` ``[n, ...]``,
        standard normal, ``sample`` of the same shape, and with labels ``label`` ``[n]``; n is the
        number of steps times that of the examples in a batch.

    Raises:
        ValueError: for labels without their number, guidance without labels, an unknown solver,
            levels that do not rise.

    References:
        Yin et al., One-step Diffusion with Distribution Matching Distillation, 2024, section 3.3.
    """
    if solver not in SOLVERS:
        raise ValueError(unknown("solver", solver, SOLVERS))
    refuse_fall(low, high)
    if labels and not classes:
        raise ValueError("pairs with labels need the number of classes")
    if scale is not None and not labels:
        raise ValueError("guidance needs labels")

    def init(key, frozen, batch):
        like, _ = common.read(batch, key, prepare, labels=False)
        rows = steps * len(like)
        none = jnp.zeros((rows, *like.shape[1:]), like.dtype)
        pairs = {"noise": none, "sample": jnp.copy(none)}
        if labels:
            pairs["label"] = jnp.zeros(rows, jnp.int32)
        return Making(jnp.zeros((), jnp.int32), key, pairs)

    def step(state: Making, frozen, batch):
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        like, _ = common.read(batch, keys[0], prepare, labels=False)
        noise = jax.random.normal(keys[1], like.shape, like.dtype)
        label = jax.random.randint(keys[2], like.shape[:1], 0, classes) if labels else None
        guides = None if scale is None else jnp.full(like.shape[:1], scale, like.dtype)
        say = common.guide(teacher(frozen), label, guides)
        made = sample(SOLVERS[solver](say, edm()), karras(in_steps, low, high), high * noise)
        new = {"noise": noise, "sample": made, **({} if label is None else {"label": label})}
        place = state.step * len(like)
        pairs = {
            name: jax.lax.dynamic_update_slice_in_dim(
                rows, new[name].astype(rows.dtype), place, axis=0
            )
            for name, rows in state.pairs.items()
        }
        size = (made**2).mean(tuple(range(1, made.ndim)))
        return Making(state.step + 1, state.key, pairs), {"sample_square": common.mean(size)}

    return Distiller(init, step, lambda state: state.pairs, kind="arrays")


def pair_loss(net: Net, stage: str, *, high: float = 80.0) -> PairLoss:
    r"""What a generator of one step pays for making another sample of a noise than the teacher,
    :math:`\mathrm{mean}\,(G(\sigma_{max} z) - x)^2`.

    Args:
        net: the generator, a denoiser.
        stage: under which name the pairs of :func:`flow_pairs` are frozen.
        high: the level of its noise, that of the pairs.

    Raises:
        ValueError: when it is asked, if they are not there.
    """

    def loss(nets, frozen, key, count):
        pairs = entry("pairs in the frozen variables", stage, frozen)
        keys = jax.random.split(key)
        chosen = jax.random.randint(keys[0], (count,), 0, len(pairs["noise"]))
        row = {name: each[chosen] for name, each in pairs.items()}
        inputs = noised(
            high * row["noise"], jnp.asarray(high, row["noise"].dtype), row.get("label")
        )
        said = net.apply(*nets["net"], inputs, train=True, rng=keys[1]).out
        said, wanted = widen(said, row["sample"])
        return ((said - wanted) ** 2).mean(tuple(range(1, said.ndim)))

    return loss
