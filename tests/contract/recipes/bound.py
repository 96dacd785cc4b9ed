"""A bound that needs its own fit in turn."""

from __future__ import annotations

import optax
from contract.networks import forgetting
from contract.recipes.parts import ADAM, Kind, recipe, series

from jaxdistill.players import players
from jaxdistill.settings import Count, Positive


def forget(context, *, updates: Count = 5, rate: Positive = 3e-2):
    """Labels are learned, a nuisance is forgotten."""
    turns, init = forgetting(context.net, context.tx, optax.adam(rate), updates)
    return players(turns, init)


FORGET = {
    "student": {"net": "perceptron", "hidden": 8},
    "distiller": {"name": "forget", "updates": 4},
    "optimizer": ADAM,
    "batch_size": 32,
    "steps": 12,
    "log_every": 3,
    "evaluate": {"accuracy": {"evaluator": "classification"}},
}


def right(plan, outcomes):
    for name in ("fit", "ce"):
        values = series(outcomes["forget"], name)
        assert values[-1] < values[0]
    assert outcomes["forget"].values["validation/accuracy"] > 0.5
    # The bound is no part of the result.
    assert set(outcomes["forget"].result[0]) == {"first", "second"}


KIND = Kind(recipe(forget=FORGET), {("distiller", "forget"): forget}, {"forget": "net"}, right)
