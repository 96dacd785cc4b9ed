"""Devices that this machine lacks. XLA compiles for a GPU or for chips of a TPU from a description
of them, with the memory that it would take there; what is compiled so can't be run.

That of TPUs is in ``libtpu``, that of GPUs in the plugin of ``jax[cuda12]`` or ``jax[cuda13]``;
neither needs a driver.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import jax

from jaxdistill._errors import unknown

# What XLA asks of a GPU: the data sheet of its maker, and what its driver says of it.
_HOPPER = {
    "threads_per_warp": 32,
    "threads_per_block_limit": 1024,
    "threads_per_core_limit": 2048,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 65535,
    "block_dim_limit_z": 65535,
    "shared_memory_per_block": 48 * 2**10,
    "shared_memory_per_block_optin": 227 * 2**10,
    "shared_memory_per_core": 228 * 2**10,
    "registers_per_block_limit": 2**16,
    "registers_per_core_limit": 2**16,
    "core_count": 132,
    "fpus_per_core": 128,
    "clock_rate_ghz": 1.98,
    "l2_cache_size": 50 * 2**20,
}
GPUS: dict[str, dict[str, Any]] = {
    "H100": {**_HOPPER, "memory_bandwidth": 3_350_000_000_000, "device_memory_size": 80 * 10**9},
    "H200": {**_HOPPER, "memory_bandwidth": 4_800_000_000_000, "device_memory_size": 141 * 10**9},
}
# Chips of a TPU are named as JAX names them: a kind, and how many along each side.
TPUS = ("v4:", "v5e:", "v5p:", "v6e:")


def option(made: Any) -> None:
    """Adds ``--device``."""
    made.add_argument(
        "--device",
        default="",
        metavar="device",
        help=f"compile for one that is not here, run nothing: {', '.join(GPUS)}, several such as "
        "H200:8, or chips of a TPU such as v5e:16x16 or v5p:8x8x4",
    )


def devices(name: str) -> Sequence[Any]:
    """The devices of that name, to place shapes on. Asked for once, before anything is compiled:
    only then are XLA's flags read.

    Raises:
        ValueError: for a name that is none.
        RuntimeError: where its compiler is not installed.
    """
    from jax.experimental import topologies

    kind, _, count = name.partition(":")
    if kind in GPUS and (count or "1").isdigit():
        # Which tiles suit XLA's own products only the device can tell; cuBLAS's need none.
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_enable_triton_gemm=false".strip()
        settings: dict[str, Any] = {"target_config": _described(kind)}
        settings["topology"] = f"1x1x{count or 1}"
        platform, where = "cuda", ""
    elif name.startswith(TPUS):
        # Otherwise it asks the network whether this is a TPU's host, and wants it for itself.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        platform, where, settings = "tpu", name, {}
    else:
        raise ValueError(unknown("device", name, [*GPUS, *(f"{kind}<sides>" for kind in TPUS)]))
    try:
        return topologies.get_topology_desc(where, platform, **settings).devices
    except RuntimeError as fault:
        needed = "jax[tpu]" if platform == "tpu" else "jax[cuda12]"
        message = f"nothing here compiles for {name}: {fault}; is {needed} installed?"
        raise RuntimeError(message) from fault


def named(benchmark: str, options: Any) -> str:
    """What its results are called: those for a device that is not here have a name of their own."""
    return "_".join(filter(None, (benchmark, options.device.replace(":", "_").lower())))


@contextmanager
def as_on_accelerators() -> Iterator[None]:
    """What the library does on CPUs alone it does not do here, and what must be run all the same is
    run on the CPU."""
    jax.config.update("jax_platforms", "cpu")
    with mock.patch.object(jax, "default_backend", return_value="accelerator"):
        yield


def _described(name: str) -> str:
    """A GPU in the words of XLA."""
    lines = [f"{key}: {value}" for key, value in GPUS[name].items()]
    return "\n".join(
        [
            "gpu_device_info {",
            *lines,
            "cuda_compute_capability { major: 9 }",
            "}",
            'platform_name: "CUDA"',
            "dnn_version_info { major: 9 minor: 10 }",
            "runtime_version { major: 12 minor: 8 }",
            f'device_description_str: "NVIDIA {name}"',
        ]
    )
