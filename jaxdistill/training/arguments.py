"""What :func:`~jaxdistill.training.fit.fit` is given, held against what it needs."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdistill._errors import listed
from jaxdistill.data.arrays import arrays
from jaxdistill.data.records import Source
from jaxdistill.data.split import Splits
from jaxdistill.data.stream import Stream, stream
from jaxdistill.distiller import Distiller
from jaxdistill.losses._labels import labels_of, watched_labels
from jaxdistill.net import Trained, described, foreign, variables_of
from jaxdistill.settings import Count, Natural, fault
from jaxdistill.training.sharding import path_name

_DATA = (
    "{'image': array, 'label': array, ...} with records on the first axis, a source, or a stream"
)


def check_distiller(given: Any) -> None:
    """Refuses what is no distiller."""
    if not isinstance(given, Distiller):
        raise TypeError(
            f"distiller must be a Distiller, which model_to_model(student, targets, objective, tx) "
            f"makes, not {described(given)}"
        )


def check_numbers(**given: Any) -> None:
    """Refuses lengths, sizes and seeds that are no whole numbers, or too small.

    Example:
        >>> check_numbers(steps=2.5)
        Traceback (most recent call last):
        ValueError: steps=2.5 must be a whole number, 1 or more
    """
    for name, value in given.items():
        if (wrong := fault(value, Natural if name == "seed" else Count)) is not None:
            raise ValueError(f"{name}={value!r} {wrong}")


def variables(name: str, given: Any) -> dict[str, Any]:
    """Variables by name, each trees of arrays.

    Args:
        name: of the argument.
        given: what it was.

    Raises:
        TypeError: naming the entry, what it is and what is wanted.
    """
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{name} must be a dict of variables by name, {{'teacher': (params, state)}}, not "
            f"{described(given)}"
        )
    for key, tree in given.items():
        where = f"{name}[{key!r}]"
        if isinstance(tree, Trained) or foreign(tree):
            variables_of(where, tree)
        if isinstance(tree, Mapping) and "params" in tree:
            variables_of(where, tree)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if not hasattr(leaf, "dtype") and not isinstance(leaf, numbers.Number):
                raise TypeError(
                    f"{where} must be arrays, such as (params, state), and holds "
                    f"{described(leaf)} at {path_name(path)!r}"
                )
    return dict(given)


def as_data(data: Any) -> Any:
    """A source of arrays; sources, streams, functions to streams and None stay as they are.

    Raises:
        TypeError: for what cannot be data.
        ValueError: for arrays that are no records.
    """
    if isinstance(data, Splits):
        raise TypeError(f"data is several sets, {listed(list(data))}: give one, data['train'] say")
    if isinstance(data, Mapping):
        return arrays({name: _array(name, value) for name, value in data.items()}, name="data")
    known = data is None or isinstance(data, Source) or hasattr(data, "at")
    if known or (callable(data) and not isinstance(data, type)):
        return data
    if hasattr(data, "columns"):
        raise TypeError(
            f"data must be {_DATA}, not a {type(data).__name__}: give its columns, "
            "{name: data[name].to_numpy()}"
        )
    raise TypeError(f"data must be {_DATA}, not {described(data)}")


def as_stream(source: Source, batch_size: int | None, seed: int) -> Stream:
    """The batches of records, shared out among the processes.

    Raises:
        ValueError: for a batch of more records than there are.
    """
    if batch_size is not None and batch_size > len(source):
        raise ValueError(
            f"batch_size={batch_size} is more than there are records: the data has {len(source)}"
        )
    shard = (jax.process_index(), jax.process_count())
    return stream(source, batch_size or min(128, len(source)), seed=seed, shard=shard)


def told_apart(
    distiller: Distiller, frozen: Mapping[str, Any], initial: Mapping[str, Any], batch: Any
) -> int | None:
    """How many classes the losses of a step tell apart by the ``label`` of a batch; None where no
    loss takes it as it is. A step that cannot be traced says so where it is checked."""
    found: set[int] = set()

    def step(batch: Any) -> None:
        with watched_labels() as watched:
            labels_of(batch)
            state = distiller.init(jax.random.key(0), {**frozen, **initial}, batch)
            distiller.step(state, frozen, batch)
        own = {id(labels) for labels in watched.of_batch}
        found.update(classes for labels, classes in watched.given if id(labels) in own)

    with contextlib.suppress(Exception):
        jax.eval_shape(step, batch)
    return min(found, default=None)


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as wrong:
        raise ValueError(f"{name!r} of the data makes no array: {wrong}") from wrong


def check_host_work(evaluations: Any, between: Any) -> None:
    """Refuses what is neither evaluations nor work between steps."""
    from jaxdistill.training.stage import Evaluation

    given = evaluations if isinstance(evaluations, Sequence) else [evaluations]
    for each in given:
        if not isinstance(each, Evaluation):
            raise TypeError(
                "evaluations must be a list of Evaluation(set, evaluator, data), and has "
                f"{described(each)}"
            )
    if given is not evaluations:
        raise TypeError("evaluations must be a list: write [evaluation]")
    if between is None:
        return
    pair = isinstance(between, tuple) and len(between) == 2 and callable(between[1])
    if not pair or fault(between[0], Count) is not None:
        raise TypeError(f"between must be (every so many steps, function), not {between!r}")


@contextlib.contextmanager
def explained(held: Any, frozen: Mapping[str, Any]) -> Iterator[None]:
    """Says of entries and arguments that functions of the user miss what they were given.

    Raises:
        ValueError: for an entry that neither what is frozen nor a batch has.
        TypeError: for a call that failed where something frozen is not ``(params, state)``.
    """
    try:
        yield
    except KeyError as missing:
        batch = held.at(0, 1) if hasattr(held, "at") else {}
        raise ValueError(
            f"there is no {missing}: frozen holds {listed(list(frozen)) or 'nothing'}, a batch of "
            f"the data {listed(list(batch)) or 'nothing'}"
        ) from missing
    except TypeError as wrong:
        odd = [name for name, tree in frozen.items() if isinstance(tree, Mapping)]
        hint = f"frozen[{odd[0]!r}] is {described(frozen[odd[0]])}" if odd else ""
        if not odd or hint in str(wrong):
            raise
        raise TypeError(
            f"{wrong}; {hint}: if these are a net's parameters, give (params, state)"
        ) from wrong
