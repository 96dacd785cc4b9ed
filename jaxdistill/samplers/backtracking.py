"""DisBack: a teacher is recorded on its way to a generator's samples, and the generator goes back
along that way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdistill.distiller import Distiller, State, entry
from jaxdistill.evaluation.batches import Evaluator
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.net import Net
from jaxdistill.players import Player, players
from jaxdistill.samplers import _training as common
from jaxdistill.samplers import losses
from jaxdistill.samplers._training import Prepare
from jaxdistill.samplers.denoisers import noised
from jaxdistill.samplers.distribution_matching import NOISE, Noise, generated
from jaxdistill.samplers.mixtures import Mixture
from jaxdistill.samplers.quality import density_quality
from jaxdistill.samplers.solvers import SolverName
from jaxdistill.settings import Count, Positive


class Recording(NamedTuple):
    """The state of :func:`degradation`.

    Attributes:
        step: how many steps were done, int32.
        learner: the state of what learns.
        path: all that was recorded, ``[records + 1, ...]``.
    """

    step: jax.Array
    learner: State
    path: Any


def degradation(
    net: Net,
    generator: tuple[str, Net],
    tx: optax.GradientTransformation,
    steps: int,
    classes: int = 0,
    prepare: Prepare | None = None,
    initial: str | None = None,
    *,
    records: Count,
    levels: Sequence[Positive] = (80.0,),
    noise: Noise = NOISE,
    sigma_data: Positive = 0.5,
    labels: bool = False,
) -> Distiller:
    """Trains a copy of a teacher on the samples of a generator that stays as it is, and records it
    on its way there.

    Args:
        net: the copy, a denoiser.
        generator: the name of the generator's variables in the frozen ones, and its net.
        tx: the copy's optimizer.
        steps: how many there will be.
        classes: how many there are, for labels.
        prepare: ``(batch, key) -> batch``; of a batch only the shape is read.
        initial: the entry of the frozen variables that the copy starts from: the teacher.
        records: how often it is recorded, evenly over the steps, at the end too.
        levels: of the generator's noise, falling; one for a generator of one step.
        noise: on samples.
        sigma_data: standard deviation of the data.
        labels: whether labels are inputs; they are drawn evenly.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` whose result are the ``(params, state)`` of the
        copy at the start, the teacher's own, and of all records, on a new first axis.

    Raises:
        ValueError: for labels without their number; when it starts, for a generator that is not
            among the frozen variables.

    References:
        Zhang et al., Distribution Backtracking Builds A Faster Convergence Trajectory for Diffusion
        Distillation, ICLR 2025.
    """
    if labels and not classes:
        raise ValueError("a generator with labels needs the number of classes")
    name, made = generator

    def loss(nets, turn):
        keys = jax.random.split(turn.key, 4)
        like, _ = common.read(turn.batch, turn.key, prepare, labels)
        fixed = {"net": entry("generator in the frozen variables", name, turn.frozen)}
        x, label = generated(made, levels, classes if labels else 0, fixed, turn.frozen, keys, like)
        y, sigma = noise.on(keys[2], x)
        said = net.apply(*nets["net"], noised(y, sigma, label), train=True, rng=keys[3]).out
        values = losses.denoising(said, x, sigma, sigma_data=sigma_data)
        return values.mean(), {"fake": common.mean(values)}

    start = common.starting({"net": net}, prepare, labels, initial)
    learner = players({"net": Player(loss, tx)}, start)

    def init(key, frozen, batch):
        entry("generator in the frozen variables", name, frozen)
        state = learner.init(key, frozen, batch)
        path = jax.tree.map(lambda x: jnp.repeat(x[None], records + 1, 0), learner.result(state))
        return Recording(state.step, state, path)

    def step(state, frozen, batch):
        own, metrics = learner.step(state.learner, frozen, batch)
        # What is not due yet is written too, and again until it is.
        place = jnp.minimum(-(-own.step * records // steps), records)
        path = jax.tree.map(lambda path, x: path.at[place].set(x), state.path, learner.result(own))
        return Recording(own.step, own, path), metrics

    return Distiller(init, step, lambda state: state.path, kind="arrays")


def backtracking(distiller: Distiller, path: str, *, interval: Count) -> Distiller:
    """An algorithm whose teacher moves: from one before the last of a path to its first.

    Args:
        distiller: the algorithm. Under the name of the path it finds the ``(params, state)`` of one
            point among its frozen variables: of the last when it starts, of the present target in
            a step.
        path: the name of the path in the frozen variables: ``(params, state)`` with a first axis
            over its points, such as :func:`degradation` leaves.
        interval: for how many steps each target stays; the first point of the path is the last
            target and stays to the end.

    Raises:
        ValueError: when it starts, for a path that is not there or has fewer than two points.

    Example:
        >>> from jaxdistill.distiller import State
        >>> told = Distiller(
        ...     lambda key, frozen, batch: State(jnp.zeros((), jnp.int32), key, {}, {}, (), None),
        ...     lambda state, frozen, batch: (state._replace(step=state.step + 1), frozen["path"]),
        ...     lambda state: None,
        ... )
        >>> frozen = {"path": (jnp.arange(3), {})}
        >>> moving = backtracking(told, "path", interval=2)
        >>> state, seen = moving.init(jax.random.key(0), frozen, {}), []
        >>> for _ in range(5):
        ...     state, (target, _) = moving.step(state, frozen, {})
        ...     seen.append(int(target))
        >>> seen
        [1, 1, 0, 0, 0]
    """

    def init(key, frozen, batch):
        return distiller.init(key, _with_point(frozen, path, _last(frozen, path)), batch)

    def step(state, frozen, batch):
        place = jnp.maximum(_last(frozen, path) - 1 - state.step // interval, 0)
        return distiller.step(state, _with_point(frozen, path, place), batch)

    return distiller._replace(init=init, step=step)


def point(path: Any, place: Any) -> tuple[Any, Any]:
    """The ``(params, state)`` of one point of a path."""
    params, state = jax.tree.map(lambda x: x[place], path)
    return params, state


def path_quality(
    net: Net,
    source: Mixture,
    seed: int = 0,
    *,
    steps: Count = 18,
    draws: Count = 20_000,
    solver: SolverName = "heun",
) -> Evaluator:
    """An evaluator of a path of denoisers: how far the samples of each are from a mixture.

    ``first`` and ``last``, the sliced Wasserstein distances of both ends; ``least_rise``, the
    smallest difference from a point of the path to the next: above zero where every one is farther
    from the mixture than the one before it.

    Args:
        net: the denoiser.
        source: the density.
        seed: of the samples.
        steps: in how many steps samples are drawn.
        draws: how many samples.
        solver: see :func:`jaxdistill.samplers.density_quality`.

    Raises:
        ValueError: see :func:`jaxdistill.samplers.density_quality`.
    """
    one = density_quality(net, source, seed, draws=draws, in_steps=(steps,), solver=solver)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        found = [
            one(point(result, place), frozen, data)[f"sliced_wasserstein_{steps}"]
            for place in range(len(jax.tree.leaves(result)[0]))
        ]
        return {"first": found[0], "last": found[-1], "least_rise": float(np.diff(found).min())}

    return measuring(("first", "last", "least_rise"), evaluator)


def _last(frozen: Mapping[str, Any], path: str) -> int:
    params, _ = entry("path of teachers in the frozen variables", path, frozen)
    count = len(jax.tree.leaves(params)[0])
    if count < 2:
        raise ValueError(f"the path {path!r} has {count} point: there is nothing to go back along")
    return count - 1


def _with_point(frozen: Mapping[str, Any], path: str, place: Any) -> dict[str, Any]:
    return {**frozen, path: point(frozen[path], place)}
