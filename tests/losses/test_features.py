"""What the losses on features, attention and layers do beyond the contract of all losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from jaxdistill.losses._geometry import pool
from jaxdistill.losses.activations import overhaul_margin
from jaxdistill.losses.attention import attention_kl, attention_mse, qkv_relations
from jaxdistill.losses.factors import factor_transfer, kta
from jaxdistill.losses.features import feature_match, hint
from jaxdistill.losses.generative import channel_mask, mgd
from jaxdistill.losses.grams import affinity, fsp, fsp_matrix, token_gram
from jaxdistill.losses.layers import layer_map, transport_masses, transport_plan


def _normal(seed, *shapes):
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def test_axis_names_what_is_reduced():
    student, teacher = _normal(0, (2, 3, 4), (2, 3, 4))
    moved = [jnp.moveaxis(x, -1, 1) for x in (student, teacher)]
    for options in ({}, {"normalise": "l2", "distance": "l1"}, {"normalise": "layer_norm"}):
        last = feature_match(student, teacher, **options)
        assert last.shape == (2, 3)
        np.testing.assert_allclose(feature_match(*moved, axis=1, **options), last, rtol=1e-5)
    whole = feature_match(student, teacher, axis=(1, 2))
    np.testing.assert_allclose(whole, hint(student, teacher).mean(1), rtol=1e-5)


def test_one_side_may_be_whitened_alone():
    student, teacher = _normal(1, (4, 6), (4, 6))
    options = {"normalise": "layer_norm", "epsilon": 0.0}
    alone = feature_match(student, teacher, sides="teacher", **options)
    white = (teacher - teacher.mean(1, keepdims=True)) / teacher.std(1, keepdims=True)
    np.testing.assert_allclose(alone, hint(student, white), rtol=1e-4)


def test_another_width_names_the_projector():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) and \(2, 3, 8\); a linear projector"):
        hint(jnp.zeros((2, 3, 4)), jnp.zeros((2, 3, 8)))
    with pytest.raises(ValueError, match="a projector that also resizes"):
        hint(jnp.zeros((2, 4, 4, 3)), jnp.zeros((2, 2, 2, 3)))


def test_an_unknown_option_names_the_nearest():
    x = jnp.zeros((2, 3))
    with pytest.raises(ValueError, match="did you mean 'layer_norm'"):
        feature_match(x, x, normalise="layernorm")
    with pytest.raises(ValueError, match="did you mean 'smooth_l1'"):
        feature_match(x, x, distance="smooth")


@pytest.mark.parametrize(("size", "bins"), [(8, 4), (5, 3), (7, 2), (2, 4)])
def test_pooling_has_the_bins_of_adaptive_pooling(size, bins):
    (x,) = _normal(2, (1, size, size, 2))
    cuts = [(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]
    for how, reduce in (("average", np.mean), ("max", np.max)):
        wanted = [[reduce(x[:, a:b, c:d], axis=(1, 2)) for c, d in cuts] for a, b in cuts]
        got = jnp.moveaxis(pool(x, bins, bins, how), 0, 2)
        np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_affinity_builds_no_matrix_but_equals_it():
    with jax.enable_x64(True):
        student, teacher = (x.astype(jnp.float64) for x in _normal(3, (2, 3, 3, 4), (2, 3, 3, 4)))
        student = student.at[0, :, :, 1].set(0.0)

        def matrices(x):
            x = jnp.swapaxes(x.reshape(2, 9, 4), 1, 2)
            norm = jnp.linalg.norm(x, axis=2, keepdims=True)
            x = x / jnp.where(norm > 0, norm, 1)
            return x[..., :, None] * x[..., None, :] / 9

        gap = matrices(student) - matrices(teacher)
        wanted = jnp.sqrt(jnp.sum(gap**2, axis=(2, 3))).sum(1)
        np.testing.assert_allclose(affinity(student, teacher), wanted, rtol=1e-12)


def test_kta_is_factor_transfer_at_its_defaults():
    student, teacher = _normal(4, (3, 2, 2, 5), (3, 2, 2, 5))
    np.testing.assert_allclose(kta(student, teacher), factor_transfer(student, teacher), rtol=1e-6)
    one = kta(student, teacher, p=3, q=1)
    unit = [x.reshape(3, -1) / jnp.abs(x).sum((1, 2, 3))[:, None] for x in (student, teacher)]
    wanted = np.linalg.norm(unit[0] - unit[1], ord=3, axis=1)
    np.testing.assert_allclose(one, wanted, rtol=1e-5)


def test_the_overhaul_margin_is_a_conditional_mean():
    scale, bias = jnp.array([1.0, 0.5, 2.0]), jnp.array([0.3, -4.0, 1.0])
    wanted = [
        scipy.stats.truncnorm.mean(-np.inf, -b / s, loc=b, scale=s)
        for s, b in zip(np.asarray(scale), np.asarray(bias), strict=True)
    ]
    np.testing.assert_allclose(overhaul_margin(scale, bias), wanted, rtol=1e-4)
    assert overhaul_margin(jnp.zeros(2), jnp.array([1.0, -1.0])).tolist() == [0.0, -1.0]


def test_channel_masks_hide_whole_channels():
    mask = channel_mask(jax.random.key(0), (50, 3, 3, 40), rate=0.25)
    assert mask.shape == (50, 1, 1, 40)
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert abs(float(mask.mean()) - 0.75) < 0.05


MASK = jnp.array([[True, True, False], [True, True, False]])


def _with_garbage(x, axes):
    for axis in axes:
        index = [slice(None)] * x.ndim
        index[axis] = 2
        x = x.at[tuple(index)].set(jnp.nan)
    return x


@pytest.mark.parametrize("loss", [attention_mse, attention_kl])
def test_masked_tokens_leave_the_attention_losses(loss):
    student, teacher = _normal(5, (2, 4, 3, 3), (2, 4, 3, 3))
    cut = loss(student[:, :, :2, :2], teacher[:, :, :2, :2])
    dirty = [_with_garbage(x, (2, 3)) for x in (student, teacher)]
    graded = jax.jit(jax.value_and_grad(lambda s: loss(s, dirty[1], mask=MASK).sum()))
    values, gradient = graded(dirty[0])
    np.testing.assert_allclose(values, cut.sum(), rtol=1e-5)
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("kind", ["kl", "mse"])
def test_masked_tokens_leave_the_relations(kind):
    student = tuple(_normal(6, *[(2, 3, 4)] * 3))
    teacher = tuple(_normal(7, *[(2, 3, 6)] * 3))

    def total(student, teacher, mask):
        return qkv_relations(student, teacher, heads=2, kind=kind, mask=mask).sum()

    cut = jax.jit(total)(*(tuple(x[:, :2] for x in side) for side in (student, teacher)), None)
    dirty = [tuple(_with_garbage(x, (1,)) for x in side) for side in (student, teacher)]
    value, gradient = jax.jit(jax.value_and_grad(total))(*dirty, MASK)
    np.testing.assert_allclose(value, cut, rtol=1e-5)
    assert all(bool(jnp.isfinite(g).all()) for g in gradient)


def test_relations_need_whole_heads_unless_told():
    qkv = tuple(_normal(8, *[(1, 3, 7)] * 3))
    with pytest.raises(ValueError, match="multiple of 3 heads"):
        qkv_relations(qkv, qkv, heads=3)
    cut = tuple(x[..., :6] for x in qkv)
    whole = qkv_relations(qkv, (qkv[1], qkv[0], qkv[2]), heads=3, truncate=True)
    np.testing.assert_allclose(whole, qkv_relations(cut, (cut[1], cut[0], cut[2]), heads=3))
    with pytest.raises(ValueError, match="unknown relation 'qx'"):
        qkv_relations(cut, cut, heads=3, relations=("qx",))


def test_masked_tokens_leave_the_grams():
    student, teacher = (tuple(_normal(seed, (2, 3, 4), (2, 3, 4))) for seed in (9, 10))
    for loss in (fsp, token_gram):
        cut = loss(*(tuple(x[:, :2] for x in side) for side in (student, teacher)))
        dirty = [tuple(_with_garbage(x, (1,)) for x in side) for side in (student, teacher)]
        np.testing.assert_allclose(loss(*dirty, mask=MASK), cut, rtol=1e-5)
    with pytest.raises(ValueError, match="as many positions"):
        fsp_matrix(jnp.zeros((1, 3, 2)), jnp.zeros((1, 4, 2)))


def test_hidden_tokens_alone_may_count():
    student, teacher = _normal(11, (2, 3, 4), (2, 3, 4))
    mask = jnp.array([[True, False, False], [True, True, True]])
    values = mgd(student, teacher, mask=mask)
    np.testing.assert_allclose(values[0], jnp.sum((student - teacher)[0, 0] ** 2), rtol=1e-6)
    np.testing.assert_allclose(values[1], mgd(student, teacher)[1], rtol=1e-6)


def test_layer_maps():
    assert layer_map(3, 12) == (0, 4, 8, 12)
    assert layer_map(5, 12, states="block") == (1, 3, 6, 8, 11)
    assert layer_map(3, 12, rule="last", states="block") == (9, 10, 11)
    assert layer_map(4, 4) == (0, 1, 2, 3, 4)
    with pytest.raises(ValueError, match="student of 13 layers"):
        layer_map(13, 12)


def test_transport_moves_the_masses_at_the_least_cost():
    (cost,) = _normal(12, (4, 4))
    cost = jnp.abs(cost)
    plan = transport_plan(cost, regularisation=0.01, iterations=300)
    np.testing.assert_allclose(plan.sum(0), 0.25, rtol=1e-5)
    np.testing.assert_allclose(plan.sum(1), 0.25, rtol=1e-2)
    rows, columns = scipy.optimize.linear_sum_assignment(np.asarray(cost))
    least = float(cost[rows, columns].mean())
    assert least - 1e-3 <= float(jnp.sum(plan * cost)) <= 1.02 * least
    scaled = transport_plan(100 * cost, regularisation=0.01, iterations=300)
    np.testing.assert_allclose(scaled, plan, atol=1e-4)


def test_cheap_layers_gain_mass():
    cost = jnp.array([[1.0, 3.0], [2.0, 6.0], [4.0, 12.0]])
    student, teacher = transport_masses(jnp.full((3, 2), 1 / 6), cost)
    np.testing.assert_allclose([student.sum(), teacher.sum()], 1.0, rtol=1e-6)
    assert student[0] > student[1] > student[2]
    assert teacher[0] > teacher[1]
    weighted = transport_plan(cost, student_mass=student, teacher_mass=teacher)
    np.testing.assert_allclose(weighted.sum(0), teacher, rtol=1e-5)
