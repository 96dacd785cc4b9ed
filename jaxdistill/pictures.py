"""What a report shows of a stage, by name: each is ``(plan, planned, outcomes) -> Picture``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import condense, evaluation, registry, theory
from jaxdistill.config import frozen_stages, teachers
from jaxdistill.data.augment import to_float
from jaxdistill.data.records import Source
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.language.evaluation import losses_by_position
from jaxdistill.models import masking
from jaxdistill.recipe import Plan, Planned
from jaxdistill.samplers import quality
from jaxdistill.training.loop import Outcome
from jaxdistill.training.meaning import meaning
from jaxdistill.training.report import Picture

# Images that are shown, eigen-directions of a spectrum, weights at which an error is drawn, texts
# that are read.
SHOWN, DIRECTIONS, WEIGHTS, TEXTS = 8, 150, 41, 256
# Classes of a synthetic set that are shown.
COLUMNS = 20
# Points that a density is drawn of, and the evaluations that say how to sample.
DENSE, SAMPLED = 20_000, ("density_quality", "image_quality")
# What is kept of a direction is drawn down to this share.
NOTHING = 1e-4


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
    prepare = registry.view({"augment": fixed, "mask": mask}, planned.info)
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
    names = (planned.name, *teachers(planned.settings["targets"]))
    spec = next(
        (s for s in planned.settings["evaluate"].values() if s["evaluator"] == "classification"), {}
    )
    part = "test" if "test" in planned.data else "validation"
    batches = evaluation_batches(planned.data[part], spec.get("batch_size", registry.BATCH))
    how = registry.seen(spec.get("augment"), planned.info)
    bins = {
        p.name: evaluation.reliability(p.net, **how)(outcomes[p.name].result, batches)
        for p in plan.stages
        # Teachers of other tasks have nothing to say of these labels.
        if p.name in names and p.settings["data"] == planned.settings["data"]
    }
    return Picture(f"{planned.name}: calibration on the {part} set", "reliability", bins)


class _KernelFits(NamedTuple):
    """The self-distilled fits of a stage once more, in closed form."""

    matrix: jax.Array
    targets: jax.Array
    cross: jax.Array
    wanted: jax.Array
    fits: theory.Fit
    weights: jax.Array


def spectrum(plan: Plan, planned: Planned, outcomes: Mapping[str, Outcome]) -> Picture:
    """What a self-distilled fit keeps of every eigen-direction of its kernel, step by step."""
    settings, found = planned.settings["distiller"], _kernel_fits(plan, planned)
    values = theory.spectrum(found.matrix).values
    kept = theory.filters(values, settings["ridge"], found.weights)
    last = len(found.weights)
    lines = {f"step {t}": kept[t - 1] for t in sorted({1, min(2, last), last})}
    share = settings.get("weight", 0.0)
    if share != "best" and 0 < share <= 1:
        lines["limit"] = theory.limit_filter(values, settings["ridge"], share)
    shown = np.arange(min(DIRECTIONS, len(values)))
    # A share of nothing has no place on the logarithmic axis that such lines are drawn on.
    drawn = {
        name: (1 + shown, np.maximum(np.asarray(line)[::-1][shown], NOTHING))
        for name, line in lines.items()
    }
    charts = {"share kept by eigen-direction, largest first": drawn}
    return Picture(f"{planned.name}: what is left of the spectrum", "curves", charts)


def weight(plan: Plan, planned: Planned, outcomes: Mapping[str, Outcome]) -> Picture:
    """The validation error of the second and the last step, had it taken any other weight."""
    ridge, found = planned.settings["distiller"]["ridge"], _kernel_fits(plan, planned)
    guided = theory.predict(found.cross, found.fits.coefficients[0])
    shares = np.linspace(0, 1, WEIGHTS)
    last, lines = len(found.weights), {}
    for step in sorted({min(2, last), last}):
        before = found.fits.fitted[step - 2] if step > 1 else found.targets
        alone = theory.ridge_fit(found.matrix, before, ridge).coefficients
        unguided = theory.predict(found.cross, alone)
        errors = [
            float(jnp.square(found.wanted - s * guided - (1 - s) * unguided).sum(-1).mean())
            for s in shares
        ]
        lines[f"step {step}"] = (shares, errors)
    charts = {"validation error by weight of the ground truth": lines}
    return Picture(f"{planned.name}: the weight of the ground truth", "curves", charts)


def positions(plan: Plan, planned: Planned, outcomes: Mapping[str, Outcome]) -> Picture:
    """How well a language model, and its teacher, knows the next token by how much it has read."""
    source = planned.data["validation"]
    batch = source.gather(np.arange(min(TEXTS, len(source))))
    names = (planned.name, *frozen_stages(planned.settings))
    found = {
        name: losses_by_position(plan.stage(name).net, outcomes[name].result, batch)
        for name in names
    }
    places = np.arange(1, batch["tokens"].shape[1] + 1)
    charts = {
        title: {name: (places, values[key]) for name, values in found.items()}
        for title, key in (
            ("loss by tokens read", "loss"),
            ("tokens right by tokens read", "right"),
        )
    }
    return Picture(f"{planned.name}: what context is worth", "curves", charts)


def _kernel_fits(plan: Plan, planned: Planned) -> _KernelFits:
    settings, seed = planned.settings["distiller"], plan.config["seed"]
    kernel = registry.kernel_named(planned.settings["student"]["kernel"])
    train = registry.records(planned.data["train"], planned.settings["records"], seed)
    (points, targets), (held, wanted) = (
        _points(source) for source in (train, planned.data["validation"])
    )
    matrix, cross = kernel(points, points), kernel(held, points)
    ridge, steps = settings["ridge"], planned.settings["steps"]
    weights = settings.get("weight", 0.0)
    if weights == "best":
        chosen = theory.chosen_path(matrix, targets, ridge, cross, wanted, steps=steps)
        return _KernelFits(matrix, targets, cross, wanted, chosen.fits, chosen.weights)
    weights = jnp.full((steps,), weights, matrix.dtype)
    fits = theory.path(matrix, targets, ridge, weights)
    return _KernelFits(matrix, targets, cross, wanted, fits, weights)


def samples(plan: Plan, planned: Planned, outcomes: Mapping[str, Outcome]) -> Picture:
    """What a sampler makes of the same noise with every number of steps it is measured with, and
    data: images, or the density of points in a plane."""
    spec = _sampled(planned)
    how = {
        k: spec[k] for k in ("solver", "high", "low", "middle", "scale", "embedded") if k in spec
    }
    source, seed = planned.data["validation"], plan.config["seed"]
    fixed: list[Mapping[str, Any]] = list(spec.get("augment") or ())
    plane = source.gather(np.arange(1))["image"].ndim == 2
    count = DENSE if plane else SHOWN
    classes = source.info.get("classes", 0) if spec.get("labels") else 0
    label = jnp.arange(count) % classes if classes else None
    if spec.get("label") is not None:
        label = jnp.full(count, spec["label"])
    scale = _denormalised(fixed)
    real = registry.view({"augment": fixed}, source.info)(
        source.gather(np.arange(min(count, len(source)))), jax.random.key(seed)
    )["student"]
    rows = {"data": np.asarray(real)}
    noise = jax.random.normal(jax.random.key(seed), (count, *real.shape[1:]))
    run, key = quality.sampler(planned.net, **how), jax.random.key(seed + 1)
    for n in spec.get("in_steps", (1, 2)):
        made = run(outcomes[planned.name].result, noise, label, key, n)
        rows[f"{n} step{'s' if n > 1 else ''}"] = np.asarray(made)
    if plane:
        shown = {name: _histogram(points) for name, points in rows.items()}
    else:
        shown = {name: np.clip(scale(images), 0, 1) for name, images in rows.items()}
    return Picture(f"{planned.name}: samples by the number of steps", "images", shown)


def by_steps(plan: Plan, planned: Planned, outcomes: Mapping[str, Outcome]) -> Picture:
    """The quality of a sampler against its number of steps, and the floor."""
    spec, values = _sampled(planned), outcomes[planned.name].values
    density = spec["evaluator"] == "density_quality"
    kind, floor = ("sliced_wasserstein", "floor") if density else ("kid", "kid_real")
    steps = spec.get("in_steps", (1, 2))
    lines = {}
    for part in spec.get("sets", ("validation",)):
        lines[f"{part}, samples"] = (steps, [values[f"{part}/{kind}_{n}"] for n in steps])
        lines[f"{part}, floor"] = (steps, [values[f"{part}/{floor}"]] * len(steps))
    title = f"{planned.name}: quality by the number of steps"
    return Picture(title, "curves", {f"{meaning(kind).words} by steps": lines})


def _sampled(planned: Planned) -> Mapping[str, Any]:
    """What the config says of the evaluation that a stage's samples are shown by."""
    specs = planned.settings["evaluate"].values()
    return next(s for s in specs if s["evaluator"] in SAMPLED)


def _histogram(points: np.ndarray) -> np.ndarray:
    """Where points of a plane lie, as a bright image ``[1, 96, 96, 1]``."""
    edges = np.linspace(-1.1, 1.1, 97)
    counts = np.histogram2d(points[:, 1], points[:, 0], bins=(edges, edges))[0][::-1]
    share = counts / max(np.quantile(counts[counts > 0], 0.95) if counts.any() else 1, 1e-9)
    return np.clip(share, 0, 1)[None, :, :, None]


def _points(source: Source) -> tuple[jax.Array, jax.Array]:
    """All records of a set as points and targets ``[n, c]``, one-hot for classes."""
    records = source.gather(np.arange(len(source)))
    targets = evaluation.as_targets(jnp.asarray(records["label"]), source.info.get("classes", 1))
    return to_float(jnp.asarray(records["image"])), targets


def _denormalised(specs: list[Mapping[str, Any]]) -> Callable[[np.ndarray], np.ndarray]:
    for spec in specs:
        if spec["name"] == "normalise":
            mean, std = np.asarray(spec["mean"]), np.asarray(spec["std"])
            return lambda x: x * std + mean
    return lambda x: x


def synthetic(plan: Plan, planned: Planned, outcomes: Mapping[str, Outcome]) -> Picture:
    """A synthetic set, a column for each class; with many images of a class, the first of each."""
    result = outcomes[planned.name].result
    whitening = planned.info.get("whitening")
    classes = result.targets.shape[-1]
    images = condense.pixels(result.images, whitening) / 255
    images = images.reshape(classes, -1, *images.shape[1:])[:COLUMNS, :SHOWN]
    rows = {f"image {place + 1}": images[:, place] for place in range(images.shape[1])}
    return Picture(f"{planned.name}: the set, class by class", "images", rows)


def images(plan: Plan, planned: Planned, outcomes: Mapping[str, Outcome]) -> Picture:
    """Some of the images that a stage leaves, row by row."""
    rows = {name: np.asarray(row[:SHOWN]) for name, row in outcomes[planned.name].result.items()}
    return Picture(f"{planned.name}: what it leaves", "images", rows)


class Drawing(NamedTuple):
    """A picture by name.

    Attributes:
        draw: ``(plan, planned, outcomes) -> Picture``.
        fits: whether a stage has what it shows.
        lacks: why another stage has not, for messages.
    """

    draw: Callable[[Plan, Planned, Mapping[str, Outcome]], Picture]
    fits: Callable[[Planned], bool]
    lacks: str


def _says(key: str, name: str) -> Callable[[Planned], bool]:
    return lambda planned: (planned.settings[key] or {}).get("name") == name


def _evaluates(*names: str) -> Callable[[Planned], bool]:
    return lambda planned: any(
        spec["evaluator"] in names for spec in planned.settings["evaluate"].values()
    )


def _is_net(planned: Planned) -> bool:
    return planned.kind == "net" and planned.net is not None


PICTURES: dict[str, Drawing] = {
    "images": Drawing(images, lambda p: p.kind == "images", "leaves no images"),
    "positions": Drawing(positions, _is_net, "trains no net"),
    "reconstruction": Drawing(
        reconstruction, lambda p: bool((p.settings["view"] or {}).get("mask")), "masks nothing"
    ),
    "reliability": Drawing(reliability, _is_net, "trains no net"),
    "spectrum": Drawing(
        spectrum, _says("distiller", "self_distilled_fit"), "repeats no fit of a kernel"
    ),
    "synthetic": Drawing(synthetic, lambda p: p.kind == "data_set", "makes no data set"),
    "weight": Drawing(
        weight, _says("distiller", "self_distilled_fit"), "repeats no fit of a kernel"
    ),
    "samples": Drawing(samples, _evaluates(*SAMPLED), "measures no samples"),
    "by_steps": Drawing(by_steps, _evaluates(*SAMPLED), "measures no samples"),
}
