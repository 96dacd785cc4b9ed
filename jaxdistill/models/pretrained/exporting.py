"""Nets into folders that other libraries open, and which forms there are for a net."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from jaxdistill import settings
from jaxdistill._computed import computed
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models.layouts import unstack_blocks
from jaxdistill.models.mae import MAE
from jaxdistill.models.masking import patch_grid, sincos_positions
from jaxdistill.models.pretrained import files, own
from jaxdistill.models.pretrained.families import FAMILIES, by_path, entries_of, family_of
from jaxdistill.models.pretrained.family import Family
from jaxdistill.models.vit import ViT

# How a net runs, not what it computes when it is used; no published config says it.
_RUNNING = ("dtype", "param_dtype", "remat", "scan", "taps")
# Entries of a config that are added to; others are replaced.
_ADDED_TO = (own.OURS, "pretrained_cfg")
# What the config of another kind of net lacks, or says otherwise.
_OTHERS = (ValueError, AttributeError, KeyError, TypeError, IndexError)


class Forms(NamedTuple):
    """What a net can be written as.

    Attributes:
        there: names in ``pretrained.FAMILIES``, those of timm first.
        lacking: why it cannot be written as others, by their names.
    """

    there: tuple[str, ...]
    lacking: dict[str, str]


def export(
    folder: Path | str,
    architecture: str,
    module: Any,
    variables: tuple[Any, Any],
    *,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a network as a folder that Transformers or timm opens.

    Args:
        folder: where to; ``config.json`` and ``model.safetensors`` are written.
        architecture: what it is to be there, one of ``pretrained.FAMILIES``; or ``"jaxdistill"``,
            for a net that has no other form: only this library opens that.
        module: the Linen module. One that computes the positions of its patches has them as arrays
            behind :func:`with_positions`.
        variables: its ``(params, state)``.
        about: entries of ``config.json`` besides those that follow from the module.

    Returns:
        The folder.

    Raises:
        ValueError: for an unknown architecture, and for a module that it cannot express: nothing is
            written that would compute something else.
        ImportError: without the extra ``export``.
    """
    family = family_of(architecture)
    module, tree = plain(module, variables)
    config = _config(architecture, family, module, tree)
    flat = by_path(tree)
    tensors: dict[str, np.ndarray] = {}
    for entry in entries_of(family, module, tree):
        parts = entry.form.write(np.asarray(flat[entry.path]))
        tensors |= dict(zip(entry.names, parts, strict=True))
        # Torch counts the batches that statistics were taken of, and wants to find the number.
        counted = entry.path.startswith("state/batch_stats") and entry.path.endswith("/var")
        if counted and architecture != own.OURS:
            (name,) = entry.names
            counter = name.replace("running_var", "num_batches_tracked")
            tensors[counter] = np.zeros((), np.int64)
    kinds = {str(t.dtype) for t in tensors.values() if jnp.issubdtype(t.dtype, jnp.floating)}
    if len(kinds) == 1 and not architecture.startswith("timm:"):
        config["dtype"] = kinds.pop()
    for key, value in (about or {}).items():
        config[key] = {**config.get(key, {}), **value} if key in _ADDED_TO else value
    files.write(folder, config, tensors)
    return Path(folder)


def forms_of(module: Any, variables: tuple[Any, Any]) -> Forms:
    """The published forms of a net: those whose config and tensors say all that it computes.

    Args:
        module: the Linen module.
        variables: its ``(params, state)``; shapes are enough.

    Example:
        >>> from jaxdistill.models import MLP
        >>> module = MLP(widths=(4,), classes=2)
        >>> shapes = jax.eval_shape(from_linen(module).init, jax.random.key(0), jnp.ones((1, 3)))
        >>> forms_of(module, shapes).there
        ()
    """
    module, tree = plain(module, variables)
    there, lacking = [], {}
    for name in sorted(FAMILIES, key=lambda name: not name.startswith("timm:")):
        try:
            _config(name, FAMILIES[name], module, tree)
        except _OTHERS as fault:
            if isinstance(fault, ValueError):
                lacking[name] = str(fault)
            continue
        there.append(name)
    return Forms(tuple(there), lacking)


def with_positions(
    module: Any, variables: tuple[Any, Any], image_shape: tuple[int, ...]
) -> tuple[Any, tuple[Any, Any]]:
    """A vision transformer whose positions are arrays, as they are published, in place of sines and
    cosines that are computed anew for every size of images; any other net as it is.

    Args:
        module: the Linen module.
        variables: its ``(params, state)``.
        image_shape: (H, W, C), the size that the positions are for.

    Returns:
        The module, and its ``(params, state)`` with the arrays; outputs stay what they were.
    """
    if not isinstance(module, (MAE, ViT)) or module.positions != "sincos":
        return module, variables
    params, state = variables
    grid = patch_grid(image_shape[0], image_shape[1], module.patch)
    if isinstance(module, MAE):
        widths = {"encoder": module.width, "decoder": module.decoder_width}
        fixed = {
            half: {"pos_embed": sincos_positions(width, grid, cls_token=True)}
            for half, width in widths.items()
        }
        return module.clone(positions="fixed"), (params, {**state, "constants": fixed})
    # None of the learned tokens in front has a position, and as arrays they are zeros.
    front = (module.class_token + module.distillation_token) * module.front_positions
    places = np.pad(sincos_positions(module.width, grid), ((front, 0), (0, 0)))
    encoder = {**params["encoder"], "pos_embed": places}
    return module.clone(positions="learned"), ({**params, "encoder": encoder}, state)


def plain(module: Any, variables: tuple[Any, Any]) -> tuple[Any, dict[str, Any]]:
    """A module without a loop over its blocks, and its variables as one tree."""
    params, state = variables
    if getattr(module, "scan", False):
        unstacked = (_unstacked(params), _unstacked(state))
        module, params, state = module.clone(scan=False), *unstacked
    return module, {"params": params, "state": state}


def _unstacked(tree: Any) -> Any:
    shapes = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree))
    return jax.eval_shape(unstack_blocks, tree) if shapes else unstack_blocks(tree)


def _config(architecture: str, family: Family, module: Any, tree: Any) -> dict[str, Any]:
    """The config of a module in the form of a family.

    Raises:
        ValueError: if a net made of it would compute something else.
    """
    config = family.config(module, tree)
    entries_of(family, module, tree)
    if architecture == own.OURS:
        return config
    there = family.module(config)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), tree)
    seen = {
        name: jax.ShapeDtypeStruct(shape, kind)
        for name, (shape, kind) in family.inputs(config).items()
    }

    def what(net: Any) -> str | None:
        run = from_linen(net).apply
        try:
            return computed(lambda v, x: run(v["params"], v["state"], x).out, shapes, seen)
        except (ValueError, TypeError, FlaxError):  # arrays of other shapes
            return None

    defaults = {k: p.default for k, p in settings.fields(type(module)).items() if k in _RUNNING}
    module = module.clone(**defaults)
    # Other settings may come to the same: those that are read nowhere, and defaults spelt out.
    if module != there and (type(module) is not type(there) or what(module) != what(there)):
        others = (
            f"{key}={getattr(module, key)!r} in place of {getattr(there, key, None)!r}"
            for key in settings.fields(type(module))
            if key not in _RUNNING and getattr(module, key) != getattr(there, key, None)
        )
        raise ValueError(f"{architecture} cannot say what this net has: {', '.join(others)}")
    return config
