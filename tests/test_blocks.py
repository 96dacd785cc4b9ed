"""Blocks of code in the docs: programs run, fragments are Python, commands are such as there are.

What a reader does not see stands in comments before a block:

    <!-- fragment -->                       it is not run; it must be Python, or a part of a dict
    <!-- continues -->                      it runs after the blocks above it on its page
    <!-- run by tests/test_own_nets.py -->  another test runs it
    <!-- in tests: steps=300 -> steps=2 --> what is put in its place here
    <!-- before:
    images = ...
    -->                                     what the reader is to have done
"""

import ast
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from jaxdistill import cli, config_files, main
from jaxdistill.systems import found

# Flags of commands are defined before those of a test are put back.
for _command in cli.COMMANDS.values():
    importlib.import_module(_command.function.partition(":")[0])

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(
    r"(?P<marks>(?:^<!-- (?:(?!-->).)*-->\n\n?)*)^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """A block of a page, with the marks before it by their first word."""

    page: str
    line: int
    language: str
    text: str
    marks: dict[str, list[str]]


def blocks(path: Path) -> list[Block]:
    page, listed = path.read_text(), []
    for match in BLOCK.finditer(page):
        marks = {}
        for mark in re.findall(r"<!-- (.*?)-->", match["marks"], re.DOTALL):
            kind = re.match(r"fragment|continues|run by|in tests|before", mark)
            assert kind, f"{path.name}: what is <!-- {mark}--> ?"
            marks.setdefault(kind[0], []).append(mark[kind.end() :].lstrip(":").strip(" "))
        line = page[: match.start("language")].count("\n") + 1
        name = str(path.relative_to(ROOT))
        listed.append(Block(name, line, match["language"], match["text"], marks))
    return listed


BLOCKS = [block for path in PAGES for block in blocks(path)]
PROGRAMS = [
    b for b in BLOCKS if b.language == "python" and not {"fragment", "run by"} & set(b.marks)
]


def named(block: Block) -> str:
    return f"{block.page}:{block.line}"


def test_every_block_is_known():
    fences = sum(path.read_text().count("\n```") for path in PAGES)
    assert len(BLOCKS) == fences / 2 > 30
    other = {named(block): block.language for block in BLOCKS}
    assert set(other.values()) == {"python", "bash"}, other


def code(block: Block) -> str:
    """What runs of a block: what comes before it, and what tests put in its place."""
    text = block.text
    for change in block.marks.get("in tests", ()):
        old, new = (part.strip() for part in change.split("->"))
        assert old in text, f"{named(block)} has no {old}"
        text = text.replace(old, new)
    return "\n".join([*block.marks.get("before", ()), text])


@pytest.mark.parametrize("block", PROGRAMS, ids=named)
def test_a_program_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "goldens").symlink_to(ROOT / "tests" / "goldens" / "pretrained")
    page = [b for b in PROGRAMS if b.page == block.page and b.line <= block.line]
    first = max(i for i, b in enumerate(page) if "continues" not in b.marks)
    own = {"__name__": "__main__"}
    for each in page[first:] if "continues" in block.marks else [block]:
        exec(compile(code(each), named(each), "exec"), own)


@pytest.mark.parametrize("block", [b for b in BLOCKS if "fragment" in b.marks], ids=named)
def test_a_fragment_is_python(block):
    text = re.sub(r", \.\.\.(?=[}\n])", "", block.text)  # and so on
    try:
        ast.parse(text)
    except SyntaxError:
        ast.parse("{" + text + "}")  # some entries of a dict


def test_other_tests_run_what_they_are_said_to_run():
    for block in BLOCKS:
        for test in block.marks.get("run by", ()):
            assert Path(block.page).name in (ROOT / test.strip()).read_text(), named(block)


# Commands that are not ours.
THEIRS = ("cd", "for", "gcloud", "git", "pip", "srun", "ssh")
# What a reader gives for <method>, <system>; for anything else a 1.
GOLDENS = ROOT / "tests" / "goldens" / "pretrained"
GIVEN = {
    "method": "ftd",
    "system": "mae_vitb",
    "teacher": str(GOLDENS / "timm_vit"),
    "decoder": str(GOLDENS / "llama"),
    "images": str(ROOT / "docs"),
    "PNGs": "classes",
    "texts": str(ROOT / "docs"),
}
OPERATORS = ("&&", "||", ";", "|", "&", "do", "done", "wait")


def simple(text: str) -> list[list[str]]:
    """The simple commands of a script, those inside of quotes too."""
    listed = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        words = re.sub(r"(;|&&|\|\||&$)", r" \1 ", line) if '"' not in line else line
        command = []
        for word in [*shlex.split(words, comments=True), ";"]:
            if word not in OPERATORS:
                command.append(word)
                continue
            if command:
                listed.append(command)
            command = []
    inner = [word for command in listed for word in command if re.search(r"\bpython\S* -m ", word)]
    return listed + [
        command for word in inner for command in simple(word.partition("=")[2] or word)
    ]


def filled(text: str) -> str:
    return re.sub(r"<([^>]*)>", lambda found: GIVEN.get(found[1], "1"), text)


def check(words: list[str], whole: bool = True) -> None:
    """That a command would be taken: its program, its flags, its config, its changes of it; a
    whole one also says where to."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    words = [filled(word) for word in words]
    pythons = [i for i, word in enumerate(words) if re.search(r"(^|/)python[\d.]*$", word)]
    if pythons:
        words = words[pythons[0] + 1 :]
    elif words[0].endswith("/pip") or words[0] in THEIRS:
        return
    if words[0] == "-m":
        if words[1] in ("jaxdistill.main", "jaxdistill.claim", "jaxdistill.cache"):
            return taken({"main": "run"}.get(words[1][11:], words[1][11:]), words[2:], whole)
        assert importlib.util.find_spec(words[1]), words
    elif words[0] == "jaxdistill":
        return taken(words[1], words[2:], whole)
    else:
        program = words[1] if words[0] == "bash" else words[0]
        assert (ROOT / program).is_file(), f"no {program}"
        # Flags of a program are its own or those of the modules that programs share.
        shared = sorted(ROOT.glob("benchmarks/_*.py"))
        source = "".join(path.read_text() for path in (ROOT / program, *shared))
        for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
            name = flag[2:].replace("-", "_")
            assert re.search(rf'"{flag}"|"{name}"|\b{name}=', source), f"{program} has no {flag}"


def taken(name: str, words: list[str], whole: bool) -> None:
    """That a command of ours takes these words."""
    assert name in cli.COMMANDS, f"no jaxdistill {name}"
    if name == "show":
        found(words[0])
    function = cli._function(cli.COMMANDS[name])
    with flagsaver.flagsaver():
        rest = cli._parser(name)([f"jaxdistill {name}", *words])[1:]
        if function.__module__ in ("jaxdistill.main", "jaxdistill.claim"):
            assert not main.named(rest)
            config_files.read(main.CONFIG.value, main.SETTINGS.value)
            assert main.WORKDIR.value or flags.FLAGS.plan or not whole


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the configs of the library and that of CONTRIBUTING, as a reader has them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for file in (ROOT / "configs").glob("*.py"):
        (tmp_path / "configs" / file.name).symlink_to(file)
    (mine,) = (b for b in BLOCKS if b.page == "CONTRIBUTING.md" and "run by" in b.marks)
    for place in ("mine.py", "configs/mine.py"):
        (tmp_path / place).write_text(mine.text)
    for name in ("shirts", "shoes"):  # two folders of images
        (tmp_path / "classes" / name).mkdir(parents=True)
        Image.new("L", (28, 28)).save(tmp_path / "classes" / name / "0.png")
    (tmp_path / "vit").symlink_to(GOLDENS / "timm_vit")  # what a command before it leaves
    monkeypatch.setattr(sys, "argv", list(sys.argv))


COMMANDS = [
    pytest.param(command, id=f"{named(block)}-{index}")
    for block in BLOCKS
    if block.language == "bash"
    for index, command in enumerate(simple(block.text))
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_taken(command, here):
    check(command)


# Commands in the middle of a sentence, which may go on in the next line.
SAYING = [path for path in PAGES if path.name != "CHANGELOG.md"]
OURS = re.compile(r"`((?:python (?:-m jaxdistill\.|benchmarks/)|jaxdistill [a-z]+ )[^`]*)`")


@pytest.mark.parametrize("path", SAYING, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_sentences_are_taken(path, here):
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for text in OURS.findall(prose):
        check(shlex.split(filled(text)), whole=False)


def test_commands_that_are_none_are_refused(here):
    assert [words[0] for words in simple('cd a && ssh b "cd c && python -m d --e" &')] == [
        "cd", "ssh", "cd", "python",
    ]  # fmt: skip
    for wrong in (
        "python -m jaxdistill.main --config=mae_vitb:smal --workdir=w",
        "python -m jaxdistill.claim --config=mae_vitb:small --seed=5 --workdir=w",
        "jaxdistill run mae_vitb:small --workdir=w --config.stages.distill.steps=3",
        "jaxdistill shwo mae_vitb",
        "python benchmarks/runs.py",
        "bash tests/run.sh --hole",
        "rm -r w",
    ):
        with pytest.raises((AssertionError, ValueError, SystemExit)):
            check(wrong.split())
