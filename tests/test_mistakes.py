"""Mistakes that people make at the surface: one sentence each, and no traceback.

Of the commands every row of the table goes through the entry point in this process: what is wrong,
how it is made, and words that the sentence must hold.
"""

import gzip
import os
import resource
import signal
import struct
import sys
import types

import grain.python  # noqa: F401  (it adds flags of its own, which must not go with those of a row)
import jax
import numpy as np
import pytest
from absl.testing import flagsaver

from jaxdistill import (
    cache,
    claim,
    claims,
    config_files,
    main,
    models,
)
from jaxdistill._errors import blamed
from jaxdistill._files import write_sealed
from jaxdistill.training.signals import Stopped

GENERATOR = np.random.default_rng(0)
IMAGE = GENERATOR.integers(0, 256, (40, 4, 4), np.uint8)
LABEL = np.arange(40) % 10

CONFIG = """
def get_config(arg=""):
    student = {{
        "student": {{"net": "mlp", "widths": (4,)}},
        "objective": {{"labels": {{"loss": "cross_entropy", "target": "batch/label"}}}},
        "optimizer": {{"name": "sgd", "learning_rate": 0.1}},
        "evaluate": {{"accuracy": {{"evaluator": "classification", "sets": ("test",)}}}},
        "steps": 2,
        "batch_size": 8,
    }}
    data = {{"name": "mnist", "dir": {dir!r}, "test": 0.0}}
    config = {{"data": data, "recipe": ("student",), "stages": {{"student": student}}}}
    {changes}
    return config
"""


@pytest.fixture
def said(capsys):
    """A command in this process: its exit status and what it said to the user."""

    def run(*arguments, module=main):
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
            module.main(main.parsed(["jaxdistill", *map(str, arguments)]))
        return ended.value.code, capsys.readouterr().err

    return run


def refused(answer, *words):
    status, text = answer
    assert status == 2, text
    assert text.startswith("error: ")
    assert "Traceback" not in text
    for word in words:
        assert word in text, text


def written(folder, image=IMAGE, label=LABEL):
    """A folder of a data set, as numpy archives."""
    folder.mkdir()
    for part in ("train", "test"):
        np.savez(folder / f"{part}.npz", x=image, y=label)
    return folder


def config(folder, changes="", dir=None):
    """A config file of a small student, changed by a line of Python."""
    data = written(folder / "data") if dir is None else dir
    (folder / "mine.py").write_text(CONFIG.format(dir=str(data), changes=changes))
    return f"--config={folder / 'mine.py'}"


# --- the command and its config ---------------------------------------------------------------

COMMANDS = {
    "no config": ((), "which config? Give --config=<system>"),
    "another name": (("--config=hinton_minst",), "did you mean 'hinton_mnist'?"),
    "another variant": (("--config=hinton_mnist:smal",), "'smal': did you mean 'small'?"),
    "another file": (("--config=nowhere/mine.py",), "unknown config file 'nowhere/mine.py'"),
    "another flag": (("--smok",), "Unknown command line flag 'smok'. Did you mean: smoke"),
    "no flag": (("dm:small", "smoke"), "unexpected arguments ['smoke']: they are --<name>=<value>"),
    "no such stage": (
        ("--config=dm:small", "--config.stages.distill.steps=3"),
        "unknown stage 'distill': did you mean 'distil'?",
    ),
    "a group as a number": (("--config=dm:small", "--config.data=3"), "data is a group of"),
    "no value": (("--config=dm:small", "--config.seed"), "--config.seed needs a value"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(said, name):
    arguments, words = COMMANDS[name]
    refused(said(*arguments), words)


FILES = {
    "no Python": ("def get_config(:", ("mine.py", "SyntaxError", "line 1")),
    "zero bytes": ("\0", ("mine.py", "SyntaxError", "null bytes")),
    "no function": ("config = {}", ("mine.py", "no function 'get_config'")),
    "a value": ("get_config = {}", ("mine.py", "no function 'get_config'")),
    "ends": ("import sys\nsys.exit(0)", ("SystemExit: 0 (mine.py, line 2)",)),
    "ends later": (
        "def get_config():\n    raise SystemExit",
        ("config", "mine.py", "SystemExit:", "line 2"),
    ),
    "raises": ("def get_config():\n    return {}['x']", ("KeyError: 'x' (mine.py, line 2)",)),
    "raises in words": (
        "def get_config():\n    int('x')",
        ("mine.py", "invalid literal", "line 2"),
    ),
    "imports": ("import nosuchmodule", ("mine.py", "No module named 'nosuchmodule'")),
    "nothing": ("def get_config(): pass", ("mine.py must return a mapping, it returns None",)),
    "a list": ("def get_config(): return [1]", ("must return a mapping, it returns (1,)",)),
    "empty": ("def get_config(): return {}", ("the config needs 'recipe'", "needs 'stages'")),
    "without end": ("def get_config(): return get_config()", ("mine.py", "RecursionError")),
    "holds itself": (
        "def get_config():\n    a = {}\n    a['data'] = a\n    return a",
        ("mine.py", "RecursionError"),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_config_files(said, tmp_path, name):
    text, words = FILES[name]
    (tmp_path / "mine.py").write_text(text + "\n")
    refused(said(f"--config={tmp_path / 'mine.py'}", f"--workdir={tmp_path / 'run'}"), *words)
    assert not (tmp_path / "run").exists()


VALUES = {
    "config['recipe'] = 3": "'recipe' of the config is 3: it must be a sequence",
    "config['recipe'] = ('studnet',)": "'studnet': did you mean 'student'?",
    "config['stages'] = [1]": "'stages' of the config is (1,): it must be a mapping",
    "config['stages'] = {'student': 3}": "it has student=3: it must be a mapping",
    "config['stages'] = {'../x': student}; config['recipe'] = ('../x',)": "stage '../x' cannot",
    "config['data'] = 3": "'data' of the config is 3",
    "data['name'] = {'a': 1}": "unknown data set",
    "config['variants'] = {'mnist': 3}": "'variants' of the config",
    "config['rules'] = ((1, 2),)": "'rules' of the config is ((1, 2),)",
    "config['seed'] = 'x'": "'seed' of the config is 'x': it must be a whole number",
    "student['evaluate'] = 3": "'evaluate' of stage 'student' is 3",
    "student['steps'] = 2.5": "'steps' of stage 'student' is 2.5",
    "student['student'] = {'net': ['mlp']}": "unknown net",
    "student['objective']['labels']['target'] = {'a': 1}": "'target'",
    "student['objective']['labels']['target'] = 'batch/lable'": "did you mean 'label'?",
    "student['optimizer']['learning_rate'] = None": "needs 'learning_rate'",
    "student['checkpoint'] = '/nowhere'": "'/nowhere' holds no result of a stage",
    "config['claim'] = {'arms': 3}": "'arms' of the claim is 3",
    "student['student']['widths'] = (10**7, 10**7)": "stage 'student' holds 400,001 GB",
}


@pytest.mark.parametrize("change", VALUES)
@pytest.mark.parametrize("flags", [(), ("--smoke",)])
def test_values_of_configs(said, tmp_path, change, flags):
    given = config(tmp_path, change)
    refused(said(given, f"--workdir={tmp_path / 'run'}", *flags), VALUES[change])
    assert not (tmp_path / "run").exists()


# --- data ---------------------------------------------------------------------------------------


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def idx(folder):
    """A folder of idx files, as MNIST is published."""
    folder.mkdir()
    for part in ("train", "t10k"):
        shape = struct.pack(">3I", *IMAGE.shape)
        images = bytes((0, 0, 8, 3)) + shape + IMAGE.tobytes()
        labels = bytes((0, 0, 8, 1)) + struct.pack(">I", 40) + LABEL.astype(np.uint8).tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


def harmed(make, name, harm):
    def made(folder):
        harm(make(folder) / name)
        return folder

    return made


def emptied(path):
    path.write_bytes(b"")


def replaced(path):
    path.unlink()
    path.mkdir()


TRAIN, PIXELS, LABELS = "train.npz", "train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"
DATA = {
    "strings as labels": (
        lambda f: written(f, label=np.array(list("abcdefghij"))[LABEL]),
        "'label' has dtype <U1, which is not numeric: number the classes",
    ),
    "floating labels": (lambda f: written(f, label=LABEL / 7), "how many classes there are"),
    "one-hot labels": (lambda f: written(f, label=np.eye(10)[LABEL]), "how many classes there are"),
    "labels below zero": (
        lambda f: written(f, label=LABEL - 1),
        "-1 (4, first 'mnist/train/0000')",
    ),
    "too few labels": (lambda f: written(f, label=LABEL[1:]), "'image' has 40 records but 'label'"),
    "no record": (lambda f: written(f, IMAGE[:0], LABEL[:0]), "'mnist/train' is empty"),
    "objects": (lambda f: written(f, label=np.array([{}] * 40)), "allow_pickle=False"),
    "whole images": (lambda f: written(f, IMAGE.astype(int)), "its images are int64"),
    "cut archive": (harmed(written, TRAIN, cut), "train.npz cannot be read as a numpy archive"),
    "empty archive": (harmed(written, TRAIN, emptied), "train.npz cannot be read"),
    "a folder": (harmed(written, TRAIN, replaced), "train.npz cannot be read"),
    "no test": (harmed(written, "test.npz", os.unlink), "test.npz does not exist: expected an"),
    "cut pixels": (harmed(idx, PIXELS, cut), "says it has shape (40, 4, 4) but holds 312 bytes"),
    "no pixels": (harmed(idx, PIXELS, emptied), "is not an idx file of unsigned bytes"),
    "cut labels": (harmed(idx, LABELS, cut), f"{LABELS} cannot be read: Compressed file ended"),
    "no labels": (harmed(idx, LABELS, os.unlink), f"{LABELS} does not exist"),
    "no folder": (lambda f: f, "there is no folder"),
}


@pytest.mark.parametrize("name", DATA)
def test_data(said, tmp_path, name):
    make, words = DATA[name]
    given = config(tmp_path, dir=make(tmp_path / "data"))
    refused(said(given, f"--workdir={tmp_path / 'run'}"), words)
    assert not (tmp_path / "run").exists()


def test_an_image_of_196_megapixels(said, tmp_path):
    image = pytest.importorskip("PIL.Image")
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(4):
                image.new("L", (8, 8)).save(tmp_path / part / name / f"{number}.png")
    image.new("1", (14_000, 14_000)).save(tmp_path / "train" / "a" / "0.png")
    change = f"config['data'] = {{'name': 'image_folder', 'dir': {str(tmp_path)!r}, "
    given = config(tmp_path, change + "'image_size': 8}")
    refused(said(given, f"--workdir={tmp_path / 'run'}"), "a/0.png", "1 of 8 image files")


TEXTS = {
    "no object": ('{"text": "a"}\n3\n', "record 2 of"),
    "no JSON": ('{"text": "a"}\n{"text"\n', "line 2 of"),
    "deep": ("[" * 100_000 + "\n", "line 1 of"),
    "no UTF-8": (b'{"text": "\xff"}\n', "line 1 of"),
    "nothing": ("", "rows.jsonl"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_json_lines(said, tmp_path, name):
    content, words = TEXTS[name]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    change = f"config['data'] = {{'name': 'json_lines', 'path': {str(path)!r}, 'length': 8}}"
    refused(said(config(tmp_path, change), f"--workdir={tmp_path / 'run'}"), words)


@pytest.mark.parametrize("content", ["{}", "[" * 100_000, "", '{"model": 3}'])
def test_foreign_tokenizers(said, tmp_path, content):
    (tmp_path / "rows.jsonl").write_text('{"text": "abc"}\n')
    (tmp_path / "tokenizer.json").write_text(content)
    change = (
        f"config['data'] = {{'name': 'json_lines', 'path': {str(tmp_path / 'rows.jsonl')!r}, "
        f"'length': 8, 'tokenizer': {{'name': 'file', 'path': {str(tmp_path / 'tokenizer.json')!r}"
        "}}"
    )
    refused(said(config(tmp_path, change), f"--workdir={tmp_path / 'run'}"), "tokenizer.json")


# --- folders that commands read and write -----------------------------------------------------


def test_working_directories(said, tmp_path):
    given = config(tmp_path)
    (tmp_path / "file").write_text("")
    refused(said(given), "where to? Give --workdir=<folder>")
    refused(said(given, "--workdir="), "where to? Give --workdir=<folder>")
    for place in ("file", "file/below"):
        path = tmp_path / place
        refused(said(given, f"--workdir={path}"), f"the working directory {path} cannot be made")
    (tmp_path / "run").mkdir()
    for content in (b"{}", b"", b"[" * 100_000, b"\xff"):
        (tmp_path / "run" / "config.json").write_bytes(content)
        refused(said(given, f"--workdir={tmp_path / 'run'}"), "config.json is damaged")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder nobody can write in")
def test_a_folder_that_cannot_be_written(said, tmp_path):
    refused(said(config(tmp_path), "--workdir=/proc/self/run"), "/proc/self/run cannot be made")


def test_a_full_disk(said, tmp_path):
    given, limits = config(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
    try:
        answer = said(given, f"--workdir={tmp_path / 'run'}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    refused(answer, "File too large", f"the working directory is {tmp_path / 'run'}")
    assert not (tmp_path / "run" / "config.json").exists()


def store(folder, **manifest):
    whole = {
        "format": 2, "container": "raw", "identity": {}, "layout": [], "measures": {}, "records": 1,
        "rows": 1, "files": [], "index": {"bytes": 0, "checksum": ""},
    }  # fmt: skip
    write_sealed(folder / "manifest.json", {**whole, **manifest})


def test_caches(said, tmp_path):
    refused(said(module=cache), "unknown command ''")
    refused(said("info", module=cache), "which cache? Give its folder")
    refused(said("write", "more", module=cache), "unknown config 'more'")
    refused(said("write", "ssld:small", "more", module=cache), "unexpected arguments ['more']")
    refused(said("info", tmp_path, module=cache), "is no store (it has no manifest.json)")
    for content in ("{}", "[]", "[" * 100_000, ""):
        (tmp_path / "manifest.json").write_text(content)
        refused(said("info", tmp_path, module=cache), "manifest.json is damaged")
    write_sealed(tmp_path / "manifest.json", {"format": 2})
    refused(said("verify", tmp_path, module=cache), "manifest.json lacks 'container'")
    for name in ("../x", "/etc/passwd", 3, ""):
        store(tmp_path, files=[{"name": name}])
        refused(said("info", tmp_path, module=cache), f"names {name!r}, which is no file in its")


def test_claims(said, tmp_path):
    refused(said("--seeds=0", module=claim), "--seeds=0: 0 is not a positive integer")
    there = f"--workdir={tmp_path / 'claim'}"
    refused(said(config(tmp_path), there, module=claim), "this config makes no claim")
    (tmp_path / "seeds").mkdir()
    for content in ("", "[]", "{}", "[" * 100_000):
        (tmp_path / "seeds" / "3.json").write_text(content)
        with pytest.raises(ValueError, match=r"3\.json is damaged: without it the seed runs again"):
            claims.read_seed(tmp_path, 3)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", "{}", "names no architecture"),
        ("config.json", "", "config.json is no JSON"),
        ("config.json", "[" * 100_000, "config.json is nested too deeply"),
        ("config.json", "[]", "config.json must hold an object"),
    ],
)
def test_published_folders(said, tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    change = f"student['checkpoint'] = {str(tmp_path)!r}"
    refused(said(config(tmp_path, change), f"--workdir={tmp_path / 'run'}"), words)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ""])
def test_an_index_names_files_of_its_folder(tmp_path, name):
    index = '{"weight_map": {"w": "%s"}}' % name  # noqa: UP031
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=r"index\.json names .*, which is no file in its folder"):
        models.pretrained.files.Weights(tmp_path)


def test_the_hub_is_asked_for_its_names_alone(tmp_path, monkeypatch):
    asked = []

    def snapshot_download(name, **settings):
        asked.append((name, settings.get("revision")))
        raise ConnectionError("no route to host")

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for path in (
        tmp_path / "vit",
        "vit",
        "./owner/vit",
        "runs/vit",
        "a/b/c",
        "../vit",
        "~/vit",
        "",
    ):
        with pytest.raises(FileNotFoundError, match=r"is no folder|is not there"):
            models.load(path)
    assert not asked
    for name in ("owner/vit", "owner/vit@v1", "owner/vit@refs/pr/1"):
        with pytest.raises(FileNotFoundError, match="the hub did not give it"):
            models.load(name)
    assert asked == [("owner/vit", None), ("owner/vit", "v1"), ("owner/vit", "refs/pr/1")]


# --- where the border is ------------------------------------------------------------------------


def test_a_fault_of_the_library_shows_its_traceback(said, tmp_path, monkeypatch):
    given = config(tmp_path), f"--workdir={tmp_path / 'run'}"

    def broken(*arguments, **keywords):
        raise KeyError("ours")

    monkeypatch.setattr("jaxdistill.recipe.run", broken)
    with pytest.raises(KeyError, match="ours"):
        said(*given)

    def full(*arguments, **keywords):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")

    monkeypatch.setattr("jaxdistill.recipe.run", full)
    refused(said(*given), "Out of memory allocating 8 bytes", "a smaller batch_size")


def test_debug_shows_the_traceback_of_a_sentence(said, tmp_path):
    with pytest.raises(ValueError, match="unknown config"):
        said("--config=hinton_minst", "--debug")


def test_blame_leaves_sentences_as_they_are():
    for kind in (TypeError, KeyError, ZeroDivisionError, RecursionError):
        words = f"the part: {kind.__name__}: "
        with pytest.raises(ValueError, match=words) as caught, blamed("the part"):
            raise kind("why")
        assert isinstance(caught.value.__cause__, kind)
    with pytest.raises(ValueError, match=r"^unknown config"), blamed("the part"):
        config_files.find("hinton_minst")
    for code in (0, 1, None, "why"):
        with pytest.raises(ValueError, match="the part: SystemExit: "), blamed("the part"):
            sys.exit(code)
    with pytest.raises(Stopped), blamed("the part"):
        raise Stopped(signal.SIGTERM)
