"""A decoder that writes records: the same answers whatever shares a batch, on any mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.data.text import byte_tokenizer
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.language import decoder_teacher
from jaxdistill.models import Decoder
from jaxdistill.net import Forward
from jaxdistill.records import Answers, Request, Sampling, ask, chat, chatml, conversations, plain
from jaxdistill.records import write as write_records
from jaxdistill.records.conversations import TOP
from jaxdistill.training.sharding import make_mesh, place

pytest.importorskip("tokenizers")
CHAT = chat(byte_tokenizer(), plain())
NET = from_linen(Decoder(vocabulary=257, width=8, depth=1, heads=2))
VARIABLES = NET.init(jax.random.key(0), jnp.zeros((1, 1), int))
DRAWN = Sampling(max_tokens=5, n=2)
REQUESTS = [Request.of("q" * size, sampling=DRAWN) for size in (1, 3, 20)]


def teacher_of(**settings):
    settings = {"name": "tiny", "batch_size": 4, "context": 64, "top": 3, **settings}
    return decoder_teacher(NET, settings.pop("variables", VARIABLES), CHAT, **settings)


def answered(teacher, requests=REQUESTS):
    questions = [question for request in requests for question in request.questions()]
    return {(each.question, each.sample): each for each in teacher.answer(questions)}


@pytest.fixture(scope="module")
def found():
    return answered(teacher_of())


def test_an_answer_does_not_depend_on_its_batch(found):
    teacher = teacher_of()
    for request in REQUESTS[::-1]:
        for question in request.questions():
            (each,) = teacher.answer([question])
            whole = found[question.id, question.sample]
            assert (each.text, each.finish, each.top.tokens) == (
                whole.text,
                whole.finish,
                whole.top.tokens,
            )
            np.testing.assert_allclose(each.top.logps, whole.top.logps, atol=2e-5)
    assert len({each.top.tokens for each in found.values()}) == 6


def test_a_run_that_was_stopped_writes_the_same(tmp_path, found):
    answers = Answers()
    teacher = teacher_of(top=0)
    ask(teacher, REQUESTS[1].questions()[:1], answers)
    whole = write_records(REQUESTS, teacher, tmp_path / "whole")
    rest = write_records(REQUESTS, teacher, tmp_path / "rest", answers=answers)
    assert rest.manifest["shards"] == whole.manifest["shards"]


def test_on_a_mesh(found):
    mesh = make_mesh({"data": 2, "fsdp": 2, "model": 1}, jax.devices()[:4])
    teacher = teacher_of(variables=place(mesh, VARIABLES), mesh=mesh)
    assert {key: each.text for key, each in answered(teacher).items()} == {
        key: each.text for key, each in found.items()
    }
    with pytest.raises(ValueError, match="divi"):
        teacher_of(mesh=mesh, batch_size=3)


def test_the_most_probable_tokens_are_those_of_the_net(found):
    (request,) = (each for each in REQUESTS if len(each.messages[0].content) == 3)
    question = request.questions()[1]
    top = found[question.id, 1].top
    prompt = CHAT.prompt(question.messages)
    tokens = jnp.array([[*prompt, *top.tokens]])
    log_probs = jax.nn.log_softmax(NET.apply(*VARIABLES, tokens).out[0, len(prompt) - 1 : -1])
    values, ids = jax.lax.top_k(log_probs, 3)
    assert np.array(top.top).tolist() == ids.tolist()
    np.testing.assert_allclose(top.logps, values, atol=1e-5)


def test_greedy_answers_and_their_way_to_a_student(tmp_path):
    drawn = Sampling(temperature=0.0, max_tokens=6)
    requests = [Request.of("ab", sampling=drawn), Request.of("cd", sampling=drawn)]
    written = write_records(requests, teacher_of(), tmp_path / "set")
    records = [each for each in written.records() if each.answer.strip()]
    # What bytes say is text only where they are: others are replaced, and then no longer theirs.
    source = conversations(records, CHAT, 64)
    batch = source.gather(np.arange(len(source)))
    assert source.info["top"] == 3
    for row, name in enumerate(source.ids):
        record = next(each for each in records if each.id == name)
        known = np.isfinite(batch[TOP[1]][row, :, 0])
        if known.any():
            assert (batch[TOP[0]][row, known, 0] == record.top.tokens[: known.sum()]).all()
            assert batch["counted"][row, known].all()
    assert source.info["without_top"] < len(records) or not records


def test_ends_of_answers():
    """A net that says one thing: it stops at the token, at the text, or where it is cut."""

    def saying(text, ends):
        wanted = jnp.array([*text.encode(), *ends])

        def logits(tokens, positions):
            behind = jnp.clip(positions + 1 - 3, 0, len(wanted) - 1)
            return 50.0 * jax.nn.one_hot(wanted[behind], 257)

        return logits

    def net_of(text, ends=()):
        say = saying(text, ends)

        def apply(params, state, inputs, **_):
            given = inputs if isinstance(inputs, dict) else {"tokens": inputs}
            tokens = given["tokens"]
            counted = jnp.arange(tokens.shape[1])[None] + jnp.zeros_like(tokens)
            return Forward(say(tokens, given.get("positions", counted)), {}, state, params)

        def init(key, inputs):
            slots = inputs["slots"].shape if isinstance(inputs, dict) else (1, 1)
            return {}, {"cache": jnp.zeros(slots)}

        return NET._replace(apply=apply, init=init)

    def said(text, ends=(), **drawn):
        net = net_of(text, ends)
        teacher = decoder_teacher(
            net, ({}, {}), CHAT, name="parrot", revision="1", batch_size=1, context=64, top=2
        )
        sampling = Sampling(temperature=0.0, max_tokens=6, **drawn)
        (found,) = teacher.answer(Request.of("ab", sampling=sampling).questions())
        return found

    ended = said("hey", (256,))
    assert (ended.text, ended.finish, ended.top.tokens) == ("hey", "stop", (*b"hey", 256))
    cut = said("hello world")
    assert (cut.text, cut.finish, len(cut.top.tokens)) == ("hello ", "length", 6)
    stopped = said("he.llo", stop=(".",))
    assert (stopped.text, stopped.finish, stopped.top.tokens) == ("he", "stop", tuple(b"he"))


def test_what_cannot_be_asked():
    long = Request.of("q" * 70, sampling=DRAWN).questions()[0]
    (found,) = teacher_of().answer([long])
    assert found.finish == "failed"
    assert "a prompt of 71 tokens, and the context leaves room for 59" in found.error
    small = from_linen(Decoder(vocabulary=11, width=8, depth=1, heads=2))
    variables = small.init(jax.random.key(0), jnp.zeros((1, 1), int))
    with pytest.raises(ValueError, match="the tokenizer has 257 tokens, the net 11"):
        decoder_teacher(small, variables, CHAT, name="small")
    assert teacher_of().revision != teacher_of(top=2).revision
    other = NET.init(jax.random.key(1), jnp.zeros((1, 1), int))
    assert teacher_of().revision != teacher_of(variables=other).revision
    assert chat(byte_tokenizer(), chatml()).fingerprint != CHAT.fingerprint
