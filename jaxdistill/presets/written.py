"""What recipes of teacher-written data share: requests, a stage that writes, one that learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxdistill.presets.language import adamw, decoder, learning

_Part = Mapping[str, Any]


def requests(task: str, length: int, *, words: int = 512, **settings: Any) -> dict[str, Any]:
    """The requests of a small task, in tokens that are learnt from them.

    Example:
        >>> requests("sums", 32, count=500)["task"]
        {'task': 'sums', 'count': 500}
    """
    tokenizer = {"name": "bpe", "vocabulary": words, "leading_space": False, "digits_apart": True}
    task_of = {"task": task, **settings}
    return {"name": "requests", "task": task_of, "length": length, "tokenizer": tokenizer}


def of_file(length: int) -> dict[str, Any]:
    """Requests of a file in JSON lines; the command line says where it is, and whose tokenizer the
    student has.

    Example:
        >>> of_file(2048)["path"]
        ''
    """
    tokenizer = {"name": "file", "path": ""}
    about = {"length": length, "tokenizer": tokenizer, "template": "tokenizer"}
    return {"name": "requests", "path": "", **about}


def server(model: str, key: str = "") -> dict[str, Any]:
    """A model behind a server that speaks the protocol of OpenAI; by default one on this machine.

    Example:
        >>> server("my-model")["server"]["model"]
        'my-model'
    """
    url = "https://api.openai.com/v1" if key else "http://127.0.0.1:8000/v1"
    return {"teacher": "server", "server": {"url": url, "model": model, "key": key}}


def script(name: str, **settings: Any) -> dict[str, Any]:
    """A teacher of known errors.

    Example:
        >>> script("adder", errors=0.1)
        {'teacher': 'scripted', 'script': {'script': 'adder', 'errors': 0.1}}
    """
    return {"teacher": "scripted", "script": {"script": name, **settings}}


def finished(student: _Part) -> dict[str, Any]:
    """A stage of a net that was trained elsewhere: the command line says where it is. Without that
    it has not learnt yet.

    Example:
        >>> finished({"net": "decoder"})["checkpoint"]
        ''
    """
    return learning(dict(student), 0, adamw(1e-5, 0), {}, checkpoint="")


def writing(
    teachers: Mapping[str, _Part], after: Sequence[_Part] = (), **settings: Any
) -> dict[str, Any]:
    """A stage in which teachers answer the requests, and steps decide about what they wrote.

    Example:
        >>> writing({"adder": script("adder")})["work"]["name"]
        'written'
    """
    return {"work": {"name": "written", "teachers": teachers, "after": after, **settings}}


def answers(
    score: str, new: int, *, sets: Sequence[str] = ("validation", "test"), **settings: Any
) -> dict[str, Any]:
    """What is measured of a student that answers held-out requests.

    Example:
        >>> answers("exact", 8)["score"]
        {'score': 'exact'}
    """
    said = {"score": score, **settings}
    return {"evaluator": "answered", "score": said, "new": new, "sets": sets, "batch_size": 256}


def from_records(
    stage: str,
    evaluate: dict[str, Any],
    *,
    steps: int,
    student: dict[str, Any] | None = None,
    rate: float = 3e-3,
    batch_size: int = 64,
    **settings: Any,
) -> dict[str, Any]:
    """A stage that learns from what an earlier one wrote; a decoder of minutes by default.

    Example:
        >>> from_records("write", {}, steps=400)["data"]
        {'stage': 'write'}
    """
    return learning(
        student=student or decoder(64, 2),
        steps=steps,
        optimizer=adamw(rate, steps // 10),
        evaluate=evaluate,
        data={"stage": stage},
        batch_size=batch_size,
        **settings,
    )
