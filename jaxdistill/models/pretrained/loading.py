"""Published weights into nets, tensor by tensor, and back into folders that others open."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxdistill._errors import unknown
from jaxdistill._hub import folder_of
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models._common import check_settings
from jaxdistill.models.layouts import stacked_path, unstack_blocks
from jaxdistill.models.pretrained import (
    convolutional,
    decoders,
    dino,
    files,
    gpt2,
    modern,
    residual,
    texts,
    timm_vit,
    towers,
    vision,
)
from jaxdistill.models.pretrained.differences import compare, grown
from jaxdistill.models.pretrained.family import Config, Family
from jaxdistill.models.pretrained.forms import SAME, Entry, Form, aligned, lay_out
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

# What is fetched of a name on the hub.
_FILES = ("config.json", "model*.safetensors", files.INDEX)
# The families of timm by how the names of their networks begin.
_TIMM = {
    "vit_": "vit",
    "deit_": "vit",
    "resnet": "resnet",
    "convnext": "convnext",
    "mobilenetv3_": "mobilenet",
}


class Pretrained(NamedTuple):
    """A published network.

    Attributes:
        net: it as a :class:`~jaxdistill.net.Net`.
        params: its parameters.
        state: its statistics.
        module: the Linen module.
        architecture: its name in ``pretrained.FAMILIES``.
        config: what ``config.json`` says.
        new: paths of the arrays that were not published: what ``allow`` let through.
    """

    net: Net
    params: Any
    state: Any
    module: nn.Module
    architecture: str
    config: dict[str, Any]
    new: tuple[str, ...]


def load(
    path: Path | str,
    *,
    dtype: Any = None,
    shardings: Callable[[Any], Any] | None = None,
    allow: Sequence[str] = (),
    revision: str | None = None,
    image_size: int | None = None,
    seed: int = 0,
    **changes: Any,
) -> Pretrained:
    """A network from a folder of safetensors, or from a name on the Hugging Face hub.

    Tensors are read one by one (of scanned blocks a stack at a time), of each only what belongs on
    the devices of this host, and go straight to where they are to live: the host never holds the
    model twice. Nothing is unpickled, and no code comes with the weights.

    Args:
        path: a folder with ``config.json`` and ``model.safetensors`` (or shards and their index),
            as Transformers and timm write them; or ``owner/name`` or ``owner/name@revision``, which
            needs the extra ``hf``. A path that is not there is no name: only of what looks like one
            the hub is asked.
        dtype: of all floating point arrays; as they are published by default.
        shardings: from the tree of shapes ``{"params": ..., "state": ...}`` to one of shardings,
            e.g. ``partial(training.sharding.shardings, mesh, rules=rules)``; the default device
            otherwise.
        allow: what may differ from what is published: ``"new head"`` (another number of classes, or
            none published: it starts anew), ``"resized positions"`` (another size of images:
            positions are interpolated bicubically), ``"padded vocabulary"`` (more tokens than
            published: theirs start anew); and names of tensors that may be left unread or start
            anew, with ``*`` for anything.
        revision: of a name on the hub: its branch, tag or commit.
        image_size: in pixels, where it is not the published one.
        seed: of what starts anew.
        changes: attributes of the module, such as ``classes``, ``head``, ``drop_path``, ``remat``,
            ``scan`` or ``dtype`` (of the computation).

    Returns:
        A :class:`Pretrained`.

    Raises:
        FileNotFoundError: without ``config.json``, weights, or a shard; for a name that the hub
            does not give.
        ValueError: for an unknown architecture or a config that is not implemented; for weights
            that would have to be unpickled, are truncated, or do not fit: all tensors that are
            missing, left over or of another shape are named in one message.
        ImportError: without the extra ``export``, or ``hf`` for a name on the hub.

    Example::

        teacher = jaxdistill.models.load("facebook/vit-mae-large")
        teacher.net.apply(teacher.params, teacher.state, images, taps=("encoder/block_17",))
    """
    folder = folder_of(path, _FILES, revision=revision)
    config, architecture, module = _read(folder)
    family = FAMILIES[architecture]
    module = _changed(module, changes)
    scanned = getattr(module, "scan", False)
    plain = module.clone(scan=False) if scanned else module
    net = from_linen(plain)
    inputs = _inputs(family, config, image_size)
    shapes = own = jax.eval_shape(_variables(net, seed), inputs)
    if scanned:
        own = jax.eval_shape(_variables(from_linen(module), seed), inputs)
    entries = _entries(family, plain, shapes)
    flat = _flat(shapes)
    weights = files.Weights(folder, family.renamed)
    new = compare(family, entries, flat, weights, allow)
    placed = _flat(shardings(own)) if shardings is not None else {}
    start = _start(net, seed, inputs, new)

    def source_of(entry: Entry) -> Source:
        tensors = [weights.read(name) for name in entry.names if name in weights.where]
        if entry.path not in start:
            return entry.form, tensors
        array = np.asarray(start[entry.path])
        if len(tensors) == len(entry.names):
            array = grown(family, entry, entry.form.read(tensors), array)
        return SAME, [array]

    sizes = _flat(own)

    def path_of(entry: Entry) -> str:
        return entry.path if entry.path in sizes else stacked_path(entry.path)

    there = {entry.path for entry in entries}
    found: dict[str, jax.Array] = {}
    # Sorting keeps the order of the blocks.
    for path, group in groupby(sorted(entries, key=path_of), path_of):
        sources = [source_of(entry) for entry in group]
        array = _array(sources, path not in there, sizes[path].shape, placed.get(path), dtype)
        # One at a time: copies that are under way would pile up.
        found[path] = jax.block_until_ready(array)
        del sources, array
    tree = traverse_util.unflatten_dict(found, sep="/")
    return Pretrained(
        from_linen(module),
        tree.get("params", {}),
        tree.get("state", {}),
        module,
        architecture,
        config,
        new,
    )


def module_of(folder: Path | str) -> Any:
    """The module that a folder's ``config.json`` describes; no weights are read.

    Raises:
        FileNotFoundError: without ``config.json``.
        ValueError: for an unknown architecture, or a config that is not implemented.
    """
    return _read(Path(folder))[2]


def _read(folder: Path) -> tuple[dict[str, Any], str, Any]:
    """The config of a folder, its architecture and its module."""
    config = files.read_config(folder)
    place = folder / "config.json"
    try:
        architecture = architecture_of(config)
        family = FAMILIES[architecture]
        module = family.module(config)
        check_settings(module)
        family.inputs(config)
        return config, architecture, module
    except ValueError as fault:
        raise ValueError(f"{place}: {fault}") from fault
    except KeyError as fault:
        raise ValueError(f"{place} lacks {fault}") from fault
    # What stands there has other types than in any that a library wrote.
    except (TypeError, AttributeError, IndexError, ArithmeticError) as fault:
        raise ValueError(f"{place} describes no network: {fault}") from fault


def is_published(folder: Path | str) -> bool:
    """Whether a folder holds a network as others publish it; an empty name is no folder."""
    return folder != "" and (Path(folder) / "config.json").is_file()


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
        architecture: what it is to be there, one of ``pretrained.FAMILIES``.
        module: the Linen module.
        variables: its ``(params, state)``.
        about: entries of ``config.json`` besides those that follow from the module.

    Returns:
        The folder.

    Raises:
        ValueError: for an unknown architecture, and for a module that it cannot express.
        ImportError: without the extra ``export``.
    """
    if architecture not in FAMILIES:
        raise ValueError(unknown("architecture", architecture, FAMILIES))
    family = FAMILIES[architecture]
    params, state = variables
    if getattr(module, "scan", False):
        module, params, state = module.clone(scan=False), *map(unstack_blocks, (params, state))
    tree = {"params": params, "state": state}
    config = {**family.config(module, tree), **(about or {})}
    flat = _flat(tree)
    tensors: dict[str, np.ndarray] = {}
    for entry in _entries(family, module, tree):
        parts = entry.form.write(np.asarray(flat[entry.path]))
        tensors |= dict(zip(entry.names, parts, strict=True))
        # Torch counts the batches that statistics were taken of, and wants to find the number.
        if entry.path.startswith("state/batch_stats") and entry.path.endswith("/var"):
            (name,) = entry.names
            counter = name.replace("running_var", "num_batches_tracked")
            tensors[counter] = np.zeros((), np.int64)
    kinds = {str(t.dtype) for t in tensors.values() if jnp.issubdtype(t.dtype, jnp.floating)}
    if len(kinds) == 1 and not architecture.startswith("timm:"):
        config["dtype"] = kinds.pop()
    files.write(folder, config, tensors)
    return Path(folder)


def architecture_of(config: Config) -> str:
    """The name in ``FAMILIES`` of what a ``config.json`` describes.

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
    if not names:
        raise ValueError("config.json names no architecture: it has no 'architectures'")
    if not isinstance(names, list) or names[0] not in FAMILIES:
        raise ValueError(unknown("architecture", names[0], FAMILIES))
    return names[0]


def _changed(module: Any, changes: Mapping[str, Any]) -> Any:
    for name in changes:
        if name not in module.__dataclass_fields__ or name in ("parent", "name"):
            own = set(module.__dataclass_fields__) - {"parent", "name"}
            raise ValueError(unknown(f"attribute of {type(module).__name__}", name, own))
    return module.clone(**changes)


def _inputs(family: Family, config: Config, image_size: int | None) -> Any:
    found = {}
    for name, (shape, kind) in family.inputs(config).items():
        if image_size is not None:
            if name != "image":
                raise ValueError("image_size is for nets that see images")
            shape = (shape[0], image_size, image_size, shape[-1])
        found[name] = jax.ShapeDtypeStruct(shape, kind)
    return found


def _variables(net: Net, seed: int) -> Callable[[Any], dict[str, Any]]:
    def variables(inputs: Any) -> dict[str, Any]:
        params, state = net.init(jax.random.key(seed), inputs)
        return {"params": params, "state": state}

    return variables


def _flat(tree: Any) -> dict[str, Any]:
    return traverse_util.flatten_dict(tree, sep="/")


def _entries(family: Family, module: Any, tree: Any) -> list[Entry]:
    """The entries of a family, which must be those of the net."""
    entries = family.entries(module)
    own, there = set(_flat(tree)), {entry.path for entry in entries}
    if own != there:
        raise ValueError(f"the net has other arrays than are published: {sorted(own ^ there)}")
    return entries


# A form, and the tensors that it is of.
Source = tuple[Form, Sequence[np.ndarray]]


def _array(
    sources: Sequence[Source], stacked: bool, shape: tuple[int, ...], sharding: Any, dtype: Any
) -> jax.Array:
    """An array, or a stack of some, of which only the parts are read that lie on this host."""
    published = sources[0][1][0].dtype
    floating = dtype is not None and jnp.issubdtype(published, jnp.floating)
    kind = np.dtype(dtype) if floating else published

    @functools.cache
    def part(spans: tuple[tuple[int, int], ...]) -> np.ndarray:
        index = tuple(slice(*span) for span in spans)
        found = aligned(tuple(stop - start for start, stop in spans), kind)
        if stacked:
            for one, (form, tensors) in zip(found, sources[index[0]], strict=True):
                lay_out(form.of(tensors, index[1:]), one)
        else:
            form, tensors = sources[0]
            lay_out(form.of(tensors, index), found)
        return found

    def spans(index: tuple[slice, ...]) -> tuple[tuple[int, int], ...]:
        return tuple(one.indices(size)[:2] for one, size in zip(index, shape, strict=True))

    if sharding is None:
        return jax.device_put(part(spans((slice(None),) * len(shape))))
    return jax.make_array_from_callback(shape, sharding, lambda index: part(spans(index or ())))


def _start(net: Net, seed: int, inputs: Any, new: Sequence[str]) -> dict[str, jax.Array]:
    """The net's own start of some arrays; the others are not computed."""
    if not new:
        return {}

    def chosen():
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), inputs)
        flat = _flat(_variables(net, seed)(zeros))
        return {path: flat[path] for path in new}

    return jax.jit(chosen)()
