"""A step of distillation from hidden states, generation with a cache, speculative decoding.

    python benchmarks/language.py             # sizes for a CPU; minutes on two cores
    python benchmarks/language.py --torch-python <python with torch>
    python benchmarks/language.py --smoke     # small sizes, no target is checked

- ``step``: seconds of a whole training step (teacher, student, gradients, AdamW) whose divergence
  is taken from hidden states, against a step written plainly with whole logits of both nets, in
  turn; the median ratio, at most 1.1, and the temporary memory of both compiled steps.
  Where an interpreter with torch is given, the same step from the same weights written plainly in
  it, eager, on as many cores; its first loss is to be ours.
- ``compile``: seconds to trace and compile a step of published size, a teacher of 7B and a student
  of 1.1B parameters, ahead of time on shapes, with the layers as a loop and unrolled; and the
  temporary memory of both.
- ``generation``: tokens a second of ``language.generate`` with its cache, against reading the whole
  text again for every token; at least 3 times as many.
- ``speculative``: seconds of ``language.speculate`` and of ``language.generate`` with the target
  alone, for the same prompts; the block efficiency, the cost of a draft's call over a target's
  (both measured with one token a row), and the factor that these two predict.
- ``loss``: the loss from hidden states beside Liger's and eager torch's, in this process, where
  its interpreter has them; on a GPU in the sizes that Liger publishes figures of.

Prints tables and, as its last line, JSON; exits with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import _liger
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _measure import compiled, finish, in_turn, median_ms, parser, ratio, spread, table
from _worker import Worker, finds_torch, torch_option
from flax import traverse_util

from jaxdistill import language, losses
from jaxdistill.distiller import model_to_model
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.language.generation import prefill, read
from jaxdistill.models import Decoder
from jaxdistill.objective import mean

STEP_TARGET, GENERATION_TARGET, LOSS_TARGET = 1.1, 3.0, 1e-4


def options() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--vocabulary", type=int, default=32_000)
    made.add_argument("--batch", type=int, default=8, help="texts in a step")
    made.add_argument("--length", type=int, default=128, help="tokens of a text")
    made.add_argument("--new", type=int, default=96, help="tokens that are written")
    made.add_argument("--block", type=int, default=4, help="proposals a block")
    made.add_argument("--repeats", type=int, default=7)
    torch_option(made)
    found = made.parse_args()
    if found.smoke:
        found.vocabulary, found.batch, found.length, found.new, found.repeats = 997, 2, 16, 8, 2
    return found


def module(width: int, depth: int, vocabulary: int) -> Decoder:
    return Decoder(vocabulary=vocabulary, width=width, depth=depth, heads=4, groups=2)


def decoder(width: int, depth: int, vocabulary: int, seed: int) -> tuple[Any, Any]:
    net = from_linen(module(width, depth, vocabulary))
    return net, jax.jit(net.init)(jax.random.key(seed), jnp.zeros((1, 4), jnp.int32))


def torch_names(params: Any) -> dict[str, np.ndarray]:
    """Parameters of a decoder under the names of ``_torch_steps.Decoder``."""
    flat: Any = traverse_util.flatten_dict(jax.device_get(params), sep="/")
    found = {
        "embed.weight": flat["embed_tokens/embedding"],
        "norm.weight": flat["norm/scale"],
    }
    for number in range(sum(name.endswith("q_proj/kernel") for name in flat)):
        ours, theirs = f"layers_{number}", f"layers.{number}"
        joined = [flat[f"{ours}/self_attn/{part}_proj/kernel"] for part in "qkv"]
        kernels = {
            "qkv": np.concatenate(joined, -1),
            "out": flat[f"{ours}/self_attn/o_proj/kernel"],
            **{part: flat[f"{ours}/mlp/{part}_proj/kernel"] for part in ("gate", "up", "down")},
        }
        found |= {f"{theirs}.{part}.weight": kernel.T for part, kernel in kernels.items()}
        for own, name in (("norm1", "input_layernorm"), ("norm2", "post_attention_layernorm")):
            found[f"{theirs}.{own}.weight"] = flat[f"{ours}/{name}/scale"]
    return found


def torch_step(student: Any, teacher: Any, tokens: jax.Array, python: str) -> Worker:
    """The step in torch, from these modules with their parameters, on these tokens."""
    arrays = {"tokens": np.asarray(tokens)}
    settings: dict[str, Any] = {"case": "decoder"}
    for name, (own, params) in (("student", student), ("teacher", teacher)):
        settings[name] = own.width, own.depth, own.heads, own.neurons(), own.groups
        settings["vocabulary"] = own.vocabulary
        arrays |= {f"{name}/{key}": array for key, array in torch_names(params).items()}
    with tempfile.TemporaryDirectory() as folder:
        settings["given"] = str(Path(folder) / "given.npz")
        np.savez(settings["given"], **arrays)  # pyright: ignore[reportArgumentType]
        return Worker(python, settings, len(os.sched_getaffinity(0)))


def step(args: argparse.Namespace, python: str | None) -> dict[str, Any]:
    student, _ = decoder(128, 2, args.vocabulary, 0)
    teacher, frozen = decoder(256, 2, args.vocabulary, 1)
    shape = (args.batch, args.length + 1)
    tokens = jax.random.randint(jax.random.key(2), shape, 0, args.vocabulary)
    inputs = {"tokens": tokens[:, :-1]}
    counted = jnp.ones(inputs["tokens"].shape, bool)
    batch = {**inputs, "label": tokens[:, 1:], "counted": counted}
    batch |= {"student": inputs, "teacher": inputs}
    tx = optax.adamw(1e-3)
    fused = model_to_model(
        student,
        language.teacher_states(teacher),
        language.divergence_per_token(),
        tx,
        inputs="student",
        taps=("norm",),
    )
    state = jax.jit(fused.init)(jax.random.key(3), {"teacher": frozen}, batch)

    def plain(params, opt, frozen, batch):
        target = teacher.apply(*frozen, batch["teacher"]).out

        def loss(params):
            out = student.apply(params, {}, batch["student"]).out
            return losses.forward_kl(out, target).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt = tx.update(grads, opt, params)
        return optax.apply_updates(params, updates), opt, value

    params, opt = state.params["net"], tx.init(state.params["net"])
    ours = compiled(fused.step, state, {"teacher": frozen}, batch)
    theirs = compiled(plain, params, opt, frozen, batch)
    calls = {
        "fused": lambda: ours.call(state, {"teacher": frozen}, batch),
        "plain": lambda: theirs.call(params, opt, frozen, batch),
    }
    found: dict[str, Any] = {}
    worker = None
    if python is not None:
        small, large = (module(width, 2, args.vocabulary) for width in (128, 256))
        worker = torch_step((small, params), (large, frozen[0]), inputs["tokens"], python)
        own = float(mean(*calls["fused"]()[1]["loss"]))
        found["torch_loss_error"] = abs(worker.loss - own) / own
        calls["torch"] = functools.partial(worker.steps, 1)
    times = in_turn(calls, args.repeats)
    if worker is not None:
        worker.close()
        found |= {"of_torch": ratio(times, "fused", "torch"), "torch": worker.version}
    return {
        **ratio(times, "fused", "plain"),
        **found,
        **{f"{name}_ms": median_ms(each) for name, each in times.items()},
        "fused_temp_mib": ours.memory["temporary_mib"],
        "plain_temp_mib": theirs.memory["temporary_mib"],
    }


def compile_of_layers(args: argparse.Namespace) -> dict[str, Any]:
    """A step of published size ahead of time, on shapes alone."""
    found: dict[str, Any] = {}
    size: dict[str, Any] = {
        "vocabulary": 32_000,
        "tied": False,
        "remat": True,
        "dtype": jnp.bfloat16,
    }
    wide: dict[str, Any] = {"width": 4096, "depth": 32, "heads": 32, "hidden": 11008}
    narrow: dict[str, Any] = {"width": 2048, "depth": 22, "heads": 32, "groups": 4, "hidden": 5632}
    if args.smoke:
        wide |= {"depth": 2}
        narrow |= {"depth": 2}
    tokens = jax.ShapeDtypeStruct((8, 1024), jnp.int32)
    counted = jax.ShapeDtypeStruct(tokens.shape, jnp.bool_)
    batch = {"label": tokens, "counted": counted}
    batch |= {"student": {"tokens": tokens}, "teacher": {"tokens": tokens}}
    for name, scan in (("scanned", True), ("unrolled", False)):
        teacher = from_linen(Decoder(**size, **wide, scan=scan))
        student = from_linen(Decoder(**size, **narrow, scan=scan))
        own = model_to_model(
            student,
            language.teacher_states(teacher),
            language.divergence_per_token(),
            optax.adamw(1e-4),
            inputs="student",
            taps=("norm",),
        )
        frozen = {"teacher": jax.eval_shape(teacher.init, jax.random.key(0), tokens)}
        state = jax.eval_shape(own.init, jax.random.key(0), frozen, batch)
        program = compiled(own.step, state, frozen, batch, donate_argnums=0)
        found[f"{name}_trace_seconds"] = program.trace_seconds
        found[f"{name}_compile_seconds"] = program.compile_seconds
        found[f"{name}_temp_mib"] = program.memory["temporary_mib"]
    return found


def generation(args: argparse.Namespace) -> dict[str, Any]:
    net, variables = decoder(128, 4, 257, 0)
    prompts = jax.random.randint(jax.random.key(1), (args.batch, 16), 0, 257)
    lengths = jnp.full(args.batch, 16, jnp.int32)
    cached = jax.jit(functools.partial(language.generate, net, new=args.new))

    @jax.jit
    def again(variables, prompts, key):
        tokens = jnp.pad(prompts, ((0, 0), (0, args.new)))

        def write(place, tokens):
            logits = net.apply(*variables, tokens).out[:, place - 1]
            drawn = jax.random.categorical(jax.random.fold_in(key, place), logits)
            return tokens.at[:, place].set(drawn.astype(tokens.dtype))

        return jax.lax.fori_loop(16, 16 + args.new, write, tokens)

    key = jax.random.key(2)
    calls = {
        "cached": lambda: cached(variables, prompts, lengths, key).tokens,
        "again": lambda: again(variables, prompts, key),
    }
    times = in_turn(calls, args.repeats)
    rates = {n: 1e3 * args.batch * args.new / median_ms(each) for n, each in times.items()}
    found = ratio(times, "again", "cached")
    return {
        "factor": found.pop("ratio"),
        **found,
        **{f"{name}_tokens_per_second": value for name, value in rates.items()},
    }


def speculative(args: argparse.Namespace) -> dict[str, Any]:
    target, target_variables = decoder(256, 6, 257, 0)
    draft, draft_variables = decoder(32, 1, 257, 1)
    batch = 1  # where a call's cost is not that of its tokens
    prompts = jax.random.randint(jax.random.key(1), (batch, 16), 0, 257)
    lengths = jnp.full(batch, 16, jnp.int32)
    key = jax.random.key(2)
    alone = jax.jit(functools.partial(language.generate, target, new=args.new))
    both = jax.jit(
        lambda a, b: language.speculate(
            target, a, draft, b, prompts, lengths, key, new=args.new, block=args.block
        )
    )

    def call(net, variables):
        cache = prefill(net, variables, language.empty_cache(net, batch, 16 + args.new), prompts)
        one = jax.jit(lambda v, c: read(net, v, c, prompts[:, :1], lengths[:, None])[0])
        return lambda: one(variables, cache)

    calls = {
        "alone": lambda: alone(target_variables, prompts, lengths, key).tokens,
        "both": lambda: both(target_variables, draft_variables).tokens,
        "draft": call(draft, draft_variables),
        "target": call(target, target_variables),
    }
    times = in_turn(calls, args.repeats)
    median = {name: median_ms(each) for name, each in times.items()}
    measured = ratio(times, "alone", "both")
    found = both(target_variables, draft_variables)
    efficiency = 1 + float(found.accepted.sum() / found.blocks.sum())
    cost = median["draft"] / median["target"]
    predicted = language.wall_clock_factor(efficiency, args.block, cost)
    return {
        "block_efficiency": efficiency,
        "cost_ratio": cost,
        "predicted_factor": float(predicted),
        "measured_factor": measured.pop("ratio"),
        **measured,
        **{f"{name}_ms": value for name, value in median.items()},
    }


def _beside_liger(rows: list[dict[str, Any]]) -> str:
    names = [n for n in ("fused", "plain", "liger", "eager") if f"{n}_ms" in rows[0]]

    def cell(row: dict[str, Any], name: str) -> str:
        memory = f", {row[f'{name}_mib']:,.0f} MiB" if f"{name}_mib" in row else ""
        return f"{row[f'{name}_ms']:.1f} ms{memory}"

    return table(
        ("tokens", *names), [(row["tokens"], *(cell(row, n) for n in names)) for row in rows]
    )


def main() -> int:
    args = options()
    python = finds_torch(args)
    found = {
        "step": step(args, python),
        "compile": compile_of_layers(args),
        "generation": generation(args),
        "speculative": speculative(args),
    }
    whole, layers, written, both = found.values()
    rows = [
        (
            "a step from hidden states over one with logits, time",
            f"{whole['fused_ms']:.0f} ms",
            f"{whole['plain_ms']:.0f} ms",
            spread(whole),
        ),
        (
            "the same, temporary memory",
            f"{whole['fused_temp_mib']:.0f} MiB",
            f"{whole['plain_temp_mib']:.0f} MiB",
            f"{whole['fused_temp_mib'] / whole['plain_temp_mib']:.2f}",
        ),
        (
            "a step of 7B and 1.1B, layers as a loop over unrolled ones: trace and compile",
            *(
                f"{layers[f'{name}_trace_seconds']:.1f} + {layers[f'{name}_compile_seconds']:.1f} s"
                for name in ("scanned", "unrolled")
            ),
            "",
        ),
        (
            "the same, temporary memory",
            f"{layers['scanned_temp_mib']:,.0f} MiB",
            f"{layers['unrolled_temp_mib']:,.0f} MiB",
            f"{layers['scanned_temp_mib'] / layers['unrolled_temp_mib']:.2f}",
        ),
        (
            "tokens a second, with a cache and without",
            f"{written['cached_tokens_per_second']:,.0f}",
            f"{written['again_tokens_per_second']:,.0f}",
            spread({"ratio": written["factor"], **written}),
        ),
        (
            "speculative decoding and the target alone",
            f"{both['both_ms']:.0f} ms",
            f"{both['alone_ms']:.0f} ms",
            f"{spread({'ratio': both['measured_factor'], **both})} times faster, "
            f"{both['predicted_factor']:.2f} predicted",
        ),
    ]
    if python is not None:
        beside = (f"{whole['fused_ms']:.0f} ms", f"{whole['torch_ms']:.0f} ms")
        line = ("a step from hidden states over plain torch, time", *beside)
        rows.insert(2, (*line, spread(whole["of_torch"])))
    print(table(("figure", "library", "beside", "ratio (quartiles)"), rows), end="\n\n")
    missed = []
    if fault := _liger.missing():
        print(fault, end="\n\n")
    else:
        shape, measured = _liger.rows(args.repeats, args.smoke)
        found["loss"] = {"shape": shape, "rows": measured}
        print(_beside_liger(measured), end="\n\n")
        missed += [
            f"{name}, {row['tokens']} tokens: its loss is {row[f'{name}_error']:.1e} off ours"
            for name, row in itertools.product(("eager", "liger"), measured)
            if row.get(f"{name}_error", 0) > _liger.ERROR_TARGET
        ]
    if whole.get("torch_loss_error", 0) > LOSS_TARGET:
        missed.append(f"torch: its loss is {whole['torch_loss_error']:.1e} off ours")
    if whole["ratio"] > STEP_TARGET:
        missed.append(f"step: {whole['ratio']:.2f} of that with logits, at most {STEP_TARGET}")
    if written["factor"] < GENERATION_TARGET:
        missed.append(f"generation: {written['factor']:.1f} times, at least {GENERATION_TARGET}")
    return finish("language", args, found, missed)


if __name__ == "__main__":
    sys.exit(main())
