"""A decoder of language: grouped queries, rotary positions, RMSNorm, gated units, a cache.

Parameters have the names of the Llama and Qwen families, so that a loader of their weights renames
nothing: ``embed_tokens``, ``layers_0/self_attn/q_proj``, ``layers_0/mlp/gate_proj``, ``norm``,
``lm_head``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.models._common import Dtype, check_settings, divisors, scan_layers
from jaxdistill.models.blocks import check_heads
from jaxdistill.models.decoder_layers import (
    ACTIVATIONS,
    Activation,
    Layer,
    LongContext,
    Norm,
    norm_of,
    rotary,
    soft_cap,
)
from jaxdistill.settings import Count, Natural, Positive

__all__ = ["Decoder", "LongContext", "head_of", "rotary", "soft_cap"]
INPUTS = ("tokens", "positions", "segments", "slots")


class Decoder(nn.Module):
    """A causal language model: tokens to the logits of the token that follows each.

    Attributes:
        vocabulary: how many tokens there are, V.
        width: of the hidden states, H.
        depth: layers.
        heads: query heads.
        groups: heads of keys and values; ``heads`` if not given.
        head_width: of a head; ``width / heads`` if not given.
        hidden: gated units; ``8/3 width``, rounded up to a multiple of 8, if not given.
        tied: whether the embedding is the head too.
        bias: whether queries, keys and values have one (Qwen 2).
        qk_norm: whether queries and keys are normalised (Qwen 3).
        theta: base of the rotary wave lengths.
        stretch: for texts longer than first trained on: a factor, or ``LongContext`` (Llama 3).
        window: how many tokens back, itself included, a token sees; all if not given (Mistral).
        global_every: every how many layers one sees all tokens, the others only their window
            (Gemma 2 and 3); without it all layers have the window.
        local_theta: base of the wave lengths, not stretched, in the layers with a window (Gemma 3).
        attention_cap: soft cap of the attention's scores (Gemma 2).
        logit_cap: soft cap of the logits (Gemma 2).
        query_scale: of the scores; ``head_width**-0.5`` if not given.
        scaled: multiply the embeddings by the root of the width (Gemma).
        norm: ``"rms"``, ``"rms_plus_one"`` (scales are counted from one, Gemma) or ``"layer"``
            (with means and biases, GPT-2).
        post_norms: norm what a layer adds, too (Gemma 2 and 3).
        places: learned positions, so many, in place of the rotary ones (GPT-2).
        fused: queries, keys and values from one layer ``qkv_proj`` (GPT-2).
        out_bias: whether what comes out of attention and units has a bias, and the units (GPT-2).
        gated: whether the units have gates.
        activation: ``"silu"``, ``"gelu"`` (by a tanh) or ``"gelu_exact"``.
        epsilon: of the norms.
        experts: MLPs of which a token goes through some in each sparse layer, see ``SparseMlp``; 0
            for one that every token goes through.
        active: how many of them.
        sparse: the numbers of the sparse layers; all if not given.
        remat: recompute each layer in the backward pass.
        scan: run the layers as a loop over stacked parameters, ``layers`` (see ``stack_blocks``),
            which keeps compilation short.
        taps: layers whose outputs a scanned decoder keeps; set by ``for_taps``.
        dtype: of the computation; logits are float32 or wider.
        param_dtype: of the parameters.

    Called with tokens ``[B, T]``, or with a dict: ``tokens``; ``positions`` ``[B, T]``, counted
    from 0 if not given; ``segments`` ``[B, T]``, for packed texts, which do not see each other.

    The hidden states before the head are the tap ``"norm"``, ``[B, T, H]``; the head is
    :func:`head_of` of the parameters. Under ``jax.jit`` logits that nobody reads do not exist.
    Layers are the taps ``"layers_0"``, ...; where they are scanned, what lies inside a layer is
    ``"layers/mlp[3]"``, and the loop runs to its end whatever is tapped.

    With a state ``{"cache": ...}`` the tokens are written into the slots of their positions, and
    see all tokens before them there. :func:`jaxdistill.language.empty_cache` makes one.

    Raises:
        ValueError: for heads that do not divide, an odd head width, an unknown input or activation;
            for a tap of an unknown scanned layer; for scanned layers that are not alike.

    Example:
        >>> from jaxdistill.frameworks.linen import from_linen
        >>> net = from_linen(Decoder(vocabulary=11, width=16, depth=2, heads=4, groups=2))
        >>> tokens = jnp.array([[1, 2, 3]])
        >>> params, state = net.init(jax.random.key(0), tokens)
        >>> net.apply(params, state, tokens).out.shape
        (1, 3, 11)
    """

    vocabulary: Count
    width: Count
    depth: Count
    heads: Count
    groups: Count | None = None
    head_width: Count | None = None
    hidden: Count | None = None
    tied: bool = True
    bias: bool = False
    qk_norm: bool = False
    theta: Positive = 10_000.0
    stretch: LongContext | Positive | None = None
    window: Count | None = None
    global_every: Count | None = None
    local_theta: Positive | None = None
    attention_cap: Positive | None = None
    logit_cap: Positive | None = None
    query_scale: Positive | None = None
    scaled: bool = False
    norm: Norm = "rms"
    post_norms: bool = False
    places: Natural = 0
    fused: bool = False
    out_bias: bool = False
    gated: bool = True
    activation: Activation = "silu"
    epsilon: Positive = 1e-6
    experts: Natural = 0
    active: Count = 2
    sparse: tuple[Natural, ...] | None = None
    remat: bool = False
    scan: bool = False
    taps: tuple[str, ...] = ()
    dtype: Dtype = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array | Mapping[str, jax.Array]) -> jax.Array:
        given = inputs if isinstance(inputs, Mapping) else {"tokens": inputs}
        for name in given:
            if name not in INPUTS:
                raise ValueError(unknown("input of a decoder", name, INPUTS))
        self._check(given["tokens"])
        tokens = given["tokens"]
        positions = given.get("positions")
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
        # Only the shape is read: how many slots `init` leaves in a cache.
        slots = given["slots"].shape[1] if "slots" in given else None
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        normal = nn.initializers.normal(self.width**-0.5)
        table = nn.Embed(
            self.vocabulary, self.width, embedding_init=normal, **kinds, name="embed_tokens"
        )
        x = table(tokens)
        if self.places:
            places = nn.Embed(
                self.places, self.width, embedding_init=normal, **kinds, name="embed_positions"
            )
            x = x + places(positions)
        if self.scaled:
            x = x * jnp.asarray(self.width**0.5, x.dtype)
        form = Layer
        if self.remat:
            static = (5,) if self.scan else (2, 5)
            form = nn.remat(Layer, static_argnums=static, prevent_cse=not self.scan)
        x = self._layers(form, kinds, x, (positions, given.get("segments"), slots))
        x = norm_of(self.norm, self.epsilon, **kinds)(name="norm")(x)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        if self.tied:
            head = jnp.asarray(table.embedding).T
        else:
            shape = (self.width, self.vocabulary)
            head = _Head(shape, normal, self.param_dtype, name="lm_head")()
        logits = jnp.matmul(x, head.astype(x.dtype), preferred_element_type=wide)
        return soft_cap(logits, self.logit_cap)

    def _layers(
        self, form: type[nn.Module], kinds: Mapping[str, Any], x: jax.Array, rest: tuple
    ) -> jax.Array:
        sparse = self.sparse_layers()
        if self.scan and 0 < len(sparse) < self.depth:
            raise ValueError(
                f"scanned layers are of one form: of {self.depth}, {sparse} are sparse"
            )

        def layer(index: int, name: str) -> nn.Module:
            mlp = self._mlp(index in sparse)
            return form(
                self._attention(), mlp, self.norm, self.post_norms, self.epsilon, **kinds, name=name
            )

        every = self.global_every or self.depth + 1
        whole = [(index + 1) % every == 0 for index in range(self.depth)]
        if self.scan:
            each = (jnp.array(whole),)
            return scan_layers(layer(0, "layers"), self.depth, x, each, rest, taps=self.taps)
        for index in range(self.depth):
            x = layer(index, f"layers_{index}")(x, whole[index], *rest)
        return x

    @nn.nowrap
    def for_taps(self, taps: Iterable[str]) -> Decoder:
        """This decoder, keeping of its scanned layers what these taps read.

        Unrolled ones need no change and come back as they are.

        Args:
            taps: tap paths, such as ``layers_3``.

        Raises:
            ValueError: for a layer that does not exist.
        """
        if not self.scan:
            return self
        possible = [f"layers_{index}" for index in range(self.depth)]
        asked = tuple(tap for tap in taps if re.match(r"layers_\d", tap))
        for tap in asked:
            if tap not in possible:
                inside = re.fullmatch(r"layers_(\d+)/(.+)", tap)
                if inside and int(inside[1]) < self.depth:
                    raise ValueError(
                        f"tap {tap!r} lies inside a scanned layer: it is "
                        f"'layers/{inside[2]}[{inside[1]}]' there"
                    )
                raise ValueError(unknown("tap", tap, possible))
        return self.clone(taps=asked)

    def _check(self, tokens: jax.Array) -> None:
        check_settings(self)
        groups = self.groups or self.heads
        if self.heads % groups:
            raise ValueError(
                f"{self.heads} heads do not divide by {groups} groups: possible are "
                f"{divisors(self.heads)}"
            )
        if self.head_width is None:
            check_heads(self.width, self.heads)
        head_width = self.head_width or self.width // self.heads
        if head_width % 2 and not self.places:
            raise ValueError(f"rotary positions need heads of even width, not {head_width}")
        if self.global_every is not None and self.window is None:
            raise ValueError("global_every is for layers that have a window, and there is none")
        if self.places and tokens.shape[1] > self.places:
            raise ValueError(f"texts of {tokens.shape[1]} tokens, and {self.places} positions")

    def _attention(self) -> dict[str, Any]:
        """What is to be known of the attention in all layers."""
        head_width = self.head_width or self.width // self.heads
        return {
            "heads": self.heads,
            "groups": self.groups or self.heads,
            "head_width": head_width,
            "bias": self.bias,
            "out_bias": self.out_bias,
            "fused": self.fused,
            "qk_norm": self.qk_norm,
            "theta": None if self.places else self.theta,
            "stretch": self.stretch,
            "window": self.window,
            "local_theta": self.local_theta,
            "cap": self.attention_cap,
            "scale": self.query_scale or head_width**-0.5,
        }

    def _mlp(self, sparse: bool) -> dict[str, Any]:
        """What is to be known of the MLP in one layer."""
        if not sparse:
            return {
                "hidden": self.neurons(),
                "activation": self.activation,
                "gated": self.gated,
                "bias": self.out_bias,
            }
        if not self.gated or self.out_bias:
            raise ValueError("experts have gates and no biases")
        return {
            "hidden": self.neurons(),
            "activation": ACTIVATIONS[self.activation],
            "experts": self.experts,
            "active": self.active,
        }

    @nn.nowrap
    def neurons(self) -> int:
        """Units of each MLP."""
        return self.hidden or -(-8 * self.width // 24) * 8

    @nn.nowrap
    def sparse_layers(self) -> tuple[int, ...]:
        """The layers whose MLPs are mixtures of experts."""
        if not self.experts:
            return ()
        found = tuple(range(self.depth)) if self.sparse is None else tuple(self.sparse)
        for index in found:
            if not 0 <= index < self.depth:
                raise ValueError(f"sparse={found}: the layers are 0 to {self.depth - 1}")
        return found


class _Head(nn.Module):
    shape: tuple[int, int]
    start: Callable[..., jax.Array]
    param_dtype: Any

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("kernel", self.start, self.shape, self.param_dtype)


def head_of(params: Mapping[str, Any]) -> jax.Array:
    """The head of a decoder ``[H, V]``: its own, or the embedding it is tied to.

    Example:
        >>> head_of({"embed_tokens": {"embedding": jnp.ones((11, 4))}}).shape
        (4, 11)
    """
    if "lm_head" in params:
        return params["lm_head"]["kernel"]
    return params["embed_tokens"]["embedding"].T
