"""Losses: pure functions of arrays."""

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
from jaxdistill.losses.logits import (
    cross_entropy,
    hinton_kd,
    logit_distance,
    logit_mse,
    soft_binary_cross_entropy,
    soft_cross_entropy,
    standardise,
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
from jaxdistill.losses.sparse import sparse_jsd, sparse_kl, sparse_total_variation
from jaxdistill.losses.temperatures import cwsm_temperature, flsw_temperature
from jaxdistill.losses.tokens import (
    hinge_ranking,
    logistic_ranking,
    minillm_advantages,
    minillm_single_step,
    universal_logit_distillation,
)
