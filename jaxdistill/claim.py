"""Answers the claims of a config: several arms over several seeds, and what their differences show.

    python -m jaxdistill.claim --config=configs/mae_vitb.py:small --seeds=5 --workdir=runs/claim

A claim is a contrast of arms in one metric, fixed in the config before any seed runs. It holds if
the 95 % interval of the contrast (paired over seeds, Student's t) lies above its margin, is
contradicted if it lies below, and is not shown otherwise. A contrast of a chosen arm with a grid,
in a loss, holds if it is within one standard error of the grid's best. Exit status: 0 if every
claim holds, 1 if any is contradicted, 3 if any is not shown.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from jaxdistill import main as command
from jaxdistill._errors import unknown
from jaxdistill.config import flattened, override

SEEDS = flags.DEFINE_integer("seeds", 3, "how many seeds each arm is run with", lower_bound=1)
FIRST_SEED = flags.DEFINE_integer("first_seed", 0, "the first of them", lower_bound=0)
TUNE = flags.DEFINE_bool(
    "tune", False, "run the grid of config.tune on the validation set, with seeds of its own"
)

CLAIM_KEYS = ("metric", "common", "arms", "contrasts", "held_equal", "sentence")
CONTRAST_KEYS = ("sentence", "coefficients", "metric", "margin", "chosen", "grid")
EXIT = {"holds": 0, "not shown": 3, "contradicted": 1}
# Seeds that no claim is ever answered with.
TUNING_SEED = 1000


def arms_of(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The config of every arm, checked.

    Raises:
        ValueError: for an unknown key, and for a contrast of arms that there are not.
    """
    claim = config.get("claim")
    if not claim:
        raise ValueError("this config makes no claim: it has no 'claim'")
    for key in claim:
        if key not in CLAIM_KEYS:
            raise ValueError(unknown("key of the claim", key, CLAIM_KEYS))
    base = override(config, flattened(claim.get("common") or {}))
    arms = {}
    for name, changes in claim["arms"].items():
        arms[name] = override(base, flattened(changes or {}))
    for name, contrast in claim["contrasts"].items():
        for key in contrast:
            if key not in CONTRAST_KEYS:
                raise ValueError(unknown(f"key of contrast {name!r}", key, CONTRAST_KEYS))
        for arm in _arms_in(name, contrast):
            if arm not in arms:
                raise ValueError(unknown(f"arm in contrast {name!r}", arm, arms))
    return arms


def _arms_in(name: str, contrast: Mapping[str, Any]) -> list[str]:
    """The arms of a contrast: those with coefficients, or a chosen one and those of its grid."""
    if ("grid" in contrast) == ("coefficients" in contrast):
        raise ValueError(f"contrast {name!r} needs either 'coefficients', or 'chosen' and 'grid'")
    if "grid" not in contrast:
        return list(contrast["coefficients"])
    if not contrast.get("chosen"):
        raise ValueError(f"contrast {name!r} needs 'chosen', the arm to compare with the grid")
    return [contrast["chosen"], *contrast["grid"]]


def run_arm(
    config: Mapping[str, Any], seed: int, root: Path, quiet: bool, wanted: Sequence[str] = ()
) -> dict[str, float]:
    """Every metric of one arm with one seed, as ``<stage>/<set>/<name>``; ``<stage>/step_flops`` if
    wanted.

    The arm's last stage goes by the name ``last`` too, so that arms with stages of other names can
    be compared.
    """
    from jaxdistill import recipe

    plan = recipe.plan({**config, "seed": seed})
    outcomes = recipe.run(plan, root, quiet=quiet)
    values = {
        f"{name}/{m}": v for name, outcome in outcomes.items() for m, v in outcome.values.items()
    }
    last = plan.stages[-1].name
    values |= {f"last/{m}": v for m, v in outcomes[last].values.items()}
    for metric in wanted:
        stage, _, kind = metric.rpartition("/")
        stage = last if stage == "last" else stage
        if kind == "step_flops" and stage in outcomes:
            values[metric] = recipe.step_flops(plan, stage)
    return values


def measure(
    arms: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    root: Path,
    quiet: bool,
    wanted: Sequence[str] = (),
) -> dict[str, list[dict[str, float]]]:
    """All arms with all seeds: for every arm, a dict of metrics a seed."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for seed in seeds:
        for name, config in arms.items():
            print(f"seed {seed}, arm {name!r}", file=sys.stderr, flush=True)
            found[name].append(run_arm(config, seed, root, quiet, wanted))
    return found


def answer(claim: Mapping[str, Any], found: Mapping[str, list[dict[str, float]]]) -> dict[str, Any]:
    """What the measured arms say to the claim's contrasts."""
    from jaxdistill.evaluation import statistics

    def values(metric: str, arms: Sequence[str]) -> dict[str, list[float]]:
        for name in arms:
            if metric not in found[name][0]:
                raise ValueError(unknown(f"metric of arm {name!r}", metric, found[name][0]))
        return {name: [run[metric] for run in found[name]] for name in arms}

    contrasts = {}
    for name, contrast in claim["contrasts"].items():
        metric = contrast.get("metric") or claim["metric"]
        arms = _arms_in(name, contrast)
        if "grid" in contrast:
            # Less is better here: the differences say by how much the best of the grid is ahead.
            choice = statistics.one_standard_error(values(metric, arms), arms[0], arms[1:])
            differences, margin = choice.differences, -choice.error
            coefficients = {choice.best: 1, arms[0]: -1}
            own = {"verdict": choice.verdict, "spread": choice.spread, "rule": "standard error"}
        else:
            coefficients = dict(contrast["coefficients"])
            differences = statistics.contrast(values(metric, arms), coefficients)
            margin, own = contrast.get("margin", 0.0), {}
        mean, low, high = statistics.paired_interval(differences)
        contrasts[name] = {
            "sentence": contrast.get("sentence", ""),
            "metric": metric,
            "coefficients": coefficients,
            "margin": margin,
            "differences": [float(d) for d in differences],
            "mean": mean,
            "low": low,
            "high": high,
            "verdict": statistics.verdict(low, high, margin),
            **own,
        }
    verdicts = [contrast["verdict"] for contrast in contrasts.values()]
    overall = next((v for v in ("contradicted", "not shown") if v in verdicts), "holds")
    return {
        "sentence": claim.get("sentence", ""),
        "held_equal": list(claim.get("held_equal", ())),
        "metric": claim["metric"],
        "arms": values(claim["metric"], list(found)),
        "contrasts": contrasts,
        "verdict": overall,
    }


def table(result: Mapping[str, Any], seeds: Sequence[int]) -> str:
    """The answer as text."""
    lines = [result["sentence"], f"metric: {result['metric']}", ""]
    lines.append(
        f"{'arm':24} " + " ".join(f"{f'seed {seed}':>9}" for seed in seeds) + f" {'mean':>9}"
    )
    for name, values in result["arms"].items():
        cells = " ".join(f"{value:9.4f}" for value in values)
        lines.append(f"{name:24} {cells} {sum(values) / len(values):9.4f}")
    lines += ["", f"{'contrast':24} {'mean':>9} {'95 % interval':>20}  verdict"]
    for name, c in result["contrasts"].items():
        interval = f"[{c['low']:.4f}, {c['high']:.4f}]"
        margin = f" (margin {c['margin']:g})" if c["margin"] else ""
        lines.append(
            f"{name:24} {c['mean']:9.4f} {interval:>20}  {c['verdict']}{margin}: {c['sentence']}"
        )
    return "\n".join(lines)


TUNE_KEYS = ("metric", "lower", "seeds", "grid")


def tune(config: Mapping[str, Any], root: Path, quiet: bool) -> dict[str, Any]:
    """Runs ``config.tune``: for every arm its grid, ``{label: changes}``, on validation data.

    Seeds are such as no claim uses; the setting with the best mean of the metric is the choice, the
    lowest with ``lower``, else the highest.
    """

    settings = config.get("tune")
    if not settings:
        raise ValueError("this config has nothing to tune: it has no 'tune'")
    for key in settings:
        if key not in TUNE_KEYS:
            raise ValueError(unknown("key of tune", key, TUNE_KEYS))
    metric = settings["metric"]
    if "/test/" in metric:
        raise ValueError(f"tuning reads the validation set, not {metric!r}")
    arms = arms_of(config)
    for arm in settings["grid"]:
        if arm not in arms:
            raise ValueError(unknown("arm in the grid of tune", arm, arms))
    seeds = range(TUNING_SEED, TUNING_SEED + settings.get("seeds", 2))
    candidates = {
        (arm, label): override(arms[arm], flattened(changes))
        for arm, grid in settings["grid"].items()
        for label, changes in grid.items()
    }
    rows = []
    for (arm, label), candidate in candidates.items():
        runs = measure({f"{arm}, {label}": candidate}, seeds, root, quiet)
        values = [run[metric] for run in next(iter(runs.values()))]
        rows.append(
            {"arm": arm, "setting": label, "values": values, "mean": sum(values) / len(values)}
        )
    choose = min if settings.get("lower") else max
    best = {}
    for arm in settings["grid"]:
        own = [row for row in rows if row["arm"] == arm]
        best[arm] = choose(own, key=lambda row: row["mean"])["setting"]
    return {"metric": metric, "seeds": list(seeds), "rows": rows, "best": best}


def _run() -> int:
    import jax

    from jaxdistill import recipe
    from jaxdistill._files import write_json
    from jaxdistill.training import report

    config = command.read_config()
    arms = arms_of(config)
    for name, arm in arms.items():
        try:
            recipe.plan(arm)
        except ValueError as fault:
            raise ValueError(f"arm {name!r}: {fault}") from fault
    root = command.start(command.WORKDIR.value, config)
    quiet = command.QUIET.value
    # Arms and seeds compile the same few programs again and again.
    jax.config.update("jax_compilation_cache_dir", str((root / "compiled").absolute()))
    if TUNE.value:
        tuned = tune(config, root, quiet)
        write_json(root / "tune.json", tuned)
        print(f"{'arm':24} {'setting':24} {tuned['metric']} over seeds {tuned['seeds']}")
        for row in tuned["rows"]:
            chosen = "  <- best" if tuned["best"][row["arm"]] == row["setting"] else ""
            print(f"{row['arm']:24} {row['setting']:24} {row['mean']:.4f}{chosen}")
        print(json.dumps(tuned))
        return 0
    seeds = range(FIRST_SEED.value, FIRST_SEED.value + SEEDS.value)
    claim = config["claim"]
    wanted = [
        claim["metric"],
        *(c.get("metric") or claim["metric"] for c in claim["contrasts"].values()),
    ]
    result = answer(claim, measure(arms, seeds, root, quiet, tuple(dict.fromkeys(wanted))))
    result = {
        "title": config["title"],
        "command": command.shown("jaxdistill.claim"),
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "seeds": list(seeds),
        **result,
        "config": config,
        "environment": report.environment(),
    }
    report.write_claim(root, result)
    print(table(result, list(seeds)))
    shown = ("mean", "low", "high", "verdict")
    contrasts = {n: {k: c[k] for k in shown} for n, c in result["contrasts"].items()}
    print(
        json.dumps(
            {
                "claim": config["title"],
                "verdict": result["verdict"],
                "file": str(root / "claim.json"),
                "contrasts": contrasts,
            }
        )
    )
    return EXIT[result["verdict"]]


def main(argv: list[str]) -> None:
    """The command line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    sys.exit(command.guarded(_run))


if __name__ == "__main__":
    app.run(main, flags_parser=command.parsed)
