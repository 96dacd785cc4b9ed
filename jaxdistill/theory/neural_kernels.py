r"""Kernels of neural nets: infinitely wide fully connected ones in closed form, and any net's own.

Covariances of a layer are held as :math:`\sqrt{pq}\,(1 - g)` with the two variances p, q and the
gap g = 1 - cosine. Every layer maps gaps to gaps as sums of positive terms, so nothing cancels:
equal points have gap exactly zero, and near ones keep all their digits in float32. (From the cosine
itself the angle of equal points is known to the root of the machine's epsilon only, and with it the
tangent kernel's diagonal.)
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.losses._geometry import choice, square_distances
from jaxdistill.losses.numerics import einsum, l2_normalise, matmul, ratio, safe_sqrt, wide_dtype
from jaxdistill.net import Net
from jaxdistill.settings import Count, Natural, NonNegative
from jaxdistill.theory import _checks
from jaxdistill.theory.kernels import points

Angles = Literal["differences", "products"]


class _Layer(NamedTuple):
    """Variances ``[n]`` and ``[m]``, and 1 - cosine and 1 + cosine of all pairs, ``[n, m]``."""

    left: jax.Array
    right: jax.Array
    gap: jax.Array
    far: jax.Array


def nngp(
    x: jax.Array,
    others: jax.Array | None = None,
    *,
    depth: Natural = 1,
    weight_variance: NonNegative = 2.0,
    bias_variance: NonNegative = 0.0,
    angles: Angles = "differences",
) -> jax.Array:
    r"""The covariance of an infinitely wide fully connected ReLU net at its start: the arc-cosine
    kernel, iterated.

    .. math:: \Sigma^0 = \sigma_b^2 + \frac{\sigma_w^2}{D} x \cdot y, \qquad
        \Sigma^{l+1} = \sigma_b^2 + \frac{\sigma_w^2}{2 \pi} \sqrt{\Sigma^l_{xx} \Sigma^l_{yy}}
        \bigl(\sin \theta + (\pi - \theta) \cos \theta\bigr)

    with :math:`\theta` the angle that :math:`\Sigma^l` gives the pair.

    Args:
        x: points ``[n, ...]``.
        others: points ``[m, ...]`` of as many features, ``x`` by default.
        depth: hidden layers, 0 or more.
        weight_variance: :math:`\sigma_w^2`: weights are drawn with this variance over the number
            of inputs of their layer.
        bias_variance: :math:`\sigma_b^2`.
        angles: from what those between points are found: ``"differences"``, exact between near
            points; ``"products"``, one matrix product, many times quicker where features are many,
            and off by the machine's epsilon over the angle. That of a point with itself is zero
            where ``x`` is its own other.

    Returns:
        ``[n, m]``, float32 or wider.

    Raises:
        ValueError: for a negative depth or variance, another name of ``angles``, or points that do
            not fit.

    Example:
        >>> nngp(jnp.eye(2), depth=1).round(4).tolist()
        [[1.0, 0.3183], [0.3183, 1.0]]

    References:
        Cho and Saul, `Kernel Methods for Deep Learning
        <https://papers.nips.cc/paper/3628-kernel-methods-for-deep-learning>`_, 2009; Lee et al.,
        `Deep Neural Networks as Gaussian Processes <https://arxiv.org/abs/1711.00165>`_, 2018
    """
    covariance, _ = _fully_connected(x, others, depth, weight_variance, bias_variance, angles)
    return covariance


def ntk(
    x: jax.Array,
    others: jax.Array | None = None,
    *,
    depth: Natural = 1,
    weight_variance: NonNegative = 2.0,
    bias_variance: NonNegative = 0.0,
    angles: Angles = "differences",
) -> jax.Array:
    r"""The tangent kernel of an infinitely wide fully connected ReLU net.

    .. math:: \Theta^0 = \Sigma^0, \qquad
        \Theta^{l+1} = \Sigma^{l+1} + \sigma_w^2 \frac{\pi - \theta}{2 \pi} \Theta^l

    with :math:`\Sigma` of :func:`nngp`, for nets whose parameters are standard normal and scaled by
    :math:`\sqrt{\sigma_w^2 / \mathrm{inputs}}` and :math:`\sigma_b` in the forward pass.

    Args:
        x: points ``[n, ...]``.
        others: points ``[m, ...]`` of as many features, ``x`` by default.
        depth: hidden layers, 0 or more.
        weight_variance: :math:`\sigma_w^2`.
        bias_variance: :math:`\sigma_b^2`.
        angles: ``"differences"`` or ``"products"``, as for :func:`nngp`.

    Returns:
        ``[n, m]``, float32 or wider.

    Raises:
        ValueError: for a negative depth or variance, another name of ``angles``, or points that do
            not fit.

    Example:
        >>> ntk(jnp.eye(2), depth=1).round(4).tolist()
        [[2.0, 0.3183], [0.3183, 2.0]]

    References:
        Jacot et al., `Neural Tangent Kernel <https://arxiv.org/abs/1806.07572>`_, 2018
    """
    _, tangent = _fully_connected(x, others, depth, weight_variance, bias_variance, angles)
    return tangent


def empirical_ntk(
    net: Net,
    params: Any,
    state: Any,
    x: Any,
    others: Any = None,
    *,
    outputs: Literal["all", "mean"] = "all",
    block: Count = 64,
) -> jax.Array:
    r"""The tangent kernel of a net at given parameters, :math:`J(x) J(y)^\top`.

    Every output of every point of ``others`` is pulled back to a tangent of the parameters, which
    is pushed forward to all outputs of ``x``: no Jacobian is held beyond that of one point. The net
    runs in evaluation mode, one point at a time.

    Args:
        net: the net; of its ``out``, one array, all entries of a point are its K outputs.
        params: its parameters, floating point.
        state: its state.
        x: points, a tree of arrays ``[n, ...]``.
        others: points, a tree of arrays ``[m, ...]``, ``x`` by default.
        outputs: ``"all"`` for every pair of outputs, ``"mean"`` for the mean over equal outputs
            (the tangent kernel of wide nets, where outputs do not mix).
        block: how many rows of ``x`` go through the net at once, K tangents each.

    Returns:
        ``[n, m, K, K]``, or ``[n, m]`` for the mean; float32 or wider. The kernel of all outputs as
        one matrix ``[n K, m K]`` is ``k.transpose(0, 2, 1, 3).reshape(n * K, m * K)``.

    Raises:
        ValueError: for another name of ``outputs``, a block below 1, or points without a common
            number of rows.

    Example:
        >>> from jaxdistill.net import from_function
        >>> net = from_function(
        ...     lambda key, x: ({"w": jnp.ones((2, 1))}, {}),
        ...     lambda params, state, x, train, rng: (x @ params["w"], {}, state),
        ... )
        >>> x = jnp.array([[1.0, 2.0], [3.0, 0.0]])
        >>> empirical_ntk(net, {"w": jnp.ones((2, 1))}, {}, x, outputs="mean").tolist()
        [[5.0, 3.0], [3.0, 9.0]]

    References:
        Jacot et al., `Neural Tangent Kernel <https://arxiv.org/abs/1806.07572>`_, 2018; Novak et
        al., `Fast Finite Width Neural Tangent Kernel <https://arxiv.org/abs/2206.08720>`_, 2022
    """
    reduce = choice(
        "kind of outputs",
        outputs,
        {
            "all": lambda entries: entries,
            "mean": lambda entries: einsum("kk->", entries) / entries.shape[0],
        },
    )
    if block < 1:
        raise ValueError(f"block must be 1 or more rows, got {block}")
    others = x if others is None else others
    for name, tree in (("x", x), ("others", others)):
        sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(tree)}
        if len(sizes) != 1 or () in sizes:
            raise ValueError(f"{name} must be arrays with one leading size, got {sorted(sizes)}")

    def forward(params, point):
        out = net.apply(params, state, jax.tree.map(lambda leaf: leaf[None], point)).out
        return out.reshape(-1).astype(wide_dtype(out))

    def column(point):
        out, pull = jax.vjp(lambda own: forward(own, point), params)
        (tangents,) = jax.vmap(pull)(jnp.eye(out.size, dtype=out.dtype))

        def entries(row):
            def push(tangent):
                return jax.jvp(lambda own: forward(own, row), (params,), (tangent,))[1]

            return reduce(jax.vmap(push, out_axes=1)(tangents))

        return jax.lax.map(entries, x, batch_size=block)

    # Without the highest precision a GPU or TPU would round the net's own products.
    with jax.default_matmul_precision("highest"):
        return jnp.swapaxes(jax.lax.map(column, others), 0, 1)


@jax.jit
def _differences(x: jax.Array, others: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Half the squared chord of unit vectors is 1 - cosine.
    return square_distances(x, others) / 2, square_distances(x, -others) / 2


def _products(x: jax.Array, others: jax.Array) -> tuple[jax.Array, jax.Array]:
    cosine = jnp.clip(matmul(x, others.T), -1, 1)
    return 1 - cosine, 1 + cosine


def _fully_connected(
    x: jax.Array,
    others: jax.Array | None,
    depth: int,
    weight_variance: Any,
    bias_variance: Any,
    angles: Angles,
) -> tuple[jax.Array, jax.Array]:
    """Covariance and tangent kernel after ``depth`` hidden layers."""
    if depth < 0:
        raise ValueError(f"depth must be 0 or more hidden layers, got {depth}")
    gaps = choice("kind of angles", angles, {"differences": _differences, "products": _products})
    alone = others is None or others is x
    _checks.at_least_zero(weight_variance=weight_variance, bias_variance=bias_variance)
    x, others = points(x, others)
    weight, bias = (jnp.asarray(v).astype(x.dtype) for v in (weight_variance, bias_variance))
    near, far = gaps(l2_normalise(x), l2_normalise(others))
    if alone and angles == "products":
        # Rounding must open no angle between a point and itself.
        same = jnp.eye(len(x), dtype=bool)
        near, far = jnp.where(same, 0, near), jnp.where(same, 2, far)
    left, right = (jnp.mean(jnp.square(array), axis=1) for array in (x, others))
    layer = _affine(_Layer(left, right, near, far), weight, bias)
    covariance = tangent = _covariance(layer)
    for _ in range(depth):
        hidden, slope = _relu(layer)
        layer = _affine(hidden, weight, bias)
        covariance = _covariance(layer)
        tangent = covariance + weight * slope * tangent
    return covariance, tangent


def _outer(left: jax.Array, right: jax.Array) -> jax.Array:
    return safe_sqrt(left)[:, None] * safe_sqrt(right)[None, :]


def _covariance(layer: _Layer) -> jax.Array:
    return _outer(layer.left, layer.right) * (1 - layer.gap)


def _affine(layer: _Layer, weight: jax.Array, bias: jax.Array) -> _Layer:
    """Random weights and biases: covariances are scaled, and the biases' variance is added."""
    left, right = weight * layer.left, weight * layer.right
    product, whole = _outer(left, right), _outer(left + bias, right + bias)
    # whole - bias - product, by the difference of squares
    between = safe_sqrt(left)[:, None] - safe_sqrt(right)[None, :]
    excess = ratio(bias * jnp.square(between), whole + bias + product)
    # A point without variance has no angle; nothing is ever multiplied by it but zero.
    none = whole == 0
    gap = jnp.where(none, 1, ratio(excess + product * layer.gap, whole))
    far = jnp.where(none, 1, ratio(excess + 2 * bias + product * layer.far, whole))
    return _Layer(left + bias, right + bias, gap, far)


def _relu(layer: _Layer) -> tuple[_Layer, jax.Array]:
    """Covariances behind the ReLU, and those of its slope: the arc-cosine kernels of order 1 and
    0."""
    angle = 2 * jnp.arctan2(safe_sqrt(layer.gap), safe_sqrt(layer.far))
    square = jnp.square(angle)
    # sin - angle cos, which near zero is a difference of two near numbers
    series = angle * square * (1 / 3 - square * (1 / 30 - square * (1 / 840 - square / 45360)))
    exact = jnp.sin(angle) - angle * jnp.cos(angle)
    gap = layer.gap - jnp.where(angle < 0.1, series, exact) / jnp.pi
    hidden = _Layer(layer.left / 2, layer.right / 2, gap, 2 - gap)
    return hidden, (jnp.pi - angle) / (2 * jnp.pi)
