"""The layers of a decoder: rotary positions, norms, attention with a cache, units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.models.experts import SparseMlp
from jaxdistill.settings import Count, Positive

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=True),
    "gelu_exact": partial(jax.nn.gelu, approximate=False),
}
Activation = Literal["silu", "gelu", "gelu_exact"]
Norm = Literal["rms", "rms_plus_one", "layer"]


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

    factor: Positive
    low: Positive
    high: Positive
    context: Count

    def stretched(self, frequencies: jax.Array) -> jax.Array:
        """Frequencies, radians a token, for the longer texts."""
        turns = self.context * frequencies / (2 * jnp.pi)
        kept = jnp.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return frequencies * (kept + (1 - kept) / self.factor)


def rotary(
    x: jax.Array,
    positions: jax.Array,
    theta: float | jax.Array = 10_000.0,
    stretch: LongContext | float | None = None,
) -> jax.Array:
    """Turns pairs of channels by an angle that grows with the position.

    Channel ``i`` is paired with ``i + D/2``, as in the published weights of Llama and Qwen.

    Args:
        x: ``[B, T, N, D]``, queries or keys of N heads, D even.
        positions: int ``[B, T]``.
        theta: the base of the wave lengths.
        stretch: for longer texts: how many times longer all waves are, or :class:`LongContext`.

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
    return _turned(x, positions, _frequencies(x, theta, stretch))


def _frequencies(
    x: jax.Array, theta: float | jax.Array, stretch: LongContext | float | None
) -> jax.Array:
    """Of every pair of channels, radians a token."""
    half = x.shape[-1] // 2
    wide = jnp.promote_types(x.dtype, jnp.float32)
    found = theta ** (-jnp.arange(half, dtype=wide) / half)
    if isinstance(stretch, LongContext):
        return stretch.stretched(found)
    return found if stretch is None else found / stretch


def _turned(x: jax.Array, positions: jax.Array, frequencies: jax.Array) -> jax.Array:
    wide = frequencies.dtype
    angles = positions.astype(wide)[:, :, None, None] * frequencies[None, None, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(wide), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def soft_cap(x: jax.Array, cap: float | None) -> jax.Array:
    """``cap * tanh(x / cap)``, or ``x`` where there is no cap."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    seen: jax.Array,
    scale: float,
    cap: float | None = None,
) -> jax.Array:
    """Attention of grouped queries, by the fused kernel of the accelerator where there is one.

    Soft caps lie between the scores and the softmax, where no kernel of ``jax.nn`` lets anything
    in, and ``jax.nn`` takes the softmax of float64 in float32: both are written out.

    Args:
        query: ``[B, T, N, D]``.
        key: ``[B, S, K, D]``, N a multiple of K.
        value: ``[B, S, K, D]``.
        seen: bool ``[B, T, S]``, which keys a query sees; at least one.
        scale: of the scores.
        cap: soft cap of the scaled scores.

    Returns:
        ``[B, T, N, D]``.
    """
    if cap is None and query.dtype != jnp.float64:
        return jax.nn.dot_product_attention(query, key, value, mask=seen[:, None], scale=scale)
    batch, length, heads, width = query.shape
    query = query.reshape(batch, length, key.shape[2], -1, width)
    wide = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("btkgd,bskd->bkgts", query, key, preferred_element_type=wide)
    scores = jnp.where(seen[:, None, None], soft_cap(scores * scale, cap), jnp.finfo(wide).min)
    share = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bkgts,bskd->btkgd", share, value).reshape(batch, length, heads, width)


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + epsilon) * scale``, the mean in float32 or wider.

    With ``plus_one`` the factor is ``1 + scale``, and scales start at zero (Gemma).
    """

    epsilon: float = 1e-6
    dtype: Any = None
    param_dtype: Any = jnp.float32
    plus_one: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        start = nn.initializers.zeros if self.plus_one else nn.initializers.ones
        scale = self.param("scale", start, (x.shape[-1],), self.param_dtype)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.plus_one:
            scale = 1 + scale.astype(wide.dtype)
        shape = (1,) * (x.ndim - 1) + scale.shape
        found = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.epsilon)
        return (found * scale.reshape(shape)).astype(self.dtype or x.dtype)


def norm_of(kind: Norm, epsilon: float, dtype: Any, param_dtype: Any) -> Callable[..., nn.Module]:
    """Makes norms of one kind, given their names."""
    if kind == "layer":
        return partial(nn.LayerNorm, epsilon=epsilon, dtype=dtype, param_dtype=param_dtype)
    return partial(RMSNorm, epsilon, dtype, param_dtype, kind == "rms_plus_one")


class SelfAttention(nn.Module):
    """Causal attention of grouped queries, with or without a cache of keys and values."""

    heads: int
    groups: int
    head_width: int
    bias: bool
    out_bias: bool
    fused: bool
    qk_norm: bool
    theta: float | None
    stretch: LongContext | float | None
    window: int | None
    local_theta: float | None
    cap: float | None
    scale: float
    norm: Norm
    epsilon: float
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        whole: jax.Array | bool,
        positions: jax.Array,
        segments: jax.Array | None,
        slots: int | None,
    ) -> jax.Array:
        """Of layers that differ, ``whole`` says which one sees all tokens and not its window."""
        batch, length, width = x.shape
        query, key, value = self._projected(x)
        if self.qk_norm:
            norm = norm_of(self.norm, self.epsilon, self.dtype, self.param_dtype)
            query, key = norm(name="q_norm")(query), norm(name="k_norm")(key)
        if self.theta is not None:
            frequencies = _frequencies(query, self.theta, self.stretch)
            if self.window is not None and self.local_theta is not None:
                local = _frequencies(query, self.local_theta, None)
                frequencies = jnp.where(whole, frequencies, local)
            query, key = (_turned(part, positions, frequencies) for part in (query, key))
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
            seen &= (back < self.window) | whole
        if segments is not None:
            seen &= segments[:, :, None] == segments[:, None, :]
        mixed = attend(query, key, value, seen, self.scale, self.cap)
        mixed = mixed.reshape(batch, length, self.heads * self.head_width)
        return self._dense(width, use_bias=self.out_bias, name="o_proj")(mixed)

    def _projected(self, x: jax.Array) -> list[jax.Array]:
        """Queries, keys and values, ``[B, T, heads, head_width]`` each."""
        names = {"q_proj": self.heads, "k_proj": self.groups, "v_proj": self.groups}
        sizes = {name: count * self.head_width for name, count in names.items()}
        if self.fused:
            both = self._dense(sum(sizes.values()), use_bias=self.bias, name="qkv_proj")(x)
            ends = sizes["q_proj"], sizes["q_proj"] + sizes["k_proj"]
            found = jnp.split(both, ends, axis=-1)
        else:
            found = [
                self._dense(size, use_bias=self.bias, name=name)(x) for name, size in sizes.items()
            ]
        return [part.reshape(*x.shape[:2], -1, self.head_width) for part in found]

    @property
    def _dense(self) -> Callable[..., nn.Dense]:
        return partial(nn.Dense, dtype=self.dtype, param_dtype=self.param_dtype)


class Units(nn.Module):
    """``down(activation(gate(x)) * up(x))``, or without gates ``down(activation(up(x)))``."""

    hidden: int
    activation: Activation
    gated: bool
    bias: bool
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = partial(
            nn.Dense, use_bias=self.bias, dtype=self.dtype, param_dtype=self.param_dtype
        )
        act = ACTIVATIONS[self.activation]
        if self.gated:
            gate = act(dense(self.hidden, name="gate_proj")(x))
            units = gate * dense(self.hidden, name="up_proj")(x)
        else:
            units = act(dense(self.hidden, name="up_proj")(x))
        return dense(x.shape[-1], name="down_proj")(units)


class Layer(nn.Module):
    """A pre-norm block: attention and units, each added to what came in.

    With ``post_norms`` what is added is normed as well (Gemma 2 and 3). The names of the norms are
    those of the published weights: ``post_attention_layernorm`` then comes after the attention,
    else before the units.
    """

    attention: Mapping[str, Any]
    mlp: Mapping[str, Any]
    norm: Norm
    post_norms: bool
    epsilon: float
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x, whole, positions, segments, slots):
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = norm_of(self.norm, self.epsilon, **kinds)
        attention = SelfAttention(
            **self.attention, norm=self.norm, epsilon=self.epsilon, **kinds, name="self_attn"
        )
        mlp = (SparseMlp if "experts" in self.mlp else Units)(**self.mlp, **kinds, name="mlp")
        normed = norm(name="input_layernorm")(x)
        mixed = attention(normed, whole, positions, segments, slots)
        if not self.post_norms:
            x = x + mixed
            return x + mlp(norm(name="post_attention_layernorm")(x))
        x = x + norm(name="post_attention_layernorm")(mixed)
        units = mlp(norm(name="pre_feedforward_layernorm")(x))
        return x + norm(name="post_feedforward_layernorm")(units)
