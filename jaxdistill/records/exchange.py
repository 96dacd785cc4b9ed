"""Records as other programs write and read them: columns of messages, in JSON lines or Parquet.

TRL reads ``messages``, ``prompt`` with ``completion``, and ``prompt`` with ``chosen`` and
``rejected``; axolotl reads ``messages`` (``type: chat_template``) and, with
``message_field_training: train``, what of them is learnt.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from jaxdistill._errors import unknown
from jaxdistill._files import give_name
from jaxdistill.data.documents import json_rows
from jaxdistill.records import shards
from jaxdistill.records.canonical import identity, line
from jaxdistill.records.nouns import Provenance, Record
from jaxdistill.records.requests import Message
from jaxdistill.settings import checked

Form = Literal["messages", "prompt_completion", "preference"]
"""Which columns: whole conversations, questions and answers, or a better and a worse answer."""
_SUFFIXES = (".jsonl", ".parquet")
# How a message says whether it is learnt.
_LEARN = "train"


@checked
def write_columns(
    records: Iterable[Record], path: str | os.PathLike, *, form: Form = "messages"
) -> Path:
    """Writes records as columns that other programs read.

    Beside those of the form there are ``id``, ``teacher``, ``task``, ``split`` and ``weight``.

    Args:
        records: in order.
        path: a ``.jsonl`` or ``.parquet`` file, replaced if it is there.
        form: ``"messages"``, each with ``role``, ``content`` and ``train``;
            ``"prompt_completion"``, split before the last answer that is learnt; ``"preference"``,
            the answer as ``chosen`` and ``meta["rejected"]`` as ``rejected``.

    Raises:
        ValueError: for another suffix, and a record that has no answer to learn, or none that was
            rejected.
        ImportError: for Parquet without the extra ``records``.
    """
    path = Path(path)
    _refuse_suffix(path)
    rows = [_row(each, form) for each in records]
    begun = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        arrow, parquet = shards._parquet()
        parquet.write_table(arrow.Table.from_pylist(rows), begun, compression="zstd")
    else:
        with begun.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(line(row) + "\n" for row in rows)
    give_name(begun, path)
    return path


@checked
def read_columns(path: str | os.PathLike, *, teacher: str = "", revision: str = "") -> list[Record]:
    """Reads records from columns that other programs write, of any of the three forms.

    Messages without ``train`` are learnt if the assistant says them.

    Args:
        path: a ``.jsonl`` or ``.parquet`` file.
        teacher: who wrote the answers, where rows do not say it under ``teacher``.
        revision: of the teacher.

    Raises:
        ValueError: naming the row that has no such columns, says nothing, or has no teacher.
        ImportError: for Parquet without the extra ``records``.

    Example:
        >>> import json, tempfile
        >>> row = {"messages": [{"role": "user", "content": "2+3?"},
        ...                     {"role": "assistant", "content": "5"}]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "sums.jsonl"
        ...     _ = file.write_text(json.dumps(row))
        ...     (record,) = read_columns(file, teacher="gold")
        >>> record.answer, record.messages[-1].learn, record.source
        ('5', True, 'sums.jsonl/0')
    """
    path = Path(path)
    _refuse_suffix(path)
    found = []
    for number, (where, row) in enumerate(_rows(path)):
        if not isinstance(row, Mapping):
            raise ValueError(f"{where} is no object with columns")
        try:
            found.append(_record(row, f"{path.name}/{number}", teacher, revision))
        except (TypeError, KeyError, ValueError) as fault:
            said = f"it lacks {fault}" if isinstance(fault, KeyError) else str(fault)
            raise ValueError(f"{where}: {said}") from fault
    return found


def _row(record: Record, form: Form) -> dict[str, Any]:
    own = {
        "id": record.id,
        "teacher": record.provenance.teacher,
        "task": record.task,
        "split": record.split,
        "weight": record.weight,
    }
    if form == "messages":
        said = [{"role": m.role, "content": m.content, _LEARN: m.learn} for m in record.messages]
        return {"messages": said, **own}
    before = len(record.prompt)
    if before == len(record.messages):
        raise ValueError(f"record {record.id} has no answer that is learnt")
    prompt, completion = _said(record.prompt), _said(record.messages[before:])
    if form == "prompt_completion":
        return {"prompt": prompt, "completion": completion, **own}
    rejected = record.meta.get("rejected")
    if not isinstance(rejected, str):
        raise ValueError(
            f"record {record.id} has no answer that was rejected: a step that makes pairs puts it "
            "into meta['rejected']"
        )
    worse = [{"role": "assistant", "content": rejected}]
    return {"prompt": prompt, "chosen": completion, "rejected": worse, **own}


def _said(messages: Iterable[Message]) -> list[dict[str, str]]:
    return [{"role": each.role, "content": each.content} for each in messages]


def _record(row: Mapping[str, Any], source: str, teacher: str, revision: str) -> Record:
    meta: dict[str, Any] = {}
    if row.get("messages") is not None:
        messages = _messages(row["messages"])
    elif row.get("prompt") is not None:
        answer = next((k for k in ("completion", "chosen") if row.get(k) is not None), "completion")
        prompt = _messages(row["prompt"], "user", learn=False)
        messages = prompt + _messages(row[answer], "assistant", learn=True)
        if row.get("rejected") is not None:
            meta["rejected"] = _messages(row["rejected"], "assistant")[-1].content
    else:
        raise ValueError(unknown("columns", ", ".join(row), ("messages", "prompt and completion")))
    if not any(each.learn for each in messages):
        raise ValueError("nothing in it is learnt: no message of an assistant, or 'train' is false")
    who = row.get("teacher") or teacher
    if not who:
        raise ValueError("a record needs its teacher: a column 'teacher', or teacher='...' for all")
    answer = [each.content for each in messages if each.learn][-1]
    weight = row.get("weight")
    return Record(
        row.get("id") or identity([(m.role, m.content) for m in messages], who, source),
        messages,
        Provenance(who, revision),
        raw=answer,
        answer=answer,
        source=source,
        task=row.get("task") or "",
        split=row.get("split") or "train",
        weight=1.0 if weight is None else float(weight),
        meta=meta,
    )


def _messages(said: Any, role: str = "", learn: bool | None = None) -> tuple[Message, ...]:
    """Messages of a column; a text is one message of its role."""
    if isinstance(said, str) and role:
        return (Message(role, said, bool(learn)),)
    if not isinstance(said, list) or not said:
        raise ValueError(f"messages are a list of role and content, not {said!r}"[:200])
    found = []
    for each in said:
        known = each.get(_LEARN) if learn is None else learn
        known = each["role"] == "assistant" if known is None else bool(known)
        found.append(Message(each["role"], each["content"], known))
    return tuple(found)


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".jsonl":
        for number, row in json_rows(path):
            yield f"line {number} of {path}", row
        return
    arrow, parquet = shards._parquet()
    try:
        rows = parquet.read_table(path).to_pylist()
    except arrow.ArrowException as fault:
        raise ValueError(f"{path} cannot be read as Parquet: {fault}") from fault
    for number, row in enumerate(rows):
        yield f"row {number} of {path}", row


def _refuse_suffix(path: Path) -> None:
    if path.suffix not in _SUFFIXES:
        raise ValueError(unknown(f"suffix of {path.name}", path.suffix, _SUFFIXES))
