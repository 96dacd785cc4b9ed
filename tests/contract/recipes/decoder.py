"""A frozen decoder as the distance of codes."""

from __future__ import annotations

from contract.recipes.parts import ADAM, Kind, recipe, series
from contract.structures import autoencoder, decoded_distance

from jaxdistill.gradients import Whole
from jaxdistill.objective import as_objective, per_example
from jaxdistill.settings import Count, Earlier, Finite, Scheduled


def coder(context, *, hidden: Count, code: Count):
    """Inputs through a few numbers."""
    return autoencoder(hidden, code)


def part(context, *, stage: Earlier, name: str):
    """A part of the parameters of an earlier stage, as it is for every record."""
    return lambda sources, batch, key, step: {"part": Whole(sources[stage][0][name])}


def decoded(context, *, target: str, decoder: str, weight: Scheduled[Finite] = 1.0):
    """How far apart codes are once they are decoded."""

    def terms(forward, goal, batch):
        wanted, whole = (goal[name] for name in (target, decoder))
        values = decoded_distance(whole.value, forward.out, wanted)
        return {context.term: per_example(weight, values)}

    return as_objective(terms)


CODER = {
    "student": {"net": "coder", "hidden": 16, "code": 2},
    "objective": {"back": {"loss": "logit_mse", "target": "batch/image"}},
    "optimizer": ADAM,
    "batch_size": 32,
    "steps": 8,
    "log_every": 2,
}
DISTIL = {
    **CODER,
    "student": {"net": "perceptron", "hidden": 8, "outputs": 2},
    "targets": {
        "kind": "merge",
        "members": {
            "coder": {"stage": "coder"},
            "decoder": {"kind": "part", "stage": "coder", "name": "decoder"},
        },
    },
    "objective": {
        "distance": {"loss": "decoded", "target": "coder/code", "decoder": "decoder/part"}
    },
    "accumulate": 2,
}


def right(plan, outcomes):
    losses = series(outcomes["distil"], "distance")
    assert losses[-1] < losses[0]
    assert plan.stage("distil").needs == ("coder",)
    assert set(outcomes["distil"].result[0]) == {"first", "second"}


KIND = Kind(
    recipe(coder=CODER, distil=DISTIL),
    {("net", "coder"): coder, ("kind of targets", "part"): part, ("critic", "decoded"): decoded},
    {"coder": "net", "distil": "net"},
    right,
)
