"""Records from numpy archives, idx files and folders of images."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.data.records import Ids, Records, Source, arrays

_IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def _existing(path: Path, expected: str) -> Path:
    if path.exists():
        return path
    there = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else None
    found = (
        f"{path.parent} holds {there}" if there is not None else f"there is no folder {path.parent}"
    )
    raise FileNotFoundError(f"{path} does not exist: expected {expected}; {found}")


def npz(
    path: str | Path,
    split: str = "train",
    name: str | None = None,
    only: Sequence[str] | None = None,
) -> Source:
    """Records from a numpy archive.

    Args:
        path: a folder with ``train.npz`` and ``test.npz``, or one archive.
        split: which archive of the folder; in a single archive with ``x_train``, ``y_train``,
            ``x_test``, ... which of its parts.
        name: what the set is called; the name of the folder or archive if not given.
        only: the names that records keep, such as ``("image", "label")``; all if not given.

    Returns:
        A source of every array in the archive. ``x`` is read as ``image`` and ``y`` as ``label``;
        images without a channel axis get one, and labels of shape ``[n, 1]`` lose theirs.

    Raises:
        FileNotFoundError: if the archive is missing; says what was expected where.
        ValueError: for an archive without ``x`` or ``image``, or with pickled objects, which are
            never loaded.
    """
    path = Path(path)
    file = path if path.suffix == ".npz" else path / f"{split}.npz"
    _existing(
        file,
        f"an archive with the arrays 'x' and 'y' (or 'image' and 'label') of the {split!r} split",
    )
    with np.load(file, allow_pickle=False) as archive:
        stored = {key: archive[key] for key in archive.files}
    suffix = f"_{split}"
    if any(key.endswith(suffix) for key in stored):
        stored = {
            key.removesuffix(suffix): value for key, value in stored.items() if key.endswith(suffix)
        }
    columns = {{"x": "image", "y": "label"}.get(key, key): value for key, value in stored.items()}
    if "image" not in columns:
        raise ValueError(f"{file} has no array 'x' or 'image': it holds {sorted(stored)}")
    if only is not None:
        columns = {key: value for key, value in columns.items() if key in only}
    return _images(columns, f"{name or path.resolve().stem}/{split}")


def _images(columns: Records, name: str) -> Source:
    if columns["image"].ndim == 3:
        columns["image"] = columns["image"][..., None]
    if "label" in columns and columns["label"].shape[1:] == (1,):
        columns["label"] = columns["label"][:, 0]
    return arrays(columns, name=name)


def idx(directory: str | Path, split: str = "train", name: str | None = None) -> Source:
    """Records from the idx files of MNIST and Fashion-MNIST, as published.

    Args:
        directory: the folder with ``train-images-idx3-ubyte.gz``, ``train-labels-idx1-ubyte.gz``
            and the same for ``t10k``; compressed or not.
        split: ``"train"`` or ``"test"``.
        name: what the set is called; the name of the folder if not given.

    Returns:
        ``image`` uint8 ``[n, 28, 28, 1]`` and ``label`` int32 ``[n]``.

    Raises:
        FileNotFoundError: if a file is missing; says what was expected where.
        ValueError: for an unknown split, or a file that is not what its name says.
    """
    prefixes = {"train": "train", "test": "t10k"}
    if split not in prefixes:
        raise ValueError(unknown("split", split, prefixes))
    directory = Path(directory)
    columns = {
        "image": _read_idx(directory / f"{prefixes[split]}-images-idx3-ubyte", 3),
        "label": _read_idx(directory / f"{prefixes[split]}-labels-idx1-ubyte", 1),
    }
    return _images(columns, f"{name or directory.resolve().name}/{split}")


def _read_idx(path: Path, rank: int) -> np.ndarray:
    if not path.exists():
        path = _existing(
            path.with_name(f"{path.name}.gz"), "an idx file, compressed or without the '.gz'"
        )
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        data = file.read()
    header = 4 + 4 * rank
    # Two zero bytes, 8 for unsigned bytes, the number of axes; then each length, big-endian.
    if len(data) < header or data[:4] != bytes((0, 0, 8, rank)):
        raise ValueError(
            f"{path} is not an idx file of unsigned bytes with {rank} axes: it begins {data[:4]!r}"
        )
    shape = struct.unpack(f">{rank}I", data[4:header])
    if len(data) - header != np.prod(shape, dtype=np.int64):
        raise ValueError(
            f"{path} says it has shape {shape} but holds {len(data) - header} bytes: is it whole?"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "reading image files needs Pillow: pip install 'jaxdistill[images]'"
        ) from error
    return Image


def decode_image(file: Any, size: int | None, channels: int = 3) -> np.ndarray:
    """Decodes one image file to a square: the shorter side resized to ``size``, then the centre.

    Args:
        file: a path, or a binary file object.
        size: the side of the result; None keeps the image as it is.
        channels: 1 or 3.

    Returns:
        uint8, ``[size, size, channels]``.
    """
    image_module = pillow()
    with image_module.open(file) as image:
        if size is not None:
            # A JPEG can be decoded at 1/2, 1/4 or 1/8; twice the wanted size leaves the resampling
            # something to do.
            image.draft("RGB", (2 * size, 2 * size))
        image = image.convert("RGB" if channels == 3 else "L")
        if size is not None:
            side = min(image.size)
            left, top = (image.width - side) / 2, (image.height - side) / 2
            box = (left, top, left + side, top + side)
            image = image.resize((size, size), image_module.Resampling.BICUBIC, box=box)
        pixels = np.asarray(image)
    return pixels if channels == 3 else pixels[..., None]


def image_folder(path: str | Path, image_size: int, name: str | None = None) -> Source:
    """Image files, one folder a class; decoded when they are read.

    Args:
        path: the folder that holds a folder per class. Classes and files are taken in sorted order.
        image_size: every image becomes ``[image_size, image_size, 3]`` uint8, see
            :func:`decode_image`.
        name: what the set is called; the name of the folder if not given.

    Returns:
        ``image`` and ``label`` (int32, the place of the class among the sorted ones). The id of a
        record is the name and its path under ``path``, e.g. ``"train/cat/0001.png"``.

    Raises:
        FileNotFoundError: if the folder is missing, or holds no image in any folder.
        ImportError: without Pillow (extra ``images``).
    """
    root = Path(path)
    expected = f"a folder with one folder of images a class ({', '.join(sorted(_IMAGE_SUFFIXES))})"
    _existing(root, expected)
    pillow()
    class_names = sorted(
        entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] != "."
    )
    files = [
        (file, label)
        for label, class_name in enumerate(class_names)
        for file in sorted((root / class_name).rglob("*"))
        if file.suffix.lower() in _IMAGE_SUFFIXES
    ]
    if not files:
        raise FileNotFoundError(
            f"{root} holds no images: expected {expected}; its folders are {class_names}"
        )
    labels = np.array([label for _, label in files], np.int32)

    def read(indices: np.ndarray) -> Records:
        return {
            "image": np.stack([_decode_named(files[i][0], image_size) for i in indices]),
            "label": labels[indices],
        }

    name = name or root.resolve().name
    return Source(
        name,
        Ids(len(files), lambda i: f"{name}/{files[i][0].relative_to(root).as_posix()}"),
        read,
        {
            "image_shape": (image_size, image_size, 3),
            "classes": len(class_names),
            "class_names": tuple(class_names),
        },
        lambda: labels,
    )


def _decode_named(file: Path, size: int) -> np.ndarray:
    try:
        return decode_image(file, size)
    except OSError as error:
        raise ValueError(f"{file} cannot be decoded as an image: {error}") from error
