"""Every file of a run and of a cache, deleted, cut, with one bit flipped, exchanged with another of
its size: refused or repaired with its name, and never other numbers."""

import logging
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import main
from jaxdistill.data.sources import arrays
from jaxdistill.data.stream import stream
from jaxdistill.distiller import Distiller
from jaxdistill.store import CONTAINERS, Layout, begin, open_store
from jaxdistill.training.checkpoint import fingerprint
from jaxdistill.training.loop import Stage, run_stage

IMAGES = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
DATA = stream(arrays({"image": IMAGES}), 16, seed=0, threads=0)
HARMS = ("deleted", "emptied", "cut", "flipped", "exchanged")


def stage(trouble=-1) -> Stage:
    def init(key, frozen, batch):
        return {"step": jnp.int32(0), "sum": jnp.zeros((40, 40)), "other": jnp.ones((40, 40))}

    def step(state, frozen, batch):
        loss = jnp.where(state["step"] == trouble, jnp.nan, batch["image"].sum())
        moved = state["sum"] * 1.01 + loss * jnp.arange(1600.0).reshape(40, 40)
        return {"step": state["step"] + 1, "sum": moved, "other": -moved}, {"loss": (loss, 1.0)}

    return Stage(
        "trial", Distiller(init, step, lambda state: state), DATA, 6, log_every=1,
        checkpoint_every=2,
    )  # fmt: skip


def numbers(outcome):
    lines = [{k: v for k, v in x.items() if k != "steps_per_second"} for x in outcome.metrics]
    return lines, outcome.values, fingerprint(outcome.result)


def files_of(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def harmed(folder: Path, name: Path, harm: str) -> list[Path]:
    """The files that were harmed; none if this one cannot be harmed like that."""
    path = folder / name
    content = bytearray(path.read_bytes())
    if harm == "deleted":
        path.unlink()
    elif not content:
        return []
    elif harm == "emptied":
        path.write_bytes(b"")
    elif harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "flipped":
        place = np.random.default_rng(len(content)).integers(len(content))
        content[place] ^= 1 << int(place) % 8
        path.write_bytes(bytes(content))
    else:
        others = (p for p in (folder / other for other in files_of(folder)) if p != path)
        alike = [p for p in others if p.stat().st_size == len(content)]
        alike = [p for p in alike if p.read_bytes() != bytes(content)]
        if not alike:
            return []
        path.write_bytes(alike[0].read_bytes())
        alike[0].write_bytes(bytes(content))
        return [name, alike[0].relative_to(folder)]
    return [name]


def trials(folder: Path):
    return [(name, harm) for name in files_of(folder) for harm in HARMS]


@pytest.fixture(scope="module")
def whole():
    return numbers(run_stage(stage(), quiet=True))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One that is done, and one that was stopped behind two checkpoints."""
    done, stopped = tmp_path_factory.mktemp("done"), tmp_path_factory.mktemp("stopped")
    run_stage(stage(), done, quiet=True)
    with pytest.raises(FloatingPointError):
        run_stage(stage(trouble=4), stopped, quiet=True)
    return {"done": done, "stopped": stopped}


@pytest.mark.parametrize("where", ["done", "stopped"])
def test_every_file_of_a_run(runs, whole, where, tmp_path, caplog):
    needed = "result" if where == "done" else f"{4:010d}"
    exchanged = 0
    for number, (name, harm) in enumerate(trials(runs[where])):
        if needed not in name.parts and name.name != "metrics.jsonl" and harm != "flipped":
            continue  # nothing is read of it
        if where == "stopped" and harm in ("emptied", "cut"):
            continue  # each goes through all its steps again
        folder = tmp_path / str(number)
        shutil.copytree(runs[where], folder)
        if not (names := harmed(folder, name, harm)):
            continue
        exchanged += harm == "exchanged"
        caplog.clear()
        said = ""
        try:
            with caplog.at_level(logging.WARNING):
                assert numbers(run_stage(stage(), folder, quiet=True)) == whole, (name, harm)
        except (ValueError, OSError) as fault:
            said = str(fault)
        read = [x for x in names if needed in x.parts or x.name == "metrics.jsonl"]
        # Of a folder the path within it is named.
        known = [str(x).split(f"{needed}/")[-1] for x in read]
        assert not read or any(x in said + caplog.text for x in known), (name, harm, said)
        shutil.rmtree(folder)
    assert exchanged or where == "done"


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_file_of_a_cache(tmp_path, container):
    layout = Layout(
        {"id": jax.ShapeDtypeStruct((16,), np.uint8), "v": jax.ShapeDtypeStruct((), np.float32)}
    )
    writer = begin(
        tmp_path / "s", {"a": 1}, layout, 40, container=container, part_bytes=10 * layout.width
    )
    for number, (first, last) in enumerate(writer.parts()):
        rows = np.arange(first, last)
        ids = np.repeat(rows[:, None], 16, 1).astype(np.uint8)
        writer.write(number, {"id": ids, "v": rows.astype(np.float32)}, {"error": rows * 0.1})
    writer.finish([f"r/{i}" for i in range(40)], {})
    exchanged = 0
    for number, (name, harm) in enumerate(trials(tmp_path / "s")):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "s", folder)
        if not (names := harmed(folder, name, harm)):
            continue
        exchanged += harm == "exchanged"
        said = ""
        try:
            store = open_store(folder, {"a": 1})
            np.testing.assert_array_equal(store.read(np.arange(40))["v"], np.arange(40.0))
            said = "; ".join(store.verify())  # what no row is read from
        except (ValueError, OSError) as fault:
            said = str(fault)
        assert any(each.parts[0] in said for each in names), (name, harm, said)
    assert exchanged


@pytest.mark.parametrize("harm", HARMS[1:4])
def test_the_config_of_a_run(tmp_path, harm):
    config = {"seed": 0, "stages": {"distil": {"steps": 3}}}
    main.start(str(tmp_path), config)
    main.start(str(tmp_path), config)
    assert harmed(tmp_path, Path("config.json"), harm)
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        main.start(str(tmp_path), config)
