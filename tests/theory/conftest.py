"""Tests of theory run with strict dtype promotion; most of them in float64."""

import jax
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def wide():
    """Float64 for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=[(0, 6, 6), (1, 9, 4), (2, 12, 12), (3, 12, 1), (4, 7, 5), (5, 2, 1)])
def case(request, wide):
    """A random kernel, singular where its rank is below its size, targets and new points."""
    seed, size, rank = request.param
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(size + 5, rank)) * 10 ** draw.uniform(-1.5, 1, size=rank)
    kernel = features @ features.T
    return {
        "kernel": kernel[:size, :size],
        "cross": kernel[size:, :size],
        "targets": draw.normal(size=(size, 2)),
        "validation": draw.normal(size=(5, 2)),
        "ridge": 10 ** draw.uniform(-2, 1),
        "weights": draw.uniform(size=6),
        "features": features,
    }
