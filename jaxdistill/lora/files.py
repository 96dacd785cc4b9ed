"""Adapters in the files of peft and diffusers, for nets whose published names are known."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxdistill._errors import listed, unknown
from jaxdistill.lora import trees
from jaxdistill.models.layouts import stack_blocks, unstack_blocks
from jaxdistill.models.pretrained.exporting import plain
from jaxdistill.models.pretrained.families import by_path, entries_of, family_of
from jaxdistill.models.pretrained.files import read_file, write_beside
from jaxdistill.models.pretrained.forms import CONVOLUTION, LINEAR, SAME, Entry, Form

Style = Literal["peft", "diffusers"]
"""Whose files adapters are written as."""
STYLES: tuple[Style, ...] = ("peft", "diffusers")
"""All of them."""
CONFIG = "adapter_config.json"
"""The note in which peft says what its adapters are."""
# The tensors of each style, and the note beside them.
_FILES = {
    "peft": ("adapter_model.safetensors", CONFIG),
    "diffusers": ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.json"),
}
# What peft writes in front of all names.
_ROOT = "base_model.model"
# What Transformers 5 calls layers of some networks; their published weights keep the older names.
_ATTENTION = (
    (r"\.attention\.attention\.(q|k|v)(uery|ey|alue)$", r".attention.\1_proj"),
    (r"\.attention\.output\.dense$", ".attention.o_proj"),
)
_BLOCKS = (
    *_ATTENTION,
    (r"\.intermediate\.dense$", ".mlp.fc1"),
    (r"\.output\.dense$", ".mlp.fc2"),
    (r"(^|\.)encoder\.layer\.(\d+)", r"\1layers.\2"),
)
_RENAMED = {"ViT": _BLOCKS, "DeiT": _BLOCKS, "Dinov2": _ATTENTION}
# What peft can do besides, and what it says where it does not.
_PLAIN = {
    "peft_type": "LORA",
    "use_dora": False,
    "lora_bias": False,
    "bias": "none",
    "layer_replication": None,
    "modules_to_save": None,
}


class Published(NamedTuple):
    """A net and what it is called elsewhere.

    Attributes:
        module: the Linen module.
        variables: its ``(params, state)``; shapes are enough.
        architecture: one of ``models.pretrained.FAMILIES``; or ``"jaxdistill"``, for a net that has
            no other form, whose names are its paths.
    """

    module: Any
    variables: tuple[Any, Any]
    architecture: str


def save_adapters(
    folder: Path | str,
    adapters: Any,
    scale: float,
    net: Published,
    *,
    style: Style = "peft",
    prefix: str = "transformer",
    base: str = "",
    published_names: bool = False,
) -> Path:
    """Writes adapters as ``peft`` or ``diffusers`` read them.

    A layer that is one here and several there (fused queries, keys and values) gives each of these
    its own share of ``up``, and all the same ``down``: the product is the same.

    Args:
        folder: where to.
        adapters: see :func:`jaxdistill.lora.start`.
        scale: what their product is multiplied by.
        net: which net they are of.
        style: ``"peft"``: ``adapter_model.safetensors`` and ``adapter_config.json``;
            ``"diffusers"``: ``pytorch_lora_weights.safetensors``, with the scale in ``up``.
        prefix: of all names for diffusers, the part of a pipeline, such as ``"unet"`` or
            ``"text_encoder"``.
        base: the name of the published net, for peft to find it.
        published_names: whether all layers are called as in the published weights. Transformers 5
            calls those of ViT, DeiT, MAE and DINOv2 otherwise, and so do its adapters.

    Returns:
        The folder.

    Raises:
        ValueError: for an unknown architecture or style, a net that has not this form, adapters of
            others, and a kernel that has no layer of its own there.
        ImportError: without the extra ``export``.
    """
    if style not in _FILES:
        raise ValueError(unknown("style of adapters", style, _FILES))
    trees.check_fit(net.variables[0], adapters)
    entries = {entry.path: entry for entry in _entries(net)}
    scanned = getattr(net.module, "scan", False)
    own = jax.device_get(unstack_blocks(adapters) if scanned else adapters)
    root = _ROOT if style == "peft" else prefix
    tensors: dict[str, np.ndarray] = {}
    ranks: dict[str, int] = {}
    for path, pair in trees.pairs(own).items():
        up = pair["up"] if style == "peft" else pair["up"] * np.asarray(scale, pair["up"].dtype)
        named = _named(entries["/".join(("params", *path))], net.architecture)
        if not named:
            raise ValueError(
                f"{'/'.join(path)} is no weight of a layer in {net.architecture}, so that no file "
                "of adapters can hold its own"
            )
        for name, part in zip(named, _written(named, pair["down"], up), strict=True):
            layer = name.layers[0 if published_names else -1]
            tensors |= dict(zip(name.tensors(root, layer), part, strict=True))
            ranks[layer] = pair["down"].shape[-1]
    folder = Path(folder)
    file, note = (folder / each for each in _FILES[style])
    write_beside(note, _note(ranks, scale if style == "peft" else 1.0, base, net), file, tensors)
    return folder


def load_adapters(
    folder: Path | str, net: Published, *, prefix: str = "transformer"
) -> dict[str, Any]:
    """Reads adapters that ``peft`` or ``diffusers`` has written, as adapters of scale 1.

    Layers that are several there and one here are put together: where all have the same ``down``,
    as :func:`save_adapters` writes it, at their rank, otherwise at the sum of their ranks.

    Args:
        folder: with a file of either style.
        net: for which net.
        prefix: as for :func:`save_adapters`.

    Raises:
        FileNotFoundError: for a folder without such a file.
        ValueError: for adapters of another kind than low-rank pairs, tensors that belong to no
            layer of the net, and pairs of other shapes.
        ImportError: without the extra ``export``.
    """
    folder = Path(folder)
    there = [style for style, (file, _) in _FILES.items() if (folder / file).is_file()]
    if not there:
        files = " nor ".join(file for file, _ in _FILES.values())
        raise FileNotFoundError(f"{folder} holds no adapters: neither {files}")
    style = there[0]
    path = folder / _FILES[style][0]
    tensors = read_file(path)
    said = _said(folder / CONFIG) if style == "peft" else {}
    root = _ROOT if style == "peft" else prefix
    shapes = by_path({"params": plain(net.module, net.variables)[1]["params"]})
    found: dict[trees.Path, dict[str, np.ndarray]] = {}
    for entry in _entries(net):
        named = _named(entry, net.architecture) if entry.path in shapes else []
        parts = [_pair_of(tensors, name, root, said) for name in named]
        if any(part is not None for part in parts):
            own = tuple(entry.path.split("/")[1:])
            found[own] = _read(named, parts, shapes[entry.path].shape)
    unread = sorted(tensors)
    if unread:
        raise ValueError(
            f"{path} holds {listed(unread, 3)}, which belong to no layer of a {net.architecture}"
        )
    tree = jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(found))
    tree = stack_blocks(tree) if getattr(net.module, "scan", False) else tree
    trees.check_fit(net.variables[0], tree)
    return tree


class _Name(NamedTuple):
    """A layer as it is published.

    Attributes:
        layers: what it is called: as published first, and as by Transformers 5 last.
        suffixes: of its two tensors.
        form: of its weight.
        whole: of the weights of all layers that are one here.
    """

    layers: tuple[str, ...]
    suffixes: tuple[str, str]
    form: Form
    whole: Form

    def tensors(self, root: str, layer: str) -> tuple[str, str]:
        """The names of its two tensors under one of its own."""
        below, above = self.suffixes
        return f"{root}.{layer}.{below}", f"{root}.{layer}.{above}"


def _entries(net: Published) -> list[Entry]:
    """All kernels of a net and where they are published."""
    module, tree = plain(net.module, net.variables)
    family = family_of(net.architecture)
    entries = entries_of(family, module, {name: tree[name] for name in ("params", "state")})
    return [entry for entry in entries if entry.path.startswith("params/")]


def _named(entry: Entry, architecture: str) -> list[_Name]:
    """The layers that a kernel is published as; none for what is no layer's weight there."""
    embedding = entry.path.endswith("/embedding")
    kind, weight = ("lora_embedding", "") if embedding else ("lora", ".weight")
    suffixes = f"{kind}_A{weight}", f"{kind}_B{weight}"
    others = next((own for start, own in _RENAMED.items() if architecture.startswith(start)), ())
    ours = entry.names == (entry.path,)
    names = [_path_of(entry)] if ours else entry.names
    form = entry.form if len(entry.names) == 1 and entry.form is not SAME else LINEAR
    found = []
    for name in names:
        layer, _, weight = name.rpartition(".")
        if entry.path.endswith("/bias") or weight != "weight":
            return []
        now = layer
        for pattern, other in others:
            now = re.sub(pattern, other, now)
        found.append(_Name((layer, now), suffixes, form, entry.form))
    return found


def _path_of(entry: Entry) -> str:
    """What a weight is called that has no published name: its path, or that of its layer."""
    return entry.path.removeprefix("params/").replace("/", ".").removesuffix(".kernel") + ".weight"


def _written(named: Sequence[_Name], down: Any, up: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The two tensors of every layer that one kernel is published as."""
    ups = named[0].whole.write(up) if len(named) > 1 else [up.T]
    for name, part in zip(named, ups, strict=True):
        (first,) = _form(name, down.ndim).write(down)
        yield first, part.reshape(*part.shape, *[1] * (first.ndim - 2))


def _form(name: _Name, axes: int) -> Form:
    return CONVOLUTION if name.form is LINEAR and axes == 4 else name.form


def _pair_of(
    tensors: dict[str, np.ndarray], name: _Name, root: str, said: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray] | None:
    """What a file holds of a layer, taken out of it, with its scale in the second."""
    layer = next((own for own in name.layers if name.tensors(root, own)[0] in tensors), None)
    if layer is None:
        return None
    both = name.tensors(root, layer)
    if both[1] not in tensors:
        raise ValueError(f"adapters hold {both[0]!r} without {both[1]!r}")
    down, up = (np.asarray(tensors.pop(tensor)) for tensor in both)
    rank = down.shape[0]
    own = (said.get("alpha_pattern") or {}).items()
    others = (each for key, each in own if re.fullmatch(rf"(.*\.)?({key})", layer))
    alpha = next(others, said.get("lora_alpha", rank))
    given = tensors.pop(f"{root}.{layer}.alpha", None)
    alpha = alpha if given is None else float(given)
    scale = alpha / (rank**0.5 if said.get("use_rslora") else rank)
    return down, up * np.asarray(scale, up.dtype)


def _read(
    named: Sequence[_Name], parts: Sequence[tuple[np.ndarray, np.ndarray] | None], shape: Any
) -> dict[str, np.ndarray]:
    """The pair of a kernel from those of the layers that it is published as."""
    there = [part for part in parts if part is not None]
    axes = len(shape)
    downs = [_form(named[0], axes).read([down]) for down, _ in there]
    ups = [up.reshape(up.shape[:2]).T for _, up in there]
    if len(named) == 1:
        return {"down": downs[0], "up": ups[0]}
    widths = [len(part) for part in named[0].whole.write(np.zeros(shape, np.int8))]
    starts = [0, *np.cumsum(widths)]
    alike = all(np.array_equal(downs[0], down) for down in downs)
    ranks = [0, *np.cumsum([0 if alike else down.shape[-1] for down in downs])]
    whole = np.zeros((downs[0].shape[-1] if alike else ranks[-1], sum(widths)), ups[0].dtype)
    places = [place for place, part in enumerate(parts) if part is not None]
    for place, up, top in zip(places, ups, ranks[: len(ups)], strict=True):
        whole[top : top + len(up), starts[place] : starts[place + 1]] = up
    return {"down": downs[0] if alike else np.concatenate(downs, -1), "up": whole}


def _note(ranks: Mapping[str, int], scale: float, base: str, net: Published) -> dict[str, Any]:
    """What peft wants to be told; diffusers reads the tensors alone."""
    (rank, _), *_ = Counter(ranks.values()).most_common(1)
    others = {name: own for name, own in ranks.items() if own != rank}
    return {
        **_PLAIN,
        "task_type": None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": scale * rank,
        "rank_pattern": others,
        "alpha_pattern": {name: scale * own for name, own in others.items()},
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "use_rslora": False,
        # Of GPT-2 alone, kernels lie there as they lie here.
        "fan_in_fan_out": net.architecture.startswith("GPT2"),
        "inference_mode": True,
    }


def _said(path: Path) -> dict[str, Any]:
    """What peft says of its adapters.

    Raises:
        FileNotFoundError: where it says nothing.
        ValueError: for adapters that are more than low-rank pairs.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: it says the scale of the adapters")
    try:
        said = json.loads(path.read_text())
    except ValueError as fault:
        raise ValueError(f"{path} is no JSON: {fault}") from fault
    for key, value in _PLAIN.items():
        if said.get(key) not in (value, None):
            raise ValueError(f"{path} has {key}={said[key]!r}, and only {value!r} is implemented")
    return said
