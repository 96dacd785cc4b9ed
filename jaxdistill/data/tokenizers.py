"""Tokenizers: bytes, and those that others publish."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdistill._hub import folder_of

_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.*",
    "merges.txt",
)
_USUAL_END = "<|endoftext|>"


class Tokenizer(NamedTuple):
    """Text to numbers and back.

    Attributes:
        encode: ``str -> int array [n]``, no special tokens added.
        decode: ``sequence of int -> str``.
        vocabulary: how many tokens there are.
        end: the one that begins and ends every text.
        start: the one that begins them, where it is another one (BERT).
        fingerprint: what it does, in short: caches of teachers are refused for any other.
    """

    encode: Callable[[str], np.ndarray]
    decode: Callable[[Sequence[int]], str]
    vocabulary: int
    end: int
    start: int | None = None
    fingerprint: str = ""


def byte_tokenizer() -> Tokenizer:
    """The 256 bytes of UTF-8, and 256 for the end of a text.

    Example:
        >>> tokenizer = byte_tokenizer()
        >>> tokenizer.encode("né").tolist(), tokenizer.decode([110, 195, 169, 256])
        ([110, 195, 169], 'né')
    """

    def encode(text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(tokens: Sequence[int]) -> str:
        return bytes(int(t) for t in tokens if t < 256).decode(errors="replace")

    return Tokenizer(encode, decode, 257, 256, fingerprint="bytes")


def file_tokenizer(path: Path | str, end: str | None = None, start: str | None = None) -> Tokenizer:
    """A tokenizer of Hugging Face's ``tokenizers``, as models are published with.

    Args:
        path: a ``tokenizer.json``, or a folder, or ``owner/name`` on the hub (extra ``hf``), with
            one in it, or with ``vocab.txt`` (word pieces), or with ``vocab.json`` and
            ``merges.txt`` (pairs of bytes).
        end: which of its tokens begins and ends a text; by default what the folder says ends or, if
            nothing, separates texts (of BERT ``"[SEP]"``), or ``<|endoftext|>``.
        start: which one begins it, where it is another; by default, where ``end`` is not given
            either and separates texts, what the folder says classifies them (of BERT ``"[CLS]"``).

    Raises:
        ImportError: without the extra ``text``.
        FileNotFoundError: if there is no such file.
        ValueError: if it has no token ``end`` or ``start``.
    """
    try:
        import tokenizers
    except ImportError as fault:
        raise ImportError(
            "a tokenizer from a file needs: pip install 'jaxdistill[text]'"
        ) from fault
    path = folder_of(path, _FILES)
    given = _opened(path, tokenizers)
    if end is None:
        end, usual = _ends(path if path.is_dir() else path.parent)
        start = start or usual

    def number_of(name: str, key: str) -> int:
        found = given.token_to_id(name)
        if found is None:
            raise ValueError(f"tokenizer {path} has no token {name!r}: name its own with {key!r}")
        return found

    number, first = number_of(end, "end"), number_of(start, "start") if start else None

    def encode(text: str) -> np.ndarray:
        return np.asarray(given.encode(text, add_special_tokens=False).ids, np.int32)

    def decode(tokens: Sequence[int]) -> str:
        return given.decode([int(t) for t in tokens if t not in (number, first)])

    digest = hashlib.blake2b(given.to_str().encode(), digest_size=16).hexdigest()
    about = f"{digest}, ends {number}, starts {first}"
    return Tokenizer(encode, decode, given.get_vocab_size(), number, first, about)


def _opened(path: Path, tokenizers: Any) -> Any:
    whole = path / "tokenizer.json" if path.is_dir() else path
    if whole.is_file():
        return tokenizers.Tokenizer.from_file(str(whole))
    words, pairs = path / "vocab.txt", (path / "vocab.json", path / "merges.txt")
    if words.is_file():
        lower = _said(path, "tokenizer_config.json").get("do_lower_case", True)
        return tokenizers.BertWordPieceTokenizer(str(words), lowercase=lower)
    if all(file.is_file() for file in pairs):
        return tokenizers.ByteLevelBPETokenizer(*map(str, pairs))
    raise FileNotFoundError(
        f"there is no tokenizer {whole}, nor vocab.txt, nor vocab.json with merges.txt beside it: "
        "one of another kind becomes a tokenizer.json by transformers.AutoTokenizer and "
        "save_pretrained"
    )


def _said(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    return json.loads(path.read_text()) if path.is_file() else {}


def _ends(folder: Path) -> tuple[str, str | None]:
    """What a folder says ends a text, or separates texts; and with the latter what begins them."""
    files = [_said(folder, name) for name in ("tokenizer_config.json", "special_tokens_map.json")]

    def token(key: str) -> str | None:
        found = next((said[key] for said in files if said.get(key)), None)
        return found["content"] if isinstance(found, dict) else found

    end = token("eos_token")
    if end:
        return end, None
    return (token("sep_token") or _USUAL_END), token("cls_token")
