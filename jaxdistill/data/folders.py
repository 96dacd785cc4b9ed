"""How a folder of images is laid out, without reading any of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jaxdistill.data.images import SUFFIXES


def parts_of(root: Path | str) -> dict[str, Path]:
    """The parts of a set of images that is divided already, ``train``, ``test`` and where there is
    one ``validation``; of one that is not, the whole folder as ``train``.

    Raises:
        FileNotFoundError: if there is no such folder, or one of ``train`` and ``test`` alone.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}: expected one of images")
    found = {part: root / part for part in ("train", "validation", "test")}
    found = {part: folder for part, folder in found.items() if folder.is_dir()}
    if not found:
        return {"train": root}
    for part in ("train", "test"):
        if part not in found:
            raise FileNotFoundError(
                f"{root / part} does not exist, and {root} holds {sorted(found)}: give a folder "
                "that is divided into train and test, or one that is not divided"
            )
    return found


def classes_in(root: Path | str) -> tuple[str, ...]:
    """The folders of a part that hold images, sorted: its classes; none where images lie in the
    part itself alone."""
    return tuple(name for name in folders_in(root) if next(image_files(Path(root) / name), None))


def folders_in(root: Path | str) -> list[str]:
    """The folders within a folder, sorted, less those whose names begin with a dot."""
    return sorted(
        entry.name for entry in Path(root).iterdir() if entry.is_dir() and entry.name[0] != "."
    )


def image_files(folder: Path, *, deep: bool = True) -> Iterator[Path]:
    """The image files of a folder, and of those below it, in no order."""
    for file in folder.rglob("*") if deep else folder.iterdir():
        below = file.relative_to(folder).parts
        if file.suffix.lower() in SUFFIXES and not any(part[0] == "." for part in below):
            yield file
