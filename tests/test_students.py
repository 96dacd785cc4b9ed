"""Students in their folders: what is written is what is asked, and damage is refused."""

import json
import os
import sys
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl.testing import flagsaver
from flax import linen as nn
from flax import nnx
from PIL import Image
from published import NAMES, UNREAD, case, folder

import jaxdistill as jd
from jaxdistill import cli, export, models, predict, students  # noqa: F401
from jaxdistill._files import write_sealed
from jaxdistill.data.images import decode_image
from jaxdistill.data.sentences import Sentences, bpe_tokenizer, encoded
from jaxdistill.data.text import byte_tokenizer
from jaxdistill.models import pretrained
from jaxdistill.net import from_function
from jaxdistill.students import published, saving
from jaxdistill.training.costs import Costs
from jaxdistill.training.export import load_exported

DRAW = np.random.default_rng(0)
BYTES = byte_tokenizer()
NAMES_OF_TWO = ("cat", "dog")
TEXT = {"vocabulary": 257, "width": 8, "depth": 2, "heads": 2}
DECODER = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
IMAGE = DRAW.uniform(size=(1, 8, 8, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Costs that take no time; one test measures."""
    found = Costs(1000, 4000, 2e6, 1e-3, "cpu")
    monkeypatch.setattr(saving, "costs", lambda *_: found)


def started(module, inputs):
    shapes = jax.eval_shape(module.init, jax.random.key(0), inputs)
    whole = jax.tree.map(lambda x: DRAW.normal(0, 0.3, x.shape).astype(x.dtype), shapes)
    return whole.pop("params"), whole


def saved(root, module, inputs, about, name="student"):
    """A folder of a Linen module with weights of its own."""
    result = started(module, inputs)
    net = jd.from_linen(module)
    return students.save(root / name, net, result, inputs, about, module=module), net, result


def image_file(path, size=(12, 9), seed=1):
    """A smooth picture as a file."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


# --- what is asked --------------------------------------------------------------------------------

SEEN = students.Images((8, 8), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
VIT = models.ViT(patch=4, width=8, depth=1, heads=2, classes=2, pool="mean")
CLASSIFIER = students.About("classes", class_names=NAMES_OF_TWO, seeing=SEEN, title="Cats")


def test_an_image_classifier(tmp_path):
    folder, net, result = saved(tmp_path, VIT, IMAGE, CLASSIFIER)
    files = [image_file(tmp_path / f"{n}.png", seed=n) for n in range(3)]
    found = students.load(folder).predict(files)
    pixels = np.stack([decode_image(file, 8) for file in files]) / np.float32(255)
    pixels = (pixels - np.array(SEEN.mean)) / np.array(SEEN.std)
    logits = net.apply(*result, pixels.astype(np.float32)).out
    for each, file, row in zip(found, files, jax.nn.softmax(logits), strict=True):
        assert (each.input, each.kind) == (str(file), "classes")
        assert list(each.values.values()) == sorted(each.values.values(), reverse=True)
        assert each.best == NAMES_OF_TWO[int(row.argmax())]
        np.testing.assert_allclose([each.values[n] for n in NAMES_OF_TWO], row, atol=1e-4)

    student = students.load(folder)
    by_two = student.predict(files, batch_size=2)
    as_folder = student.predict(tmp_path / "0.png") + student.predict([tmp_path])
    for one, other in zip(found, by_two, strict=True):
        assert one.values == pytest.approx(other.values, abs=1e-5)
    assert [each.values for each in as_folder[1:]] == [each.values for each in found]
    # Arrays of any size are what the files hold, up to the rounding of pixels.
    arrays = [np.asarray(Image.open(file)) for file in files]
    for given in (arrays, np.stack(arrays), [a / np.float32(255) for a in arrays]):
        for one, other in zip(found, student.predict(given), strict=True):
            assert one.values == pytest.approx(other.values, abs=0.02)


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
    card = (folder / "README.md").read_text()
    assert "library_name: timm" in card
    assert "| parameters | 1k |" in card
    assert "cat, dog" in card


KINDS = {
    "mae": (
        models.MAE(patch=4, width=8, depth=1, heads=2, **DECODER), IMAGE,
        students.About(read="out/tokens", seeing=students.Images((8, 8), 3)), IMAGE, (8,),
    ),
    "maps": (
        models.ConvNeXt(blocks=(1,), widths=(4,), classes=0, patch=2), IMAGE,
        students.About(read="stage_1", seeing=students.Images((8, 8), 3)), IMAGE, (4,),
    ),
    "text": (
        models.TextEncoder(**TEXT, positions=16, head="classes", classes=2),
        {"tokens": np.zeros((1, 12), np.int32), "mask": np.ones((1, 12), bool)},
        students.About("classes", class_names=NAMES_OF_TWO,
                       seeing=students.Texts(12, "whole", False, BYTES)),
        ["a text", "another one, too long to be seen as a whole"], {*NAMES_OF_TWO},
    ),
    "masked": (
        models.TextEncoder(**TEXT, positions=16, head="masked"),
        {"tokens": np.zeros((1, 12), np.int32), "mask": np.ones((1, 12), bool)},
        students.About(read="block_1", seeing=students.Texts(12, "whole", False, BYTES)),
        "a text", (8,),
    ),
    "pairs": (
        models.TextEncoder(**TEXT, positions=16, head="classes", classes=1),
        {"tokens": np.zeros((1, 12), np.int32), "mask": np.ones((1, 12), bool),
         "types": np.zeros((1, 12), np.int32)},
        students.About("scores", class_names=("score",),
                       seeing=students.Texts(12, "whole", True, BYTES)),
        [("a", "b"), ("a text", "another")], {"score"},
    ),
    "decoder": (
        models.Decoder(**TEXT), np.zeros((1, 12), np.int32),
        students.About("next", seeing=students.Texts(12, "beginning", False, BYTES)),
        ["a text", "a much longer text than the net can see"], 5,
    ),
    "vectors": (
        models.MLP(widths=(4,), classes=2), np.zeros((1, 5), np.float32),
        students.About("scores", class_names=("a", "b")), np.ones((3, 5), np.float32), {"a", "b"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_says_what_its_net_says(name, tmp_path):
    module, inputs, about, asked, shape = KINDS[name]
    folder, net, result = saved(tmp_path, module, inputs, about)
    student = students.load(folder)
    found = student.predict(asked)
    assert len(found) == (1 if isinstance(asked, str) else len(asked))
    alone = student.predict(asked[-1:] if not isinstance(asked, str) else asked)
    for each in found:
        assert each.kind == about.kind
        if about.kind == "features":
            assert each.values.shape == shape
        elif about.kind == "next":
            assert len(each.values) == shape
        else:
            assert set(each.values) == shape
    np.testing.assert_allclose(numbers(found[-1]), numbers(alone[0]), atol=1e-5)
    # The compiled function says the same without any of this.
    function = load_exported(folder / "student.jaxexport")
    given = jax.tree.map(lambda x: np.ones((3, *x.shape[1:]), x.dtype), inputs)
    jax.tree.map(
        partial(np.testing.assert_allclose, atol=1e-4),
        function(given),
        net.apply(*result, given).out,
    )


def numbers(prediction):
    values = prediction.values
    return values if isinstance(values, np.ndarray) else list(values.values())


def test_what_follows_a_text_is_read_behind_its_last_token(tmp_path):
    module, inputs, about, *_ = KINDS["decoder"]
    folder, net, result = saved(tmp_path, module, inputs, about)
    (said,) = students.load(folder).predict("ab")
    tokens = np.array([[256, 97, 98]], np.int32)
    expected = np.asarray(jax.nn.softmax(net.apply(*result, tokens).out[0, -1]))
    np.testing.assert_allclose(list(said.values.values()), np.sort(expected)[::-1][:5], rtol=1e-3)
    likeliest = int(expected.argmax())
    assert said.best in (BYTES.decode([likeliest]), f"<{likeliest}>")


def test_texts_are_seen_as_they_were_trained_on(tmp_path):
    module, inputs, about, *_ = KINDS["pairs"]
    folder, net, result = saved(tmp_path, module, inputs, about)
    pair = ("some text", "more of it")
    (said,) = students.load(folder).predict(pair)
    records = encoded(Sentences("a", pair[:1], np.array([0]), pair[1:]), BYTES, 12)
    seen = {k: v for k, v in records.gather(np.arange(1)).items() if k in inputs}
    assert seen["types"].sum() == 5
    np.testing.assert_allclose(said.values["score"], net.apply(*result, seen).out[0, 0], rtol=1e-4)


# --- nets of other programs -----------------------------------------------------------------------

IMAGES = DRAW.uniform(size=(40, 6)).astype(np.float32)
RECORDS = {"image": IMAGES, "label": (IMAGES[:, 0] > 0.5).astype(np.int32)}


def of_linen():
    return jd.from_linen(nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)]))


def of_nnx():
    return jd.from_nnx(lambda rngs: nnx.Linear(6, 2, rngs=rngs))


def of_equinox():
    return jd.from_equinox(lambda key: eqx.nn.Linear(6, 2, key=key))


@pytest.mark.parametrize("make", [of_linen, of_nnx, of_equinox])
def test_a_net_of_ones_own_goes_the_same_way(make, tmp_path):
    net = make()
    loss = jd.objective.match(jd.losses.cross_entropy, name="ce", target="batch/label")
    distiller = jd.model_to_model(net, lambda *_: {}, loss, optax.adam(0.1))
    outcome = jd.fit(distiller, {}, RECORDS, 20, quiet=True)
    about = students.About("classes", class_names=NAMES_OF_TWO)
    folder = students.save(tmp_path / "student", net, outcome.result, IMAGES[:1], about)
    student = students.load(folder)
    assert student.module is None
    logits = net.apply(*outcome.result, IMAGES[:5]).out
    for each, row in zip(student.predict(IMAGES[:5]), jax.nn.softmax(logits), strict=True):
        np.testing.assert_allclose([each.values[n] for n in NAMES_OF_TWO], row, rtol=1e-4)
    with pytest.raises(ValueError, match=r"jaxdistill\.students\.load runs it"):
        models.load(folder)
    with pytest.raises(ValueError, match="module of another program"):
        students.export(folder, to="timm", out=tmp_path / "timm")
    again = students.export(folder, to="stablehlo", out=tmp_path / "function")
    function = load_exported(again / "student.jaxexport")
    np.testing.assert_allclose(function(IMAGES), net.apply(*outcome.result, IMAGES).out, rtol=1e-4)


def test_what_is_said_of_a_net_is_held_against_it(tmp_path):
    net = of_linen()
    result = net.init(jax.random.key(0), IMAGES)
    for about, words in (
        (students.About("classes", class_names=("a", "b", "c")), r"of 3 classes .* is \[1, 2\]"),
        (students.About("clases"), "did you mean 'classes'"),
        (students.About(read="layers_9"), "layers_9"),
    ):
        with pytest.raises(ValueError, match=words):
            students.save(tmp_path / "student", net, result, IMAGES[:1], about)
    assert not any(tmp_path.iterdir())


def test_samples_are_not_predictions(tmp_path):
    net = from_function(lambda key, x: ({}, {}), lambda p, s, x, *, train, rng: (2 * x, {}, s))
    folder = students.save(tmp_path / "a", net, ({}, {}), IMAGES[:1], students.About("samples"))
    student = students.load(folder)
    np.testing.assert_allclose(student.outputs(IMAGES), 2 * IMAGES)
    with pytest.raises(ValueError, match="makes samples"):
        student.predict(IMAGES)


# --- published forms ------------------------------------------------------------------------------

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


def test_every_published_class_is_tried():
    tried = {type(models.load(folder(n), allow=UNREAD).module) for n in FAMILIES}
    others = set(NAMES) - set(FAMILIES)
    assert tried == {type(pretrained.module_of(folder(n))) for n in others} | {models.TextEncoder}


# --- damage ---------------------------------------------------------------------------------------


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


# --- other formats --------------------------------------------------------------------------------


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


# --- tokenizers of others -------------------------------------------------------------------------


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


# --- mistakes -------------------------------------------------------------------------------------


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
        (("export", folder), "Give --to=<timm, transformers, safetensors, stablehlo>"),
        (("export", folder, "--to=timm"), "Give --out=<folder>"),
        (("export", folder, "--to=timm", f"--out={folder}"), "is there already"),
        (("export", folder, "--to=transformers", "--out=x"), "no published form"),
    ):
        status, out, err = said(*words)
        assert (status, out) == (2, "")
        assert err.count("error: ") == 1
        assert wrong in err


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
