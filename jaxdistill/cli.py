"""The command ``jaxdistill``, and ``python -m jaxdistill``: one word for each thing one can do.

    jaxdistill list
    jaxdistill run mae_vitb:small --workdir=runs/mae

A command is a line of :data:`COMMANDS`. Its function is imported when it is called, so that a list
of systems waits for no JAX; its flags are those that the modules named there define, and every
other flag is refused.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from absl import app, flags

from jaxdistill import __version__, main
from jaxdistill._errors import unknown

_INDENT = "  "
_WIDTH = 100


class Command(NamedTuple):
    """One command.

    Attributes:
        function: ``module:function``; it takes ``[name, *words]`` without the flags, and ends by
            ``sys.exit``.
        line: what it does, in one line.
        usage: how it is typed, after ``jaxdistill``; a line each.
        flags: the modules whose flags it takes.
        without: flags of these that it does not take.
    """

    function: str
    line: str
    usage: str
    flags: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


COMMANDS: Mapping[str, Command] = {
    "list": Command(
        "jaxdistill.systems:list_command",
        "the systems, one line each; with words those that have them all",
        "list [words]",
    ),
    "show": Command(
        "jaxdistill.systems:show_command",
        "one system: what it is, its sizes, its claim and how it was answered",
        "show <system>",
    ),
    "run": Command(
        "jaxdistill.main:main",
        "run a system from data to report; the same command resumes it",
        "run <system>[:<variant>] --workdir=<folder> [--config.<path>=<value> ...]\n"
        "run mine.py --workdir=<folder>",
        ("jaxdistill.main",),
    ),
    "claim": Command(
        "jaxdistill.claim:main",
        "answer the claim of a system with several seeds",
        "claim <system>[:<variant>] --workdir=<folder> [--seeds=5] [--config.<path>=<value> ...]",
        ("jaxdistill.claim", "jaxdistill.main"),
    ),
    "cache": Command(
        "jaxdistill.cache:main",
        "write, verify and describe teachers' outputs on disk",
        "cache write <system>[:<variant>] --workdir=<folder>\n"
        "cache verify --config=<system>[:<variant>] --workdir=<folder>\n"
        "cache verify <folders of caches>\n"
        "cache info <folders of caches>",
        ("jaxdistill.cache", "jaxdistill.main"),
        ("plan", "track"),
    ),
    "predict": Command(
        "jaxdistill.predict:main",
        "ask the student of a run: classes, scores or features of images or texts",
        "predict <workdir> <images or texts> [--json]",
        ("jaxdistill.predict",),
    ),
    "export": Command(
        "jaxdistill.export:main",
        "take the student of a run to timm, Transformers, safetensors, StableHLO or peft",
        "export <workdir> --to=timm|transformers|safetensors|stablehlo|peft|diffusers "
        "--out=<folder>",
        ("jaxdistill.export", "jaxdistill._command_flags"),
    ),
    "compare": Command(
        "jaxdistill.compare:main",
        "runs side by side: settings that differ, values, curves",
        "compare <workdir> <workdir> ... [--out=compare.html]",
        ("jaxdistill._command_flags",),
    ),
    "doctor": Command(
        "jaxdistill.doctor:main",
        "versions, devices, extras; what is missing and how to get it",
        "doctor",
        ("jaxdistill.doctor",),
    ),
}


def run(argv: list[str] | None = None) -> None:
    """The command line.

    Args:
        argv: its words, those of the process if not given.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    # What reports and claims name as the command that made them.
    sys.argv = ["jaxdistill", *words]
    name, *rest = words or ["--help"]
    if name in ("--help", "-h", "help"):
        if name == "help" and rest:
            sys.exit(_helped(rest[0]))
        print(overview())
        sys.exit(0)
    if name == "--version":
        print(f"jaxdistill {__version__}")
        sys.exit(0)
    if name not in COMMANDS:
        sys.exit(main.refused(unknown("command", name, COMMANDS)))
    if any(word in ("--help", "-h", "--helpfull", "--helpshort") for word in rest):
        sys.exit(_helped(name))
    function = _function(COMMANDS[name])
    app.run(function, argv=[f"jaxdistill {name}", *rest], flags_parser=_parser(name))


def _helped(name: str) -> int:
    if name not in COMMANDS:
        return main.refused(unknown("command", name, COMMANDS))
    print(explained(name))
    return 0


def _function(command: Command) -> Callable[[list[str]], Any]:
    module, _, name = command.function.partition(":")
    return getattr(importlib.import_module(module), name)


def _parser(name: str) -> Callable[[list[str]], list[str]]:
    """Reads the flags of a command and refuses those of others."""

    def parsed(argv: list[str]) -> list[str]:
        rest = main.parsed(argv)
        own = {*_flags(COMMANDS[name]), "debug"}
        for module, found in flags.FLAGS.flags_by_module_dict().items():
            for flag in found:
                if module.startswith("jaxdistill.") and flag.present and flag.name not in own:
                    # What sets values of the config is typed as --config.<path>.
                    wrong = unknown(f"flag of 'jaxdistill {name}'", flag.name, own - {"set"})
                    sys.exit(main.refused(wrong))
        return rest

    return parsed


def _flags(command: Command) -> dict[str, Any]:
    """The flags that a command takes, by name, in the order in which they are defined."""
    found = {}
    for module in command.flags:
        importlib.import_module(module)
        for flag in flags.FLAGS.flags_by_module_dict()[module]:
            if flag.name not in command.without:
                found[flag.name] = flag
    return found


def overview() -> str:
    """What ``jaxdistill`` alone says.

    Example:
        >>> print(overview().splitlines()[2])
          jaxdistill <command> [words] [--<flag>=<value> ...]
    """
    longest = max(map(len, COMMANDS))
    lines = [
        f"jaxdistill {__version__}: functional distillation in JAX",
        "",
        f"{_INDENT}jaxdistill <command> [words] [--<flag>=<value> ...]",
        "",
        *(f"{_INDENT}{name:{longest}}  {each.line}" for name, each in COMMANDS.items()),
        "",
        "`jaxdistill <command> --help` says more of each. To begin with:",
        "",
        f"{_INDENT}jaxdistill list",
        f"{_INDENT}jaxdistill show mae_vitb",
        f"{_INDENT}jaxdistill run mae_vitb:small --workdir=runs/mae --plan",
        f"{_INDENT}jaxdistill run mae_vitb:small --workdir=runs/mae",
        f"{_INDENT}jaxdistill predict runs/mae <image>",
    ]
    return "\n".join(lines)


def explained(name: str) -> str:
    """What ``jaxdistill <command> --help`` says: what the command does, how it is typed, what its
    function's module has to say of it, and its flags."""
    command = COMMANDS[name]
    usage = [f"{_INDENT}jaxdistill {line}" for line in command.usage.splitlines()]
    parts = [f"jaxdistill {name}: {command.line}", "\n".join(usage)]
    function = _function(command)
    own = inspect.getdoc(function) if function.__name__ != "main" else None
    parts.append(_paragraphs(own or inspect.getdoc(sys.modules[function.__module__]) or ""))
    if lines := [_line(flag) for flag in _flags(command).values()]:
        parts.append("Flags:\n" + "\n".join(lines))
    return "\n\n".join(part for part in parts if part)


def _paragraphs(text: str) -> str:
    """A docstring without its first line and its commands, which are said already."""
    kept = [part for part in text.split("\n\n")[1:] if not part.startswith(_INDENT)]
    return "\n\n".join(part.replace("``", "`") for part in kept).rstrip()


def _line(flag: Any) -> str:
    """A flag, what it does and what it is if it is not given."""
    boolean = flag.flag_type() == "bool"
    name = f"--{flag.name}" if boolean else f"--{flag.name}=<{_kind(flag)}>"
    if flag.name == "set":
        name = "--config.<path>=<value>"
    said = " ".join(str(flag.help).split()).partition("; repeat this option")[0]
    given = "" if flag.default in (None, False, []) else f" ({flag.default} if not given)"
    return textwrap.fill(
        said + given,
        _WIDTH,
        initial_indent=f"{_INDENT}{name:24} ",
        subsequent_indent=" " * (len(_INDENT) + 25),
        break_on_hyphens=False,
    )


def _kind(flag: Any) -> str:
    kinds = {"int": "number", "float": "number", "enum": "one", "string": "text"}
    return {"workdir": "folder", "config": "system"}.get(
        flag.name, kinds.get(flag.flag_type(), "value")
    )
