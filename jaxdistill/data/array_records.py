"""Records of sets that TensorFlow Datasets has prepared, read without TensorFlow."""

from __future__ import annotations

import dataclasses
import difflib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.data.arrays import narrowed
from jaxdistill.data.content import Files, digest
from jaxdistill.data.ids import Ids, numbered
from jaxdistill.data.images import decode_image, pillow
from jaxdistill.data.records import Reader, Records, Source
from jaxdistill.settings import Count, checked


@checked
def tfds(
    name: str,
    split: str = "train",
    *,
    data_dir: str | Path | None = None,
    image_size: Count | None = None,
    image: str = "image",
    label: str | None = "label",
) -> Source:
    """A set that TensorFlow Datasets prepared as array_record, read without TensorFlow.

    Args:
        name: the name there, e.g. ``"imagenet2012"`` or ``"cifar10:3.0.2"``.
        split: a whole split; for a part of it use ``subset`` or ``split``, which keep the ids.
        data_dir: where prepared sets lie; None is the default of the library.
        image_size: every image becomes ``[image_size, image_size, C]``, see :func:`decode_image`;
            needed where images differ in size.
        image: the feature that is read as ``image``.
        label: the feature that is read as ``label``; None for a set without.

    Returns:
        ``image`` uint8 and ``label`` int32. The id of a record is the name and version of the set,
        the split, and the position in the prepared files. ``labels()`` reads all files, though it
        decodes no image.

    Raises:
        FileNotFoundError: if the set is not prepared as array_record; says how to prepare it.
        ValueError: for an unknown set, split or feature, or images of many sizes without
            ``image_size``.
        ImportError: without array_record or Pillow (extra ``tfds``).
    """
    import tensorflow_datasets
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    try:
        import array_record.python  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "reading array_record files needs: pip install 'jaxdistill[tfds]'"
        ) from error
    pillow()
    where = None if data_dir is None else str(data_dir)
    try:
        builder = tensorflow_datasets.builder(name, data_dir=where)
    except DatasetNotFoundError as error:
        # Community sets are listed over the network, and that needs TensorFlow.
        names = tensorflow_datasets.list_builders(with_community_datasets=False)
        raise ValueError(_unknown_set(name, names, where)) from error
    known = builder.info
    if not known.splits:
        raise FileNotFoundError(_how_to_prepare(builder, "not prepared", where))
    if split not in known.splits:
        raise ValueError(unknown(f"split of {name!r}", split, known.splits))
    features: Mapping[str, Any] = known.features  # type: ignore[assignment]
    for feature in filter(None, (image, label)):
        if feature not in features:
            raise ValueError(unknown(f"feature of {name!r}", feature, features))
    _refuse_other_images(name, image, features[image], image_size)
    # Undecoded, so that a JPEG is decoded once, at about the size wanted.
    undecoded = {image: tensorflow_datasets.decode.SkipDecoding()}
    try:
        stored = cast(Any, builder).as_data_source(
            split, decoders=undecoded, file_format="array_record"
        )
    except (NotImplementedError, ValueError) as error:
        raise FileNotFoundError(
            _how_to_prepare(builder, "not prepared as array_record", where)
        ) from error
    found = _decoded(stored, f"{known.full_name}/{split}", features, image, label, image_size)
    folder = Path(str(builder.data_path))
    files = Files(sorted(folder.glob(f"*-{split}.array_record*")) if folder.is_dir() else [])
    size = str(known.splits[split].num_bytes)

    def identity() -> str:
        return digest(found.name, size, files(), f"{image} {label} {image_size}")

    return dataclasses.replace(found, read=Reader(found.read, identity=identity))


def _refuse_other_images(name: str, key: str, feature: Any, image_size: int | None) -> None:
    from tensorflow_datasets import features

    shape: Any = feature.shape
    if not isinstance(feature, features.Image) or shape[-1] not in (1, 3):
        raise ValueError(
            f"feature {key!r} of {name!r} is {feature}, not an image of 1 or 3 channels"
        )
    if image_size is None and None in shape:
        raise ValueError(
            f"the images of {name!r} differ in size: give image_size, the side of the square"
        )


def _decoded(
    stored: Any,
    name: str,
    features: Mapping[str, Any],
    image: str,
    label: str | None,
    image_size: int | None,
) -> Source:
    """The source over a random access data source whose images are still encoded."""
    ids: Sequence[str] = numbered(name, len(stored))
    shape = features[image].shape
    info: dict[str, Any] = {
        "image_shape": (image_size, image_size, shape[-1]) if image_size else tuple(shape)
    }
    if label is not None and hasattr(features[label], "names"):
        info["classes"] = features[label].num_classes
        info |= {"class_names": tuple(features[label].names), "declared": True}

    def labelled(rows: np.ndarray, examples: list[Any]) -> np.ndarray:
        own = Ids(len(rows), lambda i: ids[int(rows[i])])
        return narrowed(name, own, np.asarray([example[label] for example in examples]))

    def pixels(index: int, encoded: bytes) -> np.ndarray:
        try:
            return decode_image(io.BytesIO(encoded), image_size, shape[-1])
        except ValueError as fault:
            raise ValueError(f"record {ids[index]}: {fault}") from fault

    def read(indices: np.ndarray) -> Records:
        examples = stored.__getitems__(indices.tolist())
        decoded = [pixels(i, example[image]) for i, example in zip(indices, examples, strict=True)]
        return {"image": np.stack(decoded)} | (
            {} if label is None else {"label": labelled(indices, examples)}
        )

    def read_labels() -> np.ndarray:
        chunks = np.array_split(np.arange(len(stored)), -(-len(stored) // 1024))
        return np.concatenate([labelled(c, stored.__getitems__(c.tolist())) for c in chunks])

    return Source(name, ids, read, info, None if label is None else read_labels)


def _unknown_set(name: str, names: list[str], data_dir: str | None) -> str:
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    folder = data_dir or "its default folder"
    return (
        f"unknown data set {name!r}: {hint}TensorFlow Datasets lists no such name, and {folder} "
        "holds no prepared set of it."
    )


def _how_to_prepare(builder: Any, state: str, data_dir: str | None) -> str:
    folder = data_dir or "~/tensorflow_datasets"
    by_hand = (
        f"download the archives by hand into {folder}/downloads/manual and "
        if builder.MANUAL_DOWNLOAD_INSTRUCTIONS
        else ""
    )
    return (
        f"{builder.info.full_name} is {state} in {folder}: {by_hand}run "
        f"tfds build {builder.name} --data_dir={folder} --file_format=array_record"
    )
