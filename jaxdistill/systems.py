"""The systems of the library: ``jaxdistill list``, ``show``, and tables of the documentation.

What each is and how its claims were answered is written once, in ``systems.toml``, which the wheel
packs; what a claim asks is read from the config. ``python -m jaxdistill.systems`` writes the tables
of README.md and docs/systems.md anew, and a test compares them.
"""

from __future__ import annotations

import ast
import functools
import re
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdistill import config_files
from jaxdistill._columns import aligned
from jaxdistill._errors import unknown
from jaxdistill.main import guarded

# What becomes smaller, and the heading of its kind.
KINDS = {
    "model": "Models",
    "language model": "Language models",
    "sampler": "Samplers",
    "data set": "Data sets",
    "fit": "Fits, theory",
}
_OWN = "To start from, with a teacher and data of your own"
VERDICTS = ("holds", "smaller than asked", "not shown", "contradicted")


class Answer(NamedTuple):
    """How a claim was answered: by which variant of the config, on which data, what was asked, the
    figure that was measured, and the verdict."""

    variant: str
    data: str
    asked: str
    figure: str
    verdict: str


class System(NamedTuple):
    """A system: its config, its name, where it was published, what becomes smaller, its page in the
    documentation, one line about it, and how its claims were answered."""

    config: str
    name: str
    published: str
    distils: str
    page: str
    line: str
    answers: tuple[Answer, ...]


@functools.cache
def systems() -> tuple[System, ...]:
    """All systems, in the order of the table.

    Example:
        >>> [system.name for system in systems() if system.distils == "sampler"]
        ['DMD2', ..., 'iCT', 'sCM', 'Guidance as an input', ...]
    """
    read = tomllib.loads((Path(__file__).parent / "systems.toml").read_text(encoding="utf-8"))
    return tuple(
        System(config, **{**each, "answers": tuple(Answer(**a) for a in each["answers"])})
        for config, each in read.items()
    )


def found(words: Iterable[str]) -> list[System]:
    """The systems in whose entry every word stands, in large or small letters.

    Raises:
        ValueError: if there is none.

    Example:
        >>> [system.config for system in found(["trajectories", "cvpr"])]
        ['ftd']
    """
    words = [word.lower() for word in words]
    kept = [each for each in systems() if all(word in _text(each) for word in words)]
    if not kept:
        known = {word for each in systems() for word in re.findall(r"[\w-]{3,}", _text(each))}
        lost = next((w for w in words if not any(w in _text(each) for each in systems())), None)
        if lost is None:
            raise ValueError(f"no system has all of {words}: take fewer words")
        raise ValueError(unknown("word in the list of systems", lost, known).split(" Possible")[0])
    return kept


def _text(system: System) -> str:
    answers = (f"{a.data} {a.asked} {a.verdict}" for a in system.answers)
    return " ".join([*system[:6], *answers]).lower()


def listed(kept: Sequence[System]) -> str:
    """Systems under the headings of their kinds, one line each."""
    longest = max(len(each.config) for each in kept)
    lines = []
    for heading in (_OWN, *KINDS.values()):
        own = [each for each in kept if _heading(each) == heading]
        lines += ["", heading] if own else []
        lines += [
            _wrapped(f"{each.config:{longest}}  {_titled(each)}: {each.line}", longest + 2)
            for each in own
        ]
    return "\n".join(lines[1:])


def _heading(system: System) -> str:
    return _OWN if system.page == "starting" else KINDS[system.distils]


def _wrapped(text: str, indent: int) -> str:
    """A line in which a terminal breaks between words; where nobody looks it stays one."""
    width = shutil.get_terminal_size((10_000, 24)).columns
    return textwrap.fill(
        text,
        width,
        initial_indent="  ",
        subsequent_indent=" " * (indent + 2),
        break_on_hyphens=False,
    )


def _titled(system: System) -> str:
    return f"{system.name} ({system.published})" if system.published else system.name


def shown(name: str) -> str:
    """A system in full: the header of its config, its variants, what its claims ask, and how they
    were answered.

    Args:
        name: of a config, with a variant or without, what the system is called (``"DMAE"``), or the
            path of a file.

    Raises:
        ValueError: if there is no such config.
    """
    name = _config_of(name)
    path, _ = config_files.find(name)
    entry = next((each for each in systems() if path == config_files.folder() / _file(each)), None)
    header = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or path.name
    header = _COMMAND.sub(lambda found: f"jaxdistill {_WORDS[found[1]]} {found[2]}", header)
    header = header.replace("``", "`")
    given = name.partition(":")[0]
    parts = [header, "Variants\n" + _variants(given)]
    asked = _asked(given)
    if asked:
        parts.append("What its claims ask\n\n" + asked)
    if entry:
        answers = "\n".join(_said(answer) for answer in entry.answers)
        parts += ["How they were answered\n" + (answers or "  not yet")] if asked else []
        parts.append(f"More: {_PAGES}/{entry.page}.md")
    return "\n\n".join(parts)


def _config_of(name: str) -> str:
    """The config of a system that is called by its own name; all else as it is."""
    configs = {own.lower(): each.config for each in systems() for own in each.name.split(", ")}
    taken = {each.config for each in systems()}
    return name if name in taken else configs.get(name.lower(), name)


# Headers name the modules, which run in a clone by the path of the config.
_COMMAND = re.compile(r"python -m jaxdistill\.(main|claim) --config=(?:configs/)?(\w+)(?:\.py)?")
_WORDS = {"main": "run", "claim": "claim"}
_PAGES = "https://github.com/jaxdistill/jaxdistill/blob/main/docs"


def _file(system: System) -> str:
    return f"{system.config}.py"


def _variants(given: str) -> str:
    lines = []
    for variant in config_files.variants(given):
        config = config_files.load(f"{given}:{variant}" if variant else given)
        data = str((config.get("data") or {}).get("name", "none"))
        name = f"{given}:{variant}" if variant else given
        stages = f"stages {', '.join(config['recipe'])}"
        lines.append((name, str(config.get("title", "")), f"on {data}", stages))
    return aligned(lines)


def _asked(given: str) -> str:
    """The claims of all variants, those that several make once."""
    claims: dict[str, list[str]] = {}
    for variant in config_files.variants(given):
        name = f"{given}:{variant}" if variant else given
        if claim := config_files.load(name).get("claim"):
            claims.setdefault(_claim(claim), []).append(name)
    return "\n\n".join(f"  {', '.join(names)}: {text}" for text, names in claims.items())


def _claim(claim: Mapping[str, Any]) -> str:
    lines = [claim.get("sentence") or claim["metric"]]
    for name, contrast in claim["contrasts"].items():
        margin = contrast.get("margin", 0.0)
        value = margin.get("value", 0.0) if isinstance(margin, Mapping) else margin
        above = f" (above {value:g})" if value else ""
        lines.append(f"    - {name}: {contrast.get('sentence', '')}{above}")
    return "\n".join(lines)


def _said(answer: Answer) -> str:
    figure = f": {answer.figure}" if answer.figure else ""
    return _wrapped(f"{answer.verdict:18}  {answer.data}: {answer.asked}{figure}", 20)


def readme_table() -> str:
    """The table of the README: what was asked, and the verdicts with the data they are on."""
    rows = ["| system | config | claim and verdict |", "|---|---|---|"]
    for each in systems():
        title = f"[{each.name}](docs/{each.page}.md)"
        title += f", {each.published}" if each.published else ""
        asked = dict.fromkeys(answer.asked for answer in each.answers)
        cell = "; ".join(f"{text}: {_verdicts(each, text)}" for text in asked)
        rows.append(f"| {title} | `{each.config}` | {cell or _unanswered(each)} |")
    return "\n".join(rows)


def _unanswered(system: System) -> str:
    """What a table says of a system without answers."""
    variants = config_files.variants(system.config)
    names = (f"{system.config}:{variant}" if variant else system.config for variant in variants)
    claims = any(config_files.load(name).get("claim") for name in names)
    return "not answered yet" if claims else "no claim"


def _verdicts(system: System, asked: str) -> str:
    own = [answer for answer in system.answers if answer.asked == asked]
    found = dict.fromkeys(answer.verdict for answer in own)
    data = {v: ", ".join(a.data for a in own if a.verdict == v) for v in found}
    return ", ".join(f"{verdict} ({where})" for verdict, where in data.items())


def answers_table() -> str:
    """The table of docs/systems.md: every answer with its figure."""
    rows = ["| system | config | on | asked | figure | verdict |", "|---|---|---|---|---|---|"]
    for each in systems():
        title = f"[{each.name}]({each.page}.md)"
        for a in each.answers or (Answer("", "", _unanswered(each), "", ""),):
            name = f"{each.config}:{a.variant}" if a.variant else each.config
            cells = (title, f"`{name}`", a.data, a.asked, a.figure, a.verdict)
            rows.append("| " + " | ".join(cells) + " |")
            title = ""
    return "\n".join(rows)


TABLES = {"README.md": readme_table, "docs/systems.md": answers_table}
_BETWEEN = re.compile(r"(<!-- systems -->\n).*?(<!-- end -->)", re.DOTALL)


def written(page: str, table: str) -> str:
    """A page whose table of systems is replaced.

    Example:
        >>> print(written("<!-- systems -->\\nold\\n<!-- end -->", "new"))
        <!-- systems -->
        new
        <!-- end -->
    """
    return _BETWEEN.sub(lambda match: f"{match[1]}{table}\n{match[2]}", page)


def list_command(argv: list[str]) -> None:
    """Lists the systems.

    With words it lists those in whose entry all of them stand: names, years, data sets, verdicts,
    `"data set"` or `sampler` for what becomes smaller.
    """

    def run() -> int:
        print(listed(found(argv[1:])))
        return 0

    sys.exit(guarded(run))


def show_command(argv: list[str]) -> None:
    """Shows one system.

    The header of its config (paper, commands, what to expect), its variants, what its claims ask,
    and how they were answered: `holds`, `smaller than asked`, `not shown`, `contradicted`.
    """

    def run() -> int:
        if len(argv) != 2:
            raise ValueError("which system? jaxdistill show <system>, one of jaxdistill list")
        print(shown(argv[1]))
        return 0

    sys.exit(guarded(run))


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    for file, table in TABLES.items():
        path = root / file
        path.write_text(written(path.read_text(encoding="utf-8"), table()), encoding="utf-8")
