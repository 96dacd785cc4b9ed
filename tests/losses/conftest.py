"""Tests of losses run with strict dtype promotion: a loss that mixes dtypes by chance fails."""

import jax
import pytest


@pytest.fixture(autouse=True)
def _strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield
