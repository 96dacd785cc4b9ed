"""Tokenizers: bytes, and those that others publish."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from absl import logging

from jaxdistill._hub import folder_of
from jaxdistill.data.documents import json_of, text_of
from jaxdistill.settings import Range, checked

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
        definition: it as a ``tokenizer.json`` of Hugging Face's ``tokenizers``; empty if it is none
            of these.
    """

    encode: Callable[[str], np.ndarray]
    decode: Callable[[Sequence[int]], str]
    vocabulary: int
    end: int
    start: int | None = None
    fingerprint: str = ""
    definition: str = ""


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

    return Tokenizer(encode, decode, 257, 256, fingerprint="bytes", definition=_bytes_defined())


def _bytes_defined() -> str:
    """The bytes as ``tokenizers`` has them: each a character that can be printed."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (chr(256 + number) for number in range(256))
    words = {chr(b) if b in printed else next(others): b for b in range(256)}
    end = {"id": 256, "content": _USUAL_END, "single_word": False, "lstrip": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    found = {
        "version": "1.0",
        "added_tokens": [{**end, "rstrip": False, "normalized": False, "special": True}],
        "pre_tokenizer": {**level, "use_regex": False},
        "decoder": {**level, "use_regex": False},
        "model": {"type": "BPE", "vocab": words, "merges": []},
    }
    return json.dumps(found, ensure_ascii=False)


def refuse_unknown_tokens(tokenizer: Tokenizer, texts: Sequence[np.ndarray], name: str) -> None:
    """Refuses tokens that a net of the tokenizer's vocabulary has no row for.

    Raises:
        ValueError: naming the token.
    """
    ends = [tokenizer.end] + ([] if tokenizer.start is None else [tokenizer.start])
    for tokens in (*texts, np.array(ends)):
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < tokenizer.vocabulary:
            outside = tokens[(tokens < 0) | (tokens >= tokenizer.vocabulary)][0]
            raise ValueError(
                f"the tokenizer of {name!r} gives token {outside}, but says that its vocabulary is "
                f"{tokenizer.vocabulary}: that is the largest token and one more"
            )


@checked
def file_tokenizer(
    *, path: Path | str, end: str | None = None, start: str | None = None
) -> Tokenizer:
    """A tokenizer of Hugging Face's ``tokenizers``, as models are published with.

    Texts are neither truncated nor padded, whatever the file says about it. The vocabulary is the
    largest token and one more: numbers that no token has are logged.

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
        ValueError: if a file is not what its name says, or has no token ``end`` or ``start``; while
            encoding, for a text that it cannot write.
    """
    try:
        import tokenizers
    except ImportError as fault:
        raise ImportError(
            "a tokenizer from a file needs: pip install 'jaxdistill[text]'"
        ) from fault
    path = folder_of(path, _FILES)
    try:
        given = _opened(path, tokenizers)
    except FileNotFoundError:
        raise
    except Exception as fault:  # what tokenizers raises has no name of its own
        raise ValueError(f"{path} cannot be read as a tokenizer: {fault}") from fault
    given.no_truncation()
    given.no_padding()
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
        try:
            found = given.encode(text, add_special_tokens=False).ids
        except Exception as fault:
            raise ValueError(f"tokenizer {path} cannot write {text[:40]!r}: {fault}") from fault
        return np.asarray(found, np.int32)

    def decode(tokens: Sequence[int]) -> str:
        return given.decode([int(t) for t in tokens if t not in (number, first)])

    definition = given.to_str()
    about = f"{_digest(definition)}, ends {number}, starts {first}"
    vocabulary = vocabulary_of(given, path)
    return Tokenizer(encode, decode, vocabulary, number, first, about, definition)


@checked
def bpe_tokenizer(
    texts: Iterable[str],
    *,
    vocabulary: Annotated[int, Range(257)] = 2000,
    end: str = _USUAL_END,
    leading_space: bool = True,
    digits_apart: bool = False,
) -> Tokenizer:
    """A byte-pair encoding that is learnt from texts; any text can be written in it.

    The same texts in any order give the same tokens.

    Args:
        texts: what it is learnt from: those that are trained on.
        vocabulary: how many tokens there are at most, the 256 bytes and the end of a text included.
        end: how the end of a text is called.
        leading_space: whether a text is written as if a space stood before it, so that a word is
            one token wherever it stands. Without it texts come back as they were, to the letter.
        digits_apart: whether every digit is a token of its own.

    Raises:
        ImportError: without the extra ``text``.
        ValueError: for a vocabulary that does not hold the bytes.

    References:
        Sennrich et al. Neural machine translation of rare words with subword units. ACL 2016.

    Example:
        >>> tokenizer = bpe_tokenizer(["red apples", "three red apples"], leading_space=False)
        >>> len(tokenizer.encode(" red apples")), tokenizer.decode(tokenizer.encode("né 12"))
        (2, 'né 12')
    """
    try:
        from tokenizers import Tokenizer as Learnt
        from tokenizers import decoders, models, pre_tokenizers, trainers
    except ImportError as fault:
        raise ImportError(
            "the tokenizer 'bpe' needs: pip install 'jaxdistill[text]'; 'bytes' needs nothing"
        ) from fault
    learnt: Any = Learnt(models.BPE())
    level: Any = pre_tokenizers.ByteLevel(add_prefix_space=leading_space)
    if digits_apart:
        digits = pre_tokenizers.Digits(individual_digits=True)
        level = pre_tokenizers.Sequence([digits, level])
    learnt.pre_tokenizer = level
    learnt.decoder = decoders.ByteLevel()
    learnt.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[end],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    number = learnt.token_to_id(end)

    def encode(text: str) -> np.ndarray:
        return np.asarray(learnt.encode(text, add_special_tokens=False).ids, np.int32)

    def decode(tokens: Sequence[int]) -> str:
        return learnt.decode([int(t) for t in tokens if t != number])

    definition = learnt.to_str()
    about = f"{_digest(definition)}, ends {number}"
    return Tokenizer(encode, decode, vocabulary_of(learnt, "bpe"), number, None, about, definition)


def _digest(definition: str) -> str:
    return hashlib.blake2b(definition.encode(), digest_size=16).hexdigest()


def vocabulary_of(given: Any, name: object) -> int:
    """The largest token and one more: as many rows as a net needs."""
    numbers = given.get_vocab().values()
    size = max(numbers, default=-1) + 1
    if size != len(set(numbers)):
        logging.warning(
            "tokenizer %s has %d tokens, the largest of which is %d: its vocabulary is %d",
            name, len(set(numbers)), size - 1, size,
        )  # fmt: skip
    return size


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
    if not path.is_file():
        return {}
    said = json_of(text_of(path), str(path))
    if not isinstance(said, dict):
        raise ValueError(f"{path} is no JSON object")
    return said


def _ends(folder: Path) -> tuple[str, str | None]:
    """What a folder says ends a text, or separates texts; and with the latter what begins them."""
    files = [_said(folder, name) for name in ("tokenizer_config.json", "special_tokens_map.json")]

    def token(key: str) -> str | None:
        found = next((said[key] for said in files if said.get(key)), None)
        found = found.get("content") if isinstance(found, dict) else found
        if found is not None and not isinstance(found, str):
            raise ValueError(f"tokenizer {folder}: {key!r} is {found!r}, not a token")
        return found

    end = token("eos_token")
    if end:
        return end, None
    return (token("sep_token") or _USUAL_END), token("cls_token")
