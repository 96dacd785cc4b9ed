"""Steps of teacher-written records, in the order of a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxdistill import records
from jaxdistill._errors import unknown
from jaxdistill.data.documents import json_lines, json_of, parquet, text_files, text_of
from jaxdistill.records import (
    balance,
    cleaning,
    contamination,
    duplicates,
    judging,
    mathematics,
    novelty,
    programs,
    reading,
    similarity,
    texts,
)
from jaxdistill.records.canonical import identity
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, forwarding
from jaxdistill.registry.language import tokenizer_of
from jaxdistill.registry.record_teachers import TEACHERS
from jaxdistill.settings import Count
from jaxdistill.tasks import commonsense, dialogue_world, entities, frontier, localising

_ONCE = records.Sampling(temperature=0.0, max_tokens=64)


class Texts(NamedTuple):
    """Texts of a file.

    Attributes:
        path: a JSON-lines or Parquet file, or a folder of ``.txt`` files.
        text: the key of the text.
    """

    path: str
    text: str = "text"

    def read(self) -> list[str]:
        """All of them."""
        path = Path(self.path)
        if path.is_dir():
            return [each.text for each in text_files(path)]
        reader = parquet if path.suffix == ".parquet" else json_lines
        return [each.text for each in reader(path, self.text)]


class HeldOut(NamedTuple):
    """Questions of the data set ``requests`` that no student learns from.

    Attributes:
        sets: of which sets.
    """

    sets: Sequence[str] = ("test",)


def _hashed(context: Context, *, width: Count = 512, n: Count = 3) -> similarity.Embedder:
    return similarity.HashedEmbedder(width, n)


def _dictionary(
    context: Context, *, path: str, width: Count = 4096
) -> similarity.DictionaryEmbedder:
    """``path`` is a JSON file of an object, words with their translations."""
    if not path:
        raise ValueError("embedder 'dictionary' needs one: give its file by 'path'")
    known = json_of(text_of(Path(path)), path)
    if not isinstance(known, dict) or not all(isinstance(v, str) for v in known.values()):
        raise ValueError(f"{path} is no JSON object of words with their translations")
    return similarity.DictionaryEmbedder(known, width)


def _dialogue_world(context: Context) -> similarity.DictionaryEmbedder:
    """The words of both languages of the world of dialogues."""
    words = dialogue_world.every_word()
    return similarity.DictionaryEmbedder({dialogue_world.foreign_word(w): w for w in words})


EMBEDDERS: dict[str, Entry] = {
    "dialogue_world": _dialogue_world,
    "dictionary": _dictionary,
    "hashed": _hashed,
}


def _plain(function: Callable[..., Any]) -> Entry:
    @forwarding(function)
    def entry(context: Context, **settings: Any) -> records.Step:
        return records.step(function, **settings)

    return entry


def _embedding(function: Callable[..., Any]) -> Entry:
    @forwarding(function, "embedder", "against")
    def entry(
        context: Context, *, embedder: Mapping[str, Any] | None = None, **settings: Any
    ) -> records.Step:
        made = call("embedder", EMBEDDERS, embedder or {"name": "hashed"}, context)
        return records.step(function, embedder=made, **settings)

    return entry


_against_any = _embedding(similarity.unlike)


@forwarding(similarity.unlike, "embedder", "against")
def _unlike(
    context: Context,
    *,
    against: Sequence[str] | Texts | HeldOut,
    embedder: Mapping[str, Any] | None = None,
    **settings: Any,
) -> records.Step:
    return _against_any(context, embedder=embedder, against=_texts(against, context), **settings)


@forwarding(contamination.decontaminated, "against")
def _decontaminated(
    context: Context, *, against: Sequence[str] | Texts | HeldOut, **settings: Any
) -> records.Step:
    found = _texts(against, context)
    return records.step(contamination.decontaminated, against=found, **settings)


def _texts(said: Sequence[str] | Texts | HeldOut, context: Context) -> Sequence[str]:
    if isinstance(said, Texts):
        return said.read()
    if not isinstance(said, HeldOut):
        return said
    found: list[str] = []
    for name in said.sets:
        if name not in context.sets:
            raise ValueError(unknown("set of 'against'", name, context.sets))
        known = context.sets[name].info.get("requests")
        if known is None:
            raise ValueError(f"the set {name!r} has no requests: take the data set 'requests'")
        found += [texts.text_of(each, "prompt") for each in known.values()]
    return found


@forwarding(cleaning.length, "tokens")
def _length(
    context: Context, *, tokenizer: Mapping[str, Any] | None = None, **settings: Any
) -> records.Step:
    if tokenizer is None:
        return records.step(cleaning.length, **settings)
    encode = tokenizer_of(tokenizer).encode

    def tokens(text: str) -> int:
        return len(encode(text))

    tokens.name = f"tokens of {dict(tokenizer)}"  # type: ignore[attr-defined]
    return records.step(cleaning.length, tokens=tokens, **settings)


# --- judges -------------------------------------------------------------------------------------

_READERS: dict[str, Callable[[str], float | None]] = {
    "first_score": reading.first_score,
    "last_score": reading.last_score,
    "yes": reading.yes,
}


def _asked(
    context: Context,
    *,
    called: str,
    teacher: Mapping[str, Any],
    question: str,
    read: Literal["first_score", "last_score", "yes"] = "last_score",
    sampling: records.Sampling = _ONCE,
    answers: str = "",
) -> judging.Asked:
    """A teacher that is asked about every record, its ``question`` with ``{prompt}``, ``{answer}``
    or another text of the record in braces; ``answers`` is a folder that keeps what it says."""
    made = _fixed_teacher(called, teacher)
    asks = judging.question_of(question, sampling)
    told = identity(question, read, sampling)[:12]
    return judging.Asked(made, asks, _READERS[read], records.Answers(answers or None), told)


def _fixed_teacher(name: str, part: Mapping[str, Any]) -> records.Teacher:
    made = call("teacher of records", TEACHERS, part, Context(term=name), "teacher")
    if not isinstance(made, records.Teacher):
        raise ValueError("a judge is asked within a step: a decoder of an earlier stage is not")
    return made


JUDGES: dict[str, Entry] = {"asked": _asked}


@forwarding(judging.judged, "judge")
def _judged(context: Context, *, judge: Mapping[str, Any], **settings: Any) -> records.Step:
    made = call("judge of records", JUDGES, judge, context, "judge")
    return records.step(judging.judged, judge=made, **settings)


@forwarding(commonsense.confirmed, "critic")
def _confirmed(
    context: Context, *, critic: Mapping[str, Any], called: str = "critic", **settings: Any
) -> records.Step:
    """``critic`` is a teacher of records, and ``called`` its name."""
    asked = commonsense.Critic(_fixed_teacher(called, critic))
    return records.step(commonsense.confirmed, critic=asked, **settings)


STEPS: dict[str, Entry] = {
    "aligned": _plain(localising.aligned),
    "asked_by_type": _plain(entities.asked_by_type),
    "balanced": _plain(balance.balanced),
    "capped": _plain(balance.capped),
    "confirmed": _confirmed,
    "decontaminated": _decontaminated,
    "exact_duplicates": _plain(duplicates.exact_duplicates),
    "finished": _plain(cleaning.finished),
    "in_scripts": _plain(cleaning.in_scripts),
    "joined": _plain(entities.joined),
    "judged": _judged,
    "length": _length,
    "localised": _plain(localising.localised),
    "near_duplicates": _plain(duplicates.near_duplicates),
    "negatives": _plain(balance.negatives),
    "normalised": _plain(cleaning.normalised),
    "novel": _plain(novelty.novel),
    "preferred": _plain(judging.preferred),
    "read_marker": _plain(reading.read_marker),
    "read_score": _plain(reading.read_score),
    "read_strings": _plain(reading.read_strings),
    "read_summary": _plain(frontier.read_summary),
    "read_tags": _plain(reading.read_tags),
    "repeated": _plain(balance.repeated),
    "semantic_duplicates": _embedding(similarity.semantic_duplicates),
    "similar": _embedding(similarity.similar),
    "tagged": _plain(cleaning.tagged),
    "unlike": _unlike,
    "unrepetitive": _plain(cleaning.unrepetitive),
    "verified_code": _plain(programs.verified_code),
    "verified_mathematics": _plain(mathematics.verified_mathematics),
    "voted": _plain(judging.voted),
    "within": _plain(judging.within),
}


def steps(parts: Sequence[Mapping[str, Any]], context: Context) -> list[records.Step]:
    """The steps that a config names, in its order.

    Args:
        parts: each with its ``step`` and settings.
        context: what the runner offers.

    Raises:
        ValueError: for an unknown step or setting, and an order that cannot be.

    Example:
        >>> [each.name for each in steps([{"step": "finished"}, {"step": "voted"}], Context())]
        ['finished', 'voted']
        >>> steps([{"step": "exact_duplicates"}, {"step": "voted"}], Context())
        Traceback (most recent call last):
        ValueError: step 2, 'voted', needs all answers, which 'exact_duplicates' ... put it first
    """
    found = [call("step of records", STEPS, part, context, "step") for part in parts]
    records.refuse_order(found)
    return found
