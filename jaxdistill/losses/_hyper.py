"""Domains of hyper-parameters, beside those of :mod:`jaxdistill.settings`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, Union

import jax

from jaxdistill.settings import Range, Scheduled

if TYPE_CHECKING:
    # What a loss is called with: a number, or an array, traced or one value per example.
    _T = TypeVar("_T")
    Hyper = Union[_T, jax.Array]  # noqa: UP007
else:
    # What a config may say: a number, or a schedule that is called before the loss is.
    Hyper = Scheduled

Axes = int | tuple[int, ...]
Inside = Annotated[float, Range(0, 1, above=True, below=True)]
AtMostOne = Annotated[float, Range(0, 1, above=True)]
OneOrMore = Annotated[float, Range(1)]
Views = Annotated[int, Range(2)]
Over = Literal["mean", "sum"]
