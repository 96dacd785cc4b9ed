"""A student's folder: weights, config, preprocessing, a compiled function, a card, checksums."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

import jaxdistill
from jaxdistill._errors import unknown
from jaxdistill._files import give_name, seal_folder, write_json, write_text
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models import pretrained
from jaxdistill.models.pretrained.files import write as write_arrays
from jaxdistill.models.pretrained.own import CLASSES
from jaxdistill.net import Net
from jaxdistill.objective import lookup, taps_of
from jaxdistill.students import published
from jaxdistill.students.card import card
from jaxdistill.students.seeing import Arrays, Seeing, Texts, as_data
from jaxdistill.training._environment import environment
from jaxdistill.training.costs import Costs, costs
from jaxdistill.training.export import FUNCTION, named_arrays, shapes_of, write_function

Kind = Literal["classes", "next", "scores", "features", "samples"]
"""What an output is, see :class:`About`."""
KINDS = ("classes", "next", "scores", "features", "samples")
CARD = "README.md"


@dataclasses.dataclass(frozen=True)
class About:
    """What is to be said of a student besides its net.

    Attributes:
        kind: what its output is: ``"classes"``, logits of classes; ``"next"``, logits of the next
            token at every place; ``"scores"``; ``"features"``; ``"samples"`` of a sampler.
        read: where that is found: ``"out"``, ``"out/tokens"``, or a tap.
        class_names: in order; of scores what they are of.
        seeing: what it sees; arrays as they are by default.
        title: of the card.
        sentence: what it is, for the card.
        results: ``{metric: {"student": value, <teacher>: value}}``.
        command: what made it.
    """

    kind: Kind = "features"
    read: str = "out"
    class_names: Sequence[str] = ()
    seeing: Seeing = dataclasses.field(default_factory=Arrays)
    title: str = "A distilled student"
    sentence: str = ""
    results: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    command: str = ""


def save(
    folder: Path | str,
    net: Net,
    result: Any,
    inputs: Any,
    about: About | None = None,
    *,
    module: Any = None,
    teachers: Mapping[str, tuple[Net, Any, Any]] | None = None,
    measured: Mapping[str, Costs | None] | None = None,
) -> Path:
    """Writes a student as a folder for those who want to use it, in place of what was there.

    - ``config.json``, ``model.safetensors``: the net. Where it has a published form the folder is
      at once one that timm or Transformers opens, with all that these want to know beside it
      (classes, pixels, tokens). ``jaxdistill.models.load`` opens it in any case where ``module`` is
      one of this library.
    - ``student.jaxexport``: the function from inputs to outputs with its weights, for any batch
      size, on CPU, CUDA and TPU: it needs JAX alone.
    - ``README.md``: a card with the result, what the student and its teachers cost, and how to use
      it.
    - ``checksums.json``: of all but the card.

    Without the extra ``export`` weights and function are left out, and a warning says so.

    Args:
        folder: where to.
        net: the student.
        result: its ``(params, state)``.
        inputs: an example of what it sees: arrays with the batch on the first axis.
        about: what else is to be said.
        module: the Linen module of the net, where it is one of ``jaxdistill.models``.
        teachers: ``{name: (net, variables, inputs)}``, to be measured beside the student.
        measured: what ``"student"`` and teachers cost, where that is known already.

    Returns:
        The folder.

    Raises:
        ValueError: if the net cannot be exported for any batch size, and for an output that is not
            of its kind.

    Example:
        >>> import tempfile
        >>> from flax import linen as nn
        >>> from jaxdistill.frameworks.linen import from_linen
        >>> net, images = from_linen(nn.Dense(2)), np.ones((4, 3), np.float32)
        >>> result = net.init(jax.random.key(0), images)
        >>> about = About("classes", class_names=("cat", "dog"))
        >>> folder = save(tempfile.mkdtemp(), net, result, images, about)
        >>> sorted(file.name for file in folder.iterdir())[:3]
        ['README.md', 'checksums.json', 'config.json']
    """
    about = about or About()
    _check(net, result, inputs, about)
    result = jax.device_get(result)
    what = {"student": (net, result, inputs), **(teachers or {})}
    found = {name: (measured or {}).get(name) or costs(*each) for name, each in what.items()}
    module = module if type(module) in CLASSES.values() else None
    form = None
    if module is not None:
        module, result, form = _as_published(module, result, inputs)
        net = from_linen(module)
    said = described(inputs, about, found)
    return write(folder, Student(net, module, result, inputs, about, said), form)


class Student(NamedTuple):
    """All that a folder is written from.

    Attributes:
        net: the student.
        module: the Linen module of it, or None where it is none of this library.
        result: its ``(params, state)``.
        inputs: an example of what it sees.
        about: what else is to be said.
        said: the same as ``config.json`` has it, see :func:`described`.
    """

    net: Net
    module: Any
    result: Any
    inputs: Any
    about: About
    said: Mapping[str, Any]


def described(inputs: Any, about: About, measured: Mapping[str, Costs]) -> dict[str, Any]:
    """What ``config.json`` says under ``"jaxdistill"``."""
    return {
        "version": jaxdistill.__version__,
        "title": about.title,
        "sentence": about.sentence,
        "kind": about.kind,
        "read": about.read,
        "class_names": list(about.class_names),
        "preprocessing": as_data(about.seeing),
        "inputs": shapes_of(inputs),
        "results": {metric: dict(values) for metric, values in about.results.items()},
        "costs": {name: each._asdict() for name, each in measured.items()},
        "command": about.command,
        "environment": environment(),
    }


def write(folder: Path | str, student: Student, form: str | None) -> Path:
    """Writes a student, see :func:`save`; ``form`` is one of ``pretrained.FAMILIES``, or None for
    this library's own."""
    folder = Path(folder)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _write_net(part, student, form)
        write_function(part / FUNCTION, student.net, student.result, student.inputs)
        module = type(student.module).__name__ if student.module is not None else None
        write_text(part / CARD, card(student.said, form, module))
        seal_folder(part, leave_out=(CARD,))
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    give_name(part, folder)
    return folder


def _write_net(part: Path, student: Student, form: str | None) -> None:
    """Config, weights, and what other libraries read besides."""
    seeing, entries = student.about.seeing, {pretrained.OURS: dict(student.said)}
    if form is not None or isinstance(seeing, Texts):
        for name, text in published.files(seeing).items():
            write_text(part / name, text)
    try:
        if student.module is not None:
            if form is not None:
                entries |= published.about(form, student.about.class_names, seeing)
            module, result = student.module, student.result
            pretrained.export(part, form or pretrained.OURS, module, result, about=entries)
            return
        entries[pretrained.OURS]["net"] = None
        write_arrays(part, entries, named_arrays(student.result))
    except ImportError as fault:
        logging.warning("no weights: %s", fault)
        write_json(part / "config.json", entries)


def _as_published(module: Any, result: Any, inputs: Any) -> tuple[Any, Any, str | None]:
    """A module, its variables and the form that they have; computed positions become arrays where
    that gives them one."""
    image: Any = inputs.get("image") if isinstance(inputs, Mapping) else inputs
    written, arrays = module, result
    if image is not None and np.ndim(image) == 4 and image.shape[1] == image.shape[2]:
        written, arrays = pretrained.with_positions(module, result, image.shape[1:])
    forms = pretrained.forms_of(written, arrays).there
    return (written, arrays, forms[0]) if forms else (module, result, None)


def _check(net: Net, result: Any, inputs: Any, about: About) -> None:
    """Refuses an output that is not what is said of it."""
    if about.kind not in KINDS:
        raise ValueError(unknown("kind of output", about.kind, KINDS))
    if len(set(about.class_names)) < len(about.class_names):
        raise ValueError(f"two classes have one name: {list(about.class_names)}")
    shape = output(net, result, inputs, about.read).shape
    if about.kind == "classes" and (len(shape) != 2 or shape[1] != len(about.class_names)):
        raise ValueError(
            f"a student of {len(about.class_names)} classes has logits "
            f"[B, {len(about.class_names)}]: this one's {about.read!r} is {list(shape)}"
        )


def output(net: Net, result: Any, inputs: Any, read: str) -> jax.ShapeDtypeStruct:
    """The shape of what is read of a net's output."""

    def run(result: Any, inputs: Any) -> Any:
        forward = net.apply(*result, inputs, taps=taps_of(read))
        return lookup(read, forward=forward, targets={}, batch={})

    found = jax.eval_shape(run, result, inputs)
    if not hasattr(found, "shape"):
        there = ", ".join(f"{read}/{name}" for name in found)
        raise ValueError(f"{read!r} of this student is no array: read one of {there}")
    return found
