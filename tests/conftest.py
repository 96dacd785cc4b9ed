"""Strict JAX for every test: eight forced host devices, no silent rank promotion."""

import os
from importlib.metadata import version

# Programs of tests run for a moment: most of their time goes into making them fast, and threads
# that wait for each other take the rest.
_QUICK = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
    # Eight devices that share busy cores may wait long for each other; after 40 s XLA would abort.
    "--xla_cpu_collective_call_terminate_timeout_seconds=600",
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

# Of a second version of Python these are run: what every part must hold, and one config a family.
_FEW = (
    "tests/test_contract.py",
    "tests/losses/",
    "tests/registry/test_tables.py",
    "tests/training/test_fit.py",
    "tests/training/test_loop.py",
    "tests/training/test_checkpoint.py",
    "tests/test_config_files.py",
    "tests/test_import.py",
    "tests/test_net",
    "tests/test_settings.py",
)
_FAMILIES = ("hinton_mnist", "mae_vitb", "dmd2", "ftd", "distillspec", "self_distill_kernel")


def pytest_addoption(parser):
    parser.addoption(
        "--few",
        action="store_true",
        help="the contract, the losses, the registry, the loop, and one config a family",
    )


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--few"):
        return

    def wanted(name: str) -> bool:
        if name.startswith("tests/test_run.py"):
            return "[" not in name or any(family in name for family in _FAMILIES)
        return name.startswith(_FEW)

    kept = [item for item in items if wanted(item.nodeid)]
    config.hook.pytest_deselected(items=[item for item in items if not wanted(item.nodeid)])
    items[:] = kept
