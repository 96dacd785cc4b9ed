"""The methods of the zoo beside plain distillation: time and memory of a step, and what it taught.

    python benchmarks/zoo.py                              # a step of every method
    python benchmarks/zoo.py --methods crd rkd --repeats 9
    python benchmarks/zoo.py --pair small                 # of the nets of kd_zoo:small
    python benchmarks/zoo.py --seeds 5 --data <Fashion-MNIST> --claim runs/zoo
    python benchmarks/zoo.py --claim runs/zoo             # seeds that have run are read
    python benchmarks/zoo.py --smoke

The step is that of the method's last stage, as ``configs/kd_zoo.py`` says it, on records with
nothing in them; it takes turns with a step of plain distillation from the same teacher to the same
student. ``time`` is the median ratio over rounds, ``memory`` the ratio of what XLA needs for
temporary arrays. With ``--claim`` there are test accuracy and agreement with the teacher besides,
means over the seeds of that working directory with intervals of 95 % (Student's t); ``against kd``
is the difference, paired by seed. ``--seeds`` first runs these seeds, of all methods, from one
teacher a seed.

Targets: contrastive distillation with banks of 50,000 records adds at most a quarter of a step at
batch 64 (ResNet-32x4 to 8x4), and the angles of RKD at batch 256 fit in 64 MiB.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from _measure import compiled, finish, in_turn, median_ms, parser, ratio, spread, table
from ahead import stand_in
from recipes import zeros

from jaxdistill import config_files, losses, recipe
from jaxdistill.evaluation.statistics import paired_interval
from jaxdistill.presets.pairs import PAIRS
from jaxdistill.presets.zoo import METHODS
from jaxdistill.recipe.stages import stage_of
from jaxdistill.training.loop import abstract, check, first_batch

BANK, ANGLES = 1.25, 64.0
LARGE = "resnet32x4_resnet8x4"
ONE = {"data": 1, "fsdp": 1}


class Step:
    """The compiled step of a method's last stage, with a state to go on from."""

    def __init__(self, method: str, pair: str):
        small = pair == "small"
        own = [f"method={method}", "data.name=fashion_mnist"] if small else [f"pair={pair}"]
        name = "kd_zoo:small" if small else f"kd_zoo:{method}"
        config = config_files.read(name, own)
        stand_in("kd_zoo", config)
        plan = recipe.plan({**config, "mesh": ONE})
        results, planned = recipe.shapes(plan), plan.stages[-1]
        stage = stage_of(plan, planned, {other: results[other] for other in planned.needs})
        given, frozen = first_batch(stage), dict(stage.frozen)
        state = check(
            stage.distiller, jax.random.key(0), {**frozen, **stage.initial}, frozen, abstract(given)
        )
        self.made = compiled(stage.distiller.step, state, frozen, abstract(given), donate_argnums=0)
        self.state, self.frozen = jax.tree.map(zeros, (state, frozen))
        self.batch = jax.tree.map(jnp.asarray, given)

    def __call__(self) -> Any:
        self.state, metrics = self.made.call(self.state, self.frozen, self.batch)
        return metrics["loss"]


def beside(methods: Sequence[str], pair: str, repeats: int) -> dict[str, dict[str, Any]]:
    """What a step of each method takes of one of plain distillation."""
    plain = Step("kd", pair)
    found = {"kd": {"ratio": 1.0, "quartiles": [1.0, 1.0], **plain.made.memory}}
    for number, method in enumerate(methods):
        if method == "kd":
            continue
        step = Step(method, pair)
        times = in_turn({method: step, "kd": plain}, repeats)
        found[method] = {
            **ratio(times, method, "kd"),
            "ms": median_ms(times[method]),
            "kd_ms": median_ms(times["kd"]),
            "compile_seconds": step.made.trace_seconds + step.made.compile_seconds,
            **step.made.memory,
        }
        told = f"{number + 1}/{len(methods)} {method}: {found[method]['ratio']:.2f}"
        print(told, file=sys.stderr, flush=True)
    return found


def angles() -> float:
    """MiB of temporary arrays for value and gradient of RKD's angles at batch 256."""
    rows = jax.ShapeDtypeStruct((256, 64), jnp.float32)
    return compiled(jax.value_and_grad(losses.rkd_angle), rows, rows).memory["temporary_mib"]


def run_seeds(args: Any) -> None:
    """Answers the claim of ``kd_zoo:small`` with some seeds."""
    command = [sys.executable, "-m", "jaxdistill.claim", "--config=kd_zoo:small"]
    command += [f"--seeds={args.seeds}", f"--first_seed={args.first_seed}"]
    command += [f"--workdir={args.claim}"]
    if args.data:
        command += ["--config.data.name=fashion_mnist", f"--config.data.dir={args.data}"]
    # Whatever its verdict, its seeds are there.
    subprocess.run(command, check=False, stdout=sys.stderr)


def taught(workdir: str) -> dict[str, dict[str, Any]]:
    """What the seeds of a claim say of every method."""
    seeds = [json.loads(path.read_text()) for path in sorted(Path(workdir, "seeds").glob("*.json"))]
    if not seeds:
        raise SystemExit(f"there are no seeds in {workdir}/seeds: run the claim, or give --seeds")

    def values(arm: str, metric: str) -> list[float]:
        return [float(seed["arms"][arm][f"last/{metric}"]) for seed in seeds]

    plain, found = values("kd", "test/accuracy"), {}
    for arm in seeds[0]["arms"]:
        own = values(arm, "test/accuracy")
        there: dict[str, Any] = {"accuracy": of_seeds(own)}
        if arm != "alone":
            there["agreement"] = of_seeds(values(arm, "test/agreement"))
        gaps = [a - b for a, b in zip(own, plain, strict=True)]
        there["against_kd"] = of_seeds(gaps)
        fell = zip(values(arm, "train/early/loss"), values(arm, "train/late/loss"), strict=True)
        there["falls"] = all(late < early for early, late in fell)
        found[arm] = {**there, "seeds": [seed["seed"] for seed in seeds]}
    return found


def of_seeds(values: Sequence[float]) -> list[float]:
    """Mean, low and high in per cent."""
    if len(values) == 1:
        return [100 * values[0]] * 3
    return [100 * each for each in paired_interval(values)]


def told(values: Sequence[float] | None, sign: str = "") -> str:
    if values is None:
        return ""
    mean, low, high = values
    return f"{mean:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def row(name: str, cost: Mapping[str, Any], plain: Mapping[str, Any], said: Mapping) -> tuple:
    """A line of the table."""
    cells: list[str] = [name]
    if said:
        cells += [told(said["accuracy"]), told(said.get("agreement"))]
        cells += [told(said["against_kd"], "+"), "yes" if said["falls"] else "no"]
    if not cost:
        return (*cells, "", "", "")
    times = cost["temporary_mib"] / plain["temporary_mib"]
    return (*cells, spread(cost), f"{times:.2f}", f"{cost['temporary_mib']:.0f}")


def main() -> int:
    made = parser(__doc__, "two methods of small nets; no target is checked")
    made.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="name"
    )
    made.add_argument("--pair", choices=("small", *PAIRS), default="resnet56_resnet20")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument(
        "--claim", default="", help="the working directory of a claim on kd_zoo:small"
    )
    made.add_argument("--seeds", type=int, default=0, help="run so many seeds of it first")
    made.add_argument("--first_seed", type=int, default=0)
    made.add_argument("--data", default="", help="folder of Fashion-MNIST; without one, digits")
    args = made.parse_args()
    if args.smoke:
        args.methods, args.pair, args.repeats = ["l2"], "small", 1
    if args.seeds:
        run_seeds(args)
    said = taught(args.claim) if args.claim else {}
    costs = beside(args.methods, args.pair, args.repeats)
    names = [*(n for n in said if n not in costs), *costs] if said else list(costs)
    cells = [row(n, costs.get(n, {}), costs["kd"], said.get(n, {})) for n in names]
    learnt = ("accuracy, %", "agreement, %", "against kd", "falls") if said else ()
    print(table(("method", *learnt, "time", "memory", "MiB"), cells), end="\n\n")
    missed, results = [], {"pair": args.pair, "steps": costs, "taught": said}
    if not args.smoke:
        bank = beside(["crd"], LARGE, args.repeats)["crd"]
        results |= {"bank": bank, "angles_mib": angles()}
        print(f"crd, banks of 50,000, ResNet-32x4 to 8x4: {spread(bank)} of kd")
        print(f"angles of 256 examples: {results['angles_mib']:.1f} MiB\n")
        if bank["ratio"] > BANK:
            missed.append(f"crd takes {bank['ratio']:.2f} of kd, at most {BANK}")
        if results["angles_mib"] > ANGLES:
            missed.append(f"angles take {results['angles_mib']:.0f} MiB, at most {ANGLES:.0f}")
    return finish("zoo", args, results, missed)


if __name__ == "__main__":
    sys.exit(main())
