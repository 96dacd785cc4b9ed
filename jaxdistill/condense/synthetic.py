"""Synthetic sets: what they are, and how they leave the library."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.condense.whitening import Whitening


class Synthetic(NamedTuple):
    """A small set in place of a large one; classes follow each other, equally many of each.

    Attributes:
        images: ``[n, H, W, C]``, in the space that the training set was whitened to.
        targets: ``[n, classes]``: probabilities, or for kernel ridge real numbers.
        rate: the learning rate that goes with it, a scalar.
    """

    images: jax.Array
    targets: jax.Array
    rate: jax.Array


def classes_of(each: int, classes: int) -> jax.Array:
    """The classes of a synthetic set with ``each`` images of every class, ``[n]``."""
    return jnp.repeat(jnp.arange(classes), each)


def one_hot(each: int, classes: int) -> jax.Array:
    """Hard targets ``[n, classes]``."""
    return jax.nn.one_hot(classes_of(each, classes), classes)


def as_records(synthetic: Synthetic) -> dict[str, np.ndarray]:
    """A set as records to train on: ``image``, ``label``, the likeliest class, and ``targets``."""
    targets = np.asarray(synthetic.targets)
    label = targets.argmax(-1).astype(np.int32)
    return {"image": np.asarray(synthetic.images), "label": label, "targets": targets}


def save_npz(
    path: Path | str,
    synthetic: Synthetic,
    whitening: Whitening | None = None,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a set as one numpy archive that can be read without this library.

    Its arrays are ``x`` (images as nets are to see them, float32), ``y`` (classes, int32),
    ``targets`` (float32), ``rate``, ``pixels`` (uint8, to look at), and of a whitening ``mean``,
    ``matrix``, ``channel_mean`` and ``channel_scale``, with which real images are brought to the
    same space: ``((images - channel_mean) / channel_scale).reshape(n, -1) - mean) @ matrix``.

    Args:
        path: ends with ``.npz``.
        synthetic: the set.
        whitening: that of the training set.
        about: a few more numbers or strings.
    """
    images = np.asarray(synthetic.images, np.float32)
    arrays = {
        "x": images,
        "y": np.argmax(synthetic.targets, -1).astype(np.int32),
        "targets": np.asarray(synthetic.targets, np.float32),
        "rate": np.asarray(synthetic.rate, np.float32),
        "pixels": pixels(images, whitening),
        **{key: np.asarray(value) for key, value in (about or {}).items()},
    }
    if whitening is not None:
        arrays["whitening"] = np.asarray(whitening.kind)
        arrays["channel_mean"] = whitening.channel_mean.astype(np.float32)
        arrays["channel_scale"] = whitening.channel_scale.astype(np.float32)
        if whitening.matrix is not None:
            arrays["mean"] = whitening.mean.astype(np.float32)
            arrays["matrix"] = whitening.matrix.astype(np.float32)
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(temporary, path)
    return path


def save_folder(
    path: Path | str,
    synthetic: Synthetic,
    whitening: Whitening | None = None,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Writes a set as a folder of PNG images, a folder inside for every class.

    Pixels are rounded and clipped to 0..255: what lies outside is lost, and soft targets and the
    learning rate are too. :func:`save_npz` keeps all.

    Raises:
        ImportError: without Pillow, the extra ``images``.
    """
    from jaxdistill.data.images import pillow

    image_of = pillow()
    names = class_names or [f"{c:04d}" for c in range(synthetic.targets.shape[-1])]
    classes = np.argmax(synthetic.targets, -1)
    for number, (image, label) in enumerate(
        zip(pixels(synthetic.images, whitening), classes, strict=True)
    ):
        folder = Path(path) / str(names[label])
        folder.mkdir(parents=True, exist_ok=True)
        image_of.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(
            folder / f"{number:05d}.png"
        )
    return Path(path)


def pixels(images: Any, whitening: Whitening | None = None) -> np.ndarray:
    """Images as uint8, back from the space of a whitening; what lies outside [0, 1] is clipped."""
    images = np.asarray(images, np.float32)
    if whitening is not None:
        images = whitening.invert(images)
    if whitening is not None and whitening.kind == "unit":
        # Each image's own mean and length are gone: its range is what can be shown.
        low, high = images.min((1, 2, 3), keepdims=True), images.max((1, 2, 3), keepdims=True)
        images = (images - low) / np.maximum(high - low, 1e-12)
    return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)
