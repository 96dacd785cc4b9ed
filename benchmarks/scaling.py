"""What devices send each other, and what a step costs as it grows.

    python benchmarks/scaling.py            # minutes on two cores
    python benchmarks/scaling.py --smoke    # small sizes, no target is checked

- ``communication``: compiled steps of students on 1, 2, 4 and 8 (forced) devices, data parallel and
  with sliced parameters, and what every communication in their text is for. The target: gradients
  are added, sliced parameters gathered, losses and batch statistics summed, and of a loss that
  couples the batch its features gathered; nothing else. Bytes are those that one device receives.
- ``growth``: a step's operations and temporary memory as XLA counts them, and its time, against
  depth, tokens, vocabulary, taps, teachers and seeds; what grows more than in proportion is said.
  Drawn into ``benchmarks/results/scaling_<axis>.svg``.

Times are of one core that others may use; operations and bytes are exact.
"""

from __future__ import annotations

import os

# Before JAX starts: devices to share a batch out to.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import functools
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from _measure import Compiled, compiled, finish, parser, seconds, table

from jaxdistill import adapt, language, losses, models, objective, targets
from jaxdistill.data import views
from jaxdistill.distiller import model_to_model
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import Net
from jaxdistill.training.collectives import tally
from jaxdistill.training.sharding import (
    batch_sharding,
    make_mesh,
    on_mesh,
    replicated,
    shardings,
)

RESULTS = Path(__file__).parent / "results"
CLASSES = 10
PURPOSES = ("gradients", "parameters", "sums", "batch", "other")


class Case(NamedTuple):
    """A distiller, its teachers by name, and the shapes of a batch."""

    distiller: Any
    teachers: Mapping[str, Net]
    batch: Any
    inputs: str = "image"


def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def images(examples: int, side: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        "image": shape(examples, side, side, 3),
        "label": shape(examples, dtype=jnp.int32),
        "index": shape(examples, dtype=jnp.int32),
    }


def vit(width: int, depth: int = 2) -> Net:
    return from_linen(models.ViT(patch=4, width=width, depth=depth, heads=2, classes=CLASSES))


SOFT = objective.match(losses.hinton_kd, name="kd", temperature=4.0)


def kd(examples: int, depth: int = 2, side: int = 16, teachers: int = 1) -> Case:
    """Soft labels between transformers; several teachers are an ensemble."""
    student, teacher = vit(64, depth), vit(96, depth)
    names = [f"teacher_{number}" for number in range(teachers)]
    goal = targets.ensemble({name: targets.live(teacher, name) for name in names})
    distiller = model_to_model(student, goal, SOFT, optax.adamw(1e-3))
    return Case(distiller, dict.fromkeys(names, teacher), images(examples, side))


def residual(examples: int) -> Case:
    """Soft labels between residual networks, whose norms mean the global batch."""
    student, teacher = (
        from_linen(models.cifar_resnet(depth=8, width_multiplier=m, classes=CLASSES))
        for m in (1, 2)
    )
    distiller = model_to_model(student, targets.live(teacher), SOFT, optax.sgd(0.1, momentum=0.9))
    return Case(distiller, {"teacher": teacher}, images(examples, 16))


def rkd(examples: int) -> Case:
    """Distances and angles between all examples."""
    student, teacher = vit(64), vit(96)
    entries = {
        name: objective.match(loss, name=name, student=TAP, target=TAP)
        for name, loss in (("distance", losses.rkd_distance), ("angle", losses.rkd_angle))
    }
    goal = targets.live(teacher, taps=(TAP,))
    terms = objective.combine({"kd": SOFT, **entries})
    distiller = model_to_model(student, goal, terms, optax.adamw(1e-3), taps=(TAP,))
    return Case(distiller, {"teacher": teacher}, images(examples, 16))


TAP = "head"


def crd(examples: int) -> Case:
    """Contrast with a memory bank that every step writes to."""
    student, teacher = vit(64), vit(96)

    def init(key, forward, goal, batch):
        return {}, losses.crd_bank(key, 512, CLASSES)

    def terms(params, bank, forward, goal, batch, *, step):
        key = jax.random.fold_in(jax.random.key(0), step)
        ours, theirs = forward.out, goal["out"]
        negatives = losses.crd_negatives(key, batch["index"], bank, count=32)
        bank = losses.crd_calibrate(bank, ours, theirs, negatives)
        values = losses.crd(ours, theirs, bank, negatives)
        bank = losses.crd_update(bank, ours, theirs, batch["index"])
        return {"crd": objective.per_example(1.0, values)}, bank

    whole = objective.Objective(init, terms)
    distiller = model_to_model(student, targets.live(teacher), whole, optax.adamw(1e-3))
    return Case(distiller, {"teacher": teacher}, images(examples, 16))


def dmae(examples: int, taps: int = 1, depth: int = 2, side: int = 32) -> Case:
    """Masked autoencoders: pixels, and projected features at some taps."""
    decoder: dict[str, Any] = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
    student, teacher = (
        from_linen(models.MAE(patch=4, width=width, depth=depth, heads=2, **decoder))
        for width in (64, 96)
    )
    paths = tuple(f"encoder/block_{number}" for number in range(taps))
    entries = {
        "pixels": objective.match(
            losses.feature_match,
            name="pixels",
            student="out/pixels",
            target="batch/patches",
            where="batch/mask",
        )
    }
    for path in paths:
        name = path.replace("/", "_")
        entries[name] = objective.match(
            losses.feature_match, name=name, student=path, target=path, projector=adapt.linear
        )
    distiller = model_to_model(
        student,
        targets.live(teacher, inputs="teacher", taps=paths),
        objective.combine(entries),
        optax.adamw(1e-3),
        inputs="student",
        taps=paths,
        prepare=views.masked(patch=4, ratio=0.75),
    )
    return Case(distiller, {"teacher": teacher}, images(examples, side), "student")


def decoder(examples: int, length: int = 24, vocabulary: int = 512) -> Case:
    """Language models: a divergence from hidden states, a few tokens at a time."""
    student, teacher = (
        from_linen(models.Decoder(vocabulary=vocabulary, width=w, depth=2, heads=2, groups=2))
        for w in (64, 96)
    )
    inputs = {"tokens": shape(examples, length, dtype=jnp.int32)}
    rows = {"label": inputs["tokens"], "counted": shape(examples, length, dtype=jnp.bool_)}
    distiller = model_to_model(
        student,
        language.teacher_states(teacher),
        language.divergence_per_token(chunk=64),
        optax.adamw(1e-3),
        inputs="student",
        taps=("norm",),
    )
    batch = {**inputs, **rows, "student": inputs, "teacher": inputs}
    return Case(distiller, {"teacher": teacher}, batch, "teacher")


CASES: dict[str, Callable[[int], Case]] = {
    "kd": kd,
    "kd, batch norm": residual,
    "rkd": rkd,
    "crd": crd,
    "dmae": dmae,
    "decoder, fused": decoder,
}


def frozen_shapes(case: Case) -> dict[str, Any]:
    """The teachers' variables, as shapes."""
    inputs = case.batch.get(case.inputs, case.batch.get("image"))
    if case.inputs == "student":
        inputs = {"image": inputs, "keep": shape(inputs.shape[0], 4, dtype=jnp.int32)}
    key = jax.random.key(0)
    return {name: jax.eval_shape(net.init, key, inputs) for name, net in case.teachers.items()}


def step_on(case: Case, mesh: jax.sharding.Mesh) -> tuple[Compiled, Any]:
    """The compiled step of a case on a mesh, as the loop compiles it, and the arrays in it."""
    frozen = frozen_shapes(case)
    state = jax.eval_shape(case.distiller.init, jax.random.key(0), frozen, case.batch)

    def placed(tree: Any, where: Any) -> Any:
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, where
        )

    of_state = shardings(mesh, state)
    batch = placed(case.batch, jax.tree.map(lambda _: batch_sharding(mesh), case.batch))
    made = compiled(
        on_mesh(case.distiller.step, mesh),
        placed(state, of_state),
        placed(frozen, shardings(mesh, frozen)),
        batch,
        donate_argnums=0,
        out_shardings=(of_state, replicated(mesh)),
    )
    return made, (state.params, state.state, frozen)


def communication(counts: list[int], examples: int) -> list[dict[str, Any]]:
    """What is sent by the step of every case, on every number of devices."""
    rows = []
    for name, make in CASES.items():
        for devices in counts:
            for axis in ("data", "fsdp") if devices > 1 else ("data",):
                mesh = make_mesh({"data": 1, axis: devices}, jax.devices()[:devices])
                made, arrays = step_on(make(examples * devices), mesh)
                rows.append(
                    {
                        "case": name,
                        "devices": devices,
                        "axis": axis,
                        "sent": tally(made.call, arrays, examples * devices),
                        "flops": made.flops,
                        **made.memory,
                    }
                )
    return rows


# What grows, the sizes it takes, and the case of each.
AXES: dict[str, tuple[str, tuple[int, ...], Callable[[int], Case]]] = {
    "depth": ("blocks of both nets", (2, 4, 8, 16), lambda n: kd(8, depth=n)),
    "tokens": ("tokens of an image", (16, 64, 144, 256), lambda n: kd(4, side=4 * math.isqrt(n))),
    "vocabulary": (
        "classes of both heads",
        (2048, 4096, 8192, 16_384),
        lambda n: decoder(8, vocabulary=n),
    ),
    "taps": ("features compared", (1, 2, 4, 8), lambda n: dmae(8, taps=n, depth=8)),
    "teachers": ("teachers of an ensemble", (1, 2, 4, 8), lambda n: kd(8, teachers=n)),
    "seeds": ("students at once, by vmap", (1, 2, 4, 8), lambda n: kd(8)),
}


def growth(name: str, sizes: tuple[int, ...], make: Callable, repeats: int) -> list[dict[str, Any]]:
    """The cost of a step at every size."""
    rows = []
    for size in sizes:
        case = make(size)
        frozen = frozen_shapes(case)
        state = jax.eval_shape(case.distiller.init, jax.random.key(0), frozen, case.batch)
        step = case.distiller.step
        if name == "seeds":
            step = jax.vmap(step, (0, None, None))
            state = jax.tree.map(lambda x, n=size: stacked(x, n), state)
        made = compiled(step, state, frozen, case.batch)
        given = jax.tree.map(zeros, (state, frozen, case.batch))
        call = functools.partial(made.call, *given)
        seconds(call)
        rows.append(
            {
                "size": size,
                "flops": made.flops,
                # The least by the processor's clock: other work can only add to it.
                "ms": 1e3 * min(seconds(call).processor for _ in range(repeats)),
                "compile_seconds": made.trace_seconds + made.compile_seconds,
                **made.memory,
            }
        )
    return rows


def stacked(x: jax.ShapeDtypeStruct, count: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, *x.shape), x.dtype)


def zeros(x: jax.ShapeDtypeStruct) -> jax.Array:
    """Arrays to run on; what they hold does not change the time."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), x.shape) if x.shape else jax.random.key(0)
    return jnp.zeros(x.shape, x.dtype)


def exponent(rows: list[dict[str, Any]], key: str) -> float:
    """The power of the size by which a cost grows between its last two sizes."""
    first, last = rows[-2], rows[-1]
    return math.log(last[key] / first[key]) / math.log(last["size"] / first["size"])


def draw(name: str, text: str, rows: list[dict[str, Any]]) -> None:
    """Cost against size, each over that of the smallest, as a picture; what is exact of it."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    sizes = [row["size"] for row in rows]
    figure, axes = plt.subplots(figsize=(4.2, 3.2), layout="constrained")
    for key, label, mark in (
        ("flops", "operations", "o"),
        ("temporary_mib", "temporary memory", "s"),
    ):
        axes.plot(sizes, [row[key] / rows[0][key] for row in rows], marker=mark, label=label)
    axes.plot(sizes, [size / sizes[0] for size in sizes], "--", color="0.6", label="in proportion")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel(text)
    axes.set_ylabel("times that of the smallest")
    axes.legend(frameon=False)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / f"scaling_{name}.svg", metadata={"Date": None})
    plt.close(figure)


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    made.add_argument("--examples", type=int, default=40, help="in a batch, of each device")
    made.add_argument("--repeats", type=int, default=7)
    args = made.parse_args()
    if args.smoke:
        args.devices, args.repeats = [1, 2], 1
    sent = communication(args.devices, args.examples)
    rows = [
        (
            row["case"],
            row["devices"],
            row["axis"],
            *(
                f"{row['sent'][p]['count']}: {row['sent'][p]['bytes'] / 1024:,.0f}"
                if p in row["sent"]
                else ""
                for p in PURPOSES
            ),
            f"{row['flops'] / 1e6:.1f}",
            f"{row['temporary_mib']:.2f}",
        )
        for row in sent
    ]
    columns = [f"{each}: KiB" for each in PURPOSES]
    head = ("step", "devices", "over", *columns, "MFLOP a device", "temporary MiB")
    print(table(head, rows), end="\n\n")
    missed = [
        f"{row['case']} on {row['devices']} ({row['axis']}): {row['sent']['other']} besides"
        for row in sent
        if "other" in row["sent"]
    ]
    found: dict[str, Any] = {}
    for name, (text, sizes, make) in AXES.items():
        sizes = sizes[:2] if args.smoke else sizes
        found[name] = growth(name, sizes, make, args.repeats)
        if not args.smoke:
            draw(name, text, found[name])
    rows = [
        (
            name if row is each[0] else "",
            f"{row['size']:,}",
            f"{row['flops'] / 1e6:,.0f}",
            f"{row['temporary_mib']:.1f}",
            f"{row['ms']:.1f}",
            f"{row['compile_seconds']:.1f}",
            *(f"{exponent(each, key):.2f}" if row is each[-1] else "" for key in ("flops", "ms")),
        )
        for name, each in found.items()
        for row in each
    ]
    head = (
        "grows",
        "size",
        "MFLOP",
        "temporary MiB",
        "ms",
        "compile s",
        "power, FLOP",
        "power, ms",
    )
    print(table(head, rows), end="\n\n")
    return finish("scaling", args, {"communication": sent, "growth": found}, missed)


if __name__ == "__main__":
    sys.exit(main())
