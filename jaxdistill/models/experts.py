"""A sparse mixture of experts in place of an MLP."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class SparseMlp(nn.Module):
    r"""Gated MLPs, of which every token goes through a few.

    .. math:: y = \sum_{e \in \mathrm{top}_k(r)} g_e \, \mathrm{mlp}_e(x), \qquad
        g = \mathrm{softmax}(r_{\mathrm{top}_k}), \quad r = W x

    Tokens are sorted by expert and go through grouped products of matrices, so none is dropped and
    the work is that of ``active`` experts a token. The router and its softmax are in float32 or
    wider.

    Children: ``router`` (a tap gives its logits ``[B, T, E]``), and ``gate_proj``, ``up_proj``,
    ``down_proj`` with an axis ``[E]`` in front.

    Attributes:
        experts: how many there are, E.
        active: how many a token goes through.
        hidden: gated units of each.
        activation: of the gate.
        dtype: of the computation.
        param_dtype: of the parameters.

    References:
        Shazeer et al. Outrageously large neural networks. ICLR 2017.
        Jiang et al. Mixtral of experts. 2024 (shares of the chosen add up to one).
    """

    experts: int
    active: int
    hidden: int
    activation: Callable[[jax.Array], jax.Array]
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not 1 <= self.active <= self.experts:
            raise ValueError(f"a token goes through 1 to {self.experts} experts, not {self.active}")
        wide = jnp.promote_types(x.dtype, jnp.float32)
        width = x.shape[-1]
        router = nn.Dense(
            self.experts, use_bias=False, dtype=wide, param_dtype=self.param_dtype, name="router"
        )
        best, chosen = jax.lax.top_k(router(x), self.active)
        share = jax.nn.softmax(best).reshape(-1)
        expert = chosen.reshape(-1)
        order = jnp.argsort(expert)
        counts = jnp.bincount(expert, length=self.experts).astype(jnp.int32)
        token = order // self.active
        kernel = partial(_Kernel, dtype=self.dtype or x.dtype, param_dtype=self.param_dtype)

        def through(rows: jax.Array, outputs: int, name: str) -> jax.Array:
            shape = (self.experts, rows.shape[-1], outputs)
            return jax.lax.ragged_dot(rows, kernel(shape, name=name)(), counts)

        rows = x.reshape(-1, width).astype(self.dtype or x.dtype)[token]
        gate = self.activation(through(rows, self.hidden, "gate_proj"))
        found = through(gate * through(rows, self.hidden, "up_proj"), width, "down_proj")
        found = found.astype(wide) * share[order][:, None]
        mixed = jnp.zeros((x.size // width, width), wide).at[token].add(found)
        return mixed.reshape(x.shape).astype(self.dtype or x.dtype)


class _Kernel(nn.Module):
    shape: tuple[int, int, int]
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self) -> jax.Array:
        init = nn.initializers.lecun_normal(batch_axis=(0,))
        return self.param("kernel", init, self.shape, self.param_dtype).astype(self.dtype)
