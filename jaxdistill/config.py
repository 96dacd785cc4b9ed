"""Configs as plain data: what they may hold, what is left to defaults, how they are changed.

Nothing here knows a net or a loss: names are looked up by :mod:`jaxdistill.registry`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxdistill._errors import unknown
from jaxdistill.training.checkpoint import digest

CONFIG_KEYS = (
    "title", "sentence", "seed", "data", "mesh", "rules",
    "recipe", "stages", "variants", "claim", "tune", "table",
)  # fmt: skip
STAGE_DEFAULTS: dict[str, Any] = {
    "data": None,  # a data set of its own, as config.data; the recipe's by default
    "student": None,  # the net: {"net": name, ...}
    "distiller": None,  # another algorithm than from model to model, see registry.distiller
    "initial": None,  # {"stage": name, ...}: what it starts from, see recipe.initial
    "targets": None,  # what it learns from, see registry.target
    "between": None,  # work on the host between steps, see registry.between
    "view": None,  # what is drawn for both nets, see registry.view
    "objective": None,  # {term: {"loss": name, ...}}, see registry.match
    "optimizer": None,  # see registry.transformation
    "batch_size": 128,
    "steps": 0,
    "records": None,  # which of the training records, see registry.records
    "seed": 0,  # added to the run's: another start, another order of the data
    "guidance": None,  # the weight of the ground truth, estimated, see recipe.guidance
    "transfer": None,  # weights of the objective's entries by task similarity, see recipe.transfer
    "accumulate": 1,
    "ema": None,
    "returns": "student",
    "evaluate": None,  # {label: {"evaluator": name, "sets": (...), "every": steps, ...}}
    "log_every": 50,
    "checkpoint_every": 0,
    "keep": 2,
    "best": None,  # (metric, "max" or "min")
    "select": "last",
    "checkpoint": "",  # a finished stage's folder or published weights, taken in place of running
    "pictures": (),  # what the report shows of it, see jaxdistill.pictures
}
# What only model_to_model reads.
_MODEL_TO_MODEL = (
    "targets", "objective", "accumulate", "ema", "returns", "guidance", "transfer",
)  # fmt: skip
INITIAL_KEYS = ("stage", "parts", "layers", "units", "records", "objective", "upcycle")
# What changes how a stage is run but not what comes out.
_NOT_IDENTITY = ("log_every", "checkpoint_every", "keep", "pictures")


# Where entries bear names of the config's own choice.
_FREE = (["claim", "arms"], ["claim", "contrasts"])


def stage_settings(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of every stage of the recipe, in order, with defaults filled in.

    Raises:
        ValueError: for an unknown stage or key, with the nearest valid one, and for what every
            stage must have.
    """
    for name in config["recipe"]:
        if name not in config["stages"]:
            raise ValueError(unknown("stage in the recipe", name, config["stages"]))
    found = {name: _filled(name, config["stages"][name]) for name in config["recipe"]}
    for name, settings in found.items():
        for key in ("student", "objective", "optimizer"):
            # What another algorithm needs besides a net it says itself.
            if not settings[key] and (key == "student" or not settings["distiller"]):
                raise ValueError(f"stage {name!r} needs {key!r}")
        for key in _MODEL_TO_MODEL if settings["distiller"] else ():
            if settings[key] and settings[key] != STAGE_DEFAULTS[key]:
                raise ValueError(
                    f"stage {name!r} has an algorithm of its own, "
                    f"{settings['distiller'].get('name')!r}, which does not read {key!r}: what it "
                    "needs stands in 'distiller'"
                )
        if "name" not in config["data"]:
            raise ValueError("config.data needs 'name'")
    return found


def identities(config: Mapping[str, Any]) -> dict[str, str]:
    """For every stage of the recipe a hash of all that its result depends on."""
    found: dict[str, str] = {}
    for name, settings in stage_settings(config).items():
        needs = needs_of(name, settings, list(found))
        found[name] = digest(
            {
                # What is left at its default does not count, so that a new key changes no identity.
                "settings": {
                    k: v
                    for k, v in settings.items()
                    if k not in _NOT_IDENTITY and v != STAGE_DEFAULTS[k]
                },
                "data": config["data"],
                "seed": config["seed"],
                "needs": {other: found[other] for other in needs},
            }
        )
    return found


def override(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config with some entries changed, named by dotted paths; None takes an entry out.

    Raises:
        ValueError: for a path that the config does not have, with the nearest key.

    Example:
        >>> override({"stages": {"distil": {"steps": 5}}}, {"stages.distil.steps": 3})
        {'stages': {'distil': {'steps': 3}}}
    """
    config = copy.deepcopy(dict(config))
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = config
        for key in parents:
            if not isinstance(node, dict) or key not in node:
                raise ValueError(
                    unknown(
                        f"key of the config in {path!r}",
                        key,
                        node if isinstance(node, dict) else (),
                    )
                )
            node = node[key]
        # What a stage may hold is checked when the recipe is planned.
        if last not in node and parents[:1] != ["stages"] and parents not in _FREE:
            raise ValueError(unknown(f"key of the config in {path!r}", last, node))
        node[last] = copy.deepcopy(value)
    return config


def smoke(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with every stage cut to two steps, and so every training in its evaluations; what
    says of how many batches it measures, or how many tokens it writes, is cut to two of them."""
    config = copy.deepcopy(dict(config))
    for name in config["recipe"]:
        settings = config["stages"][name]
        if settings.get("steps", 0):
            settings["steps"] = 2
        for spec in (*(settings.get("evaluate") or {}).values(), settings.get("between")):
            for part in (spec, spec.get("protocol")) if spec else ():
                for key in ("steps", "full_steps", "nets", "batches", "new"):
                    if part and part.get(key):
                        part[key] = min(part[key], 2)
    return config


def _filled(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    for key in settings:
        if key not in STAGE_DEFAULTS:
            raise ValueError(unknown(f"key of stage {name!r}", key, STAGE_DEFAULTS))
    filled = {**STAGE_DEFAULTS, **settings}
    for key in ("objective", "evaluate"):
        filled[key] = {
            name: entry for name, entry in (filled[key] or {}).items() if entry is not None
        }
    return filled


def needs_of(name: str, settings: Mapping[str, Any], earlier: Sequence[str]) -> tuple[str, ...]:
    """The earlier stages whose results a stage reads: its teachers, what else its algorithm holds
    frozen, what its weights are estimated from, and what it starts from.

    Raises:
        ValueError: for one that does not come before it.
    """
    needs = [*target_stages(settings["targets"]), *frozen_stages(settings)]
    guidance = settings["guidance"] or {}
    needs += [guidance[key] for key in ("first", "alone") if guidance.get(key)]
    if settings["initial"]:
        for key in settings["initial"]:
            if key not in INITIAL_KEYS:
                raise ValueError(unknown(f"key of 'initial' in stage {name!r}", key, INITIAL_KEYS))
        needs.append(settings["initial"].get("stage"))
    for other in needs:
        if other not in earlier:
            raise ValueError(
                f"stage {name!r} builds on a stage that does not come before it: "
                + unknown("stage", other, earlier)
            )
    return tuple(dict.fromkeys(needs))


def target_stages(settings: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The earlier stages whose results some targets need."""
    if not settings:
        return ()
    if "members" in settings:
        found = [name for member in settings["members"].values() for name in target_stages(member)]
        return tuple(dict.fromkeys(found))
    return (
        (settings["stage"],)
        if settings.get("kind", "live") == "live" and "stage" in settings
        else ()
    )


def frozen_stages(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The earlier stages whose results a stage's own algorithm reads."""
    return tuple((settings["distiller"] or {}).get("frozen") or ())


def plain(value: Any) -> Any:
    """A config as nested dicts, tuples and values."""
    if isinstance(value, (ConfigDict, Mapping)):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(plain(each) for each in value)
    return value


def vary(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Applies what ``config.variants[<data set>]`` changes, but for what the command line set.

    A config's sizes are chosen for its default data; its variants say what becomes of them for
    other data sets.
    """
    variants = dict(config).get("variants") or {}
    changes = variants.get(config["data"]["name"]) or {}
    return override(config, {k: v for k, v in flattened(changes).items() if k not in given})


def flattened(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes as ``{"a.b": value}``; in a config, whose keys hold no dots, they are ``"a/b"``."""
    return {key.replace("/", "."): value for key, value in changes.items()}
