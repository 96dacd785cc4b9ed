"""Several students of one teacher, each for a part of the conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.distiller import Distiller
from jaxdistill.net import Net
from jaxdistill.samplers.denoisers import noised
from jaxdistill.samplers.distribution_matching import OWN


class Many(NamedTuple):
    """The state of :func:`on_axis`: how many steps were done, and the states of all students on a
    first axis."""

    step: jax.Array
    students: Any


def parts(classes: int, count: int) -> np.ndarray:
    """Which classes each student owns: blocks of neighbours, ``[students, classes of one]``.

    Raises:
        ValueError: if the classes cannot be shared out evenly.

    Example:
        >>> parts(6, 2).tolist()
        [[0, 1, 2], [3, 4, 5]]
    """
    if count < 1 or classes < 1 or classes % count:
        raise ValueError(
            f"{count} students cannot share out {classes} classes evenly: take a number that "
            "divides them, so that every condition has its student"
        )
    return np.arange(classes, dtype=np.int32).reshape(count, -1)


def owned(rows: Mapping[str, Any], own: jax.Array, count: int) -> dict[str, Any]:
    """So many of the rows whose ``label`` is among one's own; where there are fewer they repeat.

    Example:
        >>> rows = {"label": jnp.array([0, 1, 0, 1]), "place": jnp.arange(4)}
        >>> owned(rows, jnp.array([1]), 3)["place"].tolist()
        [1, 3, 1]
    """
    mine = (jnp.asarray(rows["label"])[:, None] == own[None]).any(-1)
    order = jnp.argsort(~mine, stable=True)
    chosen = order[jnp.arange(count) % jnp.maximum(mine.sum(), 1)]
    return {name: jnp.asarray(x)[chosen] for name, x in rows.items()}


def on_axis(
    distiller: Distiller,
    classes: int,
    count: int,
    *,
    stacked: Sequence[str] = (),
    divided: Sequence[str] = (),
) -> Distiller:
    """An algorithm for several students at once, each with its own part of the classes.

    A step is the one of the algorithm over a first axis, so the students may lie on an axis of the
    mesh. Of a batch every student gets its share, the rows with labels of its own; labels that the
    algorithm draws are its own too. With one student it is the algorithm itself, bit for bit.

    Args:
        distiller: the algorithm for one.
        classes: how many conditions there are.
        count: how many students share them out.
        stacked: the entries of the frozen variables with a first axis over the students, such as
            what they start from; they all read the others whole.
        divided: entries that are rows with a ``label``, of which each student sees its own alone.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` whose result has a first axis over the students,
        the variables of :func:`students`; metrics are those of all of them.

    Raises:
        ValueError: for classes that cannot be shared out evenly; when it starts, for a batch
            without labels, or of fewer examples than students.

    References:
        Song et al., Multi-student Diffusion Distillation for Better One-step Generators, ICML 2025.
    """
    own = parts(classes, count)
    several = distiller.takes > 1

    def each(function: Callable[..., Any], args: Any, frozen: Mapping[str, Any], batch: Any) -> Any:
        if "label" not in batch:
            raise ValueError("students share out conditions: the data needs labels, and has none")
        size = batch["label"].shape[int(several)]
        if size < count:
            raise ValueError(f"a batch of {size} cannot be shared out among {count} students")

        def one(args: Any, frozen: Mapping[str, Any]) -> Any:
            def share(batch: Any) -> Any:
                return owned(batch, frozen[OWN], size // count)

            mine = {
                name: owned(frozen[name], frozen[OWN], len(frozen[name]["label"]))
                for name in divided
                if name in frozen
            }
            part = jax.vmap(share)(batch) if several else share(batch)
            return function(*args, {**frozen, **mine}, part)

        axes = {**{name: 0 if name in stacked else None for name in frozen}, OWN: 0}
        return jax.vmap(one, in_axes=(0, axes))(args, {**frozen, OWN: jnp.asarray(own)})

    def init(key, frozen, batch):
        later = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(1, count))
        keys = jnp.concatenate([key[None], later])
        return Many(jnp.zeros((), jnp.int32), each(distiller.init, (keys,), frozen, batch))

    def step(state: Many, frozen, batch):
        states, metrics = each(distiller.step, (state.students,), frozen, batch)
        return Many(state.step + 1, states), jax.tree.map(lambda x: x.sum(0), metrics)

    def result(state: Many) -> Any:
        return distiller.result(state.students)

    return distiller._replace(init=init, step=step, result=result)


def students(net: Net, classes: int, *, count: int, sigma_max: float = 80.0) -> Net:
    """Several nets as one, which sends every example to the student that owns its label.

    All students run on the whole batch, and the answers are chosen from; one that serves a single
    part of the classes runs alone, with the variables that :func:`student_of` gives, at the cost of
    one. A label that no student owns gets no number (nan). Given an array of standard normal noise
    in place of inputs, it samples in one step, one class after another.

    Args:
        net: of one student, with ``label`` among its inputs.
        classes: how many labels there are.
        count: how many students share them out.
        sigma_max: the level of pure noise.

    Raises:
        ValueError: for classes that cannot be shared out evenly; when it runs, for inputs without
            labels.
    """
    block = len(parts(classes, count)[0])

    def asked(inputs: Any) -> Mapping[str, Any]:
        if not isinstance(inputs, Mapping):
            label = jnp.arange(inputs.shape[0]) % classes
            sigma = jnp.full(inputs.shape[:1], sigma_max, inputs.dtype)
            return noised(sigma_max * inputs, sigma, label)
        if "label" not in inputs:
            raise ValueError("which student answers is said by a label: give 'label'")
        return inputs

    def init(key, inputs):
        inputs = asked(inputs)
        return jax.vmap(lambda key: net.init(key, inputs))(jax.random.split(key, count))

    def apply(params, state, inputs, **how):
        inputs = asked(inputs)
        label = inputs["label"]
        known = (label >= 0) & (label < classes)
        owner = jnp.where(known, label // block, 0)

        def chosen(x: jax.Array) -> jax.Array:
            found = x[owner, jnp.arange(owner.shape[0])]
            there = known.reshape(-1, *(1,) * (found.ndim - 1))
            return jnp.where(there, found, jnp.nan)

        said = jax.vmap(lambda params, state: net.apply(params, state, inputs, **how))(
            params, state
        )
        return said._replace(
            out=jax.tree.map(chosen, said.out), taps={k: chosen(x) for k, x in said.taps.items()}
        )

    return Net(init, apply)


def student_of(variables: Any, number: int) -> tuple[Any, Any]:
    """The ``(params, state)`` of one student.

    Raises:
        ValueError: for a number that there is no student of.
    """
    params, state = variables
    count = len(jax.tree.leaves(params)[0])
    if not 0 <= number < count:
        raise ValueError(f"there is no student {number}: the last of {count} is {count - 1}")
    one, kept = jax.tree.map(lambda x: x[number], (params, state))
    return one, kept
