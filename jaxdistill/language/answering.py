"""What a student answers to held-out requests, and how good that is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdistill.evaluation.batches import Evaluator, compiled, sweep
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.language.generation import generate
from jaxdistill.language.on_policy import prompts_of
from jaxdistill.language.sampling import Sampling
from jaxdistill.net import Net
from jaxdistill.records import Chat
from jaxdistill.settings import Count, Natural, NonNegative, checked
from jaxdistill.tasks.answered import Answered

GREEDY = 0.0


@checked
def answered(
    net: Net,
    chat: Chat,
    tasks: Sequence[str],
    score: Callable[[Sequence[Answered]], Mapping[str, float]],
    *,
    new: Count,
    prompt: Count | None = None,
    temperature: NonNegative = GREEDY,
    seed: Natural = 0,
    batches: Count | None = None,
    prefix: str = "",
) -> Evaluator:
    """How good the answers of a net are, by a score of texts.

    Args:
        net: a decoder that writes token by token, see :func:`~jaxdistill.language.generate`.
        chat: template and tokenizer of the requests.
        tasks: their names, in the order of their numbers.
        score: ``answers -> {name: number}``, of all answers of a set together.
        new: the most tokens of an answer.
        prompt: the most tokens of a prompt; all of a window by default.
        temperature: 0 for the most probable token.
        seed: of the draws, where the temperature is above 0.
        batches: only so many of the set, the first.
        prefix: in front of the names, where a net is measured in several ways.

    Returns:
        An evaluator with the numbers of the score.

    Raises:
        ValueError: for requests without a right answer, and prompts longer than ``prompt``.
    """
    drawn = Sampling(temperature)

    def step(variables: Any, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        longest = batch["tokens"].shape[1] if prompt is None else prompt
        prompts, lengths = prompts_of(batch, longest)
        key = jax.random.fold_in(jax.random.key(seed), batch["number"][0])
        found = generate(
            net, variables, prompts, lengths, key,
            new=new, sampling=drawn, stop=chat.ends, pad=chat.tokenizer.end,
        )  # fmt: skip
        known = {name: batch[name] for name in ("tokens", "label", "counted", "task", "where")}
        return {**known, "prompt": batch["prompt"], "written": found.tokens, "ends": found.lengths}

    step = compiled(step, None)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        numbered = (
            {**batch, "number": np.full(len(batch["tokens"]), n)}
            for n, batch in enumerate(itertools.islice(data, batches))
        )
        found: list[Answered] = []
        for part in sweep(step, result, numbered):
            for row in np.flatnonzero(part["where"]):
                each = {name: value[row] for name, value in part.items()}
                found.append(_answered(chat, tasks, each, prompt))
        scored = score(found)
        return {f"{prefix}{name}": float(value) for name, value in scored.items()}

    names = getattr(score, "metrics", None)
    if names is None:
        return evaluator
    return measuring((f"{prefix}{name}" for name in names), evaluator)


def _answered(
    chat: Chat, tasks: Sequence[str], row: Mapping[str, np.ndarray], prompt: int | None
) -> Answered:
    length = int(row["prompt"])
    asked = chat.tokenizer.decode(row["tokens"][:length].tolist())
    if not row["counted"].any():
        raise ValueError(f"a held-out request has no right answer ('reference'): {asked!r}")
    if prompt is not None and length > prompt:
        raise ValueError(f"prompt is {prompt}, but a prompt has {length} tokens: {asked!r}")
    return Answered(
        asked,
        said(chat, row["written"][length : int(row["ends"])].tolist()),
        said(chat, row["label"][row["counted"]].tolist()),
        tasks[int(row["task"][0])],
    )


def said(chat: Chat, tokens: Sequence[int]) -> str:
    """The text of an answer, without what the template leads it in with and closes it by."""
    kept = itertools.takewhile(lambda token: token not in chat.ends, tokens)
    text = chat.tokenizer.decode(list(kept)).removeprefix(chat.opens[1])
    if chat.closes and chat.closes not in chat.special:
        text = text.partition(chat.closes)[0]
    return text
