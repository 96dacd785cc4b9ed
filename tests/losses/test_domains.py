"""Every hyper-parameter of a loss says what it may be."""

import collections.abc
import inspect
import typing

import jax
import pytest

from jaxdistill import losses
from jaxdistill.critics import cooperative_discriminator
from jaxdistill.losses._chunks import Chunks
from jaxdistill.objective import match
from jaxdistill.settings import fault, keys, says

FUNCTIONS = [
    function
    for name in losses.__all__
    if inspect.isfunction(function := getattr(losses, name)) and name != "catalogue"
]
# What is no setting: it is given by code.
ARRAYS = typing.Optional[jax.Array]  # noqa: UP045


def _wild(domain):
    """Whether anything goes; what a schedule or a projector is called with does not matter."""
    if domain in (typing.Any, inspect.Parameter.empty):
        return True
    if typing.get_origin(domain) in (collections.abc.Callable, typing.Literal):
        return False
    return any(map(_wild, typing.get_args(domain)))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_every_keyword_of_a_loss_has_a_domain(function):
    own = keys(function)
    for name, parameter in own.items():
        if parameter.annotation in (ARRAYS, jax.Array):
            continue
        assert not _wild(parameter.annotation), name
        assert parameter.annotation not in (str, int, float) or name == "axis", (
            f"{name} says no more than its type"
        )
        assert says(parameter.annotation)
        if parameter.default is not parameter.empty and not isinstance(parameter.default, Chunks):
            assert fault(parameter.default, parameter.annotation) is None, name


@pytest.mark.parametrize("entry", losses.catalogue(), ids=lambda entry: entry.name)
def test_the_keywords_of_a_sample_lie_in_their_domains(entry):
    own = keys(entry.loss)
    _, kwargs = entry.make(jax.random.key(0), "float32")
    for name, value in kwargs.items():
        assert fault(value, own[name].annotation) is None, name


@pytest.mark.parametrize(
    ("loss", "wrong"),
    [
        (losses.hinton_kd, {"temperature": -4}),
        (losses.cross_entropy, {"label_smoothing": 1.5}),
        (losses.sparse_kl, {"missing": "tial"}),
        (losses.skewed_reverse_kl, {"skew": 1}),
        (losses.rkd, {"angle_weight": float("nan")}),
        (losses.qkv_relations, {"relations": ("qq", "xx")}),
        (losses.sskd_pretext, {"views": 1}),
        (losses.kta, {"p": 0}),
        (losses.linear_divergence, {"divergence": "kl"}),
    ],
)
def test_what_lies_outside_is_known_before_anything_runs(loss, wrong):
    own = keys(loss)
    for name, value in wrong.items():
        assert fault(value, own[name].annotation) is not None
    assert fault({"schedule": "cosine"}, keys(losses.hinton_kd)["temperature"].annotation) is None


@pytest.mark.parametrize("function", [match, cooperative_discriminator])
def test_objectives_have_domains(function):
    for name, parameter in keys(function).items():
        assert not _wild(parameter.annotation), name
