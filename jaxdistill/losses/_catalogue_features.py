"""The cards of the losses on features, stages, attention and Gram matrices within an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.losses._entry import BATCH, PER_EXAMPLE, PER_TOKEN, Entry, features
from jaxdistill.losses.activations import activation_boundary, overhaul, review
from jaxdistill.losses.attention import (
    attention_kl,
    attention_mse,
    attention_transfer,
    qkv_relations,
)
from jaxdistill.losses.factors import factor_transfer, kta, srd, srrl
from jaxdistill.losses.features import feature_match, hidden_cosine, hint, pkd, smooth_l1
from jaxdistill.losses.generative import mgd, pad, vid, vitkd
from jaxdistill.losses.grams import affinity, fsp, ickd, nst, token_gram

TOKENS = (4, 3, 5)
MAPS = (4, 4, 4, 3)
SMALL = (4, 2, 2, 3)


def _pairs(
    first: tuple[int, ...], second: tuple[int, ...], teacher: Any = None, **kwargs: Any
) -> Callable:
    """Builds ``make`` for losses whose student and teacher are tuples of arrays."""

    def make(key: jax.Array, dtype: Any) -> tuple[tuple, dict]:
        shapes = (first, second), teacher or (first, second)
        keys = jax.random.split(key, 2)
        return tuple(
            tuple(
                jax.random.normal(k, shape, dtype)
                for k, shape in zip(jax.random.split(side, 2), pair, strict=True)
            )
            for side, pair in zip(keys, shapes, strict=True)
        ), dict(kwargs)

    return make


def _qkv(key: jax.Array, dtype: Any) -> tuple[tuple, dict]:
    keys = jax.random.split(key, 2)
    student = tuple(jax.random.normal(keys[0], (3, 4, 3, 4), dtype))
    teacher = tuple(jax.random.normal(keys[1], (3, 4, 3, 6), dtype))
    return (student, teacher), {"heads": 2}


def _margined(key: jax.Array, dtype: Any) -> tuple[tuple, dict]:
    args, kwargs = features(SMALL, SMALL)(key, dtype)
    return (*args, jnp.asarray([-0.9, -0.5, -0.2], dtype)), kwargs


def _masked_vit(key: jax.Array, dtype: Any) -> tuple[tuple, dict]:
    (student, teacher), kwargs = _pairs((4, 2, 3, 5), TOKENS)(key, dtype)
    mask = jnp.tile(jnp.asarray([True, False, True]), (4, 1))
    return (student, teacher, mask), {
        **kwargs,
        "mimic_weight": 0.5,
        "generation_weight": 1.0,
    }


CATALOGUE: tuple[Entry, ...] = (
    Entry(
        feature_match,
        "features",
        PER_TOKEN,
        "mean_d |s_d/|s| - t_d/|t||",
        "mean over the axis",
        features(TOKENS, TOKENS, normalise="l2", distance="l1"),
        paper="Bai 2023, arXiv 2208.12256",
        equal_to=(
            ("DMAE with projector", 'normalise="l2", distance="l1"'),
            ("DMAE without projector", 'normalise="none", distance="l1"'),
        ),
        invariances="scale of either side",
        remarks="zero row: normalised to zero, gradient 0",
        zero_at_equality=True,
        order=1,
        label="l2, l1",
    ),
    Entry(
        feature_match,
        "features",
        PER_TOKEN,
        "mean_d rho(s_d - LN(t)_d)",
        "mean over the axis",
        features(
            TOKENS, TOKENS, normalise="layer_norm", sides="teacher", distance="smooth_l1", beta=2.0
        ),
        paper="Huang 2023, arXiv 2302.14771",
        equal_to=(("G2SD generic stage", "as in the label, beta=2"),),
        invariances="scale and shift of the teacher",
        order=1,
        label="layer_norm of the teacher, smooth_l1",
    ),
    Entry(
        hint,
        "features",
        PER_TOKEN,
        "mean_d (s_d - t_d)^2",
        'mean over the axis (or over="sum")',
        features(TOKENS, TOKENS),
        paper="Romero 2015, arXiv 1412.6550",
        equal_to=(
            ("RepDistiller HintLoss", ""),
            ("TextBrewer hid_mse_loss", "masked mean"),
            ("DistillKit hs_mse", "masked mean"),
            ("torchdistill FitNets, GHND", 'over="sum"'),
        ),
        zero_at_equality=True,
    ),
    Entry(
        smooth_l1,
        "features",
        PER_TOKEN,
        "mean_d (g^2 / 2b if |g| < b else |g| - b/2)",
        'mean over the axis (or over="sum")',
        features(TOKENS, TOKENS),
        paper="Girshick 2015, arXiv 1504.08083",
        equal_to=(("torch smooth_l1_loss", "beta"),),
        zero_at_equality=True,
        order=1,
    ),
    Entry(
        hidden_cosine,
        "features",
        PER_TOKEN,
        "1 - cos(s, t)",
        "none",
        features(TOKENS, TOKENS),
        paper="Sanh 2019, arXiv 1910.01108",
        equal_to=(("TextBrewer cos_loss", "masked mean"), ("DistillKit hs_cosine", "masked mean")),
        invariances="scale of either side",
        remarks="zero row: 1, gradient 0",
        zero_at_equality=True,
    ),
    Entry(
        pkd,
        "features",
        PER_TOKEN,
        "sum_d (s_d/|s| - t_d/|t|)^2",
        'sum over the axis (or over="mean")',
        features((4, 5), (4, 5)),
        paper="Sun 2019, arXiv 1908.09355",
        equal_to=(("TextBrewer pkd_loss", "on position 0"),),
        invariances="scale of either side",
        remarks="zero row: normalised to zero, gradient 0",
        zero_at_equality=True,
    ),
    Entry(
        factor_transfer,
        "features",
        PER_EXAMPLE,
        "mean_d |F_s/|F_s| - F_t/|F_t||^p",
        "mean over elements",
        features(MAPS, (4, 2, 2, 5), factors="mean_power"),
        paper="Kim 2018, arXiv 1802.04977",
        equal_to=(
            ("RepDistiller FactorTransfer", 'factors="mean_power"'),
            ("torchdistill FTLoss", 'factors="given"'),
        ),
        invariances="scale of either side",
        remarks="zero example: normalised to zero, gradient 0",
        order=1,
    ),
    Entry(
        kta,
        "features",
        PER_EXAMPLE,
        "mean_d |s/|s|_q - t/|t|_q| (p = 1), else the p-norm",
        "mean over elements for p = 1",
        features(SMALL, SMALL),
        paper="He 2019, arXiv 1903.04688",
        equal_to=(("torchdistill KTALoss", "p, q"),),
        invariances="scale of either side",
        remarks="zero example: normalised to zero, gradient 0",
        zero_at_equality=True,
        order=1,
    ),
    Entry(
        srrl,
        "features",
        PER_EXAMPLE,
        "a mean_c (f_s - f_t)^2 + b mean_k (h_t(f_s) - z_t)^2",
        "mean over channels, mean over classes",
        _pairs(SMALL, (4, 5)),
        paper="Yang 2021, ICLR",
        equal_to=(("cls_KD SRRLLoss", "feature_weight=alpha, logit_weight=beta"),),
        zero_at_equality=True,
    ),
    Entry(
        srd,
        "features",
        BATCH,
        "2 log(eps + sum |s - t|^a)",
        "none: the logarithm of a sum over the batch",
        features((4, 5), (4, 5)),
        paper="Miles 2024, arXiv 2303.11098",
        equal_to=(("torchdistill SRDLoss", "without its KL, epsilon=0"),),
        remarks="equality, nothing counted: 2 log eps, gradient 0",
        order=1,
    ),
    Entry(
        activation_boundary,
        "features",
        PER_EXAMPLE,
        "sum_d (s + m)^2 [t <= 0, s > -m] + (s - m)^2 [t > 0, s <= m]",
        "sum over elements",
        features(SMALL, SMALL),
        paper="Heo 2019, arXiv 1811.03233",
        equal_to=(
            ("torchdistill AltActTransferLoss", "mean"),
            ("RepDistiller ABLoss", "times 3/1000 2^(i - n + 1)"),
        ),
        invariances="positive scale of the teacher",
        order=1,
    ),
    Entry(
        overhaul,
        "features",
        PER_EXAMPLE,
        "sum_d (s - max(t, m))^2 [s > max(t, m) or t > 0]",
        "sum over elements",
        _margined,
        paper="Heo 2019, arXiv 1904.01866",
        equal_to=(("mdistiller OFD feat_loss", "mean"),),
        batched=(0, 1),
        zero_at_equality=True,
        order=1,
    ),
    Entry(
        review,
        "features",
        PER_EXAMPLE,
        "sum_i 2^-i mean (P_i s - P_i t)^2 / sum_i 2^-i",
        "mean over elements of each level",
        features(MAPS, MAPS),
        paper="Chen 2021, arXiv 2104.09044",
        equal_to=(
            ("mdistiller hcl_loss", "summed over stages"),
            ("torchdistill HierarchicalContextLoss", "sizes=output_sizes"),
        ),
        zero_at_equality=True,
    ),
    Entry(
        mgd,
        "features",
        PER_EXAMPLE,
        "sum_d (G(s) - t)_d^2",
        "sum over elements",
        features(SMALL, SMALL),
        paper="Yang 2022, arXiv 2205.01529",
        equal_to=(("cls_KD MGDLoss", "times 7e-5"),),
        zero_at_equality=True,
    ),
    Entry(
        vitkd,
        "features",
        PER_EXAMPLE,
        "a sum (s - t)^2 + b / rate sum m (g - h)^2",
        "sum over elements",
        _masked_vit,
        paper="Yang 2022, arXiv 2209.02432",
        equal_to=(("cls_KD ViTKDLoss", "mimic_weight=alpha, generation_weight=beta"),),
        zero_at_equality=True,
    ),
    Entry(
        vid,
        "features",
        PER_TOKEN,
        "1/2 mean_d (m - t)^2 / v + log v",
        "half, mean over channels",
        features(TOKENS, TOKENS, (5,)),
        paper="Ahn 2019, arXiv 1904.05835",
        equal_to=(("RepDistiller VIDLoss", ""), ("torchdistill VIDLoss", "")),
        student=(0, 2),
        batched=(0, 1),
    ),
    Entry(
        pad,
        "features",
        PER_TOKEN,
        "mean_d (t - s)^2 / (eps + e^v) + v",
        "mean over channels",
        features((4, 5), (4, 5), (4, 5)),
        paper="Zhang 2020, arXiv 2008.01458",
        equal_to=(("torchdistill PADL2Loss", ""),),
        student=(0, 2),
        remarks="log-variances are bounded above by nothing and below by eps",
    ),
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
            ("TextBrewer att_ce_loss", 'kind="cross_entropy", masking="after"'),
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
        equal_to=(("mdistiller nst_loss, RepDistiller NSTLoss", "summed over stages"),),
        invariances="scale of every channel",
        remarks="channel of zeros: zero, gradient 0",
    ),
    Entry(
        fsp,
        "features",
        PER_EXAMPLE,
        "mean_cd (G_s - G_t)^2, G = mean_p f g'",
        "mean over pairs of channels",
        _pairs(MAPS, (4, 2, 2, 5)),
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
        _pairs(TOKENS, TOKENS),
        paper="Yang 2020, arXiv 2002.12620",
        equal_to=(("TextBrewer mmd_loss", "sequences weighed by L^2"),),
        invariances="rotation of the width, of both layers together",
        zero_at_equality=True,
    ),
)
