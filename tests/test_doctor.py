"""The doctor says what is missing, and neither hangs nor fails where a device does."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jaxdistill import doctor
from jaxdistill.doctor import Needed

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
CPU = {"devices": [{"kind": "cpu", "platform": "cpu", "bytes": 0}] * 2, "seconds": 0.5}


def test_every_extra_has_its_purpose():
    assert set(doctor.PURPOSES) == set(PROJECT["optional-dependencies"]) - {"all", "docs", "test"}


def test_what_is_needed_is_what_the_project_says():
    found = {(each.package, each.extra) for each in doctor.needed()}
    names = [re.match(r"[\w.-]+", each)[0] for each in PROJECT["dependencies"]]
    assert {(name.replace("_", "-"), "") for name in names} <= found
    assert {("matplotlib", "plots"), ("pillow", "images"), ("pillow", "tfds")} <= found
    # Of the two windows for JAX one is of this Python.
    (jax,) = [each for each in doctor.needed() if each.package == "jax"]
    assert ("<0.11" in jax.asked) == (sys.version_info < (3, 12))


def test_all_is_here():
    packages = [Needed("jax", ">=0.10", "", "0.10.2"), Needed("pillow", ">=11", "images", "12.0")]
    said, status = doctor.examined(packages, CPU)
    assert status == 0
    assert "2 × cpu" in said
    assert said.endswith("What to do\n  nothing: all is here")


def test_what_is_missing_and_how_to_get_it():
    packages = [
        Needed("jax", ">=0.10", "", None),
        Needed("flax", ">=0.12", "", "0.11.9"),
        Needed("pillow", ">=11", "images", None),
        Needed("pyarrow", ">=17", "text", None),
    ]
    said, status = doctor.examined(packages, CPU)
    assert status == 1
    assert "needed and missing: jax" in said
    assert 'flax is 0.11.9: pip install "flax>=0.12"' in said
    assert 'pip install "jaxdistill[images,text]"' in said
    assert re.search(r"images +without pillow", said)
    # An extra that is missing is no fault.
    assert doctor.examined(packages[2:], CPU)[1] == 0


def test_jax_that_fails_or_hangs(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "no_such_device")
    answer = doctor.tried(60)
    assert "no_such_device" in answer["fault"]
    said, status = doctor.examined([], answer)
    assert status == 1
    assert "none that computes" in said
    assert "unset JAX_PLATFORMS" in said
    monkeypatch.setattr(doctor, "_TRIED", "import time; time.sleep(60)")
    answer = doctor.tried(0.2)
    assert "JAX did not answer within 0.2 s" in answer["fault"]
    assert "another process may hold the device" in doctor.examined([], answer)[0]


def test_an_accelerator_that_jax_does_not_use(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(doctor, "accelerators", lambda: {"an NVIDIA GPU": "cuda13"})
    said, status = doctor.examined([], CPU)
    assert 'an NVIDIA GPU that JAX does not use: pip install "jax[cuda13]"' in said
    gpu = {"kind": "NVIDIA H200", "platform": "gpu", "bytes": 139 << 30}
    said, status = doctor.examined([], {"devices": [gpu], "seconds": 1.0})
    assert "1 × NVIDIA H200 (gpu), 139 GiB each" in said
    assert "cuda13" not in said
    assert status == 0


@pytest.mark.parametrize("lost", ["matplotlib", "jax"])
def test_without_a_package(lost):
    """What the command says in a process that does not find a package."""
    code = (
        "import sys, importlib.metadata as m; whole = m.version\n"
        "def version(name):\n"
        f"    if name == {lost!r}: raise m.PackageNotFoundError(name)\n"
        "    return whole(name)\n"
        f"m.version = version; sys.modules[{lost!r}] = None\n"
        "from jaxdistill import cli, doctor\n"
        f"doctor.tried = lambda s: dict({CPU!r})\n"
        "cli.run(['doctor'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == int(lost == "jax"), done.stderr
    assert lost in done.stdout.partition("What to do")[0]
    assert "pip install" in done.stdout.partition("What to do")[2]
