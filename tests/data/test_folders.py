"""Folders of images with classes, without, and with both."""

import numpy as np
import pytest
from PIL import Image

from jaxdistill import registry
from jaxdistill.data import sources, split
from jaxdistill.data.folders import classes_in, parts_of

COLOURS = np.random.default_rng(0).integers(0, 256, (4, 8, 3), np.uint8)


def fill(root, *names, count=1):
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(COLOURS).save(root / name / f"{i}.png")
    return root


def test_images_in_no_folder_have_no_labels(tmp_path):
    fill(tmp_path, ".", count=20)
    (tmp_path / "notes").mkdir()  # a folder without images is no class
    source = sources.image_folder(tmp_path, image_size=4, name="set")
    assert list(source.ids)[:2] == ["set/0.png", "set/1.png"]
    assert set(source.gather(np.arange(2))) == {"image", "index"}
    assert "classes" not in source.info
    found = registry.data({"name": "image_folder", "dir": str(tmp_path), "image_size": 4})
    assert set(found) == {"train", "validation", "test"}
    assert sum(map(len, found.values())) == 20


def test_images_beside_folders_of_classes_are_trained_on_without_labels(tmp_path):
    fill(tmp_path, "cat", "dog", count=30)
    fill(tmp_path, ".", count=7)
    source = sources.image_folder(tmp_path, image_size=4)
    assert source.info["hidden"]
    assert np.bincount(source.labels() + 1).tolist() == [7, 30, 30]
    found = registry.data({"name": "image_folder", "dir": str(tmp_path), "image_size": 4})
    assert (found["train"].labels() == -1).sum() == 7
    assert all((found[part].labels() >= 0).all() for part in ("validation", "test"))
    train = found["train"]
    assert (registry.records(train, {"labelled": "all"}, 0).labels() >= 0).all()
    assert len(registry.records(train, {"labelled": "all"}, 0)) == len(train) - 7
    assert np.bincount(split.labelled_subset(train, 8, seed=0).labels()).tolist() == [4, 4]


def test_folders_may_be_no_classes(tmp_path):
    fill(tmp_path, "2023/january", "2024")
    source = sources.image_folder(tmp_path, image_size=4, labels=False, name="set")
    assert list(source.ids) == ["set/2023/january/0.png", "set/2024/0.png"]
    assert "classes" not in source.info


def test_parts_are_folders_or_the_whole_is_divided(tmp_path):
    fill(tmp_path, "a/x", "a/y", "b/train/x", "b/test/x", "c/train/x")
    assert list(parts_of(tmp_path / "a")) == ["train"]
    assert classes_in(tmp_path / "a") == ("x", "y")
    assert list(parts_of(tmp_path / "b")) == ["train", "test"]
    with pytest.raises(FileNotFoundError, match=r"test does not exist, .* holds \['train'\]"):
        parts_of(tmp_path / "c")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        parts_of(tmp_path / "d")


def test_an_image_may_be_stretched_and_resampled_otherwise(tmp_path):
    fill(tmp_path, ".")
    path, picture = tmp_path / "0.png", Image.fromarray(COLOURS)
    for kind in ("bilinear", "bicubic"):
        whole = picture.resize((4, 4), Image.Resampling[kind.upper()])
        found = sources.decode_image(path, 4, fit="stretch", resample=kind)
        np.testing.assert_array_equal(found, np.asarray(whole))
    of = {
        fit: sources.image_folder(tmp_path, image_size=4, fit=fit).fingerprint()
        for fit in ("cut", "stretch")
    }
    assert of["cut"] != of["stretch"]
    with pytest.raises(ValueError, match="fit='streched' must be 'cut' or 'stretch'"):
        sources.image_folder(tmp_path, image_size=4, fit="streched")
