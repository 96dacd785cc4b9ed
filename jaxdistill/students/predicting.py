"""A student as something to ask: files, arrays or texts in, classes, scores or features out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill._files import CHECKSUMS, Damaged, read_sealed, verify_folder
from jaxdistill.models import pretrained
from jaxdistill.models.pretrained.files import read_config
from jaxdistill.models.pretrained.loading import CHANGED
from jaxdistill.net import Net, from_function
from jaxdistill.objective import lookup, taps_of
from jaxdistill.students.saving import KINDS, Kind
from jaxdistill.students.seeing import Seeing, Texts, from_data
from jaxdistill.training.export import FUNCTION, load_exported

# So many of the likeliest tokens are named.
_NEXT = 5


class Prediction(NamedTuple):
    """What a student says of one input.

    Attributes:
        input: the name of the file, the beginning of the text, or a number.
        kind: what it says: ``"classes"``, ``"next"`` (the token that follows a text), ``"scores"``
            or ``"features"``.
        values: ``{name: probability}``, the likeliest first, of classes all, of tokens five;
            ``{name: value}`` of scores; an array ``[D]`` of features.
    """

    input: str
    kind: Kind
    values: Any

    @property
    def best(self) -> str:
        """The likeliest class or token.

        Raises:
            ValueError: for scores and features.
        """
        if self.kind not in ("classes", "next"):
            raise ValueError(f"a prediction of {self.kind} has no likeliest one")
        return next(iter(self.values))


@dataclasses.dataclass(frozen=True)
class Student:
    """A student from its folder.

    Attributes:
        folder: where it lies.
        about: what ``config.json`` says of it under ``"jaxdistill"``.
        seeing: what it sees, and how that becomes what its net takes.
        net: it as a :class:`~jaxdistill.net.Net`.
        params: its parameters; empty where the net is known by its compiled function alone.
        state: its statistics.
        module: the Linen module, where it is one of this library.
    """

    folder: Path
    about: Mapping[str, Any]
    seeing: Seeing
    net: Net
    params: Any
    state: Any
    module: Any = None

    def outputs(self, inputs: Any) -> Any:
        """The net's own inputs, arrays as ``student.jaxexport`` takes them, to its outputs."""
        return jax.jit(lambda p, s, x: self.net.apply(p, s, x).out)(self.params, self.state, inputs)

    def predict(self, inputs: Any, *, batch_size: int = 64) -> list[Prediction]:
        """What the student says.

        Args:
            inputs: one or several: names of image files, or of folders of them; images as arrays
                ``[height, width, channels]`` of any size, uint8 or floating in [0, 1]; texts, or
                pairs of texts; for a student that sees neither, arrays as its net takes them.
            batch_size: so many are run at once.

        Returns:
            A :class:`Prediction` for each.

        Raises:
            ValueError: for what it cannot see, and for a sampler, which makes samples of noise.
            FileNotFoundError: for a file that is not there.
        """
        kind = self.about["kind"]
        if kind == "samples":
            raise ValueError(
                f"the student in {self.folder} makes samples: outputs(noise) of it does, or one of "
                "the solvers in jaxdistill.samplers"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
        items = self.seeing.listed(inputs)
        run, found = self._runner(), []
        for begin in range(0, len(items), batch_size):
            chunk = items[begin : begin + batch_size]
            # One shape for all batches of a call: nothing is compiled twice.
            missing = min(batch_size, len(items)) - len(chunk)
            seen = self.seeing.batch([*chunk, *chunk[:1] * missing])
            values = self._told(np.asarray(run(self.params, self.state, seen)), seen)
            for place, (item, value) in enumerate(zip(chunk, values, strict=False)):
                name = self.seeing.named(item, begin + place)
                found.append(Prediction(name, kind, value))
        return found

    def _runner(self) -> Callable[..., jax.Array]:
        read, names = self.about["read"], tuple(self.about["inputs"])

        @jax.jit
        def run(params: Any, state: Any, seen: Any) -> jax.Array:
            mask = seen.get("mask") if isinstance(seen, Mapping) else None
            fed = _fed(seen, names)
            forward = self.net.apply(params, state, fed, taps=taps_of(read))
            out = lookup(read, forward=forward, targets={}, batch={})
            out = out.astype(jnp.promote_types(out.dtype, jnp.float32))
            return _pooled(out, mask, self.about["kind"])

        return run

    def _told(self, out: np.ndarray, seen: Any) -> list[Any]:
        kind, names = self.about["kind"], self.about["class_names"]
        if kind == "features":
            return list(out)
        if kind == "scores":
            return [dict(zip(names, map(float, row), strict=True)) for row in out]
        decode = self.seeing.tokenizer.decode if isinstance(self.seeing, Texts) else None
        most = len(names) if kind == "classes" else _NEXT
        found = []
        for row in out:
            order = np.argsort(-row, kind="stable")[:most]
            named = (names[i] if kind == "classes" else _word(decode, int(i)) for i in order)
            found.append({name: float(row[i]) for name, i in zip(named, order, strict=True)})
        return found


def load(path: Path | str) -> Student:
    """The student of a run, or of a folder that :func:`~jaxdistill.students.save` wrote.

    Args:
        path: the working directory of a run, or its folder ``student``.

    Raises:
        FileNotFoundError: if there is no such folder, or no student in it.
        ValueError: for a run that leaves none, and for a file that is not what was written.
        ImportError: without the extra ``export``.
    """
    folder = student_folder(path)
    if (folder / CHECKSUMS).is_file():
        verify_folder(folder, hint=CHANGED)
    about = read_config(folder).get(pretrained.OURS)
    if not isinstance(about, Mapping):
        raise ValueError(f"{folder} holds a network, but not what a student sees and says of it")
    try:
        if about["kind"] not in KINDS:
            raise ValueError(unknown("kind of output", about["kind"], KINDS))
        seeing = from_data(about["preprocessing"], folder)
        if "net" in about and about["net"] is None:
            function = load_exported(folder / FUNCTION)

            def apply(params: Any, state: Any, inputs: Any, *, train: bool, rng: Any) -> Any:
                return function(inputs), {}, state

            net = from_function(lambda key, inputs: ({}, {}), apply)
            return Student(folder, about, seeing, net, {}, {})
        found = pretrained.load(folder)
    except KeyError as fault:
        raise ValueError(f"{folder / 'config.json'} lacks {fault}") from fault
    return Student(folder, about, seeing, found.net, found.params, found.state, found.module)


def student_folder(path: Path | str) -> Path:
    """The folder of a student, by its own path or by that of the run that left it.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: for a run that leaves no student.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if (folder / "student").is_dir():
        return folder / "student"
    if (folder / "data.json").is_file():
        raise ValueError(_none(folder))
    if not any((folder / name).is_file() for name in ("config.json", CHECKSUMS)):
        raise FileNotFoundError(f"{folder} holds neither a run nor a student")
    return folder


def _none(root: Path) -> str:
    """Why a run has no student."""
    try:
        known = read_sealed(root / "data.json")
    except Damaged as fault:
        return str(fault)
    kind = list(known.values())[-1].get("kind", "net") if known else "net"
    if kind == "net":
        return (
            f"{root} holds a run that is not done: the same command goes on, and leaves a student"
        )
    words = kind.replace("_", " ")
    where = f" (in {root / 'synthetic'})" if (root / "synthetic").is_dir() else ""
    return f"{root} holds a run that leaves no student: what it leaves is a {words}{where}"


def _fed(seen: Any, names: tuple[str, ...]) -> Any:
    """What the net itself takes of a batch."""
    if not isinstance(seen, Mapping):
        return seen if names == ("inputs",) else {names[0]: seen}
    return seen["tokens"] if names == ("inputs",) else {name: seen[name] for name in names}


def _pooled(out: jax.Array, mask: jax.Array | None, kind: str) -> jax.Array:
    """One row of numbers an input ``[B, K]``: probabilities, scores or features."""
    if kind == "next":
        assert mask is not None
        last = jnp.maximum(mask.sum(-1) - 1, 0)
        out = jnp.take_along_axis(out, last[:, None, None], axis=1)[:, 0]
    elif out.ndim > 2:
        weight = jnp.ones(out.shape[:2], out.dtype)
        if mask is not None and mask.shape == out.shape[:2]:
            weight = mask.astype(out.dtype)
        weight = weight.reshape(*weight.shape, *(1,) * (out.ndim - 2))
        out = (out * weight).sum(1) / jnp.maximum(weight.sum(1), 1)
        out = out.mean(tuple(range(1, out.ndim - 1))) if out.ndim > 2 else out
    if kind in ("classes", "next"):
        return jax.nn.softmax(out, axis=-1)
    return out if out.ndim > 1 else out[:, None]


def _word(decode: Any, number: int) -> str:
    """A token as it is written, or its number where that is no character."""
    text = decode([number]) if decode else ""
    return text if text and "\ufffd" not in text else f"<{number}>"
