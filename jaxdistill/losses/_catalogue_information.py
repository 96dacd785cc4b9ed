"""The cards of the bounds on mutual information."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp

from jaxdistill.losses._entry import BATCH, Entry, features
from jaxdistill.losses._geometry import pairs
from jaxdistill.losses.information import (
    barber_agakov_bound,
    info_nce_bound,
    jensen_shannon_bound,
    jensen_shannon_objective,
    leave_one_out_bound,
    mi_alpha_bound,
    nwj_bound,
    tuba_bound,
)
from jaxdistill.losses.numerics import clear, matmul, on_any_mesh, widen

ALIKE = features((5, 3), (5, 3))


def _of_vectors(bound: Callable) -> Callable:
    """A bound under the critic ``f(s, t) = s . t``, so that the sample's rows are its examples.

    Scores of examples that do not count are garbage, as they are for any critic.
    """

    @functools.wraps(bound)
    def loss(student, teacher, *others, where=None, **options):
        student, teacher = widen(clear(student, where), clear(teacher, where))
        scores = jnp.where(pairs(where, student.shape[0]), matmul(student, teacher.T), jnp.nan)
        return bound(scores, *others, where=where, **options)

    return on_any_mesh(loss)


CATALOGUE: tuple[Entry, ...] = (
    Entry(
        barber_agakov_bound,
        "information",
        BATCH,
        "mean log q(t | s) + H(t)",
        "mean over examples",
        features((5,)),
        paper="Barber 2003, NeurIPS",
        teacher=None,
    ),
    Entry(
        _of_vectors(tuba_bound),
        "information",
        BATCH,
        "1 + mean_i (f_ii - a_i) - mean_i!=j e^(f_ij - a_i)",
        "means over n and n(n - 1)",
        features((5, 3), (5, 3), (5,)),
        paper="Poole 2019, arXiv 1905.06922",
        equal_to=(("Distiller tuba_lower_bound", ""),),
        remarks="the exponential continues along its tangent before it overflows",
        student=(0, 2),
    ),
    Entry(
        _of_vectors(nwj_bound),
        "information",
        BATCH,
        "mean_i f_ii - mean_i!=j e^(f_ij - 1)",
        "means over n and n(n - 1)",
        ALIKE,
        paper="Nguyen 2010, arXiv 0809.0853",
        equal_to=(("Distiller nwj_lower_bound", ""),),
        remarks="the exponential continues along its tangent before it overflows",
    ),
    Entry(
        _of_vectors(info_nce_bound),
        "information",
        BATCH,
        "log n + mean_i (f_ii - logsumexp_j f_ij)",
        "mean over n, at most log n",
        ALIKE,
        paper="van den Oord 2018, arXiv 1807.03748",
        invariances="shift of a row",
    ),
    Entry(
        _of_vectors(jensen_shannon_objective),
        "information",
        BATCH,
        "-mean_i softplus(-f_ii) - mean_i!=j softplus(f_ij)",
        "means over n and n(n - 1)",
        ALIKE,
        paper="Hjelm 2019, arXiv 1808.06670",
        equal_to=(("vbmi js_fgan_lower_bound", ""),),
    ),
    Entry(
        _of_vectors(jensen_shannon_bound),
        "information",
        BATCH,
        "NWJ(f + 1) in value, JS(f) in gradient",
        "means over n and n(n - 1)",
        ALIKE,
        paper="Poole 2019, arXiv 1905.06922",
        equal_to=(("vbmi js_lower_bound", "its NWJ at f + 1"),),
        order=0,
    ),
    Entry(
        _of_vectors(leave_one_out_bound),
        "information",
        BATCH,
        "mean_i!=j (f_ii - log mean_k!=j e^f_ik)",
        "means over n(n - 1)",
        ALIKE,
        paper="Poole 2019, arXiv 1905.06922",
        equal_to=(("Distiller interpolated_lower_bound", "alpha_logit to +inf"),),
        invariances="shift of a row",
    ),
    Entry(
        _of_vectors(mi_alpha_bound),
        "information",
        BATCH,
        "1 + mean_i!=j (f_ii - b_ij) - mean_i!=j e^(f_ij - b_ii)",
        "means over n(n - 1), at most log(n / alpha)",
        features((5, 3), (5, 3), (5,), alpha=0.3),
        paper="Poole 2019, arXiv 1905.06922",
        equal_to=(("Distiller interpolated_lower_bound", "alpha_logit=log(alpha / (1 - alpha))"),),
        remarks="fewer than two rows that count: 0",
        student=(0, 2),
    ),
)
