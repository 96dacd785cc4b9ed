"""Configs as plain data: what they may hold, what is left to defaults, how they are changed.

Nothing here knows a net or a loss: names are looked up by :mod:`jaxdistill.registry`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from jaxdistill._errors import listed, unknown
from jaxdistill.overrides import override
from jaxdistill.settings import Count, Natural, NonNegative, Scheduled, Share, fault, fields


@dataclasses.dataclass(frozen=True)
class ConfigKeys:
    """What a config may say, with defaults.

    Attributes:
        title: of the report.
        sentence: below it.
        seed: of the run.
        data: the data set, see :func:`jaxdistill.registry.data`; a recipe whose stages take no
            batches has none.
        mesh: axes and sizes, see :func:`jaxdistill.training.sharding.make_mesh`.
        rules: pairs of a regular expression and a partition.
        recipe: the stages that are run, in order.
        stages: what each of them is, see :class:`StageKeys`.
        variants: by the name of another data set what changes for it.
        claim: arms, a metric, contrasts and margins, see :mod:`jaxdistill.claim`.
        tune: a grid for arms of the claim.
        table: metrics whose history is printed.
    """

    recipe: Sequence[str]
    stages: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Any] | None = None
    title: str = ""
    sentence: str = ""
    seed: Natural = 0
    mesh: Mapping[str, int] | None = None
    rules: Sequence[tuple[str, Any]] | None = None
    variants: Mapping[str, Mapping[str, Any]] | None = None
    claim: Mapping[str, Any] | None = None
    tune: Mapping[str, Any] | None = None
    table: Sequence[str] | None = None


@dataclasses.dataclass(frozen=True)
class StageKeys:
    """What a stage may say, with defaults.

    Attributes:
        data: a data set of its own, as ``config.data``; the recipe's by default. ``{"stage":
            name}`` trains on what an earlier stage left, records or a data set, and measures on the
            recipe's own validation and test sets.
        chosen: settings that an earlier choice decides, by their path: ``{"student.widths":
            "search/widths"}``. The recipe is planned with the values in the config.
        student: the net: ``{"net": name, ...}``.
        work: what is done by a stage that trains nothing, see :func:`jaxdistill.registry.work`.
        distiller: another algorithm than from model to model, see
            :func:`jaxdistill.registry.distiller`.
        initial: ``{"stage": name, ...}``, what it starts from, see
            :mod:`jaxdistill.recipe.initial`.
        targets: what it learns from, see :func:`jaxdistill.registry.target`.
        between: work on the host between steps, see :func:`jaxdistill.registry.between`.
        view: what is drawn for both nets, see :func:`jaxdistill.registry.view`.
        objective: ``{term: {"loss": name, ...}}``, see :func:`jaxdistill.registry.match`.
        weights: the stage whose choice holds a factor for each entry of the objective.
        optimizer: see :func:`jaxdistill.registry.transformation`.
        batch_size: records of a batch.
        order: of the records: drawn anew for every epoch, or as they are given.
        steps: how many.
        records: which of the training records, see :func:`jaxdistill.registry.records`.
        seed: added to the run's: another start, another order of the data.
        accumulate: microbatches of a step.
        ema: decay of the student's running average.
        returns: whether the student or its average is the result.
        evaluate: ``{label: {"evaluator": name, "sets": (...), "every": steps, ...}}``.
        spans: ``{name: (first step, last step)}``, parts of the stage over which step metrics are
            averaged, as ``train/<name>/<metric>``.
        log_every: after how many steps mean metrics are written.
        checkpoint_every: after how many steps a checkpoint is written besides those by the clock.
        checkpoint_minutes: after how many minutes one is written; 0 for none.
        keep: how many of the newest checkpoints stay.
        best: ``(metric, "max" or "min")``, by which a best checkpoint is kept.
        select: whether the last or the best state is the result.
        checkpoint: a finished stage's folder or published weights, used instead of running; for
            these nothing else need be said.
        pictures: what the report shows of it, see :mod:`jaxdistill.pictures`.
    """

    data: Mapping[str, Any] | None = None
    chosen: Mapping[str, str] | None = None
    student: Mapping[str, Any] | None = None
    work: Mapping[str, Any] | None = None
    distiller: Mapping[str, Any] | None = None
    initial: Mapping[str, Any] | None = None
    targets: Mapping[str, Any] | None = None
    between: Mapping[str, Any] | None = None
    view: Mapping[str, Any] | None = None
    objective: Mapping[str, Mapping[str, Any] | None] | None = None
    weights: str | None = None
    optimizer: Mapping[str, Any] | None = None
    batch_size: Count = 128
    order: Literal["shuffled", "given"] = "shuffled"
    steps: Natural = 0
    records: Mapping[str, Any] | None = None
    seed: Natural = 0
    accumulate: Count = 1
    ema: Scheduled[Share] | None = None
    returns: Literal["student", "ema"] = "student"
    evaluate: Mapping[str, Mapping[str, Any] | None] | None = None
    spans: Mapping[str, tuple[Natural, Count]] | None = None
    log_every: Count = 50
    checkpoint_every: Natural = 0
    checkpoint_minutes: NonNegative = 5.0
    keep: Count = 2
    best: tuple[str, Literal["max", "min"]] | None = None
    select: Literal["last", "best"] = "last"
    checkpoint: str = ""
    pictures: Sequence[str] = ()


CONFIG_KEYS = tuple(field.name for field in dataclasses.fields(ConfigKeys))
STAGE_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in dataclasses.fields(StageKeys)
}
# What only model_to_model reads, and what a stage that trains nothing reads.
_MODEL_TO_MODEL = ("targets", "objective", "weights", "accumulate", "ema", "returns")
_WORK = ("work", "data", "chosen", "evaluate", "seed", "checkpoint", "pictures")
# What changes how a stage is run but not what comes out.
_NOT_IDENTITY = ("log_every", "checkpoint_every", "checkpoint_minutes", "keep", "pictures")


# What names of stages, which are names of folders too, are made of.
_NAME = re.compile(r"\w[\w.-]*")


def stage_settings(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of every stage of the recipe, in order, with defaults filled in.

    Raises:
        ValueError: listing every unknown stage or key, with the nearest valid one, every value
            outside its domain, and what a stage lacks.
    """
    refuse_faults(config)
    faults = _recipe_faults(config)
    found = {}
    for name in config["recipe"]:
        if name in config["stages"]:
            given = config["stages"][name]
            if wrong := _faults(f"stage {name!r}", StageKeys, given):
                faults += wrong
                continue
            found[name] = _filled(given)
            faults += _stage_faults(name, found[name])
    if faults:
        raise ValueError("\n".join(dict.fromkeys(faults)))
    return found


def refuse_faults(config: Mapping[str, Any]) -> None:
    """Refuses a config whose own keys are not known, or hold what they cannot; of its stages, that
    are mappings, nothing more is asked.

    Raises:
        ValueError: listing every fault.
    """
    if faults := _faults("the config", ConfigKeys, config):
        raise ValueError("\n".join(faults))


def _faults(where: str, kind: type, given: Mapping[str, Any]) -> list[str]:
    own = fields(kind)
    found = [unknown(f"key of {where}", key, own) for key in given if key not in own]
    for key, parameter in own.items():
        if key not in given:
            if parameter.default is parameter.empty:
                found.append(f"{where} needs {key!r}")
        elif given[key] is None and parameter.default is not parameter.empty:
            continue
        elif (wrong := fault(given[key], parameter.annotation)) is not None:
            found.append(f"{key!r} of {where} is {given[key]!r}: it {wrong}")
    return found


def _recipe_faults(config: Mapping[str, Any]) -> list[str]:
    recipe, stages = list(config["recipe"]), config["stages"]
    found = [unknown("stage in the recipe", name, stages) for name in recipe if name not in stages]
    found += [
        f"the stage {name!r} cannot be called so, as a folder bears its name: letters, digits, "
        "'_', '-' and '.' make one"
        for name in recipe
        if not _NAME.fullmatch(name)
    ]
    twice = sorted({name for name in recipe if recipe.count(name) > 1})
    found += [f"the recipe names the stage {name!r} twice" for name in twice]
    if not recipe:
        found.append(f"the recipe names no stage: there are {sorted(stages)}")
    if config.get("data") and "name" not in config["data"]:
        found.append(f"config.data has {listed(sorted(config['data']))}: it needs 'name'")
    return found


def _stage_faults(name: str, settings: Mapping[str, Any]) -> list[str]:
    """What keys of a stage have to do with each other."""
    changed = [key for key, value in settings.items() if value and value != STAGE_DEFAULTS[key]]
    found = _handed_faults(name, settings)
    if settings["work"]:
        return found + [
            f"stage {name!r} trains nothing, it is work: it does not read {key!r}"
            for key in changed
            if key not in _WORK
        ]
    found += [
        f"stage {name!r} needs {key!r}"
        for key in ("student", "objective", "optimizer")
        # Another algorithm says itself what it needs, and what is given is not trained.
        if not settings[key] and not settings["distiller"] and not settings["checkpoint"]
    ]
    if settings["distiller"]:
        found += [
            f"stage {name!r} has an algorithm of its own, {settings['distiller'].get('name')!r}, "
            f"which does not read {key!r}: its settings belong in 'distiller'"
            for key in changed
            if key in _MODEL_TO_MODEL
        ]
    if settings["returns"] == "ema" and settings["ema"] is None:
        found.append(f"stage {name!r} returns its 'ema', and keeps none: give 'ema' a decay")
    for span, (first, last) in (settings["spans"] or {}).items():
        if not first < last <= settings["steps"]:
            found.append(
                f"span {span!r} of stage {name!r} is {(first, last)}: it must go from a step to a "
                f"later one of its {settings['steps']}"
            )
    return found


def _handed_faults(name: str, settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with settings of a stage that earlier stages decide."""
    found, data = [], settings["data"] or {}
    if "stage" in data:
        extra = (key for key in data if key != "stage")
        where = f"key of 'data' of stage {name!r}, which an earlier stage leaves"
        found += [unknown(where, key, ("stage",)) for key in extra]
    elif data and "name" not in data:
        found.append(
            f"'data' of stage {name!r} has {listed(sorted(data))}: it needs 'name', or the "
            "'stage' that leaves it"
        )
    for path, source in (settings["chosen"] or {}).items():
        if "/" not in source:
            found.append(
                f"'chosen' of stage {name!r} says that {path!r} is {source!r}: it must be "
                "'<stage>/<name in its choice>'"
            )
    return found


def with_choices(settings: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a stage with the values that earlier choices decide.

    Raises:
        ValueError: for a path that the settings do not have, and a name that a choice lacks.

    Example:
        >>> settings = {"student": {"hidden": 4}, "chosen": {"student.hidden": "search/width"}}
        >>> with_choices(settings, {"search": {"width": 8}})["student"]
        {'hidden': 8}
    """
    changes = {}
    for path, source in (settings["chosen"] or {}).items():
        stage, name = source.split("/", 1)
        if name not in results[stage]:
            raise ValueError(unknown(f"entry of the choice of {stage!r}", name, results[stage]))
        changes[path] = results[stage][name]
    return override(settings, changes)


def depends_on(settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What the result of a stage depends on, less the stages that it builds on: its hash is a part
    of the stage's identity."""
    # What is left at its default does not count, so that a new key changes no identity.
    own = {
        key: value
        for key, value in settings.items()
        if key not in _NOT_IDENTITY and value != STAGE_DEFAULTS[key]
    }
    return {"settings": own, "data": config.get("data"), "seed": config.get("seed") or 0}


def _filled(settings: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in settings.items() if key in STAGE_DEFAULTS}
    # None stands for the default, where None is not a value of its own.
    filled = STAGE_DEFAULTS | {
        key: value
        for key, value in given.items()
        if value is not None or STAGE_DEFAULTS[key] is None
    }
    for key in ("objective", "evaluate"):
        filled[key] = {
            name: entry for name, entry in (filled[key] or {}).items() if entry is not None
        }
    return filled


def target_stages(settings: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The earlier stages whose results some targets need."""
    return _stages_of(settings or {}, lambda kind: True)


def teachers(settings: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Those of them whose nets are run, which can be measured as the student is."""
    return _stages_of(settings or {}, lambda kind: kind == "live")


def _stages_of(settings: Mapping[str, Any], wanted: Callable[[str], bool]) -> tuple[str, ...]:
    if "members" in settings:
        members = settings["members"].values()
        found = [name for member in members for name in _stages_of(member, wanted)]
        return tuple(dict.fromkeys(found))
    # What is no name is refused by its domain.
    named = isinstance(settings.get("stage"), str) and wanted(settings.get("kind", "live"))
    return (settings["stage"],) if named else ()


def data_stage(settings: Mapping[str, Any]) -> str | None:
    """The earlier stage that leaves what a stage is trained on."""
    return (settings["data"] or {}).get("stage")


def choice_stages(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The earlier stages whose choices decide settings of a stage."""
    sources = (settings["chosen"] or {}).values()
    return tuple(dict.fromkeys(source.split("/", 1)[0] for source in sources))


def frozen_stages(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The earlier stages whose results a stage's own algorithm reads."""
    return tuple((settings["distiller"] or {}).get("frozen") or ())
