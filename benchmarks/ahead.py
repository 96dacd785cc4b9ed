"""Every published config lowered for 256 devices, from shapes alone.

    python benchmarks/ahead.py                          # all configs; compiling takes a while
    python benchmarks/ahead.py --configs mae_vitb ddk   # some
    python benchmarks/ahead.py --lower                  # traced and lowered, not compiled
    python benchmarks/ahead.py --keep found             # goes on where it was broken off
    python benchmarks/ahead.py --device v5p:8x8x4       # for chips of a TPU, by its own compiler

Each config is planned as ``python -m jaxdistill.main`` plans it, but for its data: a set of as many
classes, pixels or tokens, with nothing in it. The step of every stage is then traced on shapes,
placed on a mesh of 256 (forced) devices by the config's own mesh and rules, lowered, and compiled
for that mesh. No array of a net exists at any time. What the library does on CPUs alone, unrolling
loops of convolutions and writing those of a ConvNet as products, it does not do here.

``state``, ``frozen`` and ``batch`` are MiB of one device, exact from shapes and rules;
``temporary`` is what XLA needs besides on one device. Without ``--device`` that is its plan for
CPUs, whose convolutions and products in bfloat16 go through float32: more than an accelerator
needs. With it, it is the plan of the TPU's compiler, which refuses a step that its memory does not
hold; such a row says what it would need.
A batch that 256 devices cannot share evenly goes to as many as can; the others are on the axis
``model``, which is for slices of layers, and ``over`` says to how many examples go.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import _absent
import jax
import jax.numpy as jnp
import numpy as np
from _configs import config_of, one_by_one, options, tell
from _measure import finish, memory, parser, table

from jaxdistill import recipe, registry
from jaxdistill.data import published, sentences, text
from jaxdistill.data.ids import Ids
from jaxdistill.data.records import Source
from jaxdistill.recipe.stages import stage_of
from jaxdistill.registry.entries import forwarding
from jaxdistill.settings import keys
from jaxdistill.training.loop import abstract, check, first_batch
from jaxdistill.training.sharding import (
    batch_sharding,
    make_mesh,
    on_mesh,
    replicated,
    shardings,
)

DEVICES = 256
# What is compiled for CPUs is not run: how fast it would be does not matter.
FORCED = (
    f"--xla_force_host_platform_device_count={DEVICES} --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true"
)
# What the sets of the published configs are: images of training and test, their size, classes.
IMAGES: dict[str, tuple[int, int, tuple[int, int, int], int]] = {
    "mnist": (60_000, 10_000, (28, 28, 1), 10),
    "fashion_mnist": (60_000, 10_000, (28, 28, 1), 10),
    "cifar10": (50_000, 10_000, (32, 32, 3), 10),
    "cifar100": (50_000, 10_000, (32, 32, 3), 100),
    "imagenet2012": (1_281_167, 50_000, (256, 256, 3), 1000),
    "image_folder": (1_281_167, 50_000, (256, 256, 3), 1000),
}
VOCABULARY = {
    "bert_distil": 31_102,
    "ddk": 151_936,
    "capacity_gap": 32_000,
    "distillspec": 32_000,
    "dse": 30_522,
    "ernie_tiny": 30_522,
}


def blank(name: str, count: int, shape: tuple[int, ...], classes: int, dtype: Any) -> Source:
    """Records of zeros: memory that nobody touches."""

    def read(indices: np.ndarray) -> dict[str, np.ndarray]:
        labels = (indices % classes).astype(np.int32)
        return {"image": np.zeros((len(indices), *shape), dtype), "label": labels}

    def labels() -> np.ndarray:
        return (np.arange(count) % classes).astype(np.int32)

    info = {"image_shape": shape, "classes": classes}
    return Source(name, Ids(count, lambda i: f"{name}/{i:07d}"), read, info, labels)


def images(settings: Mapping[str, Any]) -> Callable[..., Any]:
    """In place of a set of images, its training and test part."""
    name = settings.get("dataset", settings["name"])
    train, test, shape, classes = IMAGES[name]
    if side := settings.get("image_size"):
        shape = (side, side, shape[-1])
    # Whitened images are floats.
    dtype = np.float32 if settings.get("whiten") else np.uint8
    own = functools.partial(blank, name, shape=shape, classes=classes, dtype=dtype)
    return lambda context, **_: (own(train), own(test))


def counted_tokens(vocabulary: int) -> text.Tokenizer:
    """A tokenizer of texts that say how many tokens they have."""
    return text.Tokenizer(lambda given: np.zeros(int(given or 0), np.int32), str, vocabulary, 2)


def reviews(kind: str, vocabulary: int, count: int) -> Callable[..., Any]:
    """In place of texts or pairs of two classes, or with scores, enough for a batch, and their test
    part."""

    def made(context: Any, *, length: int, **_: Any) -> Any:
        said = [str(length // 3)] * count
        labels = np.arange(count, dtype=np.int32) % 2
        labels = labels / 2 if kind in published.SCORED else labels
        others = said if kind in published.PAIRS else None
        given = sentences.Sentences("reviews", said, labels, others)
        source = sentences.encoded(given, counted_tokens(vocabulary), length)
        return source, dataclasses.replace(source, name="reviews/test")

    return made


def texts(vocabulary: int, windows: int, grouped: bool) -> Callable[..., Any]:
    """In place of files of text, enough windows for a batch."""

    def made(
        context: Any, *, length: int, pack: bool = False, prompt: str | None = None, **_: Any
    ) -> Any:
        counted = counted_tokens(vocabulary)
        own = {"validation": context.validation, "test": context.test}

        def documents(name: str) -> list[text.Document]:
            given = str(length // 4) if prompt else ""
            count = math.ceil(2.5 * windows)
            return [text.Document(f"{name}/{i:06d}", str(length // 2), given) for i in range(count)]

        if grouped:
            parts = {name: documents(name) for name in ("code", "web")}
            return text.domains(parts, counted, length, **own)
        return text.corpus(documents("text"), counted, length, pack=pack, **own)

    return made


def stand_in(name: str, config: dict[str, Any]) -> None:
    """Puts sets with nothing in them in place of those of a config."""
    sets = [config["data"], *(s["data"] for s in config["stages"].values() if s.get("data"))]
    pools = [settings for settings in sets if settings["name"] == "pool"]
    sets = [settings for settings in sets if settings["name"] != "pool"]
    sets += [part for pool in pools for part in (pool["tested"], *pool["parts"].values())]
    for settings in sets:
        kind = settings["name"]
        # What the user must name, and nobody reads here.
        takes = keys(registry.DATA[kind]) if kind in registry.DATA else ()
        settings |= {key: "a place" for key in ("path", "dir") if key in settings and key in takes}
        if kind in published.SETS:
            replace(kind, reviews(kind, VOCABULARY[name], 1000))
        elif "length" in settings:
            largest = max(stage.get("batch_size", 128) for stage in config["stages"].values())
            grouped = kind == "domain_files"
            replace(kind, texts(VOCABULARY[name], largest, grouped))
        elif settings.get("dataset", kind) in IMAGES:
            replace(kind, images(settings))
            settings.pop("whiten", None)


def replace(kind: str, made: Callable[..., Any]) -> None:
    """Under the name of a data set, with the keywords of what it really is."""
    if kind not in registry.DATA:
        raise ValueError(f"there is no data set {kind!r}")
    registry.DATA[kind] = forwarding(registry.DATA[kind])(made)


def mesh_for(
    config: Mapping[str, Any], examples: int | None, devices: Sequence[Any]
) -> tuple[jax.sharding.Mesh, int]:
    """The config's own mesh on all devices, and over how many of them a batch is shared out."""
    sizes = dict(config.get("mesh") or {"data": -1})
    if -1 not in sizes.values():
        return make_mesh(sizes, devices), math.prod(sizes.values())
    parts = math.gcd(examples or len(devices), len(devices))
    sizes["model"] = len(devices) // parts
    return make_mesh(sizes, devices), parts


def lowered(name: str, compiling: bool, devices: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Plans a config and lowers the step of every stage; a row for each once it is lowered, and
    again once it is compiled."""
    config = config_of(name)
    stand_in(name, config)
    one = {**config, "mesh": {"data": 1, "fsdp": 1}}
    begun = time.perf_counter()
    plan = recipe.plan(one)
    results = recipe.shapes(plan)
    planning = time.perf_counter() - begun
    for planned in plan.stages:
        if planned.settings["work"]:
            continue
        stage = stage_of(plan, planned, {other: results[other] for other in planned.needs})
        takes = stage.distiller.takes
        batch = abstract(first_batch(stage))
        leaves = [leaf for leaf in jax.tree.leaves(batch) if leaf.ndim > (takes > 1)]
        examples = leaves[0].shape[int(takes > 1)] if leaves else None
        mesh, parts = mesh_for(config, examples, devices)
        rules = tuple(config.get("rules") or ())
        frozen = dict(stage.frozen)
        state = check(
            stage.distiller, jax.random.key(0), {**frozen, **stage.initial}, frozen, batch
        )
        whole = jax.tree.map(shape_of, (state, frozen))
        places = tuple(shardings(mesh, tree, rules) for tree in whole)
        shared = jax.tree.map(lambda _, m=mesh, n=takes: batch_sharding(m, n), batch)
        begun = time.perf_counter()
        low = jax.jit(
            on_mesh(stage.distiller.step, mesh),
            donate_argnums=0,
            in_shardings=(*places, shared),
            out_shardings=(places[0], replicated(mesh)),
        ).lower(*whole, batch)
        row: dict[str, Any] = {
            "config": name,
            "stage": planned.name,
            "devices": mesh.size,
            "over": parts,
            "batch": examples,
            "parameters": count(results[planned.name]),
            "state_mib": mib(whole[0], places[0]),
            "frozen_mib": mib(whole[1], places[1]),
            "batch_mib": mib(batch, shared),
            "planning_seconds": planning,
            "lowering_seconds": time.perf_counter() - begun,
        }
        yield row
        if compiling:
            begun = time.perf_counter()
            row |= needed(low)
            row["compile_seconds"] = time.perf_counter() - begun
            yield row


def needed(low: Any) -> dict[str, Any]:
    """Memory of a compiled step; where a device has too little, what its compiler says of it."""
    try:
        return memory(low.compile())
    except jax.errors.JaxRuntimeError as fault:
        if "RESOURCE_EXHAUSTED" not in str(fault):
            raise
        said = re.search(r"Used \S+ of \S+ hbm", str(fault))
        return {"refused": said[0] if said else str(fault).splitlines()[0]}


def shape_of(x: Any) -> jax.ShapeDtypeStruct:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.ShapeDtypeStruct(np.shape(x), jax.dtypes.canonicalize_dtype(x.dtype))


def count(tree: Any) -> int:
    """Numbers in a result."""
    return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(tree))


def mib(tree: Any, places: Any) -> float:
    """MiB of a tree on one device."""

    def one(x: Any, place: Any) -> float:
        width = 8 if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x.dtype.itemsize
        return math.prod(place.shard_shape(tuple(x.shape))) * width / 2**20

    return sum(jax.tree.leaves(jax.tree.map(one, tree, places)))


def main() -> int:
    made = parser(__doc__, "two small configs, lowered only")
    made.add_argument("--lower", action="store_true", help="do not compile")
    options(made)
    _absent.option(made)
    args = made.parse_args()
    if args.one:
        if not args.device:
            os.environ["XLA_FLAGS"] = FORCED
        with _absent.as_on_accelerators():
            devices = _absent.devices(args.device) if args.device else jax.devices()
            tell(lowered(args.one, not args.lower, devices))
        return 0
    if args.smoke:
        args.configs, args.lower = ["hinton_mnist", "dm"], True
    more = [*(["--lower"] if args.lower else []), "--device", args.device]
    rows, faults = one_by_one(__file__, args, *more)
    cells = [
        (
            f"{row['config']}: {row['stage']}",
            f"{row['parameters'] / 1e6:,.1f}",
            "" if row["batch"] is None else f"{row['batch']:,} over {row['over']}",
            *(f"{row[key]:,.1f}" for key in ("state_mib", "frozen_mib", "batch_mib")),
            f"{row['temporary_mib']:,.1f}" if "temporary_mib" in row else row.get("refused", ""),
            f"{row['lowering_seconds']:.0f}",
            f"{row['compile_seconds']:.0f}" if "compile_seconds" in row else "",
        )
        for row in rows
    ]
    missed = [f"{r['config']}: {r['stage']}: {r['refused']}" for r in rows if "refused" in r]
    columns = ("stage", "million numbers", "examples", "state MiB", "frozen", "batch", "temporary")
    print(table((*columns, "lowering s", "compile s"), cells), end="\n\n")
    return finish(_absent.named("ahead", args), args, {"stages": rows}, missed, faults)


if __name__ == "__main__":
    sys.exit(main())
