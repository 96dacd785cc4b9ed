"""One image file as pixels: right ones, or a refusal that names the file.

A file may have 8 or 16 bits, be grey, coloured, of a palette or CMYK, transparent (it is laid over
white), turned by its EXIF tag (it is turned back), and of several pictures (the first counts). What
has no known white (floating and 32-bit integer pixels, 12 bits in a TIFF) is refused.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from typing import Any, Literal

import numpy as np

SUFFIXES = {
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp",
}  # fmt: skip
Fit = Literal["cut", "stretch"]
Resample = Literal["bilinear", "bicubic"]
# What a whole file ends with; of other formats all pixels are decoded to know.
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9", "GIF": b";"}
_SIXTEEN = {"I;16", "I;16L", "I;16B", "I;16N"}
_BITS, _LIGHT, _ORIENTATION = 258, 262, 0x0112  # tags of TIFF and EXIF


def pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "reading image files needs Pillow: pip install 'jaxdistill[images]'"
        ) from error
    return Image


def decode_image(
    file: Any,
    size: int | None,
    channels: int = 3,
    *,
    fit: Fit = "cut",
    resample: Resample = "bicubic",
) -> np.ndarray:
    """Decodes one image file to a square: the shorter side resized to ``size``, then the centre.

    Sixteen bits are rounded to eight, transparent pixels are laid over white, and the picture is
    turned as its EXIF tag says.

    Args:
        file: a path, or a binary file object.
        size: the side of the result; None keeps the image as it is.
        channels: 1 or 3.
        fit: what makes a square of an image: ``"cut"`` takes its centre, ``"stretch"`` all of it.
        resample: how it is resized, always with antialiasing.

    Returns:
        uint8, ``[size, size, channels]``.

    Raises:
        ValueError: for what is no whole image, has more pixels than Pillow allows, or pixels whose
            white is not known.
    """
    module = pillow()
    try:
        with _opened(file) as stream, module.open(stream) as image:
            _refuse_many_pixels(image, module)
            if size is not None:
                # A JPEG can be decoded at 1/2, 1/4 or 1/8; twice the wanted size leaves the
                # resampling something to do.
                image.draft("RGB", (2 * size, 2 * size))
            image.load()
            turn = _turn(image, module)
            image = _eight_bits(image, module).convert("RGB" if channels == 3 else "L")
            if size is not None:
                width, height = image.size if fit == "stretch" else [min(image.size)] * 2
                left, top = (image.width - width) / 2, (image.height - height) / 2
                box = (left, top, left + width, top + height)
                image = image.resize((size, size), module.Resampling[resample.upper()], box=box)
            if turn is not None:
                image = image.transpose(turn)
            pixels = np.asarray(image)
    except _faults(module) as fault:
        raise ValueError(f"{_named(file)} cannot be decoded as an image: {_said(fault)}") from fault
    return pixels if channels == 3 else pixels[..., None]


def look(path: str | os.PathLike) -> str:
    """What is wrong with an image file, as far as its header and its end say; empty if nothing.

    A file that does not end as its format does is decoded as a whole.
    """
    module = pillow()
    try:
        with _opened(path) as stream, module.open(stream) as image:
            _refuse_many_pixels(image, module)
            _refuse_unknown_white(image)
            whole = _ENDS.get(image.format or "")
            if whole is None or not _tail(stream, len(whole) + 2).endswith(whole):
                image.load()
    except _faults(module) as fault:
        return _said(fault)
    return ""


def _faults(module: Any) -> tuple[type[BaseException], ...]:
    """All that Pillow raises for files that are damaged, or more than they seem."""
    # Warnings are raised where they are errors.
    other = (OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, OverflowError)
    more = (EOFError, MemoryError, RuntimeError, Warning, struct.error, zlib.error)
    return module.DecompressionBombError, *other, *more


def _said(fault: BaseException) -> str:
    return str(fault).splitlines()[0] if str(fault) else type(fault).__name__


def _named(file: Any) -> str:
    return str(file) if isinstance(file, (str, os.PathLike)) else "what was given"


def _opened(file: Any) -> Any:
    """A binary file of its own: by a path Pillow maps some files, and turns those wrongly."""
    by_path = isinstance(file, (str, os.PathLike))
    return open(file, "rb") if by_path else contextlib.nullcontext(file)


def _tail(stream: Any, size: int) -> bytes:
    """The last bytes of a file, less what some programs fill up with; the place stays as it is."""
    place = stream.tell()
    stream.seek(-min(size, stream.seek(0, os.SEEK_END)), os.SEEK_END)
    found = stream.read()
    stream.seek(place)
    return found.rstrip(b"\0\r\n")


def _refuse_many_pixels(image: Any, module: Any) -> None:
    allowed = module.MAX_IMAGE_PIXELS
    if allowed is not None and image.width * image.height > allowed:
        raise ValueError(
            f"it has {image.width} x {image.height} pixels, more than the {allowed:,} that Pillow "
            "allows (PIL.Image.MAX_IMAGE_PIXELS)"
        )


def _refuse_unknown_white(image: Any) -> None:
    tags = getattr(image, "tag_v2", None) or {}
    if image.mode in _SIXTEEN:
        bits = tags.get(_BITS, (16,))
        if bits[0] != 16 or tags.get(_LIGHT, 1) == 0 or "transparency" in image.info:
            raise ValueError(
                f"its pixels have {bits[0]} bits, white is 0, or one is transparent: store it as "
                "8 or 16 plain bits"
            )
    # Pillow widens what a PNM says to 16 bits.
    elif image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        kind = "floating" if image.mode == "F" else "32-bit"
        raise ValueError(
            f"its pixels are {kind} numbers, whose white is not known: store 8 or 16 bits"
        )


def _eight_bits(image: Any, module: Any) -> Any:
    _refuse_unknown_white(image)
    if image.mode in _SIXTEEN or image.mode == "I":
        wide = np.asarray(image).astype(np.uint32)
        return module.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = module.new("RGBA", clear.size, (255, 255, 255, 255))
        return module.alpha_composite(white, clear)
    return image


def _turn(image: Any, module: Any) -> Any:
    """How to put a picture upright that its camera has stored otherwise."""
    way = module.Transpose
    turns = {
        2: way.FLIP_LEFT_RIGHT, 3: way.ROTATE_180, 4: way.FLIP_TOP_BOTTOM, 5: way.TRANSPOSE,
        6: way.ROTATE_270, 7: way.TRANSVERSE, 8: way.ROTATE_90,
    }  # fmt: skip
    try:
        return turns.get(image.getexif().get(_ORIENTATION))
    except Exception:  # of a damaged tag, by many names: such a picture stays as it is stored
        return None
