"""A decoder that learns from answers with rewards: DPO, RRHF, policy gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxdistill import losses
from jaxdistill.distiller import Distiller, model_to_model
from jaxdistill.net import Net
from jaxdistill.objective import Term, per_example
from jaxdistill.settings import NonNegative, Positive, Scheduled, Share, checked

Rewarded = Literal["dpo", "rrhf", "policy_gradient"]


@checked
def rewarded(
    net: Net,
    tx: optax.GradientTransformation,
    loss: Rewarded = "dpo",
    reference: str | None = None,
    initial: str | None = None,
    *,
    beta: Positive = 0.1,
    smoothing: Share = 0.0,
    margin: NonNegative = 0.0,
    ce_weight: Scheduled[NonNegative] = 1.0,
    kl_weight: NonNegative = 0.04,
) -> Distiller:
    """A decoder that learns which answers are better, from batches of
    :func:`jaxdistill.records.rankings`.

    Args:
        net: the student.
        tx: its optimizer.
        loss: ``"dpo"`` compares the best and the worst answer to each prompt; ``"rrhf"`` ranks all
            of them by their mean log-probability, and learns the best; ``"policy_gradient"`` makes
            those above the mean reward of their prompt more probable, and others less: the answers
            should be the student's own, of late.
        reference: the name in the frozen variables of the model that it stays near to, a net like
            the student; ``"dpo"`` needs one, ``"policy_gradient"`` without one is not held.
        initial: the name in the frozen variables that it starts from.
        beta: of :func:`~jaxdistill.losses.dpo`.
        smoothing: of :func:`~jaxdistill.losses.dpo`.
        margin: of :func:`~jaxdistill.losses.rrhf`.
        ce_weight: of the cross-entropy of the best answer, beside RRHF.
        kl_weight: of :func:`~jaxdistill.losses.policy_gradient`.

    Raises:
        ValueError: for DPO without a reference, and RRHF with one.

    Example:
        >>> from jaxdistill.frameworks.linen import from_linen
        >>> from jaxdistill.models import Decoder
        >>> net = from_linen(Decoder(vocabulary=11, width=8, depth=1, heads=2))
        >>> tokens = jnp.ones((3, 2, 4), jnp.int32)
        >>> batch = {"tokens": tokens, "label": tokens + jnp.arange(2)[None, :, None]}
        >>> batch |= {"counted": tokens > 0, "reward": jnp.tile(jnp.array([1.0, 0.0]), (3, 1))}
        >>> start = {"start": net.init(jax.random.key(0), {"tokens": tokens[:, 0]})}
        >>> distiller = rewarded(net, optax.sgd(0.1), "dpo", "start", "start")
        >>> state = distiller.init(jax.random.key(1), start, batch)
        >>> total, count = distiller.step(state, start, batch)[1]["dpo"]
        >>> round(float(total / count), 4)
        0.6931
    """
    if loss == "dpo" and reference is None:
        raise ValueError("dpo compares with the model that the student started from: 'reference'")
    if loss == "rrhf" and reference is not None:
        raise ValueError("rrhf knows no reference: take it out")

    def targets(sources: Mapping[str, Any], batch: Any, key: Any, step: Any) -> dict[str, Any]:
        if reference is None:
            return {}
        out = _by_answer(net).apply(*sources[reference], batch["tokens"]).out
        return {"log_probs": _log_probs(out, batch)}

    def objective(forward: Any, goal: Mapping[str, Any], batch: Any) -> dict[str, Term]:
        own, reward = _log_probs(forward.out, batch), batch["reward"]
        if loss == "dpo":
            return _dpo(own, goal["log_probs"], reward, beta, smoothing)
        if loss == "rrhf":
            return _rrhf(own, reward, batch["counted"], margin, ce_weight)
        near = goal.get("log_probs", jax.lax.stop_gradient(own))
        return _policy(own, near, reward, batch["counted"], kl_weight)

    return model_to_model(_by_answer(net), targets, objective, tx, inputs="tokens", initial=initial)


def _by_answer(net: Net) -> Net:
    """A decoder of ``[B, K, T]`` tokens, each answer by itself."""

    def flat(tokens: jax.Array) -> dict[str, jax.Array]:
        return {"tokens": tokens.reshape(-1, tokens.shape[-1])}

    def apply(params: Any, state: Any, tokens: jax.Array, **rest: Any) -> Any:
        found = net.apply(params, state, flat(tokens), **rest)
        return found._replace(out=found.out.reshape(*tokens.shape, -1))

    return Net(lambda key, tokens: net.init(key, flat(tokens)), apply, net.back)


def _log_probs(logits: jax.Array, batch: Mapping[str, Any]) -> jax.Array:
    """Of every token that counts, 0 of others: ``[B, K, T]``."""
    labels = jnp.where(batch["counted"], batch["label"], -1)
    return -losses.cross_entropy(logits, labels)


def _dpo(
    own: jax.Array, reference: jax.Array, reward: jax.Array, beta: float, smoothing: float
) -> dict[str, Term]:
    there = ~jnp.isneginf(reward)
    best = jnp.argmax(reward, axis=-1)
    worst = jnp.argmin(jnp.where(there, reward, jnp.inf), axis=-1)
    both = jnp.stack([best, worst], axis=-1)

    def pair(values: jax.Array) -> jax.Array:
        return jnp.take_along_axis(values, both, axis=-1)

    values = losses.dpo(pair(own.sum(-1)), pair(reference.sum(-1)), beta=beta, smoothing=smoothing)
    gap = pair(reward)
    return {"dpo": per_example(1.0, values, gap[..., 0] > gap[..., 1])}


def _rrhf(
    own: jax.Array,
    reward: jax.Array,
    counted: jax.Array,
    margin: float,
    ce_weight: float | Callable[[Any], Any],
) -> dict[str, Term]:
    lengths = jnp.maximum(counted.sum(-1), 1).astype(own.dtype)
    ranks = losses.rrhf(own.sum(-1) / lengths, reward, margin=margin)
    best = jnp.argmax(reward, axis=-1)[..., None]
    labels = -jnp.take_along_axis(own.sum(-1), best, axis=-1)[..., 0]
    return {"rrhf": per_example(1.0, ranks), "labels": per_example(ce_weight, labels)}


def _policy(
    own: jax.Array, near: jax.Array, reward: jax.Array, counted: jax.Array, kl_weight: float
) -> dict[str, Term]:
    there = ~jnp.isneginf(reward)
    count = jnp.maximum(there.sum(-1, keepdims=True), 1).astype(own.dtype)
    known = jnp.where(there, reward, 0)
    mean = known.sum(-1, keepdims=True) / count
    # An answer that is not there has the mean reward: it is no better and no worse.
    advantages = losses.group_advantages(jnp.where(there, reward, mean))
    values = losses.policy_gradient(
        own, near, jnp.broadcast_to(advantages[..., None], own.shape), kl_weight=kl_weight
    )
    where = counted & there[..., None]
    return {"policy_gradient": per_example(1.0, values, where)}
