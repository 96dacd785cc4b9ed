"""What a cache of teacher outputs costs: in training, in writing, in reading, on disk.

    python benchmarks/cache.py             # sizes for a CPU; minutes on two cores
    python benchmarks/cache.py --smoke     # small sizes, no target is checked

Training: a step that distils from cached logits against the same student's step on labels alone,
both read from their sources as the loop does, in turn, over and over; ResNet-56 to ResNet-20 on
32 x 32 images, and a small decoder on tokens with a top-k cache. The target is a median ratio of
1.05 (the losses differ: a divergence to the teacher is part of the cached step).

Writing: records a second that ``teacher_cache.write`` stores against those that the bare compiled
teacher gives on the same batches, dense logits; the target is 0.9. What a write costs once,
compilation first of all, is taken off by writing some and then three times as many records.

Reading: random reads of single records and of batches from each container. Sizes: bytes of every
codec, per sample of 1,000 classes and per token of 151,936.

Prints tables and, as its last line, JSON; exits with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _measure import Seconds, finish, in_turn, median_ms, parser, ratio, spread, table

from jaxdistill import losses, models, objective, targets
from jaxdistill.data import views
from jaxdistill.data.arrays import arrays
from jaxdistill.data.records import Source, subset
from jaxdistill.data.seeded import seeded
from jaxdistill.data.stream import stream
from jaxdistill.distiller import model_to_model
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.store import CODECS, CONTAINERS, Layout, begin, codecs, open_store
from jaxdistill.training import teacher_cache

STEP_TARGET, WRITE_TARGET = 1.05, 0.9


class Decoder(nn.Module):
    """Causal blocks on tokens ``[B, T]``, logits ``[B, T, V]``."""

    vocabulary: int
    width: int
    depth: int
    heads: int = 4

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        table = nn.Embed(self.vocabulary, self.width)
        place = self.param("place", nn.initializers.normal(0.02), (tokens.shape[1], self.width))
        x = table(tokens) + place[None]
        mask = nn.make_causal_mask(tokens)
        for _ in range(self.depth):
            x = x + nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm()(x), mask=mask)
            hidden = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
            x = x + nn.Dense(self.width)(hidden)
        return table.attend(nn.LayerNorm()(x))


def images(count: int) -> Source:
    drawn = np.random.default_rng(0)
    image = drawn.integers(0, 256, (count, 32, 32, 3), np.uint8)
    return arrays({"image": image, "label": drawn.integers(0, 100, count)}, name="images")


def text(count: int, length: int, vocabulary: int) -> Source:
    tokens = np.random.default_rng(0).integers(0, vocabulary, (count, length)).astype(np.int32)
    return arrays({"tokens": tokens}, name="text")


def tokens_view(batch: Any, key: Any) -> Any:
    return {**batch, "student": batch["tokens"], "teacher": batch["tokens"]}


def next_token(forward: Any, goal: Any, batch: Any) -> dict[str, objective.Term]:
    """Cross-entropy of every next token."""
    values = losses.cross_entropy(forward.out[:, :-1], batch["tokens"][:, 1:])
    return {"labels": objective.per_example(1.0, values)}


def sparse(forward: Any, goal: Any, batch: Any) -> dict[str, objective.Term]:
    out = goal["out"]
    values = losses.sparse_kl(forward.out, out["ids"], out["log_probs"], missing="tail")
    return {"teacher": objective.per_example(1.0, values)}


def steps(source: Source, distiller: Any, batch: int) -> Iterator[Seconds]:
    """One step after the other, reading included."""
    data = stream(source, batch, seed=0).iterate()
    first = {k: jnp.asarray(v) for k, v in next(data).items()}
    state = jax.jit(distiller.init)(jax.random.key(0), {}, first)
    step = jax.jit(distiller.step, donate_argnums=0)
    while True:
        wall, processor = time.perf_counter(), time.process_time()
        records = next(data)
        state, metrics = step(state, {}, {k: jnp.asarray(v) for k, v in records.items()})
        jax.block_until_ready(metrics)
        yield Seconds(time.perf_counter() - wall, time.process_time() - processor)


def paired(arms: dict[str, Iterator[Seconds]], repeats: int) -> dict[str, Any]:
    calls = {name: (lambda arm=arm: next(arm)) for name, arm in arms.items()}
    times = in_turn(calls, repeats, warmup=2)
    return {
        **ratio(times, "cached", "student"),
        **{f"{name}_ms": median_ms(each) for name, each in times.items()},
    }


def residual(args: argparse.Namespace, root: Path) -> dict[str, Any]:
    deep, shallow = (56, 20) if not args.smoke else (8, 8)
    source = images(4 * args.batch)
    teacher = from_linen(models.cifar_resnet(depth=deep, classes=100))
    student = from_linen(models.cifar_resnet(depth=shallow, classes=100))
    variables = jax.jit(teacher.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    view = views.augmented()
    cache = teacher_cache.Cache(
        source,
        targets.merge({"teacher": targets.live(teacher, inputs="teacher")}),
        {"teacher": variables},
        {"teacher/out": {"codec": "dense"}},
        prepare=view,
    )
    store = teacher_cache.write(cache, root / "residual", batch_size=args.batch, quiet=True)
    labels = objective.match(losses.cross_entropy, name="labels", target="batch/label")
    kd = objective.match(losses.hinton_kd, name="kd", temperature=4.0, weight=0.9)
    tx = optax.sgd(0.05, momentum=0.9)

    def distiller(goal, terms):
        return model_to_model(student, goal, terms, tx, inputs="student", prepare=view)

    alone = distiller(lambda *_: {}, labels)
    both = distiller(
        targets.cached(teacher_cache.codecs(cache)), objective.combine({"kd": kd, "labels": labels})
    )
    return paired(
        {
            "cached": steps(targets.attach(source, store), both, args.batch),
            "student": steps(seeded(source), alone, args.batch),
        },
        args.repeats,
    )


def decoder(args: argparse.Namespace, root: Path) -> dict[str, Any]:
    length, vocabulary = (128, 8192) if not args.smoke else (16, 64)
    source = text(8 * args.sequences, length, vocabulary)
    width = 256 if not args.smoke else 16
    teacher = from_linen(Decoder(vocabulary, width, 4))
    student = from_linen(Decoder(vocabulary, width // 2, 3))
    variables = jax.jit(teacher.init)(jax.random.key(0), jnp.zeros((1, length), jnp.int32))
    cache = teacher_cache.Cache(
        source,
        targets.merge({"teacher": targets.live(teacher, inputs="teacher")}),
        {"teacher": variables},
        {"teacher/out": {"codec": "top_k", "k": 32, "missing": "sparse"}},
        prepare=tokens_view,
    )
    store = teacher_cache.write(cache, root / "decoder", batch_size=args.sequences, quiet=True)
    tx = optax.adam(1e-3)

    def distiller(goal, terms):
        return model_to_model(student, goal, terms, tx, inputs="student", prepare=tokens_view)

    return paired(
        {
            "cached": steps(
                targets.attach(source, store),
                distiller(targets.cached(teacher_cache.codecs(cache)), sparse),
                args.sequences,
            ),
            "student": steps(seeded(source), distiller(lambda *_: {}, next_token), args.sequences),
        },
        args.repeats,
    )


def writing(args: argparse.Namespace, root: Path) -> dict[str, Any]:
    """The same batches through the bare teacher and into a store, in turn."""
    depth = 20 if not args.smoke else 8
    source = images(3 * args.records)
    net = from_linen(models.cifar_resnet(depth=depth, classes=100))
    variables = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))

    def seconds(records: int, folder: Path) -> float:
        cache = teacher_cache.Cache(
            subset(source, np.arange(records)),
            targets.live(net, inputs="teacher"),
            {"teacher": variables},
            {"out": {"codec": "dense"}},
        )
        begun = time.perf_counter()
        teacher_cache.write(cache, folder, batch_size=size, quiet=True)
        return time.perf_counter() - begun

    size = min(args.write_batch, args.records)
    forward = jax.jit(lambda v, x: net.apply(*v, x.astype(jnp.float32) / 255.0).out)
    batches = [
        source.gather(np.arange(start, start + size))["image"]
        for start in range(0, 2 * args.records - size + 1, size)
    ]
    jax.block_until_ready(forward(variables, batches[0]))
    rates: dict[str, list[float]] = {"forward": [], "write": []}
    for number in range(args.write_repeats + 1):
        begun = time.perf_counter()
        for batch in batches:
            found = forward(variables, batch)
        jax.block_until_ready(found)
        bare = len(batches) * size / (time.perf_counter() - begun)
        few = seconds(args.records, root / f"few{number}")
        whole = 2 * args.records / (seconds(3 * args.records, root / f"many{number}") - few)
        if number:  # the first one warms up
            rates["forward"].append(bare)
            rates["write"].append(whole)
    ratios = [w / f for w, f in zip(rates["write"], rates["forward"], strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "forward_per_second": statistics.median(rates["forward"]),
        "write_per_second": statistics.median(rates["write"]),
    }


def reading(args: argparse.Namespace, root: Path) -> dict[str, dict[str, float]]:
    """Random reads of records of 18 KiB: 512 tokens of 36 bytes."""
    layout = Layout({"value": jax.ShapeDtypeStruct((18 * 1024 - 4,), np.uint8)})
    count = args.reads
    rows = np.random.default_rng(0).integers(0, 256, (count, 18 * 1024 - 4), np.uint8)
    found = {}
    for name in CONTAINERS:
        writer = begin(root / f"read_{name}", {}, layout, count, container=name)
        for number, (first, last) in enumerate(writer.parts()):
            writer.write(number, {"value": rows[first:last]}, {})
        writer.finish([str(i) for i in range(count)], {})
        store = open_store(root / f"read_{name}")
        order = np.random.default_rng(1).permutation(count)
        store.read(order[:64])
        rate = {}
        for size in (1, 64):
            parts = [order[i : i + size] for i in range(0, min(count, 500 * size), size)]
            begun = time.perf_counter()
            for part in parts:
                store.read(part)
            taken = time.perf_counter() - begun
            rate[f"batch_{size}"] = sum(map(len, parts)) / taken
        found[name] = rate
    return found


SIZES: dict[str, dict[str, Any]] = {
    "dense float32": {"codec": "dense"},
    "dense bfloat16": {"codec": "dense", "dtype": "bfloat16"},
    "quantised": {"codec": "quantised"},
    "top_k 64, float16": {"codec": "top_k", "k": 64},
    "top_k 64, packed": {"codec": "top_k", "k": 64, "packed": True},
    "top_p 0.95, 64 slots": {"codec": "top_p", "p": 0.95, "k": 64, "packed": True},
    "sampled 50, 24 slots": {"codec": "sampled", "draws": 50, "slots": 24, "packed": True},
    "sampled 50, 12 slots": {"codec": "sampled", "draws": 50, "slots": 12, "packed": True},
    "polynomial 64, 16 exact": {"codec": "polynomial", "k": 64, "exact": 16},
}


def sizes() -> dict[str, dict[str, int]]:
    found = {}
    for name, settings in SIZES.items():
        own = {key: value for key, value in settings.items() if key != "codec"}
        make: Callable[..., Any] = CODECS[settings["codec"]]
        found[name] = {
            unit: codecs.nbytes(make(jax.ShapeDtypeStruct((classes,), jnp.float32), **own))
            for unit, classes in (("sample", 1000), ("token", 151_936))
        }
    return found


def options() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--repeats", type=int, default=21, help="paired steps")
    made.add_argument("--batch", type=int, default=64, help="images in a step")
    made.add_argument("--sequences", type=int, default=8, help="sequences in a step")
    made.add_argument("--records", type=int, default=2048, help="images written at least")
    made.add_argument("--write-batch", type=int, default=256)
    made.add_argument("--write-repeats", type=int, default=3)
    made.add_argument("--reads", type=int, default=8000, help="records of 18 KiB")
    args = made.parse_args()
    if args.smoke:
        args.repeats, args.records, args.reads, args.write_repeats = 3, 256, 200, 1
        args.batch, args.write_batch = 8, 64
    return args


def main() -> int:
    args = options()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        measured: dict[str, dict[str, Any]] = {
            "ResNet-56 -> 20": residual(args, root),
            "decoder": decoder(args, root),
        }
        written = writing(args, root)
        read = reading(args, root)
    width = sizes()
    rows = [
        (name, f"{row['cached_ms']:.1f}", f"{row['student_ms']:.1f}", spread(row), STEP_TARGET)
        for name, row in measured.items()
    ]
    print(table(("training", "cached ms", "student ms", "ratio (quartiles)", "target"), rows))
    print(
        f"\nwriting: {written['write_per_second']:.0f} records/s, the teacher alone "
        f"{written['forward_per_second']:.0f}; ratio {written['ratio']:.3f}, "
        f"target {WRITE_TARGET}\n"
    )
    rows = [(name, f"{r['batch_1']:,.0f}", f"{r['batch_64']:,.0f}") for name, r in read.items()]
    print(table(("random reads, records/s", "one", "batch 64"), rows), end="\n\n")
    rows = [(name, f"{size['sample']:,}", f"{size['token']:,}") for name, size in width.items()]
    print(table(("bytes", "sample", "token"), rows), end="\n\n")
    missed = [
        f"{name}: {row['ratio']:.3f} of the step on labels, at most {STEP_TARGET}"
        for name, row in measured.items()
        if row["ratio"] > STEP_TARGET
    ]
    if written["ratio"] < WRITE_TARGET:
        missed.append(f"writing: {written['ratio']:.3f} of the teacher, at least {WRITE_TARGET}")
    found = {"training": measured, "writing": written, "reading": read, "bytes": width}
    return finish("cache", args, found, missed)


if __name__ == "__main__":
    sys.exit(main())
