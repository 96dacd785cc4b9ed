"""Trials of students that share weights, and of inputs and distances that are no plain arrays."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from contract.parts import (
    ADAM,
    BATCHES,
    IMAGES,
    SGD,
    STUDENT,
    TEACHER,
    Trial,
    agreement,
    cross_entropy,
    divergence,
    equal,
    falls,
    near,
    one_step,
    perceptron,
    stage,
    trained_teacher,
)

from jaxdistill import lora, targets
from jaxdistill.data.sources import arrays
from jaxdistill.data.stream import stream
from jaxdistill.distiller import model_to_model
from jaxdistill.gradients import Whole
from jaxdistill.net import Forward, Net
from jaxdistill.objective import per_example


def low_rank_adapters() -> Trial:
    """Adapters on a base that is there once: the student is built on its frozen teacher."""
    frozen = {"teacher": trained_teacher()}
    kept = jax.tree.map(np.array, frozen)
    adapted = lora.adapted(TEACHER, "teacher", at=("first", "second"), rank=1)

    def objective(forward, goal, batch):
        return agreement(forward, goal, batch) | cross_entropy(forward, goal, batch)

    distiller = model_to_model(adapted, targets.live(TEACHER), objective, ADAM)

    def right(outcome):
        equal(frozen, kept)
        state, after = one_step(distiller, frozen, BATCHES.at(0))
        base = {leaf.shape for leaf in jax.tree.leaves(frozen["teacher"][0])}
        assert not base & {leaf.shape for leaf in jax.tree.leaves((state, outcome.result))}
        ours, theirs = adapted(frozen).apply(*distiller.result(state), IMAGES), TEACHER
        near(ours.out, theirs.apply(*frozen["teacher"], IMAGES).out)  # it starts as its base
        assert any(leaf.any() for leaf in jax.tree.leaves(after.params["net"]["second"]["up"]))
        falls("ce")(outcome)

    return Trial(stage(distiller, frozen), right)


def sliced(widths: Sequence[int]) -> Net:
    """A net and its sub-nets, slices of the same weights: ``out`` holds the answer of each."""
    net = perceptron(max(widths))

    def answer(params, state, inputs, width):
        part = {"first": params["first"][:, :width], "second": params["second"][:width]}
        return net.apply(part, {"mean": state["mean"][:width]}, inputs).out

    def apply(params, state, inputs, *, taps=(), train=False, rng=None):
        outs = {str(width): answer(params, state, inputs, width) for width in widths}
        return Forward(outs, {}, state, params)

    return Net(net.init, apply)


def supernet(widths: tuple[int, ...] = (8, 4, 2)) -> Trial:
    """Sub-nets are slices of the same weights: all learn at once, the narrow ones from the widest,
    and their gradients add."""

    def objective(*chosen):
        def terms(forward, goal, batch):
            widest = jax.lax.stop_gradient(forward.out[str(widths[0])])
            wanted = {width: goal["out"] if width == widths[0] else widest for width in chosen}
            return {
                f"kd_{width}": per_example(1.0, divergence(aim, forward.out[str(width)]))
                for width, aim in wanted.items()
            }

        return terms

    def distiller(*chosen):
        return model_to_model(sliced(widths), targets.live(TEACHER), objective(*chosen), SGD)

    frozen = {"teacher": trained_teacher()}

    def right(outcome):
        def moved(*chosen):
            before, after = one_step(distiller(*chosen), frozen, BATCHES.at(0))
            return jax.tree.map(jnp.subtract, after.params, before.params)

        alone = [moved(width) for width in widths]
        near(moved(*widths), jax.tree.map(lambda *each: sum(each), *alone), 1e-7)
        falls("loss")(outcome)

    return Trial(stage(distiller(*widths), frozen), right)


def graphs(count: int, nodes: int = 6, edges: int = 10) -> dict[str, np.ndarray]:
    """Graphs of different sizes in one array, filled up with nodes and edges that are none."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(2, nodes + 1, count)
    ends = np.stack([rng.integers(0, size, (edges, 2)) for size in sizes])
    return {
        "nodes": rng.normal(size=(count, nodes, 3)).astype(np.float32),
        "edges": ends.astype(np.int32),
        "is_node": np.arange(nodes)[None] < sizes[:, None],
        "is_edge": rng.random((count, edges)) < 0.7,
    }


def messages(width: int) -> Net:
    """An answer for every node, of itself and of what its neighbours send, added up by segments."""

    def apply(params, state, graph, *, taps=(), train=False, rng=None):
        count, size = graph["nodes"].shape[:2]
        place = graph["edges"] + size * jnp.arange(count)[:, None, None]
        source, goal = place.reshape(-1, 2).T
        sent = graph["nodes"].reshape(-1, 3)[source] * graph["is_edge"].reshape(-1, 1)
        heard = jax.ops.segment_sum(sent, goal, count * size).reshape(count, size, 3)
        hidden = jnp.tanh(jnp.concatenate([graph["nodes"], heard], -1) @ params["first"])
        return Forward(hidden @ params["second"], {}, state, params)

    return Net(lambda key, graph: (perceptron_of(key, 6, width), {}), apply)


def padded_graphs() -> Trial:
    """Graphs of different sizes in one array: padding counts nowhere."""
    records = graphs(128)

    def objective(forward, goal, batch):
        values = divergence(goal["out"], forward.out)
        return {"kd": per_example(1.0, values, batch["is_node"])}

    def graph(batch, key):
        return {**batch, "image": {name: batch[name] for name in records}}

    teacher = targets.live(messages(16))
    distiller = model_to_model(messages(4), teacher, objective, ADAM, prepare=graph)
    data = stream(arrays(records), 32, seed=0, threads=0)
    frozen = {"teacher": (perceptron_of(jax.random.key(7), 6, 16), {})}

    def right(outcome):
        falls("kd")(outcome)
        batch = data.at(0)
        noise = np.where(batch["is_node"][..., None], batch["nodes"], np.float32(1e6))
        moved = [
            one_step(distiller, frozen, each)[1] for each in (batch, {**batch, "nodes": noise})
        ]
        equal(moved[0].params, moved[1].params)

    return Trial(stage(distiller, frozen, data=data), right)


def perceptron_of(key, inputs: int, hidden: int, outputs: int = 2) -> dict[str, jax.Array]:
    """The weights of two layers."""
    first, second = jax.random.split(key)
    return {
        "first": 0.3 * jax.random.normal(first, (inputs, hidden)),
        "second": 0.3 * jax.random.normal(second, (hidden, outputs)),
    }


def decode(weights: dict[str, jax.Array], codes: jax.Array) -> jax.Array:
    """What a decoder makes of codes."""
    return jnp.tanh(codes @ weights["first"]) @ weights["second"]


def decoded_distance(decoder: dict[str, jax.Array], codes: jax.Array, wanted: jax.Array):
    """How far apart codes are once they are decoded, a value a record."""
    return ((decode(decoder, codes) - decode(decoder, wanted)) ** 2).sum(-1)


def autoencoder(hidden: int, code: int) -> Net:
    """Inputs through a few numbers, which are a tap."""

    def init(key, inputs):
        size, (encoder, decoder) = inputs.shape[-1], jax.random.split(key)
        both = (
            perceptron_of(encoder, size, hidden, code),
            perceptron_of(decoder, code, hidden, size),
        )
        return dict(zip(("encoder", "decoder"), both, strict=True)), {}

    def apply(params, state, inputs, *, taps=(), train=False, rng=None):
        code = decode(params["encoder"], inputs)
        return Forward(decode(params["decoder"], code), {"code": code}, state, params)

    return Net(init, apply)


def frozen_decoder() -> Trial:
    """Codes are as far apart as what a frozen decoder makes of them."""

    def taught(sources, batch, key, step):
        goal = targets.live(TEACHER)(sources, batch, key, step)
        # All of it goes to every microbatch.
        return {**goal, "decoder": Whole(sources["decoder"])}

    def objective(forward, goal, batch):
        values = decoded_distance(goal["decoder"].value, forward.out, goal["out"])
        return {"distance": per_example(1.0, values)}

    decoder = perceptron_of(jax.random.key(5), 2, 16, 5)
    # It is blind to the second number of a code.
    decoder["first"] = decoder["first"].at[1].set(0)
    frozen = {"teacher": trained_teacher(), "decoder": decoder}
    kept = jax.tree.map(np.array, frozen)

    def made(**settings):
        return model_to_model(STUDENT, taught, objective, SGD, **settings)

    def right(outcome):
        equal(frozen, kept)
        falls("distance")(outcome)
        start, after = one_step(made(), frozen, BATCHES.at(0))
        moved = after.params["net"]["second"] - start.params["net"]["second"]
        assert moved[:, 0].any()
        assert not moved[:, 1].any()

    return Trial(stage(made(accumulate=2), frozen), right)
