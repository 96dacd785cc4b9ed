"""Folders of students: what lies in them, and damage that is refused."""

import json
import os
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import NAMES, UNREAD, case, folder
from students.parts import CLASSIFIER, DRAW, IMAGE, KINDS, NAMES_OF_TWO, SEEN, VIT, saved

from jaxdistill import models, students
from jaxdistill.models import pretrained
from jaxdistill.net import from_function


def test_it_is_a_folder_of_timm_too(tmp_path):
    folder, _, result = saved(tmp_path, VIT, IMAGE, CLASSIFIER)
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"].startswith("vit_")
    assert (config["num_classes"], config["label_names"]) == (2, list(NAMES_OF_TWO))
    assert config["pretrained_cfg"]["mean"] == list(SEEN.mean)
    assert config["pretrained_cfg"]["input_size"] == [3, 8, 8]
    loaded = models.load(folder)
    expected = VIT.apply({"params": result[0], **result[1]}, IMAGE)
    out = loaded.net.apply(loaded.params, loaded.state, IMAGE).out
    np.testing.assert_allclose(out, expected, atol=1e-5)
    # Whoever may read one of its files may read all of them.
    assert len({file.stat().st_mode for file in folder.iterdir()}) == 1
    card = (folder / "README.md").read_text()
    assert "library_name: timm" in card
    assert "| parameters | 1k |" in card
    assert "cat, dog" in card


# One of every class of nets that has a published form.
FAMILIES = (
    "vit", "mae", "timm_resnet", "timm_convnext", "timm_mobilenet", "clip", "clip_text",
    "distilbert_classes", "modernbert_classes", "gpt2", "gemma2",
)  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_student_of_every_family_is_at_once_published(name, tmp_path):
    found = models.load(folder(name), allow=UNREAD)
    there = case(name)
    given = {k: there[k] for k in ("image", "tokens", "mask", "types") if k in there}
    if isinstance(found.module, models.Decoder):
        given = np.asarray(given["tokens"])
    variables = (found.params, found.state)
    out = found.net.apply(*variables, given).out
    read = f"out/{'tokens' if 'tokens' in out else 'image'}" if isinstance(out, dict) else "out"
    about = students.About(read=read)
    module = found.module
    where = students.save(tmp_path / "a", found.net, variables, given, about, module=module)
    again = models.load(where)
    assert again.architecture in pretrained.forms_of(module, variables).there
    assert type(again.module) is type(module)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(close, again.net.apply(again.params, again.state, given).out, out)
    assert len(students.load(where).predict(given)) == len(jax.tree.leaves(given)[0])


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("timm_")])
def test_timm_is_told_a_size_only_of_nets_that_take_one(name, tmp_path):
    """timm refuses ``img_size`` of convolutional networks, and gives it where a size is fixed."""
    found = models.load(folder(name), allow=UNREAD)
    image = case(name)["image"]
    seeing = students.Images(image.shape[1:3], image.shape[3])
    about, module = students.About(seeing=seeing), found.module
    student = (found.net, (found.params, found.state), image)
    where = students.save(tmp_path / "a", *student, about, module=module)
    config = json.loads((where / "config.json").read_text())
    fixed = config["pretrained_cfg"].get("fixed_input_size", False)
    assert fixed is isinstance(module, models.ViT)
    assert config["pretrained_cfg"]["crop_mode"] == "center"


def test_every_published_class_is_tried():
    classes = {n: type(pretrained.module_of(folder(n))) for n in NAMES}
    assert {classes[n] for n in FAMILIES} == {*classes.values()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folders of a text student: a published form, one of our own, and a function."""
    root = tmp_path_factory.mktemp("written")
    module, inputs, about, *_ = KINDS["text"]
    own = module.clone(pooled="relu", epsilon=0.1)
    mlp = from_function(
        lambda key, x: ({}, {}), lambda p, s, x, *, train, rng: (x * p["a"][None], {}, s)
    )
    return {
        "published": saved(root, module, inputs, about, "published")[0],
        "own": saved(root, own, inputs, about, "own")[0],
        "function": students.save(root / "f", mlp, ({"a": jnp.ones(2)}, {}), np.ones((1, 2), "f4")),
    }


@pytest.mark.parametrize("name", ["published", "own", "function"])
def test_a_flipped_bit_or_a_lost_file_is_refused(written, name):
    where = written[name]
    architecture = pretrained.OURS if name == "own" else "BertForSequenceClassification"
    if name != "function":
        assert models.load(where).architecture == architecture
    files = sorted(file.name for file in where.iterdir())
    assert {"config.json", "model.safetensors", "student.jaxexport", "README.md"} <= set(files)
    for file in set(files) - {"README.md"}:
        path = where / file
        whole = path.read_bytes()
        for place in DRAW.integers(0, len(whole), 6).tolist():
            torn = bytearray(whole)
            torn[place] ^= 1 << int(DRAW.integers(8))
            path.write_bytes(torn)
            with pytest.raises(ValueError, match=f"{file}|{where.name}"):
                students.load(where)
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match="damaged"):
            students.load(where)
        if file != "checksums.json":
            path.unlink()
            with pytest.raises((ValueError, FileNotFoundError), match=file):
                students.load(where)
        path.write_bytes(whole)
    (where / "README.md").write_text("my own words")
    assert students.load(where)


def test_a_changed_folder_is_read_without_its_checksums(written):
    where = written["published"]
    config = json.loads((where / "config.json").read_text())
    sums = (where / "checksums.json").read_bytes()
    whole = (where / "config.json").read_text()
    (where / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-6}))
    with pytest.raises(ValueError, match=r"take checksums\.json away if you have changed"):
        models.load(where)
    (where / "checksums.json").unlink()
    assert models.load(where).module.epsilon == 1e-6
    (where / "checksums.json").write_bytes(sums)
    (where / "config.json").write_text(whole)


def test_costs_are_measured(tmp_path, monkeypatch):
    monkeypatch.undo()
    folder, net, result = saved(tmp_path, VIT, IMAGE, CLASSIFIER)
    teachers = {"big": (net, result, IMAGE)}
    about = students.About(results={"accuracy": {"student": 0.5, "big": 0.75}})
    students.save(folder, net, result, IMAGE, about, teachers=teachers)
    said = json.loads((folder / "config.json").read_text())["jaxdistill"]["costs"]
    assert said["student"]["parameters"] == said["big"]["parameters"] > 0
    assert said["student"]["seconds"] > 0
    card = (folder / "README.md").read_text()
    assert "|  | student | teacher |" in card
    assert "| accuracy | 0.5 | 0.75 |" in card


def test_without_the_extra_a_warning_says_what_is_left_out(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    folder, *_ = saved(tmp_path, VIT, IMAGE, CLASSIFIER)
    assert not (folder / "model.safetensors").exists()
    assert 'no weights: writing weights needs pip install "jaxdistill[export]"' in caplog.text


def test_the_card_runs(tmp_path):
    folder, *_ = saved(tmp_path, VIT, IMAGE, CLASSIFIER)
    program = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert len([line for line in program.splitlines() if line]) == 5
    here = os.getcwd()
    os.chdir(folder)
    try:
        exec(program, {})
    finally:
        os.chdir(here)
