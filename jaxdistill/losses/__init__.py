"""Losses: pure functions of arrays, for any training code.

Every loss is called as ``loss(student, teacher, [labels,] *, hyper_parameters)``, computes in
float32 or wider, stops no gradient that its formula does not stop, and returns

- one value per example or per token, not reduced, or
- one scalar, if its value belongs to the batch as a whole. It then takes ``where`` (``[B]``, true
  where an example counts), so that padding never enters it, and means the global batch on any mesh.

NaN in a row that counts shows in the value; what is masked reaches neither value nor gradient
(:func:`masked` for losses per example); a label that is no class gives 0; an empty batch is a
ValueError.

A divergence between softened outputs is multiplied by the square of its temperature, always. Hard
inputs (saturated logits, zero rows, equal inputs, a batch of one, nothing that counts) give the
finite value and gradient that the docstring states. :func:`catalogue` lists every loss with what it
declares; ``docs/losses.md`` is written from it, and :mod:`jaxdistill.testing` holds every loss to
it.
"""

from __future__ import annotations

from jaxdistill.losses._chunks import Chunks
from jaxdistill.losses._entry import Entry
from jaxdistill.losses.activations import (
    activation_boundary,
    overhaul,
    overhaul_margin,
    review,
    review_enlarge,
    review_fuse,
)
from jaxdistill.losses.attention import (
    attention_kl,
    attention_mse,
    attention_transfer,
    qkv_relations,
    relation_scores,
)
from jaxdistill.losses.contrastive import clip, hinge_rank, info_nce, nt_xent, queue_similarity
from jaxdistill.losses.correlations import correlation_congruence, neighbour_correlation
from jaxdistill.losses.crd import Bank, crd, crd_bank, crd_calibrate, crd_negatives, crd_update
from jaxdistill.losses.divergences import (
    forward_kl,
    generalized_jsd,
    jensen_shannon,
    reverse_kl,
    skewed_forward_kl,
    skewed_reverse_kl,
    symmetric_kl,
    total_variation,
)
from jaxdistill.losses.factors import factor_transfer, kta, srd, srrl
from jaxdistill.losses.features import (
    feature_match,
    hidden_cosine,
    hint,
    layer_normalise,
    pkd,
    smooth_l1,
)
from jaxdistill.losses.fused import linear_divergence
from jaxdistill.losses.fused_sparse import linear_sparse_kl
from jaxdistill.losses.generative import channel_mask, mgd, pad, vid, vitkd
from jaxdistill.losses.grams import affinity, fsp, fsp_matrix, ickd, nst, token_gram
from jaxdistill.losses.grids import grid_cosine, grid_similarity, token_grid
from jaxdistill.losses.hard import hard_kd
from jaxdistill.losses.information import (
    barber_agakov_bound,
    info_nce_bound,
    jensen_shannon_bound,
    jensen_shannon_objective,
    leave_one_out_bound,
    mi_alpha_bound,
    nwj_bound,
    tuba_bound,
)
from jaxdistill.losses.kd3 import class_weighted_match, shifted_contrast
from jaxdistill.losses.kernels import cka, cka_similarity, mmd
from jaxdistill.losses.layers import layer_map, transport_masses, transport_plan
from jaxdistill.losses.logits import (
    cross_entropy,
    hinton_kd,
    logit_distance,
    logit_mse,
    soft_binary_cross_entropy,
    soft_cross_entropy,
    standardise,
    standardised_cross_entropy,
    standardised_kd,
    top_k_agreement,
)
from jaxdistill.losses.logits_batch import (
    batch_correlation,
    class_correlation,
    direction_skd,
    dist,
    universal_self_kd,
)
from jaxdistill.losses.logits_labelled import (
    decoupled_kd,
    minifinetuning,
    normalised_kd,
    one_for_all,
    weighted_soft_labels,
)
from jaxdistill.losses.masking import masked
from jaxdistill.losses.preferences import dpo, group_advantages, policy_gradient, rrhf
from jaxdistill.losses.probabilities import brier_score, probability_distance
from jaxdistill.losses.relations import (
    pkt,
    rkd,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
)
from jaxdistill.losses.sparse import sparse_jsd, sparse_kl, sparse_total_variation
from jaxdistill.losses.sskd import sskd_pretext, sskd_similarity, sskd_transformed
from jaxdistill.losses.temperatures import cwsm_temperature, flsw_temperature
from jaxdistill.losses.tokens import (
    hinge_ranking,
    logistic_ranking,
    minillm_advantages,
    minillm_single_step,
    universal_logit_distillation,
)

NOT_LOSSES = (
    "Bank",
    "Chunks",
    "channel_mask",
    "cka_similarity",
    "crd_bank",
    "crd_calibrate",
    "crd_negatives",
    "crd_update",
    "cwsm_temperature",
    "flsw_temperature",
    "fsp_matrix",
    "group_advantages",
    "layer_map",
    "layer_normalise",
    "masked",
    "minillm_advantages",
    "overhaul_margin",
    "relation_scores",
    "review_enlarge",
    "review_fuse",
    "standardise",
    "token_grid",
    "top_k_agreement",
    "transport_masses",
    "transport_plan",
)
"""Public, but no losses: transforms, weights and measures that losses are used with."""

FUSED = ("linear_divergence", "linear_sparse_kl")
"""Losses that sum over tokens from hidden states; they have a test suite of their own."""


def catalogue() -> tuple[Entry, ...]:
    """Every loss (the fused ones aside), with all that it declares.

    Example:
        >>> [entry.formula for entry in catalogue() if entry.name == "hinton_kd"]
        ['T^2 KL(t || s)']
    """
    from jaxdistill.losses import (
        _catalogue_attention,
        _catalogue_divergences,
        _catalogue_features,
        _catalogue_information,
        _catalogue_logits,
        _catalogue_relations,
        logits_batch,
        logits_labelled,
        preferences,
        sparse,
        tokens,
    )

    modules = (
        _catalogue_logits,
        logits_labelled,
        logits_batch,
        _catalogue_divergences,
        sparse,
        tokens,
        preferences,
        _catalogue_features,
        _catalogue_attention,
        _catalogue_relations,
        _catalogue_information,
    )
    return tuple(entry for module in modules for entry in module.CATALOGUE)


__all__ = [
    "FUSED",
    "NOT_LOSSES",
    "Bank",
    "Chunks",
    "Entry",
    "activation_boundary",
    "affinity",
    "attention_kl",
    "attention_mse",
    "attention_transfer",
    "barber_agakov_bound",
    "batch_correlation",
    "brier_score",
    "catalogue",
    "channel_mask",
    "cka",
    "cka_similarity",
    "class_correlation",
    "class_weighted_match",
    "clip",
    "correlation_congruence",
    "crd",
    "crd_bank",
    "crd_calibrate",
    "crd_negatives",
    "crd_update",
    "cross_entropy",
    "cwsm_temperature",
    "decoupled_kd",
    "direction_skd",
    "dist",
    "dpo",
    "factor_transfer",
    "feature_match",
    "flsw_temperature",
    "forward_kl",
    "fsp",
    "fsp_matrix",
    "generalized_jsd",
    "grid_cosine",
    "grid_similarity",
    "group_advantages",
    "hard_kd",
    "hidden_cosine",
    "hinge_rank",
    "hinge_ranking",
    "hint",
    "hinton_kd",
    "ickd",
    "info_nce",
    "info_nce_bound",
    "jensen_shannon",
    "jensen_shannon_bound",
    "jensen_shannon_objective",
    "kta",
    "layer_map",
    "layer_normalise",
    "leave_one_out_bound",
    "linear_divergence",
    "linear_sparse_kl",
    "logistic_ranking",
    "logit_distance",
    "logit_mse",
    "masked",
    "mgd",
    "mi_alpha_bound",
    "minifinetuning",
    "minillm_advantages",
    "minillm_single_step",
    "mmd",
    "neighbour_correlation",
    "normalised_kd",
    "nst",
    "nt_xent",
    "nwj_bound",
    "one_for_all",
    "overhaul",
    "overhaul_margin",
    "pad",
    "pkd",
    "pkt",
    "policy_gradient",
    "probability_distance",
    "qkv_relations",
    "queue_similarity",
    "relation_scores",
    "reverse_kl",
    "review",
    "review_enlarge",
    "review_fuse",
    "rkd",
    "rkd_angle",
    "rkd_distance",
    "rrhf",
    "shifted_contrast",
    "similarity_preserving",
    "skewed_forward_kl",
    "skewed_reverse_kl",
    "smooth_l1",
    "soft_binary_cross_entropy",
    "soft_cross_entropy",
    "sparse_jsd",
    "sparse_kl",
    "sparse_total_variation",
    "srd",
    "srrl",
    "sskd_pretext",
    "sskd_similarity",
    "sskd_transformed",
    "standardise",
    "standardised_cross_entropy",
    "standardised_kd",
    "symmetric_kl",
    "token_gram",
    "token_grid",
    "top_k_agreement",
    "total_variation",
    "transport_masses",
    "transport_plan",
    "tuba_bound",
    "universal_logit_distillation",
    "universal_self_kd",
    "vid",
    "vitkd",
    "weighted_soft_labels",
]
