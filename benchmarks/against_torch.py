"""Training steps of distillation beside the same written plainly in PyTorch, channels last.

    python benchmarks/against_torch.py --torch-python <python with torch>
    python benchmarks/against_torch.py --cases kd decoder --repeats 21
    python benchmarks/against_torch.py --devices 2     # our step shared out over two host devices
    python benchmarks/against_torch.py --smoke

Same nets (their numbers of parameters are compared), same sizes, same optimizer, float32, data in
memory; all of one step in both: teacher, student, losses, gradients, update. Every case is a
process of its own, and so is PyTorch, by an interpreter of its own if one is given; both take
turns, so that other work on the machine slows both down alike. ``ratio`` is our time over
PyTorch's, the median over rounds.

Both use as many threads as the process may use cores; ``taskset`` sets that. XLA on CPUs leaves
much of a step to one thread; with ``--devices`` it has as many devices as told, each with its part
of the batch, as ``python -m jaxdistill.main`` has them with the same flag of XLA's.

The target is 1.0 for transformers and perceptrons and 1.15 for residual networks.

Without a PyTorch to be found our own times alone are printed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _measure import (
    alone,
    compiled,
    finish,
    highest,
    in_turn,
    median_ms,
    parser,
    ratio,
    spread,
    table,
)
from _worker import Worker, finds_torch, torch_option

from jaxdistill import adapt, language, losses, models, targets
from jaxdistill.data import views
from jaxdistill.distiller import model_to_model
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.objective import Objective, combine, match, per_example
from jaxdistill.training.sharding import batch_sharding, make_mesh, on_mesh, replicated

CLASSES = 100
Made = tuple[Any, Any, Any]  # distiller, frozen, batch
Taught = tuple[Any, Any, Any, Any]  # distiller, teacher, student, batch


def numbers(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def integers(most: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).integers(0, most, shape), jnp.int32)


def contrast(width: int, count: int) -> Objective:
    """CRD with its two embeddings and banks of 50,000 records."""
    ours, theirs = (adapt.linear((1, size), (1, 128)) for size in (width, count))

    def init(key, forward, goal, batch):
        keys = jax.random.split(key, 3)
        params = {
            "ours": ours.init(keys[0], forward.taps["pooled"])[0],
            "theirs": theirs.init(keys[1], goal["pooled"])[0],
        }
        bank = losses.crd_bank(keys[2], 50_000, 128)
        return params, {"bank": bank, "step": jnp.zeros((), jnp.int32)}

    def terms(params, state, forward, goal, batch, *, step):
        a = ours.apply(params["ours"], {}, forward.taps["pooled"]).out
        b = theirs.apply(params["theirs"], {}, goal["pooled"]).out
        key = jax.random.fold_in(jax.random.key(7), step)
        negatives = losses.crd_negatives(key, batch["index"], state["bank"], count=4096)
        bank = losses.crd_calibrate(state["bank"], a, b, negatives)
        values = losses.crd(a, b, bank, negatives)
        bank = losses.crd_update(bank, a, b, batch["index"])
        return {"crd": per_example(0.8, values)}, {"bank": bank, "step": state["step"] + 1}

    return Objective(init, terms)


def residual(settings: dict[str, Any]) -> Made:
    kind, batch = settings["kind"], settings["batch"]
    teacher, student = (
        from_linen(
            models.cifar_resnet(
                depth=depth, width_multiplier=wider, classes=CLASSES, shortcut="conv"
            )
        )
        for depth, wider in (settings["teacher"], settings["student"])
    )
    soft = match(losses.hinton_kd, name="kd", weight=0.9, temperature=4.0)
    entries: dict[str, Any] = {
        "ce": match(losses.cross_entropy, name="ce", target="batch/label", weight=0.1),
        "kd": soft,
    }
    taps: tuple[str, ...] = ()
    if kind == "hint":
        taps = ("stage_2",)
        entries["hint"] = match(
            losses.hint,
            name="hint",
            student=taps[0],
            target=taps[0],
            weight=100.0,
            projector=adapt.linear,  # on maps a 1x1 convolution
        )
    if kind == "rkd":
        taps = ("pooled",)
        entries["rkd"] = match(losses.rkd, name="rkd", student=taps[0], target=taps[0])
    if kind == "crd":
        taps = ("pooled",)
        entries["crd"] = contrast(64 * settings["student"][1], 64 * settings["teacher"][1])
    goal = targets.live(teacher, taps=taps)
    if kind == "cached":
        goal = lambda sources, batch, key, step: {"out": batch["cached"]}  # noqa: E731
    tx = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.05, momentum=0.9))
    distiller = model_to_model(student, goal, combine(entries), tx, taps=taps)
    given = {
        "image": numbers(batch, 32, 32, 3),
        "label": integers(CLASSES, batch),
        "index": integers(50_000, batch),
        "cached": numbers(batch, CLASSES),
    }
    frozen = {"teacher": jax.jit(teacher.init)(jax.random.key(1), given["image"][:1])}
    return distiller, {} if kind == "cached" else frozen, given


def perceptron(settings: dict[str, Any]) -> Made:
    teacher, student = (from_linen(models.MLP(widths=(width,) * 2)) for width in (1200, 800))
    entries = {
        "ce": match(losses.cross_entropy, name="ce", target="batch/label", weight=0.1),
        "kd": match(losses.hinton_kd, name="kd", weight=0.9, temperature=4.0),
    }
    distiller = model_to_model(student, targets.live(teacher), combine(entries), optax.adam(1e-3))
    batch = settings["batch"]
    given = {"image": numbers(batch, 28, 28, 1), "label": integers(10, batch)}
    frozen = {"teacher": jax.jit(teacher.init)(jax.random.key(1), given["image"][:1])}
    return distiller, frozen, given


def masked_autoencoders(settings: dict[str, Any], tx: Any, **kinds: Any) -> Taught:
    """DMAE; ``kinds`` are further options of both nets."""
    side, patch = settings["side"], settings["patch"]
    teacher, student = (
        from_linen(
            models.MAE(
                patch=patch,
                **dict(zip(("width", "depth", "heads"), settings[name], strict=True)),
                decoder_width=128,
                decoder_depth=1,
                decoder_heads=4,
                **kinds,
            )
        )
        for name in ("teacher", "student")
    )
    ours, theirs = (f"encoder/block_{number}" for number in settings["taps"])
    pixels = match(
        losses.feature_match,
        name="pixels",
        student="out/pixels",
        target="batch/patches",
        where="batch/mask",
    )
    feature = match(
        losses.feature_match,
        name="feature",
        student=ours,
        target=theirs,
        weight=3.0,
        projector=adapt.linear,
        normalise="l2",
        distance="l1",
    )
    distiller = model_to_model(
        student,
        targets.live(teacher, inputs="teacher", taps=(theirs,)),
        combine({"pixels": pixels, "feature": feature}),
        tx,
        inputs="student",
        taps=(ours,),
        prepare=views.masked(patch=patch, ratio=0.75),
    )
    return distiller, teacher, student, {"image": numbers(settings["batch"], side, side, 3)}


def decoders(settings: dict[str, Any], **kinds: Any) -> Taught:
    """A divergence from hidden states; ``kinds`` are further options of both nets."""
    names = ("width", "depth", "heads", "hidden")
    teacher, student = (
        from_linen(
            models.Decoder(
                vocabulary=settings["vocabulary"],
                remat=settings.get("remat", False) and side == "student",
                **dict(zip(names, settings[side], strict=True)),
                **kinds,
            )
        )
        for side in ("teacher", "student")
    )
    tokens = {"tokens": integers(settings["vocabulary"], settings["batch"], settings["length"])}
    distiller = model_to_model(
        student,
        language.teacher_states(teacher),
        language.divergence_per_token(),
        optax.adamw(1e-3),
        inputs="student",
        taps=("norm",),
    )
    rows = {"label": tokens["tokens"], "counted": jnp.ones(tokens["tokens"].shape, bool)}
    return distiller, teacher, student, {**rows, "student": tokens, "teacher": tokens}


def dmae(settings: dict[str, Any]) -> Made:
    tx = optax.adamw(1e-3, b2=0.95, weight_decay=0.05)
    distiller, teacher, _, given = masked_autoencoders(settings, tx)
    inputs = {"image": given["image"][:1], "keep": jnp.zeros((1, 1), jnp.int32)}
    return distiller, {"teacher": jax.jit(teacher.init)(jax.random.key(1), inputs)}, given


def decoder(settings: dict[str, Any]) -> Made:
    distiller, teacher, _, given = decoders(settings)
    variables = jax.jit(teacher.init)(jax.random.key(1), given["teacher"])
    return distiller, {"teacher": variables}, given


def nets(teacher: tuple[int, int], student: tuple[int, int], batch: int) -> dict[str, Any]:
    return {"case": "residual", "teacher": teacher, "student": student, "batch": batch}


FIFTY_SIX = nets((56, 1), (20, 1), 64)
WIDE = nets((32, 4), (8, 4), 64)
RESIDUAL = 1.15
# Settings, steps at a time, the most that our time may be of PyTorch's.
CASES: dict[str, tuple[dict[str, Any], int, float]] = {
    **{
        f"{kind} 56 -> 20": ({**FIFTY_SIX, "kind": kind}, 2, RESIDUAL)
        for kind in ("kd", "cached", "hint", "rkd", "crd")
    },
    "kd 56 -> 20, batch 128": ({**FIFTY_SIX, "kind": "kd", "batch": 128}, 1, RESIDUAL),
    **{
        f"{kind} 32x4 -> 8x4": ({**WIDE, "kind": kind}, 1, RESIDUAL)
        for kind in ("kd", "cached", "hint", "rkd", "crd")
    },
    "kd perceptrons": ({"case": "perceptron", "batch": 128}, 10, 1.0),
    "dmae ViT-B -> ViT-S": (
        {
            "case": "dmae",
            "teacher": (768, 12, 12),
            "student": (384, 12, 6),
            "taps": (8, 8),
            "side": 224,
            "patch": 16,
            "batch": 4,
        },
        1,
        1.0,
    ),
    "kd decoder": (
        {
            "case": "decoder",
            "teacher": (512, 4, 8, 1376),
            "student": (256, 4, 4, 688),
            "vocabulary": 8192,
            "batch": 8,
            "length": 128,
        },
        1,
        1.0,
    ),
}
OURS: dict[str, Callable[[dict[str, Any]], Made]] = {
    "residual": residual,
    "perceptron": perceptron,
    "dmae": dmae,
    "decoder": decoder,
}


def measure(name: str, args: Any, python: str | None) -> dict[str, Any]:
    """One case: both steps in turn."""
    settings, steps, target = CASES[name]
    if args.smoke:
        settings, steps = small(settings), 1
    threads = len(os.sched_getaffinity(0))
    distiller, frozen, batch = OURS[settings["case"]](settings)
    state = jax.jit(distiller.init)(jax.random.key(0), frozen, batch)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params["net"]))
    mesh = make_mesh()

    def place(x: Any) -> Any:
        examples = np.ndim(x) and np.shape(x)[0] == settings["batch"]
        return batch_sharding(mesh) if examples else replicated(mesh)

    state, frozen = jax.device_put((state, frozen), replicated(mesh))
    batch = jax.device_put(batch, jax.tree.map(place, batch))
    step = on_mesh(distiller.step, mesh)
    made = compiled(step, state, frozen, batch, donate_argnums=0, out_shardings=replicated(mesh))
    held = [state]

    def ours() -> Any:
        for _ in range(steps):
            held[0], metrics = made.call(held[0], frozen, batch)
        return metrics["loss"]

    found = {"parameters": parameters, "target": target, **made.memory}
    found |= {"trace_seconds": made.trace_seconds, "compile_seconds": made.compile_seconds}
    if python is None:
        times = in_turn({"jax": ours}, args.repeats)
        found |= {"resident_peak_mib": highest() / 2**20}
        return {**found, "jax_ms": median_ms(times["jax"]) / steps}
    worker = Worker(python, settings, threads)
    if not args.smoke and worker.parameters != parameters:
        print(f"{name}: {parameters} parameters here, {worker.parameters} there", file=sys.stderr)
    times = in_turn({"jax": ours, "torch": lambda: worker.steps(steps)}, args.repeats)
    worker.close()
    return {
        **found,
        **ratio(times, "jax", "torch"),
        "resident_peak_mib": highest() / 2**20,
        "jax_ms": median_ms(times["jax"]) / steps,
        "torch_ms": median_ms(times["torch"]) / steps,
        "torch_parameters": worker.parameters,
        "torch": worker.version,
        "threads": threads,
    }


def small(settings: dict[str, Any]) -> dict[str, Any]:
    """The same in a size that only shows that it runs."""
    changed: dict[str, Any] = {"batch": 4}
    if settings["case"] == "residual":
        changed |= {"teacher": (8, 1), "student": (8, 1)}
    if settings["case"] == "dmae":
        changed |= {"teacher": (48, 2, 3), "student": (24, 2, 3), "taps": (1, 1), "side": 32}
    if settings["case"] == "decoder":
        changed |= {"teacher": (32, 1, 2, 32), "student": (16, 1, 2, 16), "vocabulary": 64}
    return {**settings, **changed}


def main() -> int:
    made = parser(__doc__)
    torch_option(made)
    made.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="case")
    made.add_argument("--repeats", type=int, default=11, help="rounds")
    made.add_argument("--devices", type=int, default=1, help="host devices for our step")
    made.add_argument("--one", choices=CASES, metavar="case", help="this one, in this process")
    args = made.parse_args()
    if args.devices > 1:
        # Read when JAX first looks for devices.
        flag = f"--xla_force_host_platform_device_count={args.devices}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    if args.smoke:
        args.repeats = 1
    python = finds_torch(args)
    if args.one:
        print(json.dumps(measure(args.one, args, python)))
        return 0
    more = ["--repeats", str(args.repeats), "--devices", str(args.devices)]
    more += ["--torch-python", python] if python else []
    more += ["--smoke"] if args.smoke else []
    rows, faults = alone(__file__, args.cases, more)
    cells = [
        (
            name,
            f"{row['jax_ms']:.1f}",
            f"{row['torch_ms']:.1f}" if "torch_ms" in row else "",
            spread(row) if "ratio" in row else "",
            f"{row['processor_ratio']:.3f}" if "ratio" in row else "",
            row["target"],
            f"{row['trace_seconds'] + row['compile_seconds']:.1f}",
            f"{row['peak_mib']:.0f}",
        )
        for name, row in rows.items()
    ]
    columns = ("step", "jax ms", "torch ms", "ratio (quartiles)", "processor", "target")
    print(table((*columns, "compile s", "peak MiB"), cells), end="\n\n")
    missed = [
        f"{name}: {row['ratio']:.2f} of PyTorch, at most {row['target']}"
        for name, row in rows.items()
        if row.get("ratio", 0) > row["target"]
    ]
    name = "against_torch" if args.devices == 1 else f"against_torch_{args.devices}_devices"
    return finish(name, args, {"steps": rows}, missed, faults)


if __name__ == "__main__":
    sys.exit(main())
