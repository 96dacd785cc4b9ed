"""Domains: what passes, what does not, and what is said of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pytest

from jaxdistill.settings import (
    Count,
    Earlier,
    Finite,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Range,
    Scheduled,
    Share,
    earlier,
    fault,
    made,
    may_change,
    says,
)


class Window(NamedTuple):
    first: Natural = 0
    rate: Positive = 1.0
    kind: Literal["a", "b"] = "a"


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("domain", "good", "bad"),
    [
        (Finite, [0, -1.5, np.float32(2)], [NAN, INF, -INF, "1", None, True]),
        (Positive, [1e-9, 3], [0, -1, NAN, INF, "x"]),
        (NonNegative, [0, 0.5], [-1e-9, NAN]),
        (Share, [0, 1, 0.5], [-0.1, 1.1, NAN]),
        (Fraction, [0, 0.999], [1, -0.1]),
        (Natural, [0, 7, np.int64(2)], [-1, 2.5, 2.0, True, "3", NAN]),
        (Count, [1], [0, -1, 0.5]),
        (bool, [True, False], [0, 1, "true"]),
        (str, ["", "a"], [1, None, b"a"]),
        (Literal["sum", "mean"], ["sum"], ["summ", 1, None]),
        (Count | None, [None, 2], [0, "x"]),
        (tuple[Share, Share], [(0, 1), [0.2, 0.4]], [(0.5,), (0, 2), 0.5, "ab"]),
        (Sequence[Count], [(1, 2), [], (3,)], ["12", (0,), 3, (1, "a")]),
        (Mapping[str, Share], [{}, {"a": 0.5}], [{"a": 2}, {1: 0.5}, [("a", 0.5)]]),
        (Window, [{}, {"rate": 2.0}, Window()], [{"rat": 2.0}, {"rate": 0}, {"kind": "c"}, 3]),
        (Scheduled[Positive], [1.0, {"schedule": "cosine"}, abs], [-1, {"peak": 1}, "x"]),
        (Annotated[float, Range(0.5, 4, above=True)], [4, 0.6], [0.5, 4.1]),
        (Callable[[int], int], [abs], [1, "abs"]),
        (Any, [1, "x", None, NAN], []),
    ],
)
def test_domains(domain, good, bad):
    for value in good:
        assert fault(value, domain) is None, value
    for value in bad:
        said = fault(value, domain)
        assert said, value
        assert any(word in said for word in ("must", "needs", "has", "unknown")), said


@pytest.mark.parametrize(
    ("value", "domain", "words"),
    [
        (-4, Positive, "must be a number above 0"),
        (1.5, Share, "must be a number from 0 to 1"),
        ("summ", Literal["sum", "mean"], "'mean' or 'sum': did you mean 'sum'?"),
        ({"rate": 0}, Window, "has rate=0: it must be a number above 0"),
        ({"frist": 0}, Window, "unknown key 'frist': did you mean 'first'?"),
        ({"a": {"rate": "x"}}, Mapping[str, Window], "has a={'rate': 'x'}"),
        ([1, 0], Sequence[Count], "a sequence (each a whole number, 1 or more)"),
        (0, Count | None, "a whole number, 1 or more, or None"),
        (3, Scheduled[Fraction], "a number from 0 below 1, or a schedule"),
    ],
)
def test_what_is_said_names_what_is_possible(value, domain, words):
    assert words in fault(value, domain)


def test_mappings_become_what_code_wants():
    assert made({"rate": 2.0}, Window | None) == Window(rate=2.0)
    assert made(None, Window | None) is None
    assert made((1, 2), Sequence[int]) == (1, 2)


def test_names_of_earlier_stages_are_found_by_their_domains():
    assert earlier("first", Earlier) == ["first"]
    assert earlier({"a": "x", "b": "y"}, Mapping[str, Earlier]) == ["x", "y"]
    assert earlier(("x",), Sequence[Earlier] | None) == ["x"]
    assert earlier("x", str) == []
    assert "earlier stage" in says(Earlier)


def test_what_may_change_with_the_step():
    assert may_change(Scheduled[Positive])
    assert may_change(Scheduled[Positive] | None)
    assert not may_change(Positive)
