"""The one loop: any distiller over any stream, and a stopped run goes on as if it never had."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.distiller import Distiller
from jaxdistill.training import metrics as metric
from jaxdistill.training.checkpoint import (
    Checkpoints,
    encode,
    fingerprint,
    load_record,
    load_tree,
    remove_unfinished,
    save_tree,
)
from jaxdistill.training.processes import barrier, is_first
from jaxdistill.training.progress import Progress
from jaxdistill.training.sharding import (
    batch_sharding,
    global_batch,
    make_mesh,
    on_mesh,
    place,
    replicated,
    shardings,
)

Evaluator = Callable[[Any, Mapping[str, Any], Iterable[Any]], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluator on one named set of records.

    Attributes:
        set: the set's name, the first part of the metrics' names: ``"validation"``, ``"test"``.
        evaluator: ``(result, frozen, data) -> {name: value}``.
        data: what it reads: batches that can be gone through again and again.
        every: after how many steps; 0 is once, at the end of the stage, and the only choice for
            ``"test"``, so that nothing can be selected by it.
    """

    set: str
    evaluator: Evaluator
    data: Iterable[Any] = ()
    every: int = 0

    def __post_init__(self):
        if self.set == "test" and self.every:
            raise ValueError("the test set is evaluated once, at the end: every must be 0 for it")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A distiller, its data, its length, and what is measured and decided on the way.

    Attributes:
        name: the stage's name, for people and folders.
        distiller: the algorithm.
        data: a :class:`~jaxdistill.data.stream.Stream`, or a function from the plan to one.
        steps: how many steps to do.
        frozen: the variables that the step reads and never changes, by name.
        initial: variables that only ``distiller.init`` reads, by name.
        seed: of the run's key.
        before: pairs of a name in ``frozen`` and an evaluation: teachers, measured before step one.
            Their metrics are called ``<name>:<set>/<metric>``.
        evaluations: what is measured.
        between: ``(every, fn)``: before step 0 and after every so many steps, ``fn(result, frozen,
            plan)`` on the host gives the new plan, JSON data and numpy arrays; the first plan it is
            given is None. What it holds under ``metrics`` is written with those of the steps.
        log_every: after how many steps the mean metrics are written.
        checkpoint_every: after how many steps a checkpoint is written; 0 for none.
        keep: how many of the newest checkpoints stay.
        best: ``(metric, "max" or "min")``, by which a best checkpoint is kept besides; a metric of
            the test set is refused.
        returns: ``"last"``, or ``"best"`` for the result at the best evaluation.
        identity: JSON data that says what this run is; a checkpoint of any other is refused.
    """

    name: str
    distiller: Distiller
    data: Any
    steps: int
    frozen: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    initial: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    before: Sequence[tuple[str, Evaluation]] = ()
    evaluations: Sequence[Evaluation] = ()
    between: tuple[int, Callable[[Any, Mapping[str, Any], Any], Any]] | None = None
    log_every: int = 50
    checkpoint_every: int = 0
    keep: int = 2
    best: tuple[str, Literal["max", "min"]] | None = None
    returns: Literal["last", "best"] = "last"
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.returns not in ("last", "best"):
            raise ValueError(unknown("result of a stage", self.returns, ("last", "best")))
        if self.best is None:
            if self.returns == "best":
                raise ValueError("returns='best' needs best, the metric to select by")
            return
        name, direction = self.best
        if direction not in ("max", "min"):
            raise ValueError(unknown("direction", direction, ("max", "min")))
        sets = {evaluation.set for evaluation in self.evaluations}
        if name.split("/")[0] == "test":
            raise ValueError(f"nothing is selected by the test set: best is {name!r}")
        if name.split("/")[0] not in sets:
            raise ValueError(unknown("set in the metric to select by", name.split("/")[0], sets))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a stage leaves behind.

    Attributes:
        result: what the distiller was for.
        metrics: the written lines, training and evaluation, in order.
        values: the last value of every evaluated metric, as ``<set>/<name>``.
        seconds: how long the run took, all its parts together.
    """

    result: Any
    metrics: list[dict[str, Any]]
    values: dict[str, float]
    seconds: float


def run_stage(
    stage: Stage,
    directory: Path | str | None = None,
    *,
    mesh: jax.sharding.Mesh | None = None,
    rules: Sequence[tuple[str, Any]] = (),
    writers: Sequence[metric.Writer] = (),
    quiet: bool = False,
) -> Outcome:
    """Runs a stage, or goes on with it where its checkpoints end, or returns what it left when it
    is done.

    Args:
        stage: what to run.
        directory: holds ``metrics.jsonl``, ``checkpoints/`` and ``result/``; without one nothing is
            kept.
        mesh: where to run, all devices by default.
        rules: partition rules for frozen variables and state, see
            :mod:`jaxdistill.training.sharding`.
        writers: further places for the metrics.
        quiet: no progress bar.

    Raises:
        ValueError: before anything is compiled, when shapes do not fit, or the directory holds
            another run.
        FloatingPointError: when a loss is not finite; it names the last good checkpoint.
    """
    if stage.returns == "best" and directory is None:
        raise ValueError("returns='best' needs a directory, where the best checkpoint is kept")
    mesh = mesh if mesh is not None else make_mesh()
    distiller = stage.distiller
    fixed = place(mesh, dict(stage.frozen), rules)
    started = {**fixed, **place(mesh, dict(stage.initial), rules)}
    identity = {
        "stage": stage.name,
        "seed": stage.seed,
        "steps": stage.steps,
        "config": dict(stage.identity),
        "frozen": {
            name: fingerprint(tree) for name, tree in {**stage.initial, **stage.frozen}.items()
        },
    }
    if directory is not None:
        directory = _writable(Path(directory))
        if (directory / "result").is_dir():
            return _finished(directory, identity, distiller, started, stage, mesh, rules)

    plan = None
    key = jax.random.key(stage.seed)
    example = stream_of(stage.data, plan).at(0, distiller.takes)
    on_batch = batch_sharding(mesh, distiller.takes)
    abstract_batch = _of_all_processes(abstract(example), on_batch)
    abstract_state = check(distiller, key, started, fixed, abstract_batch)
    state_shardings = shardings(mesh, abstract_state, rules)
    _check_divisible(abstract_batch, on_batch, mesh)

    step_fn = jax.jit(
        on_mesh(distiller.step, mesh),
        donate_argnums=0,
        out_shardings=(state_shardings, replicated(mesh)),
    )
    result_fn = distiller.result
    checkpoints = Checkpoints(directory / "checkpoints", stage.keep) if directory else None
    begin, best, values, before = 0, None, {}, 0.0
    state = None
    if checkpoints is not None and checkpoints.steps():
        begin = checkpoints.steps()[-1]
        _refuse_other(checkpoints.path(begin), identity)
        state, record = checkpoints.load(begin, _with_shardings(abstract_state, state_shardings))
        plan, best, values, before = (record[k] for k in ("plan", "best", "values", "seconds"))
    lines = directory / "metrics.jsonl" if directory else None
    if directory is not None and lines is not None:
        if is_first():
            remove_unfinished(directory)
            remove_unfinished(directory / "checkpoints")
            metric.cut_json_lines(lines, begin) if begin else lines.unlink(missing_ok=True)
        barrier(f"begin {directory}")
    if state is None:
        init = jax.jit(on_mesh(distiller.init, mesh), out_shardings=state_shardings)
        state = init(key, started, jax.tree.map(lambda x: global_batch(x, on_batch), example))
    del started

    written: list[dict[str, Any]] = metric.read_json_lines(lines) if lines is not None else []
    sinks = [*writers, *([metric.json_lines(lines)] if lines is not None else [])]
    sinks = sinks if is_first() else []
    clock = time.perf_counter()

    def write(step: int, numbers: Mapping[str, float], kind: str) -> None:
        for sink in sinks:
            sink(step, numbers, kind)
        written.append({"step": step, "kind": kind, **numbers})

    pending: list[Any] = []
    since = (begin, clock)

    def flush(step: int) -> dict[str, float]:
        nonlocal pending, since
        if not pending:
            return {}
        means, measured, pending = metric.reduce(pending), pending, []
        now = time.perf_counter()
        _refuse_infinite(means, measured, step, checkpoints)
        rate = (step - since[0]) / max(now - since[1], 1e-9)
        since = (step, now)
        told = plan.get("metrics", {}) if isinstance(plan, Mapping) else {}
        write(step, {**means, **told, "steps_per_second": rate}, "train")
        return means

    def evaluate(step: int, final: bool) -> bool:
        """Runs what is due, and says whether this step is the best so far."""
        nonlocal best, values
        due = [e for e in stage.evaluations if final or (e.every and step % e.every == 0)]
        found: dict[str, float] = {}
        for evaluation in due:
            numbers = evaluation.evaluator(result_fn(state), fixed, evaluation.data)
            found |= {f"{evaluation.set}/{name}": float(v) for name, v in numbers.items()}
        if not found:
            return False
        write(step, found, "evaluation")
        values = {**values, **found}
        if stage.best is None:
            return False
        if stage.best[0] not in found:
            of_set = [e for e in stage.evaluations if e.set == stage.best[0].split("/")[0]]
            if all(e in due for e in of_set):
                raise ValueError(unknown("metric to select by", stage.best[0], found))
            return False
        sign = 1 if stage.best[1] == "max" else -1
        if best is not None and sign * found[stage.best[0]] <= sign * best["value"]:
            return False
        best = {"step": step, "value": found[stage.best[0]]}
        return True

    def save(step: int) -> None:
        if checkpoints is None:
            return
        flush(step)
        seconds = before + time.perf_counter() - clock
        record = {
            "identity": identity,
            "plan": plan,
            "best": best,
            "values": values,
            "seconds": seconds,
        }
        checkpoints.save(step, state, record, protect=best["step"] if best else None)

    def due(step: int, every: int) -> bool:
        return bool(every) and step % every == 0

    if begin == 0:
        found = {}
        for name, evaluation in stage.before:
            numbers = evaluation.evaluator(fixed[name], fixed, evaluation.data)
            found |= {f"{name}:{evaluation.set}/{key}": float(v) for key, v in numbers.items()}
        if found:
            write(0, found, "teacher")
            values = found
        if stage.steps == 0:
            evaluate(0, final=True)

    batches = None
    with Progress(stage.steps, label=stage.name, start=begin, quiet=quiet) as progress:
        for step in range(begin, stage.steps):
            if stage.between and step % stage.between[0] == 0:
                plan = stage.between[1](result_fn(state), fixed, plan)
                batches = None
            if batches is None:
                stream = stream_of(stage.data, plan)
                batches = stream.iterate(step, distiller.takes)
            batch = jax.tree.map(lambda x: global_batch(x, on_batch), next(batches))
            state, step_metrics = step_fn(state, fixed, batch)
            pending.append(step_metrics)
            done = step + 1
            last = done == stage.steps
            means = flush(done) if due(done, stage.log_every) or last else {}
            improved = evaluate(done, final=last)
            if improved or due(done, stage.checkpoint_every) or (last and stage.checkpoint_every):
                save(done)
            progress.update(done, means)
    if stage.returns == "best" and best is not None and best["step"] != stage.steps:
        assert checkpoints is not None
        state, _ = checkpoints.load(best["step"], _with_shardings(abstract_state, state_shardings))
    result = result_fn(state)
    seconds = before + time.perf_counter() - clock
    if directory is not None:
        record = {"identity": identity, "values": values, "seconds": seconds, "steps": stage.steps}
        save_tree(directory / "result", result, record)
    return Outcome(result, written, values, seconds)


def check(distiller: Distiller, key: Any, started: Any, fixed: Any, batch: Any) -> Any:
    """Traces init and one step on shapes alone, so that what does not fit is said before anything
    is compiled.

    Returns:
        The shapes of the state.

    Raises:
        ValueError: if a step would change the shape or type of any array of the state; it lists
            them.
    """
    state = jax.eval_shape(distiller.init, key, started, batch)
    after, measured = jax.eval_shape(distiller.step, state, fixed, batch)
    if jax.tree.structure(state) != jax.tree.structure(after):
        raise ValueError(
            f"a step changes the structure of the state:\n{jax.tree.structure(state)}\n"
            f"{jax.tree.structure(after)}"
        )
    faults = [
        f"- {jax.tree_util.keystr(path)}: {a.shape} {a.dtype} becomes {b.shape} {b.dtype}"
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(after), strict=True
        )
        if (a.shape, a.dtype) != (b.shape, b.dtype)
    ]
    if faults:
        raise ValueError("a step changes arrays of the state:\n" + "\n".join(faults))
    for name, value in measured.items():
        if not isinstance(value, tuple) or len(value) != 2:
            raise ValueError(f"metric {name!r} must be a pair (sum, count), got {value}")
    return state


def over_seeds(distiller: Distiller, seeds: int) -> Distiller:
    """Several runs of a distiller as one, vmapped: same data, different keys.

    Worth it where it measures faster than runs one after another (MLPs, small transformers). The
    state, and with it the result, has a leading axis of seeds; metrics are summed over it.
    """

    def init(key, frozen, batch):
        keys = jax.random.split(key, seeds)
        return jax.vmap(distiller.init, in_axes=(0, None, None))(keys, frozen, batch)

    def step(state, frozen, batch):
        state, metrics = jax.vmap(distiller.step, in_axes=(0, None, None))(state, frozen, batch)
        return state, jax.tree.map(lambda x: x.sum(0), metrics)

    return Distiller(init, step, jax.vmap(distiller.result), distiller.takes)


def _finished(directory, identity, distiller, started, stage, mesh, rules) -> Outcome:
    path = directory / "result"
    _refuse_other(path, identity)
    key = jax.random.key(stage.seed)
    batch = abstract(stream_of(stage.data, None).at(0, distiller.takes))
    batch = _of_all_processes(batch, batch_sharding(mesh, distiller.takes))
    expected = jax.eval_shape(lambda *a: distiller.result(distiller.init(*a)), key, started, batch)
    expected = _with_shardings(expected, shardings(mesh, expected, rules))
    result, record = load_tree(path, expected)
    lines = metric.read_json_lines(directory / "metrics.jsonl")
    return Outcome(result, lines, record["values"], record["seconds"])


def _refuse_other(path: Path, identity: Mapping[str, Any]) -> None:
    there = dict(_entries(load_record(path)["identity"]))
    here = dict(_entries(encode(identity)))
    faults = [
        f"- {name}: {there.get(name, 'absent')} there, {here.get(name, 'absent')} now"
        for name in sorted(there.keys() | here.keys())
        if there.get(name, "absent") != here.get(name, "absent")
    ]
    if faults:
        raise ValueError(
            f"{path} is of another run, going on would mix the two:\n"
            + "\n".join(faults)
            + f"\nTake another workdir, or remove {path.parent}."
        )


def _entries(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of JSON data with the path of each."""
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            yield from _entries(value, f"{path}.{key}" if path else str(key))
    elif isinstance(data, list) and data:
        for index, value in enumerate(data):
            yield from _entries(value, f"{path}[{index}]")
    else:
        yield path, data


def _refuse_infinite(
    means: Mapping[str, float], measured: Sequence[Any], step: int, checkpoints: Checkpoints | None
) -> None:
    """Refuses what is not finite, naming the first of the measured steps, of which ``step`` is the
    last."""
    if all(math.isfinite(value) for value in means.values()):
        return
    found = means
    for number, one in enumerate(measured):
        own = metric.reduce([one])
        if not all(math.isfinite(value) for value in own.values()):
            found, step = own, step - len(measured) + 1 + number
            break
    bad = {name: value for name, value in found.items() if not math.isfinite(value)}
    rest = {name: value for name, value in found.items() if name not in bad}
    kept = "there is no checkpoint"
    if checkpoints is not None and (steps := checkpoints.steps()):
        kept = f"the last good checkpoint is {checkpoints.path(steps[-1])}"
    beside = f", beside {rest}" if rest else ""
    raise FloatingPointError(f"not finite at step {step}: {bad}{beside}; {kept}")


def stream_of(data: Any, plan: Any) -> Any:
    """The stream of a stage under a plan of its host."""
    return data(plan) if callable(data) else data


def abstract(batch: Any) -> Any:
    """The shapes and types that a batch of numpy arrays has on a device."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            np.shape(x), jax.dtypes.canonicalize_dtype(np.asarray(x).dtype)
        ),
        batch,
    )


def _of_all_processes(batch: Any, sharding: jax.sharding.NamedSharding) -> Any:
    """The shapes of a batch of which this process holds its share."""
    place = len(sharding.spec) - 1

    def one(x):
        if x.ndim <= place:
            return x
        examples = x.shape[place] * jax.process_count()
        return jax.ShapeDtypeStruct((*x.shape[:place], examples, *x.shape[place + 1 :]), x.dtype)

    return jax.tree.map(one, batch)


def _with_shardings(abstract: Any, placed: Any) -> Any:
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, placed
    )


def _check_divisible(batch: Any, sharding: jax.sharding.NamedSharding, mesh: Any) -> None:
    place = len(sharding.spec) - 1
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    for name, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if leaf.ndim > place and leaf.shape[place] % parts:
            raise ValueError(
                f"batch entry {jax.tree_util.keystr(name)} {leaf.shape}: {leaf.shape[place]} "
                f"examples cannot be shared out over {parts} devices "
                f"(data={mesh.shape['data']}, fsdp={mesh.shape['fsdp']})"
            )


def _writable(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".probe-{jax.process_index()}"
        probe.write_text("")
        probe.unlink()
    except OSError as fault:
        raise OSError(f"the working directory {directory} cannot be written: {fault}") from fault
    return directory
