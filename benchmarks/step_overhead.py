"""The library's step beside one written by hand, and a teacher tapped at half its depth.

    python benchmarks/step_overhead.py             # sizes for a CPU; a few minutes on two cores
    python benchmarks/step_overhead.py --smoke     # a few steps of small nets, no target is checked

Steps: the compiled step of ``model_to_model`` against the least that does the same in plain JAX
(``value_and_grad``, optax, all states donated), on the same nets, batches and random masks, for
the distillation of a masked autoencoder (DMAE) and for plain distillation of logits. The losses
are asserted to be equal. The steps are timed in turn, over and over; the target is a median ratio
of 1.03. ``CPU`` is the ratio of processor time, which other processes disturb less.

Teacher: a ViT run alone, as when a cache is written, whole and tapped at half its depth, with
unrolled and with scanned blocks. The target is 0.53 of the whole's compiled FLOPs, unrolled; XLA
counts the body of a loop once, so that scanned blocks are only timed.

Prints tables and, as its last line, JSON; exits with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _measure import compiled, finish, in_turn, median_ms, parser, ratio, spread, table

from jaxdistill import adapt, models, targets
from jaxdistill.data import views
from jaxdistill.distiller import model_to_model
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.losses import cross_entropy, feature_match, hinton_kd
from jaxdistill.objective import combine, match

STEP_TARGET, FLOPS_TARGET = 1.03, 0.53
EQUAL_STEPS = 8


class Arm(NamedTuple):
    """A compiled ``step(state, frozen, batch) -> (state, losses)`` and the state to start from."""

    step: Callable[..., tuple[Any, Any]]
    state: Any


class Case(NamedTuple):
    """One distillation by the steps ``library`` and ``by_hand``."""

    arms: dict[str, Arm]
    frozen: Any
    batches: list[Any]


class Plain(NamedTuple):
    """The state of a step written by hand."""

    step: jax.Array
    key: jax.Array
    params: Any
    opt: Any


def copied(tree: Any) -> Any:
    """Arrays of their own, as both arms donate what they are given."""
    return jax.tree.map(jnp.copy, tree)


def arms(
    distiller: Any, step: Callable, tx: Any, frozen: Any, batch: Any, params: Callable
) -> dict[str, Arm]:
    """All arms from one initial state; ``params`` names its parameters as the step by hand does."""
    first = jax.jit(distiller.init)(jax.random.key(0), frozen, batch)

    def plain():
        own = copied(params(first.params))
        return Plain(copied(first.step), copied(first.key), own, tx.init(own))

    return {
        "library": Arm(jax.jit(distiller.step, donate_argnums=0), first),
        "by_hand": Arm(jax.jit(step, donate_argnums=0), plain()),
    }


def descend(loss: Callable, tx: Any, state: Plain) -> tuple[Plain, dict[str, jax.Array]]:
    """The second half of every step by hand."""
    value, grads = jax.value_and_grad(loss)(state.params)
    updates, opt = tx.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    return Plain(state.step + 1, state.key, params, opt), {"loss": value}


def dmae(args: argparse.Namespace) -> Case:
    """Pixels of hidden patches, and projected L2-normalised features of the visible ones."""
    decoder = {"decoder_width": args.student_width, "decoder_depth": 1, "decoder_heads": 2}
    wide = models.MAE(
        patch=4, width=args.teacher_width, depth=args.teacher_depth, heads=4, **decoder
    )
    narrow = models.MAE(
        patch=4, width=args.student_width, depth=args.student_depth, heads=2, **decoder
    )
    teacher_tap = f"encoder/block_{3 * args.teacher_depth // 4 - 1}"
    student_tap = f"encoder/block_{3 * args.student_depth // 4 - 1}"
    view = views.masked(patch=4, ratio=0.75)
    tx = optax.adamw(1e-3, b2=0.95, weight_decay=0.05)
    weight = 3.0

    teacher, student = from_linen(wide), from_linen(narrow)
    pixels = match(
        feature_match,
        name="pixels",
        student="out/pixels",
        target="batch/patches",
        where="batch/mask",
    )
    feature = match(
        feature_match,
        name="feature",
        student=student_tap,
        target=teacher_tap,
        weight=weight,
        projector=adapt.linear,
        normalise="l2",
        distance="l1",
    )
    distiller = model_to_model(
        student,
        targets.live(teacher, inputs="teacher", taps=(teacher_tap,)),
        combine({"pixels": pixels, "feature": feature}),
        tx,
        inputs="student",
        taps=(student_tap,),
        prepare=view,
    )

    def tapped(module, params, inputs, tap):
        path = tuple(tap.split("/"))
        out, seen = module.apply(
            {"params": params},
            inputs,
            capture_intermediates=lambda m, _: m.path == path,
            mutable=["intermediates"],
        )
        return out, seen["intermediates"][path[0]][path[1]]["__call__"][0]

    def unit(x):
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    def step(state, frozen, batch):
        key = jax.random.split(jax.random.fold_in(state.key, state.step), 3)[0]
        batch = view(batch, key)
        _, goal = tapped(wide, frozen["teacher"][0], batch["teacher"], teacher_tap)

        def loss(params):
            out, hidden = tapped(narrow, params["net"], batch["student"], student_tap)
            error = jnp.square(out["pixels"] - batch["patches"]).mean(-1)
            pixels = (error * batch["mask"]).sum() / batch["mask"].sum()
            mapped = (
                hidden @ params["projector"]["kernel"] + params["projector"]["bias"][None, None]
            )
            feature = jnp.abs(unit(mapped) - unit(goal)).mean()
            return pixels + weight * feature

        return descend(loss, tx, state)

    images = (
        np.random.default_rng(0)
        .uniform(size=(4, args.batch, args.side, args.side, 3))
        .astype(np.float32)
    )
    batches = [{"image": jnp.asarray(part)} for part in images]
    inputs = {"image": images[0, :1], "keep": np.zeros((1, 1), np.int32)}
    frozen = {"teacher": jax.jit(teacher.init)(jax.random.key(1), inputs)}
    both = arms(
        distiller,
        step,
        tx,
        frozen,
        batches[0],
        lambda params: {"net": params["net"], "projector": params["objective"]["feature"]},
    )
    return Case(both, frozen, batches)


def plain_kd(args: argparse.Namespace) -> Case:
    """Hinton's distillation: softened logits and labels, two perceptrons."""
    wide = models.MLP(widths=(args.kd_teacher,) * 2)
    narrow = models.MLP(widths=(args.kd_student,) * 2)
    temperature, kd_weight, ce_weight = 4.0, 0.9, 0.1
    tx = optax.adam(1e-3)

    teacher, student = from_linen(wide), from_linen(narrow)
    soft = match(hinton_kd, name="kd", weight=kd_weight, temperature=temperature)
    hard = match(cross_entropy, name="ce", target="batch/label", weight=ce_weight)
    distiller = model_to_model(
        student, targets.live(teacher), combine({"kd": soft, "ce": hard}), tx
    )

    def logits_of(module: Any, params: Any, image: jax.Array) -> jax.Array:
        return module.apply({"params": params}, image)

    def step(state, frozen, batch):
        goal = logits_of(wide, frozen["teacher"][0], batch["image"]) / temperature
        goal = jax.nn.log_softmax(goal)

        def loss(params):
            logits = logits_of(narrow, params, batch["image"])
            mine = jax.nn.log_softmax(logits / temperature)
            soft = temperature**2 * (jnp.exp(goal) * (goal - mine)).sum(-1).mean()
            hard = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
            return kd_weight * soft + ce_weight * hard

        return descend(loss, tx, state)

    noise = np.random.default_rng(0)
    batches = [
        {
            "image": jnp.asarray(noise.uniform(size=(args.kd_batch, 28, 28, 1)), jnp.float32),
            "label": jnp.asarray(noise.integers(0, 10, args.kd_batch), jnp.int32),
        }
        for _ in range(4)
    ]
    frozen = {"teacher": jax.jit(teacher.init)(jax.random.key(1), batches[0]["image"][:1])}
    return Case(
        arms(distiller, step, tx, frozen, batches[0], lambda params: params["net"]), frozen, batches
    )


def compare(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """Ratios of interleaved times, once the losses are known to be equal."""
    states = {name: arm.state for name, arm in case.arms.items()}
    losses: dict[str, list[float]] = {name: [] for name in case.arms}
    for index in range(EQUAL_STEPS):
        for name, arm in case.arms.items():
            states[name], found = arm.step(
                states[name], case.frozen, case.batches[index % len(case.batches)]
            )
            value = found["loss"]
            losses[name].append(float(value[0] if isinstance(value, tuple) else value))
    np.testing.assert_allclose(losses["library"], losses["by_hand"], rtol=1e-4)

    def some(name: str) -> Any:
        step, state = case.arms[name].step, states[name]
        for index in range(args.steps):
            state, _ = step(state, case.frozen, case.batches[index % len(case.batches)])
        states[name] = state
        return state

    calls = {name: (lambda name=name: some(name)) for name in case.arms}
    times = in_turn(calls, args.repeats)
    counts = {name: flops(case, name) for name in case.arms}
    return {
        **ratio(times, "library", "by_hand"),
        **{f"{name}_ms": median_ms(each) / args.steps for name, each in times.items()},
        "largest_loss_gap": max(
            abs(a - b) / abs(b) for a, b in zip(losses["library"], losses["by_hand"], strict=True)
        ),
        "flops_ratio": counts["library"] / counts["by_hand"],
    }


def flops(case: Case, name: str) -> float:
    """What XLA counts in a compiled step."""
    arm: Any = case.arms[name]
    shapes = jax.eval_shape(lambda *trees: trees, arm.state, case.frozen, case.batches[0])
    return compiled(arm.step, *shapes).flops


def tapped_teacher(args: argparse.Namespace) -> dict[str, Any]:
    """A teacher at half its depth against the whole, through the targets that a step uses."""
    batch = {
        "image": jnp.asarray(
            np.random.default_rng(1).uniform(size=(args.batch, args.side, args.side, 3)),
            jnp.float32,
        )
    }
    tap = f"encoder/block_{args.vit_depth // 2 - 1}"
    found: dict[str, Any] = {}
    for form in ("unrolled", "scanned"):
        module = models.ViT(
            patch=4,
            width=args.vit_width,
            depth=args.vit_depth,
            heads=4,
            classes=100,
            scan=form == "scanned",
        )
        net = from_linen(module)
        frozen = {"teacher": jax.jit(net.init)(jax.random.key(0), batch["image"])}

        def cached(frozen, batch, *, net=net, taps=()):
            given = targets.live(net, taps=taps)({**frozen}, batch, jax.random.key(0), jnp.int32(0))
            return given[taps[0]] if taps else given["out"]

        whole = compiled(cached, frozen, batch)
        half = compiled(
            lambda frozen, batch, run=cached: run(frozen, batch, taps=(tap,)), frozen, batch
        )
        calls = {
            name: lambda run=program.call, frozen=frozen: run(frozen, batch)
            for name, program in (("half", half), ("whole", whole))
        }
        times = in_turn(calls, max(2, args.repeats // 4))
        found[form] = {
            "flops_ratio": half.flops / whole.flops,
            **ratio(times, "half", "whole"),
            "tapped_ms": median_ms(times["half"]),
            "whole_ms": median_ms(times["whole"]),
        }
    # XLA counts the body of a loop once, whatever it is repeated.
    found["scanned"]["flops_ratio"] = None
    return found


def parsed(argv: list[str] | None = None) -> argparse.Namespace:
    options = parser(__doc__, "small and short; no target is checked")
    for name, value, text in (
        ("repeats", 101, "rounds that are timed, of every step once"),
        ("steps", 2, "steps at a time"),
        ("batch", 32, "images in a batch of DMAE and of the tapped teacher"),
        ("side", 32, "side of those images"),
        ("teacher-width", 128, "of DMAE's teacher"),
        ("teacher-depth", 4, "of DMAE's teacher"),
        ("student-width", 64, "of DMAE's student"),
        ("student-depth", 4, "of DMAE's student"),
        ("kd-batch", 128, "images in a batch of plain distillation"),
        ("kd-teacher", 1200, "hidden units of its teacher"),
        ("kd-student", 800, "hidden units of its student"),
        ("vit-width", 128, "of the tapped teacher"),
        ("vit-depth", 12, "of the tapped teacher"),
    ):
        options.add_argument(f"--{name}", type=int, default=value, help=f"{text} (default {value})")
    args = options.parse_args(argv)
    if args.smoke:
        small = {
            "repeats": 3,
            "steps": 2,
            "batch": 4,
            "side": 8,
            "kd_batch": 8,
            "kd_teacher": 16,
            "kd_student": 8,
        }
        small |= {"teacher_width": 16, "student_width": 16, "vit_width": 16, "vit_depth": 4}
        vars(args).update(small)
    return args


def main(argv: list[str] | None = None) -> int:
    args = parsed(argv)
    found = {name: compare(make(args), args) for name, make in STEPS.items()}
    teacher = tapped_teacher(args)
    columns = ("step", "library ms", "by hand ms", "ratio (quartiles)", "processor", "FLOPs")
    rows = [
        (
            name,
            f"{each['library_ms']:.2f}",
            f"{each['by_hand_ms']:.2f}",
            spread(each),
            f"{each['processor_ratio']:.3f}",
            f"{each['flops_ratio']:.3f}",
        )
        for name, each in found.items()
    ]
    print(table(columns, rows), end="\n\n")
    columns = ("teacher", "half depth ms", "whole ms", "ratio (quartiles)", "FLOPs")
    rows = [
        (
            form,
            f"{each['tapped_ms']:.2f}",
            f"{each['whole_ms']:.2f}",
            spread(each),
            "" if each["flops_ratio"] is None else f"{each['flops_ratio']:.3f}",
        )
        for form, each in teacher.items()
    ]
    print(table(columns, rows), end="\n\n")
    missed = [
        f"{name}: {each['ratio']:.3f} of the step by hand, at most {STEP_TARGET}"
        for name, each in found.items()
        if each["ratio"] > STEP_TARGET
    ]
    share = teacher["unrolled"]["flops_ratio"]
    if share > FLOPS_TARGET:
        missed.append(f"tapped teacher: {share:.3f} of the whole's FLOPs, at most {FLOPS_TARGET}")
    return finish("step_overhead", args, {**found, "tapped_teacher": teacher}, missed)


STEPS = {"dmae": dmae, "plain_kd": plain_kd}

if __name__ == "__main__":
    sys.exit(main())
