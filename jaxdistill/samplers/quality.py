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
from jaxdistill.distiller import entry
from jaxdistill.evaluation import distances
from jaxdistill.evaluation.batches import Evaluator
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.evaluation.representations import reader
from jaxdistill.net import Net
from jaxdistill.progress import shown
from jaxdistill.samplers.denoisers import as_function, noised
from jaxdistill.samplers.mixtures import Mixture, denoise, draw, guided_denoise
from jaxdistill.samplers.paths import edm
from jaxdistill.samplers.schedules import karras, log_snr_steps, refuse_fall
from jaxdistill.samplers.solvers import SOLVERS, SolverName, heun, sample
from jaxdistill.settings import Count, Finite, Natural, Positive

# Two steps of a consistency model must be at most this share of one, in excess of the floor.
TWO_STEPS = 0.7
# What is measured of samples of a density, and with modes that are known.
DISTANCES = ("sliced_wasserstein", "kernel_distance")
MODES = ("mode_quality", "mode_variation", "within_mode")
# Samples that a net makes at a time.
BATCH = 500
# Steps of Heun's method from one level to the next of an exact way.
WAY = 30
# Sets of exact samples whose mean distance is the floor.
FLOORS = 4


def sampler(
    net: Net,
    *,
    solver: SolverName = "consistency",
    high: Positive = 80.0,
    low: Positive = 0.002,
    middle: Sequence[Positive] = (),
    scale: Finite | None = None,
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
        ValueError: for an unknown solver and levels that do not fall; when it runs, for fewer
            levels in ``middle`` than steps after the first.
    """
    if solver not in SOLVERS:
        raise ValueError(unknown("solver", solver, SOLVERS))
    refuse_fall(low, high)
    if list(middle) != sorted({*middle} - {high}, reverse=True) or max(middle, default=low) > high:
        raise ValueError(f"middle={tuple(middle)} must fall, from below high={high}")

    def made(variables, label):
        say = as_function(net, variables, label=label, scale=scale, embedded=embedded)
        return SOLVERS[solver](say, edm())

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
    seed: int = 0,
    *,
    draws: Count = 100_000,
    in_steps: Sequence[Count] = (1, 2),
    label: Natural | None = None,
    labels: bool = False,
    solver: SolverName = "consistency",
    high: Positive = 80.0,
    low: Positive = 0.002,
    middle: Sequence[Positive] = (),
    scale: Finite | None = None,
    embedded: bool = False,
    mode: Natural | None = None,
) -> Evaluator:
    r"""An evaluator: how far samples are from a mixture whose modes are round.

    For every number of steps n: ``sliced_wasserstein_n``, ``kernel_distance_n`` (of 2,000 samples),
    ``mode_variation_n``, ``mode_quality_n`` and ``within_mode_n``, see
    :mod:`jaxdistill.evaluation.distances`; ``floor``, the sliced Wasserstein distance of as many
    exact samples, a mean over four sets; and where there are one and two steps
    ``two_step_gain``, :math:`0.7\,(s_1 - f) - (s_2 - f)` with f the floor: above zero where the
    second step takes away at least 30 % of what the first is above the floor. Where there are three
    numbers of steps or more ``rise`` is the largest difference of the distance to that of the next
    fewer steps, above zero where more steps are farther off.

    With a scale of guidance the density does not say which samples are right: those that the exact
    guided teacher makes in 60 steps of Heun's method do, and modes are not measured.

    Args:
        net: the denoiser.
        source: the density.
        seed: of the samples.
        draws: how many samples.
        in_steps: numbers of steps.
        label: the class that is sampled, all by default.
        labels: whether the denoiser is given labels, drawn evenly, where all classes are sampled.
        solver: see :func:`sampler`, as all that follow.
        high: the level of the noise at the start.
        low: the least level above zero.
        middle: the levels after the first.
        scale: of guidance, None for none.
        embedded: whether the net is given the scale.
        mode: of which ``mode_share_n`` is measured as well, the share of samples nearest to it.

    Raises:
        ValueError: see :func:`sampler`.
    """
    run = sampler(
        net, solver=solver, high=high, low=low, middle=middle, scale=scale, embedded=embedded
    )
    guided = None if scale is None else _guided_samples(source, label, scale)
    deviation = float(np.sqrt(np.max(np.asarray(source.variances))))

    def right(key: jax.Array, even: bool = False) -> jax.Array:
        """Samples as they should be."""
        if guided is not None:
            return guided(jax.random.normal(key, (draws, source.means.shape[1])))
        return draw(key, source, draws, label, even=even)[0].astype(jnp.float32)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        keys = jax.random.split(jax.random.key(seed), 3 + FLOORS)
        truth = right(keys[0], True)
        floors = [_wasserstein(right(key), truth) for key in keys[3:]]
        found: dict[str, Any] = {"floor": np.mean(floors)}
        asked = jnp.arange(draws) % source.classes if labels else None
        asked = asked if label is None else jnp.full(draws, label)
        noise = jax.random.normal(keys[1], truth.shape)
        for n in shown(in_steps, "sample", "numbers of steps"):
            points = run(result, noise, asked, keys[2], n)
            own = {
                "sliced_wasserstein": _wasserstein(points, truth),
                "kernel_distance": _kernel(points[:2000], truth[:: max(draws // 2000, 1)][:2000]),
            }
            if guided is None:
                own |= distances.modes(points, source.means, deviation, source.weights)
            if mode is not None:
                own["mode_share"] = distances.share_of_mode(points, source.means, mode)
            found |= {f"{name}_{n}": float(value) for name, value in own.items()}
        if {1, 2} <= set(in_steps):
            excess = [found[f"sliced_wasserstein_{n}"] - found["floor"] for n in (1, 2)]
            found["two_step_gain"] = TWO_STEPS * excess[0] - excess[1]
        if len(in_steps) > 2:
            by_steps = [found[f"sliced_wasserstein_{n}"] for n in sorted(in_steps)]
            found["rise"] = max(after - now for now, after in itertools.pairwise(by_steps))
        return {name: float(value) for name, value in found.items()}

    each = DISTANCES if guided is not None else (*DISTANCES, *MODES)
    each = each if mode is None else (*each, "mode_share")
    gain = ("two_step_gain",) if {1, 2} <= set(in_steps) else ()
    gain += ("rise",) if len(in_steps) > 2 else ()
    names = [f"{name}_{n}" for n in in_steps for name in each]
    return measuring(("floor", *names, *gain), evaluator)


def signal_error(
    net: Net,
    source: Mixture,
    seed: int = 0,
    *,
    draws: Count = 5000,
    early: Positive = 20.0,
    middle: Positive = 1.0,
    low: Positive = 0.002,
    high: Positive = 80.0,
) -> Evaluator:
    r"""An evaluator: how far a net that was bootstrapped along a teacher's way is from that way.

    ``early_signal_error``, ``middle_signal_error`` and ``last_signal_error``: the root of the mean
    squared distance of :math:`y_\theta(\epsilon, s)` from the signal on the exact density's way
    from the same noise, at two levels and at the end. ``signal_growth`` is the last less the early.

    Args:
        net: see :func:`~jaxdistill.samplers.bootstrapped`.
        source: the density.
        seed: of the noise.
        draws: how many noises.
        early: a level on the way.
        middle: a lower one.
        low: the least level, where the way ends.
        high: where it begins.

    Raises:
        ValueError: for levels that do not fall.
    """
    levels = (high, early, middle, low)
    if list(levels) != sorted(set(levels), reverse=True):
        raise ValueError(f"the levels high, early, middle, low must fall, got {levels}")
    solver = heun(functools.partial(denoise, source), edm())

    @jax.jit
    def error(variables, noise):
        x, found = high * noise, []
        for above, below in itertools.pairwise(levels):
            x = sample(solver, log_snr_steps(below, above, WAY), x)
            until = jnp.full(len(x), below)
            said = net.apply(*variables, noised(high * noise, high, until=until)).out
            found.append(jnp.sqrt(((said - (x - below * noise)) ** 2).sum(-1).mean()))
        return found

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        noise = jax.random.normal(jax.random.key(seed), (draws, source.means.shape[1]))
        found = dict(
            zip(("early", "middle", "last"), map(float, error(result, noise)), strict=True)
        )
        growth = found["last"] - found["early"]
        return {**{f"{k}_signal_error": v for k, v in found.items()}, "signal_growth": growth}

    names = ("early_signal_error", "middle_signal_error", "last_signal_error", "signal_growth")
    return measuring(names, evaluator)


def _guided_samples(source: Mixture, label: int | None, scale: float) -> Any:
    """What the exact guided teacher makes of noise, with many steps of Heun's method."""
    path, times = edm(), karras(60)

    def say(x, sigma):
        return guided_denoise(source, x, sigma, -1 if label is None else label, scale)

    solver = heun(say, path)
    return jax.jit(lambda noise: sample(solver, times, times[0] * noise))


_wasserstein = functools.partial(distances.sliced_wasserstein, directions=64)
_kernel = jax.jit(distances.kernel_distance)


def image_quality(
    net: Net,
    classifier: tuple[str, Net],
    train: Iterable[Any],
    classes: int = 0,
    prepare: Any = None,
    against: tuple[str, Callable[..., jax.Array], Sequence[int]] | None = None,
    seed: int = 0,
    *,
    read: str,
    labels: bool = False,
    draws: Count = 1000,
    in_steps: Sequence[Count] = (1, 2),
    fid: bool = False,
    solver: SolverName = "consistency",
    high: Positive = 80.0,
    low: Positive = 0.002,
    middle: Sequence[Positive] = (),
    scale: Finite | None = None,
    embedded: bool = False,
) -> Evaluator:
    r"""An evaluator: how far samples are from data in features of a classifier.

    For every number of steps n ``kid_n``, and with ``fid`` also ``fid_n``; ``kid_real`` and
    ``fid_real`` are those of the training data, the floor: no sampler should be below it. All sets
    hold the same number of points. Figures in features of one classifier say nothing about those in
    features of another. Where FIDs of one and two steps are measured, ``fid_gain`` is the share of
    the first that the second step takes away, :math:`1 - f_2 / f_1`.

    With a teacher also ``kid_teacher_m``, and ``closed_n``: which part of the gap between the
    teacher's fewest steps and its most the samples close,
    :math:`(k_{few} - k_n) / (k_{few} - k_{many})`.

    Args:
        net: the denoiser.
        classifier: a classifier of the same data, after the name under which its variables are in
            the frozen ones.
        train: batches of the training data, for the floor.
        classes: how many classes there are, for ``labels``.
        prepare: ``(batch, key) -> batch`` for the data.
        against: the name of a teacher in the frozen variables, its sampler, and numbers of steps.
        seed: of the samples.
        read: the feature, see :func:`~jaxdistill.evaluation.features`.
        labels: whether the denoiser is given labels, drawn evenly.
        draws: the largest number of points; that of the data where it is less.
        in_steps: numbers of steps.
        fid: whether there are points enough for it.
        solver: see :func:`sampler`, as all that follow.
        high: the level of the noise at the start.
        low: the least level above zero.
        middle: the levels after the first.
        scale: of guidance, None for none.
        embedded: whether the net is given the scale.

    Raises:
        ValueError: see :func:`sampler`; when it runs, for a classifier or teacher that is not among
            the frozen variables.
    """
    run = sampler(
        net, solver=solver, high=high, low=low, middle=middle, scale=scale, embedded=embedded
    )
    name, known = classifier
    own, teacher, numbers = against or ("", run, ())
    features = reader(known, read, prepare=prepare)
    plain = reader(known, read)

    def sampled(
        variables: Any, run: Any, weights: Any, steps: int, count: int, shape: tuple[int, ...]
    ) -> np.ndarray:
        """The features of samples; every sampler starts from the same noise."""
        found = []
        for start in shown(range(0, count, BATCH), f"sample in {steps} steps"):
            key = jax.random.fold_in(jax.random.key(seed), start)
            noise = jax.random.normal(key, (BATCH, *shape))
            label = jnp.arange(BATCH) % classes if labels else None
            images = np.asarray(run(weights, noise, label, key, steps))
            found.append(plain(variables, [{"image": images, "label": np.zeros(BATCH)}]).values)
        return np.concatenate(found)[:count]

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        variables = entry("classifier in the frozen variables", name, frozen)
        real, other = (features(variables, each).values[:draws] for each in (data, train))
        count = min(len(real), len(other))
        shape = _prepared(next(iter(data)), prepare).shape[1:]
        sets = {"real": other[:count]}
        sets |= {str(n): sampled(variables, run, result, n, count, shape) for n in in_steps}
        for n in numbers:
            weights = entry("teacher in the frozen variables", own, frozen)
            sets[f"teacher_{n}"] = sampled(variables, teacher, weights, n, count, shape)
        found = {}
        for key, values in sets.items():
            found[f"kid_{key}"] = float(_kid(values, real[:count]))
            if fid:
                found[f"fid_{key}"] = float(distances.fid(values, real[:count]))
        if fid and {1, 2} <= set(in_steps):
            found["fid_gain"] = 1 - found["fid_2"] / found["fid_1"]
        return found | _closed(found, numbers, in_steps)

    return measuring(_names(numbers, in_steps, fid), evaluator)


def _closed(
    found: Mapping[str, float], numbers: Sequence[int], in_steps: Sequence[int]
) -> dict[str, float]:
    """Which part of the gap between a teacher's fewest steps and its most samples close."""
    if not numbers:
        return {}
    few, many = (found[f"kid_teacher_{n}"] for n in (min(numbers), max(numbers)))
    return {f"closed_{n}": (few - found[f"kid_{n}"]) / (few - many) for n in in_steps}


def _names(numbers: Sequence[int], in_steps: Sequence[int], fid: bool) -> list[str]:
    sets = ["real", *map(str, in_steps), *(f"teacher_{n}" for n in numbers)]
    distances = [f"{name}_{each}" for name in ("kid", "fid")[: 1 + fid] for each in sets]
    gain = ["fid_gain"] if fid and {1, 2} <= set(in_steps) else []
    return distances + gain + [f"closed_{n}" for n in in_steps if numbers]


def _prepared(batch: Mapping[str, Any], prepare: Any) -> Any:
    """The images of a batch as the nets see them, in shape and type."""
    batch = {name: x for name, x in batch.items() if np.asarray(x).dtype.kind in "biuf"}
    return jax.eval_shape(prepare or (lambda batch, key: batch), batch, jax.random.key(0))["image"]


_kid = jax.jit(distances.kid)
