"""Trials of what trains nothing: a search, and records that a teacher writes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contract.parts import (
    ADAM,
    IMAGES,
    Trial,
    agreement,
    equal,
    falls,
    perceptron,
    stage,
    trained_teacher,
)
from contract.parts import TEACHER as CLASSIFIER

from jaxdistill import targets
from jaxdistill.data.sources import arrays
from jaxdistill.data.stream import stream
from jaxdistill.distiller import Work, model_to_model
from jaxdistill.net import Forward, Net
from jaxdistill.objective import per_example
from jaxdistill.training.works import run_work


def done(work: Work, results: Any, data: Any) -> Any:
    """The result of a work that is done once: from then on it is read."""

    def again(*_):
        raise AssertionError("it is done already")

    with tempfile.TemporaryDirectory() as directory:
        first = run_work(work, results, data, directory=directory)
        second = run_work(work._replace(run=again), results, data, directory=directory)
    equal(first.result, second.result)
    assert first.values == second.values
    return second.result


def narrowest(
    images: Any, wanted: jax.Array, key: jax.Array, widths: Sequence[int], most: float = 0.5
) -> dict[str, Any]:
    """Of some widths the smallest whose random features leave little of a teacher's logits
    unexplained by a linear map."""
    left = {}
    for width in widths:
        net = perceptron(width)
        drawn = net.init(jax.random.fold_in(key, width), images)
        seen = net.apply(*drawn, images, taps=("hidden",)).taps["hidden"]
        rest = wanted - seen @ jnp.linalg.lstsq(seen, wanted)[0]
        left[str(width)] = float((rest**2).mean() / wanted.var())
    enough = [width for width in widths if left[str(width)] < most]
    return {"width": min(enough, default=widths[-1]), "unexplained": left}


def search() -> Trial:
    """Which width a student has is chosen by untrained nets; the one that is chosen learns."""
    widths = (2, 4, 8, 16)

    def run(results, data, key):
        wanted = CLASSIFIER.apply(*results["teacher"], data["train"]).out
        return narrowest(data["train"], wanted, key, widths)

    results = {"teacher": trained_teacher()}
    choice = done(Work(run, "choice", ("width",)), results, {"train": IMAGES})
    student = perceptron(choice["width"])

    def right(outcome):
        left = [choice["unexplained"][str(width)] for width in widths]
        assert left == sorted(left, reverse=True)  # the wider, the more is explained
        assert left[widths.index(choice["width"])] < 0.5 < left[0]
        assert outcome.result[0]["first"].shape == (8, choice["width"])
        falls("kd")(outcome)

    distiller = model_to_model(student, targets.live(CLASSIFIER), agreement, ADAM)
    return Trial(stage(distiller, results), right)


def written(bigrams: jax.Array, key: jax.Array, count: int = 256, length: int = 10) -> np.ndarray:
    """Sequences ``[n, length + 1]`` that a bigram model writes, and a filter has kept."""

    def write(token, key):
        token = jax.random.categorical(key, bigrams[token])
        return token, token

    start = jnp.arange(count) % len(bigrams)
    _, tokens = jax.lax.scan(write, start, jax.random.split(key, length))
    rows = np.asarray(jnp.concatenate([start[None], tokens]).T)
    # Nothing twice, and nothing that says one thing all the time.
    rows = np.unique(rows, axis=0)
    return rows[(rows != rows[:, :1]).any(1)].astype(np.int32)


def written_records(vocabulary: int = 8) -> Trial:
    """A teacher writes sequences, a filter keeps some, a student learns from what is left."""

    def run(results, data, key):
        return {"tokens": written(results["teacher"], key)}

    def apply(params, state, tokens, *, taps=(), train=False, rng=None):
        return Forward(params["next"][tokens[:, :-1]], {}, state, params)

    def objective(forward, goal, batch):
        spoken = jax.nn.log_softmax(forward.out)
        told = jnp.take_along_axis(spoken, batch["tokens"][:, 1:, None], -1)[..., 0]
        return {"nll": per_example(1.0, -told)}

    teacher = 3 * jax.random.normal(jax.random.key(4), (vocabulary, vocabulary))
    records = done(Work(run, "records"), {"teacher": teacher}, {})
    data = stream(arrays(records), 64, seed=0, threads=0)
    net = Net(lambda key, tokens: ({"next": jnp.zeros((vocabulary, vocabulary))}, {}), apply)
    nothing = lambda *_: {}  # noqa: E731
    distiller = model_to_model(net, nothing, objective, ADAM, inputs="tokens")

    def right(outcome):
        assert 64 < len(records["tokens"]) <= 256
        falls("nll")(outcome)
        # Towards the teacher that wrote them, which the student has never seen.
        told = jax.nn.log_softmax(outcome.result[0]["next"])
        truth = jax.nn.softmax(teacher)
        assert -(truth * told).sum(-1).mean() < np.log(vocabulary)

    return Trial(stage(distiller, data=data), right)
