"""Speculative decoding: a draft proposes a block of tokens, the target reads them all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.language.acceptance import LOSSLESS, Acceptance, check_acceptance, lenient
from jaxdistill.language.generation import (
    Variables,
    check_prompts,
    empty_cache,
    fitted,
    is_one_of,
    prefill,
    read,
)
from jaxdistill.language.sampling import (
    PLAIN,
    Sampling,
    check_sampling,
    log_probabilities,
)
from jaxdistill.net import Net
from jaxdistill.settings import Count, Natural


class Speculated(NamedTuple):
    """What speculative decoding has written, and how well it went.

    Attributes:
        tokens: int32 ``[B, P + new]``, as those of :class:`~jaxdistill.language.Generated`.
        lengths: int32 ``[B]``.
        stopped: bool ``[B]``.
        blocks: int32 ``[B]``, calls of the target.
        accepted: int32 ``[B]``, proposals accepted, those beyond the end of the text included, so
            that ``1 + accepted / blocks`` estimates the block efficiency without the effect of
            texts that end.
        expected: ``[B]``, the summed expectation of ``accepted`` given what the draft proposed:
            every block adds the sum of the products of its acceptance probabilities.
    """

    tokens: jax.Array
    lengths: jax.Array
    stopped: jax.Array
    blocks: jax.Array
    accepted: jax.Array
    expected: jax.Array


def speculate(
    target: Net,
    target_variables: Variables,
    draft: Net,
    draft_variables: Variables,
    prompts: jax.Array,
    lengths: jax.Array,
    key: jax.Array,
    *,
    new: Count,
    block: Count = 4,
    sampling: Sampling = PLAIN,
    acceptance: Acceptance = LOSSLESS,
    stop: Sequence[Natural] = (),
    pad: Natural = 0,
) -> Speculated:
    """Continues prompts as the target would, with fewer calls of it.

    Each round the draft proposes ``block`` tokens, the target reads them in one call; of every row
    the accepted ones stay, and one more token comes from the target itself: from what is left of
    its distribution where a proposal was refused, ``max(p - q, 0)`` normalised, or from the
    distribution behind the block. Temperature and truncation apply to both nets before any of that.
    Where acceptance is lossless, what is written is distributed as what
    :func:`~jaxdistill.language.generate` writes with the target.

    Args:
        target: a decoder, see :func:`~jaxdistill.language.empty_cache`.
        target_variables: its ``(params, state)``.
        draft: another; of a narrower vocabulary it never proposes the rest, of a wider one what the
            target does not know is ruled out.
        draft_variables: its ``(params, state)``.
        prompts: int ``[B, P]``.
        lengths: int ``[B]``, 1 to P.
        key: of the draws.
        new: the most tokens that are written.
        block: proposals a round.
        sampling: temperature and truncation.
        acceptance: which proposals are accepted.
        stop: tokens that end a text, also inside a block.
        pad: what fills the rest of a row.

    Raises:
        ValueError: as ``generate`` does, and for a block of no proposals.

    References:
        Leviathan, Kalman, Matias 2023 (arXiv 2211.17192); Chen et al. 2023 (arXiv 2302.01318).
    """
    check_prompts(prompts, lengths, new)
    check_sampling(sampling)
    check_acceptance(acceptance)
    if block < 1:
        raise ValueError(f"block must be 1 proposal or more, got {block}")
    models = Model(target, target_variables), Model(draft, draft_variables)
    # A block may reach beyond the end of a text.
    start = begun(models, prompts, lengths, prompts.shape[1] + new + block + 1, pad)
    limit = lengths.astype(jnp.int32) + new
    classes = jax.eval_shape(
        lambda: read(*models[0], start.target, prompts[:, :1], prompts[:, :1])[0]
    ).shape[-1]

    def round_(now: Progress) -> Progress:
        keys = jax.random.split(jax.random.fold_in(key, now.round), 3)
        proposals, log_draft, draft_cache = proposed(
            models[1], now, keys[0], block, sampling, classes
        )
        logits, target_cache = answered(models[0], now, proposals)
        log_target = log_probabilities(logits, sampling)
        verdict = judged(keys[1:], proposals, log_draft, log_target, acceptance)
        now = now._replace(target=target_cache, draft=draft_cache)
        return written(now, proposals, verdict, limit, stop)

    found = jax.lax.while_loop(lambda now: ~now.done.all(), round_, start)
    return Speculated(
        found.tokens[:, : prompts.shape[1] + new],
        found.ends,
        found.stopped,
        found.blocks,
        found.accepted,
        found.expected,
    )


class Model(NamedTuple):
    """A decoder and its ``(params, state)``."""

    net: Net
    variables: Variables


class Progress(NamedTuple):
    """Where speculative decoding is, between two rounds.

    Attributes:
        round: how many were done, int32.
        tokens: ``[B, S]``, with room behind each text for a block.
        ends: ``[B]``, how many tokens of each row there are.
        done: ``[B]``, which rows have ended.
        stopped: ``[B]``, which of them by a stop token.
        blocks: see :class:`Speculated`, like the next two.
        accepted: see there.
        expected: see there.
        target: the target's cache.
        draft: the draft's.
    """

    round: jax.Array
    tokens: jax.Array
    ends: jax.Array
    done: jax.Array
    stopped: jax.Array
    blocks: jax.Array
    accepted: jax.Array
    expected: jax.Array
    target: Any
    draft: Any


class Verdict(NamedTuple):
    """What the target makes of a block.

    Attributes:
        chances: ``[B, block]``, with which each proposal is accepted.
        count: int32 ``[B]``, how many are, before the first that is not.
        last: int32 ``[B]``, the token behind them.
    """

    chances: jax.Array
    count: jax.Array
    last: jax.Array


def begun(
    models: tuple[Model, Model], prompts: jax.Array, lengths: jax.Array, slots: int, pad: int
) -> Progress:
    """Rows with room for ``slots`` tokens, and caches in which target and draft have read the
    prompts."""
    batch, longest = prompts.shape
    caches = [prefill(*each, empty_cache(each.net, batch, slots), prompts) for each in models]
    within = jnp.arange(longest)[None] < lengths[:, None]
    tokens = jnp.full((batch, slots), pad, jnp.int32)
    tokens = tokens.at[:, :longest].set(jnp.where(within, prompts, pad).astype(jnp.int32))
    nothing = jnp.zeros(batch, jnp.int32)
    return Progress(
        round=jnp.zeros((), jnp.int32),
        tokens=tokens,
        ends=lengths.astype(jnp.int32),
        done=nothing > 0,
        stopped=nothing > 0,
        blocks=nothing,
        accepted=nothing,
        expected=nothing.astype(jnp.float32),
        target=caches[0],
        draft=caches[1],
    )


def proposed(
    draft: Model, now: Progress, key: jax.Array, block: int, sampling: Sampling, classes: int
) -> tuple[jax.Array, jax.Array, Any]:
    """Proposals ``[B, block]``, the distributions they were drawn from ``[B, block, classes]``, and
    the draft's cache."""
    # The draft has not read the last token, nor, after a block that was accepted whole, the one
    # before: the first call reads both.
    place = jnp.stack([jnp.maximum(now.ends - 2, 0), now.ends - 1], axis=1)
    seen = jnp.take_along_axis(now.tokens, place, axis=1)
    proposals, ways, cache = [], [], now.draft
    for number in range(block):
        logits, cache = read(*draft, cache, seen, place)
        ways.append(fitted(logits[:, -1], classes))
        drawn = jax.random.categorical(
            jax.random.fold_in(key, number), log_probabilities(ways[-1], sampling)
        )
        proposals.append(drawn.astype(jnp.int32))
        seen, place = proposals[-1][:, None], (now.ends + number)[:, None]
    return jnp.stack(proposals, 1), log_probabilities(jnp.stack(ways, 1), sampling), cache


def answered(target: Model, now: Progress, proposals: jax.Array) -> tuple[jax.Array, Any]:
    """The target's logits behind the last token and each proposal, ``[B, block + 1, V]``, and its
    cache."""
    last = (now.ends - 1)[:, None]
    seen = jnp.concatenate([jnp.take_along_axis(now.tokens, last, axis=1), proposals], axis=1)
    place = last + jnp.arange(seen.shape[1])[None]
    return read(*target, now.target, seen, place)


def judged(
    keys: jax.Array,
    proposals: jax.Array,
    log_draft: jax.Array,
    log_target: jax.Array,
    acceptance: Acceptance,
) -> Verdict:
    """Which proposals are accepted, and the token that the target adds itself."""
    picked = proposals[..., None]
    log_p = jnp.take_along_axis(lenient(log_target[:, :-1], acceptance), picked, -1)[..., 0]
    log_q = jnp.take_along_axis(log_draft, picked, -1)[..., 0]
    chances = jnp.exp(jnp.minimum(log_p - log_q, 0))
    uniform = jax.random.uniform(keys[0], chances.shape, chances.dtype)
    # The draw is below 1: what is as likely for the target as for the draft always stays.
    run = jnp.cumprod((uniform < chances).astype(jnp.int32), axis=1)
    count = run.sum(1, dtype=jnp.int32)
    after = _after(log_target, log_draft, count)
    return Verdict(chances, count, jax.random.categorical(keys[1], after).astype(jnp.int32))


def written(
    now: Progress,
    proposals: jax.Array,
    verdict: Verdict,
    limit: jax.Array,
    stop: Sequence[int],
) -> Progress:
    """The rows with what a round adds to those that have not ended: the accepted proposals and the
    target's token, up to a stop token or the ``limit`` ``[B]`` of the row."""
    chances, count, last = verdict
    column = jnp.arange(proposals.shape[1] + 1)[None]
    new = jnp.concatenate([proposals, jnp.zeros_like(last)[:, None]], axis=1)
    new = jnp.where(column == count[:, None], last[:, None], new)
    ending = is_one_of(new, stop) & (column <= count[:, None])
    first = jnp.where(ending.any(1), jnp.argmax(ending, axis=1), new.shape[1])
    more = jnp.minimum(jnp.minimum(count + 1, first + 1), limit - now.ends)
    more = jnp.where(now.done, 0, more).astype(jnp.int32)
    # What is not kept is written nowhere.
    places = jnp.where(column < more[:, None], now.ends[:, None] + column, now.tokens.shape[1])
    rows, live = jnp.arange(len(now.ends))[:, None], ~now.done
    stopped, ends = live & (first < more), now.ends + more
    expected = jnp.where(live, jnp.cumprod(chances, axis=1).sum(1), 0).astype(jnp.float32)
    return now._replace(
        round=now.round + 1,
        tokens=now.tokens.at[rows, places].set(new, mode="drop"),
        ends=ends,
        done=now.done | stopped | (ends >= limit),
        stopped=now.stopped | stopped,
        blocks=now.blocks + live,
        accepted=now.accepted + jnp.where(live, count, 0),
        expected=now.expected + expected,
    )


def residual(log_target: jax.Array, log_draft: jax.Array) -> jax.Array:
    """``log(max(p - q, 0))``, not normalised; ``log p`` where nothing of it is left (p equal to q).

    Args:
        log_target: ``[..., V]``, log p.
        log_draft: ``[..., V]``, log q.

    Example:
        >>> p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
        >>> jnp.exp(residual(p, q)).tolist()
        [0.25, 0.0]
    """
    left = jnp.maximum(jnp.exp(log_target) - jnp.exp(log_draft), 0)
    nothing = left.sum(-1, keepdims=True) <= 0
    return jnp.where(nothing, log_target, jnp.log(left))


def _after(log_target: jax.Array, log_draft: jax.Array, count: jax.Array) -> jax.Array:
    """What the token behind the accepted ones is drawn from, ``[B, V]``."""
    block = log_draft.shape[1]
    at = count[:, None, None]
    own = jnp.take_along_axis(log_target, at, axis=1)[:, 0]
    refused = jnp.take_along_axis(log_draft, jnp.minimum(at, block - 1), axis=1)[:, 0]
    return jnp.where((count == block)[:, None], own, residual(own, refused))
