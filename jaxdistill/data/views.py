"""What both nets of a step must share, drawn once before either runs: ``(batch, key) -> batch``.

A prepared batch holds an input for each net, ``batch["student"]`` and ``batch["teacher"]``, beside
the entries that losses read. Batches of :func:`jaxdistill.data.seeded.seeded` records are drawn
from the seeds that they carry, all others from the step's key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxdistill.data import augment
from jaxdistill.models import masking
from jaxdistill.settings import Count, Natural, Range, Share, checked

Prepare = Callable[[dict[str, Any], jax.Array], dict[str, Any]]
"""What is drawn for a batch before either net runs: ``(batch, key) -> batch``."""


def chain(*parts: Prepare) -> Prepare:
    """One preparation after the other, each with a key of its own."""

    def prepare(batch, key):
        for place, part in enumerate(parts):
            batch = part(batch, jax.random.fold_in(key, place))
        return batch

    return prepare


def augmented(operations: Sequence[Callable[[jax.Array, jax.Array], jax.Array]] = ()) -> Prepare:
    """Images as float, each changed by the same operations in its own way; both nets see the same
    view.

    Args:
        operations: functions ``(key, image) -> image`` of :mod:`jaxdistill.data.augment`.
    """
    apply = augment.views(*operations) if operations else None

    def prepare(batch, key):
        image = augment.to_float(batch["image"])
        if apply is not None:
            image = apply(_keys(batch, "view_seed", key), image)
        if "partner/image" in batch:
            other = augment.to_float(batch["partner/image"])
            if apply is not None:
                other = apply(augment.keys_of(batch["partner/view_seed"]), other)
            batch = {**batch, "partner/image": other}
        return {**batch, "image": image, "student": image, "teacher": image}

    return prepare


def entries(names: Sequence[str]) -> Prepare:
    """Both nets see some entries of the batch together, such as the nodes and edges of graphs.

    Args:
        names: of the entries; a data set says them by ``info["inputs"]``.
    """

    def prepare(batch, key):
        seen = {name: batch[name] for name in names}
        return {**batch, "student": seen, "teacher": seen}

    return prepare


def texts(batch: dict[str, Any], key: jax.Array) -> dict[str, Any]:
    """Both nets see the tokens; where texts are packed what keeps them apart; where they are filled
    up where there is text, and of pairs which text."""
    entries = ("tokens", "positions", "segments", "mask", "types")
    seen = {name: batch[name] for name in entries if name in batch}
    return {**batch, "student": seen, "teacher": seen}


@checked
def masked_texts(
    vocabulary: int,
    *,
    token: Natural,
    share: Annotated[float, Range(0, 1, above=True, below=True)] = 0.15,
) -> Prepare:
    """Some tokens hidden, to be guessed, as BERT was trained: of those chosen eight in ten become
    the mask token, one any token, one stays.

    Adds ``batch["chosen"]`` bool ``[B, T]``; ``batch["label"]`` becomes the tokens as they were
    where they are chosen, and -1 elsewhere. The first token of a record is never chosen, nor is the
    end of a text or what fills it up.

    Args:
        vocabulary: how many tokens there are.
        token: the mask token.
        share: of the tokens that are chosen.

    Raises:
        ValueError: for a token outside the vocabulary.

    References:
        Devlin et al. BERT: Pre-training of Deep Bidirectional Transformers. NAACL 2019.
    """
    if token >= vocabulary:
        raise ValueError(f"masked_texts: token={token} must lie in 0..{vocabulary - 1}")

    def prepare(batch, key):
        tokens = batch["tokens"]
        chosen_key, kind_key, any_key = jax.random.split(key, 3)
        # Windows say of every token whether there is one behind it.
        text = batch["mask"] if "mask" in batch else batch["counted"]
        chosen = (jax.random.uniform(chosen_key, tokens.shape) < share) & text
        chosen = chosen.at[:, 0].set(False)
        kind = jax.random.uniform(kind_key, tokens.shape)
        other = jax.random.randint(any_key, tokens.shape, 0, vocabulary, tokens.dtype)
        seen = jnp.where(kind < 0.8, token, jnp.where(kind < 0.9, other, tokens))
        label = jnp.where(chosen, tokens, -1)
        hidden = {**batch, "tokens": jnp.where(chosen, seen, tokens), "mask": text}
        return texts({**hidden, "chosen": chosen, "label": label}, key)

    return prepare


@checked
def mixed(mix: Callable[..., Any], classes: int, *, smoothing: Share = 0.0) -> Prepare:
    """Images and labels of pairs mixed (mixup, cutmix); adds ``batch["soft_label"]`` ``[B, K]``."""

    def prepare(batch, key):
        keys, partners = _keys(batch, "pair_seed", key), None
        image, labels = batch["image"], batch["label"]
        count = labels.shape[0]
        if "pair_seed" in batch:
            # Each record brings its partner along: the pairs are the two halves.
            keys = jnp.concatenate([keys, keys])
            image = jnp.concatenate([image, batch["partner/image"]])
            labels = jnp.concatenate([labels, batch["partner/label"]])
            partners = jnp.roll(jnp.arange(2 * count), count)
        soft = jax.nn.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
        image, soft = (x[:count] for x in mix(keys, image, soft, partners=partners)[:2])
        return {**batch, "image": image, "student": image, "teacher": image, "soft_label": soft}

    return prepare


_TURNS = 4


def turned(batch: dict[str, Any], key: jax.Array) -> dict[str, Any]:
    """Every image and its three quarter turns side by side, so that a batch of n becomes one of 4n:
    the view of pretext tasks.

    Adds ``batch["upright"]`` bool ``[4n]``, which image is as it was; ``batch["image_label"]``
    ``[n]`` are the labels of the images, while ``label`` and all else is there for every view.

    Raises:
        ValueError: at trace time, for images that are no squares.
    """
    image = batch["image"]
    if image.shape[1] != image.shape[2]:
        raise ValueError(f"only square images can be turned, these are {image.shape[1:3]}")
    views = jnp.stack([jnp.rot90(image, turn, axes=(1, 2)) for turn in range(_TURNS)], axis=1)
    views = views.reshape(-1, *image.shape[1:])
    found = {name: jnp.repeat(x, _TURNS, axis=0) for name, x in batch.items()}
    found["upright"] = jnp.arange(len(views)) % _TURNS == 0
    if "label" in batch:
        found["image_label"] = batch["label"]
    return {**found, "image": views, "student": views, "teacher": views}


@checked
def masked(
    *,
    patch: Count,
    ratio: Annotated[float, Range(0, 1, above=True, below=True)],
    shared: bool = True,
    normalise: bool = False,
) -> Prepare:
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

    Raises:
        ValueError: at trace time, for a patch that does not divide the image, and a ratio that
            leaves no patch.
    """

    def prepare(batch, key):
        patches = masking.patchify(batch["image"], patch)
        own = _masking(batch, key, patches.shape[:2], ratio, 1)
        other = own if shared else _masking(batch, key, patches.shape[:2], ratio, 2)
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


def _keys(batch: dict[str, Any], seeds: str, key: jax.Array) -> jax.Array:
    """A key for every example: of the seeds that the records carry, else of the step's key."""
    if seeds in batch:
        return augment.keys_of(batch[seeds])
    return augment.view_keys(key, batch["image"].shape[0])


def _masking(batch, key, shape, ratio, place) -> masking.Masking:
    examples, tokens = shape
    if "view_seed" not in batch:
        return masking.random_masking(jax.random.split(key)[place - 1], examples, tokens, ratio)
    # Views take the folds from 0 up, one an operation; masks stand apart from them.
    keys = jax.vmap(jax.random.fold_in, (0, None))(
        augment.keys_of(batch["view_seed"]), 1000 + place
    )
    return masking.mask_from_noise(
        jax.vmap(lambda k: jax.random.uniform(k, (tokens,)))(keys), ratio
    )
