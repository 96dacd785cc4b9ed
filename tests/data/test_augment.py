"""A view is a function of key and image, replayed from eight bytes anywhere in a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.data import augment

OPERATIONS = {
    "random_resized_crop": augment.random_resized_crop(size=7),
    "random_crop": augment.random_crop(padding=3, mode="reflect"),
    "shift": augment.shift(pixels=2),
    "flip": augment.flip(),
    "color_jitter": augment.color_jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    "random_erasing": augment.random_erasing(probability=0.9),
    "resize": augment.resize(size=6),
    "centre_crop": augment.centre_crop(size=6),
    "normalise": augment.normalise(mean=[0.4, 0.5, 0.6], std=[0.2, 0.2, 0.3]),
    "greyscale": augment.greyscale(probability=0.5),
    "gaussian_blur": augment.gaussian_blur(),
    "solarise": augment.solarise(),
}


def pictures(n, side=9, channels=3):
    return np.random.default_rng(0).integers(0, 256, (n, side, side, channels), np.uint8)


def draw(operation, image, keys):
    return np.asarray(jax.jit(augment.views(operation))(keys, image))


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_view_is_replayed_bit_for_bit_from_its_seed_anywhere(name):
    view = jax.jit(augment.views(OPERATIONS[name]))
    images, keys = pictures(16), augment.view_keys(jax.random.key(1), 16)
    seeds = np.asarray(augment.seeds_of(keys))
    assert (seeds.dtype, seeds.nbytes) == (np.uint32, 16 * 8)
    whole = np.asarray(view(keys, images))
    assert whole.dtype == np.float32
    for chosen in ([11], [14, 2, 11]):
        again = np.asarray(view(augment.keys_of(seeds[chosen]), images[chosen]))
        np.testing.assert_array_equal(again, whole[chosen])


def test_a_chain_is_replayed_bit_for_bit_from_its_seeds():
    names = ("random_resized_crop", "flip", "color_jitter", "random_erasing", "normalise")
    view = jax.jit(augment.views(*(OPERATIONS[name] for name in names)))
    images, keys = pictures(16, 12), augment.view_keys(jax.random.key(2), 16)
    whole = np.asarray(view(keys, images))
    assert whole.shape == (16, 7, 7, 3)
    for chosen in ([0], [3, 15, 9, 4, 5]):
        again = np.asarray(view(keys[np.array(chosen)], images[chosen]))
        np.testing.assert_array_equal(again, whole[chosen])


def test_views_differ_between_keys_and_operations_of_a_chain():
    image = np.repeat(pictures(1), 8, 0)
    keys = augment.view_keys(jax.random.key(0), 8)
    assert len({view.tobytes() for view in draw(augment.random_crop(padding=4), image, keys)}) > 4
    flips = augment.views(augment.flip(), augment.flip())(keys, image)
    again = [(view == augment.to_float(image[0])).all() for view in flips]
    assert 0 < sum(map(bool, again)) < 8  # the second flip must not always undo the first


def test_keys_of_any_kind_give_seeds_of_eight_bytes():
    for key in (jax.random.PRNGKey(0), jax.random.key(0), jax.random.key(0, impl="rbg")):
        keys = augment.view_keys(key, 3)
        assert augment.seeds_of(keys).shape == (3, 2)
        round_trip = augment.keys_of(np.asarray(augment.seeds_of(keys)))
        assert (jax.random.key_data(round_trip) == jax.random.key_data(keys)).all()
    with pytest.raises(ValueError, match="threefry"):
        augment.seeds_of(jax.random.split(jax.random.key(0, impl="rbg"), 2))


def test_to_float():
    assert augment.to_float(np.array([255, 51], np.uint8)).tolist() == pytest.approx([1.0, 0.2])
    assert augment.to_float(jnp.ones(2, jnp.bfloat16)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert augment.to_float(np.ones(2)).dtype == jnp.float64
    with pytest.raises(TypeError, match="uint8 or floating, not int32"):
        augment.to_float(np.ones(2, np.int32))


def test_shift_moves_by_up_to_two_whole_pixels():
    image = np.zeros((200, 9, 9, 1), np.float32)
    image[:, 4, 4] = 1
    moved = draw(augment.shift(pixels=2), image, augment.view_keys(jax.random.key(0), 200))
    assert (moved.sum((1, 2, 3)) == 1).all()
    rows, columns = np.nonzero(moved[..., 0])[1:]
    assert set(rows) == set(columns) == {2, 3, 4, 5, 6}
    assert len(set(zip(rows, columns, strict=True))) == 25


def test_random_resized_crop_stays_inside_and_keeps_a_ramp_straight():
    ramp = np.tile(np.arange(16, dtype=np.float32)[:, None, None] / 15, (40, 1, 16, 1))
    keys = augment.view_keys(jax.random.key(0), 40)
    crops = draw(augment.random_resized_crop(size=5, scale=(0.1, 0.5)), ramp, keys)
    assert crops.min() >= 0
    assert crops.max() <= 1 + 1e-6
    steps = np.diff(crops[..., 0], axis=1)
    assert (steps > 0).all()
    inner = steps[:, 1:-1]
    assert np.abs(inner - inner.mean((1, 2), keepdims=True)).max() < 0.02
    whole = draw(augment.random_resized_crop(size=16, scale=(1, 1), ratio=(1, 1)), ramp, keys)
    np.testing.assert_allclose(whole, ramp, atol=1e-5)


def test_resize_is_that_of_jax():
    images = pictures(2)
    resized = draw(augment.resize(size=5), images, augment.view_keys(jax.random.key(0), 2))
    expected = jax.image.resize(images / np.float32(255), (2, 5, 5, 3), "bilinear")
    np.testing.assert_allclose(resized, expected, atol=1e-5)


def test_flip_mirrors_half_of_the_images():
    images = pictures(200)
    views = draw(augment.flip(), images, augment.view_keys(jax.random.key(0), 200))
    plain = np.asarray(augment.to_float(images))
    kept = (views == plain).all((1, 2, 3))
    assert (views[~kept] == plain[~kept][:, :, ::-1]).all()
    assert 70 < kept.sum() < 130


def test_random_erasing_fills_one_box_of_the_area_asked_for():
    images = np.ones((100, 20, 20, 3), np.float32)
    erase = augment.random_erasing(probability=1.0, scale=(0.1, 0.3), ratio=(0.5, 2.0), value=0.5)
    gone = draw(erase, images, augment.view_keys(jax.random.key(0), 100))[..., 0] == 0.5
    area = gone.mean((1, 2))
    assert area.min() > 0.07
    assert area.max() < 0.34
    box = gone.any(1)[:, None, :] & gone.any(2)[:, :, None]
    assert (box == gone).all()
    never = draw(
        augment.random_erasing(probability=0.0), images, augment.view_keys(jax.random.key(0), 100)
    )
    assert (never == images).all()


def test_color_jitter_changes_what_it_names_and_no_more():
    keys = augment.view_keys(jax.random.key(0), 4)
    images = pictures(4).astype(np.float32) / 510 + 0.25  # 0.25..0.75, so that nothing is cut
    luma = images @ np.array([0.299, 0.587, 0.114], np.float32)
    brighter = draw(augment.color_jitter(brightness=0.2), images, keys)
    ratio = brighter / images
    assert np.ptp(ratio, axis=(1, 2, 3)).max() < 1e-5
    assert len(np.unique(ratio[:, 0, 0, 0])) == 4
    greyer = draw(augment.color_jitter(saturation=0.3), images, keys)
    np.testing.assert_allclose(greyer @ np.array([0.299, 0.587, 0.114]), luma, atol=1e-5)
    flatter = draw(augment.color_jitter(contrast=0.3), images, keys)
    mean = flatter @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(mean.mean((1, 2)), luma.mean((1, 2)), atol=1e-5)
    turned = draw(augment.color_jitter(hue=0.5), images, keys)
    np.testing.assert_allclose(turned.max(-1), images.max(-1), atol=1e-5)
    np.testing.assert_allclose(turned.min(-1), images.min(-1), atol=1e-5)
    assert np.abs(turned - images).max() > 0.05


def test_a_third_of_a_turn_of_hue_moves_red_to_green():
    from jaxdistill.data.augment import _turn_hue

    red = jnp.array([[[1.0, 0.0, 0.0]]])
    np.testing.assert_allclose(_turn_hue(red, jnp.float32(1 / 3))[0, 0], [0, 1, 0], atol=1e-6)


def test_gaussian_blur_keeps_the_mean_and_spreads_a_point():
    point = np.zeros((1, 15, 15, 1), np.float32)
    point[0, 7, 7] = 1
    keys = augment.view_keys(jax.random.key(0), 1)
    blurred = draw(augment.gaussian_blur(sigma=(1.5, 1.5)), point, keys)
    assert blurred.sum() == pytest.approx(1, abs=1e-3)
    away = np.arange(15) - 7
    spread = (blurred[0, :, :, 0].sum(0) * away**2).sum()
    assert spread == pytest.approx(1.5**2, rel=0.05)


def test_normalise():
    images = pictures(2)
    keys = augment.view_keys(jax.random.key(0), 2)
    view = draw(augment.normalise(mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 4.0]), images, keys)
    np.testing.assert_allclose(view, (images / 255 - [0.1, 0.2, 0.3]) / [1, 2, 4], atol=1e-6)
    with pytest.raises(ValueError, match=r"mean=\[0.1, 0.2\] must be of the image's 3 channels"):
        draw(augment.normalise(mean=[0.1, 0.2], std=[1.0, 1.0]), images, keys)


def test_colours_of_a_grey_image_are_refused():
    keys = augment.view_keys(jax.random.key(0), 2)
    with pytest.raises(ValueError, match="3 channels, not 1"):
        draw(augment.color_jitter(hue=0.1), pictures(2, channels=1), keys)
    draw(augment.color_jitter(brightness=0.1), pictures(2, channels=1), keys)
    with pytest.raises(ValueError, match=r"hue=0.6"):
        augment.color_jitter(hue=0.6)


def test_gradients_pass_through_the_operations_that_blend():
    images = pictures(2).astype(np.float32) / 510 + 0.25
    view = augment.views(
        OPERATIONS["random_resized_crop"],
        augment.color_jitter(brightness=0.1, contrast=0.1, saturation=0.1),
    )
    keys = augment.view_keys(jax.random.key(0), 2)
    gradient = jax.jit(jax.grad(lambda x: (view(keys, x) ** 2).sum()))(images)
    step = np.random.default_rng(1).normal(size=images.shape).astype(np.float32) * 1e-2
    value = jax.jit(lambda x: (view(keys, x) ** 2).sum())
    change = (value(images + step) - value(images - step)) / 2
    assert float((gradient * step).sum()) == pytest.approx(float(change), rel=0.02)


MIXES = {
    "mixup": augment.mixup,
    "cutmix": augment.cutmix,
    "mixup_or_cutmix": augment.mixup_or_cutmix,
}


@pytest.mark.parametrize("name", MIXES)
def test_mixed_pairs_keep_the_mass_of_labels_and_pixels(name):
    # Image i is i everywhere, so that the mean of a mixed one tells its weight.
    images = np.tile(np.arange(16, dtype=np.float32)[:, None, None, None] / 16, (1, 8, 8, 1))
    labels = np.eye(16, dtype=np.float32)
    keys = augment.view_keys(jax.random.key(4), 16)
    mixed = jax.jit(MIXES[name])(keys, images, labels)
    np.testing.assert_allclose(mixed.labels.sum(1), 1, atol=1e-6)
    rows = np.arange(16)
    np.testing.assert_array_equal(mixed.partners, (rows + 1) % 16)
    np.testing.assert_allclose(mixed.labels[rows, rows], mixed.weights, atol=1e-6)
    weights = np.asarray(mixed.weights)
    expected = weights * rows / 16 + (1 - weights) * np.asarray(mixed.partners) / 16
    np.testing.assert_allclose(mixed.images.mean((1, 2, 3)), expected, atol=1e-5)
    assert len(np.unique(weights)) > 8


@pytest.mark.parametrize("name", MIXES)
def test_a_mixed_pair_is_replayed_bit_for_bit(name):
    mix = jax.jit(MIXES[name])
    images, keys = pictures(16), augment.view_keys(jax.random.key(4), 16)
    mixed = mix(keys, images)
    assert mixed.labels is None
    first = 13
    pair = np.array([first, int(mixed.partners[first])])
    again = mix(keys[pair], images[pair], partners=jnp.array([1, 0]))
    np.testing.assert_array_equal(again.images[0], mixed.images[first])
    assert again.weights[0] == mixed.weights[first]


def test_cutmix_pastes_one_box():
    images = np.tile(np.arange(8, dtype=np.float32)[:, None, None, None], (1, 10, 10, 1))
    mixed = augment.cutmix(augment.view_keys(jax.random.key(0), 8), images)
    for row, image in enumerate(np.asarray(mixed.images)[..., 0]):
        pasted = image != row
        assert (pasted == pasted.any(0)[None] & pasted.any(1)[:, None]).all()
        assert 1 - pasted.mean() == pytest.approx(float(mixed.weights[row]), abs=1e-6)
