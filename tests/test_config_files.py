"""Configs found by name, what the command line sets in them, and that a wheel carries them."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from jaxdistill import config_files
from jaxdistill.config_files import changed, read

ROOT = Path(__file__).parents[1]
CONFIG = {
    "seed": 0,
    "data": {"name": "digits", "dir": ""},
    "recipe": ("distil",),
    "stages": {
        "distil": {
            "student": {"net": "mlp", "widths": (8, 8)},
            "view": {"augment": ({"name": "resize", "size": 8}, {"name": "flip"})},
            "objective": {"soft": {"loss": "hinton_kd", "temperature": 2.0, "weight": 0.5}},
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "steps": 5,
        }
    },
}


def value_at(config, path):
    for key in path.split("."):
        config = config[int(key) if isinstance(config, tuple) else key]
    return config


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("seed=3", 3),
        ("stages.distil.steps=100", 100),
        ("stages.distil.optimizer.learning_rate=3e-4", 3e-4),
        ("stages.distil.objective.soft.temperature=4", 4.0),
        ("stages.distil.student.widths=(16,)", (16,)),
        ("stages.distil.student.widths=16, 8", (16, 8)),
        ("stages.distil.student.widths=[16, 8]", (16, 8)),
        ("stages.distil.view=None", None),
        ("stages.distil.view.augment.0.size=4", 4),
        (
            "stages.distil.optimizer.learning_rate={'schedule': 'constant'}",
            {"schedule": "constant"},
        ),
        # Keys that the config does not spell out.
        ("stages.distil.checkpoint=runs/a=b/teacher", "runs/a=b/teacher"),
        ("stages.distil.log_every=10", 10),
        ("stages.distil.best=('test/accuracy', 'max')", ("test/accuracy", "max")),
        ("stages.distil.student.patch=4", 4),
        ("stages.distil.student.dropout=.5", 0.5),
        ("stages.distil.student.dtype=bfloat16", "bfloat16"),
        ("stages.distil.optimizer.nesterov=true", True),
        ("stages.distil.optimizer.nesterov=False", False),
        ("stages.distil.targets.cached.views=4", 4),
        ("data.validation=0.1", 0.1),
        ("mesh.fsdp=-1", -1),
        # A string stays one.
        ("data.dir=2024", "2024"),
        ("data.dir=None", "None"),
        # So does a name that looks like a number, in a place that the config does not spell out.
        ("stages.distil.data.dir=2024", "2024"),
        ("data.path=7", "7"),
        ("stages.distil.checkpoint=12", "12"),
        ("data.dir='a b'", "a b"),
        ("data.dir=(unfinished", "(unfinished"),
    ],
)
def test_a_value(setting, value):
    found = value_at(changed(CONFIG, [setting]), setting.partition("=")[0])
    assert (found, type(found)) == (value, type(value))


def test_what_is_set_leaves_the_config_and_all_else_alone():
    before = repr(CONFIG)
    found = changed(CONFIG, ["stages.distil.view.augment[-1].probability=0.1"])
    assert repr(CONFIG) == before
    assert found["stages"]["distil"]["view"]["augment"] == (
        {"name": "resize", "size": 8},
        {"name": "flip", "probability": 0.1},
    )
    assert {**found, "stages": 0} == {**CONFIG, "stages": 0}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("sede=3", "unknown key of the config 'sede': did you mean 'seed'?"),
        ("stages.distill.steps=3", "unknown stage 'distill': did you mean 'distil'?"),
        ("stages.distil.checkpont=x", "unknown key of stage 'distil' 'checkpont': did you mean"),
        ("stages.distil.viw.augment=()", "did you mean 'view'?"),
        ("stages.distil.objective.sofd.weight=1", "'sofd': did you mean 'soft'?"),
        ("stages.distil.steps.more=1", "stages.distil.steps is 5 and has no key 'more'"),
        ("stages.distil.student=mlp", "a group of settings and cannot be 'mlp'"),
        ("stages.distil.view.augment.2.size=1", "a sequence of 2, which has no entry '2'"),
        ("seed", "--config.seed needs a value"),
    ],
)
def test_a_path_that_cannot_be(setting, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        changed(CONFIG, [setting])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("stages.distil.records.labelled=30", {"labelled": 30, "selected": 2000}),
        ("stages.distil.records={'labelled': 30}", {"labelled": 30}),
        ("stages.distil.records=None", None),
    ],
)
def test_what_is_set_wins_over_a_variant(setting, value):
    config = read("ssld:small", ["data.name=mnist", setting])
    assert config["stages"]["distil"]["records"] == value
    assert config["stages"]["teacher"]["steps"] == 1500


def test_own_files_and_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = "def get_config(size=''):\n    return {'title': size, 'data': {'name': 'digits'}}\n"
    (tmp_path / "mine.py").write_text(own)
    assert config_files.load("mine.py:small")["title"] == "small"
    assert config_files.load("hinton_mnist:small") == config_files.load(
        f"{ROOT}/configs/hinton_mnist.py:small"
    )
    for name, words in {
        "mnie.py": "unknown config file 'mnie.py': did you mean 'mine.py'?",
        "hinton": "did you mean 'hinton_mnist'?",
        "hinton_mnist:smal": "'smal': did you mean 'small'?",
    }.items():
        with pytest.raises(ValueError, match=re.escape(words)):
            config_files.load(name)
    (tmp_path / "other.py").write_text("seed = 0\n")
    with pytest.raises(ValueError, match="no function 'get_config'"):
        config_files.load("other.py")


def test_a_wheel_carries_the_configs(tmp_path):
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path)))
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".pyc")]
        # What pip does with a wheel of Python alone.
        archive.extractall(tmp_path / "installed")
    code = """if True:
        from jaxdistill import config_files
        print(config_files.__file__)
        for name in config_files.names():
            print(config_files.load(f"{name}:small")["title"])
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    where, *titles = done.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path)
    assert titles == [config_files.load(f"{name}:small")["title"] for name in config_files.names()]


def test_an_archive_of_the_sources_carries_them_too():
    paths = {file.distribution_path for file in SdistBuilder(str(ROOT)).recurse_included_files()}
    assert {f"configs/{name}.py" for name in config_files.names()} <= paths
