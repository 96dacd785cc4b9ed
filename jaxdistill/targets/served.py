"""Targets from a server that is asked within the step: a teacher that fits on no device of ours."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill._errors import unknown
from jaxdistill.records.server import Connection, Malformed, Server, Unanswered, asked
from jaxdistill.settings import Count, checked
from jaxdistill.targets.live import Targets

# At each place of a text the most probable tokens, with their log-probabilities.
_Best = list[list[tuple[int, float]]]


class _Text(NamedTuple):
    """A text within a window: its row, from where to where, and its tokens with the last label."""

    row: int
    start: int
    end: int
    tokens: list[int]


@checked
def served(server: Server, *, top: Count = 20) -> Targets:
    """The most probable next tokens of a model behind a server, asked for within every step.

    The server must give log-probabilities of prompts that are token ids (``/completions`` with
    ``prompt_logprobs``, as vLLM does), and read the same tokens as the student. A text is sent as
    far as something of it counts; texts that share a window are sent apart. A step waits for the
    answers, so what is asked about the same texts again and again is better kept, see ``caches``.

    Args:
        server: where it is.
        top: tokens at each place, k; servers allow so many at most (vLLM 20 by default).

    Returns:
        A function to ``{"out": {"ids": int32 [B, T, k], "log_probs": float32 [B, T, k]}}`` of
        ``batch["tokens"]``, ``batch["label"]``, ``batch["counted"]`` ``[B, T]`` and, of packed
        texts, ``batch["segments"]``; ``-inf`` is padding, and where nothing counts there is nothing
        else. It runs on one process.

    Raises:
        ValueError: while tracing, for a batch without these, and with several processes; within the
            step, as an error of JAX that says it, see
            :meth:`~jaxdistill.records.server.Connection.post`.
    """

    def targets(
        sources: Mapping, batch: Mapping, key: jax.Array, step: jax.Array
    ) -> dict[str, Any]:
        if jax.process_count() > 1:
            raise ValueError("a served teacher is asked by one process: keep its answers in a file")
        for name in ("tokens", "label", "counted"):
            if name not in batch:
                raise ValueError(unknown("key of the batch", name, batch))
        tokens = batch["tokens"]
        segments = batch.get("segments", jnp.zeros(tokens.shape, jnp.int32))
        shape = (*tokens.shape, top)
        out = {
            "ids": jax.ShapeDtypeStruct(shape, jnp.int32),
            "log_probs": jax.ShapeDtypeStruct(shape, jnp.float32),
        }
        ask = functools.partial(_asked, server, top)
        found = jax.pure_callback(ask, out, tokens, batch["label"], batch["counted"], segments)
        return {"out": found}

    return targets


def _asked(
    server: Server, top: int, tokens: Any, labels: Any, counted: Any, segments: Any
) -> dict[str, np.ndarray]:
    """What the server says about the texts of a batch."""
    shape = (*tokens.shape, top)
    ids, log_probs = np.zeros(shape, np.int32), np.full(shape, -np.inf, np.float32)

    async def one(connection: Connection, text: _Text) -> tuple[_Text, _Best]:
        body = {
            "model": server.model,
            "prompt": text.tokens,
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": top,
        }
        read = functools.partial(_best, top, len(text.tokens))
        name = f"{text.row} {text.start}"
        try:
            return text, await connection.post("/completions", body, read, name)
        except Unanswered as fault:
            raise ConnectionError(f"{server.url} gives no log-probabilities: {fault}") from None

    texts = _texts(*map(np.asarray, (tokens, labels, counted, segments)))
    for text, best in asked(server, one, texts):
        for place, known in enumerate(best, text.start):
            ids[text.row, place, : len(known)] = [token for token, _ in known]
            log_probs[text.row, place, : len(known)] = [value for _, value in known]
    counts = np.asarray(counted, bool)[..., None]
    return {"ids": np.where(counts, ids, 0), "log_probs": np.where(counts, log_probs, -np.inf)}


def _texts(
    tokens: np.ndarray, labels: np.ndarray, counted: np.ndarray, segments: np.ndarray
) -> Iterator[_Text]:
    """The texts of a batch, each as far as something of it counts."""
    for row in range(len(tokens)):
        borders = np.flatnonzero(np.diff(segments[row])) + 1
        for places in np.split(np.arange(tokens.shape[1]), borders):
            last = places[np.asarray(counted[row][places], bool) & (labels[row][places] >= 0)]
            if len(last):
                start, end = int(places[0]), int(last[-1]) + 1
                read = [*tokens[row, start:end].tolist(), int(labels[row, end - 1])]
                yield _Text(row, start, end, read)


def _best(top: int, size: int, data: Any) -> _Best:
    """The most probable tokens behind each token of a text but the last."""
    try:
        rows = data["choices"][0]["prompt_logprobs"]
        if len(rows) != size:
            raise Malformed(f"log-probabilities of {len(rows)} tokens, asked for those of {size}")
        found = []
        for row in rows[1:]:
            known = [(int(token), float(said["logprob"])) for token, said in row.items()]
            known.sort(key=lambda each: (-each[1], each[0]))
            found.append([(token, min(value, 0.0)) for token, value in known[:top]])
            if any(not math.isfinite(value) for _, value in found[-1]):
                raise Malformed("a log-probability is no number")
        return found
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as fault:
        raise Malformed(f"an answer without prompt_logprobs ({fault})") from None
