"""Golden cases of the relational and contrastive losses, written with ours."""

import jax.numpy as jnp

from jaxdistill.losses import logits
from jaxdistill.losses.correlations import correlation_congruence, neighbour_correlation
from jaxdistill.losses.crd import Bank, crd, crd_calibrate, crd_update
from jaxdistill.losses.kernels import cka
from jaxdistill.losses.numerics import matmul
from jaxdistill.losses.relations import (
    pkt,
    rkd,
    similarity_preserving,
)
from jaxdistill.losses.sskd import sskd_pretext, sskd_similarity, sskd_transformed


def _both(x):
    return x["f_s"], x["f_t"]


def _rkd(distance, angle):
    return lambda x: rkd(*_both(x), distance_weight=distance, angle_weight=angle)


def _crd(x):
    def embedded(side):
        raw = matmul(x[f"f_{side}"], x[f"embed_{side}_weight"].T) + x[f"embed_{side}_bias"][None]
        return raw / jnp.sqrt(jnp.sum(raw**2, axis=1, keepdims=True))

    student, teacher = embedded("s"), embedded("t")
    start = jnp.zeros(2, student.dtype), jnp.zeros((), bool)
    bank = Bank(x["memory_v1"], x["memory_v2"], *start)
    bank = crd_calibrate(bank, student, teacher, x["contrast_idx"])
    value = crd(student, teacher, bank, x["contrast_idx"]).mean()
    after = crd_update(bank, student, teacher, x["idx"])
    z = jnp.exp(bank.log_z)
    return {
        "loss": value,
        "memory_v1_after": after.student,
        "memory_v2_after": after.teacher,
        "Z_v1": z[0],
        "Z_v2": z[1],
    }


def _sskd(x):
    student, teacher = x["logits_s"], x["logits_t"]
    plain = slice(0, None, 4)
    hard = logits.cross_entropy(student[plain], x["target"]).mean()
    soft = logits.hinton_kd(student[plain], teacher[plain], temperature=4.0).mean()
    seen = sskd_similarity(x["ss_s"], x["ss_t"], temperature=0.5, keep_wrong=0.75)
    moved = sskd_transformed(student, teacher, x["target"], temperature=4.0, keep_wrong=1.0)
    return hard + 0.9 * soft + 10 * seen + 2.7 * moved


CASES = {
    "rkd_mdistiller": _rkd(25, 50),
    "rkd_distance_only_mdistiller": _rkd(1, 0),
    "rkd_angle_only_mdistiller": _rkd(0, 1),
    "rkd_repdistiller": _rkd(25, 50),
    "rkd_torchdistill": _rkd(1, 2),
    "rkd_kdlib": lambda x: rkd(*_both(x), distance_weight=0.5, angle_weight=0.5, epsilon=1e-7),
    "pkt_mdistiller": lambda x: pkt(*_both(x)),
    "pkt_torchdistill": lambda x: pkt(*_both(x)),
    "cc_repdistiller": lambda x: neighbour_correlation(*_both(x)),
    "cckd_bilinear_torchdistill": lambda x: correlation_congruence(*_both(x), kernel="bilinear"),
    "cckd_gaussian_torchdistill": lambda x: correlation_congruence(*_both(x)),
    "sp_mdistiller": lambda x: similarity_preserving(x["f_s0"], x["f_t0"]),
    "cka_linear_own_reference": lambda x: cka(*_both(x)),
    "cka_rbf_own_reference": lambda x: cka(*_both(x), kernel="rbf", bandwidth=4.0),
    "crd_repdistiller": _crd,
    "sskd_stage1_torchdistill": lambda x: sskd_pretext(x["ss_t"]),
    "sskd_stage2_torchdistill": _sskd,
}

LEFT_OUT = {
    "sp_torchdistill": "divides rows of the Gram matrix by their L1 norm: a slip, the paper has L2",
}
