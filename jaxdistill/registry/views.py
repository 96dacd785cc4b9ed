"""Views: what is drawn of records before either net runs, and what a net is evaluated on."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxdistill.data import augment, mixing, views
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, less, offered, partial, record

AUGMENTATIONS: dict[str, Entry] = {
    "random_resized_crop": offered(augment.random_resized_crop),
    "random_crop": offered(augment.random_crop),
    "shift": offered(augment.shift),
    "flip": offered(augment.flip),
    "color_jitter": offered(augment.color_jitter),
    "random_erasing": offered(augment.random_erasing),
    "resize": offered(augment.resize),
    "centre_crop": offered(augment.centre_crop),
    "normalise": offered(augment.normalise),
}
MIXES: dict[str, Callable[..., Any]] = {
    "mixup": mixing.mixup,
    "partial_mixup": mixing.partial_mixup,
    "cutmix": mixing.cutmix,
    "mixup_or_cutmix": mixing.mixup_or_cutmix,
}
OF_A_BATCH = ("partial_mixup",)
"""Mixes that draw for a batch as a whole, so that a record's view cannot be drawn again."""
MASKS: dict[str, Entry] = {
    "patches": offered(views.masked),
    "tokens": offered(views.masked_texts, "vocabulary"),
}


@dataclasses.dataclass(frozen=True)
class View:
    """What ``view`` of a stage may say.

    Attributes:
        augment: operations on images, in order.
        mix: how pairs are mixed, and the ``smoothing`` of their labels.
        mask: which patches, or which tokens, are hidden.
        turned: whether every image comes with its three quarter turns.
    """

    augment: Sequence[Mapping[str, Any]] | None = None
    mix: Mapping[str, Any] | None = None
    mask: Mapping[str, Any] | None = None
    turned: bool = False


def augmentations(specs: Sequence[Mapping[str, Any]] | None) -> list[augment.Operation]:
    """The operations that a list of ``{"name": ..., ...}`` names."""
    return [call("augmentation", AUGMENTATIONS, spec, Context()) for spec in specs or ()]


def fixed_view(specs: Sequence[Mapping[str, Any]] | None) -> views.Prepare | None:
    """What is done to the images that a net is evaluated on, or None if that is nothing.

    The same operations are the same function, so that what is compiled with them is shared.
    """
    if not specs:
        return None
    try:
        said = json.dumps(specs)
    except TypeError:  # values that no file can hold
        return views.augmented(augmentations(specs))
    return _fixed(said)


@functools.lru_cache(maxsize=32)
def _fixed(said: str) -> views.Prepare:
    return views.augmented(augmentations(json.loads(said)))


def _entries(said: Any, info: Mapping[str, Any]) -> views.Prepare | None:
    """The view of data that says itself what nets see of it, such as graphs."""
    if "inputs" in info and said:
        raise ValueError(f"only images have a view: nets see {', '.join(info['inputs'])} as it is")
    return views.entries(info["inputs"]) if "inputs" in info else None


def seen(specs: Sequence[Mapping[str, Any]] | None, info: Mapping[str, Any]) -> dict[str, Any]:
    """What is done before a net is evaluated, and which entry of the batch it then sees."""
    if "vocabulary" in info:
        if specs:
            raise ValueError("texts have no view: take 'augment' out")
        return {"prepare": views.texts, "inputs": "student"}
    if prepare := _entries(specs, info):
        return {"prepare": prepare, "inputs": "student"}
    return {"prepare": fixed_view(specs), "inputs": "image"}


def view(part: Mapping[str, Any] | None, info: Mapping[str, Any]) -> views.Prepare:
    """What is drawn before either net runs: augmentation, mixing of pairs, masking.

    Raises:
        ValueError: for an unknown key or name, a value outside its domain, and for what texts do
            not have.
    """
    said, context = record("'view'", View, part), Context(info=info)
    if "vocabulary" in info:
        for key in part or {}:
            if key != "mask":
                raise ValueError(f"of a view texts have 'mask' alone: take {key!r} out")
        return _masked("tokens", said.mask, context) if said.mask else views.texts
    if prepare := _entries(said.augment or said.mix or said.mask, info):
        return prepare
    parts = [views.augmented(augmentations(said.augment))]
    if said.mix:
        function = partial("mix", MIXES, less(said.mix, "smoothing"))
        smoothing = said.mix.get("smoothing", 0.0)
        if "classes" not in info:
            raise ValueError(
                "the data has no classes, so their labels cannot be mixed: take 'mix' out"
            )
        parts.append(views.mixed(function, info["classes"], smoothing=smoothing))
    if said.turned:
        parts.append(views.turned)
    if said.mask:
        parts.append(_masked("patches", said.mask, context))
    return views.chain(*parts)


def _masked(kind: str, mask: Mapping[str, Any], context: Context) -> views.Prepare:
    return call("mask", MASKS, {"name": kind, **less(mask, "name")}, context)
