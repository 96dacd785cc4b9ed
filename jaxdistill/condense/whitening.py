r"""Whitenings of a training set: a synthetic set belongs to the one that it was made in.

Three ZCAs have one name in the literature. All are
:math:`x' = (x - \mu)\, U \mathrm{diag}(s^{-1/2}) U^\top`; they differ in what is done to an image
before, in the covariance's divisor and in its ridge:

=============  ============================================  =======  ============================
name           before                                        divisor  s
=============  ============================================  =======  ============================
``absolute``   nothing                                       n - 1    eigenvalues + 0.1
``relative``   each channel to mean 0 and deviation 1        n        + 0.1 trace / D
``unit``       each image to mean 0 and length 1             n        + 0.1 trace / D, no centring
=============  ============================================  =======  ============================

``channels`` is no whitening: each channel to mean 0 and deviation 1.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from jaxdistill.settings import NonNegative, checked

Kind = Literal["absolute", "relative", "unit", "channels"]


class Whitening(NamedTuple):
    """A whitening fitted to a training set; made by :func:`fit_whitening`.

    Attributes:
        kind: its name.
        image_shape: (H, W, C).
        channel_mean: ``[C]``, taken away before all else.
        channel_scale: ``[C]``, divided by then.
        mean: ``[D]``.
        matrix: ``[D, D]``, or None for ``channels``.
        inverse: ``[D, D]``, or None.
    """

    kind: Kind
    image_shape: tuple[int, ...]
    channel_mean: np.ndarray
    channel_scale: np.ndarray
    mean: np.ndarray
    matrix: np.ndarray | None
    inverse: np.ndarray | None

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Images in [0, 1] (uint8 is divided by 255) ``[n, H, W, C]``, whitened, float32."""
        rows = self._before(images)
        if self.matrix is not None:
            rows = (rows - self.mean[None]) @ self.matrix
        return rows.reshape(-1, *self.image_shape).astype(np.float32)

    def invert(self, images: np.ndarray) -> np.ndarray:
        """Back to pixels, float32; for ``unit`` up to each image's own mean and length."""
        rows = np.asarray(images, np.float32).reshape(len(images), -1)
        if self.inverse is not None:
            rows = rows @ self.inverse + self.mean[None]
        images = rows.reshape(-1, *self.image_shape)
        back = images * _beside(self.channel_scale) + _beside(self.channel_mean)
        return back.astype(np.float32)

    def _before(self, images: np.ndarray) -> np.ndarray:
        images = _pixels(images)
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"this whitening is of images {self.image_shape}, not {images.shape[1:]}"
            )
        if self.kind == "unit":
            rows = images.reshape(len(images), -1)
            rows = rows - rows.mean(1, keepdims=True)
            return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        images = (images - _beside(self.channel_mean)) / _beside(self.channel_scale)
        return images.reshape(len(images), -1)


@checked
def fit_whitening(images: np.ndarray, *, kind: Kind, ridge: NonNegative = 0.1) -> Whitening:
    """Fits a whitening to the images of a training set; others are whitened with its numbers.

    Args:
        images: ``[n, H, W, C]``, uint8 or floating in [0, 1].
        kind: ``"absolute"``, ``"relative"``, ``"unit"`` or ``"channels"``, see above.
        ridge: of the covariance.

    Raises:
        ValueError: for an unknown kind.

    Example:
        >>> images = np.random.default_rng(0).uniform(size=(50, 2, 2, 1))
        >>> found = fit_whitening(images, kind="absolute")
        >>> bool(np.allclose(found.invert(found.apply(images)), images, atol=1e-5))
        True

    References:
        Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; ``absolute``:
        Cazenavette et al., CVPR 2022; ``relative``: Zhou et al., NeurIPS 2022; ``unit``: Nguyen et
        al., NeurIPS 2021
    """
    images = _pixels(images)
    shape, channels = images.shape[1:], images.shape[-1]
    mean, scale = np.zeros(channels), np.ones(channels)
    if kind in ("relative", "channels"):
        mean = images.mean((0, 1, 2), dtype=np.float64)
        scale = images.std((0, 1, 2), dtype=np.float64)
        scale = np.where(scale > 0, scale, 1.0)
    size = int(np.prod(shape))
    found = Whitening(kind, shape, mean, scale, np.zeros(size), None, None)
    if kind == "channels":
        return found
    rows = found._before(images).astype(np.float64)
    if kind != "unit":
        found = found._replace(mean=rows.mean(0))
    centred = rows - found.mean[None]
    covariance = centred.T @ centred / (len(rows) - (kind == "absolute"))
    added = ridge if kind == "absolute" else ridge * np.trace(covariance) / size
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, 0) + added
    if kind != "absolute":
        # Directions that fewer images than pixels cannot show are left as they are.
        values[: max(size - len(rows), 0)] = 1.0
    return found._replace(
        matrix=(vectors / np.sqrt(values)) @ vectors.T,
        inverse=(vectors * np.sqrt(values)) @ vectors.T,
    )


def _pixels(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    return images.astype(np.float32) / 255.0 if images.dtype == np.uint8 else images


def _beside(channels: np.ndarray) -> np.ndarray:
    return channels[None, None, None]
