"""Names of texts that are classified or scored as a whole, and how they become tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxdistill import evaluation
from jaxdistill._errors import unknown
from jaxdistill.data import published, sentences, split
from jaxdistill.data.records import Source
from jaxdistill.data.text import Tokenizer
from jaxdistill.net import Net
from jaxdistill.registry import language
from jaxdistill.registry._names import named


def _tokenizer(settings: Mapping[str, Any] | None, texts: Sequence[str]) -> Tokenizer:
    """A tokenizer that is given, or one that is learnt from the texts that are trained on."""
    settings = settings or {"name": "bytes"}
    if named("tokenizer", settings) != "bpe":
        return language.tokenizer_of(settings)
    for key in settings:
        if key not in ("name", "vocabulary"):
            raise ValueError(unknown("key of tokenizer 'bpe'", key, ("name", "vocabulary")))
    return sentences.bpe_tokenizer(texts, vocabulary=settings.get("vocabulary", 2000))


def _library_passages(
    length: int,
    validation: float,
    test: float,
    tokenizer: Mapping[str, Any] | None = None,
    lines: int = 3,
    each: int | None = 1500,
) -> Source:
    given = sentences.library_passages(lines=lines, each=each)
    parts = split.part_numbers(given.ids or (), validation, test)
    trained = [text for text, part in zip(given.texts, parts, strict=True) if part == 0]
    return sentences.encoded(given, _tokenizer(tokenizer, trained), length)


def _published(name: str) -> Callable[..., tuple[Source, Source]]:
    def read(
        length: int, dir: str = "", tokenizer: Mapping[str, Any] | None = None
    ) -> tuple[Source, Source]:
        if not dir:
            raise ValueError(
                f"data set {name!r} needs a folder: --config.data.dir=<folder>; which files it "
                f"holds says jaxdistill.data.published.{name}"
            )
        train, test = (published.SETS[name](dir, part) for part in ("train", "test"))
        made = _tokenizer(tokenizer, [*train.texts, *(train.others or ())])
        return sentences.encoded(train, made, length), sentences.encoded(test, made, length)

    return read


DATA: dict[str, Callable[..., Any]] = {
    "library_passages": _library_passages,
    **{name: _published(name) for name in published.SETS},
}


def _loyalty(
    net: Net,
    nets: Mapping[str, Net],
    against: Sequence[str],
    scores: bool = False,
    base: float = 2.0,
    inputs: str = "image",
    prepare: Any = None,
) -> Any:
    for name in against:
        if name not in nets:
            raise ValueError(unknown("earlier stage to be loyal to", name, nets))
    return evaluation.loyalty(
        net, {name: nets[name] for name in against},
        scores=scores, base=base, inputs=inputs, prepare=prepare,
    )  # fmt: skip


EVALUATORS: dict[str, Callable[..., Any]] = {"loyalty": _loyalty}
