r"""Which layer of the teacher speaks to which of the student: fixed maps, optimal transport."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from jaxdistill.losses._geometry import choice
from jaxdistill.losses.numerics import on_any_mesh, ratio, widen
from jaxdistill.settings import Count, Positive


def layer_map(
    student_layers: int,
    teacher_layers: int,
    *,
    rule: Literal["skip", "last"] = "skip",
    states: Literal["hidden", "block"] = "hidden",
) -> tuple[int, ...]:
    """The teacher's layer for each of the student's.

    Args:
        student_layers: the number of the student's blocks, at most the teacher's.
        teacher_layers: the number of the teacher's blocks.
        rule: ``"skip"`` spreads evenly over the depth, ``"last"`` takes the teacher's last layers.
        states: ``"hidden"`` counts the embeddings as layer 0, so there is one entry more than
            blocks; ``"block"`` (attention matrices, block outputs) counts blocks from 0.

    Returns:
        Indices, 0-based: entry i is the teacher's layer for the student's layer i.

    Raises:
        ValueError: if the student is deeper than its teacher, or for an unknown rule.

    Example:
        >>> layer_map(4, 12), layer_map(4, 12, states="block"), layer_map(2, 12, rule="last")
        ((0, 3, 6, 9, 12), (2, 5, 8, 11), (10, 11, 12))
    """
    if not 0 < student_layers <= teacher_layers:
        raise ValueError(
            f"a student of {student_layers} layers does not map into a teacher of {teacher_layers}"
        )
    first = choice("kind of states", states, {"hidden": 0, "block": 1})
    depths = range(first, student_layers + 1)
    if choice("rule", rule, {"skip": True, "last": False}):
        return tuple(i * teacher_layers // student_layers - first for i in depths)
    return tuple(i + teacher_layers - student_layers - first for i in depths)


@on_any_mesh
def transport_plan(
    cost: jax.Array,
    *,
    student_mass: jax.Array | None = None,
    teacher_mass: jax.Array | None = None,
    regularisation: Positive = 0.05,
    iterations: Count = 50,
) -> jax.Array:
    r"""How much each layer learns from each of the teacher: entropic optimal transport.

    .. math:: \arg\min_{P \ge 0} \sum_{ij} P_{ij} c_{ij} - \epsilon\, \bar c\, H(P),
        \qquad P 1 = a,\ P^\top 1 = b

    by Sinkhorn's iterations on logarithms, where :math:`\bar c` is the mean cost, so that the plan
    does not depend on the scale of the losses. The loss is ``jnp.sum(jax.lax.stop_gradient(plan) *
    cost)``.

    Args:
        cost: ``[S, T]``, the loss between each pair of layers.
        student_mass: ``[S]``, positive, summing to one; uniform by default.
        teacher_mass: ``[T]``, likewise.
        regularisation: :math:`\epsilon > 0`; smaller is nearer to the exact plan and needs more
            iterations.
        iterations: of Sinkhorn, fixed.

    Returns:
        ``[S, T]``, non-negative, its columns summing to ``teacher_mass`` exactly and its rows to
        ``student_mass`` as far as the iterations went; float32 or wider.

    Raises:
        ValueError: if the shapes do not fit.

    Hard values: a cost of zeros gives the product of the masses.

    Example:
        >>> plan = transport_plan(jnp.array([[0.0, 1.0], [1.0, 0.0]]))
        >>> plan.round(3).tolist()
        [[0.5, 0.0], [0.0, 0.5]]

    References:
        Li et al.,
        `BERT-EMD: Many-to-Many Layer Mapping for BERT Compression with Earth Mover's Distance
        <https://arxiv.org/abs/2010.06133>`_, 2020; Cuturi, `Sinkhorn Distances
        <https://arxiv.org/abs/1306.0895>`_, 2013
    """
    (cost,) = widen(cost)
    if cost.ndim != 2:
        raise ValueError(f"cost must be [student layers, teacher layers], got {cost.shape}")
    rows, columns = (
        _log_mass(mass, size, cost)
        for mass, size in zip((student_mass, teacher_mass), cost.shape, strict=True)
    )
    scale = regularisation * jnp.mean(cost)
    log_kernel = -cost / jnp.where(scale > 0, scale, 1)

    def sinkhorn(_, potentials):
        f, g = potentials
        f = rows - jax.nn.logsumexp(log_kernel + g[None, :], axis=1)
        g = columns - jax.nn.logsumexp(log_kernel + f[:, None], axis=0)
        return f, g

    start = jnp.zeros_like(rows), jnp.zeros_like(columns)
    f, g = jax.lax.fori_loop(0, iterations, sinkhorn, start)
    return jnp.exp(log_kernel + f[:, None] + g[None, :])


@on_any_mesh
def transport_masses(
    plan: jax.Array, cost: jax.Array, *, temperature: Positive = 1.0
) -> tuple[jax.Array, jax.Array]:
    r"""New masses for the layers: those that were cheap to move learn and teach more.

    .. math:: u_i = \frac{\sum_j P_{ij} c_{ij}}{\sum_j P_{ij}}, \qquad
        a_i = \sigma\Bigl(\frac{\sum_k u_k}{u_i} \Big/ \tau \Bigr)

    and likewise for the teacher's layers. Alternate it with :func:`transport_plan`.

    Args:
        plan: ``[S, T]``.
        cost: ``[S, T]``.
        temperature: :math:`\tau`; larger is nearer to uniform.

    Returns:
        ``[S]`` and ``[T]``, each summing to one, float32 or wider. Differentiating through them is
        not meant.

    Hard values: layers that cost nothing share the largest mass; all layers free is uniform.

    Example:
        >>> cost = jnp.array([[1.0, 1.0], [2.0, 2.0]])
        >>> transport_masses(jnp.full((2, 2), 0.25), cost)[0].round(3).tolist()
        [0.818, 0.182]
    """
    plan, cost = (jax.lax.stop_gradient(x) for x in widen(plan, cost))

    def masses(axis):
        unit = ratio(jnp.sum(plan * cost, axis=axis), jnp.sum(plan, axis=axis))
        total = jnp.sum(unit)
        floor = jnp.where(total > 0, 1e-6 * total, 1)
        return jax.nn.softmax(total / jnp.maximum(unit, floor) / temperature)

    return masses(1), masses(0)


def _log_mass(mass: jax.Array | None, size: int, like: jax.Array) -> jax.Array:
    if mass is None:
        return jnp.full((size,), -jnp.log(jnp.asarray(size, like.dtype)))
    if jnp.shape(mass) != (size,):
        raise ValueError(f"a mass needs one entry per layer, ({size},), got {jnp.shape(mass)}")
    return jnp.log(jnp.asarray(mass).astype(like.dtype))
