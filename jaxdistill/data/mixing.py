"""Mixed pairs of images and of their labels."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.data.operations import inside_box, to_float
from jaxdistill.settings import Positive, Share, checked, part_of


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
    partners, other = _partners(len(images), partners)
    mixed, weights = jax.vmap(rule)(keys, images, other(images))
    return Mixed(mixed, _mixed_labels(soft_labels, weights, other), partners, weights)


def _partners(count, partners):
    """The places of the partners, and what brings arrays into their order."""
    if partners is None:
        places = (jnp.arange(count, dtype=jnp.int32) + 1) % count
        return places, partial(jnp.roll, shift=-1, axis=0)
    return partners, partial(jnp.take, indices=partners, axis=0)


def _mixed_labels(soft_labels, weights, other):
    if soft_labels is None:
        return None
    share = weights[:, None].astype(soft_labels.dtype)
    return share * soft_labels + (1 - share) * other(soft_labels)


def blended(
    images: jax.Array,
    weights: jax.Array,
    soft_labels: jax.Array | None = None,
    partners: jax.Array | None = None,
) -> Mixed:
    """Images and labels of pairs, blended by given weights.

    Args:
        images: ``[B, H, W, C]``, uint8 or floating.
        weights: ``[B]``, the share of the first of each pair; 1 leaves it as it is.
        soft_labels: floating ``[B, K]``, or None.
        partners: as for :func:`mixup`.

    Example:
        >>> pair = jnp.array([0.0, 1.0]).reshape(2, 1, 1, 1)
        >>> blended(pair, jnp.array([0.75, 1.0])).images.ravel().tolist()
        [0.25, 1.0]
    """
    images = to_float(images)
    partners, other = _partners(len(images), partners)
    mixed = _blend(weights.reshape(-1, 1, 1, 1).astype(images.dtype), images, other(images))
    return Mixed(mixed, _mixed_labels(soft_labels, weights, other), partners, weights)


def _blend(weight, image, other):
    return weight * image + (1 - weight) * other


def _blend_rule(alpha):
    def rule(key, image, other):
        weight = jax.random.beta(key, alpha, alpha, dtype=image.dtype)
        return _blend(weight, image, other), weight

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
def partial_mixup(
    keys: jax.Array,
    images: jax.Array,
    soft_labels: jax.Array | None = None,
    partners: jax.Array | None = None,
    *,
    alpha: Positive = 1.0,
    plain: Share = 0.9,
    drawn: Literal["replaced", "distinct"] = "replaced",
) -> Mixed:
    """:func:`mixup` of a part of the batch; the other images, and their labels, stay as they are.

    Which ones is drawn for the batch as a whole, so that no view is a function of its record: what
    a teacher says of it cannot be stored.

    Args:
        keys: one an example, ``[B]``.
        images: ``[B, H, W, C]``, uint8 or floating.
        soft_labels: floating ``[B, K]``, or None.
        partners: as for :func:`mixup`.
        alpha: the weight of the first image of a mixed pair is drawn from Beta(alpha, alpha).
        plain: the share of the batch that is drawn to stay, rounded down to whole images.
        drawn: ``"distinct"`` images, as many as that is, or ``"replaced"`` as published: an image
            may be drawn again, and with a share of 0.9 some 59 % of them stay.

    References:
        Choi et al., Understanding the role of mixup in knowledge distillation, WACV 2023,
        https://arxiv.org/abs/2211.03946
    """
    images = to_float(images)
    weights = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha, dtype=images.dtype))(keys)
    weights = jnp.where(plain_rows(keys, plain, drawn), 1, weights)
    return blended(images, weights, soft_labels, partners)


@checked
def plain_rows(
    keys: jax.Array, plain: Share, drawn: Literal["replaced", "distinct"] = "replaced"
) -> jax.Array:
    """Which images of a batch :func:`partial_mixup` leaves as they are, bool ``[B]``.

    Example:
        >>> keys = jax.random.split(jax.random.key(0), 10)
        >>> int(plain_rows(keys, 0.5, "distinct").sum())
        5
    """
    count, size = part_of(len(keys), plain), len(keys)
    # Apart from what the weights are drawn by.
    draws = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1)))(keys)
    if drawn == "distinct":
        return jnp.argsort(jnp.argsort(draws)) < count
    chosen = jnp.minimum((draws[:count] * size).astype(jnp.int32), size - 1)
    return jnp.zeros(size, bool).at[chosen].set(True)


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


@checked
def mixed_statistics(
    images: jax.Array,
    weights: jax.Array,
    partners: jax.Array | None = None,
    *,
    epsilon: Positive = 1e-6,
) -> jax.Array:
    r"""Images, or maps of features, with their channels' mean and deviation moved towards those of
    a partner: the same content as if it came from elsewhere.

    .. math:: \tilde\sigma \frac{x - \mu}{\sigma} + \tilde\mu, \qquad
        \tilde\mu = w \mu + (1 - w) \mu', \quad \tilde\sigma = w \sigma + (1 - w) \sigma'

    Args:
        images: floating ``[B, H, W, C]``; statistics are of each image and channel.
        weights: w ``[B]``, the share of the image's own statistics; 1 leaves it as it is.
        partners: as for :func:`mixup`.
        epsilon: added to the variances.

    Returns:
        The same shape. No gradient flows through the statistics.

    References:
        Zhou et al., Domain generalization with MixStyle, 2021, https://arxiv.org/abs/2104.02008

    Example:
        >>> dark, light = jnp.full((1, 2, 2, 1), 0.1), jnp.full((1, 2, 2, 1), 0.9)
        >>> both = mixed_statistics(jnp.concatenate([dark, light]), jnp.array([1.0, 0.5]))
        >>> both[:, 0, 0, 0].round(3).tolist()
        [0.1, 0.5]
    """
    _, other = _partners(len(images), partners)
    mean = images.mean((1, 2), keepdims=True)
    spread = jnp.sqrt(jnp.square(images - mean).mean((1, 2), keepdims=True) + epsilon)
    mean, spread = jax.lax.stop_gradient((mean, spread))
    share = weights.reshape(-1, 1, 1, 1).astype(images.dtype)
    moved = [_blend(share, own, other(own)) for own in (mean, spread)]
    return (images - mean) / spread * moved[1] + moved[0]
