"""What is measured of language models: loss by token and domain, and how well one drafts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.evaluation.batches import Evaluator, compiled, frozen_entry, summed, sweep
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.language.acceptance import (
    LOSSLESS,
    Acceptance,
    acceptance_probabilities,
    block_efficiency,
    check_acceptance,
)
from jaxdistill.language.generation import fitted, generate
from jaxdistill.language.on_policy import prompts_of
from jaxdistill.language.sampling import PLAIN, Sampling, check_sampling, log_probabilities
from jaxdistill.language.speculative import speculate
from jaxdistill.net import Net
from jaxdistill.settings import Count, Natural, checked


def text_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What a decoder sees of a batch of :func:`jaxdistill.data.text.windows`."""
    return {name: batch[name] for name in ("tokens", "positions", "segments") if name in batch}


def token_losses(net: Net, variables: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
    """The cross-entropy of every token and whether it counts, both ``[B, T]``."""
    log_probs = log_probabilities(net.apply(*variables, text_inputs(batch)).out)
    labels = jnp.maximum(batch["label"], 0)
    values = -jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
    return values, batch["counted"].astype(bool) & batch["where"][:, None]


@checked
def next_token(net: Net, groups: Sequence[str] = (), *, batches: Count | None = None) -> Evaluator:
    """The mean cross-entropy of the next token, in nats, over the tokens that count.

    Args:
        net: a decoder.
        groups: names of the groups of a set of several (``batch["group"]``).
        batches: only so many of the set, the first.

    Returns:
        An evaluator with ``loss`` and ``perplexity``, and for every group ``<group>_loss``.
    """

    def step(variables, batch):
        values, counts = token_losses(net, variables, batch)
        sums = {"count": counts.sum(), "loss": jnp.where(counts, values, 0).sum()}
        for number, name in enumerate(groups):
            own = counts & (batch["group"] == number)[:, None]
            sums[f"{name}_loss"] = jnp.where(own, values, 0).sum()
            sums[f"{name}_count"] = own.sum()
        return sums

    step = compiled(step, None)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        totals = summed(sweep(step, result, itertools.islice(data, batches)))
        count = totals.pop("count")
        found = {"loss": float(totals["loss"] / count)}
        found["perplexity"] = float(np.exp(found["loss"]))
        for name in groups:
            found[f"{name}_loss"] = float(totals[f"{name}_loss"] / max(totals[f"{name}_count"], 1))
        return found

    return measuring(
        ("loss", "perplexity", *(f"{name}_loss" for name in groups)), evaluator, sweeps=True
    )


@checked
def drafting(
    draft: Net,
    target: Net,
    against: str,
    *,
    prompt: Count,
    new: Count,
    sampling: Sampling = PLAIN,
    acceptance: Acceptance = LOSSLESS,
    block: Natural = 0,
    stop: Sequence[Natural] = (),
    batches: Count | None = None,
    prefix: str = "",
) -> Evaluator:
    """How well a net drafts for another: on what the *target* writes after held-out prompts.

    Args:
        draft: the net whose result it is called with.
        target: the other.
        against: its name in the frozen variables.
        prompt: tokens of each text that are given.
        new: the most tokens that are written.
        sampling: temperature and truncation of both.
        acceptance: lossless by default.
        block: proposals a block; 0 leaves decoding out.
        stop: tokens that end a text.
        batches: only so many of the set, the first.
        prefix: in front of the names, where a net is measured in several ways.

    Returns:
        An evaluator with ``acceptance``, the mean over the target's tokens of the exact acceptance
        probability; with a block also ``block_efficiency`` (by decoding), ``expected_efficiency``
        (one plus the summed products of the acceptance probabilities of what the draft proposed)
        and ``formula_efficiency`` (were every token accepted with the one rate).

    Raises:
        ValueError: for a sampling or an acceptance out of range; as it runs, for prompts
            longer than a text.

    References:
        Zhou et al. 2024, "DistillSpec" (arXiv 2310.08461), section 3.
    """
    check_sampling(sampling)
    check_acceptance(acceptance)

    def step(variables, batch):
        draft_variables, target_variables = variables
        key = jax.random.fold_in(jax.random.key(0), batch["number"][0])
        prompts, lengths = prompts_of(batch, prompt)
        written = generate(
            target, target_variables, prompts, lengths, key, new=new, sampling=sampling, stop=stop
        )
        theirs = target.apply(*target_variables, written.tokens[:, :-1]).out
        ours = fitted(draft.apply(*draft_variables, written.tokens[:, :-1]).out, theirs.shape[-1])
        place = jnp.arange(1, written.tokens.shape[1])[None]
        counts = (place >= lengths[:, None]) & (place < written.lengths[:, None])
        counts &= batch["where"][:, None]
        rates = acceptance_probabilities(
            log_probabilities(ours, sampling), log_probabilities(theirs, sampling), acceptance
        )
        sums = {"count": counts.sum(), "acceptance": jnp.where(counts, rates, 0).sum()}
        if block:
            found = speculate(
                target, target_variables, draft, draft_variables, prompts, lengths, key,
                new=new, block=block, sampling=sampling, acceptance=acceptance, stop=stop,
            )  # fmt: skip
            for name in ("blocks", "accepted", "expected"):
                sums[name] = jnp.where(batch["where"], getattr(found, name), 0).sum()
        return sums

    step = compiled(step, None)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        variables = (result, frozen_entry(frozen, against))
        numbered = (
            {**batch, "number": np.full(len(batch["tokens"]), n)}
            for n, batch in enumerate(itertools.islice(data, batches))
        )
        totals = summed(sweep(step, variables, numbered))
        found = {"acceptance": float(totals["acceptance"] / totals["count"])}
        if block:
            for name, key in (("block", "accepted"), ("expected", "expected")):
                found[f"{name}_efficiency"] = float(1 + totals[key] / totals["blocks"])
            found["formula_efficiency"] = float(block_efficiency(found["acceptance"], block))
        return {f"{prefix}{name}": value for name, value in found.items()}

    names = ("acceptance",)
    if block:
        names = (*names, "block_efficiency", "expected_efficiency", "formula_efficiency")
    return measuring((f"{prefix}{name}" for name in names), evaluator, sweeps=True)


def losses_by_position(net: Net, variables: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The mean loss, and the share of tokens right, by place in the window: both ``[T]``."""

    def measure(variables, batch):
        values, counts = token_losses(net, variables, batch)
        best = jnp.argmax(net.apply(*variables, text_inputs(batch)).out, axis=-1)
        right = (best == batch["label"]) & counts
        count = jnp.maximum(counts.sum(0), 1)
        return {"loss": jnp.where(counts, values, 0).sum(0) / count, "right": right.sum(0) / count}

    everything = {**batch, "where": np.ones(len(batch["tokens"]), bool)}
    return jax.device_get(jax.jit(measure)(variables, everything))
