"""Configs changed: single values by their paths, all of it for a run of two steps."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxdistill._errors import unknown

# Where entries bear names of the config's own choice.
_FREE = (["claim", "arms"], ["claim", "contrasts"])


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
        if value is None:
            node.pop(last, None)
        else:
            node[last] = copy.deepcopy(value)
    return config


def smoke(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with every stage cut to two steps. Trainings in its evaluations and waits of its
    schedules are cut as well, and so are the numbers of batches that are measured and of tokens
    that are written."""
    config = copy.deepcopy(dict(config))
    for name in config["recipe"]:
        settings = config["stages"].get(name) or {}
        if settings.get("steps", 0):
            settings["steps"] = 2
            settings.pop("spans", None)
            config["stages"][name] = settings = _cut_schedules(settings)
        for spec in (*(settings.get("evaluate") or {}).values(), settings.get("between")):
            for part in (spec, spec.get("protocol")) if spec else ():
                for key in ("steps", "full_steps", "nets", "batches", "new"):
                    if part and part.get(key):
                        part[key] = min(part[key], 2)
    return config


def _cut_schedules(value: Any) -> Any:
    """Schedules as two steps can hold them."""
    if not isinstance(value, Mapping):
        return value
    found = {key: _cut_schedules(each) for key, each in value.items()}
    if "schedule" in found:
        for key in ("warmup", "begin"):
            if found.get(key):
                found[key] = 1
        if found.get("milestones"):
            found["milestones"] = (1,)
    return found


def plain(value: Any) -> Any:
    """A config as nested dicts, tuples and values."""
    if isinstance(value, (ConfigDict, Mapping)):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(plain(each) for each in value)
    return value


def flattened(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes as ``{"a.b": value}``; in a config, whose keys hold no dots, they are ``"a/b"``."""
    return {key.replace("/", "."): value for key, value in changes.items()}
