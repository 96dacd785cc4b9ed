"""Writing text inside jit: one loop for training, evaluation and speculative decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxdistill.language.sampling import PLAIN, Sampling, check_sampling, log_probabilities
from jaxdistill.net import Net
from jaxdistill.settings import Count, Natural

Variables = tuple[Any, Any]


class Generated(NamedTuple):
    """What a model has written.

    Attributes:
        tokens: int32 ``[B, P + new]``: prompts, right behind each what was written, then ``pad``.
        lengths: int32 ``[B]``, of both together, a stop token included.
        stopped: bool ``[B]``, whether a stop token ended the text.
        cache: the cache, to be given (and donated) to the next call of the same size.
    """

    tokens: jax.Array
    lengths: jax.Array
    stopped: jax.Array
    cache: Any


def empty_cache(net: Net, batch: int, slots: int) -> Any:
    """A cache of keys and values for ``slots`` tokens of every row.

    Args:
        net: a :class:`~jaxdistill.models.Decoder`, or another net that leaves a state ``cache`` of
            as many slots as its input ``slots`` has.
        batch: rows, B.
        slots: tokens, S.

    Raises:
        ValueError: for a net that has no cache.
    """
    inputs = {"tokens": jnp.zeros((batch, 1), jnp.int32), "slots": jnp.zeros((batch, slots))}
    _, state = jax.eval_shape(net.init, jax.random.key(0), inputs)
    if "cache" not in state:
        raise ValueError("this net leaves no state 'cache': it cannot write text token by token")
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state["cache"])


def read(
    net: Net, variables: Variables, cache: Any, tokens: jax.Array, positions: jax.Array
) -> tuple[jax.Array, Any]:
    """The logits behind some tokens, given all that a cache holds before them.

    Args:
        net: see :func:`empty_cache`.
        variables: its ``(params, state)``.
        cache: of the tokens before.
        tokens: int ``[B, T]``, the next tokens.
        positions: int ``[B, T]``, theirs; one at or beyond the number of slots is not kept.

    Returns:
        Logits ``[B, T, V]`` and the cache with the tokens in it.
    """
    params, state = variables
    inputs = {"tokens": tokens, "positions": positions}
    forward = net.apply(params, {**state, "cache": cache}, inputs)
    return forward.out, forward.state["cache"]


def prefill(net: Net, variables: Variables, cache: Any, prompts: jax.Array) -> Any:
    """The cache with prompts ``[B, P]`` in it; no logits are computed.

    Shorter prompts are padded at the end: the padding is overwritten before it is seen.
    """
    positions = jnp.broadcast_to(jnp.arange(prompts.shape[1])[None], prompts.shape)
    return read(net, variables, cache, prompts, positions)[1]


def generate(
    net: Net,
    variables: Variables,
    prompts: jax.Array,
    lengths: jax.Array,
    key: jax.Array,
    *,
    new: Count,
    sampling: Sampling = PLAIN,
    stop: Sequence[Natural] = (),
    pad: Natural = 0,
    mixed_with: tuple[Net, Variables, Any] | None = None,
    cache: Any = None,
) -> Generated:
    """Continues prompts of different lengths, each by at most ``new`` tokens.

    All shapes are fixed, so it runs inside ``jax.jit``, and inside a training step; the loop ends
    when every row has. Jitted with ``donate_argnames="cache"``, the cache of one call is the memory
    of the next.

    Args:
        net: a decoder, see :func:`empty_cache`.
        variables: its ``(params, state)``.
        prompts: int ``[B, P]``; what comes after a row's own length is not read.
        lengths: int ``[B]``, 1 to P.
        key: of the draws; or keys ``[B]``, one for each row, so that what is written in a row does
            not depend on the others.
        new: the most tokens that are written.
        sampling: temperature and truncation.
        stop: tokens that end a text.
        pad: what fills the rest of a row.
        mixed_with: another net, its variables and a share a: every token is drawn from a times its
            probabilities and (1 - a) times the net's own, both after truncation.
        cache: of an earlier call, of ``P + new`` slots (a pair of two where there are two nets).

    Raises:
        ValueError: for prompts and lengths that do not fit, and for nothing to write.

    References:
        Gu, Dong, Wei, Huang 2024 (arXiv 2306.08543), for teacher-mixed sampling.

    Example:
        >>> from jaxdistill.models import Decoder
        >>> from jaxdistill.frameworks.linen import from_linen
        >>> net = from_linen(Decoder(vocabulary=11, width=8, depth=1, heads=2))
        >>> prompts, lengths = jnp.array([[1, 2, 3], [4, 0, 0]]), jnp.array([3, 1])
        >>> variables = net.init(jax.random.key(0), prompts)
        >>> written = generate(net, variables, prompts, lengths, jax.random.key(1), new=2)
        >>> written.tokens.shape, written.lengths.tolist()
        ((2, 5), [5, 3])
    """
    check_prompts(prompts, lengths, new)
    check_sampling(sampling)
    batch, longest = prompts.shape
    models = [(net, variables)] + ([mixed_with[:2]] if mixed_with else [])
    if cache is None:
        cache = tuple(empty_cache(model, batch, longest + new) for model, _ in models)
        cache = cache if mixed_with else cache[0]
    caches = cache if mixed_with else (cache,)
    caches = tuple(prefill(*model, own, prompts) for model, own in zip(models, caches, strict=True))
    within = jnp.arange(longest)[None] < lengths[:, None]
    tokens = jnp.full((batch, longest + new), pad, jnp.int32)
    tokens = tokens.at[:, :longest].set(jnp.where(within, prompts, pad).astype(jnp.int32))
    rows = jnp.arange(batch)

    def going(carry):
        count, _, _, done, _ = carry
        return (count < new) & ~done.all()

    def write(carry):
        count, tokens, ends, done, caches = carry
        place = ends - 1
        found = [
            read(*model, own, tokens[rows, place][:, None], place[:, None])
            for model, own in zip(models, caches, strict=True)
        ]
        ways = [log_probabilities(logits[:, 0], sampling) for logits, _ in found]
        log_probs = _mixture(ways, mixed_with[2]) if mixed_with else ways[0]
        drawn = _drawn(key, count, log_probs)
        drawn = jnp.where(done, pad, drawn).astype(jnp.int32)
        # A row that is done writes beyond the end, which is nowhere.
        at = jnp.where(done, tokens.shape[1], ends)
        tokens = tokens.at[rows, at].set(drawn, mode="drop")
        ends = ends + ~done
        done = done | is_one_of(drawn, stop)
        return count + 1, tokens, ends, done, tuple(own for _, own in found)

    none = jnp.zeros(batch, bool)
    start = (jnp.zeros((), jnp.int32), tokens, lengths.astype(jnp.int32), none, caches)
    _, tokens, ends, done, caches = jax.lax.while_loop(going, write, start)
    return Generated(tokens, ends, done, caches if mixed_with else caches[0])


def _drawn(key: jax.Array, count: jax.Array, log_probs: jax.Array) -> jax.Array:
    """A token for each row, by one key or one for each."""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim:
        keys = jax.vmap(jax.random.fold_in, (0, None))(key, count)
        return jax.vmap(jax.random.categorical)(keys, log_probs)
    return jax.random.categorical(jax.random.fold_in(key, count), log_probs)


def is_one_of(tokens: jax.Array, ids: Sequence[int]) -> jax.Array:
    """Which of some tokens are in a list, bool of the same shape."""
    found = jnp.zeros(tokens.shape, bool)
    for each in ids:
        found |= tokens == each
    return found


def check_prompts(prompts: jax.Array, lengths: jax.Array, new: int) -> None:
    """Refuses prompts that cannot be continued.

    Raises:
        ValueError: for shapes that do not fit, no prompt token, nothing to write; and, outside of
            ``jax.jit``, for lengths that are out of range.
    """
    if prompts.ndim != 2 or lengths.shape != prompts.shape[:1]:
        raise ValueError(
            f"prompts must be [B, P] and lengths [B], got {prompts.shape} and {lengths.shape}"
        )
    if prompts.shape[1] < 1:
        raise ValueError("prompts must have a token to start from: begin with the end-of-text one")
    if new < 1:
        raise ValueError(f"new must be 1 token or more, got {new}")
    if not isinstance(lengths, Tracer):
        known = np.asarray(lengths)
        low, high = int(known.min()), int(known.max())
        if low < 1 or high > prompts.shape[1]:
            raise ValueError(
                f"lengths must lie in 1..{prompts.shape[1]}, the prompts' width; they lie in "
                f"{low}..{high}"
            )


def _mixture(ways: Sequence[jax.Array], share: Any) -> jax.Array:
    own, other = ways
    share = jnp.asarray(share, own.dtype)
    return jnp.logaddexp(own + jnp.log1p(-share), fitted(other, own.shape[-1]) + jnp.log(share))


def fitted(log_probs: jax.Array, classes: int) -> jax.Array:
    """Log-probabilities over another vocabulary that begins the same: cut, or filled with -inf.

    What was cut off is lost: the rest is not normalised again.
    """
    missing = classes - log_probs.shape[-1]
    if missing <= 0:
        return log_probs[..., :classes]
    widths = [(0, 0)] * (log_probs.ndim - 1) + [(0, missing)]
    return jnp.pad(log_probs, widths, constant_values=-jnp.inf)
