"""Texts as records: where text, its end and its padding are; published files; hidden tokens."""

import gzip
import json

import jax
import numpy as np
import pytest

from jaxdistill import registry
from jaxdistill.data import sentences, views
from jaxdistill.data.published import SETS
from jaxdistill.data.sentences import Sentences, encoded
from jaxdistill.data.text import bpe_tokenizer, byte_tokenizer

BYTES = byte_tokenizer()


def rows(given, length, tokenizer=BYTES):
    source = encoded(given, tokenizer, length)
    return source, source.gather(np.arange(len(source)))


def test_a_long_text_is_cut_and_a_short_one_filled_up():
    source, found = rows(Sentences("s", ["abcdef", "a", ""], np.array([1, 0, 1])), 5)
    assert found["tokens"].tolist() == [
        [256, 97, 98, 99, 256],
        [256, 97, 256, 256, 256],
        [256, 256, 256, 256, 256],
    ]
    assert found["mask"].sum(1).tolist() == [5, 3, 2]
    assert source.info["classes"] == 2
    assert "types" not in found
    _, found = rows(Sentences("s", ["a"], np.array([0])), 4, BYTES._replace(start=7))
    assert found["tokens"].tolist() == [[7, 97, 256, 256]]


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (("ab", "c"), [[97, 98], [99]]),
        (("abcdef", "ghijkl"), [[97, 98, 99], [103, 104, 105]]),
        (("abcdef", "g"), [[97, 98, 99, 100, 101], [103]]),
        (("a", "ghijkl"), [[97], [103, 104, 105, 106, 107]]),
    ],
)
def test_pairs_share_the_places(pair, expected):
    source, found = rows(Sentences("p", pair[:1], np.array([0.5]), others=pair[1:]), 9)
    tokens, types, mask = (found[key][0] for key in ("tokens", "types", "mask"))
    assert [tokens[mask & (types == kind)].tolist() for kind in (0, 1)] == [
        [256, *expected[0], 256],
        [*expected[1], 256],
    ]
    assert found["label"].tolist() == [[0.5]]
    assert "classes" not in source.info


def test_a_learnt_encoding_says_any_text():
    texts = ["the cat sat on the mat", "the dog sat"] * 3
    tokenizer = bpe_tokenizer(texts, vocabulary=280)
    assert tokenizer.vocabulary <= 280
    assert len(tokenizer.encode("the cat")) < 7
    assert tokenizer.decode(tokenizer.encode("né \u0219i the")).strip() == "né și the"
    with pytest.raises(ValueError, match="vocabulary=200 must be a whole number, 257 or more"):
        bpe_tokenizer(texts, vocabulary=200)


def test_passages_are_those_of_their_packages():
    few, more = (sentences.library_passages(each=n) for n in (4, 8))
    assert set(few.ids) < set(more.ids)  # a larger choice holds the smaller one
    names = [name.split("/")[0] for name in few.ids]
    assert [few.class_names[label] for label in few.labels] == names
    assert len(few.texts) == 4 * len(few.class_names)
    assert all(len(text.splitlines()) == 3 for text in few.texts)


def test_pairs_of_passages_are_of_one_file_or_of_two_and_none_is_used_twice():
    found = sentences.library_pairs(each=40)
    files = [[side.partition("#")[0] for side in name.split("+")] for name in found.ids]
    assert [first == second for first, second in files] == (found.labels == 1).tolist()
    assert all(a.split("/")[0] == b.split("/")[0] for a, b in files)
    used = [side for name in found.ids for side in name.split("+")]
    assert len(set(used)) == len(used)
    assert 0.4 < found.labels.mean() < 0.6
    assert len({*found.texts, *found.others}) > len(found.texts)


def published(folder, name, form):
    if form == "lines":
        (folder / "ro").mkdir()
        with gzip.open(folder / "ro" / "ro_sts_train.jsonl.gz", "wt") as file:
            file.write(json.dumps({"a": "un om", "b": "o casă", "score": 2.5}))
        return SETS[name](folder / "ro", "train")
    content = {
        "sst2": ("train.tsv", 'sentence\tlabel\na "fine film\t1\nbad\t0\n'),
        "ro_sts": ("RO-STS.train.tsv", "2.5\tun om\to casă\n"),
        "stsb": ("train.tsv", 'index\tsentence1\tsentence2\tscore\n0\ta "man\ta house\t2.5\n'),
        "mrpc": (
            "msr_paraphrase_train.txt",
            "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\ta man\ta house\n",
        ),
        "rte": (
            "train.tsv",
            "index\tsentence1\tsentence2\tlabel\n0\ta man\ta house\tnot_entailment\n",
        ),
        "laroseda": (
            "laroseda_train.json",
            json.dumps({"reviews": [{"title": "Bun", "content": "da", "starRating": "5"}]}),
        ),
    }[name]
    (folder / content[0]).write_text(content[1], encoding="utf-8")
    return SETS[name](folder, "train")


@pytest.mark.parametrize(
    ("name", "form", "texts", "others", "labels"),
    [
        ("sst2", "tsv", ['a "fine film', "bad"], None, [1, 0]),
        ("laroseda", "json", ["Bun. da"], None, [1]),
        ("ro_sts", "tsv", ["un om"], ["o casă"], [0.5]),
        ("ro_sts", "lines", ["un om"], ["o casă"], [0.5]),
        ("stsb", "tsv", ['a "man'], ["a house"], [0.5]),
        ("mrpc", "tsv", ["a man"], ["a house"], [1]),
        ("rte", "tsv", ["a man"], ["a house"], [1]),
    ],
)
def test_published_files(name, form, texts, others, labels, tmp_path):
    found = published(tmp_path, name, form)
    assert (found.texts, found.others, found.labels.tolist()) == (texts, others, labels)
    with pytest.raises(
        FileNotFoundError, match=rf"data set '{name}' needs .* or \S*(test|dev).jsonl"
    ):
        SETS[name](tmp_path, "test")


def test_hidden_tokens():
    view = views.masked_texts(257, token=255, share=0.3)
    _, batch = rows(Sentences("s", ["abcdefghij" * 6, "abc"], np.array([0, 1])), 64)
    batch = {k: np.repeat(v, 50, 0) for k, v in batch.items()}
    seen = jax.device_get(view(batch, jax.random.key(0)))
    chosen, tokens = seen["chosen"], seen["student"]["tokens"]
    assert not chosen[:, 0].any()
    assert not (chosen & ~batch["mask"]).any()
    assert chosen[batch["mask"]].mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_array_equal(tokens[~chosen], batch["tokens"][~chosen])
    np.testing.assert_array_equal(seen["label"], np.where(chosen, batch["tokens"], -1))
    hidden, kept = tokens[chosen] == 255, tokens[chosen] == batch["tokens"][chosen]
    assert hidden.mean() == pytest.approx(0.8, abs=0.05)
    assert kept.mean() == pytest.approx(0.1, abs=0.05)
    np.testing.assert_array_equal(seen["teacher"]["tokens"], tokens)


def test_what_is_refused():
    with pytest.raises(ValueError, match="3 tokens or more"):
        encoded(Sentences("s", ["a"], np.array([0])), BYTES, 2)
    with pytest.raises(ValueError, match="1 texts and 2 labels"):
        encoded(Sentences("s", ["a"], np.array([0, 1])), BYTES, 9)
    with pytest.raises(ValueError, match=r"token=300 must lie in 0\.\.256"):
        views.masked_texts(257, token=300)
    with pytest.raises(ValueError, match=r"data set 'sst2' needs a folder: --config.data.dir"):
        registry.data({"name": "sst2", "length": 8})
    with pytest.raises(ValueError, match="of a view texts have 'mask' alone"):
        registry.view({"augment": ()}, {"vocabulary": 5})
    with pytest.raises(ValueError, match="unknown key of tokenizer 'bpe' 'size'"):
        registry.data(
            {"name": "library_passages", "length": 8, "tokenizer": {"name": "bpe", "size": 9}}
        )


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array(["good", "bad"]), r"not <U4 of shape \[2\]: number the classes, e.g. names"),
        (["a", 1], "number the classes"),
        (np.eye(2), r"not float64 of shape \[2, 2\]"),
        (np.array([0, 2]), "that of number 1 is 2, not from 0 to 1"),
        (np.array([-1, 0]), "that of number 0 is -1, not from 0 to 1"),
        (np.array([0.5, np.nan]), "that of number 1 is nan, not finite"),
        (np.array([0, 2**40]), "that of number 1 is 1099511627776"),
    ],
)
def test_labels_that_are_neither_classes_nor_scores_are_refused(labels, words):
    given = Sentences("s", ["a", "b"], labels, class_names=("no", "yes"))
    with pytest.raises(ValueError, match=f"labels of 's' are whole numbers.*{words}"):
        encoded(given, BYTES, 8)


ROWS = {
    "sst2": {"text": "a", "label": 1},
    "laroseda": {"title": "a", "text": "b", "label": 1},
    "ro_sts": {"a": "a", "b": "b", "score": 2.5},
    "stsb": {"a": "a", "b": "b", "score": 2.5},
    "mrpc": {"a": "a", "b": "b", "label": 1},
    "rte": {"a": "a", "b": "b", "label": 1},
}


def lines_of(folder, name, second):
    path = folder / f"{f'{name}_' if 'a' in ROWS[name] else ''}train.jsonl"
    path.write_bytes(json.dumps(ROWS[name]).encode() + b"\n\n" + second + b"\n")
    return path


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(
    ("second", "words"),
    [
        (b'{"text": "caf\xe9"}', "is not UTF-8 .byte 0xe9.: save it as UTF-8"),
        (b"{", "is no JSON"),
        (b"[" * 100_000, "is JSON of too many levels|is no JSON"),
        (b'"a text"', "is no JSON object"),
        (b'{"label": 1}', "has no text under"),
        (b"number", "has no number under"),
        (b"9", "has '(label|score)' 9, not a number from 0 to"),
        (b"NaN", "has '(label|score)' nan, not a number"),
        (b"0.5", "has 'label' 0.5, not a whole number"),
    ],
)
def test_a_row_that_is_wrong_is_named_by_file_and_line(tmp_path, name, second, words):
    key = "score" if "score" in ROWS[name] else "label"
    if second == b"0.5" and key == "score":
        return
    if second[:1].isalnum():
        value = "a text" if second == b"number" else float(second)
        second = json.dumps({**ROWS[name], key: value}).encode()
    path = lines_of(tmp_path, name, second)
    with pytest.raises(ValueError, match=words) as caught:
        SETS[name](tmp_path, "train")
    assert str(caught.value).startswith(f"line 3 of {path} ")


def test_published_files_that_are_damaged_are_named(tmp_path):
    for name, file in (("sst2", "train.tsv"), ("ro_sts", "RO-STS.train.tsv")):
        (tmp_path / file).write_bytes(b"sentence\tlabel\nx\t1\n\xff\t1\n")
        with pytest.raises(ValueError, match=rf"line 3 of .*{file} is not UTF-8"):
            SETS[name](tmp_path, "train")
        (tmp_path / file).write_bytes(b"sentence\tlabel\nx" + b"y" * 200_000 + b"\t1\n")
        with pytest.raises(ValueError, match=rf"line \d of .*{file}: field larger"):
            SETS[name](tmp_path, "train")
        (tmp_path / file).write_bytes(b"")
        with pytest.raises(ValueError, match=rf"{file} is empty"):
            SETS[name](tmp_path, "train")
    path = tmp_path / "laroseda_train.json"
    for content, words in ((b"", "is no JSON"), (b"[]", "holds no list of 'reviews'")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{path.name} {words}"):
            SETS["laroseda"](tmp_path, "train")
    (tmp_path / "train.jsonl.gz").write_bytes(
        gzip.compress(b'{"text": "a", "label": 1}\n' * 99)[:-9]
    )
    with pytest.raises(ValueError, match=r"train\.jsonl\.gz is damaged behind line"):
        SETS["sst2"](tmp_path, "train")
