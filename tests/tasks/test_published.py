"""The published forms of systems of teacher-written data are planned, on shapes."""

import pytest

from jaxdistill import config_files, recipe
from jaxdistill.overrides import override
from jaxdistill.records import Request
from jaxdistill.records.canonical import line

pytest.importorskip("tokenizers")
from chat_families import write_tokenizer

FORMS = [
    f"{name}:{variant}"
    for name in config_files.names()
    for variant in config_files.variants(name)
    if dict(config_files.load(f"{name}:{variant}")["data"] or {}).get("path") == ""
    and config_files.load(f"{name}:{variant}")["data"]["name"] == "requests"
]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A file of requests, and a tokenizer with a template."""
    folder = tmp_path_factory.mktemp("requests")
    asked = [
        Request.of(f"What is {n} plus 1?", reference=str(n + 1), source=str(n), split=split)
        for n in range(16)
        for split in ("train", "validation", "test")
    ]
    (folder / "requests.jsonl").write_text("".join(f"{line(each)}\n" for each in asked))
    write_tokenizer(folder / "tokenizer", "qwen")
    return {
        "data.path": str(folder / "requests.jsonl"),
        "data.tokenizer.path": str(folder / "tokenizer"),
    }


def test_there_are_some():
    assert {"reasoning_traces:", "frontier_llm:", "frontier_llm:density"} <= set(FORMS)


@pytest.mark.parametrize("name", FORMS)
def test_it_is_planned(name, given):
    plan = recipe.plan(override(config_files.load(name), given))
    kinds = [each.kind for each in plan.stages]
    assert "records" in kinds
    assert kinds[-1] == "net"
