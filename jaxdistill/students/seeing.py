"""What a student sees: images, texts or arrays as users have them, made into what its net takes.

Each kind is plain data in a student's ``config.json``, and says what was done to its training
records: nothing here is guessed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.data.images import Fit, Resample, decode_image
from jaxdistill.data.operations import to_float
from jaxdistill.data.sentences import Sentences, encoded
from jaxdistill.data.tokenizers import Tokenizer, byte_tokenizer, file_tokenizer

_LUMA = (0.299, 0.587, 0.114)


class Images(NamedTuple):
    """Images: the square in the middle, resized (antialiased), in [0, 1], normalised.

    Attributes:
        size: (height, width) that the net sees.
        channels: 1 or 3.
        mean: of each channel, taken away; None for nothing.
        std: of each channel, divided by then.
        stored: the side to which files were resized before, where that is another one; from there
            to ``size`` images are resized bilinearly, as the run's view did.
        cut: whether it is the middle of what was stored that the net sees, instead.
        fit: whether the square in the middle is seen (``"cut"``), or the whole, stretched to one.
        resample: how files are resized.
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    stored: int | None = None
    cut: bool = False
    fit: Fit = "cut"
    resample: Resample = "bicubic"

    def batch(self, given: Sequence[Any]) -> np.ndarray:
        """Files and arrays as the net sees them, float32 ``[B, H, W, C]``.

        Raises:
            ValueError: for what is no image, naming it.
            FileNotFoundError: for a file that is not there.
            ImportError: for a file without the extra ``images``.
        """
        arrays = [self._pixels(each) for each in given]
        alike = len({array.shape for array in arrays}) == 1
        groups = [np.stack(arrays)] if alike else [array[None] for array in arrays]
        seen = [np.asarray(_seen(self, group)) for group in groups]
        return np.concatenate(seen)

    def named(self, given: Any, number: int) -> str:
        """What an image is called in a table."""
        return str(given) if isinstance(given, (str, os.PathLike)) else f"image {number}"

    def listed(self, given: Any) -> list[Any]:
        """One image or several as a list; of a folder all images in it, by name."""
        if isinstance(given, (str, os.PathLike)):
            given = [given]
        if hasattr(given, "ndim") and given.ndim == 4:
            return list(np.asarray(given))
        if hasattr(given, "ndim"):
            return [np.asarray(given)]
        return [file for each in given for file in _files(each)]

    def view(self, image: jax.Array) -> jax.Array:
        """A batch ``[B, h, w, C]`` of any size, uint8 or floating in [0, 1], as the net sees it."""
        image = _of_channels(to_float(image), self.channels)
        side = self.stored or self.size[0]
        if image.shape[1:3] not in ((side, side), self.size):
            if self.size[0] != self.size[1]:
                raise ValueError(f"images must have the size that the net sees, {self.size}")
            method = "cubic" if self.resample == "bicubic" else "linear"
            image = jnp.clip(_middle(image, side, method, self.fit), 0, 1)
        if self.stored and image.shape[1:3] != self.size:
            size = self.size[0]
            image = _centre(image, size) if self.cut else _middle(image, size, "linear")
        if self.mean is not None:
            shape = (1, 1, 1, -1)
            mean, std = (jnp.asarray(x, image.dtype).reshape(shape) for x in (self.mean, self.std))
            image = (image - mean) / std
        return image

    def _pixels(self, given: Any) -> np.ndarray:
        if isinstance(given, (str, os.PathLike)):
            path = Path(given)
            if not path.is_file():
                raise FileNotFoundError(f"there is no image {path}")
            square = self.size[0] == self.size[1]
            side = (self.stored or self.size[0]) if square else None
            how: dict[str, Any] = {"fit": self.fit, "resample": self.resample}
            return decode_image(path, side, self.channels, **how)
        array = np.asarray(given)
        array = array[..., None] if array.ndim == 2 else array
        if array.ndim != 3 or array.shape[-1] not in (1, 3) or 0 in array.shape:
            raise ValueError(
                f"an image is an array [height, width, channels] of 1 or 3 channels, not one of "
                f"shape {list(np.shape(given))}"
            )
        if array.dtype != np.uint8 and array.dtype.kind != "f":
            raise ValueError(f"the pixels of an image are uint8 or floating, not {array.dtype}")
        if array.dtype.kind == "f" and not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(
                f"floating pixels lie in [0, 1], these in [{array.min():g}, {array.max():g}]: give "
                "them as they are before they are normalised, or as uint8"
            )
        return array


class Texts(NamedTuple):
    """Texts as tokens of one length.

    Attributes:
        length: tokens that the net sees at most.
        form: ``"whole"``, texts that are judged as a whole, from start to end token; or
            ``"beginning"``, texts that go on, of which a language model says the next token.
        pairs: whether two texts are judged together.
        tokenizer: it.
        masked: whether the net is told where there is text.
    """

    length: int
    form: Literal["whole", "beginning"]
    pairs: bool
    tokenizer: Tokenizer
    masked: bool = True

    def batch(self, given: Sequence[Any]) -> dict[str, np.ndarray]:
        """``tokens`` int32 ``[B, T]`` and ``mask`` bool ``[B, T]``; of pairs ``types`` too.

        Raises:
            ValueError: for what is no text, or no pair of texts.
        """
        for each in given:
            self._check(each)
        if self.form == "beginning":
            return self._beginnings(given)
        first = [each[0] if self.pairs else each for each in given]
        second = [each[1] for each in given] if self.pairs else None
        texts = Sentences("texts", first, np.zeros(len(given), np.int32), second)
        found = encoded(texts, self.tokenizer, self.length).gather(np.arange(len(given)))
        return {name: found[name] for name in ("tokens", "mask", "types") if name in found}

    def named(self, given: Any, number: int) -> str:
        """What a text is called in a table: its beginning."""
        text = " | ".join(given) if isinstance(given, (tuple, list)) else str(given)
        line = " ".join(text.split())
        return line if len(line) <= 60 else f"{line[:57]}..."

    def listed(self, given: Any) -> list[Any]:
        """One text or several as a list; of a path the text in that file."""
        if isinstance(given, (str, os.PathLike)) or (self.pairs and isinstance(given, tuple)):
            given = [given]
        return [Path(x).read_text() if isinstance(x, os.PathLike) else x for x in given]

    def _beginnings(self, given: Sequence[str]) -> dict[str, np.ndarray]:
        start = self.tokenizer.end if self.tokenizer.start is None else self.tokenizer.start
        tokens = np.full((len(given), self.length), self.tokenizer.end, np.int32)
        mask = np.zeros((len(given), self.length), bool)
        for row, text in enumerate(given):
            whole = np.concatenate([[start], self.tokenizer.encode(text)])[-self.length :]
            tokens[row, : len(whole)] = whole
            mask[row, : len(whole)] = True
        return {"tokens": tokens, "mask": mask}

    def _check(self, each: Any) -> None:
        wanted = "a pair of texts" if self.pairs else "a text"
        pair = isinstance(each, (tuple, list)) and len(each) == 2
        texts = list(each) if pair and self.pairs else [each]
        if pair != self.pairs or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"this student judges {wanted} at a time, not {each!r:.80}")


class Arrays(NamedTuple):
    """Arrays that the net sees as they are, examples on the first axis.

    Attributes:
        why: what is special about them, for messages.
    """

    why: str = ""

    def batch(self, given: Sequence[Any]) -> Any:
        """The examples as one batch."""
        return jax.tree.map(lambda *rows: np.stack(rows), *given)

    def named(self, given: Any, number: int) -> str:
        """What an example is called in a table."""
        return f"example {number}"

    def listed(self, given: Any) -> list[Any]:
        """A batch as a list of examples.

        Raises:
            ValueError: for a file or a text.
        """
        if isinstance(given, (str, os.PathLike)) or (
            isinstance(given, (tuple, list)) and any(isinstance(x, (str, Path)) for x in given)
        ):
            raise ValueError(f"this student sees arrays, not files or texts{self.why}")
        given = np.asarray(given) if isinstance(given, (tuple, list)) else given
        leaves = jax.tree.leaves(given)
        if not leaves or any(np.ndim(leaf) == 0 for leaf in leaves):
            raise ValueError("this student sees arrays with the examples on the first axis")
        return [jax.tree.map(lambda x, i=i: np.asarray(x[i]), given) for i in range(len(leaves[0]))]


Seeing = Images | Texts | Arrays
_KINDS: dict[str, Any] = {"images": Images, "texts": Texts, "arrays": Arrays}


def as_data(seeing: Seeing) -> dict[str, Any]:
    """What a student sees as plain data, for ``config.json``.

    Example:
        >>> as_data(Images((8, 8), 1))["size"]
        [8, 8]
    """
    if isinstance(seeing, Images):
        about = {k: list(v) if isinstance(v, tuple) else v for k, v in seeing._asdict().items()}
        return {
            "kind": "images", "rescale": "to [0, 1]", **about,
        }  # fmt: skip
    if isinstance(seeing, Texts):
        about = seeing._asdict()
        written = about.pop("tokenizer")
        ends = {"start": written.start, "end": written.end, "vocabulary": written.vocabulary}
        name = "bytes" if written.fingerprint == "bytes" else "tokenizer.json"
        return {"kind": "texts", **about, "tokenizer": {"name": name, **ends}}
    return {"kind": "arrays", **seeing._asdict()}


def from_data(data: Mapping[str, Any], folder: Path) -> Seeing:
    """What :func:`as_data` said; the tokenizer is read from the folder.

    Raises:
        ValueError: for another kind.
        ImportError: for a tokenizer from a file, without the extra ``text``.
    """
    if data["kind"] not in _KINDS:
        raise ValueError(unknown("kind of inputs", data["kind"], _KINDS))
    kind = _KINDS[data["kind"]]
    known = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    fields: dict[str, Any] = {name: known[name] for name in kind._fields if name in known}
    if kind is Texts:
        fields["tokenizer"] = _tokenizer(data["tokenizer"], folder)
    return kind(**fields)


def _tokenizer(said: Mapping[str, Any], folder: Path) -> Tokenizer:
    if said["name"] == "bytes":
        return byte_tokenizer()
    from jaxdistill.students.published import token_name

    definition = (folder / "tokenizer.json").read_text()
    end = token_name(definition, said["end"])
    start = None if said["start"] is None else token_name(definition, said["start"])
    return file_tokenizer(path=folder / "tokenizer.json", end=end, start=start)


def _seen(images: Images, group: np.ndarray) -> jax.Array:
    return images.view(jnp.asarray(group))


def _centre(image: jax.Array, side: int) -> jax.Array:
    """The middle of ``[B, h, w, C]``, cut."""
    top, left = ((n - side) // 2 for n in image.shape[1:3])
    return image[:, top : top + side, left : left + side]


def _middle(image: jax.Array, side: int, method: str, fit: Fit = "cut") -> jax.Array:
    """The square in the middle of ``[B, h, w, C]``, or all of it stretched, as ``[B, side, side,
    C]``; sizes may be symbolic."""
    sides = jnp.stack([jnp.asarray(n, image.dtype) for n in image.shape[1:3]])
    box = sides if fit == "stretch" else sides.min()
    zoom = jnp.broadcast_to(side / box, (2,))
    shift = -(sides - box) / 2 * zoom
    shape = (image.shape[0], side, side, image.shape[3])
    return jax.image.scale_and_translate(
        image, shape, (1, 2), zoom, shift, method, precision=jax.lax.Precision.HIGHEST
    )


def _of_channels(image: jax.Array, channels: int) -> jax.Array:
    if image.shape[-1] == channels:
        return image
    if channels == 1:
        return (image * jnp.asarray(_LUMA, image.dtype).reshape(1, 1, 1, 3)).sum(-1, keepdims=True)
    return jnp.broadcast_to(image, (*image.shape[:-1], channels))


def _files(given: Any) -> list[Any]:
    """An image as it is, or those in a folder."""
    from jaxdistill.data.images import SUFFIXES

    if not isinstance(given, (str, os.PathLike)) or not Path(given).is_dir():
        return [given]
    found = [f for f in sorted(Path(given).rglob("*")) if f.suffix.lower() in SUFFIXES]
    if not found:
        raise FileNotFoundError(f"there are no images in {given}")
    return found
