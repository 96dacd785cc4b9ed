"""The student that a recipe leaves, as a folder for those who use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdistill import models, registry, students
from jaxdistill.config import frozen_stages, target_stages
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.recipe.planned import Plan, Planned
from jaxdistill.registry import samplers
from jaxdistill.students.seeing import Arrays, Images, Seeing, Texts
from jaxdistill.training.costs import Costs, costs
from jaxdistill.training.loop import Outcome
from jaxdistill.training.meaning import meaning, measured_on

# Records that show in which range pixels lie.
_LOOKED_AT = 64
# Algorithms whose net makes samples of noise.
# Their nets make samples.
_SAMPLERS = frozenset(samplers.DISTILLERS)
# What of all that is measured a card shows, at most so many lines.
_LINES = 10
_NOT_SHOWN = ("teacher_", "agreement", "kl", "loyalty", "entropy", "errors")


CostsOf = Callable[[str], Costs | None]
"""What the net of a stage costs, see :func:`costs_of`."""


def costs_of(plan: Plan, outcomes: Mapping[str, Outcome]) -> CostsOf:
    """What the nets of a recipe cost, by the names of their stages.

    A net is measured when it is first asked for, and those that are alike once: times differ from
    call to call, so that a report and a card must not measure anew. Of a stage that leaves no net,
    or where nothing says what its net sees, it is None.
    """
    known: dict[str, Costs | None] = {}

    def of(name: str) -> Costs | None:
        planned = plan.stage(name)
        if planned.kind != "net" or planned.net is None or "train" not in planned.data:
            return None
        told = (planned.settings[key] for key in ("student", "view", "checkpoint"))
        key = json.dumps([*told, planned.shares], default=str)
        if key not in known:
            known[key] = costs(planned.net, outcomes[name].result, inputs_of(planned))
        return known[key]

    return of


def write_student(
    root: Path | str,
    plan: Plan,
    outcomes: Mapping[str, Outcome],
    command: str = "",
    measured: CostsOf | None = None,
) -> list[Path]:
    """Writes the last stage's student into ``root/student``, see :func:`jaxdistill.students.save`.

    Args:
        root: the working directory.
        plan: the recipe.
        outcomes: what its stages left.
        command: what made it.
        measured: what the nets cost, where that is known already.

    Returns:
        The folder; nothing is written for a result of another kind.
    """
    last = plan.stages[-1]
    if last.kind != "net" or last.net is None or "train" not in last.data:
        return []
    seen = inputs_of(last)
    read, kind, names = _output(last, outcomes[last.name].result, seen)
    taught = _teachers(plan)
    about = students.About(
        kind=kind,
        read=read,
        class_names=names,
        seeing=Arrays() if kind == "samples" else _seeing(last),
        title=plan.config.get("title") or last.name,
        sentence=plan.config.get("sentence", ""),
        results=_results(last, taught, outcomes),
        command=command,
    )
    teachers = {
        name: (plan.stage(name).net, outcomes[name].result, inputs_of(plan.stage(name)))
        for name in taught
    }
    result, net = outcomes[last.name].result, last.net
    if last.shares and last.module is not None:
        result, net = last.plain(result), from_linen(last.module)
    measured = measured or costs_of(plan, outcomes)
    known = {"student": measured(last.name), **{name: measured(name) for name in taught}}
    how = {"module": last.module, "teachers": teachers, "measured": known}
    return [students.save(Path(root) / "student", net, result, seen, about, **how)]


def inputs_of(planned: Planned) -> Any:
    """What a net sees of a record: its tokens, its image as a stage's view gives it, or the entries
    that the data name."""
    records = planned.data["train"].gather(np.arange(1))
    if "vocabulary" in planned.info:
        if isinstance(planned.module, models.Decoder):
            return records["tokens"]
        return {name: records[name] for name in ("tokens", "mask", "types") if name in records}
    view = registry.view({"augment": (planned.settings["view"] or {}).get("augment")}, planned.info)
    return jax.device_get(view(records, jax.random.key(0))["student"])


def _seeing(planned: Planned) -> Seeing:
    """How files, arrays and texts become what the net sees."""
    info, records = planned.info, planned.data["train"].gather(np.arange(1))
    if "vocabulary" in info:
        if "encoding" not in info:
            return Arrays(", as the tokenizer of its texts is not known")
        form = "whole" if "mask" in records else "beginning"
        return Texts(info["length"], form, "types" in records, info["encoding"])
    if "inputs" in info or np.ndim(inputs_of(planned)) != 4:
        return Arrays()
    return _images(planned)


def _images(planned: Planned) -> Seeing:
    source, info = planned.data["train"], planned.info
    shown = inputs_of(planned)
    stored, size = source.gather(np.arange(1))["image"].shape[1:3], shown.shape[1:3]
    mean, std = _normalised(planned)
    whitening = info.get("whitening")
    if whitening is not None:
        if whitening.kind != "channels" or mean is not None:
            return Arrays(": its training images were whitened, and so must these be")
        mean, std = whitening.channel_mean.tolist(), whitening.channel_scale.tolist()
    else:
        pixels = source.gather(np.arange(min(_LOOKED_AT, len(source))))["image"]
        if pixels.dtype != np.uint8 and (pixels.min() < 0 or pixels.max() > 1):
            return Arrays(": its training images do not lie in [0, 1], and so are given as arrays")
    side = stored[0] if stored != size and stored[0] == stored[1] else None
    pair = (None, None) if mean is None or std is None else (tuple(mean), tuple(std))
    cut = side is not None and any(step.get("name") == "centre_crop" for step in _steps(planned))
    read = {key: info[key] for key in ("fit", "resample") if key in info}
    return Images((int(size[0]), int(size[1])), int(shown.shape[3]), *pair, side, cut, **read)


def _normalised(planned: Planned) -> tuple[Any, Any]:
    """Mean and deviation by which the net's images are normalised where it is evaluated, or else
    where it is trained."""
    for step in _steps(planned):
        if step.get("name") == "normalise":
            return step["mean"], step["std"]
    return None, None


def _steps(planned: Planned) -> list[Mapping[str, Any]]:
    """What is done to images where the net is evaluated, and then where it is trained."""
    views = [spec.get("augment") for spec in planned.settings["evaluate"].values()]
    views.append((planned.settings["view"] or {}).get("augment"))
    return [step for steps in views for step in steps or ()]


def _output(planned: Planned, result: Any, seen: Any) -> tuple[str, students.Kind, tuple[str, ...]]:
    """Where the output is read, what it is, and what its columns are called."""
    settings, info = planned.settings, planned.info
    net: Any = planned.net
    module = planned.module
    out = jax.eval_shape(lambda v, x: net.apply(*v, x).out, result, seen)
    if (settings["distiller"] or {}).get("name") in _SAMPLERS:
        return "out", "samples", ()
    if isinstance(module, models.Decoder):
        return "out", "next", ()
    if isinstance(out, Mapping):
        return f"out/{'tokens' if 'tokens' in out else next(iter(out))}", "features", ()
    if getattr(module, "head", None) == "masked":
        return f"block_{module.depth - 1}", "features", ()
    if len(out.shape) != 2:
        return "out", "features", ()
    measured = {spec.get("evaluator") for spec in settings["evaluate"].values()}
    classes, width = info.get("classes"), out.shape[1]
    names = tuple(map(str, info.get("class_names") or range(width)))
    if classes == width and "squared_error" not in measured:
        return "out", "classes", names
    label = planned.data["train"].gather(np.arange(1)).get("label")
    if label is not None and (label.dtype.kind == "f" or classes == width):
        columns = ("score",) if width == 1 else tuple(f"score {i}" for i in range(width))
        return "out", "scores", names if classes == width else columns
    return "out", "features", ()


def _teachers(plan: Plan) -> list[str]:
    """The stages whose nets the last student learnt from, or the student that it started from."""
    known = {planned.name: planned for planned in plan.stages}
    place = plan.stages[-1]
    while True:
        settings = place.settings
        names = [*target_stages(settings["targets"]), *frozen_stages(settings)]
        said = (settings["distiller"] or {}).get("teacher") or {}
        names += [said["stage"]] if isinstance(said, Mapping) and said.get("stage") else []
        # What leaves a path of nets, or pairs, is no net that can be run.
        found = [n for n in dict.fromkeys(names) if n in known and known[n].kind == "net"]
        if found or not settings["initial"]:
            return [name for name in found if "train" in known[name].data]
        place = known[settings["initial"]["stage"]]


def arrowed(metric: str) -> str:
    """A metric in words, with an arrow in the direction of the better values.

    Example:
        >>> arrowed("test/accuracy")
        'accuracy, test ↑'
    """
    arrow = {"higher": " ↑", "lower": " ↓"}.get(meaning(metric).better, "")
    return f"{measured_on(metric)}{arrow}"


def _results(
    last: Planned, teachers: list[str], outcomes: Mapping[str, Outcome]
) -> dict[str, dict[str, float]]:
    """What was measured of the student, on the test set where it was, beside its teachers."""
    values = outcomes[last.name].values
    found: dict[str, dict[str, float]] = {}
    for metric, value in values.items():
        part, _, name = metric.partition("/")
        tested = f"test/{name}" in values and part != "test"
        if part not in ("test", "validation") or tested or name.startswith(_NOT_SHOWN):
            continue
        row = {"student": float(value)}
        for teacher in teachers:
            theirs = values.get(f"{part}/teacher_{name}") if len(teachers) == 1 else None
            theirs = outcomes[teacher].values.get(metric, theirs)
            theirs = values.get(f"{teacher}:{metric}", theirs)
            if theirs is not None:
                row[teacher] = float(theirs)
        found[arrowed(metric)] = row
    return dict(list(found.items())[:_LINES])
