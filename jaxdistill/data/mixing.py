"""Mixed pairs of images and of their labels."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.data.operations import inside_box, to_float
from jaxdistill.settings import Positive, Share, checked


class Mixed(NamedTuple):
    """A batch of mixed pairs.

    Attributes:
        images: ``[B, H, W, C]``.
        labels: ``[B, K]``, or None if none were given.
        partners: int32 ``[B]``, the place in the batch of the other of each pair.
        weights: ``[B]``, the share of the first of each pair.
    """

    images: jax.Array
    labels: jax.Array | None
    partners: jax.Array
    weights: jax.Array


def _mixed(rule, keys, images, soft_labels, partners) -> Mixed:
    images = to_float(images)
    if partners is None:
        partners = (jnp.arange(len(images), dtype=jnp.int32) + 1) % len(images)
        other = partial(jnp.roll, shift=-1, axis=0)
    else:
        other = partial(jnp.take, indices=partners, axis=0)
    mixed, weights = jax.vmap(rule)(keys, images, other(images))
    if soft_labels is not None:
        share = weights[:, None].astype(soft_labels.dtype)
        soft_labels = share * soft_labels + (1 - share) * other(soft_labels)
    return Mixed(mixed, soft_labels, partners, weights)


def _blend_rule(alpha):
    def rule(key, image, other):
        weight = jax.random.beta(key, alpha, alpha, dtype=image.dtype)
        return weight * image + (1 - weight) * other, weight

    return rule


def _paste_rule(alpha):
    def rule(key, image, other):
        sides = jnp.array(image.shape[:2])
        key_area, key_place = jax.random.split(key)
        cut = jnp.sqrt(1 - jax.random.beta(key_area, alpha, alpha))
        box = (sides * cut).astype(jnp.int32)
        centre = jax.random.randint(key_place, (2,), 0, sides)
        low = jnp.clip(centre - box // 2, 0, sides)
        high = jnp.clip(centre - box // 2 + box, 0, sides)
        pasted = jnp.where(inside_box(image.shape, *low, *(high - low)), other, image)
        return pasted, 1 - ((high - low).prod() / sides.prod()).astype(image.dtype)

    return rule


@checked
def mixup(
    keys: jax.Array,
    images: jax.Array,
    soft_labels: jax.Array | None = None,
    partners: jax.Array | None = None,
    *,
    alpha: Positive = 0.2,
) -> Mixed:
    """Blends every image, and its labels, with those of a partner.

    A mixed view is replayed from the ids and seeds of both and the key of the pair: put both into a
    batch and name the partners.

    Args:
        keys: one an example, ``[B]``.
        images: ``[B, H, W, C]``, uint8 or floating.
        soft_labels: floating ``[B, K]``, or None.
        partners: int ``[B]``, the place of each partner; the next example if not given, which in a
            shuffled batch is a random one.
        alpha: the weight of the first image is drawn from Beta(alpha, alpha).

    References:
        Zhang et al., mixup: Beyond empirical risk minimization, 2018,
        https://arxiv.org/abs/1710.09412
    """
    return _mixed(_blend_rule(alpha), keys, images, soft_labels, partners)


@checked
def cutmix(
    keys: jax.Array,
    images: jax.Array,
    soft_labels: jax.Array | None = None,
    partners: jax.Array | None = None,
    *,
    alpha: Positive = 1.0,
) -> Mixed:
    """Pastes a box of a partner into every image; labels are mixed by the area that is left.

    Args:
        keys: one an example, ``[B]``.
        images: ``[B, H, W, C]``, uint8 or floating.
        soft_labels: floating ``[B, K]``, or None.
        partners: as for :func:`mixup`.
        alpha: the share of the area that is kept is drawn from Beta(alpha, alpha), before the box
            is cut to the image; the weight is the share that is kept in the end.

    References:
        Yun et al., CutMix: Regularization strategy to train strong classifiers with localizable
        features, 2019, https://arxiv.org/abs/1905.04899
    """
    return _mixed(_paste_rule(alpha), keys, images, soft_labels, partners)


@checked
def mixup_or_cutmix(
    keys: jax.Array,
    images: jax.Array,
    soft_labels: jax.Array | None = None,
    partners: jax.Array | None = None,
    *,
    mixup_alpha: Positive = 0.8,
    cutmix_alpha: Positive = 1.0,
    cutmix_probability: Share = 0.5,
) -> Mixed:
    """For every example :func:`cutmix` with that probability, else :func:`mixup`."""
    blend, paste = _blend_rule(mixup_alpha), _paste_rule(cutmix_alpha)

    def rule(key, image, other):
        key_which, key_mix = jax.random.split(key)
        which = jax.random.bernoulli(key_which, cutmix_probability)
        pasted, blended = paste(key_mix, image, other), blend(key_mix, image, other)
        return jax.tree.map(lambda a, b: jnp.where(which, a, b), pasted, blended)

    return _mixed(rule, keys, images, soft_labels, partners)
