"""A student in the form in which somebody else wants it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill._files import give_name
from jaxdistill.models import pretrained
from jaxdistill.students.predicting import Student, load
from jaxdistill.students.saving import About, write
from jaxdistill.students.saving import Student as Written
from jaxdistill.students.seeing import Images
from jaxdistill.training.export import FUNCTION, function_of, write_exported

TARGETS = ("timm", "transformers", "safetensors", "stablehlo")
"""What a student can be exported to."""
# The nets that have a form there, unless their settings have none.
_NETS = {
    "timm": "ViT, ResNet, ConvNeXt and MobileNetV3",
    "transformers": "ViT, MAE, CLIP, TextTower, ResNet, ConvNeXt, TextEncoder, ModernBert and "
    "Decoder",
}


def export(path: Path | str, *, to: str, out: Path | str, raw: bool = False) -> Path:
    """Writes a student for another program.

    Args:
        path: the working directory of a run, or the folder of a student.
        to: ``"timm"`` or ``"transformers"``: a folder that these open; ``"safetensors"``: arrays by
            their paths in this library, and the settings of the net; ``"stablehlo"``: the function
            alone, see :func:`jaxdistill.training.export.load_exported`.
        out: the folder to make; it must be empty or not be there.
        raw: of ``"stablehlo"``, a function of images as users have them, uint8 ``[B, height, width,
            C]`` of any size, which resizes and normalises by itself.

    Returns:
        The folder.

    Raises:
        ValueError: for an unknown target, a net that has no such form, saying why and which nets
            have one, and a folder that is not empty.
    """
    if to not in TARGETS:
        raise ValueError(unknown("target of an export", to, TARGETS))
    if raw and to != "stablehlo":
        raise ValueError(f"raw images are for to='stablehlo', not {to!r}")
    out = refuse_filled(out)
    student = load(path)
    if to == "stablehlo":
        return _function(student, out, raw)
    if student.module is None:
        if to == "safetensors":  # what it has already: arrays by their paths
            return _copied(student.folder, out)
        raise ValueError(
            f"the student in {student.folder} is no module of jaxdistill.models, and has no form "
            f"in {to}: to='safetensors' gives its weights, to='stablehlo' its function"
        )
    form = None if to == "safetensors" else _form(student, to)
    about = About(
        kind=student.about["kind"],
        read=student.about["read"],
        class_names=student.about["class_names"],
        seeing=student.seeing,
    )
    said = {key: value for key, value in student.about.items() if key != "net"}
    variables = jax.device_get((student.params, student.state))
    inputs = _example(student)
    return write(out, Written(student.net, student.module, variables, inputs, about, said), form)


def refuse_filled(out: Path | str) -> Path:
    """A folder that is empty or not there, as a path.

    Raises:
        ValueError: for any other, and for a file.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already: take another folder")
    return out


def _copied(folder: Path, out: Path) -> Path:
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(folder, part)
    if out.is_dir():  # an empty one
        out.rmdir()
    give_name(part, out)
    return out


def _form(student: Student, to: str) -> str:
    forms = pretrained.forms_of(student.module, (student.params, student.state))
    for name in forms.there:
        if name.startswith("timm:") == (to == "timm"):
            return name
    reasons = [
        why for name, why in forms.lacking.items() if name.startswith("timm:") == (to == "timm")
    ]
    why = f" ({'; '.join(reasons[:2])})" if reasons else ""
    raise ValueError(
        f"this {type(student.module).__name__} has no published form in {to}{why}: {_NETS[to]} "
        "have one, with settings that are published; to='safetensors' and to='stablehlo' take "
        "every net"
    )


def _function(student: Student, out: Path, raw: bool) -> Path:
    run, shapes = function_of(student.net, (student.params, student.state)), _shapes(student)
    if raw:
        seeing = student.seeing
        if not isinstance(seeing, Images):
            raise ValueError(f"raw images are for students that see images: {student.folder}")
        sides = jax.export.symbolic_shape("b, height, width")
        run = _of_raw_images(run, seeing, tuple(student.about["inputs"]))
        shapes = jax.ShapeDtypeStruct((*sides, seeing.channels), np.uint8)
    out.mkdir(parents=True, exist_ok=True)
    if not write_exported(out / FUNCTION, run, shapes):
        raise ImportError(f"{FUNCTION} needs: pip install 'jaxdistill[export]'")
    return out


def _of_raw_images(
    run: Callable[[Any], Any], seeing: Images, names: tuple[str, ...]
) -> Callable[[Any], Any]:
    def raw(images: Any) -> Any:
        seen = seeing.view(images)
        return run(seen if names == ("inputs",) else {names[0]: seen})

    return raw


def _shapes(student: Student) -> Any:
    """What the net takes, of any batch size."""
    (batch,) = jax.export.symbolic_shape("b")
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype), _example(student)
    )


def _example(student: Student) -> Any:
    """Inputs of one example, as the net takes them."""
    said = student.about["inputs"]
    arrays = {
        name: np.zeros((1, *about["shape"][1:]), about["dtype"]) for name, about in said.items()
    }
    return arrays["inputs"] if list(arrays) == ["inputs"] else arrays
