"""All architectures that others publish weights of, by their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import traverse_util

from jaxdistill._errors import unknown
from jaxdistill.models.pretrained import (
    convolutional,
    decoders,
    dino,
    gpt2,
    modern,
    own,
    residual,
    texts,
    timm_vit,
    towers,
    vision,
)
from jaxdistill.models.pretrained.family import Config, Family
from jaxdistill.models.pretrained.forms import SAME, Entry
from jaxdistill.net import Net

FAMILIES: dict[str, Family] = {
    **vision.FAMILIES,
    **timm_vit.FAMILIES,
    **dino.FAMILIES,
    **towers.FAMILIES,
    **residual.FAMILIES,
    **convolutional.FAMILIES,
    **texts.FAMILIES,
    **modern.FAMILIES,
    **decoders.FAMILIES,
    **gpt2.FAMILIES,
}

# The families of timm by how the names of their networks begin.
_TIMM = {
    "vit_": "vit",
    "deit_": "vit",
    "resnet": "resnet",
    "convnext": "convnext",
    "mobilenetv3_": "mobilenet",
}


def family_of(architecture: str) -> Family:
    """A family of :data:`FAMILIES`, or that of the nets that nobody else has a form for.

    Raises:
        ValueError: for an unknown one, with the nearest.
    """
    if architecture == own.OURS:
        return own.FAMILY
    if architecture not in FAMILIES:
        raise ValueError(unknown("architecture", architecture, FAMILIES))
    return FAMILIES[architecture]


def architecture_of(config: Config) -> str:
    """The name in ``FAMILIES`` of what a ``config.json`` describes, or ``"jaxdistill"``.

    Raises:
        ValueError: for one that is not there, with the nearest.
    """
    name = config.get("architecture")
    if isinstance(name, str):  # timm's
        for beginning, family in _TIMM.items():
            if name.startswith(beginning):
                return f"timm:{family}"
        known = [f"{beginning}*" for beginning in _TIMM]
        raise ValueError(unknown("architecture of timm", name, known))
    names = config.get("architectures") or ()
    if not names and own.OURS in config:
        return own.OURS
    if not names and "recipe" in config:
        raise ValueError("this is the working directory of a run: its student lies in 'student'")
    if not names:
        raise ValueError("config.json names no architecture: it has no 'architectures'")
    if names[0] == "ViTMAEModel":
        raise ValueError(
            "'ViTMAEModel' is a masked autoencoder without its decoder: take the weights that have "
            "it, of 'ViTMAEForPreTraining'"
        )
    if not isinstance(names, list) or names[0] not in FAMILIES:
        raise ValueError(unknown("architecture", names[0], FAMILIES))
    return names[0]


def by_path(tree: Any) -> dict[str, Any]:
    """The arrays of nested dicts by their paths, with slashes."""
    return traverse_util.flatten_dict(tree, sep="/")


def entries_of(family: Family, module: Any, tree: Any) -> list[Entry]:
    """The entries of a family, which must be those of the net."""
    if family.entries is None:
        return [Entry(path, (path,), SAME) for path in by_path(tree)]
    entries = family.entries(module)
    here, there = set(by_path(tree)), {entry.path for entry in entries}
    if here != there:
        raise ValueError(f"the net has other arrays than are published: {sorted(here ^ there)}")
    return entries


def variables_of(net: Net, seed: int) -> Callable[[Any], dict[str, Any]]:
    """The function from inputs to what a net starts with, as ``{"params": ..., "state": ...}``."""

    def variables(inputs: Any) -> dict[str, Any]:
        params, state = net.init(jax.random.key(seed), inputs)
        return {"params": params, "state": state}

    return variables
