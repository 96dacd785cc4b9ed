"""Golden cases of the losses on tokens: how each public function is written with ours."""

import jax.numpy as jnp

from jaxdistill import losses
from jaxdistill.losses import numerics as n


def _token_mean(values, x):
    return n.masked_mean(values, x["labels"] != -100)


def _token_sum(values, x):
    return n.masked_sum(values, x["mask"])


def _both(x):
    return x["logits_s"], x["logits_t"]


def _entropy(x):
    return n.entropy(n.log_softmax(x["logits_t"]))


def _gkd(beta, temperature):
    return lambda x: _token_mean(
        losses.generalized_jsd(*_both(x), beta=beta, temperature=temperature) / temperature**2, x
    )


def _dense(loss):
    return lambda x: _token_sum(loss(*_both(x), temperature=2.0) / 4, x)


def _sparse(loss, missing, temperature):
    return lambda x: _token_sum(
        loss(x["logits_s"], x["ids"], x["logp_t"], missing=missing, temperature=temperature)
        / temperature**2,
        x,
    )


def _distillm(loss):
    return lambda x: _token_mean(loss(x), x)


def _advantages(x, normalised):
    return losses.minillm_advantages(
        x["logp_s"],
        x["logp_t"],
        discount=0.9,
        length_normalised=normalised,
        masked_length=1e-4,
        where=x["mask"] != 0,
    )


def _from_the_start(x):
    steps = jnp.arange(x["logp_s"].shape[1]).astype(x["logp_s"].dtype)
    return _advantages(x, False) * (0.9**steps)[None]


CASES = {
    **{
        f"gkd_jsd_trl_beta{beta}_T{temperature}": _gkd(float(beta), float(temperature))
        for beta in ("0", "0.1", "0.5", "0.9", "1")
        for temperature in (1, 2)
    },
    "forward_kl_distillm": _distillm(lambda x: losses.forward_kl(*_both(x)) + _entropy(x)),
    "reverse_kl_distillm": _distillm(lambda x: losses.reverse_kl(*_both(x))),
    "symmetric_kl_distillm_lam0.9": _distillm(
        lambda x: losses.symmetric_kl(*_both(x), reverse_weight=0.9) + 0.1 * _entropy(x)
    ),
    "js_distance_distillm_lam0.9": _distillm(lambda x: losses.generalized_jsd(*_both(x), beta=0.1)),
    "js_distance_distillm_lam0.5": _distillm(lambda x: losses.jensen_shannon(*_both(x))),
    "tv_distance_distillm": _distillm(lambda x: losses.total_variation(*_both(x))),
    "skewed_forward_kl_distillm_lam0.1": _distillm(
        lambda x: losses.skewed_forward_kl(*_both(x), skew=0.1) + _entropy(x)
    ),
    "skewed_reverse_kl_distillm_lam0.1": _distillm(
        lambda x: losses.skewed_reverse_kl(*_both(x), skew=0.1)
    ),
    "dense_kl_div_distillkit_T2": _dense(losses.forward_kl),
    "dense_js_div_distillkit_T2": _dense(losses.jensen_shannon),
    "dense_tvd_distillkit_T2": _dense(losses.total_variation),
    **{
        f"sparse_{theirs}_distillkit_{rule}_T{temperature}": _sparse(
            ours, missing, float(temperature)
        )
        for theirs, ours in (
            ("kl_div", losses.sparse_kl),
            ("js_div", losses.sparse_jsd),
            ("tvd", losses.sparse_total_variation),
        )
        for rule, missing in (("zero", "zero"), ("symmetric_uniform", "tail"))
        for temperature in (1, 2)
    },
    "sparse_hinge_distillkit": lambda x: n.masked_mean(
        losses.hinge_ranking(x["logits_s"], x["ids"], x["logp_t"]), x["mask"]
    ),
    "sparse_logistic_ranking_distillkit": lambda x: n.masked_mean(
        losses.logistic_ranking(x["logits_s"], x["ids"], x["logp_t"]), x["mask"]
    ),
    "minillm_single_step_trl": lambda x: n.masked_mean(
        losses.minillm_single_step(x["logp_s"], x["logp_t"]), x["mask"]
    ),
    "minillm_advantage_trl_norm": lambda x: {"advantage": _advantages(x, True)},
    "minillm_advantage_trl_sum": lambda x: {"advantage": _from_the_start(x)},
}

FLOAT32_INSIDE = {name for name in CASES if "distillm" in name or "distillkit" in name}

LEFT_OUT = {}
