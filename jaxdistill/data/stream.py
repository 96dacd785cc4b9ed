"""Batches in a reproducible order, readable at any step and prefetched from any step.

The order is a function of (seed, epoch) alone and a batch one of (seed, step): a run that stops at
a step and continues from there sees the batches of the unbroken run, and no iterator needs saving.
Threads and prefetching are Grain's.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.data.sources import Records, Source

_END = 2**40  # batches; an endless stream needs an end that fits Grain's range
_MAX_SEED = 2**32
# What a reading thread hands over at once, at most.
_BATCHES_AT_ONCE, _BYTES_AT_ONCE = 32, 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """Batches of a source, without end; made by :func:`stream`.

    Attributes:
        source: where the records come from.
        batch_size: records in a batch over all processes.
        indices: ``step -> [batch_size / processes]``, the positions that this process reads.
        threads: how many threads read ahead; 0 reads when asked.
        prefetch: how many batches are read ahead.
    """

    source: Source
    batch_size: int
    indices: Callable[[int], np.ndarray]
    threads: int = 2
    prefetch: int = 8

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the source."""
        return len(self.source) // self.batch_size

    def at(self, step: int, takes: int = 1) -> Records:
        """The batch of a step.

        Args:
            step: which one, from 0.
            takes: how many consecutive batches one step eats. With more than one, step ``s`` gets
                the batches ``s * takes`` to ``s * takes + takes - 1``, stacked on a new first axis.

        Returns:
            ``{name: array [B, ...]}``, or ``[takes, B, ...]``, B being this process's share of the
            batch.
        """
        if step < 0 or takes < 1:
            raise ValueError(
                f"step must be at least 0 and takes at least 1, not {step} and {takes}"
            )
        if takes == 1:
            return self.source.gather(self.indices(step))
        batches = [self.source.gather(self.indices(step * takes + i)) for i in range(takes)]
        return {key: np.stack([batch[key] for batch in batches]) for key in batches[0]}

    def iterate(self, start: int = 0, takes: int = 1) -> Iterator[Records]:
        """Yields ``at(start)``, ``at(start + 1)``, ..., read ahead by threads, without end."""
        return ahead(lambda step: self.at(step, takes), start, _END, self.threads, self.prefetch)


def stream(
    source: Source,
    batch_size: int,
    *,
    seed: int,
    weights: Any = None,
    order: Literal["shuffled", "given"] = "shuffled",
    threads: int = 2,
    prefetch: int = 8,
    shard: tuple[int, int] = (0, 1),
) -> Stream:
    """Batches of a source, in an order that depends on nothing but the seed.

    Every epoch is a new permutation: any ``len(source)`` consecutive records that start with an
    epoch are all of them. The records left over at its end fill the next batch together with the
    first of the next epoch.

    Args:
        source: where the records come from.
        batch_size: records in a batch over all processes.
        seed: 0 to 2**32 - 1.
        weights: how often records appear: ``[n]`` numbers, one a record, or ``{group: number}``
            over the groups of a concatenated source (the share of each in the mixture, spread
            evenly over its records). Batches are then drawn with replacement. The weights may
            change between steps: make a new stream and continue from the step.
        order: ``"shuffled"``, or ``"given"`` for that of the source, as learning online needs;
            weights draw in no order, and refuse it.
        threads: how many threads read ahead.
        prefetch: how many batches are read ahead.
        shard: which process this is and of how many. Each reads its own slice of every batch.

    Raises:
        ValueError: for a batch larger than the source or that the processes cannot share evenly,
            and for weights that are negative, not finite, all zero, or not one a record or group.

    Example:
        >>> from jaxdistill.data import sources
        >>> batches = stream(sources.digits(), 64, seed=0)
        >>> batches.at(100)["image"].shape, batches.steps_per_epoch
        ((64, 8, 8, 1), 28)
        >>> later = batches.iterate(start=100)
        >>> bool((next(later)["index"] == batches.at(100)["index"]).all())
        True
    """
    process, processes = _checked(source, batch_size, shard)
    if batch_size > len(source):
        raise ValueError(
            f"a batch of {batch_size} is larger than {source.name!r}, which holds {len(source)} "
            "records"
        )
    if order not in ("shuffled", "given"):
        raise ValueError(unknown("order of a stream", order, ("shuffled", "given")))
    if order == "given" and weights is not None:
        raise ValueError("records that are drawn by weights have no order to keep")
    if not 0 <= seed < _MAX_SEED:
        raise ValueError(f"seed must lie in 0..{_MAX_SEED - 1}, not {seed}")
    share = batch_size // processes
    mine = slice(process * share, (process + 1) * share)

    @functools.lru_cache(maxsize=2)
    def permutation(epoch: int) -> np.ndarray:
        if order == "given":
            return np.arange(len(source))
        return np.argsort(_bits(len(source), seed, epoch), kind="stable")

    def consecutive(step: int) -> np.ndarray:
        positions = step * batch_size + np.arange(batch_size)[mine]
        epochs, inside = np.divmod(positions, len(source))
        read = np.empty(share, np.int64)
        for epoch in np.unique(epochs):
            read[epochs == epoch] = permutation(int(epoch))[inside[epochs == epoch]]
        return read

    if weights is None:
        return Stream(source, batch_size, consecutive, threads, prefetch)
    below = np.cumsum(_record_weights(source, weights))
    below /= below[-1]

    def drawn(step: int) -> np.ndarray:
        uniform = (_bits(batch_size, seed, step, 1) >> np.uint64(11)) * 2.0**-53
        return np.searchsorted(below, uniform[mine], side="right")

    return Stream(source, batch_size, drawn, threads, prefetch)


def _bits(size: int, *entropy: int) -> np.ndarray:
    # Raw bits: numpy promises that these never change, which it does not for permutation() and
    # choice().
    return np.random.Philox(np.random.SeedSequence(entropy)).random_raw(size)


def _record_weights(source: Source, weights: Any) -> np.ndarray:
    if isinstance(weights, Mapping):
        groups = source.info.get("groups", ())
        for group in weights:
            if group not in groups:
                raise ValueError(unknown(f"group of {source.name!r}", group, groups))
        sizes = np.array(source.info["group_sizes"])
        values = np.repeat([float(weights.get(group, 0.0)) for group in groups] / sizes, sizes)
    else:
        values = np.asarray(weights, np.float64)
    if values.shape != (len(source),):
        raise ValueError(
            f"{source.name!r} has {len(source)} records but weights have shape {values.shape}"
        )
    if not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise ValueError(
            f"weights must be finite, not negative, and not all zero; they are {weights}"
        )
    return values


def _checked(source: Source, batch_size: int, shard: Sequence[int]) -> tuple[int, int]:
    process, processes = shard
    if not 0 <= process < processes:
        raise ValueError(
            f"shard is (process, processes), with process in 0..processes-1, not {tuple(shard)}"
        )
    if len(source) == 0:
        raise ValueError(f"{source.name!r} is empty")
    if batch_size < 1 or batch_size % processes:
        raise ValueError(
            f"a batch of {batch_size} cannot be shared evenly by {processes} processes"
        )
    return process, processes


def ahead(
    at: Callable[[int], Records], start: int, stop: int, threads: int = 2, prefetch: int = 8
) -> Iterator[Records]:
    """Yields ``at(start)`` to ``at(stop - 1)``, read ahead by Grain's threads.

    Small batches are handed over several at a time: to wake another thread takes longer than to
    read one of digits.
    """
    import grain

    if start >= stop:
        return
    first = at(start)
    yield first
    size = sum(np.asarray(leaf).nbytes for leaf in first.values())
    together = max(1, min(_BATCHES_AT_ONCE, _BYTES_AT_ONCE // max(size, 1))) if threads else 1

    def several(begin: int) -> list[Records]:
        return [at(number) for number in range(begin, min(begin + together, stop))]

    options = grain.ReadOptions(
        num_threads=threads,
        prefetch_buffer_size=max(prefetch // together, threads) if threads else 0,
    )
    blocks = grain.MapDataset.range(start + 1, stop, together).map(several)
    handed = iter(blocks.to_iter_dataset(options))
    try:
        for batches in handed:
            yield from batches
    finally:
        handed.close()


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationBatches:
    """Every record once, in order, as often as asked; made by :func:`evaluation_batches`."""

    source: Source
    batch_size: int
    shard: tuple[int, int] = (0, 1)
    threads: int = 2
    prefetch: int = 8

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def at(self, number: int) -> Records:
        """The batch with this number, ``where`` (bool) being False on padding."""
        share = self.batch_size // self.shard[1]
        positions = number * self.batch_size + self.shard[0] * share + np.arange(share)
        where = positions < len(self.source)
        return {**self.source.gather(np.minimum(positions, len(self.source) - 1)), "where": where}

    def __iter__(self) -> Iterator[Records]:
        return ahead(self.at, 0, len(self), self.threads, self.prefetch)


def evaluation_batches(
    source: Source,
    batch_size: int,
    *,
    shard: tuple[int, int] = (0, 1),
    threads: int = 2,
    prefetch: int = 8,
) -> EvaluationBatches:
    """All records once, in order, in batches of one size.

    The last batch is filled up with copies of the last record. ``where`` (bool ``[B]``) is always
    there and False on them: a sum over records must leave those out.

    Args:
        source: where the records come from.
        batch_size: records in a batch over all processes.
        shard: which process this is and of how many.
        threads: how many threads read ahead.
        prefetch: how many batches are read ahead.

    Example:
        >>> from jaxdistill.data import sources
        >>> batches = evaluation_batches(sources.digits(), 1000)
        >>> [int(batch["where"].sum()) for batch in batches]
        [1000, 797]
    """
    _checked(source, batch_size, shard)
    return EvaluationBatches(source, batch_size, tuple(shard), threads, prefetch)  # type: ignore[arg-type]
