"""A search that trains nothing, and a student that is as it chose."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from contract.recipes.parts import TAUGHT, TEACHER, Kind, recipe
from contract.works import narrowest

from jaxdistill.distiller import Work
from jaxdistill.settings import Count, Earlier, Share


def narrow(context, *, teacher: Earlier, widths: Sequence[Count], most: Share = 0.5):
    """The smallest width whose random features know the teacher."""

    def run(results, data, key):
        images = data["train"].gather(np.arange(len(data["train"])))["image"]
        wanted = context.net_of(teacher).apply(*results[teacher], images).out
        return narrowest(images, wanted, key, widths, most)

    return Work(run, "choice", ("width",))


SEARCH = {"work": {"name": "narrow", "teacher": "teacher", "widths": (2, 4, 8, 16)}}
DISTIL = {
    **TAUGHT,
    "student": {"net": "perceptron", "hidden": 1},
    "chosen": {"student.hidden": "search/width"},
}


def right(plan, outcomes):
    width = outcomes["search"].result["width"]
    assert width == outcomes["search"].values["choice/width"] > 1
    assert plan.stage("distil").settings["student"]["hidden"] == width
    assert {leaf.shape for leaf in jax.tree.leaves(outcomes["distil"].result[0])} == {
        (8, width),
        (width, 2),
    }


KIND = Kind(
    recipe(teacher=TEACHER, search=SEARCH, distil=DISTIL),
    {("work", "narrow"): narrow},
    {"teacher": "net", "search": "choice", "distil": "net"},
    right,
)
