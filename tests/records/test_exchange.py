"""Records for other programs and from them, by JSON lines and Parquet."""

import json

import pytest

from jaxdistill.records import Message, Provenance, Record
from jaxdistill.records.exchange import read_columns, write_columns

FORMS = ("messages", "prompt_completion", "preference")
RECORD = Record(
    "one",
    (
        Message("system", "Be brief."),
        Message("user", "2+3? 数"),
        Message("assistant", "5", learn=True),
    ),
    Provenance("oracle", "1"),
    raw="5",
    answer="5",
    task="sum",
    split="test",
    weight=0.5,
    meta={"rejected": "6"},
)


def path_of(folder, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    return folder / f"records{suffix}"


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_there_and_back(tmp_path, suffix, form):
    path = write_columns([RECORD], path_of(tmp_path, suffix), form=form)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    (found,) = read_columns(path, revision="1")
    assert found.messages == RECORD.messages
    assert found.provenance == RECORD.provenance
    for name in ("id", "answer", "raw", "task", "split", "weight"):
        assert getattr(found, name) == getattr(RECORD, name)
    assert found.meta == (RECORD.meta if form == "preference" else {})


def test_columns_are_those_that_others_read(tmp_path):
    rows = {
        form: json.loads(write_columns([RECORD], tmp_path / f"{form}.jsonl", form=form).read_text())
        for form in FORMS
    }
    assert rows["messages"]["messages"][1:] == [
        {"role": "user", "content": "2+3? 数", "train": False},
        {"role": "assistant", "content": "5", "train": True},
    ]
    prompt = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2+3? 数"},
    ]
    answer = [{"role": "assistant", "content": "5"}]
    assert rows["prompt_completion"]["prompt"] == rows["preference"]["prompt"] == prompt
    assert rows["prompt_completion"]["completion"] == rows["preference"]["chosen"] == answer
    assert rows["preference"]["rejected"] == [{"role": "assistant", "content": "6"}]


def test_rows_of_others(tmp_path):
    path = tmp_path / "theirs.jsonl"
    said = [{"role": r, "content": r[0]} for r in ("user", "assistant", "user", "assistant")]
    rows = [
        {"messages": said},
        {"messages": [said[0], {**said[1], "train": False}, *said[2:]]},
        {"prompt": "2+3?", "completion": " 5"},
        {"prompt": said[:1], "chosen": said[1:2], "rejected": [{**said[1], "content": "no"}]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_columns(path, teacher="gold")
    learnt = [[m.learn for m in each.messages] for each in found]
    assert learnt == [[False, True] * 2, [False, False, False, True], [False, True], [False, True]]
    assert [each.answer for each in found] == ["a", "a", " 5", "a"]
    assert found[3].meta == {"rejected": "no"}
    assert len({each.id for each in found}) == 4
    assert {each.provenance.teacher for each in found} == {"gold"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [{"role": "assistant", "content": "a"}]}, "needs its teacher"),
        ({"teacher": "t", "messages": [{"role": "user", "content": "a"}]}, "nothing in it is"),
        ({"teacher": "t", "messages": [{"role": "bot", "content": "a"}]}, "unknown role"),
        ({"teacher": "t", "messages": [{"content": "a"}]}, "lacks 'role'"),
        ({"teacher": "t", "messages": [{"role": "assistant", "content": 5}]}, "is text, not 5"),
        ({"teacher": "t", "messages": []}, "a list of role and content"),
        ({"teacher": "t", "text": "a"}, "unknown columns"),
        ({"teacher": "t", "prompt": "a"}, "lacks 'completion'"),
        ([1], "no object with columns"),
    ],
)
def test_bad_rows(tmp_path, row, said):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(ValueError, match=f"line 1 of .*{said}"):
        read_columns(path)


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"unknown suffix of a.csv"):
        write_columns([RECORD], tmp_path / "a.csv")
    mute = Record("a", RECORD.messages[:2], RECORD.provenance)
    for form in FORMS[1:]:
        with pytest.raises(ValueError, match="no answer that"):
            write_columns([mute], tmp_path / "a.jsonl", form=form)
    single = Record("a", RECORD.messages, RECORD.provenance)
    with pytest.raises(ValueError, match="rejected"):
        write_columns([single], tmp_path / "a.jsonl", form="preference")
    assert not list(tmp_path.iterdir())
