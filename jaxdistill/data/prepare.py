"""What both nets of a step must share, drawn once before either runs: ``(batch, key) -> batch``.

A prepared batch holds an input for each net, ``batch["student"]`` and ``batch["teacher"]``, beside
the entries that losses read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxdistill.data import augment
from jaxdistill.models import masking

Prepare = Callable[[dict[str, Any], jax.Array], dict[str, Any]]


def chain(*parts: Prepare) -> Prepare:
    """One preparation after the other, each with a key of its own."""

    def prepare(batch, key):
        for place, part in enumerate(parts):
            batch = part(batch, jax.random.fold_in(key, place))
        return batch

    return prepare


def views(operations: Sequence[Callable[[jax.Array, jax.Array], jax.Array]] = ()) -> Prepare:
    """Images as float, each changed by the same operations in its own way; both nets see the same
    view.

    Args:
        operations: functions ``(key, image) -> image`` of :mod:`jaxdistill.data.augment`.
    """
    apply = augment.views(*operations) if operations else None

    def prepare(batch, key):
        image = augment.to_float(batch["image"])
        if apply is not None:
            image = apply(augment.view_keys(key, image.shape[0]), image)
        return {**batch, "image": image, "student": image, "teacher": image}

    return prepare


def mixed(mix: Callable[..., Any], classes: int, *, smoothing: float = 0.0) -> Prepare:
    """Images and labels of pairs mixed (mixup, cutmix); adds ``batch["soft_label"]`` ``[B, K]``."""

    def prepare(batch, key):
        soft = jax.nn.one_hot(batch["label"], classes) * (1 - smoothing) + smoothing / classes
        keys = augment.view_keys(key, soft.shape[0])
        image, soft = mix(keys, batch["image"], soft)[:2]
        return {**batch, "image": image, "student": image, "teacher": image, "soft_label": soft}

    return prepare


def masked(patch: int, ratio: float, *, shared: bool = True, normalise: bool = False) -> Prepare:
    """Hides patches of the images, the same ones from both nets.

    Adds ``batch["patches"]`` ``[B, L, P * P * C]``, what a masked autoencoder must predict, and
    ``batch["mask"]`` ``[B, L]``, 1 where the student does not see a patch.

    Args:
        patch: the side of a patch in pixels.
        ratio: the share of patches that is hidden.
        shared: whether the teacher sees the same patches; a control, for without this the features
            of the two nets are of different places.
        normalise: whether each patch to predict is standardised by its own mean and (unbiased)
            deviation.
    """

    def prepare(batch, key):
        patches = masking.patchify(batch["image"], patch)
        examples, tokens = patches.shape[:2]
        key_student, key_teacher = jax.random.split(key)
        own = masking.random_masking(key_student, examples, tokens, ratio)
        other = own if shared else masking.random_masking(key_teacher, examples, tokens, ratio)
        if normalise:
            centred = patches - patches.mean(-1, keepdims=True)
            patches = centred / (patches.var(-1, keepdims=True, ddof=1) + 1e-6) ** 0.5
        return {
            **batch,
            "student": {"image": batch["image"], "keep": own.keep},
            "teacher": {"image": batch["image"], "keep": other.keep},
            "patches": patches,
            "mask": own.mask,
        }

    return prepare
