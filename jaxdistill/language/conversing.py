"""What comes of a student that is asked one thing after another, each question by its answers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdistill.evaluation.batches import Evaluator, compiled, sweep
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.language.answering import said
from jaxdistill.language.generation import generate
from jaxdistill.language.sampling import Sampling
from jaxdistill.net import Net
from jaxdistill.progress import shown
from jaxdistill.records import Chat, Message, Request
from jaxdistill.settings import Count, checked


class Play(NamedTuple):
    """A kind of conversation.

    Attributes:
        start: ``request -> generator`` that yields what the student is asked next, is sent its
            answer, and returns what came of it.
        score: ``what came of all of them -> {name: number}``.
        metrics: the names of these numbers.
    """

    start: Callable[[Request], Generator[str, str, Any]]
    score: Callable[[Sequence[Any]], Mapping[str, float]]
    metrics: tuple[str, ...]


@checked
def conversed(
    net: Net,
    chat: Chat,
    play: Play,
    *,
    prompt: Count,
    new: Count,
    most: Count | None = None,
    prefix: str = "",
) -> Evaluator:
    """How conversations with a net end that its own answers lead: a state that it keeps, a dialogue
    that it is half of. All of a set go on at once, a question of each in a batch.

    Args:
        net: a decoder that writes token by token, see :func:`~jaxdistill.language.generate`; it
            takes the most probable token each time.
        chat: template and tokenizer of the requests.
        play: the kind of conversation.
        prompt: the most tokens of a question; a longer one has an empty answer.
        new: the most tokens of an answer.
        most: only so many requests of the set, the first.
        prefix: in front of the names, where a net is measured in several ways.

    Returns:
        An evaluator with the numbers of the play, on batches of
        :func:`~jaxdistill.records.requested` requests.

    Raises:
        ValueError: from the evaluator, for batches of anything else.
    """

    def step(variables: Any, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        found = generate(
            net, variables, batch["tokens"], batch["length"], jax.random.key(0),
            new=new, sampling=Sampling(0.0), stop=chat.ends, pad=chat.tokenizer.end,
        )  # fmt: skip
        return {"tokens": found.tokens, "ends": found.lengths}

    step = compiled(step, None)

    def answers(result: Any, asked: Sequence[str], size: int) -> list[str]:
        batch, fits = _batched([chat.prompt([Message("user", each)]) for each in asked], prompt)
        parts = [
            {name: np.resize(x[at : at + size], (size, *x.shape[1:])) for name, x in batch.items()}
            for at in range(0, len(asked), size)
        ]
        found = []
        for part, given in zip(sweep(step, result, parts), parts, strict=True):
            for row in range(size):
                own = part["tokens"][row, given["length"][row] : part["ends"][row]]
                found.append(said(chat, own.tolist()))
        return [each if fit else "" for each, fit in zip(found, fits, strict=False)]

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        source: Any = getattr(data, "source", None)
        if source is None or "requests" not in source.info:
            raise ValueError("'conversed' asks held-out requests: take the data set 'requests'")
        known = source.info["requests"]
        chosen = [known[name] for name in source.ids[:most]]
        size = min(len(chosen), data.batch_size)  # type: ignore[attr-defined]
        ended = _played(play, chosen, lambda asked: answers(result, asked, size))
        return {f"{prefix}{name}": float(value) for name, value in play.score(ended).items()}

    return measuring((f"{prefix}{name}" for name in play.metrics), evaluator)


def _played(
    play: Play, requests: Sequence[Request], answers: Callable[[Sequence[str]], list[str]]
) -> list[Any]:
    """What came of all conversations, which go on in rounds until the last has ended."""
    going = {number: play.start(each) for number, each in enumerate(requests)}
    asked: dict[int, str] = {}
    ended: dict[int, Any] = {}

    def go_on(number: int, answer: str | None) -> None:
        try:
            asked[number] = going[number].send(answer)  # type: ignore[arg-type]
        except StopIteration as stop:
            ended[number] = stop.value

    for number in going:
        go_on(number, None)
    rounds = iter(lambda: bool(asked), False)
    for _ in shown(rounds, "converse", "rounds"):
        given = dict(asked)
        asked.clear()
        for number, answer in zip(given, answers(list(given.values())), strict=True):
            go_on(number, answer)
    return [ended[number] for number in going]


def _batched(rows: Sequence[np.ndarray], longest: int) -> tuple[dict[str, np.ndarray], list[bool]]:
    """Prompts side by side, and whether each fits; of one that does not the beginning is there."""
    tokens = np.zeros((len(rows), longest), np.int32)
    length = np.zeros(len(rows), np.int32)
    for number, row in enumerate(rows):
        length[number] = min(len(row), longest)
        tokens[number, : length[number]] = row[:longest]
    return {"tokens": tokens, "length": length}, [len(row) <= longest for row in rows]
