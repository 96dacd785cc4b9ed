"""Mixing of pairs: against numbers of published code, and by what it must not change."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.data import mixing

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"


@pytest.mark.parametrize("name", ["fmu_mixkd", "pmu_mixkd"])
def test_pairs_are_blended_as_published(name):
    with np.load(GOLDENS / f"{name}.npz") as file:
        case = {key: file[key] for key in file.files}
    order, other = case["in__perm1"], case["in__perm2"]
    weights = case["in__a"][:, 0].astype(np.float64)
    if "in__ridx" in case:
        weights[case["in__ridx"]] = 1
    with jax.enable_x64(True):
        images = jnp.asarray(case["in__x"].astype(np.float64).transpose(0, 2, 3, 1))
        labels = jax.nn.one_hot(case["in__y"], 100, dtype=jnp.float64)
        # The first of a pair is the image itself; there both come from permutations.
        partners = jnp.asarray(np.argsort(order)[other])
        mixed = jax.jit(mixing.blended)(images[order], weights, labels[order], partners)
    for ours, theirs in (
        (mixed.images.transpose(0, 3, 1, 2), case["out__x_mix"]),
        (mixed.labels, case["out__target"]),
        (weights[:, None], case["out__a_used"]),
    ):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


IMAGES = np.random.default_rng(0).uniform(size=(40, 4, 4, 1)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(3), 40)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.33, 13), (0.9, 36), (1.0, 40)])
def test_as_many_images_stay_as_are_asked_for(share, count):
    mixed = jax.jit(lambda k, x: mixing.partial_mixup(k, x, plain=share, drawn="distinct"))
    found = mixed(KEYS, IMAGES)
    stayed = np.asarray((found.images == IMAGES).all((1, 2, 3)))
    assert stayed.sum() == count
    np.testing.assert_array_equal(found.weights == 1, stayed)


def test_drawn_with_replacement_fewer_images_stay():
    keys = jax.vmap(lambda key: jax.random.split(key, 40))(jax.random.split(KEYS[0], 2000))
    rows = jax.jit(jax.vmap(lambda k: mixing.plain_rows(k, 0.9)))(keys)
    counts = rows.sum(1)
    assert counts.max() <= 36
    # Of 36 draws out of 40: 1 - (1 - 1/40)^36 of the batch.
    np.testing.assert_allclose(counts.mean(), 40 * (1 - (1 - 1 / 40) ** 36), rtol=0.01)
    np.testing.assert_allclose(rows.mean(0), 1 - (1 - 1 / 40) ** 36, atol=0.05)


def test_mixing_all_but_none_is_mixup():
    labels = np.eye(40, dtype=np.float32)
    part = mixing.partial_mixup(KEYS, IMAGES, labels, alpha=0.5, plain=0.0)
    whole = mixing.mixup(KEYS, IMAGES, labels, alpha=0.5)
    for ours, theirs in zip(part, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_statistics_of_a_partner_move_no_content():
    maps = jax.random.normal(jax.random.key(0), (3, 5, 6, 2)) * 2 + 1
    for weights, whose in ((jnp.ones(3), maps), (jnp.zeros(3), jnp.roll(maps, -1, 0))):
        moved = mixing.mixed_statistics(maps, weights)
        np.testing.assert_allclose(moved.mean((1, 2)), whose.mean((1, 2)), atol=1e-5)
        np.testing.assert_allclose(moved.std((1, 2)), whose.std((1, 2)), rtol=1e-4)
        for own, other in zip(maps, moved, strict=True):
            assert np.corrcoef(own[..., 0].ravel(), other[..., 0].ravel())[0, 1] > 0.9999
    np.testing.assert_allclose(mixing.mixed_statistics(maps, jnp.ones(3)), maps, atol=1e-5)


def test_statistics_are_constants_to_the_gradient():
    maps = jax.random.normal(jax.random.key(1), (2, 3, 3, 1))
    weights = jnp.array([0.3, 0.6])
    spread = maps.std((1, 2), keepdims=True)
    moved = 0.3 * spread[0] + 0.7 * spread[1]
    gradient = jax.grad(lambda x: mixing.mixed_statistics(x, weights)[0].sum())(maps)
    np.testing.assert_allclose(gradient[0], jnp.full((3, 3, 1), moved / spread[0]), rtol=1e-4)
    np.testing.assert_array_equal(gradient[1], 0)
