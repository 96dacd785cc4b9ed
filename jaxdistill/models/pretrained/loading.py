"""Published weights, and those of students, into nets, tensor by tensor."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxdistill._errors import unknown
from jaxdistill._files import CHECKSUMS, verify_folder
from jaxdistill._hub import folder_of, is_name
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models._common import check_settings
from jaxdistill.models.layouts import stacked_path
from jaxdistill.models.pretrained import files, towers
from jaxdistill.models.pretrained.differences import compare, grown
from jaxdistill.models.pretrained.families import (
    architecture_of,
    by_path,
    entries_of,
    family_of,
    variables_of,
)
from jaxdistill.models.pretrained.family import Config, Family
from jaxdistill.models.pretrained.forms import SAME, Entry, Form, aligned, lay_out
from jaxdistill.net import Net
from jaxdistill.progress import shown

# Which of two towers.
Sees = Literal["image", "text"]
# What is fetched of a name on the hub.
_FILES = ("config.json", "model*.safetensors", files.INDEX)
# What to say of a student's file that is another one.
CHANGED = f": take {CHECKSUMS} away if you have changed the folder yourself"


class Pretrained(NamedTuple):
    """A published network.

    Attributes:
        net: it as a :class:`~jaxdistill.net.Net`.
        params: its parameters.
        state: its statistics.
        module: the Linen module.
        architecture: its name in ``pretrained.FAMILIES``, or ``"jaxdistill"``.
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
    sees: Sees | None = None,
    **changes: Any,
) -> Pretrained:
    """A network from a folder of safetensors, or from a name on the Hugging Face hub.

    Where the folder holds ``checksums.json``, as that of a student does, config and weights must be
    what was written.

    Tensors are read one by one (of scanned blocks a stack at a time), of each only what belongs on
    the devices of this host, and go straight to where they are to live: the host never holds the
    model twice. Nothing is unpickled, and no code comes with the weights.

    Args:
        path: a folder with ``config.json`` and ``model.safetensors`` (or shards and their index),
            as Transformers and timm write them; or ``owner/name`` or ``owner/name@revision``, which
            needs the extra ``hf``. A path that is not there is no name: only of what looks like one
            the hub is asked. The folder of a student (see :mod:`jaxdistill.students`) is one, too.
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
        sees: of a network with a tower of images and one of texts the one that is wanted alone.
        changes: attributes of the module, such as ``classes``, ``head``, ``drop_path``, ``remat``,
            ``scan`` or ``dtype`` (of the computation).

    Returns:
        A :class:`Pretrained`.

    Raises:
        FileNotFoundError: without ``config.json``, weights, or a shard; for a name that the hub
            does not give.
        ValueError: for an unknown architecture or a config that is not implemented; for weights
            that would have to be unpickled, are truncated, or do not fit: all tensors that are
            missing, left over or of another shape are named in one message. For a file that is not
            what ``checksums.json`` says.
        ImportError: without the extra ``export``, or ``hf`` for a name on the hub.

    Example::

        teacher = jaxdistill.models.load("facebook/vit-mae-large")
        teacher.net.apply(teacher.params, teacher.state, images, taps=("encoder/block_17",))
    """
    folder = folder_of(path, _FILES, revision=revision)
    if (folder / CHECKSUMS).is_file():
        verify_folder(folder, only=("config.json", files.WHOLE), hint=CHANGED)
    config, architecture, module, family = _read(folder, sees)
    module = _changed(module, changes)
    scanned = getattr(module, "scan", False)
    plain = module.clone(scan=False) if scanned else module
    net = from_linen(plain)
    inputs = _inputs(family, config, image_size)
    shapes = own = jax.eval_shape(variables_of(net, seed), inputs)
    if scanned:
        own = jax.eval_shape(variables_of(from_linen(module), seed), inputs)
    entries = entries_of(family, plain, shapes)
    flat = by_path(shapes)
    weights = files.Weights(folder, family.renamed)
    new = compare(family, entries, flat, weights, allow)
    placed = by_path(shardings(own)) if shardings is not None else {}
    start = _start(net, seed, inputs, new)

    def source_of(entry: Entry) -> Source:
        tensors = [weights.read(name) for name in entry.names if name in weights.where]
        if entry.path not in start:
            return entry.form, tensors
        array = np.asarray(start[entry.path])
        if len(tensors) == len(entry.names):
            array = grown(family, entry, entry.form.read(tensors), array)
        return SAME, [array]

    sizes = by_path(own)

    def path_of(entry: Entry) -> str:
        return entry.path if entry.path in sizes else stacked_path(entry.path)

    there = {entry.path for entry in entries}
    found: dict[str, jax.Array] = {}
    # Sorting keeps the order of the blocks.
    groups = groupby(sorted(entries, key=path_of), path_of)
    count = len({path_of(entry) for entry in entries})
    for path, group in shown(groups, f"load {architecture}", "arrays", count):
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


def module_of(path: Path | str, sees: Sees | None = None, **changes: Any) -> Any:
    """The module that a folder's ``config.json`` describes; no weights are read.

    Args:
        path: a folder, or a name on the hub, of which that file alone is fetched.
        sees, changes: as for :func:`load`.

    Raises:
        FileNotFoundError: without ``config.json``.
        ValueError: for an unknown architecture, or a config that is not implemented.
    """
    module = _changed(_read(folder_of(path, _FILES[:1]), sees)[2], changes)
    check_settings(module)
    return module


def _read(folder: Path, sees: Sees | None = None) -> tuple[dict[str, Any], str, Any, Family]:
    """The config of a folder, its architecture, its module and its family."""
    whole = files.read_config(folder)
    place = folder / "config.json"
    try:
        config = dict(towers.tower(whole, sees))
        architecture = architecture_of(config)
        family = family_of(architecture)
        if config != whole:
            family = family._replace(ignored=(*family.ignored, *towers.other_tower(config)))
        module = family.module(config)
        check_settings(module)
        family.inputs(config)
        return config, architecture, module, family
    except ValueError as fault:
        raise ValueError(f"{place}: {fault}") from fault
    except KeyError as fault:
        raise ValueError(f"{place} lacks {fault}") from fault
    # What stands there has other types than in any that a library wrote.
    except (TypeError, AttributeError, IndexError, ArithmeticError) as fault:
        raise ValueError(f"{place} describes no network: {fault}") from fault


def is_published(path: Path | str) -> bool:
    """Whether a folder holds a network as others publish it, or a name is one on the hub; an empty
    name is neither."""
    return path != "" and ((Path(path) / "config.json").is_file() or is_name(path))


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
        flat = by_path(variables_of(net, seed)(zeros))
        return {path: flat[path] for path in new}

    return jax.jit(chosen)()
