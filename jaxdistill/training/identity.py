"""What a run is of, so that nothing else is taken for it or gone on with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxdistill.training.checkpoint import encode, fingerprint, load_record
from jaxdistill.training.stage import Stage


def identity_of(stage: Stage) -> dict[str, Any]:
    """All that a stage's numbers depend on, as JSON data."""
    return {
        "stage": stage.name,
        "seed": stage.seed,
        "steps": stage.steps,
        "config": dict(stage.identity),
        "frozen": {
            name: fingerprint(tree) for name, tree in {**stage.initial, **stage.frozen}.items()
        },
    }


def refuse_other(path: Path, identity: Mapping[str, Any]) -> None:
    """Compares what a checkpoint or a result is of with what is to be run.

    Raises:
        ValueError: listing every value that differs, both values.
    """
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
