"""Tests of samplers run in float64."""

from pathlib import Path

import jax
import numpy as np
import pytest

GOLDENS = Path(__file__).parents[1] / "goldens"


@pytest.fixture(autouse=True)
def _wide():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def golden():
    """The stored numbers of a case by its name."""

    def load(name):
        with np.load(GOLDENS / f"{name}.npz", allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    return load
