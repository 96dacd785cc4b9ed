"""What the numbers of a sampler's distillation do when it goes well, and when it does not.

    python benchmarks/health.py --out=<folder>   # about two minutes on one core
    python benchmarks/health.py --smoke

Distribution matching and consistency training on the ring of Gaussians, whose density is known,
each as it should be and with one thing wrong. Every ``EVERY`` steps:

- ``gradient``, ``estimate``, ``loss``: what a step measures, a mean since the last line;
- ``spread``: standard deviation of one-step samples; that of the data is 0.5;
- ``norm``: of the generator's parameters;
- ``distance``: sliced Wasserstein distance of one-step samples from the density.

Prints a table, with ``--out`` also writes a page of curves; its last line is JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from _measure import finish, parser, table

from jaxdistill import models, samplers
from jaxdistill.distiller import Distiller
from jaxdistill.evaluation import distances
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import Net
from jaxdistill.training.report import Picture, write_report

RING = samplers.ring()
STEPS, EVERY, BATCH, DRAWS, RATE = 600, 50, 256, 4000, 5e-4
SHOWN = ("gradient", "estimate", "loss", "spread", "norm", "distance")


class Case(NamedTuple):
    """A run: an algorithm, and the net that it trains."""

    distiller: Distiller
    net: Net


def perceptron(width: int) -> Net:
    return from_linen(models.TimeMLP(width=width, depth=2))


def exact(frozen: Any) -> Callable[..., jax.Array]:
    return lambda x, sigma, label=None: samplers.denoise(RING, x, sigma, label)


def matching(net: Net, rate: float = RATE, estimate: float = RATE, sign: float = 1.0) -> Case:
    """DMD with rates of its generator and of its estimate."""
    tx = optax.chain(optax.adam(rate), optax.scale(sign))
    made = samplers.distribution_matching(
        net, net, tx, optax.adam(estimate), exact, initial="start", ratio=5
    )
    return Case(made, net)


def consistency(net: Net, steps: int, rate: float = 2 * RATE, sign: float = 1.0) -> Case:
    """iCT with a rate."""
    tx = optax.chain(optax.adam(rate), optax.scale(sign))
    made = samplers.consistency_training(net, tx, steps=steps, first=10, last=40, initial="start")
    return Case(made, net)


def unbounded(net: Net) -> Net:
    """A consistency function without its boundary: what a net says, at all levels alike."""

    def seen(inputs: Mapping[str, Any]) -> dict[str, Any]:
        sigma = inputs["sigma"]
        inner = 1 / jnp.sqrt(sigma**2 + 0.25)[:, None]
        return {"image": inner * inputs["image"], "time": jnp.log(sigma) / 4}

    def apply(params: Any, state: Any, inputs: Any, **how: Any) -> Any:
        return net.apply(params, state, seen(inputs), **how)

    return Net(lambda key, inputs: net.init(key, seen(inputs)), apply)


def cases(width: int, steps: int) -> dict[str, Case]:
    net = samplers.denoiser(perceptron(width))
    bound = samplers.denoiser(perceptron(width), sigma_min=0.002)
    return {
        "DMD, as it should be": matching(net),
        "DMD, estimate 100 times too slow": matching(net, estimate=RATE / 100),
        "DMD, estimate that never learns": matching(net, estimate=0.0),
        "DMD, generator 40 times too fast": matching(net, rate=40 * RATE),
        "DMD, sign wrong": matching(net, sign=-1.0),
        "iCT, as it should be": consistency(bound, steps),
        "iCT, 30 times too fast": consistency(bound, steps, rate=60 * RATE),
        "iCT, without its boundary": consistency(unbounded(perceptron(width)), steps),
        "iCT, sign wrong": consistency(bound, steps, sign=-1.0),
    }


def fitted(net: Net, steps: int) -> Any:
    """A denoiser of the ring, from which generators start."""
    made = samplers.denoising(net, optax.adam(2e-3), exact)
    return jax.jit(lambda: trained(made, {}, steps, jax.random.key(0))[0])()


def points(key: jax.Array) -> dict[str, jax.Array]:
    return {"image": samplers.draw(key, RING, BATCH)[0].astype(jnp.float32)}


def trained(distiller: Distiller, frozen: Any, steps: int, key: jax.Array) -> tuple[Any, Any]:
    """The result after so many steps, and the state."""
    state = distiller.init(key, frozen, points(key))
    state, _ = advanced(distiller, frozen, state, steps, key)
    return distiller.result(state), state


def advanced(distiller: Distiller, frozen: Any, state: Any, steps: int, key: jax.Array) -> Any:
    def step(state, key):
        return distiller.step(state, frozen, points(key))

    state, metrics = jax.lax.scan(step, state, jax.random.split(key, steps))
    means = {name: total.sum() / count.sum() for name, (total, count) in metrics.items()}
    return state, means


def followed(case: Case, start: Any, steps: int, every: int) -> dict[str, list[float]]:
    """What is measured of a run, every so many steps; it ends early where it is not finite."""
    distiller, net = case
    frozen = {"start": start}
    state = jax.jit(distiller.init)(jax.random.key(1), frozen, points(jax.random.key(1)))
    move = jax.jit(lambda state, key: advanced(distiller, frozen, state, every, key))
    truth, _ = samplers.draw(jax.random.key(2), RING, DRAWS, even=True)
    noise = 80.0 * jax.random.normal(jax.random.key(3), (DRAWS, 2))
    inputs = {"image": noise, "sigma": jnp.full(DRAWS, 80.0)}
    say = jax.jit(lambda variables: net.apply(*variables, inputs).out)
    found: dict[str, list[float]] = {}
    for place in range(steps // every):
        state, means = move(state, jax.random.fold_in(jax.random.key(4), place))
        variables = distiller.result(state)
        samples = say(variables)
        own = {"estimate" if name == "fake" else name: value for name, value in means.items()}
        own |= {"spread": jnp.sqrt(samples.var(0).mean()), "norm": optax.tree.norm(variables[0])}
        own["distance"] = distances.sliced_wasserstein(samples, truth, directions=64)
        if not all(jnp.isfinite(value) for value in own.values()):
            break
        for name, value in {"step": (place + 1) * every, **own}.items():
            found.setdefault(name, []).append(float(value))
    return found


def main() -> int:
    """Follows all runs."""
    made = parser(__doc__)
    made.add_argument("--out", default="", help="a folder for a page of curves")
    args = made.parse_args()
    width, steps, every, fit = (8, 4, 2, 2) if args.smoke else (64, STEPS, EVERY, 800)
    runs = cases(width, steps)
    start = fitted(next(iter(runs.values())).net, fit)
    found = {name: followed(case, start, steps, every) for name, case in runs.items()}
    rows = []
    for name, lines in found.items():
        for place in sorted({0, len(lines["step"]) // 2, len(lines["step"]) - 1}):
            values = [f"{lines[key][place]:.3g}" if key in lines else "" for key in SHOWN]
            rows.append((name, f"{lines['step'][place]:.0f}", *values))
    print(table(("run", "step", *SHOWN), rows), end="\n\n")
    if args.out:
        kinds = {kind: [name for name in found if name.startswith(kind)] for kind in ("DMD", "iCT")}
        pictures = [
            Picture(kind, "curves", {
                key: {n: (found[n]["step"], found[n][key]) for n in names if key in found[n]}
                for key in SHOWN
                if any(key in found[n] for n in names)
            })
            for kind, names in kinds.items()
        ]  # fmt: skip
        print(write_report(args.out, {"title": "Healthy runs, and others"}, pictures))
    return finish("health", args, {"runs": found})


if __name__ == "__main__":
    sys.exit(main())
