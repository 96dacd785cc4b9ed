"""Domains of settings: what a number, a name or a list in a config may be.

A domain is stated once, as the type of the parameter::

    def noisy(context, *, rate: Share = 0.1, steps: Count = 10, kind: Literal["a", "b"] = "a"):
        ...

Type checkers read ``Share`` as ``float``; a config is checked by :func:`fault` before anything is
computed. Plain types serve as well: ``bool``, ``int``, ``float`` (finite), ``str``, ``Literal``,
unions, sequences, mappings, dataclasses and named tuples (a mapping of their fields).
"""

from jaxdistill.settings.checking import checked, fault, made
from jaxdistill.settings.domains import (
    Among,
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
    fields,
    keys,
    may_change,
    part_of,
)
from jaxdistill.settings.words import says

__all__ = [
    "Among",
    "Count",
    "Earlier",
    "Finite",
    "Fraction",
    "Natural",
    "NonNegative",
    "Positive",
    "Range",
    "Scheduled",
    "Share",
    "checked",
    "earlier",
    "fault",
    "fields",
    "keys",
    "made",
    "may_change",
    "part_of",
    "says",
]
