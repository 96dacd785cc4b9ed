"""Folders of published weights that are not what they should be: a sentence that names the file."""

import json
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from published import GOLDENS
from safetensors.numpy import load_file, save_file

from jaxdistill import models
from jaxdistill.models.pretrained.files import INDEX, WHOLE
from jaxdistill.models.pretrained.loading import module_of

FOLDERS = sorted(path.parent.name for path in GOLDENS.glob("*/config.json"))
INSTEAD = ("words", -1, 0, 2.5, None, [], {}, [1, 2], {"words": 1})


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(GOLDENS / "bert_masked", tmp_path / "bert")


def refused(folder, message, kind=ValueError):
    with pytest.raises(kind, match=message) as fault:
        models.load(folder)
    assert str(folder) in str(fault.value)
    return str(fault.value)


@pytest.mark.parametrize("name", FOLDERS)
def test_any_entry_of_a_config_may_be_wrong(name, tmp_path):
    config = json.loads((GOLDENS / name / "config.json").read_text())
    wrong = [{k: v for k, v in config.items() if k != key} for key in config]
    # Each entry gets some of the values, and each value comes to some of the entries.
    for place, key in enumerate(config):
        wrong += [{**config, key: INSTEAD[(place + shift) % len(INSTEAD)]} for shift in (0, 4)]
    for each in wrong:
        (tmp_path / "config.json").write_text(json.dumps(each))
        said = fault_of(tmp_path)
        assert said is None or (str(tmp_path / "config.json") in said and "\n" not in said)


def fault_of(folder):
    """What is said of a folder, if anything is; other errors than of values pass through."""
    try:
        module_of(folder)
    except ValueError as fault:
        return str(fault)
    return None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no JSON"),
        (b"{}", "names no architecture"),
        (b"[1]", "must hold an object, it holds a list"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b'{"architectures": ["BertForMaskedLM"]}', "lacks 'vocab_size'"),
        (b'{"architectures": [7]}', "unknown architecture '7'"),
    ],
)
def test_a_config_that_is_none(folder, content, message):
    (folder / "config.json").write_bytes(content)
    refused(folder, rf"config\.json.* {message}")


@pytest.mark.parametrize("share", [0, 4, 8, 100, -1])
def test_weights_that_are_cut(folder, share):
    content = (folder / WHOLE).read_bytes()
    (folder / WHOLE).write_bytes(content[:share])
    refused(folder, r"model\.safetensors is truncated, or no safetensors file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{}", "no index of shards"),
        (b'{"weight_map": ["a"]}', "no index of shards"),
        (b'{"weight_map": {"a": 1}}', "no index of shards"),
        (b'{"weight_map": {"a": "../bert/model.safetensors"}}', "no file in its folder"),
        (b'{"weight_map": {"a": "x/../../model.safetensors"}}', "no file in its folder"),
        (b'{"weight_map": {"a": "/etc/hostname"}}', "no file in its folder"),
        (b'{"weight_map": {"a": "model.safetensors"}}', "does not hold 'a'"),
    ],
)
def test_an_index_that_is_none(folder, content, message):
    (folder / INDEX).write_bytes(content)
    refused(folder, message)


def test_tensors_of_unknown_types(folder):
    tensors = load_file(folder / WHOLE)
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name].astype(np.complex64)}, folder / WHOLE)
    assert name in refused(folder, "unknown type 'C64'|truncated")


@pytest.fixture
def asked(monkeypatch):
    """What the hub is asked for; it gives BERT."""
    found = []

    def snapshot_download(name, allow_patterns, revision=None):
        found.append((name, revision))
        return str(GOLDENS / "bert_masked")

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return found


@pytest.mark.parametrize(
    "path",
    ["nosuch", "./owner/name", "../owner/name", "/owner/name", "a/b/c", "owner/", "here/name"],
)
def test_the_hub_is_not_asked_for_paths(path, asked, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"{re.escape(str(Path(path)))} is no folder"):
        models.load(path)
    with pytest.raises(ValueError, match="revision='v1' is for names on the hub"):
        models.load(path, revision="v1")
    assert not asked


def test_a_revision_is_pinned(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models.load("owner/name@v1.0")
    models.load("owner/name", revision="refs/pr/7")
    models.load("owner/name@v1", revision="v1")
    assert asked == [("owner/name", "v1.0"), ("owner/name", "refs/pr/7"), ("owner/name", "v1")]
    with pytest.raises(ValueError, match="names a revision already"):
        models.load("owner/name@v1", revision="v2")
