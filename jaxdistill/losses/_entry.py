"""The card of a loss: what the contract suite checks and the table in the documentation says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PER_EXAMPLE = "per example"
"""The loss gives one value for each example."""
PER_TOKEN = "per token"
"""The loss gives one value for each token."""
BATCH = "batch"
"""The loss gives one scalar for the batch."""

# The hard inputs of the contract suite; ``Entry.hard`` says what is not simply finite there.
HARD = (
    "large",  # logits (or features) times 200
    "saturated",  # a student that is certain, and wrong
    "ruled out",  # -inf in the teacher (only where ``accepts_neginf``)
    "zero rows",  # an all-zero row in student and teacher
    "duplicates",  # two equal rows in student and teacher
    "single",  # a batch of one
    "equal",  # the student equals the teacher
    "masked",  # where = all False (batch-coupled losses)
    "padding",  # rows of NaN under where (batch-coupled losses)
    "bf16",  # bfloat16 inputs
)
"""The names of the hard inputs."""


class Entry(NamedTuple):
    """Everything the contract suite and the table need to know about one loss.

    Attributes:
        loss: the function.
        family: ``"logits"``, ``"tokens"``, ``"features"``, ``"attention"``, ``"relations"``,
            ``"contrastive"``, ``"information"``, ...
        kind: ``"per example"``, ``"per token"`` or ``"batch"``; a batch loss returns a scalar and
            takes ``where``.
        formula: the formula in one short line.
        normaliser: what the value is divided or multiplied by.
        make: ``make(key, dtype) -> (args, kwargs)``: a small sample, random and generic (no ties,
            no zeros). Arrays that carry the batch lead with it; hyper-parameters go into kwargs.
        paper: author, year and title or arXiv number.
        equal_to: pairs (public code, keywords under which the value is the same).
        invariances: in words, for the table.
        hard: hard input -> declared outcome: a number (that value, everywhere), ``"infinite"`` or
            ``"refused"`` (a ValueError). What is not named is finite. Gradients are finite in every
            case but ``"refused"``.
        remarks: on hard values, in words, for the table.
        student: positions of the arguments that are trained; gradients are checked there.
        teacher: position of the argument that pairs with ``student[0]``, or None.
        batched: positions of the arguments that lead with the batch; None means all of them.
        group: how many rows of the batch make one example (the views of an image, side by side).
        scores: the student's and the teacher's last axis holds logits.
        zero_at_equality: the value is zero, and least, where the teacher equals the student.
        shift_invariant: adding a constant to the student's scores of an example changes nothing.
        permutation: permuting the examples permutes the values (or leaves the batch value as it
            is).
        order: how often derivatives agree with finite differences: 2; 1 where there are kinks or
            the second order is refused; 0 where the formula stops a gradient.
        accepts_neginf: ``-inf`` in the teacher means a class it rules out.
        outputs: picks the loss out of what the function returns (identity for all but stateful
            losses).
    """

    loss: Callable[..., Any]
    family: str
    kind: str
    formula: str
    normaliser: str
    make: Callable[[jax.Array, Any], tuple[tuple, dict]]
    paper: str = ""
    equal_to: tuple[tuple[str, str], ...] = ()
    invariances: str = ""
    hard: Mapping[str, float | str] = {}
    remarks: str = ""
    student: tuple[int, ...] = (0,)
    teacher: int | None = 1
    batched: tuple[int, ...] | None = None
    group: int = 1
    scores: bool = False
    zero_at_equality: bool = False
    shift_invariant: bool = False
    permutation: bool = True
    order: int = 2
    accepts_neginf: bool = False
    outputs: Callable[[Any], jax.Array] = lambda result: result
    label: str = ""  # tells two entries of one function apart (a keyword variant)

    @property
    def name(self) -> str:
        """The name of the loss, with the variant where there is one."""
        return f"{self.loss.__name__}[{self.label}]" if self.label else self.loss.__name__


def scores(
    *,
    labels: bool = False,
    teacher: str | None = "logits",
    shape: tuple[int, ...] = (4, 5),
    **kwargs: Any,
) -> Callable:
    """Builds ``make`` for losses of logits: (student, teacher), (student, teacher, labels),
    (student, labels).

    Args:
        labels: whether integer labels follow.
        teacher: ``"logits"``, ``"probabilities"`` or None (no second argument).
        shape: of the logits, classes last.
        **kwargs: hyper-parameters of the sample call.
    """

    def make(key: jax.Array, dtype: Any) -> tuple[tuple, dict]:
        keys = jax.random.split(key, 3)
        args = [2 * jax.random.normal(keys[0], shape, dtype)]
        if teacher is not None:
            second = 2 * jax.random.normal(keys[1], shape, dtype)
            args.append(jax.nn.softmax(second) if teacher == "probabilities" else second)
        if labels:
            args.append(jax.random.randint(keys[2], shape[:-1], 0, shape[-1], jnp.int32))
        return tuple(args), dict(kwargs)

    return make


def features(*shapes: tuple[int, ...], **kwargs: Any) -> Callable:
    """Builds ``make`` for losses of feature arrays: one normal array per shape.

    Args:
        *shapes: of the positional arguments, batch first.
        **kwargs: hyper-parameters of the sample call.
    """

    def make(key: jax.Array, dtype: Any) -> tuple[tuple, dict]:
        keys = jax.random.split(key, len(shapes))
        return tuple(
            jax.random.normal(k, shape, dtype) for k, shape in zip(keys, shapes, strict=True)
        ), dict(kwargs)

    return make
