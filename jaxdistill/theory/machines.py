"""Kernel machines as nets, and their self-distillation as a distiller.

:func:`~jaxdistill.theory.path` and its neighbours give all steps at once. Here a step is a step of
the loop, so that it is evaluated, checkpointed, resumed and reported like any other training, and
must agree with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.distiller import Distiller
from jaxdistill.evaluation.regression import as_targets
from jaxdistill.losses.numerics import widen
from jaxdistill.net import Forward, Net
from jaxdistill.settings import Finite, NonNegative
from jaxdistill.theory import _checks
from jaxdistill.theory.ridge import Fit, Spectrum, predict, spectral_fit, spectrum
from jaxdistill.theory.self_distillation import optimal_weight

Kernel = Callable[[jax.Array, jax.Array], jax.Array]
"""A kernel: ``(x [n, d], y [m, d]) -> [n, m]``."""


class Steps(NamedTuple):
    """The state of :func:`self_distilled_fit`.

    Attributes:
        step: how many fits were made.
        points: ``[n, ...]``, what is fitted.
        targets: ``[n, c]``.
        spectrum: of the kernel of the points.
        first: the fit to the targets.
        fit: the last one.
    """

    step: jax.Array
    points: jax.Array
    targets: jax.Array
    spectrum: Spectrum
    first: Fit
    fit: Fit


def kernel_machine(kernel: Kernel, outputs: int = 1) -> Net:
    r"""The net :math:`f(x) = \sum_i k(x, x_i) c_i`.

    Its parameters are the ``coefficients`` ``[n, c]``, zero at the start; its state holds the
    ``points`` ``[n, ...]``, those that it is initialised on.

    Args:
        kernel: ``(x [m, ...], points [n, ...]) -> [m, n]``.
        outputs: c.

    Example:
        >>> from jaxdistill.theory import linear
        >>> net = kernel_machine(linear)
        >>> params, state = net.init(jax.random.key(0), jnp.ones((3, 2)))
        >>> net.apply(params, state, jnp.ones((4, 2))).out.shape
        (4, 1)
    """

    def init(key: jax.Array, inputs: Any) -> tuple[Any, Any]:
        (points,) = widen(inputs)
        return {"coefficients": jnp.zeros((points.shape[0], outputs), points.dtype)}, {
            "points": points
        }

    def apply(params, state, inputs, *, taps=(), train=False, rng=None) -> Forward:
        if taps:
            raise ValueError(f"a kernel machine has no taps, asked for {tuple(taps)}")
        cross = kernel(inputs, state["points"])
        return Forward(predict(cross, params["coefficients"]), {}, state, params)

    return Net(init, apply)


def self_distilled_fit(
    kernel: Kernel,
    outputs: int = 1,
    prepare: Callable[[Any, jax.Array], Any] | None = None,
    *,
    ridge: NonNegative,
    weight: Finite | Literal["best"] = 0.0,
    held_out: str = "validation",
) -> Distiller:
    r"""Repeated self-distillation of a ridge fit, one step of the loop a fit.

    Step t fits :math:`\alpha y + (1 - \alpha) f_{t-1}(X)`, the first one y; see
    :mod:`jaxdistill.theory.self_distillation`. The kernel is decomposed once, when the state is
    made, and a step is two products with its eigenvectors.

    Args:
        kernel: ``(x [m, ...], points [n, ...]) -> [m, n]``.
        outputs: how many each point has; of labels that are integers, how many classes.
        prepare: ``(batch, key) -> batch`` that gives ``batch["student"]``; the same of every batch.
        ridge: at least zero.
        weight: of the ground truth; ``"best"`` takes at every step the one in [0, 1] with the least
            squared error on the records ``frozen[held_out]``.
        held_out: the entry of ``frozen`` with the records that ``"best"`` is chosen by.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` whose first batch holds all records to fit
        (``image``, ``label``), and whose result are the variables of :func:`kernel_machine`. Its
        metrics are ``weight``, ``train_error`` (mean squared error to the targets) and ``moved``
        (mean square of how far the fitted values went from those of the step before).

    Raises:
        ValueError: for a negative ridge, a weight that is neither a finite number nor ``"best"``;
            at init for labels that do not fit ``outputs``.

    References:
        Borup and Andersen, Even your Teacher Needs Guidance, 2021,
        https://arxiv.org/abs/2102.13088

    Example:
        >>> from jaxdistill.theory import linear
        >>> distiller = self_distilled_fit(linear, ridge=1.0)
        >>> batch = {"image": jnp.ones((1, 1)), "label": jnp.array([8.0])}
        >>> state = distiller.init(jax.random.key(0), {}, batch)
        >>> for _ in range(3):
        ...     state, metrics = distiller.step(state, {}, batch)
        >>> state.fit.fitted.round(4).tolist()
        [[1.0]]
    """
    _checks.at_least_zero(ridge=ridge)
    if weight != "best":
        if isinstance(weight, str):
            raise ValueError(f"weight must be a number or 'best', got {weight!r}")
        _checks.scalar(weight=weight)

    def read(batch: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        if prepare is not None:
            batch = {**batch, "image": prepare(batch, key)["student"]}
        points, labels = widen(batch["image"], as_targets(jnp.asarray(batch["label"]), outputs))
        if labels.shape[1] != outputs:
            raise ValueError(f"labels must have {outputs} outputs, got shape {labels.shape}")
        return points, labels

    def init(key: jax.Array, frozen: Any, batch: Any) -> Steps:
        points, targets = read(batch, key)
        zeros = jnp.zeros_like(targets)
        found = spectrum(kernel(points, points))
        first = spectral_fit(found, targets, ridge)
        return Steps(jnp.zeros((), jnp.int32), points, targets, found, first, Fit(zeros, zeros))

    def step(state: Steps, frozen: Any, batch: Any) -> tuple[Steps, Any]:
        first, alone = state.first, spectral_fit(state.spectrum, state.fit.fitted, ridge)
        share = jnp.asarray(0.0 if weight == "best" else weight, state.targets.dtype)
        if weight == "best":
            points, wanted = read(frozen[held_out], jax.random.key(0))
            cross = kernel(points, state.points)
            guided, unguided = (predict(cross, f.coefficients) for f in (first, alone))
            share = optimal_weight(wanted, guided, unguided).weight
        share = jnp.where(state.step == 0, 1, share)
        found = jax.tree.map(lambda x, y: share * x + (1 - share) * y, first, alone)
        count = jnp.asarray(state.targets.shape[0], jnp.float32)

        def squares(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
            return jnp.sum(jnp.square(x - y)), count

        metrics = {
            "weight": (share, jnp.ones(())),
            "train_error": squares(found.fitted, state.targets),
            "moved": squares(found.fitted, state.fit.fitted),
        }
        return state._replace(step=state.step + 1, fit=found), metrics

    def result(state: Steps) -> tuple[Any, Any]:
        return {"coefficients": state.fit.coefficients}, {"points": state.points}

    return Distiller(init, step, result)
