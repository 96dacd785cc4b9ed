"""Records from numpy archives, idx files and folders of images."""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdistill._errors import listed, unknown
from jaxdistill.data import folders, images
from jaxdistill.data.arrays import arrays
from jaxdistill.data.content import Files, digest, row_hashes
from jaxdistill.data.ids import Ids
from jaxdistill.data.records import Reader, Records, Source
from jaxdistill.settings import Count, checked


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
    stored = _stored(file)
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


def _stored(file: Path) -> dict[str, np.ndarray]:
    """All arrays of an archive."""
    try:
        # By its path numpy leaves a damaged one open.
        with file.open("rb") as stream:
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.ndarray):
                raise ValueError("it is one array (.npy), not an archive of arrays (.npz)")
            with found as archive:
                return {key: archive[key] for key in archive.files}
    # Of damaged archives zipfile and numpy raise all of these.
    except (
        OSError, ValueError, EOFError, KeyError, RuntimeError, NotImplementedError, OverflowError,
        MemoryError, SyntaxError, TypeError, struct.error, zipfile.BadZipFile, zlib.error,
    ) as fault:  # fmt: skip
        said = str(fault) or type(fault).__name__
        raise ValueError(f"{file} cannot be read as a numpy archive: {said}") from fault


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
    try:
        with opener(path, "rb") as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as fault:
        raise ValueError(f"{path} cannot be read: {fault}") from fault
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


@checked
def image_folder(
    path: str | Path,
    *,
    image_size: Count,
    name: str | None = None,
    class_names: Sequence[str] | None = None,
    labels: bool = True,
    fit: images.Fit = "cut",
    resample: images.Resample = "bicubic",
) -> Source:
    """Image files, in one folder a class or in none; decoded when they are read.

    Before anything is trained ``check()`` looks at all headers and ends, in parallel.

    Args:
        path: a folder that holds a folder per class, or images, or both: those in no folder have
            no label. Classes and files are taken in sorted order.
        image_size: every image becomes ``[image_size, image_size, 3]`` uint8, see
            :func:`jaxdistill.data.images.decode_image`.
        name: what the set is called; the name of the folder if not given.
        class_names: the classes, in the order of their labels: of a test set those of the training
            set, ``train.info["class_names"]``. Those of this folder, sorted, if not given.
        labels: whether folders are classes at all.
        fit: how an image is made square, see :func:`jaxdistill.data.images.decode_image`.
        resample: how it is scaled, see there.

    Returns:
        ``image`` and, where there are classes, ``label`` (int32, the place of the class; -1 of
        images in no folder). The id of a record is the name and its path under ``path``, e.g.
        ``"train/cat/0001.png"``.

    Raises:
        FileNotFoundError: if the folder is missing, or holds no image.
        ValueError: for an image size below 1, for folders of classes that are not among
            ``class_names``, and, where these are not given, for folders without images.
        ImportError: without Pillow (extra ``images``).
    """
    images.pillow()
    root = Path(path)
    files, classes = _image_files(root, labels, class_names)
    name = name or root.resolve().name
    known = _Looked([root / file for file in files])
    shape = {"image_shape": (image_size, image_size, 3), "fit": fit, "resample": resample}

    def read(indices: np.ndarray) -> Records:
        decoded = [
            images.decode_image(root / files[i], image_size, fit=fit, resample=resample)
            for i in indices
        ]
        return {"image": np.stack(decoded)}

    ids = Ids(len(files), lambda i: f"{name}/{files[i]}")
    if not classes:
        return Source(name, ids, _reader(read, known, None, fit, resample), shape)
    numbers = {each: number for number, each in enumerate(classes)}
    of = (file.rpartition("/")[0].partition("/")[0] for file in files)
    label = np.array([numbers.get(folder, -1) for folder in of], np.int32)

    def labelled(indices: np.ndarray) -> Records:
        return {**read(indices), "label": label[indices]}

    hidden = {"hidden": True} if (label == -1).any() else {}
    return Source(
        name,
        ids,
        _reader(labelled, known, label, fit, resample),
        {**shape, "classes": len(classes), "class_names": classes, **hidden},
        lambda: label,
    )


def _reader(read: Any, known: _Looked, label: np.ndarray | None, fit: str, resample: str) -> Reader:
    """What reads files; pixels that depend on more than their bytes are other records."""
    if (fit, resample) == ("cut", "bicubic"):
        return Reader(read, known.hashes, check=known.check)

    def identity() -> str:
        labels = [] if label is None else [row_hashes(label)]
        return digest(known.hashes(), f"{fit} {resample}", *labels)

    return Reader(read, known.hashes, identity, known.check)


@checked
def image_folders(
    *,
    dir: str | Path,
    image_size: Count,
    labels: bool = True,
    fit: images.Fit = "cut",
    resample: images.Resample = "bicubic",
) -> dict[str, Source]:
    """The parts of a set of image files: the folders ``train`` and ``test``, and ``validation``
    where there is one, each as :func:`image_folder`; of a folder that is not divided so the whole,
    as ``train``.

    Classes are those of the training set by name, so that a class that a test set lacks leaves the
    labels of the others as they are.

    Returns:
        A source a part.

    Raises:
        FileNotFoundError: if there is ``train`` without ``test`` or ``test`` without ``train``,
            and if a part holds no images.
        ValueError: naming the classes that another part has and the training set has not.
    """
    how: dict[str, Any] = {
        "image_size": image_size, "labels": labels, "fit": fit, "resample": resample,
    }  # fmt: skip
    parts = folders.parts_of(dir)
    found = {"train": image_folder(parts.pop("train"), **how)}
    classes = found["train"].info.get("class_names")
    for part, path in parts.items():
        found[part] = image_folder(path, class_names=classes, **{**how, "labels": bool(classes)})
    return found


def _image_files(
    root: Path, labels: bool, class_names: Sequence[str] | None
) -> tuple[list[str], tuple[str, ...]]:
    """The image files of a folder as paths under it, sorted by class, and its classes."""
    suffixes = ", ".join(sorted(images.SUFFIXES))
    expected = f"a folder of images, or with one folder of images a class ({suffixes})"
    _existing(root, expected)
    within = folders.folders_in(root)
    classes = folders.classes_in(root) if labels else ()
    if classes and class_names is None and len(classes) < len(within):
        empty = [folder for folder in within if folder not in classes]
        raise ValueError(f"{root} has folders of classes without images: {listed(empty)}")
    if classes and class_names is not None:
        if other := [folder for folder in within if folder not in class_names]:
            raise ValueError(
                f"{root} has folders of classes that the training set has not: {listed(other)}; it "
                f"has {listed(class_names)}"
            )
        classes = tuple(class_names)
    found = [
        sorted(folders.image_files(root / each))
        for each in classes or ("",)
        if (root / each).is_dir()
    ]
    if classes:
        found.append(sorted(folders.image_files(root, deep=False)))
    files = [file.relative_to(root).as_posix() for each in found for file in each]
    if not files:
        raise FileNotFoundError(
            f"{root} holds no images: expected {expected}; its folders are {within}"
        )
    return files, classes


class _Looked:
    """What is known of image files: their hashes, and what is wrong with them."""

    def __init__(self, paths: Sequence[Path]):
        self._paths = paths
        self.hashes = Files(paths)
        self._bad = Files(paths, lambda path: int(images.look(path) != ""), "looks")

    def check(self) -> None:
        """Looks at those files that are new or have changed.

        Raises:
            ValueError: naming the first ten that cannot be read, and how many more there are.
        """
        bad = np.flatnonzero(self._bad()).tolist()
        if bad:
            named = [f"{self._paths[i]}: {images.look(self._paths[i])}" for i in bad[:10]]
            more = f"\nand {len(bad) - 10} more" if len(bad) > 10 else ""
            raise ValueError(
                f"{len(bad)} of {len(self._paths)} image files cannot be read:\n"
                + "\n".join(named)
                + more
            )
