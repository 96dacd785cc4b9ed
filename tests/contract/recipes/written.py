"""Records that a teacher writes, and a student that is trained on them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from contract.recipes.parts import ADAM, Kind, recipe
from contract.works import written

from jaxdistill.data.sources import arrays
from jaxdistill.distiller import Work
from jaxdistill.net import Forward, Net
from jaxdistill.settings import Count, Earlier


def told(rows):
    """Sequences as records: what is seen, and what comes next."""
    return {"tokens": rows[:, :-1], "next": rows[:, 1:]}


def chains(context, *, tokens: Count = 8, count: Count = 256):
    """Sequences of a bigram model that nobody is shown."""
    truth = 3 * jax.random.normal(jax.random.key(4), (tokens, tokens))
    info = {"tokens": tokens, "inputs": ("tokens",)}
    return arrays(told(written(truth, jax.random.key(5), count)), name="chains", info=info)


def bigrams(context):
    """Of every token the logits of the next."""

    def apply(params, state, seen, *, taps=(), train=False, rng=None):
        return Forward(params["next"][seen["tokens"]], {}, state, params)

    tokens = context.info.get("tokens", 0)
    return Net(lambda key, seen: ({"next": jnp.zeros((tokens, tokens))}, {}), apply)


def write(context, *, teacher: Earlier, count: Count):
    """What a teacher writes, less what a filter drops."""

    def run(results, data, key):
        return told(written(results[teacher][0]["next"], key, count))

    return Work(run, "records")


def surprise(context):
    """The mean loss of the next token."""

    def measure(result, frozen, data):
        total = [0.0, 0]
        for batch in data:
            logits = context.net.apply(*result, {"tokens": batch["tokens"]}).out
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["next"])
            total = [total[0] + losses.sum(), total[1] + losses.size]
        return {"surprise": total[0] / total[1]}

    return measure


TEACHER = {
    "student": {"net": "bigrams"},
    "objective": {"next": {"loss": "cross_entropy", "target": "batch/next"}},
    "optimizer": {**ADAM, "learning_rate": 0.3},
    "batch_size": 64,
    "steps": 12,
    "evaluate": {"surprise": {"evaluator": "surprise", "sets": ("validation", "test")}},
}
WRITTEN = {"work": {"name": "write", "teacher": "teacher", "count": 128}}
STUDENT = {**TEACHER, "data": {"stage": "written"}}


def right(plan, outcomes):
    assert 64 < len(outcomes["written"].result["tokens"]) <= 128
    train = plan.stage("student").data["train"]
    assert train.name == "written"
    assert len(train) == len(outcomes["written"].result["next"])
    # It knows of the truth what its teacher has written.
    found = [outcomes[name].values["test/surprise"] for name in ("teacher", "student")]
    assert found[0] < found[1] < jnp.log(8)


KIND = Kind(
    {
        **recipe(teacher=TEACHER, written=WRITTEN, student=STUDENT),
        "data": {"name": "chains", "tokens": 8},
    },
    {
        ("data set", "chains"): chains,
        ("net", "bigrams"): bigrams,
        ("work", "write"): write,
        ("evaluator", "surprise"): surprise,
    },
    {"teacher": "net", "written": "records", "student": "net"},
    right,
)
