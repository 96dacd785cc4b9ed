"""Where a vision transformer looks: how far its heads look, and how much that depends on the
place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.evaluation.batches import Evaluator, Prepare, compiled, frozen_entry, run, sweep
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.losses.attention import relation_scores
from jaxdistill.net import Net
from jaxdistill.settings import Count, Natural


def attention_of(qkv: jax.Array, heads: int, front: int = 1) -> jax.Array:
    """The attention between patches, each row a distribution over the patches.

    Args:
        qkv: [B, front + L, 3D], queries, keys and values side by side, what a tap ``.../attn/qkv``
            gives.
        heads: attention heads H.
        front: learned tokens in front, which are left out.

    Returns:
        [B, H, L, L], float32 or wider.

    Raises:
        ValueError: if the width does not divide by three and the heads.

    Example:
        >>> attention_of(jnp.zeros((1, 5, 12)), heads=2)[0, 0, 0].tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    if qkv.ndim != 3 or qkv.shape[-1] % (3 * heads):
        raise ValueError(
            f"attention needs [B, N, 3 D] with D a multiple of {heads} heads, got {qkv.shape}"
        )
    query, key, _ = jnp.split(qkv[:, front:], 3, axis=-1)
    return jax.nn.softmax(relation_scores(query, key, heads=heads), axis=-1)


def attention_distance(weights: jax.Array, grid: tuple[int, int]) -> jax.Array:
    r"""How far a head looks, in sides of a patch.

    .. math:: \frac1L \sum_{ij} a_{ij} \, |x_i - x_j|

    Args:
        weights: [B, H, L, L], each row a distribution over the patches.
        grid: rows and columns of patches.

    Returns:
        [B, H].

    Example:
        >>> attention_distance(jnp.full((1, 1, 4, 4), 0.25), (1, 4)).tolist()
        [[1.25]]

    References:
        Dosovitskiy et al. An Image is Worth 16x16 Words. ICLR 2021 (mean attention distance).
    """
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    places = np.stack([rows, columns], axis=-1).astype(np.float64)
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    apart = jnp.asarray(apart, weights.dtype)[None, None]
    return jnp.mean(jnp.sum(weights * apart, axis=-1), axis=-1)


def attention_information(weights: jax.Array) -> jax.Array:
    r"""The normalised mutual information of queries and keys: 0 where all patches look at the same
    ones, 1 where each looks at one of its own.

    .. math:: \frac{I(q; k)}{\sqrt{H(q) H(k)}}, \qquad p(q_i, k_j) = \frac{a_{ij}}{L}

    Args:
        weights: [B, H, L, L], each row a distribution over the patches.

    Returns:
        [B, H]; 0 where one patch alone is looked at.

    Example:
        >>> attention_information(jnp.eye(4)[None, None]).tolist()
        [[1.0]]
        >>> attention_information(jnp.full((1, 1, 4, 4), 0.25)).tolist()
        [[0.0]]

    References:
        Park et al. What Do Self-Supervised Vision Transformers Learn? ICLR 2023.
    """
    length = weights.shape[-1]
    keys = weights.mean(axis=-2)

    def entropy(p: jax.Array) -> jax.Array:
        return -jnp.sum(jax.scipy.special.xlogy(p, p), axis=-1)

    information = entropy(keys) - entropy(weights).mean(axis=-1)
    most = jnp.sqrt(entropy(keys) * jnp.log(jnp.asarray(length, weights.dtype)))
    alone = most < jnp.finfo(weights.dtype).eps
    return jnp.where(alone, 0, jnp.maximum(information, 0) / jnp.where(alone, 1, most))


def attention(
    net: Net,
    teacher: Net | None = None,
    against: str | None = None,
    prepare: Prepare | None = None,
    inputs: str = "image",
    *,
    blocks: Sequence[str],
    heads: Count,
    front: Natural = 1,
    grid: tuple[Count, Count] | None = None,
) -> Evaluator:
    """How far the heads of a vision transformer look, and how much that depends on the place.

    Gives ``attention_distance`` (the mean over blocks and heads, in sides of a patch),
    ``attention_distance_<block>_<head>`` for each by its number, ``attention_spread`` (the standard
    deviation over the heads of a block, mean over blocks), ``attention_information`` (see
    :func:`attention_information`), and, against another net, ``attention_gap`` (how far the mean
    distance of a block is from that of the other's, mean over blocks).

    Args:
        net: a vision transformer.
        teacher: another one with taps of the same names, to compare with.
        against: whose weights that one runs with: ``frozen[against]``.
        prepare: ``(batch, key) -> batch`` before either runs.
        inputs: which entry of the batch the nets see.
        blocks: taps of fused projections, such as ``encoder/block_3/attn/qkv``.
        heads: of either net.
        front: learned tokens in front, which are left out.
        grid: rows and columns of patches, where they are not as many.

    Raises:
        ValueError: when it runs, for a width that the heads do not divide, and for patches that are
            no grid.
    """

    def each(net: Net, variables: Any, batch: Any) -> dict[str, jax.Array]:
        taken = run(net.apply, variables, batch, inputs, *blocks)
        weights = [attention_of(qkv, heads, front) for qkv in taken]
        shape = _grid(weights[0].shape[-1], grid)
        return {
            "distance": jnp.stack([attention_distance(one, shape) for one in weights], axis=1),
            "information": jnp.stack([attention_information(one) for one in weights], axis=1),
        }

    def step(variables: Any, batch: Any) -> Any:
        found = {"own": each(net, variables["own"], batch)}
        if teacher is not None:
            found["other"] = each(teacher, variables["other"], batch)
        where = batch["where"][:, None, None]
        sums = jax.tree.map(lambda x: jnp.sum(jnp.where(where, x, 0), axis=0), found)
        return {"sums": sums, "count": where.sum()}

    step = compiled(step, prepare)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        variables = {"own": result}
        if teacher is not None and against is not None:
            variables["other"] = frozen_entry(frozen, against)
        batches = list(sweep(step, variables, data))
        count = sum(int(batch["count"]) for batch in batches)
        sums = jax.tree.map(lambda *x: np.sum(x, axis=0) / count, *(b["sums"] for b in batches))
        distance = sums["own"]["distance"]
        found = {
            "attention_distance": distance.mean(),
            "attention_spread": distance.std(axis=-1).mean(),
            "attention_information": sums["own"]["information"].mean(),
        }
        found |= {f"attention_distance_{i}_{h}": x for (i, h), x in np.ndenumerate(distance)}
        if "other" in sums:
            other = sums["other"]["distance"].mean(axis=-1)
            found["attention_gap"] = np.abs(distance.mean(axis=-1) - other).mean()
        return {name: float(value) for name, value in found.items()}

    names = ["attention_distance", "attention_spread", "attention_information"]
    names += [f"attention_distance_{i}_{h}" for i in range(len(blocks)) for h in range(heads)]
    return measuring([*names, *(["attention_gap"] if teacher else [])], evaluator, sweeps=True)


def _grid(length: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    side = round(length**0.5)
    found = grid or (side, side)
    if found[0] * found[1] != length:
        raise ValueError(
            f"{length} patches are no grid of {found[0]}x{found[1]}: say 'grid', rows and columns, "
            "and how many tokens are in 'front'"
        )
    return found[0], found[1]
