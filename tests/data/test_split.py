"""Splits go by the hash of an id and by nothing else."""

import numpy as np
import pytest

from jaxdistill import registry
from jaxdistill.data import sources
from jaxdistill.data.split import hashes, labelled_subset, split, splits


def numbers(n, name="numbers"):
    return sources.arrays({"image": np.zeros((n, 1, 1, 1)), "label": np.arange(n) % 4}, name=name)


def test_hashes_are_fixed_for_all_time():
    # blake2b of "a", keyed by the blake2b of the empty salt, as hashlib gives them.
    assert hashes(["a"])[0] == pytest.approx(0.370829333792025, abs=1e-15)
    assert hashes(["a"], "salt")[0] != hashes(["a"])[0]


def test_parts_are_a_partition_of_about_the_right_size():
    source = numbers(4000)
    parts = splits(source, validation=0.1, test=0.2)
    ids = [set(part.ids) for part in parts.values()]
    assert set.union(*ids) == set(source.ids)
    assert sum(map(len, ids)) == 4000
    # Four standard deviations of a binomial.
    assert len(parts["validation"]) == pytest.approx(400, abs=76)
    assert len(parts["test"]) == pytest.approx(800, abs=101)


def test_parts_do_not_depend_on_order_or_on_other_records():
    source = numbers(200)
    shuffled = sources.subset(source, np.random.default_rng(0).permutation(200)[:150])
    whole = set(split(source, "validation", validation=0.3).ids)
    part = set(split(shuffled, "validation", validation=0.3).ids)
    assert part == whole & set(shuffled.ids)


def test_validation_stays_when_the_share_of_test_changes():
    source = numbers(200)
    few, many = (split(source, "validation", test=test) for test in (0.1, 0.5))
    assert list(few.ids) == list(many.ids)
    assert list(split(source, "validation", salt="other").ids) != list(few.ids)


def test_an_official_test_set_is_left_alone():
    test = numbers(20, "test")
    parts = splits(numbers(100), test)
    assert parts["test"] is test
    with pytest.raises(ValueError, match="comes with its own test set 'test' of 20 records"):
        splits(numbers(100), test, test=0.1)


def test_an_official_validation_set_is_left_alone():
    train, validation = numbers(100), numbers(30, "validation")
    parts = splits(train, numbers(20, "test"), validation)
    assert parts["validation"] is validation
    assert list(parts["train"].ids) == list(train.ids)
    assert set(splits(train, None, validation, test=0.3)) == {"train", "validation", "test"}


def test_parts_that_are_not_there():
    with pytest.raises(KeyError, match=r"unknown part of the data 'test'.*'train', 'validation'"):
        splits(numbers(100))["test"]
    with pytest.raises(ValueError, match="did you mean 'validation'"):
        split(numbers(100), "valid")
    with pytest.raises(ValueError, match="must leave something to train on"):
        split(numbers(100), "train", validation=0.5, test=0.5)
    with pytest.raises(ValueError, match=r"the test part of 'numbers' \(100 records\) is empty"):
        split(numbers(100), "test")


def test_labelled_subset_is_balanced_and_nested():
    source = numbers(200)
    few, more = (labelled_subset(source, count, seed=1) for count in (10, 30))
    assert sorted(np.bincount(few.labels())) == [2, 2, 3, 3]
    assert set(few.ids) < set(more.ids)
    assert set(few.ids) != set(labelled_subset(source, 10, seed=2).ids)
    assert len(labelled_subset(source, 7, seed=1, balanced=False)) == 7


def test_labelled_subset_refuses():
    with pytest.raises(ValueError, match="11 labelled records asked for, but 'numbers' holds 10"):
        labelled_subset(numbers(10), 11, seed=0)
    rare = sources.subset(numbers(40), [0, 4, 8, 12, 16, 1])
    with pytest.raises(ValueError, match="class 1 of 'numbers' has 1 records"):
        labelled_subset(rare, 4, seed=0)


def test_wrong_labels_are_another_class_in_what_is_trained_on():
    clean, noisy = (registry.data({"name": "digits", "wrong": share}, seed=3) for share in (0, 0.3))
    for part in ("train", "validation"):
        own, other = clean[part].labels(), noisy[part].labels()
        assert 0.2 < (own != other).mean() < 0.4
        assert ((other >= 0) & (other < 10)).all()
        # Every other class is as likely.
        assert len(np.unique((other - own) % 10)) == 10
        rows = np.arange(5)
        np.testing.assert_array_equal(noisy[part].gather(rows)["label"], other[:5])
    np.testing.assert_array_equal(clean["test"].labels(), noisy["test"].labels())
    again = registry.data({"name": "digits", "wrong": 0.3}, seed=4)["train"].labels()
    assert (again != noisy["train"].labels()).any()
    with pytest.raises(ValueError, match=r"1\.5.* must be a number from 0 to 1"):
        registry.data({"name": "digits", "wrong": 1.5})
