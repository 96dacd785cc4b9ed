"""How far a run is: one refreshing line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import jax


class Progress:
    """Shows how far a run is, how fast it goes, when it will end, and its latest metrics.

    On a terminal it is a bar that refreshes in place; in a file or a notebook it is a plain line
    every ten seconds and one at the end. The rate counts the steps of this run alone, not those
    done before it was resumed, and leaves the first step out, which compiles. Only the first of
    several processes shows anything.

    Args:
        total: the steps of the whole run.
        label: what is running.
        start: how many steps were done before.
        batch_size: examples in a step; given, examples a second are shown too.
        quiet: whether to show nothing.
        stream: where to, standard error by default.
        every: seconds between plain lines.
        clock: seconds that only go up.

    Example:
        >>> with Progress(2, label="teacher", stream=sys.stdout) as progress:
        ...     for step in (1, 2):
        ...         progress.update(step, {"loss": 0.5})
        teacher: 2/2 steps, ... loss 0.5
    """

    def __init__(
        self,
        total: int,
        *,
        label: str,
        start: int = 0,
        batch_size: int | None = None,
        quiet: bool = False,
        stream: TextIO | None = None,
        every: float = 10.0,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._total, self._label, self._batch_size = total, label, batch_size
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet or jax.process_index() != 0
        self._every, self._clock = every, clock
        self._step, self._metrics, self._written = start, {}, False
        self._begun = self._last = clock()
        self._first: tuple[int, float] | None = None
        self._bar: Any = None
        if not self._quiet and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=start,
                desc=label,
                unit="step",
                dynamic_ncols=True,
                file=self._stream,
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *fault: Any) -> None:
        self.close()

    def update(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Says that so many steps are done; without new metrics the last ones stay."""
        if self._quiet:
            return
        now = self._clock()
        done, self._step, self._written = step - self._step, step, False
        if self._first is None:
            self._first = (step, now)
        self._metrics = dict(metrics) if metrics else self._metrics
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(self._facts()), refresh=False)
            self._bar.update(done)
        elif now - self._last >= self._every:
            self._write(now)

    def close(self) -> None:
        """Ends the display; the last state stays visible."""
        if self._bar is not None:
            self._bar.close()
        elif not self._quiet and not self._written and self._first is not None:
            self._write(self._clock())

    def _write(self, now: float) -> None:
        facts = [f"{self._step}/{self._total} steps", duration(now - self._begun)]
        if (rate := self._rate(now)) is not None:
            facts.append(f"{_short(rate)} steps/s")
            if self._step < self._total:
                facts.append(f"{duration((self._total - self._step) / rate)} left")
        print(f"{self._label}: {', '.join(facts + self._facts())}", file=self._stream, flush=True)
        self._last, self._written = now, True

    def _facts(self) -> list[str]:
        facts = [f"{name} {value:.4g}" for name, value in self._metrics.items()]
        rate = self._rate(self._clock())
        if self._batch_size is not None and rate is not None:
            facts.insert(0, f"{_short(rate * self._batch_size)} examples/s")
        return facts

    def _rate(self, now: float) -> float | None:
        if self._first is None or self._step == self._first[0] or now <= self._first[1]:
            return None
        return (self._step - self._first[0]) / (now - self._first[1])


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def duration(seconds: float) -> str:
    """Seconds as people say them.

    Example:
        >>> duration(0.25), duration(75), duration(7500)
        ('0.2 s', '1 min 15 s', '2 h 05 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
