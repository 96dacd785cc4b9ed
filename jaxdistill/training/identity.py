"""What a run is made from, so that no other run is taken for it or resumed as it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxdistill._computed import computed
from jaxdistill.training.checkpoint import encode, fingerprint, load_record
from jaxdistill.training.checks import abstract
from jaxdistill.training.stage import Stage


def identity_of(stage: Stage, stream: Any, batch: Any) -> dict[str, Any]:
    """All that a stage's numbers depend on, as JSON data.

    Args:
        stage: the stage.
        stream: what it reads at first, or None.
        batch: its first batch.
    """
    found = {
        "stage": stage.name,
        "seed": stage.seed,
        "steps": stage.steps,
        "frozen": {
            name: fingerprint(tree) for name, tree in {**stage.initial, **stage.frozen}.items()
        },
        "data": {**_data(stream, batch), "sets": _sets(stage)},
    }
    if stage.identity is not None:
        return {**found, "config": dict(stage.identity)}
    return {**found, "computes": _computes(stage, batch), "measures": _measures(stage)}


def _measures(stage: Stage) -> dict[str, Any]:
    """What is measured and selected on the way."""
    return {
        "sets": [[evaluation.set, evaluation.every] for evaluation in stage.evaluations],
        "spans": {name: list(span) for name, span in stage.spans.items()},
        "between": stage.between[0] if stage.between else 0,
        "best": [*(stage.best or ()), stage.returns],
    }


def _data(stream: Any, batch: Any) -> dict[str, Any]:
    """What is known of the data: its records, how many make a batch, and the first batch."""
    if stream is None:
        return {}
    found: dict[str, Any] = {}
    if (size := getattr(stream, "batch_size", None)) is not None:
        found["batch_size"] = size
    if (source := getattr(stream, "source", None)) is not None:
        found["records"] = source.fingerprint()
    if jax.process_count() == 1:
        found["first"] = fingerprint(batch)
    return found


def _sets(stage: Stage) -> dict[str, str]:
    """Fingerprints of what is evaluated on."""
    given = {evaluation.set: evaluation.data for evaluation in stage.evaluations}
    sources = {name: getattr(data, "source", None) for name, data in given.items()}
    return {name: source.fingerprint() for name, source in sources.items() if source is not None}


def _computes(stage: Stage, batch: Any) -> dict[str, str]:
    """Hashes of the three functions of a distiller, traced without a mesh: on how many devices they
    run changes nothing."""
    init, step, result, *_ = stage.distiller
    started = {**stage.frozen, **stage.initial}
    key, shapes = jax.random.key(stage.seed), abstract(batch)
    state = jax.eval_shape(init, key, started, shapes)
    return {
        "init": computed(init, key, started, shapes),
        "step": computed(step, state, dict(stage.frozen), shapes),
        "result": computed(result, state),
    }


def machine(mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """What the last bits of a run depend on besides its identity."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "jax": jax.__version__,
        "platform": jax.default_backend(),
        "devices": mesh.size,
        "processes": jax.process_count(),
        "cores": cores,
    }


def say_if_elsewhere(path: Path, record: Mapping[str, Any], mesh: jax.sharding.Mesh) -> None:
    """Warns when a run is resumed where the last bits may differ."""
    there, here = record["machine"], machine(mesh)
    changed = [f"{name}: {there.get(name)} there, {here[name]} now" for name in here]
    changed = [
        text for text, name in zip(changed, here, strict=True) if there.get(name) != here[name]
    ]
    if changed:
        logging.warning(
            "%s was written elsewhere (%s): the run is resumed, but its last bits may differ from "
            "those that it would have had there", path, "; ".join(changed),
        )  # fmt: skip


def refuse_other(path: Path, identity: Mapping[str, Any]) -> None:
    """Compares the identity of a checkpoint or a result with that of the run. Of the data only what
    both know is compared; traces are compared where the same version of JAX made them for the same
    kind of device.

    Raises:
        ValueError: listing every value that differs, both values.
    """
    record = load_record(path)
    there = dict(_entries(record["identity"]))
    here = dict(_entries(encode(identity)))
    alike = record["machine"]["jax"] == jax.__version__
    alike = alike and record["machine"]["platform"] == jax.default_backend()
    names = there.keys() | here.keys()
    names -= {n for n in there.keys() ^ here.keys() if n.startswith("data.") or n == "data"}
    names -= {n for n in names if n.startswith("computes.") and not alike}
    faults = [
        f"- {name}: {there.get(name, 'absent')} there, {here.get(name, 'absent')} now"
        for name in sorted(names)
        if there.get(name, "absent") != here.get(name, "absent")
    ]
    if any(fault.startswith("- computes.") for fault in faults):
        faults.append(
            "(what is computed depends on net, loss, temperature, optimizer and its rate)"
        )
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
