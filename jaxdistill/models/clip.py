"""Two towers, one of images and one of texts, whose embeddings are compared: CLIP and SigLIP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.models._common import Dtype, Identity, check_settings
from jaxdistill.models.blocks import Between, Stack, given_taps, taps_below
from jaxdistill.models.vit import ViT
from jaxdistill.settings import Count, Natural, Positive

INPUTS = ("image", "tokens", "mask")


class TextTower(Stack, kw_only=True):
    """A pre-norm transformer of texts, read at one token of each.

    Inputs are tokens, int [B, T], or a dict ``{"tokens": ..., "mask": [B, T]}``, true or not zero
    where there is text (all by default). The output is [B, outputs], float32 or wider. Tap paths:
    ``block_0``, ... [B, T, D], ``norm`` [B, T, D], ``pooled`` [B, D], ``head`` [B, outputs].

    Attributes:
        vocabulary: how many tokens there are.
        positions: the longest text.
        causal: whether a token sees only those before it (CLIP; not SigLIP).
        pool: the token that is read, ``"end"`` (the first ``end`` of a text) or ``"last"``.
        end: the token that ends a text; the one of the highest number if not given, as in CLIP's
            own vocabulary.
        outputs: of the head; with 0 there is none, and the output is what is pooled.
        head_bias: whether the head has a bias.
        width, depth, heads, mlp_ratio, dtype, remat, scan, taps, epsilon, activation, layer_scale:
            see ``models.blocks.Stack``.

    Raises:
        ValueError: an unknown ``pool``, texts longer than there are positions, or a mask of another
            shape than the tokens.

    Example:
        >>> net = TextTower(vocabulary=11, width=8, depth=1, heads=2, positions=6, outputs=3)
        >>> net.init_with_output(jax.random.key(0), jnp.ones((2, 5), int))[0].shape
        (2, 3)

    References:
        Radford et al. Learning Transferable Visual Models From Natural Language Supervision. ICML
        2021.
    """

    vocabulary: Count
    positions: Count = 77
    causal: bool = True
    pool: Literal["end", "last"] = "end"
    end: Natural | None = None
    outputs: Natural = 0
    head_bias: bool = False
    epsilon: Positive = 1e-5
    activation: Between = "quick_gelu"

    @nn.compact
    def __call__(
        self, inputs: jax.Array | Mapping[str, jax.Array], train: bool = False
    ) -> jax.Array:
        given = inputs if isinstance(inputs, Mapping) else {"tokens": inputs}
        tokens, mask = given["tokens"], given.get("mask")
        self._check(tokens, mask)
        batch, length = tokens.shape
        normal = nn.initializers.normal(0.02)
        words = nn.Embed(
            self.vocabulary, self.width, dtype=self.dtype, embedding_init=normal, name="words"
        )
        places = self.param("pos_embed", normal, (self.positions, self.width))
        x = words(tokens)
        x = x + places[None, :length].astype(x.dtype)
        x = self.run_blocks(x, mask=self._seen(length, mask))
        x = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(x)
        if self.pool == "last":
            at = jnp.full((batch,), length - 1)
        elif self.end is None:
            at = tokens.argmax(axis=1)
        else:
            at = (tokens == self.end).argmax(axis=1)
        pooled = jnp.take_along_axis(x, at[:, None, None], axis=1)[:, 0]
        pooled = Identity(name="pooled")(pooled)
        if not self.outputs:
            return pooled
        wide = jnp.promote_types(pooled.dtype, jnp.float32)
        return nn.Dense(self.outputs, self.head_bias, dtype=wide, name="head")(pooled)

    def _seen(self, length: int, mask: jax.Array | None) -> jax.Array | None:
        """Which token sees which, [B or 1, 1, T or 1, T]."""
        seen = None
        if mask is not None:
            mask = jnp.asarray(mask).astype(bool)
            # Every row of a softmax needs something to look at: no text looks at all.
            seen = (mask | ~mask.any(-1, keepdims=True))[:, None, None]
        if self.causal:
            before = jnp.tril(jnp.ones((length, length), bool))[None, None]
            seen = before if seen is None else before & seen
        return seen

    def _check(self, tokens: jax.Array, mask: Any) -> None:
        check_settings(self)
        if tokens.ndim != 2 or tokens.shape[1] > self.positions:
            raise ValueError(
                f"tokens must be [B, T] with T at most {self.positions}: their shape is "
                f"{tokens.shape}"
            )
        if mask is not None and jnp.shape(mask) != tokens.shape:
            raise ValueError(
                f"mask must be of the shape of the tokens, {tokens.shape}: it is {jnp.shape(mask)}"
            )

    @nn.nowrap
    def for_taps(self, taps: Iterable[str]) -> TextTower:
        """This network with its loop over blocks split so that it can give these taps."""
        return given_taps(self, taps, {"": self.depth})


class CLIP(nn.Module):
    """A tower of images and one of texts, and how alike what they say is.

    Inputs are a dict of images and texts, ``{"image": [B, H, W, C], "tokens": int [T, L], "mask":
    [T, L]}`` (the mask may be left out), or of one of both. The output is a dict:

    - ``"image"`` [B, E] and ``"text"`` [T, E]: embeddings of length one, float32 or wider.
    - ``"logits"`` [B, T]: their products, times the exponential of ``logit_scale``, plus
      ``logit_bias`` where there is one. Only where both were given.

    Tap paths are those of the towers, ``image/encoder/block_0``, ``image/head``, ``text/block_0``,
    ...: what the towers give before it is brought to length one is ``image`` and ``text``.

    The towers' parameters, ``params["image"]`` and ``params["text"]``, are those of a ``ViT`` and a
    ``TextTower`` of the same settings.

    Attributes:
        image: the settings of a ``ViT``.
        text: the settings of a ``TextTower``.
        bias: whether there is a ``logit_bias`` (SigLIP).
        dtype, remat, scan, taps: see ``models.blocks.Stack``; for both towers.

    Raises:
        ValueError: an unknown input, none at all, or towers of different outputs.

    Example:
        >>> net = CLIP(
        ...     image={"patch": 4, "width": 8, "depth": 1, "heads": 2, "classes": 3},
        ...     text={"vocabulary": 11, "width": 8, "depth": 1, "heads": 2, "outputs": 3},
        ... )
        >>> inputs = {"image": jnp.ones((2, 8, 8, 3)), "tokens": jnp.ones((5, 6), int)}
        >>> out, _ = net.init_with_output(jax.random.key(0), inputs)
        >>> {name: value.shape for name, value in out.items()}
        {'image': (2, 3), 'text': (5, 3), 'logits': (2, 5)}

    References:
        Radford et al. Learning Transferable Visual Models From Natural Language Supervision. ICML
        2021.
        Zhai et al. Sigmoid Loss for Language Image Pre-Training. ICCV 2023.
    """

    image: Mapping[str, Any]
    text: Mapping[str, Any]
    bias: bool = False
    dtype: Dtype = None
    remat: bool = False
    scan: bool = False
    taps: tuple[str, ...] = ()

    @nn.compact
    def __call__(
        self, inputs: Mapping[str, jax.Array], train: bool = False
    ) -> dict[str, jax.Array]:
        for name in inputs:
            if name not in INPUTS:
                raise ValueError(unknown("input of two towers", name, INPUTS))
        if "image" not in inputs and "tokens" not in inputs:
            raise ValueError("two towers need an 'image', 'tokens', or both")
        ways: dict[str, Any] = {"dtype": self.dtype, "remat": self.remat, "scan": self.scan}
        out = {}
        if "image" in inputs:
            taps = taps_below(self.taps, "image")
            tower = ViT(**self.image, **ways, taps=taps, name="image")
            out["image"] = _unit(tower({"image": inputs["image"]}, train))
        if "tokens" in inputs:
            taps = taps_below(self.taps, "text")
            tower = TextTower(**self.text, **ways, taps=taps, name="text")
            given = {key: inputs[key] for key in ("tokens", "mask") if key in inputs}
            out["text"] = _unit(tower(given, train))
        # As published: a temperature of 0.07, and for sigmoids one of 0.1 and one in 20000 pairs.
        start = nn.initializers.constant(2.3026 if self.bias else 2.6593)
        scale = self.param("logit_scale", start, ())
        shift = self.param("logit_bias", nn.initializers.constant(-10.0), ()) if self.bias else 0.0
        if len(out) == 2:
            if out["image"].shape[-1] != out["text"].shape[-1]:
                raise ValueError(
                    f"images give {out['image'].shape[-1]} numbers and texts "
                    f"{out['text'].shape[-1]}: towers must give as many"
                )
            out["logits"] = out["image"] @ out["text"].T * jnp.exp(scale) + shift
        return out

    @nn.nowrap
    def for_taps(self, taps: Iterable[str]) -> CLIP:
        """This network with its loops over blocks split so that they can give these taps."""
        stacks = {"image/encoder/": self.image["depth"], "text/": self.text["depth"]}
        return given_taps(self, taps, stacks)


def _unit(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
