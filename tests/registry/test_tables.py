"""Every table: what is offered comes from the runner, what is said comes from the config."""

import inspect
from typing import Any

import numpy as np
import pytest

from jaxdistill import registry
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import call, forwarding, offered, partial
from jaxdistill.settings import Count, Positive, Scheduled, Share, fault, keys, says

ENTRIES = [(kind, name) for kind, table in registry.TABLES.items() for name in table]
# Functions of arrays, whose keywords alone are said by a config.
FUNCTIONS = ("kernel", "loss", "mix", "projector")


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_keys_of_a_config_are_the_keyword_only_parameters_each_with_a_domain(kind, name):
    entry = registry.TABLES[kind][name]
    parameters = list(inspect.signature(entry).parameters.values())
    if kind not in FUNCTIONS:
        assert parameters[0].name == "context"
        assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters[1:])
    for key, parameter in keys(entry).items():
        assert parameter.annotation is not Any, f"{key!r} of {kind} {name!r} has no domain"
        assert says(parameter.annotation)
        default = parameter.default
        if default is not parameter.empty and default is not None:
            # A config names a type.
            default = np.dtype(default).name if key.endswith("dtype") else default
            wrong = fault(default, parameter.annotation)
            assert wrong is None, f"the default of {key!r} of {kind} {name!r} {wrong}"


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"evaluator": "classification", "net": "mlp"}, ["'net'", "Possible", "'read'"]),
        ({"evaluator": "classification", "teacher_name": "t"}, ["'teacher_name'", "Possible"]),
        ({"evaluator": "classification", "bins": 0}, ["'bins'", "is 0", "1 or more"]),
        ({"evaluator": "clasification"}, ["'clasification'", "did you mean 'classification'"]),
    ],
)
def test_a_config_cannot_say_what_the_runner_offers(part, words):
    sets = registry.data({"name": "digits"})
    context = Context(student_net="net", sets=sets, info=sets["train"].info)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        registry.evaluator("accuracy", part, context)
    for word in words:
        assert word in str(refusal.value)


def test_an_entry_reads_the_context_and_the_config_apart():
    def rule(net, classes, seed=0, *, share: Share = 0.1):
        return net, classes, seed, share

    entry = offered(rule)
    context = Context(student_net="n", info={"classes": 3}, seed=7)
    assert call("rule", {"rule": entry}, {"name": "rule", "share": 0.5}, context) == (
        "n",
        3,
        7,
        0.5,
    )
    with pytest.raises(ValueError, match=r"unknown key of rule 'rule' 'seed'"):
        call("rule", {"rule": entry}, {"name": "rule", "seed": 1}, context)


def test_what_no_context_has_is_refused_when_the_table_is_made():
    with pytest.raises(ValueError, match=r"'width'"):
        offered(lambda width: width)


def test_keys_are_forwarded_less_some():
    def made(seed, *, share: Share = 0.1, size: Count = 8): ...

    @forwarding(made, "size")
    def entry(context, *, kind: str, **rest):
        return kind, rest

    assert list(keys(entry)) == ["kind", "share"]
    assert entry(Context(), kind="k", share=0.2) == ("k", {"share": 0.2})


def test_all_that_is_wrong_is_said_at_once():
    def made(*, share: Share, size: Count = 8, rate: Positive = 1.0): ...

    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        partial("made", {"made": made}, {"name": "made", "size": 2.5, "rat": 1, "rate": -1})
    lines = str(refusal.value).splitlines()
    assert len(lines) == 4
    for line, words in zip(
        lines, ("'size' of made 'made' is 2.5", "'rat'", "is -1", "needs 'share'"), strict=True
    ):
        assert words in line


def test_none_leaves_the_default_where_it_is_no_value():
    def made(*, size: Count = 8, rate: Positive | None = 0.1):
        return size, rate

    assert partial("made", {"made": made}, {"name": "made", "size": None, "rate": None})() == (
        8,
        None,
    )


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"schedule": "warmup_cosine", "peak": 1.0, "warmup": 10},
            ["'warmup'", "10", "below the 10"],
        ),
        ({"schedule": "step_decay", "peak": 1.0, "milestones": (5, 50)}, ["'milestones'", "50"]),
        ({"schedule": "linear", "start": 1.0, "end": -1.0}, ["step 5", "above 0"]),
        ({"schedule": "cosin", "start": 1.0, "end": 1.0}, ["'cosin'", "'cosine'"]),
        ({"schedule": "exponential", "start": 1.0, "rate": -2}, ["'rate'", "-2", "above 0"]),
    ],
)
def test_schedules_stay_within_the_run_and_the_domain(spec, words):
    from jaxdistill.registry.entries import scheduled

    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        scheduled("'rate' of x", 10, spec, Scheduled[Positive])
    for word in words:
        assert word in str(refusal.value)


def test_a_stage_without_steps_has_no_schedule():
    rate = registry.schedule({"schedule": "warmup_cosine", "peak": 1.0, "warmup": 10}, 0)
    assert float(rate(0)) == 1.0


def test_a_net_is_told_what_the_data_says_unless_the_config_does():
    info = {"classes": 10, "image_shape": (8, 8, 1)}
    assert registry.net_module({"net": "mlp", "widths": (4,)}, info).classes == 10
    assert registry.net_module({"net": "mlp", "widths": (4,), "classes": 3}, info).classes == 3
