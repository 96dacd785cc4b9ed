"""Tests of losses run with strict dtype promotion: a loss that mixes dtypes by chance fails."""

import jax
import pytest

# Hundreds of programs of a few numbers each: where JAX has the option, compile them in a hurry.
_HURRY = "jax_disable_most_optimizations"


@pytest.fixture(autouse=True)
def _strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(autouse=True)
def _quick_compilation():
    before = getattr(jax.config, _HURRY, None)
    if before is None:
        yield
        return
    jax.config.update(_HURRY, True)
    yield
    jax.config.update(_HURRY, before)
