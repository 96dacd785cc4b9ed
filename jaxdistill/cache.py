"""Writes, checks and describes caches of teacher outputs.

    python -m jaxdistill.cache write --config=configs/meal_v2.py:small --workdir=runs/meal
    python -m jaxdistill.cache verify --config=configs/meal_v2.py:small --workdir=runs/meal
    python -m jaxdistill.cache info runs/meal/caches/<name>

``write`` trains what the cached teachers need, or takes it from the working directory, and runs
them over their records; if it was stopped, the same command resumes. ``verify`` checks every
checksum and recomputes some records with the teachers; given a folder instead of a config, only
checksums.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from absl import app, flags

from jaxdistill import main as command
from jaxdistill._errors import unknown

SAMPLES = flags.DEFINE_integer("samples", 64, "how many records verify recomputes", lower_bound=1)
COMMANDS = ("write", "verify", "info")


def describe(store: Any) -> str:
    """A store as text."""
    manifest = store.manifest
    size = sum(file["bytes"] for file in manifest["files"])
    lines = [
        str(store.path),
        f"records {store.records}, views {store.views}, rows {len(store)}",
        f"container {manifest['container']}, {len(manifest['files'])} files, {size:,} bytes",
        f"bytes a row {store.layout.width}, with header and checksum",
        f"written by jaxdistill {manifest.get('library')} from {manifest.get('source')}",
        "",
        f"{'output':28} {'codec':12} {'shape':>16} {'bytes':>9}",
    ]
    for name, settings in manifest["identity"]["outputs"].items():
        width = _bytes_of(store, name)
        lines.append(f"{name:28} {settings['codec']:12} {settings['shape']!s:>16} {width:9}")
    lines += ["", f"{'measure':44} {'mean':>12} {'largest':>12}"]
    for name, value in manifest["measures"].items():
        lines.append(f"{name:44} {value['mean']:12.4g} {value['max']:12.4g}")
    for name, fingerprint in manifest["identity"].get("teachers", {}).items():
        lines.append(f"teacher {name}: {fingerprint}")
    return "\n".join(lines)


def _bytes_of(store: Any, output: str) -> int:
    fields = store.layout.fields
    own = [spec for field, spec in fields.items() if field.startswith(f"{output}/")]
    return sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in own)


def summary(store: Any) -> dict[str, Any]:
    """A store as one JSON object."""
    return {
        "path": str(store.path),
        "records": store.records,
        "views": store.views,
        "container": store.manifest["container"],
        "bytes": sum(file["bytes"] for file in store.manifest["files"]),
        "bytes_per_record": store.layout.width,
        "outputs": {name: _bytes_of(store, name) for name in store.manifest["identity"]["outputs"]},
        "measures": store.manifest["measures"],
    }


def _write() -> int:
    from jaxdistill import recipe
    from jaxdistill.training.sharding import make_mesh

    plan, root = _planned()
    mesh, rules = make_mesh(plan.config.get("mesh")), tuple(plan.config.get("rules") or ())
    written = []
    for planned in recipe.cached_stages(plan):
        quiet = command.QUIET.value
        outcomes = recipe.run(plan, root, stages=planned.needs, quiet=quiet)
        results = {name: outcome.result for name, outcome in outcomes.items()}
        settled = recipe.settled(plan, results)
        store = recipe.write_cache(
            settled,
            settled.stage(planned.name),
            results,
            root,
            mesh=mesh,
            rules=rules,
            quiet=quiet,
        )
        print(describe(store) + "\n")
        written.append(summary(store))
    print(json.dumps({"written": written}))
    return 0


def _verify(folders: list[str]) -> int:
    from jaxdistill import recipe
    from jaxdistill.store import open_store
    from jaxdistill.training import teacher_cache

    found = []
    for folder in folders:
        faults = open_store(folder, damage="skip").verify()
        found.append({"path": folder, "faults": faults, "passed": not faults})
    if not folders:
        plan, root = _planned()
        for planned in recipe.cached_stages(plan):
            results = recipe.finished(plan, root, planned.needs)
            settled = recipe.settled(plan, results)
            held = settled.stage(planned.name)
            store = recipe.open_cache(settled, held, results, root, damage="skip")
            cache = recipe.cache_of(settled, held, results)
            answer = teacher_cache.verify(cache, store, samples=SAMPLES.value)
            found.append({"path": str(store.path), **answer})
    for each in found:
        print(each["path"])
        print("\n".join(f"  {fault}" for fault in each["faults"]) or "  every checksum is right")
        for name, output in each.get("outputs", {}).items():
            print(
                f"  {name}: {each['samples']} rows recomputed, {output['agree']:.1%} agree, "
                f"largest gap {output['largest']:.3g}"
            )
    passed = all(each["passed"] for each in found)
    print(json.dumps({"verified": found, "passed": passed}))
    return 0 if passed else 1


def _info(folders: list[str]) -> int:
    from jaxdistill.store import open_store

    if not folders:
        raise ValueError("which cache? Give its folder: python -m jaxdistill.cache info <folder>")
    stores = [open_store(folder, damage="skip") for folder in folders]
    for store in stores:
        print(describe(store) + "\n")
    print(json.dumps({"caches": [summary(store) for store in stores]}))
    return 0


def _planned() -> tuple[Any, Path]:
    from jaxdistill import recipe

    config = command.read_config()
    plan = recipe.plan(config)
    if not recipe.cached_stages(plan):
        raise ValueError(
            "no stage of this config reads its teachers from disk: give its targets "
            "'cached', e.g. {'kind': 'live', 'stage': 'teacher', 'cached': {'views': 1}}"
        )
    return plan, command.start(command.WORKDIR.value, config)


def main(argv: list[str]) -> None:
    """The command line."""
    if len(argv) < 2 or argv[1] not in COMMANDS:
        given = argv[1] if len(argv) > 1 else ""
        sys.exit(command.refused(unknown("command", given, COMMANDS)))
    action, folders = argv[1], argv[2:]
    if action == "write":
        command.end(command.guarded(_write, command.named(folders)))
    run = _verify if action == "verify" else _info
    command.end(command.guarded(lambda: run(folders)))


if __name__ == "__main__":
    app.run(main, flags_parser=command.parsed)
