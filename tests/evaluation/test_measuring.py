"""Every evaluator says what it measures, and measures that."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import evaluation
from jaxdistill.evaluation.batches import trace
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
    "correlation": (evaluation.correlation(NET), SCORES),
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


SHAPES = ({"w": jax.ShapeDtypeStruct((), jnp.float32)}, {})


# What reads batches of its own before those that it is given.
OWN = ("class_bias", "linear_probe", "nearest_neighbours")


@pytest.mark.parametrize("case", [case for case in CASES if case not in OWN])
def test_what_is_not_there_is_told_from_shapes_alone(case):
    evaluator, data = CASES[case]
    frozen = dict.fromkeys(FROZEN, SHAPES)
    trace(evaluator, SHAPES, frozen, data)
    without = [{name: x for name, x in batch.items() if name != "image"} for batch in data]
    if not evaluator.metrics:
        return
    with pytest.raises(ValueError, match="image"):
        trace(evaluator, SHAPES, frozen, [{**batch, "other": ROWS} for batch in without])


@pytest.mark.parametrize("name", OWN)
def test_so_is_what_is_not_there_in_batches_of_its_own(name):
    settings = {"classes": [2]} if name == "class_bias" else {}
    evaluator = getattr(evaluation, name)(NET, CLASSES, read="quarter", **settings)
    with pytest.raises(ValueError, match="quarter"):
        trace(evaluator, SHAPES, {}, CLASSES)


def test_classes_that_a_net_does_not_have_are_told_from_shapes_alone():
    with pytest.raises(ValueError, match=r"classes must be some of 0..2, got \[3\]"):
        trace(evaluation.class_bias(NET, CLASSES, classes=[3]), SHAPES, {}, CLASSES)


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
