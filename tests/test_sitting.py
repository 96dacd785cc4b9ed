"""The sitting of docs/first_run.md: its commands, in order, from a wheel, in an empty folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]


def commands():
    """The commands of the page, without what stands behind them."""
    page = (ROOT / "docs" / "first_run.md").read_text()
    lines = "".join(re.findall(r"```bash\n(.*?)```", page, re.DOTALL)).splitlines()
    return [line.partition("  #")[0].strip() for line in lines]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where pip has put the wheel, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(folder)))
    call = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    call += ["--disable-pip-version-check", "--target", str(folder / "site"), wheel]
    subprocess.run(call, check=True, capture_output=True, timeout=300)
    return folder / "site"


@pytest.fixture(scope="module")
def sitting(installed, tmp_path_factory):
    """Every command with what it printed, and the folder in which they ran."""
    here = tmp_path_factory.mktemp("empty")
    own = {"PYTHONPATH": str(installed), "XLA_FLAGS": os.environ["QUICK_XLA_FLAGS"]}
    environment = {**os.environ, **own, "COLUMNS": "100"}
    said = {}
    for command in commands():
        program, *words = command.split()
        if program != "jaxdistill":
            assert program == "pip"
            continue
        # A run of minutes is cut to two steps a stage.
        words += ["--smoke", "--quiet"] if "--workdir=" in command else []
        done = subprocess.run(
            [sys.executable, installed / "bin" / "jaxdistill", *words],
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        said[command] = done.stdout
    return here, said


def test_it_is_the_wheel_that_runs(installed, sitting):
    _, said = sitting
    assert str(installed / "jaxdistill") in said["jaxdistill doctor"]
    assert "needed and missing" not in said["jaxdistill doctor"]


def test_what_is_there(sitting):
    _, said = sitting
    assert "mae_vitb" in said["jaxdistill list masked"]
    assert "dmd2" in said["jaxdistill list"]
    assert "dmd2" not in said["jaxdistill list masked"]
    shown = said["jaxdistill show mae_vitb"]
    for words in ("Bai et al.", "mae_vitb:small", "distilled beats alone", "holds"):
        assert words in shown


def test_a_plan_writes_nothing_and_a_run_its_report(sitting):
    here, said = sitting
    plan = said["jaxdistill run mae_vitb:small --plan"]
    for stage in ("teacher", "distil", "finetune"):
        assert re.search(rf"^{stage}\b", plan, re.M), plan
    root = here / "runs" / "mae"
    report = json.loads((root / "report.json").read_text())
    assert report["command"].startswith("jaxdistill run mae_vitb:small --workdir=runs/mae")
    assert (root / "report.html").read_text().count("<svg") > 0
