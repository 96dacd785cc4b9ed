"""The command ``jaxdistill``: what it lists, what it refuses, and that it hands on what it runs."""

import re
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

# Their flags are defined before those of a test are put back.
from jaxdistill import cache, claim, cli, compare, doctor, export, main, predict  # noqa: F401


@pytest.fixture
def said(capsys, monkeypatch):
    """A command in this process: its exit status and what it said."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", list(sys.argv))
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
            cli.run([str(word) for word in words])
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_alone_it_says_what_there_is(said, words):
    status, out, _ = said(*words)
    assert status == 0
    for name, command in cli.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.line)}$", out, re.M)
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(said, name):
    status, out, _ = said(name, "--help")
    assert status == 0
    command = cli.COMMANDS[name]
    assert command.line in out
    for line in command.usage.splitlines():
        assert f"  jaxdistill {line}\n" in out
    for module in command.flags:
        for flag in flags.FLAGS.flags_by_module_dict()[module]:
            shown = "--config.<path>" if flag.name == "set" else f"--{flag.name}"
            line = re.search(rf"^  {re.escape(shown)}[= ]", out, re.M)
            assert bool(line) == (flag.name not in command.without), flag.name
    assert "``" not in out
    assert said("help", name)[1] == out


MISTAKES = {
    "another command": (("rnu",), "unknown command 'rnu': did you mean 'run'?"),
    "help of another command": (("help", "rnu"), "unknown command 'rnu': did you mean 'run'?"),
    "another system": (("run", "hinton_minst"), "did you mean 'hinton_mnist'?"),
    "another system to show": (("show", "hinton_minst"), "did you mean 'hinton_mnist'?"),
    "no system": (("run",), "which config? Give --config=<system>"),
    "no system to show": (("show",), "which system? jaxdistill show <system>"),
    "two systems": (("run", "dm:small", "mtt"), "unexpected arguments ['mtt']"),
    "another flag": (("run", "dm:small", "--smok"), "'smok'. Did you mean: smoke"),
    "another's flag": (("list", "--smoke"), "unknown flag of 'jaxdistill list' 'smoke'"),
    "a run's flag": (("cache", "write", "dm:small", "--plan"), "of 'jaxdistill cache' 'plan'"),
    "no folder of a run": (("run", "dm:small"), "where to? Give --workdir=<folder>"),
    "no folder of a claim": (("claim", "dm:small"), "where to? Give --workdir=<folder>"),
    "a claim's flag": (("run", "dm:small", "--seeds=3"), "'seeds'"),
    "a config of none": (("list", "--config.seed=3"), "of 'jaxdistill list' 'set'"),
    "another stage": (("run", "dm:small", "--config.stages.distill.steps=3"), "'distil'?"),
    "another tracker": (
        ("run", "dm:small", "--workdir=w", "--track=tensorboard,wandbb"),
        "unknown tracker 'wandbb': did you mean 'wandb'?",
    ),
    "a tracker of a claim": (
        ("claim", "dm:small", "--workdir=w", "--track=wandbb"),
        "unknown tracker 'wandbb': did you mean 'wandb'?",
    ),
    "no folder": (("cache", "info"), "which cache?"),
    "another action": (("cache", "wirte"), "unknown command 'wirte': did you mean 'write'?"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(said, name):
    words, expected = MISTAKES[name]
    status, _, err = said(*words)
    assert status == 2
    # What absl says of unknown flags names no command of ours, and is a sentence as well.
    assert expected in err
    assert "Traceback" not in err


@pytest.mark.parametrize("status", [0, 1, 3, 130, 143])
def test_the_exit_status_is_that_of_what_it_runs(said, monkeypatch, status):
    monkeypatch.setattr(main, "_run", lambda: status)
    monkeypatch.setattr(main.os, "_exit", sys.exit)  # a stopped program ends at once
    assert said("run", "dm:small", "--workdir=w")[0] == status


def test_a_report_names_the_command_as_it_was_typed(said, monkeypatch):
    monkeypatch.setattr(main, "_run", lambda: print(main.shown("jaxdistill.main")) or 0)
    words = ("run", "dm:small", "--workdir=a b", "--config.seed=3")
    assert said(*words)[1] == "jaxdistill run dm:small '--workdir=a b' --config.seed=3\n"
    monkeypatch.setattr(sys, "argv", ["/x/jaxdistill/main.py", "--config=dm"])
    assert main.shown("jaxdistill.main") == "python -m jaxdistill.main --config=dm"


@pytest.mark.parametrize("words", [(), ("list",), ("show", "dm"), ("run", "--help")])
def test_what_touches_no_device_waits_for_no_jax(words):
    code = (
        "import sys; from jaxdistill import cli\n"
        f"try: cli.run({list(words)!r})\n"
        "except SystemExit as ended: assert not ended.code, ended\n"
        "assert not {'jax', 'numpy', 'flax'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_warning_is_a_sentence():
    """No thread, no line of a file: it is for whoever typed the command."""
    code = (
        "import logging\n"
        "from absl import app\n"
        "from jaxdistill import main\n"
        "said = lambda argv: logging.warning('%s is worse than its student', 'a teacher')\n"
        "app.run(said, argv=['jaxdistill'], flags_parser=main.parsed)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr == "warning: a teacher is worse than its student\n"
