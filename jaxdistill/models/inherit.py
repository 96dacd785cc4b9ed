"""Students that start from their teacher: some of its layers, some of its units, or all of them
several times over.

Pure functions from a tree of parameters to another one, for :class:`TextEncoder`, :class:`ViT` and
:class:`Decoder`, unrolled or scanned.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxdistill._errors import unknown
from jaxdistill.models.decoder import Decoder
from jaxdistill.models.layouts import stack_blocks, unstack_blocks
from jaxdistill.models.text_encoder import TextEncoder
from jaxdistill.models.vit import ViT

_LAYER = re.compile(r"(block|layers)_(\d+)")

# By the number of layers there and here: which of the teacher's the student's layers are.
CHOICES: dict[str, Callable[[int, int], Sequence[int]]] = {
    "first": lambda there, here: range(here),
    "last": lambda there, here: range(there - here, there),
    "spread": lambda there, here: np.rint(np.linspace(0, there - 1, here)).astype(int).tolist(),
    "every_second": lambda there, here: range(0, there, 2),
    "every_third": lambda there, here: range(0, there, 3),
}

# What the axes of an array are made of, from the last one back: names of units, numbers, and "_"
# for what is never cut. Units of one name are kept or dropped together: those of the width in the
# whole net, all others within their block.
_AXES = (
    (r"(words|places|kinds)/embedding|embed_(tokens|positions)/embedding", "_ width"),
    (r"(.*/)?pos_embed", "_ width"),
    (r"(.*/)?(cls_token|distillation_token|registers)", "_ _ width"),
    (r"(.*/)?patch_embed/kernel", "_ width"),
    (r"(.*/)?(patch_embed|pooler|dense|attn/proj|fc2)/bias", "width"),
    (r"(.*/)?(norm|norm1|norm2|head_norm|scale1|scale2)/(scale|bias)", "width"),
    (r"(.*/)?(input|(pre|post)_\w+)_layernorm/(scale|bias)", "width"),
    (r"(pooler|dense)/kernel", "width width"),
    (r"head/kernel", "(pooled width) _"),
    (r"(lm_head|head_distilled|.*/router)/kernel", "width _"),
    (r".*/attn/qkv/kernel", "width (3 heads head_width)"),
    (r".*/attn/qkv/bias", "(3 heads head_width)"),
    (r".*/attn/proj/kernel", "(heads head_width) width"),
    (r".*/fc1/kernel|.*/(gate|up)_proj/kernel", "width neurons"),
    (r".*/(fc1|gate_proj|up_proj)/bias", "neurons"),
    (r".*/(o_proj|down_proj)/bias", "width"),
    (r".*/fc2/kernel|.*/down_proj/kernel", "neurons width"),
    (r".*/self_attn/q_proj/kernel", "width (groups queries 2 half_width)"),
    (r".*/self_attn/q_proj/bias", "(groups queries 2 half_width)"),
    (r".*/self_attn/[kv]_proj/kernel", "width (groups 2 half_width)"),
    (r".*/self_attn/[kv]_proj/bias", "(groups 2 half_width)"),
    (r".*/self_attn/o_proj/kernel", "(groups queries 2 half_width) width"),
    (r".*/self_attn/[qk]_norm/scale", "(2 half_width)"),
)


def layers_of(choice: str | Sequence[int], there: int, here: int) -> tuple[int, ...]:
    """Which of a teacher's layers the layers of its student are.

    Args:
        choice: ``"first"``, ``"last"``; ``"spread"``, evenly from the first to the last;
            ``"every_second"``, ``"every_third"``, beginning with the first; or their numbers.
        there: layers of the teacher.
        here: layers of the student.

    Raises:
        ValueError: for an unknown choice, and for layers that are not there or are not as many as
            the student has.

    Example:
        >>> layers_of("every_second", 12, 6), layers_of("spread", 12, 6)
        ((0, 2, 4, 6, 8, 10), (0, 2, 4, 7, 9, 11))
    """
    if isinstance(choice, str):
        if choice not in CHOICES:
            raise ValueError(unknown("choice of layers", choice, CHOICES))
        if here > there:
            raise ValueError(
                f"layers={choice!r}: the student has {here} layers, its teacher {there}"
            )
        chosen = tuple(CHOICES[choice](there, here))
    else:
        chosen = tuple(choice)
    if len(chosen) != here:
        raise ValueError(
            f"layers={choice!r} are {len(chosen)} of the teacher's {there}, and the student has "
            f"{here}: name as many, or take 'first', 'last' or 'spread'"
        )
    for number in chosen:
        if not 0 <= number < there:
            raise ValueError(f"layers={choice!r}: the teacher's layers are 0 to {there - 1}")
    return chosen


def take_layers(params: Any, layers: Sequence[int]) -> Any:
    """Some layers of a tree, renumbered; all else stays as it is.

    Args:
        params: nested dicts with ``block_0``, ``block_1``, ... or ``layers_0``, ...; of several
            such stacks each gives the same layers. Scanned ones are unrolled first, see
            :func:`unstack_blocks`.
        layers: their numbers, in the order of the student's. One may be taken twice.

    Raises:
        ValueError: for a layer that a stack does not have.

    Example:
        >>> sorted(take_layers({"block_0": 1, "block_1": 2, "block_2": 3}, (0, 2)).items())
        [('block_0', 1), ('block_1', 3)]
    """
    if not isinstance(params, Mapping):
        return params
    stacks: dict[str, set[int]] = {}
    found = {}
    for name, value in params.items():
        if match := _LAYER.fullmatch(name):
            stacks.setdefault(match[1], set()).add(int(match[2]))
        else:
            found[name] = take_layers(value, layers)
    for kind, numbers in stacks.items():
        for place, number in enumerate(layers):
            if number not in numbers:
                raise ValueError(
                    f"there is no {kind}_{number} among {kind}_{min(numbers)} to "
                    f"{kind}_{max(numbers)}"
                )
            found[f"{kind}_{place}"] = params[f"{kind}_{number}"]
    return found


def inherit(
    params: Any,
    teacher: nn.Module,
    student: nn.Module,
    *,
    layers: str | Sequence[int] = "spread",
    scores: Mapping[str, jax.Array] | None = None,
) -> Any:
    """What a student of fewer layers and fewer units starts from: a part of its teacher.

    Where the student has fewer units of a kind than its teacher (channels of the hidden states,
    neurons of an MLP, heads, channels of a head), it takes the first of them, or those of the
    highest score, in their order. All arrays that share units keep the same ones, so that what is
    left computes what it did.

    Args:
        params: of the teacher. What is only the teacher's own, such as another head, is left in.
        teacher: its module, a ``TextEncoder``, ``ViT`` or ``Decoder``.
        student: the student's, of the same kind.
        layers: which of the teacher's layers, see :func:`layers_of`.
        scores: how much units are worth, see :func:`importance`; the first ones are kept without.

    Returns:
        Parameters in the form of the student's, but for what does not follow from its teacher
        (an embedding of another vocabulary, say), which is left as it is.

    Raises:
        ValueError: for modules of a wrong or a different kind, for layers that do not exist, for a
            student with more units than its teacher, naming all kinds, and for fewer units of nets
            whose arrays are made up in other ways (gated MLPs of encoders, narrow embeddings).

    Example:
        >>> teacher = TextEncoder(vocabulary=11, width=8, depth=4, heads=2)
        >>> student = TextEncoder(vocabulary=11, width=8, depth=2, heads=2, hidden=5)
        >>> params = teacher.init(jax.random.key(0), jnp.ones((1, 3), int))["params"]
        >>> small = inherit(params, teacher, student, layers="every_second")
        >>> there, here = params["block_2"]["fc2"]["kernel"], small["block_1"]["fc2"]["kernel"]
        >>> bool((here == there[:5]).all())
        True

    References:
        Sanh et al. DistilBERT, a distilled version of BERT. 2019 (layers).
        Zhang et al. Towards the law of capacity gap in distilling language models. ACL 2025 (a
        student that is pruned from its teacher).
    """
    there, here = _sizes(teacher), _sizes(student)
    if there.keys() != here.keys():
        raise ValueError(
            f"a {type(student).__name__} cannot start from a {type(teacher).__name__}: their "
            "arrays are made up in other ways"
        )
    larger = [f"- {k}: {there[k]} there, {here[k]} here" for k in here if here[k] > there[k]]
    if larger:
        raise ValueError(
            "a student starts from a teacher of at least its size, and this one has more units:\n"
            + "\n".join(larger)
        )
    depth = (teacher.depth, student.depth)  # type: ignore[attr-defined]
    chosen = layers_of(layers if depth[0] != depth[1] else range(depth[0]), *depth)
    found = take_layers(unstack_blocks(params), chosen)
    scores = _renumbered(scores or {}, chosen)
    kept: dict[str, jax.Array] = {}

    def keep(unit: str, name: str) -> jax.Array:
        if unit not in kept:
            order = jnp.arange(there[name])
            if scores and name != "pooled":
                if unit not in scores:
                    raise ValueError(unknown("score of units", unit, scores))
                order = jnp.argsort(-scores[unit])
            kept[unit] = jnp.sort(order[: here[name]])
        return kept[unit]

    flat: dict[str, Any] = traverse_util.flatten_dict(found, sep="/")
    for path, array in flat.items() if here != there else ():
        for axis, factors in _axes(path, array, there):
            inside = [size for _, size in factors]
            array = array.reshape(*array.shape[:axis], *inside, *array.shape[axis + 1 :])
            for place, (name, size) in enumerate(factors):
                if name in here and here[name] < size:
                    array = jnp.take(array, keep(_unit(path, name), name), axis + place)
            inside = math.prod(array.shape[axis : axis + len(factors)])
            array = array.reshape(*array.shape[:axis], inside, *array.shape[axis + len(factors) :])
        flat[path] = array
    found = traverse_util.unflatten_dict(flat, sep="/")
    return stack_blocks(found) if getattr(student, "scan", False) else found


def importance(params: Any, grads: Any, module: nn.Module) -> dict[str, jax.Array]:
    r"""How much every unit of a net is worth to a loss, to first order.

    .. math:: s_u = \sum_{w \in u} \bigl| w \, \partial L / \partial w \bigr|

    over all weights of the unit: about by how much the loss changes without it.

    Args:
        params: of the net.
        grads: of a loss on a small set of records, of the same form.
        module: a ``TextEncoder``, ``ViT`` or ``Decoder``.

    Returns:
        Scores ``[units]``, for the hidden states as ``"width"``, for all others by block, as
        ``"block_0/neurons"``.

    Raises:
        ValueError: for a module of another kind.

    Example:
        >>> net = TextEncoder(vocabulary=11, width=8, depth=1, heads=2)
        >>> params = net.init(jax.random.key(0), jnp.ones((1, 3), int))["params"]
        >>> {unit: score.shape for unit, score in sorted(importance(params, params, net).items())}
        {'block_0/head_width': (4,), 'block_0/heads': (2,), 'block_0/neurons': (32,), 'width': (8,)}

    References:
        Molchanov et al. Importance estimation for neural network pruning. CVPR 2019.
        Michel et al. Are sixteen heads really better than one? NeurIPS 2019.
    """
    sizes = _sizes(module)
    flat: dict[str, Any] = traverse_util.flatten_dict(unstack_blocks(params), sep="/")
    slopes: dict[str, Any] = traverse_util.flatten_dict(unstack_blocks(grads), sep="/")
    found: dict[str, jax.Array] = {}
    for path, array in flat.items():
        wide = jnp.promote_types(array.dtype, jnp.float32)
        worth = jnp.abs(array.astype(wide) * slopes[path].astype(wide))
        for axis, factors in _axes(path, array, sizes):
            inside = [size for _, size in factors]
            split = worth.reshape(*worth.shape[:axis], *inside, *worth.shape[axis + 1 :])
            for place, (name, _) in enumerate(factors):
                if name in sizes and name != "pooled":
                    others = tuple(i for i in range(split.ndim) if i != axis + place)
                    unit = _unit(path, name)
                    found[unit] = found.get(unit, 0) + split.sum(others)
    return found


def upcycle(params: Any, student: Decoder) -> Any:
    """The parameters of a dense decoder for one whose MLPs are mixtures of experts.

    Every expert begins as a copy of the dense MLP. As the shares of the experts that a token goes
    to add up to one, the sparse decoder then computes what the dense one did, whatever its router
    says.

    Args:
        params: of the dense decoder.
        student: the sparse one, ``experts`` above 0.

    Returns:
        The parameters of the sparse one without those of its routers, which start anew.

    Raises:
        ValueError: for a student without experts, and for MLPs that are sparse already.

    Example:
        >>> sparse = Decoder(vocabulary=11, width=8, depth=1, heads=2, experts=4)
        >>> dense = sparse.clone(experts=0).init(jax.random.key(0), jnp.ones((1, 3), int))
        >>> upcycle(dense["params"], sparse)["layers_0"]["mlp"]["up_proj"]["kernel"].shape
        (4, 8, 24)

    References:
        Komatsuzaki et al. Sparse upcycling: training mixture-of-experts from dense checkpoints.
        ICLR 2023.
        Shu et al. LLaVA-MoD: making LLaVA tiny via MoE knowledge distillation. ICLR 2025.
    """
    if not getattr(student, "experts", 0):
        raise ValueError("a dense net is upcycled into one with experts: this one has experts=0")
    found = dict(unstack_blocks(params))
    for index in student.sparse_layers():
        layer = found[f"layers_{index}"]
        if "router" in layer["mlp"]:
            raise ValueError(f"layers_{index}/mlp has a router: it is a mixture of experts already")

        def copies(kernel: jax.Array) -> jax.Array:
            return jnp.broadcast_to(kernel[None], (student.experts, *kernel.shape))

        found[f"layers_{index}"] = {**layer, "mlp": jax.tree.map(copies, layer["mlp"])}
    return stack_blocks(found) if student.scan else found


def _sizes(module: nn.Module) -> dict[str, int]:
    """How many units of each kind a net has."""
    own: Any = module
    if isinstance(module, Decoder):
        groups = own.groups or own.heads
        return {
            "width": own.width,
            "groups": groups,
            "queries": own.heads // groups,
            "half_width": (own.head_width or own.width // own.heads) // 2,
            "neurons": own.neurons(),
        }
    if not isinstance(module, TextEncoder | ViT):
        raise ValueError(
            unknown("net to start from", type(module).__name__, ("Decoder", "TextEncoder", "ViT"))
        )
    text = isinstance(module, TextEncoder)
    return {
        "width": own.width,
        "heads": own.heads,
        "head_width": own.width // own.heads,
        "neurons": (own.hidden or 4 * own.width) if text else int(own.width * own.mlp_ratio),
        "pooled": 2 if not text and own.pool == "cls_mean" else 1,
    }


def _axes(
    path: str, array: Any, sizes: Mapping[str, int]
) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """The axes of an array that hold units: their place, and names and sizes inside."""
    axes = next((axes for pattern, axes in _AXES if re.fullmatch(pattern, path)), "")
    parts = re.findall(r"\([^)]*\)|\S+", axes)
    for axis, part in enumerate(parts, array.ndim - len(parts)):
        if part != "_":
            names = part.strip("()").split()
            factors = [(name, sizes.get(name) or int(name)) for name in names]
            if math.prod(size for _, size in factors) != array.shape[axis]:
                raise ValueError(
                    f"{path}: its axis of {array.shape[axis]} is not made up of "
                    f"{' times '.join(f'{size} {name}' for name, size in factors)}: units of such "
                    "a net cannot be taken, layers can"
                )
            yield axis, factors


def _unit(path: str, name: str) -> str:
    """The kind of units by which a score goes: the width is one of the whole net."""
    block = re.match(r"(.*/)?(block|layers)_\d+", path)
    return f"{block[0]}/{name}" if block and name != "width" else name


def _renumbered(scores: Mapping[str, jax.Array], layers: Sequence[int]) -> dict[str, jax.Array]:
    """The scores of a teacher's blocks under the numbers of the student's."""
    found = {unit: score for unit, score in scores.items() if not _LAYER.search(unit)}
    for unit, score in scores.items():
        if match := _LAYER.search(unit):
            for place, number in enumerate(layers):
                if int(match[2]) == number:
                    found[unit.replace(match[0], f"{match[1]}_{place}", 1)] = score
    return found
