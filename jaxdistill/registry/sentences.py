"""Names of texts that are classified or scored as a whole, and how they become tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxdistill import evaluation
from jaxdistill.data import published, sentences, split
from jaxdistill.data.records import Source
from jaxdistill.registry import language
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, forwarding
from jaxdistill.settings import Count


def _library_passages(
    context: Context,
    *,
    length: Count,
    tokenizer: Mapping[str, Any] | None = None,
    lines: Count = 3,
    each: Count | None = 1500,
) -> Source:
    given = sentences.library_passages(lines=lines, each=each)
    parts = split.part_numbers(given.ids or (), context.validation, context.test)
    trained = [text for text, part in zip(given.texts, parts, strict=True) if part == 0]
    return sentences.encoded(given, language.tokenizer_of(tokenizer, trained), length)


def _library_pairs(
    context: Context,
    *,
    length: Count,
    tokenizer: Mapping[str, Any] | None = None,
    lines: Count = 3,
    each: Count = 500,
) -> Source:
    given = sentences.library_pairs(lines=lines, each=each)
    parts = split.part_numbers(given.ids or (), context.validation, context.test)
    both = zip(given.texts, given.others or (), parts, strict=True)
    trained = [text for *pair, part in both if part == 0 for text in pair]
    return sentences.encoded(given, language.tokenizer_of(tokenizer, trained), length)


def _published(name: str) -> Entry:
    def read(
        context: Context,
        *,
        length: Count,
        dir: str = "",
        tokenizer: Mapping[str, Any] | None = None,
    ) -> tuple[Source, Source]:
        if not dir:
            raise ValueError(
                f"data set {name!r} needs a folder: --config.data.dir=<folder>; which files it "
                f"holds says jaxdistill.data.published.{name}"
            )
        train, test = (published.SETS[name](dir, part) for part in ("train", "test"))
        made = language.tokenizer_of(tokenizer, [*train.texts, *(train.others or ())])
        return sentences.encoded(train, made, length), sentences.encoded(test, made, length)

    return read


DATA: dict[str, Callable[..., Any]] = {
    "library_passages": _library_passages,
    "library_pairs": _library_pairs,
    **{name: _published(name) for name in published.SETS},
}


@forwarding(evaluation.loyalty)
def _loyalty(context: Context, *, against: Sequence[str], **rest: Any) -> Any:
    nets = {name: context.net_of(name, "earlier stage to be loyal to") for name in against}
    return evaluation.loyalty(context.net, nets, context.prepare, context.inputs, **rest)


EVALUATORS: dict[str, Entry] = {"loyalty": _loyalty}
