"""Strict JAX for every test: eight forced host devices, no silent rank promotion."""

import os
from importlib.metadata import version

# Programs of tests run for a moment: most of their time goes into making them fast, and threads
# that wait for each other take the rest.
_QUICK = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
    _QUICK.append("--xla_cpu_use_fusion_emitters=false")  # newer ones have no others
else:
    _QUICK.append("--xla_cpu_emitter_verification_level=0")
# Tests that start processes of their own give them these.
os.environ["QUICK_XLA_FLAGS"] = " ".join(_QUICK)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
_DEVICES = "--xla_force_host_platform_device_count=8"
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    flags = (os.environ.get("XLA_FLAGS", ""), os.environ["QUICK_XLA_FLAGS"], _DEVICES)
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()

import jax  # noqa: E402  (the flags above must be set before JAX starts)

jax.config.update("jax_numpy_rank_promotion", "raise")
