"""Configs stay short, read from top to bottom, and are made of plain data alone."""

import ast
import runpy
import subprocess
import sys

import pytest

from jaxdistill import config_files
from jaxdistill.overrides import plain

NAMES = config_files.names()
# A whole file, and a function of it.
LINES, FUNCTION = 150, 60
# Two sizes, each with three stages of their own, and a third data set that changes the claim.
LONGER = {"mae_vitb": 195, "bert_distil": 200, "own_images": 165}
# Four stages, published and small, each with three or five arms.
LONGER |= {"g2sd": 195, "hybrid_distill": 170}
# Protocols of two published comparisons; pairs of families, with what is watched of them.
LONGER |= {"kd_zoo": 190, "ofa_kd": 170}
# Four stages, published and small.
LONGER |= {"ernie_tiny": 170}
# Four algorithms; ring, digits and images, each with claims of its own.
LONGER |= {"jumps": 180, "hyper_sd": 180, "lora_guidance": 165, "sana_sprint": 160}
# Two pools, one with a control.
LONGER |= {"kd3": 160}


def source(name):
    return (config_files.folder() / f"{name}.py").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_short(name):
    text = source(name)
    assert len(text.splitlines()) <= LONGER.get(name, LINES)
    tree = ast.parse(text)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    for node in functions:
        assert (node.end_lineno or 0) - node.lineno < FUNCTION, node.name
    assert functions[-1].name == "get_config"


@pytest.mark.parametrize("name", NAMES)
def test_a_config_says_what_it_is_and_how_to_run_it(name):
    header = ast.get_docstring(ast.parse(source(name)))
    assert header
    assert f"--config=configs/{name}.py" in header
    assert ":small" in header


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_is_plain_data(name):
    path, _ = config_files.find(name)
    variants = runpy.run_path(str(path))["VARIANTS"]
    assert {"", "small"} <= set(variants)
    for variant in variants:
        config = config_files.load(f"{name}:{variant}")
        assert plain(config) == config
        assert set(config["recipe"]) <= set(config["stages"])
    with pytest.raises(ValueError, match=f"unknown variant of {name} 'smal': did you mean 'small'"):
        config_files.load(f"{name}:smal")


def test_presets_and_configs_import_neither_jax_nor_the_library():
    script = """if True:
        import importlib.util, pathlib, pkgutil, sys
        from jaxdistill import presets
        for module in pkgutil.iter_modules(presets.__path__):
            importlib.import_module(f"jaxdistill.presets.{module.name}")
        for path in pathlib.Path(sys.argv[1]).glob("*.py"):
            spec = importlib.util.spec_from_file_location(path.stem, path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            module.get_config("small")
        print(*sorted(name for name in sys.modules if name.split(".")[0] in ("jax", "jaxdistill")))
    """
    done = subprocess.run(
        [sys.executable, "-c", script, str(config_files.folder())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    others = [n for n in loaded if not n.startswith("jaxdistill.presets")]
    # What reads the small files beside published weights, and how folders are laid out.
    light = ("_errors", "_hub", "data", "data.folders", "data.images", "published")
    assert others == ["jaxdistill", *(f"jaxdistill.{name}" for name in light)]
