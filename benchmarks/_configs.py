"""The configs under ``configs/`` as plain data."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from jaxdistill.config import plain, vary

FOLDER = Path(__file__).parents[1] / "configs"


def names() -> list[str]:
    """All of them, by the names of their files."""
    return sorted(path.stem for path in FOLDER.glob("*.py"))


def config_of(name: str, size: str = "") -> dict[str, Any]:
    """A config in its published form, or in another size that it knows."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vary(plain(module.get_config(size)), {})
