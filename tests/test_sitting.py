"""The sitting of docs/first_run.md: its commands, in order, from a wheel, in an empty folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from PIL import Image
from safetensors.numpy import load_file
from sklearn.datasets import load_digits

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
    Image.fromarray((16 * load_digits().images[3]).clip(0, 255).astype("uint8")).resize(
        (50, 60)
    ).save(here / "three.png")
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


def test_a_prediction_names_classes(sitting):
    _, said = sitting
    (line,) = said["jaxdistill predict runs/mae three.png"].splitlines()
    name, *found = line.split()
    assert name == "three.png"
    classes, shares = found[::3], [float(share) for share in found[1::3]]
    assert set(classes) < set("0123456789")
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 100


def test_what_is_exported_is_what_timm_opens(sitting):
    """Names and shapes as timm's own ViT has them, for the sizes that the folder says."""
    here, _ = sitting
    config = json.loads((here / "for_timm" / "config.json").read_text())
    arrays = load_file(here / "for_timm" / "model.safetensors")
    said = config["model_args"]
    width, depth, patch = said["embed_dim"], said["depth"], said["patch_size"]
    hidden, tokens = int(width * said["mlp_ratio"]), (said["img_size"] // patch) ** 2
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, tokens + 1, width),
        "patch_embed.proj.weight": (width, said["in_chans"], patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (config["num_classes"], width),
        "head.bias": (config["num_classes"],),
    }
    for block in range(depth):
        for name, shape in {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.qkv.bias": (3 * width,),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "mlp.fc1.weight": (hidden, width),
            "mlp.fc1.bias": (hidden,),
            "mlp.fc2.weight": (width, hidden),
            "mlp.fc2.bias": (width,),
        }.items():
            shapes[f"blocks.{block}.{name}"] = shape
    assert {name: array.shape for name, array in arrays.items()} == shapes
    assert config["architecture"].startswith("vit_")
    assert config["label_names"] == list("0123456789")
