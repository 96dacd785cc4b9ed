"""The cards of the losses on features and stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.losses._entry import BATCH, PER_EXAMPLE, PER_TOKEN, Entry, features
from jaxdistill.losses.activations import activation_boundary, overhaul, review
from jaxdistill.losses.factors import factor_transfer, kta, srd, srrl
from jaxdistill.losses.features import feature_match, hidden_cosine, hint, pkd, smooth_l1
from jaxdistill.losses.generative import mgd, pad, vid, vitkd
from jaxdistill.losses.grids import grid_cosine, grid_similarity
from jaxdistill.losses.kd3 import class_weighted_match

TOKENS = (4, 3, 5)
MAPS = (4, 4, 4, 3)
SMALL = (4, 2, 2, 3)


def layers(
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


def _margined(key: jax.Array, dtype: Any) -> tuple[tuple, dict]:
    args, kwargs = features(SMALL, SMALL)(key, dtype)
    return (*args, jnp.asarray([-0.9, -0.5, -0.2], dtype)), kwargs


def _masked_vit(key: jax.Array, dtype: Any) -> tuple[tuple, dict]:
    (student, teacher), kwargs = layers((4, 2, 3, 5), TOKENS)(key, dtype)
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
        layers(SMALL, (4, 5)),
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
        remarks="equality: 2 log eps, gradient 0",
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
            ("RepDistiller ABLoss", "mean; sum over n stages times 3/1000 2^(i - n + 1)"),
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
        grid_similarity,
        "features",
        PER_EXAMPLE,
        "mean_pq (cos(s_p, s_q) - cos(t_p, t_q))^2",
        "mean over pairs of places of the smaller grid",
        features((4, 4, 4, 3), (4, 9, 5)),
        paper="Liu 2019, arXiv 1903.04197",
        invariances="scale and rotation of either side",
        remarks="place of zeros: cosine 0, gradient 0",
        zero_at_equality=True,
    ),
    Entry(
        grid_cosine,
        "features",
        PER_EXAMPLE,
        "mean_p 1 - cos(s_p, t_p)",
        "mean over places of the smaller grid",
        features((4, 4, 4, 3), (4, 9, 3)),
        paper="Wei 2022, arXiv 2205.14141",
        invariances="scale of either side",
        remarks="place of zeros: cosine 0, gradient 0",
        zero_at_equality=True,
    ),
    Entry(
        class_weighted_match,
        "features",
        PER_EXAMPLE,
        "sum_d a_kd (s_d - t_d)^2, a_k = softmax |W_k|",
        "weights of sum 1",
        features((4, 5), (4, 5), (4, 3), (4, 3), (5, 3)),
        paper="Tang 2023, ICCV",
        invariances="shift of both features",
        zero_at_equality=True,
        batched=(0, 1, 2, 3),
    ),
)
