"""A sparse mixture of experts in place of an MLP."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


@jax.custom_vjp
def grouped_product(rows: jax.Array, kernels: jax.Array, counts: jax.Array) -> jax.Array:
    """Groups of rows, each times a matrix of its own: ``jax.lax.ragged_dot``, also under ``vmap``.

    ``ragged_dot`` itself cannot be mapped with shared matrices, nor its gradient at all; here
    mapped products are taken one after another. There is no forward mode and no second derivative.

    Args:
        rows: ``[n, D]``, group after group.
        kernels: ``[E, D, F]``.
        counts: int32 ``[E]``, how many rows each group has.

    Returns:
        ``[n, F]``.

    Example:
        >>> rows, kernels = jnp.ones((3, 2)), jnp.stack([jnp.eye(2), 5 * jnp.eye(2)])
        >>> grouped_product(rows, kernels, jnp.array([1, 2], jnp.int32))[:, 0].tolist()
        [1.0, 5.0, 5.0]
    """
    return _product(rows, kernels, counts)


@jax.custom_batching.sequential_vmap
def _product(rows, kernels, counts):
    return jax.lax.ragged_dot(rows, kernels, counts)


@jax.custom_batching.sequential_vmap
def _slopes(rows, kernels, counts, slope):
    return jax.vjp(lambda r, k: jax.lax.ragged_dot(r, k, counts), rows, kernels)[1](slope)


def _forward(rows, kernels, counts):
    return _product(rows, kernels, counts), (rows, kernels, counts)


def _backward(kept, slope):
    return *_slopes(*kept, slope), None


grouped_product.defvjp(_forward, _backward)


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
            return grouped_product(rows, kernel(shape, name=name)(), counts)

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
