"""What is known of an architecture: its net, its tensors' names, its config."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from jaxdistill._errors import unknown
from jaxdistill.models.blocks import Activation
from jaxdistill.models.pretrained.forms import Entry

Config = Mapping[str, Any]


class Family(NamedTuple):
    """An architecture that others publish weights of.

    Attributes:
        module: ``config -> module``.
        entries: ``module -> entries``, every array of the net and the tensors it is published as;
            None where each bears its own path.
        inputs: ``config -> shapes``, ``{name: (shape, dtype)}`` of what the net is initialised on.
        config: ``(module, variables) -> config`` for a folder that is exported; variables are
            ``{"params": ..., "state": ...}``.
        ignored: regular expressions of tensors that carry nothing a net would learn.
        head: beginnings of the paths of the arrays that depend on the classes.
        sized: paths of the arrays that depend on the size of the images, positions of patches.
        worded: paths of the arrays that depend on the vocabulary.
        renamed: pairs of a regular expression and what to put in its place, for names of tensors
            that other versions write.
    """

    module: Callable[[Config], nn.Module]
    entries: Callable[[Any], list[Entry]] | None
    inputs: Callable[[Config], dict[str, tuple[tuple[int, ...], str]]]
    config: Callable[[Any, Any], dict[str, Any]]
    ignored: tuple[str, ...] = ()
    head: tuple[str, ...] = ("params/head", "params/head_distilled")
    sized: tuple[str, ...] = ()
    worded: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()


# What Transformers and timm call the activations of models.blocks.ACTIVATIONS.
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
}


def activation(config: Config, key: str = "hidden_act") -> Activation:
    """The activation of a config under our name.

    Raises:
        ValueError: for one that is not there.
    """
    name = config.get(key, "gelu")
    if name not in _ACTIVATIONS:
        raise ValueError(unknown(key, name, _ACTIVATIONS))
    return _ACTIVATIONS[name]


def published(name: str) -> str:
    """The activation under the name that Transformers has for it."""
    return {"gelu_tanh": "gelu_pytorch_tanh"}.get(name, name)


def fixed(config: Config, **expected: Any) -> None:
    """Refuses a config whose net would be another than the one that is here.

    Raises:
        ValueError: naming the key, its value, and the one that is possible.
    """
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise ValueError(
                f"config.json has {key}={config[key]!r}, and only {value!r} is implemented"
            )


def classes_of(config: Config) -> int:
    """How many outputs the head has."""
    if "num_labels" in config:
        return int(config["num_labels"])
    return len(config["id2label"]) if "id2label" in config else 2


def labels(classes: int) -> dict[str, Any]:
    """The part of a config that says how many classes there are."""
    names = {str(i): f"LABEL_{i}" for i in range(classes)}
    return {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}}


def timm_name(config: Config, pattern: re.Pattern[str], known: str) -> re.Match[str]:
    """What a pattern finds in the name of a network of timm; its weights' name is left away.

    Raises:
        ValueError: for a name that it does not fit, with the ``known`` ones.
    """
    name = config["architecture"].split(".")[0]
    match = pattern.fullmatch(name)
    if match is None:
        raise ValueError(f"timm's {name!r} is not implemented: {known}")
    return match


def timm_arguments(config: Config, **known: Any) -> dict[str, Any]:
    """What timm makes a network with: the defaults of its name, then what its config says.

    Besides ``known`` there are ``num_classes``, ``global_pool`` and ``in_chans`` always.

    Raises:
        ValueError: for an argument of another name that is not None.
    """
    found = {"num_classes": 1000, "in_chans": 3, **known}
    said = {key: config[key] for key in ("num_classes", "global_pool") if key in config}
    given = {**said, **(config.get("model_args") or {})}
    for key, value in given.items():
        if key in found:
            found[key] = value
        elif value is not None:
            raise ValueError(
                f"config.json has model_args {key}={value!r}, and of those only "
                f"{', '.join(found)} are implemented"
            )
    return found
