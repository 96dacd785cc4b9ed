"""Sources: what they hold, what each record is called, and what is refused."""

import gzip
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxdistill.data import sources


def small(n=6, name="small"):
    image = np.arange(n * 4, dtype=np.uint8).reshape(n, 2, 2, 1)
    return sources.arrays({"image": image, "label": np.arange(n) % 3}, name=name)


def write_idx(path, array):
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    with gzip.open(path, "wb") if path.suffix == ".gz" else open(path, "wb") as file:
        file.write(header + array.tobytes())


def test_arrays_gather_a_batch_with_positions():
    source = small()
    batch = source.gather(np.array([5, 0, 5]))
    assert batch["image"][:, 0, 0, 0].tolist() == [20, 0, 20]
    assert batch["index"].tolist() == [5, 0, 5]
    assert batch["index"].dtype == batch["label"].dtype == np.int32
    assert source.info == {"image_shape": (2, 2, 1), "classes": 3}
    assert list(source.ids[4:]) == ["small/0004", "small/0005"]


@pytest.mark.parametrize(
    ("columns", "ids", "error", "words"),
    [
        (
            {"image": np.zeros((4, 2)), "label": np.zeros(3)},
            None,
            ValueError,
            "'image' has 4.*'label' has 3",
        ),
        ({"image": np.zeros((0, 2))}, None, ValueError, "empty"),
        ({}, None, ValueError, "no arrays"),
        ({"text": np.array(["a", "b"], object)}, None, ValueError, "'text' has dtype object"),
        ({"text": np.array(["a", "b"])}, None, ValueError, "ids"),
        ({"index": np.zeros(2)}, None, ValueError, "kept for positions"),
        ({"image": np.zeros((2, 2))}, ["a"], ValueError, "2 records but 1 ids"),
        ({"image": np.zeros((2, 2))}, ["a", "a"], ValueError, "two records with the id 'a'"),
    ],
)
def test_arrays_refuse(columns, ids, error, words):
    with pytest.raises(error, match=words):
        sources.arrays(columns, ids)


@pytest.mark.parametrize("position", [-1, 6])
def test_positions_outside_are_refused(position):
    with pytest.raises(IndexError, match=r"'small' holds 6 records"):
        small().gather(np.array([0, position]))


def test_subset_keeps_ids_and_counts_anew():
    part = sources.subset(small(), [4, 1])
    nested = sources.subset(part, np.array([False, True]))
    assert list(part.ids) == ["small/0004", "small/0001"]
    assert part.gather(np.array([1]))["index"].tolist() == [1]
    assert part.gather(np.array([1]))["image"].ravel().tolist() == [4, 5, 6, 7]
    assert list(nested.ids) == ["small/0001"]
    assert nested.labels().tolist() == [1]


def test_filter_labels():
    assert sources.filter_labels(small(), [0, 2]).labels().tolist() == [0, 2, 0, 2]
    with pytest.raises(ValueError, match="unknown label of 'small' '7'"):
        sources.filter_labels(small(), [7])


def test_concatenate_reads_across_the_parts():
    whole = sources.concatenate([small(4, "a"), small(3, "b")])
    batch = whole.gather(np.array([6, 0, 4, 3]))
    assert batch["group"].tolist() == [1, 0, 1, 0]
    assert batch["image"][:, 0, 0, 0].tolist() == [8, 0, 0, 12]
    assert batch["label"].tolist() == [2, 0, 0, 0]
    assert whole.ids[4] == "b/0000"
    assert whole.info["groups"] == ("a", "b")
    assert whole.labels().tolist() == [0, 1, 2, 0, 0, 1, 2]


def test_concatenate_refuses_unlike_records_and_ids_that_meet():
    with pytest.raises(ValueError, match=r"uint8\[2, 2, 1\].*float64\[2\]"):
        sources.concatenate([small(), sources.arrays({"image": np.zeros((2, 2))})])
    with pytest.raises(ValueError, match="two records with the id 'small/0000'"):
        sources.concatenate([small(), small()])
    with pytest.raises(ValueError, match="nothing to concatenate"):
        sources.concatenate([])


def test_npz(tmp_path):
    images = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    np.savez(tmp_path / "train.npz", x=images, y=np.array([[3], [1]]), noisy=np.array([0, 1]))
    source = sources.npz(tmp_path, "train", "tiny")
    batch = source.gather(np.array([1]))
    assert source.ids[0] == "tiny/train/0000"
    assert source.info == {"image_shape": (3, 3, 1), "classes": 4}
    assert (batch["image"][0, ..., 0] == images[1]).all()
    assert batch["label"].tolist() == [1]
    assert batch["noisy"].tolist() == [1]
    with pytest.raises(FileNotFoundError, match=r"test\.npz does not exist: expected an archive"):
        sources.npz(tmp_path, "test")


def test_npz_with_both_splits_in_one_archive(tmp_path):
    path = tmp_path / "mnist.npz"
    train = {"x_train": np.zeros((3, 2, 2)), "y_train": np.arange(3)}
    np.savez(path, **train, x_test=np.ones((1, 2, 2)), y_test=[0])
    assert len(sources.npz(path, "train")) == 3
    assert sources.npz(path, "test").gather(np.array([0]))["image"].sum() == 4


def test_npz_never_unpickles(tmp_path):
    np.savez(tmp_path / "train.npz", x=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        sources.npz(tmp_path)
    np.savez(tmp_path / "train.npz", pixels=np.zeros(2))
    with pytest.raises(ValueError, match=r"no array 'x' or 'image': it holds \['pixels'\]"):
        sources.npz(tmp_path)


def damaged(whole):
    """What may have become of a file."""
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    return {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "cut at its end": whole[:-5],
        "zeros": bytes(len(whole)),
        "something else": b"no archive at all",
        "flipped": bytes(flipped),
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_archive_is_named(tmp_path, save):
    path = tmp_path / "train.npz"
    image = np.random.default_rng(0).integers(0, 256, (50, 8, 8), np.uint8)
    save(path, x=image, y=np.arange(50) % 3)
    for how, content in damaged(path.read_bytes()).items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as a numpy archive: ") as caught:
            sources.npz(tmp_path)
        assert str(caught.value).startswith(str(path)), how
    np.save(tmp_path / "one.npy", image)
    (tmp_path / "one.npy").rename(path)
    with pytest.raises(ValueError, match=r"train\.npz cannot .* one array \(\.npy\), not"):
        sources.npz(tmp_path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_damaged_idx_file_is_named(tmp_path, suffix):
    images, labels = (tmp_path / f"train-{n}-ubyte{suffix}" for n in ("images-idx3", "labels-idx1"))
    write_idx(labels, np.arange(50, dtype=np.uint8))
    write_idx(images, np.random.default_rng(0).integers(0, 256, (50, 8, 8), np.uint8))
    for how, content in damaged(images.read_bytes()).items():
        if how == "flipped" and not suffix:
            continue  # plain bytes have nothing to be checked by
        images.write_bytes(content)
        with pytest.raises(ValueError, match=rf"^{images}") as caught:
            sources.idx(tmp_path)
        assert "\n" not in str(caught.value), how


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx(tmp_path, suffix):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    labels = np.array([1, 0, 2, 1, 0], np.uint8)
    write_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", images)
    write_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", labels)
    source = sources.idx(tmp_path, "test", "mnist")
    batch = source.gather(np.arange(5))
    assert (batch["image"][..., 0] == images).all()
    assert (batch["label"] == labels).all()
    assert source.ids[2] == "mnist/test/0002"


def test_idx_refuses_what_is_missing_cut_or_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte\.gz does not exist"):
        sources.idx(tmp_path)
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="not an idx file of unsigned bytes with 3 axes"):
        sources.idx(tmp_path)
    header = bytes((0, 0, 8, 3)) + np.array([9, 2, 2], ">u4").tobytes()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + bytes(8))
    with pytest.raises(ValueError, match=r"shape \(9, 2, 2\) but holds 8 bytes"):
        sources.idx(tmp_path)
    with pytest.raises(ValueError, match="unknown split 'tset': did you mean 'test'"):
        sources.idx(tmp_path, "tset")


def write_image(path, color, shape=(6, 9), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, shape[::-1], color).save(path)


def test_image_folder(tmp_path):
    root = tmp_path / "pets"
    write_image(root / "dog" / "b.png", 200, mode="L")
    write_image(root / "cat" / "z.png", (10, 20, 30))
    write_image(root / "cat" / "a.JPG", (10, 20, 30), (40, 20))
    (root / "cat" / "notes.txt").write_text("not an image")
    source = sources.image_folder(root, image_size=4)
    assert list(source.ids) == ["pets/cat/a.JPG", "pets/cat/z.png", "pets/dog/b.png"]
    assert source.info["class_names"] == ("cat", "dog")
    batch = source.gather(np.array([2, 1]))
    assert batch["image"].shape == (2, 4, 4, 3)
    assert batch["image"].dtype == np.uint8
    assert batch["image"][:, 0, 0].tolist() == [[200] * 3, [10, 20, 30]]
    assert batch["label"].tolist() == [1, 0]


def test_decode_image_takes_the_centre():
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    assert (sources.decode_image(file, 4) == 255).all()
    assert sources.decode_image(file, None, channels=1).shape == (4, 8, 1)


def test_image_folder_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder of images, or with one folder"):
        sources.image_folder(tmp_path / "missing", image_size=4)
    (tmp_path / "cat").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no images.*\['cat'\]"):
        sources.image_folder(tmp_path, image_size=4)
    (tmp_path / "cat" / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png cannot be decoded"):
        sources.image_folder(tmp_path, image_size=4).gather(np.array([0]))


def test_digits():
    source = sources.digits()
    batch = source.gather(np.arange(len(source)))
    assert batch["image"].shape == (1797, 8, 8, 1)
    assert batch["image"].dtype == np.float32
    assert (batch["image"].min(), batch["image"].max()) == (0.0, 1.0)
    assert np.bincount(batch["label"]).sum() == 1797
    assert source.ids[1796] == "digits/1796"


def test_photographs_are_crops_of_the_files():
    source = sources.photographs(size=64, stride=100)
    from sklearn.datasets import load_sample_image

    place = list(source.ids).index("flower/0200_0300")
    batch = source.gather(np.array([place]))
    assert (batch["image"][0] == load_sample_image("flower.jpg")[200:264, 300:364]).all()
    assert batch["label"].tolist() == [1]
    assert len(source) == 2 * 4 * 6
    with pytest.raises(ValueError, match=r"size must lie in 1\.\.427"):
        sources.photographs(size=500)


PREPARE = """
import io, sys
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

def png(i):
    file = io.BytesIO()
    Image.fromarray(np.full((6 + i, 9, 3), 40 * i, np.uint8)).save(file, "PNG")
    file.seek(0)
    return file

class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    def _info(self):
        label = tfds.features.ClassLabel(names=["cat", "dog"])
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features)
    def _split_generators(self, manager):
        return {"train": self._generate_examples(5), "test": self._generate_examples(2)}
    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"image": png(i), "label": i % 2}

Tiny(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
from jaxdistill.data import sources, stream
source = sources.tfds("tiny", "train", data_dir=sys.argv[1], image_size=4)
batch = next(stream.stream(source, 2, seed=0).iterate())
assert batch["image"].shape == (2, 4, 4, 3), batch["image"].shape
assert "tensorflow" not in sys.modules
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A set prepared, and read once, by another process: it must do without TensorFlow."""
    folder = tmp_path_factory.mktemp("tfds")
    command = [sys.executable, "-c", PREPARE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_tfds(prepared):
    source = sources.tfds("tiny", "train", data_dir=prepared, image_size=4)
    known = {"image_shape": (4, 4, 3), "classes": 2, "class_names": ("cat", "dog")}
    assert source.info == {**known, "declared": True}
    assert source.ids[3] == "tiny/1.0.0/train/0003"
    batch = source.gather(np.array([4, 1, 4]))
    assert batch["image"].shape == (3, 4, 4, 3)
    assert (batch["image"][0] == batch["image"][2]).all()
    brightness = batch["image"][:, 0, 0, 0] // 40
    assert (brightness % 2 == batch["label"]).all()
    assert source.labels().tolist() == source.gather(np.arange(5))["label"].tolist()
    again = sources.tfds("tiny", "train", data_dir=prepared, image_size=4)
    part = sources.subset(source, [1, 2])
    before, of_part = source.fingerprint(), part.fingerprint()
    assert before == again.fingerprint() != of_part
    file = next(prepared.rglob("*-train.array_record*"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert source.fingerprint() == again.fingerprint() != before
    assert part.fingerprint() != of_part
    file.write_bytes(whole)


def test_tfds_refuses(prepared, tmp_path):
    with pytest.raises(ValueError, match="unknown split of 'tiny' 'tain': did you mean 'train'"):
        sources.tfds("tiny", "tain", data_dir=prepared, image_size=4)
    with pytest.raises(ValueError, match="unknown feature of 'tiny' 'labels'"):
        sources.tfds("tiny", "train", data_dir=prepared, image_size=4, label="labels")
    with pytest.raises(ValueError, match="differ in size: give image_size"):
        sources.tfds("tiny", "train", data_dir=prepared)
    with pytest.raises(ValueError, match="'imagenet_2012': did you mean 'imagenet"):
        sources.tfds("imagenet_2012", "train", data_dir=tmp_path)


def test_tfds_tells_how_to_prepare(tmp_path):
    words = (
        f"is not prepared in {tmp_path}: download the archives by hand into "
        f"{tmp_path}/downloads/manual and run tfds build imagenet2012 --data_dir={tmp_path} "
        "--file_format=array_record"
    )
    with pytest.raises(FileNotFoundError) as caught:
        sources.tfds("imagenet2012", "train", data_dir=tmp_path, image_size=64)
    assert str(caught.value).endswith(words)
