"""The cards of the losses on attention and on Gram matrices within an example."""

from __future__ import annotations

from typing import Any

import jax

from jaxdistill.losses._catalogue_features import MAPS, SMALL, TOKENS, layers
from jaxdistill.losses._entry import PER_EXAMPLE, PER_TOKEN, Entry, features
from jaxdistill.losses.attention import (
    attention_kl,
    attention_mse,
    attention_transfer,
    qkv_relations,
)
from jaxdistill.losses.grams import affinity, fsp, ickd, nst, token_gram


def _qkv(key: jax.Array, dtype: Any) -> tuple[tuple, dict]:
    keys = jax.random.split(key, 2)
    student = tuple(jax.random.normal(keys[0], (3, 4, 3, 4), dtype))
    teacher = tuple(jax.random.normal(keys[1], (3, 4, 3, 6), dtype))
    return (student, teacher), {"heads": 2}


CATALOGUE: tuple[Entry, ...] = (
    Entry(
        attention_transfer,
        "attention",
        PER_EXAMPLE,
        "mean_p (Q_s - Q_t)^2, Q = sum_c f^2 over its norm",
        "mean over positions",
        features(MAPS, (4, 2, 2, 5)),
        paper="Zagoruyko 2017, arXiv 1612.03928",
        equal_to=(
            ("mdistiller at_loss, RepDistiller Attention", "summed over stages"),
            ("torchdistill ATLoss", 'mode "code"'),
        ),
        invariances="scale and sign of either side",
        remarks="maps of zeros: attention zero, gradient 0",
    ),
    Entry(
        attention_transfer,
        "attention",
        PER_EXAMPLE,
        "|Q_s - Q_t|, Q = sum_c f^2 over its norm",
        "none",
        features(SMALL, SMALL, form="norm"),
        paper="Zagoruyko 2017, arXiv 1612.03928",
        equal_to=(("torchdistill ATLoss", 'mode "paper"'),),
        invariances="scale and sign of either side",
        remarks="equal maps: 0, gradient 0",
        zero_at_equality=True,
        order=1,
        label="norm",
    ),
    Entry(
        attention_mse,
        "attention",
        PER_EXAMPLE,
        "mean_hij (S - T)^2",
        "mean over heads and real pairs of tokens",
        features((4, 2, 3, 3), (4, 2, 3, 3)),
        paper="Jiao 2020, arXiv 1909.10351",
        equal_to=(
            ("TextBrewer att_mse_loss", "sequences weighed by L^2"),
            ("TextBrewer att_mse_sum_loss", 'heads="sum"'),
        ),
        zero_at_equality=True,
    ),
    Entry(
        attention_kl,
        "attention",
        PER_TOKEN,
        "mean_h KL(softmax T_hi | softmax S_hi)",
        "mean over heads",
        features((4, 2, 3, 3), (4, 2, 3, 3)),
        paper="Wang 2020, arXiv 2002.10957",
        equal_to=(
            (
                "TextBrewer att_ce_loss",
                'kind="cross_entropy", masking="after"; mean over real tokens',
            ),
            ("TextBrewer att_ce_mean_loss", 'and heads="mean"'),
        ),
        invariances="shift of a query's scores",
        zero_at_equality=True,
        shift_invariant=True,
        accepts_neginf=True,
    ),
    Entry(
        qkv_relations,
        "attention",
        PER_TOKEN,
        "mean_ab mean_h KL(softmax R_T | softmax R_S), R = A B' / sqrt d",
        "mean over relations and heads",
        _qkv,
        paper="Wang 2021, arXiv 2012.15828",
        equal_to=(
            ("G2SD cal_relation_loss", "all nine relations"),
            ("AutoDistil", 'kind="mse", truncate=True, times 3'),
        ),
        remarks="zero rows: uniform relations",
    ),
    Entry(
        ickd,
        "features",
        PER_EXAMPLE,
        "|r(F_s F_s') - r(F_t F_t')|^2 / C",
        "1 / C",
        features(SMALL, MAPS),
        paper="Liu 2021, arXiv 2202.03680",
        equal_to=(("torchdistill ChSimLoss", "divided by B"),),
        invariances="scale of either side; permutation of positions",
        remarks="channel of zeros: correlation 0, gradient 0",
    ),
    Entry(
        affinity,
        "features",
        PER_EXAMPLE,
        "sum_c |s_c s_c' - t_c t_c'|_F / HW",
        "sum over channels, 1 / HW",
        features(SMALL, SMALL),
        paper="He 2019, arXiv 1903.04688",
        equal_to=(("torchdistill AffinityLoss", "mean"),),
        invariances="scale and sign of every channel",
        remarks="channel of zeros: zero, gradient 0",
        zero_at_equality=True,
        order=1,
    ),
    Entry(
        nst,
        "features",
        PER_EXAMPLE,
        "mean k(s, s) + mean k(t, t) - 2 mean k(s, t)",
        "means over pairs of channels",
        features(MAPS, (4, 2, 2, 5)),
        paper="Huang 2017, arXiv 1707.01219",
        equal_to=(
            ("mdistiller nst_loss, RepDistiller NSTLoss", "mean; summed over stages"),
            ("VidLanKD nst", "tokens and channels swapped; less the teacher's term"),
        ),
        invariances="scale of every channel",
        remarks="channel of zeros: zero, gradient 0",
    ),
    Entry(
        fsp,
        "features",
        PER_EXAMPLE,
        "mean_cd (G_s - G_t)^2, G = mean_p f g'",
        "mean over pairs of channels",
        layers(MAPS, (4, 2, 2, 5)),
        paper="Yim 2017, CVPR",
        equal_to=(
            ("RepDistiller FSP", "summed over stages"),
            ("TextBrewer fsp_loss", "mask"),
            ("torchdistill FSPLoss", 'form="column_norm", pooling="max"'),
        ),
        zero_at_equality=True,
    ),
    Entry(
        token_gram,
        "features",
        PER_EXAMPLE,
        "mean_ij (S1 S2' / D_s - T1 T2' / D_t)_ij^2",
        "mean over real pairs of tokens",
        layers(TOKENS, TOKENS),
        paper="Yang 2020, arXiv 2002.12620",
        equal_to=(("TextBrewer mmd_loss", "sequences weighed by L^2"),),
        invariances="rotation of the width, of both layers together",
        zero_at_equality=True,
    ),
)
