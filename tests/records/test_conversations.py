"""Records as windows: what counts, what it is worth, and that windows hold what they should."""

import dataclasses

import numpy as np
import pytest

from jaxdistill.data.text import byte_tokenizer
from jaxdistill.records import Message, Provenance, Record, TopTokens
from jaxdistill.records.chats import chat
from jaxdistill.records.conversations import (
    TOP,
    _packed,
    conversation_splits,
    conversations,
)
from jaxdistill.records.templates import plain

pytest.importorskip("tokenizers")
CHAT = chat(byte_tokenizer(), plain())
CAME = Provenance("oracle")


def record(name, question, answer, **fields):
    said = (Message("user", question), Message("assistant", answer, learn=True))
    return Record(name, said, CAME, answer=answer, **fields)


def many(count=40):
    draw = np.random.default_rng(0)
    return [
        record(f"{n:02d}", "q" * int(draw.integers(1, 9)), f"{n}" * int(draw.integers(1, 5)),
               weight=float(n % 3), task=("sum", "word")[n % 2])
        for n in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("pack", [False, True])
def test_windows_hold_every_conversation_once(pack):
    records = many()
    source = conversations(records[::-1], CHAT, 24, pack=pack)
    found = source.gather(np.arange(len(source)))
    assert len(source) < len(records) if pack else len(source) == len(records)
    texts = []
    for row in range(len(source)):
        segments = found["segments"][row] if pack else (found["label"][row] >= 0).astype(int)
        for segment in range(1, segments.max() + 1):
            own = segments == segment
            tokens = [*found["tokens"][row][own], found["label"][row][own][-1]]
            assert (tokens[1:] == found["label"][row][own]).all()
            if pack:
                assert found["positions"][row][own].tolist() == list(range(own.sum()))
            text = byte_tokenizer().decode([int(each) for each in tokens])
            question, answer = text.split("\n")
            counted = found["counted"][row][own]
            # The answer and the end are learnt, and nothing else.
            assert counted.sum() == len(answer) + 1
            assert counted[-len(answer) - 1 :].all()
            if not pack:
                assert found["prompt"][row] == len(question) + 1
            worth, task = (set(found[name][row][own].tolist()) for name in ("weight", "task"))
            texts.append((question, answer, worth, task))
        assert not found["counted"][row][segments == 0].any()
    expected = [
        (each.messages[0].content, each.answer, {each.weight}, {int(each.task == "word")})
        for each in records
    ]
    assert sorted(map(str, texts)) == sorted(map(str, expected))
    assert source.info["tasks"] == ("sum", "word")


def test_windows_depend_on_records_and_not_on_their_order():
    records = many()
    one, other = (conversations(r, CHAT, 24, pack=True) for r in (records, records[::-1]))
    assert one.fingerprint() == other.fingerprint()
    for changes in ({"weight": 7.0}, {"task": "new"}, {"messages": records[1].messages[::-1]}):
        changed = [dataclasses.replace(records[1], **changes), records[0], *records[2:]]
        assert conversations(changed, CHAT, 24, pack=True).fingerprint() != one.fingerprint()


def test_packing_wastes_little():
    sizes = np.random.default_rng(1).integers(1, 60, 500).tolist()
    bins = _packed(sizes, 64)
    assert sorted(row for own in bins for row in own) == list(range(500))
    assert max(sum(sizes[row] for row in own) for own in bins) <= 64
    assert len(bins) <= 1.03 * sum(sizes) / 64 + 1


def test_what_does_not_fit_is_left_out_and_counted():
    source = conversations([record("a", "q", "x" * 50), record("b", "q", "y")], CHAT, 10)
    assert source.ids == ["b"]
    assert source.info["left_out"] == 1
    with pytest.raises(ValueError, match="none of 1 records"):
        conversations([record("a", "q", "x" * 50)], CHAT, 10)


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("end", [True, False])
def test_most_probable_tokens_stand_where_their_token_is_predicted(pack, end):
    tokens = (*b"42", 256) if end else tuple(b"42")
    top = TopTokens(
        tokens, tuple((t, 7) for t in tokens[:-1]) + ((tokens[-1],),),
        tuple((-0.1, -3.0) for _ in tokens[:-1]) + ((0.0,),),
    )  # fmt: skip
    records = [record("a", "six", "42", top=top), record("b", "x", "41", top=top)]
    source = conversations(records, CHAT, 16, pack=pack)
    assert (source.info["top"], source.info["without_top"]) == (2, 1)
    found = source.gather(np.arange(len(source)))
    ids, log_probs = (found[name].reshape(-1, 2) for name in TOP)
    labels = found["label"].reshape(-1)
    known = np.isfinite(log_probs[:, 0])
    assert known.sum() == len(tokens)
    assert ids[known, 0].tolist() == labels[known].tolist() == list(tokens)
    assert np.isneginf(log_probs[known][-1, 1])


def test_all_answers_to_one_prompt_are_in_one_part():
    records = [record(f"{n}/{s}", f"q{n}", f"{s}") for n in range(60) for s in range(3)]
    found = conversation_splits(records, CHAT, 24, validation=0.2, test=0.2, pack=True)
    parts = {
        part: {each.split("/")[0] for each in source.ids}
        for part, source in found.items()
        if part != "train"
    }
    assert set(found) == {"train", "validation", "test"}
    assert not parts["validation"] & parts["test"]
    assert sum(len(found[part]) for part in parts) == 3 * sum(map(len, parts.values()))
    assert "segments" in found["train"].gather(np.array([0]))
    assert "segments" not in found["test"].gather(np.array([0]))


def test_records_that_say_their_part_are_in_it():
    records = [record("a", "q", "1"), record("b", "q", "2", split="test")]
    found = conversation_splits(records, CHAT, 24)
    assert {part: list(source.ids) for part, source in found.items()} == {
        "train": ["a"],
        "test": ["b"],
    }
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        conversation_splits([record("a", "q", "1", split="dev")], CHAT, 24)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([record("a", "q", "1")] * 2, "two records have the id 'a'"),
        ([record("a", "q", "1", weight=-1.0)], "record a: its weight is -1.0"),
        ([record("a", "q", "1", weight=float("nan"))], "its weight is nan"),
        ([Record("a", (Message("user", "q"),), CAME)], "record a: nothing of it is learnt"),
        ([record("a", "q", "")], "record a: message 1 .assistant. is to be learnt"),
    ],
)
def test_bad_records(records, said):
    with pytest.raises(ValueError, match=said):
        conversations(records, CHAT, 24)
