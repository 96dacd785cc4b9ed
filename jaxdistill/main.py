"""Runs the recipe of a config, from data to report.

    python -m jaxdistill.main --config=mae_vitb:small --workdir=runs/mae

The same command resumes a run that was stopped. Every value of the config can be set on the
command line: ``--config.stages.distil.steps=100``. A config of your own is given by its file:
``--config=mine.py:small``.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from logging import Formatter
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags

from jaxdistill._errors import SENTENCES, blamed

CONFIG = flags.DEFINE_string(
    "config", None, "the config: one of the library, mae_vitb:small, or a file, mine.py:small"
)
SETTINGS = flags.DEFINE_multi_string(
    "set",
    [],
    "a value of the config, e.g. --config.stages.distil.steps=100",
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "where checkpoints, metrics, results and the report go"
)
SMOKE = flags.DEFINE_bool("smoke", False, "cut every stage to two steps")
PLAN = flags.DEFINE_bool("plan", False, "print what would be run, and do nothing else")
QUIET = flags.DEFINE_bool("quiet", False, "no progress")
DEBUG = flags.DEFINE_bool("debug", False, "show the whole traceback of an error")
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "this is one of several processes of a run, on several hosts say"
)
TRACK = flags.DEFINE_list(
    "track", [], "where the run is watched besides its report: tensorboard, wandb, trackio"
)


def read_config() -> dict[str, Any]:
    """The config as plain data, varied for its data set, cut for a smoke run."""
    from jaxdistill import config_files
    from jaxdistill.overrides import smoke

    if CONFIG.value is None:
        raise ValueError("which config? Give --config=<system>, and :small for a run of minutes")
    config = config_files.read(CONFIG.value, SETTINGS.value)
    return smoke(config) if SMOKE.value else config


def named(words: Sequence[str]) -> list[str]:
    """The words of a command without the first, which is its config where no flag says so."""
    if words and CONFIG.value is None:
        flags.FLAGS[CONFIG.name].value = words[0]
        return list(words[1:])
    return list(words)


def somewhere(workdir: str | None) -> Path:
    """The working directory, before anything takes time.

    Raises:
        ValueError: where none is given.
    """
    if not workdir:
        raise ValueError("where to? Give --workdir=<folder>")
    return Path(workdir)


def start(workdir: str | None, config: Mapping[str, Any]) -> Path:
    """Makes the working directory, or checks that it was made by the same config.

    Raises:
        ValueError: if it was made by another config; the message lists every value that differs.
        OSError: if it cannot be written.
    """
    from jaxdistill._errors import differences
    from jaxdistill._files import read_sealed, write_sealed
    from jaxdistill.training.processes import is_first

    root = somewhere(workdir)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise OSError(f"the working directory {root} cannot be made: {fault}") from fault
    path = root / "config.json"
    here = json.loads(json.dumps(config))
    if path.exists():
        there = read_sealed(path)
        if faults := differences(there, here):
            raise ValueError(
                f"{root} holds a run of another config:\n"
                + "\n".join(faults)
                + "\nTake another --workdir."
            )
    elif is_first():
        write_sealed(path, here)
    return root


def shown(module: str) -> str:
    """The command that is running, as one would type it."""
    started = ["jaxdistill"] if sys.argv[0] == "jaxdistill" else ["python", "-m", module]
    return shlex.join([*started, *sys.argv[1:]])


def guarded(run: Callable[[], int], extra: Sequence[str] = ()) -> int:
    """Runs a command; what the user can mend is said in one message, without a traceback.

    What that is: the kinds of exceptions in :data:`jaxdistill._errors.SENTENCES`, as which this
    library and the system say what is wrong with a config, a file, a disk or a number, and a device
    whose memory is too small. Where nothing but a config or a file speaks, everything else becomes
    one of these, see :func:`jaxdistill._errors.blamed`. What is left is a fault of this library,
    and shows its traceback.

    Args:
        run: the command; it gives the exit status.
        extra: arguments that are no flags, which it does not take.

    Returns:
        The exit status: 2 for a mistake, 143 and 130 for signals.
    """
    from jaxdistill.progress import silence
    from jaxdistill.training.signals import Stopped, stoppable

    try:
        if extra:
            raise ValueError(f"unexpected arguments {list(extra)}: they are --<name>=<value>")
        with stoppable(), silence(QUIET.value):
            if DISTRIBUTED.value:
                from jaxdistill.training import processes

                processes.join()
            return run()
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return 128 + stop.number
    except BrokenPipeError:
        # Whoever reads what is printed has left, as `head` does: what is still to be flushed goes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as fault:
        if isinstance(fault, RuntimeError):
            _end_if_alone(fault)
        if DEBUG.value or not (said := _sentence(fault)):
            raise
        return refused(said)


def end(status: int) -> NoReturn:
    """Ends the program. One that a signal stopped ends at once: the clean-up of the interpreter has
    been seen to crash where devices were still at work. Several processes take leave of each
    other first."""
    if status in (128 + signal.SIGINT, 128 + signal.SIGTERM) and not DISTRIBUTED.value:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def refused(said: object) -> int:
    """Says what is wrong, and gives the exit status for it."""
    print(f"error: {said}", file=sys.stderr)
    return 2


def _sentence(fault: Exception) -> str:
    """What to say of an exception that is no fault of ours; nothing of one that is."""
    if "RESOURCE_EXHAUSTED" in str(fault) or isinstance(fault, MemoryError):
        said = str(fault).splitlines()[:1] or ["no memory is left"]
        return f"{said[0]}: take a smaller batch_size, 'accumulate' of the stage, or more devices"
    if not isinstance(fault, SENTENCES):
        return ""
    # What the system says of a full disk names no file.
    if isinstance(fault, OSError) and fault.errno and not fault.filename and WORKDIR.value:
        return f"{fault} (the working directory is {WORKDIR.value})"
    return str(fault) or type(fault).__name__


def _end_if_alone(fault: Exception) -> None:
    """Ends at once where another process of this run is gone."""
    from jaxdistill.training import processes

    if processes.is_lost(fault):
        processes.end_as_lost(str(fault).splitlines()[0])


def parsed(argv: list[str]) -> list[str]:
    """Reads the flags of a command, those that set values of the config among them."""
    from absl import logging

    from jaxdistill.config_files import spelt

    # That there is no TPU here is no news.
    logging.set_verbosity(logging.WARNING)
    # A warning is for whoever typed the command, who asks for no thread and no line of a file.
    logging.get_absl_handler().setFormatter(Formatter("warning: %(message)s"))
    try:
        return flags.FLAGS(spelt(argv))
    except flags.Error as fault:
        sys.exit(refused(fault))


def main(argv: list[str]) -> None:
    """The command line."""
    end(guarded(_run, named(argv[1:])))


def _run() -> int:
    config = read_config()
    if PLAN.value:
        print(planned(config))
        return 0
    how = {"track": TRACK.value, "quiet": QUIET.value, "changes": changes()}
    run(config, WORKDIR.value, command=shown("jaxdistill.main"), **how)
    return 0


def changes() -> list[str]:
    """What the command line changed in the config."""
    return [*SETTINGS.value, *(["every stage cut to two steps"] if SMOKE.value else [])]


def planned(config: Mapping[str, Any]) -> str:
    """What a recipe would do, as a table; nothing is run or written."""
    from jaxdistill import recipe

    plan = checked(config)
    return f"{config.get('title', '')}\n\n{recipe.table(recipe.summary(plan))}"


def checked(config: Mapping[str, Any]) -> Any:
    """The plan of a config, with its claim, its grid, its pictures and tables checked."""
    from jaxdistill import present, recipe

    with blamed("the config"):
        plan = recipe.plan(config)
        recipe.check_claim(config, plan.read)
        present.check(plan)
    return plan


def run(
    config: Mapping[str, Any],
    workdir: str | None,
    *,
    track: Sequence[str] = (),
    quiet: bool = False,
    changes: Sequence[str] = (),
    command: str = "",
) -> None:
    """Runs a recipe and prints what came out; report and student are in the working directory.

    Args:
        config: as plain data.
        workdir: where everything goes; a run that was begun there is resumed.
        track: where it is watched besides, see :mod:`jaxdistill.training.tracking`.
        quiet: no progress.
        changes: what was changed in the config, for the report.
        command: what was typed to run it, for the report.
    """
    from jaxdistill.progress import silence
    from jaxdistill.recipe import refuse_too_large
    from jaxdistill.training import tracking

    tracking.check(track)
    somewhere(workdir)
    with silence(quiet):
        plan = checked(config)
        refuse_too_large(plan)
        root = start(workdir, config)
        with tracking.watched(track, root, config=config) as trackers:
            _finish(plan, root, trackers, changes=changes, command=command)


def _finish(plan: Any, root: Path, trackers: Sequence[Any], **about: Any) -> None:
    """Runs a plan to its end, and says what came out."""
    import dataclasses

    import jax

    from jaxdistill import present, recipe
    from jaxdistill.training.processes import is_first, whole

    started, config = time.time(), plan.config
    outcomes = recipe.run(plan, root, trackers=trackers)
    plan = recipe.settled(plan, {name: outcome.result for name, outcome in outcomes.items()})
    if jax.process_count() > 1:
        outcomes = {
            name: dataclasses.replace(outcome, result=jax.tree.map(whole, outcome.result))
            for name, outcome in outcomes.items()
        }
    if not is_first():
        return
    written = _written(root, plan, outcomes, trackers=trackers, **about)
    for metric in config.get("table") or ():
        print(present.table(outcomes, metric), end="\n\n")
    for name, outcome in outcomes.items():
        for metric, value in outcome.values.items():
            print(f"{name:12} {metric:44} {value:.4f}")
    print(f"done in {time.time() - started:.0f} s: {root / 'report.html'}")
    for kind, files in written.items():
        if files:
            print(f"{kind}:", *files)


def _written(
    root: Path, plan: Any, outcomes: Mapping[str, Any], **about: Any
) -> dict[str, list[Path]]:
    """Writes the report and what came out; what a disk that cannot be written holds stays."""
    from jaxdistill import present, recipe

    try:
        measured = recipe.costs_of(plan, outcomes)
        present.report(root, plan, outcomes, measured, **about)
        return {
            "student": recipe.write_student(root, plan, outcomes, about["command"], measured),
            "synthetic set": present.synthetic(root, plan, outcomes),
        }
    except OSError as fault:
        if fault.errno not in (errno.EROFS, errno.EACCES):
            raise
        print(f"{root} cannot be written ({fault.strerror}): its report stays as it is")
        return {}


if __name__ == "__main__":
    app.run(main, flags_parser=parsed)
