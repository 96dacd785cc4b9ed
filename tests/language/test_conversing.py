"""Conversations that a student's own answers lead."""

import jax
import numpy as np
import pytest

from jaxdistill import from_linen
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.data.text import byte_tokenizer
from jaxdistill.language import Play, conversed, generate
from jaxdistill.language.answering import said
from jaxdistill.language.sampling import Sampling
from jaxdistill.models import Decoder
from jaxdistill.records import Message, Request, chat, plain, requested

NET = from_linen(Decoder(vocabulary=257, width=16, depth=1, heads=2))
VARIABLES = jax.jit(NET.init)(jax.random.key(3), np.zeros((1, 4), np.int32))
CHAT = chat(byte_tokenizer(), plain())


def talk(request):
    """Says its own name, then what it was answered, as often as the name is long."""
    heard = []
    for _ in request.source:
        heard.append((yield f"{request.source} {''.join(heard)}"))
    return request.source, heard


def count(found):
    return {"talks": float(len(found)), "rounds": float(max(len(heard) for _, heard in found))}


def batches(*names):
    asked = [Request.of("x", source=name, reference="y", split="test") for name in names]
    return evaluation_batches(requested(asked, CHAT, 8), 2)


@jax.jit
def written(tokens, length):
    return generate(
        NET, VARIABLES, tokens, length, jax.random.key(0),
        new=3, sampling=Sampling(0.0), stop=CHAT.ends, pad=CHAT.tokenizer.end,
    )  # fmt: skip


def alone(asked):
    tokens = CHAT.prompt([Message("user", asked)])
    row = np.pad(tokens, (0, 24 - len(tokens)))[None]
    found = written(row, np.array([len(tokens)]))
    return said(CHAT, found.tokens[0, len(tokens) : found.lengths[0]].tolist())


def test_each_conversation_is_led_by_its_own_answers():
    ended = []
    play = Play(talk, lambda found: ended.extend(found) or count(found), ("talks", "rounds"))
    evaluator = conversed(NET, CHAT, play, prompt=24, new=3, prefix="own_")
    assert evaluator.metrics == ("own_talks", "own_rounds")
    values = evaluator(VARIABLES, {}, batches("a", "bcd", "ef", "ghijklm"))
    assert values == {"own_talks": 4.0, "own_rounds": 7.0}
    for name, heard in ended:
        for number, answer in enumerate(heard):
            asked = f"{name} {''.join(heard[:number])}"
            fits = len(CHAT.prompt([Message("user", asked)])) <= 24
            assert answer == (alone(asked) if fits else "")
    assert any("" in heard for _, heard in ended), "no question was too long"


def test_only_some_are_asked_and_only_requests():
    play = Play(talk, count, ("talks", "rounds"))
    evaluator = conversed(NET, CHAT, play, prompt=24, new=1, most=2)
    assert evaluator(VARIABLES, {}, batches("a", "b", "c"))["talks"] == 2
    with pytest.raises(ValueError, match="'conversed' asks held-out requests"):
        evaluator(VARIABLES, {}, [{"tokens": np.zeros((2, 8), np.int32)}])
