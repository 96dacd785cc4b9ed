"""Evaluators: what a result is worth, as ``(result, frozen, data) -> {name: float}``.

``result`` is a student's ``(params, state)``, ``frozen`` the teachers' by name, and ``data``
batches of numpy arrays that can be gone through again and again; ``where`` (bool ``[B]``) is False
on padding, which counts nowhere. The functions here make evaluators of nets; each is compiled once,
however often it is called.
"""

from jaxdistill.evaluation.attention import (
    attention,
    attention_distance,
    attention_information,
)
from jaxdistill.evaluation.biases import class_bias
from jaxdistill.evaluation.classifiers import Reliability, classification, reliability
from jaxdistill.evaluation.loyalty import (
    label_loyalty,
    loyalty,
    probability_loyalty,
    regression_loyalty,
)
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.evaluation.probes import linear_probe, nearest_neighbours
from jaxdistill.evaluation.regression import as_targets, correlation, squared_error
from jaxdistill.evaluation.representations import Features, features
from jaxdistill.evaluation.similarity import cka
from jaxdistill.evaluation.smoothness import Spread, class_spread, spread
from jaxdistill.evaluation.statistics import (
    contrast,
    grid_interval,
    holm,
    paired_interval,
    verdict,
)
from jaxdistill.evaluation.transfer import parc, source_weights

__all__ = [
    "Features",
    "Reliability",
    "Spread",
    "as_targets",
    "attention",
    "attention_distance",
    "attention_information",
    "cka",
    "class_bias",
    "class_spread",
    "classification",
    "contrast",
    "correlation",
    "features",
    "grid_interval",
    "holm",
    "label_loyalty",
    "linear_probe",
    "loyalty",
    "measuring",
    "nearest_neighbours",
    "paired_interval",
    "parc",
    "probability_loyalty",
    "regression_loyalty",
    "reliability",
    "source_weights",
    "spread",
    "squared_error",
    "verdict",
]
