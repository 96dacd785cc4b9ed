"""What a claim keeps of every seed: its values, under which config, on which machine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxdistill._errors import differences
from jaxdistill._files import read_sealed, write_json
from jaxdistill.identities import identities
from jaxdistill.training.checkpoint import digest
from jaxdistill.training.report import plain


def digest_of(config: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]]) -> str:
    """A hash of all that the answer to a config's claim depends on besides the seeds.

    Words do not count, nor how often something is written: see
    :func:`jaxdistill.identities.identities`.
    """
    claim = config["claim"]
    contrasts = {}
    for name, contrast in claim["contrasts"].items():
        margin = contrast.get("margin")
        margin = margin["value"] if isinstance(margin, Mapping) else margin
        said = {key: value for key, value in contrast.items() if key != "sentence"}
        contrasts[name] = {**said, "margin": margin}
    stages = {name: identities({**arm, "seed": 0}) for name, arm in arms.items()}
    return digest({"metric": claim["metric"], "contrasts": contrasts, "arms": stages})


def write_seed(root: Path, seed: int, own: str, found: Mapping[str, Any], where: Any) -> None:
    """Keeps what the arms gave with one seed, and under which config and on which machine."""
    path = _path(root, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"seed": seed, "config": own, "environment": where, "arms": found}
    write_json(path, plain(record))


def read_seed(root: Path, seed: int) -> dict[str, Any] | None:
    """The record of a seed, or None if it has not run."""
    path = _path(root, seed)
    if not path.exists():
        return None
    record = _record(path)
    for values in record["arms"].values():
        for metric, value in values.items():
            values[metric] = float(value)  # what is not finite stands there in words
    return record


def refuse_other_configs(root: Path, config: Mapping[str, Any], own: str) -> None:
    """Refuses to answer a claim in a folder whose seeds ran with another config.

    Raises:
        ValueError: naming the seeds and every value of the config that differs.
    """
    records = [_record(path) for path in sorted((root / "seeds").glob("*.json"))]
    stale = sorted(record["seed"] for record in records if record["config"] != own)
    if not stale:
        return
    there = read_sealed(root / "config.json")
    changed = differences(there, json.loads(json.dumps(config)))
    said = "\n".join(changed) or "- not in its values, but in what this version makes of them"
    raise ValueError(
        f"the claim is not answered: its config has changed since seeds {ranges(stale)} ran in "
        f"{root}:\n{said}\nTake another --workdir, and seeds that have not been seen: "
        f"--first_seed={max(stale) + 1}"
    )


def _record(path: Path) -> dict[str, Any]:
    """What :func:`write_seed` wrote."""
    try:
        found = json.loads(path.read_text())
        whole = {"seed", "config", "environment", "arms"} <= found.keys()
    except (ValueError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is damaged: without it the seed runs again")
    return found


def _path(root: Path, seed: int) -> Path:
    return root / "seeds" / f"{seed}.json"


def environments(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The machines and versions that seeds ran with, each with its seeds."""
    found: list[dict[str, Any]] = []
    for record in records:
        own = record["environment"]
        same = next((e for e in found if {**e, "seeds": None} == {**own, "seeds": None}), None)
        if same is None:
            same = {**own, "seeds": []}
            found.append(same)
        same["seeds"].append(record["seed"])
    return found


def ranges(seeds: Iterable[int]) -> str:
    """Whole numbers with what lies between left out: ``0 to 4, 7``."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ", ".join(f"{a} to {b}" if a != b else str(a) for a, b in runs)
