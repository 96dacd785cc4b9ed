"""Answers the claims of a config: several arms over several seeds, and what their differences show.

    python -m jaxdistill.claim --config=configs/mae_vitb.py:small --seeds=5 --workdir=runs/claim

A claim is a contrast of arms in one metric, fixed in the config before any seed runs. It holds if
the interval of the contrast (paired over seeds, Student's t, several contrasts by Holm) lies above
its margin; it is smaller than asked if the interval lies above zero but not above the margin, not
shown if it contains zero, and contradicted if it lies below. A contrast of a chosen arm with a
grid, in a loss, asks whether the arm is worse than the grid's best by no more than a margin. Exit
status: 0 if every contrast holds, 1 if any is contradicted, 3 otherwise.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from jaxdistill import claims
from jaxdistill import main as command
from jaxdistill._columns import aligned
from jaxdistill._errors import blamed
from jaxdistill.claims import TUNING_SEED, answer, arms_of, metric_of, table
from jaxdistill.progress import shown, silence

SEEDS = flags.DEFINE_integer(
    "seeds", claims.ENOUGH, "how many seeds each arm is run with", lower_bound=1
)
FIRST_SEED = flags.DEFINE_integer("first_seed", 0, "the first of them", lower_bound=0)
TUNE = flags.DEFINE_bool(
    "tune", False, "run the grid of config.tune on the validation set, with seeds of its own"
)

__all__ = ["answer", "arms_of", "main", "measure", "table", "tune"]

EXIT = {"holds": 0, "smaller than asked": 3, "not shown": 3, "contradicted": 1}


def run_arm(
    config: Mapping[str, Any],
    seed: int,
    root: Path,
    quiet: bool,
    wanted: Sequence[str] = (),
    trackers: Sequence[Any] = (),
) -> dict[str, float]:
    """Every metric of one arm with one seed, as ``<stage>/<set>/<name>``; ``<stage>/step_flops`` if
    wanted.

    The arm's last stage is also called ``last``, so that arms with stages of other names can
    be compared.
    """
    from jaxdistill import recipe

    plan = recipe.plan({**config, "seed": seed})
    outcomes = recipe.run(plan, root, trackers=trackers, quiet=quiet)
    values = {
        f"{name}/{m}": v for name, outcome in outcomes.items() for m, v in outcome.values.items()
    }
    last = plan.stages[-1].name
    values |= {f"last/{m}": v for m, v in outcomes[last].values.items()}
    plan = recipe.settled(plan, {name: outcome.result for name, outcome in outcomes.items()})
    for metric in wanted:
        stage, _, kind = metric.rpartition("/")
        stage = last if stage == "last" else stage
        if kind == "step_flops" and stage in outcomes:
            values[metric] = recipe.step_flops(plan, stage)
    for tracker in trackers:
        tracker.summary(values)
    return values


def measure(
    arms: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    root: Path,
    quiet: bool,
    wanted: Sequence[str] = (),
    track: Sequence[str] = (),
) -> dict[str, list[dict[str, float]]]:
    """All arms with all seeds: for every arm, a dict of metrics a seed. Each is a run of its own
    where they are watched (``track``)."""
    from jaxdistill.training.tracking import watched

    found: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    runs = [(seed, name) for seed in seeds for name in arms]
    with silence(quiet):
        said = "seed {0[0]}, arm {0[1]!r}".format
        for seed, name in shown(runs, "arms", "runs", said=said):
            part = f"seed {seed}, {name}"
            with watched(track, root, config={**arms[name], "seed": seed}, part=part) as trackers:
                found[name].append(run_arm(arms[name], seed, root, quiet, wanted, trackers))
    return found


def tune(config: Mapping[str, Any], root: Path, quiet: bool) -> dict[str, Any]:
    """Runs ``config.tune``: for every arm its grid, ``{label: changes}``, on validation data.

    Its seeds are used by no claim; the setting with the best mean of the metric is the choice, the
    lowest with ``lower``, else the highest. ``edges`` says of every arm which numbers of its choice
    are the smallest or the largest of their grid: the best may lie outside.

    Raises:
        ValueError: for an unknown key, arm or metric, one of the test set, and a metric that is not
            finite.
    """
    from jaxdistill import recipe

    candidates = claims.candidates_of(config)
    settings = config["tune"]
    metric = settings["metric"]
    seeds = range(TUNING_SEED, TUNING_SEED + settings.get("seeds", 2))
    for (arm, label), candidate in shown(candidates.items(), "plan", "settings"):
        claims.refuse_unmeasured(metric, f"{arm}, {label}", recipe.metrics(recipe.plan(candidate)))
    rows = []
    for (arm, label), candidate in shown(candidates.items(), "grid", "settings"):
        name = f"{arm}, {label}"
        runs = measure({name: candidate}, seeds, root, quiet)
        values = claims.finite_values(metric, name, runs[name], seeds)
        rows.append(
            {"arm": arm, "setting": label, "values": values, "mean": sum(values) / len(values)}
        )
    choose = min if settings.get("lower") else max
    best = {}
    for arm in settings["grid"]:
        own = [row for row in rows if row["arm"] == arm]
        best[arm] = choose(own, key=lambda row: row["mean"])["setting"]
    edges = {arm: _edges(settings["grid"][arm], label) for arm, label in best.items()}
    return {"metric": metric, "seeds": list(seeds), "rows": rows, "best": best, "edges": edges}


def _edges(grid: Mapping[str, Mapping[str, Any]], best: str) -> list[str]:
    """The numbers of the best setting that are the smallest or the largest of their grid."""
    found = []
    for key, value in grid[best].items():
        values = [changes.get(key) for changes in grid.values()]
        numbers = {v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)}
        for word, edge in (("smallest", min), ("largest", max)):
            if len(numbers) > 1 and value == edge(numbers):
                found.append(f"{key}={value} is the {word}")
    return found


def _tune(config: Mapping[str, Any], root: Path, quiet: bool) -> int:
    from jaxdistill._files import write_json

    tuned = tune(config, root, quiet)
    write_json(root / "tune.json", tuned)
    print(f"{'arm':24} {'setting':24} {tuned['metric']} over seeds {tuned['seeds']}")
    for row in tuned["rows"]:
        chosen = "  <- best" if tuned["best"][row["arm"]] == row["setting"] else ""
        edges = ", ".join(tuned["edges"][row["arm"]]) if chosen else ""
        chosen += f", on the edge of its grid: {edges}" if edges else ""
        print(f"{row['arm']:24} {row['setting']:24} {row['mean']:.4f}{chosen}")
    print(json.dumps(tuned, allow_nan=False))
    return 0


def _measured_by_seed(
    config: Mapping[str, Any],
    arms: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    root: Path,
    quiet: bool,
) -> list[dict[str, Any]]:
    """The record of every seed; one that has run is read, not run again."""
    from jaxdistill.training import report
    from jaxdistill.training.processes import is_first

    claim, own = config["claim"], claims.digest_of(config, arms)
    wanted = [claim["metric"]]
    wanted += [
        contrast.get("metric") or claim["metric"] for contrast in claim["contrasts"].values()
    ]
    records = []
    for seed in shown(seeds, "claim", "seeds"):
        record = claims.read_seed(root, seed)
        if record is None:
            track = command.TRACK.value
            found = measure(arms, [seed], root, quiet, tuple(dict.fromkeys(wanted)), track)
            values = {name: runs[0] for name, runs in found.items()}
            record = {"seed": seed, "environment": report.environment(), "arms": values}
            if is_first():
                claims.write_seed(root, seed, own, values, record["environment"])
        records.append(record)
    return records


def _scope(plans: Mapping[str, Any], metrics: Iterable[str]) -> dict[str, Any]:
    """What the intervals do not hold: the sets that metrics are measured on, with the number of
    their records (None where arms differ), by metric and by name, and the results that all seeds
    share."""
    by_metric: dict[str, set[int]] = {}
    by_set: dict[str, set[int]] = {}
    for plan in plans.values():
        data = {planned.name: planned.data for planned in plan.stages}
        data["last"] = plan.stages[-1].data
        for metric in metrics:
            stage, _, part = metric.rpartition("/")[0].rpartition("/")
            # What is said of records is said of what was asked.
            part = "train" if part == "records" else part
            if part in data.get(stage, ()):
                count = len(data[stage][part])
                by_metric.setdefault(metric, set()).add(count)
                by_set.setdefault(part, set()).add(count)
    shared = {p.name for plan in plans.values() for p in plan.stages if p.settings["checkpoint"]}
    return {
        "metrics": {name: min(own) if len(own) == 1 else None for name, own in by_metric.items()},
        "sets": {name: min(own) if len(own) == 1 else None for name, own in by_set.items()},
        "shared": sorted(shared),
    }


def planned(config: Mapping[str, Any], plans: Mapping[str, Any], seeds: int) -> str:
    """What answering a claim would run: its contrasts, and the stages of a seed with the arms that
    share them.

    Args:
        config: of the claim.
        plans: the recipe of every arm.
        seeds: how many would run.
    """
    claim = config["claim"]
    asked = []
    for name, contrast in claim["contrasts"].items():
        margin, origin = claims.margin_of(name, contrast)
        words = contrast.get("sentence", name)
        asked.append((words, metric_of(claim, contrast), f"above {margin:g}", origin))
    stages: dict[str, tuple[Any, list[str]]] = {}
    for arm, plan in plans.items():
        for stage in plan.stages:
            stages.setdefault(stage.identity, (stage, []))[1].append(arm)
    rows = [
        (stage.name, stage.settings["steps"] or "-", ", ".join(own))
        for stage, own in stages.values()
    ]
    steps = sum(stage.settings["steps"] for stage, _ in stages.values())
    parts = [config.get("title", ""), claim.get("sentence", ""), aligned(asked)]
    parts += [aligned([("stage", "steps", "arms"), *rows])]
    parts += [f"{steps:,} steps a seed, {seeds} seeds"]
    return "\n\n".join(part for part in parts if part)


def _plans(config: Mapping[str, Any], arms: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of every arm, checked."""
    from jaxdistill import recipe

    plans = {}
    for name, arm in shown(arms.items(), "plan", "arms"):
        try:
            plans[name] = recipe.plan(arm)
            if not command.PLAN.value:
                recipe.refuse_too_large(plans[name])
        except ValueError as wrong:
            raise ValueError(f"arm {name!r}: {wrong}") from wrong
    recipe.check_claim(config, {k: v for plan in plans.values() for k, v in plan.read.items()})
    return plans


def _run() -> int:
    import jax

    from jaxdistill.training import report, tracking

    config = command.read_config()
    tracking.check(command.TRACK.value)
    if not command.PLAN.value:
        command.somewhere(command.WORKDIR.value)
    with blamed("the claim of the config"):
        arms = arms_of(config)
        plans = _plans(config, arms)
    if command.PLAN.value:
        print(planned(config, plans, SEEDS.value))
        return 0
    if command.WORKDIR.value:
        own = claims.digest_of(config, arms)
        claims.refuse_other_configs(Path(command.WORKDIR.value), config, own)
    root = command.start(command.WORKDIR.value, config)
    quiet = command.QUIET.value
    # Arms and seeds compile the same few programs again and again.
    jax.config.update("jax_compilation_cache_dir", str((root / "compiled").absolute()))
    if TUNE.value:
        return _tune(config, root, quiet)
    seeds = range(FIRST_SEED.value, FIRST_SEED.value + SEEDS.value)
    records = _measured_by_seed(config, arms, seeds, root, quiet)
    found = {name: [record["arms"][name] for record in records] for name in arms}
    claim = config["claim"]
    metrics = {claim["metric"], *(metric_of(claim, c) for c in claim["contrasts"].values())}
    scope = _scope(plans, metrics)
    result = {
        "title": config.get("title", ""),
        "command": command.shown("jaxdistill.claim"),
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "seeds": list(seeds),
        "first_seed": seeds[0],
        **answer(claim, found, seeds, scope["metrics"]),
        "scope": scope,
        "digest": claims.digest_of(config, arms),
        "config": config,
        "environment": report.environment(),
        "environments": claims.environments(records),
    }
    result["notes"] = claims.notes(result, list(seeds))
    report.write_claim(root, result)
    print(table(result, list(seeds)))
    print(json.dumps(report.plain(_short(result, root)), allow_nan=False))
    return EXIT[result["verdict"]]


def _short(result: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """What a program reads off the last line."""
    shown = ("mean", "low", "high", "confidence", "margin", "verdict")
    return {
        "claim": result["title"],
        "verdict": result["verdict"],
        "file": root / "claim.json",
        "seeds": result["seeds"],
        "contrasts": {n: {k: c[k] for k in shown} for n, c in result["contrasts"].items()},
    }


def main(argv: list[str]) -> None:
    """The command line."""
    command.end(command.guarded(_run, command.named(argv[1:])))


if __name__ == "__main__":
    app.run(main, flags_parser=command.parsed)
