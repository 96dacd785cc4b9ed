"""What a student costs that is its teacher with low-rank adapters, against one that is trained
whole from a copy of it: numbers trained, bytes of the state and of the step.

Nothing is run: the steps are compiled for shapes, and XLA says what they hold. Both learn the
teacher's logits by AdamW; the one trained whole holds its teacher besides. The target is that what
is held between steps (weights, optimizer, teacher) is at most 0.6 of the other's.

    python benchmarks/adapters.py [--smoke] [--shapes]

With ``--shapes`` nothing is compiled either, and what a step holds within is not known.
Prints a table, then one JSON object; exits with 1 when the target is missed.
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax
from _measure import compiled, finish, parser, table

import jaxdistill as jd
from jaxdistill import lora, models
from jaxdistill.losses import hinton_kd

TARGET, RANK = 0.6, 8


def nets(smoke: bool) -> dict[str, tuple[Any, Any, tuple[str, ...]]]:
    """By name a module, what it sees, and where it gets adapters."""
    small: dict[str, Any] = {"width": 32, "depth": 2, "heads": 2}
    vit: dict[str, Any] = small if smoke else {"width": 384, "depth": 12, "heads": 6}
    decoder: dict[str, Any] = small if smoke else {"width": 512, "depth": 12, "heads": 8}
    unet: dict[str, Any] = {"width": 16, "multipliers": (1, 2), "depth": 1, "attention": (16,)}
    unet = unet if smoke else {**unet, "width": 96, "multipliers": (1, 2, 2), "depth": 2}
    images = jnp.zeros((2 if smoke else 4, 224, 224, 3))
    tokens = jnp.zeros((2, 128), jnp.int32)
    noised = {"image": jnp.zeros((8, 32, 32, 3)), "time": jnp.zeros(8)}
    return {
        "ViT-S/16, scanned": (
            models.ViT(patch=16, classes=1000, scan=True, **vit),
            images,
            ("attn", "mlp"),
        ),
        "decoder of 12 layers, scanned": (
            models.Decoder(vocabulary=16_000, scan=True, **decoder),
            tokens,
            ("_proj",),
        ),
        "U-Net at 32 pixels": (models.UNet(**unet), noised, ("conv_", "qkv", "proj")),
    }


def objective(forward: Any, goal: Any, batch: Any) -> dict[str, Any]:
    if forward.out.ndim == 4:
        gap = (forward.out - goal["out"]) ** 2
        return {"l2": jd.per_example(1.0, gap.mean((1, 2, 3)))}
    width = forward.out.shape[-1]
    own, theirs = forward.out.reshape(-1, width), goal["out"].reshape(-1, width)
    return {"kd": jd.per_example(1.0, hinton_kd(own, theirs, temperature=2.0))}


def size(tree: Any) -> float:
    """MiB of arrays."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) / 2**20


def held(student: Any, net: Any, variables: Any, inputs: Any, compiles: bool) -> dict[str, float]:
    """What a student holds between steps and, as XLA plans it, within one."""
    distiller = jd.model_to_model(student, jd.targets.live(net), objective, optax.adamw(1e-3))
    frozen, batch = {"teacher": variables}, {"image": inputs}
    state = jax.eval_shape(distiller.init, jax.random.key(0), frozen, batch)
    found = {
        "trained": lora.numbers(state.params["net"]),
        "optimizer_mib": size(state.opt),
        "held_mib": size((state, frozen)),
    }
    if compiles:
        made = compiled(distiller.step, state, frozen, batch, donate_argnums=0)
        found["temporary_mib"] = made.memory["temporary_mib"]
    return found


def main() -> int:
    options = parser(__doc__, "tiny nets")
    options.add_argument("--shapes", action="store_true", help="nothing is compiled")
    arguments = options.parse_args()
    found, rows, missed = {}, [], []
    for name, (module, inputs, at) in nets(arguments.smoke).items():
        net = jd.from_linen(module)
        inputs = jax.eval_shape(lambda x=inputs: x)
        variables = jax.eval_shape(net.init, jax.random.key(0), inputs)
        adapted = lora.adapted(net, "teacher", at=at, rank=RANK)
        seen = variables, inputs, not arguments.shapes
        each = {"whole": held(net, net, *seen), "adapters": held(adapted, net, *seen)}
        share = each["adapters"]["held_mib"] / each["whole"]["held_mib"]
        found[name] = {**each, "share": share}
        for kind, own in each.items():
            within = own.get("temporary_mib")
            rows.append(
                (
                    name,
                    kind,
                    f"{own['trained'] / 1e6:.2f} M",
                    f"{own['optimizer_mib']:.1f}",
                    f"{own['held_mib']:.0f}",
                    "" if within is None else f"{within:.0f}",
                )
            )
        if share > TARGET:
            missed.append(f"{name}: with adapters {share:.2f} of the other is held")
    heads = ("net", "student", "trained", "optimizer, MiB", "held, MiB", "within a step, MiB")
    print(table(heads, rows), end="\n\n")
    return finish("adapters", arguments, found, missed if not arguments.smoke else [])


if __name__ == "__main__":
    sys.exit(main())
