"""How far long work is, how fast it goes and when it will end: the one place that shows it.

On a terminal it is a bar that refreshes in place, in a notebook the same as part of the cell's
output, and elsewhere, as in the log of a machine, a plain line every ten seconds.
"""

from __future__ import annotations

import contextlib
import contextvars
import html
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TextIO, TypeVar

T = TypeVar("T")

_SILENT = contextvars.ContextVar("silent", default=False)
# Seconds after which work inside other work is worth a bar, and between two looks of a notebook's.
_LONG, _REFRESH = 1.0, 0.2


@contextlib.contextmanager
def silence(quiet: bool = True) -> Iterator[None]:
    """Shows no progress of what runs inside, if so asked; what is silent already stays so.

    Example:
        >>> with silence(), Progress(1, label="teacher", stream=sys.stdout) as progress:
        ...     progress.update(1)
    """
    token = _SILENT.set(_SILENT.get() or quiet)
    try:
        yield
    finally:
        _SILENT.reset(token)


def shown(
    items: Iterable[T],
    label: str,
    unit: str = "batches",
    total: int | None = None,
    *,
    said: Callable[[T], str] | None = None,
    **how: Any,
) -> Iterator[T]:
    """The items one after another, with progress as soon as they take long.

    Args:
        items: what is worked through.
        label: what is done.
        unit: what the items are, in the plural.
        total: how many there are, where ``items`` does not say so itself.
        said: what to say of an item that begins; given, each begins with a line.
        **how: ``stream``, ``every`` and ``clock`` of :class:`Progress`.

    Example:
        >>> sum(shown([1, 2, 3], "hash data", "files"))
        6
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with Progress(total, label=label, unit=unit, inner=True, **how) as progress:
        for number, item in enumerate(items, 1):
            if said is not None:
                progress.begin(said(item))
            yield item
            progress.update(number)


class Progress:
    """Shows how far a run is, how fast it goes, when it will end, and its latest metrics.

    The rate counts what this run has done itself, not what was done before it was resumed; of steps
    the first, which compiles, is left out. Only the first of several processes shows anything, and
    nothing is shown inside :func:`silence`.

    Args:
        total: the steps of the whole run, or None if nobody knows.
        label: what is running.
        start: how many steps were done before.
        unit: what a step is called, in the plural.
        batch_size: examples in a step; given, examples a second are shown too.
        inner: whether it is part of a larger work: it appears when it takes long, and leaves
            nothing on the screen.
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
        total: int | None,
        *,
        label: str,
        start: int = 0,
        unit: str = "steps",
        batch_size: int | None = None,
        inner: bool = False,
        stream: TextIO | None = None,
        every: float = 10.0,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.total, self.step, self.label = total, start, label
        self._unit, self._batch_size, self._clock = unit, batch_size, clock
        self._metrics: Mapping[str, float] = {}
        self._now = ""
        self._begun = clock()
        self._first = None if unit == "steps" else (start, self._begun)
        self._display: _Display | None = None
        if _SILENT.get() or not _speaks():
            return
        to: TextIO = sys.stderr if stream is None else stream
        if stream is None and _in_kernel():
            self._display = _Cell(self._begun, inner)
        elif to.isatty():
            self._display = _Bar(self, unit, inner, to)
        else:
            self._display = _Lines(self._begun, every, inner, to)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *fault: Any) -> None:
        self.close()

    def update(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Says that so many steps are done; without new metrics the last ones stay."""
        if self._display is None:
            return
        now = self._clock()
        self.step = step
        if self._first is None:
            self._first = (step, now)
        self._metrics = dict(metrics) if metrics else self._metrics
        self._display.show(self, now)

    def begin(self, what: str) -> None:
        """Says what is worked on now."""
        self._now = what
        if self._display is not None:
            self._display.begin(self, self._clock())

    def close(self) -> None:
        """Ends the display; the last state of a run stays visible."""
        if self._display is not None:
            self._display.close(self, self._clock())

    def line(self, now: float) -> str:
        """All that is known at a time, as a line of text."""
        of = "" if self.total is None else f"/{self.total}"
        facts = [f"{self.step}{of} {self._unit}", duration(now - self._begun)]
        if (rate := self._rate(now)) is not None:
            facts.append(_rated(rate, self._unit))
            if self.total is not None and self.step < self.total:
                facts.append(f"{duration((self.total - self.step) / rate)} left")
        return f"{self.label}: {', '.join(facts + self.facts(now))}"

    @property
    def named(self) -> bool:
        """Whether it is said what is worked on."""
        return bool(self._now)

    def facts(self, now: float) -> list[str]:
        """What is known besides step, time and rate."""
        facts = [f"{name} {value:.4g}" for name, value in self._metrics.items()]
        if self._now and self.step != self.total:
            facts.append(self._now)
        rate = self._rate(now)
        if self._batch_size is not None and rate is not None:
            facts.insert(0, f"{_short(rate * self._batch_size)} examples/s")
        return facts

    def _rate(self, now: float) -> float | None:
        if self._first is None or self.step == self._first[0] or now <= self._first[1]:
            return None
        return (self.step - self._first[0]) / (now - self._first[1])


# --- where it is shown ------------------------------------------------------------------------


class _Display(Protocol):
    def begin(self, progress: Progress, now: float) -> None: ...

    def show(self, progress: Progress, now: float) -> None: ...

    def close(self, progress: Progress, now: float) -> None: ...


class _Lines:
    """Plain lines now and then; work inside other work that ends before its first writes none.
    Where each item begins with a line, these are all."""

    def __init__(self, begun: float, every: float, inner: bool, stream: TextIO):
        self._last, self._every, self._stream = begun, every, stream
        self._wanted, self._behind = not inner, False

    def begin(self, progress: Progress, now: float) -> None:
        self._write(progress, now)

    def show(self, progress: Progress, now: float) -> None:
        self._behind = True
        if now - self._last >= self._every and not progress.named:
            self._write(progress, now)

    def close(self, progress: Progress, now: float) -> None:
        if self._wanted and self._behind:
            self._write(progress, now)

    def _write(self, progress: Progress, now: float) -> None:
        print(progress.line(now), file=self._stream, flush=True)
        self._last, self._wanted, self._behind = now, True, False


class _Bar:
    """A bar of a terminal."""

    def __init__(self, progress: Progress, unit: str, inner: bool, stream: TextIO):
        from tqdm import tqdm

        self._bar = tqdm(
            total=progress.total,
            initial=progress.step,
            desc=progress.label,
            unit=f" {unit}",
            dynamic_ncols=True,
            leave=not inner,
            delay=_LONG if inner else 0,
            file=stream,
        )

    def begin(self, progress: Progress, now: float) -> None:
        self._bar.set_postfix_str(", ".join(progress.facts(now)))

    def show(self, progress: Progress, now: float) -> None:
        self._bar.set_postfix_str(", ".join(progress.facts(now)), refresh=False)
        self._bar.update(progress.step - self._bar.n)

    def close(self, progress: Progress, now: float) -> None:
        self._bar.close()


class _Cell:
    """A bar in the output of a notebook's cell, which needs no widgets."""

    def __init__(self, begun: float, inner: bool):
        self._last, self._inner = begun, inner
        self._handle: Any = None

    def begin(self, progress: Progress, now: float) -> None:
        self._draw(progress, now)

    def show(self, progress: Progress, now: float) -> None:
        if now - self._last >= (_REFRESH if self._handle or not self._inner else _LONG):
            self._draw(progress, now)

    def close(self, progress: Progress, now: float) -> None:
        if self._inner and self._handle is not None:
            self._handle.update({"text/plain": "", "text/html": ""}, raw=True)
        elif not self._inner:
            self._draw(progress, now)

    def _draw(self, progress: Progress, now: float) -> None:
        from IPython.display import display

        text = progress.line(now)
        at = "" if progress.total is None else f' value="{progress.step}" max="{progress.total}"'
        bar = f'<progress{at} style="vertical-align: middle"></progress> {html.escape(text)}'
        seen = {"text/plain": text, "text/html": bar}
        if self._handle is None:
            self._handle = display(seen, raw=True, display_id=True)
        else:
            self._handle.update(seen, raw=True)
        self._last = now


def _speaks() -> bool:
    """Whether this is the first of all processes; without JAX there is one."""
    return "jax" not in sys.modules or sys.modules["jax"].process_index() == 0


def _in_kernel() -> bool:
    """Whether this is a notebook's kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def _rated(rate: float, unit: str) -> str:
    """A rate, or its inverse where that is easier to read."""
    return f"{_short(rate)} {unit}/s" if rate >= 0.1 else f"{duration(1 / rate)} each"


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
