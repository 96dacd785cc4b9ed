"""A decoder of language: grouped queries, rotary positions, RMSNorm, gated units, a cache.

Parameters bear the names of the Llama and Qwen families, so that a loader of their weights renames
nothing: ``embed_tokens``, ``layers_0/self_attn/q_proj``, ``layers_0/mlp/gate_proj``, ``norm``,
``lm_head``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.models._common import Identity
from jaxdistill.models.experts import SparseMlp

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=True),
}
INPUTS = ("tokens", "positions", "segments", "slots")


class LongContext(NamedTuple):
    r"""How Llama 3 stretches its rotary positions for texts longer than it was first trained on.

    Wave lengths above ``context / low`` are stretched by ``factor``, those below ``context / high``
    are kept, and between them the frequency goes linearly in ``context / length``.

    Attributes:
        factor: how many times longer.
        low: turns within the context below which a wave is stretched whole.
        high: turns above which it is kept.
        context: tokens of the texts first trained on.

    References:
        Llama team 2024, "The Llama 3 herd of models" (arXiv 2407.21783); the formula is that of its
        configs in Transformers.
    """

    factor: float
    low: float
    high: float
    context: int

    def stretched(self, frequencies: jax.Array) -> jax.Array:
        """Frequencies, radians a token, for the longer texts."""
        turns = self.context * frequencies / (2 * jnp.pi)
        kept = jnp.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return frequencies * (kept + (1 - kept) / self.factor)


def rotary(
    x: jax.Array,
    positions: jax.Array,
    theta: float = 10_000.0,
    stretch: LongContext | None = None,
) -> jax.Array:
    """Turns pairs of channels by an angle that grows with the position.

    Channel ``i`` is paired with ``i + D/2``, as in the published weights of Llama and Qwen.

    Args:
        x: ``[B, T, N, D]``, queries or keys of N heads, D even.
        positions: int ``[B, T]``.
        theta: the base of the wave lengths.
        stretch: for longer texts, see :class:`LongContext`.

    Returns:
        The same shape and dtype; angles are taken in float32, or in float64 for such an ``x``.

    References:
        Su et al. 2021, "RoFormer: enhanced transformer with rotary position embedding" (arXiv
        2104.09864).

    Example:
        >>> x = jnp.ones((1, 2, 1, 4))
        >>> turned = rotary(x, jnp.array([[0, 7]]))
        >>> bool((turned[0, 0] == x[0, 0]).all()), round(float((turned[0, 1] ** 2).sum()), 4)
        (True, 4.0)
    """
    half = x.shape[-1] // 2
    wide = jnp.promote_types(x.dtype, jnp.float32)
    frequencies = theta ** (-jnp.arange(half, dtype=wide) / half)
    if stretch is not None:
        frequencies = stretch.stretched(frequencies)
    angles = positions.astype(wide)[:, :, None, None] * frequencies[None, None, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(wide), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def soft_cap(x: jax.Array, cap: float | None) -> jax.Array:
    """``cap * tanh(x / cap)``, or ``x`` where there is no cap."""
    return x if cap is None else cap * jnp.tanh(x / cap)


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + epsilon) * scale``, the mean in float32 or wider."""

    epsilon: float = 1e-6
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.param_dtype)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        shape = (1,) * (x.ndim - 1) + scale.shape
        found = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.epsilon)
        return (found * scale.reshape(shape)).astype(self.dtype or x.dtype)


class SelfAttention(nn.Module):
    """Causal attention of grouped queries, with or without a cache of keys and values."""

    heads: int
    groups: int
    head_width: int
    bias: bool
    qk_norm: bool
    theta: float
    stretch: LongContext | None
    window: int | None
    cap: float | None
    epsilon: float
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self, x: jax.Array, positions: jax.Array, segments: jax.Array | None, slots: int | None
    ) -> jax.Array:
        batch, length, width = x.shape
        dense = partial(nn.Dense, dtype=self.dtype, param_dtype=self.param_dtype)

        def projected(heads: int, name: str) -> jax.Array:
            found = dense(heads * self.head_width, use_bias=self.bias, name=name)(x)
            return found.reshape(batch, length, heads, self.head_width)

        norm = partial(RMSNorm, self.epsilon, self.dtype, self.param_dtype)
        query, key = projected(self.heads, "q_proj"), projected(self.groups, "k_proj")
        value = projected(self.groups, "v_proj")
        if self.qk_norm:
            query, key = norm(name="q_norm")(query), norm(name="k_norm")(key)
        query = rotary(query, positions, self.theta, self.stretch)
        key = rotary(key, positions, self.theta, self.stretch)
        places = positions
        if slots is not None or self.has_variable("cache", "key"):
            shape = (batch, slots or 0, self.groups, self.head_width)
            keys = self.variable("cache", "key", jnp.zeros, shape, key.dtype)
            values = self.variable("cache", "value", jnp.zeros, shape, value.dtype)
            if not self.is_initializing():
                # A token lies in the slot of its position. What lies behind the newest token is
                # never looked at and is overwritten in time, so that taking tokens back costs
                # nothing.
                at = jnp.arange(batch)[:, None], positions
                keys.value = keys.value.at[at].set(key, mode="drop")
                values.value = values.value.at[at].set(value, mode="drop")
                key, value = keys.value, values.value
                places = jnp.broadcast_to(jnp.arange(key.shape[1])[None], key.shape[:2])
        back = positions[:, :, None] - places[:, None, :]
        seen = back >= 0
        if self.window is not None:
            seen &= back < self.window
        if segments is not None:
            seen &= segments[:, :, None] == segments[:, None, :]
        query = query.reshape(batch, length, self.groups, -1, self.head_width)
        wide = jnp.promote_types(query.dtype, jnp.float32)
        scores = jnp.einsum("btkgd,bskd->bkgts", query, key, preferred_element_type=wide)
        scores = soft_cap(scores * self.head_width**-0.5, self.cap)
        scores = jnp.where(seen[:, None, None], scores, jnp.finfo(wide).min)
        share = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        mixed = jnp.einsum("bkgts,bskd->btkgd", share, value)
        mixed = mixed.reshape(batch, length, self.heads * self.head_width)
        return dense(width, use_bias=False, name="o_proj")(mixed)


class GatedMlp(nn.Module):
    """``down(activation(gate(x)) * up(x))``."""

    hidden: int
    activation: str
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = partial(nn.Dense, use_bias=False, dtype=self.dtype, param_dtype=self.param_dtype)
        gate = ACTIVATIONS[self.activation](dense(self.hidden, name="gate_proj")(x))
        units = gate * dense(self.hidden, name="up_proj")(x)
        return dense(x.shape[-1], name="down_proj")(units)


class Layer(nn.Module):
    """A pre-norm block: attention and gated units, each added to what came in."""

    attention: Mapping[str, Any]
    mlp: Mapping[str, Any]
    epsilon: float
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x, positions, segments, slots):
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = partial(RMSNorm, self.epsilon, **kinds)
        attention = SelfAttention(**self.attention, epsilon=self.epsilon, **kinds, name="self_attn")
        mlp = (SparseMlp if "experts" in self.mlp else GatedMlp)(**self.mlp, **kinds, name="mlp")
        x = x + attention(norm(name="input_layernorm")(x), positions, segments, slots)
        return x + mlp(norm(name="post_attention_layernorm")(x))


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
        stretch: for texts longer than first trained on (Llama 3).
        window: how many tokens back, itself included, a token sees; all if not given (Mistral).
        attention_cap: soft cap of the attention's scores.
        logit_cap: soft cap of the logits.
        activation: ``"silu"`` or ``"gelu"``.
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
    see all tokens before them there. :func:`empty_cache` makes one.

    Raises:
        ValueError: for heads that do not divide, an odd head width, an unknown input or activation;
            for the tap of a scanned layer that there is not; for scanned layers some of which are
            sparse.

    Example:
        >>> from jaxdistill.net import from_linen
        >>> net = from_linen(Decoder(vocabulary=11, width=16, depth=2, heads=4, groups=2))
        >>> tokens = jnp.array([[1, 2, 3]])
        >>> params, state = net.init(jax.random.key(0), tokens)
        >>> net.apply(params, state, tokens).out.shape
        (1, 3, 11)
    """

    vocabulary: int
    width: int
    depth: int
    heads: int
    groups: int | None = None
    head_width: int | None = None
    hidden: int | None = None
    tied: bool = True
    bias: bool = False
    qk_norm: bool = False
    theta: float = 10_000.0
    stretch: LongContext | None = None
    window: int | None = None
    attention_cap: float | None = None
    logit_cap: float | None = None
    activation: str = "silu"
    epsilon: float = 1e-6
    experts: int = 0
    active: int = 2
    sparse: tuple[int, ...] | None = None
    remat: bool = False
    scan: bool = False
    taps: tuple[str, ...] = ()
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array | Mapping[str, jax.Array]) -> jax.Array:
        given = inputs if isinstance(inputs, Mapping) else {"tokens": inputs}
        for name in given:
            if name not in INPUTS:
                raise ValueError(unknown("input of a decoder", name, INPUTS))
        attention, mlp = self._checked()
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
        form = Layer
        if self.remat:
            form = nn.remat(Layer, static_argnums=(4,), prevent_cse=not self.scan)
        mixture = {
            "hidden": self.neurons(),
            "activation": ACTIVATIONS[self.activation],
            "experts": self.experts,
            "active": self.active,
        }
        sparse = self.sparse_layers()
        if self.scan and 0 < len(sparse) < self.depth:
            raise ValueError(
                f"scanned layers are of one form: of {self.depth}, {sparse} are sparse"
            )

        def layer(index: int, name: str) -> nn.Module:
            own = mixture if index in sparse else mlp
            return form(attention, own, self.epsilon, **kinds, name=name)

        x = self._layers(layer, x, (positions, given.get("segments"), slots))
        x = RMSNorm(self.epsilon, **kinds, name="norm")(x)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        if self.tied:
            head = jnp.asarray(table.embedding).T
        else:
            shape = (self.width, self.vocabulary)
            head = _Head(shape, normal, self.param_dtype, name="lm_head")()
        logits = jnp.matmul(x, head.astype(x.dtype), preferred_element_type=wide)
        return soft_cap(logits, self.logit_cap)

    def _layers(self, layer: Callable[..., nn.Module], x: jax.Array, rest: tuple) -> jax.Array:
        if not self.scan:
            for index in range(self.depth):
                x = layer(index, f"layers_{index}")(x, *rest)
            return x
        tapped = sorted({int(tap.removeprefix("layers_")) for tap in self.taps})

        def one(block: nn.Module, x: jax.Array, _: None) -> tuple[jax.Array, Any]:
            x = block(x, *rest)
            return x, x if tapped else None

        run = nn.scan(
            one,
            variable_axes={"params": 0, "cache": 0, "intermediates": 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        x, kept = run(layer(0, "layers"), x, None)
        for index in tapped:
            Identity(name=f"layers_{index}")(kept[index])
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

    def _checked(self) -> tuple[dict[str, Any], dict[str, Any]]:
        groups = self.groups or self.heads
        if self.heads % groups:
            raise ValueError(f"{self.heads} heads do not divide by {groups} groups")
        if self.head_width is None and self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide by {self.heads} heads")
        head_width = self.head_width or self.width // self.heads
        if head_width % 2:
            raise ValueError(f"rotary positions need heads of even width, not {head_width}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(unknown("activation", self.activation, ACTIVATIONS))
        attention = {
            "heads": self.heads,
            "groups": groups,
            "head_width": head_width,
            "bias": self.bias,
            "qk_norm": self.qk_norm,
            "theta": self.theta,
            "stretch": self.stretch,
            "window": self.window,
            "cap": self.attention_cap,
        }
        return attention, {"hidden": self.neurons(), "activation": self.activation}

    @nn.nowrap
    def neurons(self) -> int:
        """Gated units of each MLP."""
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
