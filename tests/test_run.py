"""The command line as its users run it: every config in smoke size, what it refuses."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill import config_files, main, present, recipe
from jaxdistill._files import verify_folder
from jaxdistill.overrides import override, smoke
from jaxdistill.training.export import load_exported

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.py"))
# The config that is run as a command; the others are run in this process.
WHOLE = "hinton_mnist.py"
FEW = {"standard_library": {"modules": 100}}
SMALLEST = "--config=configs/hinton_mnist.py:small"


def command(*arguments, module="jaxdistill.main"):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": os.environ["QUICK_XLA_FLAGS"]},  # one device
        capture_output=True,
        text=True,
        timeout=600,
    )


def refused(*arguments, **keywords):
    done = command(*arguments, **keywords)
    assert done.returncode != 0, done.stdout
    return done.stdout + done.stderr


def config_of(name):
    """The small config of a file as plain data."""
    return config_files.load(f"{ROOT}/configs/{name}:small")


@pytest.fixture(scope="module", params=CONFIGS)
def smoked(request, tmp_path_factory):
    """A finished run of a config and what it printed."""
    workdir = tmp_path_factory.mktemp("run") / "work"
    if request.param == WHOLE:
        done = command(f"--config=configs/{request.param}:small", "--smoke", f"--workdir={workdir}")
        assert done.returncode == 0, done.stderr
        return workdir, done
    config = smoke(config_of(request.param))
    # A part of the texts has all that a whole has.
    config["data"] |= FEW.get(config["data"]["name"], {})
    if "task" in config["data"]:
        few = dict.fromkeys(("count", "validation", "test", "held_out"), 48)
        config["data"]["task"] |= {n: v for n, v in few.items() if n in config["data"]["task"]}
    main.run({**config, "mesh": {"data": 1, "fsdp": 1}}, str(workdir), quiet=True)
    return workdir, None


def test_report(smoked):
    workdir, _ = smoked
    report = json.loads((workdir / "report.json").read_text())
    config = json.loads((workdir / "config.json").read_text())
    assert [stage["name"] for stage in report["stages"]] == config["recipe"]
    for stage in report["stages"]:
        own = config["stages"][stage["name"]]
        still = "work" in own or own.get("steps") == 0
        assert (stage["steps"], bool(stage["metrics"])) == ((0, False) if still else (2, True))
    answer, rows = report["answer"], report["answer"]["rows"]
    assert answer["into"]["name"] == rows[-1]["name"] or answer["then"]
    assert answer["metrics"]
    # What was distilled has values, and a cost to compare: forward passes, or records.
    for row in rows:
        assert row["values"] or row["role"] in ("teacher", "real data")
        assert row.get("records") or (row["seconds"] > 0 and row["operations"] > 0)
        # Records that a teacher wrote have no size that a student's could be compared with.
        assert row.get("bytes", row.get("records")) > 0
    assert rows[0]["role"] in ("teacher", "real data")
    page = (workdir / "report.html").read_text()
    assert config["title"] in page
    # Pictures are part of the page, and so are curves of what was measured more than once.
    asked = sum(len(config["stages"][name].get("pictures") or ()) for name in config["recipe"])
    curves = any(len(stage["metrics"]) > 1 for stage in report["stages"])
    assert page.count("<figure") >= max(asked + curves, 1)
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_restored_and_exported_students_agree(smoked):
    workdir, _ = smoked
    if (workdir / "synthetic").exists():
        # What was distilled is a data set.
        with np.load(workdir / "synthetic" / "set.npz", allow_pickle=False) as archive:
            assert len(archive["x"]) == len(archive["y"]) == len(archive["pixels"])
            assert np.isfinite(archive["x"]).all()
        return
    restored, student = jd.restore(workdir), jd.students.load(workdir)
    draw = np.random.default_rng(0)
    said = student.about["inputs"]
    seen = {name: drawn(draw, about, student) for name, about in said.items()}
    seen = seen.get("inputs", seen)
    ours = restored.net.apply(restored.params, restored.state, seen).out
    exported = load_exported(workdir / "student" / "student.jaxexport")(seen)
    for other in (exported, student.outputs(seen)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, other
        )
    assert (restored.module is None) == (student.module is None)
    verify_folder(workdir / "student")
    # The five lines of the card, where they are said to run.
    card = (workdir / "student" / "README.md").read_text()
    run_in(card.split("```python\n")[1].split("```")[0], workdir / "student")


def drawn(draw, about, student):
    """Inputs of a shape and type, tokens within the vocabulary."""
    shape = (5, *about["shape"][1:])
    if about["dtype"] == "bool":
        return np.ones(shape, bool)
    if about["dtype"].startswith("int"):
        vocabulary = student.about["preprocessing"]["tokenizer"]["vocabulary"]
        return draw.integers(0, vocabulary, shape).astype(about["dtype"])
    return draw.uniform(size=shape).astype(about["dtype"])


def run_in(program, folder):
    """Runs a few lines in a folder, in this process."""
    here = os.getcwd()
    os.chdir(folder)
    try:
        exec(program, {})
    finally:
        os.chdir(here)


def test_the_same_command_goes_on(smoked):
    workdir, first = smoked
    if first is None:
        pytest.skip("one config is enough")
    before = {p: p.stat().st_mtime_ns for p in workdir.glob("stages/*/result/_CHECKPOINT_METADATA")}
    assert len(before) == len(json.loads((workdir / "config.json").read_text())["recipe"])
    done = command(*first.args[3:])
    assert done.returncode == 0, done.stderr
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert values(done) == values(first)
    message = refused(*first.args[3:], "--config.seed=7")
    assert "- seed: 0 there, 7 now" in message


def values(done):
    return [line for line in done.stdout.splitlines() if "validation/" in line or "test/" in line]


def test_a_table_has_a_row_for_every_step_and_a_column_for_every_stage(tmp_path, capsys):
    config = config_of("self_distill_kernel.py")
    for stage in config["stages"].values():
        stage["steps"] = min(stage["steps"], 3)
    main.run(config, str(tmp_path), quiet=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["step", "alone", "guided", "best", "limit"]
    table = [[float(cell) for cell in line.split()] for line in lines[2:5]]
    assert [row[0] for row in table] == [1, 2, 3]
    assert table[0][1] == table[0][2] == table[0][3]
    # The best weight never does worse than the first fit on the set it is chosen by.
    assert max(row[3] for row in table) <= table[0][3]
    with pytest.raises(ValueError, match="'validation'"):
        present.check(recipe.plan({**config, "table": ("validaton/squared_error",)}))


def test_misspelt_key_of_the_config(tmp_path):
    message = refused(SMALLEST, "--config.stages.alone.step=3", f"--workdir={tmp_path / 'w'}")
    assert "step" in message
    assert "steps" in message
    assert not (tmp_path / "w").exists()


def small(**changes):
    """The smallest config as plain data, with some values changed."""
    config = override(config_of("hinton_mnist.py"), changes)
    return override(config, {"recipe": ("teacher", "alone", "distilled")})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages.alone.student.net": "mpl"}, ["net", "'mpl'", "'mlp'"]),
        ({"stages.alone.student": {"net": "mlp", "width": 3}}, ["'width'", "'widths'"]),
        ({"data.name": "digit"}, ["data set", "'digit'", "'digits'"]),
        ({"data.name": "mnist"}, ["--config.data.dir"]),
        ({"stages.distilled.objective.soft.loss": "hinton_dk"}, ["'hinton_kd'"]),
        (
            {"stages.distilled.objective.soft": {"loss": "hinton_kd", "temprature": 2}},
            ["'temperature'"],
        ),
        ({"stages.distilled.targets.stage": "teachr"}, ["'teacher'"]),
        ({"stages.distilled.targets": {"kind": "life"}}, ["'live'"]),
        ({"stages.distilled.objective.soft.target": "hiden_0"}, ["'distilled'", "'hidden_0'"]),
        (
            {
                "stages.distilled.objective.soft": {
                    "loss": "hint",
                    "student": "hidden_0",
                    "target": "hidden_0",
                }
            },
            ["'distilled'", "64)", "256)", "projector='linear'"],
        ),
        ({"stages.alone.optimizer.name": "adam"}, ["'adamw'"]),
        ({"stages.alone.optimizer.learning_rate": {"schedule": "cosin"}}, ["'cosine'"]),
        ({"stages.alone.evaluate.accuracy.evaluator": "classify"}, ["'classification'"]),
        ({"stages.alone.evaluate.accuracy.sets": ("tset",)}, ["'test'"]),
        ({"stages.alone.view": {"augment": ({"name": "flipp"},)}}, ["'flip'"]),
        ({"stages.alone.records": {"label": 3}}, ["'labelled'"]),
        ({"mesh": {"data": 9}}, ["9 devices", "there are 8"]),
        ({"stages.alone.pictures": ("reconstruction",)}, ["masks nothing"]),
        ({"stages.alone.pictures": ("reliabilty",)}, ["'reliability'"]),
        ({"stages.alone.pictures": ("spectrum",)}, ["repeats no fit of a kernel"]),
        (
            {
                "stages.alone.distiller": {"name": "self_distiled_fit"},
                "stages.alone.objective": None,
            },
            ["'self_distilled_fit'"],
        ),
        (
            {"stages.alone.distiller": {"name": "self_distilled_fit", "ridge": 1.0}},
            ["'alone'", "does not read 'objective'"],
        ),
        (
            {
                "stages.alone.distiller": {"name": "self_distilled_fit", "ridge": 1.0},
                "stages.alone.objective": None,
            },
            ["'mlp'", "'kernel_machine'"],
        ),
        (
            {
                "stages.alone.student": {"net": "kernel_machine", "kernel": {"name": "linear"}},
                "stages.alone.distiller": {
                    "name": "self_distilled_fit",
                    "ridge": 1.0,
                    "sets": ("test",),
                },
                "stages.alone.objective": None,
            },
            ["'test'", "'validation'"],
        ),
        (
            {
                "stages.alone.distiller": {"name": "x", "frozen": ("teachr",)},
                "stages.alone.objective": None,
            },
            ["'teacher'"],
        ),
        (
            {
                "stages.alone.student": {
                    "net": "kernel_machine",
                    "kernel": {"name": "rbf", "gama": 1},
                }
            },
            ["'gama'", "'gamma'"],
        ),
    ],
)
def test_refusals_before_anything_is_written(changes, words):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        present.check(recipe.plan(small(**changes)))
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize("path", ["stages.alne.steps", "data.nme", "stages.alone.stps"])
def test_a_change_of_nothing_is_refused(path):
    with pytest.raises(ValueError, match=r"'(alone|name|steps)'"):
        recipe.plan(small(**{path: 3}))


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A config, what its teacher stage left, and the stage's folder."""
    config = small(
        **{
            "stages.teacher.student.widths": (16,),
            "stages.teacher.evaluate": None,
            "stages.teacher.view": None,
            "stages.distilled.evaluate": None,
            "stages.distilled.student.widths": (8,),
        }
    )
    config = override(smoke(config), {"mesh": {"data": 1}})
    root = tmp_path_factory.mktemp("taught")
    plan = recipe.plan(override(config, {"recipe": ("teacher",)}))
    result = recipe.run(plan, root, quiet=True)["teacher"].result
    return (
        override(config, {"recipe": ("teacher", "distilled")}),
        result,
        next(root.glob("stages/*")),
    )


def test_a_teacher_that_is_given_is_not_trained_again(taught, tmp_path):
    config, result, folder = taught
    config = override(config, {"stages.teacher.checkpoint": str(folder)})
    again = recipe.run(recipe.plan(config), tmp_path, quiet=True)
    jax.tree.map(np.testing.assert_array_equal, again["teacher"].result, result)
    assert [path.name.split("-")[0] for path in tmp_path.glob("stages/*")] == ["distilled"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, "holds no result"),
        (lambda path: (path / "result" / "_CHECKPOINT_METADATA").unlink(), "holds no result"),
        (lambda path: None, "other arrays"),
    ],
    ids=["absent", "truncated", "other"],
)
def test_a_teacher_that_does_not_fit_is_refused(taught, tmp_path, damage, words):
    config, _, folder = taught
    shutil.copytree(folder, tmp_path / "teacher")
    damage(tmp_path / "teacher")
    changes = {"stages.teacher.checkpoint": str(tmp_path / "teacher")}
    if words == "other arrays":
        changes["stages.teacher.student.widths"] = (4,)
    with pytest.raises(ValueError, match=words):
        recipe.run(recipe.plan(override(config, changes)), tmp_path / "run", quiet=True)


def test_absent_imagenet_says_how_to_prepare_it(tmp_path):
    message = refused(
        "--config=configs/mae_vitb.py",
        "--smoke",
        f"--workdir={tmp_path / 'w'}",
        f"--config.data.dir={tmp_path}",
    )
    assert "Traceback" not in message
    assert "imagenet2012" in message
    assert "tfds build" in message or "download_and_prepare" in message
    assert not (tmp_path / "w").exists()


def test_restore_of_what_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="no working directory"):
        jd.restore(tmp_path)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_report_that_cannot_be_written_stays_as_it_is(monkeypatch, tmp_path, capsys, code):
    def report(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(present, "report", report)
    if code == errno.ENOSPC:  # a full disk is another matter
        with pytest.raises(OSError, match="space"):
            main._written(tmp_path, None, {})
        return
    assert main._written(tmp_path, None, {}) == {}
    assert "its report stays as it is" in capsys.readouterr().out
