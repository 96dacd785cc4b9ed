"""Where a run is watched besides its own files: TensorBoard, Weights & Biases, trackio.

What a run has written into ``metrics.jsonl`` is the truth, and a tracker shows it. When a run is
resumed, a tracker is given all its lines again and passes over those that it holds; so there is
nothing twice and nothing missing, wherever the run was stopped. A tracker that fails is warned
about once, never stops the run, and gets what it lacks at the end of the stage if it can.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdistill._errors import unknown
from jaxdistill._files import write_json
from jaxdistill.training._environment import environment
from jaxdistill.training.metrics import Writer, read_json_lines
from jaxdistill.training.processes import is_first


class About(NamedTuple):
    """What a tracker is told of a run.

    Attributes:
        directory: its working directory.
        part: which of several runs in it this is, for names of files.
        name: what people call it.
        id: what the tracker calls it; the same when it is resumed.
        group: what it belongs to, where there are several.
        facts: its config and environment, plain data.
    """

    directory: Path
    part: str
    name: str
    id: str
    group: str | None
    facts: Mapping[str, Any]


class Row(NamedTuple):
    """What is known of one step: ``step`` counts in its stage, ``place`` over all stages."""

    stage: str
    step: int
    place: int
    values: Mapping[str, float]


class Sink(NamedTuple):
    """An open tracker.

    Attributes:
        row: takes the values of a step; places only grow.
        summary: takes what came out, and pictures uint8 ``[H, W, 3]`` by name, at a place behind
            all rows.
        close: ends it; whether the run failed.
        held: the first place that the tracker does not hold yet.
    """

    row: Callable[[Row], None]
    summary: Callable[[int, Mapping[str, float], Mapping[str, np.ndarray]], None]
    close: Callable[[bool], None]
    held: int = 0


class Tracker:
    """One run at one tracker. Nothing here raises: what fails is warned about once.

    Args:
        name: what the tracker is called.
        begin: opens it.
    """

    def __init__(self, name: str, begin: Callable[[], Sink]):
        self._name, self._begin = name, begin
        self._sink: Sink | None = None
        self._rows: list[Row] = []  # not sent yet, in order; the last may still grow
        self._taken: set[tuple[str, str, int]] = set()
        self._last = 0
        self._failed = self._warned = False
        self._try(lambda sink: None)

    def stage(self, name: str, *, before: int = 0, folder: Path | None = None) -> Writer:
        """What takes the lines of a stage.

        Args:
            name: the stage's.
            before: the steps of all stages before it.
            folder: where the stage is kept: lines that stand there are given first.
        """

        def write(step: int, values: Mapping[str, float], kind: str) -> None:
            if (name, kind, step) in self._taken:
                return
            self._taken.add((name, kind, step))
            named = {tag.replace(":", "/"): value for tag, value in values.items()}
            tagged = {tag if "/" in tag else f"{kind}/{tag}": v for tag, v in named.items()}
            row = Row(name, step, before + step, tagged)
            if self._rows and self._rows[-1].place == row.place:
                row = row._replace(values={**self._rows.pop().values, **tagged})
            self._rows.append(row)
            self._last = max(self._last, row.place)
            if not self._failed:
                self._send(1)

        if folder is not None:
            _replay(write, read_json_lines(folder / "metrics.jsonl"))
        return write

    def end(self, writer: Writer, lines: Iterable[Mapping[str, Any]]) -> None:
        """Sends what is left of a stage, whose lines these are."""
        _replay(writer, lines)
        self._send(0)

    def summary(
        self, values: Mapping[str, float], pictures: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """What came out at the end, and pictures uint8 ``[H, W, 3]`` by name."""

        def send(sink: Sink) -> None:
            if self._last + 1 >= sink.held:
                sink.summary(self._last + 1, values, pictures or {})

        self._try(send)

    def close(self, failed: bool = False) -> None:
        """Ends it; whether the run failed."""
        self._send(0)
        if self._sink is not None:
            self._try(lambda sink: sink.close(failed))

    def _send(self, kept: int) -> None:
        """Sends all rows but the last ones."""

        def send(sink: Sink) -> None:
            while len(self._rows) > kept:
                if self._rows[0].place >= sink.held:
                    sink.row(self._rows[0])
                del self._rows[0]

        self._try(send)

    def _try(self, action: Callable[[Sink], None]) -> None:
        try:
            if self._sink is None:
                self._sink = self._begin()
            action(self._sink)
            self._failed = False
        except Exception as fault:
            self._failed = True
            if not self._warned:
                self._warned = True
                said = str(fault).strip() or type(fault).__name__
                logging.warning("%s fails, the run goes on without it: %s", self._name, said)


@contextlib.contextmanager
def watched(
    names: Sequence[str],
    directory: Path | str,
    *,
    config: Mapping[str, Any] | None = None,
    part: str = "",
) -> Iterator[tuple[Tracker, ...]]:
    """Opens trackers for a run, and closes them when it ends; only the first of several processes
    has any.

    Args:
        names: ``"tensorboard"``, which writes into ``tensorboard/`` of the directory; ``"wandb"``,
            in project ``WANDB_PROJECT`` or ``jaxdistill``, with its own files in ``wandb/``;
            ``"trackio"``, in project ``TRACKIO_PROJECT`` or ``jaxdistill``.
        directory: the working directory. Its name is that of the run, and ``tracking.json`` in it
            keeps the id under which a resumed run goes on.
        config: what the run was made from.
        part: which of several runs in the directory it is.

    Raises:
        ValueError: for an unknown tracker.
        ImportError: for one that is not installed, naming the extra.

    Example:
        >>> with watched((), "runs/first") as trackers:
        ...     trackers
        ()
    """
    check(names)
    names = names if is_first() else ()
    about = _about(Path(directory), config or {}, part) if names else None
    opened = [Tracker(name, functools.partial(TRACKERS[name], about)) for name in names]
    failed = True
    try:
        yield tuple(opened)
        failed = False
    finally:
        for tracker in opened:
            tracker.close(failed)


def check(names: Sequence[str]) -> None:
    """Refuses trackers that cannot be used here.

    Raises:
        ValueError: for an unknown one.
        ImportError: for one that is not installed, naming the extra.

    Example:
        >>> check(["tensorbord"])
        Traceback (most recent call last):
        ValueError: unknown tracker 'tensorbord'...
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(unknown("tracker", name, TRACKERS))
        if importlib.util.find_spec(_PACKAGES.get(name, name)) is None:
            raise ImportError(f'{name} needs: pip install "jaxdistill[{name}]"')


def sheet(rows: Iterable[Any], height: int = 64) -> np.ndarray:
    """Rows of images as one picture, uint8 ``[H, W, 3]``; small ones are enlarged.

    Args:
        rows: images ``[columns, H, W, 1 or 3]`` in [0, 1], row by row.
        height: pixels that an image should be high at least.

    Example:
        >>> sheet([np.zeros((3, 8, 8, 1)), np.ones((2, 8, 8, 1))]).shape
        (128, 192, 3)
    """
    drawn = []
    for row in rows:
        images = np.clip(np.nan_to_num(np.asarray(row, np.float32)), 0, 1)
        times = -(-height // images.shape[1])
        large = images.repeat(times, 1).repeat(times, 2)
        wide = np.concatenate(list(large), 1)
        drawn.append(np.broadcast_to(wide, (*wide.shape[:2], 3)))
    width = max(wide.shape[1] for wide in drawn)
    padded = [
        np.pad(w, ((0, 0), (0, width - w.shape[1]), (0, 0)), constant_values=1) for w in drawn
    ]
    return (np.concatenate(padded) * 255).round().astype(np.uint8)


def _replay(write: Writer, lines: Iterable[Mapping[str, Any]]) -> None:
    for line in lines:
        values = {name: value for name, value in line.items() if name not in ("step", "kind")}
        write(line["step"], values, line["kind"])


def _about(directory: Path, config: Mapping[str, Any], part: str) -> About:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "tracking.json"
    if not path.exists():
        write_json(path, {"id": secrets.token_hex(4)})
    own = json.loads(path.read_text())["id"]
    slug = re.sub(r"[^a-zA-Z0-9]+", "-", part)
    here = directory.absolute().name
    facts = json.loads(json.dumps({**config, "environment": environment()}, default=str))
    return About(
        directory=directory,
        part=slug,
        name=f"{here}, {part}" if part else here,
        id=f"{own}-{slug}" if part else own,
        group=here if part else None,
        facts=facts,
    )


# --- the trackers -----------------------------------------------------------------------------


def _tensorboard(about: About) -> Sink:
    """A folder of events a stage, written anew whenever the run is resumed: only so nothing in it
    is twice."""
    from tensorboardX import SummaryWriter

    writers: dict[str, Any] = {}

    def writer(stage: str) -> Any:
        if stage not in writers:
            folder = about.directory / "tensorboard" / about.part / stage
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            writers[stage] = SummaryWriter(str(folder))
        return writers[stage]

    def row(row: Row) -> None:
        for name, value in row.values.items():
            writer(row.stage).add_scalar(name, value, row.step)
        writer(row.stage).flush()

    def summary(place: int, values: Any, pictures: Any) -> None:
        own = writer("report")
        own.add_text("results", _table(values))
        own.add_text("config", f"```json\n{json.dumps(about.facts, indent=2)}\n```")
        for name, picture in pictures.items():
            own.add_image(name, picture, dataformats="HWC")
        own.flush()

    def close(failed: bool) -> None:
        for each in writers.values():
            each.close()

    return Sink(row, summary, close)


def _wandb(about: About) -> Sink:
    """A run that is resumed online goes on after the last step there. Offline nobody knows what was
    sent: each process leaves a folder with all of it, and the newest is the one to sync."""
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "jaxdistill"),
        id=about.id,
        name=about.name,
        group=about.group,
        dir=str(about.directory),
        config=dict(about.facts),
        resume="allow",
        reinit="create_new",
        settings=wandb.Settings(console="off"),
    )
    stages: set[str] = set()

    def row(row: Row) -> None:
        if row.stage not in stages:
            stages.add(row.stage)
            run.define_metric(f"{row.stage}/*", step_metric=f"{row.stage}/step")
        run.log(_by_stage(row), step=row.place)

    def summary(place: int, values: Any, pictures: Any) -> None:
        run.summary.update(dict(values))
        if pictures:
            run.log({name: wandb.Image(picture) for name, picture in pictures.items()}, step=place)

    return Sink(row, summary, lambda failed: run.finish(int(failed)), run.starting_step)


def _trackio(about: About) -> Sink:
    """Lies in ``TRACKIO_DIR``, or where trackio keeps its own."""
    import trackio

    run = trackio.init(
        project=os.environ.get("TRACKIO_PROJECT", "jaxdistill"),
        name=f"{about.name} ({about.id})",
        group=about.group,
        config=dict(about.facts),
        resume="allow",
        embed=False,
    )

    def summary(place: int, values: Any, pictures: Any) -> None:
        shown = {name: trackio.Image(picture) for name, picture in pictures.items()}
        run.log({"results": trackio.Markdown(_table(values)), **shown}, step=place)

    return Sink(
        lambda row: run.log(_by_stage(row), step=row.place),
        summary,
        lambda failed: trackio.finish(),
        run._next_step,  # one behind the last that it holds
    )


TRACKERS: Mapping[str, Callable[[Any], Sink]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}
"""What opens each tracker, by its name."""
_PACKAGES = {"tensorboard": "tensorboardX"}


def _by_stage(row: Row) -> dict[str, float]:
    """The values of a row under the name of its stage, whose own step is one of them."""
    return {f"{row.stage}/step": row.step} | {
        f"{row.stage}/{name}": value for name, value in row.values.items()
    }


def _table(values: Mapping[str, float]) -> str:
    """Values as a table of Markdown."""
    rows = (f"| {name} | {value:.5g} |" for name, value in values.items())
    return "\n".join(["| metric | value |", "|---|---|", *rows])
