"""The command of caches from config to disk and back, and what a recipe with one refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxdistill import config_files, recipe
from jaxdistill.overrides import override
from jaxdistill.store import open_store

ROOT = Path(__file__).parents[1]
CONFIG = "--config=configs/ssld.py:small"


def command(module, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", f"jaxdistill.{module}", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip


def last_line(done):
    return json.loads(done.stdout.strip().split("\n")[-1])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("cache") / "run"
    done = command("cache", "write", CONFIG, "--smoke", "--quiet", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_write_describes_what_it_wrote(written):
    workdir, done = written
    (found,) = last_line(done)["written"]
    store = open_store(found["path"])
    assert Path(found["path"]).parent == workdir / "caches"
    assert found["records"] == store.records == len(store)
    assert found["outputs"] == {"teacher/out": 40}
    assert "teacher/out" in done.stdout
    # The teacher was trained, the student was not.
    assert [p.name.split("-")[0] for p in (workdir / "stages").iterdir()] == ["teacher"]


def test_the_recipe_trains_from_the_cache_that_is_there(written):
    workdir, done = written
    path = Path(last_line(done)["written"][0]["path"])
    before = {p.name: p.stat().st_mtime_ns for p in path.iterdir()}
    run = command("main", CONFIG, "--smoke", "--quiet", f"--workdir={workdir}")
    assert run.returncode == 0, run.stderr
    assert (workdir / "report.html").exists()
    assert {p.name: p.stat().st_mtime_ns for p in path.iterdir()} == before


def test_verify_and_info_say_what_is_there_and_what_is_damaged(written):
    workdir, done = written
    path = Path(last_line(done)["written"][0]["path"])
    good = command("cache", "verify", CONFIG, "--smoke", f"--workdir={workdir}", "--samples=16")
    assert good.returncode == 0, good.stderr
    (answer,) = last_line(good)["verified"]
    assert answer["samples"] == 16
    assert answer["outputs"]["teacher/out"]["agree"] == 1.0
    info = command("cache", "info", str(path))
    assert last_line(info)["caches"][0]["bytes_per_record"] == 16 + 8 + 40 + 4
    part = next(path.glob("*.array_record"))
    content = part.read_bytes()
    part.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    try:
        bad = command("cache", "verify", str(path))
        assert bad.returncode == 1
        assert f"{part.name}: its checksum is not that of the manifest" in bad.stdout
        part.write_bytes(content[:-100])
        refused = command("cache", "write", CONFIG, "--smoke", f"--workdir={workdir}")
        assert refused.returncode == 2
        assert f"{part.name}: {len(content) - 100} bytes, but {len(content)}" in refused.stderr
    finally:
        part.write_bytes(content)


def test_misuse_is_said_in_a_sentence(tmp_path):
    wrong = command("cache", "wirte", CONFIG)
    assert wrong.returncode == 2
    assert "unknown command 'wirte': did you mean 'write'?" in wrong.stderr
    none = command(
        "cache", "write", "--config=configs/hinton_mnist.py:small", f"--workdir={tmp_path / 'w'}"
    )
    assert none.returncode == 2
    assert "no stage of this config reads its teachers from disk" in none.stderr
    assert not (tmp_path / "w").exists()


def small(name="ssld", **changes):
    return override(config_files.load(f"{name}:small"), changes)


CACHED = "stages.distil.targets.cached"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({f"{CACHED}": {"veiws": 2}}, "stage 'distil': unknown key of 'cached' 'veiws'.*'views'"),
        ({f"{CACHED}.outputs": {"output": {}}}, "output to cache for stage 'distil' 'output'"),
        ({f"{CACHED}.outputs": {"out": {"codec": "topk"}}}, "did you mean 'top_k'"),
        ({f"{CACHED}.outputs": {"out": {"codec": "top_k", "k": 11}}}, "k must be .*11"),
        ({"stages.distil.targets.mode": "train"}, "depends on its batch, so it cannot be cached"),
        ({"stages.distil.records.views": 2}, "give 'views' to 'cached', not to 'records'"),
        (
            {"stages.distil.view": {"mix": {"name": "partial_mixup"}}},
            "mixes by .partial_mixup., which draws for every batch .* take .cached. out",
        ),
        ({"stages.distil.records.selcted": 3}, "key of 'records' 'selcted'.*'selected'"),
        ({"stages.distil.data": {"name": "digit"}}, "'digits'"),
    ],
)
def test_a_bad_config_is_refused_before_anything_is_computed(changes, words):
    with pytest.raises(ValueError, match=words):
        recipe.plan(small(**changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages.weigh.work.powr": 1}, "key of work 'transfer_weights' 'powr'"),
        ({"stages.weigh.work.labelled": 0}, "'labelled'.* is 0"),
        ({"stages.weigh.work.sources": {"nea": "near"}}, "'nea'.*'near'"),
        ({"stages.weigh.work.sources": {"near": "distil"}}, "'distil'.*Possible.*'near'"),
    ],
)
def test_bad_weights_by_likeness_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        recipe.plan(small("distill_weighted", **changes))


def test_arms_share_a_cache_only_where_it_is_the_same(tmp_path):
    from jaxdistill.recipe import stage_cache

    def path(**changes):
        plan = recipe.plan(small(**changes))
        return stage_cache.path_of(plan, plan.stage("distil"), tmp_path)

    own = path()
    assert path(**{"stages.distil.steps": 70}) == own
    assert path(**{"stages.distil.student.widths": (8,)}) == own
    assert path(**{"stages.teacher.steps": 70}) != own
    assert path(**{f"{CACHED}.views": 2}) != own
    assert path(**{"seed": 1}) != own
    assert path(**{f"{CACHED}.path": "elsewhere"}) == Path("elsewhere")
