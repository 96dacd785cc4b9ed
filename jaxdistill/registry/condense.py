"""Names of what makes data sets small, for ``distiller`` and ``evaluate`` of a stage, and
``whiten`` of the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxdistill import condense, theory
from jaxdistill.data import split
from jaxdistill.data.records import through
from jaxdistill.distiller import Distiller, Work
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, forwarding, offered, partial

KERNELS: dict[str, Callable[..., Any]] = {
    "linear": theory.linear,
    "polynomial": theory.polynomial,
    "rbf": theory.rbf,
    "matern": theory.matern,
    "nngp": theory.nngp,
    "ntk": theory.ntk,
}


def kernel_named(part: Mapping[str, Any]) -> Callable[..., Any]:
    """A kernel by its ``name``, with its keywords."""
    return partial("kernel", KERNELS, part)


def kernel_of(name: str, context: Context) -> Callable[..., Any]:
    """The kernel of a student that is a kernel machine; ``name`` is of who asks, for the message.

    Raises:
        ValueError: for any other student.
    """
    if context.student.get("net") != "kernel_machine":
        raise ValueError(
            f"{name!r} fits a kernel: its student must be the net 'kernel_machine', not "
            f"{context.student.get('net')!r}"
        )
    return kernel_named(context.student["kernel"])


@forwarding(condense.match_kernel)
def _match_kernel(context: Context, **rest: Any) -> Distiller:
    kernel = kernel_of("match_kernel", context)
    return condense.match_kernel(kernel, context.classes, context.tx, **rest)


DISTILLERS: dict[str, Entry] = {
    "experts": offered(condense.train_experts),
    "match_trajectories": offered(condense.match_trajectories),
    "match_gradients": offered(condense.match_gradients),
    "match_features": offered(condense.match_features),
    "match_kernel": _match_kernel,
    "match_regression": offered(condense.match_regression),
}


WORKS: dict[str, Callable[..., Work]] = {"chosen": offered(condense.chosen)}


@forwarding(condense.kernel_accuracy)
def _kernel_accuracy(context: Context, *, kernel: Mapping[str, Any], **rest: Any) -> Any:
    return condense.kernel_accuracy(kernel_named(kernel), **rest)


EVALUATORS: dict[str, Entry] = {
    "fresh_nets": offered(condense.fresh_nets),
    "ranked": offered(condense.ranked),
    "kernel_accuracy": _kernel_accuracy,
    "sharpness": offered(condense.sharpness),
    "strayed": offered(condense.strayed),
}


def whitened(parts: split.Splits, kind: Any) -> split.Splits:
    """All sets of a data set in the whitened space of its training set; ``info["whitening"]`` leads
    back.

    Raises:
        ValueError: for an unknown whitening.
    """
    train = parts["train"]
    images = train.gather(np.arange(len(train)))["image"]
    whitening = condense.fit_whitening(images, kind=kind)

    def of(source: Any) -> Any:
        def read(rows: np.ndarray) -> dict[str, Any]:
            records = source.read(rows)
            return {**records, "image": whitening.apply(records["image"])}

        info = {**source.info, "whitening": whitening}
        about = through(source, read, changes=lambda: f"{kind} {train.fingerprint()}")
        return dataclasses.replace(source, read=about, info=info)

    found: Any = {name: of(source) for name, source in parts.items()}
    return found
