"""Probes: what a simple classifier, fitted on a few labelled records, can tell from features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxdistill.evaluation.batches import Evaluator, Prepare, Read
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.evaluation.representations import Features, Pool, reader, remembered
from jaxdistill.net import Net
from jaxdistill.settings import Count, Positive

# The inverse strengths C of the L2 penalty among which a linear probe chooses.
GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
FOLDS = 5
# Features of fewer numbers than this are fitted by one thread.
SMALL = 1_000_000


def linear_probe(
    net: Net,
    train_batches: Iterable[Any],
    seed: int = 0,
    prepare: Prepare | None = None,
    inputs: str = "image",
    *,
    read: Read = "out",
    pool: Pool = "mean",
    label: str = "label",
    parts: Count = 1,
) -> Evaluator:
    """Logistic regression on frozen features: ``probe_accuracy``.

    Features are standardised, and the L2 penalty is chosen from a fixed grid (C from 0.001 to 10)
    by stratified cross-validation within the labelled records; where a class has fewer than two, C
    is 0.1. What the evaluator is called on is only scored. Equal features give equal values.

    Args:
        net: the net whose features are read; its weights are the ``result``.
        train_batches: the labelled records that the probe is fitted on, as batches that can be gone
            through again: ``evaluation_batches(labelled_subset(train, 100, seed=0), 100)``.
        seed: of the folds of the cross-validation.
        prepare: ``(batch, key) -> batch`` before the net runs.
        inputs: which entry of the batch the net sees.
        read: where the features are, see :func:`~jaxdistill.evaluation.representations.features`.
        pool: what becomes of positions: ``"mean"``, ``"first"`` or ``"flatten"``.
        label: which entry holds the labels.
        parts: into how many parts the labelled records are divided, with equally many of each
            class; a probe is fitted on each, and the value is the mean of theirs, which depends
            less on which records are labelled.

    Raises:
        ValueError: if the labelled records are of one class only, or a class has fewer than
            ``parts``.

    References:
        Alain and Bengio. Understanding Intermediate Layers Using Linear Classifier Probes. 2016.
    """

    def fit(train: Features):
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV, StratifiedKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits

        def model(strength: float = GRID[len(GRID) // 2]):
            return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))

        folds = min(FOLDS, int(np.unique(train.labels, return_counts=True)[1].min()))
        if folds < 2:
            return model().fit(*train)
        splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
        search = GridSearchCV(model(), {"logisticregression__C": list(GRID)}, cv=splits)
        # Threads of BLAS that wait for each other make small fits several times slower.
        with threadpool_limits(1 if train.values.size < SMALL else None):
            return search.fit(*train)

    measure = reader(net, read, pool=pool, inputs=inputs, label=label, prepare=prepare)
    return _probe("probe_accuracy", fit, measure, train_batches, parts, seed)


def nearest_neighbours(
    net: Net,
    train_batches: Iterable[Any],
    prepare: Prepare | None = None,
    inputs: str = "image",
    *,
    read: Read = "out",
    pool: Pool = "mean",
    label: str = "label",
    neighbours: Count = 20,
    temperature: Positive = 0.07,
) -> Evaluator:
    r"""The vote of the nearest labelled records, with nothing fitted: ``neighbours_accuracy``.

    The ``neighbours`` records of the largest cosine :math:`c` vote with weight
    :math:`e^{c / \tau}`.

    All other arguments are those of :func:`linear_probe`.

    Args:
        neighbours: how many vote; all, if there are fewer.
        temperature: :math:`\tau`; a small one makes the nearest decide alone.

    References:
        Wu et al. Unsupervised Feature Learning via Non-Parametric Instance Discrimination. CVPR
        2018.
    """
    if neighbours < 1 or temperature <= 0:
        raise ValueError(f"neighbours={neighbours} and temperature={temperature} must be positive")

    def fit(train: Features):
        from sklearn.neighbors import KNeighborsClassifier

        # The metric is 1 - c; a constant factor changes no vote.
        votes: Any = lambda distances: np.exp(-distances / temperature)  # noqa: E731
        count = min(neighbours, len(train.labels))
        return KNeighborsClassifier(count, metric="cosine", weights=votes).fit(*train)

    measure = reader(net, read, pool=pool, inputs=inputs, label=label, prepare=prepare)
    return _probe("neighbours_accuracy", fit, measure, train_batches)


def _probe(
    name: str, fit: Any, measure: Any, train_batches: Iterable[Any], parts: int = 1, seed: int = 0
) -> Evaluator:
    known = remembered(measure, train_batches)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        train = known(result)
        if len(set(train.labels.tolist())) < 2:
            raise ValueError("a probe needs labelled records of two classes or more")
        scored = measure(result, data)
        fitted = [fit(part) for part in _divided(train, parts, seed)]
        return {name: float(np.mean([model.score(*scored) for model in fitted]))}

    return measuring([name], evaluator, sweeps=True)


def _divided(train: Features, parts: int, seed: int) -> list[Features]:
    """Parts with about equally many records of each class."""
    if parts == 1:
        return [train]
    from sklearn.model_selection import StratifiedKFold

    classes, sizes = np.unique(train.labels, return_counts=True)
    if sizes.min() < parts:
        raise ValueError(
            f"class {classes[sizes.argmin()]} has {sizes.min()} labelled records, too few for "
            f"parts={parts} probes"
        )
    folds = StratifiedKFold(parts, shuffle=True, random_state=seed).split(*train)
    return [Features(train.values[part], train.labels[part]) for _, part in folds]
