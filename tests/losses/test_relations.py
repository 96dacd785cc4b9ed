"""What the relational, contrastive and information losses do beyond the contract of all losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.losses import relations
from jaxdistill.losses.contrastive import hinge_rank, info_nce, nt_xent
from jaxdistill.losses.correlations import correlation_congruence, neighbour_correlation
from jaxdistill.losses.crd import crd, crd_bank, crd_calibrate, crd_negatives, crd_update
from jaxdistill.losses.information import (
    leave_one_out_bound,
    mi_alpha_bound,
    nwj_bound,
    tuba_bound,
)
from jaxdistill.losses.kernels import cka, cka_similarity, mmd
from jaxdistill.losses.relations import (
    pkt,
    rkd,
    rkd_angle,
    similarity_preserving,
)
from jaxdistill.losses.sskd import sskd_pretext, sskd_similarity, sskd_transformed

HOLES = jnp.array([True, False, True, True, False, True, True])


def _normal(seed, *shapes):
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


@pytest.mark.parametrize(
    "loss",
    [
        rkd,
        pkt,
        similarity_preserving,
        correlation_congruence,
        neighbour_correlation,
        mmd,
        cka,
        lambda s, t, where=None: cka(s, t, estimator="debiased", where=where),
        info_nce,
        nt_xent,
        hinge_rank,
        lambda s, t, where=None: hinge_rank(s, t, negatives="all", where=where),
    ],
)
def test_holes_in_the_batch_are_as_if_cut_out(loss):
    student, teacher = _normal(0, (7, 3), (7, 3))
    dirty = [jnp.where(HOLES[:, None], x, jnp.nan) for x in (student, teacher)]
    graded = jax.jit(jax.value_and_grad(lambda s, t, where: loss(s, t, where=where)))
    value, gradient = graded(*dirty, HOLES)
    kept = np.flatnonzero(HOLES)
    wanted, cut = graded(student[kept], teacher[kept], None)
    np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient[kept], cut, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(gradient[~HOLES], 0)


def _hsic(k, other, debiased):
    """Song et al. (2012), equation 5, or the biased estimate, as they are written."""
    n = len(k)
    if not debiased:
        centre = np.eye(n) - 1 / n
        return np.trace(k @ centre @ other @ centre)
    k, other = (m - np.diag(np.diag(m)) for m in (k, other))
    one = np.ones(n)
    first = np.trace(k @ other) + (one @ k @ one) * (one @ other @ one) / ((n - 1) * (n - 2))
    return (first - 2 / (n - 2) * (one @ k @ other @ one)) / (n * (n - 3))


@pytest.mark.parametrize("estimator", ["biased", "debiased"])
def test_cka_is_what_its_papers_write(estimator):
    x, y = (np.asarray(z, np.float64) for z in _normal(1, (9, 3), (9, 5)))
    k, other, debiased = x @ x.T, y @ y.T, estimator == "debiased"
    below = _hsic(k, k, debiased) * _hsic(other, other, debiased)
    wanted = _hsic(k, other, debiased) / np.sqrt(below)
    got = cka_similarity(
        jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), estimator=estimator
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_the_debiased_cka_of_strangers_is_near_zero():
    x, y = _normal(2, (20, 200), (20, 200))
    assert float(cka_similarity(x, y)) > 0.8
    assert abs(float(cka_similarity(x, y, estimator="debiased"))) < 0.15
    with pytest.raises(ValueError, match="at least 4 rows"):
        cka(x[:3], y[:3], estimator="debiased")


def test_the_default_bandwidth_forgets_the_scale():
    x, y = _normal(3, (6, 3), (6, 4))
    wanted = cka(x, y, kernel="rbf")
    np.testing.assert_allclose(cka(100 * x, 0.01 * y, kernel="rbf"), wanted, rtol=1e-4)


def test_rkd_leaves_out_what_weighs_nothing():
    student, teacher = _normal(4, (5, 3), (5, 3))
    graph = str(jax.make_jaxpr(lambda s: rkd(s, teacher, angle_weight=0.0))(student))
    assert "[5,5,5]" not in graph
    assert float(rkd(student, teacher, distance_weight=0, angle_weight=0)) == 0


def test_contrast_by_hand():
    student, teacher, bank = _normal(5, (4, 3), (4, 3), (6, 3))
    s, t, b = (
        np.asarray(x) / np.linalg.norm(x, axis=1, keepdims=True) for x in (student, teacher, bank)
    )

    def mean_loss(scores, own):
        return np.mean(np.log(np.exp(scores).sum(1)) - own)

    own = (s * t).sum(1) / 0.5
    got = info_nce(student, teacher, temperature=0.5, negatives=bank)
    scores = np.concatenate([s @ t.T, s @ b.T], axis=1) / 0.5
    np.testing.assert_allclose(got, mean_loss(scores, own), rtol=1e-5)
    every = np.concatenate([s, t])
    scores = every @ every.T / 0.5
    np.fill_diagonal(scores, -np.inf)
    got = nt_xent(student, teacher, temperature=0.5)
    np.testing.assert_allclose(got, mean_loss(scores, np.concatenate([own, own])), rtol=1e-5)


def test_the_hinge_pairs_the_two_halves_and_masks_tokens():
    tokens, videos = _normal(6, (4, 3, 5), (4, 5))
    mask = jnp.array([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0]])
    unit = [x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (tokens, videos)]
    other = jnp.roll(unit[1], 2, axis=0)
    hinge = 1 - jnp.sum(unit[0] * unit[1][:, None], -1) + jnp.sum(unit[0] * other[:, None], -1)
    wanted = jnp.sum(jnp.maximum(hinge, 0) * mask.astype(jnp.float32)) / 8
    np.testing.assert_allclose(hinge_rank(tokens, videos, where=mask), wanted, rtol=1e-5)


def _unit(*arrays):
    return [x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in arrays]


def test_banks_are_calibrated_once_and_updated_where_it_counts():
    student, teacher = _unit(*_normal(7, (3, 4), (3, 4)))
    bank = crd_bank(jax.random.key(0), 20, 4)
    index, where = jnp.array([3, 7, 11]), jnp.array([True, False, True])
    rows = crd_negatives(jax.random.key(1), index, bank, count=5)
    whole = crd_calibrate(bank, student, teacher, rows, where=where)
    kept = jnp.array([0, 2])
    cut = crd_calibrate(bank, student[kept], teacher[kept], rows[kept])
    np.testing.assert_allclose(whole.log_z, cut.log_z, rtol=1e-5)
    again = crd_calibrate(whole, 2 * student, teacher, rows)
    np.testing.assert_array_equal(again.log_z, whole.log_z)
    empty = crd_calibrate(bank, student, teacher, rows, where=jnp.zeros(3, bool))
    assert not bool(empty.calibrated)

    dirty = jnp.where(where[:, None], student, jnp.nan)
    new = crd_update(whole, dirty, teacher, index, where=where)
    changed = np.flatnonzero((new.student != bank.student).any(1))
    assert changed.tolist() == [3, 11]
    wanted = bank.student[3] + student[0]
    np.testing.assert_allclose(new.student[3], wanted / jnp.linalg.norm(wanted), rtol=1e-5)


def test_no_gradient_reaches_the_banks():
    student, teacher = _unit(*_normal(8, (2, 4), (2, 4)))
    bank = crd_bank(jax.random.key(0), 20, 4)
    rows = crd_negatives(jax.random.key(1), jnp.array([0, 1]), bank, count=3)

    def loss(memory, student):
        own = bank._replace(student=memory, teacher=memory)
        return crd(student, teacher, crd_calibrate(own, student, teacher, rows), rows).sum()

    banks, ours = jax.jit(jax.grad(loss, argnums=(0, 1)))(bank.student, student)
    assert not banks.any()
    assert ours.any()


def test_a_teacher_that_is_too_wrong_is_not_believed():
    labels = jnp.array([0, 1])
    teacher = jnp.array(
        [[9.0, 0, 0], [5, 0, 0], [0, 5, 0], [-5, 5, 0], [0, 9, 0], [0, 5, 0], [5, 0, 0], [5, 0, 0]]
    )
    # The labels of the copies rank first, second, third; first, second, second (ties by index).
    (student,) = _normal(9, (8, 3))
    copies = jnp.array([1, 2, 3, 5, 6, 7])
    gap = jnp.exp(jax.nn.log_softmax(teacher)) * (
        jax.nn.log_softmax(teacher) - jax.nn.log_softmax(student)
    )
    each = gap.sum(1)[copies]
    for share, kept in (
        (0.0, [0, 3]),
        (0.5, [0, 3, 1, 4]),
        (0.75, [0, 3, 1, 4, 5]),
        (1.0, range(6)),
    ):
        got = sskd_transformed(student, teacher, labels, temperature=1.0, keep_wrong=share)
        np.testing.assert_allclose(got, each[jnp.array(list(kept))].mean(), rtol=1e-5)


def test_an_image_counts_if_all_its_views_do():
    student, teacher = _normal(10, (12, 3), (12, 3))
    where = jnp.ones(12, bool).at[5].set(False)
    kept = np.r_[0:4, 8:12]
    for value, cut in (
        (
            sskd_similarity(student, teacher, where=where),
            sskd_similarity(student[kept], teacher[kept]),
        ),
        (sskd_pretext(student, where=where), sskd_pretext(student[kept])),
    ):
        np.testing.assert_allclose(value, cut, rtol=1e-5)


def test_the_interpolated_bound_has_its_ends_the_right_way_round():
    scores, baseline = _normal(11, (6, 6), (6,))
    got = mi_alpha_bound(scores, baseline, alpha=0.0)
    np.testing.assert_allclose(got, tuba_bound(scores, baseline), rtol=1e-5)
    f = np.asarray(scores, np.float64)
    n = len(f)
    total = [
        f[i, i] - np.log(np.mean([np.exp(f[i, k]) for k in range(n) if k != j]))
        for i in range(n)
        for j in range(n)
        if i != j
    ]
    np.testing.assert_allclose(leave_one_out_bound(scores), np.mean(total), rtol=1e-5)
    np.testing.assert_allclose(
        mi_alpha_bound(scores, baseline, alpha=1.0), np.mean(total), rtol=1e-5
    )
    slope = jax.grad(lambda a: mi_alpha_bound(scores, baseline, alpha=a))(0.3)
    assert jnp.isfinite(slope)


@pytest.mark.parametrize("alpha", [0.05, 0.5, 1.0])
def test_the_interpolated_bound_stays_under_its_ceiling(alpha):
    scores = 30 * jnp.eye(8)
    bound = float(mi_alpha_bound(scores, jnp.zeros(8), alpha=alpha))
    assert bound <= np.log(8 / alpha) + 1e-4


def test_bounds_find_the_information_of_gaussians():
    rho, width, n = 0.6, 3, 400
    s, noise = _normal(12, (n, width), (n, width))
    t = rho * s + (1 - rho**2) ** 0.5 * noise
    true = -width / 2 * np.log(1 - rho**2)
    gap = t[None, :, :] - rho * s[:, None, :]
    log_conditional = -jnp.sum(gap**2, -1) / 2 / (1 - rho**2) - width / 2 * np.log(1 - rho**2)
    ratio = log_conditional + jnp.sum(t**2, -1)[None, :] / 2
    for bound in (jax.jit(nwj_bound)(ratio + 1), jax.jit(leave_one_out_bound)(ratio)):
        assert abs(float(bound) - true) < 0.15


def test_hopeless_scores_leave_bound_and_gradient_finite():
    scores = 400 * _normal(13, (5, 5))[0]
    for bound in (nwj_bound, lambda f: tuba_bound(f, jnp.zeros(5)), leave_one_out_bound):
        value, gradient = jax.jit(jax.value_and_grad(bound))(scores)
        assert jnp.isfinite(value)
        assert jnp.isfinite(gradient).all()


def test_angles_of_many_examples_are_taken_part_by_part(monkeypatch):
    draw = np.random.default_rng(0).standard_normal
    student, teacher = (jnp.asarray(draw((24, width)), jnp.float32) for width in (5, 3))
    where = jnp.arange(24) < 19
    slope = jax.value_and_grad(lambda s: rkd_angle(s, teacher, where=where))
    whole = slope(student)
    monkeypatch.setattr(relations, "_AT_ONCE", 24 * 32 * 6)
    assert relations._parts(24, 24 * 32) == 4
    parts = jax.jit(slope)(student)
    for ours, theirs in zip(parts, whole, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-8)


def test_angles_of_256_examples_fit_in_64_mib():
    rows = jax.ShapeDtypeStruct((256, 64), jnp.float32)
    made = jax.jit(jax.value_and_grad(rkd_angle)).lower(rows, rows).compile()
    assert made.memory_analysis().temp_size_in_bytes < 64 * 2**20
