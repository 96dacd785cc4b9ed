"""The reference of the site has every public name once, and none without a docstring."""

import re
from functools import cache
from pathlib import Path

import griffe
import pytest

import jaxdistill
from jaxdistill.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))

# Modules that serve only other modules; what users need of them comes from those that name it.
INSIDE = {
    **{each.function.split(":")[0].partition(".")[2]: "a command" for each in COMMANDS.values()},
    "cli": "the commands",
    "config": "keys of a config: docs/running.md",
    "config_files": "how the commands find configs",
    "headline": "of reports",
    "identities": "hashes of stages",
    "overrides": "changes of a config on the command line",
    "pictures": "of reports",
    "progress": "the loop and all else that takes long",
    "present": "reports and exports of finished stages",
    "published": "teachers of configs from published folders",
    "training.answers": "the loop",
    "training.arguments": "of fit",
    "training.checks": "the loop",
    "training.identity": "what identifies a run",
    "training.lock": "the loop",
    "training.meaning": "of reports",
    "training.measure": "the loop",
    "training.metrics": "the loop",
    "training.parts": "optimizers of learned parts, in registry",
    "training.position": "the loop",
    "training.stage": "named by training.loop",
    "training.works": "the loop",
    "data.array_records": "named by data.sources",
    "data.arrays": "named by data.sources",
    "data.documents": "named by data.text",
    "data.files": "named by data.sources",
    "data.folders": "own images of configs",
    "data.ids": "named by data.sources",
    "data.images": "named by data.sources",
    "data.mixing": "named by data.augment",
    "data.operations": "named by data.augment",
    "data.records": "named by data.sources",
    "data.tokenizers": "named by data.text",
}


@cache
def package() -> griffe.Module:
    return griffe.load("jaxdistill", search_paths=[str(ROOT)], resolve_aliases=True)


def found(path: str) -> griffe.Object | griffe.Alias:
    try:
        return package()[path.removeprefix("jaxdistill.")]
    except KeyError:
        raise AssertionError(f"docs/api has {path}, which is not there (any more)") from None


def public(path: str) -> dict[str, griffe.Object | griffe.Alias]:
    """What a module offers, by path: what it lists, or what it defines without an underscore."""
    here = found(path)
    if here.exports is not None:
        listed = [str(getattr(name, "name", name)) for name in here.exports]
    else:
        listed = [n for n, m in here.members.items() if n[0] != "_" and not m.is_alias]
    offered = {f"{path}.{name}": here[name] for name in listed}
    # A function of its module's name hides that module, which griffe finds in its place.
    for name, thing in offered.items():
        if thing.is_module and thing.name in thing.members:
            offered[name] = thing[thing.name]
    return {name: thing for name, thing in offered.items() if not thing.is_module}


def shown(entry: str) -> dict[str, griffe.Object | griffe.Alias]:
    """What an entry of a page shows: one name, or those of a module (without hidden ones)."""
    here = found(entry)
    if not here.is_module:
        return {entry: here}
    return {name: thing for name, thing in public(entry).items() if not found(name).is_module}


def entries(page: Path) -> list[str]:
    return re.findall(r"^#+ ::: (\S+)$", page.read_text(), re.MULTILINE)


def modules() -> list[str]:
    """The modules and packages from which names are imported: those of the package itself, and of
    its packages that list no names."""
    listed = []
    for module in package().modules.values():
        if module.exports is None and module.is_init_module:
            listed += [own.path for own in module.modules.values()]
        else:
            listed.append(module.path)
    return [path for path in listed if "._" not in path]


def test_every_public_name_is_on_one_page():
    things = [thing for page in PAGES for entry in entries(page) for thing in shown(entry).values()]
    written = [thing.canonical_path for thing in things]
    twice = sorted({path for path in written if written.count(path) > 1})
    assert not twice, f"more than once in docs/api: {twice}"
    offered = {}
    for path in modules():
        if path.removeprefix("jaxdistill.") not in INSIDE:
            offered |= public(path)
    own = {name: found(f"{module}.{name}") for name, module in jaxdistill._WHERE.items()}
    core = (ROOT / "docs" / "api" / "core.md").read_text()
    assert not [name for name in own if f"[`jd.{name}`]" not in core]
    missing = [
        name for name, thing in (offered | own).items() if thing.canonical_path not in written
    ]
    hint = "a page of docs/api needs '## ::: <module>', or INSIDE above the module's name"
    places = sorted({name.rpartition(".")[0] for name in missing})
    assert not missing, f"{hint}: {places}, {missing}"


def test_modules_inside_are_there():
    known = {path.removeprefix("jaxdistill.") for path in modules()}
    assert not [name for name in INSIDE if name not in known]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_name_is_undocumented(page: Path):
    things = {entry: found(entry) for entry in entries(page)}
    for entry in entries(page):
        things |= shown(entry)
    bare = [name for name, thing in things.items() if not thing.has_docstring]
    assert not bare, f"without a docstring: {bare}"
