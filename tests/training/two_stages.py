"""What ``test_kill.py`` kills: a teacher, then its student, slow enough to be caught."""

import json
import sys
import time
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax

from jaxdistill import targets
from jaxdistill.data import sources
from jaxdistill.data.stream import stream
from jaxdistill.distiller import model_to_model
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.losses import cross_entropy, hinton_kd
from jaxdistill.objective import per_example
from jaxdistill.training.loop import Evaluation, Stage, run_stage

STEPS = 42


class Perceptron(nn.Module):
    """One hidden layer with dropout: a resumed run must draw the same masks."""

    hidden: int

    @nn.compact
    def __call__(self, image, train: bool = False):
        units = nn.relu(nn.Dense(self.hidden)(image.reshape(image.shape[0], -1)))
        return nn.Dense(10)(nn.Dropout(0.2)(units, deterministic=not train))


class Watched:
    """A stream that writes down which records it gave, and takes its time."""

    def __init__(self, inner, order: Path):
        self.inner, self.order = inner, order

    def at(self, step, takes=1):
        return self.inner.at(step, takes)

    def iterate(self, start=0, takes=1):
        for step, batch in enumerate(self.inner.iterate(start, takes), start):
            with self.order.open("a") as file:
                file.write(json.dumps({"step": step, "index": batch["index"].tolist()}) + "\n")
            time.sleep(0.01)
            yield batch


def main(root: Path) -> None:
    source = sources.digits()
    everything = source.gather(np.arange(len(source)))
    teacher, student = from_linen(Perceptron(32)), from_linen(Perceptron(8))

    def labels(forward, goal, batch):
        return {"ce": per_example(1.0, cross_entropy(forward.out, batch["label"]))}

    def soft(forward, goal, batch):
        values = hinton_kd(forward.out, goal["out"], temperature=4.0)
        return {"kd": per_example(lambda step: 1 / (1 + step / 50), values)}

    def evaluation(net):
        predict = jax.jit(lambda result: net.apply(*result, everything["image"]).out)

        def accuracy(result, frozen, data):
            hits = np.argmax(predict(result), -1) == everything["label"]
            return {"accuracy": float(hits.mean())}

        return [Evaluation("train", accuracy, every=14)]

    def weigh(result, frozen, plan):
        """Pseudo-random weights of classes, drawn anew from those before."""
        before = plan["shares"] if plan else np.linspace(0.5, 1.5, 10)
        shares = (before * 7.3 + 0.11) % 1 + 0.2
        return {"shares": shares, "weights": shares[everything["label"]]}

    def run(name, distiller, frozen, **settings):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)

        def data(plan):
            weights = None if plan is None else plan["weights"]
            return Watched(stream(source, 32, seed=3, weights=weights), folder / "order.jsonl")

        stage = Stage(
            name,
            distiller,
            data,
            STEPS,
            frozen,
            log_every=3,
            checkpoint_every=7,
            seed=5,
            **settings,
        )
        return run_stage(stage, folder, quiet=True).result

    tx = optax.adam(3e-3)
    first = model_to_model(teacher, targets.labels(), labels, tx, ema=0.9)
    result = run("teacher", first, {}, evaluations=evaluation(teacher))
    second = model_to_model(student, targets.live(teacher), soft, tx)
    run(
        "student",
        second,
        {"teacher": result},
        evaluations=evaluation(student),
        best=("train/accuracy", "max"),
        between=(10, weigh),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
