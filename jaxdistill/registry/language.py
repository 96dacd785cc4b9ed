"""Language models in configs: texts, the distiller, evaluators, what happens between steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optax

from jaxdistill import language
from jaxdistill._errors import unknown
from jaxdistill.data import split
from jaxdistill.data import text as texts
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.distiller import Distiller
from jaxdistill.language import domains
from jaxdistill.language.sampling import check_sampling
from jaxdistill.net import Net
from jaxdistill.registry._names import call, fixed, flattened, named, without
from jaxdistill.registry.schedules import schedule
from jaxdistill.store import Codec

TOKENIZERS: dict[str, Callable[..., texts.Tokenizer]] = {
    "bytes": texts.byte_tokenizer,
    "file": texts.file_tokenizer,
}
# What of the four corpora of `domains` is taken, in bytes: about the same of each.
DOMAIN_BYTES = 400_000


def tokenizer_of(settings: Mapping[str, Any] | None) -> texts.Tokenizer:
    settings = settings or {"name": "bytes"}
    name = named("tokenizer", settings)
    return call("tokenizer", TOKENIZERS, name, without(settings, "name"))


def _domains(
    length: int, size: int = DOMAIN_BYTES, validation: float = 0.1, test: float = 0.1
) -> split.Splits:
    return texts.domains(
        texts.four_domains(size), texts.byte_tokenizer(), length, validation=validation, test=test
    )


def _standard_library(
    length: int,
    tokenizer: Mapping[str, Any] | None = None,
    pack: bool = False,
    modules: int | None = None,
    validation: float = 0.1,
    test: float = 0.1,
) -> split.Splits:
    return texts.corpus(
        texts.standard_library(modules), tokenizer_of(tokenizer), length,
        pack=pack, name="standard_library", validation=validation, test=test,
    )  # fmt: skip


def _text_files(
    dir: str,
    length: int,
    pattern: str = "**/*.txt",
    tokenizer: Mapping[str, Any] | None = None,
    pack: bool = False,
    validation: float = 0.1,
    test: float = 0.1,
) -> split.Splits:
    return texts.corpus(
        texts.text_files(dir, pattern), tokenizer_of(tokenizer), length,
        pack=pack, name="text_files", validation=validation, test=test,
    )  # fmt: skip


def _domain_files(
    dir: str,
    length: int,
    text: str = "text",
    tokenizer: Mapping[str, Any] | None = None,
    validation: float = 0.1,
    test: float = 0.1,
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
        length, validation=validation, test=test,
    )  # fmt: skip


def _rows(read: Callable[..., list[texts.Document]]) -> Callable[..., split.Splits]:
    def rows(
        path: str,
        length: int,
        text: str = "text",
        prompt: str | None = None,
        tokenizer: Mapping[str, Any] | None = None,
        pack: bool = False,
        validation: float = 0.1,
        test: float = 0.1,
    ) -> split.Splits:
        return texts.corpus(
            read(path, text, prompt), tokenizer_of(tokenizer), length,
            pack=pack, name=Path(path).name, validation=validation, test=test,
        )  # fmt: skip

    return rows


DATA: dict[str, Callable[..., Any]] = {
    "standard_library": _standard_library,
    "text_files": _text_files,
    "json_lines": _rows(texts.json_lines),
    "parquet": _rows(texts.parquet),
    "domains": _domains,
    "domain_files": _domain_files,
}


def _sampling(settings: Mapping[str, Any] | None) -> language.Sampling:
    made = {"sampling": language.Sampling}
    return check_sampling(fixed("sampling", made, "sampling", settings or {})())


# The keys of groups, as configs write them still: one by one.
_DIVERGENCE = {
    "divergence": "name",
    "divergence_weight": "weight",
    **{name: name for name in language.Divergence._fields[2:]},
}
_WRITING = {name: name for name in language.Writing._fields}


def _language_model(
    net: Net,
    nets: Mapping[str, Net],
    student: Mapping[str, Any],
    tx: optax.GradientTransformation | None,
    prepare: Any,
    steps: int,
    info: Mapping[str, Any],
    frozen: Sequence[str] = (),
    initial: str | None = None,
    codecs: Mapping[str, Codec] | None = None,
    *,
    divergence: language.Divergence | None = None,
    writing: language.Writing | None = None,
    ce_weight: Any = 0.0,
    teacher_cap: float | None = None,
    chunk: int = 256,
    accumulate: int = 1,
    ema: Any = None,
    returns: Any = "student",
    cached: Mapping[str, Any] | None = None,
) -> Distiller:
    """A decoder that learns from labels, from a teacher (the first of ``frozen``), or from both."""
    if tx is None:
        raise ValueError("distiller 'language_model' needs the stage's 'optimizer'")
    if len(frozen) > 1:
        raise ValueError(f"distiller 'language_model' has one teacher, not {list(frozen)}")
    teacher = None
    if frozen:
        codecs = codecs if cached else None
        teacher = language.Teacher(nets[frozen[0]], frozen[0], codecs)
    if divergence is not None:
        divergence = divergence._replace(weight=schedule(divergence.weight, steps))
    if writing is not None:
        writing = _writing(writing, steps)
    return language.language_model(
        net,
        tx,
        teacher,
        prepare,
        initial,
        student.get("logit_cap"),
        info.get("end"),
        divergence=divergence,
        ce_weight=schedule(ce_weight, steps),
        teacher_cap=teacher_cap,
        chunk=chunk,
        writing=writing,
        accumulate=accumulate,
        ema=schedule(ema, steps),
        returns=returns,
    )


def _writing(given: language.Writing, steps: int) -> language.Writing:
    sampling: Any = given.sampling
    return given._replace(
        share=schedule(given.share, steps),
        teacher_share=schedule(given.teacher_share, steps),
        sampling=sampling if isinstance(sampling, language.Sampling) else _sampling(sampling),
        stop=None if given.stop is None else tuple(given.stop),
    )


def _stop(stop: Sequence[int] | None, info: Mapping[str, Any]) -> tuple[int, ...]:
    """The tokens that end a text: the tokenizer's own unless others are named."""
    return (info["end"],) if stop is None else tuple(stop)


DISTILLERS: dict[str, Callable[..., Distiller]] = {
    "language_model": flattened(
        _language_model,
        divergence=(language.Divergence, _DIVERGENCE),
        writing=(language.Writing, _WRITING),
    )
}


def _next_token(net: Net, sets: split.Splits, batches: int | None = None) -> Any:
    groups = sets["train"].info.get("groups", ())
    return language.next_token(net, groups, batches=batches)


def _drafting(
    net: Net,
    nets: Mapping[str, Net],
    sets: split.Splits,
    against: str,
    prompt: int,
    new: int,
    sampling: Mapping[str, Any] | None = None,
    lenience: float = 1.0,
    function: Any = "ratio",
    block: int = 0,
    stop: Sequence[int] | None = None,
    batches: int | None = None,
    prefix: str = "",
) -> Any:
    return language.drafting(
        net,
        _of_stage(nets, against),
        against,
        prompt=prompt,
        new=new,
        sampling=_sampling(sampling),
        acceptance=language.Acceptance(lenience, function),
        block=block,
        stop=_stop(stop, sets["train"].info),
        batches=batches,
        prefix=prefix,
    )


def _domain_gap(
    net: Net,
    nets: Mapping[str, Net],
    sets: split.Splits,
    against: str,
    batches: int | None = None,
) -> Any:
    groups = _groups(sets)
    return domains.domain_gap(net, _of_stage(nets, against), against, groups, batches=batches)


EVALUATORS: dict[str, Callable[..., Any]] = {
    "next_token": _next_token,
    "drafting": _drafting,
    "domain_gap": _domain_gap,
}


def _domain_weights(
    net: Net,
    nets: Mapping[str, Net],
    sets: split.Splits,
    against: str,
    smoothing: float = 0.5,
    batches: int | None = None,
    batch_size: int = 256,
) -> Callable[..., Any]:
    data = evaluation_batches(sets["validation"], batch_size)
    teacher = _of_stage(nets, against)
    return domains.domain_weights(
        net, teacher, against, _groups(sets), data, smoothing=smoothing, batches=batches
    )


def _fixed_shares(sets: split.Splits, shares: Mapping[str, float]) -> Callable[..., Any]:
    groups = _groups(sets)
    for name in shares:
        if name not in groups:
            raise ValueError(unknown("domain", name, groups))
    return lambda result, frozen, plan: {"weights": dict(shares)}


BETWEEN: dict[str, Callable[..., Callable[..., Any]]] = {
    "domain_weights": _domain_weights,
    "fixed_shares": _fixed_shares,
}


def between(settings: Mapping[str, Any], **given: Any) -> tuple[int, Callable[..., Any]]:
    """Host work between the steps of a stage, for ``Stage.between``.

    Args:
        settings: its ``name``, after how many steps it is done again (``every``), and its own
            keywords. The plan that it makes may hold ``weights``, the shares of the groups of the
            training set in the next batches, and ``metrics``, numbers for the log.
        given: what it may have a parameter for: ``net``, ``nets``, ``sets``.
    """
    name = named("work between steps", settings)
    if settings.get("every", 0) < 1:
        raise ValueError(f"work between steps {name!r} needs 'every', 1 step or more")
    made = call("work between steps", BETWEEN, name, without(settings, "name", "every"), **given)
    return settings["every"], made


def _of_stage(nets: Mapping[str, Net], name: str) -> Net:
    if name not in nets:
        raise ValueError(unknown("earlier stage", name, nets))
    return nets[name]


def _groups(sets: split.Splits) -> tuple[str, ...]:
    groups = sets["train"].info.get("groups", ())
    if not groups:
        raise ValueError(
            f"{sets['train'].name!r} has no domains: take data of several, such as 'domains'"
        )
    return groups
