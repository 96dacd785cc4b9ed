"""Every token is seen once, none of another text; files; splits by text."""

import json
import sys
import types

import numpy as np
import pytest

from jaxdistill.data import text
from jaxdistill.data.text import Document, byte_tokenizer, corpus, windows

TEXTS = [Document(f"d{i}", "abcdefghij"[: i % 7] * (i % 3 + 1)) for i in range(40)]
BYTES = byte_tokenizer()


def everything(source):
    return source.gather(np.arange(len(source)))


@pytest.mark.parametrize("pack", [False, True])
def test_every_token_of_every_text_is_predicted_once(pack):
    found = everything(windows(TEXTS, BYTES, 5, pack=pack))
    labels = found["label"][found["counted"]].tolist()
    wanted = [t for d in TEXTS for t in [*d.text.encode(), 256]]
    # What does not fill the last packed window is left out.
    assert labels == (wanted[: len(labels)] if pack else wanted)
    assert len(labels) > len(wanted) - 6
    assert ((found["label"] >= 0) == found["counted"]).all()


def test_packed_texts_are_kept_apart():
    found = everything(windows(TEXTS, BYTES, 9, pack=True))
    starts = found["tokens"] == 256
    for tokens, segments, positions, counted in zip(
        found["tokens"], found["segments"], found["positions"], found["counted"], strict=True
    ):
        assert segments[0] == 1
        for i in range(1, 9):
            new = segments[i] != segments[i - 1]
            assert positions[i] == (0 if new else positions[i - 1] + 1)
            # A text begins with the end token and the one before ended with it.
            assert not new or (tokens[i] == 256 and tokens[i - 1] == 256 and not counted[i - 1])
    assert starts.any()


def test_a_prompt_is_given_and_never_learnt():
    documents = [Document("a", "xy", "pqr"), Document("b", "", "pq"), Document("c", "x", "p" * 9)]
    source = windows(documents, BYTES, 6)
    found = everything(source)
    assert source.info["left_out"] == 1
    assert found["prompt"].tolist() == [4, 3]
    assert found["label"][found["counted"]].tolist() == [*b"xy", 256, 256]
    with pytest.raises(ValueError, match="none of 1 texts"):
        windows(documents[2:], BYTES, 6)
    with pytest.raises(ValueError, match="not packed"):
        windows(documents, BYTES, 6, pack=True)


def test_no_text_is_in_two_parts():
    parts = corpus(TEXTS, BYTES, 4, validation=0.2, test=0.2)
    names = {part: {i.split("#")[0] for i in source.ids} for part, source in parts.items()}
    assert sum(map(len, names.values())) == len(set.union(*names.values())) == len(TEXTS)
    assert min(map(len, names.values())) > 2
    with pytest.raises(ValueError, match=r"part of 'text' \(1 documents\) is empty"):
        corpus(TEXTS[:1], BYTES, 4)


def test_domains_are_groups():
    parts = {"a": TEXTS[:20], "b": [Document(f"e{i}", "zz") for i in range(20)]}
    found = text.domains(parts, BYTES, 4, validation=0.2, test=0.2)
    train = found["train"]
    assert train.info["groups"] == ("a", "b")
    records = everything(train)
    assert train.info["group_sizes"] == tuple(np.bincount(records["group"]))
    assert (records["tokens"][records["group"] == 1] != ord("a")).all()


def test_the_standard_library_is_there():
    documents = text.standard_library()
    names = [document.name for document in documents]
    assert "argparse.py" in names
    assert "json/decoder.py" in names
    assert not any(name.startswith("test/") for name in names)
    assert sum(len(document.text) for document in documents) > 1_000_000


def test_files(tmp_path):
    (tmp_path / "one.txt").write_text("first")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "two.txt").write_text("second")
    assert text.text_files(tmp_path) == [("deep/two.txt", "second", ""), ("one.txt", "first", "")]
    rows = [{"q": "1+1", "a": "2"}, {"q": "2+2", "a": "4"}]
    lines = tmp_path / "rows.jsonl"
    lines.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    found = text.json_lines(lines, "a", "q")
    assert found == [("rows.jsonl/000000", "2", "1+1"), ("rows.jsonl/000001", "4", "2+2")]
    with pytest.raises(ValueError, match=r"record 1 of .*rows\.jsonl has no text under 'text'"):
        text.json_lines(lines)
    lines.write_text('{"a": "2"}\nbroken\n')
    with pytest.raises(ValueError, match=r"line 2 of .* is no JSON"):
        text.json_lines(lines, "a")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        text.text_files(tmp_path, "*.md")


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(arrow.table({"text": ["a", "b"]}), path)
    assert text.parquet(path) == [
        ("rows.parquet/000000", "a", ""),
        ("rows.parquet/000001", "b", ""),
    ]
    with pytest.raises(ValueError, match="'text'"):
        text.parquet(path, "txt")


def test_a_tokenizer_from_a_file(tmp_path, monkeypatch):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["?", "<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["banana bandana", "banana"] * 9, trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    found = text.file_tokenizer(path=tmp_path)
    tokens = found.encode("banana")
    assert len(tokens) < 6
    assert found.decode([*tokens, found.end]) == "banana"
    assert found.vocabulary == made.get_vocab_size()
    with pytest.raises(ValueError, match="has no token '</s>'"):
        text.file_tokenizer(path=tmp_path, end="</s>")
    with pytest.raises(FileNotFoundError, match="there is no tokenizer"):
        text.file_tokenizer(path=tmp_path / "nowhere.json")
    # What ends a text is asked of the folder, then a name on the hub is tried.
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "?"}}')
    assert text.file_tokenizer(path=tmp_path).end == made.token_to_id("?")
    hub = types.SimpleNamespace(snapshot_download=lambda name, allow_patterns: tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert text.file_tokenizer(path="owner/name", end="<|endoftext|>").end == found.end


def test_tokenizers_of_older_folders(tmp_path):
    pytest.importorskip("tokenizers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "ban", "##ana"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "tokenizer_config.json").write_text('{"sep_token": "[SEP]", "cls_token": "[CLS]"}')
    found = text.file_tokenizer(path=tmp_path)
    assert found.encode("A banana").tolist() == [5, 6, 7]
    assert found.decode([2, 5, 6, 7, 3]) == "a banana"
    assert (found.vocabulary, found.start, found.end) == (8, 2, 3)
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "vocab.json").write_text('{"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    (tmp_path / "tokenizer_config.json").unlink()
    found = text.file_tokenizer(path=tmp_path)
    assert (found.encode("abab").tolist(), found.end) == ([3, 3], 0)


def test_what_is_no_utf8_is_named_by_file_and_line(tmp_path):
    (tmp_path / "good.txt").write_text("é\r\nù", newline="")
    assert text.text_files(tmp_path) == [("good.txt", "é\nù", "")]
    (tmp_path / "late.txt").write_bytes("one\ntwo\nthrée\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"line 3 of .*late\.txt is not UTF-8 \(byte 0xe9\)"):
        text.text_files(tmp_path)
    lines = tmp_path / "rows.jsonl"
    lines.write_bytes('{"text": "a"}\n{"text": "é"}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"line 2 of .*rows\.jsonl is not UTF-8 \(byte 0xe9\)"):
        text.json_lines(lines)
    lines.write_text('{"text": "a"}\n' + "[" * 100_000 + "]" * 100_000)
    with pytest.raises(ValueError, match=r"line 2 of .*rows\.jsonl is JSON of too many levels"):
        text.json_lines(lines)


def test_halves_of_characters_are_named(tmp_path):
    lines = tmp_path / "rows.jsonl"
    lines.write_text('{"text": "a"}\n{"text": "b\\ud83d"}\n')
    with pytest.raises(ValueError, match=r"record 2 of .*rows\.jsonl has half a character .* at 1"):
        text.json_lines(lines)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no table at all", b"PAR1" * 9])
def test_what_is_no_parquet_is_named(tmp_path, content):
    pytest.importorskip("pyarrow")
    (tmp_path / "rows.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"rows\.parquet cannot be read as Parquet"):
        text.parquet(tmp_path / "rows.parquet")


WORDS = {
    "version": "1.0",
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": None,
    "decoder": None,
    "model": {
        "type": "WordLevel",
        "vocab": {"<|endoftext|>": 0, "a": 1, "b": 2, "c": 77, "d": 4, "?": 5},
        "unk_token": "?",
    },
}


def test_the_vocabulary_is_the_largest_token_and_one_more(tmp_path, caplog):
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(WORDS))
    with caplog.at_level("WARNING"):
        found = text.file_tokenizer(path=path)
    assert found.vocabulary == 78
    assert "6 tokens, the largest of which is 77: its vocabulary is 78" in caplog.text
    assert found.encode("c x").tolist() == [77, 5]
    source = windows([Document("d", "a b c")], found, 4)
    assert source.info["vocabulary"] == 78 > everything(source)["label"].max()


def test_a_file_neither_cuts_texts_nor_fills_them_up(tmp_path):
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    cut = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    pad = {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None}
    pad |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "a"}
    path.write_text(json.dumps({**WORDS, "truncation": cut, "padding": pad}))
    assert text.file_tokenizer(path=path).encode("a b d").tolist() == [1, 2, 4]


FOREIGN = {
    "empty": "",
    "deep": "[" * 100_000,
    "a list": "[]",
    "another model": json.dumps({"model": {"type": "Mystery"}}),
    "text": "<|endoftext|>\na\nb\n",
    "huge": json.dumps({**WORDS, "model": {"type": "WordLevel", "vocab": {"a": 2**40}}}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_tokenizers_are_named(tmp_path, name):
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    path.write_text(FOREIGN[name])
    for given in (path, tmp_path):
        with pytest.raises(ValueError, match="cannot be read as a tokenizer: ") as caught:
            text.file_tokenizer(path=given)
        assert str(caught.value).startswith(str(given))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "is no JSON"),
        ("[]", "is no JSON object"),
        ("[" * 100_000 + "]" * 100_000, "is JSON of too many levels"),
        ('{"eos_token": 7}', "'eos_token' is 7, not a token"),
    ],
)
def test_what_stands_beside_a_tokenizer_is_checked(tmp_path, said, words):
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text(json.dumps(WORDS))
    (tmp_path / "tokenizer_config.json").write_text(said)
    with pytest.raises(ValueError, match=words):
        text.file_tokenizer(path=tmp_path)


def test_a_text_that_cannot_be_written_is_named(tmp_path):
    pytest.importorskip("tokenizers")
    model = {"type": "WordLevel", "vocab": {"<|endoftext|>": 0, "a": 1}, "unk_token": "?"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({**WORDS, "model": model}))
    found = text.file_tokenizer(path=tmp_path)
    with pytest.raises(ValueError, match=r"cannot write 'x y': .*Missing"):
        found.encode("x y")


@pytest.mark.parametrize("change", [{"vocabulary": 99}, {"end": 300}, {"start": -1}])
def test_tokens_outside_of_the_vocabulary_are_refused(change):
    wrong = BYTES._replace(**change)
    with pytest.raises(ValueError, match=r"tokenizer of 'text' gives token .* vocabulary is"):
        windows(TEXTS, wrong, 8)


def test_texts_that_say_the_same_stay_together():
    twice = [Document(f"d{i}", f"text {i % 30}") for i in range(60)]
    parts = corpus(twice, BYTES, 8, validation=0.3, test=0.3, by="content")
    texts = {
        part: {twice[int(i.split("#")[0][1:])].text for i in source.ids}
        for part, source in parts.items()
    }
    assert sum(map(len, texts.values())) == 30
    assert len({len(source) for source in parts.values()}) > 1
    apart = corpus(twice, BYTES, 8, validation=0.3, test=0.3)
    from jaxdistill.data.checks import duplicates

    assert duplicates(apart)
    assert not duplicates(parts)
