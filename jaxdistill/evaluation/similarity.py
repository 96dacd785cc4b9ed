"""How alike the representations of student and teacher are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.evaluation.batches import (
    Evaluator,
    Prepare,
    Read,
    compiled,
    frozen_entry,
    run,
    sweep,
)
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.evaluation.representations import POOLS, Pool, flat
from jaxdistill.losses.kernels import cka_similarity
from jaxdistill.net import Net
from jaxdistill.settings import Count

_similarity = jax.jit(lambda s, t: cka_similarity(s, t, estimator="debiased"))


def cka(
    net: Net,
    teacher: Net | None,
    teacher_name: str = "teacher",
    prepare: Prepare | None = None,
    inputs: str = "image",
    *,
    pairs: Mapping[str, tuple[Read, Read]],
    teacher_inputs: str | None = None,
    pool: Pool = "flatten",
    records: Count = 4096,
) -> Evaluator:
    """Linear centred kernel alignment of student and teacher, debiased: ``cka_<name>``.

    It is computed over all records at once, at the highest matrix precision, and is not drawn
    towards 1 by features of many dimensions as the plain estimate is.

    Args:
        net: the student.
        teacher: the teacher's net. Without one there is nothing to compare, and nothing is
            measured.
        teacher_name: whose weights the teacher runs with: ``frozen[teacher_name]``.
        prepare: ``(batch, key) -> batch`` before either runs, with the same key at every
            evaluation.
        inputs: which entry of the batch the student sees.
        pairs: ``{name: (student, teacher)}``, where each side's features are: a path (``"out"``, a
            tap) or a function of the :class:`~jaxdistill.net.Forward`.
        teacher_inputs: which entry the teacher sees, by default the same.
        pool: what becomes of positions: ``"flatten"``, their ``"mean"``, or the ``"first"``.
        records: the first so many records of the set are used; memory grows with their square.

    Raises:
        ValueError: for bad settings; when it runs, for fewer than four records.

    References:
        Kornblith et al. Similarity of Neural Network Representations Revisited. ICML 2019.
        Murphy et al. Correcting Biased Centered Kernel Alignment Measures in Biological and
        Artificial Neural Networks. 2024 (the debiased estimate).
    """
    if pool not in POOLS:
        raise ValueError(unknown("pool", pool, POOLS))
    if not pairs or any(isinstance(pair, str) or len(pair) != 2 for pair in pairs.values()):
        raise ValueError(f"pairs must be {{name: (student, teacher)}}, got {dict(pairs)}")
    ours, theirs = zip(*pairs.values(), strict=True)

    def step(variables, batch):
        assert teacher is not None
        own = run(net.apply, variables["student"], batch, inputs, *ours)
        other = run(teacher.apply, variables["teacher"], batch, teacher_inputs or inputs, *theirs)
        return jax.tree.map(lambda x: flat(x, pool), [own, other]), batch["where"]

    step = compiled(step, prepare)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        if teacher is None:
            return {}
        variables = {"student": result, "teacher": frozen_entry(frozen, teacher_name)}
        found, count = [], 0
        for sides, where in sweep(step, variables, data):
            found.append(jax.tree.map(lambda x, where=where: x[where], sides))
            count += where.sum()
            if count >= records:
                break
        own, other = jax.tree.map(lambda *x: jnp.asarray(np.concatenate(x)[:records]), *found)
        return {
            f"cka_{name}": float(_similarity(s, t))
            for name, s, t in zip(pairs, own, other, strict=True)
        }

    names = [f"cka_{name}" for name in pairs]
    return measuring(names if teacher is not None else (), evaluator, sweeps=teacher is not None)
