"""Tests of losses run with strict dtype promotion: a loss that mixes dtypes by chance fails."""

import os

# Hundreds of programs of a few numbers each: compile them in a hurry. Read when JAX first meets its
# devices; later it changes nothing but the time.
_HURRY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_HURRY}".strip()

import jax  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def _strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield
