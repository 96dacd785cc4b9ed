"""Domains of settings: what a number, a name or a list in a config may be.

A domain stands once, beside the parameter that it is of, as its type::

    def noisy(context, *, rate: Share = 0.1, steps: Count = 10, kind: Literal["a", "b"] = "a"):
        ...

Type checkers read ``Share`` as ``float``; a config is checked by :func:`fault` before anything is
computed. Plain types serve as well: ``bool``, ``int``, ``float`` (finite), ``str``, ``Literal``,
unions, sequences, mappings, dataclasses and named tuples (a mapping of their fields).
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union

from jaxdistill._errors import unknown


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
        >>> fault(1.0, Order)
        'must be a number, 0.5 or 1.5'
    """

    def __init__(self, *numbers: float):
        self.numbers = numbers

    def holds(self, value: Any) -> bool:
        """Whether a number is one of them."""
        return value in self.numbers

    def __str__(self) -> str:
        *most, last = (f"{number:g}" for number in self.numbers)
        return f"{', '.join(most)} or {last}"


class _Schedule:
    """Marks what may change with the step."""


class _Earlier:
    """Marks the name of an earlier stage, whose result is read."""


_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])

Finite = Annotated[float, Range()]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]  # of a whole: smoothing, dropout that may drop all, a mixture
Fraction = Annotated[float, Range(0, 1, below=True)]  # less than the whole: momentum, ema, dropout
Natural = Annotated[int, Range(0)]
Count = Annotated[int, Range(1)]
Earlier = Annotated[str, _Earlier()]  # the name of a stage that comes before this one
# A number, or what a config names by {"schedule": name, ...} and code gives as a function of the
# step: Scheduled[Positive].
Scheduled = Annotated[Union[_T, Callable[[Any], Any]], _Schedule()]  # noqa: UP007


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


def fault(value: Any, domain: Any) -> str | None:
    """What is wrong with a value, or None: ``"must be a number above 0"``.

    A mapping with the key ``schedule`` passes where a schedule may stand; what it gives is checked
    where the number of steps is known, see :func:`jaxdistill.registry.schedule`.

    Example:
        >>> fault(-4, Positive)
        'must be a number above 0'
        >>> fault(2.5, Count)
        'must be a whole number, 1 or more'
        >>> fault(0.5, Share) is None
        True
        >>> fault("summ", Literal["sum", "mean"])
        "must be 'mean' or 'sum': did you mean 'sum'?"
    """
    if not _valid(value, domain):
        inner = _inner_fault(value, domain)
        return inner or f"must be {says(domain)}{_nearest(value, domain)}"
    return None


def checked(function: _F) -> _F:
    """A function that refuses keywords outside of their domains wherever it is called from.

    Raises:
        ValueError: naming the keyword, its value and what is possible.

    Example:
        >>> @checked
        ... def shifted(image, *, pixels: Natural = 2): ...
        >>> shifted(None, pixels=-1)
        Traceback (most recent call last):
        ValueError: shifted: pixels=-1 must be a whole number, 0 or more
    """
    domains = {name: parameter.annotation for name, parameter in keys(function).items()}

    @functools.wraps(function)
    def refusing(*arguments: Any, **keywords: Any) -> Any:
        for name, value in keywords.items():
            if name in domains and (wrong := fault(value, domains[name])) is not None:
                raise ValueError(f"{function.__name__}: {name}={value!r} {wrong}")
        return function(*arguments, **keywords)

    return typing.cast(_F, refusing)


def earlier(value: Any, domain: Any) -> list[str]:
    """The names of earlier stages in a value, where its domain says that it holds some.

    Example:
        >>> earlier({"near": "first", "far": "second"}, Mapping[str, Earlier])
        ['first', 'second']
    """
    origin, arguments = typing.get_origin(domain), typing.get_args(domain)
    if origin is Annotated and any(isinstance(mark, _Earlier) for mark in arguments[1:]):
        return [value]
    if origin in (Union, types.UnionType):
        return [name for each in arguments for name in earlier(value, each)]
    if _is_mapping(origin) and isinstance(value, Mapping):
        return [name for each in value.values() for name in earlier(each, arguments[1])]
    is_list = isinstance(value, collections.abc.Sequence) and not isinstance(value, str)
    if _is_sequence(origin) and is_list:
        return [name for each in value for name in earlier(each, arguments[0])]
    return []


def may_change(domain: Any) -> bool:
    """Whether a domain lets its values change with the step.

    Example:
        >>> may_change(Scheduled[Positive] | None), may_change(Positive)
        (True, False)
    """
    arguments = typing.get_args(domain)
    if typing.get_origin(domain) is Annotated and _scheduled(arguments[1:]):
        return True
    return typing.get_origin(domain) in (Union, types.UnionType) and any(map(may_change, arguments))


def says(domain: Any) -> str:
    """A domain in words.

    Example:
        >>> says(tuple[Count, ...] | None)
        'a sequence (each a whole number, 1 or more), or None'
    """
    origin, arguments = typing.get_origin(domain), typing.get_args(domain)
    if domain is Any:
        return "anything"
    if origin is Annotated:
        inner, marks = arguments[0], arguments[1:]
        if any(isinstance(mark, _Earlier) for mark in marks):
            return "the name of an earlier stage"
        if _scheduled(marks):
            return f"{says(typing.get_args(inner)[0])}, or a schedule"
        # A number is whole or not, and in its range.
        bounds = ", ".join(str(mark) for mark in marks)
        words = "a whole number" if inner is int else "a number" if inner is float else says(inner)
        comma = "," if inner is int or isinstance(marks[0], Among) else ""
        return f"{words}{comma} {bounds}" if bounds else words
    if origin is Literal:
        return " or ".join(sorted(map(repr, arguments)))
    if origin in (Union, types.UnionType):
        return ", or ".join(dict.fromkeys(says(each) for each in arguments))
    if _is_sequence(origin or domain):
        return f"a sequence{_each(arguments)}"
    if _is_mapping(origin or domain):
        return f"a mapping{_each(arguments[1:])}"
    if (origin or domain) is collections.abc.Callable:
        return "a function"
    if inspect.isclass(domain) and domain not in _NAMES and not _is_record(domain):
        return f"a {domain.__name__}"

    return _NAMES.get(domain) or f"a mapping of {', '.join(map(repr, fields(domain)))}"


_NAMES = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "a string",
    type(None): "None",
}


def _each(arguments: tuple[Any, ...]) -> str:
    kinds = [each for each in arguments if each is not Ellipsis and each is not Any]
    if not kinds:
        return ""
    whole = len(kinds) > 1
    return f" of ({', '.join(map(says, kinds))})" if whole else f" (each {says(kinds[0])})"


def _scheduled(marks: tuple[Any, ...]) -> bool:
    return any(isinstance(mark, _Schedule) for mark in marks)


def _is_sequence(kind: Any) -> bool:
    return kind in (list, tuple, collections.abc.Sequence)


def _is_mapping(kind: Any) -> bool:
    return kind in (dict, collections.abc.Mapping)


def _is_record(kind: Any) -> bool:
    """Whether values of a class are written as mappings of its fields."""
    return inspect.isclass(kind) and (
        dataclasses.is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


def _valid(value: Any, domain: Any) -> bool:
    origin, arguments = typing.get_origin(domain), typing.get_args(domain)
    if domain is Any or isinstance(domain, TypeVar):
        return True
    if origin is Annotated:
        inner, marks = arguments[0], arguments[1:]
        if _scheduled(marks) and isinstance(value, Mapping):
            return "schedule" in value
        ranges = [mark for mark in marks if isinstance(mark, (Range, Among))]
        return _valid(value, inner) and all(mark.holds(value) for mark in ranges)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in arguments)
    if origin in (Union, types.UnionType):
        return any(_valid(value, each) for each in arguments)
    if _is_sequence(origin or domain):
        return _valid_sequence(value, origin or domain, arguments)
    if _is_mapping(origin or domain):
        if not isinstance(value, Mapping):
            return False
        key, inner = arguments or (Any, Any)
        return all(_valid(k, key) and _valid(v, inner) for k, v in value.items())
    return _valid_plain(value, domain)


def _valid_sequence(value: Any, kind: Any, arguments: tuple[Any, ...]) -> bool:
    if isinstance(value, (str, bytes)) or not isinstance(value, collections.abc.Sequence):
        return False
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        return len(value) == len(arguments) and all(map(_valid, value, arguments))
    return not arguments or all(_valid(each, arguments[0]) for each in value)


def _valid_plain(value: Any, domain: Any) -> bool:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if domain is int:
        return whole
    if domain is float:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return real and math.isfinite(value)
    if domain in (bool, str):
        return isinstance(value, domain)
    if domain in (None, type(None)):
        return value is None
    if _is_record(domain) and isinstance(value, Mapping):
        return _record_fault(value, domain) is None
    if (typing.get_origin(domain) or domain) is collections.abc.Callable:
        return callable(value)
    return inspect.isclass(domain) and isinstance(value, domain)


def _record_fault(value: Mapping[str, Any], domain: Any) -> str | None:
    own = fields(domain)
    for name in value:
        if name not in own:
            return unknown("key", name, own)
    for name, parameter in own.items():
        if name not in value:
            if parameter.default is parameter.empty:
                return f"needs {name!r}"
        elif (wrong := fault(value[name], parameter.annotation)) is not None:
            return f"has {name}={value[name]!r}: it {wrong}"
    return None


def _inner_fault(value: Any, domain: Any) -> str | None:
    """What is wrong inside a value of the right outer kind, where that says more."""
    origin, arguments = typing.get_origin(domain), typing.get_args(domain)
    if origin is Annotated:
        return _inner_fault(value, arguments[0])
    if origin in (Union, types.UnionType):
        found = (_inner_fault(value, each) for each in arguments)
        return next((wrong for wrong in found if wrong), None)
    if _is_record(domain) and isinstance(value, Mapping):
        return _record_fault(value, domain)
    if _is_mapping(origin or domain) and isinstance(value, Mapping) and len(arguments) == 2:
        for key, each in value.items():
            if (wrong := fault(each, arguments[1])) is not None:
                return f"has {key}={each!r}: it {wrong}"
    return None


def _nearest(value: Any, domain: Any) -> str:
    options = [each for each in _choices(domain) if isinstance(each, str)]
    if not isinstance(value, str) or not options:
        return ""
    sentence = unknown("", value, options)
    start = sentence.find("did you mean")
    return f": {sentence[start : sentence.index('?') + 1]}" if start >= 0 else ""


def _choices(domain: Any) -> tuple[Any, ...]:
    origin, arguments = typing.get_origin(domain), typing.get_args(domain)
    if origin is Literal:
        return arguments
    if origin in (Union, types.UnionType, Annotated):
        inner = arguments[:1] if origin is Annotated else arguments
        return tuple(choice for each in inner for choice in _choices(each))
    return ()


def made(value: Any, domain: Any, schedule: Callable[[Any, Any], Any] | None = None) -> Any:
    """A checked value as code wants it: a mapping becomes the dataclass or named tuple it writes.

    Args:
        value: that passes :func:`fault`.
        domain: what it is.
        schedule: ``(value, domain) -> function of the step``, for what names a schedule.

    Example:
        >>> class Window(typing.NamedTuple):
        ...     first: Natural = 0
        ...     last: Natural = 10
        >>> made({"last": 4}, Window | None)
        Window(first=0, last=4)
    """
    if not isinstance(value, Mapping):
        return value
    if may_change(domain) and "schedule" in value:
        return value if schedule is None else schedule(value, domain)
    for each in (domain, *typing.get_args(domain)):
        if _is_record(each):
            own = fields(each)
            return each(**{k: made(v, own[k].annotation, schedule) for k, v in value.items()})
    return value
