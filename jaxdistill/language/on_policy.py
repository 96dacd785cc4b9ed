"""Distillation on what the student writes: its own text is the data, the teacher reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.distiller import Distiller
from jaxdistill.language.generation import generate
from jaxdistill.language.sampling import PLAIN, Sampling, check_sampling
from jaxdistill.net import Net
from jaxdistill.objective import at


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
    inner: Distiller,
    student: Net,
    *,
    prompt: int,
    share: Any = 1.0,
    teacher: tuple[Net, str] | None = None,
    teacher_share: Any = 0.0,
    teacher_mixing: float = 0.0,
    sampling: Sampling = PLAIN,
    stop: Sequence[int] = (),
    replay: int = 0,
    every: int = 1,
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
        prompt: the tokens given, at least 1 and at most those of a text.
        share: a number in [0, 1], or a schedule of the step.
        teacher: the teacher's net and its name in the frozen variables, where it writes.
        teacher_share: likewise; both together at most 1.
        teacher_mixing: the share of the teacher in every token that the student writes.
        sampling: temperature and truncation of what is written.
        stop: tokens that end a text.
        replay: how many of the student's texts are kept; a step then learns from a random choice of
            them. 0 learns from those just written.
        every: the student writes only each so many of its turns; in between texts come from the
            replay (or are those it wrote last).

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` with the result of ``inner``; its metrics have
        ``student_wrote``, ``teacher_wrote`` and ``tokens`` (how many count) besides.

    Raises:
        ValueError: for shares that are none, a teacher that is missing; at ``init`` for packed
            texts, and for prompts longer than a text.

    References:
        Agarwal et al. 2024, "On-policy distillation of language models" (arXiv 2306.13649); Zhou
        et al. 2024, "DistillSpec" (arXiv 2310.08461); Kim and Rush 2016, "Sequence-level knowledge
        distillation" (arXiv 1606.07947).
    """
    check_sampling(sampling)
    for name, value in (
        ("share", share), ("teacher_share", teacher_share), ("teacher_mixing", teacher_mixing)
    ):  # fmt: skip
        if not callable(value) and not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
    if not callable(share) and not callable(teacher_share) and share + teacher_share > 1:
        raise ValueError(f"share {share} and teacher_share {teacher_share} exceed 1 together")
    if teacher is None and (callable(teacher_share) or teacher_share or teacher_mixing):
        raise ValueError("the teacher is to write: give teacher, its net and name")
    if replay < 0 or every < 1:
        raise ValueError(f"replay must be 0 or more and every 1 or more, got {replay} and {every}")

    def whole(batch):
        """Texts of T + 1 tokens: those that are read, and the last that is predicted."""
        last = jnp.maximum(batch["label"][:, -1:], 0)
        return jnp.concatenate([batch["tokens"], last], axis=1).astype(jnp.int32)

    def as_batch(batch, tokens, counted):
        read = tokens[:, :-1]
        inputs = {"tokens": read}
        return {
            **batch,
            "tokens": read,
            "label": tokens[:, 1:],
            "counted": counted,
            "student": inputs,
            "teacher": inputs,
        }

    def behind(tokens, prompts, lengths):
        """Which predictions count: those of tokens behind the prompt, up to the end."""
        place = jnp.arange(1, tokens.shape[1])[None]
        return (place >= prompts[:, None]) & (place < lengths[:, None])

    def continued(batch, models, key):
        prompts, lengths = prompts_of(batch, prompt)
        total = batch["tokens"].shape[1] + 1
        (net, variables), *others = models
        mixed = (*others[0], teacher_mixing) if others else None
        written = generate(
            net,
            jax.lax.stop_gradient(variables),
            prompts,
            lengths,
            key,
            new=total - prompt,
            sampling=sampling,
            stop=stop,
            mixed_with=mixed,
        )
        return written.tokens, lengths, written.lengths

    def teacher_model(frozen):
        assert teacher is not None
        net, name = teacher
        return net, frozen[name]

    def init(key, frozen, batch):
        prompts_of(batch, prompt)
        rows = max(replay, batch["tokens"].shape[0])
        empty = Replay(
            jnp.zeros((rows, batch["tokens"].shape[1] + 1), jnp.int32),
            jnp.ones(rows, jnp.int32),
            jnp.ones(rows, jnp.int32),
            jnp.zeros((), jnp.int32),
            jnp.zeros((), jnp.int32),
        )
        own, key = jax.random.split(key)
        return OnPolicyState(jnp.zeros((), jnp.int32), own, inner.init(key, frozen, batch), empty)

    def by_student(state, frozen, batch, keys):
        kept = state.replay
        count = batch["tokens"].shape[0]

        def write(kept):
            models = [(student, inner.result(state.inner))]
            models += [teacher_model(frozen)] if teacher_mixing else []
            found = continued(batch, models, keys[0])
            rows = (kept.written + jnp.arange(count)) % kept.lengths.shape[0]
            tokens, prompts, lengths = (
                old.at[rows].set(new) for old, new in zip(kept[:3], found, strict=True)
            )
            return Replay(tokens, prompts, lengths, kept.turns, kept.written + count)

        due = kept.turns % every == 0
        kept = write(kept) if every == 1 else jax.lax.cond(due, write, lambda kept: kept, kept)
        kept = kept._replace(turns=kept.turns + 1)
        rows = (kept.written - count + jnp.arange(count)) % kept.lengths.shape[0]
        if replay:
            there = jnp.minimum(kept.written, kept.lengths.shape[0])
            rows = jax.random.randint(keys[1], (count,), 0, there)
        tokens, prompts, lengths = (x[rows] for x in kept[:3])
        return tokens, behind(tokens, prompts, lengths), kept

    def by_teacher(state, frozen, batch, keys):
        tokens, prompts, lengths = continued(batch, [teacher_model(frozen)], keys[0])
        return tokens, behind(tokens, prompts, lengths), state.replay

    def by_nobody(state, frozen, batch, keys):
        tokens = whole(batch)
        ends = jnp.full(tokens.shape[:1], tokens.shape[1])
        counted = behind(tokens, prompts_of(batch, prompt)[1], ends) & batch["counted"].astype(bool)
        return tokens, counted, state.replay

    def step(state: OnPolicyState, frozen, batch):
        key_who, *keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        of_student, of_teacher = at(share, state.step), at(teacher_share, state.step)
        drawn = jax.random.uniform(key_who)
        turns = {by_nobody: True}
        if callable(share) or share:
            turns[by_student] = drawn < of_student
        if callable(teacher_share) or teacher_share:
            turns[by_teacher] = (drawn >= of_student) & (drawn < of_student + of_teacher)
        # The last one whose turn it is.
        who = sum(number * jnp.asarray(turn) for number, turn in enumerate(turns.values()))
        writers = [lambda state, w=w: w(state, frozen, batch, keys) for w in turns]
        tokens, counted, kept = jax.lax.switch(who, writers, state)
        learnt, metrics = inner.step(state.inner, frozen, as_batch(batch, tokens, counted))
        one = jnp.ones(())
        metrics = {
            **metrics,
            "student_wrote": (_number(turns.get(by_student, False)), one),
            "teacher_wrote": (_number(turns.get(by_teacher, False)), one),
            "tokens": (counted.sum().astype(jnp.float32), one),
        }
        return OnPolicyState(state.step + 1, state.key, learnt, kept), metrics

    return Distiller(init, step, lambda state: inner.result(state.inner), inner.takes)


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
