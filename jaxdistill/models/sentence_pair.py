"""Pairs of sentences: each encoded by itself, and a score of the two embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.models._common import Identity, check_settings
from jaxdistill.settings import Count, Natural

Comparison = Literal["features", "product"]


def apart(
    inputs: Mapping[str, jax.Array],
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The two texts of a pair, each as if it had been encoded alone.

    Args:
        inputs: ``tokens`` int ``[B, T]``: the start token, the first text, the end token, the
            second text, the end token; ``mask`` ``[B, T]``, where there is text; ``types``
            ``[B, T]``, 1 for the second text and the end token behind it.

    Returns:
        ``tokens`` and ``mask`` of the first text, and of the second, which the start token begins.

    Raises:
        ValueError: for inputs that are no pairs.

    Example:
        >>> tokens = jnp.array([[1, 5, 2, 6, 7, 2, 0]])
        >>> types = jnp.array([[0, 0, 0, 1, 1, 1, 0]])
        >>> first, second = apart({"tokens": tokens, "mask": tokens > 0, "types": types})
        >>> jnp.where(second["mask"], second["tokens"], 0).tolist()
        [[1, 6, 7, 2, 0, 0, 0]]
    """
    if not isinstance(inputs, Mapping) or not {"tokens", "mask", "types"} <= set(inputs):
        given = sorted(inputs) if isinstance(inputs, Mapping) else "an array"
        raise ValueError(f"pairs of sentences are 'tokens', 'mask' and 'types', not {given}")
    tokens, mask = inputs["tokens"], jnp.asarray(inputs["mask"]).astype(bool)
    latter = mask & (inputs["types"] > 0)
    place = jnp.arange(tokens.shape[1])[None]
    begun, many = jnp.argmax(latter, 1)[:, None], latter.sum(1)[:, None]
    moved = jnp.clip(begun - 1 + place, 0, tokens.shape[1] - 1)
    moved = jnp.take_along_axis(tokens, moved, 1).at[:, 0].set(tokens[:, 0])
    first = {"tokens": tokens, "mask": mask & ~latter}
    return first, {"tokens": moved, "mask": place <= many}


def pair_features(first: jax.Array, second: jax.Array) -> jax.Array:
    r"""What a score of two embeddings reads: :math:`[u, v, u v, |u - v|]`.

    Args:
        first: ``[..., D]``.
        second: ``[..., D]``.

    Returns:
        ``[..., 4 D]``.

    References:
        Barkan et al. Scalable Attentive Sentence-Pair Modeling via Distilled Sentence Embedding.
        AAAI 2020.

    Example:
        >>> pair_features(jnp.array([1.0, 2.0]), jnp.array([3.0, 2.0])).tolist()
        [1.0, 2.0, 3.0, 2.0, 3.0, 4.0, 2.0, 0.0]
    """
    return jnp.concatenate([first, second, first * second, jnp.abs(first - second)], -1)


class SentencePair(nn.Module):
    """A score of two sentences that are encoded apart, so that many can be compared (DSE).

    Inputs are pairs, see :func:`apart`. The outputs are logits or scores [B, classes], float32 or
    wider. ``embed`` is the encoder alone, ``score`` what reads two embeddings; with these
    :func:`compared` scores all of one set against all of another. Tap paths: ``first``, ``second``
    [B, D], and those of the encoder, of both sentences one after the other [2 B, ...].

    Attributes:
        encoder: gives an embedding [B, D] of ``tokens`` and ``mask``, as a ``TextEncoder`` with the
            head ``"sentence"`` does.
        hidden: units of the layer, with ReLU, between features and outputs; none if 0.
        classes: outputs.
        comparison: ``"features"``, see :func:`pair_features`, or ``"product"``, whose only output
            is the product of the embeddings.

    Raises:
        ValueError: for inputs that are no pairs, an encoder that gives no embedding, and a product
            with another number of outputs than 1.

    Example:
        >>> from jaxdistill.models import TextEncoder
        >>> own = {"width": 8, "depth": 2, "heads": 2, "positions": 8, "head": "sentence"}
        >>> net = SentencePair(TextEncoder(vocabulary=9, top=2, first=False, **own), classes=1)
        >>> tokens = jnp.array([[1, 5, 2, 6, 7, 2, 0]])
        >>> types = jnp.array([[0, 0, 0, 1, 1, 1, 0]])
        >>> pairs = {"tokens": tokens, "mask": tokens > 0, "types": types}
        >>> out, variables = net.init_with_output(jax.random.key(0), pairs)
        >>> out.shape, variables["params"]["units"]["kernel"].shape
        ((1, 1), (64, 512))

    References:
        Barkan et al. Scalable Attentive Sentence-Pair Modeling via Distilled Sentence Embedding.
        AAAI 2020.
    """

    encoder: nn.Module
    hidden: Natural = 512
    classes: Count = 2
    comparison: Comparison = "features"

    def setup(self) -> None:
        check_settings(self)
        self.first, self.second = Identity(), Identity()
        if self.comparison == "product":
            if self.classes != 1:
                raise ValueError(f"a product of embeddings is one output, not {self.classes}")
            return
        if self.hidden:
            self.units = nn.Dense(self.hidden)
        self.head = nn.Dense(self.classes)

    def __call__(self, inputs: Mapping[str, jax.Array], train: bool = False) -> jax.Array:
        texts = apart(inputs)
        both = {key: jnp.concatenate([each[key] for each in texts]) for key in texts[0]}
        first, second = jnp.split(self.embed(both, train), 2)
        return self.score(self.first(first), self.second(second))

    def embed(self, inputs: Mapping[str, jax.Array], train: bool = False) -> jax.Array:
        """The embeddings [B, D] of ``tokens`` and ``mask`` [B, T]."""
        found = self.encoder(inputs, train=train)
        if found.ndim != 2:
            raise ValueError(
                f"an embedding is [B, D], this encoder gives {list(found.shape)}: give it "
                "head='sentence'"
            )
        return found

    def score(self, first: jax.Array, second: jax.Array) -> jax.Array:
        """What embeddings [..., D] are worth to each other, [..., classes]."""
        wide = jnp.promote_types(first.dtype, jnp.float32)
        first, second = first.astype(wide), second.astype(wide)
        if self.comparison == "product":
            return (first * second).sum(-1, keepdims=True)
        found = pair_features(first, second)
        return self.head(nn.relu(self.units(found)) if self.hidden else found)


def compared(
    net: SentencePair,
    variables: Any,
    queries: jax.Array,
    candidates: jax.Array,
    *,
    block: Count = 16,
) -> jax.Array:
    """All of some sentences against all of others, by embeddings that are made once.

    Sharded candidates stay where they are: every device scores its own. Memory grows with ``block``
    times M times 4 D.

    Args:
        net: what scores two embeddings.
        variables: of the net.
        queries: embeddings ``[N, D]``, of ``net.embed``.
        candidates: embeddings ``[M, D]``.
        block: queries at a time.

    Returns:
        ``[N, M, classes]``.

    Raises:
        ValueError: for embeddings of different widths.

    Example:
        >>> net = SentencePair(nn.Dense(1), classes=1, comparison="product")
        >>> found = compared(net, {}, jnp.eye(2), jnp.array([[1.0, 3.0]]))
        >>> found[..., 0].tolist()
        [[1.0], [3.0]]
    """
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise ValueError(
            f"embeddings are [N, D] and [M, D], not {list(queries.shape)} and "
            f"{list(candidates.shape)}"
        )

    def one(query: jax.Array) -> jax.Array:
        first = jnp.broadcast_to(query[None], candidates.shape)
        found: Any = net.apply(variables, first, candidates, method="score")
        return found

    return jax.lax.map(one, queries, batch_size=min(block, len(queries)))
