"""Sets that do not fit the net or each other are refused before anything is trained."""

import numpy as np
import pytest

from jaxdistill.data import checks, sources, split
from jaxdistill.data.checks import check_sets

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), np.uint8)
GOOD = np.arange(12) % 3


def arrays(label=GOOD, image=IMAGE, name="set", **columns):
    return sources.arrays({"image": image, "label": label, **columns}, name=name)


def raw(label, image=IMAGE, **info):
    """A source that takes labels as they come."""
    label = np.asarray(label)

    def read(rows):
        return {"image": image[rows], "label": label[rows]}

    ids = [f"raw/{i}" for i in range(len(label))]
    return sources.Source("raw", ids, read, info, lambda: label)


def put(value, row=5, dtype=np.int64):
    label = GOOD.astype(dtype)
    label[row] = value
    return label


BAD = {
    "too high": (lambda: raw(put(9)), r"from 0 to 2, but not those of 1 of 12 .*: 9 \(1, .*raw/5'"),
    "all too high": (lambda: raw(np.full(12, 9)), r"12 of 12 records: 9 \(12, first 'raw/0'\)"),
    "from one": (lambda: raw(GOOD + 1), r"3 \(4, first 'raw/2'\); they count from 1"),
    "hidden unsaid": (lambda: raw(put(-1)), r"-1 \(1, first 'raw/5'\); -1 stands for a hidden"),
    "64 bits": (lambda: raw(put(2**32 + 1)), r"4294967297 \(1, first 'raw/5'\)"),
    "unsigned": (lambda: raw(put(2**64 - 1, dtype=np.uint64)), "18446744073709551615"),
    "floating": (lambda: raw(GOOD / 1.0), "labels are float64, such as 0.0: whole numbers from 0"),
    "one-hot": (lambda: raw(np.eye(3)[GOOD]), r"shape \[12, 3\].*one-hot: give label.argmax\(1\)"),
    "columns": (lambda: raw(GOOD[:, None]), r"shape \[12, 1\]"),
    "pairs": (lambda: raw(np.stack([GOOD, GOOD], 1)), r"shape \[12, 2\]: whole numbers"),
    "strings": (lambda: raw(np.array(list("abc"))[GOOD]), "such as 'a'.*number them, e.g. names"),
    "none": (
        lambda: sources.arrays({"image": IMAGE}, name="set"),
        "it has no labels, the training set has",
    ),
    "larger": (lambda: arrays(image=np.zeros((12, 5, 4, 1), np.uint8)), "5 x 4 x 1, those of the"),
    "colours": (lambda: arrays(image=np.zeros((12, 4, 4, 3), np.uint8)), "4 x 4 x 3"),
    "flat": (lambda: arrays(image=np.zeros((12, 16), np.uint8)), "its images are 16, those"),
    "other type": (
        lambda: arrays(image=IMAGE / 255),
        "float64, those of the training set uint8",
    ),
    "whole images": (lambda: arrays(image=IMAGE.astype(int)), "are int64: uint8 .* or floating"),
    "other names": (
        lambda: raw(GOOD, class_names=("a", "c", "b")),
        "'a', 'c', 'b', those of the training set 'a', 'b', 'c'",
    ),
}


def good():
    return sources.arrays(
        {"image": IMAGE, "label": GOOD}, name="good", info={"class_names": ("a", "b", "c")}
    )


@pytest.mark.parametrize("part", ["validation", "test", "another"])
@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named(name, part):
    make, words = BAD[name]
    with pytest.raises(ValueError, match=rf"(?s)the data do not fit:.*{words}") as caught:
        check_sets({"train": good(), part: make()})
    assert str(caught.value).count("\n- ") == 1
    assert f"- {part} " in str(caught.value)


@pytest.mark.parametrize("name", [n for n in BAD if n not in ("none", "other names")])
def test_the_training_set_is_held_against_the_net(name):
    make, words = BAD[name]
    if "training set" in words or ("those" in words and "images" in words) or "x" in words:
        words = "that the net sees are 4 x 4 x 1|uint8|from 0 to 2|whole numbers"
    if name == "other type":
        check_sets({"train": make()}, classes=3, image_shape=(4, 4, 1))
        return
    with pytest.raises(ValueError, match=rf"(?s)- train .*({words})"):
        check_sets({"train": make()}, classes=3, image_shape=(4, 4, 1))


def test_all_faults_come_in_one_message():
    sets = {"train": raw(put(9)), "validation": raw(put(7)), "test": raw(put(-2))}
    with pytest.raises(ValueError, match="the data do not fit") as caught:
        check_sets(sets, classes=3)
    assert [line.split()[1] for line in str(caught.value).splitlines()[1:]] == list(sets)


def test_a_test_set_with_more_classes_is_refused():
    with pytest.raises(ValueError, match=r"- test 'more': labels are from 0 to 2.*: 3 \(3"):
        check_sets({"train": arrays(), "test": arrays(np.arange(12) % 4, name="more")})


@pytest.mark.parametrize("label", [GOOD / 3, GOOD[:, None] / 3])
def test_scores_fit_a_net_of_one_output_and_no_other(label):
    check_sets({"train": raw(label), "test": raw(label[::-1])}, classes=1)
    with pytest.raises(ValueError, match="whole numbers from 0 to 1"):
        check_sets({"train": raw(label)}, classes=2)
    with pytest.raises(ValueError, match="those of the training set"):
        check_sets({"train": raw(label), "test": raw(GOOD)}, classes=1)


def test_what_fits_passes():
    check_sets({"train": arrays(), "test": arrays(GOOD[::-1] % 2)}, classes=3)
    check_sets({"train": arrays(), "test": arrays()}, classes=10, image_shape=(4, 4, 1))
    check_sets({"train": arrays(GOOD / 3), "test": arrays(GOOD / 4)})  # a regression
    check_sets({"train": sources.arrays({"image": IMAGE / 255})})
    check_sets(split.splits(sources.digits(), test=0.2), classes=10)
    with pytest.raises(ValueError, match=r"labels are float64\[\], those of the training "):
        check_sets({"train": raw(GOOD.astype(np.int32)), "test": arrays(GOOD / 3)})


def test_hidden_labels_are_those_that_say_so():
    whole = arrays(np.arange(12) % 3)
    check_sets({"train": split.hidden_labels(whole, 6, seed=0)}, classes=3)
    says = np.ones(12, np.float32)
    with pytest.raises(ValueError, match=r"-1 \(1, first 'set/0005'\)"):
        check_sets({"train": arrays(put(-1), has_label=says)}, classes=3)
    says[5] = 0
    check_sets({"train": arrays(put(-1), has_label=says)}, classes=3)
    with pytest.raises(ValueError, match=r": -2 \(1"):
        check_sets({"train": arrays(put(-2), has_label=says)}, classes=3)


@pytest.mark.parametrize("value", [2**32 + 1, 2**31, -(2**31) - 1])
def test_labels_that_would_become_others_are_refused(value):
    with pytest.raises(ValueError, match=rf"'set/0005' is {value}, which 32 bits do not hold; 1 "):
        arrays(put(value))


def test_labels_of_a_million_records_are_checked_quickly():
    label = np.arange(10**6) % 10
    read = []

    def reads(rows):
        read.append(len(rows))
        return {"image": np.zeros((len(rows), 2, 2, 1), np.uint8), "label": label[rows]}

    source = sources.Source("many", sources.Ids(10**6, str), reads, {}, lambda: label)
    check_sets({"train": source}, classes=10)
    assert sum(read) == 1


def test_of_declared_labels_some_are_looked_at():
    label, read = np.arange(10**5) % 10, []

    def reads(rows):
        read.append(len(rows))
        return {"image": np.zeros((len(rows), 2, 2, 1), np.uint8), "label": label[rows]}

    def no_labels():
        raise AssertionError("all files are read")

    info = {"classes": 10, "declared": True}
    source = sources.Source("many", sources.Ids(10**5, str), reads, info, no_labels)
    check_sets({"train": source}, classes=10)
    assert sum(read) < 100
    with pytest.raises(ValueError, match="it has 10 classes, but 9 are told apart"):
        check_sets({"train": source}, classes=9)
    label = np.full(10**5, -1)
    with pytest.raises(ValueError, match=r"-1 \(64, first '0'\)"):
        check_sets({"train": source})


def test_strings_as_labels_say_what_to_do():
    with pytest.raises(ValueError, match=r"'label' has dtype <U1.*np\.unique\(label, return_inv"):
        sources.arrays({"image": IMAGE, "label": np.array(list("abc"))[GOOD]})


def test_an_empty_set_is_named():
    empty = sources.Source("none", [], lambda rows: {})
    with pytest.raises(ValueError, match="- test 'none': it is empty"):
        check_sets({"train": arrays(), "test": empty})


def twice(n=40):
    image = np.random.default_rng(1).integers(0, 256, (n, 4, 4, 1), np.uint8)
    image[n // 2 :] = image[: n // 2]
    return sources.arrays({"image": image, "label": np.arange(n)}, name="twice")


def test_records_that_are_in_two_sets_are_counted(caplog):
    parts = split.splits(twice(), validation=0.3, test=0.3)
    found = checks.duplicates(parts)
    contents = {part: source.contents().tolist() for part, source in parts.items()}
    assert found
    for (one, other), count in found.items():
        assert count == sum(each in contents[one] for each in contents[other])
    with caplog.at_level("WARNING"):
        checks.warn_of_duplicates(parts)
    assert len(caplog.records) == len(found)
    assert "split by content" in caplog.text


def test_a_split_by_content_keeps_equal_records_together():
    parts = split.splits(twice(400), validation=0.3, test=0.3, by="content")
    assert not checks.duplicates(parts)
    assert sum(map(len, parts.values())) == 400
    assert len(parts["validation"]) == pytest.approx(120, abs=40)
    assert len(split.split(twice(), "test", test=0.3, by="content")) % 2 == 0
    with pytest.raises(ValueError, match=r"by='contents' must be 'content' or 'id': did you mean"):
        split.splits(twice(), by="contents")
