"""Distillation at full size on one accelerator: speed, utilisation, memory.

    python benchmarks/accelerator.py --torch-python <python with torch>   # on a GPU of 80 GB
    python benchmarks/accelerator.py --cases "kd ViT" --repeats 20
    python benchmarks/accelerator.py --tiny                               # on any machine
    python benchmarks/accelerator.py --device H200      # its memory there, from any machine

Whole steps in bfloat16 (parameters and optimizer in float32): soft labels and DMAE from ViT-L to
ViT-B and soft labels from ResNet-152 to ResNet-50 at 224 pixels, and a decoder of 1B that learns
from one of 7B on 4,096 tokens by a divergence from hidden states.

- ``a second``: images or tokens.
- ``utilisation``: of the device's peak in bfloat16, the operations that a step must do: three times
  the student's forward pass and once the teacher's, as XLA counts them in nets without loops.
- ``peak``: GiB in use at most, as the device says; XLA's plan where it does not.
- ``ratio``: our time over that of ``torch.compile``, in turn in the same run, where an interpreter
  with PyTorch is given; for the decoder PyTorch has whole logits, or Liger's loss from hidden
  states, not compiled, where ``liger_kernel`` is there too.

With ``--device`` the steps are compiled for a device that is not here, from shapes, and not run:
``peak`` is what XLA plans for it, and there are no times.

Every case is a process of its own: peak memory is the process's.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

# What is not used is not taken: peaks are those of the step.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import _absent
import jax
import jax.numpy as jnp
import optax
from _measure import alone, compiled, finish, in_turn, median_ms, parser, ratio, spread, table
from _worker import Worker, finds_torch, has, torch_option
from against_torch import decoders, masked_autoencoders, numbers

from jaxdistill import losses, models, targets
from jaxdistill.distiller import model_to_model
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.objective import match

# bfloat16, dense, by the name of the device.
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "B200": 2250e12, "L4": 121e12}
UTILISATION = 0.5
VIT = {"teacher": (1024, 24, 16), "student": (768, 12, 12), "side": 224, "patch": 16}
DECODER: dict[str, Any] = {
    "case": "decoder",
    "teacher": (4096, 32, 32, 11008),
    "student": (2048, 16, 16, 5504),
    "vocabulary": 32_000,
    "batch": 2,
    "length": 2048,
}
CASES: dict[str, dict[str, Any]] = {
    "kd ViT-L -> ViT-B": {"case": "imagenet", **VIT, "batch": 128},
    "dmae ViT-L -> ViT-B": {"case": "dmae", **VIT, "taps": (8, 17), "batch": 256},
    "kd ResNet-152 -> 50": {
        "case": "imagenet",
        "teacher": 152,
        "student": 50,
        "side": 224,
        "batch": 128,
    },
    "kd decoder 7B -> 1B": DECODER,
    "kd decoder 7B -> 1B, Liger": {**DECODER, "liger": True},
}
TINY: dict[str, dict[str, Any]] = {
    "imagenet": {"teacher": (48, 2, 2), "student": (24, 2, 2), "side": 32, "batch": 2},
    "dmae": {"teacher": (48, 2, 2), "student": (24, 2, 2), "taps": (0, 1), "side": 32, "batch": 2},
    "decoder": {"teacher": (32, 2, 2, 64), "student": (16, 2, 2, 32), "vocabulary": 64},
}
Made = tuple[Any, Any, Any, tuple[Any, Any, Any]]


def tiny(settings: dict[str, Any]) -> dict[str, Any]:
    """The same in a size that only shows that it runs."""
    changed = TINY[settings["case"]]
    if settings.get("teacher") == 152:
        return {**settings, "teacher": 34, "student": 18, "side": 32, "batch": 2}
    return {**settings, **changed, **({"length": 16} if "length" in settings else {})}


def imagenet(settings: dict[str, Any], **kinds: Any) -> Made:
    names = ("width", "depth", "heads")
    if "patch" in settings:
        teacher, student = (
            from_linen(
                models.ViT(
                    patch=settings["patch"],
                    classes=1000,
                    **dict(zip(names, settings[side], strict=True)),
                    **kinds,
                )
            )
            for side in ("teacher", "student")
        )
    else:
        teacher, student = (
            from_linen(models.imagenet_resnet(depth=settings[side], **kinds))
            for side in ("teacher", "student")
        )
    soft = match(losses.hinton_kd, name="kd", temperature=1.0)
    distiller = model_to_model(student, targets.live(teacher), soft, optax.adamw(1e-3))
    image = numbers(settings["batch"], settings["side"], settings["side"], 3)
    return distiller, {"teacher": teacher}, {"image": image}, (teacher, student, image)


def dmae(settings: dict[str, Any], **kinds: Any) -> Made:
    distiller, teacher, student, batch = masked_autoencoders(settings, optax.adamw(1e-3), **kinds)
    visible = (settings["side"] // settings["patch"]) ** 2 // 4
    keep = jnp.zeros((settings["batch"], visible), jnp.int32)
    return distiller, {"teacher": teacher}, batch, (teacher, student, {**batch, "keep": keep})


def decoder(settings: dict[str, Any], **kinds: Any) -> Made:
    distiller, teacher, student, batch = decoders({**settings, "remat": True}, **kinds)
    return distiller, {"teacher": teacher}, batch, (teacher, student, batch["student"])


OURS = {"imagenet": imagenet, "dmae": dmae, "decoder": decoder}


def forward_flops(net: Any, inputs: Any) -> float:
    """Operations of a forward pass, counted before anything is compiled."""
    shapes = jax.eval_shape(lambda x: x, inputs)
    variables = jax.eval_shape(net.init, jax.random.key(0), shapes)
    lowered = jax.jit(lambda v, x: net.apply(*v, x).out).lower(variables, shapes)
    cost: Any = lowered.cost_analysis()
    return float(cost["flops"])


def narrow(variables: Any) -> Any:
    """A teacher's parameters: it is only read, so half of their bytes are enough."""
    return jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 and x.ndim > 1 else x, variables
    )


def planned(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """One case for a device that is not here: what is known before it runs."""
    with _absent.as_on_accelerators():
        place = jax.sharding.SingleDeviceSharding(_absent.devices(name)[0])
        distiller, teachers, batch, (teacher, student, inputs) = OURS[settings["case"]](
            settings, dtype=jnp.bfloat16
        )
        key = jax.random.key(0)
        frozen = {
            name: jax.eval_shape(lambda key, x, net=net: narrow(net.init(key, x)), key, inputs)
            for name, net in teachers.items()
        }
        state = jax.eval_shape(distiller.init, key, frozen, batch)
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            (state, frozen, batch),
        )
        made = compiled(distiller.step, *shapes, donate_argnums=0)
        needed = 3 * forward_flops(student, inputs) + forward_flops(teacher, inputs)
    return {
        "teraflops_a_step": needed / 1e12,
        "peak_gib": made.memory["peak_mib"] / 2**10,
        "compile_seconds": made.trace_seconds + made.compile_seconds,
    }


def measure(settings: dict[str, Any], args: Any, python: str | None) -> dict[str, Any]:
    """One case in this process."""
    device = jax.devices()[0]
    distiller, teachers, batch, (teacher, student, inputs) = OURS[settings["case"]](
        settings, dtype=jnp.bfloat16
    )
    frozen = {
        name: jax.jit(lambda key, x, net=net: narrow(net.init(key, x)))(jax.random.key(1), inputs)
        for name, net in teachers.items()
    }
    state = jax.jit(distiller.init)(jax.random.key(0), frozen, batch)
    made = compiled(distiller.step, state, frozen, batch, donate_argnums=0)
    held = [state]
    del state

    def ours() -> Any:
        held[0], metrics = made.call(held[0], frozen, batch)
        return metrics["loss"]

    calls = {"jax": ours}
    worker = None
    liger = settings.get("liger", False)
    if python is not None and liger and not has("liger_kernel", python):
        print("no liger_kernel there: our own times alone", file=sys.stderr)
        python = None
    if python is not None:
        platform = "cuda" if device.platform == "gpu" else "cpu"
        more = {"device": platform, "bfloat16": True, "compile": platform == "cuda" and not liger}
        worker = Worker(python, {**settings, **more}, len(os.sched_getaffinity(0)))
        calls["torch"] = lambda: worker.steps(1)
    times = in_turn(calls, args.repeats, warmup=3)
    if worker is not None:
        worker.close()
    needed = 3 * forward_flops(student, inputs) + forward_flops(teacher, inputs)
    ms = median_ms(times["jax"])
    units = settings["batch"] * settings.get("length", 1)
    peak = next((v for name, v in PEAK.items() if name in device.device_kind), None)
    stats = device.memory_stats() or {}
    found = {
        "ms": ms,
        "a_second": 1e3 * units / ms,
        "unit": "tokens" if "length" in settings else "images",
        "teraflops_a_step": needed / 1e12,
        "utilisation": None if peak is None else needed / (ms / 1e3) / peak,
        "peak_gib": stats.get("peak_bytes_in_use", made.memory["peak_mib"] * 2**20) / 2**30,
        "compile_seconds": made.trace_seconds + made.compile_seconds,
    }
    if worker is not None:
        found |= {**ratio(times, "jax", "torch"), "torch_ms": median_ms(times["torch"])}
        found["torch"] = worker.version
    return found


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--tiny", action="store_true", help="small nets, on any machine")
    torch_option(made)
    made.add_argument("--cases", nargs="+", default=list(CASES), help="names, or parts of them")
    made.add_argument("--repeats", type=int, default=20)
    made.add_argument("--one", help="one case, in this process")
    _absent.option(made)
    args = made.parse_args()
    args.tiny = args.tiny or args.smoke
    args.smoke = args.tiny  # no target is checked
    if args.tiny:
        args.repeats = 1
    python = None if args.device else finds_torch(args)
    if args.one:
        settings = tiny(CASES[args.one]) if args.tiny else CASES[args.one]
        row = planned(settings, args.device) if args.device else measure(settings, args, python)
        print(json.dumps(row))
        return 0
    if not (args.device or args.tiny) and jax.default_backend() == "cpu":
        print("no accelerator here: nothing is measured; --tiny shows that it runs\n")
        return finish("accelerator", args, {"steps": {}})
    chosen = [name for name in CASES if any(part in name for part in args.cases)]
    if args.device:
        # Liger's loss is torch's: our own step is the same.
        chosen = [name for name in chosen if not CASES[name].get("liger")]
    more = ["--repeats", str(args.repeats), "--device", args.device]
    more += ["--torch-python", python] if python else []
    more += ["--tiny"] if args.tiny else []
    rows, faults = alone(__file__, chosen, more)
    missed = []
    for name, row in rows.items():
        used = row.get("utilisation")
        if used is not None and used < UTILISATION:
            missed.append(f"{name}: {used:.0%} of the peak, at least {UTILISATION:.0%}")
        if row.get("ratio", 0) > 1:
            missed.append(f"{name}: {row['ratio']:.2f} of torch.compile, at most 1")
    columns = ("step", "teraflops", "peak GiB", "compile s")
    cells = [
        (
            name,
            f"{row['teraflops_a_step']:.1f}",
            f"{row['peak_gib']:.2f}",
            f"{row['compile_seconds']:.1f}",
        )
        for name, row in rows.items()
    ]
    if not args.device:
        columns += ("ms", "a second", "utilisation", "over torch")
        cells = [
            (
                *cell,
                f"{row['ms']:.1f}",
                f"{row['a_second']:,.0f} {row['unit']}",
                "" if row["utilisation"] is None else f"{row['utilisation']:.1%}",
                spread(row) if "ratio" in row else "",
            )
            for cell, row in zip(cells, rows.values(), strict=True)
        ]
    print(table(columns, cells), end="\n\n")
    return finish(_absent.named("accelerator", args), args, {"steps": rows}, missed, faults)


if __name__ == "__main__":
    sys.exit(main())
