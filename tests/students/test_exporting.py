"""Students elsewhere: other formats, tokenizers of others, the commands, mistakes."""

import json
import sys

import jax
import numpy as np
import pytest
from absl.testing import flagsaver
from PIL import Image
from published import folder
from students.parts import (
    BYTES,
    CLASSIFIER,
    IMAGE,
    KINDS,
    NAMES_OF_TWO,
    SEEN,
    VIT,
    image_file,
    saved,
)

from jaxdistill import cli, export, models, predict, students  # noqa: F401
from jaxdistill._files import write_sealed
from jaxdistill.data.tokenizers import bpe_tokenizer
from jaxdistill.models.pretrained.families import FAMILIES
from jaxdistill.students import published
from jaxdistill.training.export import load_exported


def test_a_function_of_raw_images(tmp_path):
    folder, *_ = saved(tmp_path, VIT, IMAGE, CLASSIFIER)
    out = students.export(folder, to="stablehlo", out=tmp_path / "raw", raw=True)
    function = load_exported(out / "student.jaxexport")
    student = students.load(folder)
    for size in ((12, 9), (8, 8), (5, 21)):
        image = np.asarray(Image.open(image_file(tmp_path / "x.png", size)))
        logits = function(image[None])
        expected = student.predict(image)[0].values
        found = dict(zip(NAMES_OF_TWO, jax.nn.softmax(logits)[0].tolist(), strict=True))
        assert found == pytest.approx(expected, abs=1e-4)


def test_the_same_student_in_other_formats(tmp_path):
    cls = VIT.clone(pool="cls")
    folder, *_ = saved(tmp_path, cls, IMAGE, CLASSIFIER)
    expected = students.load(folder).predict(IMAGE)[0].values
    for to in ("timm", "transformers", "safetensors"):
        out = students.export(folder, to=to, out=tmp_path / to)
        assert students.load(out).predict(IMAGE)[0].values == pytest.approx(expected, abs=1e-5)
    there = {to: json.loads((tmp_path / to / "config.json").read_text())
             for to in ("timm", "transformers", "safetensors")}  # fmt: skip
    assert there["timm"]["architecture"].startswith("vit_")
    assert there["transformers"]["id2label"] == {"0": "cat", "1": "dog"}
    assert (tmp_path / "transformers" / "preprocessor_config.json").is_file()
    assert set(there["safetensors"]) == {"jaxdistill", "dtype"}


def test_decoders_say_at_which_token_a_text_ends(tmp_path):
    """Else a class of Transformers takes the number that its first release had."""
    folder, *_ = saved(tmp_path, *KINDS["decoder"][:3])
    out = students.export(folder, to="transformers", out=tmp_path / "out")
    told = {"bos_token_id": 256, "eos_token_id": 256}
    assert told.items() <= json.loads((out / "config.json").read_text()).items()
    seeing = KINDS["decoder"][2].seeing
    writing = [name for name in FAMILIES if name.endswith(("ForCausalLM", "LMHeadModel"))]
    assert len(writing) >= 6
    assert all(published.about(name, (), seeing) == told for name in writing)


def test_a_folder_that_is_there_is_not_written_into(tmp_path):
    folder, *_ = saved(tmp_path, VIT, IMAGE, CLASSIFIER)
    for wrong, words in (
        ({"to": "tim"}, "did you mean 'timm'"),
        ({"to": "timm", "out": folder}, "is there already"),
        ({"to": "timm", "raw": True}, "raw images are for to='stablehlo'"),
        ({"to": "transformers"}, r"no published form in transformers .*pool='mean'.*TextEncoder"),
    ):
        with pytest.raises(ValueError, match=words):
            students.export(folder, **{"out": tmp_path / "new", **wrong})
    text, *_ = saved(tmp_path, *KINDS["text"][:3], "text")
    with pytest.raises(ValueError, match="raw images are for students that see images"):
        students.export(text, to="stablehlo", raw=True, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("form", ["whole", "beginning"])
@pytest.mark.parametrize("learnt", [False, True])
def test_tokenizer_files_write_texts_as_the_student_saw_them(form, learnt, tmp_path):
    import tokenizers

    words = ["a text of some words", "another text, né 日本"]
    tokenizer = bpe_tokenizer(words, vocabulary=300) if learnt else BYTES
    seeing = students.Texts(80, form, False, tokenizer)
    files = published.files(seeing)
    assert set(files) == {"tokenizer.json", "tokenizer_config.json"}
    theirs = tokenizers.Tokenizer.from_str(files["tokenizer.json"])
    seen = seeing.batch(words)
    for text, tokens, mask in zip(words, seen["tokens"], seen["mask"], strict=True):
        assert theirs.encode(text).ids == tokens[mask].tolist()
    if form == "whole":
        pair = students.Texts(80, "whole", True, tokenizer).batch([tuple(words)])
        both = theirs.encode(*words)
        assert both.ids == pair["tokens"][pair["mask"]].tolist()
        assert both.type_ids == pair["types"][pair["mask"]].tolist()
    assert json.loads(files["tokenizer_config.json"])["model_max_length"] == 80


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("no.png", FileNotFoundError, r"no image no\.png"),
        (np.zeros((4, 4, 2), np.uint8), ValueError, r"shape \[4, 4, 2\]"),
        (np.zeros((4, 4, 3), np.int32), ValueError, "uint8 or floating, not int32"),
        (np.full((4, 4, 3), 2.0), ValueError, r"lie in \[0, 1\]"),
    ],
)
def test_what_is_no_image_is_refused(given, error, words, tmp_path):
    with pytest.raises(error, match=words):
        SEEN.batch(SEEN.listed(given))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.png cannot be decoded as an image"):
        SEEN.batch([tmp_path / "text.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images in"):
        SEEN.listed(tmp_path / "empty")


@pytest.mark.parametrize(
    ("pairs", "given", "words"),
    [(True, "a", "a pair of texts at a time"), (False, ("a", "b", "c"), "a text at a time"),
     (False, [3], "a text at a time, not 3")],
)  # fmt: skip
def test_what_is_no_text_is_refused(pairs, given, words):
    seeing = students.Texts(12, "whole", pairs, BYTES)
    with pytest.raises(ValueError, match=words):
        seeing.batch([given] if isinstance(given, tuple) else seeing.listed(given))


def test_where_no_student_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        students.load(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="neither a run nor a student"):
        students.load(tmp_path)
    for kind, words in (("data_set", "what it leaves is a data set"), ("net", "is not done")):
        write_sealed(tmp_path / "data.json", {"first": {"kind": "net"}, "last": {"kind": kind}})
        with pytest.raises(ValueError, match=words):
            students.load(tmp_path)
    golden = folder("vit")
    with pytest.raises(ValueError, match="not what a student sees"):
        students.load(golden)


@pytest.fixture
def said(capsys, monkeypatch):
    """A command in this process: its exit status and what it said."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", list(sys.argv))
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
            cli.run([str(word) for word in words])
        return ended.value.code, *capsys.readouterr()

    return run


def test_the_commands(said, tmp_path):
    folder, *_ = saved(tmp_path, VIT, IMAGE, CLASSIFIER)
    file = image_file(tmp_path / "a.png")
    status, out, _ = said("predict", folder, file)
    assert (status, len(out.splitlines())) == (0, 1)
    assert out.count(" %") == 2
    text, *_ = saved(tmp_path, *KINDS["text"][:3], "text")
    (tmp_path / "lines.txt").write_text("one\ntwo\n")
    status, out, _ = said("predict", text, "a text", tmp_path / "lines.txt", "--json")
    assert [each["input"] for each in json.loads(out)] == ["a text", "one", "two"]
    status, out, _ = said("export", folder, "--to=timm", f"--out={tmp_path / 'timm'}")
    assert status == 0
    assert "model.safetensors" in out
    assert (tmp_path / "timm" / "config.json").is_file()
    for words, wrong in (
        (("predict", folder), "of what?"),
        (("predict", folder, tmp_path / "lines.txt"), "cannot be decoded as an image"),
        (("predict", tmp_path / "absent", "x"), "there is no folder"),
        (("export",), "which student?"),
        (
            ("export", folder),
            "Give --to=<timm, transformers, safetensors, stablehlo, peft, diffusers>",
        ),
        (("export", folder, "--to=pft", "--out=x"), "did you mean 'peft'"),
        (("export", folder, "--to=timm"), "Give --out=<folder>"),
        (("export", folder, "--to=timm", f"--out={folder}"), "is there already"),
        (("export", folder, "--to=transformers", "--out=x"), "no published form"),
    ):
        status, out, err = said(*words)
        assert (status, out) == (2, "")
        assert err.count("error: ") == 1
        assert wrong in err
