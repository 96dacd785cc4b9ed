"""What this machine has, and what is missing: versions, devices, extras, and how to get them.

    jaxdistill doctor

JAX is tried in a process of its own, which is ended if it does not answer: a driver that hangs, or
a device that another process holds, leaves this command alone. The exit status is 1 if JAX does not
compute here, or a package that the library needs is missing; an extra that is missing is no fault.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from jaxdistill import __version__
from jaxdistill._columns import aligned
from jaxdistill.main import guarded

SECONDS = flags.DEFINE_integer(
    "seconds", 60, "how long JAX may take to find its devices", lower_bound=1
)

# What each extra is for, and what it costs to be without it.
PURPOSES = {
    "plots": "curves and pictures of reports",
    "images": "folders of images, predictions on image files",
    "tfds": "data sets of tensorflow_datasets without TensorFlow",
    "export": "students as safetensors and StableHLO, published weights",
    "tensorboard": "runs watched in TensorBoard",
    "wandb": "runs watched in Weights & Biases",
    "trackio": "runs watched in trackio",
    "equinox": "Equinox modules as nets",
    "hf": "weights and tokenizers from the hub",
    "text": "tokenizers, Parquet files",
    "records": "near-duplicates, verified mathematics, Parquet of records",
}
_TRIED = """
import json, os, sys, time
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import jax, jax.numpy as jnp
begun = time.perf_counter()
x = jnp.ones((256, 256))
assert float((x @ x)[0, 0]) == 256.0
found = [{"kind": d.device_kind, "platform": d.platform} for d in jax.devices()]
for each, device in zip(found, jax.devices()):
    each["bytes"] = (device.memory_stats() or {}).get("bytes_limit", 0)
print(json.dumps({"devices": found, "seconds": time.perf_counter() - begun}))
"""
# The line of a traceback that says what was raised.
_FAULT = re.compile(r"[\w.]+(Error|Exception|Interrupt|Exit)\b")


class Needed(NamedTuple):
    """A package that the library or one of its extras needs; the version is that which is here, or
    nothing."""

    package: str
    asked: str
    extra: str
    version: str | None


def needed() -> list[Needed]:
    """What the installed library says it needs, in this interpreter."""
    found = {}
    for line in metadata.requires("jaxdistill") or ():
        matched = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*([^;]*)(?:;(.*))?$", line)
        if not matched or matched[1] == "jaxdistill":
            continue
        package, asked, marker = matched[1], matched[2].strip(), matched[3] or ""
        extra = re.search(r"extra\s*==\s*['\"](\w+)['\"]", marker)
        if _applies(marker):
            own = (package, extra[1] if extra else "")
            found[own] = Needed(package, asked, own[1], _version(package))
    return list(found.values())


def _applies(marker: str) -> bool:
    """Whether a requirement is one of this Python."""
    bound = re.search(r"python_version\s*(<|>=)\s*['\"]3\.(\d+)['\"]", marker)
    if not bound:
        return True
    below = sys.version_info[1] < int(bound[2])
    return below if bound[1] == "<" else not below


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def fits(version: str, asked: str) -> bool:
    """Whether a version is within the bounds that are asked for.

    Example:
        >>> fits("0.10.2", ">=0.10.0,<0.11"), fits("0.9.1", ">=0.10.0"), fits("1.0rc1", "<1")
        (True, False, False)
    """

    def parts(text: str) -> list[int]:
        numbers = [int(each) for each in re.findall(r"\d+", text.split("rc")[0])[:3]]
        return numbers + [0] * (3 - len(numbers))

    bounds = re.findall(r"(>=|<=|==|<|>)\s*([\w.]+)", asked)
    here = parts(version)
    kept = {
        ">=": lambda b: here >= b,
        "<=": lambda b: here <= b,
        "==": lambda b: here == b,
        "<": lambda b: here < b,
        ">": lambda b: here > b,
    }
    return all(kept[sign](parts(bound)) for sign, bound in bounds)


def tried(seconds: float) -> dict[str, Any]:
    """What JAX finds in a process of its own: ``devices`` and ``seconds``, or a ``fault``."""
    call = [sys.executable, "-c", _TRIED]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"fault": f"JAX did not answer within {seconds:g} s", "hangs": True}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    lines = [line for line in done.stderr.splitlines() if _FAULT.match(line)]
    return {"fault": lines[-1] if lines else f"Python ended with status {done.returncode}"}


def accelerators() -> dict[str, str]:
    """Accelerators that the system shows, whether JAX knows them or not, and the extra of JAX for
    each."""
    found = {}
    if shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists():
        found["an NVIDIA GPU"] = "cuda13"
    if list(Path("/dev").glob("accel[0-9]*")) or os.environ.get("TPU_NAME"):
        found["a TPU"] = "tpu"
    return found


def _devices(answer: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Lines about devices, and what to do."""
    platform_asked = os.environ.get("JAX_PLATFORMS", "")
    if "fault" in answer:
        asked = f" with JAX_PLATFORMS={platform_asked}" if platform_asked else ""
        advice = [f"JAX does not compute here{asked}: {answer['fault']}"]
        if answer.get("hangs"):
            advice.append("another process may hold the device: end it, or give --seconds=300")
        if platform_asked:
            advice.append("unset JAX_PLATFORMS, or set it to cpu")
        elif importlib.util.find_spec("jax"):
            advice.append("JAX_PLATFORMS=cpu does without the device")
        return ["none that computes"], advice
    kinds: dict[tuple[str, str, int], int] = {}
    for device in answer["devices"]:
        own = (device["kind"], device["platform"], device["bytes"])
        kinds[own] = kinds.get(own, 0) + 1
    lines = []
    for (kind, platform_name, size), count in kinds.items():
        memory = f", {size / 2**30:.0f} GiB each" if size else ""
        name = platform_name if kind == platform_name else f"{kind} ({platform_name})"
        lines.append(f"{count} × {name}{memory}")
    lines[-1] += f"; found, and a product computed, in {answer['seconds']:.1f} s"
    advice = []
    if all(device["platform"] == "cpu" for device in answer["devices"]) and not platform_asked:
        for what, extra in accelerators().items():
            advice.append(
                f'this machine has {what} that JAX does not use: pip install "jax[{extra}]"'
            )
    return lines, advice


def examined(packages: list[Needed], answer: dict[str, Any]) -> tuple[str, int]:
    """What is here and what is missing, as text, and the exit status."""
    core = [each for each in packages if not each.extra]
    lost = [each.package for each in core if each.version is None]
    old = [each for each in packages if each.version and not fits(each.version, each.asked)]
    devices, advice = _devices(answer)
    if lost:
        advice.insert(0, f"needed and missing: {', '.join(lost)}: pip install jaxdistill")
    for each in old:
        wanted = f"{each.package}{each.asked}"
        advice.append(f'{each.package} is {each.version}: pip install "{wanted}"')
    rows, missing = [], []
    for extra, purpose in PURPOSES.items():
        own = [each for each in packages if each.extra == extra]
        absent = [each.package for each in own if each.version is None]
        missing += [extra] if absent else []
        state = f"without {', '.join(absent)}" if absent else "here"
        rows.append((extra, state, purpose))
    if missing:
        advice.append(f'for these extras: pip install "jaxdistill[{",".join(missing)}]"')
    here = [("jaxdistill", __version__, str(Path(__file__).parent))]
    here.append(("Python", platform.python_version(), sys.executable))
    here += [(each.package, each.version or "missing", "") for each in core]
    here.append(("jaxlib", _version("jaxlib") or "missing", ""))
    flags_set = [(name, os.environ[name]) for name in _VARIABLES if os.environ.get(name)]
    parts = ["Versions\n" + aligned(here), "Devices\n" + aligned([(line,) for line in devices])]
    parts.append("Extras\n" + aligned(rows))
    parts += ["Set in the environment\n" + aligned(flags_set)] if flags_set else []
    found = "\n".join(f"  - {each}" for each in advice) or "  nothing: all is here"
    parts.append("What to do\n" + found)
    return "\n\n".join(parts), int(bool(lost) or "fault" in answer)


# What changes how JAX and this library run.
_VARIABLES = ("JAX_PLATFORMS", "XLA_FLAGS", "JAX_ENABLE_X64", "CUDA_VISIBLE_DEVICES", "HF_HOME")


def main(argv: list[str]) -> None:
    """The command line."""
    sys.exit(guarded(_examine, argv[1:]))


def _examine() -> int:
    try:
        packages = needed()
    except metadata.PackageNotFoundError:
        packages = []
        print("jaxdistill runs from a folder that pip did not install: extras are not known\n")
    said, status = examined(packages, tried(SECONDS.value))
    print(said)
    return status
