"""Config files: found by name, read as plain data, with what the command line sets in them.

A name is that of a config of the library, ``hinton_mnist:small``, or the path of a file,
``configs/mae_vitb.py:small`` or one of your own; after the colon comes one of its variants.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdistill._errors import blamed, unknown
from jaxdistill.config import CONFIG_KEYS, STAGE_DEFAULTS, refuse_faults, stage_settings
from jaxdistill.overrides import flattened, override, plain
from jaxdistill.settings import fault
from jaxdistill.settings import keys as keywords

_PACKAGE = Path(__file__).parent
# In a clone the configs stand beside the package, in what pip installed inside of it.
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
# Groups whose keys are names of the config's own choice: a misspelt one must not make a new entry.
_NAMED = ("objective", "evaluate", "members", "arms", "contrasts", "variants")
_SETTING = re.compile(r"--?config\.(.+)", re.DOTALL)


def folder() -> Path:
    """Where the configs of the library are."""
    return next(path for path in _FOLDERS if (path / "hinton_mnist.py").exists())


def names() -> list[str]:
    """The configs of the library.

    Example:
        >>> "hinton_mnist" in names()
        True
    """
    return sorted(path.stem for path in folder().glob("*.py"))


def find(name: str) -> tuple[Path, str]:
    """The file of a config and the variant that is wanted, empty for the default.

    Raises:
        ValueError: if there is none, with the nearest.

    Example:
        >>> path, variant = find("hinton_mnist:small")
        >>> path.name, variant
        ('hinton_mnist.py', 'small')
        >>> find("hinton_minst")
        Traceback (most recent call last):
            ...
        ValueError: unknown config 'hinton_minst': did you mean 'hinton_mnist'? Possible: ...
    """
    given, _, variant = name.partition(":")
    path = Path(given)
    if path.suffix == ".py":
        if path.is_file():
            return path, variant
        there = [str(other) for other in path.parent.glob("*.py") if other.is_file()]
        raise ValueError(unknown("config file", given, [*there, *names()]))
    if given not in names():
        raise ValueError(unknown("config", given, names()))
    return folder() / f"{given}.py", variant


def load(name: str, settings: Sequence[str] = ()) -> dict[str, Any]:
    """A config as plain data, as its file says it.

    Args:
        name: as for :func:`find`.
        settings: each as ``"teacher=runs/vit"``. Keyword-only parameters of ``get_config``, each
            with a domain as its annotation, are given what is set under their names (a mapping, of
            a group such as ``data``); what else is set is not read.

    Raises:
        ValueError: if there is no such config, or no such variant of it, for a file that makes
            none, and for a value outside the domain of a parameter.

    Example:
        >>> load("hinton_mnist:small")["recipe"][:2]
        ('teacher', 'alone')
    """
    path, variant = find(name)
    module = _module(path)
    if not callable(getattr(module, "get_config", None)):
        raise ValueError(f"{path} is no config: it has no function 'get_config'")
    given = _given(module.get_config, settings)
    with blamed(f"config {path}", path):
        found = plain(module.get_config(*([variant] if variant else ()), **given))
    if not isinstance(found, dict):
        raise ValueError(f"get_config of {path} must return a mapping, it returns {found!r}")
    return found


def variants(name: str) -> list[str]:
    """The variants of a config; the default's name is empty.

    Example:
        >>> variants("hinton_mnist")
        ['', 'small']
    """
    return list(getattr(_module(find(name)[0]), "VARIANTS", {"": None}))


def flags(name: str) -> list[str]:
    """What may be set of a config besides the keys of its data: parameters of its ``get_config``.

    Example:
        >>> "teacher" in flags("own_images"), flags("hinton_mnist")
        (True, [])
    """
    function = _module(find(name)[0]).get_config
    return [key for key in keywords(function) if key not in CONFIG_KEYS]


def _given(function: Any, settings: Sequence[str]) -> dict[str, Any]:
    """What is set of the parameters of a function."""
    parameters: Mapping[str, Any] = keywords(function)
    found: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        key, *below = path.split(".")
        if not equals or key not in parameters:
            continue
        there = found.get(key, parameters[key].default)
        value = _set({} if there is None else there, below, text, (key,)) if below else None
        found[key] = value if below else _parsed(text, there)
    for key, value in found.items():
        if (wrong := fault(value, parameters[key].annotation)) is not None:
            raise ValueError(f"--config.{key} is {value!r}: it {wrong}")
    return found


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be read as Python")
    module = importlib.util.module_from_spec(spec)
    with blamed(f"config {path}", path):
        spec.loader.exec_module(module)
    return module


def read(name: str, settings: Sequence[str] = ()) -> dict[str, Any]:
    """A config with what was set, and with what it becomes for its data set.

    A config's sizes are chosen for its default data; its ``variants`` say what becomes of them on
    other data sets. What was set wins over these.

    Args:
        name: as for :func:`find`.
        settings: each as ``"stages.distil.steps=100"``.

    Raises:
        ValueError: if there is no such config, variant or key, with the nearest, and for values
            that cannot be.

    Example:
        >>> read("ssld:small", ["data.name=mnist", "stages.teacher.steps=7"])["stages"]["teacher"][
        ...     "steps"]
        7
    """
    loaded = load(name, settings)
    refuse_faults(loaded)
    own = flags(name)
    settings = [each for each in settings if re.split(r"[.=]", each)[0] not in own]
    with blamed(f"config {name}"):
        config = changed(loaded, settings, own)
        variants = config.get("variants") or {}
        data = str((config.get("data") or {}).get("name"))
        found = changed(override(config, flattened(variants.get(data) or {})), settings, own)
        stage_settings(found)
    return found


def changed(
    config: Mapping[str, Any], settings: Sequence[str], flags: Sequence[str] = ()
) -> dict[str, Any]:
    """A config in which some values are set, each as ``"path=value"``.

    A value is a Python literal where it can be read as one, else a string; ``true`` and ``false``
    are truth values. A key may be new: what the parts of a stage know is checked at planning.

    Raises:
        ValueError: for a path that cannot be, with the nearest key.

    Example:
        >>> config = {"data": {"name": "digits"}, "stages": {"distil": {"steps": 5}}}
        >>> changed(config, ["stages.distil.view.mask.ratio=0.5", "data.dir=~/data"])
        {'data': {'name': 'digits', 'dir': '~/data'},
         'stages': {'distil': {'steps': 5, 'view': {'mask': {'ratio': 0.5}}}}}
        >>> changed(config, ["stages.distil.step=3"])
        Traceback (most recent call last):
            ...
        ValueError: unknown key of stage 'distil' 'step': did you mean 'steps'? Possible: ...
    """
    found = dict(config)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--config.{path} needs a value: --config.{path}=<value>")
        # Places in a sequence are written as augment[0].size or augment.0.size.
        keys = re.sub(r"\[(-?\d+)\]", r".\1", path).split(".")
        if keys[0] not in CONFIG_KEYS:
            raise ValueError(unknown("key of the config", keys[0], (*CONFIG_KEYS, *flags)))
        if keys[0] == "stages" and len(keys) > 1:
            if keys[1] not in found["stages"]:
                raise ValueError(unknown("stage", keys[1], found["stages"]))
            if len(keys) > 2 and keys[2] not in STAGE_DEFAULTS:
                raise ValueError(unknown(f"key of stage {keys[1]!r}", keys[2], STAGE_DEFAULTS))
        found = _set(found, keys, text, ())
    return found


def spelt(argv: Sequence[str]) -> list[str]:
    """Arguments in which every ``--config.<path>=<value>`` is spelt ``--set=<path>=<value>``, as
    the flags of a command cannot know all paths beforehand.

    Example:
        >>> spelt(["main", "--config=x", "--config.seed", "3", "--config.data.dir=a=b"])
        ['main', '--config=x', '--set=seed=3', '--set=data.dir=a=b']
    """
    found, rest = [], list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*found, word, *rest]
        if matched := _SETTING.fullmatch(word):
            setting = matched[1]
            if "=" not in setting and rest and not rest[0].startswith("--"):
                setting = f"{setting}={rest.pop(0)}"
            word = f"--set={setting}"
        found.append(word)
    return found


def _set(node: Any, keys: Sequence[str], text: str, above: tuple[str, ...]) -> Any:
    """A copy of a part of a config in which the value at a path below it is set."""
    (key, *below), here = keys, ".".join(above) or "the config"
    if isinstance(node, (list, tuple)):
        if not re.fullmatch(r"-?\d+", key) or not -len(node) <= int(key) < len(node):
            raise ValueError(f"{here} is a sequence of {len(node)}, which has no entry {key!r}")
        place = int(key) % len(node)
        items = list(node)
        items[place] = _new(items[place], below, text, (*above, key))
        return tuple(items)
    if not isinstance(node, Mapping):
        raise ValueError(f"{here} is {node!r} and has no key {key!r}")
    if below and key not in node and above and above[-1] in _NAMED:
        raise ValueError(unknown(f"entry of {here}", key, node))
    default = STAGE_DEFAULTS.get(key) if len(above) == 2 and above[0] == "stages" else None
    # The name of a folder or a file may look like a number.
    there = node.get(key, "" if key in ("dir", "path") else default)
    return {**node, key: _new(there, below, text, (*above, key))}


def _new(there: Any, below: Sequence[str], text: str, path: tuple[str, ...]) -> Any:
    if below:
        return _set({} if there is None else there, below, text, path)
    value = _parsed(text, there)
    if isinstance(there, Mapping) and not (value is None or isinstance(value, Mapping)):
        where = ".".join(path)
        raise ValueError(
            f"{where} is a group of settings and cannot be {value!r}: set --config.{where}.<key>, "
            f"where a key is one of {', '.join(map(repr, there)) or 'none yet'}"
        )
    return value


def _parsed(text: str, there: Any) -> Any:
    """What a value written on the command line means, in the place of another one."""
    try:
        value = (
            {"true": True, "false": False}[text] if text in ("true", "false") else _literal(text)
        )
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    if isinstance(there, str) and not isinstance(value, str):
        return text
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and isinstance(there, float) else plain(value)


def _literal(text: str) -> Any:
    value = ast.literal_eval(text.strip())
    if isinstance(value, (bytes, set, complex)) or value is Ellipsis:
        raise ValueError(text)
    return value
