"""Views as functions of a record: the same in every order, batch and set."""

import jax
import numpy as np
import pytest

from jaxdistill.data import augment, mixing, sources, split, views
from jaxdistill.data.arrays import arrays
from jaxdistill.data.records import subset
from jaxdistill.data.seeded import seeded
from jaxdistill.store.manifest import digests

DIGITS = subset(sources.digits(), np.arange(60))


def inputs(batch):
    return {k: v for k, v in batch.items() if k != "partner"}


def test_seeds_depend_on_the_record_alone():
    whole = seeded(DIGITS, 3, seed=1)
    few = seeded(subset(DIGITS, np.array([40, 5])), 3, seed=1)
    assert len(whole) == 180
    assert whole.ids[60 + 7] == "digits/0007#1"
    np.testing.assert_array_equal(
        few.gather(np.array([2, 3]))["view_seed"], whole.gather(np.array([100, 65]))["view_seed"]
    )
    seeds = whole.gather(np.arange(180))["view_seed"]
    assert len(np.unique(seeds, axis=0)) == 180
    other = seeded(DIGITS, 3, seed=2).gather(np.arange(180))["view_seed"]
    assert not (seeds == other).all(1).any()
    np.testing.assert_array_equal(whole.labels(), np.tile(DIGITS.labels(), 3))


def test_partners_are_others_and_bring_their_own_view():
    mixed = seeded(DIGITS, 4, pairs=True).gather(np.arange(240))
    own = digests([DIGITS.ids[i % 60] for i in range(240)])
    assert not (mixed["partner"] == own).all(1).any()
    known = digests(list(DIGITS.ids))
    for row in (0, 61, 239):
        place = int((known == mixed["partner"][row]).all(1).argmax())
        np.testing.assert_array_equal(
            mixed["partner/image"][row], DIGITS.gather(np.array([place]))["image"][0]
        )
        assert mixed["partner/label"][row] == DIGITS.labels()[place]


@pytest.mark.parametrize(
    "view",
    [
        views.augmented((augment.random_resized_crop(size=8), augment.flip())),
        views.chain(views.augmented((augment.shift(pixels=1),)), views.mixed(mixing.mixup, 10)),
        views.chain(views.augmented(), views.mixed(mixing.mixup_or_cutmix, 10, smoothing=0.1)),
        views.chain(views.augmented(), views.masked(patch=2, ratio=0.75, shared=False)),
    ],
    ids=["crops", "mixup", "mixup_or_cutmix", "masks"],
)
def test_a_view_is_the_same_in_every_batch_and_for_every_key(view):
    source = seeded(DIGITS, 2, pairs=True)
    draw = jax.jit(view)
    whole = draw(inputs(source.gather(np.arange(120))), jax.random.key(0))
    rows = np.array([119, 3, 64])
    part = draw(inputs(source.gather(rows)), jax.random.key(9))
    for name in ("image", "student", "teacher", *(["soft_label"] if "soft_label" in part else [])):
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(np.asarray(a)[rows], b),
            whole[name],
            part[name],
        )


def test_mixed_labels_are_those_of_the_pair():
    view = views.chain(views.augmented(), views.mixed(mixing.mixup, 10))
    batch = seeded(DIGITS, pairs=True).gather(np.arange(30))
    found = view(inputs(batch), jax.random.key(0))
    soft = np.asarray(found["soft_label"])
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-6)
    share = soft[np.arange(30), batch["label"]]
    apart = batch["label"] != batch["partner/label"]
    expected = share[:, None, None, None] * batch["image"]
    expected = expected + (1 - share)[:, None, None, None] * batch["partner/image"]
    np.testing.assert_allclose(np.asarray(found["image"])[apart], expected[apart], atol=1e-6)


def test_bad_views_are_refused():
    with pytest.raises(ValueError, match="at least one view, got 0"):
        seeded(DIGITS, 0)
    with pytest.raises(ValueError, match="no other to mix it with"):
        seeded(subset(DIGITS, np.array([1])), pairs=True)


def test_labels_can_be_hidden_shuffled_and_chosen_by_a_teacher():
    hidden = split.hidden_labels(DIGITS, 20, seed=0)
    records = hidden.gather(np.arange(60))
    assert records["has_label"].sum() == 20
    assert ((records["label"] == -1) == (records["has_label"] == 0)).all()
    chosen = split.labelled_subset(DIGITS, 20, seed=0)
    assert {hidden.ids[i] for i in np.flatnonzero(records["has_label"])} == set(chosen.ids)
    np.testing.assert_array_equal(hidden.labels(), records["label"])

    shuffled = split.shuffled_labels(DIGITS, seed=0)
    assert sorted(shuffled.labels()) == sorted(DIGITS.labels())
    assert (shuffled.labels() != DIGITS.labels()).any()
    np.testing.assert_array_equal(shuffled.gather(np.arange(60))["label"], shuffled.labels())

    sure = {each: np.eye(3)[i % 3] * (1 + i) for i, each in enumerate(DIGITS.ids)}
    own = subset(DIGITS, np.array([59, 0]))
    found = split.confident_subset(DIGITS, 2, sure, always=own)
    assert [int(each[-4:]) for each in found.ids] == [0, 53, 54, 55, 56, 57, 58, 59]
    with pytest.raises(ValueError, match="1 records have no probabilities, first 'x'"):
        split.confident_subset(arrays({"image": np.zeros((1, 2, 2, 1))}, ids=["x"]), 1, sure)
    with pytest.raises(ValueError, match="at least one record of each class"):
        split.confident_subset(DIGITS, 0, sure)
