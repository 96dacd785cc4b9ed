"""Evaluators of samplers: against a density that is known, and in features against data."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.evaluation import distances
from jaxdistill.evaluation.representations import reader
from jaxdistill.net import Net
from jaxdistill.samplers.denoisers import as_function
from jaxdistill.samplers.mixtures import Mixture, draw
from jaxdistill.samplers.paths import edm
from jaxdistill.samplers.schedules import karras
from jaxdistill.samplers.solvers import SOLVERS

# Two steps of a consistency model must be at most this share of one, in excess of the floor.
TWO_STEPS = 0.7
# Samples that a net makes at a time.
BATCH = 500
# Sets of exact samples whose mean distance is the floor.
FLOORS = 4


def sampler(
    net: Net,
    *,
    solver: str = "consistency",
    high: float = 80.0,
    low: float = 0.002,
    middle: Sequence[float] = (),
    scale: float | None = None,
    embedded: bool = False,
) -> Callable[..., jax.Array]:
    """``(variables, noise, label, key, steps) -> samples``, one program for all numbers of steps.

    The loop is the host's, so that nets with convolutions run at their pace on CPU as well.

    Args:
        net: a denoiser.
        solver: of :data:`~jaxdistill.samplers.SOLVERS`.
        high: the level of the noise at the start.
        low: the least level above zero.
        middle: the levels after the first, falling; those of Karras et al. where there are none.
        scale: of guidance, None for none.
        embedded: whether the net is given the scale.

    Raises:
        ValueError: for an unknown solver; when it runs, for fewer levels in ``middle`` than steps
            after the first.
    """
    if solver not in SOLVERS:
        raise ValueError(unknown("solver", solver, SOLVERS))

    def made(variables, label):
        denoise = as_function(net, variables, label=label, scale=scale, embedded=embedded)
        return SOLVERS[solver](denoise, edm())

    @jax.jit
    def step(variables, label, memory, x, t, s, key):
        return made(variables, label).step(memory, x, t, s, key)[:2]

    def run(variables, noise, label, key, steps):
        if middle and steps > len(middle) + 1:
            raise ValueError(f"{steps} steps need {steps - 1} levels in 'middle', got {middle}")
        levels = [high, *middle[: steps - 1], 0.0] if middle else karras(steps, low, high)
        levels = np.asarray(levels, np.float32)
        x = levels[0] * noise
        memory = made(variables, label).init(x)
        for place, (t, s) in enumerate(itertools.pairwise(levels)):
            memory, x = step(variables, label, memory, x, t, s, jax.random.fold_in(key, place))
        return x

    return run


def density_quality(
    net: Net,
    source: Mixture,
    *,
    deviation: float,
    draws: int = 100_000,
    steps: Sequence[int] = (1, 2),
    seed: int = 0,
    label: int | None = None,
    wanted: Callable[..., jax.Array] | None = None,
    **how: Any,
) -> Callable[..., dict[str, float]]:
    r"""An evaluator: how far samples are from a mixture whose modes are round.

    For every number of steps n: ``sliced_wasserstein_n``, ``kernel_distance_n`` (of 2,000 samples),
    ``mode_variation_n``, ``mode_quality_n`` and ``within_mode_n``, see
    :mod:`jaxdistill.evaluation.distances`; ``floor``, the sliced Wasserstein distance of as many
    exact samples, a mean over four sets; and where there are one and two steps
    ``two_step_gain``, :math:`0.7\,(s_1 - f) - (s_2 - f)` with f the floor: above zero where the
    second step takes away at least 30 % of what the first is above the floor.

    Args:
        net: the denoiser.
        source: the density.
        deviation: of each mode in every direction.
        draws: how many samples.
        steps: numbers of steps.
        seed: of the samples.
        label: the class that is sampled, all by default.
        wanted: ``(noise) -> samples`` that are right where the density does not say so (those of a
            guided teacher); the samples of the net are then compared with them.
        how: see :func:`sampler`.
    """
    run = sampler(net, **how)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        keys = jax.random.split(jax.random.key(seed), 3 + FLOORS)

        def right(key: jax.Array, even: bool) -> jax.Array:
            if wanted is not None:
                return wanted(jax.random.normal(key, (draws, source.means.shape[1])))
            return draw(key, source, draws, label, even=even)[0].astype(jnp.float32)

        truth = right(keys[0], True)
        floors = [_wasserstein(right(key, False), truth) for key in keys[3:]]
        found: dict[str, Any] = {"floor": np.mean(floors)}
        labels = None if label is None else jnp.full(draws, label)
        noise = jax.random.normal(keys[1], truth.shape)
        for n in steps:
            points = run(result, noise, labels, keys[2], n)
            own = {
                "sliced_wasserstein": _wasserstein(points, truth),
                "kernel_distance": _kernel(points[:2000], truth[:: max(draws // 2000, 1)][:2000]),
            }
            if wanted is None:
                own |= distances.modes(points, source.means, deviation, source.weights)
            found |= {f"{name}_{n}": float(value) for name, value in own.items()}
        if {1, 2} <= set(steps):
            excess = [found[f"sliced_wasserstein_{n}"] - found["floor"] for n in (1, 2)]
            found["two_step_gain"] = TWO_STEPS * excess[0] - excess[1]
        return {name: float(value) for name, value in found.items()}

    return evaluator


_wasserstein = functools.partial(distances.sliced_wasserstein, directions=64)
_kernel = jax.jit(distances.kernel_distance)


def image_quality(
    net: Net,
    classifier: Net,
    classifier_name: str,
    train: Iterable[Any],
    *,
    read: str,
    draws: int = 1000,
    steps: Sequence[int] = (1, 2),
    seed: int = 0,
    fid: bool = False,
    classes: int = 0,
    prepare: Any = None,
    against: tuple[str, Callable[..., jax.Array], Sequence[int]] | None = None,
    **how: Any,
) -> Callable[..., dict[str, float]]:
    r"""An evaluator: how far samples are from data in features of a classifier.

    For every number of steps n ``kid_n``, and with ``fid`` also ``fid_n``; ``kid_real`` and
    ``fid_real`` are those of the training data, the floor: no sampler is to be below it. All sets
    hold the same number of points. Figures in features of one classifier say nothing of those in
    features of another.

    With a teacher also ``kid_teacher_m``, and ``closed_n``: which part of the gap between the
    teacher's fewest steps and its most the samples close,
    :math:`(k_{few} - k_n) / (k_{few} - k_{many})`.

    Args:
        net: the denoiser.
        classifier: a classifier of the same data.
        classifier_name: under which its variables are in the frozen ones.
        train: batches of the training data, for the floor.
        read: the feature, see :func:`~jaxdistill.evaluation.features`.
        draws: the largest number of points; that of the data where it is less.
        steps: numbers of steps.
        seed: of the samples.
        fid: whether there are points enough for it.
        classes: with labels drawn evenly, how many there are; 0 for a denoiser without labels.
        prepare: ``(batch, key) -> batch`` for the data.
        against: the name of a teacher in the frozen variables, its sampler, and numbers of steps.
        how: see :func:`sampler`.
    """
    run = sampler(net, **how)
    features = reader(classifier, read, prepare=prepare)
    plain = reader(classifier, read)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        if classifier_name not in frozen:
            raise ValueError(unknown("classifier in the frozen variables", classifier_name, frozen))
        known = frozen[classifier_name]
        real, other = (features(known, each).values[:draws] for each in (data, train))
        count = min(len(real), len(other))
        shape = _prepared(next(iter(data)), prepare).shape[1:]

        def seen(run: Any, variables: Any, steps: int) -> np.ndarray:
            """The features of samples; every sampler starts from the same noise."""
            found = []
            for start in range(0, count, BATCH):
                key = jax.random.fold_in(jax.random.key(seed), start)
                noise = jax.random.normal(key, (BATCH, *shape))
                label = jnp.arange(BATCH) % classes if classes else None
                images = np.asarray(run(variables, noise, label, key, steps))
                found.append(plain(known, [{"image": images, "label": np.zeros(BATCH)}]).values)
            return np.concatenate(found)[:count]

        sets = {"real": other[:count]}
        sets |= {str(n): seen(run, result, n) for n in steps}
        if against is not None:
            name, teacher, numbers = against
            if name not in frozen:
                raise ValueError(unknown("teacher in the frozen variables", name, frozen))
            sets |= {f"teacher_{n}": seen(teacher, frozen[name], n) for n in numbers}
        found = {}
        for name, values in sets.items():
            found[f"kid_{name}"] = float(_kid(values, real[:count]))
            if fid:
                found[f"fid_{name}"] = distances.fid(values, real[:count])
        if against is not None:
            few, many = (found[f"kid_teacher_{n}"] for n in (min(numbers), max(numbers)))
            found |= {f"closed_{n}": (few - found[f"kid_{n}"]) / (few - many) for n in steps}
        return found

    return evaluator


def _prepared(batch: Mapping[str, Any], prepare: Any) -> Any:
    """The images of a batch as the nets see them, in shape and type."""
    batch = {name: x for name, x in batch.items() if np.asarray(x).dtype.kind in "biuf"}
    return jax.eval_shape(prepare or (lambda batch, key: batch), batch, jax.random.key(0))["image"]


_kid = jax.jit(distances.kid)
