"""Data sets by name: what a stage reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxdistill.data import sources, split
from jaxdistill.registry import condense, language, pools, samplers, sentences, written
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, forwarding, less, named, offered, record
from jaxdistill.settings import Count, Fraction, Natural, Share


def _image_files(name: str) -> Entry:
    """MNIST and its like: in one folder ``train.npz`` and ``test.npz``, or the idx files."""

    def read(context: Context, *, dir: str = "") -> tuple[sources.Source, sources.Source]:
        if not dir:
            raise ValueError(
                f"data set {name!r} needs a folder: --config.data.dir=<folder with train.npz and "
                "test.npz, or with the official train-images-idx3-ubyte.gz and its companions>"
            )
        if (Path(dir) / "train.npz").exists():
            columns = ("image", "label")
            return sources.npz(dir, "train", name, columns), sources.npz(dir, "test", name, columns)
        return sources.idx(dir, "train", name), sources.idx(dir, "test", name)

    return read


def _tfds(
    context: Context,
    *,
    dataset: str,
    dir: str = "",
    image_size: Count | None = None,
    test_split: str = "test",
) -> tuple[sources.Source, sources.Source]:
    train, test = (
        sources.tfds(dataset, part, data_dir=dir or None, image_size=image_size)
        for part in ("train", test_split)
    )
    return train, test


def _tfds_of(dataset: str) -> Entry:
    def read(context: Context, *, dir: str = "") -> tuple[sources.Source, sources.Source]:
        return _tfds(context, dataset=dataset, dir=dir)

    return read


def _imagenet(
    context: Context, *, dir: str = "", image_size: Count = 256
) -> tuple[sources.Source, sources.Source]:
    return _tfds(
        context, dataset="imagenet2012", dir=dir, image_size=image_size, test_split="validation"
    )


@forwarding(sources.image_folders)
def _folder(context: Context, *, dir: str = "", **rest: Any) -> tuple[sources.Source | None, ...]:
    if not dir:
        raise ValueError(
            "data set 'image_folder' needs a folder of images, with or without a folder for each "
            "class: --config.data.dir=<folder>"
        )
    found = sources.image_folders(dir=dir, **rest)
    if "test" not in found:
        return (found["train"],)
    # Images without a label are trained on, and measured by nothing.
    held_out = (found.get(part) for part in ("test", "validation"))
    return found["train"], *(each and split.known_labels(each) for each in held_out)


DATA: dict[str, Entry] = {
    "digits": offered(sources.digits),
    "diabetes": offered(sources.diabetes),
    "photographs": offered(sources.photographs),
    "mnist": _image_files("mnist"),
    "fashion_mnist": _image_files("fashion_mnist"),
    "image_folder": _folder,
    "tfds": _tfds,
    "cifar10": _tfds_of("cifar10"),
    "cifar100": _tfds_of("cifar100"),
    "imagenet2012": _imagenet,
    "pool": pools.pool_of(lambda part: data(part)),
    **samplers.DATA,
    **language.DATA,
    **sentences.DATA,
    **written.DATA,
}
"""Data sets by name. Each entry gives one source that is to be split, or the training and the
official test set, and where there is one the official validation set.
"""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What ``data`` may say besides the data set's own keywords.

    Attributes:
        validation: the share of the training records that is held out for validation.
        test: the share that is held out for the test, where there is no official set.
        only: the labels that are kept.
        wrong: the share of labels that are replaced by another, in what is trained and validated
            on: test labels are always the true ones.
        records: how many to train on, equally many of each class.
        whiten: a whitening of the images that is fitted to what is trained on, or the scaling of
            their ``"channels"``, see :mod:`jaxdistill.condense.whitening`.
        by: whether records go to their sets by their ids, or by what they hold, so that two that
            hold the same are never trained and tested on.
    """

    validation: Fraction = 0.1
    test: Fraction = 0.2
    only: Sequence[Natural] | None = None
    wrong: Share | None = None
    records: Count | None = None
    whiten: str | None = None
    by: Literal["id", "content"] = "id"


SHARED = tuple(field.name for field in dataclasses.fields(Chosen))


def data(part: Mapping[str, Any], seed: int = 0) -> split.Splits:
    """The train, validation and test sets of ``config.data``.

    Args:
        part: the ``name`` of a data set and its own keywords, and what :class:`Chosen` says.
        seed: of the run, which chooses the wrong labels and draws what is made up.
    """
    name = named("data set", part)
    said = record("'data'", Chosen, {k: v for k, v in part.items() if k in SHARED})
    # A place that is not said yet: who needs it says so.
    unsaid = [key for key in ("dir", "path") if part.get(key) in (None, "")]
    own = less(part, *SHARED, *unsaid)
    context = Context(validation=said.validation, test=said.test, by=said.by, seed=seed)
    read = call("data set", DATA, own, context)
    if isinstance(read, split.Splits):
        for key in ("only", "wrong", "records", "whiten"):
            if getattr(said, key):
                raise ValueError(f"data set {name!r} is split by itself: it does not read {key!r}")
        return read
    given = read if isinstance(read, tuple) else (read,)
    if said.only:
        given = tuple(each and sources.filter_labels(each, said.only) for each in given)
    share = said.test if len(given) == 1 else 0.0
    parts = split.splits(*given, validation=said.validation, test=share, by=said.by)
    if said.wrong:
        for name in parts.keys() - {"test"}:
            parts[name] = split.wrong_labels(parts[name], share=said.wrong, seed=seed)
    if said.records:
        parts["train"] = split.labelled_subset(parts["train"], said.records, seed=0)
    return condense.whitened(parts, said.whiten) if said.whiten else parts
