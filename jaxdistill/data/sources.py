"""Every way to get records: arrays, files, prepared sets, and the data that scikit-learn brings."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxdistill.data.array_records import tfds
from jaxdistill.data.arrays import arrays
from jaxdistill.data.content import digest
from jaxdistill.data.files import idx, image_folder, image_folders, npz
from jaxdistill.data.ids import Ids
from jaxdistill.data.images import decode_image, pillow
from jaxdistill.data.records import (
    Reader,
    Records,
    Source,
    by_reading,
    concatenate,
    filter_labels,
    subset,
)
from jaxdistill.settings import Count, checked

__all__ = [
    "Ids",
    "Reader",
    "Records",
    "Source",
    "arrays",
    "concatenate",
    "decode_image",
    "digits",
    "filter_labels",
    "idx",
    "image_folder",
    "image_folders",
    "npz",
    "photographs",
    "subset",
    "tfds",
]


def digits() -> Source:
    """The 1,797 handwritten digits of scikit-learn (a part of the UCI set), which need no download.

    Returns:
        ``image`` float32 ``[n, 8, 8, 1]`` in [0, 1] (the counts 0..16 of ink divided by 16) and
        ``label`` int32. Ids are ``"digits/0000"`` to ``"digits/1796"``. There is no official split:
        make one with ``splits``.

    Example:
        >>> source = digits()
        >>> len(source), source.info["image_shape"], source.info["classes"]
        (1797, (8, 8, 1), 10)
    """
    from sklearn.datasets import load_digits

    loaded: Any = load_digits()
    image = (loaded.images / 16.0).astype(np.float32)[..., None]
    return arrays({"image": image, "label": loaded.target}, name="digits")


def diabetes() -> Source:
    """The 442 diabetes patients of scikit-learn (Efron et al. 2004), a regression.

    Returns:
        ``image`` float32 ``[n, 10]``, ten features (age, sex, body mass, blood pressure, six of
        serum), and ``label`` float32 ``[n]``, the progression of the disease a year later; each
        with mean 0 and standard deviation 1 over all patients. Ids are ``"diabetes/0000"`` and so
        on.

    Example:
        >>> source = diabetes()
        >>> len(source), source.info["image_shape"], "classes" in source.info
        (442, (10,), False)
    """
    from sklearn.datasets import load_diabetes

    loaded: Any = load_diabetes(scaled=False)
    columns = {"image": loaded.data, "label": loaded.target}
    return arrays(
        {k: ((v - v.mean(0)) / v.std(0)).astype(np.float32) for k, v in columns.items()},
        name="diabetes",
    )


@checked
def photographs(*, size: Count = 32, stride: Count | None = None, grey: bool = False) -> Source:
    """Square crops of the two photographs of scikit-learn (a temple, a flower; 427 x 640).

    Args:
        size: the side of a crop.
        stride: how far one crop lies from the next; ``size`` if not given. With a smaller one crops
            share pixels, so a split by id no longer separates what is learnt from what is tested.
        grey: whether the three channels become one, their luma (ITU-R 601).

    Returns:
        ``image`` uint8 ``[n, size, size, 3]`` (1 channel if grey) and ``label`` int32: 0 for china,
        1 for flower. Ids are file, row and column of the upper left pixel, e.g.
        ``"china/0032_0064"``.

    Raises:
        ValueError: for a size that does not fit, or a size or stride below 1.
        ImportError: without Pillow (extra ``images``), which decodes them.
    """
    from sklearn.datasets import load_sample_image

    pillow()
    stride = size if stride is None else stride
    names = ("china", "flower")
    pixels = np.stack([load_sample_image(f"{name}.jpg") for name in names])
    if grey:
        luma = pixels @ np.array([0.299, 0.587, 0.114])
        pixels = np.round(luma).astype(np.uint8)[..., None]
    height, width = pixels.shape[1:3]
    if size > min(height, width):
        raise ValueError(f"crops of size={size}: size must lie in 1..{min(height, width)}")
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(1, 2))
    windows = np.moveaxis(windows, 3, -1)[:, ::stride, ::stride]
    which, row, column = (axis.ravel() for axis in np.indices(windows.shape[:3]))

    def read(i: np.ndarray) -> Records:
        return {"image": windows[which[i], row[i], column[i]], "label": which[i].astype(np.int32)}

    return Source(
        "photographs",
        Ids(
            len(which),
            lambda i: f"{names[which[i]]}/{row[i] * stride:04d}_{column[i] * stride:04d}",
        ),
        Reader(read, by_reading(read, len(which)), lambda: digest(pixels, f"{size} {stride}")),
        {"image_shape": (size, size, pixels.shape[-1]), "classes": 2, "class_names": names},
        lambda: which.astype(np.int32),
    )
