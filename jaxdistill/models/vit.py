"""The vision transformer, on all patches of an image or on some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.models._common import Dtype, Identity, check_settings
from jaxdistill.models.blocks import Between, Mlp, given_taps, shared, taps_below
from jaxdistill.models.encoder import Encoder, EncoderStack, read_inputs
from jaxdistill.settings import Count, Natural, Positive

Pool = Literal["cls", "mean", "cls_mean", "map"]
_SIZES = {
    "tiny": {"width": 192, "depth": 12, "heads": 3},
    "small": {"width": 384, "depth": 12, "heads": 6},
    "base": {"width": 768, "depth": 12, "heads": 12},
    "large": {"width": 1024, "depth": 24, "heads": 16},
    "huge": {"width": 1280, "depth": 32, "heads": 16},
}


def vit_size(name: str) -> dict[str, int]:
    """Width, depth and heads of a published size.

    Args:
        name: ``"tiny"``, ``"small"``, ``"base"``, ``"large"`` or ``"huge"``.

    Returns:
        A new dict to unpack into ``ViT`` or ``Encoder``.

    Raises:
        ValueError: another name.

    Example:
        >>> ViT(patch=16, **vit_size("small")).heads
        6

    References:
        Dosovitskiy et al. An Image is Worth 16x16 Words. ICLR 2021.
        Touvron et al. Training data-efficient image transformers. ICML 2021.
    """
    if name not in _SIZES:
        raise ValueError(unknown("ViT size", name, _SIZES))
    return dict(_SIZES[name])


class AttentionPool(nn.Module):
    """One learned query that looks at all tokens, and an MLP with a residual (SigLIP).

    Parameters: ``probe`` [1, 1, D], ``qkv_kernel`` [D, 3D], ``qkv_bias`` [3D]; children ``proj``,
    ``norm`` and ``mlp``.

    Attributes:
        heads, mlp_ratio, dtype, epsilon, activation: see ``Block``.

    References:
        Zhai et al. Scaling Vision Transformers. CVPR 2022.
    """

    heads: Count
    mlp_ratio: Positive = 4.0
    dtype: Dtype = None
    epsilon: Positive = 1e-6
    activation: Between = "gelu"

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Tokens [B, N, D] to [B, D]."""
        batch, _, width = tokens.shape
        xavier = nn.initializers.xavier_uniform()
        probe = self.param("probe", xavier, (1, 1, width))
        kernel = self.param("qkv_kernel", xavier, (width, 3 * width))
        bias = self.param("qkv_bias", nn.initializers.zeros, (3 * width,))
        probe, kernel, bias = (x.astype(tokens.dtype) for x in (probe, kernel, bias))
        query = probe @ kernel[:, :width] + bias[None, None, :width]
        query = jnp.broadcast_to(query, (batch, 1, width))
        both = tokens @ kernel[:, width:] + bias[None, None, width:]
        query, key, value = (
            x.reshape(batch, -1, self.heads, width // self.heads)
            for x in (query, *jnp.split(both, 2, axis=-1))
        )
        mixed = jax.nn.dot_product_attention(query, key, value).reshape(batch, 1, width)
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=xavier)
        mixed = dense(width, name="proj")(mixed)
        normed = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(mixed)
        mlp = Mlp(self.mlp_ratio, self.dtype, self.activation, name="mlp")
        return (mixed + mlp(normed))[:, 0]


class ViT(EncoderStack):
    """A vision transformer with a linear head.

    Inputs are images [B, H, W, C] or a dict ``{"image": ..., "keep": int [B, K]}`` with the ids of
    the patches to see. The output is [B, classes], float32. Tap paths: ``encoder/block_0``, ...
    ([B, 1 + K, D], before the final norm), ``encoder`` (after it), ``pooled`` [B, D] and ``head``;
    with ``scan=False`` also inside blocks, such as ``encoder/block_0/attn/qkv`` [B, 1 + K, 3D]
    (see ``split_qkv``).

    With a distillation token a second head ``head_distilled`` reads it, and the output is the mean
    of the two. Where ``drop_before`` drops tokens in training, ``encoder/kept_i`` tells which are
    left at block i.

    The encoder is that of ``MAE``: an MAE's ``params["encoder"]`` may take the place of this one's.

    Attributes:
        classes: outputs of the head; with 0 there is none, and the output is what is pooled.
        pool: of normed tokens, ``"cls"`` (the class token), ``"mean"`` (over the visible patches),
            ``"cls_mean"`` (both, one behind the other) or ``"map"`` (see ``AttentionPool``).
        head_bias: whether the head has a bias (not where it is a projection, as in CLIP).
        all others: see ``models.encoder.EncoderStack``.

    Raises:
        ValueError: an unknown option, heads that do not divide the width, images that do not
            divide into patches, or ``keep`` of a wrong shape.

    Example:
        >>> net = ViT(patch=4, width=8, depth=2, heads=2, classes=3)
        >>> inputs = {"image": jnp.ones((2, 8, 8, 1)), "keep": jnp.array([[0], [3]])}
        >>> out, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), inputs)
        >>> out.shape, variables["params"]["encoder"]["patch_embed"]["kernel"].shape
        ((2, 3), (16, 8))

    References:
        Dosovitskiy et al. An Image is Worth 16x16 Words. ICLR 2021.
    """

    classes: Natural = 1000
    pool: Pool = "cls"
    head_bias: bool = True

    @nn.compact
    def __call__(
        self, inputs: jax.Array | Mapping[str, jax.Array], train: bool = False
    ) -> jax.Array:
        check_settings(self)
        if "cls" in self.pool and not self.class_token:
            raise ValueError(f"pool={self.pool!r} needs class_token=True")
        image, keep = read_inputs(inputs)
        settings = {**shared(self, Encoder), "taps": taps_below(self.taps, "encoder")}
        tokens = Encoder(**settings, name="encoder")(image, keep, train)
        front = int(self.class_token) + int(self.distillation_token) + self.registers
        if self.pool == "map":
            attention = AttentionPool(**shared(self, AttentionPool), name="pool_attention")
            pooled = attention(tokens)
        else:
            pooled = tokens[:, 0] if "cls" in self.pool else tokens[:, front:].mean(axis=1)
        if self.pool == "cls_mean":
            pooled = jnp.concatenate([pooled, tokens[:, front:].mean(axis=1)], axis=-1)
        pooled = Identity(name="pooled")(pooled)
        if not self.classes:
            return pooled
        head = partial(
            nn.Dense,
            self.classes,
            use_bias=self.head_bias,
            dtype=jnp.promote_types(pooled.dtype, jnp.float32),
            kernel_init=nn.initializers.truncated_normal(0.02),
        )
        if self.distillation_token:
            both = head(name="head")(pooled), head(name="head_distilled")(tokens[:, 1])
            return (both[0] + both[1]) / 2
        return head(name="head")(pooled)

    @nn.nowrap
    def for_taps(self, taps: Iterable[str]) -> ViT:
        """This network with its loop over blocks split so that it can give these taps.

        Networks of unrolled blocks need no change and come back as they are.

        Args:
            taps: tap paths, such as ``encoder/block_3``.

        Raises:
            ValueError: a block that does not exist, or, scanned, a place inside a block.
        """
        return given_taps(self, taps, {"encoder/": self.depth})
