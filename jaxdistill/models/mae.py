"""The masked autoencoder: an encoder of visible patches, a decoder that draws the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.models._common import check_settings
from jaxdistill.models.blocks import Stack, given_taps, shared, taps_below
from jaxdistill.models.encoder import Encoder, PatchStack, Positions, positions_of, read_inputs
from jaxdistill.models.masking import patch_grid
from jaxdistill.models.vit import vit_size
from jaxdistill.settings import Count

_SIZES = {"small": 16, "base": 16, "large": 16, "huge": 14}


def mae_size(name: str) -> dict[str, int]:
    """Patch, width, depth and heads of a published size, with its decoder of 8 blocks of 512.

    Args:
        name: ``"small"``, ``"base"``, ``"large"`` or ``"huge"``.

    Returns:
        A new dict to unpack into ``MAE``.

    Raises:
        ValueError: another name.

    Example:
        >>> MAE(**mae_size("large")).depth
        24

    References:
        He et al. Masked Autoencoders Are Scalable Vision Learners. CVPR 2022.
        Bai et al. Masked Autoencoders Enable Efficient Knowledge Distillers. CVPR 2023 (small).
    """
    if name not in _SIZES:
        raise ValueError(unknown("MAE size", name, _SIZES))
    decoder = {"decoder_width": 512, "decoder_depth": 8, "decoder_heads": 16}
    return {"patch": _SIZES[name], **vit_size(name), **decoder}


class Decoder(Stack, kw_only=True):
    """Tokens of the visible patches to pixels of all patches.

    Children: ``embed``, the parameter ``mask_token``, ``block_0``, ..., ``norm`` and ``pred``.

    Attributes:
        pixels: values in a patch, P*P*C.
        positions: see ``models.encoder.PatchStack``.
        width, depth, heads, mlp_ratio, dtype, remat, scan, taps, epsilon, activation, layer_scale:
            see ``models.blocks.Stack``.
    """

    pixels: Count
    positions: Positions = "sincos"

    @nn.compact
    def __call__(
        self, tokens: jax.Array, keep: jax.Array | None, grid: tuple[int, int]
    ) -> jax.Array:
        """Patches [B, L, pixels] in float32.

        Args:
            tokens: [B, 1 + K, D], the class token first.
            keep: int [B, K], which patches the others are; None: all, in order.
            grid: rows and columns of patches.
        """
        check_settings(self)
        xavier = nn.initializers.xavier_uniform()
        tokens = nn.Dense(self.width, dtype=self.dtype, kernel_init=xavier, name="embed")(tokens)
        hole = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, self.width))
        if keep is not None:
            cls, visible = tokens[:, :1], tokens[:, 1:]
            batch, length = visible.shape[0], grid[0] * grid[1]
            canvas = jnp.broadcast_to(hole.astype(tokens.dtype), (batch, length, self.width))
            # Row by row: indices into the batch would make devices send each other their rows.
            put = jax.vmap(lambda row, places, values: row.at[places].set(values))
            tokens = jnp.concatenate([cls, put(canvas, keep, visible)], axis=1)
        positions = positions_of(self, self.positions, self.width, grid, front=1)
        tokens = tokens + positions[None].astype(tokens.dtype)
        tokens = self.run_blocks(tokens)
        tokens = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name="norm")(tokens)
        return nn.Dense(self.pixels, kernel_init=xavier, name="pred")(tokens[:, 1:])


class MAE(PatchStack):
    """A masked autoencoder.

    Inputs are a dict ``{"image": [B, H, W, C], "keep": int [B, K]}`` with the ids of the visible
    patches (``random_masking`` draws them), or images alone, of which all patches are visible. The
    output is a dict:

    - ``"pixels"`` [B, L, P*P*C], float32: the prediction for every patch, in the layout of
      ``patchify``. Only removed patches enter the usual loss.
    - ``"tokens"`` [B, 1 + K, D]: the encoder's output after its final norm.

    Tap paths: ``encoder/block_0``, ... ([B, 1 + K, D], before the final norm), ``encoder``,
    ``decoder/block_0``, ... ([B, 1 + L, decoder width]). What is not read is not computed: tapped
    at a block, neither the later blocks nor the decoder run under ``jax.jit``.

    Attributes:
        decoder_width: of the decoder's tokens.
        decoder_depth: blocks of the decoder.
        decoder_heads: attention heads of the decoder.
        all others: see ``models.encoder.PatchStack``; but for ``patch``, ``drop_path`` and the
            three that it has of its own they hold for the decoder too.

    Raises:
        ValueError: heads that do not divide a width, images that do not divide into patches, or
            ``keep`` of a wrong shape.

    Example:
        >>> decoder = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
        >>> net = MAE(patch=4, width=8, depth=2, heads=2, **decoder)
        >>> inputs = {"image": jnp.ones((2, 8, 8, 1)), "keep": jnp.array([[0], [3]])}
        >>> out, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), inputs)
        >>> {name: value.shape for name, value in out.items()}
        {'pixels': (2, 4, 16), 'tokens': (2, 2, 8)}

    References:
        He et al. Masked Autoencoders Are Scalable Vision Learners. CVPR 2022.
    """

    decoder_width: Count = 512
    decoder_depth: Count = 8
    decoder_heads: Count = 16

    @nn.compact
    def __call__(
        self, inputs: jax.Array | Mapping[str, jax.Array], train: bool = False
    ) -> dict[str, jax.Array]:
        check_settings(self)
        image, keep = read_inputs(inputs)
        _, height, width, channels = image.shape
        encoder = {**shared(self, Encoder), "taps": taps_below(self.taps, "encoder")}
        tokens = Encoder(**encoder, name="encoder")(image, keep, train)
        decoder = {
            **shared(self, Decoder),
            "pixels": self.patch * self.patch * channels,
            "width": self.decoder_width,
            "depth": self.decoder_depth,
            "heads": self.decoder_heads,
            "taps": taps_below(self.taps, "decoder"),
        }
        grid = patch_grid(height, width, self.patch)
        pixels = Decoder(**decoder, name="decoder")(tokens, keep, grid)
        return {"pixels": pixels, "tokens": tokens}

    @nn.nowrap
    def for_taps(self, taps: Iterable[str]) -> MAE:
        """This network with its loops over blocks split so that it can give these taps.

        Networks of unrolled blocks need no change and come back as they are.

        Args:
            taps: tap paths, such as ``encoder/block_3`` or ``decoder/block_0``.

        Raises:
            ValueError: a block that does not exist, or, scanned, a place inside a block.
        """
        stacks = {"encoder/": self.depth, "decoder/": self.decoder_depth}
        return given_taps(self, taps, stacks)
