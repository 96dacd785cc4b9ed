"""Parts that configs share, as plain data: functions that return what a config would spell out.

Nothing here knows JAX, or whether a name means something: names are strings until a recipe is
planned. A config imports what it needs and says the rest itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxdistill._errors import unknown

DATA_PARALLEL = {"data": -1, "fsdp": 1}
"""The mesh of a run whose batches are divided over the devices."""
ONE_DEVICE = {"data": 1, "fsdp": 1}
"""The mesh of a run on one device."""
FULLY_SHARDED = {"data": 1, "fsdp": -1}
"""The mesh of a run whose parameters are divided over the devices."""


def chosen(
    variants: Mapping[str, Callable[..., dict[str, Any]]], name: str, file: str, **given: Any
) -> ConfigDict:
    """One of the variants of a config file, by name; the default has the empty one.

    Args:
        variants: for each name a function that returns the config.
        name: what follows the colon of ``--config=hinton_mnist:small``.
        file: the config's own ``__file__``, for the message.
        **given: what these functions are told, where a config has flags of its own.

    Raises:
        ValueError: if there is no such variant, with the nearest.

    Example:
        >>> chosen({"": dict, "small": lambda: {"seed": 0}}, "small", "configs/mine.py").seed
        0
        >>> chosen({"": dict, "small": dict}, "smal", "configs/mine.py")
        Traceback (most recent call last):
            ...
        ValueError: unknown variant of mine 'smal': did you mean 'small'? Possible: 'small'.
    """
    if name not in variants:
        raise ValueError(unknown(f"variant of {Path(file).stem}", name, filter(None, variants)))
    return ConfigDict(variants[name](**given))


def recipe(
    title: str,
    sentence: str,
    data: Mapping[str, Any],
    stages: Mapping[str, Any],
    *,
    order: Sequence[str] = (),
    mesh: Mapping[str, int] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """A whole config: stages in their order, or some of them, with seed 0, batches divided.

    Args:
        title: of the report.
        sentence: what the run shows.
        data: the data set.
        stages: by name; where there is no ``order``, all of them run in this order.
        order: the stages that run; others may be those of a claim's arms.
        mesh: how the run uses its devices, if not :data:`DATA_PARALLEL`.
        **settings: ``variants``, ``claim``, ``tune``, ``table``, ``rules``.

    Example:
        >>> recipe("A title", "", {"name": "digits"}, {"teacher": {}, "distil": {}})["recipe"]
        ('teacher', 'distil')
    """
    return {
        "title": title,
        "sentence": sentence,
        "seed": 0,
        "data": data,
        "mesh": mesh or DATA_PARALLEL,
        "recipe": tuple(order or stages),
        "stages": stages,
        **settings,
    }


def at(path: str, **settings: Any) -> dict[str, Any]:
    """Changes below one path, as arms, variants and grids hold them.

    Example:
        >>> at("stages/distil", steps=1800, targets=None)
        {'stages/distil/steps': 1800, 'stages/distil/targets': None}
    """
    return {f"{path}/{key}": value for key, value in settings.items()}
