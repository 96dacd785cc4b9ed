"""Golden cases of the losses on logits: how each public function is written with ours."""

import jax
import jax.numpy as jnp

from jaxdistill import losses
from jaxdistill.losses import numerics as n


def _both(x):
    return x["logits_s"], x["logits_t"]


def _all(x):
    return x["logits_s"], x["logits_t"], x["target"]


def _teacher_entropy(x, temperature=1.0):
    return n.entropy(n.log_softmax(x["logits_t"], temperature))


def _hard(x, smoothing=0.0):
    s, t = _both(x)
    classes = s.shape[-1]
    labels = jnp.argmax(t, axis=-1).astype(jnp.int32)
    value = losses.cross_entropy(s, labels, label_smoothing=smoothing * classes / (classes - 1))
    if smoothing:
        rest = smoothing / (classes - 1)
        value += (1 - smoothing) * jnp.log(1 - smoothing) + smoothing * jnp.log(rest)
    return value


def _tunix(x, top):
    s, t, labels = _all(x)
    if top:
        ids = jnp.argsort(t, axis=-1, descending=True)[..., :top].astype(jnp.int32)
        known = jnp.take_along_axis(n.log_softmax(t), ids, axis=-1)
        kd = losses.sparse_kl(s, ids, known, missing="renormalise", temperature=2.0)
    else:
        kd = losses.hinton_kd(s, t, temperature=2.0)
    return 0.5 * kd.mean() + 0.5 * losses.cross_entropy(s, labels).mean()


def _dse(x):
    soft = losses.logit_mse(x["z_s"], x["z_t"]).mean() * x["z_s"].shape[-1]
    task = losses.cross_entropy(x["z_s"], x["y"]).mean()
    return 0.5 * task + 0.5 * soft


def _uskd(x):
    weak = n.matmul(x["feature"], x["fc_weight"].T) + x["fc_bias"][None]
    return losses.universal_self_kd(
        x["logits_s"],
        weak,
        x["target"],
        target_weight=1.0,
        non_target_weight=0.1,
        weak_weight=0.005,
    )


def _mixstd(x):
    # As published no term has a temperature, and the sum of the two is what is descended.
    labels = losses.standardised_cross_entropy(x["logits_s"], x["target"], epsilon=0.0).mean()
    soft = losses.standardised_kd(*_both(x), epsilon=0.0).mean()
    parts = {"loss_cls": 0.1 * labels, "loss_div": 0.9 * soft}
    return {"loss": sum(parts.values()), **jax.lax.stop_gradient(parts)}


def _hinton(temperature):
    return lambda x: losses.hinton_kd(*_both(x), temperature=temperature).mean()


def _decoupled(temperature, target, other):
    return lambda x: losses.decoupled_kd(
        *_all(x), temperature=temperature, target_weight=target, non_target_weight=other
    ).mean()


def _ofa_stages(x):
    heads = [x[f"stage{i}"] for i in range(3)]
    args = x["logits_t"], x["target"]
    stages = [
        losses.one_for_all(z, *args, exponent=e).mean() for z, e in zip(heads, EPS, strict=False)
    ]
    last = losses.one_for_all(x["logits_s"], *args, exponent=EPS[-1]).mean()
    # The gradients are those of the whole loss alone.
    parts = jax.lax.stop_gradient({"stage_losses": jnp.stack(stages), "loss_kd": last})
    return {"loss": sum(stages) + last, **parts}


EPS = (1.0, 1.2, 1.5, 1.5)

CASES = {
    "mixstd_mixkd": _mixstd,
    "kd_mdistiller_T1": _hinton(1.0),
    "kd_mdistiller_T4": _hinton(4.0),
    "kd_repdistiller_T4": _hinton(4.0),
    "kd_modelopt_T4": _hinton(4.0),
    "skd_instance_torchdistill": lambda x: _hinton(4.0)(x) / 16,
    "kd_torchdistill_total_T4": lambda x: (
        0.1 * losses.cross_entropy(x["logits_s"], x["target"]).mean() + 0.9 * _hinton(4.0)(x)
    ),
    "kd_ce_form_clskd": lambda x: 0.5 * (_hinton(4.0)(x) + 16 * _teacher_entropy(x, 4.0).mean()),
    "kd_ce_textbrewer_T4": lambda x: losses.soft_cross_entropy(
        x["logits_s"] / 4, jnp.exp(n.log_softmax(x["logits_t"], 4.0))
    ).mean(),
    "kd_mse_textbrewer_T4": lambda x: losses.logit_mse(*_both(x)).mean() / 16,
    "dkd_mdistiller": _decoupled(4.0, 1.0, 8.0),
    "dkd_mdistiller_T1_tckd_only": _decoupled(1.0, 1.0, 0.0),
    "dkd_clskd": _decoupled(4.0, 1.0, 6.0),
    "logit_std_kd_original": lambda x: losses.standardised_kd(*_both(x), temperature=2.0).mean(),
    "logit_std_kd_torchdistill": lambda x: (
        0.1 * losses.cross_entropy(x["logits_s"], x["target"]).mean()
        + 9.0 * losses.standardised_kd(*_both(x), temperature=2.0).mean()
    ),
    "dist_torchdistill": lambda x: losses.dist(
        *_both(x), temperature=4.0, inter_weight=1.0, intra_weight=2.0, epsilon=0.0
    ),
    "dist_hunto_tau1": lambda x: losses.dist(
        *_both(x), temperature=1.0, inter_weight=2.0, intra_weight=2.0
    ),
    "dist_hunto_tau4": lambda x: losses.dist(
        *_both(x), temperature=4.0, inter_weight=2.0, intra_weight=2.0
    ),
    "skd_direction_torchdistill": lambda x: losses.direction_skd(*_both(x), regulariser=0.1),
    "mlkd_cc": lambda x: losses.class_correlation(*_both(x), temperature=4.0) / 16,
    "mlkd_bc": lambda x: losses.batch_correlation(*_both(x), temperature=4.0) / 16,
    "nkd_clskd": lambda x: losses.normalised_kd(
        *_all(x), temperature=2.0, non_target_weight=1.5
    ).mean(),
    "nkd_g2sd": lambda x: losses.normalised_kd(
        x["logits_s"], x["logits_t"], x["label"], non_target_weight=1.0
    ).mean(),
    "wsld_clskd": lambda x: 2.25 * losses.weighted_soft_labels(*_all(x), temperature=4.0).mean(),
    "uskd_clskd": _uskd,
    "dse_logits": _dse,
    "tinybert_soft_ce": lambda x: (
        losses.soft_cross_entropy(x["z_s"], jnp.exp(n.log_softmax(x["z_t"]))).mean()
        / x["z_s"].shape[-1]
    ),
    "ofa_stages": _ofa_stages,
    "ofa_eps1": lambda x: losses.one_for_all(*_all(x), exponent=1.0).mean(),
    "ofa_eps1.5": lambda x: losses.one_for_all(*_all(x), exponent=1.5).mean(),
    "mft_modelopt": lambda x: losses.minifinetuning(
        *_all(x), temperature=2.0, threshold=0.2
    ).mean(),
    "temperature_flsw_textbrewer": lambda x: {
        "temperature": losses.flsw_temperature(*_both(x), base_temperature=4.0)
    },
    "temperature_cwsm_textbrewer": lambda x: {
        "temperature": losses.cwsm_temperature(x["logits_s"], base_temperature=4.0)
    },
    "dist_euclidean_bigvision": lambda x: losses.logit_distance(*_both(x)),
    "dist_l2_bigvision": lambda x: losses.logit_mse(*_both(x)) * x["logits_s"].shape[-1],
    "dist_hard_bigvision": _hard,
    "dist_hard_ls0.1_bigvision": lambda x: _hard(x, 0.1),
    "dist_kl_bigvision": lambda x: losses.hinton_kd(*_both(x)),
    "dist_kl_t2_bigvision": lambda x: losses.hinton_kd(*_both(x), temperature=2.0),
    "dist_logsoftmax_euclidean_bigvision": lambda x: losses.logit_distance(
        *_both(x), log_probabilities=True
    ),
    "dist_agree_k1_bigvision": lambda x: losses.top_k_agreement(*_both(x), k=1),
    "dist_agree_k3_bigvision": lambda x: losses.top_k_agreement(*_both(x), k=3),
    "logit_strategy_topk0_tunix": lambda x: _tunix(x, 0),
    "logit_strategy_topk4_tunix": lambda x: _tunix(x, 4),
}

FLOAT32_INSIDE = {
    "dist_hard_ls0.1_bigvision",  # its one-hot labels
    "logit_strategy_topk0_tunix",
    "logit_strategy_topk4_tunix",
}

LEFT_OUT = {
    "kd_torchdistill_soft_only_T4": "torchdistill drops the factor T^2 when its alpha is 0 or "
    "None; the value is ours divided by 16",
}
