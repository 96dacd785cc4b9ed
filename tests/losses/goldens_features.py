"""Golden cases of the losses on features and attention, written with ours.

Maps are NCHW there and channels last here; torch's convolution weights are OIHW.
"""

import jax
import jax.numpy as jnp

from jaxdistill.losses import logits
from jaxdistill.losses.activations import (
    activation_boundary,
    overhaul,
    review,
    review_enlarge,
    review_fuse,
)
from jaxdistill.losses.attention import (
    attention_kl,
    attention_mse,
    attention_transfer,
    qkv_relations,
)
from jaxdistill.losses.factors import factor_transfer, kta, srd, srrl
from jaxdistill.losses.features import feature_match, hidden_cosine, hint, pkd
from jaxdistill.losses.generative import mgd, pad, vid, vitkd
from jaxdistill.losses.grams import affinity, fsp, ickd, nst, token_gram
from jaxdistill.losses.numerics import HIGHEST


def _last(x):
    return jnp.moveaxis(x, 1, -1)


def _stages(x, side):
    return [_last(x[f"f_{side}{i}"]) for i in range(3) if f"f_{side}{i}" in x]


def _summed(loss, weight=lambda i, n: 1.0):
    def case(x):
        student, teacher = _stages(x, "s"), _stages(x, "t")
        size = len(student)
        pairs = enumerate(zip(student, teacher, strict=True))
        return sum(weight(i, size) * loss(s, t).mean() for i, (s, t) in pairs)

    return case


def _convolved(x, weight, bias=None):
    """A convolution of ``[B, H, W, C]`` by torch's weights, stride 1, same size."""
    out = jax.lax.conv_general_dilated(
        x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "OIHW", "NHWC"), precision=HIGHEST
    )
    return out if bias is None else out + bias.reshape(1, 1, 1, -1)


def _generated(x, maps):
    hidden = jax.nn.relu(_convolved(maps, x["gen1_weight"], x["gen1_bias"]))
    return _convolved(hidden, x["gen2_weight"], x["gen2_bias"])


def _mgd(x):
    aligned = _convolved(_last(x["f_s0"]), x["align_weight"], x["align_bias"])
    shown = _last((x["uniform"] >= 0.15).astype(aligned.dtype))
    return 7e-5 * mgd(_generated(x, aligned * shown), _last(x["f_t0"])).mean()


def _vitkd(x):
    high = x["high_s"]
    batch, tokens, width = high.shape
    order = jnp.argsort(x["uniform"], axis=1)
    hidden = jnp.argsort(order, axis=1) >= int(tokens * 0.5)
    masked = jnp.where(hidden[..., None], x["mask_token"], high)
    side = int(tokens**0.5)
    made = _generated(x, masked.reshape(batch, side, side, width)).reshape(high.shape)
    return vitkd((x["low_s"], made), (x["low_t"], x["high_t"]), hidden).mean()


def _tinybert(x):
    def scores(side, index):  # it takes what is ruled out for 0 on both sides
        found = x[f"a_{side}{index}"]
        return jnp.where(found <= -100, 0, found)

    att = sum(attention_mse(scores("s", i), scores("t", 2 * i + 1)).mean() for i in range(2))
    rep = sum(feature_match(x[f"h_s{i}"], x[f"h_t{2 * i}"]).mean() for i in range(3))
    return att + rep


def _vid(x):
    mean = _last(x["f_s0"])
    for i in range(3):
        mean = _convolved(mean if i == 0 else jax.nn.relu(mean), x[f"w{i}"])
    return vid(mean, _last(x["f_t0"]), x["log_scale"]).mean()


def _normalised(x):
    """Batch normalisation in training, scale one and bias zero."""
    centred = x - x.mean((0, 1, 2), keepdims=True)
    return centred / jnp.sqrt((centred**2).mean((0, 1, 2), keepdims=True) + 1e-5)


def _abf(x):
    own = _normalised(_convolved(_last(x["x"]), x["conv1_weight"]))
    residual = _last(x["residual"])
    both = jnp.concatenate([own, review_enlarge(residual, 4, 4)], axis=-1)
    gates = jax.nn.sigmoid(_convolved(both, x["att_weight"], x["att_bias"]))
    fused = review_fuse(own, residual, gates)
    out = _normalised(_convolved(fused, x["conv2_weight"]))
    return {"y": jnp.moveaxis(out, -1, 1), "x": jnp.moveaxis(fused, -1, 1)}


def _fsp_stages(**options):
    def case(x):
        student, teacher = _stages(x, "s"), _stages(x, "t")
        steps = range(len(student) - 1)
        return sum(
            fsp(tuple(student[i : i + 2]), tuple(teacher[i : i + 2]), **options).mean()
            for i in steps
        )

    return case


def _srd(x):
    hinton = logits.hinton_kd(x["logits_s"], x["logits_t"]).mean()
    return srd(x["f_s"], x["f_t"], epsilon=0.0) + hinton


def _hidden(loss):
    def case(x):
        mask = x["mask"].astype(x["h_s"].dtype)
        return jnp.sum(loss(x["h_s"], x["h_t"]) * mask) / jnp.sum(mask)

    return case


def _pair(x, side):
    return x[f"h_{side}0"], x[f"h_{side}1"]


def _by_square_length(values, mask):
    """The mean in which a sequence weighs as many pairs of tokens as it has."""
    weight = mask.astype(values.dtype).sum(1) ** 2
    return jnp.sum(values * weight) / jnp.sum(weight)


def _attention_mse(heads):
    def case(x):
        values = attention_mse(x["a_s"], x["a_t"], mask=x["mask"], heads=heads)
        return _by_square_length(values, x["mask"])

    return case


def _attention_ce(heads):
    def case(x):
        options = {"heads": heads, "kind": "cross_entropy", "masking": "after"}
        values = attention_kl(x["a_s"], x["a_t"], mask=x["mask"], **options)
        return values.sum() / x["mask"].astype(values.dtype).sum()

    return case


def _relations(x):
    """All nine relations of two layers, in three heads; ours read the fused projection of one."""
    nine = [a + b for a in "qkv" for b in "qkv"]
    values = []
    for layer in range(2):
        student, teacher = (
            jnp.concatenate([x[f"{side}_{part}{layer}"] for part in "qkv"], -1) for side in "st"
        )
        values.append(qkv_relations(student, teacher, heads=3, relations=nine).mean())
    return sum(values) / 2


CASES = {
    "tinybert_hidden": _tinybert,
    "relations_g2sd": _relations,
    "smooth_l1_ln_target_g2sd": lambda x: feature_match(
        x["pred"],
        x["teacher"],
        normalise="layer_norm",
        sides="teacher",
        distance="smooth_l1",
        beta=2.0,
    ).mean(),
    "hint_repdistiller": lambda x: hint(x["f_s"], x["f_t"]).mean(),
    "hidden_mse_distillkit": _hidden(hint),
    "hid_mse_loss_textbrewer": _hidden(hint),
    "hidden_cosine_distillkit": _hidden(hidden_cosine),
    "cos_loss_textbrewer": _hidden(hidden_cosine),
    "pkd_loss_textbrewer": lambda x: pkd(x["h_s"][:, 0], x["h_t"][:, 0]).mean(),
    "at_mdistiller_p2": _summed(attention_transfer),
    "at_resize_mdistiller": _summed(attention_transfer),
    "at_torchdistill_code": _summed(attention_transfer),
    "at_torchdistill_paper": _summed(lambda s, t: attention_transfer(s, t, form="norm")),
    "att_mse_loss_textbrewer": _attention_mse("separate"),
    "att_mse_sum_loss_textbrewer": _attention_mse("sum"),
    "att_ce_loss_textbrewer": _attention_ce("separate"),
    "att_ce_mean_loss_textbrewer": _attention_ce("mean"),
    "ab_repdistiller": _summed(activation_boundary, lambda i, n: 3 / 1000 * 2.0 ** (i - n + 1)),
    "dab_torchdistill": _summed(activation_boundary),
    "ft_repdistiller": _summed(lambda s, t: factor_transfer(s, t, factors="mean_power")),
    "ft_torchdistill": _summed(factor_transfer),
    "kta_torchdistill": _summed(kta),
    "affinity_torchdistill": _summed(affinity),
    "ofd_mdistiller": lambda x: overhaul(
        _last(x["f_s0"]), _last(x["f_t0"]), x["margin"].reshape(-1)
    ).mean(),
    "reviewkd_hcl_mdistiller": _summed(review),
    "reviewkd_abf_mdistiller": _abf,
    "mgd_clskd": _mgd,
    "vitkd_clskd": _vitkd,
    "srrl_clskd": lambda x: srrl(
        (_last(x["f_s"]), x["logits_st"]), (_last(x["f_t"]), x["logits_t"])
    ).mean(),
    "vid_repdistiller": _vid,
    "pad_l2_torchdistill": lambda x: pad(x["f_s"], x["f_t"], x["log_var"]).mean(),
    "srd_torchdistill": _srd,
    "ickd_torchdistill": lambda x: _summed(ickd)(x) / x["f_s0"].shape[0],
    "nst_mdistiller": _summed(nst),
    "nst_repdistiller": _summed(nst),
    "fsp_repdistiller": _fsp_stages(),
    "fsp_torchdistill": _fsp_stages(form="column_norm", pooling="max"),
    "fsp_loss_textbrewer": lambda x: fsp(_pair(x, "s"), _pair(x, "t"), mask=x["mask"]).mean(),
    "mmd_loss_textbrewer": lambda x: _by_square_length(
        token_gram(_pair(x, "s"), _pair(x, "t"), mask=x["mask"]), x["mask"]
    ),
}

LEFT_OUT = {
    "at_kdlib": "leaves out the sum over channels, so that it compares features, not attention",
    "dist_plus_torchdistill": "adds the correlation of channels where it should take it from one",
}
