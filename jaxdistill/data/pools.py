"""Pools of images from anywhere, of one size, without labels: what a student learns from whose
teacher's own images are not to be had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import numpy as np

from jaxdistill.data.ids import Ids
from jaxdistill.data.records import Records, Source, concatenate, through

Change = Literal["inverted", "noisy"]
"""What may be done to the images of a part."""
NOISE = 0.4
"""The standard deviation of the noise, white being 1."""


def as_images(
    source: Source,
    name: str,
    size: int,
    channels: int,
    dtype: Any,
    change: Change | None = None,
    frame: int = 0,
) -> Source:
    """The images of a source alone, of one size and type; no label is read, let alone handed on.

    Args:
        source: with ``image`` ``[n, H, W, C]``, uint8 or in [0, 1].
        name: of the new source; ids begin with it.
        size: the side, to which images are resampled (linearly).
        channels: 1 or as many as the images have; grey ones are repeated, coloured ones averaged.
        dtype: uint8, or a floating type in [0, 1].
        change: ``"inverted"``, or ``"noisy"``: Gaussian noise that every record has once and for
            all.
        frame: so many pixels on every side stay black.

    Raises:
        ValueError: for a source without images, and a frame that leaves no image.
    """
    shape = source.info.get("image_shape")
    if shape is None or len(shape) != 3:
        raise ValueError(f"{source.name!r} has no images [H, W, C] for a pool: it has {shape}")
    if 2 * frame >= size:
        raise ValueError(f"a frame of {frame} pixels leaves nothing of images of {size}")
    rows, columns = (_framed(_resampling(side, size - 2 * frame), frame) for side in shape[:2])

    def read(indices: np.ndarray) -> Records:
        image = source.read(indices)["image"]
        white = 255.0 if image.dtype == np.uint8 else 1.0
        # Rows, then columns: all three at once is as many products as pixels squared.
        image = np.einsum("ph,bhwc->bpwc", rows, image.astype(np.float32) / white, optimize=True)
        image = np.einsum("qw,bpwc->bpqc", columns, image, optimize=True)
        if image.shape[-1] != channels:
            image = np.repeat(image.mean(-1, keepdims=True), channels, -1)
        if change == "inverted":
            image = 1 - image
        if change == "noisy":
            drawn = (np.random.default_rng(int(i)).normal(size=image.shape[1:]) for i in indices)
            image = image + NOISE * np.stack(list(drawn)).astype(np.float32)
        image = np.clip(image, 0, 1)
        if dtype == np.uint8:
            return {"image": np.round(255 * image).astype(np.uint8)}
        return {"image": image.astype(dtype)}

    told = f"images {size} {channels} {np.dtype(dtype).name} {change} {NOISE} {frame}"
    ids = Ids(len(source), lambda i: f"{name}/{source.ids[i]}")
    info = {"image_shape": (size, size, channels)}
    return Source(name, ids, through(source, read, changes=lambda: told), info)


def pool(parts: Mapping[str, Callable[[str], Source]], known: Mapping[str, Any]) -> Source:
    """Several sources as one training set without labels.

    Args:
        parts: by name what gives the source under that name, see :func:`as_images`. The names are
            ``info["groups"]``, and ``group`` of a record says where it is from: not for the
            student, but to see afterwards what was selected.
        known: what nets must know of the classes that a teacher tells apart.

    Raises:
        ValueError: for a pool without parts.
    """
    if not parts:
        raise ValueError("a pool needs at least one part")
    whole = concatenate([made(name) for name, made in parts.items()], "pool")
    return Source(whole.name, whole.ids, whole.read, {**whole.info, **known})


def _resampling(before: int, after: int) -> np.ndarray:
    """``[after, before]``: what every new pixel of a row is made of."""
    if before == after:
        return np.eye(after, dtype=np.float32)
    rows = jax.image.resize(np.eye(before, dtype=np.float32), (after, before), "linear")
    return np.asarray(rows, np.float32)


def _framed(rows: np.ndarray, frame: int) -> np.ndarray:
    """New pixels before and behind that are made of nothing."""
    return np.pad(rows, ((frame, frame), (0, 0)))
