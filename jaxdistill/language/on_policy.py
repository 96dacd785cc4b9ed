"""Distillation on what the student writes: its own text is the data, the teacher reads it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.distiller import Distiller
from jaxdistill.language.generation import generate
from jaxdistill.language.sampling import PLAIN, Sampling, check_sampling
from jaxdistill.net import Net
from jaxdistill.objective import at
from jaxdistill.settings import Count, Natural, Scheduled, Share

Batch = Mapping[str, Any]
# Nets with their variables: the student's, and the teacher's where there is one.
Models = Sequence[tuple[Net, Any]]


class Writing(NamedTuple):
    """Who continues prompts, and how.

    Attributes:
        prompt: the tokens given, at most those of a text.
        share: how often the student writes, a number or a schedule of the step.
        teacher_share: how often the teacher does, likewise; both together at most 1.
        teacher_mixing: the share of the teacher in every token that the student writes.
        sampling: temperature and truncation of what is written.
        stop: tokens that end a text; None for the end of the tokenizer where that is known, else
            none.
        replay: how many of the student's texts are kept; a step then learns from a random choice of
            them. 0 learns from those just written.
        every: the student writes only each so many of its turns; in between texts come from the
            replay (or are those it wrote last).
    """

    prompt: Count
    share: Scheduled[Share] = 0.0
    teacher_share: Scheduled[Share] = 0.0
    teacher_mixing: Share = 0.0
    sampling: Sampling = PLAIN
    stop: Sequence[Natural] | None = None
    replay: Natural = 0
    every: Count = 1


class Replay(NamedTuple):
    """Texts that the student has written.

    Attributes:
        tokens: int32 ``[R, T + 1]``.
        prompts: int32 ``[R]``, how many of them were given.
        lengths: int32 ``[R]``, how many there are.
        turns: how often the student's turn came, int32.
        written: how many texts were ever written, int32; the newest R of them are here.
    """

    tokens: jax.Array
    prompts: jax.Array
    lengths: jax.Array
    turns: jax.Array
    written: jax.Array


# Texts ``[B, T + 1]``, which of their predictions count ``[B, T]``, and what is kept of them.
Written = tuple[jax.Array, jax.Array, Replay]
Writer = Callable[..., Written]


class OnPolicyState(NamedTuple):
    """The state of :func:`on_policy`.

    Attributes:
        step: steps done, int32.
        key: of the run.
        inner: the state of the distiller that learns.
        replay: see :class:`Replay`.
    """

    step: jax.Array
    key: jax.Array
    inner: Any
    replay: Replay


def on_policy(
    inner: Distiller, student: Net, writing: Writing, teacher: tuple[Net, str] | None = None
) -> Distiller:
    """A distiller whose batches are continued by the student, by the teacher, or left as they are.

    Each step draws who writes: the student with probability ``share``, the teacher with
    ``teacher_share``, else nobody. Whoever writes continues the first ``prompt`` tokens of every
    text (fewer where ``batch["prompt"]`` says so) to its end; nothing flows back through that. The
    tokens behind the prompt count, up to the stop token, whoever wrote them; a text whose end is
    its prompt's counts nothing.

    With the teacher's hidden states as targets and any divergence this is on-policy distillation
    (``share=1``), ImitKD and GKD (a share in between); with ``teacher_share=1`` and cross-entropy
    alone, sequence-level distillation.

    Args:
        inner: the distiller that learns from the batches, usually ``model_to_model``; its result
            writes.
        student: its net, a decoder.
        writing: who writes, and how.
        teacher: the teacher's net and its name in the frozen variables, where it writes.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` with the result of ``inner``; its metrics have
        ``student_wrote``, ``teacher_wrote`` and ``tokens`` (how many count) as well.

    Raises:
        ValueError: for shares that are none, a teacher that is missing; at ``init`` for packed
            texts, and for prompts longer than a text.

    References:
        Agarwal et al. 2024, "On-policy distillation of language models" (arXiv 2306.13649); Zhou
        et al. 2024, "DistillSpec" (arXiv 2310.08461); Kim and Rush 2016, "Sequence-level knowledge
        distillation" (arXiv 1606.07947).
    """
    check_writing(writing, teacher is not None)
    students, teachers = sometimes(writing.share), sometimes(writing.teacher_share)
    # A teacher that never says a word need not be there.
    speaks = teacher if teachers or writing.teacher_mixing else None

    def init(key, frozen, batch):
        prompts_of(batch, writing.prompt)
        own, key = jax.random.split(key)
        kept = empty_replay(batch["tokens"], writing.replay)
        return OnPolicyState(jnp.zeros((), jnp.int32), own, inner.init(key, frozen, batch), kept)

    def step(state: OnPolicyState, frozen, batch):
        key_who, *keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        share, teacher_share = at(writing.share, state.step), at(writing.teacher_share, state.step)
        drawn = jax.random.uniform(key_who)
        theirs = [(speaks[0], frozen[speaks[1]])] if speaks is not None else []
        # Who may write, and whose turn it is: the last one of whom that is true.
        turns: dict[Writer, Any] = {by_nobody: True}
        if students:
            turns[by_student] = drawn < share
        if teachers:
            turns[by_teacher] = (drawn >= share) & (drawn < share + teacher_share)
        who = sum(number * jnp.asarray(turn) for number, turn in enumerate(turns.values()))
        own = (student, inner.result(state.inner))
        given = (writing, [own, *theirs], batch, keys)
        writers = [functools.partial(write, *given) for write in turns]
        tokens, counted, kept = jax.lax.switch(who, writers, state.replay)
        learnt, metrics = inner.step(state.inner, frozen, as_batch(batch, tokens, counted))
        told = {
            "student_wrote": _number(turns.get(by_student, False)),
            "teacher_wrote": _number(turns.get(by_teacher, False)),
            "tokens": counted.sum().astype(jnp.float32),
        }
        metrics = {**metrics, **{name: (value, jnp.ones(())) for name, value in told.items()}}
        return OnPolicyState(state.step + 1, state.key, learnt, kept), metrics

    return Distiller(init, step, lambda state: inner.result(state.inner), inner.takes, inner.kind)


def check_writing(writing: Writing, taught: bool) -> None:
    """Refuses shares that are none, and a teacher that is to write where there is none.

    Args:
        writing: who writes, and how.
        taught: whether there is a teacher.

    Raises:
        ValueError: naming the value.
    """
    check_sampling(writing.sampling)
    share, teacher_share, mixing = writing.share, writing.teacher_share, writing.teacher_mixing
    for name, value in (
        ("share", share), ("teacher_share", teacher_share), ("teacher_mixing", mixing)
    ):  # fmt: skip
        if not callable(value) and not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
    if not callable(share) and not callable(teacher_share) and share + teacher_share > 1:
        raise ValueError(f"share {share} and teacher_share {teacher_share} exceed 1 together")
    if not taught and (sometimes(teacher_share) or mixing):
        raise ValueError("the teacher is to write: give teacher, its net and name")
    if writing.prompt < 1:
        raise ValueError(f"prompt must be 1 token or more, got {writing.prompt}")
    if writing.replay < 0 or writing.every < 1:
        raise ValueError(
            f"replay must be 0 or more and every 1 or more, got {writing.replay} and "
            f"{writing.every}"
        )


def sometimes(share: Any) -> bool:
    """Whether a share, a number or a schedule, may be more than nothing."""
    return callable(share) or bool(share)


def empty_replay(tokens: jax.Array, rows: int) -> Replay:
    """Room for texts like ``[B, T]`` and one token more: as many as a batch has, or ``rows``."""
    rows = max(rows, tokens.shape[0])
    return Replay(
        jnp.zeros((rows, tokens.shape[1] + 1), jnp.int32),
        jnp.ones(rows, jnp.int32),
        jnp.ones(rows, jnp.int32),
        jnp.zeros((), jnp.int32),
        jnp.zeros((), jnp.int32),
    )


def by_student(
    writing: Writing, models: Models, batch: Batch, keys: Sequence[jax.Array], kept: Replay
) -> Written:
    """Texts that the student has just written, or some of those that it wrote before."""
    models = models if writing.teacher_mixing else models[:1]

    def write(kept):
        return added(kept, continued(writing, models, batch, keys[0]))

    due = kept.turns % writing.every == 0
    always = writing.every == 1
    kept = write(kept) if always else jax.lax.cond(due, write, lambda kept: kept, kept)
    kept = kept._replace(turns=kept.turns + 1)
    count = batch["tokens"].shape[0]
    rows = (kept.written - count + jnp.arange(count)) % kept.lengths.shape[0]
    if writing.replay:
        there = jnp.minimum(kept.written, kept.lengths.shape[0])
        rows = jax.random.randint(keys[1], (count,), 0, there)
    tokens, prompts, lengths = (x[rows] for x in kept[:3])
    return tokens, behind(tokens, prompts, lengths), kept


def by_teacher(
    writing: Writing, models: Models, batch: Batch, keys: Sequence[jax.Array], kept: Replay
) -> Written:
    """Texts that the teacher has just written."""
    tokens, prompts, lengths = continued(writing, models[1:], batch, keys[0])
    return tokens, behind(tokens, prompts, lengths), kept


def by_nobody(
    writing: Writing, models: Models, batch: Batch, keys: Sequence[jax.Array], kept: Replay
) -> Written:
    """The texts of the batch; the tokens of their prompts do not count."""
    last = jnp.maximum(batch["label"][:, -1:], 0)
    tokens = jnp.concatenate([batch["tokens"], last], axis=1).astype(jnp.int32)
    ends = jnp.full(tokens.shape[:1], tokens.shape[1])
    prompts = prompts_of(batch, writing.prompt)[1]
    counted = behind(tokens, prompts, ends) & batch["counted"].astype(bool)
    return tokens, counted, kept


def continued(
    writing: Writing, models: Models, batch: Batch, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The prompts of a batch as the first model continues them, a second one mixed in: tokens
    ``[B, T + 1]``, lengths of the prompts and of the whole."""
    prompts, lengths = prompts_of(batch, writing.prompt)
    (net, variables), *others = models
    written = generate(
        net,
        jax.lax.stop_gradient(variables),
        prompts,
        lengths,
        key,
        new=batch["tokens"].shape[1] + 1 - writing.prompt,
        sampling=writing.sampling,
        stop=tuple(writing.stop or ()),
        mixed_with=(*others[0], writing.teacher_mixing) if others else None,
    )
    return written.tokens, lengths, written.lengths


def added(kept: Replay, found: tuple[jax.Array, jax.Array, jax.Array]) -> Replay:
    """What is kept with new texts in it, in place of the oldest."""
    count = found[0].shape[0]
    rows = (kept.written + jnp.arange(count)) % kept.lengths.shape[0]
    tokens, prompts, lengths = (
        old.at[rows].set(new) for old, new in zip(kept[:3], found, strict=True)
    )
    return Replay(tokens, prompts, lengths, kept.turns, kept.written + count)


def behind(tokens: jax.Array, prompts: jax.Array, lengths: jax.Array) -> jax.Array:
    """Which predictions count: those of tokens behind the prompt, up to the end; ``[B, T]``."""
    place = jnp.arange(1, tokens.shape[1])[None]
    return (place >= prompts[:, None]) & (place < lengths[:, None])


def as_batch(batch: Batch, tokens: jax.Array, counted: jax.Array) -> dict[str, Any]:
    """A batch whose texts are ``tokens`` ``[B, T + 1]``, for both nets."""
    read = tokens[:, :-1]
    inputs = {"tokens": read}
    own = {"tokens": read, "label": tokens[:, 1:], "counted": counted}
    return {**batch, **own, "student": inputs, "teacher": inputs}


def _number(turn: Any) -> jax.Array:
    return jnp.asarray(turn, jnp.float32)


def prompts_of(batch: Mapping[str, Any], prompt: int) -> tuple[jax.Array, jax.Array]:
    """The prompts of a batch, ``[B, prompt]``, and how long each is, ``[B]``.

    Raises:
        ValueError: for packed texts, and for prompts longer than a text.
    """
    tokens = batch["tokens"]
    if "segments" in batch:
        raise ValueError("packed texts cannot be continued: set pack=False in the data")
    if not 1 <= prompt <= tokens.shape[1]:
        raise ValueError(
            f"prompt must be 1 to {tokens.shape[1]} tokens, the length of a text, got {prompt}"
        )
    given = jnp.full(tokens.shape[:1], prompt, jnp.int32)
    if "prompt" in batch:
        given = jnp.clip(batch["prompt"], 1, prompt).astype(jnp.int32)
    return tokens[:, :prompt], given
