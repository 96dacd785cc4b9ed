"""Every evaluator says what it measures, and measures that."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import evaluation
from jaxdistill.net import from_function
from jaxdistill.settings import fault, keys

NET = from_function(
    lambda key, x: ({}, {}),
    lambda params, state, x, train, rng: (x, {"half": x / 2}, state),
)
VARIABLES = ({}, {})
FROZEN = {"teacher": VARIABLES, "a": VARIABLES, "b": VARIABLES}
ROWS = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
CLASSES = [{"image": ROWS, "label": np.arange(12) % 3}]
SCORES = [{"image": ROWS[:, :1], "label": ROWS[:, 1:2]}]
LOOKED = from_function(
    lambda key, x: ({}, {}),
    lambda params, state, x, train, rng: (x, {"qkv": x}, state),
)
TOKENS = [{"image": np.random.default_rng(1).normal(size=(3, 5, 12)).astype(np.float32)}]
HEADS = {"blocks": ["qkv"], "heads": 2}
PAIRS = {"x": ("out", "half"), "y": ("half", "half")}
CASES = {
    "classification": (evaluation.classification(NET, top=(1, 3)), CLASSES),
    "classification with a teacher": (evaluation.classification(NET, NET), CLASSES),
    "class_bias": (evaluation.class_bias(NET, CLASSES, classes=[2]), CLASSES),
    "class_spread": (evaluation.class_spread(NET), CLASSES),
    "attention": (evaluation.attention(LOOKED, **HEADS), TOKENS),
    "attention against another": (evaluation.attention(LOOKED, LOOKED, "a", **HEADS), TOKENS),
    "linear_probe": (evaluation.linear_probe(NET, CLASSES), CLASSES),
    "nearest_neighbours": (evaluation.nearest_neighbours(NET, CLASSES), CLASSES),
    "cka": (evaluation.cka(NET, NET, pairs=PAIRS), CLASSES),
    "cka without a teacher": (evaluation.cka(NET, None, pairs=PAIRS), CLASSES),
    "squared_error": (evaluation.squared_error(NET), SCORES),
    "squared_error of classes": (evaluation.squared_error(NET, 3), CLASSES),
    "loyalty": (evaluation.loyalty(NET, {"a": NET}), CLASSES),
    "loyalty to two": (evaluation.loyalty(NET, {"a": NET, "b": NET}), CLASSES),
    "loyalty of scores": (evaluation.loyalty(NET, {"a": NET, "b": NET}, scores=True), SCORES),
}
EVALUATORS = [
    name
    for name in evaluation.__all__
    if inspect.isfunction(getattr(evaluation, name))
    and inspect.signature(getattr(evaluation, name)).return_annotation == "Evaluator"
]


@pytest.mark.parametrize("case", CASES)
def test_what_is_measured_is_what_is_said(case):
    evaluator, data = CASES[case]
    found = evaluator(VARIABLES, FROZEN, data)
    assert sorted(found) == sorted(evaluator.metrics)
    assert all(type(value) is float for value in found.values())


def test_every_evaluator_is_tried():
    assert len(EVALUATORS) >= 7
    assert set(EVALUATORS) == {case.split()[0] for case in CASES}


@pytest.mark.parametrize("name", EVALUATORS)
def test_settings_have_domains_and_defaults_that_lie_in_them(name):
    for key, parameter in keys(getattr(evaluation, name)).items():
        assert fault(jnp.zeros(()), parameter.annotation) is not None, key
        if parameter.default is not parameter.empty:
            assert fault(parameter.default, parameter.annotation) is None, key
