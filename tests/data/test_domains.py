"""What a config may say of data has a domain, and is refused outside of it at once."""

import inspect
import math
import re

import jax
import numpy as np
import pytest

from jaxdistill import settings
from jaxdistill.data import augment, mixing, sources, split, views

IMAGES = np.zeros((2, 8, 8, 3), np.float32)
SOURCE = sources.arrays({"image": np.zeros((9, 8, 8, 3)), "label": np.arange(9) % 3})
KEYS = jax.random.split(jax.random.key(0), 2)
# Each with what the runner offers it, and what it needs from a config.
FUNCTIONS = {
    augment.random_resized_crop: ((), {"size": 4}),
    augment.random_crop: ((), {"padding": 1}),
    augment.shift: ((), {}),
    augment.flip: ((), {}),
    augment.greyscale: ((), {}),
    augment.color_jitter: ((), {}),
    augment.gaussian_blur: ((), {}),
    augment.solarise: ((), {}),
    augment.random_erasing: ((), {}),
    augment.resize: ((), {"size": 4}),
    augment.centre_crop: ((), {"size": 4}),
    augment.normalise: ((), {"mean": [0.5], "std": [1.0]}),
    mixing.mixup: ((KEYS, IMAGES), {}),
    mixing.partial_mixup: ((KEYS, IMAGES), {}),
    mixing.cutmix: ((KEYS, IMAGES), {}),
    mixing.mixup_or_cutmix: ((KEYS, IMAGES), {}),
    views.mixed: ((mixing.mixup, 3), {}),
    views.masked: ((), {"patch": 2, "ratio": 0.5}),
    views.masked_texts: ((10,), {"token": 3}),
    sources.photographs: ((), {"size": 200}),
    sources.image_folders: ((), {"dir": "nowhere", "image_size": 4}),
    sources.image_folder: (("nowhere",), {"image_size": 4}),
    sources.tfds: (("mnist",), {"data_dir": "nowhere"}),
    split.split: ((SOURCE, "train"), {}),
    split.splits: ((SOURCE,), {}),
    split.wrong_labels: ((SOURCE,), {"share": 0.5, "seed": 0}),
}
CASES = [(function, key) for function in FUNCTIONS for key in settings.keys(function)]


def test_every_operation_and_mix_is_tried():
    with_settings = {
        name
        for name in augment.__all__
        if inspect.isfunction(getattr(augment, name)) and settings.keys(getattr(augment, name))
    }
    assert with_settings <= {function.__name__ for function in FUNCTIONS}


@pytest.mark.parametrize(("function", "key"), CASES, ids=lambda c: getattr(c, "__name__", c))
def test_what_no_domain_holds_is_refused_by_name(function, key):
    domain = settings.keys(function)[key].annotation
    given, needed = FUNCTIONS[function]
    wrong = [math.nan, -1, "nonsense", [], 10**9 + 0.5, (math.inf, 1.0), {}]
    refused = [value for value in wrong if settings.fault(value, domain)]
    assert len(refused) >= 4
    for value in refused:
        with pytest.raises(ValueError, match=rf"^{function.__name__}: {key}=.* must|has"):
            function(*given, **{**needed, key: value})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: augment.random_resized_crop(size=4, scale=(0.5, 0.1)), "scale=(0.5, 0.1) must go"),
        (lambda: augment.random_resized_crop(size=4, ratio=(2, 1)), "ratio=(2, 1) must go"),
        (lambda: augment.random_erasing(ratio=(2.0, 1.0)), "ratio=(2.0, 1.0) must go from a lower"),
        (lambda: augment.gaussian_blur(sigma=(2.0, 1.0)), "sigma=(2.0, 1.0) must go"),
        (lambda: augment.normalise(mean=[0.5, 0.5], std=[1.0]), "must be of one length"),
        (lambda: augment.random_crop(padding=8)(KEYS[0], IMAGES[0]), "must be below the sides"),
        (lambda: sources.photographs(size=500), "size must lie in 1..427"),
        (lambda: views.masked_texts(10, token=10), "token=10 must lie in 0..9"),
        (
            lambda: views.masked(patch=4, ratio=0.9)({"image": IMAGES}, KEYS[0]),
            "keeps none of 4",
        ),
        (lambda: split.splits(SOURCE, validation=0.6, test=0.5), "leave something to train on"),
        (lambda: augment.flip(probability=1.5), "flip: probability=1.5 must be a number from 0 to"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(make, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        make()
