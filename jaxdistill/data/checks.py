"""What must hold of sets before anything is trained: labels, images, files, no record twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from absl import logging

from jaxdistill._errors import listed
from jaxdistill.data.records import Records, Source

# Of records whose label is hidden so many are read to see that they say so.
_READ = 4096
# Of a set whose labels were checked when it was written so many are looked at.
_DECLARED = 64


def check_sets(
    sets: Mapping[str, Source],
    *,
    classes: int | None = None,
    image_shape: Sequence[int] | None = None,
    files: bool = True,
) -> None:
    """Refuses sets that a net cannot be trained and tested on; all that is wrong in one message.

    Labels of classes are whole numbers, one a record, from 0 up to the number of classes; -1 stands
    for a hidden one where ``has_label`` of the record is 0. Images of all sets have one shape and
    one type. Labels are read without images where the source can, of images one a set.

    Args:
        sets: sources by part, e.g. :class:`jaxdistill.data.split.Splits`. The others are compared
            with ``"train"``, or the first where there is no such part.
        classes: how many the net has; as many as the training set knows of if not given.
            Without either nothing is asked of labels but that they are of one kind.
        image_shape: what the net sees, (H, W, C); as in the training set if not given.
        files: whether the files of each set are looked at, see :meth:`Source.check`.

    Raises:
        ValueError: naming each set, what is wrong there, the values and the first records.

    Example:
        >>> from jaxdistill.data.sources import arrays
        >>> check_sets({"train": arrays({"label": [0, 1, 9]}, name="a")}, classes=3)
        Traceback (most recent call last):
        ValueError: the data do not fit:
        - train 'a': labels are from 0 to 2, but not those of 1 of 3 records: 9 (1, first 'a/0002')
    """
    trained = sets.get("train") or next(iter(sets.values()))
    if classes is None:
        classes = trained.info.get("classes")
    faults = []
    model: Records = {}
    for part, source in sets.items():
        about = f"{part} {source.name!r}: "
        if not len(source):
            faults.append(f"{about}it is empty")
            continue
        if files:
            source.check()
        first = source.read(np.zeros(1, np.int64))
        model = model or first
        found = itertools.chain(
            _image_faults(first, model, image_shape),
            _name_faults(source, trained),
            _label_faults(source, first, model, classes),
        )
        faults += [about + fault for fault in found]
    if faults:
        raise ValueError("the data do not fit:\n" + "\n".join(f"- {fault}" for fault in faults))


def _image_faults(
    record: Records, model: Records, image_shape: Sequence[int] | None
) -> Iterator[str]:
    if "image" not in record:
        return
    image, other = record["image"][0], model.get("image", record["image"])[0]
    expected, whose = (
        (other.shape, "of the training set are")
        if image_shape is None
        else (tuple(image_shape), "that the net sees are")
    )
    if image.shape != expected:
        yield f"its images are {_sides(image.shape)}, those {whose} {_sides(expected)}"
    # Records that are no pictures (points, features) are called images too.
    # Half precision of other libraries is of kind V.
    if image.dtype != np.uint8 and image.dtype.kind not in "fV":
        yield f"its images are {image.dtype}: uint8 (0..255) or floating (0..1) is wanted"
    elif image.dtype.kind != other.dtype.kind:
        yield f"its images are {image.dtype}, those of the training set {other.dtype}"


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "single numbers"


def _name_faults(source: Source, trained: Source) -> Iterator[str]:
    own, theirs = (each.info.get("class_names") for each in (source, trained))
    if own and theirs and tuple(own) != tuple(theirs):
        yield (
            f"its classes are {listed(own)}, those of the training set {listed(theirs)}: labels "
            "count in that order (of image folders give class_names=train.info['class_names'])"
        )


def _label_faults(
    source: Source, record: Records, model: Records, classes: int | None
) -> Iterator[str]:
    if "label" not in record:
        if "label" in model:
            yield "it has no labels, the training set has"
        return
    if classes is None or (classes == 1 and _scores(model)):
        own, theirs = (each["label"] for each in (record, model) if "label" in each)
        if own.dtype.kind != theirs.dtype.kind or own.shape != theirs.shape:
            yield (
                f"its labels are {own.dtype}{list(own.shape[1:])}, those of the training set "
                f"{theirs.dtype}{list(theirs.shape[1:])}"
            )
        return
    rows = np.arange(len(source))
    if source.info.get("declared"):
        # Whoever wrote the set has held its labels against its classes; to read them takes long.
        own = source.info["classes"]
        if own > classes:
            yield f"it has {own} classes, but {classes} are told apart"
            return
        rows = np.unique(np.linspace(0, len(source) - 1, _DECLARED).astype(np.int64))
        labels = np.asarray(source.read(rows)["label"])
    else:
        labels = np.asarray(source.labels())
    if wrong := _kind_fault(labels, classes):
        yield wrong
        return
    bad = (labels < 0) | (labels >= classes)
    hidden = np.flatnonzero(labels == -1) if bad.any() else np.zeros(0, np.int64)
    if hidden.size:
        bad[hidden] = ~_says_hidden(source, rows[hidden])
    if bad.any():
        yield _outside(source, rows, labels, bad, classes)


def _scores(record: Records) -> bool:
    """Whether its labels are scores, one a record, and no classes."""
    labels = record.get("label", np.zeros(1, int))
    return labels.dtype.kind == "f" and labels.shape[1:] in ((), (1,))


def _kind_fault(labels: np.ndarray, classes: int) -> str:
    wanted = f"whole numbers from 0 to {classes - 1}, one a record, are wanted"
    if labels.dtype.kind in "OSUT":
        return (
            f"its labels are strings such as {str(labels.ravel()[0])!r}: {wanted}; number them, "
            "e.g. names, label = np.unique(label, return_inverse=True)"
        )
    if labels.ndim != 1:
        rows = labels.reshape(len(labels), -1)
        one = labels.ndim == 2 and (rows.sum(1) == 1).all() and (rows.max(1) == 1).all()
        hint = "; they are one-hot: give label.argmax(1)" if one and rows.shape[1] > 1 else ""
        return f"its labels have shape {list(labels.shape)}: {wanted}{hint}"
    if labels.dtype.kind not in "iub":
        return f"its labels are {labels.dtype}, such as {labels[0]}: {wanted}"
    return ""


def _says_hidden(source: Source, rows: np.ndarray) -> np.ndarray:
    """Of records with the label -1: whether they say that it is hidden."""
    if source.info.get("hidden"):
        return np.ones(len(rows), bool)
    found = np.zeros(len(rows), bool)
    for start in range(0, min(len(rows), _READ), 256):
        records = source.read(rows[start : start + 256])
        if "has_label" not in records:
            return found
        found[start : start + 256] = records["has_label"] == 0
    found[_READ:] = found[:_READ].all()
    return found


def _outside(
    source: Source, rows: np.ndarray, labels: np.ndarray, bad: np.ndarray, classes: int
) -> str:
    values, firsts, counts = np.unique(labels[bad], return_index=True, return_counts=True)
    named = [
        f"{value} ({count}, first {source.ids[int(rows[bad][first])]!r})"
        for value, first, count in zip(values[:5], firsts[:5], counts[:5], strict=True)
    ]
    more = f" and {len(values) - 5} other values" if len(values) > 5 else ""
    from_one = labels.min() == 1 and labels.max() == classes
    hint = "; they count from 1: give label - 1" if from_one else ""
    if (values == -1).any():
        hint += "; -1 stands for a hidden label where has_label of the record is 0"
    return (
        f"labels are from 0 to {classes - 1}, but not those of {int(bad.sum())} of {len(labels)} "
        f"records: {', '.join(named)}{more}{hint}"
    )


def duplicates(sets: Mapping[str, Source]) -> dict[tuple[str, str], int]:
    """How many records of one set are in an earlier one too, by what they hold, labels aside.

    Args:
        sets: sources by part. Those that cannot tell their contents without reading every file (see
            :meth:`Source.contents`) are left out; image files are held to be the same when their
            bytes are.

    Returns:
        ``{(earlier part, later part): count}``, of pairs that have any.

    Example:
        >>> from jaxdistill.data.sources import arrays
        >>> train = arrays({"image": np.arange(6).reshape(3, 2)})
        >>> duplicates({"train": train, "test": arrays({"image": np.array([[2, 3], [7, 7]])})})
        {('train', 'test'): 1}
    """
    contents = {part: source.contents() for part, source in sets.items() if source.knows_contents}
    found = {
        (one, other): int(np.isin(contents[other], contents[one]).sum())
        for one, other in itertools.combinations(contents, 2)
    }
    return {pair: count for pair, count in found.items() if count}


def warn_of_duplicates(sets: Mapping[str, Source]) -> None:
    """Logs how many records sets share, and what to do; see :func:`duplicates`."""
    for (one, other), count in duplicates(sets).items():
        logging.warning(
            "%d of %d records of %s are in %s too: what is measured there has been trained on; "
            "split by content (by='content') to keep them together",
            count, len(sets[other]), other, one,
        )  # fmt: skip
