"""Functional distillation in JAX.

Public names are imported when they are first used, so that ``import jaxdistill`` stays light.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

_WHERE = {
    "Distiller": "jaxdistill.distiller",
    "Evaluation": "jaxdistill.training.loop",
    "Forward": "jaxdistill.net",
    "Net": "jaxdistill.net",
    "Objective": "jaxdistill.objective",
    "Stage": "jaxdistill.training.loop",
    "TapError": "jaxdistill.net",
    "Term": "jaxdistill.objective",
    "fit": "jaxdistill.training.fit",
    "from_equinox": "jaxdistill.frameworks.equinox",
    "from_function": "jaxdistill.net",
    "from_linen": "jaxdistill.frameworks.linen",
    "from_nnx": "jaxdistill.frameworks.nnx",
    "load_result": "jaxdistill.training.fit",
    "model_to_model": "jaxdistill.distiller",
    "over_seeds": "jaxdistill.training.loop",
    "per_batch": "jaxdistill.objective",
    "per_example": "jaxdistill.objective",
    "restore": "jaxdistill.recipe",
    "run_stage": "jaxdistill.training.loop",
}
_MODULES = (
    "adapt",
    "registry",
    "data",
    "evaluation",
    "language",
    "losses",
    "models",
    "objective",
    "recipe",
    "records",
    "samplers",
    "store",
    "students",
    "targets",
    "theory",
    "training",
)

__all__ = sorted([*_WHERE, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"jaxdistill.{name}")
    from jaxdistill._errors import unknown

    raise AttributeError(unknown("name in jaxdistill", name, __all__))


def __dir__() -> list[str]:
    return __all__
