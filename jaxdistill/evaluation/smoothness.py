"""How far the features of a class lie apart, against how far classes do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.evaluation.batches import Evaluator, Prepare, Read
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.evaluation.representations import Pool, reader
from jaxdistill.net import Net


class Spread(NamedTuple):
    """The variance of features, a number for each half of it.

    Attributes:
        within: the mean squared distance of a record from the mean of its class.
        between: the mean squared distance, over records, of the mean of their class from the mean
            of all.
    """

    within: float
    between: float

    @property
    def share(self) -> float:
        """The share of all variance that lies within classes: 0 where every class is one point,
        1 where classes are all alike, or where nothing varies."""
        whole = self.within + self.between
        return self.within / whole if whole > 0 else 1.0


def spread(features: np.ndarray, labels: np.ndarray) -> Spread:
    """The variance of features within classes and between them.

    Args:
        features: ``[n, D]``.
        labels: ``[n]``.

    Raises:
        ValueError: for no records, or features and labels that are not one a record.

    Example:
        >>> spread(np.array([[0.0], [2.0], [4.0], [6.0]]), np.array([0, 0, 1, 1]))
        Spread(within=1.0, between=4.0)
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) == 0 or np.shape(labels) != features.shape[:1]:
        raise ValueError(
            f"features must be [n, D] and labels [n], got {features.shape} and {np.shape(labels)}"
        )
    classes, place = np.unique(labels, return_inverse=True)
    means = np.stack([features[place == k].mean(0) for k in range(len(classes))])[place]
    apart = (np.square(features - means), np.square(means - features.mean(0)))
    return Spread(*(float(part.sum(-1).mean()) for part in apart))


def class_spread(
    net: Net,
    prepare: Prepare | None = None,
    inputs: str = "image",
    *,
    read: Read = "out",
    pool: Pool = "mean",
    label: str = "label",
) -> Evaluator:
    """How smooth a net is: ``spread``, the root of the variance within classes, and
    ``within_share``, its share of all variance, which the scale of the features does not change.

    Nets that were trained on smoothed labels draw each class together, those trained on mixed
    pairs spread the penultimate features, and with them what a teacher says beyond the label.

    Args:
        net: whose features are read; its weights are the ``result``.
        prepare: ``(batch, key) -> batch`` before the net runs.
        inputs: which entry of the batch the net sees.
        read: where the features are, see :func:`~jaxdistill.evaluation.representations.features`.
        pool: what becomes of positions: ``"mean"``, ``"first"`` or ``"flatten"``.
        label: which entry holds the labels.

    References:
        Choi et al. Understanding the Role of Mixup in Knowledge Distillation. WACV 2023.
        Müller et al. When Does Label Smoothing Help? NeurIPS 2019.
    """
    measure = reader(net, read, pool=pool, inputs=inputs, label=label, prepare=prepare)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        found = spread(*measure(result, data))
        return {"spread": found.within**0.5, "within_share": found.share}

    return measuring(("spread", "within_share"), evaluator, sweeps=True)
