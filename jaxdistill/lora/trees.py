"""Adapters as trees of arrays: which kernels get them, where they start, how they are added up."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util

from jaxdistill._errors import listed, unknown
from jaxdistill.losses.numerics import wide_dtype

Path = tuple[str, ...]
Basis = Literal["up", "down"]
STACKS = ("blocks", "layers")
"""What trees of stacked layers are called in this library, see ``models.stack_blocks``."""
# What Flax calls the projections of its attention that go from one axis to heads.
_TO_HEADS = ("query", "key", "value")


class Kernel(NamedTuple):
    """An array of a net that can have an adapter.

    Attributes:
        path: in the parameters, with slashes.
        shape: of the array.
        stack: how many axes in front number matrices of their own: layers, experts.
        inputs: how many of the other axes are read, the last of them all where the array is of a
            framework that puts its outputs first (``weight``).
    """

    path: str
    shape: tuple[int, ...]
    stack: int
    inputs: int

    def sizes(self) -> tuple[int, int]:
        """Rows and columns of the matrix: numbers that are read, and that are put out."""
        own = self.rolled()[self.stack :]
        return math.prod(own[: self.inputs]), math.prod(own[self.inputs :])

    def rolled(self) -> tuple[int, ...]:
        """The shape with the axes that are put out last, as Flax has them."""
        front, own = self.shape[: self.stack], self.shape[self.stack :]
        return (*front, *own[1:], own[0]) if _outputs_first(self.path) else self.shape


def kernels(params: Any, stacked: Sequence[str] = STACKS) -> dict[str, Kernel]:
    """The arrays of a net that can have an adapter, by path: all of two axes or more
    but biases.

    Axes of layers that are stacked, of experts, and of heads are told by the names of trees, by the
    bias beside a kernel, and by the names that Flax gives to its attention.

    Args:
        params: nested dicts of arrays, or of their shapes.
        stacked: names of trees whose arrays have an axis of layers in front.

    Example:
        >>> tree = {"head": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}}
        >>> kernels(tree)
        {'head/kernel': Kernel(path='head/kernel', shape=(4, 3), stack=0, inputs=1)}
    """
    flat = {path: leaf for path, leaf in _flat(params).items() if hasattr(leaf, "shape")}
    found = (_kernel(path, leaf.shape, flat, stacked) for path, leaf in sorted(flat.items()))
    return {kernel.path: kernel for kernel in found if kernel is not None}


def start(
    key: jax.Array,
    params: Any,
    *,
    at: Sequence[str],
    rank: int,
    basis: Basis | None = None,
    stacked: Sequence[str] = STACKS,
) -> dict[str, Any]:
    r"""Adapters that change nothing yet: for each kernel ``W`` a pair whose product is added to it.

    .. math:: W + s \, D U, \qquad D \in R^{n \times r}, \; U \in R^{r \times m}

    ``down`` starts uniformly within :math:`\pm 1/\sqrt n`, as in peft, and ``up`` at zero. Kernels
    of convolutions ``[rows, columns, n, m]`` have ``down`` ``[rows, columns, n, r]`` and ``up``
    ``[r, m]``, those that go to heads ``up`` ``[r, heads, m]``, and those of stacked layers an axis
    of layers in front of both.

    Args:
        key: for what is drawn.
        params: of the net.
        at: regular expressions, searched for in the paths of :func:`kernels`.
        rank: r.
        basis: which of the two is an orthonormal basis instead, for one that is never trained; the
            other is zero.
        stacked: as for :func:`kernels`.

    Returns:
        Nested dicts as the parameters', with ``{"down": ..., "up": ...}`` in place of a kernel, in
        float32 or wider.

    Raises:
        ValueError: for a pattern that no path has, with the nearest path; for a rank above that of
            a matrix.

    References:
        Hu et al. LoRA: low-rank adaptation of large language models. ICLR 2022.
        Gandikota and Bau. Distilling diversity and control in diffusion models. 2025 (one of the
        two as a frozen basis).

    Example:
        >>> tree = {"head": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}}
        >>> pair = start(jax.random.key(0), tree, at=("head",), rank=2)["head"]["kernel"]
        >>> pair["down"].shape, pair["up"].shape, float(abs(pair["up"]).max())
        ((4, 2), (2, 3), 0.0)
    """
    flat = _flat(params)
    found: dict[Path, Any] = {}
    for number, kernel in enumerate(_chosen(kernels(params, stacked), at, rank)):
        path = tuple(kernel.path.split("/"))
        dtype = wide_dtype(flat[path])
        found[path] = _pair(jax.random.fold_in(key, number), kernel, rank, basis, dtype)
    return traverse_util.unflatten_dict(found)


def merged(params: Any, adapters: Any, scale: float | jax.Array) -> Any:
    """Parameters with adapters added to their kernels for good.

    The sum is taken in float32 or wider and rounded once, to the type of the kernel.

    Args:
        params: of a net that has kernels of these names and shapes; of another net than the one the
            adapters were trained on, too.
        adapters: see :func:`start`.
        scale: what their product is multiplied by; 0 gives the parameters.

    Raises:
        ValueError: for adapters of kernels that are not there, with the nearest, or of another
            shape.

    Example:
        >>> tree = {"head": {"kernel": jnp.zeros((2, 2))}}
        >>> pair = {"down": jnp.ones((2, 1)), "up": jnp.ones((1, 2))}
        >>> merged(tree, {"head": {"kernel": pair}}, 0.5)["head"]["kernel"].tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    check_fit(params, adapters)
    flat = _flat(params)
    for path, pair in pairs(adapters).items():
        flat[path] = _added(path, flat[path], pair, scale)
    return traverse_util.unflatten_dict(flat)


def unmerged(params: Any, adapters: Any, scale: float | jax.Array) -> Any:
    """Parameters with adapters taken out again that :func:`merged` has added, up to rounding."""
    return merged(params, adapters, -scale)


def together(params: Any, several: Sequence[tuple[Any, float]]) -> dict[str, Any]:
    """Several sets of adapters as one, whose scale is 1 and whose ranks add up.

    Args:
        params: of the net that they are for.
        several: adapters, each with its scale; not all need have the same kernels.

    Raises:
        ValueError: as :func:`check_fit`.

    Example:
        >>> tree, pair = {"kernel": jnp.ones((2, 2))}, {"down": jnp.ones((2, 1))}
        >>> one = {"kernel": {**pair, "up": jnp.ones((1, 2))}}
        >>> both = together(tree, [(one, 1.0), (one, 0.5)])["kernel"]
        >>> (both["down"] @ both["up"]).tolist()
        [[1.5, 1.5], [1.5, 1.5]]
    """
    flat, found = _flat(params), {}
    for adapters, scale in several:
        check_fit(params, adapters)
        for path, pair in pairs(adapters).items():
            own = {"down": pair["down"], "up": scale * pair["up"]}
            axes = {"down": -1, "up": stack_of(pair, flat[path])}
            found[path] = (
                {part: jnp.concatenate([found[path][part], own[part]], axes[part]) for part in own}
                if path in found
                else own
            )
    return traverse_util.unflatten_dict(found)


def check_fit(params: Any, adapters: Any) -> None:
    """Refuses adapters that a net has no place for.

    Raises:
        ValueError: for adapters of kernels that are not there, with the nearest, or of another
            shape.
    """
    flat = _flat(params)
    for path, pair in pairs(adapters).items():
        name = "/".join(path)
        if path not in flat:
            near = [kernel for kernel in kernels(params) if kernel.endswith(path[-1])]
            raise ValueError(unknown("kernel that adapters are for", name, near))
        shape = tuple(flat[path].shape)
        if _shape(path, pair, len(shape)) != shape:
            parts = {part: tuple(array.shape) for part, array in pair.items()}
            raise ValueError(f"adapters {parts} of {name} are not for a kernel of {shape}")


def numbers(adapters: Any) -> int:
    """How many numbers adapters hold.

    Example:
        >>> numbers({"kernel": {"down": jnp.ones((4, 2)), "up": jnp.ones((2, 3))}})
        14
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(adapters))


def pairs(adapters: Any) -> dict[Path, dict[str, jax.Array]]:
    """The pairs of adapters by the paths of their kernels.

    Raises:
        ValueError: where one of a pair is not there.
    """
    found: dict[Path, dict[str, Any]] = {}
    for path, leaf in _flat(adapters).items():
        found.setdefault(path[:-1], {})[path[-1]] = leaf
    for path, pair in found.items():
        if set(pair) != {"down", "up"}:
            raise ValueError(
                f"adapters of {'/'.join(path)!r} are {listed(sorted(pair))} in place of 'down', "
                "'up'"
            )
    return found


def parted(adapters: Any, basis: Basis | None) -> tuple[Any, Any]:
    """What is trained of adapters, and the basis that is not."""

    def only(keep: Callable[[str], bool]) -> Any:
        flat = {path: leaf for path, leaf in _flat(adapters).items() if keep(path[-1])}
        return traverse_util.unflatten_dict(flat)

    return only(lambda part: part != basis), only(lambda part: part == basis)


def whole(trained: Any, bases: Any) -> Any:
    """Adapters from their two parts, see :func:`parted`."""
    return traverse_util.unflatten_dict({**_flat(trained), **_flat(bases)})


def _flat(tree: Any) -> dict[Path, Any]:
    return traverse_util.flatten_dict(tree)  # type: ignore[return-value]


def _outputs_first(path: str) -> bool:
    """Whether a framework puts the outputs of its kernels first: Equinox, as torch does."""
    return path.rpartition("/")[2] == "weight"


def _kernel(
    path: Path, shape: Sequence[int], flat: Mapping[Path, Any], stacked: Sequence[str]
) -> Kernel | None:
    """What the axes of an array are, or None for vectors and numbers."""
    layer, own = ("", *path)[-2:]
    names = zip(path, (*path[1:], ""), strict=True)
    # Layers in a list are numbered, and not stacked.
    stack = sum(name in stacked and not after.isdecimal() for name, after in names)
    if layer != "router" and (*path[:-2], "router", "kernel") in flat:
        stack += 1
    rest = len(shape) - stack
    if rest < 2 or own == "bias":
        return None
    bias = flat.get((*path[:-1], "bias"))
    if _outputs_first("/".join(path)):
        inputs = rest - 1
    elif bias is not None and 0 < bias.ndim - stack < rest:
        inputs = rest - (bias.ndim - stack)
    else:
        inputs = 1 if layer in _TO_HEADS else rest - 1
    return Kernel("/".join(path), tuple(shape), stack, inputs)


def _chosen(there: Mapping[str, Kernel], at: Sequence[str], rank: int) -> list[Kernel]:
    """The kernels whose paths have one of the patterns."""
    if isinstance(at, str):
        raise ValueError(f"patterns of paths are a sequence: write ({at!r},)")
    if not at:
        raise ValueError("adapters need at least one pattern of paths")
    for pattern in at:
        if not any(re.search(pattern, path) for path in there):
            raise ValueError(unknown("path of kernels that get adapters", pattern, there))
    found = [k for path, k in there.items() if any(re.search(pattern, path) for pattern in at)]
    for kernel in found:
        rows, columns = kernel.sizes()
        if rank > min(rows, columns):
            raise ValueError(
                f"adapters of rank {rank} are not low-rank for {kernel.path}, a matrix of {rows} x "
                f"{columns}: take at most {min(rows, columns)}, or leave it out of the patterns"
            )
    return found


def _pair(
    key: jax.Array, kernel: Kernel, rank: int, basis: Basis | None, dtype: Any
) -> dict[str, jax.Array]:
    rolled, cut = kernel.rolled(), kernel.stack + kernel.inputs
    front = rolled[: kernel.stack]
    rows, columns = kernel.sizes()
    shapes = {"down": (*rolled[:cut], rank), "up": (*front, rank, *rolled[cut:])}
    found = {part: jnp.zeros(shape, dtype) for part, shape in shapes.items()}
    if basis is None:
        bound = rows**-0.5
        found["down"] = jax.random.uniform(key, shapes["down"], dtype, -bound, bound)
        return found
    own = (rows, rank) if basis == "down" else (rank, columns)
    keys = jax.random.split(key, math.prod(front))
    drawn = jax.vmap(lambda one: jax.nn.initializers.orthogonal()(one, own, dtype))(keys)
    return {**found, basis: drawn.reshape(shapes[basis])}


def _shape(path: Path, pair: Mapping[str, Any], rank_of_kernel: int) -> tuple[int, ...] | None:
    """The shape of the kernel that a pair is for, if there is one of so many axes."""
    down, up = pair["down"].shape, pair["up"].shape
    stack = len(down) + len(up) - 2 - rank_of_kernel
    if not 0 <= stack < min(len(down), len(up)) or (*down[:stack], down[-1]) != up[: stack + 1]:
        return None
    own = (*down[stack:-1], *up[stack + 1 :])
    return (*down[:stack], *((own[-1], *own[:-1]) if _outputs_first(path[-1]) else own))


def _added(path: Path, kernel: jax.Array, pair: Mapping[str, jax.Array], scale: Any) -> jax.Array:
    wide = wide_dtype(kernel)
    down, up = pair["down"].astype(wide), pair["up"].astype(wide)
    stack = stack_of(pair, kernel)
    front, rank = down.shape[:stack], down.shape[-1]
    change = jnp.matmul(
        down.reshape(*front, -1, rank),
        up.reshape(*front, rank, -1),
        precision=jax.lax.Precision.HIGHEST,
    ).reshape(*down.shape[:-1], *up.shape[stack + 1 :])
    change = jnp.moveaxis(change, -1, stack) if _outputs_first(path[-1]) else change
    return (kernel.astype(wide) + scale * change).astype(kernel.dtype)


def stack_of(pair: Mapping[str, Any], kernel: Any) -> int:
    """How many axes in front of a pair, and of its kernel, number matrices of their own."""
    return pair["down"].ndim + pair["up"].ndim - 2 - kernel.ndim
