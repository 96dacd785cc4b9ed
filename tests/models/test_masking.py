"""Patches, positions and maskings against slow, plain constructions."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import models


def test_patchify_takes_patches_row_by_row():
    images = np.random.default_rng(0).normal(size=(2, 6, 4, 3))
    patches = models.patchify(jnp.asarray(images, jnp.float32), 2)
    expected = [
        [
            images[b, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].ravel()
            for row in range(3)
            for column in range(2)
        ]
        for b in range(2)
    ]
    np.testing.assert_allclose(patches, np.stack(expected), rtol=1e-6)


def test_unpatchify_inverts_patchify_of_oblong_images():
    images = jnp.arange(2 * 6 * 4 * 3, dtype=jnp.float32).reshape(2, 6, 4, 3)
    again = models.unpatchify(models.patchify(images, 2), 2, 6, 4, 3)
    np.testing.assert_array_equal(again, images)


def test_positions_have_column_before_row_and_sine_before_cosine():
    width, rows, columns = 8, 2, 3
    positions = models.sincos_positions(width, (rows, columns), cls_token=True)
    assert positions.dtype == np.float32
    np.testing.assert_array_equal(positions[0], 0)
    for row in range(rows):
        for column in range(columns):
            waves = [
                wave(place / 10000 ** (i / 2))
                for place in (column, row)
                for wave in (math.sin, math.cos)
                for i in range(2)
            ]
            found = positions[1 + row * columns + column]
            np.testing.assert_allclose(found, waves, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(
        models.sincos_positions(width, (rows, columns)), positions[1:], strict=True
    )


def test_lowest_noise_stays_in_its_order():
    noise = jnp.array([[0.3, 0.9, 0.1, 0.2], [0.5, 0.4, 0.6, 0.7]])
    keep, mask = models.mask_from_noise(noise, 0.5)
    assert (keep.dtype, mask.dtype) == (jnp.int32, jnp.float32)
    np.testing.assert_array_equal(keep, [[2, 3], [1, 0]])
    np.testing.assert_array_equal(mask, [[1, 1, 0, 0], [0, 0, 1, 1]])


def test_masks_are_those_of_published_code():
    path = pathlib.Path(__file__).parents[1] / "goldens" / "random_masking_g2sd.npz"
    with np.load(path, allow_pickle=False) as stored:
        given = {name: stored[name] for name in stored.files if name != "meta"}
    keep, mask = models.mask_from_noise(jnp.asarray(given["in__noise"]), 0.75)
    np.testing.assert_array_equal(mask, given["out__mask"])
    seen = np.take_along_axis(given["in__x"], np.asarray(keep)[:, :, None], axis=1)
    np.testing.assert_array_equal(seen, given["out32__x_masked"])
    # The published code keeps the first of a shuffle that it can undo.
    np.testing.assert_array_equal(np.argsort(given["out__ids_restore"], axis=1)[:, :4], keep)


@pytest.mark.parametrize(
    ("tokens", "ratio", "visible"),
    [(196, 0.75, 49), (196, 0.95, 9), (196, 0.98, 3), (20, 0.8, 3), (30, 0.9, 2), (9, 0.0, 9)],
)
def test_number_of_visible_patches(tokens, ratio, visible):
    masking = jax.eval_shape(lambda key: models.random_masking(key, 2, tokens, ratio), _key())
    assert masking.keep.shape == (2, visible)


def test_random_masking_differs_between_images_and_covers_all_patches():
    keep, mask = models.random_masking(_key(), 256, 8, 0.5)
    assert all(len(set(row)) == 4 for row in np.asarray(keep).tolist())
    assert len({tuple(row) for row in np.asarray(mask).tolist()}) > 50
    np.testing.assert_allclose(mask.mean(axis=0), 0.5, atol=0.15)


def test_reconstruction_shows_predictions_where_patches_were_removed():
    image = jax.random.uniform(_key(), (1, 4, 4, 2))
    mask = jnp.array([[0.0, 1.0, 1.0, 0.0]])
    pixels = jnp.full((1, 4, 8), 2.0)
    original, masked, drawn = models.reconstruction(pixels, image, mask, 2, blank=-1.0)
    np.testing.assert_array_equal(original, image)
    np.testing.assert_array_equal(drawn[0, :2, :2], image[0, :2, :2])
    np.testing.assert_array_equal(drawn[0, :2, 2:], 2.0)
    np.testing.assert_array_equal(masked[0, 2:, :2], -1.0)


def test_normalized_predictions_come_back_as_pixels():
    image = jax.random.uniform(_key(), (2, 4, 4, 3))
    patches = np.asarray(models.patchify(image, 2), np.float64)
    deviation = np.sqrt(patches.var(axis=-1, ddof=1, keepdims=True) + 1e-6)
    pixels = jnp.asarray((patches - patches.mean(axis=-1, keepdims=True)) / deviation, jnp.float32)
    drawn = models.reconstruction(pixels, image, jnp.ones((2, 4)), 2, normalized=True)
    np.testing.assert_allclose(drawn.reconstructed, image, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.patchify(jnp.zeros((1, 9, 8, 3)), 4), "9x8.*patches of 4"),
        (lambda: models.patchify(jnp.zeros((8, 8, 3)), 4), r"\(8, 8, 3\)"),
        (
            lambda: models.unpatchify(jnp.zeros((1, 3, 48)), 4, 8, 8, 3),
            r"\[B, 4, 48\].*\(1, 3, 48\)",
        ),
        (lambda: models.sincos_positions(6, (2, 2)), "divisible by 4, not 6"),
        (lambda: models.mask_from_noise(jnp.zeros((1, 4)), 1.0), "1.0"),
        (lambda: models.mask_from_noise(jnp.zeros((1, 4)), 0.9), "0.9 keeps none of 4"),
        (
            lambda: models.reconstruction(
                jnp.zeros((1, 4, 12)), jnp.zeros((1, 4, 4, 3)), jnp.zeros((1, 3)), 2
            ),
            r"\(1, 3\)",
        ),
    ],
)
def test_bad_input_is_refused_with_both_numbers(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _key():
    return jax.random.key(0)
