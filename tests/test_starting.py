"""Anybody's teacher and data: own_images and own_text, from tiny teachers that are made here."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from published import GOLDENS

from jaxdistill import config_files, from_linen, models, published, recipe, registry, students
from jaxdistill.config_files import read
from jaxdistill.net import Forward
from jaxdistill.objective import weighted
from jaxdistill.overrides import override, smoke
from jaxdistill.presets import families, own
from jaxdistill.recipe import student as student_of

SEEN = published.Preprocessing(8, 10, False, (0.4,) * 3, (0.3,) * 3)
STUDENT = "{'net': 'vit', 'width': 8, 'depth': 1, 'heads': 2, 'positions': 'learned'}"


def teacher_of_images(path, classes=2, names=("cat", "dog")):
    module = models.ViT(
        patch=4, width=8, depth=1, heads=2, classes=classes, positions="learned", epsilon=1e-12
    )
    variables = from_linen(module).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    about = {"id2label": dict(enumerate(names)), "label2id": {}} if names else {}
    models.export(path, "ViTForImageClassification", module, variables, about=about)
    said = published.transformers_preprocessor(SEEN)
    (path / "preprocessor_config.json").write_text(json.dumps(said))
    return path


def pictures(root, *folders, count=16):
    generator = np.random.default_rng(0)
    for folder in folders or (".",):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = Image.fromarray(generator.integers(0, 256, (10, 12, 3), np.uint8))
            image.save(root / folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """Teachers, and folders of images and texts."""
    root = tmp_path_factory.mktemp("there")
    teacher_of_images(root / "teacher")
    pictures(root / "classes", "cat", "dog")
    pictures(root / "flat", count=64)
    (root / "empty").mkdir()
    module = models.Decoder(vocabulary=257, width=8, depth=2, heads=2, hidden=8)
    variables = from_linen(module).init(jax.random.key(0), jnp.zeros((1, 8), jnp.int32))
    models.export(root / "decoder", "LlamaForCausalLM", module, variables)
    (root / "texts").mkdir()
    for i in range(30):
        (root / "texts" / f"{i}.txt").write_text(f"text {i} " * 20)
    return root


def images(there, folder, *settings, teacher="teacher"):
    given = [f"teacher={there / teacher}", f"student={STUDENT}", f"data.dir={there / folder}"]
    return read("own_images:small", [*given, "mesh.data=1", *settings])


def texts(there, *settings, teacher="decoder"):
    given = [f"teacher={there / teacher}", f"data.dir={there / 'texts'}", "data.length=16"]
    given += ["data.tokenizer.name=bytes", "data.validation=0.2", "data.test=0.2", "mesh.data=1"]
    return read("own_text:small", [*given, "mesh.fsdp=1", *settings])


def ran(config, root):
    return recipe.run(recipe.plan(smoke(config)), root, quiet=True)


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_batches_of_all_that_is_trained_are_as_large_as_said(there, kind):
    given = [] if kind == "texts" else ["classes"]
    found = (images if kind == "images" else texts)(there, *given, "batch_size=6", "steps=20")
    stages = [found["stages"][name] for name in found["recipe"] if name != "teacher"]
    assert {stage["batch_size"] for stage in stages} == {6}
    # Short runs have curves too.
    assert {stage["log_every"] for stage in stages} == {1}


# --- images ---------------------------------------------------------------------------------------


def test_images_in_classes(there, tmp_path):
    config = images(there, "classes", "labelled=4", "stages.finetune.evaluate=None")
    assert config["recipe"] == ("teacher", "start", "distil", "finetune")
    # Logits are learnt as the teacher's head is of these classes; images are seen as it sees them.
    assert set(config["stages"]["distil"]["objective"]) == {"features", "logits"}
    assert (config["data"]["image_size"], config["data"]["fit"]) == (10, "cut")
    sizes = [step.get("size") for step in config["stages"]["distil"]["view"]["augment"]]
    assert sizes == [8, None, None]
    measured = {f"{part}/{name}_accuracy" for part in ("validation", "test")
                for name in ("probe", "neighbours")}  # fmt: skip
    for stage in ("start", "distil"):
        assert set(recipe.resolve(config).stage(stage).metrics) == measured
    # Here by one of them.
    few = {"probe": {**config["stages"]["start"]["evaluate"]["probe"], "sets": ("validation",)}}
    config["stages"]["start"]["evaluate"], config["stages"]["distil"]["evaluate"] = few, {}
    found = ran(config, tmp_path)
    assert set(found["start"].values) >= {
        "validation/probe_accuracy",
        "teacher:validation/probe_accuracy",
    }
    assert np.isfinite(found["distil"].metrics[-1]["features"])
    assert np.isfinite(found["finetune"].metrics[-1]["labels"])


def test_images_without_classes_from_a_cache(there, tmp_path):
    config = images(there, "flat", "cached=2")
    assert config["recipe"] == ("teacher", "start", "distil")
    assert config["stages"]["distil"]["student"]["classes"] == 0
    found = ran(config, tmp_path)
    assert np.isfinite(found["distil"].metrics[-1]["features"])
    assert np.isfinite(found["start"].values["validation/cka_pooled"])
    assert len(list((tmp_path / "caches").iterdir())) == 1


def test_without_files_a_teacher_is_trained_first():
    config = read("own_images:small")
    plan = recipe.resolve(config)
    assert [stage.name for stage in plan.stages] == ["teacher", "start", "distil", "finetune"]
    assert set(config["stages"]["distil"]["objective"]) == {"features", "logits"}


@pytest.mark.parametrize(
    "name", ["vit", "dinov2", "clip", "siglip", "timm_resnet", "timm_convnext", "timm_mobilenet"]
)
def test_teachers_of_all_families(there, tmp_path, name):
    """Shapes alone: every family has pooled features, which any student can learn."""
    place = tmp_path / name
    place.mkdir()
    config = json.loads((GOLDENS / name / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config))
    seen = SEEN._replace(size=16, resize=16)
    if not published.preprocessing_of(place) or name.startswith("timm"):
        said = json.dumps(published.transformers_preprocessor(seen))
        (place / "preprocessor_config.json").write_text(said)
    (place / "model.safetensors").touch()
    given = [f"teacher={place}", f"student={STUDENT}", f"data.dir={there / 'flat'}", "mesh.data=1"]
    config = read("own_images:small", given)
    # The start of the student is of the same form.
    changes = {"recipe": ("teacher", "distil"), "stages.distil.initial": None}
    recipe.shapes(recipe.resolve(override(config, changes)))


@pytest.mark.parametrize("name", own.IMAGE_STUDENTS)
def test_every_student_has_pooled_features(name):
    net = registry.net(own.image_student(name, 32, 3), {"image_shape": (32, 32, 3)})
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)

    def both(image):
        params, state = net.init(jax.random.key(0), image)
        return net.apply(params, state, image, taps=("pooled",))

    found = jax.eval_shape(both, image)
    assert found.out.shape == (2, 3)
    assert found.taps["pooled"].ndim == 2


@pytest.mark.parametrize("loss", families.LOSSES)
def test_every_loss_takes_features_of_other_widths(loss):
    entry = families.features(loss, 0.5)
    match = registry.match("features", entry, 1)
    features = {"student": jnp.ones((4, 6)), "target": jax.random.normal(jax.random.key(0), (4, 5))}
    forward = Forward(None, {"pooled": features["student"]}, {}, {})
    given = match.init(jax.random.key(0), forward, {"pooled": features["target"]}, {})
    step = jnp.zeros((), jnp.int32)
    terms, _ = match.terms(*given, forward, {"pooled": features["target"]}, {}, step=step)
    assert np.isfinite(weighted(terms, step)[0])


@pytest.mark.parametrize("loss", families.LOSSES_OF_PLACES)
@pytest.mark.parametrize("student", ["vit_tiny", "resnet18", "convnext_atto", "mobilenetv3_small"])
@pytest.mark.parametrize(
    "name", ["vit", "dinov2", "timm_resnet", "timm_convnext", "timm_mobilenet"]
)
def test_places_of_every_family_meet_those_of_every_other(loss, student, name):
    said = json.loads((GOLDENS / name / "config.json").read_text())
    kind = said.get("architecture") or said["architectures"][0]
    net = own.image_student(student, 32, 3)
    entry = families.learnt(loss, net, kind)["features"]
    sides = {"student": registry.net(net, {"image_shape": (32, 32, 3)})}
    sides["target"] = from_linen(models.pretrained.module_of(GOLDENS / name, "image"))

    def whole(key):
        found = {}
        for side, each in sides.items():
            size = 16 if side == "target" and name in ("vit", "dinov2") else 32
            image = jnp.zeros((2, size, size, 3))
            given = each.init(key, image)
            found[side] = each.apply(*given, image, taps=(entry[side],)).taps
        forward = Forward(None, found["student"], {}, {})
        match = registry.match("features", entry, 1)
        given = match.init(key, forward, found["target"], {})
        terms, _ = match.terms(*given, forward, found["target"], {}, step=jnp.zeros((), jnp.int32))
        return weighted(terms, jnp.zeros((), jnp.int32))[0]

    assert jax.eval_shape(whole, jax.random.key(0)).shape == ()


@pytest.mark.parametrize("stretch", [False, True])
def test_a_student_sees_images_as_its_teacher_did(there, tmp_path, stretch):
    """In training, in its folder, and in the folders that it is exported to."""
    teacher, seen = teacher_of_images(tmp_path / "teacher"), SEEN._replace(stretch=stretch)
    said = json.dumps(published.transformers_preprocessor(seen))
    (teacher / "preprocessor_config.json").write_text(said)
    config = images(there, "classes", f"teacher={teacher}")
    last = recipe.resolve(config).stages[-1]
    seeing = student_of._seeing(last)
    whole = registry.fixed_view(last.settings["evaluate"]["accuracy"]["augment"])
    batch = {"image": last.data["train"].gather(np.arange(2))["image"]}
    files = [there / "classes" / each.partition("/")[2] for each in last.data["train"].ids[:2]]
    shown = seeing.batch(files)
    np.testing.assert_allclose(shown, whole(batch, jax.random.key(0))["image"], atol=1e-6)
    for name, text in students.published.files(seeing).items():
        (tmp_path / name).write_text(text)
    assert published.preprocessing_of(tmp_path) == seen
    about = students.published.about("timm:vit", (), seeing)
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "config.json").write_text(json.dumps({"architecture": "vit_", **about}))
    assert published.preprocessing_of(tmp_path / "timm") == seen


# Names that are the same, of a folder of images and a head: ("cat", "dog").
MISTAKES = {
    "no images": (("empty",), (), "holds no images: expected a folder of images"),
    "no folder": (("nowhere",), (), "there is no folder"),
    "a student": (("flat",), ("student=resnet81",), "unknown student 'resnet81': did you mean"),
    "a loss": (("flat",), ("loss=cosin",), "unknown loss between features 'cosin': did you mean"),
    "a loss of places": (
        ("flat",), ("student={'net': 'mlp', 'widths': (8,)}", "loss=within"),
        "where 'mlp' has them is not known: take a net of 'vit'",
    ),
    "a flag": (("flat",), ("cache=True",), "'cache': did you mean 'cached'?"),
    "a value": (("flat",), ("steps=many",), "--config.steps is 'many': it must be"),
    "a decoder": (("flat",), ("teacher=GOLDENS/llama",), "writes texts: unknown teacher of images"),
    "an encoder of text": (("flat",), ("teacher=GOLDENS/bert",), "not of their families"),
    "no network": (("flat",), ("teacher=EMPTY",), "holds no published network"),
    "no preprocessing": (("flat",), ("teacher=GOLDENS/vit",), "does not say how images are"),
    "other classes": (
        ("classes",), ("teacher=OTHER", "logits=True"),
        "head is of other classes: it has 3 ('cat', 'dog', 'cow'), the images have 2",
    ),
    "other names": (("named",), ("logits=True",), "the images have 2 ('bird', 'fish')"),
    "no head": (("flat",), ("teacher=GOLDENS/dinov2_pre", "logits=True"), "teacher has no head"),
    "no labels, no teacher": (("flat",), ("teacher=",), "no teacher can be trained on it"),
    "another view": (
        ("flat",), ("stages.distil.view.augment=({'name': 'flip'},)",),
        "stage 'distil': 'view' contradicts the preprocessing of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_with_images(there, tmp_path, name):
    (folder,), settings, words = MISTAKES[name]
    if "teacher=OTHER" in settings:
        teacher_of_images(tmp_path / "other", 3, ("cat", "dog", "cow"))
    if folder == "named":
        pictures(there / "named", "bird", "fish")
    places = {"GOLDENS": GOLDENS, "EMPTY": there / "empty", "OTHER": tmp_path / "other"}
    if any("dinov2_pre" in each for each in settings):
        place = tmp_path / "dinov2_pre"
        place.mkdir()
        said = {"architectures": ["Dinov2Model"]}
        (place / "config.json").write_text(json.dumps(said))
        (place / "preprocessor_config.json").write_text(
            json.dumps(published.transformers_preprocessor(SEEN))
        )
        places["GOLDENS"] = tmp_path
    settings = [
        re.sub("GOLDENS|EMPTY|OTHER", lambda found: str(places[found[0]]), each)
        for each in settings
    ]
    with pytest.raises((ValueError, FileNotFoundError)) as told:
        recipe.resolve(images(there, folder, *settings))
    assert words in str(told.value)


def test_a_loss_of_labels_is_refused_where_there_are_none(there):
    config = images(there, "flat", "stages.distil.objective.features.loss=decoupled_kd")
    with pytest.raises(ValueError, match="features: it reads labels, and the records have none"):
        recipe.shapes(recipe.resolve(config))
    config = images(there, "flat", "stages.distil.view.mix={'name': 'partial_mixup'}")
    with pytest.raises(ValueError, match="no classes, so their labels cannot be mixed"):
        recipe.shapes(recipe.resolve(config))


@pytest.mark.parametrize("loss", ["queue", "cosine+within", "places"])
def test_images_by_losses_without_classes(there, tmp_path, loss):
    config = images(there, "flat", f"loss={loss}", "cached=1", "stages.start.evaluate=None")
    given = config["stages"]["distil"]
    assert set(given["objective"]) == ({"features", "within"} if "+" in loss else {"features"})
    read = {entry["target"] for entry in given["objective"].values()}
    assert set(given["targets"]["cached"]["outputs"]) == read
    found = ran(config, tmp_path)
    assert all(np.isfinite(found["distil"].metrics[-1][name]) for name in given["objective"])


def test_logits_are_learnt_where_they_are_of_use(there):
    for settings, folder, wanted in (
        ((), "classes", True), (("logits=False",), "classes", False), ((), "flat", False),
        (("logits=True",), "flat", True),
    ):  # fmt: skip
        config = images(there, folder, *settings)
        assert ("logits" in config["stages"]["distil"]["objective"]) == wanted
    # What its teacher tells apart, a student of images without labels tells apart too.
    assert config["stages"]["distil"]["student"]["classes"] == 2


# --- texts ----------------------------------------------------------------------------------------


def test_texts_by_half_of_the_teacher(there, tmp_path):
    config = texts(there)
    assert config["stages"]["distil"]["student"]["changes"] == {"depth": 1, "remat": True}
    assert config["stages"]["distil"]["initial"] == {"stage": "teacher", "layers": "spread"}
    found = ran(config, tmp_path)
    params = found["distil"].result[0]
    assert "layers_0" in params
    assert "layers_1" not in params
    values = found["distil"].values
    assert 0 < values["test/acceptance"] <= 1 <= values["test/block_efficiency"]


def test_texts_from_a_cache_and_written_by_the_student(there):
    cached = texts(there, "cached=True")["stages"]["distil"]["distiller"]
    assert (
        cached["cached"]["outputs"]["out"]["codec"] == cached["divergence"]["missing"] == "sampled"
    )
    recipe.resolve(texts(there, "cached=True"))
    written = texts(there, "own_text=0.5", "loss=reverse_kl", f"student={'decoder_30m'}")
    assert written["stages"]["distil"]["distiller"]["writing"] == {"prompt": 4, "share": 0.5}
    assert written["stages"]["distil"]["student"]["vocabulary"] == 257
    recipe.resolve(written)


@pytest.mark.parametrize("name", own.TEXT_STUDENTS)
def test_every_student_of_text_is_as_large_as_it_says(name):
    net = registry.net(own.text_student(name, "", 8, None)["student"], {"vocabulary": 8})
    tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    params, _ = jax.eval_shape(net.init, jax.random.key(0), tokens)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    said = float(name.removeprefix("decoder_")[:-1]) * {"m": 1e6, "b": 1e9}[name[-1]]
    assert 0.7 < size / said < 1.05


WRONG = {
    "a student": (("student=haf",), "unknown student 'haf': did you mean 'half'?"),
    "a divergence": (("loss=forward_lk",), "'forward_lk'"),
    "an encoder": (("teacher=GOLDENS/bert_masked",), "is no decoder and cannot continue a text"),
    "a net of images": (("teacher=GOLDENS/vit",), "sees images and cannot continue a text"),
    "fewer tokens": (("teacher=GOLDENS/gpt2",), "gpt2 knows"),
    "a student of others": (
        ("student={'net': 'decoder', 'width': 8, 'depth': 1, 'heads': 2, 'vocabulary': 300}",),
        "the student knows 300 tokens and its teacher 257",
    ),
    "no tokenizer": (("data.tokenizer.name=file", "data.tokenizer.path=THERE"), "no tokenizer"),
    "layers of none": (("teacher=", "student=half"), "takes layers of a published teacher"),
    "its own text from disk": (("cached=True", "own_text=0.5"), "no cache has read what"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_with_texts(there, name):
    settings, words = WRONG[name]
    places = {"GOLDENS": GOLDENS, "THERE": there / "decoder"}
    settings = [
        re.sub("GOLDENS|THERE", lambda found: str(places[found[0]]), each) for each in settings
    ]
    with pytest.raises((ValueError, FileNotFoundError)) as told:
        recipe.shapes(recipe.resolve(texts(there, *settings)))
    assert words in str(told.value)


def test_places_of_texts_say_how_they_are_read():
    kinds = {"data.dir=a": "text_files", "data.path=a.jsonl": "json_lines",
             "data.path=a.parquet": "parquet"}  # fmt: skip
    for setting, kind in kinds.items():
        assert read("own_text", [setting])["data"]["name"] == kind
    with pytest.raises(ValueError, match=r"needs a folder of texts: --config\.data\.dir="):
        recipe.resolve(read("own_text"))
    with pytest.raises(ValueError, match=r"needs a folder of images, .* --config\.data\.dir="):
        recipe.resolve(read("own_images"))


# --- flags of a config ----------------------------------------------------------------------------

OWN = """
def get_config(arg="", *, width: int = 4, data: dict | None = None, names: tuple[str, ...] = ()):
    student = {"student": {"net": "mlp", "widths": (width,)}, "objective": {"a": {"loss": "hint"}},
               "optimizer": {"name": "sgd", "learning_rate": 0.1}}
    title = f"{arg} {width} {sorted((data or {}).items())} {names}"
    return {"title": title, "data": {"name": "digits"}, "recipe": ("s",), "stages": {"s": student}}
"""


def test_parameters_of_get_config_are_set_by_name(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    assert config_files.flags(str(path)) == ["width", "names"]
    given = ["width=8", "data.test=0.1", "data.by=content", "names=('a', 'b')", "stages.s.steps=3"]
    found = read(f"{path}:small", given)
    assert found["title"] == "small 8 [('by', 'content'), ('test', 0.1)] ('a', 'b')"
    assert found["data"] == {"name": "digits", "test": 0.1, "by": "content"}
    assert found["stages"]["s"]["steps"] == 3
    for setting, words in {
        "width=wide": "--config.width is 'wide': it must be a whole number",
        "witdh=3": "unknown key of the config 'witdh': did you mean 'width'?",
        "width.more=3": "width is 4 and has no key 'more'",
    }.items():
        with pytest.raises(ValueError, match=re.escape(words)):
            read(str(path), [setting])
