"""Classifiers that never saw some classes in training, with the bias of those classes corrected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdistill.evaluation.batches import Evaluator, Prepare, Read
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.evaluation.representations import reader
from jaxdistill.net import Net
from jaxdistill.settings import Natural

# What may be added to a logit: 0 first, then ever larger steps of 0.1 to either side.
OFFSETS = np.array(sorted(np.arange(-200, 201) / 10, key=abs))


def class_bias(
    net: Net,
    chosen_on: Iterable[Any],
    prepare: Prepare | None = None,
    inputs: str = "image",
    *,
    classes: Sequence[Natural],
    read: Read = "out",
    label: str = "label",
) -> Evaluator:
    """What a classifier would do if one number were added to the logits of some classes.

    A student that is distilled on records without a class still learns it from the soft targets,
    but its bias for that class is far too low. The number is the one with the fewest errors on
    ``chosen_on``, the smallest of them if several are as good, and 0 if that is: it is never chosen
    on what the evaluator is called on.

    - ``bias_offset``, the number
    - ``bias_errors``, the errors with it, and ``bias_class_errors``, those of them among the
    records of the classes
    - ``class_errors``, the latter without it

    Args:
        net: the classifier.
        chosen_on: batches of the validation set.
        prepare: ``(batch, key) -> batch`` before the net runs.
        inputs: which entry of the batch the net sees.
        classes: to whose logits the number is added.
        read: where the logits ``[B, K]`` are.
        label: which entry holds the labels.

    Raises:
        ValueError: without a class, or for one below 0; when it runs, if one is not the net's.

    References:
        Hinton, Vinyals, Dean. Distilling the Knowledge in a Neural Network. 2015, section 3 (where
        the number was chosen on the test set).
    """
    listed = list(classes)
    if not listed or min(listed) < 0:
        raise ValueError(f"classes must be some of 0, 1, ..., got {listed}")

    def fits(logits: jax.Array) -> None:
        if max(listed) >= logits.shape[-1]:
            known = f"0..{logits.shape[-1] - 1}"
            raise ValueError(f"classes must be some of {known}, got {listed}")

    how: dict[str, Any] = {"inputs": inputs, "label": label, "prepare": prepare}
    measure = reader(net, read, pool="flatten", fits=fits, **how)

    def wrong(logits: np.ndarray, labels: np.ndarray, offset: float) -> np.ndarray:
        shifted = logits.copy()
        shifted[:, listed] += offset
        return shifted.argmax(-1) != labels

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        logits, labels = measure(result, chosen_on)
        errors = [wrong(logits, labels, offset).sum() for offset in OFFSETS]
        offset = float(OFFSETS[int(np.argmin(errors))])
        logits, labels = measure(result, data)
        own = np.isin(labels, listed)
        corrected, plain = wrong(logits, labels, offset), wrong(logits, labels, 0.0)
        return {
            "bias_offset": offset,
            "bias_errors": float(corrected.sum()),
            "bias_class_errors": float((corrected & own).sum()),
            "class_errors": float((plain & own).sum()),
        }

    names = ("bias_offset", "bias_errors", "bias_class_errors", "class_errors")
    return measuring(names, evaluator, sweeps=True)
