"""Which of the training records a stage sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jaxdistill.data import sources, split
from jaxdistill.data.seeded import seeded
from jaxdistill.registry.entries import record
from jaxdistill.settings import Count, Natural, Share


@dataclasses.dataclass(frozen=True)
class Kept:
    """What ``records`` of a stage may say.

    Attributes:
        exclude: labels that are left out.
        only: labels that are kept.
        share: from where to where, in [0, 1], of all records, by the hash of their ids.
        shuffled: whether labels are given to records at random.
        labelled: how many records, equally many of each class; ``"all"`` are those whose label is
            not hidden.
        labels: of how many records the label is known, all others losing theirs (``has_label`` says
            which).
        selected: so many records of each class, besides those that are ``labelled``, by their
            teacher's probabilities.
        views: so many views of each record, drawn once and for all: those that a cache of as many
            holds.
    """

    exclude: Sequence[Natural] | None = None
    only: Sequence[Natural] | None = None
    share: tuple[Share, Share] | None = None
    shuffled: bool = False
    labelled: Count | Literal["all"] | None = None
    labels: Count | None = None
    selected: Count | None = None
    views: Count | None = None


def records(
    source: Any,
    part: Mapping[str, Any] | None,
    seed: int,
    scores: Mapping[str, Any] | None = None,
) -> Any:
    """The part of the training set that a stage sees.

    Args:
        source: the training set.
        part: see :class:`Kept`.
        seed: of the run, which chooses them.
        scores: the probabilities, by id; without them ``selected`` takes the first records.
    """
    said = record("'records'", Kept, part)
    whole = _filtered(source, said)
    if said.share:
        whole = split.share(whole, *said.share)
    if said.shuffled:
        whole = split.shuffled_labels(whole, seed=seed)
    labelled = _labelled(whole, said.labelled, seed) if said.labelled else None
    if said.selected:
        return split.confident_subset(whole, said.selected, scores, always=labelled)
    found = labelled or whole
    if said.labels:
        found = split.hidden_labels(found, said.labels, seed=seed)
    return seeded(found, said.views) if said.views else found


def _labelled(source: Any, count: int | str, seed: int) -> Any:
    if isinstance(count, str):
        return split.known_labels(source)
    return split.labelled_subset(source, count, seed=seed)


def pool(source: Any, part: Mapping[str, Any] | None, seed: int) -> Any:
    """The records that teachers see for a cache: those of which a stage may select."""
    said = record("'records'", Kept, part)
    return _filtered(source, said) if said.selected else records(source, part, seed)


def _filtered(source: Any, said: Kept) -> Any:
    if not said.exclude and not said.only:
        return source
    if not said.only and "classes" not in source.info:
        raise ValueError(f"{source.name!r} has no classes of which 'exclude' could leave some out")
    classes = said.only or range(source.info["classes"])
    kept = [label for label in classes if label not in (said.exclude or ())]
    return sources.filter_labels(source, kept)
