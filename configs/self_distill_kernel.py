"""Kernel ridge fits that learn from themselves, again and again, and what ground truth does there.

Borup and Andersen, Even your Teacher Needs Guidance, NeurIPS 2021: without ground truth every step
regularises more, until nothing is left; with a share of it the steps converge to a single ridge fit
with a larger ridge; the best share has a closed form.

Tests compare the toy example of the paper's notebook to five digits. This config fits real data:
scikit-learn's diabetes patients, whose labels are noisy by themselves, with a ridge that is too
small. Seconds:

    python -m jaxdistill.main --config=configs/self_distill_kernel.py:small --workdir=runs/kernel

Handwritten digits of which 30 % have a wrong label:

    python -m jaxdistill.main --config=configs/self_distill_kernel.py:small
        --workdir=runs/kernel_digits --config.data.name=digits

The table has a column for each arm. Expect the error of `alone` to fall and to rise again, that of
`guided` to settle at `limit`, and that of `best`, whose weight is chosen on validation data at
every step, never to exceed that of the first fit on these.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import ONE_DEVICE, at, chosen, recipe

WEIGHT, RIDGE, STEPS = 0.3, 0.3, 20


def fit(ridge: float, weight: float | str, steps: int, pictures: tuple[str, ...] = ()) -> dict:
    """A stage: ``steps`` fits, each learning from the one before and from the labels."""
    return {
        "student": {"net": "kernel_machine", "kernel": {"name": "rbf", "gamma": 0.03}},
        "distiller": {
            "name": "self_distilled_fit",
            "ridge": ridge,
            "weight": weight,
            "sets": ("validation",),
        },
        # All records at once: a batch is never larger than the set.
        "batch_size": 1_000_000,
        "steps": steps,
        "log_every": 1,
        "evaluate": {
            "validation": {"evaluator": "squared_error", "sets": ("validation",), "every": 1},
            "test": {"evaluator": "squared_error", "sets": ("test",)},
        },
        "pictures": pictures,
    }


def small() -> dict:
    stages = {
        "alone": fit(RIDGE, 0.0, STEPS, ("spectrum",)),
        "guided": fit(RIDGE, WEIGHT, STEPS, ("spectrum", "weight")),
        "best": fit(RIDGE, "best", STEPS, ("weight",)),
        # Infinitely many guided steps are one fit with this ridge.
        "limit": fit(RIDGE / WEIGHT, 1.0, 1),
    }
    digits = {"data/wrong": 0.3}
    for stage in stages:
        digits |= at(f"stages/{stage}/student/kernel", gamma=0.1)
    return recipe(
        title="Self-distillation of a kernel fit",
        sentence="Without ground truth repeated self-distillation loses everything in the end; "
        "with a share of it it ends at a ridge fit.",
        data={"name": "diabetes", "dir": "", "validation": 0.2, "test": 0.2, "wrong": 0.0},
        # The fit is one matrix: it is not shared out.
        mesh=ONE_DEVICE,
        stages=stages,
        table=("validation/squared_error",),
        variants={"digits": digits},
    )


VARIANTS = {"": small, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The run on diabetes; ``small`` is the same, as it is small already."""
    return chosen(VARIANTS, variant, __file__)
