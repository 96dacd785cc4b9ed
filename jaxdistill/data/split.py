"""Training, validation and test parts by hash of a record's id, the same everywhere."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.data.content import digest
from jaxdistill.data.records import Records, Source, subset, through
from jaxdistill.settings import Fraction, Share, checked

PARTS = ("train", "validation", "test")
"""The names of the parts of a data set."""


class Splits(dict[str, Source]):
    """Sources by part: ``"train"``, and ``"validation"`` and ``"test"`` where there are such."""

    def __missing__(self, part: str) -> Source:
        raise KeyError(unknown("part of the data", part, self))


def hashes(ids: Iterable[str], salt: str = "") -> np.ndarray:
    """A number in [0, 1) for every id, evenly spread; float64 ``[n]``.

    Example:
        >>> bool((hashes(["a", "b"]) == hashes(["b", "a"])[::-1]).all())
        True
    """
    key = hashlib.blake2b(salt.encode(), digest_size=16).digest()
    digests = b"".join(
        hashlib.blake2b(each.encode(), digest_size=8, key=key).digest() for each in ids
    )
    return (np.frombuffer(digests, ">u8") >> np.uint64(11)) * 2.0**-53


@checked
def split(
    source: Source,
    part: str,
    *,
    validation: Fraction = 0.1,
    test: Fraction = 0.0,
    salt: str = "",
    by: Literal["id", "content"] = "id",
) -> Source:
    """One part of a source.

    A record goes where the hash of its id says, whatever else the source holds. The hashes below
    ``validation`` are validation and the next ``test`` are test, so that another share of test
    leaves the validation part as it is. The parts have about the shares asked for, not exactly.

    Args:
        source: what to split.
        part: ``"train"``, ``"validation"`` or ``"test"``.
        validation: the share of validation records.
        test: the share of test records; 0 where a set has its own test files.
        salt: another one gives another split.
        by: what is hashed: the ``"id"`` of a record, or its ``"content"`` (labels aside), so that
            records which hold the same are in one part, see :meth:`Source.contents`.

    Raises:
        ValueError: for an unknown part, shares that leave nothing to train on, or a part that holds
            no record.

    Example:
        >>> from jaxdistill.data import sources
        >>> digits = sources.digits()
        >>> [len(split(digits, part, test=0.2)) for part in ("train", "validation", "test")]
        [1274, 182, 341]
    """
    if part not in PARTS:
        raise ValueError(unknown("part of the data", part, PARTS))
    return _part(source, part, part_numbers(_hashed(source, by), validation, test, salt))


def _hashed(source: Source, by: str) -> Iterable[str]:
    return source.ids if by == "id" else (f"{number:016x}" for number in source.contents().tolist())


@checked
def splits(
    train_source: Source,
    test_source: Source | None = None,
    validation_source: Source | None = None,
    *,
    validation: Fraction = 0.1,
    test: Fraction = 0.0,
    salt: str = "",
    by: Literal["id", "content"] = "id",
) -> Splits:
    """All parts of a data set.

    A record whose label is hidden is trained on: nothing could be measured with it.

    Args:
        train_source: split into training and validation records, and test records if ``test`` is
            above 0.
        test_source: the test set that the data set comes with; ``test`` must be 0 then.
        validation_source: the validation set that it comes with; no share of the training records
            is taken then.
        validation: the share of validation records; with 0 there is no validation part.
        test: the share of test records; with 0 and no ``test_source`` there is no test part.
        salt: another one gives another split.
        by: ``"id"`` or ``"content"``, see :func:`split`; what ``test_source`` shares with the rest
            is counted by :func:`jaxdistill.data.checks.warn_of_duplicates`.

    Raises:
        ValueError: for both a test set and a share of test records, and as :func:`split` does.
    """
    if test_source is not None and test > 0:
        raise ValueError(
            f"{train_source.name!r} comes with its own test set {test_source.name!r} of "
            f"{len(test_source)} records: test must be 0, not {test}"
        )
    if validation_source is not None:
        validation = 0.0
    numbers = part_numbers(_hashed(train_source, by), validation, test, salt)
    if train_source.info.get("hidden"):
        numbers = np.where(train_source.labels() == -1, 0, numbers)
    shares = {"train": 1.0, "validation": validation, "test": test}
    found = Splits({part: _part(train_source, part, numbers) for part in PARTS if shares[part] > 0})
    if validation_source is not None:
        found["validation"] = validation_source
    if test_source is not None:
        found["test"] = test_source
    return found


def part_numbers(ids: Iterable[str], validation: float, test: float, salt: str = "") -> np.ndarray:
    """For every id the number of its part in ``PARTS``.

    Raises:
        ValueError: for shares that leave nothing to train on.
    """
    if validation < 0 or test < 0 or validation + test >= 1:
        raise ValueError(
            f"validation={validation} and test={test} must not be negative and must leave "
            "something to train on"
        )
    numbers = hashes(ids, salt)
    return np.where(numbers < validation, 1, np.where(numbers < validation + test, 2, 0))


def _part(source: Source, part: str, numbers: np.ndarray) -> Source:
    chosen = np.flatnonzero(numbers == PARTS.index(part))
    if chosen.size == 0:
        raise ValueError(
            f"the {part} part of {source.name!r} ({len(source)} records) is empty: raise its share"
        )
    return subset(source, chosen, f"{source.name}[{part}]")


def share(source: Source, low: float, high: float) -> Source:
    """The records whose hashes lie in ``[low, high)``, about as many of all as that is.

    Shares that do not overlap have no record in common.

    Raises:
        ValueError: for bounds that are not ``0 <= low < high <= 1``, or a share without records.

    Example:
        >>> from jaxdistill.data.sources import digits
        >>> [len(share(digits(), *bounds)) for bounds in ((0, 0.5), (0.5, 1))]
        [897, 900]
    """
    if not 0 <= low < high <= 1:
        raise ValueError(f"a share goes from low to high in [0, 1], not from {low} to {high}")
    numbers = hashes(source.ids, "share")
    return subset(source, (low <= numbers) & (numbers < high), f"{source.name}[{low:g}:{high:g}]")


def labelled_subset(source: Source, count: int, *, seed: int, balanced: bool = True) -> Source:
    """A few labelled records, chosen by hash of their ids.

    For one seed a smaller choice is part of every larger one. Records whose label is hidden are
    not chosen.

    Args:
        source: with ``label`` in its records.
        count: how many records.
        seed: another one gives another choice.
        balanced: whether classes have equally many; if ``count`` does not divide, some have one
            more.

    Returns:
        A source of ``count`` records, in the order of ``source``.

    Raises:
        ValueError: for a count outside 1..n, or a class with too few records.
    """
    source = known_labels(source)
    if not 1 <= count <= len(source):
        raise ValueError(
            f"{count} labelled records asked for, but {source.name!r} holds {len(source)}"
        )
    order = np.argsort(hashes(source.ids, f"labelled/{seed}"), kind="stable")
    if balanced:
        labels = source.labels()[order]
        rank = np.empty(len(order), np.int64)
        classes, sizes = np.unique(labels, return_counts=True)
        if sizes.min() < count // len(classes):
            raise ValueError(
                f"class {classes[sizes.argmin()]} of {source.name!r} has {sizes.min()} "
                f"records, but {count} balanced over {len(classes)} classes need "
                f"{count // len(classes)} of each"
            )
        for label in classes:
            rank[labels == label] = np.arange((labels == label).sum())
        order = order[np.argsort(rank, kind="stable")]
    return subset(source, np.sort(order[:count]), f"{source.name}[{count}]")


def known_labels(source: Source) -> Source:
    """The records of a source whose label is not hidden; the source itself where none is."""
    if not source.info.get("hidden"):
        return source
    return subset(source, np.flatnonzero(source.labels() != -1), source.name)


def hidden_labels(source: Source, count: int, *, seed: int) -> Source:
    """All records, of which a few keep their labels, chosen as by :func:`labelled_subset`.

    Returns:
        A source in whose records ``has_label`` (float32) is 1 for those few, and ``label`` is -1
        for all others.

    Raises:
        ValueError: as :func:`labelled_subset` does.
    """
    chosen = set(labelled_subset(source, count, seed=seed).ids)
    known = np.array([each in chosen for each in source.ids])

    def read(indices: np.ndarray) -> Records:
        records, kept = source.read(indices), known[indices]
        label = np.where(kept, records["label"], -1).astype(np.int32)
        return {**records, "label": label, "has_label": kept.astype(np.float32)}

    return dataclasses.replace(
        source,
        read=through(source, read, changes=lambda: digest(known)),
        read_labels=lambda: np.where(known, source.labels(), -1),
        info={**source.info, "hidden": True},
    )


def shuffled_labels(source: Source, *, seed: int) -> Source:
    """All records, their labels permuted at random: a control that has nothing to teach."""
    order = np.argsort(hashes(source.ids, f"shuffled/{seed}"), kind="stable")
    return _with_labels(source, source.labels()[order])


def _with_labels(source: Source, labels: np.ndarray) -> Source:
    def read(indices: np.ndarray) -> Records:
        return {**source.read(indices), "label": labels[indices]}

    return dataclasses.replace(
        source,
        read=through(source, read, changes=lambda: digest(labels)),
        read_labels=lambda: labels,
    )


@checked
def wrong_labels(source: Source, *, share: Share, seed: int) -> Source:
    """All records, a share of whose labels are wrong: another class, each as likely.

    Which ones depends on their ids alone: every record is wrong or right by itself, and the share
    is met about.

    Raises:
        ValueError: for a share outside [0, 1].

    Example:
        >>> from jaxdistill.data.sources import digits
        >>> noisy = wrong_labels(digits(), share=0.3, seed=0)
        >>> round(float((noisy.labels() != digits().labels()).mean()), 1)
        0.3
    """
    labels, classes = source.labels(), source.info["classes"]
    chosen = hashes(source.ids, f"wrong/{seed}") < share
    further = 1 + (hashes(source.ids, f"other/{seed}") * (classes - 1)).astype(labels.dtype)
    labels = np.where(chosen, (labels + further) % classes, labels)
    return _with_labels(source, labels)


def confident_subset(
    source: Source,
    per_class: int,
    probabilities: Mapping[str, np.ndarray] | None = None,
    *,
    always: Source | None = None,
) -> Source:
    """The records of which a teacher is most sure, equally many of each class that it sees.

    A record counts for the class of its largest probability alone.

    Args:
        source: the pool; its labels are not looked at.
        per_class: how many of each class; fewer where a class has fewer.
        probabilities: of every record, by its id, ``[K]``. Without them the first records are
            taken, which serves for shapes.
        always: records that are taken besides, and are not counted.

    Raises:
        ValueError: for fewer than one record a class, and for records without probabilities.

    References:
        Cui et al., Beyond self-supervision: A simple yet effective network distillation alternative
        to improve backbones, 2021, https://arxiv.org/abs/2103.05959 (top-k per class)

    Example:
        >>> from jaxdistill.data.sources import arrays
        >>> pool = arrays({"image": np.zeros((3, 2, 2, 1))}, ids=("a", "b", "c"))
        >>> sure = {"a": np.array([0.9, 0.1]), "b": np.array([0.8, 0.2]), "c": np.array([0.3, 0.7])}
        >>> list(confident_subset(pool, 1, sure).ids)
        ['a', 'c']
    """
    if per_class < 1:
        raise ValueError(f"at least one record of each class is selected, not {per_class}")
    ids = list(source.ids)
    kept = np.isin(ids, list(always.ids)) if always is not None else np.zeros(len(ids), bool)
    if probabilities is None:
        free = np.flatnonzero(~kept)[: per_class * source.info.get("classes", 1)]
        kept[free] = True
        return subset(source, kept, f"{source.name}[confident]")
    missing = [each for each in ids if each not in probabilities]
    if missing:
        raise ValueError(f"{len(missing)} records have no probabilities, first {missing[0]!r}")
    table = np.stack([probabilities[each] for each in ids])
    seen, sure = table.argmax(1), table.max(1)
    taken = kept.copy()
    for label in range(table.shape[1]):
        members = np.flatnonzero((seen == label) & ~kept)
        taken[members[np.argsort(-sure[members], kind="stable")[:per_class]]] = True
    return subset(source, taken, f"{source.name}[confident]")
