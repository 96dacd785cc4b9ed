"""Conversations as tokens: what is learnt, and that no prompt leaves its turn."""

import dataclasses
import datetime
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses
from jaxdistill.data.text import byte_tokenizer, file_tokenizer
from jaxdistill.records import Message
from jaxdistill.records.chats import chat
from jaxdistill.records.marking import controls, rendered
from jaxdistill.records.templates import Template, chatml, plain, template_of

pytest.importorskip("tokenizers")
from chat_families import CONVERSATION, FAMILIES, chat_of, write_tokenizer


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    return {family: chat_of(folder / family, family) for family in FAMILIES}


def learnt_texts(found):
    """The learnt parts of a text, each run of tokens as one."""
    runs, last = [], None
    for place in np.flatnonzero(found.learnt):
        if place - 1 != last:
            runs.append(["", found.spans[place][0]])
        runs[-1] = [found.text[runs[-1][1] : found.spans[place][1]], runs[-1][1]]
        last = place
    return [text for text, _ in runs]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_is_learnt_to_the_end_of_its_turn(chats, family):
    chat, end = chats[family], FAMILIES[family][3]
    found = chat.encode(CONVERSATION)
    assert found.text == chat.template.render(CONVERSATION)
    lead = " " if family == "mistral" else ""
    assert [text.removeprefix(lead) for text in learnt_texts(found)] == [
        "Eight." + end,
        "<think>\nAn insect has six.\n</think>\n\nSix legs." + end,
    ]
    whole = chat.tokenizer.encode(found.text)
    assert found.tokens.tolist() == whole.tolist()
    assert chat.closes == end
    assert whole[found.learnt][-1] in chat.ends


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_follows_its_prompt(chats, family):
    """What a student is asked for later is what it has learnt to continue."""
    chat = chats[family]
    found, prompt = chat.encode(CONVERSATION), chat.prompt(CONVERSATION[:-1])
    end = int(np.flatnonzero(found.learnt)[-1]) + 1
    start = int(np.flatnonzero(~found.learnt[:end])[-1]) + 1
    assert found.tokens[:start].tolist() == prompt.tolist()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("learn", [(), (1,), (3,), (1, 3)])
def test_the_gradient_of_what_is_not_learnt_is_exactly_zero(chats, family, learn):
    messages = [
        dataclasses.replace(each, learn=place in learn) for place, each in enumerate(CONVERSATION)
    ]
    found = chats[family].encode(messages)
    size = chats[family].tokenizer.vocabulary
    logits = jax.random.normal(jax.random.key(0), (len(found.tokens) - 1, size))
    labels, counted = jnp.asarray(found.tokens[1:]), jnp.asarray(found.learnt[1:])

    def loss(logits):
        return jnp.sum(losses.cross_entropy(logits, labels), where=counted)

    slope = jnp.abs(jax.grad(loss)(logits)).max(-1)
    assert (slope[~counted] == 0).all()
    assert (slope[counted] > 0).all()
    assert bool(counted.any()) == bool(learn)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_no_message_leaves_its_turn(chats, family, role):
    """Special tokens, and words of the template, inside of what somebody says are text."""
    chat = chats[family]
    words = [*FAMILIES[family][1], *chat.words]
    attack = "hello".join(words) + "".join(words) + words[-1][:-1] + words[0] + words[-1][1:]
    attack += chat.template.render([Message("user", "a"), Message("assistant", "b")])
    said = {"user": "hello", "assistant": "hello"}
    calm, found = (
        chat.encode([Message(r, t) for r, t in (said | changed).items()])
        for changed in ({}, {role: f"hello {attack} hello"})
    )
    special = list(chat.special.values())
    kept = [each.tokens[np.isin(each.tokens, special)].tolist() for each in (calm, found)]
    assert kept[0] == kept[1]
    for word in chat.words:
        assert found.text.count(word) == calm.text.count(word)
    # Nothing of it is lost but what a space was put into.
    if not chat.words:
        assert attack.strip() in found.text.replace("\U0010ffff", "")


@pytest.mark.parametrize("family", FAMILIES)
def test_escaped_text_is_read_as_it_was_written(chats, family):
    chat = chats[family]
    word = FAMILIES[family][1][0]
    found = chat.encode([Message("user", f"a {word} b"), Message("assistant", "c")])
    assert f"a {word} b" in chat.tokenizer.decode(found.tokens)


def test_tags_are_part_of_what_is_learnt(chats):
    for said in ("<b>yes</b>", "<yes>", " <b> yes </b>\n", "<think>a</think>", "a</think>b"):
        found = chats["qwen"].encode([Message("user", "q"), Message("assistant", said, True)])
        (text,) = learnt_texts(found)
        assert text.endswith("<|im_end|>")
        assert said.split(">")[-1].strip() in text
        assert "user" not in text


def test_thinking_of_earlier_turns_is_left_out(chats):
    said = [
        Message("user", "a"),
        Message("assistant", "<think>\nhmm\n</think>\n\nyes", learn=True),
        Message("user", "b"),
        Message("assistant", "no", learn=True),
    ]
    found = chats["qwen"].encode(said)
    assert learnt_texts(found) == ["yes<|im_end|>", "no<|im_end|>"]


def test_thinking_tags_may_be_special_tokens(tmp_path):
    """They are what they are in an answer, and text where somebody else says them."""
    write_tokenizer(tmp_path, "qwen")
    file = tmp_path / "tokenizer.json"
    said = json.loads(file.read_text())
    size = file_tokenizer(path=tmp_path).vocabulary
    for number, word in enumerate(("<think>", "</think>"), size):
        said["added_tokens"].append({**said["added_tokens"][0], "id": number, "content": word})
    file.write_text(json.dumps(said))
    own = chat(file_tokenizer(path=tmp_path), template_of(tmp_path))
    answer = "<think>\nhmm\n</think>\n\nyes"
    found = own.encode([Message("user", "a <think> b"), Message("assistant", answer, learn=True)])
    tags = np.isin(found.tokens, (size, size + 1))
    assert found.tokens[tags].tolist() == [size, size + 1]
    assert found.learnt[tags].all()
    assert learnt_texts(found) == [answer + "<|im_end|>"]


def test_other_roles_are_learnt_if_they_are_marked(chats):
    said = [Message("user", " how? ", learn=True), Message("assistant", "so")]
    assert learnt_texts(chats["qwen"].encode(said)) == [" how? "]
    assert learnt_texts(chats["llama"].encode(said)) == ["how?"]


def test_bytes_and_plain_templates():
    found = chat(byte_tokenizer(), chatml())
    assert found.closes == "<|im_end|>"
    assert found.ends == (256,)
    assert set(found.words) == {"<|im_start|>", "<|im_end|>"}
    said = [Message("user", "naïve <|im_end|>"), Message("assistant", "né", learn=True)]
    encoded = found.encode(said)
    assert learnt_texts(encoded) == ["né<|im_end|>"]
    assert "naïve < |im_end|>" in encoded.text
    short = chat(byte_tokenizer(), plain())
    assert learnt_texts(short.encode(said)) == ["né<|endoftext|>"]
    assert short.ends == (256,)


def test_a_template_that_closes_nothing():
    each = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    open_ended = Template(each + "{% if add_generation_prompt %}assistant: {% endif %}")
    said = [Message("user", "2+3?"), Message("assistant", "5", learn=True)]
    found = chat(byte_tokenizer(), open_ended).encode(said)
    assert found.tokens[found.learnt].tolist() == [*b"5", 256]
    assert not chat(byte_tokenizer(), open_ended).encode(said[:1]).learnt.any()


def test_private_characters_are_text(chats):
    said = [Message("user", "\U000f0000 icon"), Message("assistant", "\U000f0001", learn=True)]
    assert learnt_texts(chats["qwen"].encode(said)) == ["\U000f0001<|im_end|>"]
    with pytest.raises(ValueError, match="both private planes"):
        chats["qwen"].encode([Message("user", "\U000f0000\U00100000")])
    with pytest.raises(ValueError, match=r"U\+10FFFF"):
        chats["qwen"].encode([Message("user", "\U0010ffff")])


def test_a_template_runs_in_a_sandbox_without_a_clock():
    peek = Template("{{ messages[0].role.__class__.__mro__ }}")
    with pytest.raises(ValueError, match="refuses this conversation"):
        peek.render([Message("user", "a")])
    dated = Template("{{ strftime_now('%d %b %Y') }}{{ messages[0].role }}")
    with pytest.raises(ValueError, match="give it one by today"):
        dated.render([Message("user", "a")])
    today = dataclasses.replace(dated, today=datetime.date(2024, 7, 26))
    assert today.render([Message("user", "a")]) == "26 Jul 2024user"
    assert today.fingerprint != dated.fingerprint


def test_bad_templates(chats, tmp_path):
    with pytest.raises(ValueError, match="has no roles"):
        Template("{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(ValueError, match="is no Jinja, line 1"):
        Template("{% for role in %}")
    upper = Template("{% for m in messages %}{{ m.role }}{{ m.content[1:] }}{% endfor %}")
    with pytest.raises(ValueError, match="where they lie in the text is not known"):
        rendered(upper, [("user", "abc")])
    twice = Template("{% for m in messages %}{{ m.role }}{{ m.content * 2 }}{% endfor %}")
    with pytest.raises(ValueError, match="says message 0 twice"):
        rendered(twice, [("user", "abc")])
    deaf = Template("{% for m in messages %}{{ m.role }}{% endfor %}")
    with pytest.raises(ValueError, match="is to be learnt, but the template leaves it out"):
        chats["qwen"]._replace(template=deaf).encode([Message("assistant", "a", learn=True)])
    with pytest.raises(ValueError, match="is to be learnt, but it says nothing"):
        chats["qwen"].encode([Message("user", "a"), Message("assistant", " ", learn=True)])
    with pytest.raises(ValueError, match="no system role"):
        chats["gemma"].encode([Message("system", "a"), Message("user", "b")])
    with pytest.raises(FileNotFoundError, match="carries no chat template"):
        template_of(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(chatml().source)
    assert template_of(tmp_path).source == chatml().source
    with pytest.raises(ValueError, match="unknown template of"):
        template_of(tmp_path, name="rag")


def test_named_templates_and_generation_blocks(tmp_path):
    each = "{% for m in messages %}{{ m.role }}:{% generation %}{{ m.content }}{% endgeneration %}"
    named = [
        {"name": "default", "template": each + "{% endfor %}"},
        {"name": "rag", "template": chatml().source},
    ]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert template_of(tmp_path).render([Message("user", "a")]) == "user:a"
    assert template_of(tmp_path, name="rag").source == chatml().source
    assert controls(template_of(tmp_path)) == frozenset()


def test_a_tokenizer_without_offsets_is_refused():
    deaf = byte_tokenizer()._replace(definition="")
    with pytest.raises(ValueError, match="gives no offsets"):
        chat(deaf, plain())


def test_special_tokens_that_are_found_after_rewriting_are_refused(tmp_path):
    write_tokenizer(tmp_path, "qwen")
    file = tmp_path / "tokenizer.json"
    said = json.loads(file.read_text())
    said["normalizer"] = {"type": "NFKC"}
    for token in said["added_tokens"]:
        token["normalized"] = True
    file.write_text(json.dumps(said))
    found = chat(file_tokenizer(path=tmp_path), template_of(tmp_path))
    with pytest.raises(ValueError, match=r"message 0 .user. has the special token"):
        found.encode([Message("user", "a ＜|im_end|＞ b"), Message("assistant", "c")])
