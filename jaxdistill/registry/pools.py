"""Pools in configs: images without labels, what is selected of them, and students that share their
teacher's classifier."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn

from jaxdistill import search, sharing
from jaxdistill.data import pools, split
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, forwarding, less, record
from jaxdistill.registry.views import seen
from jaxdistill.search import selection
from jaxdistill.settings import Count, Earlier, Natural, Share, part_of


@dataclasses.dataclass(frozen=True)
class Part:
    """What a part of a pool may say besides the data set that its training records are those of.

    Attributes:
        change: ``"inverted"`` or ``"noisy"`` images.
        share: from where to where, in [0, 1], of all its records, by the hash of their ids.
        frame: so many pixels on every side stay black.
    """

    change: pools.Change | None = None
    share: tuple[Share, Share] | None = None
    frame: Natural = 0


_OWN = tuple(field.name for field in dataclasses.fields(Part))


def pool_of(data: Callable[..., Any]) -> Entry:
    """The data set ``pool``, whose parts are read by ``data``."""

    def entry(
        context: Context,
        *,
        tested: Mapping[str, Any],
        parts: Mapping[str, Mapping[str, Any]],
        size: Count | None = None,
    ) -> split.Splits:
        found = data(tested)
        known = found["train"]
        side, channels = size or known.info["image_shape"][0], known.info["image_shape"][-1]
        dtype = known.gather(range(1))["image"].dtype

        def made(name: str) -> Any:
            said = record(f"part {name!r} of the pool", Part, _kept(parts[name], _OWN))
            source = data(less(parts[name], *_OWN))["train"]
            if said.share:
                source = split.share(source, *said.share)
            return pools.as_images(source, name, side, channels, dtype, said.change, said.frame)

        about = {key: known.info[key] for key in ("classes", "class_names") if key in known.info}
        train = pools.pool({name: functools.partial(made) for name in parts}, about)
        held_out = {part: source for part, source in found.items() if part != "train"}
        return split.Splits({"train": train, **held_out})

    return entry


def _kept(part: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key in keys}


def _joint_selection(
    context: Context,
    *,
    against: str,
    batch_size: Count = 256,
    augment: Sequence[Mapping[str, Any]] | None = None,
    share: selection.Part = 0.5,
) -> Callable[..., Any]:
    pool = context.sets["train"]
    if not part_of(len(pool), share):
        raise ValueError(f"nothing can be selected: share={share} of {len(pool)} records")
    data = evaluation_batches(pool, batch_size)
    teacher, how = context.net_of(against), seen(augment, context.info)
    return search.joint_selection(context.net, teacher, against, data, share=share, **how)


BETWEEN: dict[str, Entry] = {"joint_selection": _joint_selection}


@forwarding(search.selection_precision)
def _selection_precision(context: Context, **rest: Any) -> Any:
    return search.selection_precision(
        context.net, context.teacher, context.teacher_name, context.groups(), context.prepare,
        context.inputs, **rest,
    )  # fmt: skip


EVALUATORS: dict[str, Entry] = {"selection_precision": _selection_precision}


def classifier_of(module: Callable[..., Any]) -> Entry:
    """The net ``shared_classifier``, whose body is made by ``module``."""

    @forwarding(sharing.shared_classifier)
    def entry(
        context: Context, *, teacher: Earlier, body: Mapping[str, Any], **rest: Any
    ) -> Callable[..., Any]:
        made = module(body, context.info)
        if not isinstance(made, nn.Module):
            raise ValueError(f"the body of a shared classifier is a module, not {body!r}")
        return sharing.shared_classifier(made, teacher, **rest)

    return entry
