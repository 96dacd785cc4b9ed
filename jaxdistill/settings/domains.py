"""The domains themselves, and the parameters that have them."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, Union


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two bounds.

    Attributes:
        low: the smallest one.
        high: the largest one.
        above: whether ``low`` itself is left out.
        below: whether ``high`` itself is left out.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a number lies there; none that is not finite does."""
        lower = value > self.low if self.above else value >= self.low
        upper = value < self.high if self.below else value <= self.high
        return bool(lower and upper and math.isfinite(value))

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'from'} {self.low:g}"
        high = f"{'below' if self.below else 'to'} {self.high:g}"
        if self.low > -math.inf and self.high < math.inf:
            return f"{low} {high}" if not self.above else f"{low} and {high.replace('to', 'up to')}"
        if self.low > -math.inf:
            return low if self.above else f"{self.low:g} or more"
        return high if self.high < math.inf else "finite"


class Among:
    """One of a few numbers.

    Example:
        >>> Order = Annotated[float, Among(0.5, 1.5)]
        >>> typing.get_args(Order)[1].holds(1.0)
        False
    """

    def __init__(self, *numbers: float):
        self.numbers = numbers

    def holds(self, value: Any) -> bool:
        """Whether a number is one of them."""
        return value in self.numbers

    def __str__(self) -> str:
        *most, last = (f"{number:g}" for number in self.numbers)
        return f"{', '.join(most)} or {last}"


class MayChange:
    """Marks what may change with the step."""


class OfStage:
    """Marks the name of an earlier stage, whose result is read."""


_T = TypeVar("_T")

Finite = Annotated[float, Range()]
"""Any finite number."""
Positive = Annotated[float, Range(0, above=True)]
"""A number above 0."""
NonNegative = Annotated[float, Range(0)]
"""A number of at least 0."""
Share = Annotated[float, Range(0, 1)]
"""A share of a whole, from 0 to 1: smoothing, dropout that may drop everything, a mixture."""
Fraction = Annotated[float, Range(0, 1, below=True)]
"""A share below 1: momentum, the decay of an average, dropout."""
Natural = Annotated[int, Range(0)]
"""An integer of at least 0."""
Count = Annotated[int, Range(1)]
"""An integer of at least 1."""
Earlier = Annotated[str, OfStage()]
"""The name of a stage that comes before this one."""
Scheduled = Annotated[Union[_T, Callable[[Any], Any]], MayChange()]  # noqa: UP007
"""``Scheduled[Positive]``: a number, or a schedule, which a config names by ``{"schedule": name,
...}`` and code gives as a function of the step.
"""


def keys(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a function, annotations resolved: the keys of its config.

    Example:
        >>> def entry(context, *, rate: Share = 0.1, name: str): ...
        >>> list(keys(entry))
        ['rate', 'name']
    """
    return {
        name: parameter
        for name, parameter in fields(function).items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def fields(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """All parameters of a function, or fields of a class less those that Flax adds, annotations
    resolved."""
    parameters, hints = inspect.signature(function).parameters, _hints(function)
    dropped = ("parent", "name") if hasattr(function, "clone") else ()
    packed = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        name: parameter.replace(annotation=hints.get(name, Any))
        for name, parameter in parameters.items()
        if name not in dropped and parameter.kind not in packed
    }


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    if "__signature__" in getattr(function, "__dict__", {}):  # an entry that stands for another
        found = inspect.signature(function).parameters
        return {name: parameter.annotation for name, parameter in found.items()}
    try:
        return typing.get_type_hints(inspect.unwrap(function), include_extras=True)
    except (NameError, TypeError):  # of another library, whose annotations are its own affair
        return {}


def earlier(value: Any, domain: Any) -> list[str]:
    """The names of earlier stages in a value, where its domain says that it holds some.

    Example:
        >>> earlier({"near": "first", "far": "second"}, Mapping[str, Earlier])
        ['first', 'second']
    """
    origin, arguments = typing.get_origin(domain), typing.get_args(domain)
    if origin is Annotated and any(isinstance(mark, OfStage) for mark in arguments[1:]):
        return [value]
    if origin in (Union, types.UnionType):
        return [name for each in arguments for name in earlier(value, each)]
    if is_mapping(origin) and isinstance(value, Mapping):
        return [name for each in value.values() for name in earlier(each, arguments[1])]
    is_list = isinstance(value, collections.abc.Sequence) and not isinstance(value, str)
    if is_sequence(origin) and is_list:
        return [name for each in value for name in earlier(each, arguments[0])]
    return []


def may_change(domain: Any) -> bool:
    """Whether a domain lets its values change with the step.

    Example:
        >>> may_change(Scheduled[Positive] | None), may_change(Positive)
        (True, False)
    """
    arguments = typing.get_args(domain)
    if typing.get_origin(domain) is Annotated and is_scheduled(arguments[1:]):
        return True
    return typing.get_origin(domain) in (Union, types.UnionType) and any(map(may_change, arguments))


def is_scheduled(marks: tuple[Any, ...]) -> bool:
    return any(isinstance(mark, MayChange) for mark in marks)


def is_sequence(kind: Any) -> bool:
    return kind in (list, tuple, collections.abc.Sequence)


def is_mapping(kind: Any) -> bool:
    return kind in (dict, collections.abc.Mapping)


def is_record(kind: Any) -> bool:
    """Whether values of a class are written as mappings of its fields."""
    return inspect.isclass(kind) and (
        dataclasses.is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


def part_of(count: int, share: float) -> int:
    """A share of so many things in whole ones, rounded down; what binary fractions lack does not
    cost one.

    Example:
        >>> int(100 * 0.29), part_of(100, 0.29)
        (28, 29)
    """
    return int(count * share + 1e-6)
