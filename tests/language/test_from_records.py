"""Students of records: means per task, weights of records, teachers known by their best tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import losses, targets
from jaxdistill.data.text import byte_tokenizer
from jaxdistill.data.views import texts
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.language import Divergence, labels_per_task, language_model, multitask_token_ce
from jaxdistill.language.on_policy import Writing
from jaxdistill.models import Decoder
from jaxdistill.records import Message, Provenance, Record, TopTokens
from jaxdistill.records.chats import chat
from jaxdistill.records.conversations import TOP, conversations
from jaxdistill.records.server import Server
from jaxdistill.records.templates import plain

pytest.importorskip("tokenizers")
from loopback import loopback

CHAT = chat(byte_tokenizer(), plain())
NET = from_linen(Decoder(vocabulary=257, width=8, depth=1, heads=2))
TASKS = {"answer": 1.0, "rationale": 0.5}


def record(name, answer, **fields):
    said = (Message("user", f"q{name}"), Message("assistant", answer, learn=True))
    return Record(name, said, Provenance("oracle"), answer=answer, **fields)


def batch_of(*records, pack=False, length=24, **info):
    source = conversations(records, CHAT, length, pack=pack)
    found = source.gather(np.arange(len(source)))
    return texts({name: jnp.asarray(value) for name, value in found.items()}, jax.random.key(0))


def started(distiller, batch):
    return distiller.init(jax.random.key(0), {}, batch)


def metrics_of(distiller, batch):
    _, metrics = jax.jit(distiller.step)(started(distiller, batch), {}, batch)
    return {name: float(total / count) for name, (total, count) in metrics.items()}


FOUR = (
    record("a", "1", task="answer"),
    record("b", "because it is so long", task="rationale"),
    record("c", "22", task="answer", weight=3.0),
    record("d", "why", task="rationale"),
)


@pytest.mark.parametrize("chunk", [40, 256])
def test_each_task_has_a_mean_of_its_own(chunk):
    batch = batch_of(*FOUR)
    tasks = functools.partial(language_model, NET, optax.sgd(0.1), chunk=chunk, tasks=TASKS)
    distiller = tasks(task_names=("answer", "rationale"))
    found = metrics_of(distiller, batch)
    params = distiller.result(started(distiller, batch))
    logits = NET.apply(*params, batch["student"]).out
    values = losses.cross_entropy(logits, jnp.maximum(batch["label"], 0))
    worth = batch["counted"] * batch["weight"]
    for number, name in enumerate(("answer", "rationale")):
        own = worth * (batch["task"] == number)
        expected = float((values * own).sum() / own.sum())
        assert found[f"labels/{name}"] == pytest.approx(expected, rel=1e-5)
    total = found["labels/answer"] + 0.5 * found["labels/rationale"]
    assert found["loss"] == pytest.approx(total, rel=1e-6)
    parts = {
        name: (logits, batch["label"], worth * (batch["task"] == number), TASKS[name])
        for number, name in enumerate(TASKS)
    }
    for name, term in multitask_token_ce(parts).items():
        assert float(term.total / term.count) == pytest.approx(found[f"labels/{name}"], rel=1e-5)


def test_means_per_task_add_up_over_microbatches():
    batch = batch_of(*FOUR)
    params = []
    for accumulate in (1, 2):
        distiller = language_model(
            NET, optax.sgd(0.5), task_names=("answer", "rationale"), tasks=TASKS,
            accumulate=accumulate,
        )  # fmt: skip
        state, _ = jax.jit(distiller.step)(started(distiller, batch), {}, batch)
        params.append(distiller.result(state)[0])
    for one, other in zip(*map(jax.tree.leaves, params), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.parametrize("pack", [False, True])
def test_a_record_of_weight_two_counts_as_two_records(pack):
    distiller = language_model(NET, optax.sgd(0.1))
    once = batch_of(record("a", "one", weight=2.0), record("b", "other"), pack=pack)
    twice = batch_of(*(record(name, "one") for name in "a"), record("b", "other"), pack=pack)
    worth = once["counted"] * once["weight"]
    assert float(worth.sum()) == float(twice["counted"].sum()) + 4
    logits = NET.apply(*distiller.result(started(distiller, once)), once["student"]).out
    values = losses.cross_entropy(logits, jnp.maximum(once["label"], 0))
    expected = float((values * worth).sum() / worth.sum())
    assert metrics_of(distiller, once)["labels"] == pytest.approx(expected, rel=1e-5)
    assert metrics_of(distiller, twice)["labels"] != pytest.approx(expected, rel=1e-4)


def test_tasks_that_do_not_fit():
    with pytest.raises(ValueError, match="unknown task 'anser'"):
        labels_per_task(("answer",), {"anser": 1.0})
    with pytest.raises(ValueError, match="task 'rationale' has no weight"):
        labels_per_task(("answer", "rationale"), {"answer": 1.0})
    with pytest.raises(ValueError, match="learns from one of 'recorded', 'tasks'"):
        language_model(NET, optax.sgd(0.1), recorded=True, tasks={})
    with pytest.raises(ValueError, match="recorded is True"):
        language_model(NET, optax.sgd(0.1), recorded=True, writing=Writing(2, share=1.0))


# --- the most probable tokens of a teacher --------------------------------------------


def best(answer):
    """What a teacher might have thought of an answer of this text."""
    tokens = (*answer.encode(), 256)
    return TopTokens(
        tokens, tuple((t, (t + 1) % 257) for t in tokens), tuple((-0.3, -1.9) for _ in tokens)
    )


@pytest.mark.parametrize("pack", [False, True])
def test_a_student_learns_what_its_teacher_almost_said(pack):
    records = [record("a", "one", top=best("one")), record("b", "two", top=best("two"))]
    batch = batch_of(*records, record("c", "three"), pack=pack)
    distiller = language_model(
        NET, optax.sgd(0.1), recorded=True, divergence=Divergence(temperature=2.0), ce_weight=0.5
    )
    found = metrics_of(distiller, batch)
    logits = NET.apply(*distiller.result(started(distiller, batch)), batch["student"]).out
    soft = losses.sparse_kl(logits, batch[TOP[0]], batch[TOP[1]], temperature=2.0)
    hard = losses.cross_entropy(logits, jnp.maximum(batch["label"], 0))
    where = batch["counted"]
    expected = float(jnp.where(where, soft + 0.5 * hard, 0).sum() / where.sum())
    assert found["distillation"] == pytest.approx(expected, rel=1e-5)


def test_records_without_them():
    distiller = language_model(NET, optax.sgd(0.1), recorded=True)
    with pytest.raises(ValueError, match=r"unknown key of the batch 'top/ids'.*asked for its most"):
        started(distiller, batch_of(record("a", "b")))


# --- a teacher behind a server ---------------------------------------------------------


def log_probs_after(tokens, size=257):
    """The log-probabilities of a made-up model behind some tokens: they depend on all of them."""
    seed = np.frombuffer(np.asarray(tokens, np.int64).tobytes(), np.uint8)
    drawn = np.random.default_rng(seed.tolist()).normal(size=size)
    return drawn - np.log(np.exp(drawn).sum())


def score(body):
    rows = [None]
    for place in range(1, len(body["prompt"])):
        log_probs = log_probs_after(body["prompt"][:place])
        kept = [*np.argsort(-log_probs)[: body["prompt_logprobs"]], body["prompt"][place]]
        rows.append({str(t): {"logprob": float(log_probs[t])} for t in kept})
    return {"choices": [{"prompt_logprobs": rows}]}


@pytest.fixture
def teacher(monkeypatch):
    pytest.importorskip("httpx2")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with loopback() as server:
        server.score = score
        yield server


def quick(server, **settings):
    return Server(server.url, "tiny", **{"pause": 0.01, "retries": 1, **settings})


@pytest.mark.parametrize("pack", [False, True])
def test_a_served_teacher_is_asked_about_every_text(teacher, pack):
    batch = batch_of(record("a", "one"), record("b", "to"), record("c", "free"), pack=pack)
    give = targets.served(quick(teacher), top=3)
    out = jax.jit(lambda batch: give({}, batch, jax.random.key(0), 0)["out"])(batch)
    assert sum(teacher.asked.values()) == 3
    segments = batch.get("segments", jnp.ones_like(batch["tokens"]))
    for row, place in np.ndindex(*batch["tokens"].shape):
        if not batch["counted"][row, place]:
            assert jnp.isneginf(out["log_probs"][row, place]).all()
            continue
        start = int((segments[row] == segments[row, place]).argmax())
        log_probs = log_probs_after(batch["tokens"][row, start : place + 1])
        order = np.argsort(-log_probs)[:3]
        assert out["ids"][row, place].tolist() == order.tolist()
        np.testing.assert_allclose(out["log_probs"][row, place], log_probs[order], rtol=1e-5)


def test_a_student_of_a_served_teacher_on_a_mesh(teacher):
    records = [record(f"{n}", "x" * (n % 3 + 1)) for n in range(8)]
    batch = batch_of(*records, length=12)
    distiller = language_model(NET, optax.sgd(0.1), served=quick(teacher), top=4)
    state = started(distiller, batch)
    alone, _ = jax.jit(distiller.step)(state, {}, batch)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    shared = jax.device_put(batch, rows)
    with jax.set_mesh(mesh):
        found, _ = jax.jit(distiller.step)(state, {}, shared)
    for one, other in zip(
        *(jax.tree.leaves(distiller.result(each)[0]) for each in (alone, found)), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"choices": [{}]}, "without prompt_logprobs"),
        ({"choices": [{"prompt_logprobs": [None]}]}, "log-probabilities of 1 tokens"),
    ],
)
def test_a_server_that_gives_none(teacher, answer, said):
    teacher.score = lambda body: answer
    give = targets.served(quick(teacher), top=3)
    batch = batch_of(record("a", "one"))
    with pytest.raises(Exception, match=said):
        jax.block_until_ready(jax.jit(lambda b: give({}, b, jax.random.key(0), 0))(batch))


def test_a_batch_that_is_none_of_texts():
    give = targets.served(Server("http://127.0.0.1:1/v1", "tiny"))
    with pytest.raises(ValueError, match="unknown key of the batch 'label'"):
        give({}, {"tokens": jnp.zeros((1, 2), int)}, jax.random.key(0), 0)
