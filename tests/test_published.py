"""What the small files of a published network say of it, and views that say otherwise."""

import json
import re

import jax
import numpy as np
import pytest
from published import GOLDENS, NAMES

from jaxdistill import models, published, recipe
from jaxdistill.models.pretrained import loading, towers
from jaxdistill.published import Preprocessing

HALF = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
BOTH = {"height": 8, "width": 8}


def folder(path, config, preprocessor=None):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if preprocessor is not None:
        (path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return path


# As the libraries write them: what a class of theirs does by default stands in its file.
KINDS = {
    "ViT": ({"size": 8, "resample": 2, **HALF}, (8, 8, True, "bilinear")),
    "ViT, both sides": ({"size": BOTH, **HALF}, (8, 8, True, "bilinear")),
    "DeiT": (
        {"size": {"height": 10, "width": 10}, "do_center_crop": True, "crop_size": BOTH,
         "resample": 3, **HALF},
        (8, 10, True, "bicubic"),
    ),
    "CLIP": (
        {"size": {"shortest_edge": 8}, "do_center_crop": True, "crop_size": 8, "resample": 3,
         **HALF},
        (8, 8, False, "bicubic"),
    ),
    "DINOv2": (
        {"size": {"shortest_edge": 10}, "do_center_crop": True, "crop_size": BOTH, "resample": 3,
         **HALF},
        (8, 10, False, "bicubic"),
    ),
    "ConvNeXt": ({"size": {"shortest_edge": 7}, "crop_pct": 0.875, **HALF}, (7, 8, False, None)),
    "ConvNeXt, large": ({"size": 384, "crop_pct": 0.875, **HALF}, (384, 384, True, None)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_preprocessors_of_transformers(tmp_path, kind):
    said, (size, resize, stretch, resample) = KINDS[kind]
    found = published.preprocessing_of(folder(tmp_path / "net", {}, said))
    assert (found.size, found.resize, found.stretch) == (size, resize, stretch)
    assert (found.mean, found.std) == ((0.5,) * 3, (0.25,) * 3)
    assert resample in (None, found.resample)


def test_pixels_that_are_scaled_otherwise_have_other_statistics(tmp_path):
    said = {"size": 8, **HALF}
    place = folder(tmp_path / "net", {}, {**said, "rescale_factor": 2 / 255})
    np.testing.assert_allclose(published.preprocessing_of(place)[3:5], [[0.25] * 3, [0.125] * 3])
    folder(place, {}, {**said, "do_rescale": False, "image_mean": [127.5], "image_std": [51.0]})
    np.testing.assert_allclose(published.preprocessing_of(place)[3:5], [[0.5], [0.2]])
    folder(place, {}, {"size": 8, "do_normalize": False})
    assert published.preprocessing_of(place)[3:5] == ((0.0,) * 3, (1.0,) * 3)


TIMM = {"input_size": [3, 8, 8], "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"}


def test_preprocessing_of_timm(tmp_path):
    for said, (resize, stretch) in (
        ({"crop_pct": 0.8}, (10, False)),
        ({"crop_pct": 1.0, "crop_mode": "squash"}, (8, True)),
        ({}, (9, False)),
    ):
        # In its first files the entries stood in the config itself.
        for config in ({"pretrained_cfg": {**TIMM, **said}}, {**TIMM, **said}):
            place = folder(tmp_path / "net", {"architecture": "resnet18", **config})
            found = published.preprocessing_of(place)
            assert found == Preprocessing(8, resize, stretch, (0.5,) * 3, (0.25,) * 3, "bicubic")


@pytest.mark.parametrize(
    ("config", "preprocessor", "words"),
    [
        ({}, {**HALF, "size": {"height": 8, "width": 9}}, "images must be square, not 8 x 9"),
        ({}, {**HALF, "size": {"shortest_edge": 8}}, "nothing is cut"),
        ({}, {**HALF, "size": 8, "resample": 0}, "unknown way to resample '0'"),
        ({}, {**HALF, "size": 8, "image_std": [0.5, 0.5]}, "are no statistics"),
        ({}, {**HALF, "size": 8, "image_std": [0.0] * 3}, "must be above 0"),
        ({}, HALF, "describes no preprocessing of images: KeyError('size')"),
        ({"architecture": "resnet18", **TIMM, "crop_mode": "border"}, None, "crop_mode 'border'"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_file_and_key(tmp_path, config, preprocessor, words):
    with pytest.raises(ValueError, match=re.escape(words)) as told:
        published.preprocessing_of(folder(tmp_path / "net", config, preprocessor))
    assert "config.json" in str(told.value)


def test_files_of_other_things_say_nothing(tmp_path):
    # Those of tokenizers and sounds, and of networks that state nothing.
    place = folder(tmp_path / "net", {"architectures": ["BertModel"]}, {"sampling_rate": 16_000})
    assert published.preprocessing_of(place) is None
    assert published.preprocessing_of(GOLDENS / "vit") is None
    assert published.preprocessing_of(tmp_path / "nowhere") is None


@pytest.mark.parametrize("stretch", [False, True])
@pytest.mark.parametrize("resize", [8, 10])
def test_what_is_written_is_read_again(tmp_path, stretch, resize):
    seen = Preprocessing(8, resize, stretch, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")
    said = published.transformers_preprocessor(seen)
    assert published.preprocessing_of(folder(tmp_path / "a", {}, said)) == seen
    config = {"architecture": "resnet18", "pretrained_cfg": published.timm_preprocessing(seen)}
    assert published.preprocessing_of(folder(tmp_path / "b", config)) == seen


@pytest.mark.parametrize("name", NAMES)
def test_every_published_network_is_what_it_is_taken_for(name):
    """By its config alone it is told what a net sees and how many classes it has."""
    found = published.describe(GOLDENS / name)
    config = json.loads((GOLDENS / name / "config.json").read_text())
    module = models.pretrained.module_of(GOLDENS / name, "image")
    if found.sees != "other":
        kinds = (models.ViT, models.ResNet, models.ConvNeXt, models.MobileNetV3)
        assert isinstance(module, kinds if found.sees == "image" else models.Decoder)
    if found.sees == "text":
        assert (found.vocabulary, found.depth) == (module.vocabulary, module.depth)
    if found.classes:
        assert found.classes == module.classes
    seeing = {"vit", "deit", "dinov2", "clip", "siglip", "resnet", "convnext", "convnext2"}
    stem = name.removeprefix("timm_").split("_")[0]
    assert (found.sees == "image") == (
        (stem in seeing or name.startswith("timm_")) and not name.endswith("_text")
    ), config


def test_two_towers_of_which_one_is_wanted():
    for name in ("clip", "siglip"):
        whole = models.load(GOLDENS / name)
        for sees, key in (("image", "image"), ("text", "text")):
            alone = models.load(GOLDENS / name, sees=sees)
            assert alone.architecture == towers._TOWERS[whole.architecture, sees]
            assert alone.module == type(alone.module)(**getattr(whole.module, key))
            for mine, theirs in zip(
                *map(loading.jax.tree.leaves, (alone.params, whole.params[key])), strict=True
            ):
                np.testing.assert_array_equal(mine, theirs)
    # Any other network is what it is, whatever is wanted of it.
    assert models.load(GOLDENS / "vit", sees="text").architecture == "ViTForImageClassification"


# --- in a recipe --------------------------------------------------------------------------------

SEEN = Preprocessing(16, 16, False, (0.5,) * 3, (0.25,) * 3)
RIGHT = ({"name": "flip"}, SEEN.normalise())
IMAGENET = {"name": "normalise", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def taught(place, view, **changes):
    """A recipe with a published teacher of grey images made coloured."""
    student = {
        "student": {"net": "vit", "patch": 8, "width": 8, "depth": 1, "heads": 2},
        "targets": {"kind": "live", "stage": "teacher"},
        "objective": {"features": {"loss": "hidden_cosine", "student": "pooled",
                                   "target": "pooled", "projector": "linear"}},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "view": {"augment": view},
        "steps": 1,
    }  # fmt: skip
    data = {"name": "photographs", "size": 16, "test": 0.0}
    stages = {"teacher": {"checkpoint": str(place)}, "distil": {**student, **changes}}
    return {"data": data, "recipe": tuple(stages), "stages": stages, "mesh": {"data": 1}}


@pytest.fixture
def teacher(tmp_path):
    place = tmp_path / "teacher"
    place.mkdir()
    for file in ("config.json", "model.safetensors"):
        (place / file).write_bytes((GOLDENS / "vit" / file).read_bytes())
    said = json.dumps(published.transformers_preprocessor(SEEN))
    (place / "preprocessor_config.json").write_text(said)
    return place


def test_a_teacher_is_given_by_its_folder_alone(teacher, tmp_path):
    found = recipe.run(recipe.plan(taught(teacher, RIGHT)), tmp_path / "run", quiet=True)
    assert np.isfinite(found["distil"].metrics[-1]["features"])
    assert [row.does for row in recipe.summary(recipe.plan(taught(teacher, RIGHT)))] == [
        "published",
        "vit",
    ]


def test_positions_are_those_of_the_images_that_a_network_is_shown(teacher, tmp_path):
    """DINOv2 is published with positions for 518 pixels, and shown 224."""
    seen = SEEN._replace(size=12, resize=16)
    said = json.dumps(published.transformers_preprocessor(seen))
    (teacher / "preprocessor_config.json").write_text(said)
    view = ({"name": "centre_crop", "size": 12}, SEEN.normalise())
    config = taught(teacher, view)
    config["stages"]["teacher"]["view"] = {"augment": view}
    config["stages"]["distil"]["student"]["patch"] = 4
    found = recipe.run(recipe.plan(config), tmp_path / "run", quiet=True)
    alone = models.load(teacher, image_size=12, allow=("resized positions",))
    jax.tree.map(np.testing.assert_array_equal, found["teacher"].result[0], alone.params)


@pytest.mark.parametrize("view", [None, ({"name": "flip"},), (IMAGENET,)])
def test_a_view_that_contradicts_a_published_teacher_is_refused(teacher, view):
    with pytest.raises(ValueError, match=r"stage 'distil': 'view' contradicts .*teacher: the view"):
        recipe.resolve(taught(teacher, view))


def test_so_is_an_evaluation_of_the_teacher_and_a_start_from_it(teacher):
    measured = {"evaluator": "classification", "augment": (IMAGENET,)}
    for part, wrong in (({}, True), ({"teacher": False}, False)):
        changes = {"evaluate": {"accuracy": {**measured, **part}}}
        if not wrong:
            recipe.resolve(taught(teacher, RIGHT, **changes))
            continue
        with pytest.raises(ValueError, match=r"evaluation 'accuracy' contradicts"):
            recipe.resolve(taught(teacher, RIGHT, **changes))
    changes = {"targets": None, "initial": {"stage": "teacher"}}
    changes["objective"] = {"labels": {"loss": "cross_entropy", "target": "batch/label"}}
    with pytest.raises(ValueError, match="'view' contradicts"):
        recipe.resolve(taught(teacher, (IMAGENET,), **changes))


def test_of_a_teacher_that_states_nothing_nothing_is_asked(teacher):
    (teacher / "preprocessor_config.json").unlink()
    recipe.resolve(taught(teacher, (IMAGENET,)))


def test_whitened_images_are_refused(teacher):
    config = taught(teacher, RIGHT)
    config["data"]["whiten"] = "channels"
    with pytest.raises(ValueError, match="take 'whiten' out"):
        recipe.resolve(config)


def test_a_stage_that_is_given_by_another_folder_must_say_its_net(tmp_path):
    (tmp_path / "result").mkdir()
    with pytest.raises(ValueError, match="there is no net here: give it by 'student'"):
        recipe.resolve(taught(tmp_path, RIGHT))


def test_texts_with_tokens_that_a_network_does_not_know_are_refused():
    config = taught(GOLDENS / "llama", None)
    config["data"] = {"name": "standard_library", "modules": 40, "length": 16}
    config["stages"]["distil"] = {
        "student": {"net": "decoder", "width": 8, "depth": 1, "heads": 2},
        "distiller": {"name": "language_model", "frozen": ("teacher",)},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "steps": 1,
    }
    with pytest.raises(ValueError, match=r"llama knows \d+ tokens, and the texts have 257"):
        recipe.resolve(config)
