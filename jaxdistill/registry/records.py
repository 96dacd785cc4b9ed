"""Data sets and views: what a stage reads and what is drawn of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdistill._errors import unknown
from jaxdistill.data import augment, mixing, sources, split, views
from jaxdistill.data.seeded import seeded
from jaxdistill.registry import condense, language, samplers, sentences
from jaxdistill.registry._names import call, fixed, named, without

AUGMENTATIONS: dict[str, Callable[..., Any]] = {
    "random_resized_crop": augment.random_resized_crop,
    "random_crop": augment.random_crop,
    "shift": augment.shift,
    "flip": augment.flip,
    "color_jitter": augment.color_jitter,
    "random_erasing": augment.random_erasing,
    "resize": augment.resize,
    "normalise": augment.normalise,
}
MIXES: dict[str, Callable[..., Any]] = {
    "mixup": mixing.mixup,
    "cutmix": mixing.cutmix,
    "mixup_or_cutmix": mixing.mixup_or_cutmix,
}


def _image_files(name: str, dir: str = "") -> tuple[sources.Source, sources.Source]:
    """MNIST and its like: in one folder ``train.npz`` and ``test.npz``, or the idx files."""
    if not dir:
        raise ValueError(
            f"data set {name!r} needs a folder: --config.data.dir=<folder with train.npz and "
            "test.npz, or with the official train-images-idx3-ubyte.gz and its companions>"
        )
    if (Path(dir) / "train.npz").exists():
        columns = ("image", "label")
        return sources.npz(dir, "train", name, columns), sources.npz(dir, "test", name, columns)
    return sources.idx(dir, "train", name), sources.idx(dir, "test", name)


def _tfds(dataset: str, dir: str = "", image_size: int | None = None, test_split: str = "test"):
    directory = dir or None
    return (
        sources.tfds(dataset, "train", data_dir=directory, image_size=image_size),
        sources.tfds(dataset, test_split, data_dir=directory, image_size=image_size),
    )


def _folder(dir: str, image_size: int):
    found = sources.image_folders(dir=dir, image_size=image_size)
    return found["train"], found["test"]


# Each gives one source that is to be split, or a pair of the training and the official test set.
DATA: dict[str, Callable[..., Any]] = {
    "digits": sources.digits,
    "diabetes": sources.diabetes,
    "photographs": sources.photographs,
    "mnist": lambda dir="": _image_files("mnist", dir),
    "fashion_mnist": lambda dir="": _image_files("fashion_mnist", dir),
    "image_folder": _folder,
    "tfds": _tfds,
    "cifar10": lambda dir="": _tfds("cifar10", dir),
    "cifar100": lambda dir="": _tfds("cifar100", dir),
    "imagenet2012": lambda dir="", image_size=256: _tfds(
        "imagenet2012", dir, image_size, "validation"
    ),
    **samplers.DATA,
    **language.DATA,
    **sentences.DATA,
}


# Keys of ``config.data`` that are not the data set's own.
OWN = ("name", "validation", "test", "only", "wrong", "records", "whiten")


def data(settings: Mapping[str, Any], seed: int = 0) -> split.Splits:
    """The train, validation and test sets of ``config.data``.

    Args:
        settings: the ``name`` of a data set and its own keywords; the shares of ``validation`` and
            ``test``; ``only`` some labels; ``wrong``, the share of labels that are replaced by
            another, in what is trained and validated on: test labels are always the true ones;
            ``whiten``, a whitening of the images that is fitted to what is trained on, or the
            scaling of their ``"channels"``, see :mod:`jaxdistill.condense.whitening`; ``records``,
            how many to train on, equally many of each class.
        seed: of the run, which chooses the wrong ones.
    """
    name = named("data set", settings)
    own = {k: v for k, v in settings.items() if k not in OWN and v not in (None, "")}
    validation, share = settings.get("validation", 0.1), settings.get("test", 0.2)
    found = call("data set", DATA, name, own, validation=validation, test=share)
    if isinstance(found, split.Splits):
        for key in ("only", "wrong", "records", "whiten"):
            if settings.get(key):
                raise ValueError(f"data set {name!r} is split by itself: it does not read {key!r}")
        return found
    train, test = found if isinstance(found, tuple) else (found, None)
    if settings.get("only"):
        train = sources.filter_labels(train, settings["only"])
        test = sources.filter_labels(test, settings["only"]) if test is not None else None
    if test is not None:
        parts = split.splits(train, test, validation=validation)
    else:
        parts = split.splits(train, validation=validation, test=share)
    if settings.get("wrong"):
        for part in parts.keys() - {"test"}:
            parts[part] = split.wrong_labels(parts[part], share=settings["wrong"], seed=seed)
    if settings.get("records"):
        parts["train"] = split.labelled_subset(parts["train"], settings["records"], seed=0)
    return condense.whitened(parts, settings["whiten"]) if settings.get("whiten") else parts


def augmentations(specs: Sequence[Mapping[str, Any]] | None) -> list[augment.Operation]:
    """The operations that a list of ``{"name": ..., ...}`` names."""
    return [
        call("augmentation", AUGMENTATIONS, named("augmentation", spec), without(spec, "name"))
        for spec in specs or ()
    ]


def fixed_view(specs: Sequence[Mapping[str, Any]] | None) -> views.Prepare | None:
    """What is done to the images that a net is evaluated on, or None if that is nothing."""
    return views.augmented(augmentations(specs)) if specs else None


def seen(specs: Sequence[Mapping[str, Any]] | None, info: Mapping[str, Any]) -> dict[str, Any]:
    """What is done before a net is evaluated, and which entry of the batch it then sees."""
    if "vocabulary" in info:
        if specs:
            raise ValueError("texts have no view: take 'augment' out")
        return {"prepare": views.texts, "inputs": "student"}
    return {"prepare": fixed_view(specs), "inputs": "image"}


VIEW_KEYS = ("augment", "mix", "mask")


def view(settings: Mapping[str, Any] | None, info: Mapping[str, Any]) -> views.Prepare:
    """What is drawn before either net runs: augmentation, mixing of pairs, masking."""
    settings = settings or {}
    for key in settings:
        if key not in VIEW_KEYS:
            raise ValueError(unknown("key of a view", key, VIEW_KEYS))
    if "vocabulary" in info:
        for key in settings:
            if key != "mask":
                raise ValueError(f"of a view texts have 'mask' alone: take {key!r} out")
        mask = settings.get("mask")
        if not mask:
            return views.texts
        given = {"vocabulary": info["vocabulary"]}
        return call("mask", {"tokens": views.masked_texts}, "tokens", without(mask), **given)
    parts = [views.augmented(augmentations(settings.get("augment")))]
    if mix := settings.get("mix"):
        function = fixed("mix", MIXES, named("mix", mix), without(mix, "name", "smoothing"))
        parts.append(views.mixed(function, info["classes"], smoothing=mix.get("smoothing", 0.0)))
    if mask := settings.get("mask"):
        parts.append(call("mask", {"patches": views.masked}, "patches", without(mask)))
    return views.chain(*parts)


RECORD_KEYS = ("exclude", "only", "share", "shuffled", "labelled", "labels", "selected", "views")


def records(
    source: Any,
    settings: Mapping[str, Any] | None,
    seed: int,
    scores: Mapping[str, Any] | None = None,
) -> Any:
    """The part of the training set that a stage sees.

    Args:
        source: the training set.
        settings: ``exclude`` or ``only`` some labels; ``share``: from where to where, in [0, 1], of
            all records, by the hash of their ids; ``shuffled``: labels are given to records at
            random; ``labelled``: how many records, equally many of each class; ``labels``: of how
            many records the label is known, all others losing theirs (``has_label`` says which);
            ``selected``: so many records of each class, besides those that are ``labelled``, by
            their teacher's probabilities; ``views``: so many views of each record, drawn once and
            for all: those that a cache of as many holds.
        seed: of the run, which chooses them.
        scores: the probabilities, by id; without them ``selected`` takes the first records.
    """
    settings = settings or {}
    whole = _filtered(source, settings)
    if settings.get("share"):
        whole = split.share(whole, *settings["share"])
    if settings.get("shuffled"):
        whole = split.shuffled_labels(whole, seed=seed)
    count = settings.get("labelled")
    labelled = split.labelled_subset(whole, count, seed=seed) if count else None
    if settings.get("selected"):
        return split.confident_subset(whole, settings["selected"], scores, always=labelled)
    found = labelled or whole
    if settings.get("labels"):
        found = split.hidden_labels(found, settings["labels"], seed=seed)
    return seeded(found, settings["views"]) if settings.get("views") else found


def pool(source: Any, settings: Mapping[str, Any] | None, seed: int) -> Any:
    """The records that teachers see for a cache: those of which a stage may select."""
    settings = settings or {}
    if settings.get("selected"):
        return _filtered(source, settings)
    return records(source, settings, seed)


def _filtered(source: Any, settings: Mapping[str, Any]) -> Any:
    for key in settings:
        if key not in RECORD_KEYS:
            raise ValueError(unknown("key of records", key, RECORD_KEYS))
    if not settings.get("exclude") and not settings.get("only"):
        return source
    classes = settings.get("only") or range(source.info["classes"])
    kept = [label for label in classes if label not in (settings.get("exclude") or ())]
    return sources.filter_labels(source, kept)
