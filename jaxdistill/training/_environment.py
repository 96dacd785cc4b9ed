"""What a run depends on besides its config."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import jaxdistill


def environment() -> dict[str, Any]:
    """Versions, processor, devices, and the commit of the checkout if there is one, as plain data.

    Example:
        >>> environment()["platform"]
        '...'
    """
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    kinds = [device.device_kind for device in jax.devices()]
    found: dict[str, Any] = {
        "jaxdistill": jaxdistill.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "devices": ", ".join(f"{kinds.count(kind)} × {kind}" for kind in dict.fromkeys(kinds)),
        "processor": _processor(),
        "platform": f"{jax.default_backend()} on {platform.system()} {platform.machine()}",
    }
    if jax.process_count() > 1:
        found["processes"] = jax.process_count()
    if commit := _commit():
        found["commit"] = commit
    return found


def _processor() -> str:
    """The processor by name and the number of its cores: both change how sums are rounded."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not on Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(names, platform.processor() or platform.machine())
    return f"{name}, {os.cpu_count()} cores"


def _commit() -> str | None:
    """The commit of the checkout that this package runs from, marked where files were changed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*command: str) -> str:
        call = ["git", "-C", str(root), *command]
        return subprocess.run(call, capture_output=True, text=True, check=True, timeout=10).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        return f"{commit} with changes" if git("status", "--porcelain").strip() else commit
    except (OSError, subprocess.SubprocessError):
        return None
