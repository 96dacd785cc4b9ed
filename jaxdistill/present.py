"""What a finished recipe shows: the report with its pictures, and the student for use elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import build, evaluation
from jaxdistill._errors import unknown
from jaxdistill.config import target_stages
from jaxdistill.data.augment import to_float
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.models import masking
from jaxdistill.recipe import Plan, Planned
from jaxdistill.training.export import export_student
from jaxdistill.training.loop import Outcome
from jaxdistill.training.report import Picture, environment, write_report

SHOWN = 8
# The algorithms of build.DISTILLERS whose result are the variables of the stage's net.
STUDENTS = ("self_distilled_fit",)


def report(
    root: Path | str, plan: Plan, outcomes: Mapping[str, Outcome], *, command: str = ""
) -> Path:
    """Writes ``report.json`` and ``report.html`` into a working directory.

    Args:
        root: the working directory.
        plan: the recipe.
        outcomes: what its stages left.
        command: what made it.

    Returns:
        The path of the page.
    """
    pictures = [
        PICTURES[kind](plan, planned, outcomes)
        for planned in plan.stages
        for kind in planned.settings["pictures"]
    ]
    return write_report(
        root,
        {
            "title": plan.config["title"],
            "sentence": plan.config["sentence"],
            "command": command,
            "created": time.strftime("%Y-%m-%d %H:%M"),
            "config": plan.config,
            "environment": environment(),
            "stages": [_stage(planned, outcomes[planned.name]) for planned in plan.stages],
            "summary": [{"model": name, **outcome.values} for name, outcome in outcomes.items()],
        },
        pictures,
    )


def student(root: Path | str, plan: Plan, outcomes: Mapping[str, Outcome]) -> list[Path]:
    """Writes the last stage's student into ``root/student``, see :func:`export_student`.

    Algorithms of other kinds leave other things: nothing is written for what is no net's variables.
    """
    last = plan.stages[-1]
    if last.settings["distiller"] and last.settings["distiller"]["name"] not in STUDENTS:
        return []
    image = to_float(jnp.asarray(last.data["train"].gather(np.arange(1))["image"]))
    return export_student(Path(root) / "student", last.net, outcomes[last.name].result, image)


def _stage(planned: Planned, outcome: Outcome) -> dict[str, Any]:
    """A stage as a report wants it: training and evaluation apart, a line for every set."""
    evaluations = []
    for line in outcome.metrics:
        sets: dict[str, dict[str, float]] = {}
        for key, value in line.items():
            part, slash, metric = key.partition("/")
            if line["kind"] != "train" and slash:
                sets.setdefault(part, {})[metric] = value
        evaluations += [
            {"step": line["step"], "set": part, **values} for part, values in sets.items()
        ]
    result = outcome.result
    params = result[0] if isinstance(result, tuple) else result
    return {
        "name": planned.name,
        "steps": planned.settings["steps"],
        "seconds": outcome.seconds,
        "parameters": sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params)),
        "metrics": [line for line in outcome.metrics if line["kind"] == "train"],
        "evaluations": evaluations,
    }


def reconstruction(plan: Plan, planned: Planned, outcomes: Mapping[str, Outcome]) -> Picture:
    """Some validation images, what a masked autoencoder saw of them, and what it made of them."""
    settings = planned.settings["view"] or {}
    mask = settings["mask"]
    source = planned.data["validation"]
    batch = source.gather(np.arange(min(SHOWN, len(source))))
    # The deterministic part of the view is what the net is used to; crops and flips are not needed
    # to look at it.
    fixed = [
        spec for spec in settings.get("augment") or () if spec["name"] in ("resize", "normalise")
    ]
    size = next((spec["size"] for spec in settings.get("augment") or () if "size" in spec), None)
    if size and not any(spec["name"] == "resize" for spec in fixed):
        fixed.insert(0, {"name": "resize", "size": size})
    prepare = build.view({"augment": fixed, "mask": mask}, planned.data["train"].info)
    batch = prepare(batch, jax.random.key(plan.config["seed"]))
    params, state = outcomes[planned.name].result
    pixels = jax.jit(planned.net.apply)(params, state, batch["student"]).out["pixels"]
    rows = masking.reconstruction(
        pixels,
        batch["image"],
        batch["mask"],
        mask["patch"],
        normalized=mask.get("normalise", False),
    )
    scale = _denormalised(fixed)
    shown = {
        name: np.clip(scale(np.asarray(value)), 0, 1) for name, value in rows._asdict().items()
    }
    return Picture(f"{planned.name}: hidden patches drawn", "images", shown)


def reliability(plan: Plan, planned: Planned, outcomes: Mapping[str, Outcome]) -> Picture:
    """How often a classifier is right by how sure it is, and its teacher beside it."""
    names = (planned.name, *target_stages(planned.settings["targets"]))
    spec = next(
        (s for s in planned.settings["evaluate"].values() if s["evaluator"] == "classification"), {}
    )
    part = "test" if "test" in planned.data else "validation"
    batches = evaluation_batches(planned.data[part], spec.get("batch_size", build.BATCH))
    prepare = build.fixed_view(spec.get("augment"))
    bins = {
        p.name: evaluation.reliability(p.net, prepare=prepare)(outcomes[p.name].result, batches)
        for p in plan.stages
        # Teachers of other tasks have nothing to say of these labels.
        if p.name in names and p.settings["data"] == planned.settings["data"]
    }
    return Picture(f"{planned.name}: calibration on the {part} set", "reliability", bins)


def _denormalised(specs: list[Mapping[str, Any]]) -> Callable[[np.ndarray], np.ndarray]:
    for spec in specs:
        if spec["name"] == "normalise":
            mean, std = np.asarray(spec["mean"]), np.asarray(spec["std"])
            return lambda x: x * std + mean
    return lambda x: x


PICTURES: dict[str, Callable[..., Picture]] = {
    "reconstruction": reconstruction,
    "reliability": reliability,
}


def check(plan: Plan) -> None:
    """Refuses pictures that there are not, before anything is computed."""
    for planned in plan.stages:
        for kind in planned.settings["pictures"]:
            if kind not in PICTURES:
                raise ValueError(unknown(f"picture of stage {planned.name!r}", kind, PICTURES))
            if kind == "reconstruction" and not (planned.settings["view"] or {}).get("mask"):
                raise ValueError(
                    f"stage {planned.name!r} masks nothing: it has no 'reconstruction' to show"
                )
