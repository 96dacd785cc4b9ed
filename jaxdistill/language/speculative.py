"""Speculative decoding: a draft proposes a block of tokens, the target reads them all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.language.generation import (
    Variables,
    check_prompts,
    empty_cache,
    fitted,
    is_one_of,
    prefill,
    read,
)
from jaxdistill.language.sampling import PLAIN, Sampling, check_sampling, log_probabilities
from jaxdistill.net import Net

LENIENCE = ("ratio", "square", "power")


class Acceptance(NamedTuple):
    r"""Which proposals of the draft q the target p accepts: with probability ``min(1, f(p) / q)``.

    Attributes:
        lenience: :math:`\epsilon` in (0, 1]; 1 is lossless, the output is the target's.
        function: f: ``"ratio"`` :math:`p / \epsilon`, ``"square"`` :math:`p / \epsilon^2`,
            ``"power"`` :math:`p^\epsilon`.
    """

    lenience: float = 1.0
    function: str = "ratio"


LOSSLESS = Acceptance()


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


def check_acceptance(acceptance: Acceptance) -> Acceptance:
    """Refuses an unknown function, and a lenience that is not in (0, 1].

    Raises:
        ValueError: naming it.
    """
    if acceptance.function not in LENIENCE:
        raise ValueError(unknown("function of lenience", acceptance.function, LENIENCE))
    if not 0 < acceptance.lenience <= 1:
        raise ValueError(f"lenience must be in (0, 1], got {acceptance.lenience}")
    return acceptance


def lenient(log_target: jax.Array, acceptance: Acceptance) -> jax.Array:
    """``log f(p)`` of log-probabilities ``log p``, see :class:`Acceptance`."""
    lenience, function = check_acceptance(acceptance)
    if lenience == 1:
        return log_target
    if function == "power":
        return log_target * lenience
    over = jnp.log(jnp.asarray(lenience, log_target.dtype))
    return log_target - over * (2 if function == "square" else 1)


def acceptance_probabilities(
    log_draft: jax.Array, log_target: jax.Array, acceptance: Acceptance = LOSSLESS
) -> jax.Array:
    r"""How likely the next proposal is accepted, by the exact sum over the vocabulary.

    .. math:: \sum_v \min(q_v, f(p_v)), \qquad = 1 - \mathrm{TV}(p, q) \text{ if lossless}

    Args:
        log_draft: ``[..., V]``, log-probabilities the draft samples with, truncation applied.
        log_target: the same of the target.
        acceptance: lossless by default.

    Returns:
        ``[...]``, in [0, 1].

    References:
        Zhou et al. 2024, "DistillSpec: improving speculative decoding via knowledge distillation"
        (arXiv 2310.08461).

    Example:
        >>> p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.9, 0.1]))
        >>> round(float(acceptance_probabilities(q, p)), 3)
        0.6
    """
    return jnp.exp(jnp.minimum(log_draft, lenient(log_target, acceptance))).sum(-1)


def block_efficiency(rate: Any, block: int) -> Any:
    r"""Tokens a call of the target gives where every proposal is accepted with one probability.

    .. math:: \frac{1 - \alpha^{\gamma + 1}}{1 - \alpha} = \sum_{k=0}^{\gamma} \alpha^k

    Args:
        rate: :math:`\alpha`, in [0, 1].
        block: :math:`\gamma`, proposals a block.

    References:
        Leviathan, Kalman, Matias 2023, "Fast inference from transformers via speculative decoding"
        (arXiv 2211.17192), equation 1.

    Example:
        >>> block_efficiency(0.5, 2), block_efficiency(1.0, 3)
        (1.75, 4.0)
    """
    return sum(rate**k for k in range(block + 1))


def wall_clock_factor(efficiency: Any, block: int, cost: Any) -> Any:
    """How many times faster than the target alone: ``efficiency / (cost * block + 1)``.

    Args:
        efficiency: tokens a call of the target, see :func:`block_efficiency`.
        block: proposals a block.
        cost: time of a draft's call over time of a target's.

    Example:
        >>> wall_clock_factor(3.0, 5, 0.1)
        2.0
    """
    return efficiency / (cost * block + 1)


def speculate(
    target: Net,
    target_variables: Variables,
    draft: Net,
    draft_variables: Variables,
    prompts: jax.Array,
    lengths: jax.Array,
    key: jax.Array,
    *,
    new: int,
    block: int = 4,
    sampling: Sampling = PLAIN,
    acceptance: Acceptance = LOSSLESS,
    stop: Sequence[int] = (),
    pad: int = 0,
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
    batch, longest = prompts.shape
    # A block may reach beyond the end of a text.
    slots = longest + new + block + 1
    caches = (
        prefill(target, target_variables, empty_cache(target, batch, slots), prompts),
        prefill(draft, draft_variables, empty_cache(draft, batch, slots), prompts),
    )
    within = jnp.arange(longest)[None] < lengths[:, None]
    tokens = jnp.full((batch, slots), pad, jnp.int32)
    tokens = tokens.at[:, :longest].set(jnp.where(within, prompts, pad).astype(jnp.int32))
    rows = jnp.arange(batch)[:, None]
    limit = lengths.astype(jnp.int32) + new

    def propose(ends, tokens, cache, key):
        """Proposals ``[B, block]`` and the distributions they were drawn from."""
        # The draft has not read the last token, nor, after a block that was accepted whole, the one
        # before: the first call reads both.
        place = jnp.stack([jnp.maximum(ends - 2, 0), ends - 1], axis=1)
        seen = tokens[rows, place]
        proposals, ways = [], []
        for number in range(block):
            logits, cache = read(draft, draft_variables, cache, seen, place)
            ways.append(logits[:, -1])
            drawn = jax.random.categorical(
                jax.random.fold_in(key, number), log_probabilities(_known(ways[-1]), sampling)
            )
            proposals.append(drawn.astype(jnp.int32))
            seen, place = proposals[-1][:, None], (ends + number)[:, None]
        log_draft = log_probabilities(_known(jnp.stack(ways, 1)), sampling)
        return jnp.stack(proposals, 1), log_draft, cache

    def _known(logits):
        return fitted(logits, classes)

    classes = jax.eval_shape(
        lambda: read(target, target_variables, caches[0], prompts[:, :1], prompts[:, :1])[0]
    ).shape[-1]

    def going(carry):
        return ~carry["done"].all()

    def round_(carry):
        ends, tokens, done = carry["ends"], carry["tokens"], carry["done"]
        keys = jax.random.split(jax.random.fold_in(key, carry["round"]), 3)
        proposals, log_draft, draft_cache = propose(ends, tokens, carry["draft"], keys[0])
        seen = jnp.concatenate([tokens[rows, (ends - 1)[:, None]], proposals], axis=1)
        place = (ends - 1)[:, None] + jnp.arange(block + 1)[None]
        logits, target_cache = read(target, target_variables, carry["target"], seen, place)
        log_target = log_probabilities(logits, sampling)
        picked = proposals[..., None]
        log_p = jnp.take_along_axis(lenient(log_target[:, :-1], acceptance), picked, -1)[..., 0]
        log_q = jnp.take_along_axis(log_draft, picked, -1)[..., 0]
        accept = jnp.exp(jnp.minimum(log_p - log_q, 0))
        uniform = jax.random.uniform(keys[1], accept.shape, accept.dtype)
        # The draw is below 1: what is as likely for the target as for the draft always stays.
        run = jnp.cumprod((uniform < accept).astype(jnp.int32), axis=1)
        count = run.sum(1, dtype=jnp.int32)
        after = _after(log_target, log_draft, count)
        last = jax.random.categorical(keys[2], after).astype(jnp.int32)
        new_tokens = jnp.concatenate([proposals, jnp.zeros_like(last)[:, None]], axis=1)
        column = jnp.arange(block + 1)[None]
        new_tokens = jnp.where(column == count[:, None], last[:, None], new_tokens)
        # A text ends behind its first stop token, and where it is long enough.
        ending = is_one_of(new_tokens, stop) & (column <= count[:, None])
        first = jnp.where(ending.any(1), jnp.argmax(ending, axis=1), block + 1)
        written = jnp.minimum(jnp.minimum(count + 1, first + 1), limit - ends)
        written = jnp.where(done, 0, written).astype(jnp.int32)
        kept = column < written[:, None]
        at = jnp.where(kept, ends[:, None] + column, slots)
        live = ~done
        stopped = live & (first < written)
        return {
            "round": carry["round"] + 1,
            "tokens": tokens.at[rows, at].set(new_tokens, mode="drop"),
            "ends": ends + written,
            "done": done | stopped | (ends + written >= limit),
            "stopped": carry["stopped"] | stopped,
            "blocks": carry["blocks"] + live,
            "accepted": carry["accepted"] + jnp.where(live, count, 0),
            "expected": carry["expected"]
            + jnp.where(live, jnp.cumprod(accept, axis=1).sum(1), 0).astype(jnp.float32),
            "target": target_cache,
            "draft": draft_cache,
        }

    nothing = jnp.zeros(batch, jnp.int32)
    found = jax.lax.while_loop(
        going,
        round_,
        {
            "round": jnp.zeros((), jnp.int32),
            "tokens": tokens,
            "ends": lengths.astype(jnp.int32),
            "done": nothing > 0,
            "stopped": nothing > 0,
            "blocks": nothing,
            "accepted": nothing,
            "expected": nothing.astype(jnp.float32),
            "target": caches[0],
            "draft": caches[1],
        },
    )
    return Speculated(
        found["tokens"][:, : longest + new],
        found["ends"],
        found["stopped"],
        found["blocks"],
        found["accepted"],
        found["expected"],
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
