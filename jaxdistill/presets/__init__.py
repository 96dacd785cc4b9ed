"""Parts that configs share, as plain data: functions that return what a config would spell out.

Nothing here knows JAX, or whether a name means something: names are strings until a recipe is
planned. A config imports what it needs and says the rest itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxdistill._errors import unknown


def chosen(
    variants: Mapping[str, Callable[[], dict[str, Any]]], name: str, file: str
) -> ConfigDict:
    """One of the variants of a config file, by name; the default has the empty one.

    Args:
        variants: for each name a function that returns the config.
        name: what stood behind the colon of ``--config=hinton_mnist:small``.
        file: the config's own ``__file__``, for the message.

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
    return ConfigDict(variants[name]())
