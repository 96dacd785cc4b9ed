"""The cards of the divergences between softened outputs."""

from __future__ import annotations

from jaxdistill.losses._entry import PER_TOKEN, Entry, scores
from jaxdistill.losses.divergences import (
    generalized_jsd,
    jensen_shannon,
    reverse_kl,
    skewed_forward_kl,
    skewed_reverse_kl,
    symmetric_kl,
    total_variation,
)

_COMMON = {
    "family": "tokens",
    "kind": PER_TOKEN,
    "normaliser": "T^2",
    "invariances": "shift of either side",
    "scores": True,
    "zero_at_equality": True,
    "shift_invariant": True,
    "accepts_neginf": True,
}
_TOKENS = (2, 3, 5)

CATALOGUE: tuple[Entry, ...] = (
    Entry(
        reverse_kl,
        formula="T^2 KL(s || t)",
        make=scores(shape=_TOKENS, temperature=2.0),
        paper="Gu 2024, arXiv 2306.08543",
        equal_to=(
            ("DistiLLM reverse_kl", "temperature=1; token mean"),
            ("TRL GKD generalized_jsd_loss(beta=1)", "divided by T^2; token mean"),
        ),
        remarks="ruled-out classes leave the student too",
        **_COMMON,
    ),
    Entry(
        symmetric_kl,
        formula="T^2 [(1-w) KL(t || s) + w KL(s || t)]",
        make=scores(shape=_TOKENS, temperature=2.0, reverse_weight=0.3),
        equal_to=(("DistiLLM symmetric_kl", "reverse_weight=lam; plus (1-lam) H(t); token mean"),),
        remarks="ruled-out classes leave the reverse part",
        **_COMMON,
    ),
    Entry(
        skewed_forward_kl,
        formula="T^2 KL(t || a t + (1-a) s)",
        make=scores(shape=_TOKENS, temperature=2.0),
        paper="Ko 2024, arXiv 2402.03898",
        equal_to=(("DistiLLM skewed_forward_kl", "skew=lam; plus H(t); token mean"),),
        remarks="at most -T^2 log a",
        **_COMMON,
    ),
    Entry(
        skewed_reverse_kl,
        formula="T^2 KL(s || a s + (1-a) t)",
        make=scores(shape=_TOKENS, temperature=2.0),
        paper="Ko 2024, arXiv 2402.03898",
        equal_to=(("DistiLLM skewed_reverse_kl", "skew=lam; token mean"),),
        remarks="at most -T^2 log a",
        **_COMMON,
    ),
    Entry(
        generalized_jsd,
        formula="T^2 [b KL(t || m) + (1-b) KL(s || m)], m = b t + (1-b) s",
        make=scores(shape=_TOKENS, temperature=2.0, beta=0.3),
        paper="Agarwal 2024, arXiv 2306.13649",
        equal_to=(
            ("TRL GKD generalized_jsd_loss", "beta; divided by T^2; token mean"),
            ("DistiLLM js_distance", "beta=1-lam; token mean"),
        ),
        remarks="beta 0 and 1: forward and reverse KL, on their own scale",
        **_COMMON,
    ),
    Entry(
        jensen_shannon,
        formula="T^2 [KL(t || m) + KL(s || m)] / 2, m = (t + s) / 2",
        make=scores(shape=_TOKENS, temperature=2.0),
        paper="Lin 1991",
        equal_to=(("DistillKit dense_js_div", "divided by T^2; sum"),),
        remarks="at most T^2 log 2",
        **_COMMON,
    ),
    Entry(
        total_variation,
        formula="T^2/2 sum_k |t_k - s_k|",
        make=scores(shape=_TOKENS, temperature=2.0),
        paper="Wen 2023, arXiv 2307.15190",
        equal_to=(
            ("DistiLLM tv_distance", "token mean"),
            ("DistillKit dense_tvd", "divided by T^2; sum"),
        ),
        remarks="at most T^2; gradient 0 at equality",
        **_COMMON,
    ),
)
