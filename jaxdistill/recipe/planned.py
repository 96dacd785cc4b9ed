"""A config whose names are all resolved."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.data import split
from jaxdistill.net import Net


@dataclasses.dataclass(frozen=True)
class Planned:
    """A stage whose names are all resolved; nothing is computed yet.

    Attributes:
        name: its name in the config.
        settings: its part of the config, defaults filled in.
        net: the student.
        needs: the earlier stages whose results it reads.
        identity: hash of all that its result depends on.
        data: its train, validation and test sets.
    """

    name: str
    settings: dict[str, Any]
    net: Net
    needs: tuple[str, ...]
    identity: str
    data: split.Splits

    @functools.cached_property
    def whole_sets(self) -> dict[str, dict[str, np.ndarray]]:
        """The sets that the stage's own algorithm reads whole, by name, gathered once.

        Raises:
            ValueError: for one that there is not, and for the test set: nothing may be chosen by
                it.
        """
        found = {}
        for part in (self.settings["distiller"] or {}).get("sets") or ():
            if part == "test" or part not in self.data:
                there = [name for name in self.data if name != "test"]
                raise ValueError(unknown("set to read whole", part, there))
            source = self.data[part]
            found[part] = source.gather(np.arange(len(source)))
        return found


@dataclasses.dataclass(frozen=True)
class Plan:
    """A whole recipe, checked.

    Attributes:
        config: the config as plain data.
        stages: in order.
    """

    config: dict[str, Any]
    stages: tuple[Planned, ...]

    def stage(self, name: str) -> Planned:
        """The stage of that name."""
        return next(planned for planned in self.stages if planned.name == name)


class Restored(NamedTuple):
    """What :func:`jaxdistill.restore` gives back."""

    net: Net
    params: Any
    state: Any
    config: dict[str, Any]


def folder(root: Path | str, name: str, identity: str) -> Path:
    """Where a stage keeps what it writes."""
    return Path(root) / "stages" / f"{name}-{identity}"


def only_shapes(results: Iterable[Any]) -> bool:
    """Whether results are shapes alone, as while a recipe is planned."""
    leaves = jax.tree.leaves(list(results))
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
