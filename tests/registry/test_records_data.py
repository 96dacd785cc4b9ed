"""Records as a data set of a config."""

import pytest

from jaxdistill import registry
from jaxdistill.records import Message, Provenance, Record, Request, scripted, write
from jaxdistill.records.exchange import write_columns

pytest.importorskip("tokenizers")


def test_a_folder_and_a_file_of_records(tmp_path):
    teacher = scripted(lambda q: q.messages[-1].content * 2, name="twice", revision="1")
    requests = [Request.of(f"ask {n}", source=str(n), task="ab"[n % 2]) for n in range(40)]
    write(requests, teacher, tmp_path / "set")
    part = {"name": "records", "length": 32, "validation": 0.2, "test": 0.0}
    found = registry.data({**part, "path": str(tmp_path / "set"), "pack": True})
    assert set(found) == {"train", "validation"}
    assert found["train"].info["tasks"] == ("a", "b")
    said = Message("assistant", "a", learn=True)
    few = [Record(str(n), (Message("user", f"ask {n}"), said), Provenance("t")) for n in range(40)]
    write_columns(few, tmp_path / "few.jsonl")
    found = registry.data({**part, "path": str(tmp_path / "few.jsonl"), "template": "chatml",
                           "length": 96})  # fmt: skip
    assert sum(map(len, found.values())) == 40


def test_bad_settings(tmp_path):
    part = {"name": "records", "length": 24}
    with pytest.raises(ValueError, match="needs what a teacher wrote"):
        registry.data(part)
    with pytest.raises(ValueError, match="is no folder of records"):
        registry.data({**part, "path": str(tmp_path)})
    with pytest.raises(ValueError, match="template 'tokenizer' is that of a folder"):
        registry.data({**part, "path": str(tmp_path), "template": "tokenizer"})
    with pytest.raises(ValueError, match="chatmll"):
        registry.data({**part, "path": str(tmp_path), "template": "chatmll"})
