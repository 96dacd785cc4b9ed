"""A config whose names are all resolved."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.data import split
from jaxdistill.distiller import Kind, Student, on_base
from jaxdistill.net import Net
from jaxdistill.training.stage import Stage


@dataclasses.dataclass(frozen=True)
class Planned:
    """A stage whose names are all resolved; nothing is computed yet.

    Attributes:
        name: its name in the config.
        settings: its part of the config, defaults filled in.
        net: a :class:`~jaxdistill.net.Net` that its result belongs to; None where none is trained.
        needs: the earlier stages whose results it reads.
        identity: hash of all that its result depends on.
        data: its train, validation and test sets; empty where the config has no data.
        kind: what its result is.
        metrics: the names of all that is measured of it, as ``<set>/<name>``; None as long as an
            evaluator does not say what it measures.
        weighs: the entries of a later objective that its choice multiplies.
        student: what is trained: the net, or a function to it of the results of ``shares``.
        shares: the earlier stages that the student shares weights with.
        module: the Linen module that the variables of its net are of, see :meth:`plain`; None where
            the net was made otherwise.
        awaits: the earlier stages whose results say what it is trained on or what its settings are,
            as long as they are not there, see :func:`jaxdistill.recipe.settled`.
    """

    name: str
    settings: dict[str, Any]
    net: Any
    needs: tuple[str, ...]
    identity: str
    data: split.Splits
    kind: Kind = "net"
    metrics: tuple[str, ...] | None = None
    weighs: tuple[str, ...] = ()
    student: Student | None = None
    shares: tuple[str, ...] = ()
    awaits: tuple[str, ...] = ()
    module: Any = None

    def plain(self, result: Any) -> Any:
        """A result as later stages read it, as variables of its module: adapters in its weights."""
        if not self.shares or self.module is None:
            return result
        variables = dict(self.net.back(result))
        return variables.pop("params"), variables

    def handed_on(self, result: Any, results: Mapping[str, Any]) -> Any:
        """The result as later stages read it: a student with the weights that it shares."""
        return on_base(result, results, self.shares) if self.shares else result

    @property
    def info(self) -> Mapping[str, Any]:
        """What is known of its data beforehand; nothing where there is none."""
        sets = self.data
        return sets["train"].info if "train" in sets else {}

    @functools.cached_property
    def whole_sets(self) -> dict[str, dict[str, np.ndarray]]:
        """The sets that the stage's own algorithm reads whole, by name, gathered once.

        Raises:
            ValueError: for an unknown one, and for the test set: nothing may be chosen by
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


class Traced(NamedTuple):
    """A stage as it was traced on shapes alone.

    Attributes:
        stage: with the shapes of all that it builds on.
        state: the shapes of its state.
        batch: the shapes of what a step takes.
        result: the shapes of its result, as later stages read it.
    """

    stage: Stage
    state: Any
    batch: Any
    result: Any


@dataclasses.dataclass(frozen=True)
class Plan:
    """A whole recipe, checked.

    Attributes:
        config: the config as plain data.
        stages: in order.
        read: the sets that were read for it, by what names them.
        traced: every stage whose shapes are known beforehand, by name; empty as long as nothing was
            traced, or once something was settled.
    """

    config: dict[str, Any]
    stages: tuple[Planned, ...]
    read: dict[str, split.Splits] = dataclasses.field(default_factory=dict, repr=False)
    traced: dict[str, Traced] = dataclasses.field(default_factory=dict, repr=False)

    def stage(self, name: str) -> Planned:
        """The stage of that name."""
        return next(planned for planned in self.stages if planned.name == name)

    @property
    def nets(self) -> dict[str, Net]:
        """The net of every stage that trains one."""
        return {p.name: p.net for p in self.stages if p.net is not None}


class Restored(NamedTuple):
    """What :func:`jaxdistill.restore` gives back.

    Attributes:
        net: the student.
        params: its parameters.
        state: its statistics.
        config: of the run.
        module: the Linen module of the net, so that ``module.apply({"params": params, **state},
            inputs)`` is its output; None where the net was made otherwise.
    """

    net: Net
    params: Any
    state: Any
    config: dict[str, Any]
    module: Any = None


def folder(root: Path | str, name: str, identity: str) -> Path:
    """Where a stage keeps what it writes."""
    return Path(root) / "stages" / f"{name}-{identity}"


def only_shapes(result: Any) -> bool:
    """Whether a result is shapes alone, as while a recipe is planned."""
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(result))
