"""Language models in configs: texts, the distiller, evaluators, what happens between steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxdistill import language, records
from jaxdistill._errors import unknown
from jaxdistill.data import split
from jaxdistill.data import text as texts
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.distiller import Distiller
from jaxdistill.language import domains
from jaxdistill.records import exchange
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, forwarding
from jaxdistill.settings import Count, Natural, Share


def _file_tokenizer(
    context: Context, *, path: str, end: str | None = None, start: str | None = None
) -> texts.Tokenizer:
    return texts.file_tokenizer(path=path, end=end, start=start)


@forwarding(texts.bpe_tokenizer)
def _bpe_tokenizer(context: Context, **rest: Any) -> texts.Tokenizer:
    learnt_from = context.sets.get("train")
    if not learnt_from:
        raise ValueError(
            "tokenizer 'bpe' is learnt from the texts of a set that it is named in: of requests, "
            "and of texts that are classified or scored"
        )
    return texts.bpe_tokenizer(learnt_from, **rest)


TOKENIZERS: dict[str, Entry] = {
    "bpe": _bpe_tokenizer,
    "bytes": lambda context: texts.byte_tokenizer(),
    "file": _file_tokenizer,
}
# What of the four corpora of `domains` is taken, in bytes: about the same of each.
DOMAIN_BYTES = 400_000


def tokenizer_of(part: Mapping[str, Any] | None, said: Sequence[str] = ()) -> texts.Tokenizer:
    """A tokenizer by its ``name``; bytes where none is named. One that is learnt is learnt from
    ``said``."""
    return call("tokenizer", TOKENIZERS, part or {"name": "bytes"}, Context(sets={"train": said}))


def chat_of(
    tokenizer: Mapping[str, Any] | None, template: str, said: Sequence[str] = ()
) -> records.Chat:
    """How conversations become tokens.

    Args:
        tokenizer: its ``name`` and settings.
        template: ``"plain"``, ``"chatml"``, or ``"tokenizer"`` for that of the tokenizer's folder.
        said: what a tokenizer that is learnt is learnt from.
    """
    given = tokenizer_of(tokenizer, said)
    if template == "tokenizer":
        if not (tokenizer or {}).get("path"):
            raise ValueError("template 'tokenizer' is that of a folder: name one in 'tokenizer'")
        return records.chat(given, records.template_of((tokenizer or {})["path"]))
    form = {"plain": records.plain, "chatml": records.chatml}[template]
    return records.chat(given, form())


def _domains(context: Context, *, length: Count, size: Count = DOMAIN_BYTES) -> split.Splits:
    return texts.domains(
        texts.four_domains(size), texts.byte_tokenizer(), length,
        validation=context.validation, test=context.test, by=context.by,
    )  # fmt: skip


def _standard_library(
    context: Context,
    *,
    length: Count,
    tokenizer: Mapping[str, Any] | None = None,
    pack: bool = False,
    modules: Count | None = None,
) -> split.Splits:
    documents = texts.standard_library(modules)
    return _corpus(context, documents, "standard_library", length, tokenizer, pack)


def _text_files(
    context: Context,
    *,
    length: Count,
    dir: str = "",
    pattern: str = "**/*.txt",
    tokenizer: Mapping[str, Any] | None = None,
    pack: bool = False,
) -> split.Splits:
    if not dir:
        raise ValueError(
            "data set 'text_files' needs a folder of texts: --config.data.dir=<folder>; a file of "
            "many texts is given by --config.data.path=<file.jsonl or file.parquet>"
        )
    documents = texts.text_files(dir, pattern)
    return _corpus(context, documents, "text_files", length, tokenizer, pack)


def _corpus(
    context: Context,
    documents: Any,
    name: str,
    length: int,
    tokenizer: Mapping[str, Any] | None,
    pack: bool,
) -> split.Splits:
    return texts.corpus(
        documents, tokenizer_of(tokenizer), length,
        pack=pack, name=name, validation=context.validation, test=context.test, by=context.by,
    )  # fmt: skip


def _domain_files(
    context: Context,
    *,
    dir: str,
    length: Count,
    text: str = "text",
    tokenizer: Mapping[str, Any] | None = None,
) -> split.Splits:
    """A folder of JSON-lines files, each a domain by the name of the file."""
    paths = sorted(Path(dir).glob("*.jsonl")) if dir else []
    if not paths:
        raise FileNotFoundError(
            f"data set 'domain_files' needs a folder of .jsonl files, one a domain: there are none "
            f"in {dir!r}; give --config.data.dir=<folder>"
        )
    return texts.domains(
        {path.stem: texts.json_lines(path, text) for path in paths}, tokenizer_of(tokenizer),
        length, validation=context.validation, test=context.test, by=context.by,
    )  # fmt: skip


def _rows(read: Callable[..., list[texts.Document]]) -> Entry:
    def rows(
        context: Context,
        *,
        path: str,
        length: Count,
        text: str = "text",
        prompt: str | None = None,
        tokenizer: Mapping[str, Any] | None = None,
        pack: bool = False,
    ) -> split.Splits:
        documents = read(path, text, prompt)
        return _corpus(context, documents, Path(path).name, length, tokenizer, pack)

    return rows


def _records(
    context: Context,
    *,
    length: Count,
    path: str = "",
    tokenizer: Mapping[str, Any] | None = None,
    template: Literal["plain", "chatml", "tokenizer"] = "plain",
    teacher: str = "",
    pack: bool = False,
) -> split.Splits:
    """Conversations: a folder that ``records.write`` wrote, or a file with columns of messages."""
    if not path:
        raise ValueError(
            "data set 'records' needs what a teacher wrote: --config.data.path=<folder of "
            "records.write, or file.jsonl or file.parquet with messages>"
        )
    chat = chat_of(tokenizer, template)
    place = Path(path)
    found = (
        records.open_written(place).records()
        if place.is_dir() or not place.suffix
        else exchange.read_columns(place, teacher=teacher)
    )
    return records.conversation_splits(
        found, chat, length,
        pack=pack, validation=context.validation, test=context.test, name=place.name,
    )  # fmt: skip


DATA: dict[str, Entry] = {
    "records": _records,
    "standard_library": _standard_library,
    "text_files": _text_files,
    "json_lines": _rows(texts.json_lines),
    "parquet": _rows(texts.parquet),
    "domains": _domains,
    "domain_files": _domain_files,
}


@forwarding(language.language_model)
def _language_model(
    context: Context, *, cached: Mapping[str, Any] | None = None, **rest: Any
) -> Distiller:
    """A decoder that learns from labels, from a teacher (the first of ``frozen``), or from both."""
    if len(context.frozen) > 1:
        raise ValueError(f"distiller 'language_model' has one teacher, not {list(context.frozen)}")
    teacher = None
    if context.frozen:
        name = context.frozen[0]
        codecs = context.codecs if cached else None
        teacher = language.Teacher(context.net_of(name), name, codecs)
    return language.language_model(
        context.net, context.tx, teacher, context.prepare, context.initial,
        context.student.get("logit_cap"), context.info.get("end"),
        context.info.get("tasks", ()), **rest,
    )  # fmt: skip


DISTILLERS: dict[str, Entry] = {"language_model": _language_model}


@forwarding(language.next_token)
def _next_token(context: Context, **rest: Any) -> Any:
    return language.next_token(context.net, context.info.get("groups", ()), **rest)


@forwarding(language.drafting)
def _drafting(
    context: Context, *, against: str, stop: Sequence[Natural] | None = None, **rest: Any
) -> Any:
    # The tokens that end a text are the tokenizer's own unless others are named.
    ends = (context.info["end"],) if stop is None else tuple(stop)
    return language.drafting(context.net, context.net_of(against), against, stop=ends, **rest)


@forwarding(domains.domain_gap)
def _domain_gap(context: Context, *, against: str, **rest: Any) -> Any:
    return domains.domain_gap(
        context.net, context.net_of(against), against, context.groups(), **rest
    )


EVALUATORS: dict[str, Entry] = {
    "next_token": _next_token,
    "drafting": _drafting,
    "domain_gap": _domain_gap,
}


@forwarding(domains.domain_weights)
def _domain_weights(
    context: Context, *, against: str, batch_size: Count = 256, **rest: Any
) -> Callable[..., Any]:
    data = evaluation_batches(context.sets["validation"], batch_size)
    teacher = context.net_of(against)
    return domains.domain_weights(context.net, teacher, against, context.groups(), data, **rest)


def _fixed_shares(context: Context, *, shares: Mapping[str, Share]) -> Callable[..., Any]:
    groups = context.groups()
    for name in shares:
        if name not in groups:
            raise ValueError(unknown("domain", name, groups))
    return lambda result, frozen, plan: {"weights": dict(shares)}


BETWEEN: dict[str, Entry] = {
    "domain_weights": _domain_weights,
    "fixed_shares": _fixed_shares,
}
