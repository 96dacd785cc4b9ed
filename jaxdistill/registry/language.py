"""Language models in configs: texts, the distiller, evaluators, what happens between steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import optax

from jaxdistill import language
from jaxdistill._errors import unknown
from jaxdistill.data import split
from jaxdistill.data import text as texts
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.distiller import Distiller, model_to_model
from jaxdistill.language import domains
from jaxdistill.language.objective import HIDDEN, is_fused
from jaxdistill.language.sampling import check_sampling
from jaxdistill.net import Net
from jaxdistill.registry._names import call, fixed, named, without
from jaxdistill.registry.schedules import schedule
from jaxdistill.store import Codec
from jaxdistill.targets import cached as read_targets

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
    divergence: str = "forward_kl",
    divergence_weight: Any = 1.0,
    ce_weight: Any = 0.0,
    beta: Any = None,
    temperature: Any = None,
    skew: Any = None,
    reverse_weight: Any = None,
    unlike: str | None = None,
    teacher_cap: float | None = None,
    chunk: int = 256,
    accumulate: int = 1,
    ema: Any = None,
    returns: Any = "student",
    prompt: int | None = None,
    share: Any = 0.0,
    teacher_share: Any = 0.0,
    teacher_mixing: float = 0.0,
    sampling: Mapping[str, Any] | None = None,
    stop: Sequence[int] | None = None,
    replay: int = 0,
    every: int = 1,
    cached: Mapping[str, Any] | None = None,
    missing: str = "tail",
    codecs: Mapping[str, Codec] | None = None,
) -> Distiller:
    """A decoder that learns from labels, from a teacher (the first of ``frozen``), or from both."""
    if tx is None:
        raise ValueError("distiller 'language_model' needs the stage's 'optimizer'")
    if len(frozen) > 1:
        raise ValueError(f"distiller 'language_model' has one teacher, not {list(frozen)}")
    cap = student.get("logit_cap")
    fused = True
    if cached:
        for key, value in (
            ("share", share), ("teacher_share", teacher_share), ("teacher_mixing", teacher_mixing)
        ):  # fmt: skip
            if value:
                raise ValueError(f"{key} is {value}: no cache has read what is written in a step")
    weights = {
        "divergence_weight": schedule(divergence_weight, steps),
        "ce_weight": schedule(ce_weight, steps),
    }
    if cached and codecs and _is_sparse(codecs[f"{frozen[0]}/out"]):
        if divergence != "forward_kl":
            raise ValueError(
                f"of some classes of each token there is 'forward_kl' alone, not {divergence!r}: "
                "store 'out' with the codec 'dense' or 'quantised'"
            )
        given = without({"temperature": temperature})
        objective = language.sparse_divergence_per_token(
            missing=missing, student_cap=cap, chunk=chunk, **weights, **given
        )
        targets = read_targets(codecs, frozen[0])
    elif frozen:
        fused = is_fused(divergence) and not cached
        given = {
            "beta": beta,
            "temperature": temperature,
            "skew": skew,
            "reverse_weight": reverse_weight,
            "unlike": unlike,
        }
        objective = language.divergence_per_token(
            divergence,
            student_cap=cap,
            teacher_cap=teacher_cap,
            chunk=chunk,
            dense=bool(cached),
            **weights,
            **without(given),
        )
        targets = language.teacher_states(nets[frozen[0]], frozen[0], dense=not fused)
        if cached and codecs:
            targets = read_targets(codecs, frozen[0])
    else:
        objective = language.labels_per_token(student_cap=cap, chunk=chunk)
        targets = _nothing
    inner = model_to_model(
        net,
        targets,
        objective,
        tx,
        inputs="student",
        taps=(HIDDEN,) if fused else (),
        prepare=prepare,
        ema=schedule(ema, steps),
        accumulate=accumulate,
        initial=initial,
        returns=returns,
    )
    if prompt is None:
        if share or teacher_share:
            raise ValueError("whoever writes continues a 'prompt': say of how many tokens")
        return inner
    return language.on_policy(
        inner,
        net,
        prompt=prompt,
        share=schedule(share, steps),
        teacher=(nets[frozen[0]], frozen[0]) if frozen else None,
        teacher_share=schedule(teacher_share, steps),
        teacher_mixing=teacher_mixing,
        sampling=_sampling(sampling),
        stop=_stop(stop, info),
        replay=replay,
        every=every,
    )


def _is_sparse(codec: Codec) -> bool:
    """Whether a codec gives some classes of each token."""
    fields = {
        name: jax.ShapeDtypeStruct((1, *spec.shape), spec.dtype)
        for name, spec in codec.fields.items()
    }
    return isinstance(jax.eval_shape(codec.decode, fields), Mapping)


def _nothing(sources: Any, batch: Any, key: Any, step: Any) -> dict[str, Any]:
    """The targets of a net that learns from its batches alone."""
    return {}


def _stop(stop: Sequence[int] | None, info: Mapping[str, Any]) -> tuple[int, ...]:
    """The tokens that end a text: the tokenizer's own unless others are named."""
    return (info["end"],) if stop is None else tuple(stop)


DISTILLERS: dict[str, Callable[..., Distiller]] = {"language_model": _language_model}


def _next_token(net: Net, sets: split.Splits, batches: int | None = None) -> Any:
    groups = sets["train"].info.get("groups", ())
    return language.next_token(net, batches=batches, groups=groups)


def _drafting(
    net: Net,
    nets: Mapping[str, Net],
    sets: split.Splits,
    against: str,
    prompt: int,
    new: int,
    sampling: Mapping[str, Any] | None = None,
    lenience: float = 1.0,
    function: str = "ratio",
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
