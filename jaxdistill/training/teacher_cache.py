"""Caches of teacher outputs: a teacher runs once over its records, students use them often.

cache = Cache(source, targets.live(net), {"teacher": variables}, {"out": {"codec": "dense"}})
store = write(cache, "caches/teacher")
data = targets.attach(source, store)        # trains with targets.cached(codecs(cache))
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.data.records import Records, Source
from jaxdistill.data.seeded import seeded
from jaxdistill.data.stream import ahead
from jaxdistill.data.views import Prepare, augmented
from jaxdistill.progress import Progress, silence
from jaxdistill.store import CODECS, Codec, Layout, Store, Unfinished, begin, manifest, open_store
from jaxdistill.store.writer import PART
from jaxdistill.targets.cached import (
    HEADER,
    SAMPLES,
    attach,
    content,
    decoded,
)
from jaxdistill.targets.live import Targets
from jaxdistill.training.answers import encoder, in_flight, inputs
from jaxdistill.training.checkpoint import fingerprint
from jaxdistill.training.lock import locked
from jaxdistill.training.parts import schedule, store_part
from jaxdistill.training.processes import barrier, is_first, told_to_stop
from jaxdistill.training.sharding import (
    batch_sharding,
    make_mesh,
    place,
)
from jaxdistill.training.signals import Stopped, received, stoppable

AS_THEY_ARE = augmented()
"""A view of images as floats in which nothing is drawn."""


@dataclasses.dataclass(frozen=True)
class Cache:
    """What is to be stored, and of which teachers.

    Attributes:
        source: the records.
        targets: ``(sources, batch, key, step) -> {name: array [B, ...]}``, see
            :mod:`jaxdistill.targets`; teachers are in evaluation mode.
        frozen: the teachers' variables, by name.
        outputs: for every stored name its ``codec`` and that codec's settings.
        prepare: what is drawn before the teachers run, the same as in training.
        views: how many views of each record are stored.
        seed: of the views.
        pairs: whether each view is mixed with another record.
        about: what else must be the same at opening, JSON data: nets, preprocessing, tokenizer.

    Example:
        >>> from jaxdistill import from_linen, targets
        >>> from jaxdistill.data import sources
        >>> from flax import linen as nn
        >>> teacher = from_linen(nn.Sequential([lambda x: x.reshape(len(x), -1), nn.Dense(10)]))
        >>> digits = sources.digits()
        >>> variables = teacher.init(jax.random.key(0), digits.gather(np.arange(2))["image"])
        >>> cache = Cache(
        ...     digits,
        ...     targets.live(teacher, inputs="teacher"),
        ...     {"teacher": variables},
        ...     {"out": {"codec": "top_k", "k": 3}},
        ... )
        >>> codecs(cache)["out"].fields["ids"].shape
        (3,)
    """

    source: Source
    targets: Targets
    frozen: Mapping[str, Any]
    outputs: Mapping[str, Mapping[str, Any]]
    prepare: Prepare = AS_THEY_ARE
    views: int = 1
    seed: int = 0
    pairs: bool = False
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def records(self) -> Source:
        """The records with their views, in the order of the rows."""
        return seeded(self.source, self.views, seed=self.seed, pairs=self.pairs)


def codecs(cache: Cache) -> dict[str, Codec]:
    """The codec of every stored output, for the shapes that its teacher gives.

    Raises:
        ValueError: for an output that the targets do not give, an unknown codec, and for settings
            that a codec does not take or allow.
    """
    specs = output_specs(cache)
    return {name: codec_of(name, own, specs[name]) for name, own in cache.outputs.items()}


def codec_of(name: str, settings: Mapping[str, Any], spec: jax.ShapeDtypeStruct) -> Codec:
    """One codec, its settings checked."""
    kind = settings.get("codec", "dense")
    if kind not in CODECS:
        raise ValueError(unknown(f"codec of {name!r}", kind, CODECS))
    own = {key: value for key, value in settings.items() if key != "codec" and value is not None}
    parameters = list(inspect.signature(CODECS[kind]).parameters)[1:]
    for key in own:
        if key not in parameters:
            raise ValueError(unknown(f"key of codec {kind!r}", key, ["codec", *parameters]))
    try:
        return CODECS[kind](spec, **own)
    except (ValueError, TypeError) as fault:
        raise ValueError(f"codec {kind!r} of {name!r}: {fault}") from fault


def output_specs(cache: Cache) -> dict[str, jax.ShapeDtypeStruct]:
    """The shape and type of each output of one record.

    Raises:
        ValueError: if one that is to be stored is not among them.
    """
    batch = jax.tree.map(np.asarray, cache.records().gather(np.zeros(1, np.int64)))

    def outputs(frozen, batch):
        key = jax.random.key(0)
        return cache.targets(frozen, cache.prepare(batch, key), key, 0)

    found = jax.eval_shape(outputs, dict(cache.frozen), batch)
    specs = {
        name: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
        for name, leaf in found.items()
        if isinstance(leaf, jax.ShapeDtypeStruct)
    }
    for name in cache.outputs:
        if name not in specs:
            raise ValueError(unknown("output to store", name, specs))
    return specs


def identity(cache: Cache) -> dict[str, Any]:
    """What a store of this cache must be made from: teachers, by fingerprint, and all settings."""
    specs = output_specs(cache)
    outputs = {
        name: {
            "codec": "dense",
            **settings,
            "shape": list(specs[name].shape),
            "dtype": str(specs[name].dtype),
        }
        for name, settings in cache.outputs.items()
    }
    known = {
        key: cache.source.info[key]
        for key in ("tokenizer", "vocabulary")
        if key in cache.source.info
    }
    found = {
        "teachers": {name: fingerprint(tree) for name, tree in cache.frozen.items()},
        "outputs": outputs,
        "views": {"count": cache.views, "seed": cache.seed, "pairs": cache.pairs},
        **known,
        **cache.about,
    }
    return json.loads(json.dumps(found))


def write(
    cache: Cache,
    path: Path | str,
    *,
    container: str = "array_record",
    batch_size: int = 256,
    part_bytes: int = PART,
    mesh: jax.sharding.Mesh | None = None,
    rules: Sequence[tuple[str, Any]] = (),
    quiet: bool = False,
) -> Store:
    """Runs the teachers over all records and stores their outputs; resumes a cache that was begun,
    or opens a complete one.

    Args:
        cache: what is stored.
        path: the folder of the store.
        container: ``"array_record"``, ``"npy"`` or ``"zarr"``.
        batch_size: records that the teachers see at once, over all devices.
        part_bytes: about how large a file is; a writer that is killed loses one of them.
        mesh: where the teachers run, all devices by default.
        rules: partition rules for their variables, see :mod:`jaxdistill.training.sharding`.
        quiet: no progress.

    Returns:
        The store, opened.

    Raises:
        ValueError: for settings that do not fit, for a folder that holds something else (every
            value that differs is listed), and for a record whose quantisation error exceeds the
            bound asked for.
        FloatingPointError: when an answer is not finite, naming output and records. -inf, a class
            that is ruled out, is accepted where the codec keeps it.
        OSError: when it cannot be written, a full disk say, or another process writes it; whole
            parts stay, and the same call resumes after them.
        Stopped: on SIGTERM and SIGINT; whole parts stay.
    """
    path = Path(path)
    own, expected = codecs(cache), identity(cache)
    if (path / manifest.MANIFEST).exists():
        return open_store(path, expected)
    mesh = mesh if mesh is not None else make_mesh()
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % devices:
        raise ValueError(
            f"a batch of {batch_size} records cannot be shared out over {devices} devices"
        )
    with stoppable(terminate=jax.process_count() == 1), locked(path), silence(quiet):
        begun = functools.partial(
            begin, path, expected, _layout(cache.records(), own), len(cache.records()),
            container=container, part_bytes=part_bytes,
            shard=(jax.process_index(), jax.process_count()),
        )  # fmt: skip
        if is_first():
            begun()
        barrier(f"begun {path}")
        unfinished = begun()
        encode = jax.jit(encoder(cache, own), out_shardings=(batch_sharding(mesh),) * 3)
        frozen = place(mesh, dict(cache.frozen), rules)
        _write_parts(cache, unfinished, functools.partial(encode, frozen), mesh, batch_size)
        barrier(f"written {path}")
        if is_first():
            unfinished.finish(cache.source.ids, _about(cache))
        barrier(f"finished {path}")
    return open_store(path, expected)


def _write_parts(
    cache: Cache, unfinished: Unfinished, encode: Any, mesh: Any, batch_size: int
) -> None:
    """Runs the teachers, and writes one part in the background while they go on."""
    records, local = cache.records(), batch_size // jax.process_count()
    rows, total = schedule(unfinished, len(records), local)

    def at(step: int) -> Records:
        wanted = rows[step][1] + np.arange(local)
        return records.gather(np.minimum(wanted, len(records) - 1))

    done = total - len(rows)
    progress = Progress(total, label="cache", start=done, batch_size=batch_size)
    waiting: Future[None] | None = None
    pieces: list[tuple[Records, Records, Records]] = []
    with progress, ThreadPoolExecutor(1) as background:
        flight = in_flight(ahead(at, 0, len(rows)), encode, batch_sharding(mesh))
        for step, (head, fields, measures, fine) in enumerate(flight):
            if told_to_stop():
                raise Stopped(
                    received(signal.SIGTERM), "whole parts stay; the same command goes on"
                )
            pieces.append(({**head, **fields}, measures, fine))
            part = rows[step][0]
            if step + 1 == len(rows) or rows[step + 1][0] != part:
                if waiting is not None:
                    waiting.result()
                waiting = background.submit(
                    store_part, cache.source, cache.outputs, unfinished, part, pieces
                )
                pieces = []
            progress.update(done + step + 1)
        if waiting is not None:
            waiting.result()


def verify(
    cache: Cache,
    store: Store,
    *,
    samples: int = 64,
    seed: int = 0,
    tolerance: float = 1e-2,
) -> dict[str, Any]:
    """Checks every checksum, and recomputes some records with the teachers.

    Args:
        cache: what the store should hold.
        store: see :func:`jaxdistill.store.open_store`.
        samples: how many rows are recomputed.
        seed: chooses them.
        tolerance: how far stored and recomputed values may lie apart: dense arrays in units of
            1 + the largest value of the record, distributions in total variation.

    Returns:
        ``faults``, a line for each damaged file; ``samples``; for every output under ``outputs``
        the ``largest`` gap and the share of rows that ``agree``; and ``passed``: no fault, and at
        least 99 rows in 100 agree.
    """
    faults = store.verify()
    own = codecs(cache)
    attached = attach(cache.source, store)
    chosen = np.random.Philox(seed).random_raw(min(samples, len(attached))) % len(attached)
    outputs: dict[str, Any] = {}
    try:
        batch = attached.gather(chosen.astype(np.int64))
    except OSError as fault:
        return {"faults": faults or [str(fault)], "samples": 0, "outputs": {}, "passed": False}
    fields, *_ = jax.jit(encoder(cache, own))(dict(cache.frozen), inputs(batch))
    for name, codec in own.items():
        there = decoded(codec, name, batch)
        here = codec.decode({field: fields[f"{name}/{field}"] for field in codec.fields})
        raw = cache.outputs[name].get("codec", "dense") in ("dense", "quantised")
        apart = _apart(there, here, raw)
        outputs[name] = {
            "largest": float(apart.max()),
            "agree": float((apart <= tolerance).mean()),
        }
    passed = not faults and all(output["agree"] >= 0.99 for output in outputs.values())
    return {"faults": faults, "samples": len(chosen), "outputs": outputs, "passed": passed}


def _layout(records: Source, own: Mapping[str, Codec]) -> Layout:
    columns = records.gather(np.zeros(1, np.int64))
    fields = {"id": jax.ShapeDtypeStruct((manifest.DIGEST,), np.uint8)}
    if "tokens" in columns:
        fields["tokens"] = jax.ShapeDtypeStruct((8,), np.uint8)
    for name in HEADER:
        if name in columns and name not in fields:
            fields[name] = jax.ShapeDtypeStruct(columns[name].shape[1:], columns[name].dtype)
    for name, codec in own.items():
        fields |= {f"{name}/{field}": spec for field, spec in codec.fields.items()}
    return Layout(fields)


def _about(cache: Cache) -> dict[str, Any]:
    """What is known of a store but not compared at its opening."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        library = version("jaxdistill")
    except PackageNotFoundError:
        library = "unknown"
    chosen = np.unique(np.linspace(0, len(cache.source) - 1, SAMPLES).astype(np.int64))
    found = cache.source.read(chosen)
    hashes = content(found)
    return {
        "library": library,
        "source": cache.source.name,
        "samples": {cache.source.ids[int(i)]: h for i, h in zip(chosen, hashes, strict=True)},
    }


def _apart(there: Any, here: Any, raw: bool) -> np.ndarray:
    """How far two decoded batches lie apart, record by record, ``[B]``."""
    if raw:
        a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (there, here))
        return np.abs(a - b).max(1) / (1 + np.abs(a).max(1))
    if isinstance(there, Mapping):
        p, q = (np.exp(np.asarray(x["log_probs"], np.float64)) for x in (there, here))
        same = np.asarray(there["ids"])[..., :, None] == np.asarray(here["ids"])[..., None, :]
        matched = (same * q[..., None, :]).sum(-1)
        left = q.sum(-1) - matched.sum(-1)
        apart = (np.abs(p - matched).sum(-1) + np.abs(left)) / 2
    else:
        p, q = (np.exp(np.asarray(x, np.float64)) for x in (there, here))
        apart = np.abs(p - q).sum(-1) / 2
    return apart.reshape(len(apart), -1).max(1)
