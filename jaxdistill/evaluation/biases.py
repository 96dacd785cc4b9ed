"""Classifiers that never saw some classes in training, with the bias of those classes put right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxdistill.evaluation.batches import Evaluator, Prepare, Read
from jaxdistill.evaluation.representations import reader
from jaxdistill.net import Net

# What may be added to a logit: 0 first, then ever larger steps of 0.1 to either side.
OFFSETS = np.array(sorted(np.arange(-200, 201) / 10, key=abs))


def class_bias(
    net: Net,
    chosen_on: Iterable[Any],
    classes: Sequence[int],
    *,
    read: Read = "out",
    inputs: str = "image",
    label: str = "label",
    prepare: Prepare | None = None,
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
        classes: to whose logits the number is added.
        read: where the logits ``[B, K]`` are.
        inputs: which entry of the batch the net sees.
        label: which entry holds the labels.
        prepare: ``(batch, key) -> batch`` before the net runs.

    Raises:
        ValueError: if a class is not one of the net's, when it runs.

    References:
        Hinton, Vinyals, Dean. Distilling the Knowledge in a Neural Network. 2015, section 3 (where
        the number was chosen on the test set).
    """
    measure = reader(net, read, pool="flatten", inputs=inputs, label=label, prepare=prepare)
    listed = list(classes)

    def wrong(logits: np.ndarray, labels: np.ndarray, offset: float) -> np.ndarray:
        shifted = logits.copy()
        shifted[:, listed] += offset
        return shifted.argmax(-1) != labels

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        logits, labels = measure(result, chosen_on)
        count = logits.shape[-1]
        if not listed or any(not 0 <= each < count for each in listed):
            raise ValueError(f"classes must be some of 0..{count - 1}, got {listed}")
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

    return evaluator
