"""The identity of a set is what it holds, whatever it is read from and made of."""

import os

import numpy as np
import pytest
from PIL import Image

from jaxdistill.data import content, sentences, sources, split, text
from jaxdistill.data.content import record_hashes, row_hashes
from jaxdistill.data.seeded import seeded

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (40, 5, 5, 3), np.uint8)
LABELS = np.arange(40) % 4


def arrays(image=IMAGES, label=LABELS, **settings):
    return sources.arrays({"image": image, "label": label}, name="set", **settings)


def plain(source):
    """The same records by a function that knows nothing of them."""
    return sources.Source(source.name, source.ids, lambda rows: source.read(rows), source.info)


def documents(change=0):
    return [text.Document(f"d{i}", f"text {i + (change and i == 3)} " * 9) for i in range(20)]


def windows(change=0, pack=False):
    return text.windows(documents(change), text.byte_tokenizer(), 16, pack=pack)


def encoded(change=0, pairs=False):
    texts = [d.text for d in documents(change)]
    others = texts[::-1] if pairs else None
    given = sentences.Sentences("s", texts, np.arange(20) % 2, others=others)
    return sentences.encoded(given, text.byte_tokenizer(), 64)


def changed(rows=3):
    image = IMAGES.copy()
    image[rows] = 0
    return image


# Every way to make a source, and the same with one record changed.
SOURCES = {
    "arrays": (arrays, lambda: arrays(changed())),
    "floats": (lambda: arrays(IMAGES / 255), lambda: arrays(changed() / 255)),
    "a plain function": (lambda: plain(arrays()), lambda: plain(arrays(changed()))),
    "windows": (windows, lambda: windows(1)),
    "packed windows": (lambda: windows(0, True), lambda: windows(1, True)),
    "texts": (encoded, lambda: encoded(1)),
    "pairs": (lambda: encoded(0, True), lambda: encoded(1, True)),
    "photographs": (
        lambda: sources.photographs(size=64),
        lambda: sources.photographs(size=64, stride=100),
    ),
}
# Every way to make another source of one.
MADE = {
    "itself": lambda s: s,
    "a part": lambda s: sources.subset(s, np.arange(8)),
    "reversed": lambda s: sources.subset(s, np.arange(len(s))[::-1]),
    "alone": lambda s: sources.concatenate([s]),
    "a share": lambda s: split.share(s, 0, 0.9),
    "training": lambda s: split.split(s, "train", validation=0.1),
    "views": lambda s: seeded(s, 2),
    "other views": lambda s: seeded(s, 2, seed=1),
    "pairs": lambda s: seeded(s, 2, pairs=True),
}
LABELLED = {
    "as they are": lambda s: s,
    "few labels": lambda s: split.hidden_labels(s, 8, seed=0),
    "other few": lambda s: split.hidden_labels(s, 8, seed=1),
    "shuffled": lambda s: split.shuffled_labels(s, seed=0),
    "wrong": lambda s: split.wrong_labels(s, share=0.5, seed=0),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_fingerprint_is_of_content_alone(name):
    make, other = SOURCES[name]
    found = {}
    for how, derive in MADE.items():
        found[how] = derive(make()).fingerprint()
        assert found[how] == derive(make()).fingerprint(), how
        assert found[how] != derive(other()).fingerprint(), how
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("make", [arrays, lambda: plain(arrays())])
def test_labels_and_what_is_done_to_them_count(make):
    found = {how: derive(make()).fingerprint() for how, derive in LABELLED.items()}
    assert len(set(found.values())) == len(found)
    assert found == {how: derive(make()).fingerprint() for how, derive in LABELLED.items()}
    other = LABELS.copy()
    other[7] = 3 - other[7]
    assert arrays(label=other).fingerprint() != arrays().fingerprint()


@pytest.mark.parametrize(
    "other",
    [
        lambda: sources.subset(arrays(), np.arange(35)),
        lambda: arrays(IMAGES[:, :, ::-1]),
        lambda: arrays(IMAGES.astype(np.float32)),
        lambda: arrays(IMAGES.reshape(40, 25, 3)),
        lambda: arrays(ids=[f"other/{i}" for i in range(40)]),
        lambda: sources.arrays({"image": IMAGES, "label": LABELS, "more": LABELS}, name="set"),
        lambda: sources.arrays({"picture": IMAGES, "label": LABELS}, name="set"),
    ],
)
def test_whatever_differs_gives_another_fingerprint(other):
    assert other().fingerprint() != arrays().fingerprint()


def test_what_is_read_otherwise_is_not_taken_for_known():
    import dataclasses

    source = arrays()
    dark = dataclasses.replace(source, read=lambda rows: {**source.read(rows), "image": rows})
    assert dark.fingerprint() != source.fingerprint()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, bool])
@pytest.mark.parametrize("size", [1, 3, 8, 29])
def test_any_changed_byte_changes_the_hash_of_its_row_alone(dtype, size):
    values = GENERATOR.integers(0, 2, (9, size)).astype(dtype)
    before = row_hashes(values)
    for column in range(size):
        other = values.copy()
        other[4, column] = 1 - other[4, column]
        assert (row_hashes(other) != before).tolist() == [i == 4 for i in range(9)]
    if dtype == np.float64 and size > 1:
        # Signs are the highest bits of words, which a sum of products modulo 2**64 could lose.
        assert (row_hashes(-values - 1) != row_hashes(values + 1)).all()
    np.testing.assert_array_equal(row_hashes(values[3:5]), before[3:5])


def test_hashes_are_fixed_for_all_time():
    found = record_hashes({"image": np.arange(6, dtype=np.uint8).reshape(2, 3)})
    assert found.tolist() == [5458176921193282226, 8798193488276891382]
    assert record_hashes({"image": np.zeros((3, 0))}).shape == (3,)


def test_labels_are_no_content():
    image = IMAGES[:2]
    one, other = (
        record_hashes({"image": image, "label": label}) for label in LABELS[:4].reshape(2, 2)
    )
    np.testing.assert_array_equal(one, other)


@pytest.fixture
def folder(tmp_path):
    for i in range(8):
        path = tmp_path / "ab"[i % 2] / f"{i}.bmp"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(IMAGES[i]).save(path)
    return tmp_path


def test_a_folder_is_its_files(folder, tmp_path_factory):
    source = sources.image_folder(folder, image_size=4, name="set")
    before = source.fingerprint()
    os.utime(folder / "a" / "0.bmp", (1, 1))
    assert source.fingerprint() == before
    # A picture painted black: as many bytes in the same place.
    path = folder / "b" / "3.bmp"
    whole = path.read_bytes()
    Image.fromarray(np.zeros_like(IMAGES[0])).save(path)
    assert path.stat().st_size == len(whole)
    assert source.fingerprint() != before
    path.write_bytes(whole)
    assert source.fingerprint() == before
    path.rename(folder / "b" / "33.bmp")
    assert sources.image_folder(folder, image_size=4, name="set").fingerprint() != before
    (folder / "b" / "33.bmp").rename(folder / "a" / "3.bmp")
    assert sources.image_folder(folder, image_size=4, name="set").fingerprint() != before
    (folder / "a" / "3.bmp").unlink()
    assert sources.image_folder(folder, image_size=4, name="set").fingerprint() != before


def test_files_that_have_not_changed_are_not_read_again(folder, monkeypatch):
    asked = []
    own = content.of_file
    source = sources.image_folder(folder, image_size=4)
    files = content.Files(sorted(folder.rglob("*.bmp")), lambda p: asked.append(p) or own(p))
    first = files().copy()
    np.testing.assert_array_equal(files(), first)
    assert len(asked) == 8
    path = folder / "a" / "2.bmp"
    path.write_bytes(path.read_bytes() + b"1")
    assert (files() != first).sum() == 1
    assert asked[8:] == [str(path)]
    assert len(source.contents()) == 8


@pytest.mark.parametrize("damage", [None, b"", b"no archive"])
def test_another_process_knows_what_has_not_changed(folder, monkeypatch, damage):
    cache = folder / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(content, "_KEPT", 8)
    asked = []

    def files():
        paths = sorted(folder.rglob("*.bmp"))
        return content.Files(paths, lambda p: asked.append(p) or content.of_file(p))

    first = files()()
    assert len(asked) == 8
    assert [path.suffix for path in (cache / "jaxdistill").iterdir()] == [".npz"]
    if damage is not None:
        next((cache / "jaxdistill").iterdir()).write_bytes(damage)
    np.testing.assert_array_equal(files()(), first)
    assert len(asked) == (8 if damage is None else 16)
    # As many bytes and the old time: the time of any change tells.
    path = folder / "a" / "2.bmp"
    kept = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"1")
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    del asked[:]
    assert (files()() != first).sum() == 1
    assert asked == [str(path)]


def test_a_cache_folder_that_cannot_be_written_does_not_matter(folder, monkeypatch):
    (folder / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "file"))
    monkeypatch.setattr(content, "_KEPT", 8)
    source = sources.image_folder(folder, image_size=4)
    source.check()
    assert source.fingerprint()


def test_of_large_files_beginning_middle_and_end_count(tmp_path):
    path = tmp_path / "large"
    whole = bytearray(GENERATOR.bytes(2**18))
    path.write_bytes(whole)
    before = content.of_file(path)
    for place in (0, 2**17, 2**18 - 1):
        other = bytearray(whole)
        other[place] ^= 1
        path.write_bytes(other)
        assert content.of_file(path) != before
    path.write_bytes(whole + b"0")
    assert content.of_file(path) != before
