"""Targets computed within the step: teachers, ensembles, the student's averages, labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.gradients import Whole
from jaxdistill.net import Net, variables_of
from jaxdistill.settings import Count, NonNegative, checked, fault

Targets = Callable[..., dict[str, Any]]


@checked
def live(
    net: Net,
    source: str = "teacher",
    *,
    inputs: str = "image",
    taps: Sequence[str] = (),
    params: Sequence[str] = (),
    mode: Literal["eval", "train"] = "eval",
) -> Targets:
    """The outputs and taps of a net run within the step.

    Nothing flows back into it, and its variables stay what they were. What nobody reads is cut out
    of the compiled step: a teacher tapped at half its depth costs half.

    Args:
        net: the teacher's net; for ``"ema"`` and ``"self"`` the student's own.
        source: whose variables it runs with: a name of ``frozen``, ``"ema"`` (the running average
            of the student) or ``"self"`` (the student as it is).
        inputs: which entry of the batch it sees.
        taps: the features to add to its output.
        params: paths of parameters to add, such as ``stage_1/norm/scale``: each becomes
            ``params/<path>``, a :class:`~jaxdistill.gradients.Whole` as it has no examples.
        mode: ``"eval"``, or ``"train"`` for batch statistics and dropout in the teacher; its
            running statistics do not move in either.

    Returns:
        A function to ``{"out": ..., <tap>: ...}``.

    Raises:
        ValueError: when ``sources`` holds nothing under that name, for a parameter that the net
            does not have, or when ``mode`` is neither of the two.
    """

    def targets(
        sources: Mapping, batch: Mapping, key: jax.Array, step: jax.Array
    ) -> dict[str, Any]:
        own, state = _variables(sources, source)
        rng = key if mode == "train" else None
        forward = net.apply(
            own, state, _input(batch, inputs), taps=tuple(taps), train=mode == "train", rng=rng
        )
        whole = {f"params/{path}": Whole(_parameter(own, path)) for path in params}
        return jax.lax.stop_gradient({"out": forward.out, **forward.taps, **whole})

    return targets


@checked
def ensemble(
    members: Mapping[str, Targets],
    *,
    weights: Mapping[str, NonNegative] | str | None = None,
    average: Literal["probabilities", "logits"] = "probabilities",
) -> Targets:
    """The mean of several teachers' predictions.

    Args:
        members: a target function per teacher, whose ``"out"`` are logits over the same classes.
        weights: one non-negative weight per teacher, made to sum to one; equal by default. Or the
            key of the batch that holds a weight for every sample and teacher, ``[B, M]`` in the
            order of ``members``, made to sum to one over the teachers.
        average: ``"probabilities"`` gives the logarithm of the mean probability, ``"logits"`` the
            mean logit.

    Returns:
        A function to ``{"out": [B, K]}`` and, under ``<member>/<name>``, all that the members give.

    Raises:
        ValueError: for no members or bad weights; when it runs, for outputs of different
            shapes, such as over other vocabularies.
    """
    if not members:
        raise ValueError("an ensemble needs at least one member")
    shares_of = _shares(tuple(members), weights)
    every = merge(members)

    def targets(sources, batch, key, step):
        found = every(sources, batch, key, step)
        shapes = {name: jnp.shape(found[f"{name}/out"]) for name in members}
        if len(set(shapes.values())) > 1:
            raise ValueError(
                "the members of an ensemble must have the same classes (teachers of different "
                f"vocabularies have no mean): their outputs are {shapes}"
            )
        logits = jnp.stack([found[f"{name}/out"] for name in members])
        shares = shares_of(batch).astype(logits.dtype)
        shares = shares.reshape(shares.shape + (1,) * (logits.ndim - shares.ndim))
        if average == "probabilities":
            out = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0, b=shares)
        else:
            out = jnp.sum(shares * logits, axis=0)
        return {"out": out, **found}

    return targets


def _shares(
    members: Sequence[str], weights: Mapping[str, float] | str | None
) -> Callable[[Mapping], jax.Array]:
    """What each member is worth, ``[M]``, or sample by sample ``[M, B]``."""
    if isinstance(weights, str):

        def of_samples(batch):
            given = _input(batch, weights)
            if given.ndim != 2 or given.shape[1] != len(members):
                raise ValueError(
                    f"batch[{weights!r}] must hold a weight for each of {len(members)} members, "
                    f"[B, {len(members)}], got {given.shape}"
                )
            return (given / given.sum(1, keepdims=True)).T

        return of_samples
    weights = dict(weights) if weights is not None else dict.fromkeys(members, 1.0)
    if weights.keys() != set(members):
        raise ValueError(f"weights are given for {sorted(weights)}, members are {sorted(members)}")
    total = sum(weights.values())
    if total <= 0:
        raise ValueError(f"weights must not all be zero, got {weights}")
    shares = [weights[name] / total for name in members]
    return lambda batch: jnp.array(shares)


def labels(key: str = "label") -> Targets:
    """The labels that the batch carries, as ``{"out": batch[key]}``."""
    return lambda sources, batch, _key, step: {"out": _input(batch, key)}


def merge(members: Mapping[str, Targets]) -> Targets:
    """Several targets side by side, each array under ``<member>/<name>``."""

    def targets(sources, batch, key, step):
        found = {}
        for place, (name, member) in enumerate(members.items()):
            own = member(sources, batch, jax.random.fold_in(key, place), step)
            found |= {f"{name}/{inner}": value for inner, value in own.items()}
        return found

    return targets


def snapshot_every(steps: int) -> Callable[[jax.Array], jax.Array]:
    """A decay for the running average that makes it an earlier self: the student as it was at the
    last multiple of ``steps``.

    Example:
        >>> decay = snapshot_every(10)
        >>> float(decay(jnp.array(9))), float(decay(jnp.array(10)))
        (1.0, 0.0)
    """
    if (wrong := fault(steps, Count)) is not None:
        raise ValueError(f"snapshot_every: steps={steps!r} {wrong}")
    return lambda step: jnp.where(step % steps == 0, 0.0, 1.0)


def _variables(sources: Mapping, name: str) -> tuple[Any, Any]:
    if name not in sources:
        raise ValueError(unknown("source of targets", name, sources))
    if sources[name] is None:
        raise ValueError(
            "the run keeps no average of the student: give model_to_model an ema decay"
        )
    return variables_of(f"the variables of {name!r}", sources[name])


def _parameter(params: Any, path: str) -> Any:
    for key in path.split("/"):
        if not isinstance(params, Mapping) or key not in params:
            there = params if isinstance(params, Mapping) else ()
            raise ValueError(unknown(f"parameter of the teacher in {path!r}", key, there))
        params = params[key]
    return params


def _input(batch: Mapping, name: str) -> Any:
    if name not in batch:
        raise ValueError(unknown("key of the batch", name, batch))
    return batch[name]
