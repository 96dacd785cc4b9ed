"""What published networks ask of the data and views that they are run on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdistill import published
from jaxdistill._hub import folder_of
from jaxdistill.config import frozen_stages, target_stages
from jaxdistill.models import pretrained
from jaxdistill.recipe.planned import Planned


def check(stage: Planned, earlier: Sequence[Planned]) -> None:
    """Refuses views and texts that a published network of a stage was not trained for.

    What learns from such a network, or starts from it, must see images normalised by the statistics
    that the files beside the weights state; where they state none nothing is asked. Texts must have
    no tokens that a network does not know.

    Raises:
        ValueError: naming stage, folder, what was given and what is stated.
    """
    told, known = (stage.settings["student"] or {}).get("vocabulary"), stage.info.get("vocabulary")
    if told and known and told < known:
        raise ValueError(f"'student' knows {told} tokens, and the texts have {known}")
    own = stage.settings["checkpoint"]
    if own and pretrained.is_published(own):
        _refuse(_told(stage, own))
    teachers = target_stages(stage.settings["targets"])
    start = (stage.settings["initial"] or {}).get("stage")
    for other in earlier:
        given = other.settings["checkpoint"]
        if not given or not pretrained.is_published(given):
            continue
        if other.name in (*teachers, start):
            _refuse(_seen("'view'", stage, given, (stage.settings["view"] or {}).get("augment")))
        if other.name in teachers:
            _refuse(_evaluated(stage, given, lambda said: said.get("teacher", True)))
        if other.name in (*teachers, *frozen_stages(stage.settings), start):
            _refuse(_told(stage, given))


def preprocessing_of(given: Path | str) -> published.Preprocessing | None:
    """How images are prepared for a network in a folder, or on the hub; None if that is not known.

    Raises:
        ValueError: for a preprocessing that is not implemented.
    """
    return published.preprocessing_of(folder_of(given, published.FILES))


def _refuse(faults: Iterator[str]) -> None:
    if wrong := list(faults):
        raise ValueError("\n".join(wrong))


def _evaluated(stage: Planned, given: str, counts: Any) -> Iterator[str]:
    for label, spec in stage.settings["evaluate"].items():
        if counts(spec) and not spec.get("student"):
            yield from _seen(f"evaluation {label!r}", stage, given, spec.get("augment"))


def _seen(
    where: str, stage: Planned, given: str, augment: Sequence[Mapping[str, Any]] | None
) -> Iterator[str]:
    if "image_shape" not in stage.info:
        return
    wanted = preprocessing_of(given)
    if wanted is None:
        return
    if stage.info.get("whitening") is not None:
        yield f"{given} sees whitened images, which it was not trained on: take 'whiten' out"
    elif said := published.contradiction(wanted, augment):
        yield f"{where} contradicts the preprocessing of {given}: {said}"


def _told(stage: Planned, given: str) -> Iterator[str]:
    if "vocabulary" not in stage.info:
        return
    known, there = pretrained.module_of(given, "text"), stage.info["vocabulary"]
    count = getattr(known, "vocabulary", None)
    if count is not None and there > count:
        yield (
            f"{given} knows {count} tokens, and the texts have {there}: they must be cut by the "
            "tokenizer that it was trained with"
        )
