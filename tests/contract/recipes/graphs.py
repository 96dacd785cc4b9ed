"""Graphs as padded segments."""

from __future__ import annotations

import numpy as np
from contract.recipes.parts import ADAM, Kind, recipe, series
from contract.structures import graphs, messages

from jaxdistill.data.sources import arrays
from jaxdistill.settings import Count


def coloured(context, *, count: Count = 128):
    """Graphs whose nodes have one of two colours."""
    records = graphs(count)
    colour = (records["nodes"][..., 0] > 0).astype(np.int32)
    info = {"classes": 2, "inputs": ("nodes", "edges", "is_edge")}
    return arrays({**records, "colour": colour}, name="coloured", info=info)


def passing(context, *, width: Count):
    """An answer for every node."""
    return messages(width)


TEACHER = {
    "student": {"net": "messages", "width": 16},
    "objective": {
        "labels": {"loss": "cross_entropy", "target": "batch/colour", "where": "batch/is_node"}
    },
    "optimizer": ADAM,
    "batch_size": 32,
    "steps": 8,
    "log_every": 2,
}
DISTIL = {
    **TEACHER,
    "student": {"net": "messages", "width": 4},
    "targets": {"stage": "teacher"},
    "objective": {"kd": {"loss": "hinton_kd", "where": "batch/is_node"}},
}


def right(plan, outcomes):
    for stage, loss in (("teacher", "labels"), ("distil", "kd")):
        losses = series(outcomes[stage], loss)
        assert losses[-1] < losses[0]
    assert outcomes["distil"].result[0]["first"].shape == (6, 4)


KIND = Kind(
    {**recipe(teacher=TEACHER, distil=DISTIL), "data": {"name": "coloured", "count": 96}},
    {("data set", "coloured"): coloured, ("net", "messages"): passing},
    {"teacher": "net", "distil": "net"},
    right,
)
