"""Strict JAX for every test: eight forced host devices, no silent rank promotion."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs of tests run for a moment: most of their time goes into making them fast.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
_DEVICES = "--xla_force_host_platform_device_count=8"
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK} {_DEVICES}".strip()

import jax  # noqa: E402  (the flags above must be set before JAX starts)

jax.config.update("jax_numpy_rank_promotion", "raise")
